/* HTML and PDF: what a person reads on the page becomes the text, the rest stays out; damaged,
 * encrypted, empty, huge and binary files are named and skipped. Uses the default text encoder. */
#include "ingest_testing.h"
#include "pdf_testing.h"

/* The text of the store's only document; the caller frees. */
static char *ingested(place *p, const char *name, const char *data, size_t size)
{
    write_file(p, name, data, size, 86400);
    ingest_counts counts = run(p, p->input);
    if (counts.failed) {
        fail_msg("%s", p->problems[0]);
    }
    assert_int_equal(counts.documents_new, 1);
    return all_text(p).text.data;
}

static void assert_html(place *p, const char *html, const char *expected)
{
    char *text = ingested(p, "page.html", html, strlen(html));
    assert_string_equal(text, expected);
    base_free(text);
}

/* Goal: structure becomes lines: headings, paragraphs, lists, tables, breaks; entities decode. */
static void test_ingest_html_becomes_readable_lines(void **state)
{
    assert_html(
        *state,
        "<!DOCTYPE html><html><head><title> The\n harbour &amp; port </title>"
        "<style>p{color:red}</style><script>var x = '<p>no</p>';</script></head><body>"
        "<nav><ul><li>Home</li></ul></nav><div role=navigation>menu</div>"
        "<h1>Harbour</h1><p>Two   cranes &mdash; one\n<b>r</b>ed, one <i>blue</i>.</p>"
        "<ul><li>the Ida</li><li>the <a href='x'>Olga</a></li></ul>"
        "<ol><li>dock</li><li>unload<br>slowly</li></ol>"
        "<h2>Fees</h2><table><tr><th>Boat</th><th>Fee</th></tr>"
        "<tr><td>Ida</td><td>5&nbsp;&euro;</td></tr></table>"
        "<pre>a\n  b</pre><p hidden>secret</p><p>Na&iuml;ve &#26085;.</p></body></html>",
        "# Harbour\n\nTwo cranes — one red, one blue.\n\n- the Ida\n- the Olga\n\n1. dock\n"
        "2. unload\nslowly\n\n## Fees\n\nBoat | Fee\nIda | 5\xC2\xA0€\n\na\n  b\n\nNaïve 日.");
    store_episode e = episode(*state, 1);
    assert_string_equal(e.title, "The harbour & port");
    assert_string_equal(e.section, "Harbour");
    store_episode_free(&e);
}

/* Goal: markup that no browser would refuse is no error: nothing closed, wrong order, cut short. */
static void test_ingest_html_broken_markup_is_mended(void **state)
{
    assert_html(*state,
                "<p>One<p>Two <b>bold<li>item</b></div></div><table><tr><td>a<td>b<tr><td>c"
                "<h3>Deep &amp; &lt &unknown; text <a href=\"cut",
                "One\n\nTwo bold\n- item\n\na | b\nc\n\n### Deep & &lt &unknown; text");
}

/* Goal: without a title the first heading is it; markup nested deeper than any stack is read. */
static void test_ingest_html_deep_nesting_is_read(void **state)
{
    place *p = *state;
    base_buffer html = {0};
    base_buffer_append_text(&html, "<h2>Depths</h2>");
    for (int i = 0; i < 200000; i++) {
        base_buffer_append_text(&html, "<div><i>");
    }
    base_buffer_append_text(&html, "bottom");
    char *text = ingested(p, "deep.HTM", html.data, html.size);
    assert_string_equal(text, "## Depths\n\nbottom");
    store_episode e = episode(p, 1);
    assert_string_equal(e.title, "Depths");
    store_episode_free(&e);
    base_free(text);
    base_buffer_free(&html);
}

