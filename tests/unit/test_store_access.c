/* Who may write and read at the same time, and what happens without permission, space or a free
 * lock. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "store_testing.h"

#define NOBODY 65534

/* Wait for a child that answers by its exit code. */
static void assert_child(pid_t child)
{
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (!WIFEXITED(code) || WEXITSTATUS(code) != 0) {
        fail_msg("the other process ended with %d", WIFEXITED(code) ? WEXITSTATUS(code) : -1);
    }
}

/* Wait for a byte / send one: the steps of two processes. */
static void await(int fd)
{
    char byte;
    if (read(fd, &byte, 1) != 1) {
        _exit(90);
    }
}

static void signal_step(int fd)
{
    if (write(fd, "x", 1) != 1) {
        _exit(91);
    }
}

/* Goal: a second writer waits its time and then says BUSY; readers work meanwhile and see only
 * what is committed. */
static void test_store_second_writer_is_busy_readers_go_on(void **state)
{
    int holds[2], done[2];
    store *s = open_store(*state);
    put_text(s, "w", "a", "Committed.", DAY, NULL);
    store_close(s);
    assert_int_equal(pipe(holds), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        store_options options = {0};
        store_txn *txn;
        store_new_span span = {.end_byte = 4};
        store_new_document doc = {.source = "c",
                                  .text = "Wait",
                                  .text_size = 4,
                                  .observed_at_us = DAY,
                                  .valid_from_us = BASE_TIME_NONE,
                                  .valid_to_us = BASE_TIME_NONE,
                                  .spans = &span,
                                  .span_count = 1};
        store_put_result result;
        uint64_t id;
        size_t count;
        if (store_open(*state, &options, &s, NULL) != BASE_OK ||
            store_begin(s, DAY, &txn, NULL) != BASE_OK ||
            store_put_document(txn, &doc, &result, &id, &count, NULL) != BASE_OK) {
            _exit(1);
        }
        signal_step(holds[1]);
        await(done[0]);
        int code = store_commit(txn, NULL) == BASE_OK ? 0 : 2;
        store_close(s);
        _exit(code);
    }
    await(holds[0]);
    store_options options = {.lock_wait_ms = 50};
    store_txn *txn;
    base_error error;
    assert_ok(store_open(*state, &options, &s, err));
    double start_ms = base_clock_ms();
    assert_int_equal(store_begin(s, DAY, &txn, &error), BASE_BUSY);
    assert_true(base_clock_ms() - start_ms >= 50.0);
    assert_non_null(strstr(error.text, "writer"));
    store_episode e = get_episode(s, 1);
    store_episode_free(&e);
    assert_int_equal(store_get(s, 2, &e, NULL), BASE_NOT_FOUND);
    assert_ok(store_count_dropped(s, 1, err));
    signal_step(done[1]);
    assert_child(child);
    e = get_episode(s, 2);
    assert_string_equal(e.text, "Wait");
    store_episode_free(&e);
    assert_ok(store_begin(s, DAY, &txn, err)); /* the lock went with its holder */
    store_abort(txn);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.dropped_writes, 1);
    store_stats_free(&stats);
    store_close(s);
    assert_verifies(*state, 2);
    for (int i = 0; i < 2; i++) {
        close(holds[i]);
        close(done[i]);
    }
}

/* Put `count` documents, one commit each. */
static int put_many(const char *path, const char *source, int count)
{
    store *s = NULL;
    store_options options = {.create = true};
    if (store_open(path, &options, &s, NULL) != BASE_OK) {
        return 1;
    }
    int code = 0;
    for (int i = 0; i < count && code == 0; i++) {
        char id[32], text[64];
        store_txn *txn;
        store_put_result result;
        uint64_t first;
        size_t spans;
        snprintf(id, sizeof id, "%s%d", source, i);
        snprintf(text, sizeof text, "%s says %d.", source, i);
        store_new_span span = {.end_byte = strlen(text)};
        store_new_document doc = {.source = source,
                                  .external_id = id,
                                  .text = text,
                                  .text_size = strlen(text),
                                  .observed_at_us = DAY,
                                  .valid_from_us = BASE_TIME_NONE,
                                  .valid_to_us = BASE_TIME_NONE,
                                  .spans = &span,
                                  .span_count = 1};
        if (store_begin(s, DAY, &txn, NULL) != BASE_OK) {
            code = 2;
        } else if (store_put_document(txn, &doc, &result, &first, &spans, NULL) != BASE_OK) {
            store_abort(txn);
            code = 3;
        } else if (store_commit(txn, NULL) != BASE_OK) {
            code = 4;
        }
    }
    store_close(s);
    return code;
}

/* Goal: two processes that write at the same time lose nothing, from the very creation of the store
 * on. */
