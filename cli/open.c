/* cli/open.c: default places, and opening store, index, models and sessions as the options say. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#define DEFAULT_MODEL "SmolLM2-135M-Instruct.Q4_1.gguf"
#define DEFAULT_ENCODER "all-MiniLM-L6-v2"

enum { PATH_SIZE = 4096 };

/* $VARIABLE/eidetic, else $HOME/fallback/eidetic. */
static void user_folder(const char *variable, const char *fallback, char out[PATH_SIZE])
{
    const char *base = getenv(variable), *home = getenv("HOME");
    if (base && *base) {
        snprintf(out, PATH_SIZE, "%s/eidetic", base);
    } else {
        snprintf(out, PATH_SIZE, "%s/%s/eidetic", home ? home : ".", fallback);
    }
}

const char *cli_store_path(const cli_options *o)
{
    static char path[PATH_SIZE];
    const char *variable = getenv("EIDETIC_STORE");
    if (o->store) {
        return o->store;
    }
    if (variable && *variable) {
        return variable;
    }
    user_folder("XDG_DATA_HOME", ".local/share", path);
    return path;
}

const char *cli_models_file(const char *name)
{
    static char path[2 * PATH_SIZE];
    char cache[PATH_SIZE];
    const char *models = getenv("EIDETIC_MODELS");
    if (models && *models) {
        snprintf(path, sizeof path, "%s/%s", models, name);
    } else {
        user_folder("XDG_CACHE_HOME", ".cache", cache);
        snprintf(path, sizeof path, "%s/models/%s", cache, name);
    }
    return path;
}

static base_status check_options(const cli_options *o, base_error *err)
{
    engine_core core;
    if (o->core && !engine_core_parse(o->core, &core)) {
        return base_fail(err, BASE_INVALID, "--core %s is none of full, window, hybrid", o->core);
    }
    engine_device device;
    if (o->device && !engine_device_parse(o->device, &device)) {
        return base_fail(err, BASE_INVALID, "--device %s is none of cpu, cuda, auto", o->device);
    }
    kvblob_type type;
    if (o->kv_type && !kvblob_type_parse(o->kv_type, &type)) {
        return base_fail(err, BASE_INVALID, "--kv-type %s is none of q8, f16", o->kv_type);
    }
    return BASE_OK;
}

typedef struct adapter_list {
    const char *paths[CORE_ADAPTERS_MAX + 1];
    size_t count;
    char beside[CORE_ADAPTERS_MAX][2 * PATH_SIZE];
} adapter_list;

/* X.NAME.gguf of the model X.gguf, where it is there. */
static void add_beside(adapter_list *list, const char *model, const char *name)
{
    char *path = list->beside[list->count];
    const char *end = strrchr(model, '.');
    size_t stem = end && strcmp(end, ".gguf") == 0 ? (size_t)(end - model) : strlen(model);
    int length = snprintf(path, 2 * PATH_SIZE, "%.*s.%s.gguf", (int)stem, model, name);
    if (length > 0 && length < 2 * PATH_SIZE && access(path, F_OK) == 0) {
        list->paths[list->count++] = path;
    }
}

/* What --adapter says, or what lies beside the model. */
static void choose_adapters(const cli_options *o, const char *model, unsigned parts,
                            engine_core core, adapter_list *list)
{
    *list = (adapter_list){0};
    for (size_t i = 0; o->adapters[i]; i++) {
        if (strcmp(o->adapters[i], "none") != 0) {
            list->paths[list->count++] = o->adapters[i];
        }
    }
    if (!o->adapters[0] && parts & CLI_READER) {
        add_beside(list, model, "reader");
    }
    bool chosen = core != ENGINE_CORE_DEFAULT || o->window; /* W slots: full attention */
    if (!o->adapters[0] && (core == ENGINE_CORE_HYBRID || (parts & CLI_MIXERS && !chosen))) {
        add_beside(list, model, "core");
    }
}

base_status cli_open_engine(const cli_options *o, unsigned parts, engine **out, base_error *err)
{
    char model[2 * PATH_SIZE], encoder_path[2 * PATH_SIZE];
    adapter_list adapters;
    const char *variable = getenv("EIDETIC_MODEL");
    base_status status = check_options(o, err);
    if (status) {
        return status;
    }
    const char *given = o->model ? o->model : variable;
    snprintf(model, sizeof model, "%s", given ? given : cli_models_file(DEFAULT_MODEL));
    snprintf(encoder_path, sizeof encoder_path, "%s",
             o->encoder ? o->encoder : cli_models_file(DEFAULT_ENCODER));
    engine_options options = {.model_path = model,
                              .encoder_path = parts & CLI_ENCODER ? encoder_path : NULL,
                              .window = o->window,
                              .threads = o->threads};
    if (o->core) {
        (void)engine_core_parse(o->core, &options.core); /* check_options has seen it */
    }
    choose_adapters(o, model, parts, options.core, &adapters);
    options.adapters = adapters.paths;
    if (o->kv_type) {
        (void)kvblob_type_parse(o->kv_type, &options.kv_type);
    }
    if (o->device) {
        (void)engine_device_parse(o->device, &options.device);
    }
    status = engine_open(&options, out, err);
    if (status == BASE_NOT_FOUND && !given && !o->encoder) {
        base_error_prefix(err, "the default models are not there (run ./dev setup)");
    }
    return status;
}

