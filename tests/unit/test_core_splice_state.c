/* Memories that enter the states of mixers (--splice-state): what states become, against mixers run
 * by hand; that dropping tokens leaves no trace; where it is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/stream.h"
#include "tests/unit/golden_logits.h"

enum { V = GOLDEN_VOCABULARY, MODELS = 4, MAMBA2 = 2, GRANITE = 3, MANY = 200, LIVE = 21, M = 9 };

static const char *const names[MODELS] = {"hybrid_gdn", "hybrid_gka", "hybrid_mamba2",
                                          "granitehybrid"};
static core_model *models[MODELS];
static int32_t ids[MANY];

static int set_up(void **state)
{
    (void)state;
    golden_draw(33, ids, MANY);
    for (size_t i = 0; i < MODELS; i++) {
        if (!(models[i] = golden_open(names[i]))) {
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        core_model_close(models[i]);
    }
    return 0;
}

static core_stream *open_stream(size_t model, bool hybrid, core_splice_state how)
{
    core_stream_options options = {.slots_max = 256,
                                   .hybrid = hybrid,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32,
                                   .splice_state = how};
    core_stream *stream = NULL;
    base_error err = {0};
    if (core_stream_open(models[model], &options, &stream, &err)) {
        fail_msg("%s", err.text);
    }
    return stream;
}

static float *new_rows(size_t model, size_t count)
{
    return base_calloc(core_rows_floats(models[model], count), sizeof(float));
}

/* Tokens at the end of a stream, one by one; the caller's rows of them. */
static float *run_watched(core_stream *s, size_t model, const int32_t *tokens, size_t count)
{
    float *rows = new_rows(model, count);
    core_rows_watch(s, rows, count);
    golden_run(s, tokens, count, 1, NULL);
    core_rows_watch(s, NULL, 0);
    return rows;
}

/* A memory: M tokens behind `before` others, as the KV cache runs it. */
typedef struct memory {
    void *block;
    float *rows;
} memory;

static memory make_memory(size_t model, const int32_t *before, size_t count, const int32_t *tokens,
                          size_t size)
{
    core_stream *s = open_stream(model, false, CORE_SPLICE_NONE);
    memory m = {.block = base_alloc(core_block_bytes(s, size))};
    golden_run(s, before, count, 1, NULL);
    m.rows = run_watched(s, model, tokens, size);
    core_block_read(s, count, size, m.block);
    core_stream_close(s);
    return m;
}

/* Insert before slot `at`; it enters the states before the next token. */
static void splice(core_stream *s, size_t model, size_t at, uint32_t owner, const memory *m,
                   size_t size)
{
    size_t floats = core_rows_floats(models[model], size);
    float *rows = base_alloc(floats * sizeof *rows);
    memcpy(rows, m->rows, floats * sizeof *rows);
    assert_int_equal(core_window_insert(s, at, size, m->block, 0, owner, NULL), BASE_OK);
    assert_int_equal(core_state_enter(s, owner, rows, size, NULL), BASE_OK);
}

static void free_memory(memory *m)
{
    base_free(m->block);
    base_free(m->rows);
}

/* --- states by hand --------------------------------------------------------------------------- */

static const core_fading *layer_of(size_t model)
{
    const core_layer *layers = models[model]->layers;
    for (size_t i = 0;; i++) {
        if (layers[i].fading) {
            return layers[i].fading; /* the first */
        }
    }
}

static float *state_by_hand(size_t model)
{
    return base_calloc(mixer_state_floats(&layer_of(model)->mixer), sizeof(float));
}

/* Rows of the first layer with a mixer. */
static void feed(size_t model, float *state, const float *rows, size_t count)
{
    const mixer *m = &layer_of(model)->mixer;
    float *scratch = base_alloc(mixer_scratch_floats(m, count) * sizeof *scratch);
    mixer_run(m, NULL, rows, mixer_row(m), count, state, NULL, NULL, scratch);
    base_free(scratch);
}

static size_t heads_floats(size_t model)
{
    const mixer *m = &layer_of(model)->mixer;
    return m->heads * mixer_head_floats(m);
}

static double log_decay_by_hand(size_t model, const float *rows, size_t count, size_t head)
{
    const mixer *m = &layer_of(model)->mixer;
    double sum = 0;
    for (size_t t = 0; t < count; t++) {
        sum += (double)mixer_log_decay(m, rows + t * mixer_row(m), head);
    }
    return sum;
}

/* Another text begins: nothing under the convolution. */
static void clear_tail(size_t model, float *state)
{
    size_t heads = heads_floats(model), all = mixer_state_floats(&layer_of(model)->mixer);
    memset(state + heads, 0, (all - heads) * sizeof *state);
}

