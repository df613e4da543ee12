/* engine/kernels_amx.c: products on AMX tiles (Intel SDM vol. 1, §18). Everything else of this set
 * is AVX-512's (kernels_avx512.c).
 *
 * 16-bit integers (kernels_i16.h): a code is cut into a high and a low byte, c = 128 h + l with
 * -64 <= l < 64, and tiles sum the products of bytes: c c' = 2^14 h h' + 2^7 (h l' + l h') + l l'.
 * All sums are exact, so the bits are those of every other set.
 */
#include "engine/kernels_internal.h"

#if defined(KERNEL_AMX)

#include <immintrin.h>
#include <string.h>

#include "engine/kernels_i16_avx512.h"

#define INLINE KERNEL_INLINE
#define UNROLL KERNEL_UNROLL
#pragma GCC diagnostic ignored "-Wsign-conversion" /* as in kernels_avx512.c */

enum {
    T = 16, /* tokens of a tile */
    K = 64, /* columns of a tile */
    COLUMNS_MAX = KERNEL_I16_AMX_COLUMNS_MAX /* whose bytes are kept on the stack */
};

/* Constant, and literal numbers of tiles below: GCC 12 takes stores into a configuration on the
 * stack for dead ones, and writes the numbers into the assembly as they stand. */
typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;
_Static_assert(sizeof(tile_shapes) == 64, "as LDTILECFG reads it");
static const tile_shapes shapes = {.palette = 1,
                                   .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                   .rows = {T, T, T, T, T, T, T, T}};

/* What the tiles are to read stands in memory: GCC's intrinsics do not say that they read. */
#define WRITTEN(p) __asm__ volatile("" : : "r"(p) : "memory")

static void prepare(void)
{
    _tile_loadconfig(&shapes);
}

INLINE __m512i high_bytes(__m512i codes)
{
    return _mm512_srai_epi16(_mm512_add_epi16(codes, _mm512_set1_epi16(64)), 7);
}

/* 64 columns of 16 rows: bytes [k/4][row][4]. */
typedef struct weight_tile {
    _Alignas(64) int8_t high[K / 4][KERNEL_I16_GROUP][4], low[K / 4][KERNEL_I16_GROUP][4];
} weight_tile;

/* Columns [0, columns) of a group, filled up with zeros to whole tiles. */
INLINE void cut_weights(const int16_t *codes, size_t columns, weight_tile *out)
{
    /* of two pairs of columns, rows in 128-bit lanes: four bytes a row */
    const __m512i by_row = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    size_t pairs = (columns + 1) / 2, tiles = (columns + K - 1) / K;
    for (size_t four = 0; four < tiles * (K / 4); four++) {
        const int16_t *at = codes + four * 4 * KERNEL_I16_GROUP;
        __m512i first = _mm512_setzero_si512(), second = first;
        if (2 * four < pairs) {
            first = _mm512_load_si512(at);
        }
        if (2 * four + 1 < pairs) {
            second = _mm512_load_si512(at + 2 * KERNEL_I16_GROUP);
        }
        __m512i h1 = high_bytes(first), h2 = high_bytes(second);
        __m512i l1 = _mm512_sub_epi16(first, _mm512_slli_epi16(h1, 7));
        __m512i l2 = _mm512_sub_epi16(second, _mm512_slli_epi16(h2, 7));
        weight_tile *to = out + four / (K / 4);
        _mm512_store_si512(to->high[four % (K / 4)],
                           _mm512_shuffle_epi8(_mm512_packs_epi16(h1, h2), by_row));
        _mm512_store_si512(to->low[four % (K / 4)],
                           _mm512_shuffle_epi8(_mm512_packs_epi16(l1, l2), by_row));
    }
}

static void multiply(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out)
{
    const size_t width = kernel_i16_width(m->columns), stride = width * sizeof *codes;
    _Alignas(64) weight_tile weights[COLUMNS_MAX / K];
    _Alignas(64) int32_t high[T][KERNEL_I16_GROUP], cross[T][KERNEL_I16_GROUP],
        low[T][KERNEL_I16_GROUP];
    BASE_ASSERT(width <= COLUMNS_MAX);
    cut_weights(m->codes + group * ((m->columns + 1) / 2) * 2 * KERNEL_I16_GROUP, m->columns,
                weights);
    WRITTEN(weights);
    WRITTEN(codes);
    for (size_t first = 0; first < tokens; first += T) {
        const int8_t *acts = (const int8_t *)(codes + first * width);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        for (size_t k = 0; k < width / K; k++) {
            _tile_loadd(3, acts + k * K, stride);
            _tile_loadd(4, weights[k].high, 64);
            _tile_loadd(5, acts + width + k * K, stride);
            _tile_loadd(6, weights[k].low, 64);
            _tile_dpbssd(0, 3, 4);
            _tile_dpbssd(1, 3, 6);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(1, 5, 4);
        }
        _tile_stored(0, high, sizeof high[0]);
        _tile_stored(1, cross, sizeof cross[0]);
        _tile_stored(2, low, sizeof low[0]);
        for (size_t t = 0; t < T && first + t < tokens; t++) {
            __m512i sum = _mm512_slli_epi32(_mm512_load_si512(high[t]), 14);
            sum = _mm512_add_epi32(sum, _mm512_slli_epi32(_mm512_load_si512(cross[t]), 7));
            sum = _mm512_add_epi32(sum, _mm512_load_si512(low[t]));
            kernel_i16_store(m, group, sum, step_a[first + t], out + (first + t) * m->rows);
        }
    }
}

/* A row of codes as its high bytes [width], then its low ones. */
static float round_row(int16_t *codes, const float *x, size_t columns, int32_t limit)
{
    const size_t width = kernel_i16_width(columns);
    int16_t whole[COLUMNS_MAX];
    int8_t *high = (int8_t *)codes, *low = high + width;
    BASE_ASSERT(width <= COLUMNS_MAX);
    float step = kernel_i16_avx2.round_row(whole, x, columns, limit);
    memset(whole + columns, 0, (width - columns) * sizeof *whole);
    for (size_t k = 0; k < width; k += 32) {
        __m512i code = _mm512_loadu_si512(whole + k), h = high_bytes(code);
        __m512i l = _mm512_sub_epi16(code, _mm512_slli_epi16(h, 7));
        _mm256_storeu_si256((__m256i *)(void *)(high + k), _mm512_cvtepi16_epi8(h));
        _mm256_storeu_si256((__m256i *)(void *)(low + k), _mm512_cvtepi16_epi8(l));
    }
    return step;
}

const kernel_i16_ops kernel_i16_amx = {
    .token_block = 192,
    .groups = 1,
    .prepare = prepare,
    .round_row = round_row,
    .multiply = multiply};

uint64_t kernel_amx_int8_work(size_t rounds)
{
    _Alignas(64) static const int8_t codes[T][K] = {{3}};
    _tile_loadconfig(&shapes);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, codes, K);
    _tile_loadd(5, codes, K);
    for (size_t i = 0; i < rounds; i++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return (uint64_t)rounds * 4 * T * KERNEL_GROUP * K;
}

#else
typedef int kernels_amx_empty; /* a translation unit holds at least one declaration */
#endif
