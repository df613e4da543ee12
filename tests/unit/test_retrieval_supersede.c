/* Supersession across documents over a real store: newer closes older whichever came first, what is
 * said at once or by one document stays, the comparison goes on where it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <unistd.h>

#include "folder_testing.h"
#include "retrieval/supersede.h"

#define DIM 8
#define DAY BASE_DAY_US

typedef struct line {
    const char *id, *text;
    int day;
} line;

/* Put one-episode documents in one commit; vectors are all alike, so that everything is near. */
static void put_lines(store *s, const line *lines, size_t count)
{
    float v[DIM] = {1};
    store_txn *txn;
    assert_ok(store_begin(s, 900 * DAY, &txn, err));
    for (size_t i = 0; i < count; i++) {
        store_new_span span = {.end_byte = strlen(lines[i].text), .vector = v};
        store_new_document doc = {.source = "test",
                                  .external_id = lines[i].id,
                                  .title = "",
                                  .text = lines[i].text,
                                  .text_size = strlen(lines[i].text),
                                  .observed_at_us = lines[i].day * DAY,
                                  .valid_from_us = BASE_TIME_NONE,
                                  .valid_to_us = BASE_TIME_NONE,
                                  .spans = &span,
                                  .span_count = 1,
                                  .vector_dim = DIM,
                                  .encoder = "one"};
        store_put_result result;
        uint64_t first;
        size_t n;
        assert_ok(store_put_document(txn, &doc, &result, &first, &n, err));
    }
    assert_ok(store_commit(txn, err));
}

static size_t encoded; /* frames and values that were asked for */
static size_t stop_at; /* set `stopped` when so many were encoded; 0 = never */
static atomic_bool stopped;

/* Frames that speak of heading lie on one axis, others on another. */
static base_status encode(void *argument, const char *const *texts, const size_t *sizes,
                          size_t count, float *vectors, base_error *err)
{
    (void)argument;
    (void)sizes;
    (void)err;
    memset(vectors, 0, count * DIM * sizeof *vectors);
    for (size_t i = 0; i < count; i++) {
        vectors[i * DIM + (strstr(texts[i], "head") ? 0 : 1)] = 1;
        encoded++;
    }
    if (stop_at > 0 && encoded >= stop_at) {
        atomic_store(&stopped, true);
    }
    return BASE_OK;
}

static retrieval_supersede_receipt supersede(store *s, uint64_t max)
{
    retrieval *r = NULL;
    retrieval_supersede_receipt receipt;
    retrieval_supersede_options options = {
        .now_us = 900 * DAY, .encode = encode, .limits.episodes_max = max};
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_ok(retrieval_supersede(r, &options, &receipt, err));
    retrieval_close(r);
    return receipt;
}

/* A comparison that another thread ends when `at` frames or values were encoded. */
static retrieval_supersede_receipt supersede_until(store *s, size_t at)
{
    retrieval *r = NULL;
    retrieval_supersede_receipt receipt;
    retrieval_supersede_options options = {
        .now_us = 900 * DAY, .encode = encode, .limits.stop = &stopped};
    encoded = 0;
    stop_at = at;
    atomic_store(&stopped, false);
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_ok(retrieval_supersede(r, &options, &receipt, err));
    retrieval_close(r);
    stop_at = 0;
    return receipt;
}

static void check_closed(store *s, uint64_t id, uint64_t by, int day)
{
    store_episode e;
    assert_ok(store_get(s, id, &e, err));
    if (e.superseded_by != by || (by && e.superseded_at_us != day * DAY)) {
        fail_msg("episode %d (\"%s\") is closed by %d, wanted %d", (int)id, e.text,
                 (int)e.superseded_by, (int)by);
    }
    store_episode_free(&e);
}

static store *open_at(const char *path)
{
    store *s = NULL;
    store_options options = {.create = true};
    assert_ok(store_open(path, &options, &s, err));
    return s;
}

