/* tests/unit/folder_testing.h: a temporary folder per test, and the error's own words when a call
 * fails. */
#ifndef FOLDER_TESTING_H
#define FOLDER_TESTING_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

/* Fail the test with the error's own words. */
#define assert_ok(call)                                                                 \
    do {                                                                                \
        base_error ok_error = {0};                                                      \
        base_error *err = &ok_error;                                                    \
        base_status ok_status = (call);                                                 \
        if (ok_status != BASE_OK) {                                                     \
            fail_msg("%s: %s (%s)", #call, base_status_name(ok_status), ok_error.text); \
        }                                                                               \
    } while (0)

static inline void remove_tree(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        return;
    }
    if (S_ISDIR(info.st_mode)) {
        DIR *folder = opendir(path);
        struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            char child[8192];
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                int size = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
                if (size > 0 && (size_t)size < sizeof child) {
                    remove_tree(child);
                }
            }
        }
        if (folder) {
            closedir(folder);
        }
        rmdir(path);
    } else {
        unlink(path);
    }
}

/* setup/teardown: *state is the path of a new folder. */
static inline int make_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    char *path = test_malloc(4096);
    snprintf(path, 4096, "%s/eidetic-store-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(path)) {
        test_free(path);
        return -1;
    }
    *state = path;
    return 0;
}

static inline int drop_folder(void **state)
{
    remove_tree(*state);
    test_free(*state);
    return 0;
}

#endif
