/* The decision whether two statements fill one slot with another value: what must be closed, what
 * must stay open. Sentences of this test stand in no data set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "retrieval/slot.h"

typedef struct pair {
    const char *title_a, *a, *title_b, *b;
    retrieval_slot_verdict verdict;
} pair;

#define SAME RETRIEVAL_SLOT_SAME
#define OTHER RETRIEVAL_SLOT_OTHER
#define IF_AGREE RETRIEVAL_SLOT_IF_FRAMES_AGREE

static retrieval_slot compare(const pair *p)
{
    retrieval_slot slot;
    retrieval_statement a = {p->title_a, p->a, strlen(p->a)};
    retrieval_statement b = {p->title_b, p->b, strlen(p->b)};
    retrieval_slot_compare(&a, &b, &slot);
    return slot;
}

static void check(const pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        retrieval_slot slot = compare(&pairs[i]);
        if (slot.verdict != pairs[i].verdict) {
            fail_msg("\"%s\" <- \"%s\": verdict %d, wanted %d (frames \"%s\", \"%s\")", pairs[i].a,
                     pairs[i].b, slot.verdict, pairs[i].verdict, slot.older_frame,
                     slot.newer_frame);
        }
    }
}

#define CHECK(pairs) check(pairs, sizeof(pairs) / sizeof((pairs)[0]))

/* Goal: the same sentence about the same thing with another value closes the older. */
static void test_another_value_for_the_same_thing_is_one_slot(void **state)
{
    (void)state;
    static const pair pairs[] = {
        {"", "The head of Northgate Library is Ada Brandt.", "",
         "The head of Northgate Library is Otto Lenz.", SAME},
        {"", "The capital of India is New Delhi.", "", "The capital of India is Grosseto.", SAME},
        {"", "Ruth Olsen plays the cello.", "", "Ruth Olsen plays the oboe.", SAME},
        {"", "Project Heron costs 1200 crowns.", "", "Project Heron costs 1450 crowns.", SAME},
        {"", "Ida's dog is called Rex.", "", "Ida's dog is called Bello.", SAME},
        {"Northgate", "Ada Brandt is the head of Northgate Library.", "Northgate",
         "Otto Lenz is the head of Northgate Library.", SAME},
        {"", "Norway has Bergen as its capital.", "", "Norway has Oslo as its capital.", SAME},
        {"Club", "The club plays in the league of Swiss handball.", "Club",
         "The club plays in the league of curling.", SAME},
        {"Printer", "The colour printer stands on floor two.", "Printer",
         "The colour printer stands on floor three.", SAME},
        {"", "12. The head of Northgate Library is Ada Brandt.", "",
         "408. The head of Northgate Library is Otto Lenz.", SAME},
        {"", "3) Ruth Olsen plays the cello.", "", "Ruth Olsen plays the oboe.", SAME},
        {"", "Ruth Olsen's boss is Paul A. Reed.", "", "Ruth Olsen's boss is Otto Lenz.", SAME},
        {"", "Wake Up! was sung by Ada Brandt.", "", "Wake Up! was sung by Otto Lenz.", SAME},
        {"", "Heron 8.1 was built by Lenz Ltd.", "", "Heron 8.1 was built by Dahl Ltd.", SAME},
        {"", "iHeron was built by Lenz Ltd.", "", "iHeron was built by Dahl Ltd.", SAME},
        {"", "Ada Brandt is the treasurer of Heron Ltd.", "",
         "Otto Lenz is the treasurer of Heron Ltd.", SAME},
        {"", "The mayor of Bergen is Ada Brandt, in office since 3 May 2021.", "",
         "The mayor of Bergen is Otto Lenz, in office since 12 June 2023.", SAME},
        {"", "Ruth Olsen lives in Bergen since 2019.", "", "Ruth Olsen lives in Bergen since 2020.",
         SAME},
        {"", "Ada Brandt is Heron Ltd's CEO.", "", "Otto Lenz is Heron Ltd's CEO.", SAME},
    };
    CHECK(pairs);
}

