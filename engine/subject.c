/* engine/subject.c: which of the notes that were found speak of what the question names, and now.
 *
 * "Who coaches Leeds?" finds "The coach of Burnley is Hale", too, and a small reader takes Hale
 * where nothing better is there. So where a note names most of what the question names, notes of
 * other pages that do not are left out: the reader then has a note that answers, or one by which it
 * sees that nothing does. Where no note names it, nothing is left out: it may be called otherwise.
 * Where the question names a number ("PEP 376", "the 2.14 line") and a note holds it, only such
 * notes and what else their documents say are read.
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
    const char *number, *kind; /* "PEP 376", "2.14": NULL = none; kind: the word before, or NULL */
    size_t number_size, kind_size;
} names;

/* Words of the question that begin with a capital (its first word does in any case), and the first
 * number in it that is an identifier: it has parts, or such a word before it. lower: the question
 * in small letters. */
static void find_names(const char *question, const base_buffer *lower, names *out)
{
    const char *word, *before = NULL;
    size_t at = 0, size, before_size = 0;
    bool first = true;
    while (out->count < NAMES_MAX &&
           session_words_next(lower->data, lower->size, &at, &word, &size)) {
        bool digit = *word >= '0' && *word <= '9', parts = memchr(word, '.', size) != NULL;
        bool capital = session_words_is_capital(question + (word - lower->data)) &&
                       !session_words_is_function(word, size) && !session_words_is_date(word, size);
        if (!out->number && digit && !session_words_is_date(word, size) &&
            (parts || (before && word == before + before_size + 1))) {
            out->number = word;
            out->number_size = size;
            out->kind = parts ? NULL : before;
            out->kind_size = before_size;
        }
        if (!first && capital && size > 1) {
            out->list[out->count].word = word;
            out->list[out->count++].size = size;
        }
        before = capital ? word : NULL;
        before_size = size;
        first = false;
    }
}

/* Up to three parts of a version (".4.11", what stands behind "2.14") as one number that orders
 * them. */
static uint64_t parts_behind(const char *at, size_t size)
{
    enum { PARTS = 3, PART_MAX = 1 << 20 };
    uint64_t order = 0;
    size_t i = 0;
    for (int part = 0; part < PARTS; part++) {
        uint64_t value = 0;
        i += i < size && at[i] == '.';
        for (; i < size && at[i] >= '0' && at[i] <= '9'; i++) {
            value = value < PART_MAX / 10 ? 10 * value + (uint64_t)(at[i] - '0') : value;
        }
        order = order * PART_MAX + value;
    }
    return order;
}

/* Does text hold the question's number, or one with more parts, behind the same word? *order: the
 * largest such number. */
static bool holds_number(const names *n, const base_buffer *text, uint64_t *order)
{
    const char *word;
    size_t at = 0, size;
    bool behind = n->kind == NULL, held = false;
    *order = 0;
    while (n->number && session_words_next(text->data, text->size, &at, &word, &size)) {
        if (behind && size >= n->number_size && memcmp(word, n->number, n->number_size) == 0 &&
            (size == n->number_size || word[n->number_size] == '.')) {
            uint64_t here = parts_behind(word + n->number_size, size - n->number_size);
            *order = here > *order ? here : *order;
            held = true;
        }
        behind = !n->kind || (size == n->kind_size && memcmp(word, n->kind, size) == 0);
    }
    return held;
}

/* What a hit's episode says of the question. */
typedef struct view {
    size_t names;      /* of the question's that its text and title hold */
    uint64_t words;    /* bit i: the question's i-th word of content, or one of its stem */
    bool says;         /* one of these is no name */
    bool numbered;     /* it holds the question's identifier */
    uint64_t version;  /* the largest number of that line, as one that orders them */
    uint64_t document; /* 0: it was forgotten meanwhile */
    int64_t observed_us;
    float *vector; /* [dim], NULL = none */
    /* of a page, cut before " — " (or " - "), where it names its section; NULL = none: what
     * somebody says bears one title whatever it is about */
    char *title;
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
        out->numbered = holds_number(n, &text, &out->version);
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
    if (*episode.title && episode.kind == STORE_DOCUMENT) {
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

/* Of one line of versions the larger, else what was observed later. */
static bool is_later(const view *newer, const view *older)
{
    return newer->version != older->version ? newer->version > older->version
                                            : newer->observed_us > older->observed_us;
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
           is_later(newer, older) && newer->vector && older->vector &&
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
    bool held[SESSION_HITS_MAX], of_subject[SESSION_HITS_MAX];
    size_t latest[SESSION_HITS_MAX];
    bool named = false, numbered = false;
    bool now = s->options.arm == ENGINE_ARM_FULL && !names_a_time(s);
    for (size_t i = 0; i < count; i++) {
        numbered = numbered || (views[i].numbered && session_may_splice(s, NULL, &hits[i]));
    }
    for (size_t i = 0; i < count; i++) {
        held[i] = !numbered;
        for (size_t j = 0; j < count && !held[i]; j++) {
            held[i] = views[j].numbered && views[i].document == views[j].document;
        }
        named = named ||
                (held[i] && 2 * views[i].names > n->count && session_may_splice(s, NULL, &hits[i]));
    }
    for (size_t i = 0; i < count; i++) {
        of_subject[i] = held[i] && !named;
        for (size_t j = 0; j < count && held[i] && !of_subject[i]; j++) {
            of_subject[i] =
                held[j] && 2 * views[j].names > n->count && of_one_page(&views[i], &views[j]);
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
