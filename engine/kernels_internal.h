/* engine/kernels_internal.h: what the files of the kernels share: packed layout, rounded
 * activations, one table per set.
 *
 * Packed layout of P4 and P8. Rows stand in groups of KERNEL_GROUP = 16 (the last group is filled
 * up with zeros), columns in blocks of 32; blocks of a group are consecutive, so a product reads
 * memory strictly forwards. Inside a block, 32-bit word [g][r] holds four neighbouring columns of
 * row r, so that one vector register holds the same four columns of 16 rows and one broadcast of
 * four activations multiplies them all: no sums across lanes.
 *
 *   P8  512 bytes: byte [g][r][j], g = 0..7, r = 0..15, j = 0..3: q + 128 of column 4g + j, row r
 *   P4  256 bytes: byte [g][r][j], g = 0..3: low nibble column 4g + j, high nibble 16 + 4g + j;
 *       nibble = q + 8 in matrices without minimum, q with one
 *   scales, a separate array, per group and block: [16] scales (for scale_columns = 16: [2][16]),
 *       then [16] mins if has_min; f16 where the format stores f16, else f32
 *
 * so that w = scale*q + min.
 */
#ifndef ENGINE_KERNELS_INTERNAL_H
#define ENGINE_KERNELS_INTERNAL_H

#include <math.h>

#include "base/mem.h"
#include "engine/kernels.h"

#if defined(__x86_64__)
#define KERNEL_X86 1 /* kernels_avx2.c and kernels_avx512.c hold code */
#endif

/* One plain loop compiled for three instruction sets, chosen by the loader. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define KERNEL_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define KERNEL_CLONES
#endif

/* Loops over registers must vanish: unroll them fully, except under sanitizers, whose checks on
 * every unrolled access would cost minutes of compilation. */
#define KERNEL_INLINE static inline __attribute__((always_inline))
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KERNEL_UNROLL
#elif defined(__clang__)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KERNEL_UNROLL
#else
#define KERNEL_UNROLL _Pragma("clang loop unroll(full)")
#endif
#else
#define KERNEL_UNROLL _Pragma("GCC unroll 16")
#endif

#define KERNEL_GROUP 16
#define KERNEL_BLOCK 32
#define KERNEL_P4_BYTES (KERNEL_GROUP * KERNEL_BLOCK / 2)
#define KERNEL_P8_BYTES (KERNEL_GROUP * KERNEL_BLOCK)

/* 32 columns of a quantised row: w = scale[j/16]*q[j] + min. */
typedef struct kernel_source_block {
    int8_t q[32];
    float scale[2];
    float min;
} kernel_source_block;
/* Columns [32*block, 32*block + 32) of a quantised row. */
void kernel_source_decode(uint32_t type, const uint8_t *row, size_t block,
                          kernel_source_block *out);
bool kernel_source_has_min(uint32_t type);

/* sums[h] = row h added slot by slot, for any number of rows: a slot of weight 0 changes no bit.
 * Many chains at a time, as one addition waits for the one before. */
static inline void kernel_row_sums(const float *rows, size_t stride, size_t count, size_t slots,
                                   float *sums)
{
    enum { CHAINS = 6 };
    for (size_t h = 0; h < count; h += CHAINS) {
        const float *row[CHAINS];
        float sum[CHAINS] = {0.0F};
        for (size_t i = 0; i < CHAINS; i++) {
            row[i] = rows + (h + i < count ? h + i : h) * stride;
        }
        for (size_t j = 0; j < slots; j++) {
            KERNEL_UNROLL
            for (size_t i = 0; i < CHAINS; i++) {
                sum[i] += row[i][j];
            }
        }
        for (size_t i = 0; i < CHAINS && h + i < count; i++) {
            sums[h + i] = sum[i];
        }
    }
}

KERNEL_INLINE size_t kernel_row_of(const kernel_kv *kv, size_t slot)
{
    return kv->list ? kv->list[slot] : slot;
}

KERNEL_INLINE void kernel_fetch_row(const void *rows, const kernel_kv *kv, size_t offset,
                                    size_t row, size_t columns, const bool half)
{
    const size_t size = half ? 2 : 4;
    uintptr_t first = (uintptr_t)rows + (row * kv->stride + offset) * size;
    for (size_t at = 0; at < columns * size; at += 64) {
        __builtin_prefetch((const void *)(first + at));
    }
}

/* Ask for `columns` of the slot that is KERNEL_AHEAD slots behind `slot`, of `slots`: the
 * hardware's own look-ahead does not follow a stride, and is too short otherwise. Without a list it
 * may lie past the end: nothing is read. */
