/* Chunking: spans partition any text, keep the budget, and cut where a reader would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/chunk.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/text.h"

#define TOKEN_MAX 70

/* The claims that hold for every text: partition, budget, whole code points, sections inside the
 * text. */
static void check_spans(const char *text, size_t length, const base_span *spans, size_t count,
                        size_t token_max)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(spans[i].start, at);
        assert_true(spans[i].end > spans[i].start);
        assert_true(spans[i].end <= length);
        size_t size = spans[i].end - spans[i].start;
        assert_int_equal(base_utf8_check(text + at, size), size);
        assert_true(base_token_estimate(text + at, size) <= token_max);
        assert_true(base_token_estimate(text + at, size) > 0);
        assert_true(spans[i].section_start <= spans[i].section_end);
        assert_true(spans[i].section_end <= length);
        at = spans[i].end;
    }
    if (count > 0) {
        assert_int_equal(at, length);
    } else {
        for (size_t i = 0; i < length; i++) {
            assert_non_null(strchr(" \t\r\n\v\f", text[i]));
        }
    }
}

static size_t cut(const char *text, base_span **spans)
{
    size_t count = 0;
    base_error err = {0};
    if (base_chunk_text(text, strlen(text), NULL, spans, &count, &err) != BASE_OK) {
        fail_msg("%s", err.text);
    }
    check_spans(text, strlen(text), *spans, count, TOKEN_MAX);
    return count;
}

/* Cut text and compare with the expected spans, joined by "|". */
static void expect(const char *text, const char *wanted)
{
    base_span *spans;
    size_t count = cut(text, &spans);
    char got[4096] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        used += (size_t)snprintf(got + used, sizeof got - used, "%s%.*s", i ? "|" : "",
                                 (int)(spans[i].end - spans[i].start), text + spans[i].start);
    }
    base_free(spans);
    assert_string_equal(got, wanted);
}

/* Goal: partition and budget hold for any text. Method: 20,000 texts drawn from scraps of prose,
 * Markdown, code, CJK and long runs, two budgets, seed 3. */
static void test_base_chunk_partitions_any_text(void **state)
{
    (void)state;
    static const char *const scraps[] = {
        "word",
        "Word. ",
        " and",
        "e.g. ",
        "U.S. ",
        "3.14",
        "\n",
        "\n\n",
        "\r\n",
        "# Heading\n",
        "- item\n",
        "```\n",
        "=====\n",
        "-----\n",
        "Key: value\n",
        "日本語。",
        "naïve ",
        "\xF0\x9F\x98\x80",
        "?! ",
        "\"Quoted.\" ",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\t",
        "        ",
        "(see Fig. 2) ",
        "A line of prose that is long enough to be taken for a wrapped one,\n",
        "[2024-01-01] log\n",
        "1. ",
        "|a|b|\n"};
    base_rng rng;
    base_rng_seed(&rng, 3);
    static char text[8192];
    for (int round = 0; round < 20000; round++) {
        size_t used = 0;
        size_t parts = (size_t)base_rng_below(&rng, 60);
        for (size_t p = 0; p < parts; p++) {
            const char *s = scraps[base_rng_below(&rng, sizeof scraps / sizeof scraps[0])];
            size_t repeat = base_rng_below(&rng, 20) == 0 ? 8 : 1;
            for (size_t k = 0; k < repeat; k++) {
                memcpy(text + used, s, strlen(s));
                used += strlen(s);
            }
        }
        base_chunk_options options = {0};
        if (round % 2) {
            options.token_target = 12;
            options.token_max = 20;
        }
        base_span *spans;
        size_t count;
        base_error err = {0};
        assert_int_equal(base_chunk_text(text, used, &options, &spans, &count, &err), BASE_OK);
        check_spans(text, used, spans, count, round % 2 ? 20 : TOKEN_MAX);
        base_free(spans);
    }
}

/* Goal: sentences are found in spite of initials, short forms, numbers and quotes. Method: a budget
 * of one sentence. */
