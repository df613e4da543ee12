/* base/region.c: see region.h. Huge pages are asked for (madvise), not needed. */
#include "base/region.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/mem.h"

enum { ALIGNMENT = 64 };
#define HUGE_PAGE ((size_t)2 << 20)
#define REGION_SIZE ((size_t)32 << 20)

/* At the begin of its own memory; each block has ALIGNMENT bytes before it that name the region. */
typedef struct region {
    size_t size, used; /* bytes, this included */
    size_t blocks;     /* that have not been given back */
} region;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static region *current; /* where the next block goes, NULL = nowhere yet */

/* size: in whole huge pages. */
static region *open_region(size_t size)
{
    char *from =
        mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED) {
        return NULL;
    }
    size_t skip = (HUGE_PAGE - (uintptr_t)from % HUGE_PAGE) % HUGE_PAGE;
    if (skip > 0) {
        (void)munmap(from, skip);
    }
    (void)munmap(from + skip + size, HUGE_PAGE - skip);
    region *r = (region *)(void *)(from + skip);
#ifdef MADV_HUGEPAGE
    (void)madvise(r, size, MADV_HUGEPAGE);
#endif
    *r = (region){.size = size, .used = ALIGNMENT};
    return r;
}

static void *take_from(region *r, size_t need)
{
    char *head = (char *)r + r->used;
    r->used += need;
    r->blocks++;
    *(region **)(void *)head = r;
    return head + ALIGNMENT;
}

void *base_region_take(size_t size)
{
    size_t need;
    if (!base_size_add(size, 2 * ALIGNMENT - 1, &need) || need > SIZE_MAX - 3 * HUGE_PAGE) {
        return NULL;
    }
    need = need / ALIGNMENT * ALIGNMENT;
    bool alone = need > REGION_SIZE / 2;
    void *block = NULL;
    pthread_mutex_lock(&lock);
    region *r = alone ? NULL : current;
    if (!r || r->size - r->used < need) {
        size_t pages = (need + ALIGNMENT + HUGE_PAGE - 1) / HUGE_PAGE;
        r = open_region(alone ? pages * HUGE_PAGE : REGION_SIZE);
        current = r && !alone ? r : current;
    }
    if (r) {
        block = take_from(r, need);
    }
    pthread_mutex_unlock(&lock);
    return block;
}

void base_region_give(void *block)
{
    region *r = *(region **)(void *)((char *)block - ALIGNMENT);
    pthread_mutex_lock(&lock);
    if (--r->blocks == 0) {
        current = current == r ? NULL : current;
        (void)munmap(r, r->size);
    }
    pthread_mutex_unlock(&lock);
}
