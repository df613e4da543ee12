/* engine/cuda/rows.cu: rows of keys and values in a stream's device memory: move, rotate, read and
 * write them. Contracts: gpu.h; what a move means: window.c.
 *
 * Keys and values lie as [planes, slots_max, G*D]. Moved rows pass through scratch memory in
 * pieces, because the two places may overlap. A block that comes in (a memory from disk) is copied
 * to page-locked memory, uploaded on a queue of its own while the kernels' queue goes on, and put
 * into its places by a kernel that waits for the upload alone; the host waits for nothing, unless
 * GPU_STAGES blocks are under way.
 */
#include "engine/cuda/internal.cuh"
#include "engine/cuda/slots.cuh"

/* --- rotations -------------------------------------------------------------------------------- */

struct angles_params {
    float2 *turns; /* [2 * slots_max, half] */
    const float *frequencies;
    uint32_t slots_max, half, sinks, gone;
};

/* Thread = one angle of the table of places or of positions (gpu_paths.h). */
static __global__ void angles_kernel(angles_params p)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= 2 * p.slots_max * p.half) {
        return;
    }
    uint32_t row = i / p.half, place = row < p.slots_max ? row : row - p.slots_max;
    bool of_place = row >= p.slots_max && place >= p.sinks;
    double angle = (double)(of_place ? place + p.gone : place) * (double)p.frequencies[i % p.half];
    p.turns[i] = make_float2((float)cos(angle), (float)sin(angle));
}

base_status gpu_angles(gpu_stream *s, base_error *err)
{
    uint32_t half = (uint32_t)s->model->shape.head_size / 2;
    angles_params p = {s->turns, s->frequencies,           (uint32_t)s->slots_max,
                       half,     (uint32_t)s->host->sinks, (uint32_t)s->host->gone};
    uint32_t blocks = (2 * p.slots_max * half + 255) / 256;
    GPU_TRY(gpu_launch(false, angles_kernel, dim3(blocks), dim3(256), 0, s->queue, p));
    s->turns_sinks = s->host->sinks;
    s->turns_gone = s->host->gone;
    return BASE_OK;
}

/* Block (place - from, plane); a thread rotates pairs. */
static __global__ void rotate_kernel(gpu_rotate_params p)
{
    uint32_t place = p.from + blockIdx.x, half = p.head_size / 2;
    size_t row = ((size_t)blockIdx.y * p.slots_max + place) * p.kv_width;
    const float2 *turns = p.turns + (size_t)place * half;
    for (uint32_t i = threadIdx.x; i < p.kv_width / 2; i += blockDim.x) {
        uint2 pair = gpu_pair(i % half, p.head_size, p.halves != 0);
        size_t head = row + i / half * p.head_size;
        float2 turn = turns[i % half];
        float a = gpu_half_to_float(p.keys[head + pair.x]);
        float b = gpu_half_to_float(p.keys[head + pair.y]);
        p.rotated[head + pair.x] = gpu_float_to_half(a * turn.x - b * turn.y);
        p.rotated[head + pair.y] = gpu_float_to_half(a * turn.y + b * turn.x);
    }
}

cudaError_t gpu_rotate_launch(const gpu_rotate_params *p, uint32_t count, uint32_t planes,
                              cudaStream_t queue)
{
    uint32_t threads = (p->kv_width / 2 + 31) / 32 * 32;
    return gpu_launch(false, rotate_kernel, dim3(count, planes),
                      dim3(threads < 256 ? threads : 256), 0, queue, *p);
}

static base_status rotate(gpu_stream *s, size_t from, size_t to, base_error *err)
{
    base_status status = gpu_stream_follow(s, to, err);
    if (status || s->planes == 0) {
        return status;
    }
    size_t half = s->model->shape.head_size / 2;
    gpu_rotate_params p = {
        s->params.keys,         s->params.rotated, s->turns + s->slots_max * half,
        (uint32_t)s->slots_max, (uint32_t)from,    (uint32_t)s->kv_width,
        s->params.head_size,    s->params.halves};
    GPU_TRY(gpu_rotate_launch(&p, (uint32_t)(to - from), (uint32_t)s->planes, s->queue));
    return BASE_OK;
}

void gpu_rows_rotate(gpu_stream *s, size_t from, size_t to)
{
    base_error err = {};
    if (from < to && !s->broken.code) {
        (void)gpu_stream_check(s, rotate(s, from, to, &err), &err);
    }
}

/* --- moving ----------------------------------------------------------------------------------- */

/* Block (row, plane, array): 16 bytes a thread at a time. */
static __global__ void rows_kernel(const __grid_constant__ gpu_rows_params p)
{
    uint16_t *place =
        p.arrays[blockIdx.z] + ((size_t)blockIdx.y * p.slots_max + p.at + blockIdx.x) * p.width;
    uint16_t *packed = p.packed + (((size_t)blockIdx.y * gridDim.z + blockIdx.z) * p.packed_slots +
                                   p.packed_at + blockIdx.x) *
                                      p.width;
    for (uint32_t c = threadIdx.x * 8; c < p.width; c += blockDim.x * 8) {
        uint4 *to = (uint4 *)((p.into ? place : packed) + c);
        *to = *(const uint4 *)((p.into ? packed : place) + c);
    }
}

