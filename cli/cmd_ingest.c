/* cli/cmd_ingest.c: ingest, import and reindex, with a progress line on a terminal. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "ingest/ingest.h"
#include "ingest/watch.h"

enum { WRITER_WAIT_MS = 60000 };

typedef struct progress {
    double begin_ms;
    bool terminal;
} progress;

static void on_problem(void *argument, const char *text)
{
    const progress *p = argument;
    fprintf(stderr, "%seidetic: skipped %s\n", p->terminal ? "\r\033[K" : "", text);
}

static void on_progress(void *argument, const ingest_counts *c)
{
    const progress *p = argument;
    double seconds = (base_clock_ms() - p->begin_ms) / 1e3;
    if (p->terminal) {
        fprintf(
            stderr,
            "\r\033[K%llu documents (%llu unchanged), %llu episodes, %.1f MB, %.0f episodes/s",
            (unsigned long long)(c->documents_new + c->documents_updated + c->documents_unchanged),
            (unsigned long long)c->documents_unchanged, (unsigned long long)c->episodes,
            (double)c->bytes / 1e6, seconds > 0 ? (double)c->episodes / seconds : 0);
        fflush(stderr);
    }
}

static volatile sig_atomic_t stopped;

static void on_stop(int number)
{
    (void)number;
    stopped = 1;
}

typedef struct follow {
    retrieval *retrieval;
    encoder *encoder;
    bool compare; /* with other documents */
    retrieval_supersede_receipt compared;
} follow;

static base_status on_commit(void *argument, int64_t now_us, base_error *err)
{
    follow *f = argument;
    retrieval_supersede_receipt receipt = {0};
    base_status status =
        f->compare ? ingest_supersede(f->retrieval, f->encoder, now_us, NULL, &receipt, err)
                   : BASE_OK;
    f->compared.closed += receipt.closed;
    return status;
}

/* Until SIGINT or SIGTERM, which end it with what was taken in; a second one ends it at once. */
static base_status watch(const cli_options *o, ingest *in, follow *f, base_error *err)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};
    ingest_watch_options options = {.stop = &stopped, .on_commit = on_commit, .argument = f};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return ingest_watch(in, (const char *const *)o->operands, (size_t)o->operand_count, &options,
                        err);
}

static int run_ingest(const cli_options *o, bool restore)
{
    base_error err = {0};
    cli_memory memory = {0};
    base_pool *pool = NULL;
    encoder *enc = NULL;
    ingest *in = NULL;
    ingest_counts counts = {0};
    follow after = {.compare = !o->no_supersede};
    progress p = {.begin_ms = base_clock_ms(), .terminal = isatty(STDERR_FILENO) == 1};
    ingest_options options = {.source = o->source,
                              .observed_at_us = o->observed_at_us,
                              .valid_from_us = o->valid_from_us,
                              .valid_to_us = o->valid_to_us,
                              .now_us = o->now_us,
                              .restore = restore,
                              .stop = &stopped,
                              .on_problem = on_problem,
                              .on_progress = on_progress,
                              .argument = &p};
    cli_options sized = *o;
    base_status status;
    if ((status = base_pool_create(o->threads, &pool, &err)) ||
        (status = cli_open_encoder(o, pool, &enc, &err))) {
        goto done;
    }
    sized.vector_size = encoder_dim(enc);
    if ((status = cli_open_memory(&sized, true, WRITER_WAIT_MS, &memory, &err)) ||
        (status = cli_check_encoder(&memory, enc, &err)) ||
        (status = ingest_open(memory.store, memory.retrieval, enc, &options, &in, &err))) {
        goto done;
    }
    after.retrieval = memory.retrieval;
    after.encoder = enc;
    if (o->watch) {
        status = watch(o, in, &after, &err);
    }
    for (int i = 0; i < o->operand_count && !o->watch && !status; i++) {
        status = ingest_path(in, o->operands[i], &err);
    }
    /* What came before a failure is kept all the same. */
    base_error later = {0};
    base_status committed = ingest_commit(in, true, status ? &later : &err);
    status = status ? status : committed;
    ingest_get_counts(in, &counts);
    if (!status) {
        status = on_commit(&after, ingest_get_options(in)->now_us, &err);
    }
done:
    ingest_close(in);
    cli_close_memory(&memory);
    encoder_close(enc);
    base_pool_free(pool);
    if (p.terminal) {
        fprintf(stderr, "\r\033[K");
    }
    double seconds = (base_clock_ms() - p.begin_ms) / 1e3;
    if (o->json) {
        cli_print_json(json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "new", (json_int_t)counts.documents_new,
            "updated", (json_int_t)counts.documents_updated, "unchanged",
            (json_int_t)counts.documents_unchanged, "failed", (json_int_t)counts.failed, "episodes",
            (json_int_t)counts.episodes, "superseded", (json_int_t)after.compared.closed, "bytes",
            (json_int_t)counts.bytes, "seconds", seconds));
    } else if (in || !status) {
        printf("%llu new, %llu updated, %llu unchanged, %llu skipped; %llu episodes (%llu of other "
               "documents superseded), %.1f KB in %.1f s\n",
               (unsigned long long)counts.documents_new,
               (unsigned long long)counts.documents_updated,
               (unsigned long long)counts.documents_unchanged, (unsigned long long)counts.failed,
               (unsigned long long)counts.episodes, (unsigned long long)after.compared.closed,
               (double)counts.bytes / 1e3, seconds);
    }
    return status ? cli_fail(&err) : counts.failed > 0 ? CLI_FAILED : CLI_DONE;
}

