/* engine/cuda/model.cu: copy a loaded model to the device in the order in which decode.cu reads it.
 *
 * Rows that one phase multiplies form one matrix where their types agree (core_linear), else
 * several. A model with fading layers has two programs over the same weights: with them, without.
 * Gate and up rows are interleaved by groups of 8, so that one block holds both sides of a product;
 * where their types differ, both become f16.
 */
#include "engine/cuda/attend.cuh"
#include "engine/cuda/prefill.cuh"

#include <math.h>

/* --- one matrix ------------------------------------------------------------------------------- */

struct pack_job {
    const gpu_layout *layout;
    const kernel_matrix *matrix;
    gpu_order order;
    uint8_t *out;
    base_status *status; /* [threads] */
    base_error *errors;  /* [threads] */
};

static void pack_groups(void *argument, size_t begin, size_t end, size_t thread)
{
    pack_job *job = (pack_job *)argument;
    base_status status =
        gpu_pack(job->layout, job->matrix, job->order, begin, end - begin,
                 job->out + begin * job->layout->group_bytes, &job->errors[thread]);
    if (status) {
        job->status[thread] = status;
    }
}

struct loader {
    gpu_model *model;
    base_pool *pool;
    gpu_program *program; /* being made */
};

uint8_t gpu_choose_split(const gpu_matrix *m, size_t blocks)
{
    size_t items = m->groups / m->grain, mine = (items + blocks - 1) / blocks * m->grain;
    size_t best = 1, best_cost = SIZE_MAX;
    for (size_t split = 1; split <= GPU_WARPS && split <= m->segments; split *= 2) {
        size_t teams = GPU_WARPS / split;
        size_t cost = (mine + teams - 1) / teams * ((m->segments + split - 1) / split);
        if (cost < best_cost) {
            best = split;
            best_cost = cost;
        }
    }
    return (uint8_t)best;
}

static base_status upload(loader *l, const gpu_layout *layout, const kernel_matrix *matrix,
                          gpu_order order, uint8_t *to, base_error *err)
{
    size_t threads = base_pool_threads(l->pool);
    base_status status = BASE_OK;
    uint8_t *packed = (uint8_t *)base_alloc(layout->bytes);
    base_status *statuses = (base_status *)base_calloc(threads, sizeof *statuses);
    base_error *errors = (base_error *)base_calloc(threads, sizeof *errors);
    if (!packed || !statuses || !errors) {
        status = base_fail(err, BASE_NO_MEMORY, "GPU: no host memory to pack %zu MiB",
                           layout->bytes >> 20);
    } else {
        pack_job job = {layout, matrix, order, packed, statuses, errors};
        base_pool_run(l->pool, layout->groups, 64, pack_groups, &job);
        for (size_t t = 0; t < threads && !status; t++) {
            if (statuses[t]) {
                status = base_fail(err, statuses[t], "%s", errors[t].text);
            }
        }
        if (!status) {
            cudaError_t code = cudaMemcpy(to, packed, layout->bytes, cudaMemcpyHostToDevice);
            status = code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "upload of weights");
        }
    }
    base_free(packed);
    base_free(statuses);
    base_free(errors);
    return status;
}

/* Append one matrix to the program. half: store as f16 whatever it was. */
static base_status add_matrix(loader *l, const kernel_matrix *matrix, gpu_order order, bool half,
                              gpu_target to, size_t row0, base_error *err)
{
    gpu_layout layout;
    base_status status = half ? gpu_layout_half(matrix->rows, matrix->columns, &layout, err)
                              : gpu_layout_of(matrix, &layout, err);
    if (status) {
        return status;
    }
    if (layout.columns % 8 != 0 || layout.group_bytes > UINT32_MAX) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: a matrix of %zu columns (multiples of 8 only)", layout.columns);
    }
    void *data = NULL;
    if ((status = gpu_arena_take(&l->model->arena, layout.bytes, "the weights", &data, err)) ||
        (status = upload(l, &layout, matrix, order, (uint8_t *)data, err))) {
        return status;
    }
    BASE_ASSERT(l->program->count < l->model->program_max);
    gpu_matrix *m = &l->program->host[l->program->count++];
    m->data = (const uint8_t *)data;
    m->groups = (uint32_t)layout.groups;
    m->group_bytes = (uint32_t)layout.group_bytes;
    m->segment_bytes = (uint32_t)layout.segment_bytes;
    m->last_bytes = (uint32_t)layout.last_bytes;
    m->segments = (uint16_t)layout.segments;
    m->segment_units = (uint16_t)layout.segment_units;
    m->last_units = (uint16_t)(layout.units - (layout.segments - 1) * layout.segment_units);
    m->format = (uint8_t)layout.format;
    m->paired = layout.paired;
    m->to = (uint8_t)to;
    m->input = to == GPU_TO_FADING || to == GPU_TO_FADING_KV;
    m->grain = order == GPU_INTERLEAVED ? 2 : 1;
    m->split = gpu_choose_split(m, l->model->blocks);
    m->unit = layout.unit;
    m->row0 = (uint32_t)row0;
    m->rows = (uint32_t)layout.rows;
    m->columns = (uint32_t)layout.columns;
    return BASE_OK;
}

