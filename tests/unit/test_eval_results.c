/* Results on disk: what goes in comes out, a run goes on where it stopped, another run is
 * refused. */
#include "folder_testing.h"

#include <math.h>

#include "base/file.h"
#include "eval/results.h"

static const eval_identity one = {.suite = "files",
                                  .arms = "none,prompt,full",
                                  .seed = 7,
                                  .limit = 300,
                                  .options = "k=4",
                                  .command = "eidetic eval files",
                                  .commit = "abc",
                                  .version = "0.1.0",
                                  .model_hash = "m1",
                                  .encoder_hash = "e1",
                                  .documents_hash = "d1",
                                  .questions_hash = "q1"};

static eval_row full_row(json_t *answers, json_t *extra)
{
    eval_row r = EVAL_ROW_EMPTY;
    r.arm = "full";
    r.question = "q-1";
    r.kind = "single_now";
    r.cluster = "doc 9";
    r.text = "Who leads \"Oslo\"?";
    r.answer = "Ann \xC3\xA9\n";
    r.answers = answers;
    r.extra = extra;
    r.em = 0;
    r.contains = 1;
    r.f1 = 0.5;
    r.rank = 2;
    r.age_s = 86400.5;
    r.distance = 1024;
    r.updates = 3;
    r.lookups = 1;
    r.prefill_tokens = 40;
    r.decode_tokens = 5;
    r.answer_ms = 12.25;
    r.citations = 2;
    r.citations_right = 1;
    return r;
}

static void add(eval_results *results, const char *arm, const char *question)
{
    eval_row r = EVAL_ROW_EMPTY;
    r.arm = arm;
    r.question = question;
    r.contains = 1;
    assert_ok(eval_results_add(results, &r, err));
}

static size_t lines_of(const char *dir, json_t **last)
{
    char path[4200];
    base_buffer text = {0};
    size_t lines = 0;
    snprintf(path, sizeof path, "%s/results.jsonl", dir);
    assert_ok(base_file_read(path, 1 << 20, &text, err));
    for (char *line = text.data; line && *line;) {
        char *end = strchr(line, '\n');
        assert_non_null(end); /* every line is whole */
        *end = 0;
        json_t *json = json_loads(line, 0, NULL);
        assert_non_null(json);
        if (last) {
            json_decref(*last);
            *last = json;
        } else {
            json_decref(json);
        }
        lines++;
        line = end + 1;
    }
    base_buffer_free(&text);
    return lines;
}

static void test_eval_results_rows_come_back_as_they_went_in(void **state)
{
    eval_results *results;
    eval_run run;
    json_t *answers = json_pack("[s, s]", "Ann", "Anna"), *extra = json_pack("{s:i}", "turns", 4);
    json_t *line = NULL;
    eval_row r = full_row(answers, extra);
    assert_ok(eval_results_open(*state, &one, &results, err));
    assert_ok(eval_results_add(results, &r, err));
    add(results, "none", "q-1");
    assert_ok(eval_run_load(*state, &run, err)); /* while it is being written */
    assert_int_equal(run.row_count, 2);
    eval_run_free(&run);
    eval_results_close(results);

    assert_ok(eval_run_load(*state, &run, err));
    assert_string_equal(run.identity.suite, "files");
    assert_string_equal(run.identity.command, "eidetic eval files");
    assert_string_equal(run.identity.adapter_hash, "");
    assert_int_equal(run.identity.seed, 7);
    assert_int_equal(run.identity.limit, 300);
    assert_int_equal(strlen(run.id), 16);
    assert_int_equal(run.arm_count, 2); /* prompt has no rows */
    assert_string_equal(run.arms[0], "none");
    assert_string_equal(run.arms[1], "full");
    const eval_row *back = &run.rows[1];
    assert_string_equal(back->answer, r.answer);
    assert_string_equal(back->text, r.text);
    assert_string_equal(back->cluster, r.cluster);
    assert_true(json_equal(back->answers, answers) && json_equal(back->extra, extra));
    assert_null(back->stale_answers);
    assert_true(back->em == 0 && back->contains == 1 && back->stale == -1 && back->as_of == -1);
    assert_true(back->f1 == 0.5 && back->age_s == 86400.5 && back->answer_ms == 12.25);
    assert_true(isnan(back->first_token_ms) && isnan(back->value_nll));
    assert_true(back->rank == 2 && back->distance == 1024 && back->events == -1);
    assert_true(run.rows[0].citations == -1 && run.rows[0].kind == NULL);
    eval_run_free(&run);

    /* every line of results.jsonl says where it comes from */
    assert_int_equal(lines_of(*state, &line), 2);
    assert_string_equal(json_string_value(json_object_get(line, "arm")), "none");
    assert_string_equal(json_string_value(json_object_get(line, "id")), "q-1");
    assert_string_equal(json_string_value(json_object_get(line, "git_commit")), "abc");
    assert_string_equal(json_string_value(json_object_get(line, "model_hash")), "m1");
    assert_string_equal(json_string_value(json_object_get(line, "command")), "eidetic eval files");
    assert_int_equal(json_integer_value(json_object_get(line, "seed")), 7);
    assert_null(json_object_get(line, "f1"));
    json_decref(line);
    json_decref(answers);
    json_decref(extra);
}

