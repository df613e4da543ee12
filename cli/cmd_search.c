/* cli/cmd_search.c: search, show, stats: looking into the store without the model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "cli/cli.h"
#include "eval/report.h"

enum { RESULTS_DEFAULT = 10, RESULTS_MAX = 256, LOCK_WAIT_MS = 50 };

static void fill_query(const cli_options *o, const char *text, const float *vector, size_t k,
                       retrieval_query *query)
{
    *query = (retrieval_query){
        .text = text,
        .text_size = strlen(text),
        .vector = vector,
        .now_us = o->now_us,
        .as_of_us = o->as_of_us == BASE_TIME_NONE || o->as_of_us > o->now_us ? o->now_us
                                                                             : o->as_of_us,
        .about_us = o->about_us,
        .k = k,
        .use_strength = !o->arm || strcmp(o->arm, "full") == 0,
        .use_time = true,
        .use_bm25 = true};
}

base_status cli_search(const cli_options *o, const cli_memory *memory, const char *text,
                       retrieval_hit *hits, size_t *count, base_error *err)
{
    base_pool *pool = NULL;
    encoder *enc = NULL;
    float vector[STORE_VECTOR_DIM_MAX];
    retrieval_query query;
    base_status status;
    if ((status = base_pool_create(o->threads, &pool, err)) ||
        (status = cli_open_encoder(o, pool, &enc, err)) ||
        (status = cli_check_encoder(memory, enc, err)) ||
        (status = encoder_encode(enc, text, strlen(text), vector, err))) {
        goto done;
    }
    fill_query(o, text, vector, o->k ? o->k : RESULTS_DEFAULT, &query);
    status = retrieval_search(memory->retrieval, &query, hits, count, err);
done:
    encoder_close(enc);
    base_pool_free(pool);
    return status;
}

static json_t *json_hit(const retrieval_hit *hit, const store_episode *e)
{
    json_t *text = json_stringn(e->text, e->text_size);
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "id",
                     (json_int_t)e->id, "score", (double)hit->score, "similarity",
                     (double)hit->similarity, "bm25", (double)hit->bm25, "time", (double)hit->time,
                     "strength", (double)hit->strength, "source", e->source, "document",
                     e->external_id, "title", e->title, "observed_at",
                     cli_json_time(e->observed_at_us), "valid_from",
                     cli_json_time(e->valid_from_us), "valid_to", cli_json_time(e->valid_to_us),
                     "superseded_by",
                     e->superseded_by ? json_integer((json_int_t)e->superseded_by) : json_null(),
                     "text", text ? text : json_null());
}

static void print_hit(const retrieval_hit *hit, const store_episode *e)
{
    char date[BASE_TIME_TEXT_MAX];
    base_time_format_date(e->observed_at_us, date);
    printf("[%llu] %.3f (similarity %.3f, bm25 %.2f, time %.2f, strength %.2f) %s %s\n",
           (unsigned long long)e->id, (double)hit->score, (double)hit->similarity,
           (double)hit->bm25, (double)hit->time, (double)hit->strength, date, e->title);
    printf("    %.*s%s", (int)e->text_size, e->text,
           e->text_size && e->text[e->text_size - 1] == '\n' ? "" : "\n");
}

int cmd_search(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    retrieval_hit hits[RESULTS_MAX];
    size_t count = 0;
    const char *text = o->operands[0];
    int code = CLI_DONE;
    if (!*text || base_utf8_check(text, strlen(text)) != strlen(text)) {
        return cli_usage("the query is %s", *text ? "not valid UTF-8" : "empty");
    }
    if (o->k > RESULTS_MAX) {
        return cli_usage("-k: at most %d results", RESULTS_MAX);
    }
    if (cli_open_memory(o, false, LOCK_WAIT_MS, &memory, &err) ||
        cli_search(o, &memory, text, hits, &count, &err)) {
        cli_close_memory(&memory);
        return cli_fail(&err);
    }
    json_t *results = json_array();
    for (size_t i = 0; i < count; i++) {
        store_episode episode;
        if (store_get(memory.store, hits[i].id, &episode, &err)) {
            code = err.code == BASE_NOT_FOUND ? code : cli_fail(&err);
            continue;
        }
        if (o->json) {
            json_array_append_new(results, json_hit(&hits[i], &episode));
        } else {
            print_hit(&hits[i], &episode);
        }
        store_episode_free(&episode);
    }
    if (o->json) {
        cli_print_json(json_pack("{s:O}", "results", results));
    }
    json_decref(results);
    cli_close_memory(&memory);
    return code;
}

/* --- show ------------------------------------------------------------------------------------- */

static double strength_now(const cli_options *o, store *s, uint64_t id, store_brief *brief)
{
    int64_t as_of = o->as_of_us == BASE_TIME_NONE ? o->now_us : o->as_of_us;
    *brief = (store_brief){0};
    if (store_get_briefs(s, &id, 1, as_of, brief, NULL) || brief->id == 0) {
        return 0;
    }
    return store_strength(brief, as_of);
}

