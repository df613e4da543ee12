/* retrieval/index_faiss.c: an immutable segment of vectors behind FAISS's C API (the only file that
 * names FAISS).
 *
 * Segments are built by index_factory, searched, and written as FAISS's own file format. Nothing is
 * removed from one here: segment_file.c copies the file without what goes. FAISS throws C++
 * exceptions; its C API turns them into codes, `translate` below turns those into ours.
 *
 * Not here: HNSW (slow to build with Debian's generic FAISS: 391 s for 200,000 x 384 on two
 * threads).
 */
#include <errno.h>
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/MetaIndexes_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "retrieval/index.h"
#include "retrieval/retrieval.h"

/* Kinds. Small segments are exact and searched by our own pass (borrow_flat): 10,000 x 384 take it
 * 0.5 ms. The others are inverted files whose lists hold four bits for every four dimensions
 * (product codes, scanned 32 at a time: F. Andre et al., Cache locality is not enough, 2015); the
 * best six times as many as are wanted are compared again by eight bits a dimension. Similarities
 * are computed anew from the record's own vector for what is ranked (search.c).
 *
 * Measured with MiniLM vectors of the project's corpora (160,931 of them, a million with jitter),
 * queries: parts of texts, 96 results, one thread, AVX2, November 2026; recall@10 among the 96:
 *
 *       vectors   kind                      lists looked at   ms p50   recall@10
 *       160,931   IVF1024,SQ8                 32 (before)      0.33      .867
 *       160,931   IVF1024,SQ8                128               1.16      .942
 *       160,931   IVF2048,SQ8                192               1.00      .957
 *       160,931   IVF1024,PQ96x4fs,+SQ8      256               0.38      .969
 *       160,931   IVF1024,PQ128x4fs,+SQ8     256               0.46      .975
 *     1,000,000   4 x IVF1024,SQ8            128 (before)      2.1       .875
 *     1,000,000   IVF2048,PQ96x4fs,+SQ8      172               0.81      .945
 *     1,000,000   IVF2048,PQ96x4fs,+SQ8      217               0.87      .954
 *     1,000,000   IVF2048,PQ96x4fs,+SQ8      256               1.07      .960
 *     1,000,000   IVF4096,PQ96x4fs,+SQ8      256               1.11      .949
 *     1,000,000   PCA256,IVF2048,PQ64x4fs    256               1.11      .889
 *
 * (Queries one after the other on a machine shared with other programs; product codes with four
 * times as many results compared again. The rows of 160,931 are of one set of queries; those of a
 * million of another, the first of them of a third. At 217 lists six times as many made .958 in
 * 0.98 ms. PQ128: three dimensions a code, which FAISS encodes three times as slowly.) So as many
 * lists are looked at as hold SCANNED vectors, up to PROBES_MAX; what that gives between other
 * work: eval/bench.md. The times are of ./dev setup's library, in which what scans codes is
 * compiled for AVX2. Where the dimension has no such cut, lists hold eight bits a dimension, and
 * fewer are looked at. */
#define FLAT_MAX 5000 /* FAISS wants 39 training vectors a list */
#define LISTS_MIN 64
#define LISTS_MAX 4096 /* training twice as many takes four times as long */
#define LIST_MAX 500   /* vectors a list, while more lists may be had */
#define PROBES_MAX 288
#define TRAIN_LIST 40       /* training vectors a list */
#define LISTS_ALONE_MAX 256 /* so many are trained on one thread: chosen */
#define SCANNED 135000      /* vectors of a segment in the lists that a search looks at */
#define SCANNED_SLOW 16000  /* the same of eight bits a dimension: 0.9 ms */
#define REFINE_TEXT "6"
#define ASKED_MIN 96 /* results; six times as many are compared again */

struct retrieval_faiss {
    FaissIndex *index;
    size_t dim;
    size_t lists; /* 0: no inverted file */
    bool staged;  /* the best of what the lists' codes say are compared again */
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

base_status retrieval_usable(base_isa isa, base_error *err)
{
    if (RETRIEVAL_FAISS_AVX2 && isa < BASE_ISA_AVX2) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "the FAISS of this program needs AVX2, FMA and F16C, which this processor "
                         "lacks: build the program on this machine (./dev build)");
    }
    return BASE_OK;
}

void retrieval_faiss_kind(size_t count, size_t dim, char kind[RETRIEVAL_KIND_MAX])
{
    if (count <= FLAT_MAX) {
        snprintf(kind, RETRIEVAL_KIND_MAX, "IDMap2,Flat");
        return;
    }
    size_t lists = LISTS_MIN;
    while (count > LIST_MAX * lists && lists < LISTS_MAX) {
        lists *= 2;
    }
    size_t parts = dim % 4 == 0 ? dim / 4 : dim % 3 == 0 ? dim / 3 : 0;
    if (parts > 0) {
        snprintf(kind, RETRIEVAL_KIND_MAX, "IVF%hu,PQ%hux4fs,Refine(SQ8)", (unsigned short)lists,
                 (unsigned short)parts);
    } else {
        snprintf(kind, RETRIEVAL_KIND_MAX, "IVF%zu,SQ8", lists);
    }
}

