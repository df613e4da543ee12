/* Attention over a window: right against float64, and a slot with bias -INF is, bit for bit, a slot
 * that is not there.
 *
 * Tolerance. A score is off by at most (D + 4) * 2^-24 of scale * sum |q k| plus its bias, which
 * changes p by that factor; the exponential adds 4 roundings; the sums over S slots, one after the
 * other, S + 4. So out is off by at most (2*score error + (S + 12) * 2^-24) * sum p |v|.
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
#define SLOTS_MAX 130
#define QUERIES_MAX 8
#define WIDTH 300 /* elements of a row of keys: the head stands inside, at OFFSET */
#define OFFSET 40
#define D_MAX 128

static float key_f32[SLOTS_MAX * WIDTH], value_f32[SLOTS_MAX * WIDTH];
static uint16_t key_f16[SLOTS_MAX * WIDTH], value_f16[SLOTS_MAX * WIDTH];
static float q[QUERIES_MAX * D_MAX], out[QUERIES_MAX * D_MAX], bias[SLOTS_MAX],
    scores[QUERIES_MAX * SLOTS_MAX];

/* Values that f16 holds, so that both types describe the same window. */
static void fill(uint64_t seed)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < SLOTS_MAX * WIDTH; i++) {
        key_f16[i] = kernel_float_to_half((float)base_rng_normal(&rng));
        value_f16[i] = kernel_float_to_half((float)base_rng_normal(&rng));
        key_f32[i] = kernel_half_to_float(key_f16[i]);
        value_f32[i] = kernel_half_to_float(value_f16[i]);
    }
    for (size_t i = 0; i < QUERIES_MAX * D_MAX; i++) {
        q[i] = (float)base_rng_normal(&rng);
    }
    for (size_t i = 0; i < SLOTS_MAX; i++) {
        bias[i] = -(float)base_rng_unit(&rng);
    }
}

static kernel_kv window(bool half)
{
    return (kernel_kv){.keys = half ? (const void *)key_f16 : key_f32,
                       .values = half ? (const void *)value_f16 : value_f32,
                       .half = half,
                       .stride = WIDTH};
}

/* One head in float64 against what the kernel gave. */
static void check_head(const kernel_table *table, size_t h, size_t queries, size_t slots,
                       size_t d_count, float scale, const float *slot_bias)
{
    double p[SLOTS_MAX], largest = -INFINITY, total = 0, score_bound = 0;
    for (size_t j = 0; j < slots; j++) {
        double dot = 0, magnitude = 0;
        for (size_t d = 0; d < d_count; d++) {
            double product = (double)q[h * D_MAX + d] * (double)key_f32[j * WIDTH + OFFSET + d];
            dot += product;
            magnitude += fabs(product);
        }
        double b = slot_bias ? (double)slot_bias[j] : 0.0;
        p[j] = dot * (double)scale + b;
        largest = fmax(largest, p[j]);
        score_bound = fmax(score_bound,
                           ((double)d_count + 4) * EPSILON * (magnitude * (double)scale + fabs(b)));
    }
    for (size_t j = 0; j < slots; j++) {
        p[j] = exp(p[j] - largest);
        total += p[j];
    }
    double relative = 2 * score_bound + ((double)slots + 12) * EPSILON;
    for (size_t j = 0; j < slots; j++) {
        double share = p[j] / total;
        if (!(fabs((double)scores[h * slots + j] - share) <= relative * share + 1e-37)) {
            fail_msg("%s Q=%zu S=%zu D=%zu: p[%zu][%zu] is %g, float64 %g",
                     base_isa_name(table->isa), queries, slots, d_count, h, j,
                     (double)scores[h * slots + j], share);
        }
    }
    for (size_t d = 0; d < d_count; d++) {
        double sum = 0, magnitude = 0;
        for (size_t j = 0; j < slots; j++) {
            double term = p[j] / total * (double)value_f32[j * WIDTH + OFFSET + d];
            sum += term;
            magnitude += fabs(term);
        }
        if (!(fabs((double)out[h * D_MAX + d] - sum) <= relative * magnitude + 1e-30)) {
            fail_msg("%s Q=%zu S=%zu D=%zu: out[%zu][%zu] is %g, float64 %g",
                     base_isa_name(table->isa), queries, slots, d_count, h, d,
                     (double)out[h * D_MAX + d], sum);
        }
    }
}

