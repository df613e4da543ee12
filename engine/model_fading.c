/* engine/model_fading.c: load B'MOJO-F layers (Zancato et al. 2024): attention over an exact window
 * of W tokens, and over as many older ones through what a mixer says of them.
 *
 * Our GGUF scheme. general.architecture = "bmojo", the keys of the base architecture as they are,
 * and   bmojo.base_architecture   text   llama, qwen2, qwen3
 *   bmojo.layer_kinds         u8[]   one per layer: 0 attention, 1 B'MOJO-F, 2 the mixer alone
 *   bmojo.window              int    W
 *   bmojo.attention_window    int    live tokens that plain attention layers see; 0, absent: all
 *   bmojo.sinks               int    first tokens that are seen for ever; absent: 0
 *   bmojo.fading_residual     bool   f = u + mixer(u); absent: f = mixer(u), the published form
 *   bmojo.tied                bool   both halves share their projections; only true is supported
 *   bmojo.ssm.kind            text   gdn, gka, mamba2
 *   bmojo.ssm.conv_kernel     int    bmojo.ssm.norm_eps f32, bmojo.ssm.iterations int (gka),
 *                                    bmojo.ssm.ridge f32 (gka)
 * and in every B'MOJO-F layer, beside the base's tensors, blk.N.
 *   ssm_q [H*D, C], ssm_k, ssm_v [G*D, C], ssm_g [H*D, C], ssm_o [C, H*D]   any matrix type
 *   ssm_decay, ssm_beta (not mamba2), ssm_alpha (gka) [H, C]; .bias [H] of the last two (gka)
 *   ssm_conv_q, ssm_conv_k, ssm_conv_v [channels, kernel] F32; .bias [channels] (mamba2)
 *   ssm_a, ssm_dt [H] (-exp(A_log), dt_bias); ssm_d [H] (mamba2); ssm_norm [D] (mamba2: [H*D])
 *   ssm_q_norm, ssm_k_norm [D] (mamba2, optional); ssm_gate [H] (optional factor of each head)
 * mamba2's x, B, C, z, dt are v, k, q, g, decay.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model.h"

enum { WINDOW_MAX = 1 << 24, NAME_SIZE = 96 };

static base_status read_number(const core_model *model, const char *key, uint64_t max,
                               uint64_t fallback, uint64_t *out, base_error *err)
{
    if (!gguf_get_u64(model->file, key, out)) {
        *out = fallback;
    }
    if (*out > max) {
        return base_fail(err, BASE_CORRUPT, "%s: key %s has the impossible value %llu",
                         gguf_path(model->file), key, (unsigned long long)*out);
    }
    return BASE_OK;
}

bool core_fading_is(const core_model *model, size_t index)
{
    int64_t kind = 0;
    return model->fading && gguf_array_i64(model->file, "bmojo.layer_kinds", index, &kind) &&
           kind == 1;
}

static base_status check_kinds(core_model *model, base_error *err)
{
    const gguf_file *file = model->file;
    size_t count = 0;
    if (!gguf_array_count(file, "bmojo.layer_kinds", &count) || count != model->shape.layers) {
        return base_fail(err, BASE_CORRUPT, "%s: key bmojo.layer_kinds must have %zu elements",
                         gguf_path(file), model->shape.layers);
    }
    for (size_t i = 0; i < count; i++) {
        int64_t kind = -1;
        if (!gguf_array_i64(file, "bmojo.layer_kinds", i, &kind) || kind < 0 || kind > 2) {
            return base_fail(err, BASE_UNSUPPORTED,
                             "%s: layer %zu has the unknown kind %lld (0 attention, 1 B'MOJO-F, "
                             "2 mixer)",
                             gguf_path(file), i, (long long)kind);
        }
        model->fading_layers += kind == 1;
    }
    return BASE_OK;
}

base_status core_fading_open(core_model *model, base_error *err)
{
    const gguf_file *file = model->file;
    uint64_t window = 0, attention = 0, sinks = 0;
    bool tied = true;
    base_status status = check_kinds(model, err);
    if (status || (status = read_number(model, "bmojo.window", WINDOW_MAX, 0, &window, err)) ||
        (status = read_number(model, "bmojo.attention_window", 2 * (uint64_t)WINDOW_MAX, 0,
                              &attention, err)) ||
        (status = read_number(model, "bmojo.sinks", 4096, 0, &sinks, err))) {
        return status;
    }
    bool windowless = model->fading_layers == 0 && window == 0;
    if ((window == 0 && !windowless) || (attention > 0 && attention < 2 * window)) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: bmojo.window %llu and bmojo.attention_window %llu do not fit "
                         "(at least 1, and twice that)",
                         gguf_path(file), (unsigned long long)window,
                         (unsigned long long)attention);
    }
    if (gguf_get_bool(file, "bmojo.tied", &tied) && !tied) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: bmojo.tied is false: projections of their own for the fading half "
                         "are not supported",
                         gguf_path(file));
    }
    (void)gguf_get_bool(file, "bmojo.fading_residual", &model->fading_residual);
    model->exact_window = (size_t)window;
    model->attention_window = (size_t)attention;
    model->sinks_min = (size_t)sinks;
    return BASE_OK;
}

/* --- one layer -------------------------------------------------------------------------------- */

