/* Kernels that work on rows: norms, rotation, activations, logits, each against float64 at many
 * lengths.
 *
 * Tolerances are multiples of 2^-24, the largest relative rounding error of one f32 operation; each
 * test says what it counts. Lengths 1..67 cover every tail of 8 and 16 lanes; a canary stands
 * behind each output.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/kernels.h"

#define EPSILON 0x1p-24
#define CANARY 1234.5F
#define COUNT_MAX 1601

static float x[COUNT_MAX], y[COUNT_MAX], z[COUNT_MAX], out[COUNT_MAX + 1];
static const size_t lengths[] = {576, 1536, 1600};

/* The i-th length tested; 0 behind the last. */
static size_t length_at(size_t i)
{
    return i < 67 ? i + 1 : i < 70 ? lengths[i - 67] : 0;
}

static void fill(uint64_t seed)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < COUNT_MAX; i++) {
        x[i] = (float)base_rng_normal(&rng) + 0.3F;
        y[i] = (float)base_rng_normal(&rng);
        z[i] = (float)base_rng_normal(&rng);
    }
}

/* Each available set runs `body`. */
#define FOR_EACH_SET(table)                           \
    const kernel_table *table;                        \
    for (int isa_ = 0; isa_ < BASE_ISA_COUNT; isa_++) \
        if ((table = kernel_table_for((base_isa)isa_)) != NULL)

static void near(const kernel_table *table, size_t count, size_t i, float got, double expected,
                 double bound)
{
    if (!(fabs((double)got - expected) <= bound)) {
        fail_msg("%s, count %zu, element %zu: %.9g, float64 %.9g, bound %g",
                 base_isa_name(table->isa), count, i, (double)got, expected, bound);
    }
}

/* Bound: the sum of squares of n terms over 8 lanes is off by (n/8 + 8) roundings, its root by
 * half; 5 more operations. */
static void test_rmsnorm_agrees_with_float64(void **state)
{
    (void)state;
    fill(1);
    FOR_EACH_SET (table) {
        for (size_t l = 0, n; (n = length_at(l)) > 0; l++) {
            out[n] = CANARY;
            table->rmsnorm(out, x, y, n, 1e-5F);
            double squares = 0;
            for (size_t i = 0; i < n; i++) {
                squares += (double)x[i] * (double)x[i];
            }
            double factor = 1.0 / sqrt(squares / (double)n + (double)1e-5F);
            for (size_t i = 0; i < n; i++) {
                double value = (double)x[i] * factor * (double)y[i];
                near(table, n, i, out[i], value, ((double)n / 16 + 12) * EPSILON * fabs(value));
            }
            assert_true(out[n] == CANARY);
            memcpy(out, x, n * sizeof *out); /* in place gives the same */
            float apart[COUNT_MAX];
            table->rmsnorm(apart, x, y, n, 1e-5F);
            table->rmsnorm(out, out, y, n, 1e-5F);
            assert_memory_equal(out, apart, n * sizeof *out);
        }
    }
}

/* Bound: the mean is off by (n/8 + 8) roundings of mean |x|; that error is scaled by factor*weight;
 * the rest as above. */
static void test_layernorm_agrees_with_float64(void **state)
{
    (void)state;
    fill(2);
    FOR_EACH_SET (table) {
        for (size_t l = 0, n; (n = length_at(l)) > 0; l++) {
            out[n] = CANARY;
            table->layernorm(out, x, y, z, n, 1e-5F);
            double sum = 0, magnitude = 0, squares = 0, roundings = (double)n / 8 + 16;
            for (size_t i = 0; i < n; i++) {
                sum += (double)x[i];
                magnitude += fabs((double)x[i]);
            }
            double mean = sum / (double)n, mean_bound = roundings * EPSILON * magnitude / (double)n;
            for (size_t i = 0; i < n; i++) {
                squares += ((double)x[i] - mean) * ((double)x[i] - mean);
            }
            double factor = 1.0 / sqrt(squares / (double)n + (double)1e-5F);
            for (size_t i = 0; i < n; i++) {
                double slope = factor * (double)y[i], centred = ((double)x[i] - mean) * slope;
                double bound = fabs(slope) * mean_bound +
                               roundings * EPSILON * (fabs(centred) + fabs((double)z[i]));
                near(table, n, i, out[i], centred + (double)z[i], bound);
            }
            assert_true(out[n] == CANARY);
        }
    }
}

