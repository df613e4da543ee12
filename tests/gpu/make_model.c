/* tests/gpu/make_model.c: write a synthetic model file: make_model NAME FILE.gguf, or a hybrid of
 * one: make_model gdn|gka|mamba2 FILE.gguf HYBRID.gguf (W = 1,024 in every second layer). Names:
 * see below. */
#include <stdio.h>
#include <string.h>

#include "engine/prime.h"
#include "tests/gpu/synthetic.h"

/* The 1B shape is that of Llama-3.2-1B: 1.24e9 weights, output tied to the embedding. */
#define ONE_BILLION(type)                                                              \
    {                                                                                  \
        16, 2048, 32, 8, 64, 8192, 128256, 8192, KERNEL_SRC_##type, KERNEL_SRC_##type, \
            KERNEL_SRC_##type, KERNEL_SRC_##type, false                                \
    }
static const struct {
    const char *name;
    synthetic_shape shape;
} models[] = {
    {"1b-bf16", ONE_BILLION(BF16)},
    {"1b-q4_1", ONE_BILLION(Q4_1)},
    {"1b-q8_0", ONE_BILLION(Q8_0)},
    {"tiny",
     {2, 128, 4, 2, 32, 256, 500, 512, KERNEL_SRC_Q8_0, KERNEL_SRC_Q8_0, KERNEL_SRC_Q8_0,
      KERNEL_SRC_Q8_0, false}},
};

static base_status make_hybrid(const char *kind, const char *from, const char *to, base_error *err)
{
    prime_options options = {.window = 1024, .layer_count = 64};
    if (!mixer_parse(kind, strlen(kind), &options.mixer)) {
        return base_fail(err, BASE_INVALID, "%s is none of gdn, gka, mamba2", kind);
    }
    return prime_model(from, to, &options, err);
}

int main(int argc, char **argv)
{
    base_error err = {0};
    if (argc == 4) {
        if (make_hybrid(argv[1], argv[2], argv[3], &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        return 0;
    }
    for (size_t i = 0; argc == 3 && i < sizeof models / sizeof models[0]; i++) {
        if (strcmp(models[i].name, argv[1]) == 0) {
            if (synthetic_write(argv[2], &models[i].shape, 1, &err)) {
                fprintf(stderr, "%s\n", err.text);
                return 1;
            }
            return 0;
        }
    }
    fprintf(stderr, "usage: make_model 1b-bf16|1b-q4_1|1b-q8_0|tiny FILE.gguf\n"
                    "       make_model gdn|gka|mamba2 FILE.gguf HYBRID.gguf\n");
    return 2;
}
