/* engine/subject.c: which of the notes that were found speak of what the question names, and now.
 *
 * "Who coaches Leeds?" finds "The coach of Burnley is Hale", too, and a small reader takes Hale
 * where nothing better is there. So where a note names most of what the question names, notes of
 * other pages that do not are left out: the reader then has a note that answers, or one by which it
 * sees that nothing does. Where no note names it, nothing is left out: it may be called otherwise.
 *
 * And of notes that answer alike ("the password of the depot is X", "today the password of the
 * depot became Y") only the latest is read, unless the question says when.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/kernels.h"
#include "engine/session.h"
#include "engine/words.h"
#include "retrieval/rank.h"

enum { NAMES_MAX = 16 };
static const float ALIKE_COSINE = 0.45f; /* other wordings of one statement: 0.45 to 0.85 */

typedef struct names {
    struct {
        const char *word; /* in the lower-cased question */
        size_t size;
    } list[NAMES_MAX];
    size_t count;
} names;

/* Months and days are written like names, but say when. */
static bool is_date_word(const char *word, size_t size)
{
    static const char *const list[] = {"january",  "february", "march",    "april",     "may",
                                       "june",     "july",     "august",   "september", "october",
                                       "november", "december", "monday",   "tuesday",   "wednesday",
                                       "thursday", "friday",   "saturday", "sunday"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (strlen(list[i]) == size && memcmp(list[i], word, size) == 0) {
            return true;
        }
    }
    return false;
}

/* Words of the question that begin with a capital; its first word does in any case. lower: the
 * question in small letters. */
static void find_names(const char *question, const base_buffer *lower, names *out)
{
    const char *word;
    size_t at = 0, size;
    bool first = true;
    while (out->count < NAMES_MAX &&
           session_words_next(lower->data, lower->size, &at, &word, &size)) {
        bool capital = session_words_is_capital(question + (word - lower->data));
        if (!first && capital && size > 1 && !session_words_is_function(word, size) &&
            !is_date_word(word, size)) {
            out->list[out->count].word = word;
            out->list[out->count++].size = size;
        }
        first = false;
    }
}

/* What a hit's episode says of the question. */
typedef struct view {
    size_t names;      /* of the question's that its text and title hold */
    uint64_t words;    /* bit i: the question's i-th word of content, or one of its stem */
    bool says;         /* one of these is no name */
    uint64_t document; /* 0: it was forgotten meanwhile */
    int64_t observed_us;
    float *vector; /* [dim], NULL = none */
    char *title;   /* cut before " — " (or " - "), where a page names its section; NULL = none */
    bool is_short;
} view;

