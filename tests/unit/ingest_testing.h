/* tests/unit/ingest_testing.h: a store, an index and a folder of input files for one test of
 * ingest/; the caller opens text_encoder in main (INGEST_MAIN). */
#ifndef INGEST_TESTING_H
#define INGEST_TESTING_H

#include <fcntl.h>

#include "folder_testing.h"
#include "ingest/ingest.h"
#include "models.h"

#define DAY BASE_DAY_US
#define PROBLEMS_MAX 64

static encoder *text_encoder;

typedef struct place {
    char folder[64], input[96], store_path[96];
    store *s;
    retrieval *r;
    char problems[PROBLEMS_MAX][1024];
    size_t problem_count, progress_count;
} place;

static inline int set_up(void **state)
{
    place *p = calloc(1, sizeof *p);
    *state = p;
    snprintf(p->folder, sizeof p->folder, "ingest_XXXXXX");
    if (!p || !mkdtemp(p->folder)) {
        return -1;
    }
    snprintf(p->input, sizeof p->input, "%s/input", p->folder);
    snprintf(p->store_path, sizeof p->store_path, "%s/store", p->folder);
    store_options options = {.create = true};
    return mkdir(p->input, 0700) || store_open(p->store_path, &options, &p->s, NULL) ||
           retrieval_open(p->s, encoder_dim(text_encoder), &p->r, NULL);
}

static inline int tear_down(void **state)
{
    place *p = *state;
    retrieval_close(p->r);
    store_close(p->s);
    remove_tree(p->folder);
    free(p);
    return 0;
}

static inline void write_file(const place *p, const char *name, const char *data, size_t size,
                              int64_t modified_s)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", p->input, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    struct timespec times[2] = {{.tv_sec = modified_s}, {.tv_sec = modified_s}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static inline void write_text(const place *p, const char *name, const char *text,
                              int64_t modified_s)
{
    write_file(p, name, text, strlen(text), modified_s);
}

static inline void on_problem(void *argument, const char *text)
{
    place *p = argument;
    assert_true(p->problem_count < PROBLEMS_MAX);
    snprintf(p->problems[p->problem_count++], sizeof p->problems[0], "%s", text);
}

static inline void on_progress(void *argument, const ingest_counts *counts)
{
    place *p = argument;
    assert_non_null(counts);
    p->progress_count++;
}

static inline ingest_counts run(place *p, const char *path)
{
    ingest_options options = {.observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .now_us = 20000 * DAY,
                              .on_problem = on_problem,
                              .on_progress = on_progress,
                              .argument = p};
    ingest *in = NULL;
    ingest_counts counts;
    p->problem_count = 0;
    assert_ok(ingest_open(p->s, p->r, text_encoder, &options, &in, err));
    assert_ok(ingest_path(in, path, err));
    assert_ok(ingest_commit(in, true, err));
    ingest_get_counts(in, &counts);
    assert_int_equal(counts.failed, p->problem_count);
    ingest_close(in);
    return counts;
}

/* Some reported problem holds both texts. */
static inline void assert_problem(const place *p, const char *where, const char *what)
{
    for (size_t i = 0; i < p->problem_count; i++) {
        if (strstr(p->problems[i], where) && strstr(p->problems[i], what)) {
            return;
        }
    }
    for (size_t i = 0; i < p->problem_count; i++) {
        print_message("problem: %s\n", p->problems[i]);
    }
    fail_msg("no problem speaks of \"%s\" and \"%s\"", where, what);
}

typedef struct gather {
    base_buffer text;
    size_t count, with_vector;
} gather;

static inline bool gather_one(void *argument, const store_view *view)
{
    gather *g = argument;
    g->count++;
    g->with_vector += view->vector != NULL && view->vector_dim == encoder_dim(text_encoder);
    return base_buffer_append(&g->text, view->text, view->text_size) == BASE_OK;
}

static inline gather all_text(const place *p)
{
    gather g = {0};
    uint64_t damaged;
    assert_ok(store_scan(p->s, 0, gather_one, &g, &damaged, err));
    assert_int_equal(damaged, 0);
    return g;
}

static inline store_episode episode(const place *p, uint64_t id)
{
    store_episode e;
    assert_ok(store_get(p->s, id, &e, err));
    return e;
}

#define with_place(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* main: the tests with the default text encoder open. */
#define INGEST_MAIN(list)                                      \
    int main(void)                                             \
    {                                                          \
        char folder[512];                                      \
        base_error err = {0};                                  \
        MODELS_REQUIRE(MODELS_ENCODER, folder);                \
        if (encoder_open(folder, NULL, &text_encoder, &err)) { \
            printf("%s\n", err.text);                          \
            return 1;                                          \
        }                                                      \
        int failed = cmocka_run_group_tests(list, NULL, NULL); \
        encoder_close(text_encoder);                           \
        return failed;                                         \
    }

#endif
