/* engine/kernels_state.h: the inner loops of recurrent layers over one head's state S [N, P] f32 (N
 * key size, P value size, row-major).
 *
 * Every sum runs over the rows in order, one element of the result at a time, without fused
 * operations: all instruction sets give the same bits, so these need no table. Compiled once per
 * instruction set, chosen by the loader. No pointer may overlap another.
 */
#ifndef ENGINE_KERNELS_STATE_H
#define ENGINE_KERNELS_STATE_H

#include <stddef.h>

/* Depthwise convolution: out [width] of channel c = sum_k weights[c, k] rows[k, c], rows [kernel,
 * width]. */
void kernel_state_convolve(const float *rows, size_t width, size_t kernel, const float *weights,
                           float *out);
/* out [P] = sum_i x_i S_i */
void kernel_state_read(const float *state, size_t n, size_t p, const float *x, float *out);
/* S_i = decay S_i + k_i v ; out = sum_i q_i S_i */
void kernel_state_add(float *state, size_t n, size_t p, float decay, const float *k, const float *v,
                      const float *q, float *out);
/* S_i = decay S_i ; e = v - sum_i k_i S_i ; S_i += beta k_i e ; out = sum_i q_i S_i */
void kernel_state_delta(float *state, size_t n, size_t p, float decay, float beta, const float *k,
                        const float *v, const float *q, float *e, float *out);
/* Sum of squares of all elements; work [P]. */
float kernel_state_squares(const float *state, size_t n, size_t p, float *work);
/* One step of Chebyshev iteration for (S + ridge I) x = b, S symmetric [N, N]:
 * next = omega (x - eta (S x + ridge x - b)) - (omega - 1) previous. next may be previous. product
 * [N]: S x. */
void kernel_state_chebyshev(const float *state, size_t n, const float *x, const float *b,
                            float ridge, float eta, float omega, const float *previous, float *next,
                            float *product);

#endif
