/* engine/session.c: the loop. Start reading here.
 *
 *   read the question, testing every token      -> prompt events
 *   look up, splice at the turn boundary -> memories before the question, which is run again
 *                                           (layout B), or before the header (S, long questions)
 *   per token: entropy of the next -> event? -> look up, splice, run the last few again -> sample
 *   the answer is a refusal -> look up what the best note names, splice, ask again
 *
 * Which memories and how they enter: recall.c, running.c, follow.c. What is reported: answer.c. The
 * rules are semantics §4 and §5; the numbers below are the splice study's.
 */
#include "engine/session.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    WINDOW_DEFAULT = 4096,
    LAYOUT_B_MAX = 64, /* longest user turn that is run again whole */
    LONG_TEXT = 512,   /* longer user text splices at chunk boundaries too */
    PROMPT_QUERIES_MAX = 8,
    MEMORIES_DEFAULT = 3,
    MEMORY_SLOTS_DEFAULT = 320
};

/* --- open, close ------------------------------------------------------------------------------ */

void engine_session_defaults(engine_session_options *options)
{
    *options = (engine_session_options){.arm = ENGINE_ARM_FULL,
                                        .as_of_us = BASE_TIME_MAX,
                                        .about_us = BASE_TIME_NONE,
                                        .sampling = {.top_p = 1.0f},
                                        .kv_budget = UINT64_MAX,
                                        .score_min = NAN,
                                        .score_share = 0.7f};
}

static size_t vocabulary(const engine_session *s)
{
    return core_model_shape(s->e->model)->vocabulary;
}

static void set_option_defaults(engine_session *s)
{
    engine_session_options *o = &s->options;
    size_t context = core_model_shape(s->e->model)->context_max;
    if (o->window_slots == 0) {
        o->window_slots = context < WINDOW_DEFAULT ? context : WINDOW_DEFAULT;
    }
    if (o->memories_max == 0) {
        o->memories_max = MEMORIES_DEFAULT;
    }
    if (o->memories_max > SPLICE_RESIDENTS_MAX) {
        o->memories_max = SPLICE_RESIDENTS_MAX;
    }
    if (o->memory_slots_max == 0) {
        o->memory_slots_max = MEMORY_SLOTS_DEFAULT;
    }
    if (isnan(o->score_min)) {
        o->score_min = RETRIEVAL_SCORE_ANSWERABLE;
    }
    if (o->as_of_us > o->now_us) {
        o->as_of_us = o->now_us;
    }
    if (o->arm == ENGINE_ARM_NONE) {
        o->store = NULL;
    }
}

/* Text in the prompt must be seen whole: such an arm runs the Transformer that mixers were added
 * to, which is also what it is compared as. */
static bool runs_hybrid(const engine *e, engine_arm arm)
{
    bool pastes = arm == ENGINE_ARM_PROMPT || arm == ENGINE_ARM_FULL_CONTEXT;
    return e->stream_options.hybrid && !(pastes && core_model_fading_added(e->model));
}

/* Bounded: room for the fixed prefix and the memories beside the live tokens. */
static core_stream_options stream_options(const engine_session *s)
{
    core_stream_options o = s->e->stream_options;
    o.hybrid = runs_hybrid(s->e, s->options.arm);
    o.splice_state = s->options.splice_state;
    bool bounded = core_options_window(s->e->model, &o) > 0;
    size_t beside = s->prompt.prefix.count + CORE_SINKS_MIN + s->options.memory_slots_max;
    o.slots_max = bounded ? beside : s->options.window_slots;
    return o;
}

/* What options decide, at the begin of a session and of an independent question. */
static base_status take_options(engine_session *s, const engine_session_options *options,
                                base_error *err)
{
    engine *e = s->e;
    s->options = *options;
    set_option_defaults(s);
    if (s->options.store && !e->encoder) {
        return base_fail(err, BASE_INVALID, "memory needs a text encoder");
    }
    sample_free(s->sampler);
    s->sampler = NULL;
    base_status status = sample_create(&s->options.sampling, vocabulary(s), &s->sampler, err);
    if (!status && s->options.store && !s->kv) {
        status = kvcache_open(e->model, &e->stream_options, e->kv_type, &s->prompt, &s->kv, err);
    }
    base_rng_seed(&s->noise, s->options.sampling.seed);
    innovation_begin(&s->innovation, &s->options.innovation);
    session_lived_clear(s);
    s->reply = 0;
    return status;
}

