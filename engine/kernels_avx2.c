/* engine/kernels_avx2.c: the kernels for AVX2 with FMA and F16C. Compiled with its own flags,
 * entered only where base_isa_detect allows it. Scalar twins: kernels_scalar.c, same names.
 *
 * Products with rounded activations: VPMADDUBSW multiplies unsigned with signed bytes and adds
 * pairs in int16, which must not overflow. P4: codes <= 15, so all 8 pairs of a block fit: 8 *
 * 2*15*127 = 30480. P8: codes reach 255, so the product is taken as |q| * (x with the sign of q), q
 * = code - 128: 2*128*127 = 32512 fits once, then it is widened. Both are exact; sums of blocks run
 * in the order of kernels_avx512.c. Layout and tiles: kernels_internal.h; here a tile is 8 rows x
 * up to 4 tokens.
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

/* --- partial vectors: the last 1..7 values of a row, zeros behind them --------------- */

INLINE __m256 load_part(const float *p, size_t count)
{
    if (count >= 8) {
        return _mm256_loadu_ps(p);
    }
    float buffer[8] = {0};
    memcpy(buffer, p, count * sizeof *p);
    return _mm256_loadu_ps(buffer);
}

INLINE void store_part(float *p, __m256 v, size_t count)
{
    if (count >= 8) {
        _mm256_storeu_ps(p, v);
        return;
    }
    float buffer[8];
    _mm256_storeu_ps(buffer, v);
    memcpy(p, buffer, count * sizeof *p);
}

INLINE __m128i load_part_u16(const uint16_t *p, size_t count)
{
    if (count >= 8) {
        return _mm_loadu_si128((const __m128i *)(const void *)p);
    }
    uint16_t buffer[8] = {0};
    memcpy(buffer, p, count * sizeof *p);
    return _mm_loadu_si128((const __m128i *)(const void *)buffer);
}

/* Lanes below `count`, all bits set. */
INLINE __m256 lanes_below(size_t count)
{
    __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    return _mm256_castsi256_ps(
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count < 8 ? (int)count : 8), lane));
}

/* --- elementary functions ------------------------------------------------------------ */

/* Sum of 8 lanes by halves: i + (i+4), then + (i+2), + (i+1). reduce8 adds in this order, too. */
INLINE float reduce(__m256 v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE float reduce_max(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE int32_t reduce_i32(__m256i v)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

/* Sums of 8 vectors at once; lane 4i + j of the result is the sum of v[2j + i]. */
INLINE __m256 reduce8(const __m256 v[8])
{
    __m256 a[4], b[2];
    UNROLL
    for (int i = 0; i < 4; i++) { /* [v0 | v1], 4 lanes each */
        a[i] = _mm256_add_ps(_mm256_permute2f128_ps(v[2 * i], v[2 * i + 1], 0x20),
                             _mm256_permute2f128_ps(v[2 * i], v[2 * i + 1], 0x31));
    }
    UNROLL
    for (int i = 0; i < 2; i++) { /* [v0 v2 | v1 v3], 2 lanes each */
        b[i] = _mm256_add_ps(_mm256_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44),
                             _mm256_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
    }
    return _mm256_add_ps(_mm256_shuffle_ps(b[0], b[1], 0x88), _mm256_shuffle_ps(b[0], b[1], 0xdd));
}

/* 2^n for -126 <= n <= 127 */
INLINE __m256 power_of_two(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^x as in kernels_avx512.c: Cody & Waite reduction, polynomial of expf in Cephes (Moshier 1992);
 * at most 2 ulp. 0 from -105 downwards, +INF from 89, NaN stays NaN. 2^n is applied in two halves,
 * so that results below 2^-126 round once. */
INLINE __m256 exponential(__m256 x)
{
    x = _mm256_min_ps(_mm256_set1_ps(89.0F), x); /* the second operand is returned for NaN */
    x = _mm256_max_ps(_mm256_set1_ps(-105.0F), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341F)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4F);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1F));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0F));
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    p = _mm256_mul_ps(p, power_of_two(half));
    return _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(whole, half)));
}

