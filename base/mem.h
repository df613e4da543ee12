/* base/mem.h: the project's allocator, growable buffers with a cap, checked size arithmetic.
 *
 * All heap memory of the project passes through here, so that tests can fail the n-th allocation
 * and count what decode allocates (it must be nothing).
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Allocate; NULL when out of memory. Size 0 gives a unique pointer. base_free accepts NULL. */
void *base_alloc(size_t size);
void *base_calloc(size_t count, size_t size); /* checked multiply */
void *base_realloc(void *pointer, size_t size);
void base_free(void *pointer);
char *base_strdup(const char *text);
char *base_strndup(const char *text, size_t length);

/* 64-byte aligned, zeroed; released by base_free_aligned. Large blocks are backed lazily by the
 * kernel, where it can with huge pages (region.h). */
void *base_alloc_aligned(size_t size);
void base_free_aligned(void *pointer);

/* Test hooks. fail_at: the n-th allocation from now (1 = next) fails; 0 switches that off. */
void base_mem_fail_at(size_t nth);
size_t base_mem_count(void); /* allocations made so far in this process, all threads */

/* product = a * b (sum = a + b); false on overflow, product unwritten. */
bool base_size_mul(size_t a, size_t b, size_t *product);
bool base_size_add(size_t a, size_t b, size_t *sum);

/* Growable byte buffer with a mandatory cap. data[size] is always NUL once something was appended.
 * */
typedef struct base_buffer {
    char *data;
    size_t size;
    size_t capacity;
    size_t size_max; /* 0 means the default of 1 GiB */
} base_buffer;

/* Errors: BASE_NO_MEMORY, BASE_LIMIT (cap reached); the buffer is unchanged then. */
base_status base_buffer_append(base_buffer *buffer, const void *data, size_t size);
base_status base_buffer_append_text(base_buffer *buffer, const char *text);
base_status base_buffer_printf(base_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void base_buffer_clear(base_buffer *buffer); /* keeps the memory */
void base_buffer_free(base_buffer *buffer);

#endif