base_status engine_session_open(engine *e, const engine_session_options *options,
                                engine_session **out, base_error *err)
{
    engine_session *s = base_calloc(1, sizeof *s);
    if (!s) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a session");
    }
    s->e = e;
    core_stream *stream = NULL;
    size_t row = vocabulary(s) * sizeof(float);
    s->logits = base_alloc_aligned(SESSION_ROWS * row);
    s->prefix_logits = base_alloc_aligned(row);
    size_t dim = engine_hidden_dim(e);
    dim = e->encoder && encoder_dim(e->encoder) > dim ? encoder_dim(e->encoder) : dim;
    s->query_vector = base_calloc(dim, sizeof(float));
    base_status status = BASE_OK;
    if (!s->logits || !s->prefix_logits || !s->query_vector) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for a session");
    }
    if (status || (status = chat_open(core_model_file(e->model), e->tokenizer, &s->chat, err)) ||
        (status = prompt_open(s->chat, &s->prompt, err)) ||
        (status = take_options(s, options, err))) {
        engine_session_close(s);
        return status;
    }
    core_stream_options own = stream_options(s);
    if ((status = core_stream_open(e->model, &own, &stream, err)) ||
        (status = splice_open(stream, &s->window, err))) {
        engine_session_close(s);
        return status;
    }
    *out = s;
    return BASE_OK;
}

/* A bounded window or a state cannot go back to the fixed prefix by dropping tokens. */
static bool goes_back(const engine_session *s)
{
    return !core_window(s->window.stream) && !core_has_state(s->window.stream);
}

/* Everything behind the fixed prefix goes; the prefix too where it does not stand first, or comes
 * back from its mark. */
static void drop_turns(engine_session *s)
{
    splice_watch(&s->window, false);
    while (s->window.resident_count > 0) {
        splice_evict(&s->window, 0);
    }
    if (s->prefix_stands && goes_back(s)) {
        splice_truncate(&s->window, s->prompt.prefix.count);
    } else {
        splice_clear(&s->window);
        s->prefix_stands = false;
    }
    s->answered_before = false;
}

static void drop_writes(engine_session *s)
{
    for (size_t i = 0; i < s->write_count; i++) {
        base_free(s->writes[i].blob);
    }
    s->write_count = 0;
}

base_status engine_session_restart(engine_session *s, const engine_session_options *options,
                                   base_error *err)
{
    size_t slots = s->options.window_slots, memory_slots = s->options.memory_slots_max;
    core_splice_state splice_state = s->options.splice_state;
    bool hybrid = runs_hybrid(s->e, s->options.arm);
    drop_writes(s);
    drop_turns(s);
    base_status status = take_options(s, options, err);
    if (!status &&
        (s->options.window_slots != slots || s->options.memory_slots_max != memory_slots)) {
        status =
            base_fail(err, BASE_INVALID, "a session's window keeps its size of %zu slots", slots);
    }
    if (!status && s->options.splice_state != splice_state) {
        status = base_fail(err, BASE_INVALID, "a session keeps what memories do to its states");
    }
    if (!status && runs_hybrid(s->e, options->arm) != hybrid) {
        status = base_fail(err, BASE_INVALID, "a session keeps its core: arm %s needs another",
                           engine_arm_name(options->arm));
    }
    return status;
}

const uint8_t *engine_session_kv_tag(const engine_session *s)
{
    return s->kv ? kvcache_tag(s->kv) : NULL;
}

void engine_session_close(engine_session *s)
{
    if (!s) {
        return;
    }
    drop_writes(s);
    session_lived_free(s);
    session_draft_free(&s->draft);
    kvcache_close(s->kv);
    splice_close(&s->window);
    sample_free(s->sampler);
    prompt_close(&s->prompt);
    chat_close(s->chat);
    base_buffer_free(&s->text);
    base_free_aligned(s->logits);
    base_free_aligned(s->prefix_logits);
    base_free(s->prefix_mark);
    base_free(s->query_vector);
    base_free(s->writes);
    base_free(s->question);
    base_free(s);
}

