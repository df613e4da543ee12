/* What a splice promises (semantics §5): it equals the text in the prompt, disk equals computed, an
 * empty store changes nothing, and a memory's own keys and values carry the answer while another's
 * do not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "engine/splice.h"
#include "tests/unit/loop_testing.h"

static loop l;

static const char *const texts[] = {
    "The caretaker of Brindle Hall is Osric Penhallow.",
    "The caretaker of Foxmoor Lodge is Tamsin Quill.",
    "The ferry to Skerry Island leaves from pier seven.",
    "Dr Lowell keeps the spare keys in the blue cabinet.",
    "The winner of the Ambleford chess open was Ravi Sundaram.",
    "The observatory on Mount Kestrel opened in 1937.",
};
static const char *const questions[] = {
    "Who is the caretaker of Brindle Hall?",
    "Who is the caretaker of Foxmoor Lodge?",
    "From which pier does the ferry to Skerry Island leave?",
    "Where does Dr Lowell keep the spare keys?",
    "Who won the Ambleford chess open?",
    "In which year did the observatory on Mount Kestrel open?",
};
static const char *const answers[] = {" Osric Penhallow", " Tamsin Quill",  " pier seven",
                                      " blue cabinet",    " Ravi Sundaram", " 1937"};
enum { FACTS = sizeof texts / sizeof *texts };

/* Logits before the first answer token. */
typedef struct first_logits {
    float *logits;
    size_t vocabulary;
} first_logits;

static int32_t keep_first(void *argument, size_t index, int32_t token, const float *logits,
                          size_t vocabulary)
{
    first_logits *first = argument;
    if (index == 0) {
        first->vocabulary = vocabulary;
        first->logits = base_realloc(first->logits, vocabulary * sizeof *logits);
        memcpy(first->logits, logits, vocabulary * sizeof *logits);
    }
    return token;
}

static void force(engine_session *s, size_t fact, engine_look *look, void *argument,
                  engine_answer *answer)
{
    base_error err = {0};
    loop_check(engine_force(s, questions[fact], answers[fact], look, argument, answer, &err), &err);
}

static double nll_of(const engine_answer *answer)
{
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < answer->token_count; i++) {
        if (answer->tokens[i].answer) {
            sum += (double)answer->tokens[i].surprise_nats;
            count++;
        }
    }
    return sum / (double)count;
}

static void test_layout_b_with_one_memory_equals_the_text_in_the_prompt(void **state)
{
    (void)state;
    float worst = 0;
    loop exact = l; /* with f16 on disk; what 8 bits change: test_loop_kv.c */
    loop_open_engine_as(&exact, ENGINE_CORE_FULL, 0, KVBLOB_F16);
    for (size_t fact = 0; fact < FACTS; fact++) {
        first_logits first[2] = {{0}};
        const engine_arm arms[2] = {ENGINE_ARM_FULL, ENGINE_ARM_PROMPT};
        for (int i = 0; i < 2; i++) {
            engine_session_options options;
            engine_answer answer;
            engine_session_defaults(&options);
            options.memories_max = 1;
            options.score_min = 0;
            options.notes_plain = true;
            options.no_follow = true; /* the last event is the question's */
            engine_session *s = loop_session(&exact, arms[i], &options);
            force(s, fact, keep_first, &first[i], &answer);
            assert_int_equal(answer.events[answer.event_count - 1].memory_count, 1);
            engine_answer_free(&answer);
            engine_session_close(s);
        }
        for (size_t v = 0; v < first[0].vocabulary; v++) {
            worst = fmaxf(worst, fabsf(first[0].logits[v] - first[1].logits[v]));
        }
        base_free(first[0].logits);
        base_free(first[1].logits);
    }
    engine_close(exact.e);
    printf("max abs logit difference, splice against prompt: %.2e\n", (double)worst);
    assert_true(worst <= 1e-3f);
}