static void test_base_chunk_sentence_ends_are_real_ones(void **state)
{
    (void)state;
    const char *text = "Dr. J. K. Smith lives at No. 5 in the U.S. capital, e.g. with 3.5 cats. "
                       "\"Is it so?\" she asked. "
                       "It is so! A second owner, Mrs. Brown, came in 1999. Then nobody came.";
    static const char *const starts[] = {"Dr.", "\"Is", "It is", "A second", "Then"};
    base_chunk_options one = {.token_target = 1, .token_max = 70};
    base_span *spans;
    size_t count;
    assert_int_equal(base_chunk_text(text, strlen(text), &one, &spans, &count, NULL), BASE_OK);
    assert_int_equal(count, sizeof starts / sizeof starts[0]);
    for (size_t i = 0; i < count; i++) {
        assert_memory_equal(text + spans[i].start, starts[i], strlen(starts[i]));
    }
    base_free(spans);
}

/* Goal: a heading begins a span and names the section of what follows. Method: the four forms. */
static void test_base_chunk_headings_name_sections(void **state)
{
    (void)state;
    const char *text =
        "Before any heading there is this.\n\n# First Part #\n\nText of one.\n\nSecond "
        "part\n===========\n"
        "Text of two.\n\nA short line\n\nText of three.\n\n*****\nOver\n*****\n\nText of four.\n";
    static const char *const sections[] = {"", "First Part", "Second part", "A short line", "Over"};
    base_span *spans;
    size_t count = cut(text, &spans);
    assert_int_equal(count, 5);
    for (size_t i = 0; i < count; i++) {
        size_t size = spans[i].section_end - spans[i].section_start;
        assert_int_equal(size, strlen(sections[i]));
        assert_memory_equal(text + spans[i].section_start, sections[i], size);
    }
    base_free(spans);
    /* no headings inside a code fence */
    text = "```\n# a comment\nx = 1\n```\n";
    count = cut(text, &spans);
    assert_int_equal(count, 1);
    assert_int_equal(spans[0].section_start, spans[0].section_end);
    base_free(spans);
}

/* Goal: short neighbours are joined, paragraphs of some length are not, lines of a header are cut
 * between lines. */
static void test_base_chunk_joins_short_and_keeps_paragraphs_apart(void **state)
{
    (void)state;
    expect("The clinic opens at nine. It closes at five.",
           "The clinic opens at nine. It closes at five.");
    expect("- one\n- two\n- three\n", "- one\n- two\n- three\n");
    expect("PEP: 8\nTitle: Style\nStatus: Active\n", "PEP: 8\nTitle: Style\nStatus: Active\n");
    expect("The first paragraph speaks about the harbour, its cranes, its ferries, its pilots, its "
           "many storms and its long history.\n\n"
           "The second paragraph speaks about the town hall, its mayor, its council, its archive, "
           "its stairs and its old clock tower.",
           "The first paragraph speaks about the harbour, its cranes, its ferries, its pilots, its "
           "many storms and its long history.\n\n|"
           "The second paragraph speaks about the town hall, its mayor, its council, its archive, "
           "its stairs and its old clock tower.");
    expect("One fine day came. Two fine days came. Three fine days came. Four fine days came. Five "
           "fine days came. "
           "Six fine days came.",
           "One fine day came. Two fine days came. Three fine days came. |"
           "Four fine days came. Five fine days came. Six fine days came.");
}

/* Goal: blank text has no spans; leading blanks stay with the first. */
static void test_base_chunk_blank_text_has_no_spans(void **state)
{
    (void)state;
    base_span *spans;
    assert_int_equal(cut("", &spans), 0);
    base_free(spans);
    assert_int_equal(cut(" \r\n\t\n ", &spans), 0);
    base_free(spans);
    assert_int_equal(cut("\n\n  x", &spans), 1);
    base_free(spans);
    assert_int_equal(base_token_estimate(" \n", 2), 0);
    assert_int_equal(base_token_estimate("x", 1), 1);
}

