/* One note leads to the next: before the answer where the question has words that the note lacks
 * and the next one holds, and before a refusal stands in any case; nothing of the answer that was
 * dropped is left over.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/loop_testing.h"

static const char *const texts[] = {
    "Ada Brill works for Tarnow Ltd.",
    "Tarnow Ltd has its seat in Quillby.",
    "The mayor of Quillby is Osric Penhallow.",
    "Dr Lowell keeps the spare keys in the blue cabinet behind the winter coats.",
    "The ferry to Skerry Island leaves from pier seven of the old harbour basin.",
};
enum { FACTS = sizeof texts / sizeof *texts };
/* What the first note names has a note with the word "seat". */
static const char leading[] = "How many windows has the seat of the firm that Ada Brill works for?";
/* No note says it, or has a word of it but the name: the reader has to refuse. */
static const char refused[] = "How many windows has the house of Ada Brill?";

static void collect(void *argument, const char *text, size_t size)
{
    loop_check(base_buffer_append(argument, text, size), &(base_error){0});
}

static bool brought(const engine_answer *a, uint64_t id)
{
    for (size_t e = 0; e < a->event_count; e++) {
        for (size_t m = 0; m < a->events[e].memory_count; m++) {
            if (a->events[e].memories[m].id == id) {
                return true;
            }
        }
    }
    return false;
}

static bool asked(const engine_answer *a, const char *query)
{
    for (size_t e = 0; e < a->event_count; e++) {
        if (strcmp(a->events[e].query, query) == 0) {
            return true;
        }
    }
    return false;
}

static void ask(loop *l, const char *question, bool no_follow, engine_layout layout,
                engine_answer *answer)
{
    base_error err = {0};
    base_buffer said = {0};
    engine_session_options options;
    engine_session_defaults(&options);
    options.no_follow = no_follow;
    options.layout = layout;
    options.memories_max = 1; /* the first lookup brings one note, which names the next */
    options.on_text = collect;
    options.on_text_argument = &said;
    engine_session *s = loop_session(l, ENGINE_ARM_FULL, &options);
    loop_check(engine_ask(s, question, 24, answer, &err), &err);
    assert_string_equal(said.data, answer->text); /* told once, whatever was dropped */
    size_t tokens = 0;
    for (size_t i = 0; i < answer->token_count; i++) {
        tokens += answer->tokens[i].answer;
    }
    assert_in_range(tokens, 1, 24);
    assert_true(answer->decode_tokens >= tokens);
    /* The session goes on, and a refusal does not lead to the next. */
    engine_answer next;
    base_buffer_clear(&said);
    loop_check(engine_ask(s, "Where does Dr Lowell keep the spare keys?", 24, &next, &err), &err);
    assert_string_equal(said.data, next.text);
    if (layout == ENGINE_LAYOUT_B) { /* S is read less surely, whatever came before */
        assert_non_null(strstr(next.text, "blue cabinet"));
    }
    engine_answer_free(&next);
    engine_session_close(s);
    base_buffer_free(&said);
}

static void test_core(engine_core core, size_t window)
{
    loop l;
    engine_answer answer;
    loop_open_reader(&l, core, window);
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);
    for (engine_layout layout = ENGINE_LAYOUT_B; layout <= ENGINE_LAYOUT_S; layout++) {
        ask(&l, refused, true, layout, &answer);
        assert_true(answer.abstained);
        assert_int_equal(answer.lookups, 1);
        assert_true(brought(&answer, 1));
        assert_false(brought(&answer, 2));
        engine_answer_free(&answer);

        ask(&l, refused, false, layout, &answer);
        /* The question without what the first note holds, then what it names; once before the
         * answer, where nothing goes on, then three times. */
        assert_true(asked(&answer, "how many windows has the house of works tarnow ltd "));
        assert_int_equal(answer.lookups, 5);
        assert_true(brought(&answer, 2));
        assert_true(brought(&answer, 3));
        engine_answer_free(&answer);

        ask(&l, leading, true, layout, &answer);
        assert_false(brought(&answer, 2));
        engine_answer_free(&answer);

        ask(&l, leading, false, layout, &answer);
        assert_true(asked(&answer, "how many windows has the seat of the firm that tarnow ltd "));
        assert_true(answer.lookups >= 3);
        assert_true(brought(&answer, 2));
        engine_answer_free(&answer);
    }
    loop_close_store(&l);
    engine_close(l.e);
}

/* A passage of a longer page leads nowhere: it shares words with much that is beside the point. */
static void test_a_passage_of_a_page_leads_nowhere(void **state)
{
    (void)state;
    static const char page[] =
        "Ada Brill works for Tarnow Ltd.\n\n"
        "The weather of that week was mild, and nobody recalls a thing worth a line in the paper, "
        "let alone one that would still be talked about.\n\n"
        "A choir sang on the square until it was dark, and the bakers gave away what was left of "
        "their bread to whoever came by and asked for it.\n\n"
        "Two boats were missed for a night and came back with their nets full of mackerel, which "
        "was sold on the quay before the sun stood high.\n\n"
        "In the school the stove was mended twice, and the children went home early on both days, "
        "to the delight of most and the dismay of a few.\n\n";
    const char *const told[] = {page};
    loop l;
    engine_answer answer;
    loop_open_reader(&l, ENGINE_CORE_FULL, 0);
    loop_open_store(&l);
    loop_ingest(&l, NULL, told, 1);
    base_error err = {0};
    engine_session_options options;
    engine_session_defaults(&options);
    options.score_min = 0; /* the passage says other things, too */
    options.memories_max = 1;
    engine_session *s = loop_session(&l, ENGINE_ARM_FULL, &options);
    loop_check(engine_ask(s, leading, 24, &answer, &err), &err);
    assert_true(brought(&answer, 1));
    for (size_t e = 0; e < answer.event_count; e++) { /* nobody asks for what it names */
        assert_null(strstr(answer.events[e].query, "tarnow"));
    }
    engine_answer_free(&answer);
    engine_session_close(s);
    loop_close_store(&l);
    engine_close(l.e);
}

static void test_one_note_leads_to_the_next(void **state)
{
    (void)state;
    test_core(ENGINE_CORE_FULL, 0);
}

static void test_in_a_bounded_window(void **state)
{
    (void)state;
    test_core(ENGINE_CORE_HYBRID, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_note_leads_to_the_next),
        cmocka_unit_test(test_a_passage_of_a_page_leads_nowhere),
        cmocka_unit_test(test_in_a_bounded_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
