/* Files of running conversations: written whole, refused by name when anything about them is wrong,
 * bounded in number, and gone when something is forgotten. */
#include "store/sessions.h"
#include "store_testing.h"

#define NAME "chat/pier"

static size_t count_files(const char *folder, const char *suffix)
{
    char path[4096];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/sessions", folder);
    DIR *dir = opendir(path);
    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir)) {
        size_t length = strlen(d->d_name), end = strlen(suffix);
        count += length > end && strcmp(d->d_name + length - end, suffix) == 0;
    }
    if (dir) {
        closedir(dir);
    }
    return count;
}

static base_status get(store *s, const char *name, uint64_t turn, char *text, size_t size,
                       base_error *err)
{
    base_buffer bytes = {0};
    base_status status = store_session_get(s, name, turn, &bytes, err);
    snprintf(text, size, "%s", bytes.data ? bytes.data : "");
    base_buffer_free(&bytes);
    return status;
}

static void put(store *s, uint64_t turn, const char *text)
{
    assert_ok(store_session_put(s, NAME, turn, store_last_commit(s), text, strlen(text), err));
}

static void test_what_is_put_comes_back_in_files_of_the_owner_alone(void **state)
{
    char text[64], path[4096];
    struct stat info;
    store *s = open_store(*state);
    put_text(s, "w", "a", "Something.", DAY, NULL);
    put(s, 0, "log");
    put(s, 1, "one");
    assert_ok(get(s, NAME, 1, text, sizeof text, err));
    assert_string_equal(text, "one");
    assert_ok(get(s, NAME, 0, text, sizeof text, err));
    assert_string_equal(text, "log");
    assert_int_equal(get(s, NAME, 2, text, sizeof text, NULL), BASE_NOT_FOUND);
    assert_int_equal(get(s, "chat/other", 1, text, sizeof text, NULL), BASE_NOT_FOUND);
    store_session_path(s, NAME, 1, path, sizeof path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    *strrchr(path, '/') = 0;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    store_close(s);
    s = open_reader(*state);
    assert_ok(get(s, NAME, 1, text, sizeof text, err));
    assert_int_equal(store_session_put(s, NAME, 2, 0, "x", 1, NULL), BASE_PERMISSION);
    store_close(s);
}

/* Goal: of one conversation two states stay, what a killed writer left goes, and a conversation
 * that takes another way drops what was behind. */
static void test_old_states_go(void **state)
{
    char text[64], path[4096];
    store *s = open_store(*state);
    put(s, 0, "log");
    for (uint64_t turn = 1; turn <= 9; turn++) {
        put(s, turn, "state");
    }
    assert_int_equal(count_files(*state, ".state"), STORE_SESSION_TURNS);
    assert_ok(get(s, NAME, 9, text, sizeof text, err));
    assert_ok(get(s, NAME, 8, text, sizeof text, err));
    assert_int_equal(get(s, NAME, 7, text, sizeof text, NULL), BASE_NOT_FOUND);
    store_session_path(s, "chat/killed", 3, path, sizeof path - 4);
    memcpy(path + strlen(path), ".tmp", 5);
    FILE *left = fopen(path, "w");
    assert_non_null(left);
    assert_int_equal(fclose(left), 0);
    assert_ok(store_session_drop(s, NAME, 8, err));
    assert_int_equal(get(s, NAME, 9, text, sizeof text, NULL), BASE_NOT_FOUND);
    put(s, 9, "another");
    assert_int_equal(count_files(*state, ".tmp"), 0);
    assert_int_equal(count_files(*state, ".state"), 2);
    for (int i = 0; i < STORE_SESSION_FILES_MAX + 20; i++) { /* of so many conversations */
        char name[32];
        snprintf(name, sizeof name, "chat/%d", i);
        store_session_path(s, name, 1, path, sizeof path);
        left = fopen(path, "w");
        assert_non_null(left);
        assert_int_equal(fclose(left), 0);
    }
    put(s, 10, "the newest stays");
    assert_ok(get(s, NAME, 10, text, sizeof text, err));
    assert_int_equal(count_files(*state, ".state") + count_files(*state, ".log"),
                     STORE_SESSION_FILES_MAX);
    store_close(s);
}

/* Every bit of a file matters, and so does its end; the message names the file. */
static void test_a_damaged_file_is_refused_by_name(void **state)
{
    char path[4096], text[64];
    store *s = open_store(*state);
    put(s, 1, "of the first turn");
    store_session_path(s, NAME, 1, path, sizeof path);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    uint8_t bytes[256];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    assert_true(size > 60 && size < sizeof bytes);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        base_error err = {0};
        fseek(file, (long)(bit / 8), SEEK_SET);
        fputc(bytes[bit / 8] ^ (1 << bit % 8), file);
        fflush(file);
        base_status status = get(s, NAME, 1, text, sizeof text, &err);
        assert_true(status == BASE_CORRUPT || status == BASE_VERSION);
        assert_non_null(strstr(err.text, path));
        fseek(file, (long)(bit / 8), SEEK_SET);
        fputc(bytes[bit / 8], file);
    }
    fclose(file);
    assert_ok(get(s, NAME, 1, text, sizeof text, err));
    assert_int_equal(truncate(path, (off_t)size - 1), 0);
    assert_int_equal(get(s, NAME, 1, text, sizeof text, NULL), BASE_CORRUPT);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(get(s, NAME, 1, text, sizeof text, NULL), BASE_CORRUPT);
    /* Another session's file under this name is none of this session. */
    char other[4096];
    put(s, 1, "again");
    store_session_path(s, "chat/other", 1, other, sizeof other);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(get(s, "chat/other", 1, text, sizeof text, NULL), BASE_CORRUPT);
    store_close(s);
}