static size_t lists_of(const char *kind)
{
    size_t lists;
    return sscanf(kind, "IVF%zu,", &lists) == 1 ? lists : 0;
}

/* Of codes that are scanned and others that are compared again. */
static bool is_staged(const char *kind)
{
    return strstr(kind, "Refine") != NULL;
}

bool retrieval_faiss_suits(const char *kind, size_t count, size_t dim)
{
    char wanted[RETRIEVAL_KIND_MAX];
    retrieval_faiss_kind(count, dim, wanted);
    return is_staged(kind) && is_staged(wanted) && lists_of(wanted) <= 2 * lists_of(kind) &&
           lists_of(kind) <= 2 * lists_of(wanted);
}

size_t retrieval_faiss_sample(const char *kind)
{
    return TRAIN_LIST * lists_of(kind);
}

/* FAISS numbers what an index of two stages holds from 0 on: a map keeps our ids. Takes index. */
static base_status map_ids(FaissIndex *index, FaissIndex **out, base_error *err)
{
    FaissIndexIDMap *map = NULL;
    int code = faiss_IndexIDMap_new(&map, index);
    if (code != 0) {
        base_status status = translate(err, code, "map of ids");
        faiss_Index_free(index);
        return status;
    }
    faiss_IndexIDMap_set_own_fields(map, 1);
    *out = map;
    return BASE_OK;
}

/* Takes index. */
static base_status wrap(FaissIndex *index, const char *kind, size_t dim, retrieval_faiss **out,
                        base_error *err)
{
    retrieval_faiss *r = base_calloc(1, sizeof *r);
    if (!r) {
        faiss_Index_free(index);
        return base_fail(err, BASE_NO_MEMORY, "no memory for an index handle");
    }
    *r = (retrieval_faiss){
        .index = index, .dim = dim, .lists = lists_of(kind), .staged = is_staged(kind)};
    *out = r;
    return BASE_OK;
}

/* Product codes are trained by 96 x 25 steps of a few dozen microseconds (2,560 points or more, 16
 * centroids of 4 dimensions), and OpenMP's barriers between them spin: 9,588 vectors took 0.5 s of
 * CPU on one thread and 4.2 s on two of a machine that others used, too (`age` without an index,
 * load 6, November 2026). Of many lists the lists' own training takes longest, and is parallel. */
static int train(FaissIndex *index, size_t lists, const float *sample, size_t count)
{
    int threads = omp_get_max_threads(); /* of this thread: nobody else's change */
    if (lists <= LISTS_ALONE_MAX) {
        omp_set_num_threads(1);
    }
    int code = faiss_Index_train(index, (idx_t)count, sample);
    omp_set_num_threads(threads);
    return code;
}

base_status retrieval_faiss_create(const char *kind, size_t dim, const float *sample, size_t count,
                                   retrieval_faiss **out, base_error *err)
{
    FaissIndex *index = NULL;
    base_status status = BASE_OK;
    int code = faiss_index_factory(&index, (int)dim, kind, METRIC_INNER_PRODUCT);
    if (code != 0) {
        status = translate(err, code, kind);
        return status == BASE_NO_MEMORY
                   ? status
                   : base_fail(err, BASE_INVALID, "FAISS: no index \"%s\"", kind);
    }
    if (is_staged(kind) && (status = map_ids(index, &index, err))) {
        return status;
    }
    if (!faiss_Index_is_trained(index) &&
        (code = train(index, lists_of(kind), sample, count)) != 0) {
        status = translate(err, code, "train");
        faiss_Index_free(index);
        return status;
    }
    return wrap(index, kind, dim, out, err);
}

/* As many lists are looked at as hold about SCANNED vectors of this segment. */
static base_status set_probes(const retrieval_faiss *r, base_error *err)
{
    size_t held = retrieval_faiss_count(r), scanned = r->staged ? SCANNED : SCANNED_SLOW;
    size_t probes = held > scanned ? (r->lists * scanned + held - 1) / held : r->lists;
    probes = probes < PROBES_MAX ? probes : PROBES_MAX;
    char settings[64];
    FaissParameterSpace *space = NULL;
    if (r->lists == 0) {
        return BASE_OK;
    }
    snprintf(settings, sizeof settings, "nprobe=%zu%s", probes,
             r->staged ? ",k_factor_rf=" REFINE_TEXT : "");
    int code = faiss_ParameterSpace_new(&space);
    if (code == 0) {
        code = faiss_ParameterSpace_set_index_parameters(space, r->index, settings);
    }
    base_status status = code == 0 ? BASE_OK : translate(err, code, settings);
    faiss_ParameterSpace_free(space);
    return status;
}

