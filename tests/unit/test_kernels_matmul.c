/* Matrix products: every format and instruction set against float64, and bit for bit against
 * themselves.
 *
 * Tolerance. Products of codes are exact in integers, so only f32 additions and a few
 * multiplications round. A sum of n terms in any order is off by at most n * 2^-24 * (sum of the
 * terms' magnitudes) (Higham 2002, §4.2). With rounded activations a block gives at most 3 terms
 * with 3 roundings each; f32 sums run over at least 4 (packed) or 8 (plain) lanes. Every set, the
 * scalar definition too, must be within that of float64, hence within twice that of each other.
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
#include "engine/kernels_internal.h"
#include "tests/unit/kernels_testing.h"

#define EPSILON 0x1p-24
#define TOKENS_MAX 131 /* three token blocks of the driver */

static const kernel_ops *ops_of(base_isa isa)
{
    if (!kernel_table_for(isa)) {
        return NULL;
    }
#if defined(KERNEL_X86)
    if (isa != BASE_ISA_SCALAR) {
        return isa == BASE_ISA_AVX2 ? &kernel_avx2_ops : &kernel_avx512_ops;
    }
#endif
    return &kernel_scalar_ops;
}

static bool is_plain(uint32_t type)
{
    return type == KERNEL_SRC_F32 || type == KERNEL_SRC_F16 || type == KERNEL_SRC_BF16;
}

/* A matrix, its raw rows, activations, and what they are after rounding. */
typedef struct problem {
    uint32_t type;
    size_t rows, columns, tokens;
    uint8_t *raw;
    float *x;         /* [tokens, columns] */
    float *x_rounded; /* the same, as the blocks of kernel_scalar_ops.quantise say */
    kernel_matrix matrix;
    void *scratch;
} problem;

static problem make(uint32_t type, size_t rows, size_t columns, size_t tokens, uint64_t seed)
{
    problem p = {.type = type, .rows = rows, .columns = columns, .tokens = tokens};
    base_rng rng;
    base_rng_seed(&rng, seed);
    p.raw = kernels_random_rows(type, rows, columns, &rng);
    p.x = malloc(tokens * columns * sizeof *p.x);
    p.x_rounded = malloc(tokens * columns * sizeof *p.x);
    p.scratch = base_alloc_aligned(kernel_matmul_scratch(tokens, columns));
    assert_true(p.raw && p.x && p.x_rounded && p.scratch);
    for (size_t i = 0; i < tokens * columns; i++) {
        p.x[i] = (float)base_rng_normal(&rng) * (i % 97 == 5 ? 20.0F : 1.0F); /* some outliers */
    }
    memcpy(p.x_rounded, p.x, tokens * columns * sizeof *p.x);
    if (!is_plain(type)) {
        kernel_act_block *blocks = p.scratch;
        for (size_t t = 0; t < tokens; t++) {
            kernel_scalar_ops.quantise(blocks, p.x + t * columns, columns);
            for (size_t k = 0; k < columns; k++) {
                p.x_rounded[t * columns + k] =
                    blocks[k / 32].scale * (float)blocks[k / 32].q[k % 32];
            }
        }
    }
    assert_int_equal(kernel_matrix_pack(&p.matrix, type, p.raw, rows, columns, true, NULL),
                     BASE_OK);
    return p;
}

static void drop(problem *p)
{
    kernel_matrix_free(&p->matrix);
    base_free_aligned(p->scratch);
    free(p->raw);
    free(p->x);
    free(p->x_rounded);
}

/* One element in float64, and how far f32 may be off. */
static double reference(const problem *p, const float *x, size_t n, bool rounded, double *bound)
{
    const uint8_t *row = p->raw + n * kernel_source_row_bytes(p->type, p->columns);
    double sum = 0, magnitude = 0;
    for (size_t b = 0; b < (p->columns + 31) / 32; b++) {
        size_t count = p->columns - 32 * b < 32 ? p->columns - 32 * b : 32;
        kernel_source_block block = {{0}, {0, 0}, 0};
        float plain[32];
        if (is_plain(p->type)) {
            size_t unit = p->type == KERNEL_SRC_F32 ? 4 : 2;
            kernel_source_dequantise_row(p->type, row + 32 * b * unit, count, plain);
        } else {
            kernel_source_decode(p->type, row, b, &block);
        }
        for (size_t j = 0; j < count; j++) {
            double xv = (double)x[32 * b + j];
            double product =
                is_plain(p->type) ? (double)plain[j] : (double)block.scale[j / 16] * block.q[j];
            double min = kernel_source_has_min(p->type) ? (double)block.min : 0.0;
            sum += (product + min) * xv;
            magnitude += (fabs(product) + fabs(min)) * fabs(xv);
        }
    }
    size_t terms = rounded ? 3 * (p->columns / 32) + 9 : p->columns / 4 + 8;
    *bound = (double)terms * EPSILON * magnitude + 1e-30;
    return sum;
}