/* Goal: nothing is run twice. Method: close after two rows, tear the last line of results.jsonl as
 * a kill would, open again. */
static void test_eval_results_the_same_run_goes_on(void **state)
{
    eval_results *results;
    char path[4200];
    eval_identity moved = one;
    assert_ok(eval_results_open(*state, &one, &results, err));
    add(results, "none", "a");
    add(results, "full", "a");
    eval_results_close(results);
    snprintf(path, sizeof path, "%s/results.jsonl", (char *)*state);
    assert_int_equal(truncate(path, 150), 0);
    moved.command = "the same with other words"; /* not compared */
    assert_ok(eval_results_open(*state, &moved, &results, err));
    assert_true(eval_results_has(results, "none", "a") && eval_results_has(results, "full", "a"));
    assert_false(eval_results_has(results, "prompt", "a") ||
                 eval_results_has(results, "none", "b"));
    assert_int_equal(lines_of(*state, NULL), 2);
    add(results, "none", "b");
    assert_int_equal(eval_results_count(results, "none"), 2);
    assert_int_equal(eval_results_count(results, NULL), 3);
    assert_int_equal(lines_of(*state, NULL), 3);
    eval_results_close(results);
}

static void test_eval_results_another_run_is_refused_by_what_differs(void **state)
{
    eval_results *results;
    base_error why = {0};
    eval_identity other[5] = {one, one, one, one, one};
    static const char *words[5] = {"questions_hash is \"q1\", wanted is \"q2\"", "seed is 7",
                                   "limit is 300, wanted is 0", "arms is", "git_commit is"};
    other[0].questions_hash = "q2";
    other[1].seed = 8;
    other[2].limit = 0;
    other[3].arms = "none";
    other[4].commit = "abd";
    assert_ok(eval_results_open(*state, &one, &results, err));
    eval_results_close(results);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(eval_results_open(*state, &other[i], &results, &why), BASE_EXISTS);
        assert_non_null(strstr(why.text, words[i]));
        assert_non_null(strstr(why.text, *state));
    }
}

static void test_eval_results_bad_rows_are_refused(void **state)
{
    eval_results *results;
    base_error why = {0};
    eval_row bad[6], good = EVAL_ROW_EMPTY;
    static const char *words[6] = {"arm",       "\"oracle\"",      "f1",
                                   "answer_ms", "citations_right", "kind"};
    good.arm = "none";
    good.question = "q";
    for (size_t i = 0; i < 6; i++) {
        bad[i] = good;
    }
    bad[0].question = "";
    bad[1].arm = "oracle";
    bad[2].f1 = 1.5;
    bad[3].answer_ms = INFINITY;
    bad[4].citations = 1;
    bad[4].citations_right = 2;
    bad[5].kind = "\xFF";
    assert_ok(eval_results_open(*state, &one, &results, err));
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(eval_results_add(results, &bad[i], &why), BASE_INVALID);
        assert_non_null(strstr(why.text, words[i]));
    }
    assert_int_equal(eval_results_count(results, NULL), 0);
    good.answer = "broken \xFF byte"; /* what a model says is never a reason to stop */
    assert_ok(eval_results_add(results, &good, err));
    assert_int_equal(eval_results_add(results, &good, &why), BASE_EXISTS);
    assert_int_equal(eval_results_count(results, NULL), 1);
    assert_int_equal(lines_of(*state, NULL), 1);
    eval_results_close(results);
}