/* erfc(a) for a >= 0; formula and fit: kernels_avx512.c, kernels_internal.h. */
INLINE __m256 erfc_positive(__m256 a)
{
    a = _mm256_min_ps(_mm256_set1_ps(10.0F), a);
    __m256 one = _mm256_set1_ps(1.0F);
    __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(a, _mm256_set1_ps(0.5F), one));
    __m256 u = _mm256_fmsub_ps(t, _mm256_set1_ps(2.4F), _mm256_set1_ps(1.4F));
    static const float coefficients[KERNEL_ERFC_TERMS] = KERNEL_ERFC_COEFFICIENTS;
    __m256 p = _mm256_set1_ps(coefficients[KERNEL_ERFC_TERMS - 1]);
    UNROLL
    for (int i = KERNEL_ERFC_TERMS - 2; i >= 0; i--) {
        p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(coefficients[i]));
    }
    return _mm256_mul_ps(t, exponential(_mm256_fnmadd_ps(a, a, p)));
}

INLINE __m256 absolute(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), v);
}

/* --- packed products, rounded activations -------------------------------------------- */

static void quantise(kernel_act_block *out, const float *x, size_t columns)
{
    for (size_t b = 0; b < columns / KERNEL_BLOCK; b++, out++, x += KERNEL_BLOCK) {
        __m256 v[4];
        __m256i q[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
        }
        float largest = reduce_max(_mm256_max_ps(_mm256_max_ps(absolute(v[0]), absolute(v[1])),
                                                 _mm256_max_ps(absolute(v[2]), absolute(v[3]))));
        bool zero = largest < KERNEL_ACT_TINY;
        __m256 inverse = _mm256_set1_ps(zero ? 0.0F : 127.0F / largest);
        UNROLL
        for (int i = 0; i < 4; i++) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        }
        /* The packs work on 128-bit halves; the permutation restores the order of the columns. */
        __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
        _mm256_storeu_si256((__m256i *)(void *)out->q, bytes);
        int32_t sum_low = reduce_i32(_mm256_add_epi32(q[0], q[1]));
        int32_t sum_high = reduce_i32(_mm256_add_epi32(q[2], q[3]));
        out->scale = zero ? 0.0F : largest / 127.0F;
        out->scaled_sum = out->scale * (float)(sum_low + sum_high);
        out->bias_low = -128 * sum_low;
        out->bias_high = -128 * sum_high;
    }
}

INLINE __m256 load_scales(const kernel_matrix *w, const uint8_t *scales, size_t index)
{
    if (w->scales_f32) {
        return _mm256_loadu_ps((const float *)(const void *)(scales + 4 * index));
    }
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(scales + 2 * index)));
}

INLINE __m256i broadcast4(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE __m256i load_bytes(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* The 32 columns of 8 rows (half 0 or 1 of the group) as 8 registers of [8 rows][4 columns]:
 * unsigned codes of P4, signed codes q of P8. */
INLINE void load_codes(__m256i codes[8], const uint8_t *data, size_t half, bool four_bits)
{
    data += 32 * half;
    if (four_bits) {
        __m256i nibble = _mm256_set1_epi8(15);
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m256i pair = load_bytes(data + 64 * g);
            codes[g] = _mm256_and_si256(pair, nibble);
            codes[g + 4] = _mm256_and_si256(_mm256_srli_epi16(pair, 4), nibble);
        }
    } else {
        UNROLL
        for (int g = 0; g < 8; g++) {
            codes[g] = _mm256_xor_si256(load_bytes(data + 64 * g), _mm256_set1_epi8(-128));
        }
    }
}

/* Inner products of 4 registers of signed codes with 16 activations, 8 rows. */
INLINE __m256i signed_sum(const __m256i codes[4], const int8_t *q)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    UNROLL
    for (int g = 0; g < 4; g++) {
        __m256i x = _mm256_sign_epi8(broadcast4(q + 4 * g), codes[g]);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes[g]), x);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum;
}

/* Inner products of all 32 unsigned 4-bit codes. */
INLINE __m256i nibble_sum(const __m256i codes[8], const int8_t *q)
{
    __m256i sum = _mm256_maddubs_epi16(codes[0], broadcast4(q));
    UNROLL
    for (int g = 1; g < 8; g++) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes[g], broadcast4(q + 4 * g)));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

/* 8 rows (half of `group`) x T tokens. T and the last three arguments are constants where it is
 * called. */