/* Goal: the declared charset is used, UTF-8 is known without one, UTF-16 by its mark. */
static void test_ingest_html_charsets_decode(void **state)
{
    place *p = *state;
    static const char wide[] = "\xFF\xFE<\0p\0>\0\xE9\0t\0\xE9\0";
    write_text(p, "1.html", "<meta charset=windows-1252><p>caf\xE9 \x80 5", 86400);
    write_text(p, "2.html", "<p>café 日本", 86400);
    write_text(p, "3.html", "<meta charset=iso-8859-1><p>café is UTF-8 all the same", 86400);
    write_file(p, "4.html", wide, sizeof wide - 1, 86400);
    write_text(p, "5.html", "\xEF\xBB\xBF<p>marked", 86400);
    write_text(p, "6.html",
               "<meta http-equiv=Content-Type content='text/html; charset=koi8-r'><p>\xC4\xC1",
               86400);
    assert_int_equal(run(p, p->input).documents_new, 6);
    static const char *const expected[] = {"café € 5", "café 日本", "café is UTF-8 all the same",
                                           "été",      "marked",    "да"};
    for (uint64_t i = 0; i < 6; i++) {
        store_episode e = episode(p, i + 1);
        assert_string_equal(e.text, expected[i]);
        store_episode_free(&e);
    }
}

/* Goal: a page that does not decode to its end is skipped whole, and nothing of it is lost unseen.
 * (Such a page was cut at the byte; found by fuzz_html.) */
static void test_ingest_html_that_does_not_decode_is_skipped(void **state)
{
    place *p = *state;
    write_text(p, "1.html",
               "<meta charset=shift_jis><p>before \xEA\xDB\xDB\xA8 after</p><p>and more", 86400);
    assert_int_equal(run(p, p->input).documents_new, 0);
    assert_int_equal(p->problem_count, 1);
    assert_non_null(strstr(p->problems[0], "does not decode"));
}

/* Goal: external entities, includes and links load nothing. Method: they name a file beside the
 * page, whose text must not appear. */
static void test_ingest_html_loads_nothing(void **state)
{
    place *p = *state;
    char html[1024], path[512];
    write_text(p, "secret.txt", "the secret word is heron", 86400);
    assert_non_null(realpath(p->input, path));
    snprintf(html, sizeof html,
             "<?xml version='1.0'?><!DOCTYPE html [<!ENTITY x SYSTEM 'file://%s/secret.txt'>]>"
             "<html><body><p>word: &x;</p><iframe src='secret.txt'></iframe>"
             "<object data='secret.txt'>o</object><embed src='secret.txt'>"
             "<xi:include href='secret.txt'/></body></html>",
             path);
    write_text(p, "page.xhtml", html, 86400);
    assert_int_equal(run(p, p->input).documents_new, 2);
    store_episode e = episode(p, 1);
    assert_non_null(strstr(e.text, "word:"));
    assert_null(strstr(e.text, "heron"));
    store_episode_free(&e);
}

/* Goal: what is no page is named and skipped. */
static void test_ingest_html_bad_files_are_named(void **state)
{
    place *p = *state;
    write_text(p, "1.html", "", 86400);
    write_text(p, "2.html", "<script>only code</script>", 86400);
    write_file(p, "3.html",
               "\x7f"
               "ELF\0\0",
               6, 86400);
    write_text(p, "4.html", "x", 86400);
    char path[160];
    snprintf(path, sizeof path, "%s/4.html", p->input);
    assert_int_equal(truncate(path, (off_t)1 << 33), 0);
    write_text(p, "5.html", "<p>Good.", 86400);
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.documents_new, 1);
    assert_int_equal(counts.failed, 4);
    assert_problem(p, "1.html", "empty");
    assert_problem(p, "2.html", "no text");
    assert_problem(p, "3.html", "zero at byte 4");
    assert_problem(p, "4.html", "limit");
}

static const char *const pages[] = {"The ferry leaves at nine.", "The crane is red."};