static base_status read_mixer(const core_model *model, mixer *m, base_error *err)
{
    const gguf_file *file = model->file;
    const core_shape *s = &model->shape;
    gguf_text kind = {0};
    uint64_t kernel = 0, iterations = 0;
    double eps = 1e-5, ridge = 0.02;
    if (!gguf_get_text(file, "bmojo.ssm.kind", &kind) ||
        !mixer_parse(kind.data, kind.size, &m->kind)) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: bmojo.ssm.kind '%.*s' is none of gdn, gka, mamba2", gguf_path(file),
                         (int)(kind.size < 64 ? kind.size : 64), kind.data ? kind.data : "");
    }
    base_status status =
        read_number(model, "bmojo.ssm.conv_kernel", MIXER_KERNEL_MAX, 4, &kernel, err);
    if (!status) {
        status = read_number(model, "bmojo.ssm.iterations", 1000, 30, &iterations, err);
    }
    if (status) {
        return status;
    }
    (void)gguf_get_f64(file, "bmojo.ssm.norm_eps", &eps);
    (void)gguf_get_f64(file, "bmojo.ssm.ridge", &ridge);
    if (kernel == 0 || s->head_size > MIXER_SIZE_MAX || !(eps > 0) || !(ridge > 0)) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: bmojo.ssm with kernel %llu, head size %zu",
                         gguf_path(file), (unsigned long long)kernel, s->head_size);
    }
    m->heads = m->q_heads = s->heads;
    m->k_heads = m->v_heads = s->kv_heads;
    m->key_size = m->value_size = m->norm_group = s->head_size;
    m->norm_weights = m->kind == MIXER_MAMBA2 ? s->heads * s->head_size : s->head_size;
    m->kernel = (size_t)kernel;
    m->iterations = (size_t)iterations;
    m->norm_eps = (float)eps;
    m->ridge = (float)ridge;
    return BASE_OK;
}