static void check(const problem *p, base_isa isa, kernel_activations activations)
{
    size_t stride = p->rows + 3;
    float *out = malloc(p->tokens * stride * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < p->tokens * stride; i++) {
        out[i] = 1234.5F;
    }
    kernel_select(isa);
    kernel_matmul(NULL, &p->matrix, p->x, p->tokens, out, stride, activations, p->scratch);
    bool rounded = !is_plain(p->type) && activations == KERNEL_ACT_Q8;
    for (size_t t = 0; t < p->tokens; t++) {
        const float *x = (rounded ? p->x_rounded : p->x) + t * p->columns;
        for (size_t n = 0; n < p->rows; n++) {
            double bound, expected = reference(p, x, n, rounded, &bound);
            if (!(fabs((double)out[t * stride + n] - expected) <= bound)) {
                fail_msg("%s %s N=%zu K=%zu T=%zu: [%zu, %zu] is %g, float64 %g, bound %g",
                         base_isa_name(isa), kernel_source_name(p->type), p->rows, p->columns,
                         p->tokens, t, n, (double)out[t * stride + n], expected, bound);
            }
        }
        for (size_t n = p->rows; n < stride; n++) { /* nothing past the row */
            assert_true(out[t * stride + n] == 1234.5F);
        }
    }
    free(out);
}

/* Goal: every set, format, T and odd shape is right. Method: float64 on decoded rows, bound above.
 */
static void test_matmul_agrees_with_float64(void **state)
{
    (void)state;
    const size_t tokens[] = {1, 2, 3, 7, 16, 17, 64};
    const size_t rows[] = {1, 5, 16, 23, 33};
    const size_t plain_columns[] = {1, 15, 31, 64, 101};
    for (size_t i = 0; i < KERNELS_TYPE_COUNT; i++) {
        uint32_t type = kernels_types[i];
        for (size_t t = 0; t < 7; t++) {
            for (size_t r = 0; r < 5; r++) {
                size_t columns = is_plain(type) ? plain_columns[(r + t) % 5]
                                 : kernel_source_row_bytes(type, 32) > 0
                                     ? 32 * (1 + 2 * ((r + t) % 3))
                                     : 256 * (1 + (r + t) % 2);
                problem p = make(type, rows[r], columns, tokens[t], 1000 * i + 10 * t + r);
                for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
                    if (kernel_table_for((base_isa)isa)) {
                        check(&p, (base_isa)isa, KERNEL_ACT_Q8);
                        check(&p, (base_isa)isa, KERNEL_ACT_F32);
                    }
                }
                drop(&p);
            }
        }
    }
}

/* Goal: an element's bits depend neither on T nor on the number of threads. Method: T rows at once,
 * in pools of 1, 2, 3 and 5, against one row at a time; memory compared. K and N are large enough
 * to be shared out. */
static void test_matmul_bits_do_not_depend_on_tokens_or_threads(void **state)
{
    (void)state;
    const size_t tokens[] = {2, 3, 7, 15, 16, 17, 31, 64, TOKENS_MAX}, threads[] = {1, 2, 3, 5};
    const size_t rows = 211, columns = 512;
    base_pool *pools[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(base_pool_create(threads[i], &pools[i], NULL), BASE_OK);
    }
    float *one = malloc(TOKENS_MAX * rows * sizeof *one),
          *many = malloc(TOKENS_MAX * rows * sizeof *many);
    assert_true(one && many);
    for (size_t i = 0; i < KERNELS_TYPE_COUNT; i++) {
        problem p = make(kernels_types[i], rows, columns, TOKENS_MAX, 77 + i);
        /* The scalar product is slow; its order is evident from its loops. Both activations in the
         * vector sets. */
        for (int set = BASE_ISA_SCALAR + 1; set < 2 * BASE_ISA_COUNT; set++) {
            base_isa isa = (base_isa)(set / 2);
            kernel_activations activations = set % 2 ? KERNEL_ACT_F32 : KERNEL_ACT_Q8;
            if (isa == BASE_ISA_SCALAR || !kernel_table_for(isa)) {
                continue;
            }
            kernel_select(isa);
            for (size_t t = 0; t < TOKENS_MAX; t++) {
                kernel_matmul(NULL, &p.matrix, p.x + t * columns, 1, one + t * rows, rows,
                              activations, p.scratch);
            }
            for (size_t t = 0; t < 9; t++) {
                for (size_t pool = 0; pool < 4; pool++) {
                    memset(many, 0x7f, TOKENS_MAX * rows * sizeof *many);
                    kernel_matmul(pools[pool], &p.matrix, p.x, tokens[t], many, rows, activations,
                                  p.scratch);
                    assert_memory_equal(many, one, tokens[t] * rows * sizeof *many);
                }
            }
        }
        drop(&p);
    }
    free(one);
    free(many);
    for (size_t i = 0; i < 4; i++) {
        base_pool_free(pools[i]);
    }
}

