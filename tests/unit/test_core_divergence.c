/* What 8-bit activations and f16 KV cost on real text, against what they cost llama.cpp on the same
 * text and model (tests/golden/kl.bin and kl.json; gen_kl.py says how they were made). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/core.h"
#include "tests/unit/models.h"

#define GOLDEN EIDETIC_SOURCE_DIR "/tests/golden/"

static char model_path[4096];

/* Reads kl.bin front to back; every get checks the end. */
typedef struct reader {
    const uint8_t *at, *end;
} reader;

static const uint8_t *take(reader *r, size_t size)
{
    assert_true((size_t)(r->end - r->at) >= size);
    r->at += size;
    return r->at - size;
}

static uint32_t take_u32(reader *r)
{
    return base_get_u32(take(r, 4));
}

/* KL(reference || ours) at one position in nats, with all tokens outside the reference's `k` most
 * probable ones taken as one outcome. Never above the exact value (log-sum inequality). */
static double divergence(reader *r, size_t k, const float *logits, size_t vocabulary)
{
    double peak = -INFINITY, sum = 0.0;
    for (size_t i = 0; i < vocabulary; i++) {
        peak = fmax(peak, (double)logits[i]);
    }
    for (size_t i = 0; i < vocabulary; i++) {
        sum += exp((double)logits[i] - peak);
    }
    double log_sum = peak + log(sum), kl = 0.0, inside = 0.0;
    double rest = (double)base_get_f32(take(r, 4));
    const uint8_t *ids = take(r, 2 * k), *log_p = take(r, 4 * k);
    for (size_t i = 0; i < k; i++) {
        uint16_t id = base_get_u16(ids + 2 * i);
        assert_true(id < vocabulary);
        double p = (double)base_get_f32(log_p + 4 * i), q = (double)logits[id] - log_sum;
        kl += exp(p) * (p - q);
        inside += exp(q);
    }
    return kl + exp(rest) * (rest - log(fmax(1.0 - inside, 1e-30)));
}

/* Mean over all positions of kl.bin. */
static double mean_divergence(const core_model *model, base_pool *pool, bool exact)
{
    enum { BATCH = 64 };
    core_stream_options options = {.slots_max = 512,
                                   .kv_f32 = exact,
                                   .activations = exact ? KERNEL_ACT_F32 : KERNEL_ACT_Q8,
                                   .pool = pool};
    core_stream *stream = NULL;
    base_buffer file = {0};
    assert_int_equal(base_file_read(GOLDEN "kl.bin", 1 << 22, &file, NULL), BASE_OK);
    assert_int_equal(core_stream_open(model, &options, &stream, NULL), BASE_OK);
    const uint8_t *bytes = (const uint8_t *)file.data;
    reader r = {bytes, bytes + file.size};
    assert_memory_equal(take(&r, 8), "EIDKLD01", 8);
    size_t sequences = take_u32(&r), vocabulary = take_u32(&r), k = take_u32(&r), positions = 0;
    assert_int_equal(vocabulary, core_model_shape(model)->vocabulary);
    float *logits = base_calloc(BATCH * vocabulary, sizeof *logits);
    int32_t ids[512];
    double sum = 0.0;
    for (size_t s = 0; s < sequences; s++) {
        size_t count = take_u32(&r);
        assert_in_range(count, 1, 512);
        for (size_t t = 0; t < count; t++) {
            ids[t] = (int32_t)take_u32(&r);
        }
        core_stream_clear(stream);
        for (size_t t = 0; t < count; t += BATCH) {
            size_t n = count - t < BATCH ? count - t : BATCH;
            assert_int_equal(core_run(stream, ids + t, n, logits, n, NULL), BASE_OK);
            for (size_t i = 0; i < n; i++, positions++) {
                sum += divergence(&r, k, logits + i * vocabulary, vocabulary);
            }
        }
    }
    assert_true(r.at == r.end && positions >= 1500);
    base_free(logits);
    core_stream_close(stream);
    base_buffer_free(&file);
    return sum / (double)positions;
}

static void test_quantised_activations_diverge_no_more_than_in_llama_cpp(void **state)
{
    (void)state;
    json_error_t problem;
    json_t *golden = json_load_file(GOLDEN "kl.json", 0, &problem);
    json_t *figure = json_array_get(json_object_get(golden, "figures"), 0);
    double theirs = json_number_value(json_object_get(figure, "kl_mean_coarse_64"));
    assert_true(theirs > 0.0);
    core_model *model = NULL;
    base_pool *pool = NULL;
    assert_int_equal(base_pool_create(2, &pool, NULL), BASE_OK);
    assert_int_equal(core_model_open(model_path, NULL, NULL, &model, NULL), BASE_OK);
    double ours = mean_divergence(model, pool, false), exact = mean_divergence(model, pool, true);
    printf("mean KL from the float reference in nats: ours %.6f, llama.cpp %.6f, ours with f32 "
           "activations %.1e\n",
           ours, theirs, exact);
    assert_true(ours <= theirs);
    assert_true(exact < 1e-6); /* kl.bin itself is rounded to f32 */
    core_model_close(model);
    base_pool_free(pool);
    json_decref(golden);
}

int main(void)
{
    MODELS_REQUIRE(MODELS_GENERATOR, model_path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantised_activations_diverge_no_more_than_in_llama_cpp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