/* Goal: every number of heads, slots, head size and KV type is right. Method: float64, bound above;
 * canaries behind rows. */
static void test_attention_agrees_with_float64(void **state)
{
    (void)state;
    const size_t slot_counts[] = {1, 2, 7, 15, 16, 17, 33, 100}, sizes[] = {4, 16, 20, 64, 80, 128};
    fill(1);
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *table = kernel_table_for((base_isa)isa);
        for (size_t i = 0; table && i < 8 * 6 * QUERIES_MAX * 4; i++) {
            size_t slots = slot_counts[i % 8], d_count = sizes[i / 8 % 6],
                   queries = 1 + i / 48 % QUERIES_MAX;
            bool half = i / 384 % 2 == 1, biased = i / 768 == 1;
            kernel_kv kv = window(half);
            float scale = 1.0F / sqrtf((float)d_count);
            for (size_t k = 0; k < QUERIES_MAX * D_MAX; k++) {
                out[k] = 77.0F;
            }
            kernel_attention(table, out, q, queries, D_MAX, &kv, OFFSET, slots, d_count, scale,
                             biased ? bias : NULL, scores);
            for (size_t h = 0; h < QUERIES_MAX; h++) {
                if (h < queries) {
                    check_head(table, h, queries, slots, d_count, scale, biased ? bias : NULL);
                }
                for (size_t d = h < queries ? d_count : 0; d < D_MAX; d++) {
                    assert_true(out[h * D_MAX + d] == 77.0F);
                }
            }
        }
    }
}

/* Goal: semantics §5, control (i). Method: mask a random subset with -INF; run again on a window
 * from which those rows were taken out; outputs and remaining probabilities compared as bits,
 * masked probabilities are +0. */
static void test_attention_minus_infinity_is_absence_bit_for_bit(void **state)
{
    (void)state;
    static float few_keys[SLOTS_MAX * WIDTH], few_values[SLOTS_MAX * WIDTH], few_bias[SLOTS_MAX];
    static uint16_t few_key_f16[SLOTS_MAX * WIDTH], few_value_f16[SLOTS_MAX * WIDTH];
    static float few_out[QUERIES_MAX * D_MAX], few_scores[QUERIES_MAX * SLOTS_MAX],
        masked[SLOTS_MAX];
    const size_t sizes[] = {20, 64, 80};
    base_rng rng;
    base_rng_seed(&rng, 8);
    fill(2);
    for (size_t round = 0; round < 400; round++) {
        size_t slots = 2 + base_rng_below(&rng, SLOTS_MAX - 2),
               queries = 1 + base_rng_below(&rng, QUERIES_MAX);
        size_t d_count = sizes[round % 3], left = 0, keep[SLOTS_MAX];
        size_t run = base_rng_below(&rng, slots), run_length = base_rng_below(&rng, 40);
        bool runs = round % 2 == 0, half = round / 2 % 2 == 0;
        for (size_t j = 0; j < slots; j++) {
            bool hide = runs ? j >= run && j < run + run_length : base_rng_below(&rng, 3) == 0;
            hide = hide && j != round % slots; /* at least one stays */
            masked[j] = hide ? -INFINITY : bias[j];
            if (!hide) {
                memcpy(few_keys + left * WIDTH, key_f32 + j * WIDTH, WIDTH * sizeof *key_f32);
                memcpy(few_values + left * WIDTH, value_f32 + j * WIDTH, WIDTH * sizeof *value_f32);
                memcpy(few_key_f16 + left * WIDTH, key_f16 + j * WIDTH, WIDTH * sizeof *key_f16);
                memcpy(few_value_f16 + left * WIDTH, value_f16 + j * WIDTH,
                       WIDTH * sizeof *value_f16);
                few_bias[left] = bias[j];
                keep[left++] = j;
            }
        }
        kernel_kv kv = window(half), few = kv;
        few.keys = half ? (const void *)few_key_f16 : few_keys;
        few.values = half ? (const void *)few_value_f16 : few_values;
        for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
            const kernel_table *table = kernel_table_for((base_isa)isa);
            if (!table) {
                continue;
            }
            memset(out, 0x55, sizeof out);
            memset(few_out, 0x55, sizeof few_out);
            kernel_attention(table, out, q, queries, D_MAX, &kv, OFFSET, slots, d_count, 0.125F,
                             masked, scores);
            kernel_attention(table, few_out, q, queries, D_MAX, &few, OFFSET, left, d_count, 0.125F,
                             few_bias, few_scores);
            assert_memory_equal(out, few_out, sizeof out);
            for (size_t h = 0; h < queries; h++) {
                for (size_t j = 0, i = 0; j < slots; j++) {
                    float here = scores[h * slots + j], zero = 0.0F;
                    bool kept = i < left && keep[i] == j;
                    assert_memory_equal(&here, kept ? &few_scores[h * left + i] : &zero,
                                        sizeof here);
                    i += kept;
                }
            }
        }
    }
}

