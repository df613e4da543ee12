/* base/mem.c: the allocator hooks, checked sizes, and the capped buffer. Does no pooling: malloc
 * below is good enough, what matters here is that every allocation passes one place that can count
 * and fail it. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/region.h"

#define ALIGNMENT 64
#define BUFFER_SIZE_MAX ((size_t)1 << 30)
#define BUFFER_CAPACITY_MIN 64

static atomic_size_t allocation_count;
static atomic_size_t fail_countdown; /* 0 = off, 1 = the next one fails */

/* Count one allocation; true when the test hook wants it to fail. */
static bool count_and_fail(void)
{
    atomic_fetch_add_explicit(&allocation_count, 1, memory_order_relaxed);
    size_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) {
            return left == 1;
        }
    }
    return false;
}

void *base_alloc(size_t size)
{
    if (count_and_fail()) {
        return NULL;
    }
    return malloc(size ? size : 1);
}

void *base_calloc(size_t count, size_t size)
{
    size_t total;
    if (!base_size_mul(count, size, &total) || count_and_fail()) {
        return NULL;
    }
    return calloc(1, total ? total : 1);
}

void *base_realloc(void *pointer, size_t size)
{
    if (count_and_fail()) {
        return NULL;
    }
    return realloc(pointer, size ? size : 1);
}

void base_free(void *pointer)
{
    free(pointer);
}

char *base_strndup(const char *text, size_t length)
{
    size_t size;
    if (!base_size_add(length, 1, &size)) {
        return NULL;
    }
    char *copy = base_alloc(size);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *base_strdup(const char *text)
{
    return base_strndup(text, strlen(text));
}

/* Sanitizers watch what calloc gives. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REGION_MIN SIZE_MAX
#else
#define REGION_MIN ((size_t)64 << 10)
#endif

/* Before a block lies where it comes from: the pointer from calloc, NULL: a region. Layout of the
 * former: [slack][pointer][aligned block]; only the pointer is written here. */
void *base_alloc_aligned(size_t size)
{
    size_t total;
    if (size >= REGION_MIN) {
        return count_and_fail() ? NULL : base_region_take(size);
    }
    if (!base_size_add(size, ALIGNMENT + sizeof(void *), &total)) {
        return NULL;
    }
    char *raw = base_calloc(1, total);
    if (!raw) {
        return NULL;
    }
    uintptr_t address = (uintptr_t)raw + sizeof(void *);
    char *block = raw + sizeof(void *) + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
    memcpy(block - sizeof(void *), &raw, sizeof raw);
    return block;
}

void base_free_aligned(void *pointer)
{
    if (pointer) {
        void *raw;
        memcpy(&raw, (char *)pointer - sizeof(void *), sizeof raw);
        if (raw) {
            free(raw);
        } else {
            base_region_give(pointer);
        }
    }
}

void base_mem_fail_at(size_t nth)
{
    atomic_store(&fail_countdown, nth);
}

size_t base_mem_count(void)
{
    return atomic_load(&allocation_count);
}

bool base_size_mul(size_t a, size_t b, size_t *product)
{
    if (b != 0 && a > SIZE_MAX / b) {
        return false;
    }
    *product = a * b;
    return true;
}

bool base_size_add(size_t a, size_t b, size_t *sum)
{
    if (a > SIZE_MAX - b) {
        return false;
    }
    *sum = a + b;
    return true;
}

/* Make room for `more` bytes and the NUL behind them. */
static base_status buffer_reserve(base_buffer *buffer, size_t more)
{
    size_t size_max = buffer->size_max ? buffer->size_max : BUFFER_SIZE_MAX;
    if (buffer->size > size_max || more > size_max - buffer->size) {
        return BASE_LIMIT;
    }
    size_t needed = buffer->size + more;
    if (needed == SIZE_MAX) {
        return BASE_LIMIT;
    }
    needed++;
    if (needed <= buffer->capacity) {
        return BASE_OK;
    }
    size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_CAPACITY_MIN;
    while (capacity < needed) {
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    }
    char *data = base_realloc(buffer->data, capacity);
    if (!data) {
        return BASE_NO_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return BASE_OK;
}

base_status base_buffer_append(base_buffer *buffer, const void *data, size_t size)
{
    base_status status = buffer_reserve(buffer, size);
    if (status != BASE_OK) {
        return status;
    }
    if (size > 0) {
        memcpy(buffer->data + buffer->size, data, size);
    }
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return BASE_OK;
}

base_status base_buffer_append_text(base_buffer *buffer, const char *text)
{
    return base_buffer_append(buffer, text, strlen(text));
}

base_status base_buffer_printf(base_buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) {
        return BASE_INVALID;
    }
    base_status status = buffer_reserve(buffer, (size_t)length);
    if (status != BASE_OK) {
        return status;
    }
    va_start(args, format);
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, args);
    va_end(args);
    buffer->size += (size_t)length;
    return BASE_OK;
}

void base_buffer_clear(base_buffer *buffer)
{
    buffer->size = 0;
    if (buffer->data) {
        buffer->data[0] = '\0';
    }
}

void base_buffer_free(base_buffer *buffer)
{
    base_free(buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
    buffer->capacity = 0;
}
