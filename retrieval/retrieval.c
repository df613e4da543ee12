/* retrieval/retrieval.c: the handle: open, follow the store, flush, verify. Searching is in
 * search.c, what lies on disk in segments.c.
 *
 * The index is derived. Episode ids grow with every commit, so what is new is what has an id above
 * the last one seen; what is gone is listed by store_forgotten. An index that is damaged, foreign
 * or of another dimension is dropped and read anew from the records: a warning in the log, never an
 * error.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "retrieval/internal.h"

/* --- following the store --------------------------------------------------------------------- */

typedef struct follow {
    retrieval *r;
    uint64_t skipped; /* vectors of another dimension */
    base_status status;
    base_error *err;
} follow;

static bool follow_one(void *argument, const store_view *view)
{
    follow *f = argument;
    if (view->vector && view->vector_dim == f->r->dim) {
        f->status = retrieval_flat_add(&f->r->tail, view->id, view->vector, f->err);
        if (f->status != BASE_OK) {
            return false;
        }
    } else if (view->vector) {
        f->skipped++;
    }
    f->r->seen_id = view->id;
    return true;
}

static bool is_in_segment(const retrieval *r, uint64_t id)
{
    const retrieval_faiss *segment = retrieval_segment_of(r, id);
    return segment && retrieval_faiss_holds(segment, id);
}

/* Add ids (ascending) that a segment holds to the marks, each once, in order. */
static base_status mark_dead(retrieval *r, const uint64_t *ids, size_t count, base_error *err)
{
    if (count == 0) {
        return BASE_OK;
    }
    uint64_t *merged = base_alloc((r->dead_count + count) * sizeof *merged);
    if (!merged) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu forgotten ids", count);
    }
    size_t n = 0, a = 0;
    for (size_t b = 0; b < count; b++) {
        if (is_in_segment(r, ids[b])) {
            while (a < r->dead_count && r->dead[a] < ids[b]) {
                merged[n++] = r->dead[a++];
            }
            a += a < r->dead_count && r->dead[a] == ids[b];
            merged[n++] = ids[b];
        }
    }
    while (a < r->dead_count) {
        merged[n++] = r->dead[a++];
    }
    base_free(r->dead);
    r->dead = merged;
    r->dead_count = n;
    return BASE_OK;
}

/* Which encoder made the store's vectors? A handle stays with the one it has met. */
static base_status check_encoder(retrieval *r, base_error *err)
{
    char *name = NULL;
    size_t dim = 0;
    base_status status = store_vector_info(r->s, &dim, &name, err);
    uint32_t sum = status == BASE_OK && *name ? base_crc32c(0, name, strlen(name)) : 0;
    if (status == BASE_OK && r->encoder != 0 && sum != r->encoder) {
        status = base_fail(err, BASE_VERSION,
                           "the vectors of %s are now those of encoder %s: open it again",
                           store_path(r->s), name);
    }
    r->encoder = status == BASE_OK ? sum : r->encoder;
    base_free(name);
    return status;
}