/* Goal: a head's bits do not depend on the heads that run beside it. Method: all query counts
 * against one by one. */
static void test_attention_heads_are_independent(void **state)
{
    (void)state;
    static float alone[D_MAX], alone_scores[SLOTS_MAX];
    fill(3);
    kernel_kv kv = window(true);
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *table = kernel_table_for((base_isa)isa);
        for (size_t queries = 1; table && queries <= QUERIES_MAX; queries++) {
            kernel_attention(table, out, q, queries, D_MAX, &kv, OFFSET, 77, 64, 0.125F, bias,
                             scores);
            for (size_t h = 0; h < queries; h++) {
                kernel_attention(table, alone, q + h * D_MAX, 1, D_MAX, &kv, OFFSET, 77, 64, 0.125F,
                                 bias, alone_scores);
                assert_memory_equal(out + h * D_MAX, alone, 64 * sizeof *alone);
                assert_memory_equal(scores + h * 77, alone_scores, 77 * sizeof *alone_scores);
            }
        }
    }
}

/* Goal: the three steps may be cut anywhere. Method: scores by blocks of slots, values by blocks of
 * columns, against all at once, as bits. */
static void test_attention_may_be_cut_by_slots_and_columns(void **state)
{
    (void)state;
    static float whole[QUERIES_MAX * SLOTS_MAX], cut[QUERIES_MAX * SLOTS_MAX];
    static float values[QUERIES_MAX * D_MAX], parts[QUERIES_MAX * D_MAX], ones[QUERIES_MAX];
    enum { SLOTS = 129, D = 80, STEP = 64, COLUMNS = 32 };
    fill(5);
    for (size_t h = 0; h < QUERIES_MAX; h++) {
        ones[h] = 1.0F;
    }
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *t = kernel_table_for((base_isa)isa);
        for (size_t i = 0; t && i < 2 * QUERIES_MAX; i++) {
            size_t queries = 1 + i / 2;
            kernel_kv kv = window(i % 2 == 0);
            float sums[QUERIES_MAX];
            t->attention_scores(whole, SLOTS, q, queries, D_MAX, &kv, OFFSET, SLOTS, D, 0.1F, bias);
            for (size_t from = 0; from < SLOTS; from += STEP) {
                size_t count = SLOTS - from < STEP ? SLOTS - from : STEP;
                kernel_kv part = window(i % 2 == 0);
                size_t bytes = from * WIDTH * (part.half ? sizeof(uint16_t) : sizeof(float));
                part.keys = (const char *)part.keys + bytes;
                t->attention_scores(cut + from, SLOTS, q, queries, D_MAX, &part, OFFSET, count, D,
                                    0.1F, bias + from);
            }
            assert_memory_equal(whole, cut, queries * SLOTS * sizeof *cut);
            t->attention_weights(whole, SLOTS, queries, SLOTS, NULL, sums);
            t->attention_values(values, D_MAX, whole, SLOTS, sums, queries, &kv, OFFSET, SLOTS, D,
                                false);
            for (size_t from = 0; from < D; from += COLUMNS) {
                size_t columns = D - from < COLUMNS ? D - from : COLUMNS;
                for (size_t slot = 0; slot < SLOTS; slot += STEP) {
                    size_t left = SLOTS - slot, count = left < STEP ? left : STEP;
                    kernel_kv part = window(i % 2 == 0);
                    size_t bytes = slot * WIDTH * (part.half ? sizeof(uint16_t) : sizeof(float));
                    part.values = (const char *)part.values + bytes;
                    t->attention_values(parts + from, D_MAX, whole + slot, SLOTS,
                                        count < left ? ones : sums, queries, &part, OFFSET + from,
                                        count, columns, slot > 0);
                }
            }
            for (size_t h = 0; h < queries; h++) {
                assert_memory_equal(values + h * D_MAX, parts + h * D_MAX, D * sizeof *parts);
            }
        }
    }
}