INLINE void tile_q8(const kernel_matrix *w, size_t group, size_t half, const kernel_act_block *x,
                    float *out, size_t out_stride, const int T, const bool four_bits,
                    const bool has_min, const bool half_scales)
{
    const size_t blocks = w->columns / KERNEL_BLOCK;
    const size_t code_bytes = four_bits ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    const size_t scale_bytes = kernel_scale_bytes(w), lane = 8 * half;
    const uint8_t *data = (const uint8_t *)w->data + group * blocks * code_bytes;
    const uint8_t *scales = (const uint8_t *)w->scales + group * blocks * scale_bytes;
    __m256 total[4];
    UNROLL
    for (int t = 0; t < T; t++) {
        total[t] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < blocks; b++, data += code_bytes, scales += scale_bytes) {
        __m256i codes[8];
        load_codes(codes, data, half, four_bits);
        __m256 scale = load_scales(w, scales, lane);
        __m256 second =
            has_min || half_scales ? load_scales(w, scales, KERNEL_GROUP + lane) : scale;
        UNROLL
        for (int t = 0; t < T; t++) {
            const kernel_act_block *a = &x[(size_t)t * blocks + b];
            __m256 sx = _mm256_set1_ps(a->scale);
            __m256i sum;
            if (four_bits) {
                sum = nibble_sum(codes, a->q);
                if (!has_min) { /* offset 8 = 128/16 */
                    sum =
                        _mm256_add_epi32(sum, _mm256_set1_epi32((a->bias_low + a->bias_high) / 16));
                }
            } else if (half_scales) {
                __m256 low = _mm256_cvtepi32_ps(signed_sum(codes, a->q));
                total[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, sx), low, total[t]);
                __m256 high = _mm256_cvtepi32_ps(signed_sum(codes + 4, a->q + 16));
                total[t] = _mm256_fmadd_ps(_mm256_mul_ps(second, sx), high, total[t]);
                continue;
            } else {
                sum = _mm256_add_epi32(signed_sum(codes, a->q), signed_sum(codes + 4, a->q + 16));
            }
            total[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, sx), _mm256_cvtepi32_ps(sum), total[t]);
            if (has_min) {
                total[t] = _mm256_fmadd_ps(second, _mm256_set1_ps(a->scaled_sum), total[t]);
            }
        }
    }
    size_t row = KERNEL_GROUP * group + lane;
    UNROLL
    for (int t = 0; t < T; t++) {
        store_part(out + (size_t)t * out_stride + row, total[t], w->rows - row);
    }
}

