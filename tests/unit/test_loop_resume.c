/* A conversation that another process takes up behind a turn goes on bit for bit as if nothing had
 * happened: with every core, on a tiny model (random weights, a hybrid primed from it), a store and
 * seeded sampling. The first process is killed in the middle of the next turn. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "engine/model.h"
#include "store/sessions.h"
#include "tests/unit/loop_models.h"
#include "tests/unit/loop_testing.h"

enum { W = 24, TOKENS = 14, TURNS = 6, KEPT = 4 };

static const char *const texts[] = {
    "The caretaker of Brindle Hall is Osric Penhallow.",
    "The ferry to Skerry Island leaves from pier seven.",
    "Dr Lowell keeps the spare keys in the blue cabinet.",
    "The winner of the Ambleford chess open was Ravi Sundaram.",
};
static const char *const questions[TURNS] = {
    "Who is the caretaker of Brindle Hall?",     "Where does the ferry to Skerry Island leave?",
    "Where does Dr Lowell keep the spare keys?", "Who won the Ambleford chess open?",
    "Who takes care of Brindle Hall?",           "From which pier does one go to Skerry Island?",
};
enum { FACTS = sizeof texts / sizeof *texts };

static char folder[LOOP_PATH], plain[LOOP_PATH], hybrid[LOOP_PATH];

static void open_engine(loop *l, engine_core core)
{
    char encoder_path[4096];
    base_error err = {0};
    MODELS_REQUIRE(MODELS_ENCODER "/model.safetensors", encoder_path);
    models_path(MODELS_ENCODER, encoder_path, sizeof encoder_path);
    engine_options options = {.model_path = core == ENGINE_CORE_HYBRID ? hybrid : plain,
                              .encoder_path = encoder_path,
                              .core = core,
                              .window = core == ENGINE_CORE_WINDOW ? W : 0,
                              .threads = 2};
    loop_check(engine_open(&options, &l->e, &err), &err);
    l->now_us = base_time_from_civil(2025, 1, 1);
}

static engine_session *open_session(loop *l)
{
    engine_session_options options;
    engine_session_defaults(&options);
    options.no_names = true; /* as many memories as come, so that tokens leave the window */
    options.sampling.temperature = 0.8f;
    options.sampling.seed = 5;
    options.keep_writes = true;
    options.score_min = 0.1f;
    options.score_share = 0; /* many memories: tokens leave the bounded window */
    return loop_session(l, ENGINE_ARM_FULL, &options);
}

static void ask(engine_session *s, size_t turn, engine_answer *answer)
{
    base_error err = {0};
    loop_check(engine_ask(s, questions[turn], TOKENS, answer, &err), &err);
    engine_session_write(s);
}

static void save(engine_session *s, base_buffer *out)
{
    base_error err = {0};
    loop_check(engine_session_save(s, out, &err), &err);
}

/* Ask from turn `from` on; the answers and, at the end, the whole session go to out. */
static void converse(engine_session *s, size_t from, base_buffer *out)
{
    for (size_t turn = from; turn < TURNS; turn++) {
        engine_answer answer;
        size_t memories = 0;
        ask(s, turn, &answer);
        for (size_t i = 0; i < answer.event_count; i++) {
            memories += answer.events[i].memory_count;
        }
        assert_true(memories > 0);
        for (size_t i = 0; i < answer.token_count; i++) {
            const engine_token *t = &answer.tokens[i];
            base_buffer_append(out, &t->id, sizeof t->id);
            base_buffer_append(out, &t->surprise_nats, sizeof t->surprise_nats);
            base_buffer_append(out, &t->entropy_nats, sizeof t->entropy_nats);
        }
        base_buffer_append(out, answer.text, strlen(answer.text));
        engine_answer_free(&answer);
    }
    save(s, out);
}

/* Runs in a process of its own, and dies while it answers. */
static void die_in_a_turn(const char *store_folder, engine_core core)
{
    loop l = {0};
    base_error err = {0};
    store_options options = {0};
    open_engine(&l, core);
    loop_check(store_open(store_folder, &options, &l.store, &err), &err);
    loop_check(retrieval_open(l.store, encoder_dim(engine_encoder(l.e)), &l.retrieval, &err), &err);
    engine_session *s = open_session(&l);
    uint64_t since = store_last_commit(l.store);
    for (size_t turn = 0; turn < KEPT; turn++) {
        engine_answer answer;
        base_buffer state = {0};
        ask(s, turn, &answer);
        engine_answer_free(&answer);
        save(s, &state);
        loop_check(store_session_put(l.store, "t", turn + 1, since, state.data, state.size, &err),
                   &err);
        base_buffer_free(&state);
    }
    engine_answer answer;
    loop_check(engine_ask(s, questions[KEPT], TOKENS, &answer, &err), &err);
    raise(SIGKILL);
}

