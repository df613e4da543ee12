/* engine/cuda/mixers.cu: the mixers of fading layers over many tokens, and their states as the host
 * wants them. One token: mixer_step.cuh; chunks: scan.cu. Twins: mixer_run; fading.c.
 *
 * In steps: a block takes a head and walks through the tokens with the state in shared memory where
 * it fits. Before every CORE_SNAPSHOT_EVERY-th token the state is copied aside, as fading.c does.
 */
#include "engine/cuda/mixer_step.cuh"
#include "engine/cuda/prefill.cuh"

enum { SCAN_THREADS = 256 };

static __device__ void copy_floats(float *to, const float *from, uint32_t count)
{
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        to[i] = from[i];
    }
    __syncthreads();
}

/* Block = head. state_bytes: of shared memory for the state; 0: it stays where it is. */
static __global__ void __launch_bounds__(SCAN_THREADS)
    scan_kernel(const __grid_constant__ gpu_scan_params p, uint32_t state_bytes)
{
    GPU_SHARED(memory);
    const gpu_mixer &m = p.mixer;
    uint32_t h = blockIdx.x;
    float *own = p.states + (size_t)h * m.head_state;
    float *state = state_bytes ? (float *)memory : own;
    float *work = (float *)(memory + state_bytes);
    if (state_bytes) {
        copy_floats(state, own, m.head_state);
    }
    for (uint32_t t = p.first; t < p.end; t++) {
        if (t % CORE_SNAPSHOT_EVERY == 0 && t + CORE_SNAPSHOTS * CORE_SNAPSHOT_EVERY >= p.end) {
            size_t number = t / CORE_SNAPSHOT_EVERY % CORE_SNAPSHOTS;
            copy_floats(p.snapshots + number * m.floats + (size_t)h * m.head_state, state,
                        m.head_state);
        }
        (void)gpu_mixer_token<true>(m, *p.layer, h, p.rows, t, state, false, work);
        const float *o = gpu_mixer_space_of(m, work).o;
        for (uint32_t j = threadIdx.x; p.out && j < m.p; j += blockDim.x) {
            p.out[(size_t)(t - p.first) * m.heads * m.p + h * m.p + j] = gpu_float_to_half(o[j]);
        }
        __syncthreads();
    }
    if (state_bytes) {
        copy_floats(own, state, m.head_state);
    }
}

/* Shared memory: the state, where that leaves room for two blocks or so, and the work space. */
static uint32_t steps_state_bytes(const gpu_mixer *m, size_t shared_limit)
{
    size_t bytes = (size_t)m->head_state * sizeof(float);
    return bytes + 16384 <= shared_limit ? (uint32_t)((bytes + 15) / 16 * 16) : 0;
}

static size_t steps_shared(const gpu_mixer *m, size_t shared_limit)
{
    return steps_state_bytes(m, shared_limit) +
           sizeof(float) * gpu_mixer_work(m->n, m->p, SCAN_THREADS);
}

cudaError_t gpu_steps_prepare(const gpu_mixer *m, size_t shared_limit)
{
    return cudaFuncSetAttribute(scan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)steps_shared(m, shared_limit));
}

cudaError_t gpu_steps_launch(const gpu_scan_params *p, size_t shared_limit, cudaStream_t queue)
{
    return gpu_launch(false, scan_kernel, dim3(p->mixer.heads), dim3(SCAN_THREADS),
                      steps_shared(&p->mixer, shared_limit), queue, *p,
                      steps_state_bytes(&p->mixer, shared_limit));
}

static float *states_of(const gpu_stream *s, size_t fading)
{
    return s->params.states + fading * s->params.mixer.floats;
}

base_status gpu_scan(gpu_stream *s, size_t layer, const float *batch, size_t first, size_t count,
                     uint16_t *out, float *scratch, base_error *err)
{
    const gpu_mixer *m = &s->params.mixer;
    size_t fading = s->model->host_layers[layer].fading;
    float *ring = s->params.rows + fading * s->params.mixer_kept;
    gpu_scan_params p = {};
    p.mixer = *m;
    p.layer = s->params.layer_table + layer;
    p.rows = {ring, batch, batch ? (uint32_t)first : UINT32_MAX};
    p.first = (uint32_t)first;
    p.end = (uint32_t)(first + count);
    p.states = states_of(s, fading);
    p.snapshots = ring - (size_t)CORE_SNAPSHOTS * m->floats;
    p.out = out;
    p.scratch = scratch;
    p.chunk = gpu_chunk_size(m, s->model->shared_limit);
    GPU_TRY(scratch ? gpu_chunks_launch(&p, s->queue)
                    : gpu_steps_launch(&p, s->model->shared_limit, s->queue));
    /* The last rows of the batch stay: in at most two pieces, as the ring comes round. */
    size_t keep = count < (size_t)GPU_MIXER_ROWS ? count : (size_t)GPU_MIXER_ROWS;
    for (size_t t = first + count - keep, piece; batch && t < first + count; t += piece) {
        size_t at = t % GPU_MIXER_ROWS;
        piece = first + count - t < GPU_MIXER_ROWS - at ? first + count - t : GPU_MIXER_ROWS - at;
        GPU_TRY(cudaMemcpyAsync(ring + at * m->row, batch + (t - first) * m->row,
                                piece * m->row * sizeof(float), cudaMemcpyDeviceToDevice,
                                s->queue));
    }
    return BASE_OK;
}

