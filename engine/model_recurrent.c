/* engine/model_recurrent.c: load layers that are a mixer alone: stock Mamba2 (Dao & Gu 2024) as
 * llama.cpp's converter writes it, in architectures mamba2 and granitehybrid, and the mixers of
 * B'MOJO files (layer kind 2; model_fading.c).
 *
 * Keys, with the architecture before them: ssm.conv_kernel, ssm.inner_size (H*P), ssm.state_size
 * (N), ssm.time_step_rank (H), ssm.group_count (groups of heads that share B and C; the norm runs
 * over one group's values, as in mamba_ssm and llama.cpp). In granitehybrid a layer is recurrent
 * where attention.head_count_kv is 0. Tensors, with blk.N. before them:
 *   ssm_in.weight [2*H*P + 2*groups*N + H, C]   rows z | x | B | C | dt
 *   ssm_conv1d.weight [H*P + 2*groups*N, kernel], .bias (granitehybrid: optional)   x | B | C
 *   ssm_a (-exp(A_log)), ssm_d, ssm_dt.bias [H]; ssm_norm.weight [H*P]; ssm_out.weight [C, H*P]
 * The mixer's q, k, v, gate and decay are C, B, x, z and dt: rows and channels are put in that
 * order here, so that a layer is one product.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model.h"

enum { NAME_SIZE = 96 };

static bool stock(const core_model *model)
{
    return strcmp(model->architecture, "mamba2") == 0 ||
           strcmp(model->architecture, "granitehybrid") == 0;
}

bool core_recurrent_is(const core_model *model, size_t index)
{
    char key[CORE_KEY_SIZE];
    int64_t number = 0;
    if (model->fading) {
        return gguf_array_i64(model->file, "bmojo.layer_kinds", index, &number) && number == 2;
    }
    if (strcmp(model->architecture, "granitehybrid") == 0) {
        return gguf_array_i64(model->file, core_key(model, "attention.head_count_kv", key), index,
                              &number) &&
               number == 0;
    }
    return stock(model);
}

base_status core_recurrent_open(core_model *model, base_error *err)
{
    enum { WIDE = 1 << 20 };
    const gguf_file *file = model->file;
    mixer *m = &model->recurrent;
    char key[CORE_KEY_SIZE];
    size_t inner = 0, groups = 0;
    base_status status;
    if (!stock(model)) {
        return BASE_OK;
    }
    if ((status = core_read_size(file, core_key(model, "ssm.conv_kernel", key), WIDE, &m->kernel,
                                 err)) ||
        (status =
             core_read_size(file, core_key(model, "ssm.inner_size", key), WIDE, &inner, err)) ||
        (status = core_read_size(file, core_key(model, "ssm.state_size", key), WIDE, &m->key_size,
                                 err)) ||
        (status = core_read_size(file, core_key(model, "ssm.time_step_rank", key), WIDE, &m->heads,
                                 err)) ||
        (status =
             core_read_size(file, core_key(model, "ssm.group_count", key), WIDE, &groups, err))) {
        return status;
    }
    if (inner % m->heads != 0 || m->heads % groups != 0 || inner / m->heads > MIXER_SIZE_MAX ||
        m->key_size > MIXER_SIZE_MAX || m->kernel > MIXER_KERNEL_MAX) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: Mamba2 with inner size %zu, %zu heads, %zu groups, state size %zu, "
                         "kernel %zu (at most %d values a head and a state, kernel %d)",
                         gguf_path(file), inner, m->heads, groups, m->key_size, m->kernel,
                         MIXER_SIZE_MAX, MIXER_KERNEL_MAX);
    }
    m->kind = MIXER_MAMBA2;
    m->v_heads = m->heads;
    m->q_heads = m->k_heads = groups;
    m->value_size = inner / m->heads;
    m->norm_group = inner / groups;
    m->norm_weights = inner;
    m->norm_eps = model->shape.rms_eps;
    return BASE_OK;
}

/* --- one layer -------------------------------------------------------------------------------- */

/* An F32 tensor of `count` values in any shape, borrowed from the file. */
static base_status load_values(const core_model *model, const char *name, size_t count,
                               const float **out, base_error *err)
{
    const gguf_file *file = model->file;
    const gguf_tensor *tensor = gguf_find_tensor(file, name);
    if (!tensor) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor %s is missing", gguf_path(file), name);
    }
    if (tensor->type != KERNEL_SRC_F32 || (uintptr_t)tensor->data % sizeof(float) != 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor %s must be F32", gguf_path(file), name);
    }
    if (tensor->size != count * sizeof(float)) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor %s has %zu values, expected %zu",
                         gguf_path(file), name, tensor->size / sizeof(float), count);
    }
    *out = (const float *)(const void *)tensor->data;
    return BASE_OK;
}

