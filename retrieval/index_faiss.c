/* retrieval/index_faiss.c: an immutable segment of vectors behind FAISS's C API (the only file that
 * names FAISS).
 *
 * Segments are built by index_factory, searched, and written as FAISS's own file format. Nothing is
 * removed from one: forgetting writes it anew from the store (retrieval.c). FAISS throws C++
 * exceptions; its C API turns them into codes, `translate` below turns those into ours.
 *
 * Not here: HNSW (slow to build with Debian's generic FAISS: 391 s for 200,000 x 384 on two
 * threads).
 */
#include <errno.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/MetaIndexes_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "retrieval/index.h"

/* Kinds, measured on this project's four corpora (45,866 MiniLM vectors, beyond that with jitter),
 * Debian's generic FAISS 1.7.3, two cores, November 2026; ms a query for 96 results, recall of the
 * exact search:
 *
 *     vectors   exact, ours   IDMap2,Flat   IVF,SQ8: lists/probes  build     ms   @10    @96
 *      10,000        0.5          3.0           64 /  8            0.1 s    0.8   .972   .892
 *      10,000        0.5          3.0          128 / 16            0.2 s    0.6   .997   .974
 *      45,000        4.0           -           128 / 16            0.3 s    2.6   .970   .977
 *     200,000       20             -           512 / 32            4.8 s    7.3   .993   .989
 *     200,000       20             -          1024 / 32             12 s    3.3   .992   .992
 *
 * So small segments are exact (and searched by our own pass, borrow_flat) and the others are
 * inverted files of about sqrt(vectors) lists, from DENSE_MIN vectors on of twice as many, of which
 * no more than 32 are looked at. The times are of Debian's library as it is: ./dev setup replaces
 * what scans codes by the same compiled for AVX2.
 * Similarities are computed anew from the record's own vector for what is ranked (search.c), so
 * that the eight-bit codes only decide who is looked at. */
#define FLAT_MAX 5000 /* FAISS wants 39 training vectors a list */
#define LISTS_MIN 128
#define LISTS_MAX 4096
#define DENSE_MIN 131072
#define PROBES_MAX 32

struct retrieval_faiss {
    FaissIndex *index;
    size_t dim;
};

/* FAISS's last error as ours. Its text may end in a newline; the first line is what a person needs.
 */
static base_status translate(base_error *err, int code, const char *what)
{
    const char *text = faiss_get_last_error();
    text = text ? text : "unknown error";
    base_status status = strstr(text, "bad_alloc") ? BASE_NO_MEMORY : BASE_IO;
    base_fail(err, status, "FAISS: %s: %.*s", what, (int)strcspn(text, "\n"), text);
    if (err) {
        err->system_code = code;
    }
    return status;
}

void retrieval_faiss_kind(size_t count, char kind[RETRIEVAL_KIND_MAX])
{
    if (count <= FLAT_MAX) {
        snprintf(kind, RETRIEVAL_KIND_MAX, "IDMap2,Flat");
        return;
    }
    size_t lists = LISTS_MIN;
    while (2 * lists * lists < count && lists < LISTS_MAX) {
        lists *= 2;
    }
    lists = count >= DENSE_MIN && lists < LISTS_MAX ? 2 * lists : lists;
    snprintf(kind, RETRIEVAL_KIND_MAX, "IVF%zu,SQ8", lists);
}

static base_status wrap(FaissIndex *index, size_t dim, retrieval_faiss **out, base_error *err)
{
    retrieval_faiss *r = base_calloc(1, sizeof *r);
    if (!r) {
        faiss_Index_free(index);
        return base_fail(err, BASE_NO_MEMORY, "no memory for an index handle");
    }
    r->index = index;
    r->dim = dim;
    *out = r;
    return BASE_OK;
}

/* Vectors to train on: at most 64 a list, evenly spaced. FAISS asks for 39 a list and samples down
 * to 256 by itself. */
