/* The page and the Markdown of runs: well-formed whatever the texts are, with the right numbers,
 * and in words where a picture would be nonsense. */
#include "folder_testing.h"

#include <math.h>

#include "eval/report.h"

/* --- a small checker of well-formed XML (no DTD but <!DOCTYPE html>, no CDATA, no comments) --- */

static const char *skip_name(const char *p)
{
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
           *p == '-' || *p == ':') {
        p++;
    }
    return p;
}

/* NULL when the reference at p is one of XML's own or a number, else what is wrong. */
static const char *check_reference(const char *p)
{
    static const char *const known[] = {"&lt;", "&gt;", "&amp;", "&quot;"};
    for (size_t i = 0; i < 4; i++) {
        if (strncmp(p, known[i], strlen(known[i])) == 0) {
            return NULL;
        }
    }
    const char *q = p + 2;
    while (p[1] == '#' && *q >= '0' && *q <= '9') {
        q++;
    }
    return p[1] == '#' && q > p + 2 && *q == ';' ? NULL : p;
}

/* One tag at *at ('<'): pushes or pops its name. Returns what is wrong, or NULL. */
static const char *check_tag(const char **at, char names[64][32], size_t *depth)
{
    const char *p = *at + 1, *problem = *at;
    bool closes = *p == '/';
    p += closes;
    const char *name = p;
    p = skip_name(p);
    size_t size = (size_t)(p - name);
    if (size == 0 || size >= 32) {
        return problem;
    }
    while (*p == ' ') {
        p = skip_name(p + 1);
        if (p[0] != '=' || p[1] != '"') {
            return problem;
        }
        for (p += 2; *p && *p != '"'; p++) {
            if (*p == '<' || (*p == '&' && check_reference(p))) {
                return problem;
            }
        }
        p += *p == '"';
    }
    bool empty = *p == '/';
    p += empty;
    if (*p != '>' || (closes && empty)) {
        return problem;
    }
    *at = p + 1;
    if (closes) {
        if (*depth == 0 || strlen(names[*depth - 1]) != size ||
            memcmp(names[*depth - 1], name, size) != 0) {
            return problem;
        }
        (*depth)--;
    } else if (!empty) {
        if (*depth == 64) {
            return problem;
        }
        memcpy(names[*depth], name, size);
        names[(*depth)++][size] = 0;
    }
    return NULL;
}

static void assert_well_formed(const char *page)
{
    static const char doctype[] = "<!DOCTYPE html>\n";
    char names[64][32];
    size_t depth = 0;
    assert_int_equal(strncmp(page, doctype, strlen(doctype)), 0);
    const char *p = page + strlen(doctype);
    while (*p) {
        const char *problem = NULL;
        if (*p == '<') {
            problem = check_tag(&p, names, &depth);
        } else {
            unsigned char c = (unsigned char)*p;
            problem = (*p == '&' && check_reference(p)) || (c < 0x20 && c != '\n' && c != '\t')
                          ? p
                          : NULL;
            p++;
        }
        if (problem) {
            fail_msg("not well-formed at: %.120s", problem);
        }
        assert_true(depth > 0 || *p == '\n' || *p == 0);
    }
    assert_int_equal(depth, 0);
}

/* --- runs ------------------------------------------------------------------------------------- */

#define HOSTILE "</td><script>alert(\"x\") & 'y' \x01\xC3\xA9"

static const eval_identity identity = {.suite = "files <1>",
                                       .arms = "none,prompt,full",
                                       .seed = 5,
                                       .options = HOSTILE,
                                       .command = "eidetic eval files --out \"a & b\"",
                                       .commit = "0123456789abcdef",
                                       .version = "0.1.0",
                                       .model_hash = "feedbeef"};

/* 40 questions: none right on 4, prompt on 20, full on 30; the first key has 1 value, the others
 * double; ages in two groups. */
static void fill(const char *dir, size_t questions)
{
    eval_results *results;
    static const char *arms[] = {"none", "prompt", "full"};
    static const size_t right[] = {4, 20, 30};
    assert_ok(eval_results_open(dir, &identity, &results, err));
    for (size_t q = 0; q < questions; q++) {
        for (size_t a = 0; a < 3; a++) {
            eval_row row = EVAL_ROW_EMPTY;
            char id[32];
            snprintf(id, sizeof id, "<q>%zu", q);
            row.arm = arms[a];
            row.question = id;
            row.text = HOSTILE "?";
            row.answer = HOSTILE "!";
            row.contains = q < right[a];
            row.stale = a == 0 && q % 2;
            row.answer_ms = 100.0 * (double)(a + 1) + (double)q;
            row.updates = (int64_t)1 << (q / 10);
            row.age_s = q < 20 ? 86400.0 * 3 : 86400.0 * 200;
            assert_ok(eval_results_add(results, &row, err));
        }
    }
    const eval_trace_token tokens[] = {{"<b>", 3.5, 1, true, 0.2},
                                       {" &", NAN, 1, false, NAN},
                                       {" \x02", 0.5, 1, false, 0.4},
                                       {" end", 1.5, 1, true, 0.1}};
    assert_ok(eval_results_trace(results, "full", "<q>0", tokens, 4, err));
    eval_results_close(results);
}