static void assert_state_near(size_t model, const core_stream *s, const float *expected)
{
    float error =
        golden_error(s->mixer_state, expected, mixer_state_floats(&layer_of(model)->mixer));
    if (!(error < 2e-6f)) {
        fail_msg("%s: %g", names[model], (double)error);
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

static size_t permutations(double *decay, size_t *order, size_t fixed, size_t count, double *sums)
{
    if (fixed == count) {
        double behind = 1;
        for (size_t i = count; i-- > 0;) {
            sums[order[i]] += behind;
            behind *= decay[order[i]];
        }
        return 1;
    }
    size_t total = 0;
    for (size_t i = fixed; i < count; i++) {
        size_t t = order[fixed];
        order[fixed] = order[i];
        order[i] = t;
        total += permutations(decay, order, fixed + 1, count, sums);
        order[i] = order[fixed];
        order[fixed] = t;
    }
    return total;
}

static void test_picaso_weights_are_the_average_over_all_orders(void **state)
{
    (void)state;
    double decay[] = {0.9, 0.03, 1.0, 0.0, 0.6};
    for (size_t count = 1; count <= 5; count++) {
        double weights[5], sums[5] = {0};
        size_t order[] = {0, 1, 2, 3, 4};
        double orders = (double)permutations(decay, order, 0, count, sums);
        mixer_picaso(decay, count, weights);
        for (size_t i = 0; i < count; i++) {
            assert_true(fabs(weights[i] - sums[i] / orders) < 1e-15);
        }
        assert_true(count > 1 || weights[0] == 1.0);
    }
}

/* One memory in an empty stream: all options give the state of its tokens, bit for bit (the
 * convolution of a sum does not see them). */
static void test_one_memory_alone_makes_its_own_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, NULL, 0, ids, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            core_stream *s = open_stream(i, true, how);
            float *expected = state_by_hand(i);
            splice(s, i, 0, 1, &m, M);
            float *next = run_watched(s, i, ids + 50, 2);
            feed(i, expected, m.rows, M);
            if (how != CORE_SPLICE_REPLAY) {
                clear_tail(i, expected);
            }
            feed(i, expected, next, 2);
            assert_memory_equal(s->mixer_state, expected,
                                mixer_state_floats(&layer_of(i)->mixer) * sizeof *expected);
            base_free(next);
            base_free(expected);
            core_stream_close(s);
        }
        free_memory(&m);
    }
}

/* Behind live tokens: replay runs on; sum adds; PICASO averages both orders, exactly where decays
 * are scalars. */
static void test_states_behind_live_tokens(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, ids, 4, ids + 40, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            core_stream *s = open_stream(i, true, how);
            size_t heads = heads_floats(i);
            float *live = run_watched(s, i, ids, LIVE);
            float *expected = state_by_hand(i), *other = state_by_hand(i);
            splice(s, i, LIVE, 1, &m, M);
            float *next = run_watched(s, i, ids + 50, 2);
            feed(i, expected, live, LIVE);
            feed(i, other, m.rows, M);
            if (how == CORE_SPLICE_REPLAY) {
                feed(i, expected, m.rows, M);
            } else if (how == CORE_SPLICE_SUM) {
                for (size_t c = 0; c < heads; c++) {
                    expected[c] += other[c];
                }
            } else {
                float *behind = state_by_hand(i); /* first live text, then the memory */
                memcpy(behind, expected, heads * sizeof *behind);
                feed(i, behind, m.rows, M);
                clear_tail(i, other);
                feed(i, other, live, LIVE);
                for (size_t c = 0; c < heads; c++) {
                    expected[c] = (behind[c] + other[c]) / 2;
                }
                base_free(behind);
            }
            feed(i, expected, next, 2);
            if (how != CORE_SPLICE_PICASO || layer_of(i)->mixer.kind != MIXER_GDN) {
                assert_state_near(i, s, expected);
            }
            base_free(live);
            base_free(next);
            base_free(expected);
            base_free(other);
            core_stream_close(s);
        }
        free_memory(&m);
    }
}

/* Two memories at one place and nothing live: the average of both orders. */
static void test_picaso_of_two_memories_is_the_average_of_both_orders(void **state)
{
    (void)state;
    for (size_t i = MAMBA2; i < MODELS; i++) {
        memory a = make_memory(i, NULL, 0, ids, M), b = make_memory(i, NULL, 0, ids + 20, M);
        core_stream *s = open_stream(i, true, CORE_SPLICE_PICASO);
        float *ab = state_by_hand(i), *ba = state_by_hand(i);
        splice(s, i, 0, 1, &a, M);
        splice(s, i, 0, 2, &b, M);
        float *next = run_watched(s, i, ids + 50, 2);
        feed(i, ab, a.rows, M);
        clear_tail(i, ab);
        feed(i, ab, b.rows, M);
        feed(i, ba, b.rows, M);
        clear_tail(i, ba);
        feed(i, ba, a.rows, M);
        for (size_t c = 0; c < heads_floats(i); c++) {
            ab[c] = (ab[c] + ba[c]) / 2;
        }
        clear_tail(i, ab);
        feed(i, ab, next, 2);
        assert_state_near(i, s, ab);
        base_free(next);
        base_free(ab);
        base_free(ba);
        core_stream_close(s);
        free_memory(&a);
        free_memory(&b);
    }
}

