/* The mixers against the float64 oracle (tests/golden/gen_hybrid.py), and the same bits however the
 * tokens are cut. Tolerances relative to the largest value of the oracle: f32 against f64 costs GDN
 * and Mamba2 some 4e-7, GKA 5e-5 (its iteration multiplies rounding by the condition number, up to
 * 51); bounds 2e-6 and 2e-4.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/mixer.h"

typedef struct golden {
    mixer m;
    size_t channels, tokens;
    float *rows; /* [L, row] */
    const float *o_proj, *y, *state;
} golden;

static golden goldens[MIXER_KIND_COUNT];
static float *values; /* of the whole file */
static base_pool *pool;

static const float *part(const float **at, size_t count)
{
    const float *begin = *at;
    *at += count;
    return begin;
}

/* out [T, rows] = x W^T */
static void product(const float *w, const float *x, size_t tokens, size_t rows, size_t columns,
                    float *out)
{
    for (size_t t = 0; t < tokens; t++) {
        for (size_t r = 0; r < rows; r++) {
            double sum = 0;
            for (size_t c = 0; c < columns; c++) {
                sum += (double)w[r * columns + c] * (double)x[t * columns + c];
            }
            out[t * rows + r] = (float)sum;
        }
    }
}

static const float *load(golden *g, const uint32_t *header, const float *at)
{
    bool mamba2 = header[0] == MIXER_MAMBA2, gka = header[0] == MIXER_GKA;
    size_t h = header[2], d = header[4];
    g->channels = header[1];
    g->tokens = header[6];
    g->m = (mixer){.kind = (mixer_kind)header[0],
                   .heads = h,
                   .q_heads = h,
                   .k_heads = header[3],
                   .v_heads = header[3],
                   .key_size = d,
                   .value_size = d,
                   .kernel = header[5],
                   .norm_group = d,
                   .norm_weights = h * d,
                   .norm_eps = gka ? 1e-6f : 1e-5f,
                   .ridge = 0.02f,
                   .iterations = 30};
    mixer *m = &g->m;
    size_t row = mixer_row(m), width = mixer_conv_width(m);
    const float *u = part(&at, g->tokens * g->channels);
    const float *projections = part(&at, row * g->channels);
    m->conv = part(&at, width * m->kernel);
    const float *conv_bias = part(&at, width);
    m->conv_bias = mamba2 ? conv_bias : NULL;
    m->a = part(&at, h);
    m->dt_bias = part(&at, h);
    m->beta_bias = part(&at, h);
    m->alpha_bias = part(&at, h);
    const float *skip = part(&at, h), *q_norm = part(&at, d), *k_norm = part(&at, d);
    m->skip = mamba2 ? skip : NULL;
    m->q_norm = mamba2 ? q_norm : NULL;
    m->k_norm = mamba2 ? k_norm : NULL;
    m->norm = part(&at, h * d);
    g->o_proj = part(&at, g->channels * h * d);
    g->y = part(&at, g->tokens * g->channels);
    g->state = part(&at, h * d * d * (gka ? 2 : 1));
    g->rows = base_calloc(g->tokens * row, sizeof(float));
    product(projections, u, g->tokens, row, g->channels, g->rows);
    return at;
}

static int set_up(void **state)
{
    (void)state;
    base_buffer file = {0};
    base_error err = {0};
    if (base_file_read(EIDETIC_SOURCE_DIR "/tests/golden/mixers.bin", 1 << 22, &file, &err) ||
        base_pool_create(3, &pool, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    size_t count = (file.size - 8) / 4;
    const uint8_t *bytes = (const uint8_t *)file.data + 8;
    values = base_calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = base_get_f32(bytes + 4 * i);
    }
    const float *at = values;
    for (size_t i = 0; i < MIXER_KIND_COUNT; i++) {
        uint32_t header[7];
        for (size_t j = 0; j < 7; j++) {
            header[j] = base_get_u32(bytes + 4 * (size_t)(at - values) + 4 * j);
        }
        at = load(&goldens[i], header, at + 7);
    }
    bool whole = at == values + count;
    base_buffer_free(&file);
    return whole ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIXER_KIND_COUNT; i++) {
        base_free(goldens[i].rows);
    }
    base_free(values);
    base_pool_free(pool);
    return 0;
}

typedef struct result {
    float *out, *innovation, *state;
} result;

