/* A primed, untrained hybrid of window W is attention over sinks and the last 2W tokens of the
 * original, and the original itself while nothing is older than W: on a random model with every
 * mixer, and on the default model.
 *
 * Tolerance: the two differ in one rounding of the merge of paths per layer and head; 1e-5 of the
 * largest logit is some ten times what was seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/core.h"
#include "engine/prime.h"
#include "tests/unit/models.h"
#include "tests/unit/tiny_model.h"

static base_pool *pool;

static void check(base_status status, const base_error *err)
{
    if (status) {
        fail_msg("%s", err->text);
    }
}

static core_model *open_model(const char *path)
{
    core_model *model = NULL;
    base_error err = {0};
    check(core_model_open(path, NULL, NULL, &model, &err), &err);
    return model;
}

/* Logits [count, V] of a stream over model. */
static float *run(const core_model *model, bool hybrid, size_t window, const int32_t *ids,
                  size_t count)
{
    core_stream_options options = {.slots_max = window || hybrid ? 64 : count,
                                   .window = window,
                                   .hybrid = hybrid,
                                   .kv_f32 = true,
                                   .activations = KERNEL_ACT_F32,
                                   .pool = pool};
    core_stream *stream = NULL;
    base_error err = {0};
    float *logits = base_calloc(count, core_model_shape(model)->vocabulary * sizeof *logits);
    check(core_stream_open(model, &options, &stream, &err), &err);
    check(core_run(stream, ids, count, logits, count, &err), &err);
    core_stream_close(stream);
    return logits;
}

static float relative(const float *a, const float *b, size_t count)
{
    float worst = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        worst = fmaxf(worst, fabsf(a[i] - b[i]));
        largest = fmaxf(largest, fabsf(b[i]));
    }
    return worst / largest;
}

static void compare(const core_model *original, const core_model *hybrid, size_t window,
                    const int32_t *ids, size_t count)
{
    size_t row = core_model_shape(original)->vocabulary, early = window + CORE_SINKS_MIN;
    float *full = run(original, false, 0, ids, count);
    float *bounded = run(original, false, 2 * window, ids, count);
    float *primed = run(hybrid, true, 0, ids, count);
    float error = relative(primed, bounded, count * row);
    printf("against a window of 2W: %.1e\n", (double)error);
    assert_memory_equal(full, primed, early * row * sizeof *full);
    assert_true(error < 1e-5f);
    assert_true(relative(primed, full, count * row) > 1e-3f); /* beyond 2W the window is felt */
    base_free(full);
    base_free(bounded);
    base_free(primed);
}

static void draw(int32_t *ids, size_t count, size_t below, uint64_t seed)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)base_rng_below(&rng, below);
    }
}

static void test_a_random_model_primed_with_every_mixer_is_a_window_of_2w(void **state)
{
    (void)state;
    enum { W = 10, COUNT = 300 };
    int32_t ids[COUNT];
    draw(ids, COUNT, TINY_V, 31);
    for (int kind = 0; kind < MIXER_KIND_COUNT; kind++) {
        tiny_model tiny;
        base_error err = {0};
        char path[sizeof tiny.path + 8];
        tiny_begin(&tiny, 32);
        tiny_write(&tiny, "llama");
        snprintf(path, sizeof path, "%s.hybrid", tiny.path);
        prime_options options = {.window = W, .mixer = (mixer_kind)kind};
        check(prime_model(tiny.path, path, &options, &err), &err);
        core_model *original = open_model(tiny.path), *hybrid = open_model(path);
        assert_int_equal(core_model_fading_layers(hybrid), 1);
        assert_int_equal(core_model_exact_window(hybrid), W);
        compare(original, hybrid, W, ids, COUNT);
        core_model_close(hybrid);
        /* Twice is refused, as is a layer that is not there. */
        assert_int_equal(prime_model(path, path, &options, &err), BASE_INVALID);
        options.layers = (const bool[]){false, false, true};
        options.layer_count = 3;
        assert_int_equal(prime_model(tiny.path, path, &options, &err), BASE_INVALID);
        core_model_close(original);
        unlink(path);
        tiny_end(&tiny);
    }
}

static void test_the_default_model_primed_is_a_window_of_2w(void **state)
{
    (void)state;
    enum { W = 24, COUNT = 128 };
    char from[4096], to[64] = "/tmp/eidetic-prime-XXXXXX";
    int32_t ids[COUNT];
    base_error err = {0};
    prime_options options = {.window = W, .mixer = MIXER_GDN};
    if (!models_path(MODELS_GENERATOR, from, sizeof from)) {
        skip();
    }
    assert_true(close(mkstemp(to)) == 0);
    check(prime_model(from, to, &options, &err), &err);
    core_model *original = open_model(from), *hybrid = open_model(to);
    draw(ids, COUNT, 40000, 33);
    compare(original, hybrid, W, ids, COUNT);
    core_model_close(original);
    core_model_close(hybrid);
    unlink(to);
}

static int set_up(void **state)
{
    (void)state;
    return base_pool_create(2, &pool, NULL) ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    base_pool_free(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_random_model_primed_with_every_mixer_is_a_window_of_2w),
        cmocka_unit_test(test_the_default_model_primed_is_a_window_of_2w),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
