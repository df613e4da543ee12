/* tests/fault/crash_store.c: kill -9 during ingest; nothing acknowledged may be lost.
 *
 *   crash_store ingest DIR          ingests generated documents, prints the number of each batch
 * after its
 *                                   commit returned; begins behind what the store holds; runs until
 * killed
 *   crash_store check DIR N         the store opens, verifies, and holds batches 1..N at least
 *   crash_store campaign DIR COUNT SEED   kill the first, run the second, COUNT times
 *
 * Batch b is made from its number alone: documents of 1 to 6 sentences with vectors, every third
 * one a new version of an older document, now and then uses, KV, or a forgotten episode followed by
 * a scrub. A kill does not test power loss: what the kernel has is not lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "store/store.h"

#define DOCUMENTS_PER_BATCH 5
#define SENTENCES_MAX 6
#define DIM 16
#define KILL_AFTER_US_MAX 400000

static int fail(const char *what, const base_error *error)
{
    fprintf(stderr, "crash_store: %s: %s\n", what, error ? error->text : "");
    return 1;
}

/* --- generated documents
 * ----------------------------------------------------------------------------- */

typedef struct generated {
    char id[32], text[SENTENCES_MAX * 64 + 1];
    store_new_span spans[SENTENCES_MAX];
    float vectors[SENTENCES_MAX][DIM];
    store_new_document doc;
} generated;

/* Document d of batch b. Each third one is version b of document "shared <b % 7>". */
static void generate(uint64_t batch, int number, generated *g)
{
    base_rng rng;
    base_rng_seed(&rng, batch * 1000 + (uint64_t)number);
    memset(g, 0, sizeof *g);
    size_t sentences = 1 + (size_t)base_rng_below(&rng, SENTENCES_MAX), used = 0;
    if (number % 3 == 0) {
        snprintf(g->id, sizeof g->id, "shared %llu %d", (unsigned long long)(batch % 7), number);
    } else {
        snprintf(g->id, sizeof g->id, "batch %llu %d", (unsigned long long)batch, number);
    }
    for (size_t i = 0; i < sentences; i++) {
        g->spans[i].start_byte = used;
        used += (size_t)snprintf(
            g->text + used, sizeof g->text - used, "Sentence %zu of batch%llu is worth %llu. ", i,
            (unsigned long long)batch, (unsigned long long)base_rng_below(&rng, 1000000));
        g->spans[i].end_byte = used;
        for (int j = 0; j < DIM; j++) {
            g->vectors[i][j] = (float)base_rng_normal(&rng);
        }
        g->spans[i].vector = g->vectors[i];
    }
    store_new_document doc = {.source = number % 2 ? "odd" : "even",
                              .external_id = g->id,
                              .title = "Generated",
                              .text = g->text,
                              .text_size = used,
                              .observed_at_us = (int64_t)batch * BASE_DAY_US,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .spans = g->spans,
                              .span_count = sentences,
                              .vector_dim = DIM,
                              .encoder = "generated"};
    g->doc = doc;
}

/* --- ingest
 * ------------------------------------------------------------------------------------------- */

static base_status put_extras(store_txn *txn, uint64_t batch, uint64_t first, base_error *err)
{
    uint8_t tag[32] = {7}, blob[5000];
    memset(blob, (int)(batch & 0xFF), sizeof blob);
    base_status status = BASE_OK;
    if (batch % 2 == 0) {
        status = store_put_use(txn, first, (int64_t)batch * BASE_DAY_US, 0.3f, err);
    }
    if (status == BASE_OK && batch % 5 == 0) {
        status = store_put_kv(txn, first, tag, blob, sizeof blob, err);
    }
    if (status == BASE_OK && batch % 11 == 0) {
        store_forget_receipt receipt;
        uint64_t old = first; /* an episode of this batch: the next one puts no claim on it */
        status = store_forget(txn, &old, 1, &receipt, err);
    }
    return status;
}

