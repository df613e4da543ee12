/* engine/running.c: memory in the middle of running text (answer events; long user text; text
 * without turns; what is read of a living stream): what to ask with, where the memory goes, what is
 * run again (semantics §4, §5).
 */
#include "engine/session.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
    INSERT_BACK_MAX = 256,   /* farthest back that a memory is inserted in mid-sentence */
    ANSWER_QUERY_TOKENS = 8, /* of running text in an answer event's query */
    TRY_AGAIN = 2,           /* tokens until an event that found nothing sure asks again */
    QUERY_BYTES_MIN = 20,    /* three or four words */
    SHORT_ANSWER = 8,        /* up to here the question stays in the query */
    STREAM_HITS = 8          /* that come back at once while a living stream is read */
};

/* In running text a half-said sentence finds many memories a little ("The mayor of" all mayors).
 * Below this score, or with a smaller lead over the second, the event stays open: the lookup is
 * repeated a little later, and at last takes the best that is enough. The lead was chosen on the
 * first 36 values of tests/unit/test_loop_stream.c (right memories led by 0.08 to 0.36, wrong ones
 * by 0.035 at most); over 102 values top-1 rose from 0.63 to 0.79, at 18.5 lookups per 100 tokens
 * instead of 14. Of 131 lookups with less than 16 bytes (`eval stream`, seed 5) 5 had a lead. */
static const float running_score_min = 0.6f;
static const float running_lead_min = 0.05f;

/* What is read of a living stream (engine/train/README.md, "What comes back"). */
static const float stream_score_min = 0.2f;

/* Where the sentence that is being said begins in text. */
static size_t sentence_begin(const char *text, size_t size)
{
    for (size_t i = size; i > 1; i--) {
        if (strchr(".!?", text[i - 2]) && strchr(" \n", text[i - 1])) {
            return i;
        }
    }
    return 0;
}

/* Append the text of the last `count` live tokens behind slot `first`, at most
 * SESSION_PROMPT_QUERY, from the begin of the sentence on: what an earlier sentence was about would
 * only mislead the search. *slot: where that text begins in the window. */
static base_status recent_text(engine_session *s, size_t first, size_t count, base_buffer *out,
                               size_t *slot, base_error *err)
{
    size_t ends[SESSION_PROMPT_QUERY], slots[SESSION_PROMPT_QUERY], tokens = 0;
    size_t end = splice_slots(&s->window), begin = end;
    base_buffer text = {0};
    base_status status = BASE_OK;
    BASE_ASSERT(count <= SESSION_PROMPT_QUERY);
    while (begin > first && count > 0) {
        begin--;
        count -= core_token(s->window.stream, begin) >= 0;
    }
    for (size_t i = begin; i < end && !status; i++) {
        int32_t id = core_token(s->window.stream, i);
        if (id >= 0) {
            status = tokenizer_decode(s->e->tokenizer, id, false, &text);
            ends[tokens] = text.size;
            slots[tokens++] = i;
        }
    }
    size_t from = status ? 0 : sentence_begin(text.data, text.size), i = 0;
    while (i < tokens && ends[i] <= from) {
        i++;
    }
    *slot = i < tokens ? slots[i] : end;
    if (!status && text.size > 0) {
        status = base_buffer_append(out, text.data + from, text.size - from);
    }
    base_buffer_free(&text);
    return status ? base_fail(err, status, "no memory for a query") : BASE_OK;
}

/* Before the user turn, or 256 slots back if that is farther; in text without turns before the
 * sentence that is being said, whose first slot is given: as if it had just been said. Never inside
 * a header or a memory. */
static size_t insertion_point(const engine_session *s, size_t sentence)
{
    size_t end = splice_slots(&s->window);
    size_t at = s->question ? s->memory_at : sentence;
    if (end - at > INSERT_BACK_MAX) {
        at = end - INSERT_BACK_MAX;
    }
    at = at > s->header_at && at < s->answer_at ? s->header_at : at;
    size_t begin = core_slots_begin(s->window.stream);
    return splice_beside(&s->window, at > begin ? at : begin);
}

/* What to ask memory with in running text: what is being said, in short answers behind what was
 * asked; a question that memory knew nothing of would only dilute it. *slot: where what is being
 * said begins. */
static base_status running_query(engine_session *s, bool in_answer, base_buffer *query,
                                 size_t *slot, base_error *err)
{
    size_t said = splice_slots(&s->window) - s->answer_at;
    if (!in_answer || !s->question) {
        return recent_text(s, s->memory_at, SESSION_PROMPT_QUERY, query, slot, err);
    }
    if (said <= SHORT_ANSWER && s->answer->best_score >= running_score_min) {
        base_status status = base_buffer_printf(query, "%s ", s->question);
        if (status) {
            return base_fail(err, status, "no memory for a query");
        }
    }
    return recent_text(s, s->answer_at, ANSWER_QUERY_TOKENS, query, slot, err);
}

/* A memory came in: the last tokens are run again; of a short answer to a question all, with its
 * header; of text without turns all that stands behind the memory. */