static void test_eval_results_traces_come_back_in_order(void **state)
{
    eval_results *results;
    eval_run run;
    const eval_trace_token tokens[] = {{"He", 3.5, 1.0, true, 0.25},
                                       {" \xF0\x9F", 0.5, NAN, false, NAN},
                                       {"y", 0.25, 0.125, false, 0}};
    assert_ok(eval_results_open(*state, &one, &results, err));
    assert_ok(eval_results_trace(results, "full", "a", tokens, 2, err));
    assert_ok(eval_results_trace(results, "full", "a", tokens, 3, err)); /* replaces */
    assert_ok(eval_results_trace(results, "none", "a", tokens, 1, err));
    eval_results_close(results);
    assert_ok(eval_run_load(*state, &run, err));
    assert_int_equal(run.trace_count, 2);
    const eval_trace *t = run.traces[0].count == 3 ? &run.traces[0] : &run.traces[1];
    assert_int_equal(t->count, 3);
    assert_string_equal(t->arm, "full");
    assert_true(t->tokens[0].event && t->tokens[0].attention_mass == 0.25);
    assert_true(isnan(t->tokens[1].surprise_nats) && isnan(t->tokens[1].attention_mass));
    assert_non_null(strstr(t->tokens[1].text, "\xEF\xBF\xBD")); /* half a code point */
    assert_string_equal(t->tokens[2].text, "y");
    eval_run_free(&run);
}

static void put(const char *dir, const char *name, const void *data, size_t size)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(base_file_replace(path, data, size, 0600, err));
}

static void test_eval_results_foreign_and_damaged_folders_are_refused(void **state)
{
    eval_results *results;
    eval_run run;
    base_error why = {0};
    char path[4200], noise[8192];
    assert_int_equal(eval_run_load(*state, &run, &why), BASE_NOT_FOUND);
    assert_non_null(strstr(why.text, *state));
    put(*state, "results.jsonl", "{}\n", 3); /* somebody else's */
    assert_int_equal(eval_results_open(*state, &one, &results, &why), BASE_EXISTS);
    snprintf(path, sizeof path, "%s/results.jsonl", (char *)*state);
    unlink(path);
    put(*state, "results.sqlite", "not a database, but long enough to be read as one........", 55);
    assert_int_equal(eval_run_load(*state, &run, &why), BASE_CORRUPT);
    assert_non_null(strstr(why.text, "results.sqlite"));
    assert_int_equal(eval_results_open(*state, &one, &results, &why), BASE_CORRUPT);
    put(*state, "results.sqlite", "", 0);
    assert_int_equal(eval_run_load(*state, &run, &why), BASE_CORRUPT);
    /* a run whose pages are overwritten behind the header */
    assert_ok(eval_results_open(*state, &one, &results, err));
    for (int i = 0; i < 200; i++) {
        snprintf(noise, sizeof noise, "q%d", i);
        add(results, "none", noise);
    }
    eval_results_close(results);
    snprintf(path, sizeof path, "%s/results.sqlite", (char *)*state);
    FILE *file = fopen(path, "r+b");
    memset(noise, 0x5A, sizeof noise);
    assert_int_equal(fseek(file, 4096, SEEK_SET), 0);
    assert_int_equal(fwrite(noise, 1, sizeof noise, file), sizeof noise);
    fclose(file);
    assert_int_equal(eval_run_load(*state, &run, &why), BASE_CORRUPT);
}