/* Goal: the newer closes the older, in other words too; another entity, another attribute stay. */
static void test_newer_closes_older(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line lines[] = {
        {"a", "The head of Northgate Library is Ada Brandt.", 1},
        {"b", "The head of Southgate Library is Ada Brandt.", 2},
        {"c", "Northgate Library stands in Bergen.", 3},
        {"d", "The head of Northgate Library is Otto Lenz.", 4},
        {"e", "Northgate Library is headed by Ida Moe.", 6},
    };
    put_lines(s, lines, 5);
    encoded = 0;
    retrieval_supersede_receipt receipt = supersede(s, 0);
    assert_int_equal(receipt.compared, 5);
    assert_int_equal(receipt.left, 0);
    assert_true(encoded > 0 && encoded < 12); /* each frame and value once */
    check_closed(s, 1, 4, 4);
    check_closed(s, 2, 0, 0);
    check_closed(s, 3, 0, 0);
    check_closed(s, 4, 5, 6);
    check_closed(s, 5, 0, 0);
    uint64_t commit = store_last_commit(s);
    receipt = supersede(s, 0);
    assert_int_equal(receipt.compared, 0);
    assert_int_equal(store_last_commit(s), commit); /* again: nothing is written */
    store_close(s);
    store_verify_report report = {0};
    assert_ok(store_verify(path, false, &report, err));
    assert_int_equal(report.count, 0);
    base_free(report.problems);
}

/* Goal: what arrives late is closed on arrival, and closes its predecessor at its own time. */
static void test_a_late_arrival_finds_its_place(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line early[] = {{"a", "The head of Northgate Library is Ada Brandt.", 1},
                                 {"c", "The head of Northgate Library is Otto Lenz.", 9}};
    static const line late[] = {{"b", "The head of Northgate Library is Ida Moe.", 5}};
    put_lines(s, early, 2);
    supersede(s, 0);
    check_closed(s, 1, 2, 9);
    put_lines(s, late, 1);
    supersede(s, 0);
    check_closed(s, 1, 3, 5);
    check_closed(s, 3, 2, 9);
    check_closed(s, 2, 0, 0);
    store_close(s);
}

/* Goal: said at one moment in one commit, values stand side by side; said later, they follow. */
static void test_what_is_said_at_once_stands_side_by_side(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line at_once[] = {{"a", "Ruth Olsen speaks French.", 1},
                                   {"b", "Ruth Olsen speaks German.", 1}};
    static const line later[] = {{"c", "Ida's dog is called Rex.", 2}},
                      last[] = {{"d", "Ida's dog is called Bello.", 2}};
    put_lines(s, at_once, 2);
    put_lines(s, later, 1);
    put_lines(s, last, 1);
    supersede(s, 0);
    check_closed(s, 1, 0, 0);
    check_closed(s, 2, 0, 0);
    check_closed(s, 3, 4, 2);
    store_close(s);
}

/* Goal: a comparison cut short goes on after reopening, and comes to the same end. */
static void test_the_comparison_goes_on_where_it_was(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line lines[] = {{"a", "The head of Northgate Library is Ada Brandt.", 1},
                                 {"b", "The head of Northgate Library is Otto Lenz.", 2},
                                 {"c", "The head of Northgate Library is Ida Moe.", 3}};
    put_lines(s, lines, 3);
    uint64_t left = 3;
    while (left > 0) {
        retrieval_supersede_receipt receipt = supersede(s, 1);
        assert_int_equal(receipt.compared, 1);
        assert_int_equal(receipt.left, left - 1);
        left = receipt.left;
        store_close(s);
        s = open_at(path);
    }
    check_closed(s, 1, 2, 2);
    check_closed(s, 2, 3, 3);
    check_closed(s, 3, 0, 0);
    store_close(s);
}

/* Goal: stopped in the middle, what was compared is kept and what was not is compared later;
 * nothing is closed by half of a comparison. */
static void test_a_stopped_comparison_loses_nothing(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line lines[] = {{"a", "The head of Northgate Library is Ada Brandt.", 1},
                                 {"b", "Northgate Library is headed by Otto Lenz.", 2},
                                 {"c", "Southgate Library is headed by Ida Moe.", 3},
                                 {"d", "The head of Southgate Library is Ruth Olsen.", 4}};
    put_lines(s, lines, 4);
    uint64_t commit = store_last_commit(s);
    retrieval_supersede_receipt receipt = supersede_until(s, 1);
    assert_int_equal(receipt.compared, 0);
    assert_int_equal(receipt.closed, 0);
    assert_int_equal(receipt.left, 4);
    assert_int_equal(store_last_commit(s), commit); /* and nothing is written for nothing */
    check_closed(s, 1, 0, 0);
    receipt = supersede_until(s, 5); /* in the comparison of the third with the fourth */
    assert_int_equal(receipt.compared, 2);
    assert_int_equal(receipt.left, 2);
    check_closed(s, 1, 2, 2);
    check_closed(s, 3, 0, 0);
    receipt = supersede(s, 0);
    assert_int_equal(receipt.compared, 2);
    assert_int_equal(receipt.left, 0);
    check_closed(s, 3, 4, 4);
    store_close(s);
}