INLINE void tiles_q8(const kernel_matrix *w, size_t group, const kernel_act_block *x, size_t tokens,
                     float *out, size_t out_stride, const bool four_bits, const bool has_min,
                     const bool half_scales)
{
    const size_t blocks = w->columns / KERNEL_BLOCK;
    for (size_t half = 0; half < 2 && KERNEL_GROUP * group + 8 * half < w->rows; half++) {
        size_t t = 0;
        for (; t + 4 <= tokens; t += 4) {
            tile_q8(w, group, half, x + t * blocks, out + t * out_stride, out_stride, 4, four_bits,
                    has_min, half_scales);
        }
        for (; t < tokens; t++) {
            tile_q8(w, group, half, x + t * blocks, out + t * out_stride, out_stride, 1, four_bits,
                    has_min, half_scales);
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

/* 8 rows x T <= 2 tokens; four sums per element, by column modulo 4. Codes are widened column by
 * column. */
INLINE void tile_f32(const kernel_matrix *w, size_t group, size_t half, const float *x, float *out,
                     size_t out_stride, const int T)
{
    const bool four_bits = w->format == KERNEL_P4, has_min = w->has_min;
    const size_t blocks = w->columns / KERNEL_BLOCK, scale_bytes = kernel_scale_bytes(w),
                 lane = 8 * half;
    const size_t code_bytes = four_bits ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    const uint8_t *data = (const uint8_t *)w->data + group * blocks * code_bytes;
    const uint8_t *scales = (const uint8_t *)w->scales + group * blocks * scale_bytes;
    const __m256i offset = _mm256_set1_epi32(four_bits && !has_min ? 8 : 0);
    __m256 total[2][4];
    UNROLL
    for (int i = 0; i < 4 * T; i++) {
        total[i / 4][i % 4] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < blocks;
         b++, data += code_bytes, scales += scale_bytes, x += KERNEL_BLOCK) {
        __m256i codes[8];
        load_codes(codes, data, half, four_bits);
        __m256 scale_low = load_scales(w, scales, lane), scale_high = scale_low,
               min = _mm256_setzero_ps();
        if (w->scale_columns == 16) {
            scale_high = load_scales(w, scales, KERNEL_GROUP + lane);
        }
        if (has_min) {
            min = load_scales(w, scales, KERNEL_GROUP + lane);
        }
        for (int g = 0; g < 8; g++) {
            UNROLL
            for (int j = 0; j < 4; j++) {
                __m256i q = _mm256_srai_epi32(_mm256_slli_epi32(codes[g], 24 - 8 * j),
                                              24); /* signed byte j */
                __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(q, offset));
                __m256 weight = _mm256_fmadd_ps(g < 4 ? scale_low : scale_high, value, min);
                UNROLL
                for (int t = 0; t < T; t++) {
                    __m256 xv = _mm256_set1_ps(x[(size_t)t * w->columns + (size_t)(4 * g + j)]);
                    total[t][j] = _mm256_fmadd_ps(weight, xv, total[t][j]);
                }
            }
        }
    }
    size_t row = KERNEL_GROUP * group + lane;
    UNROLL
    for (int t = 0; t < T; t++) {
        __m256 sum = _mm256_add_ps(_mm256_add_ps(total[t][0], total[t][1]),
                                   _mm256_add_ps(total[t][2], total[t][3]));
        store_part(out + (size_t)t * out_stride + row, sum, w->rows - row);
    }
}

static void packed_f32(const kernel_matrix *w, size_t group, const float *x, size_t tokens,
                       float *out, size_t out_stride)
{
    for (size_t half = 0; half < 2 && KERNEL_GROUP * group + 8 * half < w->rows; half++) {
        size_t t = 0;
        for (; t + 2 <= tokens; t += 2) {
            tile_f32(w, group, half, x + t * w->columns, out + t * out_stride, out_stride, 2);
        }
        if (t < tokens) {
            tile_f32(w, group, half, x + t * w->columns, out + t * out_stride, out_stride, 1);
        }
    }
}

/* --- plain products ------------------------------------------------------------------ */

INLINE __m256 load_plain(const void *data, size_t index, size_t count, const kernel_format format)
{
    if (format == KERNEL_F32) {
        return load_part((const float *)data + index, count);
    }
    __m128i half = load_part_u16((const uint16_t *)data + index, count);
    if (format == KERNEL_F16) {
        return _mm256_cvtph_ps(half);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* 4 rows from `row` x T <= 2 tokens. Lane i of a sum takes the columns i modulo 8; lanes are added
 * by reduce8. Rows past the end of the matrix read its last row and are not stored. */
INLINE void tile_plain(const kernel_matrix *w, size_t row, const float *x, float *out,
                       size_t out_stride, const int T, const kernel_format format)
{
    const size_t columns = w->columns;
    size_t start[4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        start[r] = (row + r < w->rows ? row + r : w->rows - 1) * columns;
    }
    __m256 total[8];
    UNROLL
    for (int i = 0; i < 8; i++) {
        total[i] = _mm256_setzero_ps();
    }
    size_t k = 0;
    for (; k + 8 <= columns; k += 8) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            __m256 weight = load_plain(w->data, start[r] + k, 8, format);
            UNROLL
            for (int t = 0; t < T; t++) {
                __m256 xv = _mm256_loadu_ps(x + (size_t)t * columns + k);
                total[2 * r + t] = _mm256_fmadd_ps(weight, xv, total[2 * r + t]);
            }
        }
    }
    if (k < columns) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            __m256 weight = load_plain(w->data, start[r] + k, columns - k, format);
            UNROLL
            for (int t = 0; t < T; t++) {
                __m256 xv = load_part(x + (size_t)t * columns + k, columns - k);
                total[2 * r + t] = _mm256_fmadd_ps(weight, xv, total[2 * r + t]);
            }
        }
    }
    float sums[8]; /* [token][row] */
    _mm256_storeu_ps(sums, reduce8(total));
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
    for (size_t half = 0; half < KERNEL_GROUP && first + half < w->rows; half += 8) {
        __m256 total[8]; /* reduce8 puts total[2j + i] into lane 4i + j */
        for (size_t r = 0; r < 8; r++) {
            __m256 sum = _mm256_setzero_ps();
            size_t start = (first + half + r) * columns;
            for (size_t k = 0; first + half + r < w->rows && k < columns; k += 8) {
                __m256 weight = load_plain(w->data, start + k, columns - k, format);
                sum = _mm256_fmadd_ps(weight, load_part(x + k, columns - k), sum);
            }
            total[2 * (r % 4) + r / 4] = sum;
        }
        store_part(out + first + half, reduce8(total), w->rows - first - half);
    }
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
        for (; t + 2 <= tokens; t += 2) {
            tile_plain(w, row, x + t * w->columns, out + t * out_stride, out_stride, 2, format);
        }
        if (t < tokens) {
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
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        even = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), even);
        odd = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), odd);
    }
    for (; i < count; i += 8) {
        even = _mm256_fmadd_ps(load_part(a + i, count - i), load_part(b + i, count - i), even);
    }
    return reduce(_mm256_add_ps(even, odd));
}

