/* engine/lived.c: lived memory. Text that leaves a bounded window becomes episodes of the running
 * stream, if it was not predictable, and can come back in the same stream (semantics §6).
 *
 * Tokens wait here with their surprise -ln p. When the oldest are about to leave the window, their
 * text is cut into sentences; a sentence's surprise is pooled (mean of its most surprising quarter:
 * names and numbers, not the words around them), and the write test compares that with a threshold
 * which follows the quantile that gives the wanted share (stochastic approximation, Robbins & Monro
 * 1951, as in innovation.c):
 *
 *     theta <- theta + eta * ([pooled > theta] - rate)
 *
 * It starts at 0: at first everything is kept. What passes is stored with its vector and with its
 * keys and values as they are in the window, under a tag of their own (kvcache.h), in one commit.
 * Text that the model could predict, because it is common or has been said and is still seen, is
 * not kept.
 */
#include "engine/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chunk.h"
#include "base/mem.h"
#include "base/text.h"
#include "engine/words.h"

enum { CUT_MIN = 64, SPANS_MAX = 256 };

/* Chosen: half of the text is kept. Nats a span: adapts within some hundred spans. */
static const float rate_default = 0.5f;
static const float step_nats = 0.1f;

bool session_lives(const engine_session *s)
{
    return s->options.lived_source && s->options.store && !s->question &&
           core_window(s->window.stream) > 0;
}

void session_lived_clear(engine_session *s)
{
    session_lived *l = &s->lived;
    l->count = l->begin = l->recent_next = 0;
    l->first = 0;
    l->threshold = 0.0f;
    l->counts = (engine_lived){0};
    memset(l->recent, 0, sizeof l->recent);
}

void session_lived_free(engine_session *s)
{
    base_free(s->lived.ids);
    base_free(s->lived.surprises);
    s->lived = (session_lived){0};
}

engine_lived engine_session_lived(const engine_session *s)
{
    return s->lived.counts;
}

base_status session_lived_note(engine_session *s, int32_t id, float surprise, base_error *err)
{
    session_lived *l = &s->lived;
    if (!session_lives(s)) {
        return BASE_OK;
    }
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 1024;
        int32_t *ids = base_realloc(l->ids, capacity * sizeof *ids);
        l->ids = ids ? ids : l->ids;
        float *surprises = base_realloc(l->surprises, capacity * sizeof *surprises);
        l->surprises = surprises ? surprises : l->surprises;
        if (!ids || !surprises) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for %zu tokens", capacity);
        }
        l->capacity = capacity;
    }
    l->ids[l->count] = id;
    l->surprises[l->count++] = surprise;
    return BASE_OK;
}

bool session_lived_own(const engine_session *s, uint64_t episode)
{
    return s->lived.first > 0 && episode >= s->lived.first;
}

bool session_lived_visible(const engine_session *s, uint64_t episode)
{
    const session_lived *l = &s->lived;
    for (size_t i = 0; i < sizeof l->recent / sizeof *l->recent; i++) {
        if (episode >= l->recent[i].first_id && episode < l->recent[i].end_id) {
            return l->begin + l->count < l->recent[i].end + core_window(s->window.stream);
        }
    }
    return false;
}

/* --- cutting ---------------------------------------------------------------------------------- */

/* What is about to leave: text, and where each token's ends. */
typedef struct leaving {
    base_buffer text;
    size_t *ends;  /* [count] bytes */
    size_t *slots; /* [count] of the window, SIZE_MAX where it is not there */
    size_t count;
    base_span *spans;
    size_t span_count;
} leaving;

static void leaving_free(leaving *v)
{
    base_buffer_free(&v->text);
    base_free(v->ends);
    base_free(v->slots);
    base_free(v->spans);
}

/* Bytes that no text may hold become signs that it may. */
static void make_valid(char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        text[i] = text[i] ? text[i] : ' ';
    }
    for (size_t at = base_utf8_check(text, size); at < size;
         at += base_utf8_check(text + at, size - at)) {
        text[at] = '?';
    }
}

/* Where the first v->count tokens that wait are: counted back from the end of the window, in which
 * memories may stand between them. */
static base_status find_slots(const engine_session *s, leaving *v, base_error *err)
{
    const core_stream *stream = s->window.stream;
    size_t slot = core_slots(stream), begin = core_slots_begin(stream), i = s->lived.count;
    v->slots = base_calloc(v->count, sizeof *v->slots);
    if (!v->slots) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for text that leaves the window");
    }
    memset(v->slots, 0xff, v->count * sizeof *v->slots);
    while (slot > begin && i > 0) {
        if (core_token(stream, --slot) >= 0 && --i < v->count) {
            v->slots[i] = slot;
        }
    }
    return BASE_OK;
}