static void test_store_two_writing_processes_lose_nothing(void **state)
{
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            _exit(put_many(*state, i ? "beta" : "alpha", 60));
        }
    }
    assert_child(children[0]);
    assert_child(children[1]);
    store *s = open_store(*state);
    assert_int_equal(store_last_commit(s), 120);
    store_text_hit hits[100];
    assert_int_equal(find_text(s, "alpha", BASE_TIME_MAX, hits, 100), 60);
    assert_int_equal(find_text(s, "beta", BASE_TIME_MAX, hits, 100), 60);
    store_close(s);
    assert_verifies(*state, 120);
}

typedef struct thread_job {
    store *s;
    int failures, searches;
    bool writes;
} thread_job;

static void *thread_main(void *argument)
{
    thread_job *job = argument;
    for (int i = 0; i < 60; i++) {
        if (job->writes) {
            char text[64];
            store_txn *txn;
            store_put_result result;
            uint64_t first;
            size_t spans;
            snprintf(text, sizeof text, "Thread text %d.", i);
            store_new_span span = {.end_byte = strlen(text)};
            store_new_document doc = {.source = "t",
                                      .text = text,
                                      .text_size = strlen(text),
                                      .observed_at_us = DAY,
                                      .valid_from_us = BASE_TIME_NONE,
                                      .valid_to_us = BASE_TIME_NONE,
                                      .spans = &span,
                                      .span_count = 1};
            if (store_begin(job->s, DAY, &txn, NULL) != BASE_OK ||
                store_put_document(txn, &doc, &result, &first, &spans, NULL) != BASE_OK ||
                store_commit(txn, NULL) != BASE_OK) {
                job->failures++;
            }
        } else {
            store_text_hit hits[4];
            store_episode e;
            size_t count;
            uint64_t id = 1 + (uint64_t)i % 10;
            job->failures += store_search_text(job->s, "common", 6, BASE_TIME_MAX, 4, hits, &count,
                                               NULL) != BASE_OK;
            job->searches += (int)count;
            if (store_get(job->s, id, &e, NULL) == BASE_OK) {
                store_episode_free(&e);
            } else {
                job->failures++;
            }
        }
    }
    return NULL;
}

/* Goal: one handle serves several threads. */
static void test_store_handle_is_shared_by_threads(void **state)
{
    store *s = open_store(*state);
    char id[16];
    for (int i = 0; i < 10; i++) {
        snprintf(id, sizeof id, "%d", i);
        put_text(s, "w", id, "Some common words.", DAY, NULL);
    }
    thread_job jobs[4] = {{.s = s}, {.s = s}, {.s = s, .writes = true}, {.s = s, .writes = true}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &jobs[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].failures, 0);
    }
    assert_int_equal(jobs[0].searches, 4 * 60);
    store_close(s);
    assert_verifies(*state, 70); /* the texts of both writers are the same 60 */
}

/* Everything in the folder belongs to uid and is read-only. */
static void lock_folder(const char *folder, uid_t uid)
{
    DIR *stream = opendir(folder);
    struct dirent *entry;
    assert_non_null(stream);
    while ((entry = readdir(stream))) {
        char path[4096];
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            assert_int_equal(chown(path, uid, (gid_t)-1), 0);
            assert_int_equal(chmod(path, 0400), 0);
        }
    }
    closedir(stream);
    assert_int_equal(chown(folder, uid, (gid_t)-1), 0);
    assert_int_equal(chmod(folder, 0500), 0);
}

static int use_locked_store(const char *path)
{
    store *s = NULL;
    store_options options = {.read_only = true};
    store_episode e;
    store_text_hit hit;
    store_txn *txn;
    size_t count = 0;
    if (store_open(path, &options, &s, NULL) != BASE_OK) {
        return 1;
    }
    if (store_get(s, 1, &e, NULL) != BASE_OK) {
        return 2;
    }
    store_episode_free(&e);
    if (store_search_text(s, "readable", 8, BASE_TIME_MAX, 1, &hit, &count, NULL) != BASE_OK ||
        count != 1) {
        return 3;
    }
    if (store_begin(s, DAY, &txn, NULL) != BASE_PERMISSION) {
        return 4;
    }
    store_close(s);
    store_options write = {0};
    base_error error = {0};
    if (store_open(path, &write, &s, &error) != BASE_PERMISSION || error.text[0] == '\0') {
        return 5;
    }
    store_verify_report report;
    if (store_verify(path, false, &report, NULL) != BASE_OK || report.count != 0) {
        return 6;
    }
    return 0;
}

/* Goal: a folder without write permission answers fully, verifies, and refuses writing by name.
 * Method: as root, a child takes another user's rights; otherwise the mode bits are enough. */
