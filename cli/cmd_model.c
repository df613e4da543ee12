/* cli/cmd_model.c: tokenize, model: looking at the model without a store. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
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
        gguf_text kind = {"?", 1};
        (void)gguf_get_text(file, "general.architecture", &kind);
        printf("%.*s: %zu layers, %zu channels, %zu heads (%zu for keys and values) of %zu, feed "
               "forward %zu, vocabulary %zu, context %zu\n",
               (int)kind.size, kind.data, s->layers, s->channels, s->heads, s->kv_heads,
               s->head_size, s->feed_forward, s->vocabulary, s->context_max);
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