/* Goal: the text of every page in order, with title; the same file again changes nothing. */
static void test_ingest_pdf_pages_become_text(void **state)
{
    place *p = *state;
    base_buffer pdf = {0};
    make_pdf(&pdf, pages, 2, "Harbour news", 0);
    char *text = ingested(p, "news.pdf", pdf.data, pdf.size);
    assert_string_equal(text, "The ferry leaves at nine.\n\f\nThe crane is red.");
    base_free(text);
    store_episode e = episode(p, 1);
    assert_string_equal(e.title, "Harbour news");
    store_episode_free(&e);
    assert_int_equal(run(p, p->input).documents_unchanged, 1);
    base_buffer_free(&pdf);
}

/* Goal: encrypted, damaged, empty and foreign files are named with the reason; good ones go on. */
static void test_ingest_pdf_bad_files_are_named(void **state)
{
    place *p = *state;
    base_buffer pdf = {0};
    make_pdf(&pdf, pages, 2, NULL, 1);
    write_file(p, "1.pdf", pdf.data, pdf.size, 86400);
    make_pdf(&pdf, pages, 2, NULL, 0);
    write_file(p, "2.pdf", pdf.data, 40, 86400);
    write_text(p, "3.pdf", "", 86400);
    write_text(p, "4.pdf", "This is no PDF at all.", 86400);
    static const char *const nothing[] = {""};
    base_buffer blank = {0};
    make_pdf(&blank, nothing, 1, NULL, 0);
    write_file(p, "5.pdf", blank.data, blank.size, 86400);
    write_file(p, "6.pdf", pdf.data, pdf.size, 86400);
    write_file(p, "7.pdf", pdf.data, pdf.size - 12, 86400); /* where its table is, is lost */
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.failed, 5);
    assert_int_equal(counts.documents_new, 2);
    assert_problem(p, "1.pdf", "encrypted");
    assert_problem(p, "2.pdf", "damaged PDF");
    assert_problem(p, "3.pdf", "empty");
    assert_problem(p, "4.pdf", "damaged PDF");
    assert_problem(p, "5.pdf", "no text");
    store_episode e = episode(p, 1);
    assert_string_equal(e.title, "6");
    store_episode_free(&e);
    base_buffer_free(&pdf);
    base_buffer_free(&blank);
}

/* Goal: no damage to a PDF ends the ingest. Method: 60 seeded mutations of a good file, all in one
 * folder with a good text. */
static void test_ingest_pdf_damage_never_ends_the_ingest(void **state)
{
    place *p = *state;
    base_buffer pdf = {0};
    uint32_t seed = 20261126;
    for (int i = 0; i < 60; i++) {
        char name[32];
        make_pdf(&pdf, pages, 2, "T", 0);
        for (int k = 0; k < 1 + i % 8; k++) {
            seed = seed * 1664525u + 1013904223u;
            pdf.data[(seed >> 8) % pdf.size] = (char)(seed & 0xFF);
        }
        snprintf(name, sizeof name, "%02d.pdf", i);
        write_file(p, name, pdf.data, i % 5 ? pdf.size : pdf.size - (seed >> 8) % pdf.size, 86400);
    }
    write_text(p, "z.txt", "The last file.", 86400);
    ingest_counts counts = run(p, p->input);
    assert_true(counts.documents_new >= 1);
    assert_int_equal(counts.documents_new + counts.failed, 61);
    base_buffer_free(&pdf);
}

static const struct CMUnitTest tests[] = {
    with_place(test_ingest_html_becomes_readable_lines),
    with_place(test_ingest_html_broken_markup_is_mended),
    with_place(test_ingest_html_deep_nesting_is_read),
    with_place(test_ingest_html_charsets_decode),
    with_place(test_ingest_html_that_does_not_decode_is_skipped),
    with_place(test_ingest_html_loads_nothing),
    with_place(test_ingest_html_bad_files_are_named),
    with_place(test_ingest_pdf_pages_become_text),
    with_place(test_ingest_pdf_bad_files_are_named),
    with_place(test_ingest_pdf_damage_never_ends_the_ingest),
};
INGEST_MAIN(tests)