base_status retrieval_sync(retrieval *r, base_error *err)
{
    /* Read the commit first: what is committed while we look is seen now or by the next call. */
    uint64_t commit = store_last_commit(r->s);
    if (commit == r->commit && commit != 0) {
        return BASE_OK;
    }
    uint64_t *gone = NULL;
    size_t gone_count = 0;
    base_status status = check_encoder(r, err);
    if (status == BASE_OK) {
        status = store_forgotten(r->s, r->commit, &gone, &gone_count, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    retrieval_flat_remove(&r->tail, gone, gone_count);
    status = mark_dead(r, gone, gone_count, err);
    base_free(gone);
    if (status != BASE_OK) {
        return status;
    }
    follow f = {.r = r, .err = err};
    uint64_t damaged = 0;
    status = store_scan(r->s, r->seen_id, follow_one, &f, &damaged, err);
    status = status == BASE_OK ? f.status : status;
    if (status != BASE_OK) {
        return status;
    }
    if (f.skipped > 0) {
        base_log(BASE_LOG_WARN, "%" PRIu64 " vectors of another dimension than %zu are not indexed",
                 f.skipped, r->dim);
    }
    if (damaged > 0) {
        base_log(BASE_LOG_WARN, "%" PRIu64 " damaged records are not indexed: run verify", damaged);
    }
    r->commit = commit;
    return BASE_OK;
}

/* --- open, close, flush ---------------------------------------------------------------------- */

base_status retrieval_open(store *s, size_t dim, retrieval **out, base_error *err)
{
    if (dim == 0 || dim > STORE_VECTOR_DIM_MAX) {
        return base_fail(err, BASE_INVALID, "vectors of %zu dimensions", dim);
    }
    retrieval *r = base_calloc(1, sizeof *r);
    if (!r) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a retrieval handle");
    }
    r->s = s;
    r->dim = dim;
    r->tail.dim = dim;
    r->weights = retrieval_weights_default;
    base_status status = base_path_join(r->folder, sizeof r->folder, store_path(s), "index");
    if (status != BASE_OK) {
        base_fail(err, status, "path too long: %s/index", store_path(s));
        goto failed;
    }
    status = check_encoder(r, err);
    if (status != BASE_OK) {
        goto failed;
    }
    base_error why = {0};
    base_status loaded = retrieval_segments_load(r, &why);
    if (loaded == BASE_NO_MEMORY) {
        status = base_fail(err, loaded, "%s", why.text);
        goto failed;
    }
    bool rebuild = loaded != BASE_OK && loaded != BASE_NOT_FOUND;
    if (rebuild && !r->outdated) {
        base_log(BASE_LOG_WARN, "the vector index is rebuilt from the records: %s", why.text);
    }
    status = retrieval_sync(r, err);
    if (status != BASE_OK) {
        goto failed;
    }
    /* A forget that ended before its vectors were out of the segments is finished here. */
    if ((rebuild || r->dead_count > 0) && !store_is_read_only(s)) {
        memset(&why, 0, sizeof why);
        if (retrieval_segments_flush(r, true, &why) != BASE_OK) {
            base_log(BASE_LOG_WARN, "the vector index stays in memory only: %s", why.text);
        }
    } else if (!store_is_read_only(s)) {
        retrieval_segments_tidy(r);
    }
    *out = r;
    return BASE_OK;
failed:
    retrieval_close(r);
    return status;
}

void retrieval_close(retrieval *r)
{
    if (r) {
        retrieval_segments_drop(r);
        retrieval_flat_free(&r->tail);
        base_free(r);
    }
}

base_status retrieval_flush(retrieval *r, bool force, base_error *err)
{
    if (store_is_read_only(r->s)) {
        return BASE_OK; /* the tail is in memory; who may write will do it */
    }
    base_status status = retrieval_sync(r, err);
    return status == BASE_OK ? retrieval_segments_flush(r, force, err) : status;
}

/* --- verify ---------------------------------------------------------------------------------- */

static base_status add_problem(store_verify_report *report, const char *file, uint64_t id,
                               const char *kind, base_error *err)
{
    store_problem *grown =
        base_realloc(report->problems, (report->count + 1) * sizeof *report->problems);
    if (!grown) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to list %zu problems", report->count + 1);
    }
    report->problems = grown;
    store_problem *p = &report->problems[report->count++];
    memset(p, 0, sizeof *p);
    snprintf(p->file, sizeof p->file, "index/%s", file);
    p->id = id;
    snprintf(p->kind, sizeof p->kind, "%s", kind);
    return BASE_OK;
}

typedef struct check {
    retrieval *r;
    size_t segment;   /* the one that should hold the ids that come next */
    uint64_t matched; /* vectors found in it */
    store_verify_report *report;
    base_status status;
    base_error *err;
} check;

/* A segment that was looked through: its count must be the matches and the forgotten that it still
 * holds. */
static void finish_segment(check *c)
{
    const retrieval *r = c->r;
    const retrieval_entry *e = &r->manifest.entries[c->segment];
    uint64_t dead = 0;
    for (size_t i = 0; i < r->dead_count; i++) {
        dead += r->dead[i] >= e->first_id && r->dead[i] <= e->last_id;
    }
    if (c->matched + dead < e->count && c->status == BASE_OK) {
        c->status = add_problem(c->report, e->file, 0, "holds_unknown_vectors", c->err);
    }
    c->matched = 0;
    c->segment++;
}

