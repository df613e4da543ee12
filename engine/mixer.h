/* engine/mixer.h: recurrent layers ("mixers"): Gated DeltaNet, Gated KalmaNet, Mamba2.
 *
 * One row of projections per token goes in, one row of head outputs comes out; what stands before
 * (the projections) and behind (the output projection) are matrix products of the caller. All three
 * are read as linear attention with a decaying state: queries q, keys k, values v per head h, state
 * S [N, P], N = key_size, P = value_size:
 *
 *   row -> causal depthwise convolution of q, k, v over the last `kernel` rows, SiLU
 *   GDN    (Yang et al. 2024)  q, k to unit length; S <- e^g S; e = v - S^T k; S <- S + beta k e^T
 *                              o = N^-1/2 S^T q
 *   GKA    (Gated KalmaNet)    q, k to unit length; k, v <- beta k, beta v
 *                              P <- e^g P + k k^T; U <- e^g U + k v^T; (P + lambda I) x = q by
 *                              Chebyshev, lambda = ridge |P|_F; o = N^-1/2 U^T (q + alpha (x - q))
 *   Mamba2 (Dao & Gu 2024)     S <- e^g S + delta k v^T; o = S^T q + skip v
 *   GDN, GKA: out = rms(o; norm) * SiLU(gate);  Mamba2: out = rms(o * SiLU(gate); norm)
 *
 * with beta, alpha = sigmoid(...), delta = softplus(decay row + dt_bias), g = a delta, a =
 * -exp(A_log). B'MOJO's Mamba2 has B as k, C as q, x as v. f32 throughout.
 *
 * mixer_run gives the same bits whether tokens come one by one or together, and for any number of
 * threads.
 */
#ifndef ENGINE_MIXER_H
#define ENGINE_MIXER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/thread.h"

typedef enum mixer_kind { MIXER_GDN, MIXER_GKA, MIXER_MAMBA2, MIXER_KIND_COUNT } mixer_kind;
const char *mixer_name(mixer_kind kind); /* "gdn", "gka", "mamba2" */
bool mixer_parse(const char *name, size_t size, mixer_kind *kind);

enum { MIXER_SIZE_MAX = 256, MIXER_KERNEL_MAX = 8 }; /* of N and P; of the convolution */
enum { MIXER_PICASO_MAX = 64 };                      /* states that are composed at once */

typedef struct mixer {
    mixer_kind kind;
    size_t heads; /* H; the three below divide it */
    size_t q_heads, k_heads, v_heads;
    size_t key_size, value_size; /* N, P; equal in GKA */
    size_t kernel;               /* rows under the convolution */
    size_t norm_group;           /* values under one norm; divides norm_weights */
    size_t norm_weights;         /* P (shared by heads) or H*P */
    float norm_eps, ridge;
    size_t iterations;                   /* Chebyshev */
    const float *conv;                   /* [conv width, kernel], channels q, k, v */
    const float *conv_bias;              /* [conv width] or NULL */
    const float *a;                      /* [H] -exp(A_log) */
    const float *dt_bias;                /* [H] */
    const float *beta_bias, *alpha_bias; /* [H] or NULL */
    const float *skip;                   /* [H] Mamba2's D, else NULL */
    const float *q_norm, *k_norm; /* [N] RMS weights before the convolution (eps 1e-6), or NULL */
    const float *norm;            /* [norm_weights] */
    const float *gate;            /* [H] factor of a head's output, NULL = 1 */
} mixer;

/* Row of projections: q [q_heads*N] | k [k_heads*N] | v [v_heads*P] | gate [H*P] | decay [H] |
 * beta [H] (not Mamba2) | alpha [H] (GKA). */
size_t mixer_row(const mixer *m);
size_t mixer_conv_width(const mixer *m); /* q, k and v */
size_t mixer_out_width(const mixer *m);  /* H*P */
/* Floats of one sequence's state: S (GKA: P, then U) per head, and the last kernel-1 rows' q, k, v.
 * All zero at the start. */
size_t mixer_state_floats(const mixer *m);
size_t mixer_head_floats(const mixer *m); /* of S (P and U) of one head */
/* Floats of scratch for `tokens` tokens. */
size_t mixer_scratch_floats(const mixer *m, size_t tokens);

/* T tokens: rows [T] at stride row_stride, out [T, H*P] or NULL (only the state moves on: running
 * again). innovation: NULL, or [T, H]: how much of the value the state did not predict,
 * |e|^2 / (|v|^2 + 1e-6), 0 = all predicted, near 1 = novel: GDN's own e, free; GKA: e = v - e^g
 * U^T x with (e^g P + lambda I) x = k, one more solve; Mamba2: e = v - e^g S^T k / (|k|^2 + 1e-6),
 * one more read. */
void mixer_run(const mixer *m, base_pool *pool, const float *rows, size_t row_stride, size_t tokens,
               float *state, float *out, float *innovation, float *scratch);

/* g of one head at a row: the log of what is left of its S behind the token. Of GDN that is the
 * scalar part of its transition e^g (I - beta k k^T) only. */
float mixer_log_decay(const mixer *m, const float *row, size_t head);

/* PICASO-S (Liu et al. 2025, arXiv 2502.17605): texts that make S_i alone and leave A_i of a state
 * before them, read one behind the other, give sum_i c_i S_i on average over all orders. decay,
 * weights [count <= MIXER_PICASO_MAX]: A_i in 0..1, c_i. */
void mixer_picaso(const double *decay, size_t count, double *weights);

#endif