static base_status train(FaissIndex *index, size_t dim, const float *vectors, size_t count,
                         base_error *err)
{
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(index);
    size_t wanted = ivf ? 64 * faiss_IndexIVF_nlist(ivf) : count;
    size_t step = count / wanted;
    if (step <= 1) {
        int code = faiss_Index_train(index, (idx_t)count, vectors);
        return code == 0 ? BASE_OK : translate(err, code, "train");
    }
    float *sample = base_alloc(wanted * dim * sizeof *sample);
    if (!sample) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu training vectors", wanted);
    }
    for (size_t i = 0; i < wanted; i++) {
        memcpy(sample + i * dim, vectors + i * step * dim, dim * sizeof *sample);
    }
    int code = faiss_Index_train(index, (idx_t)wanted, sample);
    base_free(sample);
    return code == 0 ? BASE_OK : translate(err, code, "train");
}

base_status retrieval_faiss_build(const char *kind, size_t dim, const uint64_t *ids,
                                  const float *vectors, size_t count, retrieval_faiss **out,
                                  base_error *err)
{
    FaissIndex *index = NULL;
    int code = faiss_index_factory(&index, (int)dim, kind, METRIC_INNER_PRODUCT);
    if (code != 0) {
        base_status status = translate(err, code, kind);
        return status == BASE_NO_MEMORY
                   ? status
                   : base_fail(err, BASE_INVALID, "FAISS: no index \"%s\"", kind);
    }
    base_status status = BASE_OK;
    if (!faiss_Index_is_trained(index)) {
        status = train(index, dim, vectors, count, err);
    }
    if (status == BASE_OK) {
        _Static_assert(sizeof(idx_t) == sizeof(uint64_t), "ids go to FAISS as they are");
        code = faiss_Index_add_with_ids(index, (idx_t)count, vectors,
                                        (const idx_t *)(const void *)ids);
        status = code == 0 ? BASE_OK : translate(err, code, "add");
    }
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(index);
    if (status == BASE_OK && ivf) {
        size_t probes = 1;
        while (probes * probes < 2 * faiss_IndexIVF_nlist(ivf) && probes < PROBES_MAX) {
            probes *= 2; /* 16 of 128, 32 of 512 and 1024 */
        }
        faiss_IndexIVF_set_nprobe(ivf, probes); /* saved with the index */
    }
    if (status != BASE_OK) {
        faiss_Index_free(index);
        return status;
    }
    return wrap(index, dim, out, err);
}

base_status retrieval_faiss_write(const retrieval_faiss *r, const char *path, base_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file) {
        int system_errno = errno;
        if (fd >= 0) {
            close(fd);
        }
        return base_fail_errno(err, system_errno, "cannot create %s", path);
    }
    base_status status = BASE_OK;
    errno = 0;
    int code = faiss_write_index(r->index, file);
    if (code != 0) {
        int system_errno = errno;
        status = system_errno == ENOSPC || system_errno == EDQUOT || system_errno == EIO
                     ? base_fail_errno(err, system_errno, "cannot write %s", path)
                     : translate(err, code, path);
    } else if (fflush(file) != 0 || fsync(fileno(file)) != 0) {
        status = base_fail_errno(err, errno, "cannot write %s", path);
    }
    if (fclose(file) != 0 && status == BASE_OK) {
        status = base_fail_errno(err, errno, "cannot close %s", path);
    }
    return status;
}

base_status retrieval_faiss_read(const void *data, size_t size, size_t dim, retrieval_faiss **out,
                                 base_error *err)
{
    if (size == 0) {
        return base_fail(err, BASE_CORRUPT, "an empty index file");
    }
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "rb");
    if (!file) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to read an index");
    }
    FaissIndex *index = NULL;
    int code = faiss_read_index(file, 0, &index);
    fclose(file);
    if (code != 0) {
        base_status status = translate(err, code, "read");
        return status == BASE_NO_MEMORY ? status
                                        : base_fail(err, BASE_CORRUPT, "not a FAISS index");
    }
    if (faiss_Index_d(index) != (int)dim) {
        int found = faiss_Index_d(index);
        faiss_Index_free(index);
        return base_fail(err, BASE_CORRUPT, "index of %d dimensions, wanted %zu", found, dim);
    }
    return wrap(index, dim, out, err);
}

void retrieval_faiss_free(retrieval_faiss *r)
{
    if (r) {
        faiss_Index_free(r->index);
        base_free(r);
    }
}

