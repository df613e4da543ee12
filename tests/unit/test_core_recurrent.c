/* Recurrent layers (mamba2, granitehybrid) against transformers (tests/golden/gen_recurrent.py),
 * and what a stream with a state promises about passes, running again and being restored.
 *
 * Tolerance, relative to the largest logit: f32 sums through three layers, and transformers rounds
 * Mamba2's inputs to f32 as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/core.h"
#include "tests/unit/golden_logits.h"

enum { V = GOLDEN_VOCABULARY, L = GOLDEN_TOKENS, MANY = 200, MODELS = 3, GRANITE = 2 };

static const char *const names[MODELS] = {"mamba2", "mamba2_groups", "granitehybrid"};
static core_model *models[MODELS];
static float expected[MODELS][L][V];
static int32_t ids[MODELS][L], random_ids[MANY];
static base_pool *pool;

static int set_up(void **state)
{
    (void)state;
    base_error err = {0};
    golden_draw(21, random_ids, MANY);
    if (base_pool_create(2, &pool, &err)) {
        return -1;
    }
    for (size_t i = 0; i < MODELS; i++) {
        models[i] = golden_open(names[i]);
        if (!models[i] || !golden_read(names[i], ids[i], expected[i])) {
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
    base_pool_free(pool);
    return 0;
}

static core_stream *open_stream(size_t model, size_t window, base_pool *threads)
{
    core_stream_options options = {.slots_max = 256,
                                   .window = window,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32,
                                   .pool = threads};
    core_stream *stream = NULL;
    base_error err = {0};
    if (core_stream_open(models[model], &options, &stream, &err)) {
        fail_msg("%s", err.text);
    }
    return stream;
}

static void test_logits_match_transformers_in_any_passes(void **state)
{
    (void)state;
    const size_t passes[] = {1, 5, 40};
    for (size_t i = 0; i < MODELS; i++) {
        float worst = 0;
        for (size_t p = 0; p < 3; p++) {
            float logits[L][V];
            core_stream *stream = open_stream(i, 0, p % 2 ? pool : NULL);
            golden_run(stream, ids[i], L, passes[p], logits);
            worst = fmaxf(worst, golden_error(logits[0], expected[i][0], L * V));
            core_stream_close(stream);
        }
        printf("%s: %.1e\n", names[i], (double)worst);
        assert_true(worst < 1e-5f);
    }
}

/* With and without a bound on what attention sees; a bounded one goes on without end. */
static void test_passes_of_up_to_16_give_the_bits_of_steps(void **state)
{
    (void)state;
    static float steps[MANY][V], many[MANY][V];
    for (size_t i = 0; i < 2 * MODELS; i++) {
        core_stream *a = open_stream(i / 2, i % 2 ? 12 : 0, NULL);
        core_stream *b = open_stream(i / 2, i % 2 ? 12 : 0, pool);
        golden_run(a, random_ids, MANY, 1, steps);
        golden_run(b, random_ids, MANY, i % 2 ? 3 : 16, many);
        assert_memory_equal(steps, many, sizeof steps);
        assert_true(core_has_state(a));
        core_stream_close(a);
        core_stream_close(b);
    }
}

static void test_dropped_tokens_leave_no_trace_in_the_states(void **state)
{
    (void)state;
    const size_t ends[] = {1, 16, 17, 90}, drops[] = {1, 16, 64};
    for (size_t i = 0; i < MODELS; i++) {
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
            float once[8][V], again[8][V];
            core_stream *a = open_stream(i, 0, NULL);
            golden_run(a, random_ids, ends[e], 64, NULL);
            golden_run(a, random_ids + 100, 8, 1, once);
            for (size_t d = 0; d < sizeof drops / sizeof *drops; d++) {
                core_stream *b = open_stream(i, 0, pool);
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

/* All of it may go, however long it was. */
static void test_an_emptied_window_begins_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        float once[8][V], again[8][V];
        core_stream *stream = open_stream(i, 0, NULL);
        golden_run(stream, random_ids, 8, 1, once);
        golden_run(stream, random_ids, 120, 64, NULL);
        core_window_remove(stream, 0, core_slots(stream));
        golden_run(stream, random_ids, 8, 1, again);
        assert_memory_equal(once, again, sizeof once);
        core_stream_close(stream);
    }
}

/* A memory is seen by attention, not by the states. */
static void test_a_memory_reaches_the_attention_layers(void **state)
{
    (void)state;
    enum { AT = 20, BLOCK = 5 };
    float logits[3][V];
    core_stream *donor = open_stream(GRANITE, 0, NULL), *pure = open_stream(0, 0, NULL);
    assert_int_equal(core_block_bytes(pure, BLOCK), 0);
    void *block = base_alloc(core_block_bytes(donor, BLOCK));
    golden_run(donor, random_ids + 50, 30, 64, NULL);
    core_block_read(donor, 10, BLOCK, block);
    for (size_t i = 0; i < 3; i++) {
        core_stream *stream = open_stream(GRANITE, 0, NULL);
        golden_run(stream, random_ids, AT, 64, NULL);
        if (i > 0) {
            float bias = i == 1 ? -INFINITY : 0.0f;
            assert_int_equal(core_window_insert(stream, AT, BLOCK, block, bias, 1, NULL), BASE_OK);
        }
        golden_run(stream, random_ids + 30, 3, 1, NULL);
        golden_run(stream, random_ids, 1, 1, &logits[i]);
        core_stream_close(stream);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]); /* nothing rotates here */
    assert_memory_not_equal(logits[0], logits[2], sizeof logits[0]);
    base_free(block);
    core_stream_close(donor);
    core_stream_close(pure);
}

