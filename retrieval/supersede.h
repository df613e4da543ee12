/* retrieval/supersede.h: supersession across documents (semantics §3): which episodes say another
 * value for what an earlier one says, and closing these.
 *
 * Candidates of an episode are its nearest vectors and the episodes that hold its names (text
 * search); slot.h decides. Where two frames differ in wording they are encoded, entity and value
 * masked, and must mean the same, statements and values being compared, too; of several earlier
 * statements about one entity only those that agree (nearly) best with the newer one are closed,
 * and only where no other newer one agrees clearly better with them.
 *
 * Incremental: an episode is compared once, when it is new, with all that are there; who is older
 * is closed by who is newer, whichever came in first. Resumable: the closings of a batch and how
 * far the comparison has come are one commit.
 */
#ifndef RETRIEVAL_SUPERSEDE_H
#define RETRIEVAL_SUPERSEDE_H

#include <stdatomic.h>

#include "base/thread.h"
#include "retrieval/retrieval.h"

/* vectors [count, dim] unit length of count texts. */
typedef base_status retrieval_encode(void *argument, const char *const *texts, const size_t *sizes,
                                     size_t count, float *vectors, base_error *err);

/* How far a call may go; all zero: to the end. */
typedef struct retrieval_supersede_limits {
    uint64_t episodes_max; /* compare at most so many now; 0 = all */
    /* NULL, or: end soon (within one comparison of two episodes) when another thread sets it. What
     * was settled until then is committed, the rest is left. */
    const atomic_bool *stop;
    bool only_if_free; /* BASE_BUSY at once while another process writes, instead of waiting */
} retrieval_supersede_limits;

typedef struct retrieval_supersede_options {
    int64_t now_us;           /* clock of the commits */
    retrieval_encode *encode; /* NULL: statements in other words are left open */
    void *argument;
    /* Reads and compares words; encode is called by the caller's thread alone, between its loops.
     * NULL: the caller does it all. The closings are the same whatever the thread count. */
    base_pool *pool;
    retrieval_supersede_limits limits;
} retrieval_supersede_options;

typedef struct retrieval_supersede_receipt {
    uint64_t compared; /* episodes compared by this call */
    uint64_t closed;   /* closings written: new ones, and ones moved to an earlier time */
    uint64_t left;     /* episodes that are still to be compared */
} retrieval_supersede_receipt;

/* Compare the episodes that were not yet compared. The index is brought up to date first. Errors:
 * those of reading and writing the store, encode's own; what was committed stays. */
base_status retrieval_supersede(retrieval *r, const retrieval_supersede_options *options,
                                retrieval_supersede_receipt *receipt, base_error *err);

#endif
