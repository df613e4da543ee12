/* engine/sample.h: choice of the next token from logits. */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

typedef struct sample_options {
    float temperature; /* 0 = greedy */
    size_t top_k;      /* 0 = off */
    float top_p;       /* 1 (and 0) = off (Holtzman et al. 2020) */
    float min_p;       /* 0 = off */
    uint64_t seed;
} sample_options;

typedef struct sample_state sample_state;
base_status sample_create(const sample_options *options, size_t vocabulary, sample_state **out,
                          base_error *err);
void sample_free(sample_state *s);
/* logits [V] f32, finite; not changed. Ties go to the smaller id. Allocates nothing. */
int32_t sample_next(sample_state *s, const float *logits);
/* Its generator, to be kept and set with a session. */
base_rng *sample_rng(sample_state *s);

#endif
