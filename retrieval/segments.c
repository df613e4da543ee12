/* retrieval/segments.c: the immutable segments on disk: load, build, merge, rewrite.
 *
 * Writing order, so that a crash at any step leaves an index that is whole or is rebuilt:
 *   1. new segment files are written and synced under names never used before;
 *   2. the manifest is replaced (base_file_replace: temporary file, sync, rename, sync of the
 * folder);
 *   3. files that the manifest does not name are removed.
 * After a crash between 1 and 2 the new files are leftovers; between 2 and 3 the old ones are. The
 * next writer removes either. One writer at a time across processes: flock on <store>/index/lock.
 *
 * A segment is merged with newer ones when it is less than twice as large (EXTEND_TIMES, where
 * they can be added to a copy of it: as long as what it was trained on suits so many), so each
 * vector is rewritten O(log n) times, and trained on and encoded anew each time that a segment has
 * become four times as large. A segment that holds a forgotten episode is copied without it
 * (segment_file.c).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "retrieval/internal.h"

#define TAIL_MIN \
    2048 /* vectors that are worth a segment of their own; reading them from LMDB takes some 10 ms \
          */
#define SEGMENT_MAX 1048576 /* vectors of a segment: 470 MB at dim 384 */
#define BATCH 16384         /* vectors added at once: 25 MB at dim 384 */
#define DEAD_SHARE 4        /* rewrite unasked when one in so many is forgotten */
#define EXTEND_TIMES 8      /* merge what can be added to with what is an eighth of it */
#define NO_SEGMENT SIZE_MAX
#define LOAD_TRIES 5   /* a writer may replace the manifest while we read */
#define SAMPLE_TRIES 3 /* another process may forget while we count */

const retrieval_faiss *retrieval_segment_of(const retrieval *r, uint64_t id)
{
    for (size_t i = 0; i < r->manifest.count; i++) {
        const retrieval_entry *e = &r->manifest.entries[i];
        if (id >= e->first_id && id <= e->last_id) {
            return r->segments[i];
        }
    }
    return NULL;
}

