/* retrieval/index_faiss.c: an immutable segment of vectors behind FAISS's C API (the only file that
 * names FAISS).
 *
 * Segments are built by index_factory, searched, and written as FAISS's own file format. Of two
 * stages the first is FAISS's and the second ours (codes.c), with FAISS's codes. Nothing is removed
 * from one here: segment_file.c copies the file without what goes. FAISS throws C++ exceptions; its
 * C API turns them into codes, `translate` below turns those into ours.
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
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "retrieval/index.h"
#include "retrieval/retrieval.h"

/* Kinds. Small segments are exact and searched by our own pass (borrow_flat): 10,000 x 384 take it
 * 0.5 ms. The others are inverted files whose lists hold four bits for every four dimensions
 * (product codes, scanned 32 at a time: F. Andre et al., Cache locality is not enough, 2015); the
 * best are compared again by eight bits a dimension. Similarities are computed anew from the
 * record's own vector for what is ranked (search.c).
 *
 * Kinds compared, November 2026, with MiniLM vectors of the project's corpora (160,931 of them, a
 * million with jitter), queries: parts of texts, 96 results, one thread, AVX2; recall@10 among the
 * 96. FAISS's own second stage, four times as many compared again, a machine shared with others:
 *
 *       vectors   kind                      lists looked at   ms p50   recall@10
 *       160,931   IVF1024,SQ8                128               1.16      .942
 *       160,931   IVF2048,SQ8                192               1.00      .957
 *       160,931   IVF1024,PQ96x4fs,+SQ8      256               0.38      .969
 *       160,931   IVF1024,PQ128x4fs,+SQ8     256               0.46      .975
 *     1,000,000   4 x IVF1024,SQ8            128               2.1       .875
 *     1,000,000   IVF2048,PQ96x4fs,+SQ8      256               1.07      .960
 *     1,000,000   IVF4096,PQ96x4fs,+SQ8      256               1.11      .949
 *     1,000,000   PCA256,IVF2048,PQ64x4fs    256               1.11      .889
 *
 * How many lists, and how many are compared again: eval/bench.md has the table. The setting is the
 * cheapest there whose recall is above .955 on both stores of a million: SCANNED and, of 96, 768.
 * The times are of ./dev setup's library, in which what scans codes is compiled for AVX2. Where the
 * dimension has no such cut, lists hold eight bits a dimension, and fewer are looked at. */
#define FLAT_MAX 5000 /* FAISS wants 39 training vectors a list */
#define LISTS_MIN 64
#define LISTS_MAX 4096 /* training twice as many takes four times as long */
#define LIST_MAX 500   /* vectors a list, while more lists may be had */
#define PROBES_MAX 288
#define TRAIN_LIST 40       /* training vectors a list */
#define LISTS_ALONE_MAX 256 /* so many are trained on one thread: chosen */
#define SCANNED 106000      /* vectors of a segment in the lists that a search looks at */
#define SCANNED_SLOW 16000  /* the same of eight bits a dimension: 0.9 ms */
#define SCANNED_FEW 106     /* the same of a quick search, times the root of all vectors */
#define REFINE 4            /* times as many as are wanted are compared again */
#define REFINE_MORE 384     /* and so many more, as of few results four times as many are too few */
#define SECOND_STAGE ",Refine(SQ8)"
#define HEAD 37 /* bytes of a file's part */

struct retrieval_faiss {
    FaissIndex *index; /* of two stages: the first, which knows vectors by their places */
    size_t dim;
    size_t lists;          /* 0: no inverted file */
    FaissIndex *codec;     /* makes the second stage's codes, holds nothing; NULL: one stage */
    retrieval_codes codes; /* the second stage, by place */
    bool quick;
};

/* Bytes of a codec that holds nothing: head, range, statistic, dimensions, size of a code; two
 * numbers a dimension; no codes. */
static size_t codec_size(size_t dim)
{
    return HEAD + 28 + 8 + 2 * dim * sizeof(float) + 8;
}

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
    return strstr(kind, SECOND_STAGE) != NULL;
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

/* What index_factory is asked for; where there are two stages, each by itself: FAISS's own index of
 * two stages waits for memory at each vector of the second. */
