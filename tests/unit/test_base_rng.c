/* The generator against published outputs, and the shape of what is derived from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"

/* Goal: xoshiro256** gives the reference outputs. Method: state {1, 2, 3, 4}, as in the tests of
 * rand_xoshiro. */
static void test_rng_gives_the_reference_sequence(void **state)
{
    (void)state;
    base_rng rng = {{1, 2, 3, 4}};
    const uint64_t expected[] = {
        11520,
        0,
        1509978240,
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
        UINT64_C(607988272756665600),
        UINT64_C(16172922978634559625),
        UINT64_C(8476171486693032832),
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_int_equal(base_rng_u64(&rng), expected[i]);
    }
}

/* Goal: the seed is spread by splitmix64. Method: its published outputs for seed 1234567 are the
 * state. */
static void test_rng_seeds_by_splitmix64(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 1234567);
    assert_int_equal(rng.state[0], UINT64_C(6457827717110365317));
    assert_int_equal(rng.state[1], UINT64_C(3203168211198807973));
    assert_int_equal(rng.state[2], UINT64_C(9817491932198370423));
    assert_int_equal(rng.state[3], UINT64_C(4593380528125082431));
}

/* Goal: every value below the bound is equally frequent. Method: 60,000 draws of 6; each count
 * within 5 sigma (91). */
static void test_rng_below_is_uniform_and_bounded(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 1);
    size_t counts[6] = {0};
    for (int i = 0; i < 60000; i++) {
        uint64_t v = base_rng_below(&rng, 6);
        assert_true(v < 6);
        counts[v]++;
    }
    for (int v = 0; v < 6; v++) {
        assert_in_range(counts[v], 10000 - 5 * 91, 10000 + 5 * 91);
    }
    assert_int_equal(base_rng_below(&rng, 1), 0);
    for (int i = 0; i < 1000; i++) { /* a bound above 2^63 rejects almost half of the draws */
        assert_true(base_rng_below(&rng, (UINT64_C(1) << 63) + 1) <= UINT64_C(1) << 63);
    }
}

/* Goal: unit lies in [0, 1), normal has mean 0, variance 1. Method: 100,000 draws, 5 sigma of the
 * estimators. */
static void test_rng_unit_and_normal_have_their_moments(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 2);
    double unit = 0, mean = 0, square = 0;
    const int count = 100000;
    for (int i = 0; i < count; i++) {
        double u = base_rng_unit(&rng), z = base_rng_normal(&rng);
        assert_true(u >= 0.0 && u < 1.0);
        unit += u;
        mean += z;
        square += z * z;
    }
    assert_true(unit / count > 0.5 - 0.0046 && unit / count < 0.5 + 0.0046);
    assert_true(mean / count > -0.016 && mean / count < 0.016);
    assert_true(square / count > 1.0 - 0.023 && square / count < 1.0 + 0.023);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng_gives_the_reference_sequence),
        cmocka_unit_test(test_rng_seeds_by_splitmix64),
        cmocka_unit_test(test_rng_below_is_uniform_and_bounded),
        cmocka_unit_test(test_rng_unit_and_normal_have_their_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
