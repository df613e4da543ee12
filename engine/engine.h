/* engine/engine.h: the public face of the engine. A loaded engine (models, shared) and a session
 * (one running window over a store).
 *
 * The loop (session.c, start reading there): every token's next-token entropy goes through the
 * innovation test; when it fires, memory is queried with what is being asked and said now, and the
 * best episodes are spliced into the window as keys and values with ln(strength) as attention bias;
 * only the few tokens that must see them are run again.
 *
 * Thread rule: an engine may serve one session at a time (encoder and scratch are shared); times
 * and seeds are passed in.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/core.h"
#include "engine/encoder.h"
#include "engine/innovation.h"
#include "engine/kvblob.h"
#include "engine/sample.h"
#include "engine/tokenizer.h"
#include "retrieval/retrieval.h"
#include "store/store.h"

typedef struct engine engine;
typedef struct engine_session engine_session;

/* What attention sees (contract: --core). */
typedef enum engine_core {
    ENGINE_CORE_DEFAULT, /* hybrid where the model has fading layers, else full */
    ENGINE_CORE_FULL,    /* everything in the window's slots */
    ENGINE_CORE_WINDOW,  /* sinks, memories and the last W tokens, endlessly */
    ENGINE_CORE_HYBRID,  /* the model's fading layers, with their own window */
    ENGINE_CORE_COUNT
} engine_core;
const char *engine_core_name(engine_core core);
bool engine_core_parse(const char *text, engine_core *core); /* "full", "window", "hybrid" */

/* Where the model runs (contract: --device). The text encoder, the kernels of --reference runs and
 * hidden-state queries stay on the CPU. */
typedef enum engine_device {
    ENGINE_DEVICE_CPU,
    ENGINE_DEVICE_CUDA,
    ENGINE_DEVICE_AUTO, /* CUDA where there is a usable device, else the CPU with a warning */
    ENGINE_DEVICE_COUNT
} engine_device;
bool engine_device_parse(const char *text, engine_device *device); /* "cpu", "cuda", "auto" */

typedef struct engine_options {
    const char *model_path;
    const char *encoder_path; /* folder; NULL = no encoder (no memory possible) */
    const char *const *adapters; /* paths, NULL-terminated; NULL = none (core_model_open) */
    engine_core core;
    engine_device device;
    size_t window;       /* W of a bounded core, 0 = 1,024 */
    size_t threads;      /* 0 = all cores */
    bool reference;      /* f32 activations and f32 KV: slow, for checks */
    kvblob_type kv_type; /* of keys and values on disk (contract: --kv-type) */
} engine_options;

/* Errors: those of core_model_open, tokenizer_open and encoder_open; with ENGINE_DEVICE_CUDA also
 * BASE_DEVICE, and BASE_UNSUPPORTED for a model that the device's kernels do not take. */
base_status engine_open(const engine_options *options, engine **out, base_error *err);
void engine_close(engine *e);
const core_model *engine_model(const engine *e);
const tokenizer *engine_tokenizer(const engine *e);
encoder *engine_encoder(const engine *e); /* NULL when opened without */
base_pool *engine_pool(const engine *e);
struct gpu_model *engine_gpu(const engine *e); /* NULL = the model runs on the CPU */
double engine_load_ms(const engine *e);
const char *engine_model_name(const engine *e); /* file name without folder */

/* The model's own vector of a text, in place of the encoder's (ablation; hidden.c): vector
 * [engine_hidden_dim], unit length. One thread at a time an engine. Errors: BASE_NO_MEMORY. */
size_t engine_hidden_dim(const engine *e);
base_status engine_hidden_vector(engine *e, const char *text, size_t size, float *vector,
                                 base_error *err);

/* How memory enters (contract: --arm). */
typedef enum engine_arm {
    ENGINE_ARM_NONE,   /* no memory */
    ENGINE_ARM_PROMPT, /* bolt-on RAG: top-k texts in the prompt, once, before generation */
    ENGINE_ARM_STATIC, /* in-loop splice without decay or supersession */
    ENGINE_ARM_FULL,   /* everything */
    /* evaluation only, from here on */
    ENGINE_ARM_ORACLE,       /* the given episodes are spliced, nothing is retrieved */
    ENGINE_ARM_FULL_CONTEXT, /* all that is known at as-of in the prompt, newest last */
    ENGINE_ARM_COUNT
} engine_arm;
const char *engine_arm_name(engine_arm arm);
bool engine_arm_parse(const char *text, engine_arm *arm);

/* When memory is consulted (ablations of evaluation; the default is innovation). */
typedef enum engine_trigger {
    ENGINE_TRIGGER_INNOVATION,
    ENGINE_TRIGGER_ONCE,
    ENGINE_TRIGGER_ALWAYS,
    ENGINE_TRIGGER_RANDOM, /* the same adaptive test, on seeded noise: the same rate of events */
    ENGINE_TRIGGER_COUNT
} engine_trigger;
const char *engine_trigger_name(engine_trigger trigger);
bool engine_trigger_parse(const char *text, engine_trigger *trigger);