static void add_history(const cli_options *o, store *s, const store_episode *other, json_t *history)
{
    store_brief brief;
    json_t *text = json_stringn(other->text, other->text_size);
    json_array_append_new(
        history, json_pack("{s:I, s:s, s:i, s:o, s:o, s:f, s:o}", "id", (json_int_t)other->id,
                           "document", other->external_id, "version", (int)other->version,
                           "observed_at", cli_json_time(other->observed_at_us), "superseded_at",
                           cli_json_time(other->superseded_at_us), "strength",
                           strength_now(o, s, other->id, &brief), "text",
                           text ? text : json_null()));
}

/* The episodes that an episode replaced or that replaced it, in its document and in others. */
static json_t *history_of(const cli_options *o, store *s, const store_episode *episode)
{
    json_t *history = json_array();
    uint64_t *ids = NULL;
    size_t count = 0;
    store_episode other;
    if (store_document_episodes(s, episode->document, 0, &ids, &count, NULL)) {
        return history;
    }
    bool shown = episode->superseded_by == 0;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == episode->id || store_get(s, ids[i], &other, NULL)) {
            continue;
        }
        if (other.superseded_by == episode->id || episode->superseded_by == other.id) {
            add_history(o, s, &other, history);
            shown = shown || episode->superseded_by == other.id;
        }
        store_episode_free(&other);
    }
    base_free(ids);
    if (!shown && store_get(s, episode->superseded_by, &other, NULL) == BASE_OK) {
        add_history(o, s, &other, history);
        store_episode_free(&other);
    }
    return history;
}

static void print_episode(const store_episode *e, const store_brief *brief, double strength,
                          json_t *history)
{
    char observed[BASE_TIME_TEXT_MAX], from[BASE_TIME_TEXT_MAX], to[BASE_TIME_TEXT_MAX],
        closed[BASE_TIME_TEXT_MAX], used[BASE_TIME_TEXT_MAX];
    base_time_format(e->observed_at_us, observed);
    base_time_format(e->valid_from_us, from);
    base_time_format(e->valid_to_us, to);
    base_time_format(e->superseded_at_us, closed);
    base_time_format(brief->last_use_us, used);
    printf("episode %llu of %s, version %u, bytes %llu to %llu\n", (unsigned long long)e->id,
           e->external_id, e->version, (unsigned long long)e->start_byte,
           (unsigned long long)e->end_byte);
    printf("source       %s\ntitle        %s\nobserved at  %s\n", e->source, e->title, observed);
    if (*from || *to) {
        printf("valid        %s to %s\n", *from ? from : "ever", *to ? to : "now");
    }
    printf("strength     %.3f (half-life ", strength);
    if (isfinite(brief->half_life_s)) {
        printf("%.0f s", brief->half_life_s);
    } else {
        printf("not measured");
    }
    printf("; %llu uses%s%s)\n", (unsigned long long)e->use_count, *used ? ", last " : "", used);
    if (*closed) {
        printf("superseded   %s by episode %llu\n", closed, (unsigned long long)e->superseded_by);
    }
    printf("\n%.*s\n", (int)e->text_size, e->text);
    for (size_t i = 0; i < json_array_size(history); i++) {
        json_t *h = json_array_get(history, i);
        printf("\n%s: [%lld] %s\n  %s\n",
               (uint64_t)json_integer_value(json_object_get(h, "id")) == e->superseded_by
                   ? "replaced by"
                   : "replaced",
               json_integer_value(json_object_get(h, "id")),
               json_string_value(json_object_get(h, "observed_at")),
               json_string_value(json_object_get(h, "text")));
    }
}

int cmd_show(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    store_episode episode;
    store_brief brief;
    char *end;
    uint64_t id = strtoull(o->operands[0], &end, 10);
    if (*end || id == 0) {
        return cli_usage("'%s' is not the id of an episode", o->operands[0]);
    }
    if (cli_open_memory(o, false, LOCK_WAIT_MS, &memory, &err)) {
        return cli_fail(&err);
    }
    base_status status = store_get(memory.store, id, &episode, &err);
    if (status) {
        if (status == BASE_NOT_FOUND) {
            base_fail(&err, status, "there is no episode %llu in %s", (unsigned long long)id,
                      store_path(memory.store));
        }
        cli_close_memory(&memory);
        return cli_fail(&err);
    }
    double strength = strength_now(o, memory.store, id, &brief);
    json_t *history = history_of(o, memory.store, &episode);
    if (o->json) {
        char hash[65];
        json_t *text = json_stringn(episode.text, episode.text_size);
        base_hex(episode.content_hash, 32, hash);
        cli_print_json(json_pack(
            "{s:I, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:I, s:o, "
            "s:s, s:o, s:O}",
            "id", (json_int_t)id, "source", episode.source, "document", episode.external_id,
            "title", episode.title, "section", episode.section, "version", (int)episode.version,
            "start_byte", (json_int_t)episode.start_byte, "end_byte",
            (json_int_t)episode.end_byte, "observed_at", cli_json_time(episode.observed_at_us),
            "valid_from", cli_json_time(episode.valid_from_us), "valid_to",
            cli_json_time(episode.valid_to_us), "superseded_at",
            cli_json_time(episode.superseded_at_us), "superseded_by",
            episode.superseded_by ? json_integer((json_int_t)episode.superseded_by) : json_null(),
            "strength", strength, "half_life_s", cli_json_number(brief.half_life_s), "uses",
            (json_int_t)episode.use_count, "last_use", cli_json_time(brief.last_use_us),
            "content_hash", hash, "text", text ? text : json_null(), "history", history));
    } else {
        print_episode(&episode, &brief, strength, history);
    }
    json_decref(history);
    store_episode_free(&episode);
    cli_close_memory(&memory);
    return CLI_DONE;
}

