/* Matrix products in 16-bit integers (engine/kernels_i16.h): every instruction set gives the bits
 * of the scalar definition, which is within the rounding that the header states of float64.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels.h"
#include "engine/kernels_i16.h"

enum { TOKENS_MAX = 103 }; /* three blocks of the driver */

static const struct {
    size_t rows, columns, tokens;
} shapes[] = {{1, 1, 1},     {16, 2, 6},   {17, 3, 7},    {5, 33, 12},           {48, 48, 5},
              {144, 48, 50}, {31, 95, 13}, {384, 384, 8}, {96, 384, TOKENS_MAX}, {40, 1536, 11}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct problem {
    size_t rows, columns, tokens;
    float *weight, *bias, *x, *out;
    kernel_i16_matrix matrix;
    void *scratch;
} problem;

static float *allocate(size_t count)
{
    float *p = calloc(count, sizeof *p);
    assert_non_null(p);
    return p;
}

/* Values of very different size: rows with outliers, a row of zeros. */
static problem make(size_t shape)
{
    problem p = {shapes[shape].rows,
                 shapes[shape].columns,
                 shapes[shape].tokens,
                 NULL,
                 NULL,
                 NULL,
                 NULL,
                 {0},
                 NULL};
    base_rng rng;
    base_rng_seed(&rng, 40 + shape);
    p.weight = allocate(p.rows * p.columns);
    p.bias = allocate(p.rows);
    p.x = allocate(p.tokens * p.columns);
    p.out = allocate(p.tokens * p.rows);
    for (size_t i = 0; i < p.rows * p.columns; i++) {
        p.weight[i] = (float)base_rng_normal(&rng) * 0.05F;
    }
    for (size_t i = 0; i < p.tokens * p.columns; i++) {
        float size = base_rng_below(&rng, 50) == 0 ? 20.0F : 1.0F;
        p.x[i] = i / p.columns == 2 ? 0.0F : (float)base_rng_normal(&rng) * size;
    }
    for (size_t i = 0; i < p.rows; i++) {
        p.bias[i] = (float)base_rng_normal(&rng);
    }
    assert_int_equal(kernel_i16_make(&p.matrix, p.rows, p.columns, NULL), BASE_OK);
    kernel_i16_set(&p.matrix, 0, p.weight, p.bias, p.rows);
    p.scratch = base_alloc_aligned(kernel_i16_scratch(TOKENS_MAX, p.columns));
    assert_non_null(p.scratch);
    return p;
}

static void release(problem *p)
{
    free(p->weight);
    free(p->bias);
    free(p->x);
    free(p->out);
    kernel_i16_free(&p->matrix);
    base_free_aligned(p->scratch);
}

static double largest_of(const float *row, size_t count)
{
    double largest = 0.0;
    for (size_t k = 0; k < count; k++) {
        largest = fmax(largest, fabs((double)row[k]));
    }
    return largest;
}

/* Goal: the definition computes x W^T + bias. Method: against float64. A code is off by at most
 * half a step, so a sum by at most the sum over k of |x| step_w / 2 + |w| step_x / 2 + a quarter of
 * both steps' product; conversion and three f32 operations round the result, the bias is added to
 * it. */
static void test_products_are_within_their_rounding(void **state)
{
    (void)state;
    kernel_select(BASE_ISA_SCALAR);
    for (size_t shape = 0; shape < SHAPES; shape++) {
        problem p = make(shape);
        kernel_i16_matmul(NULL, &p.matrix, p.x, p.tokens, p.out, p.scratch);
        for (size_t t = 0; t < p.tokens; t++) {
            const float *x = p.x + t * p.columns;
            double step_x = largest_of(x, p.columns) / p.matrix.limit;
            for (size_t n = 0; n < p.rows; n++) {
                const float *w = p.weight + n * p.columns;
                double step_w = largest_of(w, p.columns) / p.matrix.limit, sum = 0.0, off = 0.0;
                for (size_t k = 0; k < p.columns; k++) {
                    sum += (double)x[k] * (double)w[k];
                    off += fabs((double)x[k]) * step_w / 2 + fabs((double)w[k]) * step_x / 2 +
                           step_w * step_x / 4;
                }
                double wanted = sum + (double)p.bias[n], found = (double)p.out[t * p.rows + n];
                double bound = off * 1.0001 + 6 * 0x1p-24 * (fabs(sum) + fabs(wanted) + off);
                if (!(fabs(found - wanted) <= bound)) {
                    fail_msg("%zu x %zu, token %zu, row %zu: %.8g, not %.8g within %.3g", p.rows,
                             p.columns, t, n, found, wanted, bound);
                }
            }
        }
        release(&p);
    }
    kernel_select(BASE_ISA_AMX);
}

/* Goal: sets, tokens at once and threads change no bit. Method: all at once with each set and with
 * three threads, and token by token, against the scalar definition. */
static void test_no_bit_depends_on_set_company_or_threads(void **state)
{
    (void)state;
    const base_isa sets[] = {BASE_ISA_SCALAR, BASE_ISA_AVX2, BASE_ISA_AVX512, BASE_ISA_AMX};
    base_pool *pool = NULL;
    assert_int_equal(base_pool_create(3, &pool, NULL), BASE_OK);
    for (size_t shape = 0; shape < SHAPES; shape++) {
        problem p = make(shape);
        float *wanted = allocate(p.tokens * p.rows);
        size_t bytes = p.tokens * p.rows * sizeof *wanted;
        kernel_select(BASE_ISA_SCALAR);
        kernel_i16_matmul(NULL, &p.matrix, p.x, p.tokens, wanted, p.scratch);
        for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
            if (kernel_select(sets[set]) != sets[set]) {
                continue;
            }
            memset(p.out, 0xff, bytes);
            kernel_i16_matmul(pool, &p.matrix, p.x, p.tokens, p.out, p.scratch);
            assert_memory_equal(p.out, wanted, bytes);
            memset(p.out, 0xff, bytes);
            for (size_t t = 0; t < p.tokens; t++) {
                kernel_i16_matmul(NULL, &p.matrix, p.x + t * p.columns, 1, p.out + t * p.rows,
                                  p.scratch);
            }
            assert_memory_equal(p.out, wanted, bytes);
        }
        free(wanted);
        release(&p);
    }
    kernel_select(BASE_ISA_AMX);
    base_pool_free(pool);
}

