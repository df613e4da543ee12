/* What counts as a later version of a text, and what only looks like one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "retrieval/revision.h"

static bool is_revision(const char *older_title, const char *older, const char *newer_title,
                        const char *newer)
{
    retrieval_statement a = {older_title, older, strlen(older)};
    retrieval_statement b = {newer_title, newer, strlen(newer)};
    bool revision = retrieval_is_revision(&a, &b);
    assert_int_equal(revision, retrieval_is_revision(&b, &a)); /* time is the caller's */
    return revision;
}

static const char *const before =
    "The ferry to Skerry Island leaves the old harbour every morning from April to October and "
    "takes fifty passengers; tickets are sold by the harbour master, Ina Holm, in the blue hut.";
static const char *const after =
    "The ferry to Skerry Island leaves the old harbour every evening from April to October and "
    "takes fifty passengers; tickets are sold by the harbour master, Jan Brekke, in the blue hut.";

static void test_changed_fields_make_a_version(void **state)
{
    (void)state;
    assert_true(is_revision("Ferry", before, "Ferry", after));
    assert_true(is_revision("PEP 385 - Migrating from svn to Mercurial", before,
                            "PEP 385 - Migrating from Subversion to Mercurial", after));
}

static void test_the_same_words_are_no_version(void **state)
{
    (void)state;
    assert_false(is_revision("Ferry", before, "Ferry", before));
}

static void test_another_title_or_number_is_another_thing(void **state)
{
    (void)state;
    assert_false(is_revision("Ferry", before, "Bus", after));
    assert_false(is_revision("", before, "Ferry", after));
    assert_false(is_revision("Minutes 12", before, "Minutes 13", after));
}

static void test_without_titles_nearly_all_must_stay(void **state)
{
    (void)state;
    char longer[1024], changed[1024];
    assert_false(is_revision("", before, "", after));
    snprintf(longer, sizeof longer, "%s Dogs travel free, bicycles cost as much as a child, and %s",
             before, "nobody is taken along when the flag on the pier is down.");
    snprintf(changed, sizeof changed, "%s", longer);
    memcpy(strstr(changed, "Ina Holm"), "Eva Lund", 8);
    assert_true(is_revision("", longer, "", changed));
}

static void test_templates_with_other_figures_are_no_versions(void **state)
{
    (void)state;
    assert_false(is_revision(
        "Server release",
        "12.17.33 of Server is now the latest 12.17 release; users of 12.17.15 are advised to "
        "upgrade as soon as they can.",
        "Server release",
        "12.18.14 of Server is now the latest 12.18 release; users of 12.18.3 are advised to "
        "upgrade as soon as they can."));
}

static void test_lists_and_short_texts_are_no_versions(void **state)
{
    (void)state;
    assert_false(is_revision("Mayor", "The mayor of the town of Ambleford is Ruth Hall.", "Mayor",
                             "The mayor of the town of Ambleford is Olaf Hall."));
    /* one more of the same kind: the first words name it */
    assert_false(is_revision(
        "Staff",
        "Nils Dahl has worked in the kitchen of the Bergen house since the spring of 2019, from "
        "Monday to Friday, and has a key to the cellar and to the garage.",
        "Staff",
        "Ada Holm has worked in the kitchen of the Bergen house since the spring of 2019, from "
        "Monday to Friday, and has a key to the cellar and to the garage."));
}

static bool is_revised_part(const char *older, const char *newer)
{
    return retrieval_is_revised_part(older, strlen(older), newer, strlen(newer));
}

static void test_parts_are_told_by_what_stays(void **state)
{
    (void)state;
    assert_true(
        is_revised_part("Author: Ida Lund Status: Draft", "Author: Ida Lund Status: Final"));
    assert_false(is_revised_part("Type: Process Created: May", "Type: Process Created: May"));
    assert_false(is_revised_part("Author: Ida Lund Status: Draft", "Tickets are sold in the hut."));
    assert_false(is_revised_part("", "Draft"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changed_fields_make_a_version),
        cmocka_unit_test(test_the_same_words_are_no_version),
        cmocka_unit_test(test_another_title_or_number_is_another_thing),
        cmocka_unit_test(test_without_titles_nearly_all_must_stay),
        cmocka_unit_test(test_templates_with_other_figures_are_no_versions),
        cmocka_unit_test(test_lists_and_short_texts_are_no_versions),
        cmocka_unit_test(test_parts_are_told_by_what_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
