/* engine/kernels.c: choice of the instruction set, half conversions, packing of weights, and the
 * matrix product's driver.
 *
 * The driver cuts out [T, N] into items of 16 rows x TOKEN_BLOCK tokens and shares them out; which
 * thread computes an item and how many tokens stand in it never changes the order of additions
 * inside an element (kernels.h, Determinism).
 */
#include "engine/kernels.h"

#include <stdatomic.h>
#include <string.h>

#include "engine/kernels_internal.h"

/* --- choice -------------------------------------------------------------------------- */

static const kernel_ops
    *_Atomic selected; /* set once before threads start; atomic for late first calls */

static const kernel_ops *ops_for(base_isa isa)
{
#if defined(KERNEL_AMX)
    if (isa == BASE_ISA_AMX) {
        return &kernel_amx_ops;
    }
#endif
#if defined(KERNEL_X86)
    if (isa == BASE_ISA_AVX512) {
        return &kernel_avx512_ops;
    }
    if (isa == BASE_ISA_AVX2) {
        return &kernel_avx2_ops;
    }
#endif
    return isa == BASE_ISA_SCALAR ? &kernel_scalar_ops : NULL;
}

base_isa kernel_select(base_isa limit)
{
    base_isa best = base_isa_detect();
    if (best > limit) {
        best = limit;
    }
    while (!ops_for(best)) { /* ends at BASE_ISA_SCALAR */
        best = (base_isa)(best - 1);
    }
    atomic_store(&selected, ops_for(best));
    return best;
}

static const kernel_ops *current(void)
{
    const kernel_ops *ops = atomic_load_explicit(&selected, memory_order_acquire);
    if (!ops) {
        kernel_select(BASE_ISA_COUNT);
        ops = atomic_load(&selected);
    }
    return ops;
}

const kernel_table *kernel_get(void)
{
    return current()->table;
}

const kernel_table *kernel_table_for(base_isa isa)
{
    const kernel_ops *ops = isa <= base_isa_detect() ? ops_for(isa) : NULL;
    return ops ? ops->table : NULL;
}

/* --- half precision (IEEE 754-2008 binary16) ----------------------------------------- */

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float kernel_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16;
    uint32_t exponent = half >> 10 & 31U, mantissa = half & 1023U;
    if (exponent == 31) { /* infinity; NaN becomes quiet and keeps its payload, as F16C does */
        uint32_t quiet = mantissa != 0 ? 0x400000U : 0;
        return bits_float(sign | 0x7f800000U | quiet | mantissa << 13);
    }
    if (exponent == 0) { /* zero and subnormal: mantissa * 2^-24, exact */
        return bits_float(sign | float_bits((float)mantissa * 0x1p-24F));
    }
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t kernel_float_to_half(float value)
{
    uint32_t bits = float_bits(value);
    uint32_t sign = bits >> 16 & 0x8000U;
    bits &= 0x7fffffffU;
    if (bits > 0x7f800000U) {
        return (uint16_t)(sign | 0x7e00U | (bits >> 13 & 0x1ffU));
    }
    if (bits >= 0x477ff000U) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00U);
    }
    if (bits <
        0x38800000U) { /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24, to nearest even */
        return (uint16_t)(sign | (float_bits(bits_float(bits) + 0.5F) - 0x3f000000U));
    }
    bits += 0xfffU + (bits >> 13 & 1U); /* nearest even */
    return (uint16_t)(sign | (bits - 0x38000000U) >> 13);
}

/* --- packing ------------------------------------------------------------------------- */

static bool is_plain(kernel_format format)
{
    return format != KERNEL_P4 && format != KERNEL_P8;
}

static base_status pack_plain(kernel_matrix *m, uint32_t source_type, const void *raw,
                              bool keep_plain, base_error *err)
{
    m->format = source_type == KERNEL_SRC_F32   ? KERNEL_F32
                : source_type == KERNEL_SRC_F16 ? KERNEL_F16
                                                : KERNEL_BF16;
    m->bytes = m->rows * kernel_source_row_bytes(source_type, m->columns);
    size_t unit = m->format == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
    /* A file may place a tensor anywhere; vector loads do not mind, C does. */
    if (keep_plain && (uintptr_t)raw % unit == 0) {
        union {
            const void *in;
            void *out;
        } borrowed = {raw}; /* never written: owns_data is false */
        m->data = borrowed.out;
        return BASE_OK;
    }
    m->data = base_alloc_aligned(m->bytes > 0 ? m->bytes : 1);
    if (!m->data) {
        return base_fail(err, BASE_NO_MEMORY, "matrix of %zu x %zu", m->rows, m->columns);
    }
    memcpy(m->data, raw, m->bytes);
    m->owns_data = true;
    return BASE_OK;
}

