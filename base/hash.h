/* base/hash.h: CRC-32C for records (Castagnoli polynomial, RFC 3720 B.4) and SHA-256 (FIPS 180-4)
 * for content. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC of data continued from crc (0 to start). base_crc32c(0, "123456789", 9) == 0xE3069283. */
uint32_t base_crc32c(uint32_t crc, const void *data, size_t size);

typedef struct base_sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
} base_sha256;
void base_sha256_begin(base_sha256 *hash);
void base_sha256_add(base_sha256 *hash, const void *data, size_t size);
void base_sha256_end(base_sha256 *hash, uint8_t digest[32]);
void base_sha256_of(const void *data, size_t size, uint8_t digest[32]);
/* 64 hexadecimal digits and NUL. */
void base_hex(const uint8_t *data, size_t size, char *out /* [2*size+1] */);

#endif