bool retrieval_is_dead(const retrieval *r, uint64_t id)
{
    size_t low = 0, high = r->dead_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->dead[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < r->dead_count && r->dead[low] == id;
}

static size_t dead_between(const retrieval *r, uint64_t first, uint64_t last)
{
    size_t n = 0;
    for (size_t i = 0; i < r->dead_count; i++) {
        n += r->dead[i] >= first && r->dead[i] <= last;
    }
    return n;
}

void retrieval_segments_drop(retrieval *r)
{
    for (size_t i = 0; i < r->manifest.count; i++) {
        if (r->segments) {
            retrieval_faiss_free(r->segments[i]);
        }
    }
    base_free(r->segments);
    r->segments = NULL;
    retrieval_manifest_free(&r->manifest);
    retrieval_flat_clear(&r->tail);
    base_free(r->dead);
    r->dead = NULL;
    r->dead_count = 0;
    r->seen_id = 0;
    r->commit = 0;
}

/* --- loading --------------------------------------------------------------------------------- */

base_status retrieval_segment_crc(const char *folder, const char *file, uint32_t *crc,
                                  uint64_t *bytes, base_error *err)
{
    char path[RETRIEVAL_PATH_MAX];
    base_map map;
    if (base_path_join(path, sizeof path, folder, file) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path too long: %s/%s", folder, file);
    }
    base_status status = base_map_open(path, &map, err);
    if (status == BASE_OK) {
        *crc = base_crc32c(0, map.data, map.size);
        *bytes = map.size;
        base_map_close(&map);
    }
    return status;
}

/* A value that this episode, encoded by this encoder, has in this store and hardly any other
 * episode in any store. BASE_NOT_FOUND: forgotten. */
static base_status anchor_of(const retrieval *r, uint64_t id, uint32_t *anchor, base_error *err)
{
    store_episode e;
    base_status status = store_get(r->s, id, &e, err);
    if (status != BASE_OK) {
        return status;
    }
    uint8_t bytes[48];
    memcpy(bytes, e.content_hash, 32);
    base_put_u64(bytes + 32, e.commit);
    base_put_u64(bytes + 40, (uint64_t)e.ingested_at_us);
    *anchor = base_crc32c(r->encoder, bytes, sizeof bytes);
    store_episode_free(&e);
    return BASE_OK;
}

/* Map a segment's file: size and checksum are the manifest's. */
static base_status map_segment(const retrieval *r, const retrieval_entry *e, base_map *map,
                               base_error *err)
{
    char path[RETRIEVAL_PATH_MAX];
    if (base_path_join(path, sizeof path, r->folder, e->file) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path too long: %s/%s", r->folder, e->file);
    }
    base_status status = base_map_open(path, map, err);
    if (status == BASE_OK &&
        (map->size != e->bytes || base_crc32c(0, map->data, map->size) != e->crc)) {
        base_map_close(map);
        status =
            base_fail(err, BASE_CORRUPT, "%s: size or checksum differs from the manifest", path);
    }
    return status;
}

static base_status load_segment(const retrieval *r, const retrieval_entry *e, retrieval_faiss **out,
                                base_error *err)
{
    base_map map;
    base_status status = map_segment(r, e, &map, err);
    if (status != BASE_OK) {
        return status;
    }
    status = retrieval_faiss_read(e->kind, map.data, map.size, r->dim, out, err);
    base_map_close(&map);
    if (status == BASE_OK && retrieval_faiss_count(*out) != e->count) {
        retrieval_faiss_free(*out);
        *out = NULL;
        status = base_fail(err, BASE_CORRUPT, "%s/%s: holds another number of vectors", r->folder,
                           e->file);
    }
    if (status == BASE_OK) {
        uint32_t anchor;
        base_status found = anchor_of(r, e->last_id, &anchor, NULL);
        if (found == BASE_OK && anchor != e->anchor) {
            retrieval_faiss_free(*out);
            *out = NULL;
            status =
                base_fail(err, BASE_CORRUPT, "%s/%s: belongs to another store", r->folder, e->file);
        }
    }
    return status;
}

static base_status load_once(retrieval *r, base_error *err)
{
    retrieval_manifest m = {0};
    base_status status = retrieval_manifest_read(r->folder, &m, err);
    if (status != BASE_OK) {
        return status;
    }
    r->manifest = m;
    r->segments = base_calloc(m.count ? m.count : 1, sizeof *r->segments);
    if (!r->segments) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu segments", m.count);
    } else if (m.encoder != 0 && r->encoder != 0 && m.encoder != r->encoder) {
        r->outdated = true;
        status =
            base_fail(err, BASE_VERSION, "%s: made of the vectors of another encoder", r->folder);
    } else if (m.dim != r->dim) {
        status = base_fail(err, BASE_CORRUPT, "%s: index of %" PRIu64 " dimensions, wanted %zu",
                           r->folder, m.dim, r->dim);
    } else if (m.commit > store_last_commit(r->s)) {
        status = base_fail(err, BASE_CORRUPT, "%s: the index is ahead of the store", r->folder);
    }
    for (size_t i = 0; i < m.count && status == BASE_OK; i++) {
        status = load_segment(r, &m.entries[i], &r->segments[i], err);
    }
    if (status != BASE_OK) {
        retrieval_segments_drop(r);
        return status;
    }
    r->seen_id = m.covered;
    r->commit = m.commit;
    return BASE_OK;
}

base_status retrieval_segments_load(retrieval *r, base_error *err)
{
    for (int attempt = 1;; attempt++) {
        retrieval_manifest before = {0}, after = {0};
        base_status read = retrieval_manifest_read(r->folder, &before, NULL);
        base_status status = load_once(r, err);
        if (status == BASE_OK || status == BASE_NO_MEMORY || attempt == LOAD_TRIES) {
            retrieval_manifest_free(&before);
            return status == BASE_NOT_FOUND && read == BASE_OK ? BASE_CORRUPT : status;
        }
        /* A file that is gone because another process has just merged it is no damage. */
        base_status again = retrieval_manifest_read(r->folder, &after, NULL);
        bool moved = read != again || before.serial != after.serial;
        bool none = again == BASE_NOT_FOUND;
        retrieval_manifest_free(&before);
        retrieval_manifest_free(&after);
        if (!moved) {
            return status == BASE_NOT_FOUND && !none ? BASE_CORRUPT : status;
        }
    }
}