/* Goal: a sentence above the budget is cut into pieces of similar size at blanks, an unbroken one
 * between code points. */
static void test_base_chunk_cuts_long_sentences_evenly(void **state)
{
    (void)state;
    char text[4096];
    size_t used = 0;
    for (int i = 0; i < 100; i++) {
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "word%s ", i % 10 == 9 ? "," : "");
    }
    base_span *spans;
    size_t count = cut(text, &spans);
    assert_int_equal(count, 2);
    size_t first = base_token_estimate(text, spans[0].end);
    assert_true(first >= 45 && first <= 65);
    assert_int_equal(text[spans[0].end - 1], ' ');
    base_free(spans);
    memset(text, 'x', 3000);
    text[3000] = '\0';
    count = cut(text, &spans);
    assert_true(count > 5);
    base_free(spans);
}

/* Goal: bytes that are not UTF-8 are named by offset; memory failure is reported and leaks nothing.
 */
static void test_base_chunk_reports_errors(void **state)
{
    (void)state;
    base_span *spans = NULL;
    size_t count = 7;
    base_error err = {0};
    assert_int_equal(base_chunk_text("good \xFF bad", 9, NULL, &spans, &count, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "offset 5"));
    assert_null(spans);
    assert_int_equal(count, 7);
    for (size_t n = 1; n <= 2; n++) {
        base_mem_fail_at(n);
        assert_int_equal(base_chunk_text("One. Two.", 9, NULL, &spans, &count, &err),
                         BASE_NO_MEMORY);
    }
    base_mem_fail_at(0);
}

/* Goal: the same claims on real text, and most spans of a useful size. Method: the first 200
 * documents of each corpus of the development data; skipped, and said so, where it is not there. */
static void test_base_chunk_on_the_development_data(void **state)
{
    (void)state;
    static const char *const sets[] = {"mquake", "releases", "peps", "timeqa", "haystack"};
    const char *shared = getenv("EIDETIC_SHARED");
    size_t looked_at = 0;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        char command[1024];
        snprintf(command, sizeof command, "gzip -dc '%s/data/%s/documents.jsonl.gz' 2>/dev/null",
                 shared ? shared : EIDETIC_SOURCE_DIR "/../shared", sets[i]);
        FILE *lines = popen(command, "r");
        static char line[1 << 20];
        size_t documents = 0, spans_seen = 0, large = 0;
        while (lines && documents < 200 && fgets(line, sizeof line, lines)) {
            json_t *document = json_loads(line, 0, NULL);
            const char *text = json_string_value(json_object_get(document, "text"));
            if (text) {
                base_span *spans;
                size_t count = cut(text, &spans);
                for (size_t k = 0; k < count; k++) {
                    large += base_token_estimate(text + spans[k].start,
                                                 spans[k].end - spans[k].start) >= 8;
                }
                spans_seen += count;
                base_free(spans);
                documents++;
            }
            json_decref(document);
        }
        if (lines) {
            pclose(lines);
        }
        looked_at += documents;
        if (documents > 0) {
            print_message("%s: %zu documents, %zu spans, %zu of 8 tokens or more\n", sets[i],
                          documents, spans_seen, large);
            assert_true(large * 10 >= spans_seen * 8);
        }
    }
    if (looked_at == 0) {
        print_message("SKIPPED: the development data is not there (EIDETIC_SHARED)\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_chunk_partitions_any_text),
        cmocka_unit_test(test_base_chunk_sentence_ends_are_real_ones),
        cmocka_unit_test(test_base_chunk_headings_name_sections),
        cmocka_unit_test(test_base_chunk_joins_short_and_keeps_paragraphs_apart),
        cmocka_unit_test(test_base_chunk_blank_text_has_no_spans),
        cmocka_unit_test(test_base_chunk_cuts_long_sentences_evenly),
        cmocka_unit_test(test_base_chunk_reports_errors),
        cmocka_unit_test(test_base_chunk_on_the_development_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