static void rmsnorm(float *out, const float *x, const float *weight, size_t channels, float eps)
{
    __m256 factor = _mm256_set1_ps(1.0F / sqrtf(dot(x, x, channels) / (float)channels + eps));
    for (size_t c = 0; c < channels; c += 8) {
        __m256 v = _mm256_mul_ps(load_part(x + c, channels - c), factor);
        store_part(out + c, _mm256_mul_ps(v, load_part(weight + c, channels - c)), channels - c);
    }
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias,
                      size_t channels, float eps)
{
    __m256 sum = _mm256_setzero_ps(), squares = _mm256_setzero_ps();
    for (size_t c = 0; c < channels; c += 8) {
        sum = _mm256_add_ps(sum, load_part(x + c, channels - c));
    }
    __m256 mean = _mm256_set1_ps(reduce(sum) / (float)channels);
    for (size_t c = 0; c < channels; c += 8) {
        __m256 centred = _mm256_sub_ps(load_part(x + c, channels - c), mean);
        centred = _mm256_and_ps(centred, lanes_below(channels - c));
        squares = _mm256_fmadd_ps(centred, centred, squares);
    }
    __m256 factor = _mm256_set1_ps(1.0F / sqrtf(reduce(squares) / (float)channels + eps));
    for (size_t c = 0; c < channels; c += 8) {
        size_t left = channels - c;
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load_part(x + c, left), mean), factor);
        store_part(out + c,
                   _mm256_fmadd_ps(v, load_part(weight + c, left), load_part(bias + c, left)),
                   left);
    }
}

/* Pairs (i, i + D/2): two vectors. Pairs (2i, 2i+1): 4 pairs in a vector, swapped within pairs. */
static void rope(float *x, size_t heads, size_t head_size, const float *cosine, const float *sine,
                 bool neox)
{
    const size_t half = head_size / 2;
    const __m256i twice = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
    for (size_t h = 0; h < heads; h++, x += head_size) {
        for (size_t i = 0; neox && i < half; i += 8) {
            size_t left = half - i;
            __m256 a = load_part(x + i, left), b = load_part(x + half + i, left);
            __m256 c = load_part(cosine + i, left), s = load_part(sine + i, left);
            store_part(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), left);
            store_part(x + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)), left);
        }
        for (size_t i = 0; !neox && i < half; i += 4) {
            size_t left = half - i < 4 ? half - i : 4;
            __m256 v = load_part(x + 2 * i, 2 * left);
            __m256 c = _mm256_permutevar8x32_ps(load_part(cosine + i, left), twice);
            __m256 s = _mm256_permutevar8x32_ps(load_part(sine + i, left), twice);
            __m256 swapped = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), s);
            store_part(x + 2 * i, _mm256_fmaddsub_ps(v, c, swapped), 2 * left);
        }
    }
}

static void add(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        store_part(x + i, _mm256_add_ps(load_part(x + i, count - i), load_part(y + i, count - i)),
                   count - i);
    }
}

static void silu_mul(float *gate, const float *up, size_t count)
{
    const __m256 one = _mm256_set1_ps(1.0F);
    for (size_t i = 0; i < count; i += 8) {
        __m256 g = load_part(gate + i, count - i);
        __m256 e = exponential(_mm256_sub_ps(_mm256_setzero_ps(), g));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        store_part(gate + i, _mm256_mul_ps(silu, load_part(up + i, count - i)), count - i);
    }
}

/* With E = erfc(|x|/sqrt 2): x*E/2 below zero, x - x*E/2 above. */
static void gelu(float *x, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        __m256 v = load_part(x + i, count - i);
        __m256 tail = erfc_positive(_mm256_mul_ps(absolute(v), _mm256_set1_ps(0.70710678F)));
        __m256 product = _mm256_mul_ps(_mm256_mul_ps(v, _mm256_set1_ps(0.5F)), tail);
        __m256 positive = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GE_OQ);
        store_part(x + i, _mm256_blendv_ps(product, _mm256_sub_ps(v, product), positive),
                   count - i);
    }
}

static void to_half(uint16_t *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        size_t left = count - i < 8 ? count - i : 8;
        uint16_t half[8];
        _mm_storeu_si128((__m128i *)(void *)half,
                         _mm256_cvtps_ph(load_part(x + i, left), _MM_FROUND_TO_NEAREST_INT));
        memcpy(out + i, half, left * sizeof *out);
    }
}

static void from_half(float *out, const uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        store_part(out + i, _mm256_cvtph_ps(load_part_u16(x + i, count - i)), count - i);
    }
}

/* --- attention: structure and notes as in kernels_avx512.c --------------------------- */

