/* An endless stream of text in a bounded window: memory and time per token stay where they are.
 *
 * A tiny model reads and writes far beyond its window, past every wrap; the resident set and the
 * number of allocations must not grow between the first third and the last, nor the time of the
 * fastest stretch. EIDETIC_ENDLESS_TOKENS=N runs longer, EIDETIC_ENDLESS_MODEL=FILE runs this model
 * instead (W = 1,024), EIDETIC_ENDLESS_SERIES=FILE gets "core,tokens,ms per token,resident KiB"
 * lines for eval/plot_series.py; there, a window that is not bounded is measured as well, until it
 * is full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/loop_models.h"
#include "tests/unit/loop_testing.h"

enum { W = 64, STRETCHES = 30, PIECE = 200, SAID = 8 };

typedef struct stretch {
    size_t tokens, kib;
    double ms, allocations; /* per token; of the processor */
} stretch;

static char folder[LOOP_PATH], plain[LOOP_PATH], hybrid[LOOP_PATH];
static size_t window; /* live tokens that a token sees */

/* One piece is read and some tokens are said; the tokens of both, 0 when the window is full. */
static size_t go_on(engine_session *s, base_rng *rng)
{
    char text[PIECE + 1];
    engine_answer answer;
    for (size_t i = 0; i < PIECE; i++) {
        text[i] = base_rng_below(rng, 6) ? (char)('a' + base_rng_below(rng, 26)) : ' ';
    }
    text[PIECE] = 0;
    if (engine_continue(s, text, SAID, &answer, NULL)) {
        return 0;
    }
    size_t tokens = answer.prefill_tokens + answer.decode_tokens;
    engine_answer_free(&answer);
    return tokens;
}

/* Returns the stretches that were filled. */
static size_t run_stream(engine_core core, size_t total, stretch out[STRETCHES])
{
    base_error err = {0};
    base_rng rng;
    engine *e = NULL;
    engine_session *s = NULL;
    engine_session_options options;
    engine_options opened = {.model_path = core == ENGINE_CORE_HYBRID ? hybrid : plain,
                             .core = core,
                             .window = core == ENGINE_CORE_WINDOW ? window : 0,
                             .threads = 1};
    engine_session_defaults(&options);
    options.arm = ENGINE_ARM_NONE;
    base_rng_seed(&rng, 3);
    loop_check(engine_open(&opened, &e, &err), &err);
    options.window_slots = core_model_shape(engine_model(e))->context_max;
    loop_check(engine_session_open(e, &options, &s, &err), &err);
    size_t done = 0, got = 1, count = 0;
    while (count < STRETCHES && got > 0) {
        size_t begin = done, end = (count + 1) * total / STRETCHES;
        size_t allocations = base_mem_count();
        clock_t begin_clock = clock();
        while (done < end && (got = go_on(s, &rng)) > 0) {
            done += got;
        }
        if (done > begin) {
            out[count] = (stretch){.tokens = done,
                                   .kib = loop_resident_kib(),
                                   .allocations = (double)(base_mem_count() - allocations) /
                                                  (double)(done - begin),
                                   .ms = (double)(clock() - begin_clock) * 1e3 / CLOCKS_PER_SEC /
                                         (double)(done - begin)};
            count++;
        }
    }
    engine_session_close(s);
    engine_close(e);
    return count;
}

static void write_series(engine_core core, const stretch *list, size_t count)
{
    const char *path = getenv("EIDETIC_ENDLESS_SERIES");
    FILE *file = path ? fopen(path, "a") : NULL;
    for (size_t i = 0; file && i < count; i++) {
        fprintf(file, "%s,%zu,%.5f,%zu\n", engine_core_name(core), list[i].tokens, list[i].ms,
                list[i].kib);
    }
    if (file) {
        fclose(file);
    }
}

static double fastest(const stretch *list, size_t from, size_t to)
{
    double best = list[from].ms;
    for (size_t i = from; i < to; i++) {
        best = list[i].ms < best ? list[i].ms : best;
    }
    return best;
}

static void check_flat(engine_core core, size_t total)
{
    stretch list[STRETCHES];
    const size_t third = STRETCHES / 3;
    assert_int_equal(run_stream(core, total, list), STRETCHES);
    write_series(core, list, STRETCHES);
    const stretch *early = &list[third - 1], *last = &list[STRETCHES - 1];
    double before = fastest(list, 0, third), after = fastest(list, 2 * third, STRETCHES);
    printf("%s: %zu tokens, %zu then %zu KiB resident, %.1f then %.1f us a token\n",
           engine_core_name(core), last->tokens, early->kib, last->kib, before * 1e3, after * 1e3);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* hold back what was freed */
    assert_true(last->kib <= early->kib + 512);
#endif
    double allocations = 0, more = 0;
    for (size_t i = 0; i < third; i++) {
        allocations += list[i].allocations;
        more += list[2 * third + i].allocations;
    }
    assert_true(more <= 1.1 * allocations);
    assert_true(after <= 2.5 * before); /* what grows with the stream grows much more */
}

static size_t wanted(void)
{
    const char *text = getenv("EIDETIC_ENDLESS_TOKENS");
    return text ? (size_t)strtoul(text, NULL, 10) : 60000;
}

static void test_memory_and_time_stay_flat_in_a_bounded_window(void **state)
{
    (void)state;
    check_flat(ENGINE_CORE_WINDOW, wanted());
}

static void test_memory_and_time_stay_flat_in_a_hybrid(void **state)
{
    (void)state;
    check_flat(ENGINE_CORE_HYBRID, wanted());
}

/* The same test finds that a window which is not bounded fills up. */
static void test_an_unbounded_window_ends(void **state)
{
    (void)state;
    stretch list[STRETCHES];
    size_t count = run_stream(ENGINE_CORE_FULL, wanted(), list);
    write_series(ENGINE_CORE_FULL, list, count);
    assert_true(count > 0 && count < STRETCHES);
    assert_true(list[count - 1].tokens <= 8192); /* the models' contexts */
}

static int set_up(void **state)
{
    (void)state;
    const char *model = getenv("EIDETIC_ENDLESS_MODEL");
    window = model ? 1024 : W;
    snprintf(plain, sizeof plain, "%s", model ? model : "");
    return loop_make_models(folder, plain, hybrid, window / 2);
}

static int tear_down(void **state)
{
    (void)state;
    return loop_drop_models(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_and_time_stay_flat_in_a_bounded_window),
        cmocka_unit_test(test_memory_and_time_stay_flat_in_a_hybrid),
        cmocka_unit_test(test_an_unbounded_window_ends),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
