/* Files and folders: whole reads, read-only maps, durable replacement, walking. */
#include <fcntl.h>
#include <sys/wait.h>

#include "base/file.h"
#include "folder_testing.h"

static const char *at(void **state, const char *name)
{
    static char paths[4][4096];
    static unsigned next;
    char *path = paths[next++ % 4];
    assert_int_equal(base_path_join(path, 4096, *state, name), BASE_OK);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* Goal: what was replaced is read back, by copy and by map; the mode is as asked. */
static void test_base_file_replace_is_read_back(void **state)
{
    const char *path = at(state, "a file.txt");
    base_buffer b = {0};
    base_map map;
    struct stat info;
    assert_ok(base_file_replace(path, "first", 5, 0600, err));
    assert_ok(base_file_replace(path, "second one", 10, 0600, err));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(base_file_read(path, 100, &b, err));
    assert_string_equal(b.data, "second one");
    base_buffer_free(&b);
    assert_ok(base_map_open(path, &map, err));
    assert_int_equal(map.size, 10);
    assert_memory_equal(map.data, "second one", 10);
    base_map_close(&map);
    assert_int_equal(access(at(state, "a file.txt.tmp"), F_OK), -1);
}

/* Goal: a replacement that fails leaves the old file whole and no temporary one. Method: the name
 * of the temporary file is taken by a folder. */
static void test_base_file_failed_replace_keeps_the_old(void **state)
{
    const char *path = at(state, "kept");
    base_buffer b = {0};
    base_error error;
    write_text(path, "old");
    assert_int_equal(mkdir(at(state, "kept.tmp"), 0700), 0);
    assert_int_not_equal(base_file_replace(path, "new", 3, 0600, &error), BASE_OK);
    assert_non_null(strstr(error.text, "kept.tmp"));
    assert_ok(base_file_read(path, 100, &b, err));
    assert_string_equal(b.data, "old");
    base_buffer_free(&b);
}

/* Goal: empty files, missing files, folders and limits: each by its own code and with the path. */
static void test_base_file_read_says_what_is_wrong(void **state)
{
    base_buffer b = {0};
    base_map map;
    base_error error;
    write_text(at(state, "empty"), "");
    assert_ok(base_file_read(at(state, "empty"), 0, &b, err));
    assert_int_equal(b.size, 0);
    assert_string_equal(b.data, "");
    base_buffer_free(&b);
    assert_ok(base_map_open(at(state, "empty"), &map, err));
    assert_int_equal(map.size, 0);
    base_map_close(&map);
    assert_int_equal(base_file_read(at(state, "none"), 10, &b, &error), BASE_NOT_FOUND);
    assert_non_null(strstr(error.text, "none"));
    assert_int_equal(base_map_open(at(state, "none"), &map, &error), BASE_NOT_FOUND);
    assert_int_equal(base_map_open(*state, &map, &error), BASE_INVALID);
    assert_int_not_equal(base_file_read(*state, 10, &b, &error), BASE_OK);
    write_text(at(state, "eleven"), "12345678901");
    assert_int_equal(base_file_read(at(state, "eleven"), 10, &b, &error), BASE_LIMIT);
    base_buffer_free(&b);
    assert_ok(base_file_read(at(state, "eleven"), 11, &b, err));
    assert_int_equal(b.size, 11);
    base_buffer_free(&b);
}

/* Goal: "-" is standard input, read to its end though it comes in pieces. */
static void test_base_file_reads_standard_input(void **state)
{
    (void)state;
    int ends[2], saved = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 1000; i++) {
            if (write(ends[1], "0123456789", 10) != 10) {
                _exit(1);
            }
        }
        _exit(0);
    }
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    base_buffer b = {0};
    assert_ok(base_file_read("-", 1 << 20, &b, err));
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(ends[0]);
    assert_int_equal(b.size, 10000);
    base_buffer_free(&b);
    int code;
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
}

