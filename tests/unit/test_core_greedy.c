/* Greedy output of the exact path (f32 activations and KV) against llama.cpp's on the same weights
 * (`float_tokens` of tests/golden/greedy.json; gen_greedy.py says how they were made).
 *
 * Method: the prompt and llama.cpp's tokens are read in one pass. When at each step our largest
 * logit is llama.cpp's token, our own greedy output is the same sequence (by induction over t).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/mem.h"
#include "engine/core.h"
#include "tests/unit/models.h"

#define IDS_MAX 256

static char model_path[4096];

static size_t append_ids(json_t *list, int32_t *ids, size_t count)
{
    assert_true(json_is_array(list) && count + json_array_size(list) <= IDS_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        ids[count + i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return count + json_array_size(list);
}

static int32_t largest(const float *logits, size_t vocabulary)
{
    size_t best = 0;
    for (size_t i = 1; i < vocabulary; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* The first step at which we would choose another token than llama.cpp, or the step count. */
static size_t first_difference(core_stream *stream, json_t *prompt, float *logits,
                               size_t vocabulary)
{
    base_error err = {0};
    int32_t ids[IDS_MAX];
    size_t start = append_ids(json_object_get(prompt, "ids"), ids, 0);
    size_t count = append_ids(json_object_get(prompt, "float_tokens"), ids, start);
    size_t steps = count - start, t = 0;
    assert_true(start >= 1 && steps == 64);
    core_stream_clear(stream);
    /* The last token is only compared with, not read. */
    if (core_run(stream, ids, count - 1, logits, steps, &err)) {
        fail_msg("%s", err.text);
    }
    while (t < steps && largest(logits + t * vocabulary, vocabulary) == ids[start + t]) {
        t++;
    }
    return t;
}

static void test_exact_greedy_output_is_that_of_llama_cpp_on_the_same_weights(void **state)
{
    (void)state;
    json_error_t problem;
    json_t *golden = json_load_file(EIDETIC_SOURCE_DIR "/tests/golden/greedy.json", 0, &problem);
    json_t *prompts = json_object_get(golden, "prompts"), *prompt;
    core_model *model = NULL;
    core_stream *stream = NULL;
    base_pool *pool = NULL;
    assert_int_equal(json_array_size(prompts), 20);
    assert_int_equal(base_pool_create(2, &pool, NULL), BASE_OK);
    assert_int_equal(core_model_open(model_path, NULL, NULL, &model, NULL), BASE_OK);
    core_stream_options options = {
        .slots_max = IDS_MAX, .kv_f32 = true, .activations = KERNEL_ACT_F32, .pool = pool};
    assert_int_equal(core_stream_open(model, &options, &stream, NULL), BASE_OK);
    size_t vocabulary = core_model_shape(model)->vocabulary, index, different = 0;
    float *logits = base_calloc(64 * vocabulary, sizeof *logits);
    json_array_foreach(prompts, index, prompt)
    {
        size_t t = first_difference(stream, prompt, logits, vocabulary);
        if (t < 64) {
            double gap = json_number_value(json_array_get(json_object_get(prompt, "float_gap"), t));
            printf("%s: first differs at step %zu, where the top two are %.4f apart\n",
                   json_string_value(json_object_get(prompt, "name")), t, gap);
            assert_true(gap <= 0.05);
            different++;
        }
    }
    printf("%zu of 20 prompts differ\n", different);
    assert_true(different <= 4);
    base_free(logits);
    core_stream_close(stream);
    core_model_close(model);
    base_pool_free(pool);
    json_decref(golden);
}

int main(void)
{
    MODELS_REQUIRE(MODELS_GENERATOR, model_path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_greedy_output_is_that_of_llama_cpp_on_the_same_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
