/* cli/cmd_keep.c: verify, age, forget: keeping the store in order. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/upkeep.h"
#include "ingest/ingest.h"

enum { WRITER_WAIT_MS = 10000, QUERY_RESULTS_MAX = 256 };

int cmd_verify(const cli_options *o)
{
    base_error err = {0};
    store_verify_report report = {0};
    const char *path = cli_store_path(o);
    base_status status = store_verify(path, o->repair, &report, &err);
    if (!status && !report.unwalkable) {
        store *s = NULL;
        store_options options = {.read_only = !o->repair};
        status = store_open(path, &options, &s, &err);
        if (!status) {
            size_t dim = 0;
            status = cli_vector_size(s, 0, &dim, &err);
            if (!status) {
                status = retrieval_verify(s, dim, o->repair, &report, &err);
            }
        } else if (report.count > 0) {
            status = BASE_OK; /* too damaged to open: the report says why */
        }
        store_close(s);
    }
    if (status) {
        base_free(report.problems);
        return cli_fail(&err);
    }
    bool ok = report.count == 0 || report.repaired >= report.count;
    if (o->json) {
        json_t *problems = json_array();
        for (size_t i = 0; i < report.count; i++) {
            json_array_append_new(problems,
                                  json_pack("{s:s, s:I, s:s}", "file", report.problems[i].file,
                                            "id", (json_int_t)report.problems[i].id, "kind",
                                            report.problems[i].kind));
        }
        cli_print_json(json_pack("{s:b, s:o, s:I, s:I}", "ok", ok, "problems", problems, "repaired",
                                 (json_int_t)report.repaired, "episodes",
                                 (json_int_t)report.episodes_checked));
    } else {
        for (size_t i = 0; i < report.count; i++) {
            printf("%s: id %llu: %s\n", report.problems[i].file,
                   (unsigned long long)report.problems[i].id, report.problems[i].kind);
        }
        printf("%s: %llu episodes checked, %zu problems, %llu repaired\n", path,
               (unsigned long long)report.episodes_checked, report.count,
               (unsigned long long)report.repaired);
    }
    base_free(report.problems);
    return ok ? CLI_DONE : CLI_FAILED;
}

/* --- age -------------------------------------------------------------------------------------- */

/* Close what newer episodes of other documents replace. Without a text encoder, statements in other
 * words stay open. */
static base_status close_superseded(const cli_options *o, cli_memory *memory,
                                    retrieval_supersede_receipt *receipt, base_error *err)
{
    base_pool *pool = NULL;
    encoder *enc = NULL;
    base_status status;
    if (!(status = base_pool_create(o->threads, &pool, err)) &&
        !(status = cli_open_encoder(o, pool, &enc, err)) &&
        !(status = cli_check_encoder(memory, enc, err))) {
        status = ingest_supersede(memory->retrieval, enc, o->now_us, NULL, receipt, err);
    }
    encoder_close(enc);
    base_pool_free(pool);
    return status;
}

/* A half-life from outside (--half-life; 0: measured again), for one --source or for all. */
static base_status set_half_lives(const cli_options *o, cli_memory *memory, size_t *set,
                                  base_error *err)
{
    store_stats stats = {0};
    store_txn *txn = NULL;
    base_status status = store_get_stats(memory->store, &stats, err);
    if (status || (status = store_begin(memory->store, o->now_us, &txn, err))) {
        store_stats_free(&stats);
        return status;
    }
    for (size_t i = 0; i < stats.source_count && !status; i++) {
        const store_source_info *s = &stats.sources[i];
        if (!o->source || strcmp(o->source, s->source) == 0) {
            status = store_put_half_life(txn, s->source, o->half_life_s, s->evidence, err);
            ++*set;
        }
    }
    if (!status && o->source && *set == 0) {
        status = base_fail(err, BASE_NOT_FOUND, "there is no source '%s' in %s", o->source,
                           store_path(memory->store));
    }
    if (status) {
        store_abort(txn);
    } else {
        status = store_commit(txn, err);
    }
    store_stats_free(&stats);
    return status;
}

/* Keys and values beyond --kv-budget go. */
static base_status trim_kv(const cli_options *o, cli_memory *memory, store_trim_receipt *trimmed,
                           base_error *err)
{
    store_txn *txn = NULL;
    base_status status = store_begin(memory->store, o->now_us, &txn, err);
    if (status) {
        return status;
    }
    if ((status = store_trim_kv(txn, o->kv_budget, trimmed, err))) {
        store_abort(txn);
        return status;
    }
    return store_commit(txn, err);
}

/* The decay scheduler: superseded episodes are closed, half-lives estimated anew, index segments
 * merged, keys and values beyond --kv-budget evicted. Strength itself is evaluated when it is read,
 * never rewritten. Each part is commits of its own, which the next run goes on behind. */
