/* engine/kernels_avx512.c: the kernels for AVX-512 F/BW/VL/DQ with VNNI. Compiled with its own
 * flags, entered only where base_isa_detect allows it. Scalar twins: kernels_scalar.c, same names.
 *
 * Products with rounded activations: VPDPBUSD multiplies four unsigned weight codes of 16 rows with
 * four signed activation codes and adds them up in 16 lanes of int32, one lane a row (packed
 * layout: kernels_internal.h). A tile is 16 rows x up to 16 tokens whose f32 sums stay in registers
 * over all columns; per block of 32 columns the weights are unpacked once for the tile. Every
 * element adds up block by block in the same order in every tile size, so its bits do not depend on
 * T.
 */
#include "engine/kernels_internal.h"

#if defined(KERNEL_X86)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE KERNEL_INLINE
#define UNROLL KERNEL_UNROLL
/* Without optimisation the compiler's own intrinsics are macros, whose casts -Wsign-conversion
 * reports here. */
#pragma GCC diagnostic ignored "-Wsign-conversion"

INLINE __mmask16 tail_mask(size_t left)
{
    return (__mmask16)(left >= 16 ? 0xffffU : (1U << left) - 1U);
}

/* --- elementary functions ------------------------------------------------------------ */

/* Sum of 16 lanes by halves: i + (i+8), then + (i+4), + (i+2), + (i+1). reduce16 adds in this
 * order, too. */
INLINE float reduce(__m512 v)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Sums of 16 vectors at once; lane 4i + j of the result is the sum of v[4j + i]. */
INLINE __m512 reduce16(const __m512 v[16])
{
    __m512 a[8], b[4], c[2];
    UNROLL
    for (int i = 0; i < 8; i++) { /* [v0 | v1], 8 lanes each */
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    }
    UNROLL
    for (int i = 0; i < 4; i++) { /* [v0 | v1 | v2 | v3], 4 lanes each */
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
    }
    UNROLL
    for (int i = 0; i < 2; i++) { /* [v0 v4 | v1 v5 | ...], 2 lanes each */
        c[i] = _mm512_add_ps(_mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44),
                             _mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0xee));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
}

/* e^x with Cody & Waite's two-part ln 2 and the polynomial of expf in Cephes (Moshier 1992); at
 * most 2 ulp. Exactly 0 from -105 downwards and for -INF, +INF from 89, NaN stays NaN. Depends on
 * nothing but the lane's own x. */
INLINE __m512 exponential(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(89.0F), x); /* the second operand is returned for NaN */
    x = _mm512_max_ps(_mm512_set1_ps(-105.0F), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341F)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4F);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1F));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0F)), n);
}

/* erfc(a) for a >= 0 as t * exp(-a^2 + P(u)), t = 1/(1 + a/2), the form of Numerical Recipes
 * §6.2.2. P: Chebyshev interpolation of log(erfc(a)) + a^2 - log(t) over 0 <= a <= 10 in u = 2.4t
 * - 1.4, degree 10, error 7e-9; see kernels_internal.h. */
INLINE __m512 erfc_positive(__m512 a)
{
    a = _mm512_min_ps(_mm512_set1_ps(10.0F), a);
    __m512 one = _mm512_set1_ps(1.0F);
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(a, _mm512_set1_ps(0.5F), one));
    __m512 u = _mm512_fmsub_ps(t, _mm512_set1_ps(2.4F), _mm512_set1_ps(1.4F));
    static const float coefficients[KERNEL_ERFC_TERMS] = KERNEL_ERFC_COEFFICIENTS;
    __m512 p = _mm512_set1_ps(coefficients[KERNEL_ERFC_TERMS - 1]);
    UNROLL
    for (int i = KERNEL_ERFC_TERMS - 2; i >= 0; i--) {
        p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(coefficients[i]));
    }
    return _mm512_mul_ps(t, exponential(_mm512_fnmadd_ps(a, a, p)));
}

/* --- packed products, rounded activations -------------------------------------------- */

static void quantise(kernel_act_block *out, const float *x, size_t columns)
{
    for (size_t b = 0; b < columns / KERNEL_BLOCK; b++, out++, x += KERNEL_BLOCK) {
        __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
        float largest =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        bool zero = largest < KERNEL_ACT_TINY;
        __m512 inverse = _mm512_set1_ps(zero ? 0.0F : 127.0F / largest);
        __m512i q_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        __m512i q_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        _mm_storeu_si128((__m128i *)(void *)out->q, _mm512_cvtepi32_epi8(q_low));
        _mm_storeu_si128((__m128i *)(void *)(out->q + 16), _mm512_cvtepi32_epi8(q_high));
        int32_t sum_low = _mm512_reduce_add_epi32(q_low),
                sum_high = _mm512_reduce_add_epi32(q_high);
        out->scale = zero ? 0.0F : largest / 127.0F;
        out->scaled_sum = out->scale * (float)(sum_low + sum_high);
        out->bias_low = -128 * sum_low;
        out->bias_high = -128 * sum_high;
    }
}

