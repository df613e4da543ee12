/* What suites ask, without a model: generated documents and questions say what they must, the same
 * for the same seed; files with mistakes are refused by file and line; arms by name; when controls
 * fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "eval/harness.h"

static void generate(eval_generator *generator, size_t limit, uint64_t seed, eval_set *set)
{
    base_error err = {0};
    eval_options o = {.seed = seed};
    *set = (eval_set){0};
    if (generator(&o, NULL, limit, set, &err) ||
        eval_set_parse(set, "documents", "questions", 0, BASE_TIME_NONE, &err)) {
        fail_msg("%s", err.text);
    }
}

static const char *gold_of(const eval_question *q)
{
    return json_string_value(json_array_get(q->answers, 0));
}

static eval_generator *const recall_suites[] = {eval_generate_overwrite, eval_generate_consolidate,
                                                eval_generate_world};
enum { RECALL_SUITES = sizeof recall_suites / sizeof *recall_suites };

static void test_a_seed_makes_the_same_suite_and_another_seed_another_one(void **state)
{
    (void)state;
    eval_generator *const all[] = {eval_generate_overwrite, eval_generate_consolidate,
                                   eval_generate_world, eval_generate_stream};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        eval_set a, b, c;
        generate(all[i], 30, 5, &a);
        generate(all[i], 30, 5, &b);
        generate(all[i], 30, 6, &c);
        assert_int_equal(a.question_count, 30);
        assert_string_equal(a.documents_text.data, b.documents_text.data);
        assert_string_equal(a.questions_text.data, b.questions_text.data);
        assert_string_not_equal(a.documents_text.data, c.documents_text.data);
        eval_set_free(&a);
        eval_set_free(&b);
        eval_set_free(&c);
    }
}

/* The last evidence that is known at the question's time holds the answer, and no stale answer is
 * right. */
static void test_the_evidence_holds_the_answer_and_stale_answers_are_others(void **state)
{
    (void)state;
    for (size_t s = 0; s < RECALL_SUITES; s++) {
        eval_set set;
        size_t stale = 0;
        generate(recall_suites[s], 48, 11, &set);
        for (size_t i = 0; i < set.question_count; i++) {
            const eval_question *q = &set.questions[i];
            const char *id =
                json_string_value(json_array_get(q->evidence, json_array_size(q->evidence) - 1));
            const eval_document *newest = NULL;
            for (size_t d = 0; d < set.document_count; d++) {
                if (strcmp(set.documents[d].id, id) == 0 &&
                    set.documents[d].observed_at_us <= q->as_of_us) {
                    newest = &set.documents[d];
                }
            }
            assert_non_null(newest);
            assert_true(eval_holds(newest->text, gold_of(q)));
            for (size_t k = 0; k < json_array_size(q->stale); k++) {
                assert_string_not_equal(json_string_value(json_array_get(q->stale, k)), gold_of(q));
            }
            stale += json_array_size(q->stale) > 0;
        }
        assert_true(stale > set.question_count / 4);
        eval_set_free(&set);
    }
}

static void test_overwrite_updates_a_key_3_to_400_times_and_asks_the_last(void **state)
{
    (void)state;
    eval_set set;
    generate(eval_generate_overwrite, 16, 1, &set);
    int64_t least = INT64_MAX, most = 0;
    for (size_t i = 0; i < set.question_count; i++) {
        const eval_question *q = &set.questions[i];
        assert_int_equal(q->updates, json_array_size(q->stale) + 1);
        least = q->updates < least ? q->updates : least;
        most = q->updates > most ? q->updates : most;
    }
    assert_int_equal(least, 3);
    assert_int_equal(most, 400);
    eval_set_free(&set);
}

static void test_consolidate_numbers_its_facts_and_asks_in_two_hops(void **state)
{
    (void)state;
    eval_set set;
    size_t hops = 0;
    generate(eval_generate_consolidate, 40, 2, &set);
    for (size_t d = 0; d < set.document_count; d++) {
        char number[32];
        snprintf(number, sizeof number, "%zu. ", d + 1);
        assert_memory_equal(set.documents[d].text, number, strlen(number));
    }
    for (size_t i = 0; i < set.question_count; i++) {
        const eval_question *q = &set.questions[i];
        size_t evidence = json_array_size(q->evidence);
        assert_int_equal(evidence, strcmp(q->kind, "two_hops") == 0 ? 2 : 1);
        hops += evidence == 2;
    }
    assert_int_equal(hops, 20);
    eval_set_free(&set);
}

static void test_world_asks_now_as_of_and_about_and_never_of_the_future(void **state)
{
    (void)state;
    eval_set set;
    size_t now = 0, past = 0, about = 0, unchanged = 0;
    generate(eval_generate_world, 80, 3, &set);
    for (size_t i = 0; i < set.question_count; i++) {
        const eval_question *q = &set.questions[i];
        about += q->about_us != BASE_TIME_NONE;
        past += q->as_of_us < q->now_us;
        now += q->about_us == BASE_TIME_NONE && q->as_of_us == q->now_us;
        unchanged += q->unchanged;
        assert_true(q->about_us == BASE_TIME_NONE || q->about_us <= q->now_us);
    }
    assert_true(now > 30 && past > 5 && about > 5 && unchanged > 10);
    eval_set_free(&set);
}