/* Goal: with every slot masked the answer is zero, not NaN. Method: all biases -INF. */
static void test_attention_to_nothing_is_zero(void **state)
{
    (void)state;
    fill(4);
    for (size_t j = 0; j < SLOTS_MAX; j++) {
        bias[j] = -INFINITY;
    }
    kernel_kv kv = window(true);
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *table = kernel_table_for((base_isa)isa);
        if (table) {
            kernel_attention(table, out, q, 3, D_MAX, &kv, OFFSET, 21, 64, 0.125F, bias, scores);
            for (size_t h = 0; h < 3; h++) {
                for (size_t d = 0; d < 64; d++) {
                    assert_true(out[h * D_MAX + d] == 0.0F);
                }
            }
            for (size_t j = 0; j < 3 * 21; j++) {
                assert_true(scores[j] == 0.0F);
            }
        }
    }
}

/* Goal: attention to a list of rows is attention to a window of nothing else. Method: every third
 * row, listed and copied together; bits compared. */
static void test_attention_by_a_list_reads_those_rows(void **state)
{
    (void)state;
    enum { D = 80, COUNT = (SLOTS_MAX + 2) / 3 };
    static uint16_t keys[COUNT * WIDTH], values[COUNT * WIDTH];
    static float copied_out[QUERIES_MAX * D_MAX], copied_scores[QUERIES_MAX * SLOTS_MAX];
    uint32_t list[COUNT];
    fill(6);
    for (size_t j = 0; j < COUNT; j++) {
        list[j] = (uint32_t)(3 * j);
        memcpy(keys + j * WIDTH, key_f16 + 3 * j * WIDTH, WIDTH * sizeof *keys);
        memcpy(values + j * WIDTH, value_f16 + 3 * j * WIDTH, WIDTH * sizeof *values);
    }
    kernel_kv listed = window(true), copied = listed;
    listed.list = list;
    copied.keys = keys;
    copied.values = values;
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *t = kernel_table_for((base_isa)isa);
        for (size_t queries = 1; t && queries <= QUERIES_MAX; queries++) {
            kernel_attention(t, out, q, queries, D_MAX, &listed, OFFSET, COUNT, D, 0.1F, NULL,
                             scores);
            kernel_attention(t, copied_out, q, queries, D_MAX, &copied, OFFSET, COUNT, D, 0.1F,
                             NULL, copied_scores);
            assert_memory_equal(scores, copied_scores, queries * COUNT * sizeof *scores);
            for (size_t h = 0; h < queries; h++) {
                assert_memory_equal(out + h * D_MAX, copied_out + h * D_MAX, D * sizeof *out);
            }
        }
    }
}

/* Goal: given peaks shift the weights, and sums are of those. Method: against e^(score - peak) in
 * float64; 4 roundings of the exponential, the sum's S. */
static void test_weights_may_be_of_a_given_peak(void **state)
{
    (void)state;
    enum { SLOTS = 77, ROWS = 3 };
    static float rows[ROWS * SLOTS];
    const float peaks[ROWS] = {1.5F, -INFINITY, -2.0F};
    base_rng rng;
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        const kernel_table *t = kernel_table_for((base_isa)isa);
        float sums[ROWS];
        double expected[ROWS] = {0};
        base_rng_seed(&rng, 9);
        for (size_t i = 0; i < ROWS * SLOTS; i++) {
            rows[i] = (float)base_rng_normal(&rng);
            expected[i / SLOTS] +=
                peaks[i / SLOTS] > -INFINITY ? exp((double)(rows[i] - peaks[i / SLOTS])) : 0.0;
        }
        if (t) {
            t->attention_weights(rows, SLOTS, ROWS, SLOTS, peaks, sums);
            for (size_t h = 0; h < ROWS; h++) {
                assert_true(fabs((double)sums[h] - expected[h]) <=
                            (SLOTS + 4) * EPSILON * expected[h]);
            }
        }
    }
}

/* Goal: coarse scores are near the true ones, the same bits by every instruction set, and what is
 * chosen from them is what the definition says. Tolerance: a code of a key is off by at most half a
 * step, that is 1/254 of the key's largest, one of the query by 1/65534 of its largest. */