INLINE __m512 load_scales(const kernel_matrix *w, const uint8_t *scales, size_t index)
{
    if (w->scales_f32) {
        return _mm512_loadu_ps(scales + 4 * index);
    }
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(scales + 2 * index)));
}

INLINE __m512i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The 32 columns of a block as 8 registers of [16 rows][4 columns] unsigned codes. */
INLINE void load_codes(__m512i codes[8], const uint8_t *data, bool four_bits)
{
    if (four_bits) {
        __m512i nibble = _mm512_set1_epi8(15);
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m512i pair = _mm512_loadu_si512(data + 64 * g);
            codes[g] = _mm512_and_si512(pair, nibble);
            codes[g + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), nibble);
        }
    } else {
        UNROLL
        for (int g = 0; g < 8; g++) {
            codes[g] = _mm512_loadu_si512(data + 64 * g);
        }
    }
}

/* One tile: 16 rows of `group` x T tokens. The last three arguments and T are constants where it is
 * called. */
INLINE void tile_q8(const kernel_matrix *w, size_t group, const kernel_act_block *x, float *out,
                    size_t out_stride, const int T, const bool four_bits, const bool has_min,
                    const bool half_scales)
{
    const size_t blocks = w->columns / KERNEL_BLOCK;
    const size_t code_bytes = four_bits ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    const size_t scale_bytes = kernel_scale_bytes(w);
    const uint8_t *data = (const uint8_t *)w->data + group * blocks * code_bytes;
    const uint8_t *scales = (const uint8_t *)w->scales + group * blocks * scale_bytes;
    __m512 total[16];
    UNROLL
    for (int t = 0; t < T; t++) {
        total[t] = _mm512_setzero_ps();
    }
    for (size_t b = 0; b < blocks; b++, data += code_bytes, scales += scale_bytes) {
        __m512i codes[8];
        load_codes(codes, data, four_bits);
        __m512 scale = load_scales(w, scales, 0);
        __m512 scale_high = half_scales ? load_scales(w, scales, 16) : scale;
        __m512 min = has_min ? load_scales(w, scales, 16) : _mm512_setzero_ps();
        UNROLL
        for (int t = 0; t < T; t++) {
            const kernel_act_block *a = &x[(size_t)t * blocks + b];
            __m512i low = _mm512_set1_epi32(a->bias_low), high = _mm512_set1_epi32(a->bias_high);
            if (four_bits && has_min) { /* codes without offset */
                low = high = _mm512_setzero_si512();
            } else if (four_bits) { /* offset 8 = 128/16 */
                low = _mm512_srai_epi32(low, 4);
                high = _mm512_srai_epi32(high, 4);
            }
            UNROLL
            for (int g = 0; g < 4; g++) {
                low = _mm512_dpbusd_epi32(low, codes[g], broadcast4(a->q + 4 * g));
                high = _mm512_dpbusd_epi32(high, codes[g + 4], broadcast4(a->q + 16 + 4 * g));
            }
            __m512 sx = _mm512_set1_ps(a->scale);
            if (half_scales) {
                total[t] =
                    _mm512_fmadd_ps(_mm512_mul_ps(scale, sx), _mm512_cvtepi32_ps(low), total[t]);
                total[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale_high, sx), _mm512_cvtepi32_ps(high),
                                           total[t]);
            } else {
                __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
                total[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, sx), sum, total[t]);
            }
            if (has_min) {
                total[t] = _mm512_fmadd_ps(min, _mm512_set1_ps(a->scaled_sum), total[t]);
            }
        }
    }
    __mmask16 rows = tail_mask(w->rows - KERNEL_GROUP * group);
    UNROLL
    for (int t = 0; t < T; t++) {
        _mm512_mask_storeu_ps(out + (size_t)t * out_stride + KERNEL_GROUP * group, rows, total[t]);
    }
}

/* All tokens by tiles of 16, 8, 4, 2, 1: the group's weights come from the first-level cache after
 * the first tile. */
