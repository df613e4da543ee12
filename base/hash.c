/* base/hash.c: CRC-32C by tables of eight bytes a step ("slicing", M. Kounavis and F. Berry, 2005;
 * reflected polynomial 0x82F63B78, RFC 3720 B.4), or by the processor where it can (hash_crc.h);
 * SHA-256 as FIPS 180-4 defines it. Plain C: no instruction set is assumed. */
#include "base/hash.h"

#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cpu.h"
#include "base/hash_crc.h"

#define CRC32C_POLYNOMIAL 0x82F63B78u
#define CRC_SLICES 8

/* crc_table[k][b] = CRC of byte b followed by k zero bytes; written once, before first use. */
static uint32_t crc_table[CRC_SLICES][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;
static uint32_t (*crc_form)(uint32_t crc, const void *data, size_t size); /* set with the table */

static void crc_set_up(void)
{
    crc_form = base_crc32c_tables;
#if defined(__x86_64__)
    if (base_cpu_has_crc32c()) {
        crc_form = base_crc32c_sse42;
    }
#endif
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) ? CRC32C_POLYNOMIAL : 0);
        }
        crc_table[0][b] = crc;
    }
    for (int k = 1; k < CRC_SLICES; k++) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = crc_table[k - 1][b];
            crc_table[k][b] = (crc >> 8) ^ crc_table[0][crc & 0xFF];
        }
    }
}

uint32_t base_crc32c_tables(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&crc_once, crc_set_up);
    const uint8_t *p = data;
    crc = ~crc;
    while (size >= 8) {
        uint32_t low = base_get_u32(p) ^ crc;
        uint32_t high = base_get_u32(p + 4);
        crc = crc_table[7][low & 0xFF] ^ crc_table[6][(low >> 8) & 0xFF] ^
              crc_table[5][(low >> 16) & 0xFF] ^ crc_table[4][low >> 24] ^
              crc_table[3][high & 0xFF] ^ crc_table[2][(high >> 8) & 0xFF] ^
              crc_table[1][(high >> 16) & 0xFF] ^ crc_table[0][high >> 24];
        p += 8;
        size -= 8;
    }
    while (size > 0) {
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *p) & 0xFF];
        p++;
        size--;
    }
    return ~crc;
}

uint32_t base_crc32c(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&crc_once, crc_set_up);
    return crc_form(crc, data, size);
}

/* --- SHA-256 ------------------------------------------------------------------------------- */

/* FIPS 180-4, 4.2.2 */
static const uint32_t sha_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate_right(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

static uint32_t get_u32_be(const uint8_t *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static void put_u32_be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* FIPS 180-4, 6.2.2: one block of 64 bytes. */
static void sha_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    for (int t = 0; t < 16; t++) {
        w[t] = get_u32_be(block + 4 * t);
    }
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate_right(w[t - 15], 7) ^ rotate_right(w[t - 15], 18) ^ (w[t - 15] >> 3);
        uint32_t s1 = rotate_right(w[t - 2], 17) ^ rotate_right(w[t - 2], 19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha_constants[t] + w[t];
        uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void base_sha256_begin(base_sha256 *hash)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, initial, sizeof initial);
    hash->size = 0;
}

void base_sha256_add(base_sha256 *hash, const void *data, size_t size)
{
    const uint8_t *p = data;
    size_t held = (size_t)(hash->size % 64);
    hash->size += size;
    if (held > 0) {
        size_t take = 64 - held < size ? 64 - held : size;
        if (take > 0) {
            memcpy(hash->block + held, p, take);
            p += take;
            size -= take;
        }
        if (held + take < 64) {
            return;
        }
        sha_block(hash->state, hash->block);
    }
    while (size >= 64) {
        sha_block(hash->state, p);
        p += 64;
        size -= 64;
    }
    if (size > 0) {
        memcpy(hash->block, p, size);
    }
}

void base_sha256_end(base_sha256 *hash, uint8_t digest[32])
{
    uint64_t bits = hash->size * 8;
    size_t held = (size_t)(hash->size % 64);
    hash->block[held++] = 0x80;
    if (held > 56) {
        memset(hash->block + held, 0, 64 - held);
        sha_block(hash->state, hash->block);
        held = 0;
    }
    memset(hash->block + held, 0, 56 - held);
    base_put_u64_be(hash->block + 56, bits);
    sha_block(hash->state, hash->block);
    for (int i = 0; i < 8; i++) {
        put_u32_be(digest + 4 * i, hash->state[i]);
    }
}

void base_sha256_of(const void *data, size_t size, uint8_t digest[32])
{
    base_sha256 hash;
    base_sha256_begin(&hash);
    base_sha256_add(&hash, data, size);
    base_sha256_end(&hash, digest);
}

void base_hex(const uint8_t *data, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * size] = '\0';
}
