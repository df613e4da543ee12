/* engine/kernels_i16_avx2.c: products in 16-bit integers for AVX2 (kernels_i16.h). A tile is 16
 * rows x up to 6 tokens: 12 sums, two registers of weights and one of a pair of activations fill
 * the 16 registers; a step of two columns is 8 loads and 12 VPMADDWD.
 */
#include "engine/kernels_i16.h"
#include "engine/kernels_internal.h"

#if defined(KERNEL_X86)

#include <immintrin.h>
#include <string.h>

#define INLINE KERNEL_INLINE
#define UNROLL KERNEL_UNROLL
#pragma GCC diagnostic ignored "-Wsign-conversion" /* as in kernels_avx2.c */

enum { TILE = 6 };

static float round_row(int16_t *codes, const float *x, size_t columns, int32_t limit)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 most = _mm256_setzero_ps();
    size_t k = 0;
    for (; k + 8 <= columns; k += 8) {
        most = _mm256_max_ps(most, _mm256_and_ps(magnitude, _mm256_loadu_ps(x + k)));
    }
    float lanes[8], largest = 0.0F;
    _mm256_storeu_ps(lanes, most);
    for (size_t i = 0; i < 8; i++) {
        largest = lanes[i] > largest ? lanes[i] : largest;
    }
    for (size_t i = k; i < columns; i++) {
        float value = x[i] < 0.0F ? -x[i] : x[i];
        largest = value > largest ? value : largest;
    }
    float scale = largest < KERNEL_ACT_TINY ? 0.0F : (float)limit / largest;
    const __m256 scales = _mm256_set1_ps(scale);
    for (k = 0; k + 16 <= columns; k += 16) {
        __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), scales));
        __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k + 8), scales));
        __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(codes + k), both);
    }
    for (; k < columns; k++) {
        codes[k] = (int16_t)_mm_cvtss_si32(_mm_set_ss(x[k] * scale));
    }
    if (columns % 2) {
        codes[columns] = 0;
    }
    return scale > 0.0F ? largest / (float)limit : 0.0F;
}

INLINE void store_row(const kernel_i16_matrix *m, size_t first, __m256i low, __m256i high,
                      float step, float *out)
{
    const __m256 steps = _mm256_set1_ps(step);
    __m256 a = _mm256_mul_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(low), _mm256_loadu_ps(m->steps + first)), steps);
    __m256 b = _mm256_mul_ps(
        _mm256_mul_ps(_mm256_cvtepi32_ps(high), _mm256_loadu_ps(m->steps + first + 8)), steps);
    a = _mm256_add_ps(a, _mm256_loadu_ps(m->bias + first));
    b = _mm256_add_ps(b, _mm256_loadu_ps(m->bias + first + 8));
    if (first + KERNEL_I16_GROUP <= m->rows) {
        _mm256_storeu_ps(out + first, a);
        _mm256_storeu_ps(out + first + 8, b);
    } else {
        float part[KERNEL_I16_GROUP];
        _mm256_storeu_ps(part, a);
        _mm256_storeu_ps(part + 8, b);
        memcpy(out + first, part, (m->rows - first) * sizeof *out);
    }
}

INLINE __m256i pair_of(const int16_t *codes)
{
    int32_t pair;
    memcpy(&pair, codes, sizeof pair);
    return _mm256_set1_epi32(pair);
}

INLINE void tile(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                 const float *step_a, float *out, const int T)
{
    const size_t pairs = (m->columns + 1) / 2, width = kernel_i16_width(m->columns);
    const int16_t *w = m->codes + group * pairs * 2 * KERNEL_I16_GROUP;
    const int16_t *a0 = codes, *a3 = codes + 3 * width;
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
    __m256i h0 = s0, h1 = s0, h2 = s0, h3 = s0, h4 = s0, h5 = s0;
#define STEP(t, at)                                                \
    if (T > t) {                                                   \
        __m256i a = pair_of(at);                                   \
        s##t = _mm256_add_epi32(s##t, _mm256_madd_epi16(low, a));  \
        h##t = _mm256_add_epi32(h##t, _mm256_madd_epi16(high, a)); \
        __asm__ volatile("" : "+x"(s##t), "+x"(h##t));             \
    }
    for (size_t p = 0; p < pairs; p++) {
        __m256i low = _mm256_load_si256((const __m256i *)(const void *)w);
        __m256i high = _mm256_load_si256((const __m256i *)(const void *)(w + KERNEL_I16_GROUP));
        STEP(0, a0)
        STEP(1, a0 + width)
        STEP(2, a0 + 2 * width)
        STEP(3, a3)
        STEP(4, a3 + width)
        STEP(5, a3 + 2 * width)
        w += 2 * KERNEL_I16_GROUP;
        a0 += 2;
        a3 += 2;
    }
#define PUT(t)                                                                                   \
    if (T > t) {                                                                                 \
        store_row(m, group *KERNEL_I16_GROUP, s##t, h##t, step_a[t], out + (size_t)t * m->rows); \
    }
    PUT(0) PUT(1) PUT(2) PUT(3) PUT(4) PUT(5)
}

static void multiply(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out)
{
    const size_t width = kernel_i16_width(m->columns);
    for (; tokens >= TILE; tokens -= TILE) {
        tile(m, group, codes, step_a, out, TILE);
        codes += TILE * width;
        step_a += TILE;
        out += TILE * m->rows;
    }
    switch (tokens) {
    case 5:
        tile(m, group, codes, step_a, out, 5);
        break;
    case 4:
        tile(m, group, codes, step_a, out, 4);
        break;
    case 3:
        tile(m, group, codes, step_a, out, 3);
        break;
    case 2:
        tile(m, group, codes, step_a, out, 2);
        break;
    case 1:
        tile(m, group, codes, step_a, out, 1);
        break;
    default:
        break;
    }
}

const kernel_i16_ops kernel_i16_avx2 = {
    .token_block = 48, /* a multiple of TILE */
    .groups = 1,
    .round_row = round_row,
    .multiply = multiply};

#else
typedef int kernels_i16_avx2_empty; /* a translation unit holds at least one declaration */
#endif