void engine_session_set_time(engine_session *s, int64_t now_us, int64_t as_of_us, int64_t about_us)
{
    s->options.now_us = now_us;
    s->options.as_of_us = as_of_us > now_us ? now_us : as_of_us;
    s->options.about_us = about_us;
}

/* --- running tokens --------------------------------------------------------------------------- */

/* Run live tokens; s->logits row 0 is the distribution after the last. */
static base_status run(engine_session *s, const int32_t *ids, size_t count, base_error *err)
{
    double begin = base_clock_ms();
    base_status status = splice_run(&s->window, ids, count, s->logits, count ? 1 : 0, err);
    s->answer->prefill_ms += base_clock_ms() - begin;
    s->answer->prefill_tokens += count;
    return status;
}

static void stats(const engine_session *s, const float *logits, float *log_sum_exp, float *entropy)
{
    size_t argmax;
    kernel_get()->logit_stats(logits, vocabulary(s), log_sum_exp, entropy, &argmax);
}

/* The innovation test on one position; false for triggers that do without. */
static bool innovates(engine_session *s, float entropy)
{
    const innovation_options *o = &s->innovation.options;
    switch (s->options.trigger) {
    case ENGINE_TRIGGER_INNOVATION:
        return innovation_observe(&s->innovation, entropy);
    case ENGINE_TRIGGER_RANDOM:
        /* Exponential noise that exceeds the threshold as often as is aimed at, from the start. */
        return innovation_observe(&s->innovation, o->threshold / logf(o->target_rate) *
                                                      logf(1.0f - (float)base_rng_unit(&s->noise)));
    default:
        return false;
    }
}

/* --- the prompt ------------------------------------------------------------------------------- */

/* Tokens of the prompt at which an event fired (how many had been read by then). */
typedef struct prompt_events {
    size_t read[PROMPT_QUERIES_MAX];
    float entropy[PROMPT_QUERIES_MAX];
    size_t count;
} prompt_events;

/* Read prompt tokens in chunks; note surprise and entropy of each; collect events. On entry and on
 * return row 0 of the logits is the distribution of the next token (`known` false: there is none
 * yet). */
static base_status read_prompt(engine_session *s, const int32_t *ids, size_t count, bool known,
                               prompt_events *events, base_error *err)
{
    size_t v = vocabulary(s);
    bool long_text = count > LONG_TEXT;
    float lse = 0, entropy = 0;
    if (known) {
        stats(s, s->logits, &lse, &entropy);
    }
    for (size_t done = 0; done < count;) {
        size_t chunk = count - done < SESSION_ROWS ? count - done : SESSION_ROWS;
        float first_logit = s->logits[ids[done]];
        bool fired = false;
        float fired_entropy = 0;
        double begin = base_clock_ms();
        base_status status = splice_run(&s->window, ids + done, chunk, s->logits, chunk, err);
        s->answer->prefill_ms += base_clock_ms() - begin;
        s->answer->prefill_tokens += chunk;
        for (size_t t = 0; t < chunk && !status; t++) {
            float logit = t == 0 ? first_logit : s->logits[(t - 1) * v + (size_t)ids[done + t]];
            engine_token token = {.id = ids[done + t],
                                  .surprise_nats = known ? lse - logit : 0.0f,
                                  .entropy_nats = entropy,
                                  .attention_mass = NAN};
            status = session_note_token(s, &token, err);
            if (!status) {
                status = session_lived_note(s, token.id, token.surprise_nats, err);
            }
            known = true;
            stats(s, s->logits + t * v, &lse, &entropy);
            bool last = done + t + 1 == count;
            if (!last && session_recalls(s) && innovates(s, entropy)) {
                fired = true;
                fired_entropy = entropy;
                if (events->count < PROMPT_QUERIES_MAX) {
                    events->read[events->count] = done + t + 1;
                    events->entropy[events->count++] = entropy;
                }
            }
        }
        done += chunk;
        memmove(s->logits, s->logits + (chunk - 1) * v, v * sizeof *s->logits);
        if (!status) {
            status = session_lived_leave(s, err);
        }
        if (!status && fired && long_text && done < count) {
            status = session_recall_here(s, false, fired_entropy, err);
            stats(s, s->logits, &lse, &entropy);
        }
        if (status) {
            return status;
        }
    }
    return BASE_OK;
}

/* One event of the prompt, `read` tokens into it. Where the question's own query holds its text
 * already, the event is noted and that lookup serves it. */