/* --- building -------------------------------------------------------------------------------- */

/* Vectors of a range of ids on their way into an index: first some to train on, then all, a batch
 * at a time, so that a large segment is built within little memory. */
typedef struct collect {
    retrieval_flat flat; /* the sample; the batch */
    uint64_t last;
    size_t every; /* one of so many neighbours is a sample */
    size_t drawn; /* which of them: at random, as texts may come in turns */
    size_t seen;
    base_rng rng;
    retrieval_faiss *index; /* NULL while the sample is taken */
    bool checks;            /* the index was trained on others: does it tell these apart? */
    uint64_t first_id, last_id;
    base_status status;
    base_error *err;
} collect;

static base_status add_batch(collect *c)
{
    retrieval_flat *batch = &c->flat;
    if (batch->count == 0) {
        return BASE_OK;
    }
    c->first_id = c->first_id ? c->first_id : batch->ids[0];
    c->last_id = batch->ids[batch->count - 1];
    base_status status =
        retrieval_faiss_add(c->index, batch->ids, batch->vectors, batch->count, c->err);
    for (size_t i = 0; i < batch->count && status == BASE_OK && c->checks; i++) {
        bool agrees;
        status = retrieval_faiss_check(c->index, batch->ids[i], batch->vectors + i * batch->dim,
                                       &agrees, c->err);
        if (status == BASE_OK && !agrees) {
            status = base_fail(c->err, BASE_UNSUPPORTED, "vectors unlike those trained on");
        }
    }
    retrieval_flat_clear(batch);
    return status;
}

static bool is_sample(collect *c)
{
    size_t at = c->seen++ % c->every;
    if (at == 0) {
        c->drawn = (size_t)base_rng_below(&c->rng, c->every);
    }
    return at == c->drawn;
}

static bool collect_one(void *argument, const store_view *view)
{
    collect *c = argument;
    if (view->id > c->last) {
        return false;
    }
    if (!view->vector || view->vector_dim != c->flat.dim || (!c->index && !is_sample(c))) {
        return true;
    }
    c->status = retrieval_flat_add(&c->flat, view->id, view->vector, c->err);
    if (c->status == BASE_OK && c->index && c->flat.count == BATCH) {
        c->status = add_batch(c);
    }
    return c->status == BASE_OK;
}

/* A range of ids that becomes one segment, or stays one. */
typedef struct range {
    uint64_t first, last;
    size_t count;       /* vectors, as far as known */
    size_t begins_with; /* the segment that holds its first ids, or NO_SEGMENT */
    bool changes;       /* else that segment is all of it, and stays */
} range;

/* Does what the range's first segment was trained on suit count vectors? */
static bool can_extend(const retrieval *r, const range *g, size_t count)
{
    return g->begins_with != NO_SEGMENT &&
           retrieval_faiss_suits(r->manifest.entries[g->begins_with].kind, count, r->dim);
}

/* Visit what has an id above `after`, up to c->last. */
static base_status scan_ids(const retrieval *r, uint64_t after, collect *c, base_error *err)
{
    uint64_t damaged;
    base_status status = store_scan(r->s, after, collect_one, c, &damaged, err);
    return status == BASE_OK ? c->status : status;
}

/* What to train on, and the kind for as many vectors as there are. The range's own count may be
 * too large (what was forgotten meanwhile): then again with the one that was found. */
static base_status take_sample(const retrieval *r, const range *g, char kind[RETRIEVAL_KIND_MAX],
                               collect *c, base_error *err)
{
    size_t count = g->count;
    base_status status = BASE_OK;
    for (int attempt = 0; attempt < SAMPLE_TRIES; attempt++) {
        retrieval_faiss_kind(count, r->dim, kind);
        size_t sample = retrieval_faiss_sample(kind);
        if (sample == 0) {
            return BASE_OK;
        }
        retrieval_flat_clear(&c->flat);
        c->seen = 0;
        base_rng_seed(&c->rng, 1);
        c->every = count > sample ? count / sample : 1;
        if ((status = scan_ids(r, g->first - 1, c, err)) || c->seen >= count ||
            c->flat.count >= sample) {
            return status;
        }
        count = c->seen;
    }
    return BASE_OK;
}