static bool is_coded(const kernel_matrix *m)
{
    return m->format == KERNEL_P4 || m->format == KERNEL_P8;
}

/* Do these share their activations' form: all coded or all plain? */
static bool is_mixed(const core_linear *const *list, size_t count)
{
    bool coded = false, plain = false;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < list[i]->part_count; j++) {
            coded |= is_coded(&list[i]->parts[j]);
            plain |= !is_coded(&list[i]->parts[j]);
        }
    }
    return coded && plain;
}

/* All parts, below one another from row `row` on. mixed: coded ones become f16. */
static base_status add_linear(loader *l, const core_linear *w, bool mixed, gpu_target to,
                              size_t row, base_error *err)
{
    base_status status = BASE_OK;
    for (size_t i = 0; i < w->part_count && !status; i++) {
        status =
            add_matrix(l, &w->parts[i], GPU_STACKED, mixed && is_coded(&w->parts[i]), to, row, err);
        row += w->parts[i].rows;
    }
    return status;
}

static void end_phase(loader *l)
{
    l->program->host[l->program->count - 1].last = 1;
}

static base_status add_gate_up(loader *l, const core_linear *w, base_error *err)
{
    if (w->part_count == 1) {
        return add_matrix(l, &w->parts[0], GPU_INTERLEAVED, false, GPU_TO_HIDDEN, 0, err);
    }
    /* Two types: both rows as f32 in one matrix, packed as f16. */
    size_t rows = w->parts[0].rows + w->parts[1].rows, columns = w->parts[0].columns;
    float *values = (float *)base_calloc(rows, columns * sizeof(float));
    if (!values) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory for %zu rows", rows);
    }
    size_t row = 0;
    for (size_t i = 0; i < w->part_count; i++) {
        for (size_t r = 0; r < w->parts[i].rows; r++, row++) {
            kernel_matrix_row(&w->parts[i], r, values + row * columns);
        }
    }
    kernel_matrix both;
    kernel_matrix_borrow_f32(&both, values, rows, columns);
    base_status status = add_matrix(l, &both, GPU_INTERLEAVED, true, GPU_TO_HIDDEN, 0, err);
    base_free(values);
    return status;
}