static base_status look_up_event(engine_session *s, const int32_t *ids, size_t read, float entropy,
                                 size_t token_base, retrieval_hit *hits, size_t *hit_count,
                                 base_error *err)
{
    base_buffer query = {0};
    engine_event *event = NULL;
    bool new_text = read > SESSION_PROMPT_QUERY;
    base_status status = BASE_OK;
    for (size_t t = read - SESSION_PROMPT_QUERY; new_text && t < read && !status; t++) {
        status = tokenizer_decode(s->e->tokenizer, ids[t], false, &query);
    }
    if (!status) {
        status = base_buffer_printf(&query, "%s%s", new_text ? " " : "", s->question);
    }
    if (status) {
        status = base_fail(err, status, "no memory for a query");
    } else if (!(status = session_event(s, false, entropy, query.data, query.size, &event, err))) {
        event->at_token = token_base + read;
        s->answer->tokens[event->at_token].event = true;
        if (new_text) {
            status = session_look_up(s, query.data, query.size, hits, hit_count, SESSION_HITS_MAX,
                                     &event->query_ms, err);
        }
    }
    base_buffer_free(&query);
    return status;
}

/* A text that a bounded window never holds whole, and that memory does not keep. */
static void warn_of_length(const engine_session *s, size_t count)
{
    size_t window = core_window(s->window.stream);
    if (window > 0 && count > window && !session_lives(s)) {
        base_log(BASE_LOG_WARN,
                 "of a text of %zu tokens attention sees the last %zu; with full attention "
                 "(--core full) all",
                 count, window);
    }
}

/* The queries of the prompt's events and the one of the answer's start; all hits are ranked
 * together. */
static base_status look_up_prompt(engine_session *s, const int32_t *ids,
                                  const prompt_events *events, size_t token_base,
                                  retrieval_hit *hits, size_t *hit_count, engine_event **start,
                                  base_error *err)
{
    base_status status = BASE_OK;
    for (size_t i = 0; i < events->count && !status; i++) {
        status = look_up_event(s, ids, events->read[i], events->entropy[i], token_base, hits,
                               hit_count, err);
    }
    if (!status) {
        float lse, entropy;
        stats(s, s->logits, &lse, &entropy);
        status = session_event(s, true, entropy, s->question, strlen(s->question), start, err);
    }
    if (!status) {
        status = session_look_up(s, s->question, strlen(s->question), hits, hit_count,
                                 SESSION_HITS_MAX, &(*start)->query_ms, err);
    }
    return status;
}

/* Evaluation: the given episodes instead of a search. */
static base_status look_up_oracle(engine_session *s, retrieval_hit *hits, size_t *hit_count,
                                  engine_event **start, base_error *err)
{
    store_brief brief;
    for (size_t i = 0; i < s->options.oracle_count && i < SESSION_HITS_MAX; i++) {
        base_status status = store_get_briefs(s->options.store, &s->options.oracle[i], 1,
                                              s->options.as_of_us, &brief, err);
        if (status) {
            return status;
        }
        hits[(*hit_count)++] =
            (retrieval_hit){.id = s->options.oracle[i],
                            .score = 1.0f,
                            .relevance = 1.0f,
                            .similarity = 1.0f,
                            .strength = s->options.oracle_strength
                                            ? s->options.oracle_strength[i]
                                            : (float)store_strength(&brief, s->options.as_of_us)};
    }
    return session_event(s, true, 0, s->question, strlen(s->question), start, err);
}

/* Make the window fit a question of `count` tokens and its answer: memories of earlier turns go,
 * then the oldest turns. */
static base_status make_space(engine_session *s, size_t count, size_t max_tokens, base_error *err)
{
    size_t needed = count + max_tokens + s->prompt.user.count + s->prompt.header.count +
                    (s->options.store ? s->options.memory_slots_max : 0) + SESSION_TAIL;
    if (!s->answered_before && !s->prefix_stands) {
        needed += s->prompt.prefix.count;
    }
    while (s->window.resident_count > 0) {
        splice_evict(&s->window, 0);
    }
    if (core_window(s->window.stream)) {
        return BASE_OK; /* the oldest leave by themselves */
    }
    size_t prefix = s->prefix_stands ? s->prompt.prefix.count : 0;
    size_t history = splice_slots(&s->window) - prefix;
    size_t free_slots = splice_free_slots(&s->window);
    if (needed > free_slots + history) {
        return base_fail(
            err, BASE_LIMIT,
            "a question of %zu tokens and an answer of up to %zu do not fit the window "
            "of %zu slots",
            count, max_tokens, s->options.window_slots);
    }
    if (needed > free_slots) {
        splice_remove_live(&s->window, prefix, needed - free_slots);
    }
    return BASE_OK;
}

