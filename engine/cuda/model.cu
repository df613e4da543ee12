/* engine/cuda/model.cu: copy a loaded model to the device in the order in which decode.cu reads it.
 *
 * QKV rows form one matrix where their types agree (core_linear), else up to three in one phase.
 * Gate and up rows are interleaved by groups of 8, so that one block holds both sides of a product;
 * where their types differ, both become f16.
 */
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
    size_t count; /* matrices placed */
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
                              size_t row0, bool last, base_error *err)
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
    gpu_matrix *m = &l->model->host_program[l->count++];
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
    m->last = last;
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

/* Query, key and value rows. Parts of a phase share their activations: all coded or all plain. */
static base_status add_qkv(loader *l, const core_linear *w, base_error *err)
{
    bool mixed = false;
    for (size_t i = 1; i < w->part_count; i++) {
        mixed |= is_coded(&w->parts[i]) != is_coded(&w->parts[0]);
    }
    size_t row = 0;
    for (size_t i = 0; i < w->part_count; i++) {
        base_status status =
            add_matrix(l, &w->parts[i], GPU_STACKED, mixed && is_coded(&w->parts[i]), row,
                       i + 1 == w->part_count, err);
        if (status) {
            return status;
        }
        row += w->parts[i].rows;
    }
    return BASE_OK;
}

