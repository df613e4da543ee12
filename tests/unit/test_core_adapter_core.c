/* Trained mixers (a core adapter) on the model they belong to, alone and beside a LoRA: logits of
 * the hybrids that they make against engine/train/hybrid.py (tests/golden/gen_core_adapter.py), and
 * every adapter that does not fit.
 *
 * Tolerance: f32 through two layers and norms, 1e-5 of the largest logit (seen: 3.8e-7). Both sides
 * merge the same factors and round the sums to Q8_0; a sum within 1e-7 of the middle between two
 * codes could fall to either side and would move logits by up to 1e-3, but none does here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/golden_logits.h"
#include "tests/unit/models.h"

enum { V = GOLDEN_VOCABULARY, L = GOLDEN_TOKENS, W = 6 };

static char base_path[512], adapter_path[512], lora_path[512];
static int32_t ids[L];
static float expected[L][V], expected_both[L][V];

/* The base with none, one or two adapters (NULL: none), and a stream over it. */
static core_stream *open_stream(const char *first, const char *second, bool hybrid, size_t window,
                                core_model **model)
{
    core_stream *stream = NULL;
    base_error err = {0};
    core_stream_options options = {.slots_max = 64,
                                   .hybrid = hybrid,
                                   .window = window,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32};
    if (core_model_open(base_path, (const char *const[]){first, second, NULL}, NULL, model, &err) ||
        core_stream_open(*model, &options, &stream, &err)) {
        fail_msg("%s", err.text);
    }
    return stream;
}

static void run(const char *first, const char *second, bool hybrid, size_t window,
                float logits[L][V])
{
    core_model *model;
    core_stream *stream = open_stream(first, second, hybrid, window, &model);
    if (hybrid) {
        assert_int_equal(core_model_fading_layers(model), 1);
        assert_int_equal(core_model_exact_window(model), W);
    }
    golden_run(stream, ids, L, 7, logits);
    core_stream_close(stream);
    core_model_close(model);
}

/* A file in a temporary place; path ends in XXXXXX. */
static void write_file(char *path, const base_buffer *file)
{
    int out = mkstemp(path);
    assert_true(out >= 0 && write(out, file->data, file->size) == (ssize_t)file->size &&
                close(out) == 0);
}

static void test_a_base_with_trained_mixers_is_what_was_trained(void **state)
{
    (void)state;
    float hybrid[L][V], window[L][V];
    run(adapter_path, NULL, true, 0, hybrid);
    run(NULL, NULL, false, 2 * W, window);
    float error = golden_error(hybrid[0], expected[0], L * V);
    float effect = golden_error(window[0], expected[0], L * V);
    printf("error %.1e, effect of the mixers %.2f\n", (double)error, (double)effect);
    assert_true(error < 1e-5f && effect > 0.05f);
}

static void test_mixers_leave_the_full_core_as_it_is(void **state)
{
    (void)state;
    float with[L][V], without[L][V];
    run(adapter_path, NULL, false, 0, with);
    run(NULL, NULL, false, 0, without);
    assert_true(golden_error(with[0], without[0], L * V) < 1e-5f);
}

static void test_a_lora_and_mixers_are_what_was_trained(void **state)
{
    (void)state;
    float both[L][V], swapped[L][V], mixers[L][V];
    run(lora_path, adapter_path, true, 0, both);
    run(adapter_path, lora_path, true, 0, swapped);
    run(adapter_path, NULL, true, 0, mixers);
    float error = golden_error(both[0], expected_both[0], L * V);
    float effect = golden_error(mixers[0], expected_both[0], L * V);
    printf("error %.1e, effect of the LoRA %.2f\n", (double)error, (double)effect);
    assert_true(error < 1e-5f && effect > 0.05f);
    assert_memory_equal(both, swapped, sizeof both);
}

/* Goal: a LoRA beside mixers that are not heard is the LoRA in a window of 2W, and while nothing is
 * older than W the LoRA alone. Method: the adapter with its factors of heads set to 0; the first up
 * to one rounding of merged paths (test_core_prime), the second bitwise. */