/* --- shared memory of the decode kernel ------------------------------------------------------- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static base_status plan_shared(gpu_model *model, const gpu_program *program, base_error *err)
{
    size_t partial = 0, phase = 0, x[2] = {0, model->shape.head_size * sizeof(float)};
    for (size_t i = 0; i < program->count; i++) {
        const gpu_matrix *m = &program->host[i];
        size_t items = m->groups / m->grain, k = m->columns;
        size_t mine = (items + model->blocks - 1) / model->blocks * m->grain;
        phase += mine * m->split * GPU_GROUP_ROWS;
        partial = larger(partial, phase);
        phase = m->last ? 0 : phase;
        bool coded = m->format == KERNEL_P4 || m->format == KERNEL_P8;
        size_t bytes = coded ? k * 2 + k / 32 * sizeof(float2) : k * sizeof(float);
        x[m->input] = larger(x[m->input], bytes);
    }
    x[0] =
        larger(x[0], sizeof(float) * GPU_WARPS * GPU_HEADS_AT_ONCE * (model->shape.head_size + 2));
    x[0] =
        larger(x[0], sizeof(float) * gpu_mixer_work(model->mixer.n, model->mixer.p, GPU_THREADS));
    model->x_bytes = (x[0] + 127) / 128 * 128;
    model->x2_bytes = (x[1] + 127) / 128 * 128;
    model->partial_floats = (partial + 31) / 32 * 32;
    gpu_decode_params p = {};
    p.x_bytes = (uint32_t)model->x_bytes;
    p.x2_bytes = (uint32_t)model->x2_bytes;
    p.partial_floats = (uint32_t)model->partial_floats;
    for (p.stages = 8; p.stages > 0 && gpu_decode_shared(&p) > model->shared_limit; p.stages--) {
    }
    model->stages = p.stages;
    if (p.stages == 0) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: the model's rows need %zu KiB of shared memory, %s has %zu KiB",
                         gpu_decode_shared(&p) >> 10, model->info.name, model->shared_limit >> 10);
    }
    cudaError_t code = gpu_decode_prepare(gpu_decode_shared(&p));
    return code == cudaSuccess ? BASE_OK
                               : gpu_fail(err, code, "shared memory of the decode kernel");
}

/* --- the model -------------------------------------------------------------------------------- */

/* Does it have what the decode kernel does not know? */
static bool by_products(const core_model *core)
{
    return core->mixer_layers > core->fading_layers || !core->rotates ||
           core->embedding_scale != 1.0f || core->residual_scale != 1.0f ||
           core->query_scale != 1.0f || core->logit_scale != 1.0f;
}

static base_status check_shape(const core_model *core, base_error *err)
{
    const core_shape *s = &core->shape;
    size_t most = by_products(core) ? 128 : 256;
    if (core->attention_planes > 0 && (s->head_size % 8 != 0 || s->head_size > most)) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: heads of %zu values (multiples of 8 up to %zu)", s->head_size, most);
    }
    if (s->channels % 8 != 0 || s->feed_forward % 8 != 0 ||
        s->channels > GPU_THREADS * 8 * GPU_NORM_CHUNKS) {
        return base_fail(err, BASE_UNSUPPORTED, "GPU: %zu channels and %zu feed-forward columns",
                         s->channels, s->feed_forward);
    }
    return BASE_OK;
}

static base_status upload_norms(gpu_model *model, const core_model *core, base_error *err)
{
    size_t c = model->shape.channels, rows = 2 * model->shape.layers + 1;
    float *host = (float *)base_calloc(rows, c * sizeof(float));
    void *device = NULL;
    if (!host) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    for (size_t i = 0; i < model->shape.layers; i++) {
        memcpy(host + 2 * i * c, core->layers[i].attention_norm, c * sizeof(float));
        if (core->layers[i].feed_forward_norm) {
            memcpy(host + (2 * i + 1) * c, core->layers[i].feed_forward_norm, c * sizeof(float));
        }
    }
    memcpy(host + (rows - 1) * c, core->output_norm, c * sizeof(float));
    base_status status =
        gpu_arena_take(&model->arena, rows * c * sizeof(float), "norms", &device, err);
    if (!status) {
        cudaError_t code =
            cudaMemcpy(device, host, rows * c * sizeof(float), cudaMemcpyHostToDevice);
        status = code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "upload of norms");
    }
    model->norms = (float *)device;
    base_free(host);
    return status;
}

/* f16 copies for the products of many tokens, where they take less than half of what is free. */
static base_status unpack_all(gpu_model *model, gpu_program *program, base_error *err)
{
    size_t bytes = 0, available = 0, total = 0;
    for (size_t i = 0; i < program->count; i++) {
        bytes += (size_t)program->host[i].rows * program->host[i].columns * sizeof(uint16_t);
    }
    GPU_TRY(cudaMemGetInfo(&available, &total));
    if (!gpu_prefill_takes(&model->shape) || bytes > available / 2) {
        return BASE_OK;
    }
    program->half = (uint16_t **)base_calloc(program->count, sizeof *program->half);
    if (!program->half) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    for (size_t i = 0; i < program->count; i++) {
        const gpu_matrix *m = &program->host[i];
        void *to = NULL;
        for (size_t j = 0; j < i && !to; j++) { /* the same weights are read twice */
            to = program->host[j].data == m->data ? program->half[j] : NULL;
        }
        program->half[i] = (uint16_t *)to;
        if (to) {
            continue;
        }
        base_status status =
            gpu_arena_take(&model->arena, (size_t)m->rows * m->columns * sizeof(uint16_t),
                           "f16 weights", &to, err);
        if (status) {
            return status;
        }
        program->half[i] = (uint16_t *)to;
        GPU_TRY(gpu_unpack_half(m, program->half[i], 0));
    }
    GPU_TRY(cudaStreamSynchronize(0));
    return BASE_OK;
}