INLINE void tiles_q8(const kernel_matrix *w, size_t group, const kernel_act_block *x, size_t tokens,
                     float *out, size_t out_stride, const bool four_bits, const bool has_min,
                     const bool half_scales)
{
    const size_t blocks = w->columns / KERNEL_BLOCK;
    size_t t = 0;
    while (t < tokens) {
        const kernel_act_block *xt = x + t * blocks;
        float *to = out + t * out_stride;
        size_t left = tokens - t;
        if (left >= 16) {
            tile_q8(w, group, xt, to, out_stride, 16, four_bits, has_min, half_scales);
            t += 16;
        } else if (left >= 8) {
            tile_q8(w, group, xt, to, out_stride, 8, four_bits, has_min, half_scales);
            t += 8;
        } else if (left >= 4) {
            tile_q8(w, group, xt, to, out_stride, 4, four_bits, has_min, half_scales);
            t += 4;
        } else if (left >= 2) {
            tile_q8(w, group, xt, to, out_stride, 2, four_bits, has_min, half_scales);
            t += 2;
        } else {
            tile_q8(w, group, xt, to, out_stride, 1, four_bits, has_min, half_scales);
            t += 1;
        }
    }
}

static void packed_q8(const kernel_matrix *w, size_t group, const kernel_act_block *x,
                      size_t tokens, float *out, size_t out_stride)
{
    if (w->format == KERNEL_P4) {
        if (w->has_min) {
            tiles_q8(w, group, x, tokens, out, out_stride, true, true, false);
        } else {
            tiles_q8(w, group, x, tokens, out, out_stride, true, false, false);
        }
    } else if (w->scale_columns == 16) {
        tiles_q8(w, group, x, tokens, out, out_stride, false, false, true);
    } else if (w->has_min) {
        tiles_q8(w, group, x, tokens, out, out_stride, false, true, false);
    } else {
        tiles_q8(w, group, x, tokens, out, out_stride, false, false, false);
    }
}

/* --- packed products, f32 activations ------------------------------------------------ */

/* Column j (0..3) of a register of codes as exact f32 values of the weights. */
INLINE __m512 weights(__m512i codes, int j, __m512i offset, __m512 scale, __m512 min, bool has_min)
{
    __m512i q =
        _mm512_and_si512(_mm512_srli_epi32(codes, (unsigned)(8 * j)), _mm512_set1_epi32(255));
    __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(q, offset));
    return has_min ? _mm512_fmadd_ps(scale, value, min) : _mm512_mul_ps(scale, value);
}

/* 16 rows x T <= 4 tokens; four sums per element, by column modulo 4. */
INLINE void tile_f32(const kernel_matrix *w, size_t group, const float *x, float *out,
                     size_t out_stride, const int T)
{
    const bool four_bits = w->format == KERNEL_P4, has_min = w->has_min;
    const size_t blocks = w->columns / KERNEL_BLOCK, scale_bytes = kernel_scale_bytes(w);
    const size_t code_bytes = four_bits ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    const uint8_t *data = (const uint8_t *)w->data + group * blocks * code_bytes;
    const uint8_t *scales = (const uint8_t *)w->scales + group * blocks * scale_bytes;
    const __m512i offset = _mm512_set1_epi32(!four_bits ? 128 : has_min ? 0 : 8);
    __m512 total[4][4];
    UNROLL
    for (int i = 0; i < 4 * T; i++) {
        total[i / 4][i % 4] = _mm512_setzero_ps();
    }
    for (size_t b = 0; b < blocks;
         b++, data += code_bytes, scales += scale_bytes, x += KERNEL_BLOCK) {
        __m512i codes[8];
        load_codes(codes, data, four_bits);
        __m512 scale_low = load_scales(w, scales, 0);
        __m512 scale_high = w->scale_columns == 16 ? load_scales(w, scales, 16) : scale_low;
        __m512 min = has_min ? load_scales(w, scales, 16) : _mm512_setzero_ps();
        for (int g = 0; g < 8; g++) {
            UNROLL
            for (int j = 0; j < 4; j++) {
                __m512 weight =
                    weights(codes[g], j, offset, g < 4 ? scale_low : scale_high, min, has_min);
                UNROLL
                for (int t = 0; t < T; t++) {
                    __m512 xv = _mm512_set1_ps(x[(size_t)t * w->columns + (size_t)(4 * g + j)]);
                    total[t][j] = _mm512_fmadd_ps(weight, xv, total[t][j]);
                }
            }
        }
    }
    __mmask16 rows = tail_mask(w->rows - KERNEL_GROUP * group);
    UNROLL
    for (int t = 0; t < T; t++) {
        __m512 sum = _mm512_add_ps(_mm512_add_ps(total[t][0], total[t][1]),
                                   _mm512_add_ps(total[t][2], total[t][3]));
        _mm512_mask_storeu_ps(out + (size_t)t * out_stride + KERNEL_GROUP * group, rows, sum);
    }
}

static void packed_f32(const kernel_matrix *w, size_t group, const float *x, size_t tokens,
                       float *out, size_t out_stride)
{
    size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        tile_f32(w, group, x + t * w->columns, out + t * out_stride, out_stride, 4);
    }
    for (; t < tokens; t++) {
        tile_f32(w, group, x + t * w->columns, out + t * out_stride, out_stride, 1);
    }
}