int cmd_age(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    retrieval_supersede_receipt compared = {0};
    store_trim_receipt trimmed = {0};
    cli_options plain = *o;
    plain.half_life_s = NAN;
    size_t set = 0;
    uint64_t measured = 0;
    base_status status = cli_open_memory(&plain, false, WRITER_WAIT_MS, &memory, &err);
    if (!status && store_is_read_only(memory.store)) {
        status = base_fail(&err, BASE_PERMISSION, "%s: the store cannot be written",
                           store_path(memory.store));
    }
    if (!status && !isnan(o->half_life_s)) {
        status = set_half_lives(o, &memory, &set, &err);
    }
    if (!status && o->kv_budget != UINT64_MAX) {
        status = trim_kv(o, &memory, &trimmed, &err);
    }
    if (!status && !(status = close_superseded(o, &memory, &compared, &err)) &&
        !(status = upkeep_measure(memory.store, o->now_us, &measured, &err)) &&
        !(status = retrieval_sync(memory.retrieval, &err))) {
        status = retrieval_flush(memory.retrieval, true, &err);
    }
    cli_close_memory(&memory);
    if (status) {
        return cli_fail(&err);
    }
    if (o->json) {
        return cli_print_json(json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I}", "half_lives_set", (json_int_t)set,
            "half_lives_measured", (json_int_t)measured, "compared", (json_int_t)compared.compared,
            "superseded", (json_int_t)compared.closed, "kv_evicted", (json_int_t)trimmed.entries,
            "kv_bytes_evicted", (json_int_t)trimmed.bytes));
    }
    printf(
        "%llu episodes compared, %llu superseded; half-life of %llu sources measured, of %zu set; "
        "index merged",
        (unsigned long long)compared.compared, (unsigned long long)compared.closed,
        (unsigned long long)measured, set);
    if (o->kv_budget != UINT64_MAX) {
        printf(", keys and values of %llu episodes evicted (%.1f MB)",
               (unsigned long long)trimmed.entries, (double)trimmed.bytes / 1e6);
    }
    printf("\n");
    return CLI_DONE;
}

/* --- forget ----------------------------------------------------------------------------------- */

static base_status select_ids(const cli_options *o, cli_memory *memory, uint64_t **ids,
                              size_t *count, base_error *err)
{
    if (o->id) {
        store_episode episode;
        base_status status = store_get(memory->store, o->id, &episode, err);
        if (status) {
            return status == BASE_NOT_FOUND ? base_fail(err, status, "there is no episode %llu",
                                                        (unsigned long long)o->id)
                                            : status;
        }
        store_episode_free(&episode);
    }
    if (!o->id && !o->query) {
        return store_select(memory->store, o->source, o->from_us, o->to_us, ids, count, err);
    }
    retrieval_hit hits[QUERY_RESULTS_MAX];
    size_t found = 0;
    base_status status = BASE_OK;
    if (o->query) {
        status = cli_search(o, memory, o->query, hits, &found, err);
    }
    *ids = base_calloc(found + 1, sizeof **ids);
    if (!status && !*ids) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for a selection");
    }
    if (status) {
        return status;
    }
    *count = 0;
    if (o->id) {
        (*ids)[(*count)++] = o->id;
    }
    for (size_t i = 0; i < found; i++) {
        (*ids)[(*count)++] = hits[i].id;
    }
    return BASE_OK;
}

static int print_receipt(const cli_options *o, const store_forget_receipt *r)
{
    if (o->json) {
        return cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:b}", "episodes",
                                        (json_int_t)r->episodes, "vectors", (json_int_t)r->vectors,
                                        "kv", (json_int_t)r->kv, "fts", (json_int_t)r->fts, "bytes",
                                        (json_int_t)r->bytes, "dry_run", o->dry_run));
    }
    printf("%s: %llu episodes, %llu vectors, %llu blocks of keys and values, %llu index rows, %llu "
           "bytes\n",
           o->dry_run ? "would forget" : "forgotten", (unsigned long long)r->episodes,
           (unsigned long long)r->vectors, (unsigned long long)r->kv, (unsigned long long)r->fts,
           (unsigned long long)r->bytes);
    return CLI_DONE;
}

int cmd_forget(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    store_forget_receipt receipt = {0};
    store_txn *txn = NULL;
    uint64_t *ids = NULL;
    size_t count = 0;
    bool timed = o->from_us != BASE_TIME_NONE || o->to_us != BASE_TIME_MAX;
    if ((o->id != 0) + (o->query != NULL) + (o->source != NULL || timed) != 1) {
        return cli_usage("forget needs one of --id ID, --source S, --query Q, --from T --to T");
    }
    base_status status = cli_open_memory(o, false, WRITER_WAIT_MS, &memory, &err);
    if (!status) {
        status = select_ids(o, &memory, &ids, &count, &err);
    }
    if (!status && !(status = store_begin(memory.store, o->now_us, &txn, &err))) {
        status = store_forget(txn, ids, count, &receipt, &err);
        if (status || o->dry_run) {
            store_abort(txn);
        } else {
            status = store_commit(txn, &err);
        }
    }
    if (!status && !o->dry_run && count > 0 && !(status = store_scrub(memory.store, &err)) &&
        !(status = retrieval_sync(memory.retrieval, &err))) {
        status = retrieval_flush(memory.retrieval, true, &err);
    }
    base_free(ids);
    cli_close_memory(&memory);
    return status ? cli_fail(&err) : print_receipt(o, &receipt);
}