/* Goal: the scalar definition, too, gives the same bits for every T and pool. Method: as above, one
 * small shape. */
static void test_matmul_scalar_bits_do_not_depend_on_tokens_or_threads(void **state)
{
    (void)state;
    base_pool *pool;
    assert_int_equal(base_pool_create(3, &pool, NULL), BASE_OK);
    kernel_select(BASE_ISA_SCALAR);
    for (size_t i = 0; i < KERNELS_TYPE_COUNT; i++) {
        problem p = make(kernels_types[i], 67, 256, 19, 5 + i);
        float one[19 * 67], many[19 * 67];
        for (size_t t = 0; t < 19; t++) {
            kernel_matmul(NULL, &p.matrix, p.x + t * 256, 1, one + t * 67, 67, KERNEL_ACT_Q8,
                          p.scratch);
        }
        kernel_matmul(pool, &p.matrix, p.x, 19, many, 67, KERNEL_ACT_Q8, p.scratch);
        assert_memory_equal(many, one, sizeof one);
        drop(&p);
    }
    base_pool_free(pool);
}

/* Goal: no intermediate overflows at the ends of the code range. Method: all codes and activations
 * extreme, scale 1: the answer is an integer that f32 holds; compared exactly. */
static void test_matmul_extreme_codes_are_exact(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        uint8_t byte; /* fills the code fields */
        float weight;
    } cases[] = {
        {KERNEL_SRC_Q8_0, 0x80, -128.0F}, {KERNEL_SRC_Q8_0, 0x7f, 127.0F},
        {KERNEL_SRC_Q4_0, 0xff, 7.0F},    {KERNEL_SRC_Q4_0, 0x00, -8.0F},
        {KERNEL_SRC_Q4_1, 0xff, 15.0F},   {KERNEL_SRC_Q5_0, 0x00, -16.0F},
        {KERNEL_SRC_Q5_1, 0xff, 31.0F},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t block = kernel_source_row_bytes(cases[c].type, 32);
        uint8_t raw[2 * 34 * 17];
        for (size_t at = 0; at < 2 * 17 * block; at += block) {
            memset(raw + at, cases[c].byte, block);
            base_put_u16(raw + at, 0x3c00); /* scale 1 */
            if (kernel_source_has_min(cases[c].type)) {
                base_put_u16(raw + at + 2, 0); /* min 0 */
            }
        }
        kernel_matrix m;
        assert_int_equal(kernel_matrix_pack(&m, cases[c].type, raw, 17, 64, false, NULL), BASE_OK);
        void *scratch = base_alloc_aligned(kernel_matmul_scratch(4, 64));
        float x[4 * 64], out[4 * 17];
        for (size_t k = 0; k < 4 * 64; k++) {
            x[k] = k / 64 % 2 ? 127.0F : -127.0F;
        }
        for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
            if (!kernel_table_for((base_isa)isa)) {
                continue;
            }
            kernel_select((base_isa)isa);
            for (int act = 0; act < 2; act++) {
                kernel_matmul(NULL, &m, x, 4, out, 17, act ? KERNEL_ACT_F32 : KERNEL_ACT_Q8,
                              scratch);
                for (size_t i = 0; i < 4 * 17; i++) {
                    float sign = i / 17 % 2 ? 1.0F : -1.0F;
                    assert_true(out[i] == sign * 127.0F * 64.0F * cases[c].weight);
                }
            }
        }
        base_free_aligned(scratch);
        kernel_matrix_free(&m);
    }
}

/* Goal: activations are rounded alike in every set, to nearest even, largest to +-127, tiny blocks
 * to zero. */