/* --- plain products ------------------------------------------------------------------ */

/* 16 weights from element `index`; lanes outside `mask` are zero. */
INLINE __m512 load_plain(const void *data, size_t index, __mmask16 mask, const kernel_format format)
{
    if (format == KERNEL_F32) {
        return _mm512_maskz_loadu_ps(mask, (const float *)data + index);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)data + index);
    if (format == KERNEL_F16) {
        return _mm512_cvtph_ps(half);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* 4 rows from `row` x T <= 4 tokens. Lane i of a sum takes the columns i modulo 16; lanes are added
 * by reduce16. Rows past the end of the matrix read its last row and are not stored. */
INLINE void tile_plain(const kernel_matrix *w, size_t row, const float *x, float *out,
                       size_t out_stride, const int T, const kernel_format format)
{
    const size_t columns = w->columns;
    size_t start[4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        start[r] = (row + r < w->rows ? row + r : w->rows - 1) * columns;
    }
    __m512 total[16];
    UNROLL
    for (int i = 0; i < 16; i++) {
        total[i] = _mm512_setzero_ps();
    }
    size_t k = 0;
    for (; k + 16 <= columns; k += 16) {
        __m512 xv[4];
        UNROLL
        for (int t = 0; t < T; t++) {
            xv[t] = _mm512_loadu_ps(x + (size_t)t * columns + k);
        }
        UNROLL
        for (int r = 0; r < 4; r++) {
            __m512 weight = load_plain(w->data, start[r] + k, 0xffff, format);
            UNROLL
            for (int t = 0; t < T; t++) {
                total[4 * r + t] = _mm512_fmadd_ps(weight, xv[t], total[4 * r + t]);
            }
        }
    }
    if (k < columns) {
        __mmask16 mask = tail_mask(columns - k);
        UNROLL
        for (int r = 0; r < 4; r++) {
            __m512 weight = load_plain(w->data, start[r] + k, mask, format);
            UNROLL
            for (int t = 0; t < T; t++) {
                __m512 xv = _mm512_maskz_loadu_ps(mask, x + (size_t)t * columns + k);
                total[4 * r + t] = _mm512_fmadd_ps(weight, xv, total[4 * r + t]);
            }
        }
    }
    float sums[16]; /* [token][row] */
    _mm512_storeu_ps(sums, reduce16(total));
    size_t rows = w->rows - row < 4 ? w->rows - row : 4;
    UNROLL
    for (int t = 0; t < T; t++) {
        memcpy(out + (size_t)t * out_stride + row, sums + 4 * t, rows * sizeof *out);
    }
}

/* All 16 rows of `group` x one token, row by row: memory is read strictly forwards. The same sums
 * as tile_plain, their lanes added together at the end. */
INLINE void group_plain(const kernel_matrix *w, size_t group, const float *x, float *out,
                        const kernel_format format)
{
    const size_t columns = w->columns, first = KERNEL_GROUP * group;
    __m512 total[16]; /* reduce16 puts total[4j + i] into lane 4i + j */
    for (size_t r = 0; r < KERNEL_GROUP; r++) {
        __m512 sum = _mm512_setzero_ps();
        size_t start = (first + r) * columns;
        for (size_t k = 0; first + r < w->rows && k < columns; k += 16) {
            __mmask16 mask = tail_mask(columns - k);
            __m512 weight = load_plain(w->data, start + k, mask, format);
            sum = _mm512_fmadd_ps(weight, _mm512_maskz_loadu_ps(mask, x + k), sum);
        }
        total[4 * (r % 4) + r / 4] = sum;
    }
    _mm512_mask_storeu_ps(out + first, tail_mask(w->rows - first), reduce16(total));
}

INLINE void tiles_plain(const kernel_matrix *w, size_t group, const float *x, size_t tokens,
                        float *out, size_t out_stride, const kernel_format format)
{
    if (tokens == 1) {
        group_plain(w, group, x, out, format);
        return;
    }
    size_t end = KERNEL_GROUP * (group + 1) < w->rows ? KERNEL_GROUP * (group + 1) : w->rows;
    for (size_t row = KERNEL_GROUP * group; row < end; row += 4) {
        size_t t = 0;
        for (; t + 4 <= tokens; t += 4) {
            tile_plain(w, row, x + t * w->columns, out + t * out_stride, out_stride, 4, format);
        }
        for (; t < tokens; t++) {
            tile_plain(w, row, x + t * w->columns, out + t * out_stride, out_stride, 1, format);
        }
    }
}

static void plain(const kernel_matrix *w, size_t group, const float *x, size_t tokens, float *out,
                  size_t out_stride)
{
    if (w->format == KERNEL_F32) {
        tiles_plain(w, group, x, tokens, out, out_stride, KERNEL_F32);
    } else if (w->format == KERNEL_F16) {
        tiles_plain(w, group, x, tokens, out, out_stride, KERNEL_F16);
    } else {
        tiles_plain(w, group, x, tokens, out, out_stride, KERNEL_BF16);
    }
}

/* --- rows ---------------------------------------------------------------------------- */

static float dot(const float *a, const float *b, size_t count)
{
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        even = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), even);
        odd = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), odd);
    }
    for (; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        even = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + i),
                               _mm512_maskz_loadu_ps(mask, b + i), even);
    }
    return reduce(_mm512_add_ps(even, odd));
}