/* No engine (and so no thread) is open here when it forks. */
static void kill_a_process(const char *store_folder, engine_core core)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        die_in_a_turn(store_folder, core);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void make_store(loop *l, engine_core core)
{
    open_engine(l, core);
    loop_open_store(l);
    loop_ingest(l, NULL, texts, FACTS);
}

/* Returns the size of the state. */
static size_t check_core(engine_core core)
{
    base_buffer once = {0}, again = {0}, state = {0};
    base_error err = {0};
    loop a = {0}, b = {0};
    make_store(&a, core);
    engine_session *s = open_session(&a);
    for (size_t turn = 0; turn < KEPT; turn++) {
        engine_answer answer;
        ask(s, turn, &answer);
        engine_answer_free(&answer);
    }
    converse(s, KEPT, &once);
    engine_session_close(s);
    loop_close_store(&a);
    engine_close(a.e);

    make_store(&b, core);
    retrieval_close(b.retrieval);
    store_close(b.store);
    engine_close(b.e);
    kill_a_process(b.folder, core);
    store_options options = {0};
    open_engine(&b, core);
    loop_check(store_open(b.folder, &options, &b.store, &err), &err);
    loop_check(retrieval_open(b.store, encoder_dim(engine_encoder(b.e)), &b.retrieval, &err), &err);
    s = open_session(&b);
    loop_check(store_session_get(b.store, "t", KEPT, &state, &err), &err);
    loop_check(engine_session_restore(s, state.data, state.size, &err), &err);
    converse(s, KEPT, &again);
    printf("%s: %zu bytes of a state, %zu compared\n", engine_core_name(core), state.size,
           once.size);
    assert_int_equal(once.size, again.size);
    assert_memory_equal(once.data, again.data, once.size);
    engine_session_close(s);
    loop_close_store(&b);
    engine_close(b.e);
    base_buffer_free(&once);
    base_buffer_free(&again);
    size_t size = state.size;
    base_buffer_free(&state);
    return size;
}

static void test_a_killed_conversation_goes_on_bit_for_bit(void **state)
{
    (void)state;
    size_t full = check_core(ENGINE_CORE_FULL);
    assert_true(check_core(ENGINE_CORE_WINDOW) < full); /* tokens have left */
    check_core(ENGINE_CORE_HYBRID);
}

static base_status restore(engine_session *s, const base_buffer *state, size_t size)
{
    base_error err = {0};
    base_status status = engine_session_restore(s, state->data, size, &err);
    assert_true((status == BASE_OK) == (err.text[0] == 0));
    return status;
}

static void test_a_state_of_another_model_or_core_is_refused(void **state)
{
    (void)state;
    base_buffer kept = {0};
    engine_answer answer;
    loop l = {0}, other = {0};
    make_store(&l, ENGINE_CORE_WINDOW);
    engine_session *s = open_session(&l);
    ask(s, 0, &answer);
    engine_answer_free(&answer);
    save(s, &kept);
    assert_int_equal(restore(s, &kept, kept.size), BASE_OK);
    for (size_t size = 0; size < kept.size; size += 1 + kept.size / 50) {
        assert_int_equal(restore(s, &kept, size), BASE_CORRUPT);
    }
    kept.data[8]++;
    assert_int_equal(restore(s, &kept, kept.size), BASE_VERSION);
    kept.data[8]--;
    kept.data[kept.size / 2] ^= 1;
    assert_int_equal(restore(s, &kept, kept.size), BASE_CORRUPT);
    kept.data[kept.size / 2] ^= 1;
    /* A session that refused begins anew. */
    ask(s, 1, &answer);
    engine_answer_free(&answer);
    engine_session_close(s);
    other.store = l.store;
    other.retrieval = l.retrieval;
    for (int i = 0; i < 2; i++) {
        open_engine(&other, i ? ENGINE_CORE_HYBRID : ENGINE_CORE_FULL);
        s = open_session(&other);
        assert_int_equal(restore(s, &kept, kept.size), BASE_INVALID);
        engine_session_close(s);
        engine_close(other.e);
    }
    loop_close_store(&l);
    engine_close(l.e);
    base_buffer_free(&kept);
}

