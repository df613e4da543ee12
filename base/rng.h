/* base/rng.h: the one seeded generator, xoshiro256** seeded by splitmix64 (Blackman & Vigna 2018).
 * */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

typedef struct base_rng {
    uint64_t state[4];
} base_rng;

void base_rng_seed(base_rng *rng, uint64_t seed);
uint64_t base_rng_u64(base_rng *rng);
/* Uniform in [0, bound), bound >= 1, unbiased. */
uint64_t base_rng_below(base_rng *rng, uint64_t bound);
/* Uniform in [0, 1) with 53 bits. */
double base_rng_unit(base_rng *rng);
/* Standard normal (Box-Muller). */
double base_rng_normal(base_rng *rng);

#endif
