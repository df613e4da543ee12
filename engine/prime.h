/* engine/prime.h: make a B'MOJO-F hybrid of a Transformer, without training (Stage 0).
 *
 * The attention half keeps its weights, the mixer starts from them (queries, keys, values, output
 * copied; gate rows from output and values), and the factor of every head of the mixer is 0 with f
 * = u + mixer(u): so the hybrid is, exactly, attention over sinks and the last 2W tokens, and the
 * original as long as nothing is older. Training starts from there.
 */
#ifndef ENGINE_PRIME_H
#define ENGINE_PRIME_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "engine/gguf.h"
#include "engine/mixer.h"

typedef struct prime_options {
    size_t window;      /* W of the exact window; 0 = 1,024 */
    const bool *layers; /* [layer_count] which become fading; NULL = every second, from 1 on */
    size_t layer_count; /* at least the model's; layers beyond it must not be set */
    mixer_kind mixer;
    uint64_t seed; /* of what is drawn: decay, beta and alpha rows, dt */
} prime_options;

/* Read the GGUF model at `from` (llama, qwen2, qwen3) and write the hybrid at `to`, in the scheme
 * of model_fading.c, durably; the whole file is made in memory. Weights that are copied keep their
 * type; the gate rows become Q8_0 (F32 where columns do not fit its blocks). Errors: those of
 * core_model_open; BASE_INVALID: it is a hybrid already, or a layer that is not there. */
base_status prime_model(const char *from, const char *to, const prime_options *options,
                        base_error *err);

/* Gate rows [H*D, C] of one layer's mixer, (W_o^T + W_v with each row repeated H/G times)/2, from
 * W_o = output [C, H*D] and W_v = value [G*D, C]: Q8_0 (F32 where C does not fit its blocks). *gate
 * gets no name, its data is *owned, the caller's to base_free. Errors: BASE_CORRUPT (shapes that do
 * not fit), BASE_NO_MEMORY. */
base_status prime_gate(const gguf_tensor *output, const gguf_tensor *value, gguf_tensor *gate,
                       uint8_t **owned, base_error *err);

#endif