/* Goal: where asked to, it does not wait for another writer. */
static void test_a_busy_store_is_left_alone(void **state)
{
    const char *path = *state;
    store *s = open_at(path);
    static const line lines[] = {{"a", "The head of Northgate Library is Ada Brandt.", 1},
                                 {"b", "The head of Northgate Library is Otto Lenz.", 2}};
    put_lines(s, lines, 2);
    char lock[4200];
    snprintf(lock, sizeof lock, "%s/writer.lock", path);
    int fd = open(lock, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* of this open file: as another process would */
    retrieval *r = NULL;
    retrieval_supersede_receipt receipt;
    retrieval_supersede_options options = {
        .now_us = 900 * DAY, .encode = encode, .limits.only_if_free = true};
    assert_ok(retrieval_open(s, DIM, &r, err));
    base_error why;
    assert_int_equal(retrieval_supersede(r, &options, &receipt, &why), BASE_BUSY);
    check_closed(s, 1, 0, 0);
    close(fd);
    assert_ok(retrieval_supersede(r, &options, &receipt, err));
    check_closed(s, 1, 2, 2);
    retrieval_close(r);
    store_close(s);
}

enum { MANY = 300 };

/* By whom each of MANY statements about ten libraries is closed; threads 0: no pool. */
static void close_many(const char *folder, size_t threads, uint64_t closed_by[MANY])
{
    static const char *const places[] = {"Northgate", "Southgate", "Eastgate", "Westgate",
                                         "Oldtown",   "Newtown",   "Harbour",  "Hillside",
                                         "Lakeside",  "Milltown"};
    static const char *const people[] = {"Ada Brandt", "Otto Lenz", "Ida Moe", "Ken Ito",
                                         "Eva Holm",   "Tom Reed",  "Mia Voss"};
    char path[4200], texts[MANY][96], ids[MANY][8];
    line lines[MANY];
    for (size_t i = 0; i < MANY; i++) {
        const char *form =
            i % 3 == 2 ? "%s Library is headed by %s." : "The head of %s Library is %s.";
        snprintf(texts[i], sizeof texts[i], form, places[i * 7 % 10], people[i * 5 % 7]);
        snprintf(ids[i], sizeof ids[i], "%zu", i);
        lines[i] = (line){ids[i], texts[i], (int)(i * 37 % MANY)};
    }
    snprintf(path, sizeof path, "%s/%zu", folder, threads);
    store *s = open_at(path);
    put_lines(s, lines, MANY);
    retrieval *r = NULL;
    base_pool *pool = NULL;
    retrieval_supersede_receipt receipt;
    retrieval_supersede_options options = {.now_us = 900 * DAY, .encode = encode};
    if (threads > 0) {
        assert_ok(base_pool_create(threads, &pool, err));
        options.pool = pool;
    }
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_ok(retrieval_supersede(r, &options, &receipt, err));
    assert_int_equal(receipt.compared, MANY);
    for (size_t i = 0; i < MANY; i++) {
        store_episode e;
        assert_ok(store_get(s, i + 1, &e, err));
        closed_by[i] = e.superseded_by;
        store_episode_free(&e);
    }
    retrieval_close(r);
    base_pool_free(pool);
    store_close(s);
}

/* Goal: the closings do not depend on the thread count. Method: more episodes than are looked at
 * together or committed together, in both wordings and out of order in time. */
static void test_threads_close_the_same(void **state)
{
    uint64_t alone[MANY], together[MANY];
    size_t closed = 0;
    close_many(*state, 0, alone);
    for (size_t i = 0; i < MANY; i++) {
        closed += alone[i] != 0;
    }
    assert_true(closed > MANY / 2);
    for (size_t threads = 1; threads <= 3; threads += 2) {
        close_many(*state, threads, together);
        assert_memory_equal(alone, together, sizeof alone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_newer_closes_older, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_a_stopped_comparison_loses_nothing, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(test_a_busy_store_is_left_alone, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_threads_close_the_same, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_a_late_arrival_finds_its_place, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(test_what_is_said_at_once_stands_side_by_side, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(test_the_comparison_goes_on_where_it_was, make_folder,
                                        drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