/* Where memories stand at a turn boundary (semantics §5). AUTO: B up to 64 tokens of user turn. */
typedef enum engine_layout { ENGINE_LAYOUT_AUTO, ENGINE_LAYOUT_B, ENGINE_LAYOUT_S } engine_layout;

typedef struct engine_session_options {
    store *store;         /* borrowed; NULL = no memory */
    retrieval *retrieval; /* borrowed; NULL iff store is */
    engine_arm arm;
    engine_trigger trigger;
    /* about BASE_TIME_NONE = off; as_of BASE_TIME_MAX is cut to now */
    int64_t now_us, as_of_us, about_us;
    sample_options sampling;
    innovation_options innovation;
    /* capacity where the core is not bounded, 0 = min(model context, 4096) */
    size_t window_slots;
    size_t memories_max;     /* resident at once, 0 = default */
    size_t memory_slots_max; /* resident tokens, 0 = default */
    /* relevance (retrieval.h) below which nothing is spliced and an answer abstains; NAN = the
     * calibrated default */
    float score_min;
    /* hits that score less than this share of the best are left out: beside the right memory they
     * only mislead */
    float score_share;
    /* engine_ask answers ENGINE_ABSTAIN_TEXT when nothing scores score_min */
    bool may_abstain;
    engine_layout layout; /* ablation */
    bool no_bias;         /* ablation: strength is not added in attention */
    bool no_time;         /* ablation: ranking without its time term */
    bool no_bm25;         /* ablation: ranking without BM25 */
    bool query_hidden;    /* ablation: engine_hidden_vector; the store's vectors are such too */
    bool no_kv_disk;      /* ablation: never read KV from disk */
    bool no_names;        /* ablation: what names other things than the question stays */
    bool no_follow;       /* ablation: one note does not lead to the next, a refusal stands */
    bool no_draft;        /* ablation: one token a pass, whatever a memory says */
    bool notes_plain;     /* arm prompt pastes what a splice holds: no dates, best nearest */
    bool keep_writes;     /* collect uses and new KV for engine_session_write */
    uint64_t kv_budget;   /* bytes of KV that a write leaves in the store; UINT64_MAX = any */
    bool no_uses;         /* of these, only KV: asking does not change what is answered later */
    /* Where the window is bounded: text of engine_generate and engine_continue that leaves it is
     * cut into episodes, and those that pass the write test are stored under this source (lived
     * memory); NULL = off. Needs a store that can be written. */
    const char *lived_source;
    float lived_rate;       /* share of spans that the write test aims at; 0 = the default */
    const uint64_t *oracle; /* [oracle_count] for ENGINE_ARM_ORACLE */
    const float *oracle_strength; /* [oracle_count], in (0,1]; NULL = as they have aged */
    size_t oracle_count;
    /* ablation: memories enter recurrent states, too; without such states engine_session_open
     * refuses it, as core_stream_open does; the session cannot be saved */
    core_splice_state splice_state;
    /* Called for every piece of answer text as it is final (whole code points); may be NULL. */
    void (*on_text)(void *argument, const char *text, size_t size);
    void *on_text_argument;
} engine_session_options;

void engine_session_defaults(engine_session_options *options);

base_status engine_session_open(engine *e, const engine_session_options *options,
                                engine_session **out, base_error *err);
void engine_session_close(engine_session *s);
/* Make an open session ready for an independent question: as if it had been closed and opened with
 * these options (bit for bit), but what does not depend on them stays: buffers, and the keys and
 * values of the fixed prefix. The window's size, splice_state and, where an adapter made the model
 * a hybrid, whether the arm puts text into the prompt cannot change (BASE_INVALID). On an error the
 * session can only be closed. */
base_status engine_session_restart(engine_session *s, const engine_session_options *options,
                                   base_error *err);
/* Tag [32] under which this session's keys and values lie in a store; NULL before it had one. */
const uint8_t *engine_session_kv_tag(const engine_session *s);
/* Change the clock and cuts between answers (chat: /asof). */
void engine_session_set_time(engine_session *s, int64_t now_us, int64_t as_of_us, int64_t about_us);

/* --- what happened: the trace of one answer --------------------------------------------------- */

typedef struct engine_token {
    int32_t id;
    float surprise_nats; /* -ln p of the token that was chosen */
    float entropy_nats;  /* of the distribution it was drawn from */
    /* share of the attention behind that distribution that memories got, 0..1; NAN in the prompt */
    float attention_mass;
    bool event;  /* memory was consulted before it */
    bool answer; /* false: token of the prompt */
} engine_token;

typedef enum engine_kv { ENGINE_KV_COMPUTED, ENGINE_KV_DISK } engine_kv;