static base_status cut(const engine_session *s, size_t count, leaving *v, base_error *err)
{
    const base_chunk_options options = {.token_target = BASE_CHUNK_SENTENCE};
    base_status status = BASE_OK;
    v->count = count;
    v->ends = base_calloc(count, sizeof *v->ends);
    for (size_t i = 0; v->ends && i < count && !status; i++) {
        status = tokenizer_decode(s->e->tokenizer, s->lived.ids[i], false, &v->text);
        v->ends[i] = v->text.size;
    }
    if (!v->ends || status) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for text that leaves the window");
    }
    if (v->text.size == 0) {
        return BASE_OK;
    }
    make_valid(v->text.data, v->text.size);
    return base_chunk_text(v->text.data, v->text.size, &options, &v->spans, &v->span_count, err);
}

/* How many of the query's words of content lower-cased text holds. */
static size_t words_held(const base_buffer *query, const base_buffer *text)
{
    const char *word;
    size_t at = 0, size, count = 0;
    while (session_words_next(query->data, query->size, &at, &word, &size)) {
        count += !session_words_is_function(word, size) && session_words_hold(text, word, size);
    }
    return count;
}

/* Does one of the sentences that wait, but for the last, which is under way, hold `wanted` of the
 * query's words? */
static base_status waiting_holds(const engine_session *s, const base_buffer *query, size_t wanted,
                                 bool *holds, base_error *err)
{
    leaving v = {0};
    base_buffer sentence = {0};
    base_status status = cut(s, s->lived.count, &v, err);
    for (size_t i = 0; !status && i + 1 < v.span_count && !*holds; i++) {
        base_buffer_clear(&sentence);
        status = base_buffer_append(&sentence, v.text.data + v.spans[i].start,
                                    v.spans[i].end - v.spans[i].start);
        if (status) {
            base_fail(err, status, "no memory for text in the window");
        } else {
            session_words_lower(&sentence);
            *holds = words_held(query, &sentence) >= wanted;
        }
    }
    base_buffer_free(&sentence);
    leaving_free(&v);
    return status;
}

