/* Architectures beside llama against transformers in float64 (tests/golden/gen_architectures.py),
 * and model files that are not what they claim. Tolerance: f32 sums through two layers, relative to
 * the largest logit, as in test_core_hybrid.c.
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

#include "base/file.h"
#include "base/mem.h"
#include "engine/core.h"
#include "tests/unit/golden_logits.h"

enum { V = GOLDEN_VOCABULARY, L = GOLDEN_TOKENS };

static void read_file(const char *name, base_buffer *out)
{
    char path[512];
    base_error err = {0};
    snprintf(path, sizeof path, "%s/tests/golden/%s", EIDETIC_SOURCE_DIR, name);
    if (base_file_read(path, 1 << 20, out, &err)) {
        fail_msg("%s", err.text);
    }
}

static void test_logits_match_transformers(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2", "qwen3"};
    for (size_t i = 0; i < 2; i++) {
        base_error err = {0};
        core_model *model = golden_open(names[i]);
        core_stream *stream = NULL;
        int32_t ids[L];
        float logits[L][V], expected[L][V], error;
        core_stream_options options = {
            .slots_max = 64, .kv_f32 = true, .activations = KERNEL_ACT_F32};
        assert_true(golden_read(names[i], ids, expected));
        assert_non_null(model);
        if (core_stream_open(model, &options, &stream, &err) ||
            core_run(stream, ids, L, logits[0], L, &err)) {
            fail_msg("%s", err.text);
        }
        error = golden_error(logits[0], expected[0], L * V);
        printf("%s: %.1e\n", names[i], (double)error);
        assert_true(error < 1e-5f);
        core_stream_close(stream);
        core_model_close(model);
    }
}

static size_t find_bytes(const base_buffer *file, const char *what)
{
    size_t size = strlen(what);
    for (size_t i = 0; i + size <= file->size; i++) {
        if (memcmp(file->data + i, what, size) == 0) {
            return i;
        }
    }
    fail_msg("no '%s'", what);
    return 0;
}

/* The golden file with `what` overwritten by `with` (same length, `skip` bytes behind its begin)
 * must be refused with this code and a message that names `named`. */
static void refuse(const char *name, const char *what, size_t skip, const char *with,
                   base_status code, const char *named)
{
    base_buffer file = {0};
    base_error err = {0};
    core_model *model = NULL;
    char path[] = "/tmp/eidetic-broken-XXXXXX";
    read_file(name, &file);
    memcpy(file.data + find_bytes(&file, what) + skip, with, strlen(with));
    int out = mkstemp(path);
    assert_true(write(out, file.data, file.size) == (ssize_t)file.size && close(out) == 0);
    base_status status = core_model_open(path, NULL, NULL, &model, &err);
    if (status != code || !strstr(err.text, named)) {
        fail_msg("%s instead of %s: %d '%s'", with, what, (int)status, err.text);
    }
    unlink(path);
    base_buffer_free(&file);
}

static void test_unknown_mixers_missing_tensors_and_wrong_shapes_are_named(void **state)
{
    (void)state;
    size_t kind = strlen("bmojo.ssm.kind") + 4 + 8;
    refuse("hybrid_gdn.gguf", "bmojo.ssm.kind", kind, "gdx", BASE_UNSUPPORTED, "'gdx'");
    refuse("hybrid_gdn.gguf", "bmojo.base_architecture", strlen("bmojo.base_architecture") + 12,
           "qwenx", BASE_UNSUPPORTED, "'qwenx'");
    refuse("hybrid_gdn.gguf", "bmojo.window", 0, "bmojo.wxndow", BASE_CORRUPT, "bmojo.window");
    refuse("hybrid_gdn.gguf", "bmojo.layer_kinds", strlen("bmojo.layer_kinds") + 4 + 4 + 8, "\3",
           BASE_UNSUPPORTED, "layer 0");
    refuse("hybrid_gdn.gguf", "blk.1.ssm_conv_k.weight", 0, "blk.1.ssm_conv_x.weight", BASE_CORRUPT,
           "blk.1.ssm_conv_k.weight is missing");
    refuse("hybrid_gdn.gguf", "blk.1.ssm_a", 0, "blk.1.ssm_b", BASE_CORRUPT,
           "blk.1.ssm_a is missing");
    /* its rows, 4 instead of 32 */
    refuse("hybrid_mamba2.gguf", "blk.1.ssm_v.weight", strlen("blk.1.ssm_v.weight") + 4 + 8, "\4",
           BASE_CORRUPT, "blk.1.ssm_v.weight has shape");
    refuse("qwen2.gguf", "blk.0.attn_k.bias", 0, "blk.0.attn_k.bixs", BASE_CORRUPT,
           "blk.0.attn_k.bias is missing");
    refuse("qwen3.gguf", "blk.1.attn_q_norm.weight", 0, "blk.1.attn_x_norm.weight", BASE_CORRUPT,
           "blk.1.attn_q_norm.weight is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_transformers),
        cmocka_unit_test(test_unknown_mixers_missing_tensors_and_wrong_shapes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