/* The fixed prefix enters the empty window; a second time as it was then, without being run. */
static base_status open_window(engine_session *s, base_error *err)
{
    core_stream *stream = s->window.stream;
    size_t row = vocabulary(s) * sizeof *s->logits;
    if (s->prefix_mark) {
        core_return(stream, s->prefix_mark);
        memcpy(s->logits, s->prefix_logits, row);
        s->prefix_stands = true;
        return BASE_OK;
    }
    core_set_sinks(stream, s->prompt.prefix.count);
    base_status status = run(s, s->prompt.prefix.ids, s->prompt.prefix.count, err);
    if (!status) {
        memcpy(s->prefix_logits, s->logits, row);
        s->prefix_stands = true;
        if (!goes_back(s) && (s->prefix_mark = base_alloc(core_mark_bytes(stream)))) {
            core_mark(stream, s->prefix_mark); /* no memory for it: the prefix is run again */
        }
    }
    return status;
}

static base_status open_user_turn(engine_session *s, base_error *err)
{
    const chat_ids *ids = s->answered_before ? &s->prompt.user : &s->prompt.prefix;
    base_status status = BASE_OK;
    if (!s->answered_before && s->prefix_stands) {
        memcpy(s->logits, s->prefix_logits, vocabulary(s) * sizeof *s->logits);
    } else if (splice_slots(&s->window) == 0) {
        status = open_window(s, err);
    } else {
        status = run(s, ids->ids, ids->count, err);
    }
    s->behind_turns = s->answered_before;
    s->answered_before = true;
    s->memory_at = s->header_at = s->answer_at = splice_slots(&s->window);
    return status;
}

/* The header, with attention mass watched from here on: its last position predicts the answer's
 * first token. */
static base_status open_answer(engine_session *s, const chat_ids *question, base_error *err)
{
    base_status status = BASE_OK;
    if (question) {
        status = run(s, question->ids, question->count, err);
    }
    s->header_at = splice_slots(&s->window);
    splice_watch(&s->window, true);
    if (!status) {
        status = run(s, s->prompt.header.ids, s->prompt.header.count, err);
    }
    s->answer_at = splice_slots(&s->window);
    return status;
}

/* The answer's first token can be said now. */
static void note_first(engine_session *s)
{
    s->answer->first_ms = base_clock_ms() - s->begin_ms;
    s->answer->first_tokens = s->answer->prefill_tokens + s->answer->rerun_tokens;
}

/* Layout B: memories, then the user turn again. Layout S: memories behind the user turn. */
static bool is_layout_b(const engine_session *s, size_t question_tokens)
{
    return s->options.layout == ENGINE_LAYOUT_AUTO ? question_tokens <= LAYOUT_B_MAX
                                                   : s->options.layout == ENGINE_LAYOUT_B;
}

static bool has_memory(const engine_session *s)
{
    return s->options.store && store_last_commit(s->options.store) > 0;
}

/* Read the question, consult memory, open the answer. *abstain: memory holds nothing that scores
 * enough. */
