/* engine/kernels_i16_avx512.c: products in 16-bit integers for AVX-512 with VNNI (kernels_i16.h). A
 * tile is 16 rows x up to 12 tokens, whose sums stay in registers: a step of two columns is one
 * load of weights and a VPDPWSSD for each token.
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

INLINE void tile(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                 const float *step_a, float *out, const int T)
{
    const size_t pairs = (m->columns + 1) / 2, width = kernel_i16_width(m->columns);
    const int16_t *w = m->codes + group * pairs * 2 * KERNEL_I16_GROUP;
    __m512i sum[12];
    UNROLL
    for (int t = 0; t < T; t++) {
        sum[t] = _mm512_setzero_si512();
    }
    for (size_t p = 0; p < pairs; p++, w += 2 * KERNEL_I16_GROUP, codes += 2) {
        __m512i weights = _mm512_load_si512(w);
        UNROLL
        for (int t = 0; t < T; t++) {
            sum[t] = _mm512_dpwssd_epi32(sum[t], weights, pair_of(codes + (size_t)t * width));
        }
    }
    UNROLL
    for (int t = 0; t < T; t++) {
        kernel_i16_store(m, group, sum[t], step_a[t], out + (size_t)t * m->rows);
    }
}

static void multiply(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out)
{
    const size_t width = kernel_i16_width(m->columns);
    while (tokens > 0) {
        size_t count = tokens >= 12 ? 12 : tokens >= 6 ? 6 : tokens >= 3 ? 3 : 1;
        if (count == 12) {
            tile(m, group, codes, step_a, out, 12);
        } else if (count == 6) {
            tile(m, group, codes, step_a, out, 6);
        } else if (count == 3) {
            tile(m, group, codes, step_a, out, 3);
        } else {
            tile(m, group, codes, step_a, out, 1);
        }
        tokens -= count;
        codes += count * width;
        step_a += count;
        out += count * m->rows;
    }
}

static float round_row(int16_t *codes, const float *x, size_t columns, int32_t limit)
{
    return kernel_i16_avx2.round_row(codes, x, columns, limit);
}

const kernel_i16_ops kernel_i16_avx512 = {
    .token_block = 48, .round_row = round_row, .multiply = multiply};

#else
typedef int kernels_i16_avx512_empty; /* a translation unit holds at least one declaration */
#endif
