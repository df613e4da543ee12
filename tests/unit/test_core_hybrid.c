/* Whole B'MOJO-F models, one per mixer, against the float64 oracle (tests/golden/gen_hybrid.py),
 * and what a hybrid promises about windows and running again.
 *
 * Tolerances, relative to the largest logit: the layer's own bounds (2e-6, GKA 2e-4) through two
 * layers and norms, times 5.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/core.h"
#include "tests/unit/golden_logits.h"

enum { V = GOLDEN_VOCABULARY, L = GOLDEN_TOKENS, W = 6, MANY = 200 };

static const char *const kinds[] = {"gdn", "gka", "mamba2"};
static core_model *models[3];
static float expected[3][L][V];
static int32_t ids[3][L], random_ids[MANY];
static base_pool *pool;

static int set_up(void **state)
{
    (void)state;
    base_error err = {0};
    golden_draw(21, random_ids, MANY);
    if (base_pool_create(2, &pool, &err)) {
        return -1;
    }
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "hybrid_%s", kinds[i]);
        models[i] = golden_open(name);
        if (!models[i] || !golden_read(name, ids[i], expected[i])) {
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        core_model_close(models[i]);
    }
    base_pool_free(pool);
    return 0;
}

static core_stream *open_stream(size_t kind, bool hybrid, base_pool *threads)
{
    core_stream_options options = {.slots_max = 256,
                                   .hybrid = hybrid,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32,
                                   .pool = threads};
    core_stream *stream = NULL;
    base_error err = {0};
    if (core_stream_open(models[kind], &options, &stream, &err)) {
        fail_msg("%s", err.text);
    }
    return stream;
}

static void test_logits_match_the_oracle_in_any_passes(void **state)
{
    (void)state;
    const size_t passes[] = {1, 5, 40};
    for (size_t kind = 0; kind < 3; kind++) {
        float worst = 0;
        for (size_t p = 0; p < 3; p++) {
            float logits[L][V];
            core_stream *stream = open_stream(kind, true, p % 2 ? pool : NULL);
            golden_run(stream, ids[kind], L, passes[p], logits);
            worst = fmaxf(worst, golden_error(logits[0], expected[kind][0], L * V));
            core_stream_close(stream);
        }
        printf("%s: %.1e\n", kinds[kind], (double)worst);
        assert_true(worst < (strcmp(kinds[kind], "gka") == 0 ? 1e-3f : 1e-5f));
    }
}

/* The first W tokens see no fading ones; the next token does. */
static void test_up_to_w_tokens_a_hybrid_is_attention_bit_for_bit(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 3; kind++) {
        float hybrid[W + 1][V], plain[W + 1][V];
        core_stream *a = open_stream(kind, true, NULL), *b = open_stream(kind, false, NULL);
        golden_run(a, ids[kind], W + 1, 1, hybrid);
        golden_run(b, ids[kind], W + 1, 1, plain);
        assert_memory_equal(hybrid, plain, W * sizeof *plain);
        assert_memory_not_equal(hybrid[W], plain[W], sizeof *plain);
        core_stream_close(a);
        core_stream_close(b);
    }
}

static void test_passes_of_up_to_16_give_the_bits_of_steps_far_beyond_the_windows(void **state)
{
    (void)state;
    const size_t passes[] = {3, 16};
    static float steps[MANY][V], many[MANY][V];
    for (size_t kind = 0; kind < 3; kind++) {
        core_stream *stream = open_stream(kind, true, NULL);
        golden_run(stream, random_ids, MANY, 1, steps);
        core_stream_close(stream);
        for (size_t p = 0; p < 2; p++) {
            stream = open_stream(kind, true, pool);
            golden_run(stream, random_ids, MANY, passes[p], many);
            assert_memory_equal(steps, many, sizeof steps);
            core_stream_close(stream);
        }
    }
}

/* Novelty of the last token: all of the first is new; the same one by one as together. Without
 * mixers there is none. */
static void test_novelty_is_watched_in_any_passes(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 3; kind++) {
        float steps = 0, together = 0, first = 0, none = 0;
        core_stream *stream = open_stream(kind, true, pool);
        core_stream *plain = open_stream(kind, false, NULL);
        core_novelty_watch(stream, &steps);
        assert_true(isnan(steps));
        golden_run(stream, random_ids, 1, 1, NULL);
        first = steps;
        assert_true(fabsf(first - 1.0f) < 1e-3f);
        golden_run(stream, random_ids + 1, 39, 1, NULL);
        core_stream_clear(stream);
        core_novelty_watch(stream, &together);
        golden_run(stream, random_ids, 40, 40, NULL);
        assert_true(together == steps && together > 0.0f && together != first);
        core_novelty_watch(plain, &none);
        golden_run(plain, random_ids, 4, 4, NULL);
        assert_true(isnan(none));
        core_stream_close(stream);
        core_stream_close(plain);
    }
}