cudaError_t gpu_rows_launch(const gpu_rows_params *p, uint32_t count, uint32_t planes,
                            uint32_t arrays, cudaStream_t queue)
{
    uint32_t threads = (p->width / 8 + 31) / 32 * 32;
    return gpu_launch(false, rows_kernel, dim3(count, planes, arrays),
                      dim3(threads < 256 ? threads : 256), 0, queue, *p);
}

static base_status copy_rows(gpu_stream *s, size_t planes, unsigned arrays, size_t at, size_t count,
                             void *packed, size_t packed_slots, size_t packed_at, bool into,
                             base_error *err)
{
    gpu_rows_params p = {{s->params.keys, s->params.values, s->params.rotated},
                         (uint16_t *)packed,
                         (uint32_t)s->slots_max,
                         (uint32_t)s->kv_width,
                         (uint32_t)at,
                         (uint32_t)packed_slots,
                         (uint32_t)packed_at,
                         into};
    GPU_TRY(gpu_rows_launch(&p, (uint32_t)count, (uint32_t)planes, arrays, s->queue));
    return BASE_OK;
}

/* In pieces that do not overwrite what is still to move. */
static base_status move(gpu_stream *s, size_t from, size_t to, size_t count, unsigned arrays,
                        base_error *err)
{
    base_status status = BASE_OK;
    for (size_t done = 0, piece; done < count && !status; done += piece) {
        piece = count - done < (size_t)GPU_MOVE_SLOTS ? count - done : (size_t)GPU_MOVE_SLOTS;
        size_t at = to < from ? done : count - done - piece;
        if (!(status = copy_rows(s, s->planes, arrays, from + at, piece, s->scratch, piece, 0,
                                 false, err))) {
            status =
                copy_rows(s, s->planes, arrays, to + at, piece, s->scratch, piece, 0, true, err);
        }
    }
    return status;
}

void gpu_rows_move(gpu_stream *s, size_t from, size_t to, size_t count, bool rotated)
{
    base_error err = {};
    if (count > 0 && from != to && s->planes > 0 && !s->broken.code) {
        (void)gpu_stream_check(s, move(s, from, to, count, rotated ? 3 : 2, &err), &err);
    }
}

/* --- blocks ----------------------------------------------------------------------------------- */

/* Rows of a block that fit one stage. */
static size_t stage_slots(const gpu_stream *s, size_t planes)
{
    return s->stage_bytes / (planes * 2 * s->kv_width * sizeof(uint16_t));
}

static base_status read(gpu_stream *s, size_t planes, size_t at, size_t count, uint8_t *block,
                        base_error *err)
{
    size_t row = s->kv_width * sizeof(uint16_t), most = stage_slots(s, planes);
    GPU_TRY(cudaStreamSynchronize(s->copies)); /* stage 0 may be under way */
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < most ? count - done : most;
        base_status status =
            copy_rows(s, planes, 2, at + done, piece, s->landing[0], piece, 0, false, err);
        if (status) {
            return status;
        }
        GPU_TRY(cudaMemcpyAsync(s->staging[0], s->landing[0], planes * 2 * piece * row,
                                cudaMemcpyDeviceToHost, s->queue));
        GPU_TRY(cudaStreamSynchronize(s->queue));
        for (size_t i = 0; i < planes * 2; i++) {
            memcpy(block + (i * count + done) * row, s->staging[0] + i * piece * row, piece * row);
        }
    }
    return BASE_OK;
}

void gpu_rows_read(gpu_stream *s, size_t planes, size_t at, size_t count, void *block)
{
    base_error err = {};
    base_status status = gpu_stream_usable(s, &err);
    if (!status && count > 0 && planes > 0) {
        status = gpu_stream_check(s, read(s, planes, at, count, (uint8_t *)block, &err), &err);
    }
    if (status) {
        memset(block, 0, planes * 2 * count * s->kv_width * sizeof(uint16_t));
    }
}

static base_status write(gpu_stream *s, size_t planes, size_t at, size_t count,
                         const uint8_t *block, base_error *err)
{
    size_t row = s->kv_width * sizeof(uint16_t), most = stage_slots(s, planes);
    for (size_t done = 0, piece; done < count; done += piece) {
        size_t stage = s->next_stage++ % GPU_STAGES;
        piece = count - done < most ? count - done : most;
        GPU_TRY(cudaEventSynchronize(s->used[stage])); /* the block that was there is in place */
        for (size_t i = 0; i < planes * 2; i++) {
            memcpy(s->staging[stage] + i * piece * row, block + (i * count + done) * row,
                   piece * row);
        }
        GPU_TRY(cudaMemcpyAsync(s->landing[stage], s->staging[stage], planes * 2 * piece * row,
                                cudaMemcpyHostToDevice, s->copies));
        GPU_TRY(cudaEventRecord(s->staged[stage], s->copies));
        GPU_TRY(cudaStreamWaitEvent(s->queue, s->staged[stage], 0));
        base_status status =
            copy_rows(s, planes, 2, at + done, piece, s->landing[stage], piece, 0, true, err);
        if (status) {
            return status;
        }
        GPU_TRY(cudaEventRecord(s->used[stage], s->queue));
    }
    return BASE_OK;
}

void gpu_rows_write(gpu_stream *s, size_t planes, size_t at, size_t count, const void *block)
{
    base_error err = {};
    if (count > 0 && planes > 0 && !s->broken.code) {
        (void)gpu_stream_check(s, write(s, planes, at, count, (const uint8_t *)block, &err), &err);
    }
}