static base_status take_question(engine_session *s, size_t max_tokens, bool *abstain,
                                 base_error *err)
{
    chat_ids question = {0}, pasted = {0};
    prompt_events events = {0};
    retrieval_hit hits[SESSION_HITS_MAX];
    size_t hit_count = 0, spliced = 0, token_base = s->answer->token_count;
    engine_event *start = NULL;
    *abstain = false;
    base_status status = prompt_question(&s->prompt, s->question, &question, err);
    if (status || (status = make_space(s, question.count, max_tokens, err)) ||
        (status = open_user_turn(s, err))) {
        goto done;
    }
    warn_of_length(s, question.count);
    bool all = s->options.arm == ENGINE_ARM_FULL_CONTEXT && has_memory(s);
    bool paste = all || (s->options.arm == ENGINE_ARM_PROMPT && has_memory(s));
    if (!paste && (status = read_prompt(s, question.ids, question.count, true, &events, err))) {
        goto done;
    }
    if (!has_memory(s)) {
        status = open_answer(s, NULL, err);
        goto done;
    }
    if (all) {
        size_t taken = question.count + s->prompt.header.count + max_tokens;
        size_t room = splice_free_slots(&s->window);
        if (!(status = session_paste_all(s, room > taken ? room - taken : 0, &pasted, err)) &&
            !(status = chat_ids_append(&pasted, question.ids, question.count))) {
            status = open_answer(s, &pasted, err);
        }
        goto done;
    }
    status =
        s->options.arm == ENGINE_ARM_ORACLE
            ? look_up_oracle(s, hits, &hit_count, &start, err)
            : look_up_prompt(s, question.ids, &events, token_base, hits, &hit_count, &start, err);
    if (status) {
        goto done;
    }
    if (s->options.arm != ENGINE_ARM_ORACLE && !s->options.no_names &&
        (status = session_keep_subject(s, hits, &hit_count, err))) {
        goto done;
    }
    const retrieval_hit *best = session_best_hit(hits, hit_count);
    s->answer->best_score = best ? best->relevance : 0.0f;
    if (s->options.may_abstain && s->answer->best_score < s->options.score_min) {
        *abstain = true;
        goto done;
    }
    if (paste) {
        if (!(status = session_paste_hits(s, hits, hit_count, start, &pasted, err)) &&
            !(status = chat_ids_append(&pasted, question.ids, question.count))) {
            status = open_answer(s, &pasted, err);
        }
        goto done;
    }
    bool layout_b = is_layout_b(s, question.count);
    size_t at = layout_b ? s->memory_at : splice_slots(&s->window);
    if (!(status = session_splice(s, hits, hit_count, s->options.memories_max, at, start, &spliced,
                                  err))) {
        size_t followed;
        if (spliced > 0) { /* the gap protects what has come; where nothing has, there is none */
            innovation_forced(&s->innovation);
        }
        if (best && spliced > 0) {
            s->chain.ids[s->chain.count++] = best->id;
            if (session_may_follow(s) &&
                (status = session_follow_chain(s, false, layout_b, &followed, err))) {
                goto done;
            }
        }
        if (layout_b && spliced > 0) {
            splice_truncate(&s->window, s->memory_at);
            status = open_answer(s, &question, err);
        } else {
            status = open_answer(s, NULL, err);
        }
    }
done:
    note_first(s);
    chat_ids_free(&question);
    chat_ids_free(&pasted);
    return status;
}

/* --- the answer ------------------------------------------------------------------------------- */

/* What stands in for the sampler when text is forced. */
typedef struct forced {
    const int32_t *ids;
    size_t count;
    engine_look *look;
    void *argument;
} forced;

/* Does memory have to be consulted before the next token? At the start of an answer it has just
 * been, by take_question: an event that fires there waits until something is said. */
static bool event_fires(engine_session *s, size_t index, float entropy)
{
    if (!session_recalls(s) || !has_memory(s)) {
        return false;
    }
    if (s->options.trigger == ENGINE_TRIGGER_ALWAYS) {
        return index > 0;
    }
    bool fires = innovates(s, entropy);
    if (fires && index == 0 && s->question) {
        (void)innovation_again(&s->innovation, 1);
        return false;
    }
    return fires;
}

static base_status generate(engine_session *s, size_t max_tokens, const forced *force,
                            base_error *err)
{
    base_status status = BASE_OK;
    size_t count = force ? force->count : max_tokens;
    bool drafts = !force && !s->options.no_draft && s->options.sampling.temperature == 0 &&
                  !(s->e->gpu && core_has_state(s->window.stream)) && !session_lives(s);
    s->draft.refused = 0;
    for (size_t n = 0; n < count && !status; n++) {
        float lse, entropy;
        stats(s, session_logits(s), &lse, &entropy);
        bool event = event_fires(s, n, entropy);
        if (event) {
            session_draft_drop(s);
            if ((status = session_recall_here(s, true, entropy, err))) {
                break;
            }
            stats(s, s->logits, &lse, &entropy);
        }
        const float *logits = session_logits(s);
        int32_t id = force ? force->ids[n] : sample_next(s->sampler, logits);
        if (force && force->look) {
            id = force->look(force->argument, n, id, logits, vocabulary(s));
        }
        if (!force && tokenizer_is_end(s->e->tokenizer, id)) {
            break;
        }
        bool start = n == 0 && s->question && session_recalls(s) && has_memory(s);
        engine_token token = {.id = id,
                              .surprise_nats = lse - logits[id],
                              .entropy_nats = entropy,
                              .attention_mass = session_mass(s),
                              .event = event || start,
                              .answer = true};
        status = session_note_token(s, &token, err);
        if (!status && !(status = session_note_text(s, id, false, err))) {
            status = session_say(s, id, drafts ? count - n - 1 : 0, err);
        }
        if (!status && !(status = session_lived_note(s, id, token.surprise_nats, err))) {
            status = session_lived_leave(s, err);
        }
    }
    session_draft_drop(s);
    return status;
}