/* --- files ------------------------------------------------------------------------------------ */

#define DOCUMENT "{\"id\":\"d1\",\"text\":\"The mast is tall.\",\"observed_at\":\"2024-01-01\"}\n"
#define QUESTION(id, more) \
    "{\"id\":\"" id "\",\"question\":\"How?\",\"answers\":[\"tall\"]" more "}\n"

static base_status parse(const char *documents, const char *questions, eval_set *set,
                         base_error *err)
{
    *set = (eval_set){0};
    *err = (base_error){0};
    assert_int_equal(base_buffer_append_text(&set->documents_text, documents), BASE_OK);
    assert_int_equal(base_buffer_append_text(&set->questions_text, questions), BASE_OK);
    return eval_set_parse(set, "d.jsonl", "q.jsonl", 7, BASE_TIME_NONE, err);
}

static void test_a_mistake_in_a_file_is_named_by_file_and_line(void **state)
{
    (void)state;
    const struct {
        const char *documents, *questions, *says;
    } cases[] = {
        {DOCUMENT "\n{\"id\":", QUESTION("q", ""), "d.jsonl:3"},
        {DOCUMENT "[1]\n", QUESTION("q", ""), "d.jsonl:2: not a JSON object"},
        {DOCUMENT "{\"id\":\"x\"}\n", QUESTION("q", ""), "d.jsonl:2: \"text\" is missing"},
        {DOCUMENT "{\"text\":\"a\",\"observed_at\":\"2024-13-01\"}\n", QUESTION("q", ""),
         "d.jsonl:2: \"observed_at\""},
        {DOCUMENT DOCUMENT, QUESTION("q", ""), "d.jsonl:2: the id \"d1\" stands twice"},
        {"\n", QUESTION("q", ""), "d.jsonl: there is nothing in it"},
        {DOCUMENT, "", "q.jsonl: there is nothing in it"},
        {DOCUMENT, QUESTION("q", "") QUESTION("q", ""), "q.jsonl:2: the id \"q\" stands twice"},
        {DOCUMENT, QUESTION("q", ",\"as_of\":\"soon\""), "q.jsonl:1: \"as_of\""},
        {DOCUMENT, QUESTION("q", ",\"as_of\":\"2024-02-01\",\"now\":\"2024-01-01\""),
         "q.jsonl:1: \"as_of\" lies behind"},
        {DOCUMENT, QUESTION("q", ",\"evidence\":[\"d2\"]"),
         "q.jsonl:1: the evidence \"d2\" is no document"},
        {DOCUMENT, QUESTION("q", ",\"stale_answers\":\"short\""), "q.jsonl:1: \"stale_answers\""},
        {DOCUMENT, "{\"id\":\"q\",\"question\":\"How?\"}\n", "q.jsonl:1: \"answers\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        eval_set set;
        base_error err;
        assert_int_equal(parse(cases[i].documents, cases[i].questions, &set, &err), BASE_INVALID);
        if (strncmp(err.text, cases[i].says, strlen(cases[i].says)) != 0) {
            fail_msg("case %zu says: %s", i, err.text);
        }
        eval_set_free(&set);
    }
}

static void test_times_of_a_question_follow_its_axis(void **state)
{
    (void)state;
    eval_set set;
    base_error err;
    int64_t day = base_time_from_civil(2023, 5, 1), newest = base_time_from_civil(2024, 1, 1);
    assert_int_equal(parse(DOCUMENT,
                           QUESTION("a", "") QUESTION("b", ",\"as_of\":\"2023-05-01\"") QUESTION(
                               "c", ",\"as_of\":\"2023-05-01\",\"meta\":{\"time_axis\":\"valid\"}"),
                           &set, &err),
                     BASE_OK);
    assert_true(set.questions[0].now_us == newest && set.questions[0].as_of_us == newest);
    assert_true(set.questions[1].now_us == day && set.questions[1].as_of_us == day);
    assert_true(set.questions[2].now_us == newest && set.questions[2].about_us == day);
    eval_set_free(&set);
}

static void test_leaving_evidence_out_makes_questions_unanswerable(void **state)
{
    (void)state;
    eval_set set;
    base_error err = {0};
    size_t gone = 0, out = 0;
    generate(eval_generate_consolidate, 40, 4, &set);
    assert_int_equal(eval_set_without_evidence(&set, 0.25, 9, &err), BASE_OK);
    for (size_t i = 0; i < set.question_count; i++) {
        gone += !set.questions[i].answerable;
    }
    for (size_t d = 0; d < set.document_count; d++) {
        out += set.documents[d].left_out;
    }
    assert_true(gone >= 10 && gone < 40 && out >= 10);
    eval_set_free(&set);
}

static void test_a_draw_is_seeded_and_keeps_the_order(void **state)
{
    (void)state;
    eval_set a, b;
    base_error err = {0};
    generate(eval_generate_world, 30, 4, &a);
    generate(eval_generate_world, 30, 4, &b);
    assert_int_equal(eval_set_draw(&a, 7, 1, &err), BASE_OK);
    assert_int_equal(eval_set_draw(&b, 7, 1, &err), BASE_OK);
    assert_int_equal(a.question_count, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_string_equal(a.questions[i].id, b.questions[i].id);
        assert_true(i == 0 || a.questions[i - 1].now_us <= a.questions[i].now_us);
    }
    eval_set_free(&a);
    eval_set_free(&b);
}

/* --- arms, controls --------------------------------------------------------------------------- */

static void test_arms_and_their_ablations_have_names(void **state)
{
    (void)state;
    eval_arm arms[EVAL_ARMS_MAX];
    size_t count;
    base_error err = {0};
    assert_int_equal(eval_arms_parse("none,full+trigger=once+no-bias,prompt+plain,"
                                     "full+query=hidden,oracle+rival,full+splice-state=picaso",
                                     arms, &count, &err),
                     BASE_OK);
    assert_int_equal(count, 6);
    assert_int_equal(arms[0].splice_state, CORE_SPLICE_NONE);
    assert_int_equal(arms[5].splice_state, CORE_SPLICE_PICASO);
    assert_true(arms[4].rival && !arms[3].rival);
    assert_true(arms[3].query_hidden && !arms[1].query_hidden);
    assert_int_equal(arms[1].arm, ENGINE_ARM_FULL);
    assert_int_equal(arms[1].trigger, ENGINE_TRIGGER_ONCE);
    assert_true(arms[1].no_bias && !arms[1].no_time && arms[2].plain);
    const char *const wrong[] = {"",
                                 "full,",
                                 "fool",
                                 "full+",
                                 "full+fast",
                                 "full,full",
                                 "full+trigger=x",
                                 "full+layout=",
                                 "full+query=mind",
                                 "full+rival",
                                 "full+splice-state=all"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (base_error){0};
        assert_int_equal(eval_arms_parse(wrong[i], arms, &count, &err), BASE_INVALID);
        assert_true(err.text[0] != 0);
    }
}

/* none, own, zeroed, others: how many of `count` questions are right (the first ones). */
static bool passed(size_t none, size_t own, size_t zeroed, size_t others, size_t count)
{
    bool right[200][EVAL_CONTROL_COUNT];
    char text[160];
    for (size_t i = 0; i < count; i++) {
        right[i][EVAL_CONTROL_NO_MEMORY] = i < none;
        right[i][EVAL_CONTROL_OWN] = i < own;
        right[i][EVAL_CONTROL_ZEROED] = i < zeroed;
        right[i][EVAL_CONTROL_OTHERS] = i < others;
    }
    bool good = eval_controls_passed((const bool(*)[EVAL_CONTROL_COUNT])right, count, text);
    assert_int_equal(good, text[0] == 0);
    return good;
}

static void test_controls_stop_an_inert_splice_and_one_that_leaks(void **state)
{
    (void)state;
    assert_true(passed(2, 24, 2, 1, 40));
    assert_false(passed(2, 2, 2, 2, 40));   /* inert: a memory changes nothing */
    assert_false(passed(2, 24, 12, 1, 40)); /* zeroed values still answer */
    assert_false(passed(2, 24, 2, 20, 40)); /* so do another's */
    assert_false(passed(0, 4, 2, 0, 40));   /* hardly better */
    assert_false(passed(0, 20, 0, 2, 200)); /* 9 points, and 20 are out of reach */
    assert_true(passed(0, 6, 0, 1, 12));    /* few questions, a clear lead */
    assert_true(passed(2, 2, 2, 2, 9));     /* too few to decide */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_seed_makes_the_same_suite_and_another_seed_another_one),
        cmocka_unit_test(test_the_evidence_holds_the_answer_and_stale_answers_are_others),
        cmocka_unit_test(test_overwrite_updates_a_key_3_to_400_times_and_asks_the_last),
        cmocka_unit_test(test_consolidate_numbers_its_facts_and_asks_in_two_hops),
        cmocka_unit_test(test_world_asks_now_as_of_and_about_and_never_of_the_future),
        cmocka_unit_test(test_a_mistake_in_a_file_is_named_by_file_and_line),
        cmocka_unit_test(test_times_of_a_question_follow_its_axis),
        cmocka_unit_test(test_leaving_evidence_out_makes_questions_unanswerable),
        cmocka_unit_test(test_a_draw_is_seeded_and_keeps_the_order),
        cmocka_unit_test(test_arms_and_their_ablations_have_names),
        cmocka_unit_test(test_controls_stop_an_inert_splice_and_one_that_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