enum { KERNEL_AHEAD = 64 };
KERNEL_INLINE void kernel_fetch_ahead(const void *rows, const kernel_kv *kv, size_t offset,
                                      size_t slot, size_t slots, size_t columns, const bool half)
{
    size_t next = slot + KERNEL_AHEAD;
    if (kv->list) {
        if (next >= slots) {
            return;
        }
        next = kv->list[next];
    }
    kernel_fetch_row(rows, kv, offset, next, columns, half);
}

/* The first rows of a list, which lie apart. */
KERNEL_INLINE void kernel_fetch_first(const void *rows, const kernel_kv *kv, size_t offset,
                                      size_t slots, size_t columns, const bool half)
{
    for (size_t j = 0; kv->list && j < KERNEL_AHEAD && j < slots; j++) {
        kernel_fetch_row(rows, kv, offset, kv->list[j], columns, half);
    }
}

/* attention_scores and attention_values of a table, from scores_of and values_columns of its file:
 * up to four heads at a time, their number and the KV type known when compiled, and for scores the
 * usual head sizes, too (`known`; 0: any). */
#define KERNEL_BY_HEADS(ONE)                                                                      \
    for (size_t h = 0; h < query_count; h += 4) {                                                 \
        switch ((query_count - h < 4 ? query_count - h : 4) * 2 + (kv->half ? 1 : 0)) {           \
        case 2: ONE(1, false); break;                                                             \
        case 3: ONE(1, true); break;                                                              \
        case 4: ONE(2, false); break;                                                             \
        case 5: ONE(2, true); break;                                                              \
        case 6: ONE(3, false); break;                                                             \
        case 7: ONE(3, true); break;                                                              \
        case 8: ONE(4, false); break;                                                             \
        default: ONE(4, true); break;                                                             \
        }                                                                                         \
    }
#define KERNEL_SCORES_KNOWN(Q, HALF, KNOWN)                                                       \
    scores_of(scores + h * scores_stride, scores_stride, q + h * q_stride, q_stride, kv,          \
              kv_offset, slots, head_size, scale, bias, Q, HALF, KNOWN)
#define KERNEL_SCORES_OF(Q, HALF)                                                                 \
    switch (head_size) {                                                                          \
    case 64: KERNEL_SCORES_KNOWN(Q, HALF, 64); break;                                             \
    case 128: KERNEL_SCORES_KNOWN(Q, HALF, 128); break;                                           \
    default: KERNEL_SCORES_KNOWN(Q, HALF, 0); break;                                              \
    }
#define KERNEL_VALUES_OF(Q, HALF)                                                                 \
    values_columns(out + h * out_stride, out_stride, p + h * p_stride, p_stride, factor + h, kv,  \
                   kv_offset, slots, columns, onto, Q, HALF)
#define KERNEL_ATTENTION_BY_HEADS                                                                 \
    static void attention_scores(float *scores, size_t scores_stride, const float *q,             \
                                 size_t query_count, size_t q_stride, const kernel_kv *kv,        \
                                 size_t kv_offset, size_t slots, size_t head_size, float scale,   \
                                 const float *bias)                                               \
    {                                                                                             \
        KERNEL_BY_HEADS(KERNEL_SCORES_OF)                                                         \
    }                                                                                             \
    static void attention_values(float *out, size_t out_stride, const float *p, size_t p_stride,  \
                                 const float *factor, size_t query_count, const kernel_kv *kv,    \
                                 size_t kv_offset, size_t slots, size_t columns, bool onto)       \
    {                                                                                             \
        KERNEL_BY_HEADS(KERNEL_VALUES_OF)                                                         \
    }

/* coarse_scores of a table, from coarse_of of its file. */
#define KERNEL_COARSE_OF(Q)                                                                       \
    coarse_of(scores + h * scores_stride, scores_stride, peaks + h * peaks_stride, peaks_stride,  \
              q + h * q_stride, q_stride, keys, slots, head_size, scale, Q)
#define KERNEL_COARSE_BY_HEADS                                                                    \
    static void coarse_scores(float *scores, size_t scores_stride, float *peaks,                  \
                              size_t peaks_stride, const float *q, size_t query_count,            \
                              size_t q_stride, const kernel_coarse_keys *keys, size_t slots,      \
                              size_t head_size, float scale)                                      \
    {                                                                                             \
        for (size_t h = 0; h < query_count; h += 4) {                                             \
            switch (query_count - h) {                                                            \
            case 1: KERNEL_COARSE_OF(1); break;                                                   \
            case 2: KERNEL_COARSE_OF(2); break;                                                   \
            case 3: KERNEL_COARSE_OF(3); break;                                                   \
            default: KERNEL_COARSE_OF(4); break;                                                  \
            }                                                                                     \
        }                                                                                         \
    }

