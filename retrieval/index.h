/* retrieval/index.h: nearest vectors by inner product, in two forms. Internal to retrieval/.
 *
 * retrieval_flat   our own exact search over vectors in memory: the tail that no segment holds yet,
 * and the oracle and fallback of the other (index_flat.c) retrieval_faiss  one immutable segment
 * behind FAISS's C API (index_faiss.c, the only file that names FAISS)
 *
 * Vectors are [dim] f32 of unit length, so inner product = cosine. Ids are episode ids, unique.
 */
#ifndef RETRIEVAL_INDEX_H
#define RETRIEVAL_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

typedef struct retrieval_near {
    uint64_t id;
    float similarity;
} retrieval_near;

/* The best `wanted` of many, in room of that size: add each, then sort once, best first (ties: the
 * smaller id). *held starts at 0. */
void retrieval_best_add(retrieval_near *best, size_t *held, size_t wanted,
                        const retrieval_near *found);
void retrieval_best_sort(retrieval_near *best, size_t held);

/* --- exact search in memory ------------------------------------------------------------------ */

typedef struct retrieval_flat {
    size_t dim, count, capacity;
    uint64_t *ids;  /* [count] ascending */
    float *vectors; /* [count, dim] */
} retrieval_flat;

/* Append; id must be larger than all before. Errors: BASE_NO_MEMORY (unchanged). */
base_status retrieval_flat_add(retrieval_flat *flat, uint64_t id, const float *vector,
                               base_error *err);
/* Drop the given ids (ascending); unknown ones are ignored. */
void retrieval_flat_remove(retrieval_flat *flat, const uint64_t *ids, size_t count);
/* Vector of an id, borrowed until the next add or remove; NULL when not held. */
const float *retrieval_flat_get(const retrieval_flat *flat, uint64_t id);
/* The nearest at most `wanted` to query [dim], best first (ties: smaller id); out [wanted]. Returns
 * how many. */
size_t retrieval_flat_search(const retrieval_flat *flat, const float *query, size_t wanted,
                             retrieval_near *out);
void retrieval_flat_clear(retrieval_flat *flat);
void retrieval_flat_free(retrieval_flat *flat);

float retrieval_dot(const float *a, const float *b, size_t dim);

/* --- vectors in a byte a dimension (codes.c) -------------------------------------------------- */

typedef struct retrieval_codes {
    size_t dim, count, capacity;
    uint64_t *ids;     /* [count] ascending */
    uint8_t *codes;    /* [count, dim] */
    float *low, *step; /* [dim] value = low + code * step */
} retrieval_codes;

/* Make room for count more ids and codes. Errors: BASE_NO_MEMORY (unchanged). */
base_status retrieval_codes_reserve(retrieval_codes *codes, size_t count, base_error *err);
/* vector [dim] */
void retrieval_codes_get(const retrieval_codes *codes, size_t place, float *vector);
/* As retrieval_flat_search, among those at places [count], each below codes->count; dim is at most
 * STORE_VECTOR_DIM_MAX. */
size_t retrieval_codes_best(const retrieval_codes *codes, const float *query, const int64_t *places,
                            size_t count, size_t wanted, retrieval_near *out);
void retrieval_codes_free(retrieval_codes *codes);

/* --- one FAISS segment ----------------------------------------------------------------------- */

typedef struct retrieval_faiss retrieval_faiss;

/* The index_factory description that suits count vectors [dim] (measured; see index_faiss.c). */
#define RETRIEVAL_KIND_MAX 40
void retrieval_faiss_kind(size_t count, size_t dim, char kind[RETRIEVAL_KIND_MAX]);

/* How many vectors the kind is trained on at best; 0: it needs none. */
size_t retrieval_faiss_sample(const char *kind);
/* An empty index, trained on sample [count, dim], which is copied. Errors: BASE_INVALID (unknown
 * kind), BASE_NO_MEMORY, BASE_IO for what FAISS reports. */
base_status retrieval_faiss_create(const char *kind, size_t dim, const float *sample, size_t count,
                                   retrieval_faiss **out, base_error *err);
/* Add vectors [count, dim] (copied) under ids, which ascend and are above all that are held. Errors
 * as above; the index is then of no use. */
base_status retrieval_faiss_add(retrieval_faiss *index, const uint64_t *ids, const float *vectors,
                                size_t count, base_error *err);
/* Write into a file of mode 0600, created or cut, and fsync it. Errors: BASE_DISK_FULL,
 * BASE_PERMISSION, BASE_IO; what is left of the file is the caller's to remove. */
base_status retrieval_faiss_write(const retrieval_faiss *index, const char *path, base_error *err);
/* From bytes whose checksum the caller has verified; kind as it was built. Errors: BASE_CORRUPT
 * (not an index, other dim). */
base_status retrieval_faiss_read(const char *kind, const void *data, size_t size, size_t dim,
                                 retrieval_faiss **out, base_error *err);
void retrieval_faiss_free(retrieval_faiss *index);
size_t retrieval_faiss_count(const retrieval_faiss *index);
/* As retrieval_flat_search; approximate where the kind is. out [wanted]. */
base_status retrieval_faiss_search(const retrieval_faiss *index, const float *query, size_t wanted,
                                   retrieval_near *out, size_t *count, base_error *err);

/* From now on a search looks at fewer lists, where that finds most of the nearest all the same, or
 * again at all that it has time for, as at first. Not while another thread searches. */
void retrieval_faiss_set_quick(retrieval_faiss *index, bool quick);

/* Does the index hold this id with this vector? Exact for a flat kind, else nearly so. */
base_status retrieval_faiss_check(const retrieval_faiss *index, uint64_t id, const float *vector,
                                  bool *agrees, base_error *err);
/* Does it hold this id? A kind that cannot tell (an inverted file alone) says yes. O(log n). */
bool retrieval_faiss_holds(const retrieval_faiss *index, uint64_t id);
/* vector [dim]: as the index holds it, exact for a flat kind, else nearly so. false: not held, or a
 * kind that has none (an inverted file alone). */
bool retrieval_faiss_get(const retrieval_faiss *index, uint64_t id, float *vector);
/* Would as many vectors be well served by what this kind was trained on? */
bool retrieval_faiss_suits(const char *kind, size_t count, size_t dim);

/* --- a segment's file (segment_file.c) ------------------------------------------------------- */

/* A new file of mode 0600 (one that is there is cut), and its end: flush, fsync, close; status: how
 * writing went, an error of which is handed on. Errors name the path. */
base_status retrieval_file_create(const char *path, FILE **out, base_error *err);
base_status retrieval_file_finish(FILE *file, const char *path, base_status status,
                                  base_error *err);

typedef struct retrieval_stripped {
    uint64_t count, first_id, last_id; /* of what is left; count 0: nothing, and no file */
} retrieval_stripped;
/* Write a segment's bytes (checksum verified) to path without the ids gone [gone_count] (ascending;
 * unknown ones are ignored); all else stays bit for bit, nothing is encoded again. O(size).
 * BASE_UNSUPPORTED: not of two stages, the records must serve. On an error the file is the caller's
 * to remove. */
base_status retrieval_segment_strip(const void *data, size_t size, const uint64_t *gone,
                                    size_t gone_count, const char *path, retrieval_stripped *out,
                                    base_error *err);

#endif
