/* engine/recall.c: from a query text to keys and values in the window (semantics §4, §5).
 *
 * A query is encoded, looked up, ranked (retrieval/), and the best episodes that are not resident
 * are spliced, strongest nearest to what follows them. Budget: so many residents and slots; the
 * weakest by strength x use gives way.
 */
#include "engine/session.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

/* Nats: twice the weight, the most that semantics §2 allows. */
static const float boost_behind_turns = 0.6931f;

bool session_recalls(const engine_session *s)
{
    return s->options.store &&
           (s->options.arm == ENGINE_ARM_STATIC || s->options.arm == ENGINE_ARM_FULL);
}

base_status session_event(engine_session *s, bool in_answer, float score, const char *query,
                          size_t query_size, engine_event **event, base_error *err)
{
    engine_answer *answer = s->answer;
    if (answer->event_count == s->event_capacity) {
        size_t capacity = s->event_capacity ? 2 * s->event_capacity : 16;
        engine_event *grown = base_realloc(answer->events, capacity * sizeof *grown);
        if (!grown) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for the trace");
        }
        answer->events = grown;
        s->event_capacity = capacity;
    }
    engine_event *e = &answer->events[answer->event_count];
    *e = (engine_event){.at_token = answer->token_count,
                        .in_answer = in_answer,
                        .score = score,
                        .threshold = s->innovation.threshold,
                        .query = base_strndup(query, query_size)};
    if (!e->query) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for the trace");
    }
    answer->event_count++;
    *event = e;
    return BASE_OK;
}

/* Hits of several queries become one list, best first, each episode once. */
static void merge_hit(retrieval_hit *hits, size_t *count, size_t max, const retrieval_hit *hit)
{
    size_t at = *count;
    for (size_t i = 0; i < *count; i++) {
        if (hits[i].id == hit->id) {
            if (hits[i].score >= hit->score) {
                return;
            }
            memmove(hits + i, hits + i + 1, (*count - i - 1) * sizeof *hits);
            at = --*count;
            break;
        }
    }
    while (at > 0 && hits[at - 1].score < hit->score) {
        at--;
    }
    if (at == max) {
        return;
    }
    size_t keep = *count < max ? *count : max - 1;
    memmove(hits + at + 1, hits + at, (keep - at) * sizeof *hits);
    hits[at] = *hit;
    *count = keep + 1;
}

base_status session_look_up(engine_session *s, const char *query, size_t query_size,
                            retrieval_hit *hits, size_t *count, size_t max, double *ms,
                            base_error *err)
{
    enum { K = SESSION_HITS_MAX };
    retrieval_hit found[K];
    size_t found_count = 0;
    double begin = base_clock_ms();
    base_status status =
        s->options.query_hidden
            ? engine_hidden_vector(s->e, query, query_size, s->query_vector, err)
            : encoder_encode(s->e->encoder, query, query_size, s->query_vector, err);
    if (!status) {
        retrieval_query q = {.text = query,
                             .text_size = query_size,
                             .vector = s->query_vector,
                             .now_us = s->options.now_us,
                             .as_of_us = s->options.as_of_us,
                             .about_us = s->options.about_us,
                             .k = K,
                             .use_strength = s->options.arm == ENGINE_ARM_FULL,
                             .use_time = !s->options.no_time,
                             .use_bm25 = !s->options.no_bm25,
                             .skip_repeats = true};
        status = retrieval_search(s->options.retrieval, &q, found, &found_count, err);
    }
    for (size_t i = 0; i < found_count && !status; i++) {
        merge_hit(hits, count, max, &found[i]);
    }
    *ms = base_clock_ms() - begin;
    s->answer->retrieval_ms += *ms;
    s->answer->lookups++;
    return status;
}

const retrieval_hit *session_best_hit(const retrieval_hit *hits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!hits[i].asks) {
            return &hits[i];
        }
    }
    return NULL;
}

bool session_is_enough(const engine_session *s, const retrieval_hit *best, const retrieval_hit *hit)
{
    return hit->relevance >= s->options.score_min &&
           (!best || hit->score >= s->options.score_share * best->score);
}

/* A mark behind the place of a change moves with its slot. */
static void move_marks(engine_session *s, size_t at, ptrdiff_t shift, size_t *also)
{
    size_t *marks[] = {&s->memory_at, &s->header_at, &s->answer_at, also};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (marks[i] && *marks[i] >= at) {
            *marks[i] = (size_t)((ptrdiff_t)*marks[i] + shift);
        }
    }
}

void session_evict(engine_session *s, size_t resident, size_t *also)
{
    size_t end = s->window.residents[resident].at + s->window.residents[resident].count;
    ptrdiff_t count = (ptrdiff_t)s->window.residents[resident].count;
    splice_collect(&s->window);
    session_note_mass(s, &s->window.residents[resident]);
    splice_evict(&s->window, resident);
    move_marks(s, end, -count, also);
}