/* --- small weights of every layer ------------------------------------------------------------- */

/* Floats of all layers, in host memory until they are complete. */
struct vectors {
    float *values;
    size_t count, capacity;
};

/* Where `size` floats will lie: their index plus 1, as a pointer, until place_vectors. NULL stays.
 */
static const float *keep_vector(vectors *v, const float *from, size_t size)
{
    if (!from || !v->values) {
        return NULL;
    }
    BASE_ASSERT(size <= v->capacity - v->count);
    memcpy(v->values + v->count, from, size * sizeof *from);
    v->count += size;
    return (const float *)(uintptr_t)(v->count - size + 1);
}

static void keep_mixer(gpu_layer *to, const core_fading *f, vectors *v)
{
    const mixer *m = &f->mixer;
    size_t width = mixer_conv_width(m);
    to->fading = (uint32_t)f->index;
    to->fading_plane = (uint32_t)f->plane;
    to->conv = keep_vector(v, m->conv, width * m->kernel);
    to->conv_bias = keep_vector(v, m->conv_bias, width);
    to->a = keep_vector(v, m->a, m->heads);
    to->dt_bias = keep_vector(v, m->dt_bias, m->heads);
    to->beta_bias = keep_vector(v, m->beta_bias, m->heads);
    to->alpha_bias = keep_vector(v, m->alpha_bias, m->heads);
    to->skip = keep_vector(v, m->skip, m->heads);
    to->conv_q_norm = keep_vector(v, m->q_norm, m->key_size);
    to->conv_k_norm = keep_vector(v, m->k_norm, m->key_size);
    to->norm = keep_vector(v, m->norm, m->norm_weights);
    to->gate = keep_vector(v, m->gate, m->heads);
}

/* The most that one layer can have. */
static size_t vectors_of(const core_model *core)
{
    const core_shape *s = &core->shape;
    size_t qkv = (s->heads + 2 * s->kv_heads) * s->head_size, most = qkv + 2 * s->head_size;
    for (size_t i = 0; i < s->layers; i++) {
        if (core->layers[i].fading) {
            const mixer *m = &core->layers[i].fading->mixer;
            most = qkv + 2 * s->head_size + mixer_conv_width(m) * (m->kernel + 1) + 8 * m->heads +
                   2 * m->key_size + m->norm_weights;
        }
    }
    return most;
}

static const float *placed(const float *index, const float *device)
{
    return index ? device + ((uintptr_t)index - 1) : NULL;
}

static void place_vectors(gpu_layer *l, const float *device)
{
    const float **list[] = {&l->qkv_bias,   &l->q_norm, &l->k_norm,      &l->conv,
                            &l->conv_bias,  &l->a,      &l->dt_bias,     &l->beta_bias,
                            &l->alpha_bias, &l->skip,   &l->conv_q_norm, &l->conv_k_norm,
                            &l->norm,       &l->gate};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        *list[i] = placed(*list[i], device);
    }
}

