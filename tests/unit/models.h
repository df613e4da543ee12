/* tests/unit/models.h: where tests find the default models, and what they say when there are none.
 * */
#ifndef TESTS_MODELS_H
#define TESTS_MODELS_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Path of a file below the models folder ($EIDETIC_MODELS, else the cache that ./dev setup fills);
 * false when it is not there. */
static inline int models_path(const char *name, char *out, size_t size)
{
    const char *models = getenv("EIDETIC_MODELS"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (models) {
        snprintf(out, size, "%s/%s", models, name);
    } else if (cache) {
        snprintf(out, size, "%s/eidetic/models/%s", cache, name);
    } else {
        snprintf(out, size, "%s/.cache/eidetic/models/%s", home ? home : "", name);
    }
    return access(out, R_OK) == 0;
}

#define MODELS_GENERATOR "SmolLM2-135M-Instruct.Q4_1.gguf"
#define MODELS_READER "SmolLM2-135M-Instruct.Q4_1.reader.gguf"
#define MODELS_MIXERS "SmolLM2-135M-Instruct.Q4_1.core.gguf"
#define MODELS_ENCODER "all-MiniLM-L6-v2"

/* Leaves the test program as skipped when the default models are missing. */
#define MODELS_REQUIRE(name, out)                                                       \
    do {                                                                                \
        if (!models_path(name, out, sizeof out)) {                                      \
            printf("SKIPPED: %s is missing, run ./dev setup\n", out);                   \
            exit(77);                                                                   \
        }                                                                               \
    } while (0)

#endif
