/* Ingest: files and lines become episodes that give the text back; what is known changes nothing;
 * what is bad is named and skipped. Uses the default text encoder. */
#include "ingest_testing.h"

static const char long_text[] =
    "# The harbour #\n\nThe harbour has two cranes. The ferry leaves at nine in the morning and "
    "comes back in the "
    "evening.\n\n## Boats\n\n- the Ida, which is red and old and leaks a little at the bow\n- the "
    "Olga, which is blue "
    "and belongs to the school of the island since 1989\n\nNaïve sailors — 日本 — are welcome.\n";

/* Goal: the stored episodes of a file are the file, byte for byte, with title, section, time and
 * vector. */
static void test_ingest_file_comes_back_byte_for_byte(void **state)
{
    place *p = *state;
    write_text(p, "harbour.md", long_text, 86400);
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.documents_new, 1);
    assert_int_equal(counts.failed, 0);
    assert_int_equal(counts.bytes, strlen(long_text));
    assert_true(counts.episodes >= 2);
    assert_true(p->progress_count > 0);
    gather g = all_text(p);
    assert_int_equal(g.count, counts.episodes);
    assert_int_equal(g.with_vector, g.count);
    assert_string_equal(g.text.data, long_text);
    base_buffer_free(&g.text);
    store_episode e = episode(p, counts.episodes);
    assert_string_equal(e.title, "The harbour");
    assert_string_equal(e.section, "Boats");
    assert_int_equal(e.observed_at_us, DAY);
    assert_true(e.external_id[0] == '/' && strstr(e.external_id, "harbour.md"));
    assert_true(e.source[0] == '/' && strstr(e.source, "input"));
    store_episode_free(&e);
}

/* Goal: the same again changes nothing, also when only the file's time has moved; new content
 * supersedes the old. */
static void test_ingest_is_idempotent_and_supersedes(void **state)
{
    place *p = *state;
    write_text(p, "a.txt", "The clinic opens at nine.", 86400);
    write_text(p, "b.jsonl", "{\"id\":\"b\",\"text\":\"The pool is open.\"}\n", 86400);
    assert_int_equal(run(p, p->input).documents_new, 2);
    uint64_t commit = store_last_commit(p->s);
    write_text(p, "a.txt", "The clinic opens at nine.", 5 * 86400);
    write_text(p, "b.jsonl", "{\"id\":\"b\",\"text\":\"The pool is open.\"}\n", 5 * 86400);
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.documents_unchanged, 2);
    assert_int_equal(counts.episodes, 0);
    assert_int_equal(store_last_commit(p->s), commit);
    write_text(p, "a.txt", "The clinic opens at eight.", 9 * 86400);
    counts = run(p, p->input);
    assert_int_equal(counts.documents_updated, 1);
    assert_int_equal(counts.documents_unchanged, 1);
    store_episode old = episode(p, 1), new = episode(p, 3);
    assert_int_equal(old.superseded_by, 3);
    assert_int_equal(old.superseded_at_us, 9 * DAY);
    assert_int_equal(new.version, 2);
    store_episode_free(&old);
    store_episode_free(&new);
    /* what was said before is said again: that is a change */
    write_text(p, "a.txt", "The clinic opens at nine.", 12 * 86400);
    assert_int_equal(run(p, p->input).documents_updated, 1);
}

/* Goal: each kind of bad file is named with its reason, and the good ones beside it are taken. */
static void test_ingest_bad_files_are_named_and_skipped(void **state)
{
    place *p = *state;
    write_text(p, "1-good.txt", "The first file is good.", 86400);
    write_text(p, "2-empty.txt", "", 86400);
    write_text(p, "3-blank.txt", " \n\t\n", 86400);
    write_file(p, "4-binary.bin",
               "\x7f"
               "ELF\0\0\1",
               7, 86400);
    write_text(p, "5-latin1.txt", "caf\xe9 au lait", 86400);
    write_text(p, "6-good.rst", "The last file is good too.", 86400);
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.documents_new, 2);
    assert_int_equal(counts.failed, 4);
    assert_problem(p, "2-empty.txt", "empty");
    assert_problem(p, "3-blank.txt", "no text");
    assert_problem(p, "4-binary.bin", "zero at byte 4");
    assert_problem(p, "5-latin1.txt", "UTF-8 at byte 3");
    store_episode e = episode(p, 1);
    assert_string_equal(e.title, "1-good");
    store_episode_free(&e);
}