static void test_dropped_tokens_leave_no_trace_in_the_states(void **state)
{
    (void)state;
    const size_t ends[] = {1, 15, 16, 17, 64, 90, 111}, drops[] = {1, 8, 16, 63, 64};
    for (size_t kind = 0; kind < 3; kind++) {
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
            float once[8][V], again[8][V];
            core_stream *a = open_stream(kind, true, NULL);
            golden_run(a, random_ids, ends[e], 64, NULL);
            golden_run(a, random_ids + 100, 8, 1, once);
            for (size_t d = 0; d < sizeof drops / sizeof *drops; d++) {
                core_stream *b = open_stream(kind, true, pool);
                golden_run(b, random_ids, ends[e], 64, NULL);
                golden_run(b, random_ids + 50, drops[d], 7, NULL);
                core_window_remove(b, ends[e], drops[d]);
                golden_run(b, random_ids + 100, 8, 3, again);
                assert_memory_equal(once, again, sizeof once);
                core_stream_close(b);
            }
            core_stream_close(a);
        }
    }
}

/* A memory is seen by attention, not by the states: with bias -INF it is absent, bit for bit, also
 * after it stands among fading tokens. */
static void test_memories_stand_among_fading_tokens(void **state)
{
    (void)state;
    enum { AT = 20, BLOCK = 5 };
    for (size_t kind = 0; kind < 3; kind++) {
        float logits[3][V];
        core_stream *donor = open_stream(kind, true, NULL);
        void *block = base_alloc(core_block_bytes(donor, BLOCK));
        for (size_t i = 0; i < 3; i++) {
            core_stream_clear(donor);
            golden_run(donor, random_ids + 50 * (i % 2), 30, 64, NULL);
            core_block_read(donor, 10, BLOCK, block);
            core_stream *stream = open_stream(kind, true, NULL);
            golden_run(stream, random_ids, AT, 64, NULL);
            assert_int_equal(
                core_window_insert(stream, AT, BLOCK, block, i < 2 ? -INFINITY : 0.0f, 1, NULL),
                BASE_OK);
            golden_run(stream, random_ids, W + 3, 1, NULL);
            golden_run(stream, random_ids, 1, 1, &logits[i]);
            core_stream_close(stream);
        }
        assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
        assert_memory_not_equal(logits[0], logits[2], sizeof logits[0]);
        base_free(block);
        core_stream_close(donor);
    }
}

/* A memory at the end of the window that leaves again before a token is run: the states stay. */
static void test_a_memory_evicted_at_the_end_leaves_no_trace(void **state)
{
    (void)state;
    enum { BLOCK = 5 };
    for (size_t kind = 0; kind < 3; kind++) {
        for (size_t live = 95; live <= 97; live++) {
            float once[8][V], again[8][V];
            core_stream *a = open_stream(kind, true, NULL), *b = open_stream(kind, true, NULL);
            void *block = base_alloc(core_block_bytes(a, BLOCK));
            golden_run(a, random_ids, live, 64, NULL);
            golden_run(b, random_ids, live, 64, NULL);
            core_block_read(b, live - 10, BLOCK, block);
            assert_int_equal(core_window_insert(b, live, BLOCK, block, 0, 1, NULL), BASE_OK);
            core_window_remove(b, live, BLOCK);
            golden_run(a, random_ids + 100, 8, 1, once); /* the first is fading at the end */
            golden_run(b, random_ids + 100, 8, 1, again);
            assert_memory_equal(once, again, sizeof once);
            base_free(block);
            core_stream_close(a);
            core_stream_close(b);
        }
    }
}

/* The state of a stream far beyond its windows, with a memory in it, is taken over by another. */
static void test_a_restored_state_continues_with_the_same_bits(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 3; kind++) {
        float once[20][V], again[20][V];
        core_stream *a = open_stream(kind, true, NULL), *b = open_stream(kind, true, pool);
        void *block = base_alloc(core_block_bytes(a, 4));
        golden_run(a, random_ids, 77, 64, NULL);
        core_block_read(a, 30, 4, block);
        assert_int_equal(core_window_insert(a, 70, 4, block, -0.5f, 3, NULL), BASE_OK);
        size_t size = core_state_bytes(a);
        uint8_t *bytes = base_alloc(size);
        core_state_save(a, bytes);
        golden_run(b, random_ids + 90, 50, 64, NULL); /* something else before */
        assert_int_equal(core_state_restore(b, bytes, size, NULL), BASE_OK);
        assert_int_equal(core_slots(b), core_slots(a));
        assert_int_equal(core_owner_slot(b, 3), 70);
        golden_run(a, random_ids + 100, 10, 1, once);
        golden_run(b, random_ids + 100, 10, 5, again);
        core_window_remove(a, 75, 16); /* running again works behind a restored state, too */
        core_window_remove(b, 75, 16);
        golden_run(a, random_ids + 150, 10, 1, once + 10);
        golden_run(b, random_ids + 150, 10, 1, again + 10);
        assert_memory_equal(once, again, sizeof once);
        base_free(bytes);
        base_free(block);
        core_stream_close(a);
        core_stream_close(b);
    }
}