/* Goal: a shared value, another entity, another attribute, and what is only added stay open. */
static void test_what_does_not_replace_stays_open(void **state)
{
    (void)state;
    static const pair pairs[] = {
        {"", "The seat of Brightwater Ltd is Bergen.", "", "The seat of Coldwater Ltd is Bergen.",
         OTHER},
        {"", "Ruth Olsen plays the cello.", "", "Nils Dahl plays the cello.", OTHER},
        {"", "7. Ruth Olsen plays the cello.", "", "7. Nils Dahl plays the oboe.", OTHER},
        {"", "Ruth Olsen plays the cello.", "", "Nils Dahl plays the oboe.", OTHER},
        {"", "Otto Lenz leads Heron.", "", "Ada Brandt is the boss of Otto Lenz.", OTHER},
        {"", "Ann Hill is the daughter of Tom Reed.", "", "Eva Hill is the daughter of Tom Reed.",
         OTHER},
        {"", "The employer of Ruth Olsen is Heron Ltd.", "",
         "Ruth Olsen is the employer of Nils Dahl.", OTHER},
        {"", "Ruth Olsen is paid by Heron Ltd.", "", "Ruth Olsen is the employer of Nils Dahl.",
         OTHER},
        {"", "Ruth Olsen met Ada Brandt on 3 May 2021.", "",
         "Ruth Olsen met Otto Lenz on 12 June 2023.", OTHER},
        {"", "Ruth Olsen lives in Bergen since 2019.", "", "Ruth Olsen works in Bergen since 2020.",
         OTHER},
        {"", "## Heron in Bergen", "", "## Heron in Oslo", OTHER},
        {"", "let heron: Bird = Heron { legs: 2 };", "", "let heron: Bird = Heron { legs: 4 };",
         OTHER},
        {"", "Future Possibilities: Heron", "", "Future Possibilities: Wren", OTHER},
        {"", "Ruth Olsen paints small boats, grey nets, empty harbours, fog and the yard of Heron.",
         "", "Ruth Olsen draws tall ships, blue sails, crowded harbours and the yard of Wren.",
         OTHER},
        {"", "Heron Ltd has 240 members.", "", "The treasurer of Heron Ltd is Ada Brandt.", OTHER},
        {"", "Ruth Olsen speaks French.", "", "Ruth Olsen also speaks German.", OTHER},
        {"", "Ruth Olsen is a member of the Bergen Choir.", "",
         "Nils Dahl is a member of the Bergen Choir.", OTHER},
        {"", "Heron's revenue in 2019 was 3 million.", "", "Heron's revenue in 2020 was 4 million.",
         OTHER},
        {"", "The sign of Northgate is the blue heron.", "",
         "The sign of Southgate is the blue heron.", OTHER},
        {"", "The boat that leaves Northgate is the blue heron.", "",
         "The boat that leaves Southgate is the blue heron.", OTHER},
        {"", "From Northgate leaves a boat, the blue heron.", "",
         "From Southgate leaves a boat, the blue heron.", OTHER},
        {"", "In Norway the sign of Northgate is the blue heron.", "",
         "In Norway the sign of Southgate is the blue heron.", OTHER},
        {"", "Tom Reed is the creation of Ada Brandt.", "",
         "Ann Hill is the creation of Ada Brandt.", OTHER},
        {"", "Heron Ltd is the maker of Wren.", "", "Heron Ltd is the maker of Robin.", OTHER},
        {"", "Paul Reed lives in Bergen.", "", "Paul Hill lives in Oslo.", OTHER},
        {"", "The status is green.", "", "The status is red.", OTHER},
        {"Heron", "Resolution: https://lists.example.org/2016/001165.html", "Wren",
         "Resolution: https://lists.example.org/2018/002210.html", OTHER},
        {"Report A", "The colour printer stands on floor two.", "Report B",
         "The colour printer stands on floor three.", OTHER},
        {"", "Who is the head of Northgate Library?", "", "Who is the head of Southgate Library?",
         OTHER},
        {"", "Ruth Olsen plays the cello.", "", "Ruth Olsen plays the cello.", OTHER},
        {"", "", "", "Ruth Olsen plays the cello.", OTHER},
        {"", "Heron 8.1 was built by Lenz Ltd.", "", "Heron 8.2 was built by Dahl Ltd.", OTHER},
        {"", "The club comes from Bergen.", "", "The club was founded in Oslo.", OTHER},
        {"Report A", "curling comes from Bergen.", "Report B", "curling was invented in Oslo.",
         OTHER},
    };
    CHECK(pairs);
}

/* Goal: other words about one entity are left to their meaning, with entity and value masked. */
static void test_other_words_are_left_to_their_frames(void **state)
{
    (void)state;
    static const pair pairs[] = {
        {"", "Northgate Library is headed by Ada Brandt.", "",
         "The head of Northgate Library is Otto Lenz.", IF_AGREE},
        {"", "The head of Northgate Library is Ada Brandt.", "",
         "Otto Lenz is the head of Northgate Library.", IF_AGREE},
        {"", "Heron Ltd was founded by Ada Brandt.", "", "Otto Lenz is the founder of Heron Ltd.",
         IF_AGREE},
        {"", "Tom Reed was made up by Ada Brandt.", "", "Tom Reed is the creation of Otto Lenz.",
         IF_AGREE},
        {"", "Ruth Olsen lives in Bergen.", "", "The employer of Ruth Olsen is Heron Ltd.",
         IF_AGREE},
        {"", "Ruth Olsen is a citizen of the People's Union of Heron.", "",
         "Ruth Olsen's country is Wren.", IF_AGREE},
        {"", "The chief executive of Heron Ltd is Ada Brandt.", "",
         "The CEO of Heron Ltd is Otto Lenz.", IF_AGREE},
        {"", "Heron Ltd has Ada Brandt as its CEO.", "", "Heron Ltd's CEO is Otto Lenz.", IF_AGREE},
        {"", "curling comes from Bergen.", "", "curling was invented in Oslo.", IF_AGREE},
        {"", "table tennis plays the role of sport.", "", "table tennis's role is pastime.",
         IF_AGREE},
    };
    CHECK(pairs);
    retrieval_slot slot = compare(&pairs[0]);
    assert_string_equal(slot.older_frame, "it is headed by something");
    assert_string_equal(slot.newer_frame, "The head of it is something");
    assert_false(slot.one_word);
    static const pair close = {"", "Ruth Olsen was born in Bergen.", "",
                               "Ruth Olsen was buried in Oslo.", IF_AGREE};
    assert_true(compare(&close).one_word);
    static const pair roles = {"", "Otto Lenz is employed by Heron.", "",
                               "Ada Brandt is the boss of Otto Lenz.", IF_AGREE};
    assert_true(compare(&roles).one_word);
}

