/* engine/core.h: the model core. A loaded model (immutable, shared) and a stream (one running
 * sequence with its window).
 *
 * The *window* of a stream is an array of slots in position order: fixed prefix and sinks | older
 * live tokens | memories | newer live tokens. A slot's position is its index, so positions are
 * contiguous over the slots that are present (semantics §5); an insert or a removal shifts what
 * stands behind it. Each slot holds, per layer, its key before rotation, its rotated key, and its
 * value. Keys are always rotated from the stored pre-RoPE form, never re-rotated.
 *
 * A *bounded* window (options.window = W) serves an endless stream with constant memory and time: a
 * token sees the sinks, the memories, and the last W live tokens, at contiguous positions. Older
 * live tokens stay present for CORE_ROLLBACK more, so that as many can be dropped and run again;
 * then they leave. Slots keep their index for ever: between the sinks and core_slots_begin there is
 * nothing any more.
 *
 * Knows nothing of stores, retrieval or text. Thread rule: a model may be shared; a stream belongs
 * to one thread at a time.
 */
#ifndef ENGINE_CORE_H
#define ENGINE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/thread.h"
#include "engine/gguf.h"
#include "engine/kernels.h"

typedef struct core_model core_model;
typedef struct core_stream core_stream;
struct gpu_model; /* gpu.h */

typedef struct core_shape {
    size_t layers, channels, heads, kv_heads, head_size, feed_forward, vocabulary, context_max;
    float rms_eps, rope_base;
    bool tied_output; /* logits use the embedding matrix */
} core_shape;

/* Load a GGUF model (architectures llama, qwen2, qwen3, mamba2, granitehybrid, and bmojo, ours for
 * B'MOJO-F: model_fading.c; others are refused by name). The file stays mapped.
 * adapters: paths, NULL-terminated, or NULL = none; in any order at most one GGUF LoRA, merged into
 * the weights at load (merged matrices become P8 with per-32 scales, documented), and one set of
 * trained mixers, which make a hybrid of a Transformer (adapter_core.c). Refused by name: one made
 * for another model, a second of its kind. pool: its threads load layers side by side; NULL = this
 * thread only. Errors: BASE_NOT_FOUND, BASE_CORRUPT (place named), BASE_INVALID, BASE_UNSUPPORTED,
 * BASE_NO_MEMORY. */
base_status core_model_open(const char *path, const char *const *adapters, base_pool *pool,
                            core_model **out, base_error *err);
void core_model_close(core_model *model);
const core_shape *core_model_shape(const core_model *model);
/* W of its fading layers, 0 when it has none. */
size_t core_model_exact_window(const core_model *model);
size_t core_model_fading_layers(const core_model *model);
/* Did an adapter bring them? Then the model is as good a Transformer where they are not used. */
bool core_model_fading_added(const core_model *model);
/* Layers that are recurrent alone, without attention (Mamba2). */
size_t core_model_recurrent_layers(const core_model *model);
/* metadata: tokenizer, chat template; lives with the model */
const gguf_file *core_model_file(const core_model *model);
/* SHA-256 over the model file's metadata and tensor table plus sampled tensor bytes (and the
 * adapters'): names it in KV tags. Cheap. */
const uint8_t *core_model_hash(const core_model *model); /* [32] */
enum { CORE_ADAPTERS_MAX = 2 };
/* Paths of its adapters, LoRA first, valid while the model is open; the number of them. */
size_t core_model_adapters(const core_model *model, const char *paths[CORE_ADAPTERS_MAX]);
/* bytes of weights that one decode step reads */
size_t core_model_weight_bytes(const core_model *model);

/* --- stream ----------------------------------------------------------------------------------- */

enum {
    CORE_SINKS_MIN = 4, /* without them a model trained with full attention is lost (+0.85 nats) */
    /* tokens that can be dropped and run again in a bounded window: a question and a refusal */
    CORE_ROLLBACK = 80
};

/* What the states of mixers make of a memory that enters attention (semantics §6): */
typedef enum core_splice_state {
    CORE_SPLICE_NONE,   /* nothing */
    CORE_SPLICE_REPLAY, /* its tokens are run through the mixers */
    CORE_SPLICE_SUM,    /* the state that it makes alone is added */
    CORE_SPLICE_PICASO, /* the same is composed with the present one: splice_state.c */
    CORE_SPLICE_COUNT
} core_splice_state;
bool core_splice_state_parse(const char *text, core_splice_state *how); /* "none", "replay", ... */

