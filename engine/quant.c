/* engine/quant.c: the block formats of GGUF weights: names, sizes, exact decoding.
 *
 * Every quantised format is a row of blocks; here each is decoded 32 columns at a time into signed
 * codes q with w = scale*q + min, scale constant over 16 or 32 columns. Layouts follow the block
 * structures of the GGUF specification (ggml project); numbers are little-endian.
 *
 *   type  columns bytes  fields                                          value
 *   Q4_0   32      18    f16 d, 16 x nibbles                             d*(n - 8)
 *   Q4_1   32      20    f16 d, f16 m, 16 x nibbles                      d*n + m
 *   Q5_0   32      22    f16 d, u32 fifth bits, 16 x nibbles             d*(n - 16)
 *   Q5_1   32      24    f16 d, f16 m, u32 fifth bits, 16 x nibbles      d*n + m
 *   Q8_0   32      34    f16 d, 32 x i8                                  d*n
 *   Q4_K  256     144    f16 d, f16 dmin, 12 bytes of 6-bit s and m,     (d*s)*n - dmin*m
 *                        nibbles (s, m per 32 columns)
 *   Q5_K  256     176    the same with 32 bytes of fifth bits            (d*s)*n - dmin*m
 *   Q6_K  256     210    128 x low nibbles, 64 x 2 bits, 16 x i8 s,      (d*s)*(n - 32)
 *                        f16 d (s per 16 columns)
 *
 * Products of an f16 scale with a code or a 6..8-bit sub-scale are exact in f32 (at most 24 bits),
 * so the value has at most one rounding: that of adding the minimum.
 */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "engine/kernels_internal.h"

typedef struct source_format {
    uint32_t type;
    const char *name;
    size_t block_columns, block_bytes;
} source_format;

static const source_format formats[] = {
    {KERNEL_SRC_F32, "F32", 1, 4},       {KERNEL_SRC_F16, "F16", 1, 2},
    {KERNEL_SRC_BF16, "BF16", 1, 2},     {KERNEL_SRC_Q4_0, "Q4_0", 32, 18},
    {KERNEL_SRC_Q4_1, "Q4_1", 32, 20},   {KERNEL_SRC_Q5_0, "Q5_0", 32, 22},
    {KERNEL_SRC_Q5_1, "Q5_1", 32, 24},   {KERNEL_SRC_Q8_0, "Q8_0", 32, 34},
    {KERNEL_SRC_Q4_K, "Q4_K", 256, 144}, {KERNEL_SRC_Q5_K, "Q5_K", 256, 176},
    {KERNEL_SRC_Q6_K, "Q6_K", 256, 210},
};

static const source_format *find(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (formats[i].type == type) {
            return &formats[i];
        }
    }
    return NULL;
}

bool kernel_source_known(uint32_t type)
{
    return find(type) != NULL;
}

const char *kernel_source_name(uint32_t type)
{
    const source_format *format = find(type);
    return format ? format->name : "?";
}

size_t kernel_source_row_bytes(uint32_t type, size_t columns)
{
    const source_format *format = find(type);
    size_t bytes;
    if (!format || columns % format->block_columns != 0 ||
        !base_size_mul(columns / format->block_columns, format->block_bytes, &bytes)) {
        return 0;
    }
    return bytes;
}

static float half_at(const uint8_t *p)
{
    return kernel_half_to_float(base_get_u16(p));
}

/* 32 nibbles in 16 bytes: low ones are columns 0..15, high ones 16..31. */
static void nibbles(int8_t q[32], const uint8_t *p, int offset)
{
    for (int j = 0; j < 16; j++) {
        q[j] = (int8_t)((p[j] & 15) - offset);
        q[j + 16] = (int8_t)((p[j] >> 4) - offset);
    }
}

/* The same with the fifth bit of column j in bit j of `fifth`. */
static void five_bits(int8_t q[32], const uint8_t *p, uint32_t fifth, int offset)
{
    for (unsigned j = 0; j < 16; j++) {
        q[j] = (int8_t)((int)((p[j] & 15U) | ((fifth >> j & 1U) << 4)) - offset);
        q[j + 16] = (int8_t)((int)((p[j] >> 4) | ((fifth >> (j + 16) & 1U) << 4)) - offset);
    }
}

/* Sub-scale and sub-minimum j (0..7) out of the 12 bytes of Q4_K and Q5_K: 6 bits each, the upper 2
 * bits of the last four pairs sit in the spare bits of the first eight bytes. */
static void k_scale_min(const uint8_t *s, size_t j, unsigned *scale, unsigned *min)
{
    if (j < 4) {
        *scale = s[j] & 63U;
        *min = s[j + 4] & 63U;
    } else {
        *scale = (s[j + 4] & 15U) | (unsigned)(s[j - 4] >> 6) << 4;
        *min = (unsigned)(s[j + 4] >> 4) | (unsigned)(s[j] >> 6) << 4;
    }
}

