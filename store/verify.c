/* store/verify.c: store_verify. The records are read in a child process, which damage may kill; it
 * sends what it finds through a pipe. Records that it came through are then compared with the
 * catalogue, in this process: a child forked beside other threads must not use SQLite, whose locks
 * one of them may have held. Afterwards, if asked, repair: salvaged records into a new file
 * (salvage.c), the catalogue filled anew.
 *
 * Message on the pipe: 1 byte type, 8 bytes number (little-endian), 64 bytes file, 64 bytes kind.
 *   'p' problem    'n' episodes checked    'e' error: number = base_status, followed by 768 bytes
 * of text    'd' done: number = 1 if a table could not be walked to its end */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "store/check.h"

#define MESSAGE_SIZE (1 + 8 + 64 + 64)
#define PROBLEMS_MAX 100000 /* more are counted as one of kind "more" */
#define LOCK_WAIT_MS 10000.0

/* --- messages
 * -------------------------------------------------------------------------------------- */

/* A parent that is gone makes the rest pointless: the child ends. */
static void send_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t put = write(fd, p, size);
        if (put < 0 && errno != EINTR) {
            _exit(4);
        }
        if (put > 0) {
            p += put;
            size -= (size_t)put;
        }
    }
}

static void send_message(int fd, char type, uint64_t number, const char *file, const char *kind)
{
    char message[MESSAGE_SIZE] = {0};
    message[0] = type;
    base_put_u64((uint8_t *)message + 1, number);
    snprintf(message + 9, 64, "%s", file);
    snprintf(message + 73, 64, "%s", kind);
    send_all(fd, message, sizeof message);
}

void store_check_problem(store_check *check, const char *file, uint64_t id, const char *kind)
{
    bool more = ++check->problems > PROBLEMS_MAX;
    if (check->problems > PROBLEMS_MAX + 1) {
        return;
    }
    id = more ? 0 : id;
    kind = more ? "more" : kind;
    if (!check->report) {
        send_message(check->fd, 'p', id, file, kind);
    } else if (store_report_add(check->report, file, id, kind) != BASE_OK) {
        check->no_memory = true;
    }
}

/* Fill data; false at the end of the pipe. */
static bool receive_all(int fd, void *data, size_t size)
{
    char *p = data;
    while (size > 0) {
        ssize_t got = read(fd, p, size);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        if (got > 0) {
            p += got;
            size -= (size_t)got;
        }
    }
    return true;
}

base_status store_report_add(store_verify_report *report, const char *file, uint64_t id,
                             const char *kind)
{
    /* Grown at powers of two: count tells the capacity. */
    size_t count = report->count;
    if ((count & (count - 1)) == 0) {
        size_t capacity = count ? 2 * count : 1, size;
        store_problem *problems = NULL;
        if (base_size_mul(capacity, sizeof *problems, &size)) {
            problems = base_realloc(report->problems, size);
        }
        if (!problems) {
            return BASE_NO_MEMORY;
        }
        report->problems = problems;
    }
    store_problem *problem = &report->problems[count];
    memset(problem, 0, sizeof *problem);
    snprintf(problem->file, sizeof problem->file, "%s", file);
    snprintf(problem->kind, sizeof problem->kind, "%s", kind);
    problem->id = id;
    report->count++;
    return BASE_OK;
}

/* Read what the child says to its end; *done when it said that it is through, *broken when it
 * could not walk a table. */
static base_status receive(int fd, store_verify_report *report, bool *done, bool *broken,
                           base_error *err)
{
    char message[MESSAGE_SIZE];
    base_status status = BASE_OK;
    *done = *broken = false;
    while (receive_all(fd, message, sizeof message)) {
        uint64_t number = base_get_u64((const uint8_t *)message + 1);
        message[72] = message[MESSAGE_SIZE - 1] = '\0';
        if (message[0] == 'p') {
            if (store_report_add(report, message + 9, number, message + 73) != BASE_OK) {
                status = base_fail(err, BASE_NO_MEMORY, "out of memory");
            }
        } else if (message[0] == 'n') {
            report->episodes_checked = number;
        } else if (message[0] == 'e') {
            char text[sizeof err->text];
            if (receive_all(fd, text, sizeof text)) {
                text[sizeof text - 1] = '\0';
                status = base_fail(err, (base_status)number, "%s", text);
            }
        } else if (message[0] == 'd') {
            *done = true;
            *broken = number != 0;
        }
    }
    return status;
}