typedef struct core_stream_options {
    /* capacity of the window, 0 = the model's context; where it is bounded: room for sinks and
     * memories beside the live tokens, 0 = 512 */
    size_t slots_max;
    size_t window; /* W: live tokens that a token sees; 0 = not bounded */
    /* Use the model's fading layers, with its own window; else they are plain attention layers. */
    bool hybrid;
    /* Needs layers with a state, on the CPU: else core_stream_open gives BASE_INVALID,
     * BASE_UNSUPPORTED. */
    core_splice_state splice_state;
    size_t batch_max; /* largest T of one core_run pass; 0 = 64, on a device 512 */
    bool kv_f32;      /* keys and values in f32 (tests); default f16, always on a device */
    kernel_activations activations;
    base_pool *pool; /* borrowed; NULL = this thread only */
    /* Run on this device: its copy of the same model, borrowed; NULL = the CPU. There activations
     * are what the device's kernels make of them, and a lost device shows as BASE_DEVICE from
     * core_run, and from then on. */
    struct gpu_model *device;
} core_stream_options;

/* The window that a stream with these options has, 0 = not bounded (a hybrid's is the model's). */
size_t core_options_window(const core_model *model, const core_stream_options *options);
/* Bytes that core_stream_open will take, all of it allocated there: the step allocates nothing. */
size_t core_stream_bytes(const core_model *model, const core_stream_options *options);
base_status core_stream_open(const core_model *model, const core_stream_options *options,
                             core_stream **out, base_error *err);
void core_stream_close(core_stream *stream);
void core_stream_clear(core_stream *stream); /* empty window */

size_t core_slots(const core_stream *stream); /* index of the next token's slot */
/* First slot behind the sinks of a bounded window that has not left, else 0: the first place where
 * a memory may go. */
size_t core_slots_begin(const core_stream *stream);
/* Slots that an insert may take; in an unbounded window also core_run. */
size_t core_slots_free(const core_stream *stream);
size_t core_window(const core_stream *stream); /* W, 0 = not bounded */
/* Does it run layers with a state? Then at most CORE_ROLLBACK live tokens may be dropped from the
 * end, or all; live tokens in the middle leave attention, but not the state. */
bool core_has_state(const core_stream *stream);
int32_t core_token(const core_stream *stream, size_t slot); /* id; -1 for a memory's slot */
/* First slot with this owner, SIZE_MAX when there is none. A memory moves up when live tokens
 * behind it leave. */
size_t core_owner_slot(const core_stream *stream, uint32_t owner);
/* The first `count` slots (at least CORE_SINKS_MIN) never leave. Before anything has left; they and
 * the memories must fit the room beside the live tokens. core_stream_clear goes back to the
 * minimum. */
void core_set_sinks(core_stream *stream, size_t count);

/* Run T tokens (any T; cut into batches inside) at the end of the window: each becomes a slot and
 * attends to everything before it and itself, with the slots' biases. logits: NULL, or [rows, V]
 * f32 for the last `rows` tokens (rows <= T). Errors: BASE_LIMIT when an unbounded window is full
 * (nothing run), BASE_INVALID for an id outside the vocabulary. */
base_status core_run(core_stream *stream, const int32_t *tokens, size_t token_count, float *logits,
                     size_t rows, base_error *err);

/* One greedy step: the largest logit behind a token, -log of its probability, and the entropy. */
typedef struct core_step {
    int32_t token;
    float surprise_nats, entropy_nats;
} core_step;
/* `count` greedy steps: the first is fed with `token`, each later one with what the one before
 * chose. steps [count]. On a device no logits leave it, and attention mass is not watched. Errors:
 * as core_run; BASE_DEVICE. */
base_status core_greedy(core_stream *stream, int32_t token, size_t count, core_step *steps,
                        base_error *err);

/* Streams that step together: on a device weights are read once for all of them; on the CPU they
 * take turns, which is the definition. They outlive the batch, and go on by themselves as they like
 * between its steps. */
typedef struct core_batch core_batch;
/* Errors: BASE_INVALID (different models or options, some on a device, one twice), BASE_LIMIT (more
 * than the device takes at once), BASE_NO_MEMORY, BASE_DEVICE, BASE_UNSUPPORTED. */
base_status core_batch_open(core_stream *const *streams, size_t count, core_batch **out,
                            base_error *err);
void core_batch_close(core_batch *batch);
/* `count` greedy steps of each: tokens [streams] are fed first. steps [count, streams]. Attention
 * mass is not watched on a device. Errors: as core_greedy; BASE_LIMIT and BASE_INVALID before
 * anything is run; after BASE_DEVICE all of the streams are broken. */