/* A later memory is weighed against all that came before it: live tokens and another memory. */
static void test_picaso_weighs_against_all_that_came_before(void **state)
{
    (void)state;
    for (size_t i = MAMBA2; i < MODELS; i++) {
        const mixer *m = &layer_of(i)->mixer;
        memory first = make_memory(i, NULL, 0, ids, M), later = make_memory(i, NULL, 0, ids + 9, M);
        core_stream *s = open_stream(i, true, CORE_SPLICE_PICASO);
        float *expected = state_by_hand(i), *alone = state_by_hand(i);
        splice(s, i, 0, 1, &first, M);
        float *live = run_watched(s, i, ids + 50, 2);
        memcpy(expected, s->mixer_state, mixer_state_floats(m) * sizeof *expected);
        splice(s, i, M + 2, 2, &later, M);
        float *next = run_watched(s, i, ids + 60, 1);
        feed(i, alone, later.rows, M);
        for (size_t h = 0; h < m->heads; h++) {
            double weights[2], decay[2] = {exp(log_decay_by_hand(i, first.rows, M, h) +
                                               log_decay_by_hand(i, live, 2, h)),
                                           exp(log_decay_by_hand(i, later.rows, M, h))};
            mixer_picaso(decay, 2, weights);
            for (size_t c = h * mixer_head_floats(m); c < (h + 1) * mixer_head_floats(m); c++) {
                expected[c] =
                    (float)(weights[0] * (double)expected[c] + weights[1] * (double)alone[c]);
            }
        }
        feed(i, expected, next, 1);
        assert_state_near(i, s, expected);
        base_free(live);
        base_free(next);
        base_free(expected);
        base_free(alone);
        core_stream_close(s);
        free_memory(&first);
        free_memory(&later);
    }
}

/* Spliced with replay = read at that place. In granitehybrid for good (nothing is rotated, no
 * window); in a hybrid as long as all of it is in the exact window. */
static void test_a_replayed_memory_is_as_good_as_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        size_t before = 2, size = i == GRANITE ? M : 2, behind = i == GRANITE ? 60 : 2;
        float spliced[60][V], read[60][V];
        memory m = make_memory(i, ids, before, ids + before, size);
        core_stream *a = open_stream(i, true, CORE_SPLICE_REPLAY);
        core_stream *b = open_stream(i, true, CORE_SPLICE_NONE);
        golden_run(a, ids, before, 1, NULL);
        splice(a, i, before, 1, &m, size);
        golden_run(a, ids + 50, behind, 1, spliced);
        golden_run(b, ids, before + size, 1, NULL);
        golden_run(b, ids + 50, behind, 1, read);
        assert_true(golden_error(spliced[0], read[0], behind * V) < 1e-5f);
        assert_memory_equal(a->mixer_state, b->mixer_state, b->mixer_floats * sizeof(float));
        free_memory(&m);
        core_stream_close(a);
        core_stream_close(b);
    }
}

/* What follows has the same bits in both streams, which are closed. */
static void assert_same_behind(size_t model, core_stream *a, core_stream *b)
{
    float once[8][V], again[8][V];
    golden_run(a, ids + 100, 8, 1, once);
    golden_run(b, ids + 100, 8, 3, again);
    assert_memory_equal(once, again, sizeof once);
    assert_memory_equal(a->mixer_state, b->mixer_state,
                        models[model]->mixer_layers * a->mixer_floats * sizeof(float));
    core_stream_close(a);
    core_stream_close(b);
}

static void test_tokens_dropped_behind_a_memory_leave_no_trace(void **state)
{
    (void)state;
    const size_t drops[] = {1, 15, 16, 63, 64};
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, ids, 4, ids + 40, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            for (size_t d = 0; d < sizeof drops / sizeof *drops; d++) {
                size_t drop = drops[d], live = d % 2 ? 96 : 101;
                core_stream *a = open_stream(i, true, how), *b = open_stream(i, true, how);
                core_stream *both[] = {a, b};
                for (size_t k = 0; k < 2; k++) {
                    golden_run(both[k], ids, live, 64, NULL);
                    splice(both[k], i, live, 1, &m, M);
                    golden_run(both[k], ids + 60, 3, 1, NULL);
                }
                golden_run(b, ids + 70, drop, 7, NULL);
                core_window_remove(b, live + M + 3, drop);
                assert_same_behind(i, a, b);
            }
        }
        free_memory(&m);
    }
}

