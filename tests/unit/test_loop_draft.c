/* Memory as a draft model changes how many passes an answer takes and nothing else: text,
 * entropies, events and attention masses are those of one token a pass, bit for bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/loop_testing.h"

static const char *const texts[] = {
    "The caretaker of Brindle Hall is Osric Penhallow.",
    "The caretaker of Foxmoor Lodge is Tamsin Quill.",
    "The ferry to Skerry Island leaves from pier seven of the old harbour basin.",
    "Dr Lowell keeps the spare keys in the blue cabinet behind the winter coats.",
    "The winner of the Ambleford chess open was Ravi Sundaram.",
    "The observatory on Mount Kestrel opened in 1937, and version 4.18.2 of its clock is in use.",
};
static const char *const questions[] = {
    "Who is the caretaker of Brindle Hall?",
    "Who is the caretaker of Foxmoor Lodge?",
    "From which pier does the ferry to Skerry Island leave?",
    "Where does Dr Lowell keep the spare keys?",
    "Who won the Ambleford chess open?",
    "Which version of the clock of the observatory on Mount Kestrel is in use?",
};
enum { FACTS = sizeof texts / sizeof *texts };

static void assert_same_answer(const engine_answer *a, const engine_answer *b)
{
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->token_count, b->token_count);
    assert_int_equal(a->decode_tokens, b->decode_tokens);
    for (size_t i = 0; i < a->token_count; i++) {
        const engine_token *x = &a->tokens[i], *y = &b->tokens[i];
        assert_int_equal(x->id, y->id);
        assert_int_equal(x->event, y->event);
        assert_memory_equal(&x->surprise_nats, &y->surprise_nats, sizeof x->surprise_nats);
        assert_memory_equal(&x->entropy_nats, &y->entropy_nats, sizeof x->entropy_nats);
        assert_memory_equal(&x->attention_mass, &y->attention_mass, sizeof x->attention_mass);
    }
    assert_int_equal(a->event_count, b->event_count);
    for (size_t e = 0; e < a->event_count; e++) {
        assert_string_equal(a->events[e].query, b->events[e].query);
        assert_int_equal(a->events[e].memory_count, b->events[e].memory_count);
        for (size_t m = 0; m < a->events[e].memory_count; m++) {
            const engine_memory *x = &a->events[e].memories[m], *y = &b->events[e].memories[m];
            assert_int_equal(x->id, y->id);
            assert_memory_equal(&x->attention_mass, &y->attention_mass, sizeof x->attention_mass);
        }
    }
    assert_int_equal(a->citation_count, b->citation_count);
}

/* Two sessions are asked the same, one with drafts: questions, then a text that goes on, then a
 * turn behind it. Returns how many tokens and passes the one with drafts took for the questions. */
static void ask_both(loop *l, sample_options sampling, size_t *tokens, size_t *steps)
{
    base_error err = {0};
    engine_session *s[2];
    engine_answer answer[2];
    for (int i = 0; i < 2; i++) {
        engine_session_options options;
        engine_session_defaults(&options);
        options.no_draft = i == 1;
        options.sampling = sampling;
        options.innovation.threshold = 1.0f; /* events in mid-answer, also behind a draft */
        s[i] = loop_session(l, ENGINE_ARM_FULL, &options);
    }
    for (size_t fact = 0; fact < FACTS + 2; fact++) {
        for (int i = 0; i < 2; i++) {
            loop_check(fact < FACTS    ? engine_ask(s[i], questions[fact], 24, &answer[i], &err)
                       : fact == FACTS ? engine_generate(s[i], "The keys of Dr Lowell lie in the",
                                                         48, &answer[i], &err)
                                       : engine_continue(s[i], " The caretaker of Brindle Hall", 48,
                                                         &answer[i], &err),
                       &err);
        }
        assert_same_answer(&answer[0], &answer[1]);
        assert_int_equal(answer[1].decode_steps, answer[1].decode_tokens);
        assert_true(answer[0].decode_steps <= answer[0].decode_tokens);
        if (fact < FACTS) {
            *tokens += answer[0].decode_tokens;
            *steps += answer[0].decode_steps;
        }
        engine_answer_free(&answer[0]);
        engine_answer_free(&answer[1]);
    }
    engine_session_close(s[0]);
    engine_session_close(s[1]);
}

static void test_core(engine_core core, size_t window)
{
    loop l = {0};
    size_t tokens = 0, steps = 0;
    loop_open_engine_with(&l, core, window);
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    ask_both(&l, (sample_options){.top_p = 1.0f}, &tokens, &steps);
    printf("%zu tokens of greedy answers in %zu passes\n", tokens, steps);
    assert_true((double)tokens >= 1.3 * (double)steps);
    tokens = steps = 0;
    ask_both(&l, (sample_options){.top_p = 1.0f, .temperature = 0.8f, .seed = 3}, &tokens, &steps);
    assert_int_equal(tokens, steps); /* what is drawn by chance is not drafted */
    loop_close_store(&l);
    engine_close(l.e);
}

static void test_drafts_change_only_the_number_of_passes(void **state)
{
    (void)state;
    test_core(ENGINE_CORE_FULL, 0);
}

static void test_drafts_in_a_bounded_window(void **state)
{
    (void)state;
    test_core(ENGINE_CORE_WINDOW, 256);
}

static void test_drafts_in_the_hybrid(void **state)
{
    (void)state;
    test_core(ENGINE_CORE_HYBRID, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drafts_change_only_the_number_of_passes),
        cmocka_unit_test(test_drafts_in_a_bounded_window),
        cmocka_unit_test(test_drafts_in_the_hybrid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