static void rmsnorm(float *out, const float *x, const float *weight, size_t channels, float eps)
{
    __m512 factor = _mm512_set1_ps(1.0F / sqrtf(dot(x, x, channels) / (float)channels + eps));
    for (size_t c = 0; c < channels; c += 16) {
        __mmask16 mask = tail_mask(channels - c);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + c), factor);
        _mm512_mask_storeu_ps(out + c, mask,
                              _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + c)));
    }
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias,
                      size_t channels, float eps)
{
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (size_t c = 0; c < channels; c += 16) {
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(tail_mask(channels - c), x + c));
    }
    __m512 mean = _mm512_set1_ps(reduce(sum) / (float)channels);
    for (size_t c = 0; c < channels; c += 16) {
        __mmask16 mask = tail_mask(channels - c);
        __m512 centred = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + c), mean);
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    __m512 factor = _mm512_set1_ps(1.0F / sqrtf(reduce(squares) / (float)channels + eps));
    for (size_t c = 0; c < channels; c += 16) {
        __mmask16 mask = tail_mask(channels - c);
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + c), mean), factor);
        v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, weight + c),
                            _mm512_maskz_loadu_ps(mask, bias + c));
        _mm512_mask_storeu_ps(out + c, mask, v);
    }
}

/* Pairs (i, i + D/2): two vectors. Pairs (2i, 2i+1): 8 pairs in a vector, swapped within pairs. */
static void rope(float *x, size_t heads, size_t head_size, const float *cosine, const float *sine,
                 bool neox)
{
    const size_t half = head_size / 2;
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    for (size_t h = 0; h < heads; h++, x += head_size) {
        for (size_t i = 0; neox && i < half; i += 16) {
            __mmask16 mask = tail_mask(half - i);
            __m512 a = _mm512_maskz_loadu_ps(mask, x + i),
                   b = _mm512_maskz_loadu_ps(mask, x + half + i);
            __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i),
                   s = _mm512_maskz_loadu_ps(mask, sine + i);
            _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
            _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
        }
        for (size_t i = 0; !neox && i < half; i += 8) {
            size_t left = half - i < 8 ? half - i : 8;
            __mmask16 pairs = tail_mask(2 * left), few = tail_mask(left);
            __m512 v = _mm512_maskz_loadu_ps(pairs, x + 2 * i);
            __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(few, cosine + i));
            __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(few, sine + i));
            __m512 swapped = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
            _mm512_mask_storeu_ps(x + 2 * i, pairs, _mm512_fmaddsub_ps(v, c, swapped));
        }
    }
}

static void add(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(x + i, mask, sum);
    }
}

static void silu_mul(float *gate, const float *up, size_t count)
{
    const __m512 one = _mm512_set1_ps(1.0F);
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 e = exponential(_mm512_sub_ps(_mm512_setzero_ps(), g));
        __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(gate + i, mask,
                              _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

/* With E = erfc(|x|/sqrt 2): x*E/2 below zero, x - x*E/2 above. */
static void gelu(float *x, size_t count)
{
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        __m512 tail = erfc_positive(_mm512_mul_ps(_mm512_abs_ps(v), _mm512_set1_ps(0.70710678F)));
        __m512 product = _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(0.5F)), tail);
        __mmask16 positive = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GE_OQ);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mask_sub_ps(product, positive, v, product));
    }
}

static void to_half(uint16_t *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        __m256i half = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i),
                                       _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(out + i, mask, half);
    }
}

static void from_half(float *out, const uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 mask = tail_mask(count - i);
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)));
    }
}

/* --- attention ----------------------------------------------------------------------- */

INLINE __m512 load_kv(const void *rows, size_t index, __mmask16 mask, const bool half)
{
    return load_plain(rows, index, mask, half ? KERNEL_F16 : KERNEL_F32);
}

/* q_h . key for Q <= 4 heads, lane by lane: lane i takes the columns i modulo 16. known: columns, a
 * multiple of 16, where that is known when compiled, else 0. */