/* The first `first` tokens together, then `step` at a time. */
static result run(const golden *g, size_t first, size_t step, base_pool *threads)
{
    const mixer *m = &g->m;
    size_t row = mixer_row(m), width = mixer_out_width(m);
    result r = {.out = base_calloc(g->tokens, width * sizeof(float)),
                .innovation = base_calloc(g->tokens, m->heads * sizeof(float)),
                .state = base_calloc(mixer_state_floats(m), sizeof(float))};
    float *scratch = base_calloc(mixer_scratch_floats(m, g->tokens), sizeof(float));
    for (size_t t = 0; t < g->tokens;) {
        size_t count = t < first ? first : step;
        count = count < g->tokens - t ? count : g->tokens - t;
        mixer_run(m, threads, g->rows + t * row, row, count, r.state, r.out + t * width,
                  r.innovation + t * m->heads, scratch);
        t += count;
    }
    base_free(scratch);
    return r;
}

static void release(result *r)
{
    base_free(r->out);
    base_free(r->innovation);
    base_free(r->state);
}

static float relative(const float *got, const float *expected, size_t count)
{
    float worst = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        worst = fmaxf(worst, fabsf(got[i] - expected[i]));
        largest = fmaxf(largest, fabsf(expected[i]));
    }
    return worst / largest;
}

static void test_outputs_and_states_match_the_oracle(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIXER_KIND_COUNT; i++) {
        const golden *g = &goldens[i];
        size_t states = g->m.heads * g->m.key_size * g->m.value_size;
        states *= g->m.kind == MIXER_GKA ? 2 : 1;
        result r = run(g, g->tokens, 1, pool);
        float *y = base_calloc(g->tokens, g->channels * sizeof *y);
        product(g->o_proj, r.out, g->tokens, g->channels, mixer_out_width(&g->m), y);
        float error = relative(y, g->y, g->tokens * g->channels);
        float state_error = relative(r.state, g->state, states);
        printf("%s: output %.1e, state %.1e\n", mixer_name(g->m.kind), (double)error,
               (double)state_error);
        assert_true(error < (g->m.kind == MIXER_GKA ? 2e-4f : 2e-6f));
        assert_true(state_error < 2e-6f);
        release(&r);
        base_free(y);
    }
}

static void test_any_cut_and_any_threads_give_the_same_bits(void **state)
{
    (void)state;
    const size_t cuts[][2] = {{1, 1}, {3, 1}, {4, 4}, {17, 1}, {39, 1}, {0, 7}};
    for (size_t i = 0; i < MIXER_KIND_COUNT; i++) {
        const golden *g = &goldens[i];
        result whole = run(g, g->tokens, 1, NULL);
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            result r = run(g, cuts[c][0], cuts[c][1], c % 2 ? pool : NULL);
            assert_memory_equal(whole.out, r.out,
                                g->tokens * mixer_out_width(&g->m) * sizeof(float));
            assert_memory_equal(whole.innovation, r.innovation,
                                g->tokens * g->m.heads * sizeof(float));
            assert_memory_equal(whole.state, r.state, mixer_state_floats(&g->m) * sizeof(float));
            release(&r);
        }
        release(&whole);
    }
}

/* Nothing is predicted of the first token; of the same token over and over, with no decay, nearly
 * all, by every mixer that can erase (Mamba2 only adds). */
static void test_innovation_is_one_at_first_and_falls_with_repetition(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIXER_KIND_COUNT; i++) {
        golden g = goldens[i];
        const float still[16] = {0};
        size_t row = mixer_row(&g.m);
        float *rows = base_calloc(g.tokens, row * sizeof *rows);
        for (size_t t = 0; t < g.tokens; t++) {
            memcpy(rows + t * row, g.rows, row * sizeof *rows);
        }
        g.rows = rows;
        g.m.a = still;
        result r = run(&g, 0, 1, NULL);
        for (size_t h = 0; h < g.m.heads; h++) {
            float last = r.innovation[(g.tokens - 1) * g.m.heads + h];
            assert_true(fabsf(r.innovation[h] - 1.0f) < 1e-3f);
            assert_true(g.m.kind == MIXER_MAMBA2 || last < 0.05f);
        }
        release(&r);
        base_free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outputs_and_states_match_the_oracle),
        cmocka_unit_test(test_any_cut_and_any_threads_give_the_same_bits),
        cmocka_unit_test(test_innovation_is_one_at_first_and_falls_with_repetition),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
