/* engine/engine.c: load everything that sessions share: model, tokenizer, chat template, text
 * encoder, threads. */
#include "engine/session.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/gpu.h"

enum { BOUND_DEFAULT = 1024 }; /* costs 0.1 nats beyond it, 512 twice as much (semantics §6) */

static const char *const arm_names[ENGINE_ARM_COUNT] = {"none", "prompt", "static",
                                                        "full", "oracle", "full-context"};
static const char *const trigger_names[ENGINE_TRIGGER_COUNT] = {"innovation", "once", "always",
                                                                "random"};

static const char *const core_names[ENGINE_CORE_COUNT] = {"default", "full", "window", "hybrid"};

bool engine_device_parse(const char *text, engine_device *device)
{
    static const char *const names[ENGINE_DEVICE_COUNT] = {"cpu", "cuda", "auto"};
    for (int i = 0; i < ENGINE_DEVICE_COUNT; i++) {
        if (strcmp(text, names[i]) == 0) {
            *device = (engine_device)i;
            return true;
        }
    }
    return false;
}

const char *engine_core_name(engine_core core)
{
    return (unsigned)core < ENGINE_CORE_COUNT ? core_names[core] : "?";
}

bool engine_core_parse(const char *text, engine_core *core)
{
    for (int i = ENGINE_CORE_FULL; i < ENGINE_CORE_COUNT; i++) {
        if (strcmp(text, core_names[i]) == 0) {
            *core = (engine_core)i;
            return true;
        }
    }
    return false;
}

const char *engine_arm_name(engine_arm arm)
{
    return (unsigned)arm < ENGINE_ARM_COUNT ? arm_names[arm] : "?";
}

bool engine_arm_parse(const char *text, engine_arm *arm)
{
    for (int i = 0; i < ENGINE_ARM_COUNT; i++) {
        if (strcmp(text, arm_names[i]) == 0) {
            *arm = (engine_arm)i;
            return true;
        }
    }
    return false;
}

const char *engine_trigger_name(engine_trigger trigger)
{
    return (unsigned)trigger < ENGINE_TRIGGER_COUNT ? trigger_names[trigger] : "?";
}

bool engine_trigger_parse(const char *text, engine_trigger *trigger)
{
    for (int i = 0; i < ENGINE_TRIGGER_COUNT; i++) {
        if (strcmp(text, trigger_names[i]) == 0) {
            *trigger = (engine_trigger)i;
            return true;
        }
    }
    return false;
}

static base_status choose_core(engine *e, const engine_options *options, base_error *err)
{
    size_t exact = core_model_exact_window(e->model);
    bool hybrid =
        options->core == ENGINE_CORE_HYBRID || (options->core == ENGINE_CORE_DEFAULT && exact > 0);
    if (hybrid && exact == 0) {
        return base_fail(err, BASE_INVALID,
                         "%s: the model has no fading layers (trained mixers give it some, or "
                         "'eidetic prime')",
                         options->model_path);
    }
    if (hybrid && options->window > 0 && options->window != exact) {
        return base_fail(err, BASE_INVALID, "%s: the hybrid's window is %zu, not %zu",
                         options->model_path, exact, options->window);
    }
    e->stream_options.hybrid = hybrid;
    if (options->core == ENGINE_CORE_WINDOW) {
        e->stream_options.window = options->window ? options->window : BOUND_DEFAULT;
    }
    return BASE_OK;
}

static base_status choose_device(engine *e, const engine_options *options, base_error *err)
{
    if (options->device == ENGINE_DEVICE_CPU) {
        return BASE_OK;
    }
    base_status status = options->reference
                             ? base_fail(err, BASE_UNSUPPORTED, "reference runs are for the CPU")
                         : core_model_recurrent_layers(e->model) > 0
                             ? base_fail(err, BASE_UNSUPPORTED,
                                         "%s: recurrent layers run on the CPU", options->model_path)
                             : gpu_model_create(e->model, &e->gpu, err);
    if (status && options->device == ENGINE_DEVICE_AUTO) {
        base_log(BASE_LOG_WARN, "the model runs on the CPU: %s", err ? err->text : "no device");
        return BASE_OK;
    }
    e->stream_options.device = e->gpu;
    return status;
}

base_status engine_open(const engine_options *options, engine **out, base_error *err)
{
    double begin = base_clock_ms();
    engine *e = base_calloc(1, sizeof *e);
    if (!e) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for an engine");
    }
    base_status status;
    if ((status = base_pool_create(options->threads, &e->pool, err)) ||
        (status =
             core_model_open(options->model_path, options->adapters, e->pool, &e->model, err)) ||
        (status = tokenizer_open(core_model_file(e->model), &e->tokenizer, err))) {
        engine_close(e);
        return status;
    }
    if (tokenizer_vocabulary(e->tokenizer) > core_model_shape(e->model)->vocabulary) {
        status = base_fail(err, BASE_CORRUPT, "%s: more tokens than embedding rows",
                           options->model_path);
        engine_close(e);
        return status;
    }
    if (options->encoder_path &&
        (status = encoder_open(options->encoder_path, e->pool, &e->encoder, err))) {
        engine_close(e);
        return status;
    }
    const char *slash = strrchr(options->model_path, '/');
    e->model_name = base_strdup(slash ? slash + 1 : options->model_path);
    if (!e->model_name) {
        engine_close(e);
        return base_fail(err, BASE_NO_MEMORY, "no memory for an engine");
    }
    e->stream_options =
        (core_stream_options){.kv_f32 = options->reference,
                              .activations = options->reference ? KERNEL_ACT_F32 : KERNEL_ACT_Q8,
                              .pool = e->pool};
    e->kv_type = options->kv_type;
    if ((status = choose_core(e, options, err)) || (status = choose_device(e, options, err))) {
        engine_close(e);
        return status;
    }
    e->load_ms = base_clock_ms() - begin;
    *out = e;
    return BASE_OK;
}

void engine_close(engine *e)
{
    if (!e) {
        return;
    }
    encoder_close(e->encoder);
    core_stream_close(e->hidden);
    base_free(e->hidden_centre);
    tokenizer_close(e->tokenizer);
    gpu_model_close(e->gpu);
    core_model_close(e->model);
    base_pool_free(e->pool);
    base_free(e->model_name);
    base_free(e);
}

const core_model *engine_model(const engine *e)
{
    return e->model;
}

const tokenizer *engine_tokenizer(const engine *e)
{
    return e->tokenizer;
}

encoder *engine_encoder(const engine *e)
{
    return e->encoder;
}

base_pool *engine_pool(const engine *e)
{
    return e->pool;
}

struct gpu_model *engine_gpu(const engine *e)
{
    return e->gpu;
}

double engine_load_ms(const engine *e)
{
    return e->load_ms;
}

const char *engine_model_name(const engine *e)
{
    return e->model_name;
}