base_status core_batch_greedy(core_batch *batch, const int32_t *tokens, size_t count,
                              core_step *steps, base_error *err);

/* Remove slots [at, at + count); later slots move down and are rotated to their new positions. In a
 * bounded window, or with a state, at most CORE_ROLLBACK live tokens may be dropped from the end
 * before others are run: what has left does not come back. */
void core_window_remove(core_stream *stream, size_t at, size_t count);

/* A block of keys and values outside any window: [layers][2][count][G*D] f16 or f32, keys before
 * rotation, keys then values per layer. */
size_t core_block_bytes(const core_stream *stream, size_t count);
/* Copy slots [at, at+count) out, in the stream's KV type. Of a lost device: zeros. */
void core_block_read(const core_stream *stream, size_t at, size_t count, void *block);
/* Insert a block before slot `at`; later slots move up and are rotated to their new positions. In a
 * bounded window tokens that have left make room; where `at` is one of them, the block goes to
 * core_slots_begin. core_owner_slot says where it, and any other memory, lies then.
 * bias: ln(strength), added to the attention logits of these slots in every layer and head; owner:
 * tag for attention mass, > 0. Errors: BASE_LIMIT (window full). */
base_status core_window_insert(core_stream *stream, size_t at, size_t count, const void *block,
                               float bias, uint32_t owner, base_error *err);
void core_window_set_bias(core_stream *stream, size_t at, size_t count, float bias);

/* Projections of the next `count` tokens that the mixers of all layers read, also of fading layers
 * that are run as plain attention: rows [core_rows_floats]; NULL switches off. CPU only. */
size_t core_rows_floats(const core_model *model, size_t count);
void core_rows_watch(core_stream *stream, float *rows, size_t count);
/* A memory, just inserted as `owner`, also enters the states as options.splice_state says: before
 * the next token that is run, and where that one is dropped, before the next again. rows_take:
 * rows of its `count` tokens, base_free'd here, also on failure (BASE_NO_MEMORY). */
base_status core_state_enter(core_stream *stream, uint32_t owner, float *rows_take, size_t count,
                             base_error *err);
/* It leaves attention. States keep it, as they keep live tokens, unless all tokens run since it
 * entered are dropped, or there were none. */
void core_state_leave(core_stream *stream, uint32_t owner);

/* The whole stream as bytes: window, positions, sinks, states of mixers and what a rerun needs
 * (not the watch on attention mass). A stream that restores it continues with the same bits, given
 * the same model, adapters, options and instruction set. Not with options.splice_state. Format:
 * state.c. */
size_t core_state_bytes(const core_stream *stream);
void core_state_save(core_stream *stream, void *out); /* [core_state_bytes] */
/* Errors: BASE_CORRUPT (cut short, a bit flipped), BASE_VERSION, BASE_INVALID (another model, other
 * options, kernels or device), BASE_LIMIT (more slots than this window has); the stream is as it
 * was. */
base_status core_state_restore(core_stream *stream, const void *state, size_t size,
                               base_error *err);

/* The same to go back to within a session, for this stream alone: without checksum, and nothing is
 * looked at. No memory may have entered the states before the mark. */
size_t core_mark_bytes(const core_stream *stream);
void core_mark(core_stream *stream, void *out); /* [core_mark_bytes] */
void core_return(core_stream *stream, const void *mark);

/* Attention mass: while on, for each owner < owners, the share of attention that its slots got,
 * averaged over layers and heads, per token run. mass [owners] accumulates; *tokens counts the
 * tokens that contributed. NULL switches off. The tokens of the last batch that was run are summed
 * up with the next one, or by core_mass_sum; until then the last `count` of them can be dropped. */
void core_mass_watch(core_stream *stream, float *mass, size_t owners, size_t *tokens);
void core_mass_sum(core_stream *stream);
void core_mass_drop(core_stream *stream, size_t count);
/* Share of its attention that the token `back` before the last one of the last batch gave to owned
 * slots, 0..1; NAN when that was not watched, or is summed up already. */
float core_mass_of(const core_stream *stream, size_t back);

/* Hidden state (CPU only): while on, every core_run adds what each token's residual stream is
 * behind `layer` (0-based), scaled to a mean square of 1. sum [channels] accumulates; NULL switches
 * off. */
void core_hidden_watch(core_stream *stream, size_t layer, float *sum);

/* Novelty (CPU only): while on, every core_run leaves in *novelty how much of its last token the
 * mixers did not predict (mixer.h), mean over their layers and heads. NAN until then, and where
 * there are no mixers; NULL switches off. */
void core_novelty_watch(core_stream *stream, float *novelty);

#endif