/* The index of a range from the store's records, in memory. *index stays NULL when the range holds
 * no vector. */
static base_status index_range(const retrieval *r, const range *g, char kind[RETRIEVAL_KIND_MAX],
                               collect *c, retrieval_faiss **index, base_error *err)
{
    *c = (collect){.flat = {.dim = r->dim}, .last = g->last, .err = err};
    base_status status = take_sample(r, g, kind, c, err);
    if (status == BASE_OK && (retrieval_faiss_sample(kind) == 0 || c->flat.count > 0)) {
        status =
            retrieval_faiss_create(kind, r->dim, c->flat.vectors, c->flat.count, &c->index, err);
    }
    retrieval_flat_free(&c->flat); /* a batch takes less */
    if (status == BASE_OK && c->index) {
        status = scan_ids(r, g->first - 1, c, err);
    }
    if (status == BASE_OK && c->index) {
        status = add_batch(c);
    }
    if (status == BASE_OK && c->index && retrieval_faiss_count(c->index) > 0) {
        *index = c->index;
        c->index = NULL;
    }
    retrieval_faiss_free(c->index);
    retrieval_flat_free(&c->flat);
    return status;
}

/* The old segment that a range begins with, without what is forgotten: in memory, and, where
 * anything is, in the file path (*written). */
static base_status copy_segment(const retrieval *r, const retrieval_entry *old, const char *path,
                                retrieval_entry *entry, retrieval_faiss **index, bool *written,
                                base_error *err)
{
    base_map map;
    base_status status = map_segment(r, old, &map, err);
    *entry = *old;
    if (status == BASE_OK && dead_between(r, old->first_id, old->last_id) > 0) {
        retrieval_stripped left;
        status =
            retrieval_segment_strip(map.data, map.size, r->dead, r->dead_count, path, &left, err);
        base_map_close(&map);
        if (status == BASE_OK && left.count == 0) {
            status = base_fail(err, BASE_UNSUPPORTED, "%s: nothing is left", old->file);
        }
        if (status == BASE_OK) {
            entry->first_id = left.first_id;
            entry->last_id = left.last_id;
            *written = true;
            status = base_map_open(path, &map, err);
        }
    }
    if (status == BASE_OK) {
        status = retrieval_faiss_read(old->kind, map.data, map.size, r->dim, index, err);
        base_map_close(&map);
    }
    return status;
}

/* The segment of a range that begins with an old one: what is newer is added to a copy of it. */
static base_status extend_segment(const retrieval *r, const range *g, const char *path,
                                  retrieval_entry *entry, retrieval_faiss **index, base_error *err)
{
    const retrieval_entry *old = &r->manifest.entries[g->begins_with];
    bool written = false;
    collect c = {.flat = {.dim = r->dim}, .last = g->last, .checks = true, .err = err};
    base_status status = copy_segment(r, old, path, entry, &c.index, &written, err);
    if (status == BASE_OK && g->last > old->last_id &&
        (status = scan_ids(r, old->last_id, &c, err)) == BASE_OK) {
        status = add_batch(&c);
    }
    if (status == BASE_OK && (c.last_id > 0 || !written)) {
        entry->last_id = c.last_id > 0 ? c.last_id : entry->last_id;
        status = retrieval_faiss_write(c.index, path, err);
    }
    if (status == BASE_OK) {
        *index = c.index;
        c.index = NULL;
    }
    retrieval_faiss_free(c.index);
    retrieval_flat_free(&c.flat);
    return status;
}

/* The same of any range, from the records alone. */
static base_status make_segment(const retrieval *r, const range *g, const char *path,
                                retrieval_entry *entry, retrieval_faiss **index, base_error *err)
{
    collect c;
    base_status status = index_range(r, g, entry->kind, &c, index, err);
    if (status == BASE_OK && *index) {
        entry->first_id = c.first_id;
        entry->last_id = c.last_id;
        status = retrieval_faiss_write(*index, path, err);
    }
    return status;
}