static void test_a_lora_beside_silent_mixers_is_a_window_of_2w(void **state)
{
    (void)state;
    enum { EARLY = W + CORE_SINKS_MIN };
    float silent[L][V], window[L][V], full[L][V];
    char path[] = "/tmp/eidetic-core-XXXXXX";
    base_buffer file = {0};
    base_error err = {0};
    gguf_file *gguf = NULL;
    assert_int_equal(base_file_read(adapter_path, 1 << 20, &file, &err), BASE_OK);
    assert_int_equal(gguf_open_memory("adapter", file.data, file.size, &gguf, &err), BASE_OK);
    const gguf_tensor *gate = gguf_find_tensor(gguf, "blk.1.ssm_gate");
    memset((char *)file.data + (gate->data - (const uint8_t *)file.data), 0, gate->size);
    gguf_close(gguf);
    write_file(path, &file);
    run(lora_path, path, true, 0, silent);
    run(lora_path, NULL, false, 2 * W, window);
    run(lora_path, NULL, false, 0, full);
    assert_true(golden_error(silent[0], window[0], L * V) < 1e-5f);
    assert_true(golden_error(silent[0], full[0], L * V) > 1e-3f);
    assert_memory_equal(silent, full, EARLY * V * sizeof(float));
    unlink(path);
    base_buffer_free(&file);
}

/* Goal: keys, values and states that one combination of adapters made are nobody else's. Method:
 * what names them (core_model_hash) differs, not by order; a state saved with both is refused. */
static void test_another_combination_is_another_model(void **state)
{
    (void)state;
    const char *const pairs[][2] = {{lora_path, adapter_path},
                                    {adapter_path, lora_path},
                                    {adapter_path, NULL},
                                    {lora_path, NULL},
                                    {NULL, NULL}};
    uint8_t hash[5][32];
    uint8_t *saved = NULL;
    size_t size = 0;
    for (size_t i = 0; i < 5; i++) {
        core_model *model;
        base_error err = {0};
        bool hybrid = i < 3;
        core_stream *stream = open_stream(pairs[i][0], pairs[i][1], hybrid, 0, &model);
        memcpy(hash[i], core_model_hash(model), 32);
        if (i == 0) {
            golden_run(stream, ids, L, 7, NULL);
            size = core_state_bytes(stream);
            saved = base_calloc(1, size);
            core_state_save(stream, saved);
        } else {
            base_status status = core_state_restore(stream, saved, size, &err);
            assert_int_equal(status, i == 1 ? BASE_OK : BASE_INVALID);
            assert_true(i == 1 || strstr(err.text, "another model"));
        }
        for (size_t k = 0; k < i; k++) {
            assert_true((memcmp(hash[i], hash[k], 32) == 0) == (i == 1));
        }
        core_stream_close(stream);
        core_model_close(model);
    }
    base_free(saved);
}

/* The base with these two is refused; the message must hold `what` and the second's name. */
static void refuse_pair(const char *first, const char *second, const char *what)
{
    base_error err = {0};
    core_model *model = NULL;
    assert_int_equal(
        core_model_open(base_path, (const char *const[]){first, second, NULL}, NULL, &model, &err),
        BASE_INVALID);
    assert_null(model);
    if (!strstr(err.text, what) || !strstr(err.text, second)) {
        fail_msg("'%s' lacks '%s'", err.text, what);
    }
}

static void test_pairs_that_do_not_go_together_are_refused_by_name(void **state)
{
    (void)state;
    const char *of_another = EIDETIC_SOURCE_DIR "/engine/train/reader.gguf";
    refuse_pair(adapter_path, adapter_path, "a second set of trained mixers beside");
    refuse_pair(lora_path, lora_path, "a second LoRA adapter beside");
    refuse_pair(adapter_path, of_another, "adapter for 'Smollm2 135M 8k Lc100K Mix1 Ep2'");
}

/* The adapter with its first `from` replaced by `to` (of one size, or the bytes behind `from` when
 * `behind` says how many); the message must hold `what` and the file's name. */