/* Where the mixer's rows stand in the file's, `shift` rows from its begin: those of C, B and x. */
typedef struct row_block {
    size_t from, count;
} row_block;

static void conv_blocks(const mixer *m, size_t shift, row_block out[3])
{
    size_t inner = m->heads * m->value_size, shared = m->k_heads * m->key_size;
    out[0] = (row_block){shift + inner + shared, shared};
    out[1] = (row_block){shift + inner, shared};
    out[2] = (row_block){shift, inner};
}

static void gather_rows(const row_block *blocks, size_t count, const uint8_t *from,
                        size_t row_bytes, uint8_t *to)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(to, from + blocks[i].from * row_bytes, blocks[i].count * row_bytes);
        to += blocks[i].count * row_bytes;
    }
}

static base_status load_projections(core_model *model, size_t index, base_error *err)
{
    core_fading *f = model->layers[index].fading;
    const mixer *m = &f->mixer;
    size_t inner = mixer_out_width(m), conv = mixer_conv_width(m), rows = mixer_row(m);
    size_t channels = model->shape.channels;
    const gguf_tensor *tensor;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "blk.%zu.ssm_in.weight", index);
    base_status status = core_find_tensor(model->file, name, rows, channels, &tensor, err);
    if (status) {
        return status;
    }
    uint32_t type = tensor->type;
    uint8_t *adapted = NULL;
    if ((status = core_adapters_merge(&model->adapters, tensor, name, rows, channels, &adapted,
                                      &type, err))) {
        return status;
    }
    size_t row_bytes = kernel_source_row_bytes(type, channels);
    row_block blocks[5];
    conv_blocks(m, inner, blocks);
    blocks[3] = (row_block){0, inner};
    blocks[4] = (row_block){inner + conv, m->heads};
    uint8_t *ordered = base_calloc(rows, row_bytes);
    if (!ordered) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    } else {
        gather_rows(blocks, 5, adapted ? adapted : tensor->data, row_bytes, ordered);
        f->qkv.part_count = 1; /* all of them */
        status = kernel_matrix_pack(&f->qkv.parts[0], type, ordered, rows, channels, false, err);
    }
    base_free(ordered);
    base_free(adapted);
    const core_part output[] = {{"ssm_out", channels}};
    return status ? status : core_load_linear(model, index, output, 1, inner, &f->output, err);
}

static base_status load_conv(core_model *model, size_t index, base_error *err)
{
    core_fading *f = model->layers[index].fading;
    mixer *m = &f->mixer;
    size_t width = mixer_conv_width(m), value = sizeof(float);
    const float *weights, *biases = NULL;
    row_block blocks[3];
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "blk.%zu.ssm_conv1d.weight", index);
    base_status status = load_values(model, name, width * m->kernel, &weights, err);
    snprintf(name, sizeof name, "blk.%zu.ssm_conv1d.bias", index);
    bool biased =
        strcmp(model->architecture, "mamba2") == 0 || gguf_find_tensor(model->file, name) != NULL;
    if (!status && biased) {
        status = load_values(model, name, width, &biases, err);
    }
    if (status) {
        return status;
    }
    f->conv = base_calloc(width, m->kernel * value);
    f->conv_bias = biased ? base_calloc(width, value) : NULL;
    if (!f->conv || (biased && !f->conv_bias)) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    }
    conv_blocks(m, 0, blocks);
    gather_rows(blocks, 3, (const uint8_t *)weights, m->kernel * value, (uint8_t *)f->conv);
    if (biased) {
        gather_rows(blocks, 3, (const uint8_t *)biases, value, (uint8_t *)f->conv_bias);
    }
    m->conv = f->conv;
    m->conv_bias = f->conv_bias;
    return BASE_OK;
}

static base_status load_stock(core_model *model, size_t index, base_error *err)
{
    core_fading *f = base_calloc(1, sizeof *f);
    model->layers[index].fading = f;
    if (!f) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    }
    f->mixer = model->recurrent;
    mixer *m = &f->mixer;
    const struct {
        const char *name;
        size_t count;
        const float **out;
    } list[] = {{"ssm_a", m->heads, &m->a},
                {"ssm_d", m->heads, &m->skip},
                {"ssm_dt.bias", m->heads, &m->dt_bias},
                {"ssm_norm.weight", m->norm_weights, &m->norm}};
    base_status status = load_projections(model, index, err);
    for (size_t i = 0; i < sizeof list / sizeof *list && !status; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "blk.%zu.%s", index, list[i].name);
        status = load_values(model, name, list[i].count, list[i].out, err);
    }
    return status ? status : load_conv(model, index, err);
}

base_status core_recurrent_load(core_model *model, size_t index, base_error *err)
{
    return model->fading ? core_fading_load(model, index, err) : load_stock(model, index, err);
}