/* May what follows the question's memories be dropped and run again? */
static bool can_ask_again(const engine_session *s, const chat_ids *question)
{
    size_t from = is_layout_b(s, question->count) ? s->memory_at : s->header_at;
    return goes_back(s) || splice_slots(&s->window) - from <= CORE_ROLLBACK;
}

/* Where the reader has refused and memory leads on, the answer is said anew. */
static base_status follow(engine_session *s, size_t max_tokens, base_error *err)
{
    chat_ids question = {0};
    size_t count = 0;
    bool whole;
    if (!session_may_follow(s) || s->chain.count == 0 || !session_refuses(s, &whole) || !whole) {
        return BASE_OK;
    }
    base_status status = prompt_question(&s->prompt, s->question, &question, err);
    bool layout_b = !status && is_layout_b(s, question.count);
    if (!status && can_ask_again(s, &question) &&
        !(status = session_follow_chain(s, true, layout_b, &count, err)) && count > 0 &&
        !(status = open_answer(s, layout_b ? &question : NULL, err))) {
        note_first(s);
        status = generate(s, max_tokens, NULL, err);
    }
    chat_ids_free(&question);
    return status;
}

static base_status begin_answer(engine_session *s, const char *question, engine_answer *answer,
                                base_error *err)
{
    *answer = (engine_answer){0};
    s->answer = answer;
    s->begin_ms = base_clock_ms();
    s->token_capacity = s->event_capacity = 0;
    s->text_sent = s->chain.count = 0;
    base_buffer_clear(&s->text);
    base_free(s->question);
    s->question = NULL;
    if (question && !(s->question = base_strdup(question))) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a question");
    }
    return BASE_OK;
}

/* Does a turn teach the next answer to be the same? A refusal is said again, and so is nothing, and
 * what was said twice in a row, whatever is asked. */
static bool is_said_again(engine_session *s)
{
    const char *text = s->answer->text;
    uint32_t before = s->reply;
    s->reply = base_crc32c(0, text, strlen(text));
    return s->answer->abstained || !*text || s->reply == before;
}

static base_status end_answer(engine_session *s, base_status status, base_error *err)
{
    splice_watch(&s->window, false);
    if (!status) {
        status = session_note_text(s, -1, true, err);
    }
    if (!status) {
        status = session_finish_answer(s, err);
    }
    if (status) {
        engine_answer_free(s->answer);
        drop_turns(s); /* whatever stands there is half a turn */
    } else if (s->question && is_said_again(s)) {
        s->answer->turns_dropped = true;
        drop_turns(s);
    }
    s->answer = NULL;
    return status;
}

/* A turn as it was, without memory: what was asked and what was said. */
static base_status replay(engine_session *s, const char *said, base_error *err)
{
    chat_ids question = {0}, answer = {0};
    base_status status = prompt_question(&s->prompt, s->question, &question, err);
    if (!status && !(status = chat_text(s->chat, said, strlen(said), &answer, err)) &&
        !(status = make_space(s, question.count, answer.count, err)) &&
        !(status = open_user_turn(s, err)) && !(status = open_answer(s, &question, err))) {
        status = run(s, answer.ids, answer.count, err);
    }
    chat_ids_free(&question);
    chat_ids_free(&answer);
    return status;
}