static base_status upload_layers(gpu_model *model, const core_model *core, base_error *err)
{
    const core_shape *s = &core->shape;
    size_t capacity = s->layers * vectors_of(core), bytes = s->layers * sizeof(gpu_layer);
    vectors v = {(float *)base_calloc(capacity, sizeof(float)), 0, capacity};
    void *device = NULL, *table = NULL;
    gpu_layer *plain = (gpu_layer *)base_calloc(s->layers, sizeof *plain);
    base_status status = v.values && plain ? gpu_arena_take(&model->arena, capacity * sizeof(float),
                                                            "layers", &device, err)
                                           : base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    if (!status) {
        status = gpu_arena_take(&model->arena, 2 * bytes, "layers", &table, err);
    }
    for (size_t i = 0; i < s->layers && !status; i++) {
        const core_layer *from = &core->layers[i];
        gpu_layer *to = &model->host_layers[i];
        to->plane = (uint32_t)from->plane;
        to->fading = UINT32_MAX;
        to->qkv_bias = keep_vector(&v, from->qkv_bias, (s->heads + 2 * s->kv_heads) * s->head_size);
        to->q_norm = keep_vector(&v, from->q_norm, s->head_size);
        to->k_norm = keep_vector(&v, from->k_norm, s->head_size);
        if (from->fading) {
            keep_mixer(to, from->fading, &v);
        }
        to->recurrent = from->recurrent;
        place_vectors(to, (const float *)device);
        plain[i] = *to;
        plain[i].fading = from->recurrent ? to->fading : UINT32_MAX;
    }
    model->layers = (gpu_layer *)table;
    model->plain_layers = model->layers + s->layers;
    if (!status) {
        cudaError_t code =
            cudaMemcpy(device, v.values, capacity * sizeof(float), cudaMemcpyHostToDevice);
        if (code == cudaSuccess) {
            code = cudaMemcpy(model->layers, model->host_layers, bytes, cudaMemcpyHostToDevice);
        }
        if (code == cudaSuccess) {
            code = cudaMemcpy(model->plain_layers, plain, bytes, cudaMemcpyHostToDevice);
        }
        status = code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "upload of layers");
    }
    base_free(plain);
    base_free(v.values);
    return status;
}

/* --- the programs ----------------------------------------------------------------------------- */

static base_status add_feed_forward(loader *l, const core_layer *layer, base_error *err)
{
    base_status status = add_gate_up(l, &layer->gate_up, err);
    if (!status) {
        end_phase(l);
        status = add_linear(l, &layer->down, false, GPU_TO_RESIDUAL, 0, err);
    }
    if (!status) {
        end_phase(l);
    }
    return status;
}

/* A mixer in place of attention; mamba2's layers end there. */
static base_status add_recurrent(loader *l, const core_layer *layer, base_error *err)
{
    const core_fading *f = layer->fading;
    size_t width = mixer_conv_width(&f->mixer);
    base_status status = add_linear(l, &f->qkv, false, GPU_TO_RECURRENT, 0, err);
    if (status || (status = add_linear(l, &f->gates, false, GPU_TO_RECURRENT, width, err))) {
        return status;
    }
    end_phase(l);
    if ((status = add_linear(l, &f->output, false, GPU_TO_RESIDUAL, 0, err))) {
        return status;
    }
    end_phase(l);
    return layer->feed_forward_norm ? add_feed_forward(l, layer, err) : BASE_OK;
}

static base_status add_layer(loader *l, const core_model *core, const core_layer *layer,
                             base_error *err)
{
    if (layer->recurrent) {
        return add_recurrent(l, layer, err);
    }
    const core_shape *s = &core->shape;
    const core_fading *f = layer->fading;
    size_t q_width = s->heads * s->head_size;
    const core_linear *first[4] = {&layer->qkv, &layer->kv, f ? &f->qkv : &layer->kv,
                                   f ? &f->gates : &layer->kv};
    bool mixed = is_mixed(first, 4);
    base_status status;
    if ((status = add_linear(l, &layer->qkv, mixed, GPU_TO_QKV, 0, err)) ||
        (status = add_linear(l, &layer->kv, mixed, GPU_TO_QKV, q_width, err))) {
        return status;
    }
    size_t kv_end = l->program->count, kv_begin = kv_end - layer->kv.part_count;
    if (f && ((status = add_linear(l, &f->qkv, mixed, GPU_TO_MIXER, 0, err)) ||
              (status = add_linear(l, &f->gates, mixed, GPU_TO_MIXER, mixer_conv_width(&f->mixer),
                                   err)))) {
        return status;
    }
    end_phase(l);
    if ((status = add_linear(l, &layer->output, false, GPU_TO_RESIDUAL, 0, err)) ||
        (f && (status = add_linear(l, &f->output, false, GPU_TO_FADING, 0, err)))) {
        return status;
    }
    end_phase(l);
    if ((status = add_gate_up(l, &layer->gate_up, err))) {
        return status;
    }
    for (size_t i = kv_begin; f && i < kv_end; i++) { /* the same weights again, for f */
        gpu_matrix *again = &l->program->host[l->program->count++];
        *again = l->program->host[i];
        again->to = GPU_TO_FADING_KV;
        again->input = 1;
        again->last = 0;
        again->row0 -= (uint32_t)q_width;
    }
    end_phase(l);
    status = add_linear(l, &layer->down, false, GPU_TO_RESIDUAL, 0, err);
    if (!status) {
        end_phase(l);
    }
    return status;
}

