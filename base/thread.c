/* base/thread.c: worker pool. Each worker has its own mailbox (a cache line), so that a loop wakes
 * only the threads that get a range, and late readers never see the next loop's fields.
 *
 * Hand-over of one loop: the caller fills the mailbox, then raises `epoch` (release). Whoever moves
 * `claimed` from epoch - 1 to epoch runs the range: the worker when it sees the new epoch
 * (acquire), or the caller, once its own range is done and the worker has not begun (asleep, or
 * without a core on a busy machine). A worker that claimed owns the fields until it lowers
 * `pending` (release), which the caller waits for (acquire); the caller refills no mailbox before.
 * Sleep: a worker that has spun long enough sets `asleep` and looks at `epoch` once more under its
 * lock; the caller raises `epoch` and then looks at `asleep`. Both are sequentially consistent, so
 * at least one of them sees the other.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "base/mem.h"

/* Chosen: 2000 pauses are 30-90 us on current x86 (a pause is 40-140 cycles), longer than the
 * serial stretches between two loops of a decode step and short against a time slice. */
#define SPIN_MAX 2000
#define THREADS_MAX 1024

typedef struct worker {
    _Alignas(64) atomic_uint epoch; /* loops handed to this worker */
    atomic_uint claimed;            /* the last of them that somebody runs or ran */
    atomic_bool asleep;
    bool stop;
    base_pool_body *body;
    void *argument;
    size_t begin, end, index;
    base_pool *pool;
    pthread_t thread;
    pthread_mutex_t lock; /* guards only the sleep */
    pthread_cond_t wake;
} worker;

struct base_pool {
    _Alignas(64) atomic_size_t pending; /* workers that still run a range of the current loop */
    size_t thread_count;
    unsigned spin_max;
    worker *workers; /* [thread_count - 1], thread index 1.. */
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

size_t base_core_count(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return (size_t)CPU_COUNT(&set);
    }
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (size_t)count : 1;
}

/* Wait until the epoch differs from `seen`: first spinning, then asleep. */
static void wait_for_work(worker *self, unsigned seen)
{
    for (unsigned i = 0; i < self->pool->spin_max; i++) {
        if (atomic_load_explicit(&self->epoch, memory_order_acquire) != seen) {
            return;
        }
        pause_cpu();
    }
    pthread_mutex_lock(&self->lock);
    atomic_store(&self->asleep, true);
    while (atomic_load(&self->epoch) == seen) {
        pthread_cond_wait(&self->wake, &self->lock);
    }
    atomic_store(&self->asleep, false);
    pthread_mutex_unlock(&self->lock);
}

