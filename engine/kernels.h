/* engine/kernels.h: the arithmetic of the model. Shapes, the weight formats, and the run-time
 * dispatch table.
 *
 * Axis letters, project-wide: B batch, T tokens, C channels, H query heads, G KV heads, D head
 * size, S slots (keys), N output rows, K input columns, V vocabulary. All matrices are row-major.
 *
 * engine/kernels_scalar.c is the readable definition of every kernel; kernels_avx2.c and
 * kernels_avx512.c must agree with it within the tolerance that tests/unit/test_kernels_*.c states
 * with its reason. One file = one instruction set.
 *
 * Determinism: for T <= 16 a row of the result does not depend on T or on the number of threads
 * (semantics §6), so that running tokens again, verifying drafts, and stepping one by one give the
 * same bits. Every kernel computes an output element in one fixed order of additions; threads only
 * share out whole output elements.
 *
 * Kernels cannot fail: no allocation, no I/O; shapes are asserted.
 */
#ifndef ENGINE_KERNELS_H
#define ENGINE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "base/status.h"
#include "base/thread.h"

/* --- weights -------------------------------------------------------------------------------------
 * Every tensor type of a file is turned at load into one of four forms, exactly (no second
 * rounding; where a product of scales does not fit f16 the scales are kept in f32):
 *   F32   float
 *   H16   f16 or bf16 kept as it is, widened in registers
 *   P4    4-bit codes q, per 32 columns: w = scale*q + min     (Q4_0, Q4_1, Q4_K)
 *   P8    8-bit codes q, per 16 or 32 columns: w = scale*q + min (Q5_0, Q5_1, Q8_0, Q5_K, Q6_K)
 * P4 and P8 are packed for the instruction set in use (rows interleaved); kernel_matrix_pack
 * documents the layout.
 */
typedef enum kernel_format {
    KERNEL_F32,
    KERNEL_F16,
    KERNEL_BF16,
    KERNEL_P4,
    KERNEL_P8
} kernel_format;

typedef struct kernel_matrix {
    kernel_format format;
    size_t rows;    /* N */
    size_t columns; /* K, multiple of 32 for P4/P8 */
    void *data;     /* packed or plain weights; owned if owns_data */
    void *scales;   /* packed scales and mins for P4/P8, else NULL */
    bool owns_data;
    size_t bytes;   /* of data + scales: what one pass reads */
    /* P4 and P8 only */
    bool has_min;         /* w = scale*q + min, else scale*q */
    bool scales_f32;      /* scales and mins in f32, else f16 */
    size_t scale_columns; /* columns that share a scale: 16 or 32 */
} kernel_matrix;

/* GGUF tensor types that kernel_matrix_pack accepts (numbers as in the GGUF specification). */
typedef enum kernel_source_type {
    KERNEL_SRC_F32 = 0,
    KERNEL_SRC_F16 = 1,
    KERNEL_SRC_Q4_0 = 2,
    KERNEL_SRC_Q4_1 = 3,
    KERNEL_SRC_Q5_0 = 6,
    KERNEL_SRC_Q5_1 = 7,
    KERNEL_SRC_Q8_0 = 8,
    KERNEL_SRC_Q4_K = 12,
    KERNEL_SRC_Q5_K = 13,
    KERNEL_SRC_Q6_K = 14,
    KERNEL_SRC_BF16 = 30
} kernel_source_type;
bool kernel_source_known(uint32_t type);
const char *kernel_source_name(uint32_t type); /* "Q4_1", "?" when unknown */
/* Bytes of `columns` values of one row; 0 if columns is not a multiple of the block. */
size_t kernel_source_row_bytes(uint32_t type, size_t columns);
/* Dequantise one row exactly as the format defines it: out [columns] f32. */
void kernel_source_dequantise_row(uint32_t type, const void *row, size_t columns, float *out);
/* Round f32 values to Q8_0 blocks: out [columns/32 * 34 bytes]; columns a multiple of 32, values
 * finite, |x| < 2^23 (f16 scale). For matrices that are made at run time (merged adapters, tests).
 * */
void kernel_source_quantise_q8_0(const float *x, size_t columns, void *out);