INLINE void lane_products(__m512 total[4], const float *q, size_t q_stride, const void *keys,
                          size_t index, size_t columns, const int Q, const bool half,
                          const size_t known)
{
    UNROLL
    for (int h = 0; h < Q; h++) {
        total[h] = _mm512_setzero_ps();
    }
    if (known > 0) {
        UNROLL
        for (size_t d = 0; d < known; d += 16) {
            __m512 key = load_kv(keys, index + d, 0xffff, half);
            UNROLL
            for (int h = 0; h < Q; h++) {
                __m512 query = _mm512_loadu_ps(q + (size_t)h * q_stride + d);
                total[h] = _mm512_fmadd_ps(query, key, total[h]);
            }
        }
        return;
    }
    for (size_t d = 0; d < columns; d += 16) {
        __mmask16 mask = tail_mask(columns - d);
        __m512 key = load_kv(keys, index + d, mask, half);
        UNROLL
        for (int h = 0; h < Q; h++) {
            __m512 query = _mm512_maskz_loadu_ps(mask, q + (size_t)h * q_stride + d);
            total[h] = _mm512_fmadd_ps(query, key, total[h]);
        }
    }
}

/* For Q <= 4 heads; 16 slots at a time, their lane sums added together. */
INLINE void scores_of(float *scores, size_t scores_stride, const float *q, size_t q_stride,
                      const kernel_kv *kv, size_t kv_offset, size_t slots, size_t head_size,
                      float scale, const float *bias, const int Q, const bool half,
                      const size_t known)
{
    kernel_fetch_first(kv->keys, kv, kv_offset, slots, known ? known : head_size, half);
    for (size_t first = 0; first < slots; first += 16) {
        size_t count = slots - first < 16 ? slots - first : 16;
        __m512 sums[4][16];
        UNROLL
        for (size_t s = 0; s < 16; s++) {
            size_t slot = first + (s < count ? s : 0); /* past the end: any slot, not stored */
            size_t at = kernel_row_of(kv, slot) * kv->stride + kv_offset;
            __m512 total[4];
            kernel_fetch_ahead(kv->keys, kv, kv_offset, slot, slots, known ? known : head_size,
                               half);
            lane_products(total, q, q_stride, kv->keys, at, head_size, Q, half, known);
            UNROLL
            for (int h = 0; h < Q; h++) {
                sums[h][4 * (s % 4) + s / 4] = total[h]; /* reduce16 puts it into lane s */
            }
        }
        __mmask16 mask = tail_mask(count);
        __m512 shift = bias ? _mm512_maskz_loadu_ps(mask, bias + first) : _mm512_setzero_ps();
        UNROLL
        for (int h = 0; h < Q; h++) {
            __m512 score = _mm512_fmadd_ps(reduce16(sums[h]), _mm512_set1_ps(scale), shift);
            _mm512_mask_storeu_ps(scores + (size_t)h * scores_stride + first, mask, score);
        }
    }
}

static float largest_of(const float *scores, size_t slots)
{
    __m512 largest = _mm512_set1_ps(-INFINITY);
    for (size_t j = 0; j < slots; j += 16) {
        largest =
            _mm512_max_ps(largest, _mm512_mask_loadu_ps(largest, tail_mask(slots - j), scores + j));
    }
    return _mm512_reduce_max_ps(largest);
}

/* One row -> e^(score - peak). */
static void weigh_row(float *scores, size_t slots, float peak)
{
    if (peak == -INFINITY) {
        memset(scores, 0, slots * sizeof *scores);
        return;
    }
    for (size_t j = 0; j < slots; j += 16) {
        __mmask16 mask = tail_mask(slots - j);
        __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + j), _mm512_set1_ps(peak));
        _mm512_mask_storeu_ps(scores + j, mask, exponential(d));
    }
}

static void attention_weights(float *scores, size_t scores_stride, size_t rows, size_t slots,
                              const float *peaks, float *sums)
{
    for (size_t h = 0; h < rows; h++) {
        float *row = scores + h * scores_stride;
        weigh_row(row, slots, peaks ? peaks[h] : largest_of(row, slots));
    }
    kernel_row_sums(scores, scores_stride, rows, slots, sums);
}

/* For Q <= 4 heads, slot after slot: 16 C columns behind `index`, of which there are `columns`;
 * whole: all of them. */