static base_status ingest_batch(store *s, uint64_t batch, base_error *err)
{
    static generated g;
    store_txn *txn;
    base_status status = store_begin(s, (int64_t)batch * BASE_DAY_US, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    uint64_t first = 0;
    for (int i = 0; i < DOCUMENTS_PER_BATCH && status == BASE_OK; i++) {
        store_put_result result;
        size_t count;
        generate(batch, i, &g);
        status = store_put_document(txn, &g.doc, &result, &first, &count, err);
    }
    if (status == BASE_OK) {
        status = put_extras(txn, batch, first, err);
    }
    if (status != BASE_OK) {
        store_abort(txn);
        return status;
    }
    status = store_commit(txn, err);
    if (status == BASE_OK && batch % 11 == 0) {
        status = store_scrub(s, err);
    }
    return status;
}

/* The number of the newest batch in the store: the largest observed_at. */
static base_status find_newest(store *s, uint64_t *batch, base_error *err)
{
    uint64_t *ids;
    size_t count;
    *batch = 0;
    base_status status = store_select(s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err);
    if (status != BASE_OK) {
        return status;
    }
    if (count > 0) {
        store_episode e;
        status = store_get(s, ids[count - 1], &e, err);
        if (status == BASE_OK) {
            *batch = (uint64_t)(e.observed_at_us / BASE_DAY_US);
            store_episode_free(&e);
        }
    }
    base_free(ids);
    return status;
}

static int ingest(const char *path)
{
    store *s;
    store_options options = {.create = true};
    base_error error = {0};
    uint64_t batch;
    if (store_open(path, &options, &s, &error) != BASE_OK) {
        return fail("open", &error);
    }
    if (find_newest(s, &batch, &error) != BASE_OK) {
        return fail("resume", &error);
    }
    for (;;) {
        batch++;
        if (ingest_batch(s, batch, &error) != BASE_OK) {
            return fail("ingest", &error);
        }
        char line[32];
        int size = snprintf(line, sizeof line, "%llu\n", (unsigned long long)batch);
        if (write(STDOUT_FILENO, line, (size_t)size) != size) {
            return 0; /* nobody listens any more */
        }
    }
}

/* --- check
 * ---------------------------------------------------------------------------------------------- */

/* Every document of a batch is there: putting it again is no change. */
static int check_batch(store *s, uint64_t batch)
{
    static generated g;
    base_error error = {0};
    for (int i = 0; i < DOCUMENTS_PER_BATCH; i++) {
        store_put_result result;
        generate(batch, i, &g);
        if (batch % 11 == 0 && i + 1 == DOCUMENTS_PER_BATCH && g.doc.span_count == 1) {
            continue; /* its only episode was forgotten: the document went with it */
        }
        if (store_peek_document(s, &g.doc, &result, &error) != BASE_OK) {
            return fail("peek", &error);
        }
        if (result != STORE_PUT_UNCHANGED) {
            fprintf(stderr, "crash_store: batch %llu was acknowledged, document \"%s\" is lost\n",
                    (unsigned long long)batch, g.id);
            return 1;
        }
    }
    return 0;
}

/* The text search knows the batch: the catalogue has followed. */
static int check_search(store *s, uint64_t batch)
{
    char query[32];
    store_text_hit hit;
    size_t count = 0;
    base_error error = {0};
    int size = snprintf(query, sizeof query, "batch%llu", (unsigned long long)batch);
    if (store_search_text(s, query, (size_t)size, BASE_TIME_MAX, 1, &hit, &count, &error) !=
        BASE_OK) {
        return fail("search", &error);
    }
    if (count == 0) {
        fprintf(stderr, "crash_store: batch %llu is not found by text\n",
                (unsigned long long)batch);
        return 1;
    }
    return 0;
}

static int check_verifies(const char *path)
{
    store_verify_report report = {0};
    base_error error = {0};
    if (store_verify(path, false, &report, &error) != BASE_OK) {
        return fail("verify", &error);
    }
    for (size_t i = 0; i < report.count && i < 10; i++) {
        fprintf(stderr, "crash_store: %s: %s %llu\n", report.problems[i].file,
                report.problems[i].kind, (unsigned long long)report.problems[i].id);
    }
    int code = report.count > 0;
    base_free(report.problems);
    return code;
}

static int check(const char *path, uint64_t acknowledged)
{
    store *s;
    store_options options = {.create = true};
    base_error error = {0};
    /* First as the kill left it: verify must not need a repair. A kill before the first commit may
     * have left no store yet. */
    if (acknowledged > 0 && check_verifies(path) != 0) {
        return 1;
    }
    if (store_open(path, &options, &s, &error) != BASE_OK) {
        return fail("open", &error);
    }
    int code = 0;
    for (uint64_t batch = 1; batch <= acknowledged && code == 0; batch++) {
        code = check_batch(s, batch);
    }
    if (code == 0 && acknowledged > 0) {
        code = check_search(s, acknowledged);
    }
    store_close(s);
    return code ? code : check_verifies(path);
}

/* --- campaign
 * -------------------------------------------------------------------------------------------- */

/* Start the ingest, kill it after a while, and give the last number it printed. */
static int run_and_kill(const char *program, const char *path, unsigned after_us,
                        uint64_t *acknowledged)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "ingest", path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    struct timespec pause = {.tv_sec = after_us / 1000000,
                             .tv_nsec = (long)(after_us % 1000000) * 1000};
    nanosleep(&pause, NULL);
    kill(child, SIGKILL);
    char text[64];
    FILE *lines = fdopen(ends[0], "r");
    while (lines && fgets(text, sizeof text, lines)) {
        if (strchr(text, '\n')) {
            *acknowledged = strtoull(text, NULL, 10);
        }
    }
    if (lines) {
        fclose(lines);
    }
    int code;
    waitpid(child, &code, 0);
    if (WIFEXITED(code) && WEXITSTATUS(code) != 0) {
        fprintf(stderr, "crash_store: the ingest ended by itself with %d\n", WEXITSTATUS(code));
        return 1;
    }
    return 0;
}