/* Build the segment of a range and write its file. *index stays NULL when it holds no vector. */
static base_status build_range(const retrieval *r, const range *g, const char *file,
                               retrieval_faiss **index, retrieval_entry *entry, base_error *err)
{
    char path[RETRIEVAL_PATH_MAX];
    *index = NULL;
    if (base_path_join(path, sizeof path, r->folder, file) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path too long: %s/%s", r->folder, file);
    }
    base_status status = can_extend(r, g, g->count) ? extend_segment(r, g, path, entry, index, err)
                                                    : BASE_UNSUPPORTED;
    if (status == BASE_UNSUPPORTED || status == BASE_CORRUPT || status == BASE_NOT_FOUND) {
        memset(entry, 0, sizeof *entry); /* the old file does not serve: from the records */
        status = make_segment(r, g, path, entry, index, err);
    }
    if (status == BASE_OK && *index) {
        snprintf(entry->file, sizeof entry->file, "%s", file);
        entry->count = retrieval_faiss_count(*index);
        status = anchor_of(r, entry->last_id, &entry->anchor, err);
        status = status == BASE_NOT_FOUND ? BASE_OK : status; /* just forgotten: is not checked */
    }
    if (status == BASE_OK && *index) {
        status = retrieval_segment_crc(r->folder, file, &entry->crc, &entry->bytes, err);
    }
    if (status != BASE_OK || !*index) {
        retrieval_faiss_free(*index);
        *index = NULL;
        unlink(path);
    }
    return status;
}

/* --- planning -------------------------------------------------------------------------------- */

typedef struct plan {
    range *ranges; /* ascending */
    size_t count;
    bool changes; /* anything to build */
    bool clean;   /* no forgotten episode is left in a segment afterwards */
} plan;

/* The tail as new segments, merged with older ones that are not much larger. */
static base_status plan_tail(const retrieval *r, plan *p, base_error *err)
{
    p->changes = true;
    /* A long tail (a first flush, a rebuild) is cut so that one build stays within memory. */
    size_t done = 0;
    size_t pieces = (r->tail.count + SEGMENT_MAX - 1) / SEGMENT_MAX;
    range *grown = base_realloc(p->ranges, (p->count + pieces) * sizeof *grown);
    if (!grown) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to plan %zu segments", p->count + pieces);
    }
    p->ranges = grown;
    while (done < r->tail.count) {
        size_t take = r->tail.count - done < SEGMENT_MAX ? r->tail.count - done : SEGMENT_MAX;
        p->ranges[p->count++] =
            (range){r->tail.ids[done], r->tail.ids[done + take - 1], take, NO_SEGMENT, true};
        done += take;
    }
    while (p->count >= 2) {
        range *newer = &p->ranges[p->count - 1], *older = newer - 1;
        size_t times = can_extend(r, older, older->count + newer->count) ? EXTEND_TIMES : 2;
        if (older->count >= times * newer->count || older->count + newer->count > SEGMENT_MAX) {
            break;
        }
        older->last = newer->last;
        older->count += newer->count;
        older->changes = true;
        p->count--;
    }
    return BASE_OK;
}

/* The segments as they are, those to be rewritten marked, then the tail. */
static base_status make_plan(const retrieval *r, bool force, plan *p, base_error *err)
{
    size_t n = r->manifest.count;
    p->ranges = base_calloc(n + 2, sizeof *p->ranges);
    if (!p->ranges) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to plan %zu segments", n);
    }
    for (size_t i = 0; i < n; i++) {
        const retrieval_entry *e = &r->manifest.entries[i];
        size_t dead = dead_between(r, e->first_id, e->last_id);
        bool rewrite = dead > 0 && (force || dead * DEAD_SHARE > e->count);
        p->ranges[p->count++] =
            (range){e->first_id, e->last_id, (size_t)e->count - dead, i, rewrite};
        p->changes |= rewrite;
    }
    if (r->tail.count >= TAIL_MIN || (force && r->tail.count > 0)) {
        base_status status = plan_tail(r, p, err);
        if (status != BASE_OK) {
            return status;
        }
    }
    p->clean = true;
    for (size_t i = 0; i < p->count; i++) {
        p->clean &=
            p->ranges[i].changes || dead_between(r, p->ranges[i].first, p->ranges[i].last) == 0;
    }
    return BASE_OK;
}

/* --- flush ----------------------------------------------------------------------------------- */

/* Count the files in the folder that the manifest does not name, except the lock and the manifest
 * itself; remove them, if wanted. */