static base_status run_tail_again(engine_session *s, bool in_answer, engine_event *event,
                                  base_error *err)
{
    size_t end = splice_slots(&s->window);
    bool tail = !in_answer || !s->question || end - s->answer_at >= SESSION_TAIL;
    size_t from = !tail ? s->header_at : s->question && end > SESSION_TAIL ? end - SESSION_TAIL : 0;
    from = from > s->memory_at ? from : s->memory_at;
    /* In a bounded window a memory may lie behind that: it goes behind the sinks at least. */
    from = from > splice_behind(&s->window) ? from : splice_behind(&s->window);
    if (from == end) {
        return BASE_OK;
    }
    double begin = base_clock_ms();
    base_status status = splice_run_again(&s->window, from, s->logits, err);
    event->splice_ms += base_clock_ms() - begin;
    s->answer->splice_ms += base_clock_ms() - begin;
    s->answer->rerun_tokens += end - from;
    return status;
}

/* What came back for earlier sentences of a living stream leaves, but for `keep`: it would be
 * copied in place of what the window says, or of what comes now. */
static void evict_others(engine_session *s, uint64_t keep, size_t *sentence)
{
    for (size_t i = s->window.resident_count; session_lives(s) && i-- > 0;) {
        if (s->window.residents[i].episode != keep) {
            session_evict(s, i, sentence);
        }
    }
}

/* Does the window hold the best hit's text, or as much of what is asked? */
static base_status window_says(const engine_session *s, const base_buffer *query,
                               const retrieval_hit *best, bool *says, base_error *err)
{
    *says = session_lived_visible(s, best->id);
    return *says || best->relevance < running_score_min
               ? BASE_OK
               : session_lived_says(s, query->data, query->size, best->id, says, err);
}

/* The sentence that is being said goes on from the window alone. */
static base_status leave_to_window(engine_session *s, size_t sentence, base_error *err)
{
    size_t before = s->window.resident_count;
    evict_others(s, 0, &sentence);
    return s->window.resident_count < before && sentence < splice_slots(&s->window)
               ? splice_run_again(&s->window, sentence, s->logits, err)
               : BASE_OK;
}

static const splice_resident *resident_at(const engine_session *s, size_t slot)
{
    for (size_t i = 0; i < s->window.resident_count; i++) {
        if (s->window.residents[i].at == slot) {
            return &s->window.residents[i];
        }
    }
    return NULL;
}

/* Where an episode of this stream stood: behind the sinks, and behind what was said before it;
 * others by their age. */
static size_t place_in_stream(const engine_session *s, uint64_t episode)
{
    size_t at = core_slots_begin(s->window.stream);
    const splice_resident *there;
    while ((there = resident_at(s, at)) && there->episode < episode) {
        at += there->count;
    }
    return at;
}

/* While a living stream is read: what has left its window and is like the sentence under way comes
 * back to where it stood, the best last. Only what follows sees it: nothing is run again. */
static base_status recall_stream(engine_session *s, const retrieval_hit *hits, size_t count,
                                 engine_event *event, base_error *err)
{
    size_t chosen[STREAM_HITS], chosen_count = 0, spliced = 0;
    for (size_t i = 0, left = STREAM_HITS; i < count && left > 0; i++) {
        float least = session_lived_own(s, hits[i].id) ? stream_score_min : running_score_min;
        if (hits[i].relevance >= least && !session_lived_visible(s, hits[i].id)) {
            left--;
            chosen[chosen_count] = i;
            chosen_count += !splice_find(&s->window, hits[i].id);
        }
    }
    base_status status = BASE_OK;
    double begin = base_clock_ms();
    while (chosen_count > 0 && !status) {
        const retrieval_hit *hit = &hits[chosen[--chosen_count]];
        size_t at = place_in_stream(s, hit->id);
        status = session_splice_one(s, hit, &at, event, &spliced, err);
    }
    event->splice_ms += base_clock_ms() - begin;
    s->answer->splice_ms += base_clock_ms() - begin;
    return status;
}

base_status session_recall_here(engine_session *s, bool in_answer, float entropy, base_error *err)
{
    base_buffer query = {0};
    retrieval_hit hits[SESSION_HITS_MAX];
    size_t hit_count = 0, spliced = 0, sentence;
    engine_event *event = NULL;
    base_status status = running_query(s, in_answer, &query, &sentence, err);
    if (!status && query.size < QUERY_BYTES_MIN && innovation_again(&s->innovation, 1)) {
        goto done; /* too little is said yet to ask with */
    }
    if (status ||
        (status = session_event(s, in_answer, entropy, query.data, query.size, &event, err)) ||
        (status = session_look_up(s, query.data, query.size, hits, &hit_count, SESSION_HITS_MAX,
                                  &event->query_ms, err))) {
        goto done;
    }
    if (!in_answer && session_lives(s)) {
        status = recall_stream(s, hits, hit_count, event, err);
        goto done;
    }
    bool found = hit_count > 0 && hits[0].relevance >= running_score_min, says = false;
    if (hit_count > 0 && (status = window_says(s, &query, &hits[0], &says, err))) {
        goto done;
    }
    if (says) {
        status = leave_to_window(s, sentence, err);
        goto done;
    }
    bool leads = found && (hit_count == 1 || hits[0].score - hits[1].score >= running_lead_min ||
                           splice_find(&s->window, hits[0].id));
    if (!leads && innovation_again(&s->innovation, TRY_AGAIN)) {
        goto done;
    }
    if (found) {
        evict_others(s, hits[0].id, &sentence);
        status = session_splice(s, hits, hit_count, 1, insertion_point(s, sentence), event,
                                &spliced, err);
    }
    if (spliced > 0 && !status) {
        status = run_tail_again(s, in_answer, event, err);
    }
done:
    base_buffer_free(&query);
    return status;
}
