/* tests/gpu/test_engine_emulated.c: what `--device cuda` does to the loop, on the emulated device.
 *
 * Goal: sessions do not notice where the model runs. Method: a small model that chats (random
 * weights in f32), and a hybrid primed from it, answer on the CPU and on the device; the same store
 * and questions must give the same tokens, memories and citations. Many tokens at once go through
 * f16 tiles there, so entropies agree within 0.02 nats only; the model and the texts are such that
 * no choice is so close. A device that is lost ends the answer with a reason and leaves the store.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "tests/unit/loop_models.h"

enum { W = 24, TOKENS = 24, SHORT = 10 };

static char folder[LOOP_PATH], plain[LOOP_PATH], hybrid[LOOP_PATH];

static const char *const texts[] = {"The station dog is called Bramble.",
                                    "The ferry to Skerry Island leaves from pier seven.",
                                    "Dr Lowell keeps the spare keys in the blue cabinet."};
static const char question[] = "What is the station dog called?";

static int set_up(void **state)
{
    (void)state;
    return loop_make_models(folder, plain, hybrid, W);
}

static int tear_down(void **state)
{
    (void)state;
    return loop_drop_models(folder);
}

static void open_engine(loop *l, engine_core core, engine_device device)
{
    char encoder_path[4096];
    base_error err = {0};
    MODELS_REQUIRE(MODELS_ENCODER "/model.safetensors", encoder_path);
    models_path(MODELS_ENCODER, encoder_path, sizeof encoder_path);
    engine_options options = {.model_path = core == ENGINE_CORE_HYBRID ? hybrid : plain,
                              .encoder_path = encoder_path,
                              .core = core,
                              .window = core == ENGINE_CORE_WINDOW ? W : 0,
                              .device = device,
                              .threads = 2};
    loop_check(engine_open(&options, &l->e, &err), &err);
    assert_int_equal(engine_gpu(l->e) != NULL, device != ENGINE_DEVICE_CPU);
    l->now_us = base_time_from_civil(2025, 1, 1);
}

/* What one answer was, without times. */
typedef struct said {
    int32_t ids[TOKENS];
    float entropies[TOKENS];
    size_t count, memories, citations;
    uint64_t memory; /* the first that came in, with its share of attention */
    float mass;
} said;

static void note(const engine_answer *answer, said *out)
{
    memset(out, 0, sizeof *out);
    out->citations = answer->citation_count;
    for (size_t i = 0; i < answer->token_count; i++) {
        if (answer->tokens[i].answer) {
            assert_in_range(out->count, 0, TOKENS - 1);
            out->ids[out->count] = answer->tokens[i].id;
            out->entropies[out->count++] = answer->tokens[i].entropy_nats;
        }
    }
    for (size_t i = 0; i < answer->event_count; i++) {
        const engine_event *event = &answer->events[i];
        if (out->memories == 0 && event->memory_count > 0) {
            out->memory = event->memories[0].id;
            out->mass = event->memories[0].attention_mass;
        }
        out->memories += event->memory_count;
    }
    assert_true(out->count > 0);
}

static void compare(const said *cpu, const said *device)
{
    assert_int_equal(cpu->count, device->count);
    for (size_t i = 0; i < cpu->count; i++) {
        assert_int_equal(cpu->ids[i], device->ids[i]);
        assert_true(fabsf(cpu->entropies[i] - device->entropies[i]) < 0.02f);
    }
    assert_int_equal(cpu->memories, device->memories);
    assert_int_equal(cpu->citations, device->citations);
    assert_int_equal(cpu->memory, device->memory);
    assert_true(fabsf(cpu->mass - device->mass) < 0.01f);
}

static void generate(engine_core core, engine_device device, said *out)
{
    loop l = {0};
    base_error err = {0};
    engine_session_options options;
    engine_answer answer;
    open_engine(&l, core, device);
    engine_session_defaults(&options);
    options.window_slots = 512;
    engine_session *s = loop_session(&l, ENGINE_ARM_NONE, &options);
    loop_check(engine_generate(s, "The harbour of Skerry Island lies open to the west, and so ",
                               TOKENS, &answer, &err),
               &err);
    note(&answer, out);
    engine_answer_free(&answer);
    engine_session_close(s);
    engine_close(l.e);
}

static void test_generate_says_the_same_with_every_core(void **state)
{
    const engine_core cores[] = {ENGINE_CORE_FULL, ENGINE_CORE_WINDOW, ENGINE_CORE_HYBRID};
    (void)state;
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        said cpu, device;
        generate(cores[i], ENGINE_DEVICE_CPU, &cpu);
        generate(cores[i], ENGINE_DEVICE_CUDA, &device);
        compare(&cpu, &device);
    }
}

static engine_session *open_session(loop *l)
{
    engine_session_options options;
    engine_session_defaults(&options);
    options.window_slots = 1024;
    options.score_min = 0.2f;
    return loop_session(l, ENGINE_ARM_FULL, &options);
}

static engine_session *open_asking(loop *l, engine_core core, engine_device device)
{
    open_engine(l, core, device);
    loop_open_store(l);
    loop_ingest(l, NULL, texts, sizeof texts / sizeof *texts);
    return open_session(l);
}

static void close_asking(loop *l, engine_session *s)
{
    engine_session_close(s);
    loop_close_store(l);
    engine_close(l->e);
}

/* A question; of a hybrid, its state then goes into another session, which answers the next one as
 * the first does. */