INLINE __m256 load_kv(const void *rows, size_t index, size_t count, const bool half)
{
    return load_plain(rows, index, count, half ? KERNEL_F16 : KERNEL_F32);
}

/* total[h][s] += q_h.k_s over columns [d, d + count) of two slots that share the queries' loads. */
INLINE void add_products(__m256 total[4][2], const float *q, size_t q_stride, const void *keys,
                         const size_t slot[2], size_t d, size_t count, const int Q, const bool half)
{
    __m256 first = load_kv(keys, slot[0] + d, count, half);
    __m256 second = load_kv(keys, slot[1] + d, count, half);
    UNROLL
    for (int h = 0; h < Q; h++) {
        __m256 query = load_part(q + (size_t)h * q_stride + d, count);
        total[h][0] = _mm256_fmadd_ps(query, first, total[h][0]);
        total[h][1] = _mm256_fmadd_ps(query, second, total[h][1]);
    }
}

/* For Q <= 4 heads; 8 slots at a time, their lane sums added together. */
INLINE void scores_of(float *scores, size_t scores_stride, const float *q, size_t q_stride,
                      const kernel_kv *kv, size_t kv_offset, size_t slots, size_t head_size,
                      float scale, const float *bias, const int Q, const bool half,
                      const size_t known)
{
    const size_t columns = known ? known : head_size;
    for (size_t first = 0; first < slots; first += 8) {
        size_t count = slots - first < 8 ? slots - first : 8;
        __m256 sums[4][8];
        UNROLL
        for (size_t s = 0; s < 8; s += 2) {
            size_t a = s < count ? s : 0, b = s + 1 < count ? s + 1 : 0; /* past the end: any */
            const size_t slot[2] = {kernel_row_of(kv, first + a) * kv->stride + kv_offset,
                                    kernel_row_of(kv, first + b) * kv->stride + kv_offset};
            __m256 total[4][2];
            UNROLL
            for (int h = 0; h < Q; h++) {
                total[h][0] = total[h][1] = _mm256_setzero_ps();
            }
            kernel_fetch_ahead(kv->keys, kv, kv_offset, first + a, slots, columns, half);
            kernel_fetch_ahead(kv->keys, kv, kv_offset, first + b, slots, columns, half);
            UNROLL
            for (size_t d = 0; d < known; d += 8) {
                add_products(total, q, q_stride, kv->keys, slot, d, 8, Q, half);
            }
            for (size_t d = 0; known == 0 && d < columns; d += 8) {
                add_products(total, q, q_stride, kv->keys, slot, d, columns - d, Q, half);
            }
            UNROLL
            for (int h = 0; h < Q; h++) { /* reduce8 puts slot s into lane s */
                sums[h][2 * (s % 4) + s / 4] = total[h][0];
                sums[h][2 * (s % 4 + 1) + s / 4] = total[h][1];
            }
        }
        __m256 shift = bias ? load_part(bias + first, count) : _mm256_setzero_ps();
        UNROLL
        for (int h = 0; h < Q; h++) {
            __m256 score = _mm256_fmadd_ps(reduce8(sums[h]), _mm256_set1_ps(scale), shift);
            store_part(scores + (size_t)h * scores_stride + first, score, count);
        }
    }
}

static float largest_of(const float *scores, size_t slots)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    __m256 largest = none;
    for (size_t j = 0; j < slots; j += 8) {
        __m256 v = _mm256_blendv_ps(none, load_part(scores + j, slots - j), lanes_below(slots - j));
        largest = _mm256_max_ps(largest, v);
    }
    return reduce_max(largest);
}

