/* Weight formats: exact decoding against the ggml project's own, packing that loses nothing, half
 * conversions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels.h"
#include "tests/unit/kernels_testing.h"

static size_t from_hex(const char *text, uint8_t *out, size_t max)
{
    size_t count = 0;
    for (; text[0] && text[1] && count < max; text += 2) {
        char pair[3] = {text[0], text[1], 0};
        out[count++] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return count;
}

/* Goal: every value equals the reference decoder's. Method: tests/golden/quant.txt (see
 * gen_quant.py), exact comparison. */
static void test_quant_decodes_as_the_reference(void **state)
{
    (void)state;
    FILE *file = fopen(EIDETIC_SOURCE_DIR "/tests/golden/quant.txt", "r");
    assert_non_null(file);
    static char name[16], raw_text[2000], value_text[10000];
    static uint8_t raw[1000], expected[5000];
    size_t columns, lines = 0;
    while (fscanf(file, "%15s %zu %1999s %9999s", name, &columns, raw_text, value_text) == 4) {
        uint32_t type = 0;
        for (uint32_t t = 0; t < 40; t++) {
            type = strcmp(kernel_source_name(t), name) == 0 ? t : type;
        }
        assert_string_equal(kernel_source_name(type), name);
        assert_int_equal(from_hex(raw_text, raw, sizeof raw),
                         kernel_source_row_bytes(type, columns));
        assert_int_equal(from_hex(value_text, expected, sizeof expected), 4 * columns);
        static float out[1000];
        kernel_source_dequantise_row(type, raw, columns, out);
        for (size_t k = 0; k < columns; k++) {
            float value;
            memcpy(&value, expected + 4 * k, sizeof value);
            if (!(out[k] == value)) {
                fail_msg("%s column %zu: %a, reference %a", name, k, (double)out[k], (double)value);
            }
        }
        lines++;
    }
    fclose(file);
    assert_int_equal(lines, 8);
}

/* Goal: a packed row is the decoded row, bit for bit. Method: random blocks of each type, sizes
 * with and without padding. */
static void test_pack_keeps_every_row_bit_for_bit(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 11);
    const size_t rows[] = {1, 15, 16, 17, 37};
    for (size_t i = 0; i < KERNELS_TYPE_COUNT; i++) {
        uint32_t type = kernels_types[i];
        for (size_t r = 0; r < 5; r++) {
            const size_t columns = 512;
            size_t row_bytes = kernel_source_row_bytes(type, columns);
            uint8_t *raw = kernels_random_rows(type, rows[r], columns, &rng);
            kernel_matrix m;
            assert_int_equal(kernel_matrix_pack(&m, type, raw, rows[r], columns, false, NULL),
                             BASE_OK);
            assert_true(m.bytes >= rows[r] * row_bytes);
            for (size_t n = 0; n < rows[r]; n++) {
                float packed[512], decoded[512];
                kernel_matrix_row(&m, n, packed);
                kernel_source_dequantise_row(type, raw + n * row_bytes, columns, decoded);
                assert_memory_equal(packed, decoded, sizeof packed);
            }
            kernel_matrix_free(&m);
            assert_null(m.data);
            free(raw);
        }
    }
}

/* Goal: plain types are borrowed on request, copied else or where C could not read them. Method:
 * pointers. */
static void test_pack_borrows_plain_rows_only_when_aligned(void **state)
{
    (void)state;
    _Alignas(8) uint8_t raw[4 * 33 + 1] = {0};
    kernel_matrix m;
    assert_int_equal(kernel_matrix_pack(&m, KERNEL_SRC_F32, raw, 3, 11, true, NULL), BASE_OK);
    assert_ptr_equal(m.data, raw);
    assert_false(m.owns_data);
    kernel_matrix_free(&m);
    assert_int_equal(kernel_matrix_pack(&m, KERNEL_SRC_F32, raw + 1, 3, 11, true, NULL), BASE_OK);
    assert_true(m.owns_data);
    kernel_matrix_free(&m);
    assert_int_equal(kernel_matrix_pack(&m, KERNEL_SRC_F16, raw, 3, 11, false, NULL), BASE_OK);
    assert_true(m.owns_data);
    kernel_matrix_free(&m);
    kernel_matrix_free(NULL);
}

/* Goal: unknown types and rows that do not fit blocks are refused by name; no allocation failure
 * leaks or crashes. */
static void test_pack_refuses_by_name_and_survives_no_memory(void **state)
{
    (void)state;
    kernel_matrix m = {.rows = 77};
    base_error err;
    uint8_t raw[4096] = {0};
    assert_int_equal(kernel_matrix_pack(&m, 99, raw, 1, 32, false, &err), BASE_UNSUPPORTED);
    assert_non_null(strstr(err.text, "99"));
    assert_int_equal(kernel_matrix_pack(&m, KERNEL_SRC_Q4_K, raw, 1, 32, false, &err),
                     BASE_UNSUPPORTED);
    assert_non_null(strstr(err.text, "Q4_K"));
    assert_int_equal(
        kernel_matrix_pack(&m, KERNEL_SRC_Q8_0, raw, SIZE_MAX / 8, 1U << 20, false, &err),
        BASE_NO_MEMORY);
    for (size_t n = 1; n <= 2; n++) {
        base_mem_fail_at(n);
        assert_int_equal(kernel_matrix_pack(&m, KERNEL_SRC_Q4_1, raw, 4, 64, false, &err),
                         BASE_NO_MEMORY);
        base_mem_fail_at(0);
    }
    assert_int_equal(m.rows, 77); /* untouched on failure */
    assert_false(kernel_source_known(4));
    assert_string_equal(kernel_source_name(4), "?");
    assert_int_equal(kernel_source_row_bytes(4, 32), 0);
    assert_int_equal(kernel_source_row_bytes(KERNEL_SRC_Q6_K, 512), 420);
    assert_int_equal(kernel_source_row_bytes(KERNEL_SRC_Q4_1, 33), 0);
}