static base_status look_at(const engine_session *s, uint64_t id, const base_buffer *question,
                           const names *n, view *out, base_error *err)
{
    store_episode episode;
    base_buffer text = {0};
    const char *word;
    size_t at = 0, size, bit = 0;
    base_status status = store_get(s->options.store, id, &episode, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    out->document = episode.document;
    out->observed_us = episode.observed_at_us;
    if (!(status = session_words_append_note(&text, &episode))) {
        out->is_short = session_words_is_short(&text);
        for (size_t i = 0; i < n->count; i++) {
            out->names += session_words_hold(&text, n->list[i].word, n->list[i].size);
        }
        while (bit < 64 && session_words_next(question->data, question->size, &at, &word, &size)) {
            if (!session_words_ask_nothing(word, size)) {
                bool held = session_words_hold_stem(&text, word, size), name = false;
                for (size_t i = 0; i < n->count; i++) {
                    name = name || n->list[i].word == word;
                }
                out->words |= (uint64_t)held << bit++;
                out->says = out->says || (held && !name);
            }
        }
    }
    if (episode.vector_dim == encoder_dim(s->e->encoder)) {
        out->vector = episode.vector;
        episode.vector = NULL;
    }
    if (*episode.title) {
        char *dash = strstr(episode.title, " \xe2\x80\x94 ");
        dash = dash ? dash : strstr(episode.title, " - ");
        if (dash) {
            *dash = '\0';
        }
        out->title = episode.title;
        episode.title = NULL;
    }
    store_episode_free(&episode);
    base_buffer_free(&text);
    return status ? base_fail(err, status, "no memory for a note") : BASE_OK;
}

static bool of_one_page(const view *a, const view *b)
{
    return a->document == b->document || (a->title && b->title && strcmp(a->title, b->title) == 0);
}

/* Do two notes answer the question alike, and `newer` is the later one? Both are one statement,
 * near each other as texts, name what the question names, and the newer one holds all of the
 * question's words that the older one does, some besides names. No verdict for the store: words
 * alone do not tell what replaces what, but an answer that holds now is the later one's. */
static bool says_it_later(const engine_session *s, const names *n, const view *newer,
                          const view *older)
{
    return newer->is_short && older->is_short && older->says && newer->names == older->names &&
           (n->count == 0 || 2 * newer->names > n->count) && (older->words & ~newer->words) == 0 &&
           newer->observed_us > older->observed_us && newer->vector && older->vector &&
           kernel_get()->dot(newer->vector, older->vector, encoder_dim(s->e->encoder)) >=
               ALIKE_COSINE;
}

/* Does the question say when? Then it may want the older one. */
static bool names_a_time(const engine_session *s)
{
    retrieval_times times = {0};
    retrieval_times_add_text(&times, s->question, strlen(s->question));
    return times.interval_count > 0 || times.year_count > 0 ||
           s->options.about_us != BASE_TIME_NONE;
}

static void choose(const engine_session *s, const names *n, const view *views,
                   const retrieval_hit *hits, size_t count, bool *keep)
{
    const retrieval_hit *best = NULL;
    bool of_subject[SESSION_HITS_MAX] = {false};
    size_t latest[SESSION_HITS_MAX];
    bool named = false, now = s->options.arm == ENGINE_ARM_FULL && !names_a_time(s);
    for (size_t i = 0; i < count; i++) {
        named = named || (2 * views[i].names > n->count && session_may_splice(s, NULL, &hits[i]));
    }
    for (size_t i = 0; i < count; i++) {
        of_subject[i] = !named;
        for (size_t j = 0; j < count && !of_subject[i]; j++) {
            of_subject[i] = 2 * views[j].names > n->count && of_one_page(&views[i], &views[j]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        latest[i] = i;
        for (size_t j = 0; j < count && now && of_subject[i]; j++) {
            bool later = of_subject[j] && session_may_splice(s, NULL, &hits[j]) &&
                         says_it_later(s, n, &views[j], &views[latest[i]]);
            latest[i] = later ? j : latest[i];
        }
        best = best || !of_subject[i] || latest[i] != i || hits[i].asks ? best : &hits[i];
    }
    for (size_t i = 0; i < count; i++) { /* only what will be read itself replaces another */
        keep[i] =
            of_subject[i] && (latest[i] == i || !session_may_splice(s, best, &hits[latest[i]]));
    }
}

base_status session_keep_subject(engine_session *s, retrieval_hit *hits, size_t *count,
                                 base_error *err)
{
    names n = {0};
    base_buffer question = {0};
    view views[SESSION_HITS_MAX] = {{0}};
    bool keep[SESSION_HITS_MAX];
    size_t kept = 0;
    base_status status = base_buffer_append_text(&question, s->question);
    if (status) {
        return base_fail(err, status, "no memory for a question");
    }
    session_words_lower(&question);
    find_names(s->question, &question, &n);
    for (size_t i = 0; i < *count && !status; i++) {
        status = look_at(s, hits[i].id, &question, &n, &views[i], err);
    }
    if (!status) {
        choose(s, &n, views, hits, *count, keep);
        for (size_t i = 0; i < *count; i++) {
            if (keep[i]) {
                hits[kept++] = hits[i];
            }
        }
    }
    for (size_t i = 0; i < *count; i++) {
        base_free(views[i].vector);
        base_free(views[i].title);
    }
    *count = status ? *count : kept;
    base_buffer_free(&question);
    return status;
}
