/* engine/subject.c: notes that speak of what the question names.
 *
 * "Who coaches Leeds?" finds "The coach of Burnley is Hale", too, and a small reader takes Hale
 * where nothing better is there. So where a note names most of what the question names, notes of
 * other documents that do not are left out: the reader then has a note that answers, or one by which
 * it sees that nothing does. Where no note names it, nothing is left out: it may be called otherwise.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/session.h"
#include "engine/words.h"

enum { NAMES_MAX = 16 };

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

/* How many of the names an episode's text and title hold; 0 when it was forgotten meanwhile. */
static base_status count_names(const engine_session *s, uint64_t id, const names *n, size_t *held,
                               uint64_t *document, base_error *err)
{
    store_episode episode;
    base_buffer text = {0};
    *held = 0;
    *document = 0;
    base_status status = store_get(s->options.store, id, &episode, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    *document = episode.document;
    if (!(status = session_words_append_note(&text, &episode))) {
        for (size_t i = 0; i < n->count; i++) {
            *held += session_words_hold(&text, n->list[i].word, n->list[i].size);
        }
    }
    store_episode_free(&episode);
    base_buffer_free(&text);
    return status ? base_fail(err, status, "no memory for a note") : BASE_OK;
}

base_status session_keep_subject(engine_session *s, retrieval_hit *hits, size_t *count,
                                 base_error *err)
{
    names n = {0};
    base_buffer lower = {0};
    size_t held[SESSION_HITS_MAX], kept = 0;
    uint64_t documents[SESSION_HITS_MAX];
    bool keep[SESSION_HITS_MAX] = {false};
    const retrieval_hit *best = session_best_hit(hits, *count);
    bool named = false;
    base_status status = base_buffer_append_text(&lower, s->question);
    if (status) {
        return base_fail(err, status, "no memory for a question");
    }
    session_words_lower(&lower);
    find_names(s->question, &lower, &n);
    for (size_t i = 0; i < *count && n.count > 0 && !status; i++) {
        status = count_names(s, hits[i].id, &n, &held[i], &documents[i], err);
        named = named || (2 * held[i] > n.count && session_may_splice(s, best, &hits[i]));
    }
    for (size_t i = 0; i < *count && named && !status; i++) {
        for (size_t j = 0; j < *count; j++) {
            keep[i] = keep[i] || (2 * held[j] > n.count && documents[i] == documents[j]);
        }
    }
    for (size_t i = 0; i < *count && named && !status; i++) {
        if (keep[i]) {
            hits[kept++] = hits[i];
        }
    }
    if (named && !status) {
        *count = kept;
    }
    base_buffer_free(&lower);
    return status;
}