/* As the loop does at a turn boundary: the question is run, memories come before it, and it is run
 * again; one of them was evicted at once. */
static void test_tokens_run_again_find_the_memory_before_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, ids, 4, ids + 40, M), gone = make_memory(i, ids, 4, ids + 60, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            core_stream *a = open_stream(i, true, how), *b = open_stream(i, true, how);
            golden_run(a, ids, LIVE, 64, NULL);
            splice(a, i, LIVE, 1, &m, M);
            golden_run(b, ids, LIVE, 64, NULL);
            golden_run(b, ids + 80, 30, 64, NULL);
            splice(b, i, LIVE, 2, &gone, M);
            splice(b, i, LIVE + M, 1, &m, M);
            core_state_leave(b, 2);
            core_window_remove(b, LIVE, M);
            core_window_remove(b, LIVE + M, 30);
            golden_run(b, ids + 80, 12, 5, NULL); /* and once more, with the memory in */
            core_window_remove(b, LIVE + M, 12);
            assert_same_behind(i, a, b);
        }
        free_memory(&m);
        free_memory(&gone);
    }
}

/* A memory that leaves attention stays in the states, also for tokens dropped behind its end. */
static void test_an_evicted_memory_stays_in_the_states(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, ids, 4, ids + 40, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            core_stream *a = open_stream(i, true, how), *b = open_stream(i, true, how);
            core_stream *never = open_stream(i, true, how);
            core_stream *both[] = {a, b};
            for (size_t k = 0; k < 2; k++) {
                golden_run(both[k], ids, LIVE, 64, NULL);
                splice(both[k], i, LIVE, 1, &m, M);
                golden_run(both[k], ids + 60, 6, 1, NULL);
                core_state_leave(both[k], 1);
                core_window_remove(both[k], LIVE, M);
            }
            golden_run(b, ids + 70, 20, 7, NULL);
            core_window_remove(b, LIVE + 6, 20);
            golden_run(never, ids, LIVE, 64, NULL);
            golden_run(never, ids + 60, 6, 1, NULL);
            assert_memory_equal(a->mixer_state, b->mixer_state, a->mixer_floats * sizeof(float));
            assert_memory_not_equal(a->mixer_state, never->mixer_state,
                                    a->mixer_floats * sizeof(float));
            core_stream_close(never);
            assert_same_behind(i, a, b);
        }
        free_memory(&m);
    }
}

/* A memory that leaves before a token is run never entered, nor did one behind which all tokens are
 * dropped when it has left. */
static void test_a_memory_without_tokens_behind_it_never_entered(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        memory m = make_memory(i, ids, 4, ids + 40, M);
        for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
            for (size_t live = 95; live < 98; live++) {
                size_t said = live % 2 ? 7 : 0;
                core_stream *a = open_stream(i, true, how), *b = open_stream(i, true, how);
                golden_run(a, ids, live, 64, NULL);
                golden_run(b, ids, live, 64, NULL);
                splice(b, i, live, 1, &m, M);
                golden_run(b, ids + 60, said, 2, NULL);
                core_state_leave(b, 1);
                core_window_remove(b, live, M);
                core_window_remove(b, live, said);
                assert_same_behind(i, a, b);
            }
        }
        free_memory(&m);
    }
}

static void test_a_stream_without_states_is_refused_by_name(void **state)
{
    (void)state;
    base_error err = {0};
    core_stream *stream = NULL;
    for (core_splice_state how = CORE_SPLICE_REPLAY; how < CORE_SPLICE_COUNT; how++) {
        core_stream_options options = {.slots_max = 64, .splice_state = how};
        assert_int_equal(core_stream_open(models[0], &options, &stream, &err), BASE_INVALID);
        assert_non_null(strstr(err.text, "hybrid_gdn.gguf: no layer has a recurrent state"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picaso_weights_are_the_average_over_all_orders),
        cmocka_unit_test(test_one_memory_alone_makes_its_own_state),
        cmocka_unit_test(test_states_behind_live_tokens),
        cmocka_unit_test(test_picaso_of_two_memories_is_the_average_of_both_orders),
        cmocka_unit_test(test_picaso_weighs_against_all_that_came_before),
        cmocka_unit_test(test_a_replayed_memory_is_as_good_as_read),
        cmocka_unit_test(test_tokens_dropped_behind_a_memory_leave_no_trace),
        cmocka_unit_test(test_tokens_run_again_find_the_memory_before_them),
        cmocka_unit_test(test_an_evicted_memory_stays_in_the_states),
        cmocka_unit_test(test_a_memory_without_tokens_behind_it_never_entered),
        cmocka_unit_test(test_a_stream_without_states_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