size_t retrieval_faiss_count(const retrieval_faiss *r)
{
    return (size_t)faiss_Index_ntotal(r->index);
}

/* One query is one thread's work. FAISS would start a team of threads for it all the same (the ids
 * of the results are mapped in a parallel loop), and OpenMP's barriers spin: where other programs
 * need the cores, too, the team waited for its members longer than it searched. */
static int search_alone(const FaissIndex *index, const float *query, size_t wanted, float *scores,
                        idx_t *labels)
{
    int threads = omp_get_max_threads(); /* of this thread: nobody else's change */
    omp_set_num_threads(1);
    int code = faiss_Index_search(index, 1, query, (idx_t)wanted, scores, labels);
    omp_set_num_threads(threads);
    return code;
}

/* The vectors of a flat segment as they lie in FAISS's memory: index_flat.c's pass over them takes
 * a sixth of the time of FAISS's own (table above). false: of another kind. */
static bool borrow_flat(const retrieval_faiss *r, retrieval_flat *out)
{
    FaissIndexIDMap2 *map = faiss_IndexIDMap2_cast(r->index);
    FaissIndexFlat *flat = map ? faiss_IndexFlat_cast(faiss_IndexIDMap2_sub_index(map)) : NULL;
    idx_t *ids = NULL;
    float *vectors = NULL;
    size_t id_count = 0, value_count = 0;
    if (!flat) {
        return false;
    }
    faiss_IndexIDMap2_id_map(map, &ids, &id_count);
    faiss_IndexFlat_xb(flat, &vectors, &value_count);
    *out = (retrieval_flat){
        .dim = r->dim, .count = id_count, .ids = (uint64_t *)ids, .vectors = vectors};
    return value_count == id_count * r->dim;
}

base_status retrieval_faiss_search(const retrieval_faiss *r, const float *query, size_t wanted,
                                   retrieval_near *out, size_t *count, base_error *err)
{
    size_t held = retrieval_faiss_count(r);
    wanted = wanted < held ? wanted : held;
    *count = 0;
    if (wanted == 0) {
        return BASE_OK;
    }
    retrieval_flat flat;
    if (borrow_flat(r, &flat)) {
        *count = retrieval_flat_search(&flat, query, wanted, out);
        return BASE_OK;
    }
    idx_t *labels = base_alloc(wanted * sizeof *labels);
    float *scores = base_alloc(wanted * sizeof *scores);
    base_status status = BASE_OK;
    if (!labels || !scores) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu results", wanted);
        goto done;
    }
    int code = search_alone(r->index, query, wanted, scores, labels);
    if (code != 0) {
        status = translate(err, code, "search");
        goto done;
    }
    for (size_t i = 0; i < wanted; i++) {
        if (labels[i] >= 0 && isfinite(scores[i])) {
            out[(*count)++] = (retrieval_near){(uint64_t)labels[i], scores[i]};
        }
    }
done:
    base_free(labels);
    base_free(scores);
    return status;
}

/* Sets of ids in an IVF index are in its lists; a flat one answers by id (IDMap2). */
base_status retrieval_faiss_check(const retrieval_faiss *r, uint64_t id, const float *vector,
                                  bool *agrees, base_error *err)
{
    *agrees = false;
    if (faiss_IndexIVF_cast(r->index)) {
        /* Compressed: an episode's own vector must find it, nearly at 1. */
        retrieval_near found[4];
        size_t count;
        base_status status = retrieval_faiss_search(r, vector, 4, found, &count, err);
        for (size_t i = 0; i < count && status == BASE_OK; i++) {
            *agrees |= found[i].id == id && found[i].similarity > 0.98f;
        }
        return status;
    }
    float *stored = base_alloc(r->dim * sizeof *stored);
    if (!stored) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a vector");
    }
    /* An id that is not there is an exception in FAISS: not an error here, but the answer no. */
    if (faiss_Index_reconstruct(r->index, (idx_t)id, stored) == 0) {
        *agrees = memcmp(stored, vector, r->dim * sizeof *stored) == 0;
    }
    base_free(stored);
    return BASE_OK;
}