/* Build a matrix from raw rows [rows, columns] of a file. keep_plain: do not copy F32/F16/BF16
 * (data is borrowed and must outlive it). Errors: BASE_UNSUPPORTED, BASE_NO_MEMORY. */
base_status kernel_matrix_pack(kernel_matrix *matrix, uint32_t source_type, const void *raw,
                               size_t rows, size_t columns, bool keep_plain, base_error *err);
/* From f32 values, kept as F32 (data borrowed). */
void kernel_matrix_borrow_f32(kernel_matrix *matrix, const float *data, size_t rows,
                              size_t columns);
/* Row n dequantised: out [columns] f32 (embedding lookup; equals kernel_source_dequantise_row bit
 * for bit for exact packs). */
void kernel_matrix_row(const kernel_matrix *matrix, size_t row, float *out);
void kernel_matrix_free(kernel_matrix *matrix);

/* How activations enter a P4/P8 product: rounded to 8 bits per 32 columns (fast), or as f32
 * (reference, slow). */
typedef enum kernel_activations { KERNEL_ACT_Q8, KERNEL_ACT_F32 } kernel_activations;

/* Scratch bytes that kernel_matmul needs for this T and K. */
size_t kernel_matmul_scratch(size_t tokens, size_t columns);
/* out [T, N] = x [T, K] * W^T. scratch: kernel_matmul_scratch bytes, 64-aligned. out must not
 * overlap x. out_stride: floats between rows of out (>= N). */
void kernel_matmul(base_pool *pool, const kernel_matrix *w, const float *x, size_t tokens,
                   float *out, size_t out_stride, kernel_activations activations, void *scratch);

/* --- the rest, through a table per instruction set -------------------------------------------- */

/* Keys and values of a window, one layer, as f16 or f32 (KV type); rows of one head or of all. */
typedef struct kernel_kv {
    const void *keys;   /* [S, stride] rotated to their positions */
    const void *values; /* [S, stride] */
    bool half;          /* f16, else f32 */
    size_t stride;      /* elements between rows */
    /* [S] which rows, in ascending order; NULL: the first S. Slot j of what follows is row list[j].
     */
    const uint32_t *list;
} kernel_kv;

/* Keys of one KV head in 8 bits with a step a slot, key = step * code, to look at many and find the
 * few that matter. Groups of 64 slots, in a group the pairs of columns, in a pair the slots: int8
 * [S/64][D/2][64][2]; S is filled up to 64. D even, at most KERNEL_COARSE_COLUMNS_MAX, so that the
 * products with 16-bit codes of a query cannot overflow int32. */
enum { KERNEL_COARSE_GROUP = 64, KERNEL_COARSE_COLUMNS_MAX = 512 };
typedef struct kernel_coarse_keys {
    int8_t *codes;
    float *steps; /* [S] */
} kernel_coarse_keys;
/* Store a key [D] f32, finite, as that of a slot. The same bits whatever the instruction set. */
void kernel_coarse_store(const kernel_coarse_keys *keys, size_t slot, const float *key,
                         size_t head_size);