static _Noreturn void child_main(int fd, store_child_work *work, void *argument)
{
    store_check check = {.fd = fd};
    base_error error = {0};
    store_db_child_begins();
    base_status status = work(argument, &check, &error);
    send_message(fd, 'n', check.episodes, "", "");
    if (status != BASE_OK) {
        send_message(fd, 'e', (uint64_t)status, "", "");
        send_all(fd, error.text, sizeof error.text);
    }
    send_message(fd, 'd', check.broken, "", "");
    _exit(0);
}

/* Run work in a child; report gets its problems, *died tells whether it came to its end. Errors of
 * the work itself are returned (BASE_VERSION ...). */
static base_status run_child(store_child_work *work, void *argument, store_verify_report *report,
                             bool *died, bool *broken, base_error *err)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return base_fail_errno(err, errno, "cannot make a pipe");
    }
    pid_t child = fork();
    if (child < 0) {
        int code = errno;
        close(ends[0]);
        close(ends[1]);
        return base_fail_errno(err, code, "cannot start a process");
    }
    if (child == 0) {
        close(ends[0]);
        child_main(ends[1], work, argument);
    }
    close(ends[1]);
    bool done = false;
    base_status status = receive(ends[0], report, &done, broken, err);
    close(ends[0]);
    int state = 0;
    pid_t waited;
    do {
        waited = waitpid(child, &state, 0);
    } while (waited < 0 && errno == EINTR);
    *died = !done || waited != child || !WIFEXITED(state) || WEXITSTATUS(state) != 0;
    return status;
}

/* --- the catalogue against the records
 * ----------------------------------------------------------------- */

/* Open the catalogue; when it is only behind (its writer was killed), compare a copy that has
 * caught up. */
static base_status open_catalog(store_check *check, const char *folder, store_db_txn *txn,
                                store_catalog **out, base_error *err)
{
    store_meta meta;
    store_catalog_state state;
    store_commit_record commit = {0};
    *out = NULL;
    base_status status = store_catalog_open(folder, STORE_CATALOG_READ, out, err);
    if (status == BASE_NO_MEMORY) {
        return status; /* says nothing about the file */
    }
    if (status != BASE_OK) {
        store_check_problem(check, STORE_CATALOG_NAME, 0,
                            status == BASE_NOT_FOUND ? "missing" : "unreadable");
        return BASE_OK;
    }
    status = store_load_meta(txn, &meta, err);
    if (status == BASE_OK) {
        status = store_catalog_get_state(*out, &state, err);
    }
    if (status == BASE_OK && state.commit > 0 && state.commit <= meta.last_commit) {
        status = store_load_commit(txn, state.commit, &commit, err);
    }
    if (status == BASE_OK && state.commit == meta.last_commit && state.chain == commit.chain) {
        return BASE_OK;
    }
    store_catalog_close(*out);
    *out = NULL;
    if (status == BASE_OK && (state.commit > meta.last_commit || state.chain != commit.chain)) {
        store_check_problem(check, STORE_CATALOG_NAME, state.commit, "other_history");
        return BASE_OK;
    }
    if (status == BASE_OK) {
        status = store_catalog_open(folder, STORE_CATALOG_MEMORY, out, err);
    }
    if (status == BASE_OK) {
        status = store_follow(txn, *out, NULL, 0, err);
    }
    if (status != BASE_OK) {
        store_catalog_close(*out);
        *out = NULL;
    }
    if (status == BASE_NO_MEMORY || status == BASE_OK) {
        return status;
    }
    store_check_problem(check, STORE_CATALOG_NAME, 0, "unreadable");
    return BASE_OK;
}

static base_status compare_row(store_check *check, store_catalog *c, const store_catalog_row *row,
                               const store_span_record *span, base_error *err)
{
    uint64_t sum, tokens;
    base_status status = store_catalog_terms_sum(c, span->title, span->text, &sum, &tokens, err);
    if (status != BASE_OK) {
        return status;
    }
    if (row->document != span->document || row->tokens != tokens || row->source != span->source ||
        row->observed_at_us != span->observed_at_us) {
        store_check_problem(check, STORE_CATALOG_NAME, row->id, "differs");
    }
    if (row->terms_sum != sum) {
        store_check_problem(check, STORE_CATALOG_NAME, row->id, "text_differs");
    }
    return BASE_OK;
}