/* --- stats ------------------------------------------------------------------------------------ */

static int print_stats_json(const store_stats *stats)
{
    json_t *sources = json_array();
    for (size_t i = 0; i < stats->source_count; i++) {
        const store_source_info *s = &stats->sources[i];
        json_array_append_new(
            sources,
            json_pack("{s:s, s:o, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "source", s->source,
                      "half_life_s", cli_json_number(s->half_life_s), "half_life_given", s->given,
                      "evidence", (json_int_t)s->evidence, "streams", (json_int_t)s->drift.streams,
                      "changed", (json_int_t)s->drift.changed, "changes",
                      (json_int_t)s->drift.changes, "documents", (json_int_t)s->documents,
                      "episodes", (json_int_t)s->episodes));
    }
    json_t *bytes =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)stats->bytes_total,
                  "lmdb", (json_int_t)stats->bytes_lmdb, "catalog",
                  (json_int_t)stats->bytes_catalog, "index", (json_int_t)stats->bytes_index, "text",
                  (json_int_t)stats->bytes_text, "vectors", (json_int_t)stats->bytes_vectors, "kv",
                  (json_int_t)stats->bytes_kv);
    return cli_print_json(
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I}", "episodes",
                  (json_int_t)stats->episodes, "documents", (json_int_t)stats->documents,
                  "versions", (json_int_t)stats->versions, "superseded",
                  (json_int_t)stats->superseded, "kv_entries", (json_int_t)stats->kv_entries,
                  "uses", (json_int_t)stats->uses, "last_commit", (json_int_t)stats->last_commit,
                  "sources", sources, "bytes", bytes, "dropped_writes",
                  (json_int_t)stats->dropped_writes));
}

/* What holds of a source's streams that change; the others outlast it the longer they stand. */
static void print_source(const store_source_info *s)
{
    printf("  %-40s %llu episodes; half-life ", s->source, (unsigned long long)s->episodes);
    if (isfinite(s->half_life_s)) {
        printf("%.1f days (%s, evidence %llu)", s->half_life_s / 86400.0,
               s->given ? "given" : "of what changes", (unsigned long long)s->evidence);
    } else {
        printf("%s", s->given ? "for ever (given)" : "not measured");
    }
    printf("; %llu of %llu things changed, %llu times\n", (unsigned long long)s->drift.changed,
           (unsigned long long)s->drift.streams, (unsigned long long)s->drift.changes);
}

static base_status write_strength(const cli_options *o, store *s, base_error *err)
{
    base_buffer page = {0};
    base_status status = BASE_OK;
    if (o->out && !(status = eval_strength_page(s, o->now_us, &page, err))) {
        status = base_file_replace(o->out, page.data, page.size, 0644, err);
    }
    base_buffer_free(&page);
    return status;
}

int cmd_stats(const cli_options *o)
{
    base_error err = {0};
    cli_memory memory = {0};
    store_stats stats;
    if (cli_open_memory(o, false, LOCK_WAIT_MS, &memory, &err) ||
        write_strength(o, memory.store, &err) ||
        store_get_stats(memory.store, &stats, &err)) {
        cli_close_memory(&memory);
        return cli_fail(&err);
    }
    if (o->json) {
        print_stats_json(&stats);
    } else {
        printf("%s\n", store_path(memory.store));
        printf("%llu episodes of %llu documents in %llu versions; %llu superseded\n",
               (unsigned long long)stats.episodes, (unsigned long long)stats.documents,
               (unsigned long long)stats.versions, (unsigned long long)stats.superseded);
        printf("%llu uses, %llu blocks of keys and values, %llu dropped writes\n",
               (unsigned long long)stats.uses, (unsigned long long)stats.kv_entries,
               (unsigned long long)stats.dropped_writes);
        printf("%.1f MB on disk: text %.1f, vectors %.1f, KV %.1f, catalogue %.1f, index %.1f\n",
               (double)stats.bytes_total / 1e6, (double)stats.bytes_text / 1e6,
               (double)stats.bytes_vectors / 1e6, (double)stats.bytes_kv / 1e6,
               (double)stats.bytes_catalog / 1e6, (double)stats.bytes_index / 1e6);
        for (size_t i = 0; i < stats.source_count; i++) {
            print_source(&stats.sources[i]);
        }
    }
    store_stats_free(&stats);
    cli_close_memory(&memory);
    return CLI_DONE;
}