static void test_coarse_scores_are_near_and_the_same_everywhere(void **state)
{
    (void)state;
    enum { FILLED = (SLOTS_MAX + KERNEL_COARSE_GROUP - 1) / KERNEL_COARSE_GROUP };
    static int8_t codes[FILLED * KERNEL_COARSE_GROUP * D_MAX];
    static float steps[FILLED * KERNEL_COARSE_GROUP], coarse[QUERIES_MAX * SLOTS_MAX];
    const kernel_coarse_keys keys = {codes, steps};
    const kernel_table *scalar = kernel_table_for(BASE_ISA_SCALAR);
    const size_t sizes[] = {4, 20, 64, 128};
    float peaks[QUERIES_MAX][FILLED], definition[QUERIES_MAX][FILLED];
    fill(7);
    for (size_t i = 0; i < 4 * QUERIES_MAX * 4; i++) {
        size_t d_count = sizes[i % 4], queries = 1 + i / 4 % QUERIES_MAX;
        size_t slots = SLOTS_MAX - i / 4 / QUERIES_MAX * 23;
        for (size_t j = 0; j < slots; j++) {
            kernel_coarse_store(&keys, j, key_f32 + j * WIDTH, d_count);
        }
        scalar->coarse_scores(scores, SLOTS_MAX, definition[0], FILLED, q, queries, D_MAX, &keys,
                              slots, d_count, 0.125F);
        for (size_t h = 0; h < queries; h++) {
            float top = 0, peak = -INFINITY;
            for (size_t d = 0; d < d_count; d++) {
                top = fmaxf(top, fabsf(q[h * D_MAX + d]));
            }
            for (size_t j = 0; j < slots; j++) {
                const float *key = key_f32 + j * WIDTH;
                float score = scores[h * SLOTS_MAX + j];
                double dot = 0, sum_q = 0, sum_k = 0, largest = 0;
                for (size_t d = 0; d < d_count; d++) {
                    dot += (double)q[h * D_MAX + d] * (double)key[d];
                    sum_q += fabs((double)q[h * D_MAX + d]);
                    sum_k += fabs((double)key[d]);
                    largest = fmax(largest, fabs((double)key[d]));
                }
                double bound = sum_q * largest / 254 +
                               (sum_k + (double)d_count * largest / 254) * (double)top / 65534;
                assert_true(fabs((double)score - 0.125 * dot) <= 0.125 * bound * 1.0001);
                peak = j % KERNEL_COARSE_GROUP == 0 ? score : fmaxf(peak, score);
                assert_true(j + 1 < slots || definition[h][j / KERNEL_COARSE_GROUP] == peak);
            }
        }
        float bounds[QUERIES_MAX];
        uint32_t list[SLOTS_MAX + 16], chosen[SLOTS_MAX + 16];
        for (size_t h = 0; h < queries; h++) {
            bounds[h] = definition[h][0] - 0.5F;
        }
        size_t count = scalar->coarse_choose(chosen, scores, SLOTS_MAX, queries, bounds, slots, 5);
        assert_in_range(count, queries > 1 ? 2 : 1, slots);
        for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
            const kernel_table *t = kernel_table_for((base_isa)isa);
            if (t) {
                memcpy(coarse, scores, sizeof coarse);
                t->coarse_scores(coarse, SLOTS_MAX, peaks[0], FILLED, q, queries, D_MAX, &keys,
                                 slots, d_count, 0.125F);
                assert_memory_equal(coarse, scores, sizeof coarse);
                for (size_t h = 0; h < queries; h++) {
                    size_t groups = (slots + KERNEL_COARSE_GROUP - 1) / KERNEL_COARSE_GROUP;
                    assert_memory_equal(peaks[h], definition[h], groups * sizeof **peaks);
                }
                assert_int_equal(
                    t->coarse_choose(list, coarse, SLOTS_MAX, queries, bounds, slots, 5), count);
                assert_memory_equal(list, chosen, count * sizeof *list);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_agrees_with_float64),
        cmocka_unit_test(test_attention_minus_infinity_is_absence_bit_for_bit),
        cmocka_unit_test(test_attention_heads_are_independent),
        cmocka_unit_test(test_attention_may_be_cut_by_slots_and_columns),
        cmocka_unit_test(test_attention_to_nothing_is_zero),
        cmocka_unit_test(test_attention_by_a_list_reads_those_rows),
        cmocka_unit_test(test_weights_may_be_of_a_given_peak),
        cmocka_unit_test(test_coarse_scores_are_near_and_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
