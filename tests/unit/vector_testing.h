/* tests/unit/vector_testing.h: drawn vectors for tests of stores and indexes. */
#ifndef VECTOR_TESTING_H
#define VECTOR_TESTING_H

#include <math.h>
#include <stddef.h>

#include "base/rng.h"

/* v [dim]: a unit vector that leans towards axis (seed mod dim), the rest drawn by seed. */
static inline void lean_vector(uint64_t seed, float *v, size_t dim)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    float norm = 0;
    for (size_t i = 0; i < dim; i++) {
        v[i] = 0.2f * (float)base_rng_normal(&rng) + (i == seed % dim ? 1.0f : 0.0f);
        norm += v[i] * v[i];
    }
    for (size_t i = 0; i < dim; i++) {
        v[i] /= sqrtf(norm);
    }
}

#endif
