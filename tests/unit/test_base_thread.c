/* The worker pool: every item once, whatever the counts; workers that spin, sleep, and outnumber
 * the cores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/thread.h"

#define ITEMS_MAX 1100

typedef struct loop {
    size_t grain, count, threads;
    unsigned char seen[ITEMS_MAX]; /* not atomic: the pool itself must order the accesses */
    atomic_size_t calls, bad;
} loop;

static void mark(void *argument, size_t begin, size_t end, size_t thread_index)
{
    loop *l = argument;
    atomic_fetch_add(&l->calls, 1);
    if (begin >= end || end > l->count || begin % l->grain != 0 || thread_index >= l->threads ||
        (end != l->count && end % l->grain != 0) || (begin == 0) != (thread_index == 0)) {
        atomic_fetch_add(&l->bad, 1);
    }
    for (size_t i = begin; i < end; i++) {
        l->seen[i]++;
    }
}

static void run_once(base_pool *pool, size_t count, size_t grain)
{
    loop l = {.grain = grain, .count = count, .threads = base_pool_threads(pool)};
    base_pool_run(pool, count, grain, mark, &l);
    assert_int_equal(l.bad, 0);
    assert_true(l.calls <= base_pool_threads(pool));
    for (size_t i = 0; i < ITEMS_MAX; i++) {
        assert_int_equal(l.seen[i], i < count);
    }
}

/* Goal: the ranges are a partition in multiples of grain, range 0 with the caller. Method: many
 * counts, grains, pools. */
static void test_pool_runs_every_item_exactly_once(void **state)
{
    (void)state;
    const size_t threads[] = {1, 2, 3, 8}, counts[] = {0, 1, 2, 3, 5, 7, 16, 64, 1001},
                 grains[] = {1, 2, 3, 16, 2000};
    for (size_t t = 0; t < 4; t++) {
        base_pool *pool;
        base_error err;
        assert_int_equal(base_pool_create(threads[t], &pool, &err), BASE_OK);
        assert_int_equal(base_pool_threads(pool), threads[t]);
        for (size_t c = 0; c < 9; c++) {
            for (size_t g = 0; g < 5; g++) {
                run_once(pool, counts[c], grains[g]);
            }
        }
        base_pool_free(pool);
    }
}

/* Goal: no pool means this thread. Method: NULL. */
static void test_pool_null_runs_in_the_caller(void **state)
{
    (void)state;
    assert_int_equal(base_pool_threads(NULL), 1);
    run_once(NULL, 100, 7);
    base_pool_free(NULL);
}

/* Goal: no hand-over is lost between spinning and sleeping. Method: thousands of loops with pauses
 * of growing length between them, so that workers are caught awake, asleep and on the way (a lost
 * wake-up hangs the test). */
static void test_pool_wakes_workers_that_sleep(void **state)
{
    (void)state;
    base_pool *pool;
    assert_int_equal(base_pool_create(3, &pool, NULL), BASE_OK);
    for (long round = 0; round < 3000; round++) {
        run_once(pool, 3, 1);
        if (round % 10 == 0) {
            struct timespec pause = {0, round * 50};
            nanosleep(&pause, NULL);
        }
    }
    base_pool_free(pool);
}

/* Goal: each loop sees what the loop before wrote. Method: 2,000 rounds of neighbour sums against
 * one thread; bits equal. */
static void step(void *argument, size_t begin, size_t end, size_t thread_index)
{
    (void)thread_index;
    uint32_t(*rows)[97] = argument;
    for (size_t i = begin; i < end; i++) {
        rows[1][i] = rows[0][i] * 3 + rows[0][(i + 41) % 97];
    }
}

static void iterate(base_pool *pool, uint32_t rows[2][97])
{
    for (uint32_t i = 0; i < 97; i++) {
        rows[0][i] = i;
    }
    for (int round = 0; round < 2000; round++) {
        base_pool_run(pool, 97, 1, step, rows);
        memcpy(rows[0], rows[1], sizeof rows[0]);
    }
}

static void test_pool_orders_memory_between_loops(void **state)
{
    (void)state;
    static uint32_t alone[2][97], shared[2][97];
    base_pool *pool;
    assert_int_equal(base_pool_create(4, &pool, NULL), BASE_OK);
    iterate(NULL, alone);
    iterate(pool, shared);
    assert_memory_equal(alone, shared, sizeof alone);
    base_pool_free(pool);
}

/* Goal: creation fails cleanly. Method: each allocation in turn; too many threads. */
static void test_pool_create_reports_failures(void **state)
{
    (void)state;
    base_pool *pool = NULL;
    base_error err;
    for (size_t n = 1; n <= 2; n++) {
        base_mem_fail_at(n);
        assert_int_equal(base_pool_create(2, &pool, &err), BASE_NO_MEMORY);
        base_mem_fail_at(0);
    }
    assert_int_equal(base_pool_create(100000, &pool, &err), BASE_INVALID);
    assert_null(pool);
    assert_int_equal(base_pool_create(0, &pool, &err), BASE_OK);
    assert_int_equal(base_pool_threads(pool), base_core_count());
    base_pool_free(pool);
}

/* Goal: names of instruction sets are read back; other text is refused. Method: all of them. */
static void test_isa_names_parse_back(void **state)
{
    (void)state;
    for (int i = 0; i < BASE_ISA_COUNT; i++) {
        base_isa isa = BASE_ISA_COUNT;
        assert_true(base_isa_parse(base_isa_name((base_isa)i), &isa));
        assert_int_equal(isa, i);
    }
    base_isa isa = BASE_ISA_AVX2;
    assert_false(base_isa_parse("avx", &isa));
    assert_false(base_isa_parse("", &isa));
    assert_false(base_isa_parse(NULL, &isa));
    assert_int_equal(isa, BASE_ISA_AVX2);
    assert_true(base_isa_detect() < BASE_ISA_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_runs_every_item_exactly_once),
        cmocka_unit_test(test_pool_null_runs_in_the_caller),
        cmocka_unit_test(test_pool_wakes_workers_that_sleep),
        cmocka_unit_test(test_pool_orders_memory_between_loops),
        cmocka_unit_test(test_pool_create_reports_failures),
        cmocka_unit_test(test_isa_names_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