static size_t find_leftovers(const retrieval *r, bool removes)
{
    size_t count = 0;
    DIR *dir = opendir(r->folder);
    if (!dir) {
        return 0;
    }
    for (struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        bool keep = d->d_name[0] == '.' || strcmp(d->d_name, "manifest") == 0 ||
                    strcmp(d->d_name, "lock") == 0;
        for (size_t i = 0; i < r->manifest.count && !keep; i++) {
            keep = strcmp(d->d_name, r->manifest.entries[i].file) == 0;
        }
        char path[RETRIEVAL_PATH_MAX];
        if (!keep && base_path_join(path, sizeof path, r->folder, d->d_name) == BASE_OK) {
            count++;
            if (removes) {
                unlink(path);
            }
        }
    }
    closedir(dir);
    return count;
}

/* Was this segment there before the flush began? */
static bool is_old(const retrieval *r, const retrieval_faiss *segment)
{
    for (size_t i = 0; i < r->manifest.count; i++) {
        if (r->segments[i] == segment) {
            return true;
        }
    }
    return false;
}

/* Has this manifest taken its place, although that failed to be made durable? */
static bool is_named_on_disk(const retrieval *r, const retrieval_manifest *m)
{
    retrieval_manifest on_disk = {0};
    bool named = retrieval_manifest_read(r->folder, &on_disk, NULL) == BASE_OK &&
                 on_disk.serial == m->serial;
    retrieval_manifest_free(&on_disk);
    return named;
}

/* Free what was built before something failed, and remove its files. */
static void undo_build(const retrieval *r, retrieval_faiss **segments, const retrieval_manifest *m,
                       bool removes)
{
    char path[RETRIEVAL_PATH_MAX];
    for (size_t i = 0; i < m->count; i++) {
        if (!is_old(r, segments[i])) {
            retrieval_faiss_free(segments[i]);
            if (removes &&
                base_path_join(path, sizeof path, r->folder, m->entries[i].file) == BASE_OK) {
                unlink(path);
            }
        }
    }
}

/* The largest serial that any file here was named by, so that no name is used twice even when the
 * manifest is lost. */
static uint64_t highest_serial(const retrieval *r)
{
    uint64_t highest = r->manifest.serial;
    DIR *dir = opendir(r->folder);
    if (!dir) {
        return highest;
    }
    for (struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        char *end;
        uint64_t serial = strtoull(d->d_name, &end, 10);
        if (*end == '-' && serial > highest && serial < UINT64_MAX / 2) {
            highest = serial;
        }
    }
    closedir(dir);
    return highest;
}

static base_status carry_out(retrieval *r, const plan *p, base_error *err)
{
    retrieval_manifest m = {.dim = r->dim,
                            .encoder = r->encoder,
                            .serial = highest_serial(r) + 1,
                            .commit = p->clean ? r->commit : r->manifest.commit,
                            .covered = r->manifest.covered};
    retrieval_faiss **segments = base_calloc(p->count + 1, sizeof *segments);
    m.entries = base_calloc(p->count + 1, sizeof *m.entries);
    base_status status = BASE_OK;
    if (!segments || !m.entries) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu segments", p->count);
    }
    for (size_t i = 0; i < p->count && status == BASE_OK; i++) {
        const range *g = &p->ranges[i];
        if (g->last > m.covered) {
            m.covered = g->last;
        }
        if (!g->changes) {
            m.entries[m.count] = r->manifest.entries[g->begins_with];
            segments[m.count++] = r->segments[g->begins_with];
            continue;
        }
        char file[48];
        snprintf(file, sizeof file, "%" PRIu64 "-%zu.faiss", m.serial, i);
        status = build_range(r, g, file, &segments[m.count], &m.entries[m.count], err);
        m.count += segments[m.count] != NULL;
    }
    if (status == BASE_OK) {
        status = base_file_sync(r->folder, err);
    }
    if (status == BASE_OK) {
        status = retrieval_manifest_write(r->folder, &m, err);
    }
    if (status != BASE_OK) {
        undo_build(r, segments, &m, !is_named_on_disk(r, &m));
        base_free(segments);
        retrieval_manifest_free(&m);
        return status;
    }
    for (size_t i = 0; i < r->manifest.count; i++) {
        bool kept = false;
        for (size_t k = 0; k < m.count; k++) {
            kept |= segments[k] == r->segments[i];
        }
        if (!kept) {
            retrieval_faiss_free(r->segments[i]);
        }
    }
    base_free(r->segments);
    retrieval_manifest_free(&r->manifest);
    r->segments = segments;
    r->manifest = m;
    return BASE_OK;
}