/* Every layer's states to or from copy number `number`. */
static base_status copy_snapshot(gpu_stream *s, size_t number, bool back, cudaStream_t queue,
                                 base_error *err)
{
    size_t floats = s->params.mixer.floats, row = floats * sizeof(float);
    size_t kept = s->params.mixer_kept * sizeof(float);
    float *aside = s->params.rows - (size_t)CORE_SNAPSHOTS * floats + number * floats;
    GPU_TRY(cudaMemcpy2DAsync(back ? s->params.states : aside, back ? row : kept,
                              back ? aside : s->params.states, back ? kept : row, row,
                              s->model->mixer_layers, cudaMemcpyDeviceToDevice, queue));
    return BASE_OK;
}

base_status gpu_snapshot(gpu_stream *s, size_t number, cudaStream_t queue, base_error *err)
{
    return number % CORE_SNAPSHOT_EVERY == 0
               ? copy_snapshot(s, number / CORE_SNAPSHOT_EVERY % CORE_SNAPSHOTS, false, queue, err)
               : BASE_OK;
}

/* --- for the host ----------------------------------------------------------------------------- */

/* "what running again needs" begins with the snapshots, and the rows follow. */
static float *before_of(const gpu_stream *s)
{
    return s->params.rows - (size_t)CORE_SNAPSHOTS * s->params.mixer.floats;
}

static size_t states_bytes(const gpu_stream *s)
{
    return s->model->mixer_layers * s->params.mixer.floats * sizeof(float);
}

static size_t before_bytes(const gpu_stream *s)
{
    return s->model->mixer_layers * s->params.mixer_kept * sizeof(float);
}

static base_status clear(gpu_stream *s, base_error *err)
{
    GPU_TRY(cudaMemsetAsync(s->params.states, 0, states_bytes(s), s->queue));
    GPU_TRY(cudaMemsetAsync(before_of(s), 0, before_bytes(s), s->queue));
    return BASE_OK;
}

void gpu_mixers_clear(gpu_stream *s)
{
    base_error err = {};
    if (!s->broken.code) {
        (void)gpu_stream_check(s, clear(s, &err), &err);
    }
}

static base_status rewind_to(gpu_stream *s, size_t snapshot, size_t from, size_t end,
                             base_error *err)
{
    base_status status = copy_snapshot(s, snapshot, true, s->queue, err);
    for (size_t i = 0; i < s->model->shape.layers && from < end && !status; i++) {
        if (s->model->host_layers[i].fading != UINT32_MAX) {
            status = gpu_scan(s, i, NULL, from, end - from, NULL, NULL, err);
        }
    }
    return status;
}

void gpu_mixers_rewind(gpu_stream *s, size_t snapshot, size_t from, size_t end)
{
    base_error err = {};
    if (!s->broken.code) {
        (void)gpu_stream_check(s, rewind_to(s, snapshot, from, end, &err), &err);
    }
}

static base_status copy_out(gpu_stream *s, float *states, float *before, base_error *err)
{
    GPU_TRY(cudaMemcpyAsync(states, s->params.states, states_bytes(s), cudaMemcpyDeviceToHost,
                            s->queue));
    GPU_TRY(
        cudaMemcpyAsync(before, before_of(s), before_bytes(s), cudaMemcpyDeviceToHost, s->queue));
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return BASE_OK;
}

void gpu_mixers_read(gpu_stream *s, float *states, float *before)
{
    base_error err = {};
    base_status status = gpu_stream_usable(s, &err);
    if (!status) {
        status = gpu_stream_check(s, copy_out(s, states, before, &err), &err);
    }
    if (status) {
        memset(states, 0, states_bytes(s));
        memset(before, 0, before_bytes(s));
    }
}

static base_status copy_in(gpu_stream *s, const float *states, const float *before, base_error *err)
{
    GPU_TRY(cudaMemcpyAsync(s->params.states, states, states_bytes(s), cudaMemcpyHostToDevice,
                            s->queue));
    GPU_TRY(
        cudaMemcpyAsync(before_of(s), before, before_bytes(s), cudaMemcpyHostToDevice, s->queue));
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return BASE_OK;
}

void gpu_mixers_write(gpu_stream *s, const float *states, const float *before)
{
    base_error err = {};
    if (!s->broken.code) {
        (void)gpu_stream_check(s, copy_in(s, states, before, &err), &err);
    }
}

void gpu_mixers_watch(gpu_stream *s, bool on)
{
    s->params.measures = on;
}

static base_status read_innovation(gpu_stream *s, float *innovation, base_error *err)
{
    GPU_TRY(cudaMemcpyAsync(innovation, s->params.innovation,
                            s->host->model->fading_layers * s->params.mixer.heads * sizeof(float),
                            cudaMemcpyDeviceToHost, s->queue));
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return BASE_OK;
}

base_status gpu_mixers_innovation(gpu_stream *s, float *innovation, base_error *err)
{
    base_status status = gpu_stream_usable(s, err);
    if (!status && s->alone) {
        return base_fail(err, BASE_UNSUPPORTED, "GPU: innovations of models with recurrent layers");
    }
    return status ? status : gpu_stream_check(s, read_innovation(s, innovation, err), err);
}