static bool check_one(void *argument, const store_view *view)
{
    check *c = argument;
    const retrieval *r = c->r;
    while (c->segment < r->manifest.count && r->manifest.entries[c->segment].last_id < view->id) {
        finish_segment(c);
    }
    if (view->id > r->manifest.covered) {
        return false;
    }
    if (c->status != BASE_OK || !view->vector || view->vector_dim != r->dim) {
        return c->status == BASE_OK;
    }
    const retrieval_entry *e =
        c->segment < r->manifest.count ? &r->manifest.entries[c->segment] : NULL;
    if (!e || view->id < e->first_id) {
        c->status = add_problem(c->report, "manifest", view->id, "missing_in_index", c->err);
        return c->status == BASE_OK;
    }
    bool agrees;
    c->status =
        retrieval_faiss_check(r->segments[c->segment], view->id, view->vector, &agrees, c->err);
    if (c->status == BASE_OK && agrees) {
        c->matched++;
    } else if (c->status == BASE_OK) {
        c->status = add_problem(c->report, e->file, view->id, "vector_differs", c->err);
    }
    return c->status == BASE_OK;
}

/* Compare the loaded segments with the records, one by one. */
static base_status check_records(retrieval *r, store_verify_report *report, base_error *err)
{
    uint64_t *gone = NULL;
    size_t gone_count = 0;
    base_status status = store_forgotten(r->s, r->manifest.commit, &gone, &gone_count, err);
    if (status == BASE_OK) {
        status = mark_dead(r, gone, gone_count, err);
        base_free(gone);
    }
    if (status != BASE_OK) {
        return status;
    }
    check c = {.r = r, .report = report, .err = err};
    uint64_t damaged;
    status = store_scan(r->s, 0, check_one, &c, &damaged, err);
    while (status == BASE_OK && c.status == BASE_OK && c.segment < r->manifest.count) {
        finish_segment(&c);
    }
    return status == BASE_OK ? c.status : status;
}

/* Remove the index and write it anew from the records. */
static base_status rebuild_index(store *s, size_t dim, const char *folder, base_error *err)
{
    char path[RETRIEVAL_PATH_MAX];
    if (base_path_join(path, sizeof path, folder, "manifest") == BASE_OK) {
        unlink(path);
    }
    retrieval *r = NULL;
    base_status status = retrieval_open(s, dim, &r, err);
    if (status == BASE_OK) {
        status = retrieval_flush(r, true, err);
    }
    retrieval_close(r);
    return status;
}

base_status retrieval_verify(store *s, size_t dim, bool repair, store_verify_report *report,
                             base_error *err)
{
    retrieval r = {.s = s, .dim = dim, .tail = {.dim = dim}};
    base_status status = base_path_join(r.folder, sizeof r.folder, store_path(s), "index");
    if (status != BASE_OK) {
        return base_fail(err, status, "path too long: %s/index", store_path(s));
    }
    size_t before = report->count;
    base_error why = {0};
    status = check_encoder(&r, err);
    if (status != BASE_OK) {
        return status;
    }
    status = retrieval_segments_load(&r, &why);
    if (status == BASE_NO_MEMORY) {
        return base_fail(err, status, "%s", why.text);
    }
    if (status == BASE_NOT_FOUND || r.outdated) {
        status = BASE_OK; /* no index of these vectors yet: everything is in the tail */
    } else if (status != BASE_OK) {
        /* The text ends in the file's name and what is wrong; the kind is the short form. */
        base_log(BASE_LOG_WARN, "%s", why.text);
        const char *at = strstr(why.text, "/index/");
        char file[48] = "manifest";
        if (at) {
            snprintf(file, sizeof file, "%.*s", (int)strcspn(at + 7, ":"), at + 7);
        }
        status = add_problem(report, file, 0,
                             status == BASE_CORRUPT ? "damaged" : base_status_name(status), err);
    } else {
        status = check_records(&r, report, err);
    }
    retrieval_segments_drop(&r);
    retrieval_flat_free(&r.tail);
    if (status == BASE_OK && repair && report->count > before) {
        status = rebuild_index(s, dim, r.folder, err);
        if (status == BASE_OK) {
            report->repaired += report->count - before;
        }
    }
    return status;
}