/* Goal: content words that are the same but for their endings are told, unless who does it to whom
 * has changed. */
static void test_words_of_one_stem_are_told(void **state)
{
    (void)state;
    static const pair same[] = {
        {"", "Northgate Library is headed by Ada Brandt.", "",
         "The head of Northgate Library is Otto Lenz.", IF_AGREE},
        {"", "The Heron was developed by Lenz Ltd.", "", "The developer of the Heron is Dahl Ltd.",
         IF_AGREE},
    };
    static const pair other[] = {
        {"", "Ruth Olsen lives in Bergen.", "", "The employer of Ruth Olsen is Heron Ltd.",
         IF_AGREE},
        {"", "Ruth Olsen coached Ada Brandt.", "", "Ruth Olsen was coached by Nils Dahl.",
         IF_AGREE},
        {"", "Ruth Olsen is coached by Ada Brandt.", "", "Ruth Olsen is coaching Nils Dahl.",
         IF_AGREE},
        {"", "The Heron was built in Bergen.", "", "The Heron was built by the yard of Oslo.",
         IF_AGREE},
    };
    CHECK(same);
    CHECK(other);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_true(compare(&same[i]).same_stems);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        assert_false(compare(&other[i]).same_stems);
    }
}

/* Goal: releases of one line follow one another, parallel lines and other products do not. */
static void test_releases_of_one_line_follow_one_another(void **state)
{
    (void)state;
    static const pair pairs[] = {
        {"", "Wren 2.4.1 has been released.", "", "Wren 2.4.2 has been released.", SAME},
        {"", "Wren 2.4.9 has been released.", "", "Wren 2.4.10 has been released.", SAME},
        {"", "Wren 2.4.1 has been released.", "",
         "2.5.0 of Wren is now out; users of 2.4.1 are advised to upgrade.", SAME},
        {"", "Wren 2.4.1 has been released.", "", "Wren 2.5.0 has been released.", OTHER},
        {"", "Wren 2.4.2 has been released.", "", "Wren 2.4.1 has been released.", OTHER},
        {"", "Wren 2.4.1 has been released.", "", "Robin 2.4.2 has been released.", OTHER},
        {"", "Wren 17.1 is the newest of the 17 line.", "",
         "Wren 18.2 is the newest of the 18 line.", OTHER},
        {"", "Wren 17.1 is the newest of the 17 line.", "",
         "Wren 17.2 is the newest of the 17 line.", SAME},
        {"", "Big Wren 2.4.1 has been released.", "", "Wren 2.4.2 has been released.", OTHER},
    };
    CHECK(pairs);
}

/* Goal: long texts, many sentences and odd bytes are no slot, and no crash. */
static void test_long_and_odd_texts_stay_open(void **state)
{
    (void)state;
    static char text[4096];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = i % 2 ? ' ' : 'A';
    }
    retrieval_slot slot;
    retrieval_statement whole = {"", text, sizeof text};
    retrieval_slot_compare(&whole, &whole, &slot);
    assert_int_equal(slot.verdict, OTHER);
    static const pair pairs[] = {
        {"", "It rained. The head of Northgate Library is Ada Brandt.", "",
         "It rained. The head of Northgate Library is Otto Lenz.", OTHER},
        {"", "... !? \xe2\x80\x94", "", "1.2.3.4.5.6.7.8.9 x", OTHER},
    };
    CHECK(pairs);
    char names[8];
    retrieval_statement one = {"", "Ruth Olsen plays.", 17};
    assert_int_equal(retrieval_slot_names(&one, names, sizeof names), 4);
    assert_string_equal(names, "Ruth");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_value_for_the_same_thing_is_one_slot),
        cmocka_unit_test(test_what_does_not_replace_stays_open),
        cmocka_unit_test(test_other_words_are_left_to_their_frames),
        cmocka_unit_test(test_words_of_one_stem_are_told),
        cmocka_unit_test(test_releases_of_one_line_follow_one_another),
        cmocka_unit_test(test_long_and_odd_texts_stay_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