static void refuse(const char *from, size_t behind, const char *to, size_t to_size,
                   const char *what)
{
    base_buffer file = {0};
    base_error err = {0};
    core_model *model = NULL;
    char path[] = "/tmp/eidetic-core-XXXXXX";
    assert_int_equal(base_file_read(adapter_path, 1 << 20, &file, &err), BASE_OK);
    size_t size = strlen(from), at = 0;
    char *bytes = file.data;
    while (at + size <= file.size && memcmp(bytes + at, from, size) != 0) {
        at++;
    }
    assert_true(at + size + behind + to_size <= file.size);
    memcpy(bytes + at + behind, to, to_size);
    write_file(path, &file);
    assert_int_not_equal(
        core_model_open(base_path, (const char *const[]){path, NULL}, NULL, &model, &err), BASE_OK);
    assert_null(model);
    if (!strstr(err.text, what) || !strstr(err.text, path)) {
        fail_msg("'%s' lacks '%s'", err.text, what);
    }
    unlink(path);
    base_buffer_free(&file);
}

static void test_mixers_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    refuse("blk.1.ssm_a", 0, "blk.1.ssm_d", 11, "tensor blk.1.ssm_a is missing");
    refuse("blk.1.ssm_gate", 0, "blk.1.ssm_gait", 14, "tensor blk.1.ssm_gait is none");
    refuse("blk.1.ssm_dt", 0, "blk.0.ssm_dt", 12, "tensor blk.0.ssm_dt is none");
    refuse("blk.1.ssm_dt", 12 + 4, "\3", 1, "blk.1.ssm_dt has shape [1, 3], expected [1, 4]");
    refuse("blk.1.ssm_q.weight.lora_b", 0, "blk.1.ssm_x.weight.lora_b", 25, "one of its two");
    refuse("bmojo.ssm.kind", 14 + 4 + 8, "xyz", 3, "bmojo.ssm.kind 'xyz'");
    refuse("bmojo.layer_kinds", 0, "bmojo.layer_kindz", 17, "bmojo.layer_kinds is missing");
    refuse("eidetic.base_tensors", 20 + 4 + 8, "-", 1, "holds other weights");
}

static void test_a_hybrid_takes_no_mixers(void **state)
{
    (void)state;
    char path[512];
    base_error err = {0};
    core_model *model = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/hybrid_gdn.gguf", EIDETIC_SOURCE_DIR);
    assert_int_equal(
        core_model_open(path, (const char *const[]){adapter_path, NULL}, NULL, &model, &err),
        BASE_INVALID);
    assert_non_null(strstr(err.text, "architecture 'llama', the model is qwen3"));
}

/* Goal: the mixers and the reader that the repository keeps belong to the default model. Method: it
 * opens with them, as the hybrid that the training made. */
static void test_the_kept_adapters_fit_the_default_model(void **state)
{
    (void)state;
    char path[4096];
    base_error err = {0};
    core_model *model = NULL;
    if (!models_path(MODELS_GENERATOR, path, sizeof path)) {
        printf("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    const char *const kept[] = {EIDETIC_SOURCE_DIR "/engine/train/core.gguf",
                                EIDETIC_SOURCE_DIR "/engine/train/reader.gguf", NULL};
    assert_int_equal(core_model_open(path, kept, NULL, &model, &err), BASE_OK);
    assert_int_equal(core_model_fading_layers(model), 8);
    assert_int_equal(core_model_exact_window(model), 256);
    core_model_close(model);
}

static int set_up(void **state)
{
    (void)state;
    const char *folder = EIDETIC_SOURCE_DIR "/tests/golden";
    snprintf(base_path, sizeof base_path, "%s/core_base.gguf", folder);
    snprintf(adapter_path, sizeof adapter_path, "%s/core_adapter.gguf", folder);
    snprintf(lora_path, sizeof lora_path, "%s/core_lora.gguf", folder);
    return golden_read("core_lora", ids, expected_both) &&
                   golden_read("core_adapter", ids, expected)
               ? 0
               : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_base_with_trained_mixers_is_what_was_trained),
        cmocka_unit_test(test_mixers_leave_the_full_core_as_it_is),
        cmocka_unit_test(test_a_lora_and_mixers_are_what_was_trained),
        cmocka_unit_test(test_a_lora_beside_silent_mixers_is_a_window_of_2w),
        cmocka_unit_test(test_another_combination_is_another_model),
        cmocka_unit_test(test_pairs_that_do_not_go_together_are_refused_by_name),
        cmocka_unit_test(test_mixers_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(test_a_hybrid_takes_no_mixers),
        cmocka_unit_test(test_the_kept_adapters_fit_the_default_model),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
