/* tests/unit/kernels_testing.h: weights to test with: rows of any GGUF type with finite scales. */
#ifndef TESTS_KERNELS_TESTING_H
#define TESTS_KERNELS_TESTING_H

#include <stdint.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "engine/kernels.h"

#define KERNELS_TYPE_COUNT 11
static const uint32_t kernels_types[KERNELS_TYPE_COUNT] = {
    KERNEL_SRC_F32,  KERNEL_SRC_F16,  KERNEL_SRC_BF16, KERNEL_SRC_Q4_0,
    KERNEL_SRC_Q4_1, KERNEL_SRC_Q5_0, KERNEL_SRC_Q5_1, KERNEL_SRC_Q8_0,
    KERNEL_SRC_Q4_K, KERNEL_SRC_Q5_K, KERNEL_SRC_Q6_K,
};

/* Random codes, scales about +-0.05. Freed by free; NULL when out of memory. */
static inline uint8_t *kernels_random_rows(uint32_t type, size_t rows, size_t columns,
                                           base_rng *rng)
{
    size_t size = rows * kernel_source_row_bytes(type, columns);
    uint8_t *raw = malloc(size);
    for (size_t i = 0; raw && i < size; i++) {
        raw[i] = (uint8_t)base_rng_u64(rng);
    }
    /* block bytes, and where its f16 fields are */
    size_t block = 0, first = 0, count = 1;
    switch (type) {
    case KERNEL_SRC_F32:
        for (size_t i = 0; raw && i < size; i += 4) {
            base_put_f32(raw + i, (float)base_rng_normal(rng) * 0.1F);
        }
        return raw;
    case KERNEL_SRC_BF16:
        for (size_t i = 0; raw && i < size; i += 2) { /* the upper half of an f32 */
            uint8_t wide[4];
            base_put_f32(wide, (float)base_rng_normal(rng) * 0.1F);
            raw[i] = wide[2];
            raw[i + 1] = wide[3];
        }
        return raw;
    case KERNEL_SRC_F16:
        block = 2;
        break;
    case KERNEL_SRC_Q6_K:
        first = 208;
        block = 210;
        break;
    default:
        block = kernel_source_row_bytes(type, 256) / (type >= KERNEL_SRC_Q4_K ? 1 : 8);
        count =
            type == KERNEL_SRC_Q4_0 || type == KERNEL_SRC_Q5_0 || type == KERNEL_SRC_Q8_0 ? 1 : 2;
        break;
    }
    for (size_t at = 0; raw && at < size; at += block) {
        for (size_t i = 0; i < count; i++) {
            float value = (float)base_rng_normal(rng) * 0.05F;
            base_put_u16(raw + at + first + 2 * i, kernel_float_to_half(value));
        }
    }
    return raw;
}

#endif
