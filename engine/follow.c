/* engine/follow.c: one memory names what the next is about.
 *
 * "In which country is the firm that employs Ada?": the first lookup finds "Ada works for Brill".
 * Then memory is asked for what the question still wants of what the last note named: the words of
 * the question that no note of the chain holds, with the last note's words that are not of it. On
 * mquake's tuning half (54 questions of four hops) the whole chain is found so in 0.44 of them;
 * asking with question and note together, 0.04.
 *
 * Before the answer a note joins the chain where words show that it goes on: it holds a word that
 * the question still wants and the name that the last note brought up, and names nothing that the
 * question names. Where the reader says that the notes do not say, which is innovation too (memory
 * was consulted and did not predict the answer), the best note that the lookup finds joins it.
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

/* What a chain of notes is compared by. */
typedef struct chain_text {
    base_buffer question, notes, last; /* lower-cased; notes: of all, with titles; last: its text */
    base_buffer last_written;          /* the last one's text as it is written */
    bool statement;                    /* the last one is a note of its own */
} chain_text;

/* Is an episode all of a note, or half of it, and one statement? A passage of a longer page speaks
 * of much, and shares words with what has nothing to do with it. */
static base_status is_statement(const engine_session *s, const store_episode *episode,
                                const base_buffer *text, bool *yes, base_error *err)
{
    enum { EPISODES_MAX = 2 };
    uint64_t *ids = NULL;
    size_t count = 0;
    *yes = false;
    if (!session_words_is_short(text)) {
        return BASE_OK;
    }
    base_status status = store_document_episodes(s->options.store, episode->document,
                                                 episode->version, &ids, &count, err);
    base_free(ids);
    *yes = !status && count <= EPISODES_MAX;
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static void free_text(chain_text *t)
{
    base_buffer_free(&t->question);
    base_buffer_free(&t->notes);
    base_buffer_free(&t->last);
    base_buffer_free(&t->last_written);
}

static base_status read_chain(const engine_session *s, chain_text *t, base_error *err)
{
    base_status status = append_lower(&t->question, s->question, strlen(s->question));
    for (size_t i = 0; i < s->chain.count && !status; i++) {
        store_episode episode;
        status = store_get(s->options.store, s->chain.ids[i], &episode, err);
        if (status) {
            status = status == BASE_NOT_FOUND ? BASE_OK : status; /* forgotten meanwhile */
            continue;
        }
        base_buffer_clear(&t->last);
        base_buffer_clear(&t->last_written);
        if (!(status = session_words_append_note(&t->notes, &episode)) &&
            !(status = base_buffer_append(&t->last_written, episode.text, episode.text_size))) {
            status = append_lower(&t->last, episode.text, episode.text_size);
        }
        if (!status) {
            status = is_statement(s, &episode, &t->last, &t->statement, err);
        }
        store_episode_free(&episode);
    }
    return status == BASE_NO_MEMORY ? base_fail(err, status, "no memory for a query") : status;
}

static base_status follow_query(const chain_text *t, base_buffer *query, base_error *err)
{
    base_status status = BASE_OK;
    if (t->last.size > 0 && !(status = append_new_words(&t->question, 0, &t->notes, true, query))) {
        status = append_new_words(&t->last, base_list_number_size(t->last.data, t->last.size),
                                  &t->question, false, query);
    }
    return status ? base_fail(err, status, "no memory for a query") : BASE_OK;
}

/* --- what a question still wants, before it is answered --------------------------------------- */

/* A word of the question that no note of the chain holds, and that `in` holds (NULL: any). */
static bool wants(const chain_text *t, const base_buffer *in)
{
    const char *word;
    size_t at = 0, size;
    while (session_words_next(t->question.data, t->question.size, &at, &word, &size)) {
        if (!session_words_ask_nothing(word, size) &&
            !session_words_hold_stem(&t->notes, word, size) &&
            (!in || session_words_hold_stem(in, word, size))) {
            return true;
        }
    }
    return false;
}

/* Is the word, as it is written, a name: begins with a capital or a digit? */
static bool is_name(const char *written, const char *word, size_t size)
{
    bool digit = *written >= '0' && *written <= '9';
    return (session_words_is_capital(written) || digit) && !session_words_is_function(word, size) &&
           !session_words_is_date(word, size);
}

/* Is the word one of the first of a text: of its subject ("the rugby union was ...")? */
static bool begins_with(const base_buffer *text, const char *word, size_t size)
{
    enum { SUBJECT_WORDS = 4 };
    const char *other;
    size_t at = 0, other_size;
    for (int i = 0;
         i < SUBJECT_WORDS && session_words_next(text->data, text->size, &at, &other, &other_size);
         i++) {
        if (other_size == size && memcmp(other, word, size) == 0) {
            return true;
        }
    }
    return false;
}

/* Does `text` speak of what the last note brought up: hold a name of it, or begin with the word
 * that it ends in? */
static bool speaks_of(const chain_text *t, const base_buffer *text)
{
    size_t at = base_list_number_size(t->last.data, t->last.size), size;
    const char *word;
    bool linked = false, last = false;
    while (session_words_next(t->last.data, t->last.size, &at, &word, &size)) {
        bool name = is_name(t->last_written.data + (word - t->last.data), word, size);
        bool held = !session_words_is_function(word, size) &&
                    !session_words_hold(&t->question, word, size) &&
                    session_words_hold(text, word, size);
        linked = linked || (name && held);
        last = held && begins_with(text, word, size);
    }
    return linked || last;
}

/* Does `text` name what the question names? Then it is no step away from it, but says more of the
 * same: the first lookup has weighed it. */
static bool names_the_same(const engine_session *s, const chain_text *t, const base_buffer *text)
{
    const char *word;
    size_t at = 0, size;
    bool first = true; /* a question begins with a capital */
    while (session_words_next(t->question.data, t->question.size, &at, &word, &size)) {
        if (!first && is_name(s->question + (word - t->question.data), word, size) &&
            session_words_hold(text, word, size)) {
            return true;
        }
        first = false;
    }
    return false;
}

/* Does a note go on from the chain: it speaks of what the last one named, and holds a word that the
 * question still wants? */
static base_status goes_on(const engine_session *s, const chain_text *t, uint64_t id, bool *yes,
                           base_error *err)
{
    store_episode episode;
    base_buffer text = {0};
    *yes = false;
    base_status status = store_get(s->options.store, id, &episode, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    if (!(status = session_words_append_note(&text, &episode)) && speaks_of(t, &text) &&
        wants(t, &text) && !names_the_same(s, t, &text)) {
        status = is_statement(s, &episode, &text, yes, err);
    }
    store_episode_free(&episode);
    base_buffer_free(&text);
    return status == BASE_NO_MEMORY ? base_fail(err, status, "no memory for a note") : status;
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

/* Look up what the last note of the chain names: one event. *found: *hit is new, and joined it. */
static base_status follow(engine_session *s, bool refused, retrieval_hit *hit, bool *found,
                          base_error *err)
{
    engine_event *event;
    base_buffer query = {0};
    chain_text t = {0};
    retrieval_hit hits[K];
    size_t count = 0;
    *found = false;
    base_status status = read_chain(s, &t, err);
    bool leads = t.statement && (refused || wants(&t, NULL));
    if (!status && leads && !(status = follow_query(&t, &query, err)) && query.size > 0 &&
        !(status = session_event(s, refused, 0, query.data, query.size, &event, err))) {
        status = session_look_up(s, query.data, query.size, hits, &count, K, &event->query_ms, err);
    }
    size_t other = count; /* behind a refusal, what does not go on is tried all the same */
    for (size_t i = 0; i < count && !status && !*found; i++) {
        if (!hits[i].asks && !in_chain(s, hits[i].id) && session_may_splice(s, NULL, &hits[i])) {
            other = other < count ? other : i;
            *hit = hits[i];
            status = goes_on(s, &t, hits[i].id, found, err);
        }
    }
    if (!status && refused && !*found && other < count) {
        *hit = hits[other];
        *found = true;
    }
    base_buffer_free(&query);
    free_text(&t);
    if (!status && *found) {
        s->chain.ids[s->chain.count++] = hit->id;
    }
    return status;
}

/* Evict all memories that are not of the chain. */
static void keep_chain(engine_session *s)
{
    for (size_t i = s->window.resident_count; i-- > 0;) {
        if (!in_chain(s, s->window.residents[i].episode)) {
            session_evict(s, i, NULL);
        }
    }
}

bool session_may_follow(const engine_session *s)
{
    return session_recalls(s) && !s->options.no_follow &&
           s->options.trigger != ENGINE_TRIGGER_ONCE && !session_lives(s);
}

base_status session_follow_chain(engine_session *s, bool refused, bool layout_b, size_t *count,
                                 base_error *err)
{
    retrieval_hit hits[SESSION_FOLLOWS_MAX];
    size_t spliced, memories_max = s->options.memories_max, first_event = s->answer->event_count;
    bool found = true;
    base_status status = BASE_OK;
    *count = 0;
    while (s->chain.count <= SESSION_FOLLOWS_MAX && found && !status) {
        status = follow(s, refused, &hits[*count], &found, err);
        *count += found;
    }
    if (status || *count == 0) {
        return status;
    }
    if (refused) {
        session_drop_answer(s);
        splice_watch(&s->window, false);
        splice_truncate(&s->window, layout_b ? s->memory_at : s->header_at);
    }
    keep_chain(s);
    s->options.memories_max = 1 + SESSION_FOLLOWS_MAX;
    for (size_t i = 0; i < *count && !status; i++) {
        size_t at = layout_b ? s->memory_at : splice_slots(&s->window);
        status = session_splice(s, &hits[i], 1, 1, at, &s->answer->events[first_event + i],
                                &spliced, err);
    }
    s->options.memories_max = memories_max;
    return status;
}