/* Drop from the tail and from the list of the dead what the new segments settle. */
static void settle(retrieval *r, const plan *p)
{
    size_t covered = 0;
    while (covered < r->tail.count && r->tail.ids[covered] <= r->manifest.covered) {
        covered++;
    }
    if (covered == r->tail.count) {
        retrieval_flat_clear(&r->tail);
    } else if (covered > 0) {
        memmove(r->tail.ids, r->tail.ids + covered,
                (r->tail.count - covered) * sizeof *r->tail.ids);
        memmove(r->tail.vectors, r->tail.vectors + covered * r->dim,
                (r->tail.count - covered) * r->dim * sizeof *r->tail.vectors);
        r->tail.count -= covered;
    }
    size_t kept = 0;
    for (size_t i = 0; i < r->dead_count; i++) {
        bool in_old = false;
        for (size_t k = 0; k < p->count; k++) {
            in_old |= !p->ranges[k].changes && r->dead[i] >= p->ranges[k].first &&
                      r->dead[i] <= p->ranges[k].last;
        }
        if (in_old) {
            r->dead[kept++] = r->dead[i];
        }
    }
    r->dead_count = kept;
}

/* Lock the index against other writers; *lock = -1: one of them has it and we do not wait. */
static base_status lock_index(const retrieval *r, bool wait, int *lock, base_error *err)
{
    char path[RETRIEVAL_PATH_MAX];
    if (base_path_join(path, sizeof path, r->folder, "lock") != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path too long: %s/lock", r->folder);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    int locked;
    do {
        locked = flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
    } while (locked != 0 && errno == EINTR);
    *lock = fd;
    if (locked != 0) {
        int code = errno;
        close(fd);
        *lock = -1;
        return code == EWOULDBLOCK ? BASE_OK : base_fail_errno(err, code, "cannot lock %s", path);
    }
    return BASE_OK;
}

void retrieval_segments_tidy(const retrieval *r)
{
    int lock = -1;
    if (find_leftovers(r, false) == 0 || lock_index(r, false, &lock, NULL) || lock < 0) {
        return;
    }
    retrieval_manifest on_disk = {0};
    base_status read = retrieval_manifest_read(r->folder, &on_disk, NULL);
    if (read == BASE_NOT_FOUND ? r->manifest.count == 0
                               : read == BASE_OK && on_disk.serial == r->manifest.serial) {
        (void)find_leftovers(r, true);
    }
    retrieval_manifest_free(&on_disk);
    close(lock);
}

base_status retrieval_segments_flush(retrieval *r, bool force, base_error *err)
{
    int lock = -1;
    base_status status = base_dir_create(r->folder, err);
    if (status == BASE_OK) {
        status = lock_index(r, force, &lock, err);
    }
    if (status != BASE_OK || lock < 0) {
        return status; /* another process writes segments: the tail can wait */
    }
    plan p = {0};
    retrieval_manifest on_disk = {0};
    base_status read = retrieval_manifest_read(r->folder, &on_disk, NULL);
    if (read == BASE_OK && on_disk.serial != r->manifest.serial) {
        /* Another process has written since: start from its segments. */
        retrieval_segments_drop(r);
        base_error why = {0};
        if (retrieval_segments_load(r, &why) != BASE_OK) {
            base_log(BASE_LOG_WARN, "the vector index is rebuilt: %s", why.text);
        }
        status = retrieval_sync(r, err);
    }
    if (status == BASE_OK) {
        status = make_plan(r, force, &p, err);
    }
    if (status == BASE_OK && p.changes) {
        status = carry_out(r, &p, err);
        if (status == BASE_OK) {
            settle(r, &p);
        }
    }
    if (status == BASE_OK) {
        (void)find_leftovers(r, true);
    }
    base_free(p.ranges);
    retrieval_manifest_free(&on_disk);
    close(lock);
    return status;
}
