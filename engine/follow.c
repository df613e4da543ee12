/* engine/follow.c: one memory names what the next is about.
 *
 * "In which country is the firm that employs Ada?": the first lookup finds "Ada works for Brill".
 * The reader says that the notes do not say, which is innovation too: memory was consulted and did
 * not predict the answer. Before that stands, memory is asked for what the question still wants of
 * what the last note named: the question's words that no note of the chain holds, with the last
 * note's words that are not the question's. On mquake's tuning half (54 questions of four hops)
 * the whole chain is found in 0.44 of them; asking with question and note together, 0.04.
 */
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "engine/session.h"
#include "engine/words.h"

enum { K = 16 };

/* Append text (lower-cased) to out. */
static base_status append_lower(base_buffer *out, const char *text, size_t size)
{
    base_status status = base_buffer_append(out, text, size);
    session_words_lower(out);
    return status;
}

/* Append the words of text from `at` on that `known` does not hold. */
static base_status append_new_words(const base_buffer *text, size_t at, const base_buffer *known,
                                    bool function_words, base_buffer *out)
{
    const char *word;
    size_t length;
    base_status status = BASE_OK;
    while (!status && session_words_next(text->data, text->size, &at, &word, &length)) {
        if ((function_words || !session_words_is_function(word, length)) &&
            !session_words_hold(known, word, length)) {
            status = base_buffer_append(out, word, length);
            status = status ? status : base_buffer_append_text(out, " ");
        }
    }
    return status;
}

static base_status follow_query(const engine_session *s, base_buffer *query, base_error *err)
{
    base_buffer question = {0}, notes = {0}, last = {0};
    base_status status = append_lower(&question, s->question, strlen(s->question));
    for (size_t i = 0; i < s->chain.count && !status; i++) {
        store_episode episode;
        status = store_get(s->options.store, s->chain.ids[i], &episode, err);
        if (status) {
            status = status == BASE_NOT_FOUND ? BASE_OK : status; /* forgotten meanwhile */
            continue;
        }
        base_buffer_clear(&last);
        if (!(status = append_lower(&last, episode.text, episode.text_size)) &&
            !(status = base_buffer_append(&notes, last.data, last.size))) {
            status = base_buffer_append_text(&notes, " ");
        }
        store_episode_free(&episode);
    }
    if (!status && last.size > 0 &&
        !(status = append_new_words(&question, 0, &notes, true, query))) {
        status = append_new_words(&last, base_list_number_size(last.data, last.size), &question,
                                  false, query);
    }
    base_buffer_free(&question);
    base_buffer_free(&notes);
    base_buffer_free(&last);
    return status == BASE_NO_MEMORY ? base_fail(err, status, "no memory for a query") : status;
}

static bool in_chain(const engine_session *s, uint64_t episode)
{
    for (size_t i = 0; i < s->chain.count; i++) {
        if (s->chain.ids[i] == episode) {
            return true;
        }
    }
    return false;
}

base_status session_follow(engine_session *s, retrieval_hit *hit, bool *found, base_error *err)
{
    engine_event *event;
    base_buffer query = {0};
    retrieval_hit hits[K];
    size_t count = 0;
    *found = false;
    base_status status = follow_query(s, &query, err);
    if (!status && query.size > 0 &&
        !(status = session_event(s, true, 0, query.data, query.size, &event, err))) {
        status = session_look_up(s, query.data, query.size, hits, &count, K, &event->query_ms, err);
    }
    for (size_t i = 0; i < count && !status && !*found; i++) {
        *found = !hits[i].asks && !in_chain(s, hits[i].id) && session_may_splice(s, NULL, &hits[i]);
        *hit = hits[i];
    }
    base_buffer_free(&query);
    if (!status && *found) {
        s->chain.ids[s->chain.count++] = hit->id;
    }
    return status;
}

void session_keep_chain(engine_session *s)
{
    for (size_t i = s->window.resident_count; i-- > 0;) {
        if (!in_chain(s, s->window.residents[i].episode)) {
            session_evict(s, i, NULL);
        }
    }
}
