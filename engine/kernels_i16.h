/* engine/kernels_i16.h: matrix products of the text encoder in 16-bit integers.
 *
 * A row of weights and a row of activations are each rounded to whole multiples of one step, their
 * largest magnitude becoming `limit`; products of codes are summed in int32, exactly, and both
 * steps multiply the sum:
 *
 *     out[t][n] = (sum over k of a[t][k] * w[n][k]) * step_w[n] * step_a[t] + bias[n]
 *
 * limit = floor(sqrt((2^31 - 1) / K)), so that no sum overflows: 2364 for K = 384, 1182 for 1536;
 * at most 16319 = 127 * 128 + 63, so that two bytes hold a code (kernels_amx.c). A
 * value is off by half a step, 1/4728 of the largest in its row: 10 to 20 times finer than 8 bits.
 * VPMADDWD does 16 products in the time of 8 in f32, and half as many bytes are read.
 *
 * As sums are exact and the rest is the same few operations, every instruction set gives the same
 * bits, whatever T, the number of threads and the company of a row.
 *
 * Layout of codes: groups of 16 rows (the last filled up with zeros); in a group, for each pair of
 * columns, the pairs of 16 rows: int16 [N/16][K/2][16][2]. An odd K is filled up with a zero. Codes
 * of activations: a row of K, in room for K filled up to 64.
 */
#ifndef ENGINE_KERNELS_I16_H
#define ENGINE_KERNELS_I16_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/thread.h"

#define KERNEL_I16_GROUP 16
#define KERNEL_I16_LIMIT_MAX 16319

/* Room of a row of codes of activations, in int16. */
static inline size_t kernel_i16_width(size_t columns)
{
    return (columns + 63) / 64 * 64;
}

typedef struct kernel_i16_matrix {
    size_t rows, columns; /* N, K >= 1 */
    int16_t *codes;       /* owned, see above */
    float *steps, *bias;  /* [N filled up to groups of 16]; in the same block as codes */
    int32_t limit;
} kernel_i16_matrix;

/* Rows [begin, begin + rows) of a matrix that kernel_i16_make has made: weight [rows, K] and bias
 * [rows] finite f32. Several matrices that take the same x become one. */
base_status kernel_i16_make(kernel_i16_matrix *m, size_t rows, size_t columns, base_error *err);
void kernel_i16_set(kernel_i16_matrix *m, size_t begin, const float *weight, const float *bias,
                    size_t rows);
void kernel_i16_free(kernel_i16_matrix *m);

/* Scratch bytes that kernel_i16_matmul needs for this T and K, 64-aligned. */
size_t kernel_i16_scratch(size_t tokens, size_t columns);
/* out [T, N] = x [T, K] W^T + bias. x finite; out must not overlap x. pool may be NULL. Runs by the
 * instruction set of kernel_get(). */
void kernel_i16_matmul(base_pool *pool, const kernel_i16_matrix *m, const float *x, size_t tokens,
                       float *out, void *scratch);

/* --- what the instruction sets provide -------------------------------------------------------- */

typedef struct kernel_i16_ops {
    size_t token_block; /* tokens of one call of multiply, whose codes stay in the second cache */
    size_t groups;      /* of rows that one call takes, where there are as many */
    void (*prepare)(void); /* once before calls of multiply by a thread; NULL: nothing to do */
    /* One row: codes [width], nearest even; returns the step (0 when all are 0). */
    float (*round_row)(int16_t *codes, const float *x, size_t columns, int32_t limit);
    /* `tokens` rows of codes, step_a [tokens], times `groups` groups from `group` on. out: row 0 of
     * the call, column 0; stride N. */
    void (*multiply)(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out);
} kernel_i16_ops;
extern const kernel_i16_ops kernel_i16_scalar;
extern const kernel_i16_ops kernel_i16_avx2;
extern const kernel_i16_ops kernel_i16_avx512;
extern const kernel_i16_ops kernel_i16_amx; /* for K <= */
#define KERNEL_I16_AMX_COLUMNS_MAX 2048

#endif
