/* Hugging Face folders against the logits that the same weights have elsewhere
 * (tests/golden/gen_folders.py), and folders that ask for what is not there. Tolerances as in
 * test_core_hybrid.c and test_core_recurrent.c.
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
#include "engine/tokenizer.h"
#include "tests/unit/golden_logits.h"

enum { V = GOLDEN_VOCABULARY, L = GOLDEN_TOKENS };

static void golden(const char *name, const char *end, char *out, size_t size)
{
    snprintf(out, size, "%s/tests/golden/%s%s", EIDETIC_SOURCE_DIR, name, end);
}

static void test_logits_of_folders_match(void **state)
{
    (void)state;
    static const char *const names[] = {"llama",      "mamba2",     "granitehybrid",
                                        "hybrid_gdn", "hybrid_gka", "hybrid_mamba2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512], below[64];
        base_error err = {0};
        core_model *model = NULL;
        core_stream *stream = NULL;
        int32_t ids[L];
        float logits[L][V], expected[L][V], error;
        assert_true(golden_read(names[i], ids, expected));
        core_stream_options options = {
            .slots_max = 64, .hybrid = true, .kv_f32 = true, .activations = KERNEL_ACT_F32};
        snprintf(below, sizeof below, "folders/%s", names[i]);
        golden(below, "", path, sizeof path);
        if (core_model_open(path, NULL, NULL, &model, &err) ||
            core_stream_open(model, &options, &stream, &err) ||
            core_run(stream, ids, L, logits[0], L, &err)) {
            fail_msg("%s", err.text);
        }
        error = golden_error(logits[0], expected[0], L * V);
        printf("%s: %.1e\n", names[i], (double)error);
        assert_true(error < (strcmp(names[i], "hybrid_gka") == 0 ? 1e-3f : 1e-5f));
        core_stream_close(stream);
        core_model_close(model);
    }
}

static void test_the_tokenizer_merges_and_keeps_special_tokens_apart(void **state)
{
    (void)state;
    char path[512];
    base_error err = {0};
    core_model *model = NULL;
    tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    golden("folders/hybrid_gdn", "", path, sizeof path);
    if (core_model_open(path, NULL, NULL, &model, &err) ||
        tokenizer_open(core_model_file(model), &t, &err) ||
        tokenizer_encode(t, "at the", 6, &ids, &count, &err)) {
        fail_msg("%s", err.text);
    }
    const int32_t expected[] = {0, 19, 29}; /* a, t, " the" */
    assert_int_equal(count, 3);
    assert_memory_equal(ids, expected, sizeof expected);
    assert_int_equal(tokenizer_special(t, "<|endoftext|>"), 40);
    assert_true(tokenizer_is_end(t, 40));
    base_free(ids);
    tokenizer_close(t);
    core_model_close(model);
}

/* The folder with `what` in one of its files replaced by `with` must be refused with this code and
 * a message that names `named`. */
static void refuse(const char *name, const char *changed, const char *what, const char *with,
                   base_status code, const char *named)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char folder[] = "/tmp/eidetic-folder-XXXXXX", from[512], to[512];
    base_error err = {0};
    core_model *model = NULL;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 3; i++) {
        base_buffer file = {0}, other = {0};
        snprintf(from, sizeof from, "%s/tests/golden/folders/%s/%s", EIDETIC_SOURCE_DIR, name,
                 files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        assert_int_equal(base_file_read(from, 1 << 20, &file, NULL), BASE_OK);
        size_t at = 0, skip = strcmp(files[i], changed) == 0 ? strlen(what) : 0;
        while (skip && memcmp(file.data + at, what, skip) != 0) {
            assert_true(++at + skip <= file.size);
        }
        base_buffer_append(&other, file.data, at);
        base_buffer_append(&other, skip ? with : "", skip ? strlen(with) : 0);
        base_buffer_append(&other, file.data + at + skip, file.size - at - skip);
        assert_int_equal(base_file_replace(to, other.data, other.size, 0644, NULL), BASE_OK);
        base_buffer_free(&file);
        base_buffer_free(&other);
    }
    base_status status = core_model_open(folder, NULL, NULL, &model, &err);
    if (status != code || !strstr(err.text, named)) {
        fail_msg("%s: %d '%s'", with, (int)status, err.text);
    }
    for (size_t i = 0; i < 3; i++) {
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        unlink(to);
    }
    rmdir(folder);
}

static void test_what_a_folder_asks_for_in_vain_is_named(void **state)
{
    (void)state;
    const char *c = "config.json", *m = "model.safetensors", *t = "tokenizer.json";
    base_status no = BASE_UNSUPPORTED, bad = BASE_CORRUPT;
    refuse("llama", c, "LlamaForCausalLM", "GemmaForCausalLM", no, "'GemmaForCausalLM'");
    refuse("hybrid_gka", c, "*-BMF", "*-BMX", no, "'BMX'");
    refuse("hybrid_gka", c, "*-BMF", "*", bad, "2 layers");
    refuse("hybrid_gka", c, "*-BMF", "*-GDN", bad, "layers.1.gdn.A_log is missing");
    refuse("hybrid_gka", c, "\"ssm_mixer\": \"gka\"", "\"ssm_mixer\": \"gkx\"", no, "'gkx'");
    refuse("hybrid_gka", c, "\"tie_attn_weights\": true", "\"tie_attn_weights\": false", no,
           "tie_attn_weights");
    refuse("hybrid_gka", c, "\"num_iter\"", "\"use_gate\": false, \"num_iter\"", no, "use_gate");
    refuse("hybrid_gdn", c, "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", no, "'yarn'");
    refuse("hybrid_gdn", c, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", bad,
           "attn_k.weight has shape");
    refuse("hybrid_gdn", m, "model.layers.1.bmojo_f.gdn.k_proj",
           "model.layers.1.bmojo_f.gdn.x_proj", bad,
           "model.layers.1.bmojo_f.gdn.k_proj.weight is missing");
    refuse("hybrid_gdn", t, "\"ByteLevel\"", "\"Metaspace\"", no, "'Metaspace'");
    refuse("granitehybrid", c, "\"num_local_experts\": 0", "\"num_local_experts\": 4", no,
           "num_local_experts");
    refuse("mamba2", c, "{", "{,", bad, "config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_of_folders_match),
        cmocka_unit_test(test_the_tokenizer_merges_and_keeps_special_tokens_apart),
        cmocka_unit_test(test_what_a_folder_asks_for_in_vain_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
