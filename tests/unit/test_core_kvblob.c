/* Keys and values on disk: what 8 bits keep of a head, and that only a whole blob of the right
 * shape is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels.h"
#include "engine/kvblob.h"

enum { TOKENS = 5, HEADS = 12, SIZE = 64, ELEMENTS = TOKENS * HEADS * SIZE };

static const kvblob_shape q8 = {.type = KVBLOB_Q8, .heads = HEADS, .head_size = SIZE};

/* Heads of very different sizes, one of them all 0, as f16. */
static uint16_t *make_block(void)
{
    uint16_t *block = base_calloc(ELEMENTS, sizeof *block);
    base_rng rng;
    base_rng_seed(&rng, 7);
    for (size_t i = 0; i < ELEMENTS; i++) {
        float size = powf(10.0f, (float)(i / SIZE % HEADS) / 3.0f - 2.0f);
        float value = i / SIZE == 3 ? 0.0f : size * (2.0f * (float)base_rng_unit(&rng) - 1.0f);
        block[i] = kernel_float_to_half(value);
    }
    return block;
}

/* Each value comes back within half a step of its own head's scale (and f16's rounding), and what
 * came back stays as it is when it is written again. */
static void test_a_head_comes_back_within_half_a_step_of_its_own_scale(void **state)
{
    (void)state;
    uint16_t *block = make_block(), *back = base_calloc(ELEMENTS, sizeof *back);
    uint16_t *again = base_calloc(ELEMENTS, sizeof *again);
    size_t size = kvblob_bytes(&q8, TOKENS);
    void *blob = base_alloc(size);
    assert_int_equal(size, 64 + TOKENS * HEADS * (SIZE + 4));
    kvblob_encode(&q8, block, TOKENS, blob);
    assert_int_equal(kvblob_count(&q8, blob, size), TOKENS);
    kvblob_decode(&q8, blob, back);
    for (size_t h = 0; h < ELEMENTS / SIZE; h++) {
        float peak = 0.0f;
        for (size_t i = 0; i < SIZE; i++) {
            peak = fmaxf(peak, fabsf(kernel_half_to_float(block[h * SIZE + i])));
        }
        for (size_t i = 0; i < SIZE; i++) {
            float was = kernel_half_to_float(block[h * SIZE + i]);
            float is = kernel_half_to_float(back[h * SIZE + i]);
            assert_true(fabsf(is - was) <= peak / 127.0f * 0.5f + peak * 0x1p-11f + 0x1p-25f);
        }
    }
    kvblob_encode(&q8, back, TOKENS, blob);
    kvblob_decode(&q8, blob, again);
    for (size_t i = 0; i < ELEMENTS; i++) {
        float was = kernel_half_to_float(back[i]), is = kernel_half_to_float(again[i]);
        assert_true(fabsf(is - was) <= fabsf(was) * 0x1p-9f);
    }
    base_free(block);
    base_free(back);
    base_free(again);
    base_free(blob);
}

static void test_f16_and_f32_come_back_bit_for_bit(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        kvblob_shape shape = {
            .type = KVBLOB_F16, .heads = HEADS, .head_size = SIZE, .wide = wide != 0};
        size_t bytes = ELEMENTS * (wide ? sizeof(float) : sizeof(uint16_t));
        uint8_t *block = base_calloc(1, bytes), *back = base_calloc(1, bytes);
        for (size_t i = 0; i < bytes; i++) {
            block[i] = (uint8_t)(i * 37);
        }
        void *blob = base_alloc(kvblob_bytes(&shape, TOKENS));
        assert_int_equal(kvblob_bytes(&shape, TOKENS), 64 + bytes);
        kvblob_encode(&shape, block, TOKENS, blob);
        assert_int_equal(kvblob_count(&shape, blob, kvblob_bytes(&shape, TOKENS)), TOKENS);
        kvblob_decode(&shape, blob, back);
        assert_memory_equal(block, back, bytes);
        base_free(block);
        base_free(back);
        base_free(blob);
    }
}

static void test_a_blob_of_another_shape_or_cut_short_is_not_taken(void **state)
{
    (void)state;
    size_t size = kvblob_bytes(&q8, TOKENS);
    uint16_t *block = make_block();
    uint8_t *blob = base_alloc(size);
    kvblob_encode(&q8, block, TOKENS, blob);
    kvblob_shape other = q8;
    other.type = KVBLOB_F16;
    assert_int_equal(kvblob_count(&other, blob, size), 0);
    other = q8;
    other.head_size = SIZE / 2;
    assert_int_equal(kvblob_count(&other, blob, size), 0);
    other = q8;
    other.heads = HEADS + 1;
    assert_int_equal(kvblob_count(&other, blob, size), 0);
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(kvblob_count(&q8, blob, cut), 0);
    }
    memset(blob + 8, 0xff, 4); /* a count that would overflow */
    assert_int_equal(kvblob_count(&q8, blob, size), 0);
    base_free(block);
    base_free(blob);
}

static void test_what_is_not_finite_stays_in_bounds(void **state)
{
    (void)state;
    const kvblob_shape one = {.type = KVBLOB_Q8, .heads = 1, .head_size = 8, .wide = true};
    const float block[8] = {NAN, INFINITY, -INFINITY, 1.0f, -2.0f, 0.0f, 3e38f, 1e-40f};
    float back[8];
    uint8_t blob[64 + 12];
    assert_int_equal(kvblob_bytes(&one, 1), sizeof blob);
    kvblob_encode(&one, block, 1, blob);
    kvblob_decode(&one, blob, back);
    for (size_t i = 0; i < 8; i++) {
        assert_true(isfinite(back[i]) && fabsf(back[i]) <= 65504.5f);
    }
}

static void test_names_of_types_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < KVBLOB_TYPES; i++) {
        kvblob_type type = KVBLOB_TYPES;
        assert_true(kvblob_type_parse(kvblob_type_name((kvblob_type)i), &type));
        assert_int_equal(type, i);
    }
    kvblob_type type;
    assert_false(kvblob_type_parse("q4", &type));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_head_comes_back_within_half_a_step_of_its_own_scale),
        cmocka_unit_test(test_f16_and_f32_come_back_bit_for_bit),
        cmocka_unit_test(test_a_blob_of_another_shape_or_cut_short_is_not_taken),
        cmocka_unit_test(test_what_is_not_finite_stays_in_bounds),
        cmocka_unit_test(test_names_of_types_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
