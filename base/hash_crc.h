/* base/hash_crc.h: the forms of base_crc32c. Internal to base/; hash.c picks once. */
#ifndef BASE_HASH_CRC_H
#define BASE_HASH_CRC_H

#include <stddef.h>
#include <stdint.h>

/* As base_crc32c, by the processor's own instruction: only where base_cpu_has_crc32c says so. */
uint32_t base_crc32c_sse42(uint32_t crc, const void *data, size_t size);
/* The definition, by tables. */
uint32_t base_crc32c_tables(uint32_t crc, const void *data, size_t size);

#endif