/* Goal: no state outlives a forget, also one that a running conversation would write later, or that
 * was put back from elsewhere. */
static void test_forgetting_removes_every_state(void **state)
{
    char path[4096], text[64];
    store *s = open_store(*state);
    uint64_t id = put_text(s, "w", "a", "The zanzibarcode is 0815.", DAY, NULL), since;
    put_text(s, "w", "b", "Other.", DAY, NULL);
    since = store_last_commit(s);
    put(s, 0, "log");
    put(s, 1, "zanzibarcode one");
    put(s, 2, "zanzibarcode two");
    assert_ok(store_session_put(s, "chat/other", 1, since, "zanzibarcode", 12, err));
    store_session_path(s, NAME, 2, path, sizeof path);
    char kept[4200];
    snprintf(kept, sizeof kept, "%s/kept", (char *)*state);
    assert_int_equal(link(path, kept), 0);
    store_forget_receipt receipt;
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_forget(txn, &id, 1, &receipt, err));
    assert_ok(store_commit(txn, err));
    /* Killed here, the next open finishes the scrub. */
    store_close(s);
    s = open_store(*state);
    assert_int_equal(count_files(*state, ".state"), 0);
    assert_int_equal(count_files(*state, ".log"), 1);
    base_error err = {0};
    assert_int_equal(store_session_put(s, NAME, 3, since, "zanzibarcode", 12, &err),
                     BASE_CANCELLED);
    assert_int_equal(count_files(*state, ".state") + count_files(*state, ".tmp"), 0);
    assert_int_equal(rename(kept, path), 0);
    assert_int_equal(get(s, NAME, 2, text, sizeof text, NULL), BASE_CANCELLED);
    put(s, 2, "new");
    assert_int_equal(get(s, NAME, 2, text, sizeof text, NULL), BASE_OK);
    store_close(s);
}

/* What verify says of a store: the kind of its one problem, in file; "" when it is whole. */
static const char *verified(const char *folder, bool repair, const char *file)
{
    static char kind[64];
    store_verify_report report = {0};
    assert_ok(store_verify(folder, repair, &report, err));
    assert_true(report.count <= 1);
    assert_int_equal(report.repaired, repair ? report.count : 0);
    snprintf(kind, sizeof kind, "%s", report.count ? report.problems[0].kind : "");
    if (report.count) {
        assert_non_null(strstr(file, report.problems[0].file));
        assert_non_null(strstr(report.problems[0].file, "sessions/"));
    }
    base_free(report.problems);
    return kind;
}

static void flip(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, at, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

/* Goal: verify names a damaged, a misplaced and a not forgotten file, a repair removes it alone. */
static void test_verify_looks_at_every_file(void **state)
{
    char path[4096], other[4096], kept[4200], text[64];
    store *s = open_store(*state);
    uint64_t id = put_text(s, "w", "a", "The zanzibarcode is 0815.", DAY, NULL);
    put(s, 0, "log");
    put(s, 1, "one");
    put(s, 2, "two");
    store_session_path(s, NAME, 2, path, sizeof path);
    store_session_path(s, "chat/other", 2, other, sizeof other);
    store_close(s);
    assert_string_equal(verified(*state, false, path), "");
    flip(path, 65); /* a byte of what the caller wrote */
    assert_string_equal(verified(*state, false, path), "checksum");
    flip(path, 65);
    flip(path, 0);
    assert_string_equal(verified(*state, false, path), "damaged");
    flip(path, 0);
    assert_int_equal(rename(path, other), 0);
    assert_string_equal(verified(*state, false, other), "misplaced");
    assert_string_equal(verified(*state, true, other), "misplaced");
    assert_string_equal(verified(*state, false, other), "");
    assert_int_equal(access(other, F_OK), -1);
    s = open_store(*state);
    assert_ok(get(s, NAME, 1, text, sizeof text, err)); /* the others are still there */
    assert_ok(get(s, NAME, 0, text, sizeof text, err));
    store_session_path(s, NAME, 1, path, sizeof path);
    snprintf(kept, sizeof kept, "%s/kept", (char *)*state);
    assert_int_equal(link(path, kept), 0);
    store_forget_receipt receipt;
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_forget(txn, &id, 1, &receipt, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_scrub(s, err));
    store_close(s);
    assert_int_equal(rename(kept, path), 0);
    assert_string_equal(verified(*state, true, path), "not_forgotten");
    assert_string_equal(verified(*state, false, path), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_put_comes_back_in_files_of_the_owner_alone,
                                        make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_old_states_go, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_a_damaged_file_is_refused_by_name, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(test_forgetting_removes_every_state, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(test_verify_looks_at_every_file, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