static void test_store_read_only_folder_answers(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "a", "Readable.", DAY, NULL);
    store_close(s);
    bool root = geteuid() == 0;
    lock_folder(*state, root ? NOBODY : geteuid());
    pid_t child = fork();
    if (child == 0) {
        if (root && (setegid(NOBODY) != 0 || seteuid(NOBODY) != 0)) {
            _exit(80);
        }
        _exit(use_locked_store(*state));
    }
    assert_int_equal(chmod(*state, 0500), 0);
    assert_child(child);
    assert_int_equal(chmod(*state, 0700), 0);
    if (root) {
        assert_int_equal(chown(*state, 0, (gid_t)-1), 0);
    }
}

/* Goal: a full disk is reported as such, and nothing committed before is lost. Method: a file size
 * limit in a child makes writes fail as a full disk does (EFBIG instead of ENOSPC). */
static void test_store_failing_writes_lose_nothing(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "a", "Safe text.", DAY, NULL);
    store_close(s);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 400 << 10, .rlim_max = 400 << 10};
        signal(SIGXFSZ, SIG_IGN);
        store_options options = {0};
        if (store_open(*state, &options, &s, NULL) != BASE_OK ||
            setrlimit(RLIMIT_FSIZE, &limit) != 0) {
            _exit(1);
        }
        uint8_t tag[32] = {1};
        size_t size = 1 << 20;
        char *blob = calloc(1, size);
        store_txn *txn;
        base_error error = {0};
        if (!blob || store_begin(s, DAY, &txn, NULL) != BASE_OK) {
            _exit(2);
        }
        if (store_put_kv(txn, 1, tag, blob, size, &error) == BASE_OK) {
            if (store_commit(txn, &error) == BASE_OK || error.text[0] == '\0') {
                _exit(3);
            }
        } else {
            store_abort(txn);
        }
        store_episode e;
        if (store_get(s, 1, &e, NULL) != BASE_OK) {
            _exit(4);
        }
        store_episode_free(&e);
        free(blob);
        store_close(s);
        _exit(0);
    }
    assert_child(child);
    s = open_store(*state);
    store_episode e = get_episode(s, 1);
    assert_string_equal(e.text, "Safe text.");
    store_episode_free(&e);
    store_close(s);
    assert_verifies(*state, 1);
}

/* Goal: a full map says LIMIT, the transaction can be aborted and the store goes on. */
static void test_store_full_map_is_reported(void **state)
{
    store *s = NULL;
    store_options options = {.create = true, .map_bytes = 1 << 20};
    assert_ok(store_open(*state, &options, &s, err));
    put_text(s, "w", "a", "One.", DAY, NULL);
    uint8_t tag[32] = {1};
    size_t size = 2 << 20;
    char *blob = test_calloc(1, size);
    store_txn *txn;
    base_error error;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_int_equal(store_put_kv(txn, 1, tag, blob, size, &error), BASE_LIMIT);
    assert_non_null(strstr(error.text, "MAP_FULL"));
    store_abort(txn);
    test_free(blob);
    put_text(s, "w", "b", "Two.", DAY, NULL);
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: little address space still opens a store. */
static void test_store_opens_with_little_address_space(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    print_message("skipped: a sanitizer needs the address space itself\n");
    skip();
#else
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = (rlim_t)2 << 30, .rlim_max = (rlim_t)2 << 30};
        _exit(setrlimit(RLIMIT_AS, &limit) != 0 ? 70 : put_many(*state, "small", 3));
    }
    assert_child(child);
    assert_verifies(*state, 3);
#endif
}

/* Goal: files are for the owner only. */
static void test_store_files_are_private(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "a", "Private.", DAY, NULL);
    DIR *stream = opendir(*state);
    struct dirent *entry;
    int files = 0;
    while ((entry = readdir(stream))) {
        char path[4096];
        struct stat info;
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", (const char *)*state, entry->d_name);
            assert_int_equal(stat(path, &info), 0);
            if ((info.st_mode & 0077) != 0) {
                fail_msg("%s has mode %o", entry->d_name, info.st_mode & 0777);
            }
            files++;
        }
    }
    closedir(stream);
    assert_true(files >= 4);
    store_close(s);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_second_writer_is_busy_readers_go_on),
        WITH_FOLDER(test_store_two_writing_processes_lose_nothing),
        WITH_FOLDER(test_store_handle_is_shared_by_threads),
        WITH_FOLDER(test_store_read_only_folder_answers),
        WITH_FOLDER(test_store_failing_writes_lose_nothing),
        WITH_FOLDER(test_store_full_map_is_reported),
        WITH_FOLDER(test_store_opens_with_little_address_space),
        WITH_FOLDER(test_store_files_are_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