/* One row -> e^(score - peak). */
static void weigh_row(float *scores, size_t slots, float peak)
{
    if (peak == -INFINITY) {
        memset(scores, 0, slots * sizeof *scores);
        return;
    }
    for (size_t j = 0; j < slots; j += 8) {
        __m256 d = _mm256_sub_ps(load_part(scores + j, slots - j), _mm256_set1_ps(peak));
        store_part(scores + j, exponential(d), slots - j);
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

/* Columns [0, columns) behind `index`, V vectors of 8 (columns = 8 V, or V = 1), slot by slot. */
INLINE void values_of(float *out, size_t out_stride, const float *p, size_t p_stride,
                      const float *factor, const kernel_kv *kv, size_t index, size_t slots,
                      size_t columns, bool onto, const int Q, const int V, const bool half)
{
    const size_t count = V > 1 || columns >= 8 ? 8 : columns;
    __m256 total[4][4];
    UNROLL
    for (int i = 0; i < Q * V; i++) {
        const float *start = out + (size_t)(i / V) * out_stride + 8 * (size_t)(i % V);
        total[i / V][i % V] = onto ? load_part(start, count) : _mm256_setzero_ps();
    }
    for (size_t j = 0; j < slots; j++) {
        size_t at = kernel_row_of(kv, j) * kv->stride + index;
        kernel_fetch_ahead(kv->values, kv, index, j, slots, 8 * (size_t)V, half);
        __m256 weight[4];
        UNROLL
        for (int h = 0; h < Q; h++) {
            weight[h] = _mm256_set1_ps(p[(size_t)h * p_stride + j]);
        }
        UNROLL
        for (int v = 0; v < V; v++) {
            __m256 value = load_kv(kv->values, at + 8 * (size_t)v, count, half);
            UNROLL
            for (int h = 0; h < Q; h++) {
                total[h][v] = _mm256_fmadd_ps(weight[h], value, total[h][v]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < Q * V; i++) {
        __m256 scaled = _mm256_mul_ps(total[i / V][i % V], _mm256_set1_ps(factor[i / V]));
        store_part(out + (size_t)(i / V) * out_stride + 8 * (size_t)(i % V), scaled, count);
    }
}

/* As many columns at a time as there are registers for. */
INLINE void values_columns(float *out, size_t out_stride, const float *p, size_t p_stride,
                           const float *factor, const kernel_kv *kv, size_t kv_offset, size_t slots,
                           size_t columns, bool onto, const int Q, const bool half)
{
    const size_t wide = Q < 4 ? 4 : 2;
    size_t d = 0;
    for (; d + 8 * wide <= columns; d += 8 * wide) {
        values_of(out + d, out_stride, p, p_stride, factor, kv, kv_offset + d, slots, 8 * wide,
                  onto, Q, Q < 4 ? 4 : 2, half);
    }
    for (; d < columns; d += 8) {
        values_of(out + d, out_stride, p, p_stride, factor, kv, kv_offset + d, slots, columns - d,
                  onto, Q, 1, half);
    }
}

KERNEL_ATTENTION_BY_HEADS

/* For Q <= 4 heads, two vectors of 8 slots at a time. */
INLINE void coarse_of(float *scores, size_t scores_stride, float *peaks, size_t peaks_stride,
                      const float *q, size_t q_stride, const kernel_coarse_keys *keys, size_t slots,
                      size_t head_size, float scale, const int Q)
{
    int16_t codes[4][KERNEL_COARSE_COLUMNS_MAX];
    float factor[4];
    UNROLL
    for (int h = 0; h < Q; h++) {
        factor[h] = scale * kernel_coarse_query(codes[h], q + (size_t)h * q_stride, head_size);
    }
    for (size_t first = 0; first < slots; first += 16) {
        const size_t begin = first % KERNEL_COARSE_GROUP;
        const int8_t *key = keys->codes + (first - begin) * head_size + 2 * begin;
        __m256i sum[4][2];
        UNROLL
        for (int h = 0; h < Q; h++) {
            sum[h][0] = sum[h][1] = _mm256_setzero_si256();
        }
        for (size_t d = 0; d < head_size; d += 2, key += 2 * KERNEL_COARSE_GROUP) {
            const __m128i *bytes = (const __m128i *)(const void *)key;
            __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes));
            __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes + 1));
            UNROLL
            for (int h = 0; h < Q; h++) {
                int32_t pair;
                memcpy(&pair, codes[h] + d, sizeof pair);
                __m256i query = _mm256_set1_epi32(pair);
                sum[h][0] = _mm256_add_epi32(sum[h][0], _mm256_madd_epi16(low, query));
                sum[h][1] = _mm256_add_epi32(sum[h][1], _mm256_madd_epi16(high, query));
            }
        }
        UNROLL
        for (int h = 0; h < Q; h++) {
            float *peak = &peaks[(size_t)h * peaks_stride + first / KERNEL_COARSE_GROUP];
            for (size_t v = 0; v < 2 && first + 8 * v < slots; v++) {
                size_t at = first + 8 * v, count = slots - at;
                __m256 step =
                    _mm256_mul_ps(load_part(keys->steps + at, count), _mm256_set1_ps(factor[h]));
                __m256 score = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[h][v]), step);
                store_part(scores + (size_t)h * scores_stride + at, score, count);
                float largest = reduce_max(
                    _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), score, lanes_below(count)));
                *peak = (begin == 0 && v == 0) || largest > *peak ? largest : *peak;
            }
        }
    }
}