static void test_kv_from_disk_gives_the_bits_of_kv_computed(void **state)
{
    (void)state;
    first_logits first[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        engine_session_options options;
        engine_answer answer;
        engine_session_defaults(&options);
        options.keep_writes = true;
        options.score_min = 0;
        engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
        force(s, 2, keep_first, &first[i], &answer);
        const engine_event *event = &answer.events[answer.event_count - 1];
        assert_true(event->memory_count > 0);
        for (size_t m = 0; m < event->memory_count; m++) {
            assert_int_equal(event->memories[m].kv, i ? ENGINE_KV_DISK : ENGINE_KV_COMPUTED);
        }
        engine_session_write(s);
        engine_answer_free(&answer);
        engine_session_close(s);
    }
    assert_memory_equal(first[0].logits, first[1].logits,
                        first[0].vocabulary * sizeof *first[0].logits);
    base_free(first[0].logits);
    base_free(first[1].logits);
}

static void test_an_empty_store_gives_plain_generation_token_for_token(void **state)
{
    (void)state;
    base_error err = {0};
    loop empty = l;
    char *said[2];
    loop_open_store(&empty);
    for (int i = 0; i < 2; i++) {
        engine_session_options options;
        engine_answer answer;
        engine_session_defaults(&options);
        options.may_abstain = true;
        engine_session *s = loop_session(&empty, i ? ENGINE_ARM_FULL : ENGINE_ARM_NONE, &options);
        loop_check(engine_ask(s, "What is the capital of France?", 24, &answer, &err), &err);
        assert_false(answer.abstained);
        said[i] = base_strdup(answer.text);
        engine_answer_free(&answer);
        loop_check(engine_generate(s, "The three primary colours are", 24, &answer, &err), &err);
        size_t size = strlen(said[i]) + strlen(answer.text) + 1;
        char *both = base_alloc(size);
        snprintf(both, size, "%s%s", said[i], answer.text);
        base_free(said[i]);
        said[i] = both;
        engine_answer_free(&answer);
        engine_session_close(s);
    }
    assert_string_equal(said[0], said[1]);
    base_free(said[0]);
    base_free(said[1]);
    loop_close_store(&empty);
}

/* Controls (ii) and (iii) in short form: own KV, another episode's KV, none. The long form is the
 * evaluation on mquake. */
static void test_own_keys_and_values_carry_the_answer_and_anothers_do_not(void **state)
{
    (void)state;
    double nll[3] = {0};
    for (size_t fact = 0; fact < FACTS; fact++) {
        for (int i = 0; i < 3; i++) {
            engine_session_options options;
            engine_answer answer;
            uint64_t id = 1 + (i == 1 ? (fact + 2) % FACTS : fact);
            engine_session_defaults(&options);
            options.oracle = &id;
            options.oracle_count = 1;
            engine_session *s =
                loop_session(&l, i == 2 ? ENGINE_ARM_NONE : ENGINE_ARM_ORACLE, &options);
            force(s, fact, NULL, NULL, &answer);
            nll[i] += nll_of(&answer) / FACTS;
            engine_answer_free(&answer);
            engine_session_close(s);
        }
    }
    printf("answer nats per token: own memory %.2f, another's %.2f, none %.2f\n", nll[0], nll[1],
           nll[2]);
    assert_true(nll[0] + 1.0 < nll[2]);
    assert_true(nll[1] > nll[2] - 0.5);
}

/* A session that has answered, abstained and written text, restarted, against a fresh one: logits,
 * text and trace. */