static int run_check(const char *program, const char *path, uint64_t acknowledged)
{
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)acknowledged);
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, "check", path, number, (char *)NULL);
        _exit(127);
    }
    int code;
    waitpid(child, &code, 0);
    return WIFEXITED(code) ? WEXITSTATUS(code) : 1;
}

static int campaign(const char *program, const char *path, uint64_t count, uint64_t seed)
{
    base_rng rng;
    uint64_t acknowledged = 0, with_work = 0;
    base_rng_seed(&rng, seed);
    for (uint64_t i = 0; i < count; i++) {
        /* Short ones hit the opening, long ones the commits and the scrubs. */
        unsigned after_us = (unsigned)base_rng_below(&rng, i % 4 == 0 ? 20000 : KILL_AFTER_US_MAX);
        uint64_t before = acknowledged;
        if (run_and_kill(program, path, after_us, &acknowledged) != 0 ||
            run_check(program, path, acknowledged) != 0) {
            fprintf(stderr, "crash_store: failed at kill %llu of seed %llu, after %u us\n",
                    (unsigned long long)i, (unsigned long long)seed, after_us);
            return 1;
        }
        with_work += acknowledged > before;
    }
    printf("%llu kills, %llu of them amid ingest, %llu batches acknowledged, 0 lost (seed %llu)\n",
           (unsigned long long)count, (unsigned long long)with_work,
           (unsigned long long)acknowledged, (unsigned long long)seed);
    if (acknowledged == 0) {
        fprintf(stderr, "crash_store: nothing was ever acknowledged: the machine is too slow\n");
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "ingest") == 0) {
        return ingest(argv[2]);
    }
    if (argc == 4 && strcmp(argv[1], "check") == 0) {
        return check(argv[2], strtoull(argv[3], NULL, 10));
    }
    if (argc == 5 && strcmp(argv[1], "campaign") == 0) {
        return campaign(argv[0], argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    }
    fprintf(stderr, "usage: crash_store ingest DIR | check DIR N | campaign DIR COUNT SEED\n");
    return 2;
}