static base_status make_index(const char *kind, size_t dim, FaissIndex **out, base_error *err)
{
    int code = faiss_index_factory(out, (int)dim, kind, METRIC_INNER_PRODUCT);
    base_status status = code == 0 ? BASE_OK : translate(err, code, kind);
    return status == BASE_OK || status == BASE_NO_MEMORY
               ? status
               : base_fail(err, BASE_INVALID, "FAISS: no index \"%s\"", kind);
}

static base_status make_stages(retrieval_faiss *r, const char *kind, base_error *err)
{
    char first[RETRIEVAL_KIND_MAX];
    snprintf(first, sizeof first, "%.*s", (int)(strstr(kind, SECOND_STAGE) - kind), kind);
    base_status status = make_index(first, r->dim, &r->index, err);
    return status == BASE_OK ? make_index("SQ8", r->dim, &r->codec, err) : status;
}

/* The handle of an index that is to be made or read. */
static base_status open_handle(const char *kind, size_t dim, retrieval_faiss **out, base_error *err)
{
    retrieval_faiss *r = base_calloc(1, sizeof *r);
    if (r) {
        *r = (retrieval_faiss){.dim = dim, .lists = lists_of(kind), .codes.dim = dim};
    }
    *out = r;
    return r ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for an index handle");
}

/* What the codec's codes stand for: it decodes the least and the greatest. */
static base_status learn_codes(retrieval_faiss *r, base_error *err)
{
    retrieval_codes *c = &r->codes;
    uint8_t *code = base_alloc(r->dim);
    c->low = base_alloc(r->dim * sizeof *c->low);
    c->step = base_alloc(r->dim * sizeof *c->step);
    base_status status = BASE_OK;
    if (!code || !c->low || !c->step) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu dimensions", r->dim);
    }
    float *const ends[] = {c->low, c->step};
    for (size_t i = 0; i < 2 && status == BASE_OK; i++) {
        memset(code, i == 0 ? 0 : UINT8_MAX, r->dim);
        int result = faiss_Index_sa_decode(r->codec, 1, code, ends[i]);
        status = result == 0 ? BASE_OK : translate(err, result, "decode");
    }
    for (size_t i = 0; i < r->dim && status == BASE_OK; i++) {
        c->step[i] = (c->step[i] - c->low[i]) / UINT8_MAX;
    }
    base_free(code);
    return status;
}

/* Product codes are trained by 96 x 25 steps of a few dozen microseconds (2,560 points or more, 16
 * centroids of 4 dimensions), and OpenMP's barriers between them spin: 9,588 vectors took 0.5 s of
 * CPU on one thread and 4.2 s on two of a machine that others used, too (`age` without an index,
 * load 6, November 2026). Of many lists the lists' own training takes longest, and is parallel. */
static base_status train(retrieval_faiss *r, const float *sample, size_t count, base_error *err)
{
    int threads = omp_get_max_threads(); /* of this thread: nobody else's change */
    if (r->lists <= LISTS_ALONE_MAX) {
        omp_set_num_threads(1);
    }
    int code = faiss_Index_train(r->index, (idx_t)count, sample);
    if (code == 0 && r->codec) {
        code = faiss_Index_train(r->codec, (idx_t)count, sample);
    }
    omp_set_num_threads(threads);
    base_status status = code == 0 ? BASE_OK : translate(err, code, "train");
    return status == BASE_OK && r->codec ? learn_codes(r, err) : status;
}

base_status retrieval_faiss_create(const char *kind, size_t dim, const float *sample, size_t count,
                                   retrieval_faiss **out, base_error *err)
{
    retrieval_faiss *r = NULL;
    base_status status = open_handle(kind, dim, &r, err);
    if (status == BASE_OK) {
        status =
            is_staged(kind) ? make_stages(r, kind, err) : make_index(kind, dim, &r->index, err);
    }
    if (status == BASE_OK && !faiss_Index_is_trained(r->index)) {
        status = train(r, sample, count, err);
    }
    if (status != BASE_OK) {
        retrieval_faiss_free(r);
        return status;
    }
    *out = r;
    return BASE_OK;
}

/* How many vectors a search looks at, of those held. A quick one of 74,766 real vectors finds .981
 * of the ten nearest (instead of .999), of 160,931 .977 (.996); of a million both look at as many.
 */
