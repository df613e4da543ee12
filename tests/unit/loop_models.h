/* tests/unit/loop_models.h: a tiny model that chats, and a hybrid primed from it, in a temporary
 * folder. */
#ifndef TESTS_LOOP_MODELS_H
#define TESTS_LOOP_MODELS_H

#include "engine/prime.h"
#include "tests/fault/chat_model.h"
#include "tests/unit/loop_testing.h"

enum { LOOP_PATH = 1100 };

/* 0, or -1 with the reason on stderr. plain: "", or a model's path, which takes the tiny one's
 * place. window: of the hybrid's attention. */
static inline int loop_make_models(char folder[LOOP_PATH], char plain[LOOP_PATH],
                                   char hybrid[LOOP_PATH], size_t window)
{
    const char *tmp = getenv("TMPDIR");
    prime_options options = {.window = window, .mixer = MIXER_GDN};
    base_error err = {0};
    snprintf(folder, LOOP_PATH - 20, "%s/eidetic-models-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return -1;
    }
    bool make = plain[0] == 0;
    if (make) {
        snprintf(plain, LOOP_PATH, "%.1000s/plain.gguf", folder);
    }
    snprintf(hybrid, LOOP_PATH, "%.1000s/hybrid.gguf", folder);
    if ((make && !chat_model_write(plain)) || prime_model(plain, hybrid, &options, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return 0;
}

static inline int loop_drop_models(const char *folder)
{
    return nftw(folder, loop_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