/* The program without what only fading layers do. */
static void leave_out_fading(const gpu_program *all, gpu_program *plain)
{
    for (size_t i = 0; i <= all->count; i++) {
        const gpu_matrix *m = &all->host[i];
        bool extra = i < all->count &&
                     (m->to == GPU_TO_MIXER || m->to == GPU_TO_FADING || m->to == GPU_TO_FADING_KV);
        if (!extra) {
            plain->host[plain->count++] = *m;
        }
        if (m->last) {
            plain->host[plain->count - 1].last = 1;
        }
    }
    plain->count--; /* the embedding */
}

static base_status upload_program(gpu_model *model, gpu_program *program, base_error *err)
{
    size_t bytes = (program->count + 1) * sizeof(gpu_matrix);
    void *device = NULL;
    base_status status = gpu_arena_take(&model->arena, bytes, "the program", &device, err);
    if (status) {
        return status;
    }
    program->device = (gpu_matrix *)device;
    GPU_TRY(cudaMemcpy(program->device, program->host, bytes, cudaMemcpyHostToDevice));
    for (size_t i = 0; i < program->count; i++) {
        program->weight_bytes += (size_t)program->host[i].groups * program->host[i].group_bytes;
    }
    return BASE_OK;
}

/* The superset of both programs. */
static base_status load_program(loader *l, const core_model *core, base_error *err)
{
    const core_shape *s = &core->shape;
    gpu_program *program = l->program;
    base_status status = BASE_OK;
    for (size_t i = 0; i < s->layers; i++) {
        if ((status = add_layer(l, core, &core->layers[i], err))) {
            base_error_prefix(err, "layer %zu: ", i);
            return status;
        }
    }
    const kernel_matrix *output = s->tied_output ? &core->embedding : &core->output;
    if ((status = add_matrix(l, output, GPU_STACKED, false, GPU_TO_LOGITS, 0, err))) {
        return status;
    }
    end_phase(l);
    if (s->tied_output) {
        program->host[program->count] = program->host[program->count - 1];
        return BASE_OK;
    }
    status = add_matrix(l, &core->embedding, GPU_STACKED, false, GPU_TO_LOGITS, 0, err);
    program->count -= status ? 0 : 1;
    return status;
}

static void set_mixer(gpu_model *model, const core_model *core)
{
    for (size_t i = 0; i < core->shape.layers; i++) {
        const core_fading *f = core->layers[i].fading;
        if (f) {
            const mixer *m = &f->mixer;
            gpu_mixer *to = &model->mixer;
            to->kind = (uint32_t)m->kind;
            to->heads = (uint32_t)m->heads;
            to->q_heads = (uint32_t)m->q_heads;
            to->k_heads = (uint32_t)m->k_heads;
            to->v_heads = (uint32_t)m->v_heads;
            to->n = (uint32_t)m->key_size;
            to->p = (uint32_t)m->value_size;
            to->kernel = (uint32_t)m->kernel;
            to->norm_weights = (uint32_t)m->norm_weights;
            to->norm_group = (uint32_t)m->norm_group;
            to->iterations = (uint32_t)m->iterations;
            to->row = (uint32_t)mixer_row(m);
            to->conv_width = (uint32_t)mixer_conv_width(m);
            to->floats = (uint32_t)(mixer_state_floats(m) - (m->kernel - 1) * mixer_conv_width(m));
            to->head_state = to->floats / to->heads;
            to->eps = m->norm_eps;
            to->ridge = m->ridge;
            return;
        }
    }
}