/* Goal: a file above the limit is named, not read into memory whole. Method: a sparse file. */
static void test_ingest_huge_file_is_named_and_skipped(void **state)
{
    place *p = *state;
    write_text(p, "huge.txt", "x", 86400);
    write_text(p, "small.txt", "A small file.", 86400);
    char path[160];
    snprintf(path, sizeof path, "%s/huge.txt", p->input);
    assert_int_equal(truncate(path, (off_t)1 << 33), 0);
    ingest_counts counts = run(p, p->input);
    assert_int_equal(counts.documents_new, 1);
    assert_problem(p, "huge.txt", "limit");
}

/* Goal: every field of a line arrives; each bad line is named by file and number, the rest goes on.
 */
static void test_ingest_jsonl_names_bad_lines(void **state)
{
    place *p = *state;
    static const char lines[] =
        "\xEF\xBB\xBF{\"id\":\"a\",\"source\":\"town\",\"title\":\"T\",\"text\":\"First.\","
        "\"observed_at\":"
        "\"2020-01-02\",\"valid_from\":\"2020-01-01\",\"valid_to\":\"2021-01-01\"}\r\n"
        "\n"
        "{\"id\":\"b\",\"text\":\n"
        "[1,2]\n"
        "{\"id\":\"c\"}\n"
        "{\"id\":\"d\",\"text\":7}\n"
        "{\"id\":\"e\",\"text\":\"x\",\"observed_at\":\"2020-02-30\"}\n"
        "{\"id\":\"f\",\"text\":\"x\",\"observed_at\":5}\n"
        "{\"id\":\"g\",\"text\":\"x\",\"valid_from\":\"2021-01-01\",\"valid_to\":\"2020-01-01\"}\n"
        "{\"id\":\"h\",\"text\":\"caf\xe9\"}\n"
        "{\"id\":\"i\",\"text\":\"a\\u0000b\"}\n"
        "{\"id\":\"j\",\"text\":\"  \"}\n"
        "{\"id\":12,\"title\":null,\"text\":\"Last, without a newline.\"}";
    write_file(p, "x.jsonl", lines, sizeof lines - 1, 86400);
    char path[160];
    snprintf(path, sizeof path, "%s/x.jsonl", p->input);
    ingest_counts counts = run(p, path);
    assert_int_equal(counts.documents_new, 2);
    assert_int_equal(counts.failed, 10);
    assert_problem(p, "x.jsonl:3", "column");
    assert_problem(p, "x.jsonl:4", "not a JSON object");
    assert_problem(p, "x.jsonl:5", "\"text\" is missing");
    assert_problem(p, "x.jsonl:6", "\"text\" is not a text");
    assert_problem(p, "x.jsonl:7", "impossible date");
    assert_problem(p, "x.jsonl:8", "\"observed_at\" is not a text");
    assert_problem(p, "x.jsonl:9", "valid_from");
    assert_problem(p, "x.jsonl:10", "");
    assert_problem(p, "x.jsonl:11", "");
    assert_problem(p, "x.jsonl:12", "no text");
    store_episode a = episode(p, 1), b = episode(p, 2);
    assert_string_equal(a.source, "town");
    assert_string_equal(a.external_id, "a");
    assert_string_equal(a.title, "T");
    assert_string_equal(a.text, "First.");
    assert_int_equal(a.observed_at_us, base_time_from_civil(2020, 1, 2));
    assert_int_equal(a.valid_from_us, base_time_from_civil(2020, 1, 1));
    assert_int_equal(a.valid_to_us, base_time_from_civil(2021, 1, 1));
    assert_string_equal(b.external_id, "12");
    assert_string_equal(b.title, "");
    assert_int_equal(b.observed_at_us, DAY);
    store_episode_free(&a);
    store_episode_free(&b);
}

/* Goal: an ingest that ends early leaves whole batches, and the next one adds only what is missing.
 * Method: one commit of the first half, the handle dropped with a batch pending, then all. */