/* Goal: Q8_0 made here is off by half a step at most. Method: random rows; step = scale of the
 * block. */
static void test_quantise_q8_0_is_within_half_a_step(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 5);
    float x[320], back[320];
    uint8_t raw[340];
    for (size_t k = 0; k < 320; k++) {
        x[k] = k < 32 ? 0.0F : (float)base_rng_normal(&rng);
    }
    kernel_source_quantise_q8_0(x, 320, raw);
    kernel_source_dequantise_row(KERNEL_SRC_Q8_0, raw, 320, back);
    for (size_t b = 0; b < 10; b++) {
        float scale = kernel_half_to_float((uint16_t)(raw[34 * b] | raw[34 * b + 1] << 8));
        for (size_t k = 32 * b; k < 32 * (b + 1); k++) {
            /* 0.5 step, and 127 * 2^-11 = 0.07 step where the scale was rounded down below
             * largest/127 */
            assert_true(x[k] - back[k] <= 0.57F * scale && back[k] - x[k] <= 0.57F * scale);
        }
    }
}

/* Goal: all 65,536 halves survive f16 -> f32 -> f16 (NaN becomes quiet), and every vector set
 * agrees in every bit. */
static void test_half_to_float_is_exact_for_all_values(void **state)
{
    (void)state;
    static uint16_t all[65536], back[65536];
    static float wide[65536], vector[65536];
    for (size_t i = 0; i < 65536; i++) {
        all[i] = (uint16_t)i;
        wide[i] = kernel_half_to_float((uint16_t)i);
        back[i] = kernel_float_to_half(wide[i]);
        bool nan = (i & 0x7c00) == 0x7c00 && (i & 0x3ff) != 0;
        assert_int_equal(back[i], nan ? i | 0x200 : i);
    }
    assert_true(kernel_half_to_float(0x3c00) == 1.0F);
    assert_true(kernel_half_to_float(0x0001) == 0x1p-24F);
    assert_true(kernel_half_to_float(0xfbff) == -65504.0F);
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *table = kernel_table_for((base_isa)isa);
        if (table) {
            table->from_half(vector, all, 65536);
            assert_memory_equal(vector, wide, sizeof wide);
        }
    }
}

/* Goal: f32 -> f16 rounds to nearest even. Method: the value between each pair of neighbours and
 * just beside it, known answers at the ends, and random bits; every vector set agrees in every bit
 * and at every tail length. */
static void test_float_to_half_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = kernel_half_to_float((uint16_t)h),
              high = kernel_half_to_float((uint16_t)(h + 1));
        float middle = 0.5F * (low + high);
        uint32_t bits;
        float below, above;
        memcpy(&bits, &middle, sizeof bits);
        bits--;
        memcpy(&below, &bits, sizeof below);
        bits += 2;
        memcpy(&above, &bits, sizeof above);
        assert_int_equal(kernel_float_to_half(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(kernel_float_to_half(below), h);
        assert_int_equal(kernel_float_to_half(above), h + 1);
        assert_int_equal(kernel_float_to_half(-above), (h + 1) | 0x8000);
    }
    assert_int_equal(kernel_float_to_half(65519.996F), 0x7bff);
    assert_int_equal(kernel_float_to_half(65520.0F), 0x7c00);
    assert_int_equal(kernel_float_to_half(-1e30F), 0xfc00);
    base_rng rng;
    base_rng_seed(&rng, 3);
    static float x[4096];
    static uint16_t expected[4096], out[4097];
    for (size_t i = 0; i < 4096; i++) {
        uint32_t bits = (uint32_t)base_rng_u64(&rng);
        memcpy(&x[i], &bits, sizeof bits);
        expected[i] = kernel_float_to_half(x[i]);
    }
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *table = kernel_table_for((base_isa)isa);
        for (size_t count = 4096 - 17; table && count <= 4096; count++) {
            out[count] = 0x1234;
            table->to_half(out, x, count);
            assert_memory_equal(out, expected, count * sizeof *out);
            assert_int_equal(out[count], 0x1234);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_decodes_as_the_reference),
        cmocka_unit_test(test_pack_keeps_every_row_bit_for_bit),
        cmocka_unit_test(test_pack_borrows_plain_rows_only_when_aligned),
        cmocka_unit_test(test_pack_refuses_by_name_and_survives_no_memory),
        cmocka_unit_test(test_quantise_q8_0_is_within_half_a_step),
        cmocka_unit_test(test_half_to_float_is_exact_for_all_values),
        cmocka_unit_test(test_float_to_half_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
