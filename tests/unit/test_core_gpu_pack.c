/* tests/unit/test_core_gpu_pack.c: weights packed for a GPU are the weights of the file.
 *
 * Goal: every type, whole and partial groups and segments, both row orders. Method: random rows,
 * packed twice (CPU form, GPU form), read back and compared; exactly where scales come from f16,
 * within one rounding of scale and minimum for K-quants.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/gpu_pack.h"

/* Random bytes with finite, moderate scales. */
static uint8_t *random_rows(uint32_t type, size_t rows, size_t columns, base_rng *rng)
{
    size_t bytes = rows * kernel_source_row_bytes(type, columns);
    uint8_t *raw = base_alloc(bytes);
    assert_non_null(raw);
    for (size_t i = 0; i < bytes; i++) {
        raw[i] = (uint8_t)base_rng_u64(rng);
    }
    size_t per = type >= KERNEL_SRC_Q4_K && type <= KERNEL_SRC_Q6_K ? 256 : 32;
    size_t block = kernel_source_row_bytes(type, per);
    for (size_t at = 0; at + block <= bytes; at += block) {
        uint16_t half = kernel_float_to_half(0.001F + 0.01F * (float)base_rng_unit(rng));
        size_t place = type == KERNEL_SRC_Q6_K ? 208 : 0;
        if (type == KERNEL_SRC_F32 || type == KERNEL_SRC_F16 || type == KERNEL_SRC_BF16) {
            size_t element = type == KERNEL_SRC_F32 ? 4 : 2;
            for (size_t i = element - 1; i < block; i += element) {
                raw[at + i] = (uint8_t)((raw[at + i] & 0x83) | 0x38); /* no infinity, no NaN */
            }
            continue;
        }
        raw[at + place] = (uint8_t)half;
        raw[at + place + 1] = (uint8_t)(half >> 8);
        if (type == KERNEL_SRC_Q4_1 || type == KERNEL_SRC_Q5_1 || type == KERNEL_SRC_Q4_K ||
            type == KERNEL_SRC_Q5_K) {
            raw[at + 2] = (uint8_t)half;
            raw[at + 3] = (uint8_t)(half >> 8);
        }
    }
    return raw;
}

static void check(uint32_t type, size_t rows, size_t columns, gpu_order order, bool half)
{
    base_rng rng;
    base_rng_seed(&rng, type * 1000 + rows);
    uint8_t *raw = random_rows(type, rows, columns, &rng);
    kernel_matrix m = {0};
    gpu_layout l;
    assert_int_equal(kernel_matrix_pack(&m, type, raw, rows, columns, false, NULL), BASE_OK);
    assert_int_equal(half ? gpu_layout_half(rows, columns, &l, NULL) : gpu_layout_of(&m, &l, NULL),
                     BASE_OK);
    assert_true(l.segment_bytes <= GPU_SEGMENT_BYTES && l.segment_bytes % 16 == 0);
    assert_true(l.last_bytes > 0 && l.last_bytes % 16 == 0);
    uint8_t *packed = base_alloc(l.bytes);
    float *a = base_alloc(columns * sizeof *a), *b = base_alloc(columns * sizeof *b);
    assert_true(packed && a && b);
    size_t split = l.groups / 2 / 2 * 2; /* two calls, as two threads would */
    assert_int_equal(gpu_pack(&l, &m, order, 0, split, packed, NULL), BASE_OK);
    assert_int_equal(
        gpu_pack(&l, &m, order, split, l.groups - split, packed + split * l.group_bytes, NULL),
        BASE_OK);
    size_t row_bytes = kernel_source_row_bytes(type, columns);
    double slack = half ? 0x1p-11 : l.unit < 1.0F ? 0x1p-11 : 0.0;
    for (size_t r = 0; r < rows; r++) {
        size_t group = r / 8;
        size_t source = order == GPU_STACKED ? r : group % 2 * (rows / 2) + group / 2 * 8 + r % 8;
        kernel_source_dequantise_row(type, raw + source * row_bytes, columns, a);
        gpu_unpack_row(&l, packed, r, b);
        for (size_t k = 0; k < columns; k++) {
            /* K-quants: scale*q and the minimum, each off by 2^-11; both are below 64*63*0.011. */
            double bound = slack * (l.unit < 1.0F && !half ? 64.0 : fabs((double)a[k]) + 1e-4);
            assert_true(fabs((double)a[k] - (double)b[k]) <= bound);
        }
    }
    base_free(packed);
    base_free(a);
    base_free(b);
    base_free(raw);
    kernel_matrix_free(&m);
}

static void test_every_type_reads_back(void **state)
{
    (void)state;
    const uint32_t types[] = {KERNEL_SRC_F32,  KERNEL_SRC_F16,  KERNEL_SRC_BF16, KERNEL_SRC_Q4_0,
                              KERNEL_SRC_Q4_1, KERNEL_SRC_Q5_0, KERNEL_SRC_Q5_1, KERNEL_SRC_Q8_0,
                              KERNEL_SRC_Q4_K, KERNEL_SRC_Q5_K, KERNEL_SRC_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        bool k = types[i] >= KERNEL_SRC_Q4_K && types[i] <= KERNEL_SRC_Q6_K;
        check(types[i], 16, k ? 256 : 32, GPU_STACKED, false);
        check(types[i], 19, k ? 1280 : 576, GPU_STACKED, false); /* a partial group and segment */
        check(types[i], 48, k ? 768 : 1536, GPU_INTERLEAVED, false);
    }
}

static void test_any_type_as_half(void **state)
{
    (void)state;
    check(KERNEL_SRC_Q4_1, 32, 96, GPU_INTERLEAVED, true);
    check(KERNEL_SRC_F32, 9, 96, GPU_STACKED, true);
}

static void test_misfits_are_refused(void **state)
{
    (void)state;
    float values[4 * 30] = {0};
    kernel_matrix m = {0};
    gpu_layout l;
    kernel_matrix_borrow_f32(&m, values, 4, 30); /* 30 is no multiple of four */
    assert_int_equal(gpu_layout_of(&m, &l, NULL), BASE_UNSUPPORTED);
    values[0] = 1e30F; /* does not fit f16 */
    uint8_t out[1024];
    kernel_matrix_borrow_f32(&m, values, 3, 40);
    assert_int_equal(gpu_layout_half(3, 40, &l, NULL), BASE_OK);
    assert_true(l.bytes <= sizeof out);
    assert_int_equal(gpu_pack(&l, &m, GPU_STACKED, 0, 1, out, NULL), BASE_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_reads_back),
        cmocka_unit_test(test_any_type_as_half),
        cmocka_unit_test(test_misfits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