/* Bound: two products, one sum: 3 roundings of |a c| + |b s|. Both pairings; heads of sizes that
 * are no multiple of 16. */
static void test_rope_agrees_with_float64_in_both_pairings(void **state)
{
    (void)state;
    const size_t sizes[] = {2, 4, 6, 20, 32, 64, 80, 128};
    float cosine[64], sine[64], rotated[3 * 128 + 1];
    for (size_t s = 0; s < 8; s++) {
        size_t half = sizes[s] / 2, n = 3 * sizes[s];
        fill(s);
        for (size_t i = 0; i < half; i++) {
            double angle = 17.0 * pow(10000.0, -(double)i / (double)half);
            cosine[i] = (float)cos(angle);
            sine[i] = (float)sin(angle);
        }
        FOR_EACH_SET (table) {
            for (size_t neox = 0; neox < 2; neox++) {
                memcpy(rotated, x, n * sizeof *x);
                rotated[n] = CANARY;
                table->rope(rotated, 3, sizes[s], cosine, sine, neox == 1);
                for (size_t h = 0; h < 3; h++) {
                    for (size_t i = 0; i < half; i++) {
                        size_t first = h * sizes[s] + (neox ? i : 2 * i),
                               second = first + (neox ? half : 1);
                        double a = (double)x[first], b = (double)x[second];
                        double c = (double)cosine[i], sn = (double)sine[i];
                        near(table, n, first, rotated[first], a * c - b * sn,
                             3 * EPSILON * (fabs(a * c) + fabs(b * sn)));
                        near(table, n, second, rotated[second], a * sn + b * c,
                             3 * EPSILON * (fabs(a * sn) + fabs(b * c)));
                    }
                }
                assert_true(rotated[n] == CANARY);
            }
        }
    }
}

/* Bounds: one rounding; n/8 + 8 roundings of the sum of |a b|. */
static void test_add_and_dot_agree_with_float64(void **state)
{
    (void)state;
    fill(3);
    FOR_EACH_SET (table) {
        for (size_t l = 0, n; (n = length_at(l)) > 0; l++) {
            double sum = 0, magnitude = 0;
            memcpy(out, x, n * sizeof *out);
            out[n] = CANARY;
            table->add(out, y, n);
            for (size_t i = 0; i < n; i++) {
                assert_true(out[i] == x[i] + y[i]);
                sum += (double)x[i] * (double)y[i];
                magnitude += fabs((double)x[i] * (double)y[i]);
            }
            assert_true(out[n] == CANARY);
            near(table, n, 0, table->dot(x, y, n), sum, ((double)n / 8 + 8) * EPSILON * magnitude);
        }
        assert_true(table->dot(x, y, 0) == 0.0F);
    }
}

/* Bound: e^-g within 2 ulp (4 roundings), 1 + e, division, product: 8 roundings. Below -88 the true
 * value is less than 1e-36. Ends: silu(-INF side) is 0, no NaN. */
static void test_silu_mul_agrees_with_float64(void **state)
{
    (void)state;
    FOR_EACH_SET (table) {
        for (size_t block = 0; block < 200; block++) { /* -100 .. 100, close together */
            const size_t n = 1000;
            for (size_t i = 0; i < n; i++) {
                x[i] = -100.0F + (float)block + (float)i * 0.001F;
                y[i] = i % 2 ? -1.25F : 0.75F;
            }
            memcpy(out, x, n * sizeof *out);
            out[n] = CANARY;
            table->silu_mul(out, y, n);
            for (size_t i = 0; i < n; i++) {
                double value = (double)x[i] / (1.0 + exp(-(double)x[i])) * (double)y[i];
                near(table, n, i, out[i], value, 8 * EPSILON * fabs(value) + 1e-36);
            }
            assert_true(out[n] == CANARY);
        }
        for (size_t l = 0, n; (n = length_at(l)) > 0;
             l++) { /* every tail gives the element's own bits */
            float whole[COUNT_MAX];
            fill(4);
            memcpy(whole, x, sizeof whole);
            table->silu_mul(whole, y, COUNT_MAX);
            memcpy(out, x, sizeof x);
            out[n] = CANARY;
            table->silu_mul(out, y, n);
            assert_memory_equal(out, whole, n * sizeof *out);
            assert_true(out[n] == CANARY);
        }
    }
}