static void put_scale(const kernel_matrix *m, uint8_t *scales, size_t index, float value)
{
    if (m->scales_f32) {
        memcpy(scales + 4 * index, &value, sizeof value);
    } else {
        uint16_t half = kernel_float_to_half(value); /* came from f16: exact */
        memcpy(scales + 2 * index, &half, sizeof half);
    }
}

static float get_scale(const kernel_matrix *m, const uint8_t *scales, size_t index)
{
    if (m->scales_f32) {
        float value;
        memcpy(&value, scales + 4 * index, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, scales + 2 * index, sizeof half);
    return kernel_half_to_float(half);
}

/* Put one decoded block into lane `lane` of a packed block. */
static void pack_block(const kernel_matrix *m, uint8_t *codes, uint8_t *scales, size_t lane,
                       const kernel_source_block *block)
{
    if (m->format == KERNEL_P8) {
        for (size_t c = 0; c < KERNEL_BLOCK; c++) {
            codes[c / 4 * 64 + 4 * lane + c % 4] = (uint8_t)(block->q[c] + 128);
        }
    } else {
        int offset = m->has_min ? 0 : 8;
        for (size_t c = 0; c < 16; c++) {
            unsigned low = (unsigned)(block->q[c] + offset),
                     high = (unsigned)(block->q[c + 16] + offset);
            codes[c / 4 * 64 + 4 * lane + c % 4] = (uint8_t)(low | high << 4);
        }
    }
    size_t parts = KERNEL_BLOCK / m->scale_columns;
    for (size_t p = 0; p < parts; p++) {
        put_scale(m, scales, KERNEL_GROUP * p + lane, block->scale[p]);
    }
    if (m->has_min) {
        put_scale(m, scales, KERNEL_GROUP * parts + lane, block->min);
    }
}

static size_t code_bytes(const kernel_matrix *m)
{
    return m->format == KERNEL_P4 ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
}

static base_status pack_codes(kernel_matrix *m, uint32_t source_type, const void *raw,
                              base_error *err)
{
    m->format = source_type == KERNEL_SRC_Q4_0 || source_type == KERNEL_SRC_Q4_1 ||
                        source_type == KERNEL_SRC_Q4_K
                    ? KERNEL_P4
                    : KERNEL_P8;
    m->has_min = kernel_source_has_min(source_type);
    m->scales_f32 = source_type == KERNEL_SRC_Q4_K || source_type == KERNEL_SRC_Q5_K ||
                    source_type == KERNEL_SRC_Q6_K;
    m->scale_columns = source_type == KERNEL_SRC_Q6_K ? 16 : 32;

    size_t row_bytes = kernel_source_row_bytes(source_type, m->columns);
    size_t groups = (m->rows + KERNEL_GROUP - 1) / KERNEL_GROUP, blocks = m->columns / KERNEL_BLOCK;
    size_t cells, data_bytes, scale_bytes;
    if (!base_size_mul(groups, blocks, &cells) ||
        !base_size_mul(cells, code_bytes(m), &data_bytes) ||
        !base_size_mul(cells, kernel_scale_bytes(m), &scale_bytes)) {
        return base_fail(err, BASE_NO_MEMORY, "matrix of %zu x %zu", m->rows, m->columns);
    }
    uint8_t *data = base_alloc_aligned(data_bytes > 0 ? data_bytes : 1);
    uint8_t *scales = base_alloc_aligned(scale_bytes > 0 ? scale_bytes : 1);
    if (!data || !scales) {
        base_free_aligned(data);
        base_free_aligned(scales);
        return base_fail(err, BASE_NO_MEMORY, "matrix of %zu x %zu", m->rows, m->columns);
    }
    for (size_t n = 0; n < m->rows; n++) {
        size_t cell = n / KERNEL_GROUP * blocks;
        for (size_t b = 0; b < blocks; b++, cell++) {
            kernel_source_block block;
            kernel_source_decode(source_type, (const uint8_t *)raw + n * row_bytes, b, &block);
            pack_block(m, data + cell * code_bytes(m), scales + cell * kernel_scale_bytes(m),
                       n % KERNEL_GROUP, &block);
        }
    }
    m->data = data;
    m->scales = scales;
    m->owns_data = true;
    m->bytes = data_bytes + scale_bytes;
    return BASE_OK;
}

base_status kernel_matrix_pack(kernel_matrix *matrix, uint32_t source_type, const void *raw,
                               size_t rows, size_t columns, bool keep_plain, base_error *err)
{
    if (!kernel_source_known(source_type)) {
        return base_fail(err, BASE_UNSUPPORTED, "weights of type %u", (unsigned)source_type);
    }
    size_t row_bytes = kernel_source_row_bytes(source_type, columns), total;
    if (columns > 0 && row_bytes == 0) {
        return base_fail(err, BASE_UNSUPPORTED, "rows of %zu values do not fit the blocks of %s",
                         columns, kernel_source_name(source_type));
    }
    if (!base_size_mul(rows, row_bytes, &total)) {
        return base_fail(err, BASE_NO_MEMORY, "matrix of %zu x %zu", rows, columns);
    }
    kernel_matrix m = {.rows = rows, .columns = columns};
    bool plain = source_type == KERNEL_SRC_F32 || source_type == KERNEL_SRC_F16 ||
                 source_type == KERNEL_SRC_BF16;
    base_status status = plain ? pack_plain(&m, source_type, raw, keep_plain, err)
                               : pack_codes(&m, source_type, raw, err);
    if (status == BASE_OK) {
        *matrix = m;
    }
    return status;
}

void kernel_matrix_borrow_f32(kernel_matrix *matrix, const float *data, size_t rows, size_t columns)
{
    union {
        const float *in;
        void *out;
    } borrowed = {data}; /* never written: owns_data is false */
    *matrix = (kernel_matrix){.format = KERNEL_F32,
                              .rows = rows,
                              .columns = columns,
                              .data = borrowed.out,
                              .bytes = rows * columns * sizeof(float)};
}

static void plain_row(const kernel_matrix *m, size_t row, float *out)
{
    if (m->format == KERNEL_F32) {
        memcpy(out, (const float *)m->data + row * m->columns, m->columns * sizeof *out);
        return;
    }
    const uint16_t *half = (const uint16_t *)m->data + row * m->columns;
    for (size_t k = 0; k < m->columns; k++) {
        out[k] =
            m->format == KERNEL_F16 ? kernel_half_to_float(half[k]) : kernel_bf16_to_float(half[k]);
    }
}

void kernel_matrix_row(const kernel_matrix *m, size_t row, float *out)
{
    BASE_ASSERT(row < m->rows);
    if (is_plain(m->format)) {
        plain_row(m, row, out);
        return;
    }
    size_t blocks = m->columns / KERNEL_BLOCK, lane = row % KERNEL_GROUP;
    size_t parts = KERNEL_BLOCK / m->scale_columns, cell = row / KERNEL_GROUP * blocks;
    for (size_t b = 0; b < blocks; b++, cell++) {
        const uint8_t *codes = (const uint8_t *)m->data + cell * code_bytes(m) + 4 * lane;
        const uint8_t *scales = (const uint8_t *)m->scales + cell * kernel_scale_bytes(m);
        float min = m->has_min ? get_scale(m, scales, KERNEL_GROUP * parts + lane) : 0.0F;
        for (size_t c = 0; c < KERNEL_BLOCK; c++) {
            int q;
            if (m->format == KERNEL_P8) {
                q = codes[c / 4 * 64 + c % 4] - 128;
            } else {
                unsigned pair = codes[c % 16 / 4 * 64 + c % 4];
                q = (int)(c < 16 ? pair & 15U : pair >> 4) - (m->has_min ? 0 : 8);
            }
            float scale = get_scale(m, scales, KERNEL_GROUP * (c / m->scale_columns) + lane);
            float product = scale * (float)q;
            out[32 * b + c] = m->has_min ? product + min : product;
        }
    }
}

void kernel_matrix_free(kernel_matrix *matrix)
{
    if (!matrix) {
        return;
    }
    if (matrix->owns_data) {
        base_free_aligned(matrix->data);
        base_free_aligned(matrix->scales);
    }
    *matrix = (kernel_matrix){0};
}

/* --- product ------------------------------------------------------------------------- */

/* Tokens of one item. Chosen: 64 rows of activations of 1536 columns are 150 KB, which stay in a
 * second-level cache while the row groups pass by. */
#define TOKEN_BLOCK 64
/* Multiply-adds below which another thread costs more than it saves (chosen: about 2 us of work).
 */
#define RANGE_WORK_MIN 65536
/* Activations from which rounding them is shared out, too. */
#define QUANTISE_SHARED_MIN 16384

size_t kernel_matmul_scratch(size_t tokens, size_t columns)
{
    size_t blocks = (columns + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
    return tokens * blocks * sizeof(kernel_act_block);
}

typedef struct matmul_job {
    const kernel_ops *ops;
    const kernel_matrix *w;
    const float *x;
    kernel_act_block *rounded; /* NULL: f32 activations */
    size_t tokens, token_blocks;
    float *out;
    size_t out_stride;
} matmul_job;

static void quantise_rows(void *argument, size_t begin, size_t end, size_t thread_index)
{
    (void)thread_index;
    const matmul_job *job = argument;
    size_t columns = job->w->columns;
    for (size_t t = begin; t < end; t++) {
        job->ops->quantise(job->rounded + t * (columns / KERNEL_BLOCK), job->x + t * columns,
                           columns);
    }
}

static void multiply_items(void *argument, size_t begin, size_t end, size_t thread_index)
{
    (void)thread_index;
    const matmul_job *job = argument;
    size_t columns = job->w->columns;
    for (size_t i = begin; i < end; i++) {
        size_t group = i / job->token_blocks, first = i % job->token_blocks * TOKEN_BLOCK;
        size_t count = job->tokens - first < TOKEN_BLOCK ? job->tokens - first : TOKEN_BLOCK;
        float *out = job->out + first * job->out_stride;
        const float *x = job->x + first * columns;
        if (is_plain(job->w->format)) {
            job->ops->plain(job->w, group, x, count, out, job->out_stride);
        } else if (job->rounded) {
            job->ops->packed_q8(job->w, group, job->rounded + first * (columns / KERNEL_BLOCK),
                                count, out, job->out_stride);
        } else {
            job->ops->packed_f32(job->w, group, x, count, out, job->out_stride);
        }
    }
}

void kernel_matmul(base_pool *pool, const kernel_matrix *w, const float *x, size_t tokens,
                   float *out, size_t out_stride, kernel_activations activations, void *scratch)
{
    if (tokens == 0 || w->rows == 0) {
        return;
    }
    BASE_ASSERT(out_stride >= w->rows || tokens == 1);
    bool packed = !is_plain(w->format);
    BASE_ASSERT(!packed || w->columns % KERNEL_BLOCK == 0);
    matmul_job job = {.ops = current(),
                      .w = w,
                      .x = x,
                      .tokens = tokens,
                      .token_blocks = (tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK,
                      .out = out,
                      .out_stride = out_stride};
    if (packed && activations == KERNEL_ACT_Q8) {
        BASE_ASSERT(scratch != NULL);
        BASE_ASSERT((uintptr_t)scratch % 64 == 0);
        job.rounded = scratch;
        if (tokens * w->columns < QUANTISE_SHARED_MIN) {
            quantise_rows(&job, 0, tokens, 0);
        } else {
            base_pool_run(pool, tokens, 1, quantise_rows, &job);
        }
    }
    size_t groups = (w->rows + KERNEL_GROUP - 1) / KERNEL_GROUP;
    size_t work = KERNEL_GROUP * (w->columns + 1) * (tokens < TOKEN_BLOCK ? tokens : TOKEN_BLOCK);
    size_t grain = RANGE_WORK_MIN / work + 1;
    base_pool_run(pool, groups * job.token_blocks, grain, multiply_items, &job);
}

/* --- attention -------------------------------------------------------------------------------- */

void kernel_coarse_store(const kernel_coarse_keys *keys, size_t slot, const float *key,
                         size_t head_size)
{
    enum { GROUP = KERNEL_COARSE_GROUP };
    int8_t *codes = keys->codes + slot / GROUP * GROUP * head_size + slot % GROUP * 2;
    float largest = 0.0F;
    for (size_t d = 0; d < head_size; d++) {
        largest = fmaxf(largest, fabsf(key[d]));
    }
    float inverse = largest < KERNEL_ACT_TINY ? 0.0F : 127.0F / largest;
    for (size_t d = 0; d < head_size; d++) {
        codes[d / 2 * GROUP * 2 + d % 2] = (int8_t)lrintf(key[d] * inverse);
    }
    keys->steps[slot] = inverse > 0.0F ? largest / 127.0F : 0.0F;
}

void kernel_attention(const kernel_table *table, float *out, const float *q, size_t query_count,
                      size_t q_stride, const kernel_kv *kv, size_t kv_offset, size_t slots,
                      size_t head_size, float scale, const float *bias, float *scores)
{
    enum { AT_ONCE = 8 };
    float sums[AT_ONCE];
    for (size_t h = 0; h < query_count; h += AT_ONCE) {
        size_t count = query_count - h < AT_ONCE ? query_count - h : AT_ONCE;
        float *rows = scores + h * slots;
        table->attention_scores(rows, slots, q + h * q_stride, count, q_stride, kv, kv_offset,
                                slots, head_size, scale, bias);
        table->attention_weights(rows, slots, count, slots, NULL, sums);
        for (size_t i = 0; i < count; i++) {
            sums[i] = sums[i] > 0.0F ? 1.0F / sums[i] : 0.0F;
        }
        table->attention_values(out + h * q_stride, q_stride, rows, slots, sums, count, kv,
                                kv_offset, slots, head_size, false);
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < slots; j++) {
                rows[i * slots + j] *= sums[i];
            }
        }
    }
}