static void test_a_restored_state_continues_with_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        float once[20][V], again[20][V];
        core_stream *a = open_stream(i, 0, NULL), *b = open_stream(i, 0, pool);
        golden_run(a, random_ids, 77, 64, NULL);
        size_t size = core_state_bytes(a);
        uint8_t *bytes = base_alloc(size);
        core_state_save(a, bytes);
        golden_run(b, random_ids + 90, 50, 64, NULL); /* something else before */
        assert_int_equal(core_state_restore(b, bytes, size, NULL), BASE_OK);
        golden_run(a, random_ids + 100, 10, 1, once);
        golden_run(b, random_ids + 100, 10, 5, again);
        core_window_remove(a, 71, 16); /* running again works behind a restored state, too */
        core_window_remove(b, 71, 16);
        golden_run(a, random_ids + 150, 10, 1, once + 10);
        golden_run(b, random_ids + 150, 10, 1, again + 10);
        assert_memory_equal(once, again, sizeof once);
        for (size_t at = 0; at < size; at += at < 200 ? 7 : 9973) { /* any flipped bit, anywhere */
            bytes[at] ^= 4;
            assert_int_not_equal(core_state_restore(b, bytes, size, NULL), BASE_OK);
            bytes[at] ^= 4;
        }
        base_free(bytes);
        core_stream_close(a);
        core_stream_close(b);
    }
}

static void read_model(const char *name, base_buffer *out)
{
    char path[512];
    base_error err = {0};
    snprintf(path, sizeof path, "%s/tests/golden/%s.gguf", EIDETIC_SOURCE_DIR, name);
    if (base_file_read(path, 1 << 20, out, &err)) {
        fail_msg("%s", err.text);
    }
}

/* --- files that are not what they claim ------------------------------------------------------- */

/* The file with `what` overwritten by `with`, `skip` bytes behind its begin. */
static void refuse(const char *name, const char *what, size_t skip, const void *with, size_t size,
                   base_status code, const char *named)
{
    base_buffer file = {0};
    base_error err = {0};
    core_model *model = NULL;
    char path[] = "/tmp/eidetic-broken-XXXXXX";
    read_model(name, &file);
    char *at = file.data;
    while (memcmp(at, what, strlen(what)) != 0) {
        at++;
        assert_true((size_t)(at - file.data) + strlen(what) <= file.size);
    }
    memcpy(at + skip, with, size);
    int out = mkstemp(path);
    assert_true(write(out, file.data, file.size) == (ssize_t)file.size && close(out) == 0);
    base_status status = core_model_open(path, NULL, NULL, &model, &err);
    if (status != code || !strstr(err.text, named)) {
        fail_msg("%s: %d '%s'", what, (int)status, err.text);
    }
    unlink(path);
    base_buffer_free(&file);
}

static void refuse_name(const char *name, const char *tensor, const char *with)
{
    refuse(name, tensor, 0, with, strlen(with), BASE_CORRUPT, tensor);
}

static void test_missing_tensors_and_wrong_sizes_are_named(void **state)
{
    (void)state;
    refuse_name("mamba2", "blk.1.ssm_in.weight", "blk.1.ssm_ix.weight");
    refuse_name("mamba2", "blk.0.ssm_conv1d.weight", "blk.0.ssm_conx1d.weight");
    refuse_name("mamba2", "blk.0.ssm_conv1d.bias", "blk.0.ssm_conx1d.bias");
    refuse_name("mamba2", "blk.1.ssm_a", "blk.1.ssm_x");
    refuse_name("mamba2", "blk.1.ssm_dt.bias", "blk.1.ssm_dt.bixs");
    refuse_name("granitehybrid", "blk.0.ssm_norm.weight", "blk.0.ssm_nxrm.weight");
    refuse_name("granitehybrid", "blk.1.attn_k.weight", "blk.1.attn_x.weight");
    refuse_name("granitehybrid", "blk.2.ffn_norm.weight", "blk.2.ffn_nxrm.weight");
    refuse_name("mamba2", "mamba2.ssm.state_size", "mamba2.ssm.state_sixe");
    uint8_t number[4] = {4};
    size_t value = strlen("mamba2.ssm.state_size") + 4;
    refuse("mamba2", "mamba2.ssm.state_size", value, number, 4, BASE_CORRUPT,
           "blk.0.ssm_in.weight has shape");
    number[0] = 5; /* heads, of an inner size of 64 */
    value = strlen("mamba2.ssm.time_step_rank") + 4;
    refuse("mamba2", "mamba2.ssm.time_step_rank", value, number, 4, BASE_UNSUPPORTED, "5 heads");
    number[0] = 3; /* KV heads of layer 0, where layer 1 has 2 */
    value = strlen("granitehybrid.attention.head_count_kv") + 4 + 4 + 8;
    refuse("granitehybrid", "granitehybrid.attention.head_count_kv", value, number, 4,
           BASE_UNSUPPORTED, "KV heads");
}

static void test_a_mixture_of_experts_is_refused(void **state)
{
    (void)state;
    const char *key = "granitehybrid.expert_count"; /* the golden file counts 0 of them */
    refuse("granitehybrid", key, strlen(key) + 4, "\10", 1, BASE_UNSUPPORTED, "8 experts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_transformers_in_any_passes),
        cmocka_unit_test(test_passes_of_up_to_16_give_the_bits_of_steps),
        cmocka_unit_test(test_dropped_tokens_leave_no_trace_in_the_states),
        cmocka_unit_test(test_an_emptied_window_begins_anew),
        cmocka_unit_test(test_a_memory_reaches_the_attention_layers),
        cmocka_unit_test(test_a_restored_state_continues_with_the_same_bits),
        cmocka_unit_test(test_missing_tensors_and_wrong_sizes_are_named),
        cmocka_unit_test(test_a_mixture_of_experts_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