/* Both sides ascend by id: one pass. */
static base_status compare_rows(store_check *check, store_catalog *c, const store_catalog_row *rows,
                                size_t count, store_db_txn *txn, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    size_t i = 0;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_EPISODE, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        store_span_record span;
        uint64_t id = key.size == 8 ? base_get_u64_be(key.data) : 0;
        bool readable =
            key.size == 8 &&
            store_record_open(STORE_TABLE_EPISODE, key.data, 8, value, NULL, &payload) == BASE_OK &&
            store_span_decode(payload, &span) == BASE_OK;
        while (i < count && rows[i].id < id) {
            store_check_problem(check, STORE_CATALOG_NAME, rows[i++].id, "not_in_records");
        }
        bool found = i < count && rows[i].id == id;
        if (readable && (!found || rows[i].document == 0)) { /* 0: known to the text index alone */
            store_check_problem(check, STORE_CATALOG_NAME, id, "missing_in_catalog");
        } else if (readable) {
            status = compare_row(check, c, &rows[i], &span, err);
        }
        i += found;
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    for (; status == BASE_NOT_FOUND && i < count; i++) {
        store_check_problem(check, STORE_CATALOG_NAME, rows[i].id, "not_in_records");
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

/* Compare the catalogue with the records, row by row and term by term. */
static base_status check_catalog(store_check *check, const char *folder, store_db_txn *txn,
                                 base_error *err)
{
    store_catalog *c = NULL;
    store_catalog_row *rows = NULL;
    size_t count = 0;
    bool damaged = false;
    char fault[200] = "";
    base_status status = open_catalog(check, folder, txn, &c, err);
    if (status != BASE_OK || !c) {
        return status;
    }
    status = store_catalog_rows(c, &rows, &count, &damaged, fault, err);
    if (damaged || status == BASE_CORRUPT) {
        store_check_problem(check, STORE_CATALOG_NAME, 0, "damaged");
        status = BASE_OK;
    } else if (status == BASE_OK) {
        status = compare_rows(check, c, rows, count, txn, err);
    }
    base_free(rows);
    store_catalog_close(c);
    return status;
}

/* --- verify
 * ---------------------------------------------------------------------------------------------- */

/* The child's work. */
static base_status check_records(void *argument, store_check *check, base_error *err)
{
    const char *folder = argument;
    store_db_options options = {.read_only = true, .quiet_abort = true};
    store_db *db;
    store_db_txn *txn;
    store_meta meta = {0};
    base_status status = store_check_pages(check, folder, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_open(folder, &options, &db, err);
    if (status == BASE_CORRUPT || status == BASE_INVALID ||
        (status != BASE_OK && check->problems > 0)) { /* it may seem too large for the memory */
        store_check_lmdb(check, 0, "unreadable_data");
        check->broken = true;
        return BASE_OK;
    }
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_begin(db, false, &txn, err);
    if (status != BASE_OK) {
        store_db_close(db);
        return status;
    }
    status = store_load_meta(txn, &meta, err);
    if (status != BASE_VERSION) {
        status = store_check_tables(check, txn, err);
        if (status == BASE_OK && !check->broken) {
            status = store_check_references(check, txn, err);
        }
        if (status == BASE_OK && !check->broken) {
            status = store_check_sessions(check, folder, txn,
                                          (meta.flags & STORE_META_SCRUB_PENDING) != 0, err);
        }
    }
    store_db_abort(txn);
    store_db_close(db);
    return status;
}

/* The parent's part, over records that the child came through. */
static base_status compare_catalog(const char *folder, store_verify_report *report, base_error *err)
{
    store_check check = {.fd = -1, .report = report, .problems = report->count};
    store_db_options options = {.read_only = true};
    store_db *db;
    store_db_txn *txn;
    base_status status = store_db_open(folder, &options, &db, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_begin(db, false, &txn, err);
    if (status == BASE_OK) {
        status = check_catalog(&check, folder, txn, err);
        store_db_abort(txn);
    }
    store_db_close(db);
    return status == BASE_OK && check.no_memory ? base_fail(err, BASE_NO_MEMORY, "out of memory")
                                                : status;
}

/* No writer may be at work: the catalogue follows the records with a small delay. */
static base_status lock_writer(const char *folder, int *fd, base_error *err)
{
    char path[STORE_PATH_SIZE];
    if (base_path_join(path, sizeof path, folder, STORE_WRITER_NAME) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        return BASE_OK; /* none has ever written here */
    }
    double start_ms = base_clock_ms();
    while (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return BASE_OK;
        }
        if (base_clock_ms() - start_ms > LOCK_WAIT_MS) {
            close(*fd);
            *fd = -1;
            return base_fail(err, BASE_BUSY, "another writer holds the store %s", folder);
        }
        poll(NULL, 0, 2);
    }
    return BASE_OK;
}

static bool names_file(const store_verify_report *report, const char *file)
{
    for (size_t i = 0; i < report->count; i++) {
        if (strcmp(report->problems[i].file, file) == 0) {
            return true;
        }
    }
    return false;
}

/* The newest commit that the catalogue has taken in, 0 when it cannot be read. */
static uint64_t catalogued_commit(const char *folder)
{
    store_catalog *c = NULL;
    store_catalog_state state = {0};
    if (store_catalog_open(folder, STORE_CATALOG_READ, &c, NULL) == BASE_OK &&
        store_catalog_get_state(c, &state, NULL) != BASE_OK) {
        state.commit = 0;
    }
    store_catalog_close(c);
    return state.commit;
}

/* Salvage into a new file and swap it in. raw: the tables cannot be walked. */
static base_status repair_records(const char *folder, bool raw, store_verify_report *report,
                                  base_error *err)
{
    char fresh[STORE_PATH_SIZE];
    bool died = false, broken;
    if (base_path_join(fresh, sizeof fresh, folder, "rewrite") != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
    }
    store_salvage salvage = {.folder = folder,
                             .fresh_folder = fresh,
                             .raw = raw,
                             .finished = catalogued_commit(folder)};
    uint64_t checked = report->episodes_checked;
    base_status status = run_child(store_salvage_records, &salvage, report, &died, &broken, err);
    report->episodes_checked = checked;
    if (!raw && (died || status == BASE_CORRUPT || status == BASE_INVALID)) {
        /* The tables looked walkable and were not: once more from the bytes. */
        salvage.raw = true;
        status = run_child(store_salvage_records, &salvage, report, &died, &broken, err);
        report->episodes_checked = checked;
    }
    if (status == BASE_OK && died) {
        status = base_fail(err, BASE_CORRUPT, "the salvage of %s did not come to its end", folder);
    }
    if (status == BASE_OK) {
        status = store_swap_data(folder, fresh, err);
    }
    store_remove_folder(fresh, NULL);
    return status;
}

static base_status repair_store(const char *folder, bool raw, int *lock_fd,
                                store_verify_report *report, base_error *err)
{
    size_t found = report->count;
    base_status status = BASE_OK;
    if (raw || names_file(report, STORE_DATA_NAME)) {
        status = repair_records(folder, raw, report, err);
    }
    if (status == BASE_OK) {
        status = store_catalog_remove(folder, err);
    }
    if (*lock_fd >= 0) {
        close(*lock_fd);
        *lock_fd = -1;
    }
    store *s = NULL;
    store_options options = {.lock_wait_ms = (unsigned)LOCK_WAIT_MS};
    if (status == BASE_OK) {
        status = store_open(folder, &options, &s, err); /* fills the catalogue */
    }
    store_close(s);
    if (status == BASE_OK) {
        report->repaired = found;
        report->unwalkable = false;
    }
    return status;
}

base_status store_verify(const char *path, bool repair, store_verify_report *report,
                         base_error *err)
{
    char data[STORE_PATH_SIZE];
    base_file_info info;
    store_verify_report found = {0};
    int lock_fd = -1;
    bool died = false, broken = false;
    if (base_path_join(data, sizeof data, path, STORE_DATA_NAME) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", path);
    }
    base_status status = base_file_stat(data, &info, err);
    if (status != BASE_OK) {
        return status;
    }
    status = lock_writer(path, &lock_fd, err);
    if (status == BASE_OK) {
        status = run_child(check_records, (void *)(uintptr_t)path, &found, &died, &broken, err);
    }
    if (status == BASE_OK && died &&
        store_report_add(&found, STORE_DATA_NAME, 0, "reader_died") != BASE_OK) {
        status = base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    if (status == BASE_OK && !died && !broken) {
        status = compare_catalog(path, &found, err);
    }
    found.unwalkable = died || broken;
    size_t sessions = 0;
    if (status == BASE_OK && repair) {
        status = store_repair_sessions(path, &found, &sessions, err);
        found.repaired = sessions;
    }
    if (status == BASE_OK && repair && found.count > sessions) {
        bool raw = died;
        for (size_t i = 0; i < found.count; i++) {
            const char *kind = found.problems[i].kind;
            raw = raw || strcmp(kind, "page") == 0 || strcmp(kind, "order") == 0 ||
                  strcmp(kind, "unreadable_data") == 0 || strcmp(kind, "table_count") == 0 ||
                  strcmp(kind, "layout") == 0;
        }
        status = repair_store(path, raw, &lock_fd, &found, err);
    }
    if (lock_fd >= 0) {
        close(lock_fd);
    }
    if (status != BASE_OK) {
        base_free(found.problems);
        return status;
    }
    *report = found;
    return BASE_OK;
}