int cmd_ingest(const cli_options *o)
{
    for (int i = 0; i < o->operand_count && o->watch; i++) {
        if (strcmp(o->operands[i], "-") == 0) {
            return cli_usage("--watch: files and folders, not standard input");
        }
    }
    return run_ingest(o, false);
}

int cmd_import(const cli_options *o)
{
    return run_ingest(o, true);
}

/* --- reindex ---------------------------------------------------------------------------------- */

static void on_encoded(void *argument, uint64_t encoded)
{
    const progress *p = argument;
    if (p->terminal) {
        fprintf(stderr, "\r\033[K%llu episodes encoded", (unsigned long long)encoded);
        fflush(stderr);
    }
}

int cmd_reindex(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    base_pool *pool = NULL;
    encoder *enc = NULL;
    store *s = NULL;
    store_reindex_receipt receipt = {0};
    store_options options = {.lock_wait_ms = WRITER_WAIT_MS};
    progress p = {.begin_ms = base_clock_ms(), .terminal = isatty(STDERR_FILENO) == 1};
    base_status status;
    if (!(status = base_pool_create(o->threads, &pool, &err)) &&
        !(status = cli_open_encoder(o, pool, &enc, &err)) &&
        !(status = store_open(cli_store_path(o), &options, &s, &err))) {
        status = ingest_reindex(s, enc, on_encoded, &p, &receipt, &err);
    }
    store_close(s);
    if (!status && !(status = cli_open_memory(o, false, WRITER_WAIT_MS, &memory, &err))) {
        status = retrieval_flush(memory.retrieval, false, &err); /* the index of the new vectors */
    }
    cli_close_memory(&memory);
    if (p.terminal) {
        fprintf(stderr, "\r\033[K");
    }
    if (status) {
        cli_fail(&err);
    } else if (o->json) {
        cli_print_json(json_pack("{s:s, s:I, s:I, s:b, s:b}", "encoder", encoder_name(enc),
                                 "dimensions", (json_int_t)encoder_dim(enc), "encoded",
                                 (json_int_t)receipt.encoded, "resumed", receipt.resumed, "changed",
                                 receipt.episodes > 0));
    } else if (receipt.episodes == 0) {
        printf("the vectors are those of %s already\n", encoder_name(enc));
    } else {
        printf("%llu episodes now have vectors of %s (%llu encoded in this run)\n",
               (unsigned long long)receipt.episodes, encoder_name(enc),
               (unsigned long long)receipt.encoded);
    }
    encoder_close(enc);
    base_pool_free(pool);
    return status ? CLI_FAILED : CLI_DONE;
}