static void check_restarts(loop *of, const engine_arm *arms, size_t count)
{
    base_error err = {0};
    engine_session *used = NULL;
    for (size_t i = 0; i < count; i++) {
        first_logits first[2] = {{0}};
        engine_answer forced[2], free_text[2];
        for (int again = 0; again < 2; again++) {
            engine_session_options options;
            engine_session_defaults(&options);
            options.trigger = i == 0 ? ENGINE_TRIGGER_RANDOM : ENGINE_TRIGGER_INNOVATION;
            options.sampling.temperature = 0.7f;
            options.sampling.seed = 5 + i;
            engine_session *s;
            if (again && used) {
                options.arm = arms[i];
                options.store = of->store;
                options.retrieval = of->retrieval;
                options.now_us = options.as_of_us = of->now_us;
                loop_check(engine_session_restart(used, &options, &err), &err);
                s = used;
            } else {
                s = loop_session(of, arms[i], &options);
            }
            loop_check(engine_ask(s, questions[i], 16, &free_text[again], &err), &err);
            if (again || !used) {
                used = s;
            }
            /* The same session goes on with a second turn. */
            force(s, (i + 1) % FACTS, keep_first, &first[again], &forced[again]);
            if (s != used) {
                engine_session_close(s);
            } else {
                engine_answer other;
                engine_session_options abstains = options;
                abstains.may_abstain = true;
                abstains.score_min = 5.0f;
                abstains.arm = ENGINE_ARM_FULL;
                loop_check(engine_session_restart(s, &abstains, &err), &err);
                loop_check(engine_ask(s, questions[2], 4, &other, &err), &err);
                assert_true(other.abstained);
                engine_answer_free(&other);
                if (i == 1) {
                    loop_check(engine_generate(s, "Once upon", 3, &other, &err), &err);
                    engine_answer_free(&other);
                }
            }
        }
        assert_string_equal(free_text[0].text, free_text[1].text);
        assert_int_equal(free_text[0].token_count, free_text[1].token_count);
        for (size_t k = 0; k < free_text[0].token_count; k++) {
            const engine_token *fresh = &free_text[0].tokens[k], *again = &free_text[1].tokens[k];
            assert_int_equal(fresh->id, again->id);
            assert_memory_equal(&fresh->entropy_nats, &again->entropy_nats, sizeof(float));
            assert_memory_equal(&fresh->surprise_nats, &again->surprise_nats, sizeof(float));
        }
        assert_int_equal(free_text[0].lookups, free_text[1].lookups);
        assert_memory_equal(first[0].logits, first[1].logits,
                            first[0].vocabulary * sizeof *first[0].logits);
        for (int again = 0; again < 2; again++) {
            base_free(first[again].logits);
            engine_answer_free(&forced[again]);
            engine_answer_free(&free_text[again]);
        }
    }
    engine_session_close(used);
}

static void test_a_restarted_session_answers_as_a_fresh_one_bit_for_bit(void **state)
{
    (void)state;
    const engine_arm arms[] = {ENGINE_ARM_FULL, ENGINE_ARM_NONE, ENGINE_ARM_PROMPT,
                               ENGINE_ARM_FULL_CONTEXT, ENGINE_ARM_STATIC};
    check_restarts(&l, arms, sizeof arms / sizeof *arms);
}

/* There the window goes back to its fixed prefix by a mark. */
static void test_so_does_one_of_the_hybrid(void **state)
{
    (void)state;
    const engine_arm arms[] = {ENGINE_ARM_FULL, ENGINE_ARM_NONE, ENGINE_ARM_STATIC};
    loop hybrid = {0};
    base_error err = {0};
    loop_open_engine_with(&hybrid, ENGINE_CORE_HYBRID, 0);
    loop_open_store(&hybrid);
    loop_ingest(&hybrid, NULL, texts, FACTS);
    check_restarts(&hybrid, arms, sizeof arms / sizeof *arms);

    /* What is pasted is seen whole, so by another stream. */
    engine_session_options options;
    engine_session_defaults(&options);
    engine_session *s = loop_session(&hybrid, ENGINE_ARM_PROMPT, &options);
    options.arm = ENGINE_ARM_FULL;
    assert_int_equal(engine_session_restart(s, &options, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "full"));
    engine_session_close(s);
    loop_close_store(&hybrid);
    engine_close(hybrid.e);
}

static void test_strength_weakens_a_memory_in_attention(void **state)
{
    (void)state;
    double nll[2], mass[2];
    for (int i = 0; i < 2; i++) {
        engine_session_options options;
        engine_answer answer;
        engine_session_defaults(&options);
        options.memories_max = 1;
        options.score_min = 0;
        /* A half-life of ten days makes a memory of last January as weak as the floor. */
        store_set_default_half_life(l.store, i ? 10 * 86400.0 : INFINITY);
        engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
        force(s, 0, NULL, NULL, &answer);
        const engine_memory *memory = &answer.events[answer.event_count - 1].memories[0];
        assert_true(fabsf(memory->logit_bias - (i ? logf(0.25f) : 0.0f)) < 1e-4f);
        nll[i] = nll_of(&answer);
        mass[i] = (double)memory->attention_mass;
        engine_answer_free(&answer);
        engine_session_close(s);
    }
    store_set_default_half_life(l.store, INFINITY);
    assert_true(nll[1] > nll[0] && mass[1] < mass[0]);
}