/* Goal: parents are made, existing ones are fine, a file in the way is named. */
static void test_base_dir_create_makes_parents(void **state)
{
    struct stat info;
    base_error error;
    assert_ok(base_dir_create(at(state, "a/b//c/"), err));
    assert_ok(base_dir_create(at(state, "a/b/c"), err));
    assert_int_equal(stat(at(state, "a/b/c"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    write_text(at(state, "file"), "x");
    assert_int_equal(base_dir_create(at(state, "file/below"), &error), BASE_EXISTS);
    assert_non_null(strstr(error.text, "file"));
    assert_int_equal(base_dir_create("", &error), BASE_INVALID);
}

/* Goal: all regular files, in byte order; no hidden names, no linked folders (a loop would not
 * end). */
static void test_base_dir_walk_lists_files_in_order(void **state)
{
    static const char *const expected[] = {"B.txt", "a/x", "a/y/z", "b", "link to b"};
    char **files;
    size_t count;
    base_error error;
    assert_ok(base_dir_create(at(state, "a/y"), err));
    assert_ok(base_dir_create(at(state, ".hidden"), err));
    write_text(at(state, "b"), "1");
    write_text(at(state, "B.txt"), "1");
    write_text(at(state, "a/y/z"), "1");
    write_text(at(state, "a/x"), "1");
    write_text(at(state, ".hidden/no"), "1");
    write_text(at(state, "a/.no"), "1");
    assert_int_equal(symlink(*state, at(state, "a/loop")), 0);
    assert_int_equal(symlink("b", at(state, "link to b")), 0);
    assert_int_equal(symlink("nowhere", at(state, "broken")), 0);
    assert_ok(base_dir_walk(*state, &files, &count, err));
    assert_int_equal(count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(files[i], at(state, expected[i]));
        base_free(files[i]);
    }
    base_free(files);
    assert_ok(base_dir_walk(at(state, "b"), &files, &count, err));
    assert_int_equal(count, 1);
    base_free(files[0]);
    base_free(files);
    assert_int_equal(base_dir_walk(at(state, "none"), &files, &count, &error), BASE_NOT_FOUND);
}

/* Goal: joining knows a trailing slash and refuses what does not fit. */
static void test_base_path_join_fits_or_says_so(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(base_path_join(out, sizeof out, "ab", "cd"), BASE_OK);
    assert_string_equal(out, "ab/cd");
    assert_int_equal(base_path_join(out, sizeof out, "ab/", "cd"), BASE_OK);
    assert_string_equal(out, "ab/cd");
    assert_int_equal(base_path_join(out, sizeof out, "abcd", "efg"), BASE_LIMIT);
}

/* Goal: size, kind and time of a file. */
static void test_base_file_stat_tells_size_and_time(void **state)
{
    base_file_info info;
    write_text(at(state, "f"), "12345");
    assert_ok(base_file_stat(at(state, "f"), &info, err));
    assert_true(info.is_regular);
    assert_false(info.is_dir);
    assert_int_equal(info.size, 5);
    assert_true(info.modified_us > 0);
    assert_ok(base_file_stat(*state, &info, err));
    assert_true(info.is_dir);
    assert_int_equal(base_file_stat(at(state, "none"), &info, NULL), BASE_NOT_FOUND);
    assert_ok(base_file_sync(at(state, "f"), err));
    assert_ok(base_file_sync(*state, err));
    assert_int_equal(base_file_sync(at(state, "none"), NULL), BASE_NOT_FOUND);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_base_file_replace_is_read_back),
        WITH_FOLDER(test_base_file_failed_replace_keeps_the_old),
        WITH_FOLDER(test_base_file_read_says_what_is_wrong),
        cmocka_unit_test(test_base_file_reads_standard_input),
        WITH_FOLDER(test_base_dir_create_makes_parents),
        WITH_FOLDER(test_base_dir_walk_lists_files_in_order),
        cmocka_unit_test(test_base_path_join_fits_or_says_so),
        WITH_FOLDER(test_base_file_stat_tells_size_and_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