/* The three convolutions, one below the other. */
static base_status load_conv(const core_model *model, size_t index, core_fading *f, base_error *err)
{
    mixer *m = &f->mixer;
    const char *names[] = {"q", "k", "v"};
    const size_t rows[] = {m->q_heads * m->key_size, m->k_heads * m->key_size,
                           m->v_heads * m->value_size};
    bool biased = m->kind == MIXER_MAMBA2;
    f->conv = base_calloc(mixer_conv_width(m), m->kernel * sizeof(float));
    f->conv_bias = biased ? base_calloc(mixer_conv_width(m), sizeof(float)) : NULL;
    if (!f->conv || (biased && !f->conv_bias)) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    }
    for (size_t i = 0, at = 0; i < 3; at += rows[i++]) {
        char name[NAME_SIZE];
        const gguf_tensor *tensor;
        const float *bias;
        snprintf(name, sizeof name, "blk.%zu.ssm_conv_%s.weight", index, names[i]);
        base_status status = core_find_tensor(model->file, name, rows[i], m->kernel, &tensor, err);
        if (!status && tensor->type != KERNEL_SRC_F32) {
            status = base_fail(err, BASE_UNSUPPORTED, "%s: tensor %s must be F32",
                               gguf_path(model->file), name);
        }
        if (status) {
            return status;
        }
        memcpy(f->conv + at * m->kernel, tensor->data, rows[i] * m->kernel * sizeof(float));
        snprintf(name, sizeof name, "blk.%zu.ssm_conv_%s.bias", index, names[i]);
        if (biased) {
            if ((status = core_load_vector(model->file, name, rows[i], &bias, err))) {
                return status;
            }
            memcpy(f->conv_bias + at, bias, rows[i] * sizeof(float));
        }
    }
    m->conv = f->conv;
    m->conv_bias = f->conv_bias;
    return BASE_OK;
}

static base_status load_vectors(const core_model *model, size_t index, mixer *m, base_error *err)
{
    bool mamba2 = m->kind == MIXER_MAMBA2, gka = m->kind == MIXER_GKA;
    const struct {
        const char *name;
        size_t size;
        const float **out;
        bool required, possible;
    } list[] = {
        {"ssm_a", m->heads, &m->a, true, true},
        {"ssm_dt", m->heads, &m->dt_bias, true, true},
        {"ssm_norm.weight", m->norm_weights, &m->norm, true, true},
        {"ssm_beta.bias", m->heads, &m->beta_bias, true, gka},
        {"ssm_alpha.bias", m->heads, &m->alpha_bias, true, gka},
        {"ssm_d", m->heads, &m->skip, true, mamba2},
        {"ssm_q_norm.weight", m->key_size, &m->q_norm, false, mamba2},
        {"ssm_k_norm.weight", m->key_size, &m->k_norm, false, mamba2},
        {"ssm_gate", m->heads, &m->gate, false, true},
    };
    base_status status = BASE_OK;
    for (size_t i = 0; i < sizeof list / sizeof *list && !status; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "blk.%zu.%s", index, list[i].name);
        if (list[i].possible) {
            status = (list[i].required ? core_load_vector : core_load_optional)(
                model->file, name, list[i].size, list[i].out, err);
        }
    }
    return status;
}

base_status core_fading_load(core_model *model, size_t index, base_error *err)
{
    core_fading *f = base_calloc(1, sizeof *f);
    model->layers[index].fading = f;
    if (!f) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    }
    mixer *m = &f->mixer;
    base_status status = read_mixer(model, m, err);
    if (status) {
        return status;
    }
    size_t channels = model->shape.channels, q_rows = m->q_heads * m->key_size;
    const core_part qkv[] = {{"ssm_q", q_rows},
                             {"ssm_k", m->k_heads * m->key_size},
                             {"ssm_v", m->v_heads * m->value_size}};
    const core_part gates[] = {{"ssm_g", mixer_out_width(m)},
                               {"ssm_decay", m->heads},
                               {"ssm_beta", m->heads},
                               {"ssm_alpha", m->heads}};
    const core_part output[] = {{"ssm_o", channels}};
    size_t gate_count = m->kind == MIXER_MAMBA2 ? 2 : m->kind == MIXER_GDN ? 3 : 4;
    if ((status = core_load_linear(model, index, qkv, 3, channels, &f->qkv, err)) ||
        (status = core_load_linear(model, index, gates, gate_count, channels, &f->gates, err)) ||
        (status = core_load_linear(model, index, output, 1, mixer_out_width(m), &f->output, err)) ||
        (status = load_conv(model, index, f, err))) {
        return status;
    }
    return load_vectors(model, index, m, err);
}

void core_fading_free(core_fading *f)
{
    if (f) {
        core_linear_free(&f->qkv);
        core_linear_free(&f->gates);
        core_linear_free(&f->output);
        base_free(f->conv);
        base_free(f->conv_bias);
        base_free(f);
    }
}
