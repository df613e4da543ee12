/* base/thread.h: a fixed worker pool for data-parallel loops inside one model step.
 *
 * Workers spin briefly (a step has hundreds of short loops), then sleep on a futex-backed
 * condition. One loop at a time per pool; base_pool_run may not be called from inside a loop body.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <stddef.h>

#include "base/status.h"

typedef struct base_pool base_pool;

/* thread_count >= 1 counts the calling thread; 0 = all cores available to the process. 1 starts
 * none. */
base_status base_pool_create(size_t thread_count, base_pool **pool, base_error *err);
void base_pool_free(base_pool *pool);
size_t base_pool_threads(const base_pool *pool); /* pool NULL: 1 */

/* Cut [0, count) into at most one contiguous range a thread, each a multiple of `grain` (except the
 * last), and call body(argument, begin, end, thread_index) on each; returns when all are done. The
 * caller runs range 0 and every range whose thread has not begun by then: thread_index names the
 * range and is never in use twice at once. Which items fall together depends on the thread count:
 * results must not. pool NULL: runs here. */
typedef void base_pool_body(void *argument, size_t begin, size_t end, size_t thread_index);
void base_pool_run(base_pool *pool, size_t count, size_t grain, base_pool_body *body,
                   void *argument);

/* Cores this process may run on, at least 1. */
size_t base_core_count(void);

#endif
