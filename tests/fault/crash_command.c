/* tests/fault/crash_command.c: kill -9 of the command `eidetic ingest` itself.
 *
 *   crash_command PROGRAM ENCODER FOLDER COUNT SEED
 *
 * A file of documents, some of them newer versions of others, is ingested through the program on a
 * terminal, where it says how many documents are committed; that is what counts as acknowledged.
 * It is killed after a random time and started again on the same store until it ends by itself,
 * then the next store begins, COUNT kills in all. After each kill:
 *   - verify finds nothing wrong;
 *   - what export writes is a whole number of the reference's first lines (its documents are taken
 *     in order), at least as many as were acknowledged;
 * and after the end the export is, byte for byte, that of an ingest that nobody disturbed. What a
 * later line decides about an earlier one (superseded_at) is compared at the end only.
 */
#include <pty.h>

#include "base/clock.h"
#include "tests/fault/fault_store.h"

enum { DOCUMENTS = 600 };

typedef struct campaign {
    const char *program, *encoder, *folder;
    char input[FAULT_PATH_MAX], store[FAULT_PATH_MAX], reference_store[FAULT_PATH_MAX];
    base_buffer reference; /* export of the undisturbed store */
    uint64_t duration_us;  /* of the undisturbed ingest: kills fall within it */
    base_rng rng;
} campaign;

/* --- what is ingested ------------------------------------------------------------------------ */

/* Every fifth document from 100 on is a new version of the one 100 before it. */
static bool write_documents(campaign *c)
{
    FILE *file = fopen(c->input, "w");
    if (!file) {
        return false;
    }
    for (int i = 0; i < DOCUMENTS; i++) {
        bool newer = i >= 100 && i % 5 == 0;
        fprintf(file,
                "{\"id\":\"item %d\",\"source\":\"shop\",\"text\":\"Item %d costs %llu coins.\","
                "\"observed_at\":\"20%02d-01-01\"}\n",
                newer ? i - 100 : i, newer ? i - 100 : i,
                (unsigned long long)base_rng_below(&c->rng, 100000), newer ? 22 : 21);
    }
    return fclose(file) == 0;
}

static fault_run run_command(const campaign *c, const char *command, const char *path)
{
    const char *argv[] = {c->program, command, "--store", path, NULL};
    return fault_execute(argv, NULL, NULL, c->folder);
}

/* argv of the ingest, [ingest_arguments]. */
static void ingest_command(const campaign *c, const char *path, const char *argv[12])
{
    const char *all[] = {c->program, "ingest",   c->input,   "--store", path, "--encoder",
                         c->encoder, "--now", "2025-01-01", "--threads", "1", NULL};
    memcpy(argv, all, sizeof all);
}

/* --- one kill -------------------------------------------------------------------------------- */

/* The last "N documents" of what the program wrote to its terminal. */
static uint64_t last_acknowledged(const base_buffer *text)
{
    uint64_t count = 0;
    for (const char *at = text->data; (at = strstr(at, " documents (")); at++) {
        const char *start = at;
        while (start > text->data && start[-1] >= '0' && start[-1] <= '9') {
            start--;
        }
        if (start < at) {
            count = strtoull(start, NULL, 10);
        }
    }
    return count;
}