static void test_eval_results_hashes_and_commit(void **state)
{
    char path[4200], hex[65];
    base_error why = {0};
    put(*state, "abc", "abc", 3);
    snprintf(path, sizeof path, "%s/abc", (char *)*state);
    assert_ok(eval_hash_file(path, hex, err));
    /* FIPS 180-4, example B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(eval_hash_file(NULL, hex, err));
    assert_string_equal(hex, "");
    assert_int_equal(eval_hash_file("/nowhere/at/all", hex, &why), BASE_NOT_FOUND);
    assert_true(strlen(eval_commit()) >= 7);
}

/* --- answers of another program --------------------------------------------------------------- */

#define HEAD "{\"suite\":\"files\",\"arms\":\"rag\",\"seed\":3}\n"
#define ANSWER(id, more) "{\"arm\":\"rag\",\"id\":\"" id "\"" more "}\n"

static base_status import(const char *folder, const char *lines, base_error *err)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/answers.jsonl", folder);
    assert_int_equal(base_file_replace(path, lines, strlen(lines), 0600, err), BASE_OK);
    char dir[4200];
    snprintf(dir, sizeof dir, "%s/imported", folder);
    *err = (base_error){0};
    return eval_results_import(path, dir, err);
}

static void test_eval_results_imported_answers_are_judged(void **state)
{
    base_error error;
    eval_run run;
    char dir[4200];
    if (import(*state,
               HEAD ANSWER("q1", ",\"answer\":\"the mast\",\"answers\":[\"Mast\"],"
                                 "\"stale_answers\":[\"tower\"],\"answer_ms\":12")
                   ANSWER("q2", ",\"answer\":\"the tower\",\"answers\":[\"Mast\"],"
                                "\"stale_answers\":[\"tower\"]")
                       ANSWER("q3", ",\"answer\":\"mast\",\"answers\":[\"Mast\"],"
                                    "\"abstained\":true"),
               &error)) {
        fail_msg("%s", error.text);
    }
    snprintf(dir, sizeof dir, "%s/imported", (const char *)*state);
    assert_ok(eval_run_load(dir, &run, err));
    assert_int_equal(run.row_count, 3);
    assert_true(run.rows[0].em == 1 && run.rows[0].stale == 0 && run.rows[0].answer_ms > 11);
    assert_true(run.rows[1].contains == 0 && run.rows[1].stale == 1);
    assert_int_equal(run.rows[2].contains, 0); /* it said that it does not know */
    eval_run_free(&run);
}

static void test_eval_results_answers_that_do_not_belong_are_refused(void **state)
{
    const struct {
        const char *lines, *says;
        base_status status;
    } cases[] = {
        {"", "no run in it", BASE_INVALID},
        {"{\"arms\":\"rag\"}\n", "answers.jsonl:1: the first line needs", BASE_INVALID},
        {HEAD "\n{\"arm\":", "answers.jsonl:3: ", BASE_INVALID},
        {HEAD ANSWER("q1", ",\"answer_ms\":\"fast\""), "answers.jsonl:2: \"answer_ms\"",
         BASE_INVALID},
        {HEAD "{\"arm\":\"full\",\"id\":\"q1\"}\n", "answers.jsonl:2: ", BASE_INVALID},
        {HEAD ANSWER("q1", "") ANSWER("q1", ""), "is there already", BASE_EXISTS},
        {"{\"suite\":\"files\",\"arms\":\"rag\",\"seed\":4}\n", "its seed is 3", BASE_EXISTS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        base_error error;
        base_status status = import(*state, cases[i].lines, &error);
        if (status != cases[i].status || !strstr(error.text, cases[i].says)) {
            fail_msg("case %zu: %s (%s)", i, base_status_name(status), error.text);
        }
    }
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_eval_results_rows_come_back_as_they_went_in),
        IN_FOLDER(test_eval_results_the_same_run_goes_on),
        IN_FOLDER(test_eval_results_another_run_is_refused_by_what_differs),
        IN_FOLDER(test_eval_results_bad_rows_are_refused),
        IN_FOLDER(test_eval_results_traces_come_back_in_order),
        IN_FOLDER(test_eval_results_foreign_and_damaged_folders_are_refused),
        IN_FOLDER(test_eval_results_hashes_and_commit),
        IN_FOLDER(test_eval_results_imported_answers_are_judged),
        IN_FOLDER(test_eval_results_answers_that_do_not_belong_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
