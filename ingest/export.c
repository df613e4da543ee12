/* ingest/export.c: every version of every document as one line of JSON, in the order in which they
 * were committed, so that taking the lines in again (read_jsonl.c) gives the same documents, the
 * same versions, and by their times the same supersession. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "ingest/ingest.h"

/* Episodes of one version, joined. */
typedef struct version {
    store_episode first; /* owned; id 0 = none yet */
    base_buffer text;
    uint64_t next_byte;       /* where the next episode should begin */
    bool gap;                 /* part of it was forgotten */
    int64_t superseded_at_us; /* the latest of its episodes' */
} version;

const char *const ingest_kinds[3] = {[STORE_DOCUMENT] = "document",
                                     [STORE_TURN_USER] = "user",
                                     [STORE_TURN_ASSISTANT] = "assistant"};

static void set_time(json_t *line, const char *name, int64_t time_us)
{
    char text[BASE_TIME_TEXT_MAX];
    if (time_us != BASE_TIME_NONE && time_us != BASE_TIME_MAX) {
        base_time_format(time_us, text);
        json_object_set_new(line, name, json_string(text));
    }
}

static void set_text(json_t *line, const char *name, const char *text)
{
    if (*text) {
        json_object_set_new(line, name, json_string(text));
    }
}

typedef struct sink {
    FILE *out;
    ingest_export_counts *counts;
} sink;

static int write_part(const char *data, size_t size, void *argument)
{
    sink *to = argument;
    to->counts->bytes += size;
    return fwrite(data, 1, size, to->out) == size ? 0 : -1;
}

/* Write the gathered version, if there is one. */
static base_status write_version(version *v, FILE *out, ingest_export_counts *counts,
                                 base_error *err)
{
    if (v->first.id == 0) {
        return BASE_OK;
    }
    const store_episode *e = &v->first;
    json_t *line = json_object();
    set_text(line, "id", e->external_id);
    set_text(line, "source", e->source);
    set_text(line, "title", e->title);
    json_object_set_new(line, "text", json_stringn(v->text.data, v->text.size));
    set_time(line, "observed_at", e->observed_at_us);
    set_time(line, "valid_from", e->valid_from_us);
    set_time(line, "valid_to", e->valid_to_us);
    set_time(line, "ingested_at", e->ingested_at_us);
    set_time(line, "superseded_at", v->superseded_at_us);
    json_object_set_new(line, "kind", json_string(ingest_kinds[e->kind]));
    json_object_set_new(line, "version", json_integer((json_int_t)e->version));
    if (v->gap) {
        json_object_set_new(line, "partly_forgotten", json_true());
    }
    sink to = {.out = out, .counts = counts};
    base_status status = BASE_OK;
    if (json_dump_callback(line, write_part, &to, JSON_COMPACT) != 0 ||
        write_part("\n", 1, &to) != 0) {
        status = base_fail_errno(err, errno, "cannot write the export");
    }
    counts->documents += e->version == 1;
    counts->versions++;
    json_decref(line);
    return status;
}

static void clear_version(version *v)
{
    store_episode_free(&v->first);
    memset(&v->first, 0, sizeof v->first);
    base_buffer_clear(&v->text);
    v->next_byte = 0;
    v->gap = false;
    v->superseded_at_us = BASE_TIME_NONE;
}

/* Takes e. */
static base_status add_episode(version *v, store_episode *e, base_error *err)
{
    base_status status = base_buffer_append(&v->text, e->text, e->text_size);
    v->gap |= e->start_byte != v->next_byte;
    v->next_byte = e->end_byte;
    if (v->superseded_at_us < e->superseded_at_us || v->first.id == 0) {
        v->superseded_at_us = e->superseded_at_us;
    }
    if (v->first.id == 0) {
        v->first = *e;
    } else {
        store_episode_free(e);
    }
    return status ? base_fail(err, status, "no memory for a document") : BASE_OK;
}

base_status ingest_export(store *s, FILE *out, ingest_export_counts *counts, base_error *err)
{
    uint64_t *ids = NULL;
    size_t count = 0;
    version v = {0};
    *counts = (ingest_export_counts){0};
    base_status status = store_select(s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err);
    for (size_t i = 0; i < count && !status; i++) {
        store_episode e;
        status = store_get(s, ids[i], &e, err);
        if (status == BASE_NOT_FOUND) {
            status = BASE_OK; /* forgotten since */
            continue;
        }
        if (!status && (e.document != v.first.document || e.version != v.first.version)) {
            status = write_version(&v, out, counts, err);
            clear_version(&v);
        }
        if (!status) {
            counts->episodes++;
            status = add_episode(&v, &e, err);
        }
    }
    if (!status) {
        status = write_version(&v, out, counts, err);
    }
    clear_version(&v);
    base_buffer_free(&v.text);
    base_free(ids);
    return status;
}