INLINE void values_of(float *out, size_t out_stride, const float *p, size_t p_stride,
                      const float *factor, const kernel_kv *kv, size_t index, size_t slots,
                      size_t columns, bool onto, const int Q, const int C, const bool half,
                      const bool whole)
{
    __mmask16 mask[4];
    __m512 total[4][4];
    UNROLL
    for (int c = 0; c < C; c++) {
        size_t at = 16 * (size_t)c;
        mask[c] = whole ? 0xffff : tail_mask(at < columns ? columns - at : 0);
        UNROLL
        for (int h = 0; h < Q; h++) {
            const float *start = out + (size_t)h * out_stride + at;
            total[h][c] = onto ? _mm512_maskz_loadu_ps(mask[c], start) : _mm512_setzero_ps();
        }
    }
    kernel_fetch_first(kv->values, kv, index, slots, 16 * (size_t)C, half);
    for (size_t j = 0; j < slots; j++) {
        size_t at = kernel_row_of(kv, j) * kv->stride + index;
        kernel_fetch_ahead(kv->values, kv, index, j, slots, 16 * (size_t)C, half);
        __m512 weight[4];
        UNROLL
        for (int h = 0; h < Q; h++) {
            weight[h] = _mm512_set1_ps(p[(size_t)h * p_stride + j]);
        }
        UNROLL
        for (int c = 0; c < C; c++) {
            __m512 value = load_kv(kv->values, at + 16 * (size_t)c, mask[c], half);
            UNROLL
            for (int h = 0; h < Q; h++) {
                total[h][c] = _mm512_fmadd_ps(weight[h], value, total[h][c]);
            }
        }
    }
    UNROLL
    for (int h = 0; h < Q; h++) {
        UNROLL
        for (int c = 0; c < C; c++) {
            __m512 scaled = _mm512_mul_ps(total[h][c], _mm512_set1_ps(factor[h]));
            _mm512_mask_storeu_ps(out + (size_t)h * out_stride + 16 * (size_t)c, mask[c], scaled);
        }
    }
}

INLINE void values_columns(float *out, size_t out_stride, const float *p, size_t p_stride,
                           const float *factor, const kernel_kv *kv, size_t kv_offset, size_t slots,
                           size_t columns, bool onto, const int Q, const bool half)
{
    size_t d = 0;
    for (; columns - d >= 64; d += 64) {
        values_of(out + d, out_stride, p, p_stride, factor, kv, kv_offset + d, slots, 64, onto, Q,
                  4, half, true);
    }
    for (; columns - d >= 32; d += 32) {
        values_of(out + d, out_stride, p, p_stride, factor, kv, kv_offset + d, slots, 32, onto, Q,
                  2, half, true);
    }
    if (d < columns) {
        values_of(out + d, out_stride, p, p_stride, factor, kv, kv_offset + d, slots, columns - d,
                  onto, Q, 2, half, false);
    }
}

KERNEL_ATTENTION_BY_HEADS

/* For Q <= 4 heads. A pair of columns of 16 slots is one vector: VPDPWSSD adds both products. */
INLINE void coarse_of(float *scores, size_t scores_stride, float *peaks, size_t peaks_stride,
                      const float *q, size_t q_stride, const kernel_coarse_keys *keys, size_t slots,
                      size_t head_size, float scale, const int Q)
{
    enum { VECTORS = KERNEL_COARSE_GROUP / 16 };
    int16_t codes[4][KERNEL_COARSE_COLUMNS_MAX];
    float factor[4];
    UNROLL
    for (int h = 0; h < Q; h++) {
        factor[h] = scale * kernel_coarse_query(codes[h], q + (size_t)h * q_stride, head_size);
    }
    for (size_t first = 0; first < slots; first += KERNEL_COARSE_GROUP) {
        const int8_t *key = keys->codes + first * head_size;
        __m512i sum[4][VECTORS];
        UNROLL
        for (int i = 0; i < Q * VECTORS; i++) {
            sum[i / VECTORS][i % VECTORS] = _mm512_setzero_si512();
        }
        for (size_t d = 0; d < head_size; d += 2, key += 2 * KERNEL_COARSE_GROUP) {
            UNROLL
            for (int v = 0; v < VECTORS; v++) {
                __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(key + 32 * v));
                __m512i pairs = _mm512_cvtepi8_epi16(bytes);
                UNROLL
                for (int h = 0; h < Q; h++) {
                    int32_t query;
                    memcpy(&query, codes[h] + d, sizeof query);
                    sum[h][v] = _mm512_dpwssd_epi32(sum[h][v], pairs, _mm512_set1_epi32(query));
                }
            }
        }
        UNROLL
        for (int h = 0; h < Q; h++) {
            __m512 largest = _mm512_set1_ps(-INFINITY);
            for (size_t v = 0; v < VECTORS && first + 16 * v < slots; v++) {
                size_t at = first + 16 * v;
                __mmask16 mask = tail_mask(slots - at);
                __m512 step = _mm512_maskz_loadu_ps(mask, keys->steps + at);
                __m512 score = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[h][v]),
                                             _mm512_mul_ps(step, _mm512_set1_ps(factor[h])));
                largest = _mm512_mask_max_ps(largest, mask, largest, score);
                _mm512_mask_storeu_ps(scores + (size_t)h * scores_stride + at, mask, score);
            }
            peaks[(size_t)h * peaks_stride + first / KERNEL_COARSE_GROUP] =
                _mm512_reduce_max_ps(largest);
        }
    }
}

