/* cli/cmd_prime.c: prime: a hybrid of a Transformer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "engine/prime.h"

enum { LAYERS_MAX = 512 };

/* "1,3,5-9" */
static bool parse_layers(const char *text, bool layers[LAYERS_MAX])
{
    while (*text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (end == text || *text == '-') {
            return false;
        }
        if (*end == '-') {
            text = end + 1;
            last = strtoul(text, &end, 10);
            if (end == text || *text == '-') {
                return false;
            }
        }
        if (last < first || last >= LAYERS_MAX || (*end && *end != ',') ||
            (*end == ',' && !end[1])) {
            return false;
        }
        for (unsigned long i = first; i <= last; i++) {
            layers[i] = true;
        }
        text = *end ? end + 1 : end;
    }
    return true;
}

int cmd_prime(const cli_options *o)
{
    bool layers[LAYERS_MAX] = {0};
    base_error err = {0};
    core_model *model = NULL;
    prime_options options = {
        .window = o->window, .layer_count = LAYERS_MAX, .mixer = MIXER_GDN, .seed = o->seed};
    if (!o->out) {
        return cli_usage("prime: where does the hybrid go? (-o FILE)");
    }
    if (o->mixer && !mixer_parse(o->mixer, strlen(o->mixer), &options.mixer)) {
        return cli_usage("prime: --mixer %s is none of gdn, gka, mamba2", o->mixer);
    }
    if (o->layers) {
        if (!*o->layers || !parse_layers(o->layers, layers)) {
            return cli_usage("prime: --layers '%s' is no list like 1,3,5-9", o->layers);
        }
        options.layers = layers;
    }
    if (prime_model(o->operands[0], o->out, &options, &err) ||
        core_model_open(o->out, NULL, NULL, &model, &err)) {
        return cli_fail(&err);
    }
    size_t fading = core_model_fading_layers(model), all = core_model_shape(model)->layers;
    size_t window = core_model_exact_window(model);
    core_model_close(model);
    if (o->json) {
        return cli_print_json(json_pack(
            "{s:s, s:I, s:I, s:I, s:s}", "file", o->out, "layers", (json_int_t)all, "fading_layers",
            (json_int_t)fading, "window", (json_int_t)window, "mixer", mixer_name(options.mixer)));
    }
    printf("%s: %zu of %zu layers have a fading half (%s), window %zu\n", o->out, fading, all,
           mixer_name(options.mixer), window);
    return CLI_DONE;
}
