/* engine/kernels_i16_avx512.c: products in 16-bit integers for AVX-512 with VNNI (kernels_i16.h). A
 * tile is 32 rows x up to 12 tokens, whose sums stay in registers: a step of two columns is two
 * loads of weights, and for each token a load and two VPDPWSSD. With 16 rows the loads, two a cycle
 * at most, would take longer than the products.
 */
#include "engine/kernels_internal.h"

#if defined(KERNEL_X86)

#include <immintrin.h>
#include <string.h>

#include "engine/kernels_i16_avx512.h"

#define INLINE KERNEL_INLINE
#define UNROLL KERNEL_UNROLL
#pragma GCC diagnostic ignored "-Wsign-conversion" /* as in kernels_avx512.c */

INLINE __m512i pair_of(const int16_t *codes)
{
    int32_t pair;
    memcpy(&pair, codes, sizeof pair);
    return _mm512_set1_epi32(pair);
}

/* sum += products of pairs. GCC 12 copies every sum twice around the intrinsic and has no registers
 * left for that. */
INLINE void add_pairs(__m512i *sum, __m512i weights, __m512i pair)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(weights), "v"(pair));
}

/* T <= 12 tokens times G <= 2 groups of rows. */
INLINE void tile(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                 const float *step_a, float *out, const int T, const int G)
{
    const size_t pairs = (m->columns + 1) / 2, width = kernel_i16_width(m->columns);
    const size_t step = 2 * KERNEL_I16_GROUP;
    const int16_t *w = m->codes + group * pairs * step;
    __m512i sum[2][12];
    UNROLL
    for (int t = 0; t < T; t++) {
        sum[0][t] = sum[1][t] = _mm512_setzero_si512();
    }
    for (size_t p = 0; p < pairs; p++, w += step, codes += 2) {
        __m512i first = _mm512_load_si512(w);
        __m512i second = G > 1 ? _mm512_load_si512(w + pairs * step) : first;
        UNROLL
        for (int t = 0; t < T; t++) {
            __m512i pair = pair_of(codes + (size_t)t * width);
            add_pairs(&sum[0][t], first, pair);
            if (G > 1) {
                add_pairs(&sum[1][t], second, pair);
            }
        }
    }
    UNROLL
    for (int t = 0; t < T; t++) {
        kernel_i16_store(m, group, sum[0][t], step_a[t], out + (size_t)t * m->rows);
        if (G > 1) {
            kernel_i16_store(m, group + 1, sum[1][t], step_a[t], out + (size_t)t * m->rows);
        }
    }
}

INLINE void multiply_groups(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                            const float *step_a, size_t tokens, float *out, const int G)
{
    const size_t width = kernel_i16_width(m->columns);
    while (tokens > 0) {
        size_t count = tokens >= 12 ? 12 : tokens >= 6 ? 6 : tokens >= 3 ? 3 : 1;
        if (count == 12) {
            tile(m, group, codes, step_a, out, 12, G);
        } else if (count == 6) {
            tile(m, group, codes, step_a, out, 6, G);
        } else if (count == 3) {
            tile(m, group, codes, step_a, out, 3, G);
        } else {
            tile(m, group, codes, step_a, out, 1, G);
        }
        tokens -= count;
        codes += count * width;
        step_a += count;
        out += count * m->rows;
    }
}

static void multiply(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out)
{
    if ((group + 1) * KERNEL_I16_GROUP < m->rows) {
        multiply_groups(m, group, codes, step_a, tokens, out, 2);
    } else {
        multiply_groups(m, group, codes, step_a, tokens, out, 1);
    }
}

static float round_row(int16_t *codes, const float *x, size_t columns, int32_t limit)
{
    return kernel_i16_avx2.round_row(codes, x, columns, limit);
}

const kernel_i16_ops kernel_i16_avx512 = {
    .token_block = 48, .groups = 2, .round_row = round_row, .multiply = multiply};

#else
typedef int kernels_i16_avx512_empty; /* a translation unit holds at least one declaration */
#endif