base_status cli_open_encoder(const cli_options *o, base_pool *pool, encoder **out, base_error *err)
{
    base_status status =
        encoder_open(o->encoder ? o->encoder : cli_models_file(DEFAULT_ENCODER), pool, out, err);
    if (status == BASE_NOT_FOUND && !o->encoder) {
        base_error_prefix(err, "the default text encoder is not there (run ./dev setup)");
    }
    return status;
}

base_status cli_vector_size(store *s, size_t if_empty, size_t *dim, base_error *err)
{
    enum { DEFAULT_SIZE = 384 };
    char *name = NULL;
    base_status status = store_vector_info(s, dim, &name, err);
    if (!status && *dim == 0) {
        *dim = if_empty ? if_empty : DEFAULT_SIZE;
    }
    base_free(name);
    return status;
}

base_status cli_check_encoder(const cli_memory *memory, const encoder *e, base_error *err)
{
    char *name = NULL;
    size_t dim = 0;
    base_status status =
        memory->store ? store_vector_info(memory->store, &dim, &name, err) : BASE_OK;
    if (!status && name && *name && strcmp(name, encoder_name(e)) != 0) {
        status = base_fail(err, BASE_VERSION,
                           "the vectors of %s come from encoder %s, this is %s: name that one with "
                           "--encoder, or change the store with 'eidetic reindex'",
                           store_path(memory->store), name, encoder_name(e));
    } else if (!status && memory->store && memory->vector_size != encoder_dim(e)) {
        status = base_fail(err, BASE_UNSUPPORTED,
                           "%s is empty: ingest something with this encoder first (%zu dimensions)",
                           store_path(memory->store), encoder_dim(e));
    }
    base_free(name);
    return status;
}

base_status cli_open_memory(const cli_options *o, bool create, unsigned lock_wait_ms,
                            cli_memory *out, base_error *err)
{
    const char *path = cli_store_path(o);
    *out = (cli_memory){0};
    store_options options = {
        .create = create, .read_only = o->read_only, .lock_wait_ms = lock_wait_ms};
    base_status status = store_open(path, &options, &out->store, err);
    if (status == BASE_PERMISSION && !create && !options.read_only) {
        options.read_only = true; /* a store one may read answers fully */
        status = store_open(path, &options, &out->store, err);
    }
    if (status) {
        return status;
    }
    if (!isnan(o->half_life_s)) {
        store_set_default_half_life(out->store, o->half_life_s);
    }
    status = cli_vector_size(out->store, o->vector_size, &out->vector_size, err);
    if (!status) {
        status = retrieval_open(out->store, out->vector_size, &out->retrieval, err);
    }
    if (status) {
        cli_close_memory(out);
    }
    return status;
}

void cli_close_memory(cli_memory *memory)
{
    retrieval_close(memory->retrieval);
    store_close(memory->store);
    *memory = (cli_memory){0};
}

base_status cli_session_options(const cli_options *o, const cli_memory *memory,
                                engine_session_options *out, base_error *err)
{
    engine_session_defaults(out);
    out->store = memory->store;
    out->retrieval = memory->retrieval;
    if (o->arm && (!engine_arm_parse(o->arm, &out->arm) || out->arm >= ENGINE_ARM_ORACLE)) {
        return base_fail(err, BASE_INVALID, "--arm %s is none of full, static, prompt, none",
                         o->arm);
    }
    if (o->splice_state && !core_splice_state_parse(o->splice_state, &out->splice_state)) {
        return base_fail(err, BASE_INVALID,
                         "--splice-state %s is none of none, replay, sum, picaso", o->splice_state);
    }
    out->now_us = o->now_us;
    out->as_of_us = o->as_of_us == BASE_TIME_NONE ? o->now_us : o->as_of_us;
    out->about_us = o->about_us;
    out->sampling.temperature = (float)o->temperature;
    out->sampling.top_k = o->top_k;
    out->sampling.top_p = (float)o->top_p;
    out->sampling.min_p = (float)o->min_p;
    out->sampling.seed = o->seed;
    out->innovation.threshold = (float)o->event_threshold;
    out->innovation.target_rate = (float)o->event_rate;
    out->innovation.stride = o->event_stride;
    out->window_slots = o->window;
    out->kv_budget = o->kv_budget;
    out->keep_writes = memory->store && !store_is_read_only(memory->store);
    return BASE_OK;
}