static size_t scanned_of(const retrieval_faiss *r, size_t held)
{
    size_t scanned = r->codec ? SCANNED : SCANNED_SLOW;
    size_t few = (size_t)(SCANNED_FEW * sqrt((double)held));
    return r->quick && few < scanned ? few : scanned;
}

/* So many lists are looked at. */
static void set_probes(const retrieval_faiss *r)
{
    size_t held = retrieval_faiss_count(r), scanned = scanned_of(r, held);
    size_t probes = held > scanned ? (r->lists * scanned + held - 1) / held : r->lists;
    if (r->lists > 0) {
        faiss_IndexIVF_set_nprobe(faiss_IndexIVF_cast(r->index),
                                  probes < PROBES_MAX ? probes : PROBES_MAX);
    }
}

void retrieval_faiss_set_quick(retrieval_faiss *r, bool quick)
{
    r->quick = quick;
    set_probes(r);
}

/* The second stage of vectors whose first stage has them. */
static base_status add_codes(retrieval_faiss *r, const uint64_t *ids, const float *vectors,
                             size_t count, base_error *err)
{
    retrieval_codes *c = &r->codes;
    int code = faiss_Index_sa_encode(r->codec, (idx_t)count, vectors, c->codes + c->count * r->dim);
    if (code != 0) {
        return translate(err, code, "encode");
    }
    memcpy(c->ids + c->count, ids, count * sizeof *ids);
    c->count += count;
    return BASE_OK;
}

base_status retrieval_faiss_add(retrieval_faiss *r, const uint64_t *ids, const float *vectors,
                                size_t count, base_error *err)
{
    _Static_assert(sizeof(idx_t) == sizeof(uint64_t), "ids go to FAISS as they are");
    base_status status = BASE_OK;
    int code = 0;
    if (!r->codec) {
        code = faiss_Index_add_with_ids(r->index, (idx_t)count, vectors,
                                        (const idx_t *)(const void *)ids);
    } else if ((status = retrieval_codes_reserve(&r->codes, count, err)) == BASE_OK) {
        code = faiss_Index_add(r->index, (idx_t)count, vectors);
    }
    if (code != 0) {
        status = translate(err, code, "add");
    }
    if (status == BASE_OK && r->codec) {
        status = add_codes(r, ids, vectors, count, err);
    }
    if (status == BASE_OK) {
        set_probes(r);
    }
    return status;
}

/* --- the file of two stages (segment_file.c has the layout) ----------------------------------- */

static bool put(FILE *file, const void *bytes, size_t size)
{
    return fwrite(bytes, 1, size, file) == size;
}

static bool put_u64(FILE *file, uint64_t value)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    return put(file, bytes, sizeof bytes);
}

static bool put_head(FILE *file, const char *letters, size_t dim, size_t count)
{
    uint8_t head[HEAD] = {0};
    memcpy(head, letters, 4);
    base_put_u32(head + 4, (uint32_t)dim);
    base_put_u64(head + 8, count);
    base_put_u64(head + 16, 1U << 20); /* as FAISS fills two fields that it does not use */
    base_put_u64(head + 24, 1U << 20);
    head[32] = 1;
    base_put_u32(head + 33, METRIC_INNER_PRODUCT);
    return put(file, head, sizeof head);
}

/* The codec as FAISS writes it, but with the codes. */
static bool put_codes(const retrieval_faiss *r, FILE *file, int *code)
{
    char *bytes = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&bytes, &size);
    *code = memory ? faiss_write_index(r->codec, memory) : 0;
    bool written = memory && fclose(memory) == 0 && *code == 0 && size == codec_size(r->dim);
    if (written) {
        base_put_u64((uint8_t *)bytes + 8, r->codes.count);
        written = put(file, bytes, size - 8) && put_u64(file, r->codes.count * r->dim) &&
                  put(file, r->codes.codes, r->codes.count * r->dim);
    }
    free(bytes);
    return written;
}

/* *code: FAISS's, 0 where the error is errno's. */
static bool put_stages(const retrieval_faiss *r, FILE *file, int *code)
{
    size_t count = r->codes.count;
    uint8_t factor[4];
    base_put_f32(factor, 1);
    return put_head(file, "IxMp", r->dim, count) && put_head(file, "IxRF", r->dim, count) &&
           (*code = faiss_write_index(r->index, file)) == 0 && put_codes(r, file, code) &&
           put(file, factor, sizeof factor) && put_u64(file, count) &&
           put(file, r->codes.ids, count * sizeof *r->codes.ids);
}