/* Run the ingest on a terminal, kill it after a while; *status as of waitpid. */
static uint64_t ingest_and_kill(const campaign *c, uint64_t after_us, int *status)
{
    const char *argv[12];
    int terminal;
    ingest_command(c, c->store, argv);
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    if (child == 0) {
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (child < 0) {
        perror("forkpty");
        exit(1);
    }
    fault_pause_us(after_us);
    kill(child, SIGKILL);
    while (waitpid(child, status, 0) < 0 && errno == EINTR) {
    }
    base_buffer text = fault_read_all(terminal); /* ends with EIO: nobody is at the other end */
    uint64_t acknowledged = last_acknowledged(&text);
    if (!WIFSIGNALED(*status) && WEXITSTATUS(*status) != 0) {
        fprintf(stderr, "crash_command: the ingest ended by itself: %s\n", text.data);
    }
    close(terminal);
    base_buffer_free(&text);
    return acknowledged;
}

/* --- what must be there ---------------------------------------------------------------------- */

/* A kill before the first commit may have left no store yet. */
static bool nothing_yet(const campaign *c, uint64_t acknowledged)
{
    char path[FAULT_PATH_MAX + 16];
    struct stat info;
    snprintf(path, sizeof path, "%s/data.mdb", c->store);
    return acknowledged == 0 && (stat(path, &info) != 0 || info.st_size < 32768);
}

static bool check_after_kill(const campaign *c, uint64_t acknowledged)
{
    char text[32];
    uint64_t lines = 0;
    if (nothing_yet(c, acknowledged)) {
        return true;
    }
    fault_run verify = run_command(c, "verify", c->store);
    fault_run exported = run_command(c, "export", c->store);
    bool good = false;
    if (!fault_exited_with(&verify, 0)) {
        fprintf(stderr, "crash_command: verify: %s\n%s%s\n", fault_describe(verify.status, text),
                verify.out.data, verify.err.data);
    } else if (!fault_exited_with(&exported, 0)) {
        fprintf(stderr, "crash_command: export: %s\n%s\n", fault_describe(exported.status, text),
                exported.err.data);
    } else if (!fault_is_prefix(&c->reference, &exported.out, &lines)) {
        fprintf(stderr, "crash_command: line %llu of the export is not the reference's\n",
                (unsigned long long)lines + 1);
    } else if (lines < acknowledged) {
        fprintf(stderr, "crash_command: %llu documents were acknowledged, %llu are there\n",
                (unsigned long long)acknowledged, (unsigned long long)lines);
    } else {
        good = true;
    }
    fault_run_free(&verify);
    fault_run_free(&exported);
    return good;
}

/* After an ingest that ended by itself. */
static bool check_end(const campaign *c)
{
    fault_run verify = run_command(c, "verify", c->store);
    fault_run exported = run_command(c, "export", c->store);
    bool good = fault_exited_with(&verify, 0) && fault_exited_with(&exported, 0) &&
                exported.out.size == c->reference.size &&
                memcmp(exported.out.data, c->reference.data, c->reference.size) == 0;
    if (!good) {
        fprintf(stderr, "crash_command: the resumed store is not the undisturbed one\n%s%s\n",
                verify.out.data, verify.err.data);
    }
    fault_run_free(&verify);
    fault_run_free(&exported);
    return good;
}

/* --- the campaign ---------------------------------------------------------------------------- */

static bool make_reference(campaign *c)
{
    const char *argv[12];
    ingest_command(c, c->reference_store, argv);
    double start_ms = base_clock_ms();
    fault_run made = fault_execute(argv, NULL, NULL, c->folder);
    c->duration_us = (uint64_t)((base_clock_ms() - start_ms) * 1000);
    fault_run exported = run_command(c, "export", c->reference_store);
    bool good = fault_exited_with(&made, 0) && fault_exited_with(&exported, 0);
    if (!good) {
        fprintf(stderr, "crash_command: no reference: %s%s\n", made.err.data, exported.err.data);
    }
    c->reference = exported.out;
    exported.out = (base_buffer){0};
    fault_run_free(&made);
    fault_run_free(&exported);
    return good;
}

static int run(campaign *c, uint64_t count, uint64_t seed)
{
    uint64_t kills = 0, amid = 0, ended = 0, stores = 0, before = 0;
    if (!write_documents(c) || !make_reference(c)) {
        return 1;
    }
    bool begin = true;
    while (kills < count) {
        int status;
        if (begin) {
            snprintf(c->store, sizeof c->store, "%s/store%llu", c->folder,
                     (unsigned long long)stores++);
            before = 0;
        }
        /* Short ones hit the opening. */
        uint64_t limit = kills % 6 == 0 ? c->duration_us / 10 : c->duration_us;
        uint64_t after_us = base_rng_below(&c->rng, limit + 1);
        uint64_t acknowledged = ingest_and_kill(c, after_us, &status);
        begin = !WIFSIGNALED(status);
        bool good = begin ? WEXITSTATUS(status) == 0 && check_end(c)
                          : check_after_kill(c, acknowledged > before ? acknowledged : before);
        if (!good) {
            fprintf(stderr, "crash_command: failed at kill %llu of seed %llu, after %llu us\n",
                    (unsigned long long)kills, (unsigned long long)seed,
                    (unsigned long long)after_us);
            return 1;
        }
        kills += WIFSIGNALED(status) ? 1 : 0;
        amid += WIFSIGNALED(status) && acknowledged > before;
        ended += begin;
        before = acknowledged > before ? acknowledged : before;
    }
    if (!begin) { /* the last one is brought to its end, too */
        int status;
        const char *argv[12];
        ingest_command(c, c->store, argv);
        fault_run last = fault_execute(argv, NULL, NULL, c->folder);
        status = last.status;
        fault_run_free(&last);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !check_end(c)) {
            fprintf(stderr, "crash_command: the last ingest does not resume\n");
            return 1;
        }
        ended++;
    }
    printf("%llu kills of 'eidetic ingest', %llu of them amid commits; %llu stores brought to "
           "their end, each as the undisturbed one; 0 documents lost (seed %llu)\n",
           (unsigned long long)kills, (unsigned long long)amid, (unsigned long long)ended,
           (unsigned long long)seed);
    return ended > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: crash_command PROGRAM ENCODER FOLDER COUNT SEED\n");
        return 2;
    }
    static campaign c;
    uint64_t seed = strtoull(argv[5], NULL, 10);
    c = (campaign){.program = argv[1], .encoder = argv[2], .folder = argv[3]};
    base_rng_seed(&c.rng, seed);
    snprintf(c.input, sizeof c.input, "%s/documents.jsonl", c.folder);
    snprintf(c.reference_store, sizeof c.reference_store, "%s/reference", c.folder);
    int code = run(&c, strtoull(argv[4], NULL, 10), seed);
    base_buffer_free(&c.reference);
    return code;
}
