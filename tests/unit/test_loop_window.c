/* The loop over a bounded window: a conversation goes on far beyond the window, turns leave, and
 * memory still comes back where it is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/loop_testing.h"

enum { W = 96, ROUNDS = 5 };

static const char *const texts[] = {
    "The caretaker of Brindle Hall is Osric Penhallow.",
    "The ferry to Skerry Island leaves from pier seven.",
    "Dr Lowell keeps the spare keys in the blue cabinet.",
    "The winner of the Ambleford chess open was Ravi Sundaram.",
};
static const char *const questions[] = {
    "Who is the caretaker of Brindle Hall?",
    "From which pier does the ferry to Skerry Island leave?",
    "Where does Dr Lowell keep the spare keys?",
    "Who won the Ambleford chess open?",
};
static const char *const answers[] = {" Osric Penhallow", " pier seven", " blue cabinet",
                                      " Ravi Sundaram"};
enum { FACTS = sizeof texts / sizeof *texts };

/* All questions, ROUNDS times in one conversation; mean nats per token of the answers in the last
 * round. *tokens: everything that was run. */
static double converse(loop *l, engine_arm arm, size_t *tokens)
{
    engine_session_options options;
    base_error err = {0};
    double sum = 0;
    size_t count = 0;
    engine_session_defaults(&options);
    engine_session *s = loop_session(l, arm, &options);
    *tokens = 0;
    for (size_t i = 0; i < ROUNDS * FACTS; i++) {
        engine_answer answer;
        loop_check(
            engine_force(s, questions[i % FACTS], answers[i % FACTS], NULL, NULL, &answer, &err),
            &err);
        *tokens += answer.prefill_tokens + answer.decode_tokens;
        for (size_t t = 0; i >= (ROUNDS - 1) * FACTS && t < answer.token_count; t++) {
            sum += answer.tokens[t].answer ? (double)answer.tokens[t].surprise_nats : 0.0;
            count += answer.tokens[t].answer;
        }
        engine_answer_free(&answer);
    }
    engine_session_close(s);
    return sum / (double)count;
}

static void test_memory_comes_back_in_a_conversation_longer_than_the_window(void **state)
{
    (void)state;
    loop l = {0};
    base_error err = {0};
    size_t tokens;
    loop_open_engine_with(&l, ENGINE_CORE_WINDOW, W);
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    double none = converse(&l, ENGINE_ARM_NONE, &tokens);
    double full = converse(&l, ENGINE_ARM_FULL, &tokens);
    printf("nats per answer token after %zu tokens in a window of %d: %.2f with memory, %.2f "
           "without\n",
           tokens, W, full, none);
    assert_true(tokens > 3 * (W + 2 * CORE_ROLLBACK));
    assert_true(full < 0.6 * none);
    /* A question longer than the window is read as well: nothing is ever full. */
    char question[4096];
    engine_session_options options;
    engine_answer answer;
    engine_session_defaults(&options);
    engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
    for (size_t at = 0; at + 8 < sizeof question; at += 7) {
        snprintf(question + at, sizeof question - at, "island ");
    }
    loop_check(engine_ask(s, question, 8, &answer, &err), &err);
    assert_true(answer.prefill_tokens > 2 * W);
    engine_answer_free(&answer);
    engine_session_close(s);
    loop_close_store(&l);
    engine_close(l.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_comes_back_in_a_conversation_longer_than_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