typedef struct kernel_table {
    base_isa isa;
    /* out [C] = x * rsqrt(mean(x^2) + eps) * weight  (Zhang & Sennrich 2019, eq. 4) */
    void (*rmsnorm)(float *out, const float *x, const float *weight, size_t channels, float eps);
    /* out [C] = (x - mean) / sqrt(var + eps) * weight + bias  (Ba et al. 2016) */
    void (*layernorm)(float *out, const float *x, const float *weight, const float *bias,
                      size_t channels, float eps);
    /* Rotate pairs in place. x [heads, D]; cos/sin [D/2]. neox: pairs (i, i+D/2), else (2i, 2i+1)
     * (Su et al. 2021, eq. 34) */
    void (*rope)(float *x, size_t heads, size_t head_size, const float *cosine, const float *sine,
                 bool neox);
    /* x += y */
    void (*add)(float *x, const float *y, size_t count);
    /* gate = silu(gate) * up  (SwiGLU, Shazeer 2020) */
    void (*silu_mul)(float *gate, const float *up, size_t count);
    /* x = gelu(x), the exact erf form */
    void (*gelu)(float *x, size_t count);
    /* sum of a[i]*b[i] */
    float (*dot)(const float *a, const float *b, size_t count);
    void (*to_half)(uint16_t *out, const float *x, size_t count); /* round to nearest even */
    void (*from_half)(float *out, const uint16_t *x, size_t count);
    /* Attention of query heads that share one KV head (grouped-query) over slots [0, S), in three
     * steps, so that work can be cut anywhere without a bit of difference: scores by slots, values
     * by columns, both by heads. kernel_attention is all three.
     *
     * scores[h][j] = scale * q_h.k_j + bias_j. q [query_count, D] (row stride q_stride), kv_offset:
     * the head's column, bias [S] or NULL, scores [query_count, S] (stride scores_stride). */
    void (*attention_scores)(float *scores, size_t scores_stride, const float *q,
                             size_t query_count, size_t q_stride, const kernel_kv *kv,
                             size_t kv_offset, size_t slots, size_t head_size, float scale,
                             const float *bias);
    /* Rows of scores -> e^(score - peak of the row), in place; sums [rows] of them, added slot by
     * slot. peaks [rows]; NULL: the largest score of each. A row whose peak is -INF becomes 0, its
     * sum 0. */
    void (*attention_weights)(float *scores, size_t scores_stride, size_t rows, size_t slots,
                              const float *peaks, float *sums);
    /* out[h][c] = factor_h * (start + sum_j p_hj v_j[c]), slot by slot in order, for `columns`
     * columns from kv_offset on; start: `onto` ? out[h][c] : 0. A slot of weight 0 gives bit for
     * bit the result of its absence (v finite). p [query_count, S] (stride p_stride), out
     * [query_count, columns] (stride out_stride). */
    void (*attention_values)(float *out, size_t out_stride, const float *p, size_t p_stride,
                             const float *factor, size_t query_count, const kernel_kv *kv,
                             size_t kv_offset, size_t slots, size_t columns, bool onto);
    /* scores[h][j] = scale * q_h.k_j, about: of 8-bit keys and of q in 16 bits. peaks[h][i]: the
     * largest score of group i of 64 slots. Slots are those from a group's first on; the same bits
     * by every instruction set. */
    void (*coarse_scores)(float *scores, size_t scores_stride, float *peaks, size_t peaks_stride,
                          const float *q, size_t query_count, size_t q_stride,
                          const kernel_coarse_keys *keys, size_t slots, size_t head_size,
                          float scale);
    /* list [S, filled up to 16] = slots j < S where scores[h][j] >= bounds[h] for any of the rows,
     * ascending, each plus `base`. Returns how many. */
    size_t (*coarse_choose)(uint32_t *list, const float *scores, size_t scores_stride, size_t rows,
                            const float *bounds, size_t slots, size_t base);
    /* Statistics of one row of logits: log-sum-exp, entropy of softmax (nats), index of the
     * maximum. */
    void (*logit_stats)(const float *logits, size_t vocabulary, float *log_sum_exp, float *entropy,
                        size_t *argmax);
    /* What arithmetic can reach at most: 8-bit multiply-adds on registers alone, by the
     * instructions that this set's products use. Returns how many `rounds` rounds were. */
    uint64_t (*int8_work)(size_t rounds);
} kernel_table;

/* Choose the instruction set for the whole process, before threads start: the best available, at
 * most `limit`. Also fixes the packing that kernel_matrix_pack uses, so call it before loading a
 * model. Returns the choice. */
base_isa kernel_select(base_isa limit);
/* the selected table (selects the best one when none is yet) */
const kernel_table *kernel_get(void);
/* for tests; NULL if not compiled in or not runnable here */
const kernel_table *kernel_table_for(base_isa isa);

/* p = softmax(scale * q k^T + bias), out = p v, for heads that share a KV head. out and q
 * [query_count, D] (stride q_stride); scores [query_count, S]: on return the normalised p (for
 * attention mass). A slot with bias -INF gives bit for bit the result of its absence; where all
 * are, out is 0. */
void kernel_attention(const kernel_table *table, float *out, const float *q, size_t query_count,
                      size_t q_stride, const kernel_kv *kv, size_t kv_offset, size_t slots,
                      size_t head_size, float scale, const float *bias, float *scores);

/* IEEE half conversions, single values. */
float kernel_half_to_float(uint16_t half);
uint16_t kernel_float_to_half(float value);

#endif
