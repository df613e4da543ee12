/* tests/unit/golden_logits.h: logits of tests/golden (made by its gen_*.py), and running a stream
 * to compare with them. A .logits file: 8 bytes of head, [40] i32 ids, [40, 64] f32.
 */
#ifndef TESTS_GOLDEN_LOGITS_H
#define TESTS_GOLDEN_LOGITS_H

#include <math.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/core.h"

enum { GOLDEN_TOKENS = 40, GOLDEN_VOCABULARY = 64 };

/* Model tests/golden/NAME.gguf; NULL, with the reason on stderr, when it does not load. */
static inline core_model *golden_open(const char *name)
{
    char path[512];
    base_error err = {0};
    core_model *model = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/%s.gguf", EIDETIC_SOURCE_DIR, name);
    if (core_model_open(path, NULL, NULL, &model, &err)) {
        fprintf(stderr, "%s\n", err.text);
    }
    return model;
}

/* ids [count] drawn from the vocabulary. */
static inline void golden_draw(uint64_t seed, int32_t *ids, size_t count)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)base_rng_below(&rng, GOLDEN_VOCABULARY);
    }
}

/* tests/golden/NAME.logits; false, with the reason on stderr, when it cannot be read or is of
 * another size. */
static inline bool golden_read(const char *name, int32_t ids[GOLDEN_TOKENS],
                               float logits[GOLDEN_TOKENS][GOLDEN_VOCABULARY])
{
    char path[512];
    base_error err = {0};
    base_buffer file = {0};
    snprintf(path, sizeof path, "%s/tests/golden/%s.logits", EIDETIC_SOURCE_DIR, name);
    bool good = !base_file_read(path, 1 << 20, &file, &err) &&
                file.size == 8 + 4 * GOLDEN_TOKENS * (GOLDEN_VOCABULARY + 1);
    if (good) {
        const uint8_t *at = (const uint8_t *)file.data + 8;
        for (size_t t = 0; t < GOLDEN_TOKENS; t++, at += 4) {
            ids[t] = (int32_t)base_get_u32(at);
        }
        for (size_t i = 0; i < GOLDEN_TOKENS * GOLDEN_VOCABULARY; i++, at += 4) {
            logits[i / GOLDEN_VOCABULARY][i % GOLDEN_VOCABULARY] = base_get_f32(at);
        }
    } else {
        fprintf(stderr, "%s: %s\n", path, *err.text ? err.text : "another size");
    }
    base_buffer_free(&file);
    return good;
}

/* Largest difference, relative to the largest expected value; infinite where a logit is NaN. */
static inline float golden_error(const float *logits, const float *expected, size_t count)
{
    float worst = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(logits[i])) {
            return INFINITY;
        }
        worst = fmaxf(worst, fabsf(logits[i] - expected[i]));
        largest = fmaxf(largest, fabsf(expected[i]));
    }
    return worst / largest;
}

/* In passes of `pass` tokens; logits [count, 64] or NULL. */
static inline void golden_run(core_stream *stream, const int32_t *tokens, size_t count, size_t pass,
                              float (*logits)[GOLDEN_VOCABULARY])
{
    for (size_t t = 0; t < count; t += pass) {
        size_t n = count - t < pass ? count - t : pass;
        base_error err = {0};
        if (core_run(stream, tokens + t, n, logits ? logits[t] : NULL, logits ? n : 0, &err)) {
            fail_msg("%s", err.text);
        }
    }
}

#endif