base_status retrieval_faiss_add(retrieval_faiss *r, const uint64_t *ids, const float *vectors,
                                size_t count, base_error *err)
{
    _Static_assert(sizeof(idx_t) == sizeof(uint64_t), "ids go to FAISS as they are");
    int code =
        faiss_Index_add_with_ids(r->index, (idx_t)count, vectors, (const idx_t *)(const void *)ids);
    return code == 0 ? set_probes(r, err) : translate(err, code, "add");
}

base_status retrieval_faiss_write(const retrieval_faiss *r, const char *path, base_error *err)
{
    FILE *file = NULL;
    base_status status = retrieval_file_create(path, &file, err);
    if (status != BASE_OK) {
        return status;
    }
    errno = 0;
    int code = faiss_write_index(r->index, file);
    if (code != 0) {
        int system_errno = errno;
        status = system_errno == ENOSPC || system_errno == EDQUOT || system_errno == EIO
                     ? base_fail_errno(err, system_errno, "cannot write %s", path)
                     : translate(err, code, path);
    }
    return retrieval_file_finish(file, path, status, err);
}

base_status retrieval_faiss_read(const char *kind, const void *data, size_t size, size_t dim,
                                 retrieval_faiss **out, base_error *err)
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
    retrieval_faiss *r = NULL;
    base_status status = wrap(index, kind, dim, &r, err);
    if (status == BASE_OK && (status = set_probes(r, err))) {
        retrieval_faiss_free(r);
        return status;
    }
    if (status == BASE_OK) {
        *out = r;
    }
    return status;
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
    /* Of few results six times as many would be too few to be compared again. */
    size_t asked = wanted > ASKED_MIN ? wanted : held < ASKED_MIN ? held : ASKED_MIN;
    idx_t *labels = base_alloc(asked * sizeof *labels);
    float *scores = base_alloc(asked * sizeof *scores);
    base_status status = BASE_OK;
    if (!labels || !scores) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu results", wanted);
        goto done;
    }
    int code = search_alone(r->index, query, asked, scores, labels);
    if (code != 0) {
        status = translate(err, code, "search");
        goto done;
    }
    for (size_t i = 0; i < asked && *count < wanted; i++) {
        if (labels[i] >= 0 && isfinite(scores[i])) {
            out[(*count)++] = (retrieval_near){(uint64_t)labels[i], scores[i]};
        }
    }
done:
    base_free(labels);
    base_free(scores);
    return status;
}

/* The ids that the index holds, ascending, in FAISS's memory. false: a kind without a map of them.
 */
static bool borrow_ids(const retrieval_faiss *r, const idx_t **ids, size_t *count)
{
    FaissIndexIDMap *map = faiss_IndexIDMap_cast(r->index); /* IDMap2 is one, too */
    idx_t *held = NULL;
    if (map) {
        faiss_IndexIDMap_id_map(map, &held, count);
        *ids = held;
    }
    return map != NULL;
}

/* Where an id stands among ids (ascending); -1: nowhere. */
static idx_t find_id(const idx_t *ids, size_t count, uint64_t id)
{
    size_t low = 0;
    for (size_t high = count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if ((uint64_t)ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && (uint64_t)ids[low] == id ? (idx_t)low : -1;
}

bool retrieval_faiss_holds(const retrieval_faiss *r, uint64_t id)
{
    const idx_t *ids = NULL;
    size_t count = 0;
    return !borrow_ids(r, &ids, &count) || find_id(ids, count, id) >= 0;
}

bool retrieval_faiss_get(const retrieval_faiss *r, uint64_t id, float *vector)
{
    const idx_t *ids = NULL;
    size_t count = 0;
    idx_t place = borrow_ids(r, &ids, &count) ? find_id(ids, count, id) : -1;
    return place >= 0 &&
           faiss_Index_reconstruct(faiss_IndexIDMap_sub_index(faiss_IndexIDMap_cast(r->index)),
                                   place, vector) == 0;
}

/* What is compressed is compared by cosine: values beyond those trained on are cut to them. */
static bool is_near(const float *stored, const float *vector, size_t dim)
{
    float length = sqrtf(retrieval_dot(stored, stored, dim) * retrieval_dot(vector, vector, dim));
    return retrieval_dot(stored, vector, dim) > 0.98f * length;
}

/* In an inverted file alone an episode's own vector must find it. */
base_status retrieval_faiss_check(const retrieval_faiss *r, uint64_t id, const float *vector,
                                  bool *agrees, base_error *err)
{
    *agrees = false;
    if (faiss_IndexIVF_cast(r->index)) {
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
    if (retrieval_faiss_get(r, id, stored)) {
        *agrees = r->staged ? is_near(stored, vector, r->dim)
                            : memcmp(stored, vector, r->dim * sizeof *stored) == 0;
    }
    base_free(stored);
    return BASE_OK;
}