static base_status read_index(const uint8_t *data, size_t size, FaissIndex **out, size_t *used,
                              base_error *err)
{
    FILE *file = size > 0 ? fmemopen((void *)(uintptr_t)data, size, "rb") : NULL;
    if (!file) {
        return size > 0 ? base_fail(err, BASE_NO_MEMORY, "no memory to read an index")
                        : base_fail(err, BASE_CORRUPT, "an empty index file");
    }
    int code = faiss_read_index(file, 0, out);
    *used = code == 0 ? (size_t)ftell(file) : 0;
    fclose(file);
    base_status status = code == 0 ? BASE_OK : translate(err, code, "read");
    return status == BASE_OK || status == BASE_NO_MEMORY
               ? status
               : base_fail(err, BASE_CORRUPT, "not a FAISS index");
}

/* The codec, without the codes that follow it, of which there are count. */
static base_status read_codec(retrieval_faiss *r, const uint8_t *data, uint64_t count,
                              base_error *err)
{
    size_t size = codec_size(r->dim), used;
    uint8_t *bytes = base_alloc(size);
    if (!bytes) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to read an index");
    }
    memcpy(bytes, data, size);
    bool agrees = base_get_u64(bytes + 8) == count &&
                  base_get_u64(bytes + HEAD + 20) == r->dim && /* bytes of a code */
                  base_get_u64(bytes + size - 8) == count * r->dim;
    base_put_u64(bytes + 8, 0);
    base_put_u64(bytes + size - 8, 0);
    base_status status = agrees ? read_index(bytes, size, &r->codec, &used, err)
                                : base_fail(err, BASE_CORRUPT, "stages of different vectors");
    base_free(bytes);
    if (status == BASE_OK && (size_t)faiss_Index_d(r->codec) != r->dim) {
        status = base_fail(err, BASE_CORRUPT, "stages of different dimensions");
    }
    return status == BASE_OK ? learn_codes(r, err) : status;
}

static base_status read_stages(retrieval_faiss *r, const uint8_t *data, size_t size,
                               base_error *err)
{
    size_t begin = 2 * HEAD, used = 0, fixed = codec_size(r->dim) + 4 + 8;
    if (size < begin || memcmp(data, "IxMp", 4) != 0 || memcmp(data + HEAD, "IxRF", 4) != 0) {
        return base_fail(err, BASE_CORRUPT, "not an index of two stages");
    }
    base_status status = read_index(data + begin, size - begin, &r->index, &used, err);
    if (status != BASE_OK) {
        return status;
    }
    uint64_t count = (uint64_t)faiss_Index_ntotal(r->index);
    const uint8_t *codec = data + begin + used;
    size_t left = size - begin - used, each = r->dim + sizeof(uint64_t);
    if (left < fixed || (left - fixed) / each != count || (left - fixed) % each != 0 ||
        base_get_u64(data + size - 8 * count - 8) != count) {
        return base_fail(err, BASE_CORRUPT, "stages of different vectors");
    }
    if ((status = read_codec(r, codec, count, err)) ||
        (status = retrieval_codes_reserve(&r->codes, (size_t)count, err))) {
        return status;
    }
    memcpy(r->codes.codes, codec + codec_size(r->dim), (size_t)count * r->dim);
    memcpy(r->codes.ids, data + size - 8 * count, (size_t)count * sizeof *r->codes.ids);
    r->codes.count = (size_t)count;
    return BASE_OK;
}

/* --- files ------------------------------------------------------------------------------------ */

base_status retrieval_faiss_write(const retrieval_faiss *r, const char *path, base_error *err)
{
    FILE *file = NULL;
    base_status status = retrieval_file_create(path, &file, err);
    if (status != BASE_OK) {
        return status;
    }
    errno = 0;
    int code = 0;
    bool written =
        r->codec ? put_stages(r, file, &code) : (code = faiss_write_index(r->index, file)) == 0;
    if (!written) {
        int system_errno = errno;
        status =
            code == 0 || system_errno == ENOSPC || system_errno == EDQUOT || system_errno == EIO
                ? base_fail_errno(err, system_errno ? system_errno : EIO, "cannot write %s", path)
                : translate(err, code, path);
    }
    return retrieval_file_finish(file, path, status, err);
}