KERNEL_COARSE_BY_HEADS

static size_t coarse_choose(uint32_t *list, const float *scores, size_t scores_stride, size_t rows,
                            const float *bounds, size_t slots, size_t base)
{
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    size_t count = 0;
    for (size_t j = 0; j < slots; j += 16) {
        __mmask16 mask = tail_mask(slots - j), chosen = 0;
        for (size_t h = 0; h < rows; h++) {
            __m512 score = _mm512_maskz_loadu_ps(mask, scores + h * scores_stride + j);
            chosen |= _mm512_mask_cmp_ps_mask(mask, score, _mm512_set1_ps(bounds[h]), _CMP_GE_OQ);
        }
        __m512i slot = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)(base + j)));
        _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(chosen, slot));
        count += (size_t)__builtin_popcount(chosen);
    }
    return count;
}

/* --- logits -------------------------------------------------------------------------- */

static void logit_stats(const float *logits, size_t vocabulary, float *log_sum_exp, float *entropy,
                        size_t *argmax)
{
    BASE_ASSERT(vocabulary > 0);
    __m512 largest = _mm512_set1_ps(-INFINITY);
    for (size_t v = 0; v < vocabulary; v += 16) {
        largest = _mm512_max_ps(
            largest, _mm512_mask_loadu_ps(largest, tail_mask(vocabulary - v), logits + v));
    }
    const __m512 max = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    const __m512 floor = _mm512_set1_ps(-200.0F); /* e^-200 is 0 here; keeps -INF out of d*e^d */
    __m512 total = _mm512_setzero_ps(), weighted = _mm512_setzero_ps();
    size_t best = vocabulary;
    for (size_t v = 0; v < vocabulary; v += 16) {
        __mmask16 mask = tail_mask(vocabulary - v);
        __m512 z = _mm512_maskz_loadu_ps(mask, logits + v);
        __mmask16 equal = _mm512_mask_cmp_ps_mask(mask, z, max, _CMP_EQ_OQ);
        if (equal && best == vocabulary) {
            best = v + (size_t)__builtin_ctz(equal);
        }
        __m512 d = _mm512_max_ps(_mm512_sub_ps(z, max), floor);
        __m512 e = _mm512_maskz_mov_ps(mask, exponential(d));
        total = _mm512_add_ps(total, e);
        weighted = _mm512_fmadd_ps(d, e, weighted);
    }
    double sum = (double)reduce(total), log_sum = log(sum);
    *log_sum_exp = (float)((double)_mm512_cvtss_f32(max) + log_sum);
    *entropy = (float)fmax(0.0, log_sum - (double)reduce(weighted) / sum);
    *argmax = best < vocabulary ? best : 0;
}

/* --- the limit of arithmetic --------------------------------------------------------- */

static uint64_t int8_work(size_t rounds)
{
    enum { CHAINS = 12 };
    __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5), sum[CHAINS];
    UNROLL
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = _mm512_set1_epi32(c);
    }
    for (size_t i = 0; i < rounds; i++) {
        UNROLL
        for (int c = 0; c < CHAINS; c++) {
            sum[c] = _mm512_dpbusd_epi32(sum[c], x, y);
        }
        __asm__ volatile("" : "+v"(x));
    }
    UNROLL
    for (int c = 0; c < CHAINS; c++) {
        __asm__ volatile("" : "+v"(sum[c]));
    }
    return (uint64_t)rounds * CHAINS * 64;
}

#define TABLE(set, work)                                                                    \
    {                                                                                       \
        .isa = (set), .rmsnorm = rmsnorm, .layernorm = layernorm, .rope = rope, .add = add, \
        .silu_mul = silu_mul, .gelu = gelu, .dot = dot, .to_half = to_half,                 \
        .from_half = from_half, .attention_scores = attention_scores,                       \
        .attention_weights = attention_weights, .attention_values = attention_values,       \
        .coarse_scores = coarse_scores, .coarse_choose = coarse_choose,                     \
        .logit_stats = logit_stats, .int8_work = (work),                                    \
    }
static const kernel_table table = TABLE(BASE_ISA_AVX512, int8_work);

const kernel_ops kernel_avx512_ops = {
    .table = &table,
    .quantise = quantise,
    .packed_q8 = packed_q8,
    .packed_f32 = packed_f32,
    .plain = plain,
};

#if defined(KERNEL_AMX)
static const kernel_table table_amx = TABLE(BASE_ISA_AMX, kernel_amx_int8_work);

const kernel_ops kernel_amx_ops = {
    .table = &table_amx,
    .quantise = quantise,
    .packed_q8 = packed_q8,
    .packed_f32 = packed_f32,
    .plain = plain,
};
#endif

#else
typedef int kernels_avx512_empty; /* a translation unit holds at least one declaration */
#endif