/* Rounds a query for coarse_scores: codes [D], step returned; 0 where all are 0. */
enum { KERNEL_COARSE_QUERY_LIMIT = 32767 };
static inline float kernel_coarse_query(int16_t *codes, const float *q, size_t head_size)
{
    float largest = 0.0F;
    for (size_t d = 0; d < head_size; d++) {
        float magnitude = fabsf(q[d]);
        largest = magnitude > largest ? magnitude : largest;
    }
    float inverse = largest < 0x1p-100F ? 0.0F : (float)KERNEL_COARSE_QUERY_LIMIT / largest;
    for (size_t d = 0; d < head_size; d++) {
        codes[d] = (int16_t)lrintf(q[d] * inverse);
    }
    return inverse > 0.0F ? largest / (float)KERNEL_COARSE_QUERY_LIMIT : 0.0F;
}

static inline float kernel_bf16_to_float(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } value = {(uint32_t)bits << 16};
    return value.f;
}

/* 32 activations rounded to 8 bits: x ~ scale*q, |q| <= 127. A row of K is K/32 of these. */
typedef struct kernel_act_block {
    float scale;
    float scaled_sum;  /* scale * sum(q): multiplies the minimum */
    int32_t bias_low;  /* -128 * sum(q[0..15]): takes the code offset of P8 out again */
    int32_t bias_high; /* -128 * sum(q[16..31]) */
    int8_t q[KERNEL_BLOCK];
} kernel_act_block;
_Static_assert(sizeof(kernel_act_block) == 48, "four numbers and 32 codes, no padding");

/* All largest magnitudes below this count as zero, so that 127/largest is finite. */
#define KERNEL_ACT_TINY 0x1p-100F

/* Matrix products of one instruction set. out points at row 0 of the matrix and token 0 of the
 * call; group g writes out[t*out_stride + n] for its rows n < N. x holds `tokens` rows, one after
 * the other. */
typedef struct kernel_ops {
    const kernel_table *table;
    /* Round one row: max |x| per 32 columns / 127, to nearest even. Same bits in every set. x
     * finite. */
    void (*quantise)(kernel_act_block *out, const float *x, size_t columns);
    void (*packed_q8)(const kernel_matrix *w, size_t group, const kernel_act_block *x,
                      size_t tokens, float *out, size_t out_stride);
    void (*packed_f32)(const kernel_matrix *w, size_t group, const float *x, size_t tokens,
                       float *out, size_t out_stride);
    /* F32, F16, BF16 */
    void (*plain)(const kernel_matrix *w, size_t group, const float *x, size_t tokens, float *out,
                  size_t out_stride);
} kernel_ops;

extern const kernel_ops kernel_scalar_ops;
#if defined(KERNEL_X86)
extern const kernel_ops kernel_avx2_ops;
extern const kernel_ops kernel_avx512_ops;
#endif
#if defined(KERNEL_AMX) /* the compiler knows AMX */
extern const kernel_ops kernel_amx_ops; /* in kernels_avx512.c */
uint64_t kernel_amx_int8_work(size_t rounds);
#endif

/* Coefficients of P(u) in erfc(a) = t exp(-a^2 + P(u)), t = 1/(1 + a/2), u = 2.4t - 1.4, for 0 <= a
 * <= 10, lowest power first. Own fit: Chebyshev interpolation on 64 nodes in double precision, cut
 * at degree 10; largest error of P 7.1e-9. */
#define KERNEL_ERFC_TERMS 11
#define KERNEL_ERFC_COEFFICIENTS                                                                 \
    {                                                                                            \
        -0.558595354F, 0.570307103F, 0.0157450741F, -0.0294703369F, -0.00104555183F,             \
            0.00370747674F, -0.000275961158F, -0.000534320611F, 0.000129868215F, 5.4860247e-05F, \
            -2.28557699e-05F                                                                     \
    }

/* Bytes of scales and mins of one block of one group. */
static inline size_t kernel_scale_bytes(const kernel_matrix *w)
{
    size_t values = KERNEL_GROUP * (KERNEL_BLOCK / w->scale_columns + (w->has_min ? 1U : 0U));
    return values * (w->scales_f32 ? sizeof(float) : sizeof(uint16_t));
}

#endif