static void test_ingest_resumes_after_an_early_end(void **state)
{
    place *p = *state;
    char line[160], path[160];
    snprintf(path, sizeof path, "%s/many.jsonl", p->input);
    FILE *file = fopen(path, "wb");
    for (int i = 0; i < 300; i++) {
        int n = snprintf(line, sizeof line,
                         "{\"id\":\"d%d\",\"text\":\"Fact %d.\",\"observed_at\":\"2020-01-01\"}\n",
                         i, i);
        assert_int_equal(fwrite(line, 1, (size_t)n, file), n);
    }
    assert_int_equal(fclose(file), 0);
    ingest_options options = {.observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .now_us = 20000 * DAY};
    ingest *in = NULL;
    assert_ok(ingest_open(p->s, p->r, text_encoder, &options, &in, err));
    assert_ok(ingest_path(in, path, err));
    ingest_counts first;
    ingest_get_counts(in, &first);
    ingest_close(in); /* the last batch is lost */
    assert_true(first.documents_new > 0 && first.documents_new < 300);
    gather g = all_text(p);
    base_buffer_free(&g.text);
    assert_int_equal(g.count, first.episodes);
    ingest_counts second = run(p, path);
    assert_int_equal(second.documents_unchanged, first.documents_new);
    assert_int_equal(second.documents_new, 300 - first.documents_new);
    g = all_text(p);
    base_buffer_free(&g.text);
    assert_int_equal(g.count, 300);
}

/* Goal: what was ingested is found by meaning, by words and by time. */
static void test_ingest_is_found_by_search(void **state)
{
    place *p = *state;
    write_text(p, "x.jsonl",
               "{\"id\":\"1\",\"title\":\"Ferry\",\"text\":\"The boat departs at "
               "dawn.\",\"observed_at\":\"2019-01-01\"}\n"
               "{\"id\":\"2\",\"title\":\"Bakery\",\"text\":\"Bread is sold from "
               "six.\",\"observed_at\":\"2020-01-01\"}\n"
               "{\"id\":\"1\",\"title\":\"Ferry\",\"text\":\"The boat departs at "
               "noon.\",\"observed_at\":\"2022-01-01\"}\n",
               86400);
    assert_int_equal(run(p, p->input).episodes, 3);
    const char *question = "When does the ship leave?";
    float vector[STORE_VECTOR_DIM_MAX];
    assert_ok(encoder_encode(text_encoder, question, strlen(question), vector, err));
    for (int year = 2021; year <= 2023; year += 2) {
        retrieval_query q = {.text = question,
                             .text_size = strlen(question),
                             .vector = vector,
                             .as_of_us = base_time_from_civil(year, 1, 1),
                             .about_us = BASE_TIME_NONE,
                             .k = 2,
                             .use_strength = true,
                             .use_time = true,
                             .use_bm25 = true};
        retrieval_hit hits[2];
        size_t count;
        assert_ok(retrieval_search(p->r, &q, hits, &count, err));
        assert_int_equal(count, 2);
        store_episode e = episode(p, hits[0].id);
        assert_string_equal(e.text, year == 2021 ? "The boat departs at dawn."
                                                 : "The boat departs at noon.");
        store_episode_free(&e);
    }
}

/* Goal: without permission to write there is a clear refusal; a path that is not there is named. */
static void test_ingest_refuses_read_only_and_missing(void **state)
{
    place *p = *state;
    base_error error = {0};
    ingest_options options = {.now_us = DAY};
    ingest *in = NULL;
    assert_ok(ingest_open(p->s, p->r, text_encoder, &options, &in, err));
    assert_int_equal(ingest_path(in, "no/such/path", &error), BASE_NOT_FOUND);
    assert_non_null(strstr(error.text, "no/such/path"));
    ingest_close(in);
    in = NULL;
    store_options read_only = {.read_only = true};
    store *s = NULL;
    write_text(p, "a.txt", "Text.", 86400);
    run(p, p->input);
    retrieval_close(p->r);
    store_close(p->s);
    p->r = NULL;
    p->s = NULL;
    assert_ok(store_open(p->store_path, &read_only, &s, err));
    assert_int_equal(ingest_open(s, NULL, text_encoder, &options, &in, &error), BASE_PERMISSION);
    assert_null(in);
    store_close(s);
}

static const struct CMUnitTest tests[] = {
    with_place(test_ingest_file_comes_back_byte_for_byte),
    with_place(test_ingest_is_idempotent_and_supersedes),
    with_place(test_ingest_bad_files_are_named_and_skipped),
    with_place(test_ingest_huge_file_is_named_and_skipped),
    with_place(test_ingest_jsonl_names_bad_lines),
    with_place(test_ingest_resumes_after_an_early_end),
    with_place(test_ingest_is_found_by_search),
    with_place(test_ingest_refuses_read_only_and_missing),
};
INGEST_MAIN(tests)