/* Bound: with a = |x|/sqrt 2, the exponent a^2 + 1.3 is rounded in f32 and a itself twice: 4 a^2 +
 * 16 roundings of the tail's product, which is what is added to x above zero. */
static void test_gelu_agrees_with_float64(void **state)
{
    (void)state;
    FOR_EACH_SET (table) {
        for (size_t block = 0; block < 32; block++) { /* -16 .. 16 */
            const size_t n = 1000;
            for (size_t i = 0; i < n; i++) {
                x[i] = -16.0F + (float)block + (float)i * 0.001F;
            }
            memcpy(out, x, n * sizeof *out);
            out[n] = CANARY;
            table->gelu(out, n);
            for (size_t i = 0; i < n; i++) {
                double v = (double)x[i], value = 0.5 * v * erfc(-v / sqrt(2.0)),
                       tail = 0.5 * fabs(v) * erfc(fabs(v) / sqrt(2.0));
                double bound =
                    (2 * v * v + 16) * EPSILON * tail + (v > 0 ? 2 * EPSILON * v : 0.0) + 1e-36;
                near(table, n, i, out[i], value, bound);
            }
            assert_true(out[n] == CANARY);
        }
    }
}

/* Bound: every term is within 2 ulp, sums of n/8 terms a lane: (n/8 + 16) roundings, of the sum for
 * lse and of sum |d| e^d for H. */
static void test_logit_stats_agree_with_float64(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 33, 1000, 49152};
    static float logits[49152];
    for (size_t s = 0; s < 11; s++) {
        for (uint64_t kind = 0; kind < 4; kind++) { /* flat, moderate, sharp, with -INF */
            size_t n = sizes[s], best = 0;
            base_rng rng;
            base_rng_seed(&rng, 100 * s + kind);
            const float spread[] = {0.0F, 2.0F, 30.0F, 5.0F};
            for (size_t v = 0; v < n; v++) {
                logits[v] = (float)base_rng_normal(&rng) * spread[kind] - 7.0F;
                if (kind == 3 && v % 3 == 1) {
                    logits[v] = -INFINITY;
                }
            }
            double total = 0, weighted = 0;
            for (size_t v = 1; v < n; v++) {
                best = logits[v] > logits[best] ? v : best;
            }
            for (size_t v = 0; v < n; v++) {
                double d = (double)logits[v] - (double)logits[best];
                if (isfinite(d)) {
                    total += exp(d);
                    weighted += d * exp(d);
                }
            }
            FOR_EACH_SET (table) {
                float lse, entropy;
                size_t argmax;
                table->logit_stats(logits, n, &lse, &entropy, &argmax);
                double relative = ((double)n / 8 + 16) * EPSILON,
                       expected = (double)logits[best] + log(total);
                assert_int_equal(argmax, best);
                near(table, n, kind, lse, expected, relative + EPSILON * fabs(expected));
                near(table, n, kind, entropy, log(total) - weighted / total,
                     relative * (1 + 2 * fabs(weighted) / total) + EPSILON * log(total) + 1e-12);
                assert_true(entropy >= 0.0F);
            }
        }
    }
}

/* Goal: of equal maxima the first is the argmax. Method: two equal peaks at places in different
 * lanes. */
static void test_logit_stats_argmax_is_the_first_of_equals(void **state)
{
    (void)state;
    float logits[50] = {0};
    FOR_EACH_SET (table) {
        for (size_t first = 0; first < 49; first++) {
            float lse, entropy;
            size_t argmax;
            logits[first] = logits[first + 1] = 3.0F;
            table->logit_stats(logits, 50, &lse, &entropy, &argmax);
            assert_int_equal(argmax, first);
            logits[first] = logits[first + 1] = 0.0F;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_agrees_with_float64),
        cmocka_unit_test(test_layernorm_agrees_with_float64),
        cmocka_unit_test(test_rope_agrees_with_float64_in_both_pairings),
        cmocka_unit_test(test_add_and_dot_agree_with_float64),
        cmocka_unit_test(test_silu_mul_agrees_with_float64),
        cmocka_unit_test(test_gelu_agrees_with_float64),
        cmocka_unit_test(test_logit_stats_agree_with_float64),
        cmocka_unit_test(test_logit_stats_argmax_is_the_first_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