static void test_quantise_gives_the_same_bits_in_every_set(void **state)
{
    (void)state;
    enum { COLUMNS = 32 * 40 };
    static float x[COLUMNS];
    base_rng rng;
    base_rng_seed(&rng, 9);
    for (size_t k = 0; k < COLUMNS; k++) {
        float unit = k / 32 % 4 == 3 ? 0x1p-90F : 1.0F;
        x[k] = (float)base_rng_normal(&rng) * unit;
    }
    for (size_t k = 0; k < 32; k++) {
        x[k] = k == 0 ? -127.0F : (float)k - 16.5F; /* scale 1: halves round to even */
        x[32 + k] = 0.0F;
        x[64 + k] = 0x1p-120F;
    }
    static kernel_act_block expected[COLUMNS / 32], out[COLUMNS / 32];
    kernel_scalar_ops.quantise(expected, x, COLUMNS);
    assert_int_equal(expected[0].q[0], -127);
    for (int k = 1; k < 32; k++) {
        int below = k - 17;
        assert_int_equal(expected[0].q[k], below % 2 == 0 ? below : below + 1);
    }
    assert_true(expected[0].scale == 1.0F);
    assert_true(expected[1].scale == 0.0F && expected[2].scale == 0.0F && expected[2].q[3] == 0);
    for (size_t b = 3; b < COLUMNS / 32; b++) {
        int low = 0, high = 0, largest = 0;
        for (int j = 0; j < 32; j++) {
            int q = expected[b].q[j];
            *(j < 16 ? &low : &high) += q;
            largest = abs(q) > largest ? abs(q) : largest;
            assert_true(fabsf(x[32 * b + (size_t)j] - expected[b].scale * (float)q) <=
                        0.5001F * expected[b].scale);
        }
        assert_int_equal(largest, 127);
        assert_int_equal(expected[b].bias_low, -128 * low);
        assert_int_equal(expected[b].bias_high, -128 * high);
        assert_true(expected[b].scaled_sum == expected[b].scale * (float)(low + high));
    }
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        if (ops_of((base_isa)isa)) {
            ops_of((base_isa)isa)->quantise(out, x, COLUMNS);
            assert_memory_equal(out, expected, sizeof expected);
        }
    }
}

/* Goal: borrowed f32 matrices and empty shapes work. Method: identity times x; T = 0 and N = 0
 * write nothing. */
static void test_matmul_borrowed_identity_and_empty_shapes(void **state)
{
    (void)state;
    float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1}, x[6] = {1, 2, 3, 4, 5, 6}, out[6] = {0};
    kernel_matrix m;
    kernel_matrix_borrow_f32(&m, identity, 3, 3);
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        if (!kernel_table_for((base_isa)isa)) {
            continue;
        }
        kernel_select((base_isa)isa);
        memset(out, 0, sizeof out);
        kernel_matmul(NULL, &m, x, 0, out, 3, KERNEL_ACT_Q8, NULL);
        assert_true(out[0] == 0.0F);
        kernel_matmul(NULL, &m, x, 2, out, 3, KERNEL_ACT_Q8, NULL);
        assert_memory_equal(out, x, sizeof x);
    }
    float row[3];
    kernel_matrix_row(&m, 1, row);
    assert_memory_equal(row, identity + 3, sizeof row);
    kernel_matrix empty;
    kernel_matrix_borrow_f32(&empty, identity, 0, 3);
    kernel_matmul(NULL, &empty, x, 2, out, 3, KERNEL_ACT_Q8, NULL);
    assert_memory_equal(out, x, sizeof x);
}

/* Goal: selection obeys its limit. Method: every limit; the table says which set it is. */
static void test_select_stays_within_the_limit(void **state)
{
    (void)state;
    for (int isa = 0; isa < BASE_ISA_COUNT; isa++) {
        base_isa chosen = kernel_select((base_isa)isa);
        assert_true(chosen <= (base_isa)isa && chosen <= base_isa_detect());
        assert_int_equal(kernel_get()->isa, chosen);
        assert_ptr_equal(kernel_get(), kernel_table_for(chosen));
    }
    assert_non_null(kernel_table_for(BASE_ISA_SCALAR));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_agrees_with_float64),
        cmocka_unit_test(test_matmul_bits_do_not_depend_on_tokens_or_threads),
        cmocka_unit_test(test_matmul_scalar_bits_do_not_depend_on_tokens_or_threads),
        cmocka_unit_test(test_matmul_extreme_codes_are_exact),
        cmocka_unit_test(test_quantise_gives_the_same_bits_in_every_set),
        cmocka_unit_test(test_matmul_borrowed_identity_and_empty_shapes),
        cmocka_unit_test(test_select_stays_within_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
