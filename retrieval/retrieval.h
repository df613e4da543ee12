/* retrieval/retrieval.h: query vector + text + time -> ranked episodes. Model-blind: vectors in,
 * ids out.
 *
 * score = strength^a * ( w_sim * cosine + w_bm25 * bm25/(bm25 + c) + w_time * time +
 *                      w_num * numbers ), weights calibrated by a kept script (see
 * retrieval/rank.h). time rewards episodes whose text, validity or observed_at agrees with the
 * years and intervals that the question (or --about) names: the largest single gain in the splice
 * study (§4); numbers those that hold the other figures it names. The vector index is FAISS through
 * its C API: immutable checksummed segments in <store>/index/ plus a flat tail read from the
 * store's records; it is derived, carries the last commit id, catches up on open and can be
 * deleted.
 */
#ifndef RETRIEVAL_RETRIEVAL_H
#define RETRIEVAL_RETRIEVAL_H

#include "base/cpu.h"
#include "store/store.h"

typedef struct retrieval retrieval;

/* Below this relevance (eval/calibrate_abstain.md: how it was calibrated) what was found does not
 * answer the question: an asker abstains. */
#define RETRIEVAL_SCORE_ANSWERABLE 0.35f

/* Can a processor with these instructions run the FAISS that this program was linked with? Errors:
 * BASE_UNSUPPORTED, saying what to do; nothing else here may be called then. */
base_status retrieval_usable(base_isa isa, base_error *err);

/* s stays owned by the caller and must outlive the handle. dim: the encoder's vector size. Catches
 * up with the store. A damaged or foreign index folder is rebuilt (logged), never an error. */
base_status retrieval_open(store *s, size_t dim, retrieval **out, base_error *err);
void retrieval_close(retrieval *r);

/* Take in commits made since (also forgets). Cheap when there are none. */
base_status retrieval_sync(retrieval *r, base_error *err);
/* Write the flat tail into a new immutable segment if it is large enough (or force), merge small
 * segments. After ingest and in `age`. */
base_status retrieval_flush(retrieval *r, bool force, base_error *err);

/* What the parts of one search took, in milliseconds. */
typedef struct retrieval_span {
    double near_ms; /* nearest vectors */
    double text_ms; /* BM25 */
    double rank_ms; /* all else: records read, scores, order */
} retrieval_span;
typedef struct retrieval_spans {
    retrieval_span wall, cpu; /* cpu: of the thread, what others took of the machine left out */
} retrieval_spans;

typedef struct retrieval_query {
    const char *text; /* for BM25 and the dates in it; text_size 0 = vectors only */
    size_t text_size;
    const float *vector; /* [dim] unit length; NULL = BM25 only */
    int64_t now_us;      /* clock */
    /* cut: observed_at > as_of does not exist; also valid_from/valid_to when given */
    int64_t as_of_us;
    int64_t about_us; /* adds this time to the time term, cuts nothing; BASE_TIME_NONE = off */
    size_t k;         /* wanted results, <= 256 */
    /* false: arms `static` and `prompt`: no decay, no supersession; the as-of cut stays */
    bool use_strength;
    bool use_time; /* false: ablation without the time term */
    bool use_bm25; /* false: ablation */
    /* Leave out what a user once asked in the words of this query: it answers nothing. */
    bool skip_repeats;
    retrieval_spans *spans; /* NULL, or what is measured of this search */
} retrieval_query;

typedef struct retrieval_hit {
    uint64_t id;
    float score;
    float relevance;  /* score before ageing, unless superseded: kept however weak it is */
    float similarity; /* cosine */
    float bm25;       /* raw BM25 >= 0 */
    float time;       /* time term 0..1 */
    float strength;   /* 0..1, computed also when not used */
    bool asks;        /* a question that a user asked: near to the same question, and no answer */
} retrieval_hit;

/* hits [k], best first; near-duplicates (same text, or an older version's copy of a hit) are
 * collapsed into the newest one known at as_of. Thread rule: one search at a time per handle. */
base_status retrieval_search(retrieval *r, const retrieval_query *query, retrieval_hit *hits,
                             size_t *count, base_error *err);

/* Check of the index against the store: problems are appended ("index/<file>", id, kind). */
base_status retrieval_verify(store *s, size_t dim, bool repair, store_verify_report *report,
                             base_error *err);

#endif