/* Goal: no sum overflows. Method: every product at its largest and of one sign, K up to 4096. */
static void test_the_largest_sums_fit(void **state)
{
    (void)state;
    const size_t columns[] = {1, 2, 384, 1536, 4096};
    const base_isa sets[] = {BASE_ISA_SCALAR, BASE_ISA_AVX2, BASE_ISA_AVX512, BASE_ISA_AMX};
    for (size_t i = 0; i < 5; i++) {
        size_t k = columns[i];
        kernel_i16_matrix m;
        float *ones = allocate(k), bias = 0.0F, out;
        void *scratch = base_alloc_aligned(kernel_i16_scratch(1, k));
        assert_non_null(scratch);
        for (size_t j = 0; j < k; j++) {
            ones[j] = 1.0F;
        }
        assert_int_equal(kernel_i16_make(&m, 1, k, NULL), BASE_OK);
        kernel_i16_set(&m, 0, ones, &bias, 1);
        for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
            kernel_select(sets[set]);
            kernel_i16_matmul(NULL, &m, ones, 1, &out, scratch);
            assert_true(fabs((double)out - (double)k) < 1e-5 * (double)k);
        }
        free(ones);
        kernel_i16_free(&m);
        base_free_aligned(scratch);
    }
    kernel_select(BASE_ISA_AMX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_within_their_rounding),
        cmocka_unit_test(test_no_bit_depends_on_set_company_or_threads),
        cmocka_unit_test(test_the_largest_sums_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
