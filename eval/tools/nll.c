/* eval/tools/nll.c: how likely a model finds given texts, token by token; engine/train/table.py
 * builds this program. Not part of the product.
 *
 *     nll MODEL full|WINDOW|hybrid q8|f32 [ADAPTER...] < texts.json > nll.jsonl
 *
 * texts.json: [[ids of a text], ...]. One line a text: [-log p of its second token, ...], in nats.
 * full: attention over everything; WINDOW: sinks and that many live tokens; hybrid: fading layers.
 * q8: as the program runs by default; f32: activations, keys and values in f32.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "engine/core.h"
#include "engine/kernels.h"

enum { PASS = 64, THREADS = 2 };

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "nll: %s: %s\n", what, why);
    exit(1);
}

static void put_text(core_stream *stream, size_t vocabulary, const json_t *ids, float *logits)
{
    base_error err = {0};
    size_t count = json_array_size(ids);
    json_t *line = json_array();
    int32_t tokens[PASS];
    core_stream_clear(stream);
    for (size_t at = 0; at < count; at += PASS) {
        size_t some = count - at < PASS ? count - at : PASS;
        for (size_t t = 0; t < some; t++) {
            tokens[t] = (int32_t)json_integer_value(json_array_get(ids, at + t));
        }
        if (core_run(stream, tokens, some, logits, some, &err)) {
            stop("cannot run a text", err.text);
        }
        for (size_t t = 0; t < some && at + t + 1 < count; t++) {
            const float *row = logits + t * vocabulary;
            float log_sum, entropy;
            size_t best, next = (size_t)json_integer_value(json_array_get(ids, at + t + 1));
            if (next >= vocabulary) {
                stop("cannot run a text", "an id is outside the vocabulary");
            }
            kernel_get()->logit_stats(row, vocabulary, &log_sum, &entropy, &best);
            json_array_append_new(line, json_real((double)log_sum - (double)row[next]));
        }
    }
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: nll MODEL full|WINDOW|hybrid q8|f32 [ADAPTER...] < texts.json\n");
        return 2;
    }
    base_error err = {0};
    json_error_t problem;
    json_t *texts = json_loadf(stdin, 0, &problem);
    core_model *model = NULL;
    core_stream *stream = NULL;
    base_pool *pool = NULL;
    bool exact = strcmp(argv[3], "f32") == 0, hybrid = strcmp(argv[2], "hybrid") == 0;
    if (!json_is_array(texts)) {
        stop("no texts", problem.text);
    }
    if (base_pool_create(THREADS, &pool, &err) ||
        core_model_open(argv[1], (const char *const *)argv + 4, NULL, &model, &err)) {
        stop(argv[1], err.text);
    }
    if (hybrid && core_model_fading_layers(model) == 0) {
        stop(argv[1], "has no fading layers");
    }
    core_stream_options options = {.window = strtoul(argv[2], NULL, 10),
                                   .hybrid = hybrid,
                                   .kv_f32 = exact,
                                   .activations = exact ? KERNEL_ACT_F32 : KERNEL_ACT_Q8,
                                   .pool = pool};
    if (core_stream_open(model, &options, &stream, &err)) {
        stop(argv[1], err.text);
    }
    size_t vocabulary = core_model_shape(model)->vocabulary;
    float *logits = base_calloc(PASS * vocabulary, sizeof *logits);
    for (size_t i = 0; logits && i < json_array_size(texts); i++) {
        put_text(stream, vocabulary, json_array_get(texts, i), logits);
    }
    base_free(logits);
    core_stream_close(stream);
    core_model_close(model);
    base_pool_free(pool);
    json_decref(texts);
    return logits ? 0 : 1;
}