base_status engine_replay(engine_session *s, const char *question, const char *said,
                          base_error *err)
{
    engine_answer answer;
    base_status status = begin_answer(s, question, &answer, err);
    if (!status) {
        status = replay(s, said, err);
    }
    splice_watch(&s->window, false);
    s->reply = base_crc32c(0, said, strlen(said));
    if (status) {
        drop_turns(s);
    }
    engine_answer_free(&answer);
    s->answer = NULL;
    return status;
}

base_status engine_ask(engine_session *s, const char *question, size_t max_tokens,
                       engine_answer *answer, base_error *err)
{
    bool abstain = false;
    base_status status = begin_answer(s, question, answer, err);
    if (!status) {
        status = take_question(s, max_tokens, &abstain, err);
    }
    if (!status && abstain) {
        answer->abstained = true;
        status = base_buffer_append_text(&s->text, ENGINE_ABSTAIN_TEXT);
    } else if (!status && !(status = generate(s, max_tokens, NULL, err))) {
        status = follow(s, max_tokens, err);
    }
    return end_answer(s, status, err);
}

void engine_watch_novelty(engine_session *s, float *novelty)
{
    core_novelty_watch(s->window.stream, novelty);
}

/* Text without turns: BOS where the model wants one, then the text; memories go before the sentence
 * that is being said (running.c). Anew: behind nothing. */
static base_status take_text(engine_session *s, const int32_t *ids, size_t count, bool anew,
                             base_error *err)
{
    int32_t bos = tokenizer_bos(s->e->tokenizer);
    prompt_events events = {0};
    base_status status = BASE_OK;
    anew = anew || splice_slots(&s->window) == 0 || s->answered_before;
    bool known = !anew;
    if (anew) {
        s->prefix_stands = false;
        drop_turns(s);
        if (bos >= 0 && tokenizer_adds_bos(s->e->tokenizer)) {
            status = run(s, &bos, 1, err);
            known = true;
        }
        s->memory_at = s->header_at = s->answer_at = splice_slots(&s->window);
        session_lived_clear(s);
    }
    if (!status && count > 0) {
        warn_of_length(s, count);
        status = session_recalls(s) || session_lives(s)
                     ? read_prompt(s, ids, count, known, &events, err)
                     : run(s, ids, count, err);
    }
    if (events.count > 0) { /* there was no boundary to splice at: it stays open until the end */
        innovation_again(&s->innovation, 1);
    }
    s->answer_at = s->header_at = splice_slots(&s->window);
    splice_watch(&s->window, true);
    return status;
}

static base_status go_on(engine_session *s, const char *text, size_t max_tokens, bool anew,
                         engine_answer *answer, base_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0;
    base_status status = begin_answer(s, NULL, answer, err);
    if (!status) {
        status = tokenizer_encode(s->e->tokenizer, text, strlen(text), &ids, &count, err);
    }
    if (!status && anew && count == 0 && !tokenizer_adds_bos(s->e->tokenizer)) {
        status = base_fail(err, BASE_INVALID, "the prompt is empty");
    }
    if (!status) {
        status = take_text(s, ids, count, anew, err);
    }
    base_free(ids);
    if (!status) {
        status = generate(s, max_tokens, NULL, err);
    }
    return end_answer(s, status, err);
}

base_status engine_generate(engine_session *s, const char *text, size_t max_tokens,
                            engine_answer *answer, base_error *err)
{
    return go_on(s, text, max_tokens, true, answer, err);
}

base_status engine_continue(engine_session *s, const char *text, size_t max_tokens,
                            engine_answer *answer, base_error *err)
{
    return go_on(s, text, max_tokens, false, answer, err);
}

base_status engine_force(engine_session *s, const char *question, const char *text,
                         engine_look *look, void *argument, engine_answer *answer, base_error *err)
{
    forced force = {.look = look, .argument = argument};
    int32_t *ids = NULL;
    bool abstain, may_abstain = s->options.may_abstain;
    s->options.may_abstain = false;
    base_status status = begin_answer(s, question, answer, err);
    if (!status) {
        status = tokenizer_encode(s->e->tokenizer, text, strlen(text), &ids, &force.count, err);
    }
    if (!status) {
        status = question ? take_question(s, force.count, &abstain, err)
                          : take_text(s, NULL, 0, true, err);
    }
    if (!status) {
        force.ids = ids;
        status = generate(s, force.count, &force, err);
    }
    s->options.may_abstain = may_abstain;
    base_free(ids);
    return end_answer(s, status, err);
}
