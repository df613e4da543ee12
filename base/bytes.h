/* base/bytes.h: fixed-width little-endian get and put. The pointer need not be aligned. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline void base_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void base_put_u32(uint8_t *p, uint32_t v)
{
    base_put_u16(p, (uint16_t)v);
    base_put_u16(p + 2, (uint16_t)(v >> 16));
}
static inline void base_put_u64(uint8_t *p, uint64_t v)
{
    base_put_u32(p, (uint32_t)v);
    base_put_u32(p + 4, (uint32_t)(v >> 32));
}
static inline uint16_t base_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (p[1] << 8));
}
static inline uint32_t base_get_u32(const uint8_t *p)
{
    return (uint32_t)base_get_u16(p) | ((uint32_t)base_get_u16(p + 2) << 16);
}
static inline uint64_t base_get_u64(const uint8_t *p)
{
    return (uint64_t)base_get_u32(p) | ((uint64_t)base_get_u32(p + 4) << 32);
}
static inline void base_put_f32(uint8_t *p, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    base_put_u32(p, bits);
}
static inline float base_get_f32(const uint8_t *p)
{
    uint32_t bits = base_get_u32(p);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
/* Big-endian, for keys that must sort by value. */
static inline void base_put_u64_be(uint8_t *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--) {
        p[i] = (uint8_t)v;
        v >>= 8;
    }
}
static inline uint64_t base_get_u64_be(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v = (v << 8) | p[i];
    }
    return v;
}

#endif
