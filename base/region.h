/* base/region.h: large zeroed blocks on huge pages, for what a step reads whole: weights, keys and
 * values. With pages of 4 KiB a sixth of a decode step goes into looking pages up.
 */
#ifndef BASE_REGION_H
#define BASE_REGION_H

#include <stddef.h>

/* 64-byte aligned, zeroed, as are the 8 bytes before it; NULL when out of memory. Any thread.
 * Blocks lie one behind the other in regions of 32 MiB, or, when they are larger than half of that,
 * in one of their own; a region goes back to the kernel with its last block. */
void *base_region_take(size_t size);
void base_region_give(void *block); /* not NULL */

#endif