static void make_room(engine_session *s, size_t slots, size_t residents_max, size_t *also)
{
    while (s->window.resident_count > 0 &&
           (s->window.resident_count >= residents_max ||
            splice_resident_slots(&s->window) + slots > s->options.memory_slots_max ||
            splice_free_slots(&s->window) < slots)) {
        session_evict(s, splice_weakest(&s->window), also);
    }
}

/* How strong this hit is in attention. Without decay (arm static) every memory is as strong as any.
 * */
static float strength_of(const engine_session *s, const retrieval_hit *hit)
{
    return s->options.arm == ENGINE_ARM_STATIC ? 1.0f : hit->strength;
}

/* ln(strength), in a conversation raised: what was said there lately would drown a note. */
static float bias_of(const engine_session *s, float strength)
{
    float boost = s->question && s->behind_turns ? boost_behind_turns : 0.0f;
    return s->options.no_bias ? 0.0f : logf(strength) + boost;
}

bool session_may_splice(const engine_session *s, const retrieval_hit *best,
                        const retrieval_hit *hit)
{
    return session_is_enough(s, best, hit) &&
           strength_of(s, hit) >= (float)STORE_STRENGTH_SPLICE_MIN;
}

/* ... and the states of mixers. */
static base_status enter_states(engine_session *s, const store_episode *episode, base_error *err)
{
    float *rows;
    size_t count;
    base_status status = kvcache_rows(s->kv, episode, &rows, &count, err);
    if (status) {
        return status;
    }
    s->answer->prefill_tokens += count;
    return splice_enter_state(&s->window, rows, count, err);
}

base_status session_splice_one(engine_session *s, const retrieval_hit *hit, size_t *at,
                               engine_event *event, size_t *spliced, base_error *err)
{
    store_episode episode;
    kvcache_block block = {0};
    float strength = strength_of(s, hit);
    float bias = bias_of(s, strength);
    base_status status = store_get(s->options.store, hit->id, &episode, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status; /* forgotten since it was found */
    }
    store *kv_store = s->options.no_kv_disk ? NULL : s->options.store;
    if (!session_lives(s) || !kvcache_get_lived(s->kv, kv_store, hit->id, &block)) {
        status = kvcache_get(s->kv, kv_store, &episode, &block, err);
    }
    if (status) {
        store_episode_free(&episode);
        return status;
    }
    bool reads = session_lives(s) && !event->in_answer;
    make_room(s, block.count, reads ? SESSION_STREAM_MEMORIES : s->options.memories_max, at);
    session_draft_note(s, &episode);
    bool fits = splice_free_slots(&s->window) >= block.count;
    if (fits) {
        status =
            splice_insert(&s->window, *at, hit->id, block.block, block.count, strength, bias, err);
    }
    if (fits && !status && s->options.splice_state != CORE_SPLICE_NONE) {
        status = enter_states(s, &episode, err);
    }
    store_episode_free(&episode);
    if (!fits) {
        base_free(block.blob);
        return BASE_OK; /* the window is full of live text: nothing gives way to a memory */
    }
    if (!status) {
        move_marks(s, *at, (ptrdiff_t)block.count, NULL);
        *at += block.count;
        ++*spliced;
        if (event->memory_count < ENGINE_EVENT_MEMORIES_MAX) {
            event->memories[event->memory_count++] =
                (engine_memory){.id = hit->id,
                                .score = hit->score,
                                .similarity = hit->similarity,
                                .strength = hit->strength,
                                .logit_bias = bias,
                                .tokens = block.count,
                                .kv = block.from_disk ? ENGINE_KV_DISK : ENGINE_KV_COMPUTED};
        }
        s->answer->prefill_tokens += block.from_disk ? 0 : block.count;
    }
    if (!status && s->options.keep_writes && !block.from_disk) {
        return session_queue_write(
            s,
            (session_write){.episode = hit->id, .blob = block.blob, .blob_size = block.blob_size},
            err);
    }
    base_free(block.blob);
    return status;
}

base_status session_splice(engine_session *s, const retrieval_hit *hits, size_t count,
                           size_t wanted, size_t at, engine_event *event, size_t *spliced,
                           base_error *err)
{
    size_t chosen[ENGINE_EVENT_MEMORIES_MAX], chosen_count = 0;
    const retrieval_hit *best = session_best_hit(hits, count);
    double begin = base_clock_ms();
    *spliced = 0;
    if (wanted > ENGINE_EVENT_MEMORIES_MAX) {
        wanted = ENGINE_EVENT_MEMORIES_MAX;
    }
    for (size_t i = 0; i < count && chosen_count < wanted; i++) {
        if (session_may_splice(s, best, &hits[i]) && !splice_find(&s->window, hits[i].id) &&
            !session_lived_visible(s, hits[i].id)) {
            chosen[chosen_count++] = i;
        }
    }
    base_status status = BASE_OK;
    while (chosen_count > 0 && !status) {
        /* The best one last: nearest to what follows. */
        status = session_splice_one(s, &hits[chosen[--chosen_count]], &at, event, spliced, err);
    }
    event->splice_ms += base_clock_ms() - begin;
    s->answer->splice_ms += base_clock_ms() - begin;
    return status;
}
