/* Notes that name other things than the question leave where one names what it names, and only
 * then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/loop_testing.h"

static const char *const texts[] = {
    /* each a day later than the one before */
    "The coach of Burnley Rovers is Jeff Hornacek.",
    "Leeds Wanderers is associated with the sport of football.",
    "The coach of Tarnow Athletic is Nigel Pearson.",
    "She moved to Quillby in May and coaches the juniors there.",
};
enum { FACTS = sizeof texts / sizeof *texts };

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

static void ask(loop *l, const char *question, bool no_names, engine_answer *answer)
{
    base_error err = {0};
    engine_session_options options;
    engine_session_defaults(&options);
    options.no_names = no_names;
    options.trigger = ENGINE_TRIGGER_ONCE;       /* what the question itself brings */
    options.score_min = options.score_share = 0; /* whatever is found may come in */
    engine_session *s = loop_session(l, ENGINE_ARM_FULL, &options);
    loop_check(engine_ask(s, question, 8, answer, &err), &err);
    engine_session_close(s);
}

static void test_others_give_way_to_what_the_question_names(void **state)
{
    (void)state;
    loop l;
    engine_answer answer;
    loop_open_engine(&l);
    loop_open_store(&l);
    loop_ingest(&l, NULL, texts, FACTS);

    ask(&l, "Who is the coach of Leeds Wanderers?", true, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 2) && brought(&answer, 3));
    engine_answer_free(&answer);

    ask(&l, "Who is the coach of Leeds Wanderers?", false, &answer);
    assert_true(brought(&answer, 2));
    assert_false(brought(&answer, 1) || brought(&answer, 3) || brought(&answer, 4));
    engine_answer_free(&answer);

    /* One of two names is not most of them; a month is no name. */
    ask(&l, "Who is the coach of Leeds Rovers in May?", false, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 2) && brought(&answer, 3));
    engine_answer_free(&answer);

    /* No note names her, and what is found says when nothing. */
    ask(&l, "Whom does Anna coach?", false, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 4));
    engine_answer_free(&answer);

    /* Without a capital there is no name; of two that answer alike the later one is read. */
    ask(&l, "who is the coach of leeds wanderers?", false, &answer);
    assert_true(brought(&answer, 2) && brought(&answer, 3));
    assert_false(brought(&answer, 1));
    engine_answer_free(&answer);

    loop_close_store(&l);
    engine_close(l.e);
}

/* What somebody says bears one title whatever it is about, and one turn may say several things. */
static void test_what_is_said_is_no_page(void **state)
{
    (void)state;
    static const char *const said[] = {
        "The ferry that leaves from Otterby in the morning is the Grey Heron. The ferry that "
        "leaves from Quillby at night is the Salt Anchor.",
        "The ferry that leaves from Tarnow on market days is the Winter Lamp.",
    };
    loop l;
    base_error err = {0};
    engine_answer answer;
    ingest *in = NULL;
    store_stats stats;
    loop_open_engine(&l);
    loop_open_store(&l);
    ingest_options options = {.now_us = l.now_us,
                              .observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE};
    loop_check(ingest_open(l.store, l.retrieval, engine_encoder(l.e), &options, &in, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        ingest_document turn = {.source = "chat/t",
                                .external_id = i ? "2" : "1",
                                .title = "The user said in chat/t",
                                .text = said[i],
                                .text_size = strlen(said[i]),
                                .observed_at_us = l.now_us,
                                .valid_from_us = BASE_TIME_NONE,
                                .valid_to_us = BASE_TIME_NONE,
                                .kind = STORE_TURN_USER,
                                .place = "turn"};
        loop_check(ingest_add(in, &turn, &err), &err);
    }
    loop_check(ingest_commit(in, true, &err), &err);
    ingest_close(in);
    loop_check(store_get_stats(l.store, &stats, &err), &err);
    assert_int_equal(stats.episodes, 3);
    store_stats_free(&stats);

    ask(&l, "Which ferry leaves from Tarnow?", false, &answer);
    assert_true(brought(&answer, 3));
    assert_false(brought(&answer, 1) || brought(&answer, 2));
    engine_answer_free(&answer);
    loop_close_store(&l);
    engine_close(l.e);
}

/* Two wordings of one statement: words alone do not close the older one in the store. */
static void test_the_later_of_two_wordings_is_read(void **state)
{
    (void)state;
    static const char *const told[] = {
        "The password of the Dunness depot is stone basket.",
        "To enter the Dunness depot, say the password green apple.",
        "The depot at Dunness has two doors.",
    };
    loop l;
    engine_answer answer;
    loop_open_engine(&l);
    loop_open_store(&l);
    loop_ingest(&l, NULL, told, 3);

    ask(&l, "What is the password of the Dunness depot?", true, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 2));
    engine_answer_free(&answer);

    ask(&l, "What is the password of the Dunness depot?", false, &answer);
    assert_false(brought(&answer, 1)); /* but the third is later still, and no password */
    assert_true(brought(&answer, 2) && brought(&answer, 3));
    engine_answer_free(&answer);

    ask(&l, "What was the password of the Dunness depot in January 2024?", false, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 2));
    engine_answer_free(&answer);

    loop_close_store(&l);
    engine_close(l.e);
}

/* A number that the question names is of its subject, and says which of its line is the latest. */
static void test_a_number_names_what_is_asked_for(void **state)
{
    (void)state;
    static const char *const told[] = {
        "Announcing Heron 2.1.10.",       "Heron 2.1.x: 2.1.9 is out.",
        "Heron 2.2.3 has been released.", "Ticket 512 waits for Ada Lenz.",
        "Ticket 51 waits for Nils Dahl.",
    };
    loop l;
    engine_answer answer;
    loop_open_engine(&l);
    loop_open_store(&l);
    loop_ingest(&l, NULL, told, 5);

    ask(&l, "What is the latest release of the Heron 2.1 line?", true, &answer);
    assert_true(brought(&answer, 1) && brought(&answer, 2) && brought(&answer, 3));
    engine_answer_free(&answer);

    ask(&l, "What is the latest release of the Heron 2.1 line?", false, &answer);
    assert_true(brought(&answer, 1)); /* observed before the smaller number */
    assert_false(brought(&answer, 2) || brought(&answer, 3));
    engine_answer_free(&answer);

    ask(&l, "Ticket 51: for whom does it wait?", false, &answer);
    assert_true(brought(&answer, 5));
    assert_false(brought(&answer, 4));
    engine_answer_free(&answer);

    ask(&l, "Which release is Heron 7.5?", false, &answer); /* no note holds it */
    assert_true(brought(&answer, 1) || brought(&answer, 3));
    engine_answer_free(&answer);

    loop_close_store(&l);
    engine_close(l.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others_give_way_to_what_the_question_names),
        cmocka_unit_test(test_what_is_said_is_no_page),
        cmocka_unit_test(test_the_later_of_two_wordings_is_read),
        cmocka_unit_test(test_a_number_names_what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