static base_status add_gate_up(loader *l, const core_linear *w, base_error *err)
{
    if (w->part_count == 1) {
        return add_matrix(l, &w->parts[0], GPU_INTERLEAVED, false, 0, true, err);
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
    base_status status = add_matrix(l, &both, GPU_INTERLEAVED, true, 0, true, err);
    base_free(values);
    return status;
}

/* --- shared memory of the decode kernel ------------------------------------------------------- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static base_status plan_shared(gpu_model *model, base_error *err)
{
    size_t partial = 0, phase = 0;
    size_t x = sizeof(float) * GPU_WARPS * GPU_HEADS_AT_ONCE * (model->shape.head_size + 2);
    for (size_t i = 0; i < model->program_count; i++) {
        const gpu_matrix *m = &model->host_program[i];
        size_t items = m->groups / m->grain, k = m->columns;
        size_t mine = (items + model->blocks - 1) / model->blocks * m->grain;
        phase += mine * m->split * GPU_GROUP_ROWS;
        partial = larger(partial, phase);
        phase = m->last ? 0 : phase;
        bool coded = m->format == KERNEL_P4 || m->format == KERNEL_P8;
        x = larger(x, coded ? k * 2 + k / 32 * sizeof(float2) : k * sizeof(float));
    }
    model->x_bytes = (x + 127) / 128 * 128;
    model->partial_floats = (partial + 31) / 32 * 32;
    gpu_decode_params p = {};
    p.x_bytes = (uint32_t)model->x_bytes;
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

static base_status check_shape(const core_shape *s, base_error *err)
{
    if (s->head_size % 8 != 0 || s->head_size > 256) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: heads of %zu values (multiples of 8 up to 256)", s->head_size);
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
        memcpy(host + (2 * i + 1) * c, core->layers[i].feed_forward_norm, c * sizeof(float));
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
static base_status unpack_all(gpu_model *model, base_error *err)
{
    size_t bytes = 0, available = 0, total = 0;
    for (size_t i = 0; i < model->program_count; i++) {
        bytes +=
            (size_t)model->host_program[i].rows * model->host_program[i].columns * sizeof(uint16_t);
    }
    GPU_TRY(cudaMemGetInfo(&available, &total));
    if (!gpu_prefill_takes(&model->shape) || bytes > available / 2) {
        return BASE_OK;
    }
    model->half = (uint16_t **)base_calloc(model->program_count, sizeof *model->half);
    if (!model->half) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    for (size_t i = 0; i < model->program_count; i++) {
        const gpu_matrix *m = &model->host_program[i];
        void *to = NULL;
        base_status status =
            gpu_arena_take(&model->arena, (size_t)m->rows * m->columns * sizeof(uint16_t),
                           "f16 weights", &to, err);
        if (status) {
            return status;
        }
        model->half[i] = (uint16_t *)to;
        GPU_TRY(gpu_unpack_half(m, model->half[i], 0));
    }
    GPU_TRY(cudaStreamSynchronize(0));
    return BASE_OK;
}

static base_status load(loader *l, const core_model *core, base_error *err)
{
    gpu_model *model = l->model;
    const core_shape *s = &core->shape;
    base_status status;
    for (size_t i = 0; i < s->layers; i++) {
        const core_layer *layer = &core->layers[i];
        if ((status = add_qkv(l, &layer->qkv, err)) ||
            (status = add_matrix(l, &layer->output.parts[0], GPU_STACKED, false, 0, true, err)) ||
            (status = add_gate_up(l, &layer->gate_up, err)) ||
            (status = add_matrix(l, &layer->down.parts[0], GPU_STACKED, false, 0, true, err))) {
            base_error_prefix(err, "layer %zu: ", i);
            return status;
        }
    }
    const kernel_matrix *output = s->tied_output ? &core->embedding : &core->output;
    if ((status = add_matrix(l, output, GPU_STACKED, false, 0, true, err))) {
        return status;
    }
    model->program_count = l->count;
    for (size_t i = 0; i < l->count; i++) {
        model->weight_bytes +=
            (size_t)model->host_program[i].groups * model->host_program[i].group_bytes;
    }
    if (s->tied_output) {
        model->host_program[l->count] = model->host_program[l->count - 1];
    } else if ((status = add_matrix(l, &core->embedding, GPU_STACKED, false, 0, true, err))) {
        return status;
    }
    size_t bytes = (model->program_count + 1) * sizeof(gpu_matrix);
    void *device = NULL;
    if ((status = gpu_arena_take(&model->arena, bytes, "the program", &device, err)) ||
        (status = upload_norms(model, core, err)) || (status = plan_shared(model, err))) {
        return status;
    }
    model->program = (gpu_matrix *)device;
    GPU_TRY(cudaMemcpy(model->program, model->host_program, bytes, cudaMemcpyHostToDevice));
    return unpack_all(model, err);
}

base_status gpu_model_create(const core_model *core, gpu_model **out, base_error *err)
{
    gpu_info info;
    base_status status = gpu_probe(&info, err);
    if (status || (status = check_shape(&core->shape, err))) {
        return status;
    }
    gpu_model *model = (gpu_model *)base_calloc(1, sizeof *model);
    if (!model) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    loader l = {model, NULL, 0};
    cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceProperties(&properties, 0);
    size_t half = core->shape.head_size / 2;
    model->shape = core->shape;
    model->info = info;
    model->blocks = (size_t)info.multiprocessors;
    model->shared_limit = properties.sharedMemPerBlockOptin;
    model->host_program =
        (gpu_matrix *)base_calloc(core->shape.layers * 6 + 2, sizeof *model->host_program);
    model->frequencies = (float *)base_alloc(half * sizeof(float));
    if (code != cudaSuccess) {
        status = gpu_fail(err, code, "device properties");
    } else if (!model->host_program || !model->frequencies) {
        status = base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    } else if (!(status = base_pool_create(0, &l.pool, err))) {
        memcpy(model->frequencies, core->frequencies, half * sizeof(float));
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

base_status gpu_model_open(const char *gguf_path, gpu_model **out, base_error *err)
{
    gpu_info info;
    core_model *core = NULL;
    base_status status = gpu_probe(&info, err);
    if (status || (status = core_model_open(gguf_path, NULL, &core, err))) {
        return status;
    }
    status = gpu_model_create(core, out, err);
    core_model_close(core);
    return status;
}

void gpu_model_close(gpu_model *model)
{
    if (model) {
        gpu_arena_free(&model->arena);
        base_free(model->host_program);
        base_free(model->half);
        base_free(model->frequencies);
        base_free(model);
    }
}

size_t gpu_model_weight_bytes(const gpu_model *model)
{
    return model->weight_bytes;
}