KERNEL_COARSE_BY_HEADS

static size_t coarse_choose(uint32_t *list, const float *scores, size_t scores_stride, size_t rows,
                            const float *bounds, size_t slots, size_t base)
{
    size_t count = 0;
    for (size_t j = 0; j < slots; j += 8) {
        __m256 chosen = _mm256_setzero_ps();
        for (size_t h = 0; h < rows; h++) {
            __m256 score = load_part(scores + h * scores_stride + j, slots - j);
            chosen =
                _mm256_or_ps(chosen, _mm256_cmp_ps(score, _mm256_set1_ps(bounds[h]), _CMP_GE_OQ));
        }
        unsigned lanes =
            (unsigned)_mm256_movemask_ps(_mm256_and_ps(chosen, lanes_below(slots - j)));
        for (; lanes; lanes &= lanes - 1) {
            list[count++] = (uint32_t)(base + j + (size_t)__builtin_ctz(lanes));
        }
    }
    return count;
}

/* --- logits -------------------------------------------------------------------------- */

static void logit_stats(const float *logits, size_t vocabulary, float *log_sum_exp, float *entropy,
                        size_t *argmax)
{
    BASE_ASSERT(vocabulary > 0);
    const __m256 none = _mm256_set1_ps(-INFINITY);
    __m256 largest = none;
    for (size_t v = 0; v < vocabulary; v += 8) {
        size_t left = vocabulary - v;
        largest = _mm256_max_ps(
            largest, _mm256_blendv_ps(none, load_part(logits + v, left), lanes_below(left)));
    }
    const __m256 max = _mm256_set1_ps(reduce_max(largest));
    const __m256 floor = _mm256_set1_ps(-200.0F); /* e^-200 is 0 here; keeps -INF out of d*e^d */
    __m256 total = _mm256_setzero_ps(), weighted = _mm256_setzero_ps();
    size_t best = vocabulary;
    for (size_t v = 0; v < vocabulary; v += 8) {
        size_t left = vocabulary - v;
        __m256 z = load_part(logits + v, left), inside = lanes_below(left);
        int equal = _mm256_movemask_ps(_mm256_and_ps(inside, _mm256_cmp_ps(z, max, _CMP_EQ_OQ)));
        if (equal && best == vocabulary) {
            best = v + (size_t)__builtin_ctz((unsigned)equal);
        }
        __m256 d = _mm256_max_ps(_mm256_sub_ps(z, max), floor);
        __m256 e = _mm256_and_ps(inside, exponential(d));
        total = _mm256_add_ps(total, e);
        weighted = _mm256_fmadd_ps(d, e, weighted);
    }
    double sum = (double)reduce(total), log_sum = log(sum);
    *log_sum_exp = (float)((double)_mm256_cvtss_f32(max) + log_sum);
    *entropy = (float)fmax(0.0, log_sum - (double)reduce(weighted) / sum);
    *argmax = best < vocabulary ? best : 0;
}

/* --- the limit of arithmetic --------------------------------------------------------- */

static uint64_t int8_work(size_t rounds)
{
    enum { CHAINS = 8 };
    __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1);
    __m256i sum[CHAINS];
    UNROLL
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = _mm256_set1_epi32(c);
    }
    for (size_t i = 0; i < rounds; i++) {
        UNROLL
        for (int c = 0; c < CHAINS; c++) {
            __asm__ volatile("" : "+x"(x)); /* the product is made anew each time */
            __m256i pairs = _mm256_maddubs_epi16(x, y);
            sum[c] = _mm256_add_epi32(sum[c], _mm256_madd_epi16(pairs, one));
        }
    }
    UNROLL
    for (int c = 0; c < CHAINS; c++) {
        __asm__ volatile("" : "+x"(sum[c]));
    }
    return (uint64_t)rounds * CHAINS * 32;
}

static const kernel_table table = {
    .isa = BASE_ISA_AVX2,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .rope = rope,
    .add = add,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .dot = dot,
    .to_half = to_half,
    .from_half = from_half,
    .attention_scores = attention_scores,
    .attention_weights = attention_weights,
    .attention_values = attention_values,
    .coarse_scores = coarse_scores,
    .coarse_choose = coarse_choose,
    .logit_stats = logit_stats,
    .int8_work = int8_work,
};

const kernel_ops kernel_avx2_ops = {
    .table = &table,
    .quantise = quantise,
    .packed_q8 = packed_q8,
    .packed_f32 = packed_f32,
    .plain = plain,
};

#else
typedef int kernels_avx2_empty; /* a translation unit holds at least one declaration */
#endif
