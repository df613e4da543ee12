/* The allocator's hooks, checked sizes, and the capped buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

/* Goal: the n-th allocation fails, once, of whatever kind; others succeed and are counted. */
static void test_base_mem_fails_the_nth_allocation(void **state)
{
    (void)state;
    size_t before = base_mem_count();
    base_mem_fail_at(2);
    void *a = base_alloc(8), *b = base_alloc(8), *c = base_alloc(8);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    base_mem_fail_at(1);
    assert_null(base_strdup("x"));
    base_mem_fail_at(1);
    assert_null(base_alloc_aligned(8));
    base_mem_fail_at(1);
    assert_null(base_realloc(a, 16)); /* a is still ours */
    base_mem_fail_at(1);
    base_mem_fail_at(0);
    void *d = base_calloc(2, 4);
    assert_non_null(d);
    assert_int_equal(base_mem_count() - before, 7);
    base_free(a);
    base_free(c);
    base_free(d);
    base_free(NULL);
}

/* Goal: size 0 gives pointers of their own; a product that overflows gives none. */
static void test_base_mem_edges(void **state)
{
    (void)state;
    void *a = base_alloc(0), *b = base_calloc(0, 8);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    base_free(a);
    base_free(b);
    assert_null(base_calloc(SIZE_MAX / 2, 3));
    size_t out = 7;
    assert_false(base_size_mul(SIZE_MAX, 2, &out));
    assert_false(base_size_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 7);
    assert_true(base_size_mul(SIZE_MAX, 0, &out));
    assert_int_equal(out, 0);
    assert_true(base_size_mul(SIZE_MAX / 3, 3, &out));
    assert_true(base_size_add(SIZE_MAX - 1, 1, &out));
    assert_int_equal(out, SIZE_MAX);
}

/* Goal: aligned blocks are aligned, zeroed, writable to their last byte, at odd sizes too. */
static void test_base_mem_aligned_blocks(void **state)
{
    (void)state;
    for (size_t size = 0; size < 300; size += 7) {
        unsigned char *p = base_alloc_aligned(size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xFF, size);
        base_free_aligned(p);
    }
    base_free_aligned(NULL);
    assert_null(base_alloc_aligned(SIZE_MAX - 8));
}

/* Goal: so are large ones, which lie in regions together or alone, whatever is given back first;
 * none overlaps another, and the hook fails them, too. */
static void test_base_mem_large_blocks(void **state)
{
    (void)state;
    enum { KIB = 1024, BLOCKS = 24 };
    const size_t sizes[BLOCKS] = {64 * KIB,       64 * KIB + 1,   3000 * KIB,
                                  15 * KIB * KIB, 20 * KIB * KIB, 40 * KIB * KIB};
    unsigned char *blocks[BLOCKS];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            size_t size = sizes[i % 6];
            blocks[i] = base_alloc_aligned(size);
            assert_non_null(blocks[i]);
            assert_int_equal((uintptr_t)blocks[i] % 64, 0);
            assert_true(blocks[i][0] == 0 && blocks[i][size / 2] == 0 && blocks[i][size - 1] == 0);
            memset(blocks[i], (int)(i + 1), 4096);
            memset(blocks[i] + size - 4096, (int)(i + 1), 4096);
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            size_t at = round ? BLOCKS - 1 - i : i * 7 % BLOCKS, size = sizes[at % 6];
            for (size_t k = 0; k < 4096; k++) {
                assert_int_equal(blocks[at][k], at + 1);
                assert_int_equal(blocks[at][size - 1 - k], at + 1);
            }
            base_free_aligned(blocks[at]);
        }
    }
    base_mem_fail_at(1);
    assert_null(base_alloc_aligned(64 * KIB));
    base_mem_fail_at(0);
    assert_null(base_alloc_aligned(SIZE_MAX / 2));
}

/* Goal: a buffer grows, stays NUL-terminated, and is unchanged when its cap refuses. */
static void test_base_buffer_stops_at_its_cap(void **state)
{
    (void)state;
    base_buffer b = {.size_max = 10};
    assert_int_equal(base_buffer_append(&b, "12345", 5), BASE_OK);
    assert_int_equal(base_buffer_append_text(&b, "678"), BASE_OK);
    assert_int_equal(base_buffer_append(&b, "9ab", 3), BASE_LIMIT);
    assert_string_equal(b.data, "12345678");
    assert_int_equal(base_buffer_printf(&b, "%d", 123), BASE_LIMIT);
    assert_int_equal(base_buffer_printf(&b, "%d", 12), BASE_OK);
    assert_string_equal(b.data, "1234567812");
    assert_int_equal(b.size, 10);
    base_buffer_clear(&b);
    assert_string_equal(b.data, "");
    base_buffer_free(&b);
    assert_null(b.data);
    base_buffer_free(&b);
}

/* Goal: out of memory leaves the buffer as it was. */
static void test_base_buffer_survives_lack_of_memory(void **state)
{
    (void)state;
    base_buffer b = {0};
    char block[1000];
    memset(block, 'x', sizeof block);
    assert_int_equal(base_buffer_append(&b, "start", 5), BASE_OK);
    base_mem_fail_at(1);
    assert_int_equal(base_buffer_append(&b, block, sizeof block), BASE_NO_MEMORY);
    assert_string_equal(b.data, "start");
    base_mem_fail_at(1);
    assert_int_equal(base_buffer_printf(&b, "%.900s", "y"),
                     BASE_OK); /* fits: nothing to allocate */
    base_mem_fail_at(0);
    assert_string_equal(b.data, "starty");
    base_buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_mem_fails_the_nth_allocation),
        cmocka_unit_test(test_base_mem_edges),
        cmocka_unit_test(test_base_mem_aligned_blocks),
        cmocka_unit_test(test_base_mem_large_blocks),
        cmocka_unit_test(test_base_buffer_stops_at_its_cap),
        cmocka_unit_test(test_base_buffer_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