/* The plain program's f16 copies are among those of all. */
static base_status share_half(const gpu_program *all, gpu_program *plain, base_error *err)
{
    plain->half = (uint16_t **)base_calloc(plain->count, sizeof *plain->half);
    if (!plain->half) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    for (size_t i = 0; i < plain->count; i++) {
        for (size_t j = 0; j < all->count && !plain->half[i]; j++) {
            plain->half[i] = all->host[j].data == plain->host[i].data ? all->half[j] : NULL;
        }
    }
    return BASE_OK;
}

static base_status load(loader *l, const core_model *core, base_error *err)
{
    gpu_model *model = l->model;
    gpu_program *plain = &model->programs[0], *all = &model->programs[model->hybrid];
    base_status status;
    set_mixer(model, core);
    l->program = all;
    if ((status = load_program(l, core, err))) {
        return status;
    }
    if (model->hybrid) {
        leave_out_fading(all, plain);
    }
    for (size_t i = 0; i <= (size_t)model->hybrid; i++) {
        if ((status = upload_program(model, &model->programs[i], err))) {
            return status;
        }
    }
    if ((status = upload_norms(model, core, err)) || (status = upload_layers(model, core, err)) ||
        (!model->by_products && (status = plan_shared(model, all, err))) ||
        (status = unpack_all(model, all, err))) {
        return status;
    }
    return model->hybrid && all->half ? share_half(all, plain, err) : BASE_OK;
}

base_status gpu_model_create(const core_model *core, gpu_model **out, base_error *err)
{
    gpu_info info;
    base_status status = gpu_probe(&info, err);
    if (status || (status = check_shape(core, err))) {
        return status;
    }
    gpu_model *model = (gpu_model *)base_calloc(1, sizeof *model);
    if (!model) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    loader l = {model, NULL, NULL};
    cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceProperties(&properties, 0);
    size_t half = core->shape.head_size / 2;
    model->shape = core->shape;
    model->info = info;
    model->blocks = (size_t)info.multiprocessors;
    model->shared_limit = properties.sharedMemPerBlockOptin;
    model->hybrid = core->fading_layers > 0;
    model->fading_residual = core->fading_residual;
    model->rope_halves = core->rope_halves;
    model->attention_planes = core->attention_planes;
    model->by_products = by_products(core);
    model->embedding_scale = core->embedding_scale;
    model->residual_scale = core->residual_scale;
    model->query_scale = core->query_scale;
    model->logit_scale = core->logit_scale;
    model->mixer_layers = core->mixer_layers;
    model->program_max = core->shape.layers * 20 + 2;
    model->host_layers = (gpu_layer *)base_calloc(core->shape.layers, sizeof *model->host_layers);
    bool room = model->host_layers != NULL;
    for (size_t i = 0; i < 2; i++) {
        model->programs[i].host = (gpu_matrix *)base_calloc(model->program_max, sizeof(gpu_matrix));
        room = room && model->programs[i].host;
    }
    model->frequencies = (float *)base_alloc(half * sizeof(float));
    if (code != cudaSuccess) {
        status = gpu_fail(err, code, "device properties");
    } else if (!room || !model->frequencies) {
        status = base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    } else if (!(status = base_pool_create(0, &l.pool, err))) {
        memset(model->frequencies, 0, half * sizeof(float)); /* rotations by nothing */
        if (core->rotates) {
            memcpy(model->frequencies, core->frequencies, half * sizeof(float));
        }
        status = load(&l, core, err);
    }
    base_pool_free(l.pool);
    if (status) {
        gpu_model_close(model);
        return status;
    }
    *out = model;
    return BASE_OK;
}

void gpu_model_close(gpu_model *model)
{
    if (model) {
        gpu_arena_free(&model->arena);
        for (size_t i = 0; i < 2; i++) {
            base_free(model->programs[i].host);
            base_free(model->programs[i].half);
        }
        base_free(model->host_layers);
        base_free(model->frequencies);
        base_free(model);
    }
}

size_t gpu_model_weight_bytes(const gpu_model *model, bool hybrid)
{
    return model->by_products ? gpu_batch_weight_bytes(model, hybrid)
                              : model->programs[hybrid && model->hybrid].weight_bytes;
}
