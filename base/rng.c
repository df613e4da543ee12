/* base/rng.c: xoshiro256** 1.0 seeded by splitmix64 (Blackman & Vigna, "Scrambled linear
 * pseudorandom number generators", 2018, §5.1 and figure 19). Not for secrets.
 */
#include "base/rng.h"

#include <math.h>

#include "base/status.h"

static uint64_t rotate_left(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static uint64_t splitmix64(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void base_rng_seed(base_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        rng->state[i] = splitmix64(&seed);
    }
}

uint64_t base_rng_u64(base_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t base_rng_below(base_rng *rng, uint64_t bound)
{
    BASE_ASSERT(bound >= 1);
    /* Reject the first 2^64 mod bound values, so that every remainder is equally frequent. */
    uint64_t reject = (0 - bound) % bound;
    uint64_t value;
    do {
        value = base_rng_u64(rng);
    } while (value < reject);
    return value % bound;
}

double base_rng_unit(base_rng *rng)
{
    return (double)(base_rng_u64(rng) >> 11) * 0x1.0p-53;
}

double base_rng_normal(base_rng *rng)
{
    double radius_uniform = 1.0 - base_rng_unit(rng); /* (0, 1]: the logarithm is finite */
    double angle_uniform = base_rng_unit(rng);
    return sqrt(-2.0 * log(radius_uniform)) * cos(6.283185307179586476925 * angle_uniform);
}