static size_t times(const char *text, const char *words)
{
    size_t count = 0;
    for (const char *p = text; (p = strstr(p, words)); p += strlen(words)) {
        count++;
    }
    return count;
}

static void test_eval_report_page_is_well_formed_and_holds_the_figures(void **state)
{
    eval_run run;
    base_buffer page = {0}, again = {0};
    fill(*state, 40);
    assert_ok(eval_run_load(*state, &run, err));
    assert_ok(eval_report_page(&run, 1, &page, err));
    assert_ok(eval_report_page(&run, 1, &again, err));
    assert_well_formed(page.data);
    assert_string_equal(page.data, again.data); /* same results, same page */
    assert_null(strstr(page.data, "<script"));
    assert_null(strstr(page.data, "http://") != strstr(page.data, "http://www.w3.org/1999/xhtml")
                    ? page.data
                    : NULL); /* nothing is fetched */
    static const char *words[] = {"75.0 %",
                                  "50.0 %",
                                  "10.0 %",
                                  "+25.0",
                                  "+65.0",
                                  "10 : 0",
                                  "26 : 0",
                                  "feedbeef",
                                  "0123456789abcdef",
                                  "Recall against age",
                                  "Stale rate against number of updates",
                                  "files &#60;1&#62;",
                                  "Events and attention along a text"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strstr(page.data, words[i])) {
            fail_msg("the page does not hold \"%s\"", words[i]);
        }
    }
    /* every picture has a text alternative */
    assert_int_equal(times(page.data, "<svg"), times(page.data, "</desc>"));
    assert_true(times(page.data, "<svg") >= 8);
    assert_null(strstr(page.data, "nan"));
    base_buffer_free(&page);
    base_buffer_free(&again);
    eval_run_free(&run);
}

static void test_eval_report_too_little_data_is_said_not_drawn(void **state)
{
    eval_run run;
    base_buffer page = {0}, text = {0};
    fill(*state, 3);
    assert_ok(eval_run_load(*state, &run, err));
    assert_ok(eval_report_page(&run, 1, &page, err));
    assert_well_formed(page.data);
    assert_non_null(strstr(page.data, "Not drawn: it needs two groups"));
    assert_non_null(strstr(page.data, "Not in this run"));
    assert_non_null(strstr(page.data, "recall against distance"));
    assert_null(strstr(page.data, "id=\"along"));
    assert_ok(eval_report_markdown(&run, 1, &text, err));
    assert_null(strstr(text.data, "nan"));
    base_buffer_free(&text);
    base_buffer_free(&page);
    eval_run_free(&run);
}

static void test_eval_report_a_run_without_answers_is_a_page(void **state)
{
    eval_run runs[2];
    eval_results *results;
    base_buffer page = {0}, markdown = {0};
    assert_ok(eval_results_open(*state, &identity, &results, err));
    eval_results_close(results);
    assert_ok(eval_run_load(*state, &runs[0], err));
    runs[1] = runs[0];
    assert_ok(eval_report_page(runs, 2, &page, err));
    assert_well_formed(page.data);
    assert_int_equal(times(page.data, "No answers yet."), 2);
    assert_ok(eval_report_markdown(runs, 2, &markdown, err));
    base_buffer_free(&page);
    base_buffer_free(&markdown);
    eval_run_free(&runs[0]);
}

static void test_eval_report_markdown_holds_figures_and_differences(void **state)
{
    eval_run run;
    base_buffer text = {0};
    fill(*state, 40);
    assert_ok(eval_run_load(*state, &run, err));
    assert_ok(eval_report_markdown(&run, 1, &text, err));
    assert_non_null(strstr(text.data, "| full | 40 | 0.750 [0."));
    assert_non_null(strstr(text.data, "| none | 40 | 0.100 [0."));
    assert_non_null(strstr(text.data, "full − prompt | 40 | +0.250 [+0."));
    /* 10 : 0 discordant: 2 / 2^10 */
    assert_non_null(strstr(text.data, "| 0.00195 |"));
    /* every line of a table has as many cells as its head */
    size_t cells = 0;
    for (char *line = text.data, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        size_t bars = times(line, "|");
        assert_true(bars == 0 || cells == 0 || bars == cells);
        cells = bars;
    }
    base_buffer_free(&text);
    eval_run_free(&run);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_eval_report_page_is_well_formed_and_holds_the_figures),
        IN_FOLDER(test_eval_report_too_little_data_is_said_not_drawn),
        IN_FOLDER(test_eval_report_a_run_without_answers_is_a_page),
        IN_FOLDER(test_eval_report_markdown_holds_figures_and_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