typedef struct engine_memory {
    uint64_t id;
    float score, similarity, strength, logit_bias;
    size_t tokens;
    engine_kv kv;
    /* share of attention over the answer's tokens so far, filled at the end */
    float attention_mass;
} engine_memory;

enum { ENGINE_EVENT_MEMORIES_MAX = 8 };
typedef struct engine_event {
    size_t at_token;        /* index into tokens: the token that comes next */
    bool in_answer;         /* phase */
    float score, threshold; /* entropy and threshold in nats */
    double query_ms, splice_ms;
    char *query; /* text that was looked up */
    engine_memory memories[ENGINE_EVENT_MEMORIES_MAX];
    size_t memory_count;
} engine_event;

typedef struct engine_citation {
    store_episode episode;  /* owned */
    store_episode replaced; /* what it took the place of; owned; id 0: nothing that is known */
    float attention_mass;
    bool words; /* its text holds the answer's content words */
} engine_citation;

typedef struct engine_answer {
    char *text; /* NUL-terminated */
    bool abstained;
    bool turns_dropped; /* nothing of the conversation stays in the window behind it */
    float best_score; /* relevance of the best hit of retrieval at the start of the answer */
    engine_token *tokens;
    size_t token_count;
    engine_event *events;
    size_t event_count;
    engine_citation *citations;
    size_t citation_count;
    size_t prefill_tokens, decode_tokens, rerun_tokens, lookups;
    size_t decode_steps; /* passes that the decode_tokens took: fewer where a memory was copied */
    double prefill_ms, decode_ms, retrieval_ms, splice_ms;
    /* from the question to the distribution of the answer's first token: time, and tokens run */
    double first_ms;
    size_t first_tokens;
} engine_answer;
void engine_answer_free(engine_answer *answer);

/* What an abstaining answer says. */
#define ENGINE_ABSTAIN_TEXT "Memory does not hold the answer to this."

/* Answer a question behind whatever the session holds. max_tokens: of the answer. Errors:
 * BASE_LIMIT when question and answer cannot fit the window; the session stays usable. Same store,
 * seed and times give the same answer. */
base_status engine_ask(engine_session *s, const char *question, size_t max_tokens,
                       engine_answer *answer, base_error *err);

/* Read a turn that was said before, as it was said; memory is not consulted. Errors: BASE_LIMIT (it
 * does not fit the window); the window is without turns then. */
base_status engine_replay(engine_session *s, const char *question, const char *said,
                          base_error *err);

/* The session between two answers as bytes: window and all states, resident memories and their
 * slots, marks, sampler, innovation test. A session that restores it goes on with the same bits,
 * given the same engine (model, adapters, core, window, instruction set), options and store. Texts
 * are not in it, keys and values are. Appends to out; format: checkpoint.c. BASE_UNSUPPORTED: with
 * memories in states. */
base_status engine_session_save(engine_session *s, base_buffer *out, base_error *err);
/* The clock and the options stay as they are; where the seed or the innovation test's options are
 * others than they were, that begins anew. Errors: BASE_CORRUPT, BASE_VERSION, BASE_INVALID
 * (another model, core or kernels), BASE_LIMIT (the window is smaller); the session has no turns
 * then. */
base_status engine_session_restore(engine_session *s, const void *data, size_t size,
                                   base_error *err);

/* Plain continuation of text, no chat template; memory only if the session has a store. */
base_status engine_generate(engine_session *s, const char *prompt, size_t max_tokens,
                            engine_answer *answer, base_error *err);

/* The same behind the text that the session holds (turns of a conversation are dropped): one stream
 * in any number of calls, endless where the window is bounded. */
base_status engine_continue(engine_session *s, const char *text, size_t max_tokens,
                            engine_answer *answer, base_error *err);

/* What has become of the text that left the window. */
typedef struct engine_lived {
    uint64_t tokens_left, tokens_written; /* cut into episodes; of those, stored */
    uint64_t episodes_left, episodes_written;
} engine_lived;
engine_lived engine_session_lived(const engine_session *s);

/* The same loop, teacher-forced (evaluation): after `question` (NULL: none), the answer is `text`;
 * calls `look` before every token with the logits [V] that the loop would sample from. It returns
 * the token that is run: `token`, or another one in its place. */
typedef int32_t engine_look(void *argument, size_t index, int32_t token, const float *logits,
                            size_t vocabulary);
base_status engine_force(engine_session *s, const char *question, const char *text,
                         engine_look *look, void *argument, engine_answer *answer, base_error *err);

/* core_novelty_watch of the session's stream (evaluation). */
void engine_watch_novelty(engine_session *s, float *novelty);

/* Commit the uses that counted and the KV that was computed, if the writer lock is free within the
 * store's lock_wait; else they are dropped and counted (semantics §7). Never an error for the
 * answer. */
void engine_session_write(engine_session *s);

#endif
