/* retrieval/internal.h: the handle behind retrieval.h, shared by retrieval.c, segments.c and
 * search.c. */
#ifndef RETRIEVAL_INTERNAL_H
#define RETRIEVAL_INTERNAL_H

#include "retrieval/index.h"
#include "retrieval/manifest.h"
#include "retrieval/rank.h"
#include "retrieval/retrieval.h"

#define RETRIEVAL_PATH_MAX 4096

struct retrieval {
    store *s;
    size_t dim;
    char folder[RETRIEVAL_PATH_MAX]; /* <store>/index */
    retrieval_manifest manifest;     /* as on disk when it was last read or written */
    retrieval_faiss **segments;      /* [manifest.count], one for each entry */
    retrieval_flat tail;             /* episodes with an id > manifest.covered */
    uint64_t seen_id;                /* last id that was looked at */
    uint64_t commit;                 /* last commit taken in */
    uint32_t encoder;                /* sum of the name of the vectors' encoder, 0 = none yet */
    bool outdated;  /* the index on disk is of other vectors: a re-index ended before it was made */
    uint64_t *dead; /* forgotten, still in a segment; ascending */
    size_t dead_count;
    retrieval_weights weights; /* retrieval_weights_default; eval/ sets others to compare */
};

/* An episode on its way to becoming a hit. */
typedef struct retrieval_candidate {
    uint64_t id;
    float similarity, bm25, time, numbers, strength, score, relevance;
    bool has_similarity, asks;
    bool held_then; /* what held at the one past moment that the question is about */
    store_brief brief;
    store_episode episode; /* id 0: not read */
    retrieval_time_match match;
} retrieval_candidate;

typedef struct retrieval_candidates {
    retrieval_candidate *items;
    size_t count;
} retrieval_candidates;

/* The nearest `wanted` of all segments and the tail, best first, forgotten ones left out. *near:
 * base_free. */
base_status retrieval_nearest(const retrieval *r, const float *vector, size_t wanted,
                              retrieval_near **near, size_t *count, base_error *err);

/* All that is known at as_of and came near enough to be read, scored, best first, before twins are
 * ordered and copies collapsed. *out starts zeroed and is freed by the caller, also after an error.
 */
base_status retrieval_find_candidates(const retrieval *r, const retrieval_query *query,
                                      retrieval_candidates *out, base_error *err);
void retrieval_candidates_free(retrieval_candidates *candidates);

/* Load manifest and segments from disk into r, which holds none. BASE_NOT_FOUND: there are none.
 * Errors: BASE_CORRUPT, BASE_VERSION, BASE_NO_MEMORY, BASE_IO; r holds none then. */
base_status retrieval_segments_load(retrieval *r, base_error *err);
/* Forget what is loaded: segments, tail, marks. */
void retrieval_segments_drop(retrieval *r);
/* retrieval_flush's work; the store is writable and r is in sync. */
base_status retrieval_segments_flush(retrieval *r, bool force, base_error *err);
/* Remove files that an ended writer has left and no manifest names, unless another writes now. */
void retrieval_segments_tidy(const retrieval *r);
/* CRC-32C of a segment file. */
base_status retrieval_segment_crc(const char *folder, const char *file, uint32_t *crc,
                                  uint64_t *bytes, base_error *err);

bool retrieval_is_dead(const retrieval *r, uint64_t id);
/* The segment whose range an id lies in (it need not hold it); NULL: none's. */
const retrieval_faiss *retrieval_segment_of(const retrieval *r, uint64_t id);

#endif