base_status retrieval_faiss_read(const char *kind, const void *data, size_t size, size_t dim,
                                 retrieval_faiss **out, base_error *err)
{
    retrieval_faiss *r = NULL;
    size_t used;
    base_status status = open_handle(kind, dim, &r, err);
    if (status == BASE_OK) {
        status = is_staged(kind) ? read_stages(r, data, size, err)
                                 : read_index(data, size, &r->index, &used, err);
    }
    if (status == BASE_OK && faiss_Index_d(r->index) != (int)dim) {
        status = base_fail(err, BASE_CORRUPT, "index of %d dimensions, wanted %zu",
                           faiss_Index_d(r->index), dim);
    }
    if (status != BASE_OK) {
        retrieval_faiss_free(r);
        return status;
    }
    set_probes(r);
    *out = r;
    return BASE_OK;
}

void retrieval_faiss_free(retrieval_faiss *r)
{
    if (r) {
        faiss_Index_free(r->index);
        faiss_Index_free(r->codec);
        retrieval_codes_free(&r->codes);
        base_free(r);
    }
}

size_t retrieval_faiss_count(const retrieval_faiss *r)
{
    return r->codec ? r->codes.count : (size_t)faiss_Index_ntotal(r->index);
}

/* --- search ----------------------------------------------------------------------------------- */

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
    size_t asked = r->codec ? REFINE * wanted + REFINE_MORE : wanted;
    asked = asked < held ? asked : held;
    idx_t *labels = base_alloc(asked * sizeof *labels);
    float *scores = base_alloc(asked * sizeof *scores);
    base_status status = BASE_OK;
    size_t found = 0;
    if (!labels || !scores) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu results", asked);
        goto done;
    }
    int code = search_alone(r->index, query, asked, scores, labels);
    if (code != 0) {
        status = translate(err, code, "search");
        goto done;
    }
    for (size_t i = 0; i < asked; i++) {
        if (labels[i] >= 0 && isfinite(scores[i])) {
            labels[found] = labels[i];
            scores[found++] = scores[i];
        }
    }
    if (r->codec) {
        *count = retrieval_codes_best(&r->codes, query, labels, found, wanted, out);
    } else {
        for (*count = 0; *count < found; ++*count) {
            out[*count] = (retrieval_near){(uint64_t)labels[*count], scores[*count]};
        }
    }
done:
    base_free(labels);
    base_free(scores);
    return status;
}

/* The ids that the index holds, ascending, borrowed. false: a kind without a map of them. */
static bool borrow_ids(const retrieval_faiss *r, const uint64_t **ids, size_t *count)
{
    retrieval_flat flat;
    if (r->codec) {
        *ids = r->codes.ids;
        *count = r->codes.count;
        return true;
    }
    if (!borrow_flat(r, &flat)) {
        return false;
    }
    *ids = flat.ids;
    *count = flat.count;
    return true;
}

/* Where an id stands among ids (ascending); count: nowhere. */
static size_t find_id(const uint64_t *ids, size_t count, uint64_t id)
{
    size_t low = 0;
    for (size_t high = count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && ids[low] == id ? low : count;
}

bool retrieval_faiss_holds(const retrieval_faiss *r, uint64_t id)
{
    const uint64_t *ids = NULL;
    size_t count = 0;
    return !borrow_ids(r, &ids, &count) || find_id(ids, count, id) < count;
}

bool retrieval_faiss_get(const retrieval_faiss *r, uint64_t id, float *vector)
{
    const uint64_t *ids = NULL;
    size_t count = 0, place = borrow_ids(r, &ids, &count) ? find_id(ids, count, id) : 0;
    retrieval_flat flat;
    if (place == count) {
        return false;
    }
    if (r->codec) {
        retrieval_codes_get(&r->codes, place, vector);
    } else if (borrow_flat(r, &flat)) {
        memcpy(vector, flat.vectors + place * r->dim, r->dim * sizeof *vector);
    }
    return true;
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
    if (!r->codec && r->lists > 0) {
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
        *agrees = r->codec ? is_near(stored, vector, r->dim)
                           : memcmp(stored, vector, r->dim * sizeof *stored) == 0;
    }
    base_free(stored);
    return BASE_OK;
}