static void ask(engine_core core, engine_device device, said out[2])
{
    loop l = {0};
    base_error err = {0};
    base_buffer kept = {0};
    engine_answer answer;
    said again;
    engine_session *s = open_asking(&l, core, device);
    loop_check(engine_ask(s, question, SHORT, &answer, &err), &err);
    note(&answer, &out[0]);
    engine_answer_free(&answer);
    out[1] = out[0];
    if (core == ENGINE_CORE_HYBRID) {
        engine_session_write(s);
        loop_check(engine_session_save(s, &kept, &err), &err);
        engine_session *other = open_session(&l);
        loop_check(engine_session_restore(other, kept.data, kept.size, &err), &err);
        loop_check(engine_ask(s, "Where are the spare keys?", SHORT, &answer, &err), &err);
        note(&answer, &out[1]);
        engine_answer_free(&answer);
        loop_check(engine_ask(other, "Where are the spare keys?", SHORT, &answer, &err), &err);
        note(&answer, &again);
        engine_answer_free(&answer);
        assert_memory_equal(&out[1], &again, sizeof again); /* bit for bit, on one device */
        engine_session_close(other);
        base_buffer_free(&kept);
    }
    close_asking(&l, s);
}

static void test_ask_splices_the_same_memories(void **state)
{
    const engine_core cores[] = {ENGINE_CORE_FULL, ENGINE_CORE_HYBRID};
    (void)state;
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        said cpu[2], device[2];
        ask(cores[i], ENGINE_DEVICE_CPU, cpu);
        ask(cores[i], ENGINE_DEVICE_CUDA, device);
        assert_true(cpu[0].memories > 0 && cpu[0].mass > 0);
        compare(&cpu[0], &device[0]);
        compare(&cpu[1], &device[1]);
    }
}

static void test_a_lost_device_ends_the_answer_and_leaves_the_store(void **state)
{
    (void)state;
    loop l = {0};
    base_error err = {0};
    engine_answer answer = {0};
    engine_session *s = open_asking(&l, ENGINE_CORE_FULL, ENGINE_DEVICE_CUDA);
    uint64_t commit = store_last_commit(l.store);
    setenv("GPU_EMULATE_LOST_AFTER", "60", 1);
    assert_int_equal(engine_ask(s, question, TOKENS, &answer, &err), BASE_DEVICE);
    engine_answer_free(&answer);
    printf("%s\n", err.text);
    assert_non_null(strstr(err.text, "GPU: "));
    err = (base_error){0};
    unsetenv("GPU_EMULATE_LOST_AFTER"); /* that it comes back does not help this session */
    assert_int_equal(engine_ask(s, question, TOKENS, &answer, &err), BASE_DEVICE);
    engine_answer_free(&answer);
    engine_session_write(s);
    assert_int_equal(store_last_commit(l.store), commit);
    /* A new session on the same store answers. */
    engine_session *fresh = open_session(&l);
    loop_check(engine_ask(fresh, question, 4, &answer, &err), &err);
    engine_answer_free(&answer);
    engine_session_close(fresh);
    close_asking(&l, s);
}

static void test_a_device_lost_under_a_batch_breaks_its_streams_only(void **state)
{
    (void)state;
    loop l = {0};
    base_error err = {0};
    core_stream *streams[3];
    core_step steps[8 * 2];
    core_batch *batch = NULL;
    const int32_t tokens[] = {1, 2, 3};
    open_engine(&l, ENGINE_CORE_HYBRID, ENGINE_DEVICE_CUDA);
    const core_stream_options options = {
        .slots_max = 64, .batch_max = 32, .hybrid = true, .device = engine_gpu(l.e)};
    for (size_t i = 0; i < 3; i++) {
        loop_check(core_stream_open(engine_model(l.e), &options, &streams[i], &err), &err);
        loop_check(core_run(streams[i], tokens, 3, NULL, 0, &err), &err);
    }
    loop_check(core_batch_open(streams, 2, &batch, &err), &err);
    loop_check(core_batch_greedy(batch, tokens, 4, steps, &err), &err);
    setenv("GPU_EMULATE_LOST_AFTER", "50", 1);
    assert_int_equal(core_batch_greedy(batch, tokens, 8, steps, &err), BASE_DEVICE);
    assert_non_null(strstr(err.text, "GPU: "));
    unsetenv("GPU_EMULATE_LOST_AFTER");
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(core_slots(streams[i]), 3 + 4); /* what was kept before */
        assert_int_equal(core_run(streams[i], tokens, 1, NULL, 0, &err), BASE_DEVICE);
    }
    assert_int_equal(core_batch_greedy(batch, tokens, 1, steps, &err), BASE_DEVICE);
    loop_check(core_run(streams[2], tokens, 1, NULL, 0, &err), &err);
    core_batch_close(batch);
    for (size_t i = 0; i < 3; i++) {
        core_stream_close(streams[i]);
    }
    engine_close(l.e);
}

static void test_what_a_device_cannot_do_is_refused_by_name(void **state)
{
    (void)state;
    engine *e = NULL;
    base_error err = {0};
    engine_options options = {
        .model_path = plain, .device = ENGINE_DEVICE_CUDA, .reference = true, .threads = 1};
    assert_int_equal(engine_open(&options, &e, &err), BASE_UNSUPPORTED);
    assert_non_null(strstr(err.text, "CPU"));
    options.device = ENGINE_DEVICE_AUTO; /* falls back */
    loop_check(engine_open(&options, &e, &err), &err);
    assert_null(engine_gpu(e));
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generate_says_the_same_with_every_core),
        cmocka_unit_test(test_ask_splices_the_same_memories),
        cmocka_unit_test(test_a_lost_device_ends_the_answer_and_leaves_the_store),
        cmocka_unit_test(test_a_device_lost_under_a_batch_breaks_its_streams_only),
        cmocka_unit_test(test_what_a_device_cannot_do_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