/* Try to become the one who runs the loop of this epoch. */
static bool claim(worker *w, unsigned epoch)
{
    unsigned before = epoch - 1;
    return atomic_compare_exchange_strong_explicit(&w->claimed, &before, epoch,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static void run_range(worker *w)
{
    w->body(w->argument, w->begin, w->end, w->index);
    atomic_fetch_sub_explicit(&w->pool->pending, 1, memory_order_release);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    for (unsigned seen = 0;;) {
        wait_for_work(self, seen);
        seen = atomic_load_explicit(&self->epoch, memory_order_acquire);
        if (claim(self, seen)) {
            if (self->stop) {
                return NULL;
            }
            run_range(self);
        }
    }
}

static void hand_over(worker *w)
{
    atomic_fetch_add(&w->epoch, 1);
    if (atomic_load(&w->asleep)) {
        pthread_mutex_lock(&w->lock);
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
    }
}

/* Stop and release the first `count` workers. */
static void join_workers(base_pool *pool, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        worker *w = &pool->workers[i];
        w->stop = true;
        hand_over(w);
        pthread_join(w->thread, NULL);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
    }
}

static int start_worker(base_pool *pool, size_t i)
{
    worker *w = &pool->workers[i];
    atomic_init(&w->epoch, 0);
    atomic_init(&w->claimed, 0);
    atomic_init(&w->asleep, false);
    w->index = i + 1;
    w->pool = pool;
    int code = pthread_mutex_init(&w->lock, NULL);
    if (code != 0) {
        return code;
    }
    code = pthread_cond_init(&w->wake, NULL);
    if (code == 0) {
        code = pthread_create(&w->thread, NULL, worker_main, w);
        if (code != 0) {
            pthread_cond_destroy(&w->wake);
        }
    }
    if (code != 0) {
        pthread_mutex_destroy(&w->lock);
    }
    return code;
}

base_status base_pool_create(size_t thread_count, base_pool **out, base_error *err)
{
    size_t cores = base_core_count();
    if (thread_count == 0) {
        thread_count = cores;
    }
    if (thread_count > THREADS_MAX) {
        return base_fail(err, BASE_INVALID, "%zu threads asked for, at most %d", thread_count,
                         THREADS_MAX);
    }
    base_pool *pool = base_alloc_aligned(sizeof *pool);
    if (!pool) {
        return base_fail(err, BASE_NO_MEMORY, "thread pool");
    }
    atomic_init(&pool->pending, 0);
    pool->thread_count = thread_count;
    /* More threads than cores: whoever spins takes the core from whoever works. */
    pool->spin_max = thread_count > cores ? 0 : SPIN_MAX;
    if (thread_count > 1) {
        pool->workers = base_alloc_aligned((thread_count - 1) * sizeof *pool->workers);
        if (!pool->workers) {
            base_free_aligned(pool);
            return base_fail(err, BASE_NO_MEMORY, "thread pool of %zu", thread_count);
        }
    }
    for (size_t i = 0; i + 1 < thread_count; i++) {
        int code = start_worker(pool, i);
        if (code != 0) {
            join_workers(pool, i);
            base_free_aligned(pool->workers);
            base_free_aligned(pool);
            return base_fail_errno(err, code, "cannot start thread %zu of %zu", i + 2,
                                   thread_count);
        }
    }
    *out = pool;
    return BASE_OK;
}

void base_pool_free(base_pool *pool)
{
    if (!pool) {
        return;
    }
    join_workers(pool, pool->thread_count - 1);
    base_free_aligned(pool->workers);
    base_free_aligned(pool);
}

size_t base_pool_threads(const base_pool *pool)
{
    return pool ? pool->thread_count : 1;
}

void base_pool_run(base_pool *pool, size_t count, size_t grain, base_pool_body *body,
                   void *argument)
{
    if (count == 0) {
        return;
    }
    if (grain == 0) {
        grain = 1;
    }
    size_t units = count / grain + (count % grain != 0);
    size_t ranges = base_pool_threads(pool);
    if (ranges > units) {
        ranges = units;
    }
    if (ranges == 1) {
        body(argument, 0, count, 0);
        return;
    }
    BASE_ASSERT(atomic_load_explicit(&pool->pending, memory_order_relaxed) == 0);
    atomic_store_explicit(&pool->pending, ranges - 1, memory_order_relaxed);
    size_t per = units / ranges, extra = units % ranges; /* the first `extra` ranges get one more */
    size_t first_end = (per + (extra > 0)) * grain;
    size_t begin = first_end;
    for (size_t r = 1; r < ranges; r++) {
        worker *w = &pool->workers[r - 1];
        size_t end = begin + (per + (r < extra)) * grain;
        w->body = body;
        w->argument = argument;
        w->begin = begin;
        w->end = end < count ? end : count;
        hand_over(w);
        begin = end;
    }
    body(argument, 0, first_end, 0);
    for (size_t r = 1; r < ranges; r++) {
        worker *w = &pool->workers[r - 1];
        if (claim(w, atomic_load_explicit(&w->epoch, memory_order_relaxed))) {
            run_range(w);
        }
    }
    for (unsigned spins = 0; atomic_load_explicit(&pool->pending, memory_order_acquire) != 0;
         spins++) {
        if (spins < pool->spin_max) {
            pause_cpu();
        } else {
            sched_yield();
        }
    }
}
