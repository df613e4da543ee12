/* tests/fault/fault_testing.h: programs that run the program: start it, kill it, read what it says.
 * Included by the campaigns of this folder; nothing here checks anything.
 */
#ifndef FAULT_TESTING_H
#define FAULT_TESTING_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"

enum { FAULT_ARGUMENTS_MAX = 32, FAULT_PATH_MAX = 4096 };

/* The text of a whole file or pipe end, NUL-terminated; the caller frees data. */
static inline base_buffer fault_read_all(int fd)
{
    base_buffer text = {0};
    char step[65536];
    ssize_t got;
    (void)base_buffer_append(&text, "", 0);
    while ((got = read(fd, step, sizeof step)) > 0 || (got < 0 && errno == EINTR)) {
        if (got > 0 && base_buffer_append(&text, step, (size_t)got) != BASE_OK) {
            abort();
        }
    }
    return text;
}

typedef struct fault_run {
    int status;           /* as waitpid gives it */
    base_buffer out, err; /* fault_run_free */
} fault_run;

static inline void fault_run_free(fault_run *run)
{
    base_buffer_free(&run->out);
    base_buffer_free(&run->err);
}

/* argv[0] is the program; environment: "NAME=value" entries besides the own ones, NULL-terminated,
 * or NULL. input: what it reads, NULL = nothing. stdout and stderr go through files in folder. */
static inline fault_run fault_execute(const char *const *argv, const char *const *environment,
                                      const char *input, const char *folder)
{
    char out[FAULT_PATH_MAX], err[FAULT_PATH_MAX], in[FAULT_PATH_MAX];
    snprintf(out, sizeof out, "%s/.out", folder);
    snprintf(err, sizeof err, "%s/.err", folder);
    snprintf(in, sizeof in, "%s/.in", folder);
    int out_fd = open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int err_fd = open(err, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int in_fd = open(in, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out_fd < 0 || err_fd < 0 || in_fd < 0) {
        perror(folder);
        abort();
    }
    if (input && write(in_fd, input, strlen(input)) != (ssize_t)strlen(input)) {
        abort();
    }
    lseek(in_fd, 0, SEEK_SET);
    pid_t child = fork();
    if (child == 0) {
        dup2(in_fd, STDIN_FILENO);
        dup2(out_fd, STDOUT_FILENO);
        dup2(err_fd, STDERR_FILENO);
        for (size_t i = 0; environment && environment[i]; i++) {
            putenv((char *)(uintptr_t)environment[i]);
        }
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    fault_run run = {.status = -1};
    while (waitpid(child, &run.status, 0) < 0 && errno == EINTR) {
    }
    lseek(out_fd, 0, SEEK_SET);
    lseek(err_fd, 0, SEEK_SET);
    run.out = fault_read_all(out_fd);
    run.err = fault_read_all(err_fd);
    close(in_fd);
    close(out_fd);
    close(err_fd);
    return run;
}

static inline bool fault_exited_with(const fault_run *run, int code)
{
    return WIFEXITED(run->status) && WEXITSTATUS(run->status) == code;
}

/* "exit code 3" or "signal 11", for messages. */
static inline const char *fault_describe(int status, char text[32])
{
    if (WIFSIGNALED(status)) {
        snprintf(text, 32, "signal %d", WTERMSIG(status));
    } else {
        snprintf(text, 32, "exit code %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
    return text;
}

static inline void fault_pause_us(uint64_t time_us)
{
    struct timespec pause = {.tv_sec = (time_t)(time_us / 1000000),
                             .tv_nsec = (long)(time_us % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

#endif
