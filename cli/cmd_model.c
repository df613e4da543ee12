/* cli/cmd_model.c: tokenize, model, bench: looking at the model without a store. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/text.h"
#include "cli/cli.h"

int cmd_tokenize(const cli_options *o)
{
    base_error err = {0};
    engine *e = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    if (base_utf8_check(o->operands[0], strlen(o->operands[0])) != strlen(o->operands[0])) {
        return cli_usage("the text is not valid UTF-8");
    }
    if (cli_open_engine(o, 0, &e, &err) ||
        tokenizer_encode(engine_tokenizer(e), o->operands[0], strlen(o->operands[0]), &ids, &count,
                         &err)) {
        engine_close(e);
        return cli_fail(&err);
    }
    if (o->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(list, json_integer(ids[i]));
        }
        cli_print_json(json_pack("{s:o}", "ids", list));
    } else {
        for (size_t i = 0; i < count; i++) {
            printf("%s%d", i ? " " : "", (int)ids[i]);
        }
        printf("\n");
    }
    base_free(ids);
    engine_close(e);
    return CLI_DONE;
}

enum { WINDOW_DEFAULT = 4096 };

int cmd_model(const cli_options *o)
{
    base_error err = {0};
    engine *e = NULL;
    if (cli_open_engine(o, 0, &e, &err)) {
        return cli_fail(&err);
    }
    const core_shape *s = core_model_shape(engine_model(e));
    const gguf_file *file = core_model_file(engine_model(e));
    size_t slots = o->window                         ? o->window
                   : s->context_max < WINDOW_DEFAULT ? s->context_max
                                                     : WINDOW_DEFAULT;
    core_stream_options stream = {.slots_max = slots, .pool = engine_pool(e)};
    size_t window_bytes = core_stream_bytes(engine_model(e), &stream);
    size_t types[64] = {0}, tensors = gguf_tensor_count(file);
    for (size_t i = 0; i < tensors; i++) {
        uint32_t type = gguf_tensor_at(file, i)->type;
        types[type < 64 ? type : 63] += 1;
    }
    if (o->json) {
        json_t *quantisation = json_object();
        for (uint32_t t = 0; t < 64; t++) {
            if (types[t]) {
                json_object_set_new(quantisation, kernel_source_name(t),
                                    json_integer((json_int_t)types[t]));
            }
        }
        cli_print_json(json_pack(
            "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:s}", "file",
            gguf_path(file), "layers", (json_int_t)s->layers, "channels", (json_int_t)s->channels,
            "heads", (json_int_t)s->heads, "kv_heads", (json_int_t)s->kv_heads, "head_size",
            (json_int_t)s->head_size, "feed_forward", (json_int_t)s->feed_forward, "vocabulary",
            (json_int_t)s->vocabulary, "context", (json_int_t)s->context_max, "tensors",
            quantisation, "weight_bytes", (json_int_t)core_model_weight_bytes(engine_model(e)),
            "window_slots", (json_int_t)slots, "window_bytes", (json_int_t)window_bytes, "isa",
            base_isa_name(kernel_get()->isa)));
    } else {
        printf("%s\n", gguf_path(file));
        printf("llama: %zu layers, %zu channels, %zu heads (%zu for keys and values) of %zu, feed "
               "forward %zu, vocabulary %zu, context %zu\n",
               s->layers, s->channels, s->heads, s->kv_heads, s->head_size, s->feed_forward,
               s->vocabulary, s->context_max);
        printf("tensors:");
        for (uint32_t t = 0; t < 64; t++) {
            if (types[t]) {
                printf(" %zu %s", types[t], kernel_source_name(t));
            }
        }
        printf("\n%.1f MB of weights a token; %.1f MB for a window of %zu slots; kernels: %s\n",
               (double)core_model_weight_bytes(engine_model(e)) / 1e6, (double)window_bytes / 1e6,
               slots, base_isa_name(kernel_get()->isa));
    }
    engine_close(e);
    return CLI_DONE;
}

/* --- bench ------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Tokens a second over `rounds` runs of `tokens` random tokens: in passes of `pass` behind `depth`
 * tokens. */
static base_status measure(engine *e, size_t depth, size_t tokens, size_t pass, double *rates,
                           size_t rounds, base_error *err)
{
    core_stream_options options = {.slots_max = depth + tokens, .pool = engine_pool(e)};
    core_stream *stream = NULL;
    size_t vocabulary = core_model_shape(engine_model(e))->vocabulary;
    int32_t *ids = base_calloc(depth + tokens, sizeof *ids);
    float *logits = base_calloc(vocabulary, sizeof *logits);
    base_status status = ids && logits ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory");
    base_rng rng;
    base_rng_seed(&rng, 1);
    for (size_t i = 0; !status && i < depth + tokens; i++) {
        ids[i] = (int32_t)base_rng_below(&rng, vocabulary);
    }
    if (!status && !(status = core_stream_open(engine_model(e), &options, &stream, err))) {
        status = core_run(stream, ids, depth, NULL, 0, err);
    }
    for (size_t round = 0; round < rounds && !status; round++) {
        core_window_remove(stream, depth, core_slots(stream) - depth);
        double begin = base_clock_ms();
        for (size_t done = 0; done < tokens && !status; done += pass) {
            size_t count = tokens - done < pass ? tokens - done : pass;
            status = core_run(stream, ids + depth + done, count, logits, 1, err);
        }
        rates[round] = (double)tokens / (base_clock_ms() - begin) * 1e3;
    }
    core_stream_close(stream);
    base_free(ids);
    base_free(logits);
    if (!status) {
        qsort(rates, rounds, sizeof *rates, compare);
    }
    return status;
}

int cmd_bench(const cli_options *o)
{
    enum { ROUNDS = 5 };
    const char *what = o->operands[0];
    bool prefill = strcmp(what, "prefill") == 0;
    if (!prefill && strcmp(what, "decode") != 0) {
        return cli_usage("bench: '%s' is none of prefill, decode", what);
    }
    base_error err = {0};
    engine *e = NULL;
    double rates[ROUNDS];
    const size_t depths[] = {0, 2048};
    size_t depth_count = prefill ? 1 : 2, tokens = cli_limit(o) ? cli_limit(o) : prefill ? 512 : 32;
    if (cli_open_engine(o, 0, &e, &err)) {
        return cli_fail(&err);
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < depth_count; i++) {
        if (measure(e, depths[i], tokens, prefill ? tokens : 1, rates, ROUNDS, &err)) {
            json_decref(rows);
            engine_close(e);
            return cli_fail(&err);
        }
        double gbs = rates[ROUNDS / 2] * (double)core_model_weight_bytes(engine_model(e)) / 1e9;
        if (!o->json) {
            printf("%s %zu tokens at depth %zu: %.1f tok/s (min %.1f, max %.1f)", what, tokens,
                   depths[i], rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
            printf(prefill ? "\n" : "; weights read at %.1f GB/s\n", gbs);
        }
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "what", what, "tokens",
                            (json_int_t)tokens, "depth", (json_int_t)depths[i], "median_tok_s",
                            rates[ROUNDS / 2], "min_tok_s", rates[0], "max_tok_s",
                            rates[ROUNDS - 1]));
    }
    if (o->json) {
        cli_print_json(json_pack("{s:s, s:I, s:s, s:O}", "model", engine_model_name(e), "threads",
                                 (json_int_t)base_pool_threads(engine_pool(e)), "isa",
                                 base_isa_name(kernel_get()->isa), "rows", rows));
    }
    json_decref(rows);
    engine_close(e);
    return CLI_DONE;
}