static void test_a_question_longer_than_the_window_is_refused_and_the_session_goes_on(void **state)
{
    (void)state;
    base_error err = {0};
    engine_session_options options;
    engine_answer answer;
    engine_session_defaults(&options);
    options.window_slots = 1536;
    options.score_min = 0;
    engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
    char *question = base_calloc(1, 20000);
    for (size_t i = 0; i + 6 < 19990; i += 6) {
        memcpy(question + i, "words ", 6);
    }
    assert_int_equal(engine_ask(s, question, 8, &answer, &err), BASE_LIMIT);
    assert_non_null(strstr(err.text, "do not fit the window"));
    loop_check(engine_ask(s, questions[0], 8, &answer, &err), &err);
    assert_true(answer.citation_count > 0);
    engine_answer_free(&answer);
    /* Many turns: the oldest give way, nothing breaks. */
    for (int turn = 0; turn < 12; turn++) {
        loop_check(engine_ask(s, questions[turn % FACTS], 16, &answer, &err), &err);
        engine_answer_free(&answer);
    }
    /* Long user text: memories come in at chunk boundaries and behind the turn (layout S). */
    memset(question + 3300, 0, 16);
    memcpy(question + 3300 - 40, " Who is the caretaker of Brindle Hall? ", 39);
    loop_check(engine_ask(s, question, 8, &answer, &err), &err);
    assert_true(answer.prefill_tokens > 500);
    engine_answer_free(&answer);
    base_free(question);
    engine_session_close(s);
}

/* A memory that was put into another would be evicted with a part of that. */
static void test_no_memory_is_put_into_another(void **state)
{
    (void)state;
    enum { COUNT = 3 };
    const int32_t ids[] = {40, 41, 42, 43, 44, 45};
    core_stream_options options = {.slots_max = 64};
    core_stream *stream = NULL;
    splice_window w;
    base_error err = {0};
    loop_check(core_stream_open(engine_model(l.e), &options, &stream, &err), &err);
    void *block = base_calloc(1, core_block_bytes(stream, COUNT));
    loop_check(splice_open(stream, &w, &err), &err);
    loop_check(splice_run(&w, ids, 6, NULL, 0, &err), &err);
    core_block_read(stream, 0, COUNT, block);
    loop_check(splice_insert(&w, 2, 1, block, COUNT, 1.0f, 0.0f, &err), &err);
    const size_t wanted[] = {0, 1, 2, 5, 5, 5, 6};
    for (size_t at = 0; at < 7; at++) {
        assert_int_equal(splice_beside(&w, at), wanted[at]);
    }
    loop_check(splice_insert(&w, splice_beside(&w, 3), 2, block, COUNT, 1.0f, 0.0f, &err), &err);
    splice_evict(&w, 0);
    assert_int_equal(splice_find(&w, 2)->at, 2);
    for (size_t i = 0, token = 0; i < splice_slots(&w); i++) {
        int32_t wanted_token = i >= 2 && i < 2 + COUNT ? -1 : ids[token++];
        assert_int_equal(core_token(stream, i), wanted_token);
    }
    base_free(block);
    splice_close(&w);
}

int main(void)
{
    loop_open_engine(&l);
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_b_with_one_memory_equals_the_text_in_the_prompt),
        cmocka_unit_test(test_an_empty_store_gives_plain_generation_token_for_token),
        cmocka_unit_test(test_own_keys_and_values_carry_the_answer_and_anothers_do_not),
        cmocka_unit_test(test_strength_weakens_a_memory_in_attention),
        cmocka_unit_test(test_no_memory_is_put_into_another),
        cmocka_unit_test(test_a_restarted_session_answers_as_a_fresh_one_bit_for_bit),
        cmocka_unit_test(test_so_does_one_of_the_hybrid),
        cmocka_unit_test(test_kv_from_disk_gives_the_bits_of_kv_computed),
        cmocka_unit_test(test_a_question_longer_than_the_window_is_refused_and_the_session_goes_on),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    loop_close_store(&l);
    engine_close(l.e);
    return failed;
}