/* Sub-block `sub` (0..7) of a 256-column block of Q4_K or Q5_K. */
static void decode_k45(kernel_source_block *out, const uint8_t *p, size_t sub, bool five)
{
    unsigned scale, min;
    k_scale_min(p + 4, sub, &scale, &min);
    out->scale[0] = out->scale[1] = half_at(p) * (float)scale;
    out->min = -(half_at(p + 2) * (float)min);
    const uint8_t *fifth = p + 16;
    const uint8_t *low = p + (five ? 48 : 16) + 32 * (sub / 2);
    for (size_t j = 0; j < 32; j++) {
        unsigned n = sub % 2 ? low[j] >> 4 : low[j] & 15U;
        if (five) {
            n |= (fifth[j] >> sub & 1U) << 4;
        }
        out->q[j] = (int8_t)n;
    }
}

/* Sub-block `sub` (0..7) of Q6_K: halves of 128 columns; quarter `part` of a half takes its low
 * bits from nibble part/2 of bytes 32*(part%2).., its high bits from bits 2*part of qh. */
static void decode_q6_k(kernel_source_block *out, const uint8_t *p, size_t sub)
{
    size_t half = sub / 4, part = sub % 4;
    const uint8_t *low = p + 64 * half + 32 * (part % 2);
    const uint8_t *high = p + 128 + 32 * half;
    const uint8_t *scales = p + 192 + 8 * half + 2 * part;
    float d = half_at(p + 208);
    for (size_t j = 0; j < 32; j++) {
        unsigned n = part < 2 ? low[j] & 15U : low[j] >> 4;
        n |= (high[j] >> (2 * part) & 3U) << 4;
        out->q[j] = (int8_t)((int)n - 32);
    }
    out->scale[0] = d * (float)(int8_t)scales[0];
    out->scale[1] = d * (float)(int8_t)scales[1];
    out->min = 0.0F;
}

void kernel_source_decode(uint32_t type, const uint8_t *row, size_t block, kernel_source_block *out)
{
    const source_format *format = find(type);
    BASE_ASSERT(format && format->block_columns >= 32);
    size_t per = format->block_columns / 32;
    const uint8_t *p = row + block / per * format->block_bytes;
    size_t sub = block % per;
    out->scale[0] = out->scale[1] = 0.0F;
    out->min = 0.0F;
    switch (type) {
    case KERNEL_SRC_Q4_0:
        nibbles(out->q, p + 2, 8);
        break;
    case KERNEL_SRC_Q4_1:
        nibbles(out->q, p + 4, 0);
        out->min = half_at(p + 2);
        break;
    case KERNEL_SRC_Q5_0:
        five_bits(out->q, p + 6, base_get_u32(p + 2), 16);
        break;
    case KERNEL_SRC_Q5_1:
        five_bits(out->q, p + 8, base_get_u32(p + 4), 0);
        out->min = half_at(p + 2);
        break;
    case KERNEL_SRC_Q8_0:
        memcpy(out->q, p + 2, 32);
        break;
    case KERNEL_SRC_Q4_K:
    case KERNEL_SRC_Q5_K:
        decode_k45(out, p, sub, type == KERNEL_SRC_Q5_K);
        return;
    default:
        decode_q6_k(out, p, sub);
        return;
    }
    out->scale[0] = out->scale[1] = half_at(p);
}

bool kernel_source_has_min(uint32_t type)
{
    return type == KERNEL_SRC_Q4_1 || type == KERNEL_SRC_Q5_1 || type == KERNEL_SRC_Q4_K ||
           type == KERNEL_SRC_Q5_K;
}

void kernel_source_dequantise_row(uint32_t type, const void *row, size_t columns, float *out)
{
    const uint8_t *p = row;
    BASE_ASSERT(kernel_source_known(type));
    BASE_ASSERT(columns == 0 || kernel_source_row_bytes(type, columns) > 0);
    if (type == KERNEL_SRC_F32 || type == KERNEL_SRC_F16 || type == KERNEL_SRC_BF16) {
        for (size_t k = 0; k < columns; k++) {
            out[k] = type == KERNEL_SRC_F32   ? base_get_f32(p + 4 * k)
                     : type == KERNEL_SRC_F16 ? half_at(p + 2 * k)
                                              : kernel_bf16_to_float(base_get_u16(p + 2 * k));
        }
        return;
    }
    bool has_min = kernel_source_has_min(type);
    for (size_t b = 0; b < columns / 32; b++) {
        kernel_source_block block;
        kernel_source_decode(type, p, b, &block);
        for (size_t j = 0; j < 32; j++) {
            float product = block.scale[j / 16] * (float)block.q[j];
            out[32 * b + j] = has_min ? product + block.min : product;
        }
    }
}

void kernel_source_quantise_q8_0(const float *x, size_t columns, void *out)
{
    BASE_ASSERT(columns % 32 == 0);
    uint8_t *p = out;
    for (size_t b = 0; b < columns / 32; b++, p += 34, x += 32) {
        float largest = 0.0F;
        for (size_t j = 0; j < 32; j++) {
            largest = fmaxf(largest, fabsf(x[j]));
        }
        uint16_t half = kernel_float_to_half(largest / 127.0F);
        float scale = kernel_half_to_float(half);
        base_put_u16(p, half);
        for (size_t j = 0; j < 32; j++) {
            float code = scale > 0.0F ? nearbyintf(x[j] / scale) : 0.0F;
            /* The rounded scale may be a little too small for the largest value. */
            p[2 + j] = (uint8_t)(int8_t)fmaxf(-127.0F, fminf(127.0F, code));
        }
    }
}