static void test_a_state_that_does_not_belong_here_is_refused_by_name(void **state)
{
    (void)state;
    float before[V], after[V];
    base_error err = {0};
    core_stream *a = open_stream(0, true, NULL), *other_model = open_stream(1, true, NULL);
    core_stream *other_core = open_stream(0, false, NULL), *b = open_stream(0, true, NULL);
    golden_run(a, random_ids, 30, 64, NULL);
    golden_run(b, random_ids, 9, 64, NULL);
    size_t size = core_state_bytes(a);
    uint8_t *bytes = base_alloc(size);
    core_state_save(a, bytes);
    assert_int_equal(core_state_restore(other_model, bytes, size, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "another model"));
    assert_int_equal(core_state_restore(other_core, bytes, size, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "other options"));
    for (size_t at = 0; at < size; at += at < 200 ? 1 : 97) { /* any flipped bit, anywhere */
        bytes[at] ^= 4;
        assert_int_not_equal(core_state_restore(b, bytes, size, &err), BASE_OK);
        bytes[at] ^= 4;
    }
    for (size_t cut = 0; cut < size; cut += 501) {
        assert_int_equal(core_state_restore(b, bytes, cut, &err), BASE_CORRUPT);
    }
    bytes[8]++;
    assert_int_equal(core_state_restore(b, bytes, size, &err), BASE_VERSION);
    bytes[8]--;
    /* None of this changed the stream. */
    core_stream *c = open_stream(0, true, NULL);
    golden_run(c, random_ids, 9, 64, NULL);
    golden_run(b, random_ids, 1, 1, &after);
    golden_run(c, random_ids, 1, 1, &before);
    assert_memory_equal(before, after, sizeof before);
    base_free(bytes);
    core_stream_close(a);
    core_stream_close(b);
    core_stream_close(c);
    core_stream_close(other_model);
    core_stream_close(other_core);
}

static void test_streams_that_step_together_do_what_each_does_alone(void **state)
{
    (void)state;
    enum { STREAMS = 3, STEPS = 40 };
    core_stream *together[STREAMS], *alone;
    core_step steps[STEPS][STREAMS], own[STEPS];
    core_batch *batch = NULL;
    int32_t first[STREAMS];
    base_error err = {0};
    for (size_t i = 0; i < STREAMS; i++) {
        first[i] = random_ids[50 + i];
        together[i] = open_stream(0, true, pool);
        golden_run(together[i], random_ids, 3 * i, 64, NULL);
    }
    assert_int_equal(core_batch_open(together, STREAMS, &batch, &err), BASE_OK);
    assert_int_equal(core_batch_greedy(batch, first, STEPS, steps[0], &err), BASE_OK);
    for (size_t i = 0; i < STREAMS; i++) {
        alone = open_stream(0, true, pool);
        golden_run(alone, random_ids, 3 * i, 64, NULL);
        assert_int_equal(core_greedy(alone, first[i], STEPS, own, &err), BASE_OK);
        for (size_t t = 0; t < STEPS; t++) {
            assert_memory_equal(&own[t], &steps[t][i], sizeof own[t]);
        }
        assert_int_equal(core_slots(alone), core_slots(together[i]));
        core_stream_close(alone);
    }
    first[1] = V;
    assert_int_equal(core_batch_greedy(batch, first, STEPS, steps[0], &err), BASE_INVALID);
    assert_int_equal(core_slots(together[0]), STEPS); /* nothing was run */
    core_batch_close(batch);
    for (size_t i = 0; i < STREAMS; i++) {
        core_stream_close(together[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_the_oracle_in_any_passes),
        cmocka_unit_test(test_up_to_w_tokens_a_hybrid_is_attention_bit_for_bit),
        cmocka_unit_test(test_passes_of_up_to_16_give_the_bits_of_steps_far_beyond_the_windows),
        cmocka_unit_test(test_novelty_is_watched_in_any_passes),
        cmocka_unit_test(test_dropped_tokens_leave_no_trace_in_the_states),
        cmocka_unit_test(test_memories_stand_among_fading_tokens),
        cmocka_unit_test(test_a_memory_evicted_at_the_end_leaves_no_trace),
        cmocka_unit_test(test_a_restored_state_continues_with_the_same_bits),
        cmocka_unit_test(test_a_state_that_does_not_belong_here_is_refused_by_name),
        cmocka_unit_test(test_streams_that_step_together_do_what_each_does_alone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