base_status session_lived_says(const engine_session *s, const char *query, size_t size,
                               uint64_t episode, bool *says, base_error *err)
{
    store_episode e;
    base_buffer words = {0}, text = {0};
    *says = false;
    if (!session_lives(s) || s->lived.count == 0) {
        return BASE_OK;
    }
    base_status status = store_get(s->options.store, episode, &e, err);
    if (status) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    if ((status = base_buffer_append(&words, query, size)) ||
        (status = session_words_append_note(&text, &e))) {
        base_fail(err, status, "no memory for a query");
    } else {
        session_words_lower(&words);
        size_t held = words_held(&words, &text);
        status = held > 0 ? waiting_holds(s, &words, held, says, err) : BASE_OK;
    }
    base_buffer_free(&words);
    base_buffer_free(&text);
    store_episode_free(&e);
    return status;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Mean surprise of the most surprising quarter of tokens [from, to); sorted in place: they are not
 * needed afterwards. */
static float pooled(float *surprises, size_t from, size_t to)
{
    size_t count = (to - from + 3) / 4;
    float sum = 0.0f;
    qsort(surprises + from, to - from, sizeof *surprises, descending);
    for (size_t i = 0; i < count; i++) {
        sum += surprises[from + i];
    }
    return count ? sum / (float)count : 0.0f;
}

/* --- writing ---------------------------------------------------------------------------------- */

typedef struct written {
    base_buffer text; /* of all spans that passed, one after the other */
    store_new_span spans[SPANS_MAX];
    float *vectors; /* [SPANS_MAX, dim] */
    kvcache_block kv[SPANS_MAX];
    size_t count;
} written;

static void written_free(written *w)
{
    if (w) {
        for (size_t i = 0; i < w->count; i++) {
            base_free(w->kv[i].blob);
        }
        base_buffer_free(&w->text);
        base_free(w->vectors);
        base_free(w);
    }
}

/* Take a span, tokens [from, to): its text, vector, keys and values (computed at the first use
 * where the window does not hold it in one piece). */
static base_status take_span(engine_session *s, written *w, const leaving *v, const base_span *span,
                             size_t from, size_t to, base_error *err)
{
    const char *text = v->text.data + span->start;
    size_t size = span->end - span->start, at = w->text.size, n = w->count;
    float *vector = w->vectors + n * encoder_dim(s->e->encoder);
    bool whole = v->slots[from] != SIZE_MAX && to - from <= KVCACHE_BLOCK_MAX &&
                 v->slots[to - 1] - v->slots[from] == to - 1 - from;
    base_status status = base_buffer_append(&w->text, text, size);
    if (status) {
        return base_fail(err, status, "no memory for text that leaves the window");
    }
    w->spans[n] = (store_new_span){.start_byte = at, .end_byte = w->text.size, .vector = vector};
    w->count++;
    status = encoder_encode(s->e->encoder, text, size, vector, err);
    return status || !whole
               ? status
               : kvcache_take(s->kv, s->window.stream, v->slots[from], to - from, &w->kv[n], err);
}

static base_status commit(engine_session *s, const written *w, uint64_t *first, base_error *err)
{
    char id[64];
    store_txn *txn = NULL;
    store_put_result result;
    size_t count = 0;
    snprintf(id, sizeof id, "%lld-%zu", (long long)s->options.now_us, s->lived.begin);
    store_new_document document = {.source = s->options.lived_source,
                                   .external_id = id,
                                   .title = "",
                                   .text = w->text.data,
                                   .text_size = w->text.size,
                                   .observed_at_us = s->options.now_us,
                                   .valid_from_us = BASE_TIME_NONE,
                                   .valid_to_us = BASE_TIME_NONE,
                                   .spans = w->spans,
                                   .span_count = w->count,
                                   .vector_dim = encoder_dim(s->e->encoder),
                                   .encoder = encoder_name(s->e->encoder)};
    base_status status = store_begin(s->options.store, s->options.now_us, &txn, err);
    if (status) {
        return status;
    }
    status = store_put_document(txn, &document, &result, first, &count, err);
    for (size_t i = 0; i < count && !status; i++) {
        if (w->kv[i].blob) {
            status = store_put_kv(txn, *first + i, kvcache_lived_tag(s->kv), w->kv[i].blob,
                                  w->kv[i].blob_size, err);
        }
    }
    if (status) {
        store_abort(txn);
        return status;
    }
    *first = count ? *first : 0; /* the same text under the same clock: it is there already */
    return store_commit(txn, err);
}

static base_status write_spans(engine_session *s, const written *w, size_t end, base_error *err)
{
    session_lived *l = &s->lived;
    uint64_t first = 0;
    if (w->count == 0) {
        return BASE_OK;
    }
    base_status status = commit(s, w, &first, err);
    if (!status && !(status = retrieval_sync(s->options.retrieval, err)) && first > 0) {
        size_t i = l->recent_next++ % (sizeof l->recent / sizeof *l->recent);
        l->first = l->first ? l->first : first;
        l->recent[i].first_id = first;
        l->recent[i].end_id = first + w->count;
        l->recent[i].end = end;
    }
    return status;
}

/* Every span but the last, which may go on: test it, take it. *gone: tokens that are dealt with. */
static base_status test_spans(engine_session *s, leaving *v, written *w, size_t *gone,
                              base_error *err)
{
    session_lived *l = &s->lived;
    float rate = s->options.lived_rate > 0.0f ? s->options.lived_rate : rate_default;
    base_status status = BASE_OK;
    *gone = 0;
    for (size_t i = 0; i + 1 < v->span_count && w->count < SPANS_MAX && !status; i++) {
        size_t from = *gone, to = from;
        while (to < v->count && v->ends[to] <= v->spans[i].end) {
            to++;
        }
        if (to == from) {
            continue;
        }
        float surprise = pooled(l->surprises, from, to);
        bool passes = surprise > l->threshold;
        l->threshold += step_nats * ((passes ? 1.0f : 0.0f) - rate);
        l->threshold = l->threshold > 0.0f ? l->threshold : 0.0f;
        *gone = to;
        l->counts.episodes_left++;
        l->counts.tokens_left += to - from;
        if (passes) {
            status = take_span(s, w, v, &v->spans[i], from, to, err);
            l->counts.episodes_written++;
            l->counts.tokens_written += to - from;
        }
    }
    return status;
}

base_status session_lived_leave(engine_session *s, base_error *err)
{
    session_lived *l = &s->lived;
    size_t window = core_window(s->window.stream);
    if (!session_lives(s) || l->count <= window) {
        return BASE_OK;
    }
    size_t step = window / 4 > CUT_MIN ? window / 4 : CUT_MIN, gone = 0;
    size_t stay = window > step ? window - step : 0;
    leaving v = {0};
    written *w = base_calloc(1, sizeof *w);
    base_status status = BASE_NO_MEMORY;
    if (w) {
        w->vectors = base_calloc(SPANS_MAX, encoder_dim(s->e->encoder) * sizeof(float));
    }
    if (!w || !w->vectors) {
        base_fail(err, BASE_NO_MEMORY, "no memory for text that leaves the window");
    } else if (!(status = cut(s, l->count - stay, &v, err)) && !(status = find_slots(s, &v, err)) &&
               !(status = test_spans(s, &v, w, &gone, err))) {
        status = write_spans(s, w, l->begin + gone, err);
    }
    if (!status) {
        l->count -= gone;
        l->begin += gone;
        memmove(l->ids, l->ids + gone, l->count * sizeof *l->ids);
        memmove(l->surprises, l->surprises + gone, l->count * sizeof *l->surprises);
    }
    leaving_free(&v);
    written_free(w);
    return status;
}