/* An answer that was said twice in a row, or holds nothing, leaves with all turns. */
static void test_what_would_be_said_again_leaves(void **state)
{
    (void)state;
    static const struct {
        const char *said;
        bool dropped;
    } turns[] = {{" A tin box.", false}, {" At noon.", false}, {" At noon.", true},
                 {" At noon.", true},    {"", true},           {" A tin box.", false}};
    loop l = {0};
    engine_session_options options;
    base_error err = {0};
    open_engine(&l, ENGINE_CORE_WINDOW);
    engine_session_defaults(&options);
    engine_session *s = loop_session(&l, ENGINE_ARM_NONE, &options);
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        engine_answer answer;
        loop_check(engine_force(s, questions[i], turns[i].said, NULL, NULL, &answer, &err), &err);
        assert_int_equal(answer.turns_dropped, turns[i].dropped);
        engine_answer_free(&answer);
    }
    engine_session_close(s);
    engine_close(l.e);
}

/* What was said, read again, is what was said: without memory there is no difference. */
static void test_a_replayed_conversation_is_the_same_without_memory(void **state)
{
    (void)state;
    static const char *const said[] = {" A tin box.", " At noon."};
    base_buffer once = {0}, again = {0};
    base_error err = {0};
    for (int replayed = 0; replayed < 2; replayed++) {
        loop l = {0};
        engine_session_options options;
        engine_answer answer;
        open_engine(&l, ENGINE_CORE_FULL);
        engine_session_defaults(&options);
        engine_session *s = loop_session(&l, ENGINE_ARM_NONE, &options);
        for (size_t turn = 0; turn < 2; turn++) {
            if (replayed) {
                loop_check(engine_replay(s, questions[turn], said[turn], &err), &err);
            } else {
                loop_check(engine_force(s, questions[turn], said[turn], NULL, NULL, &answer, &err),
                           &err);
                engine_answer_free(&answer);
            }
        }
        loop_check(engine_ask(s, questions[2], TOKENS, &answer, &err), &err);
        base_buffer *out = replayed ? &again : &once;
        for (size_t i = 0; i < answer.token_count; i++) {
            if (answer.tokens[i].answer) {
                base_buffer_append(out, &answer.tokens[i].entropy_nats, sizeof(float));
            }
        }
        assert_true(out->size > 0);
        engine_answer_free(&answer);
        engine_session_close(s);
        engine_close(l.e);
    }
    assert_int_equal(once.size, again.size);
    assert_memory_equal(once.data, again.data, once.size);
    base_buffer_free(&once);
    base_buffer_free(&again);
}

static int set_up(void **state)
{
    (void)state;
    return loop_make_models(folder, plain, hybrid, 48);
}

static int tear_down(void **state)
{
    (void)state;
    return loop_drop_models(folder);
}

/* Memories that enter the states of mixers: the answers of the same questions differ, and what
 * cannot be done with it is refused. */
static void test_a_session_with_memories_in_its_states(void **state)
{
    (void)state;
    loop l = {0};
    base_error err = {0};
    float surprise[CORE_SPLICE_COUNT];
    engine_session_options options;
    engine_session *refused = NULL;
    open_engine(&l, ENGINE_CORE_HYBRID);
    for (size_t i = 0; i < core_model_shape(engine_model(l.e))->layers; i++) {
        core_fading *f = engine_model(l.e)->layers[i].fading;
        if (f) {
            f->mixer.gate = NULL; /* a primed one is not heard */
        }
    }
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    for (core_splice_state how = CORE_SPLICE_NONE; how < CORE_SPLICE_COUNT; how++) {
        engine_answer answer;
        base_buffer saved = {0};
        engine_session_defaults(&options);
        options.splice_state = how;
        options.score_min = 0.1f;
        engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
        for (size_t turn = 0; turn < TURNS; turn++) {
            ask(s, turn, &answer);
            surprise[how] = answer.tokens[answer.token_count - 1].surprise_nats;
            engine_answer_free(&answer);
        }
        for (size_t i = 0; i < (size_t)how; i++) {
            assert_true(surprise[i] != surprise[how]);
        }
        if (how != CORE_SPLICE_NONE) {
            assert_int_equal(engine_session_save(s, &saved, &err), BASE_UNSUPPORTED);
            options.splice_state = CORE_SPLICE_NONE;
            assert_int_equal(engine_session_restart(s, &options, &err), BASE_INVALID);
        }
        engine_session_close(s);
    }
    engine_close(l.e);
    open_engine(&l, ENGINE_CORE_WINDOW);
    options.splice_state = CORE_SPLICE_REPLAY;
    assert_int_equal(engine_session_open(l.e, &options, &refused, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "plain.gguf: no layer has a recurrent state"));
    loop_close_store(&l);
    engine_close(l.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_conversation_goes_on_bit_for_bit),
        cmocka_unit_test(test_a_state_of_another_model_or_core_is_refused),
        cmocka_unit_test(test_what_would_be_said_again_leaves),
        cmocka_unit_test(test_a_replayed_conversation_is_the_same_without_memory),
        cmocka_unit_test(test_a_session_with_memories_in_its_states),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
