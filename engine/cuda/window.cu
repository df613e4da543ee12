/* engine/cuda/window.cu: insert, remove and read slots of a window on the device (core.h,
 * core_window_*).
 *
 * Keys and values lie as [layers, slots_max, G*D]. Moved slots pass through scratch memory in
 * pieces, because the two places may overlap; afterwards one kernel rotates every key behind the
 * change again, from its stored form.
 */
#include "engine/cuda/internal.cuh"

struct rotate_params {
    const uint16_t *keys;
    uint16_t *rotated;
    const float2 *turns;
    uint32_t slots_max, from, kv_width, head_size;
};

/* Block (slot - from, layer); a thread rotates eight values. */
static __global__ void rotate_kernel(rotate_params p)
{
    uint32_t slot = p.from + blockIdx.x;
    size_t row = ((size_t)blockIdx.y * p.slots_max + slot) * p.kv_width;
    for (uint32_t c = threadIdx.x * 8; c < p.kv_width; c += blockDim.x * 8) {
        uint4 raw = *(const uint4 *)(p.keys + row + c);
        const float2 *turn = p.turns + (size_t)slot * (p.head_size / 2) + c % p.head_size / 2;
        unsigned word[4] = {raw.x, raw.y, raw.z, raw.w};
        for (int i = 0; i < 4; i++) {
            float2 v = gpu_half2_to_float2(word[i]), t = turn[i];
            word[i] = (unsigned)gpu_float_to_half(v.x * t.x - v.y * t.y) |
                      (unsigned)gpu_float_to_half(v.x * t.y + v.y * t.x) << 16;
        }
        *(uint4 *)(p.rotated + row + c) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

static base_status rotate_again(gpu_stream *s, size_t from, base_error *err)
{
    if (from >= s->slots) {
        return BASE_OK;
    }
    rotate_params p = {s->params.keys,         s->params.rotated, s->params.turns,
                       (uint32_t)s->slots_max, (uint32_t)from,    (uint32_t)s->kv_width,
                       s->params.head_size};
    uint32_t threads = (uint32_t)((s->kv_width / 8 + 31) / 32 * 32);
    dim3 grid((unsigned)(s->slots - from), s->params.layers);
    GPU_TRY(gpu_launch(false, rotate_kernel, grid, dim3(threads < 256 ? threads : 256), 0, s->queue,
                       p));
    GPU_TRY(cudaGetLastError());
    return BASE_OK;
}

/* Rows [slot, slot + count) of every layer of `array`, and the same rows packed tightly. */
static base_status copy_rows(gpu_stream *s, uint16_t *array, size_t slot, size_t count,
                             void *packed, bool into_window, cudaMemcpyKind kind,
                             size_t packed_pitch, base_error *err)
{
    size_t row = s->kv_width * sizeof(uint16_t), pitch = s->slots_max * row;
    uint8_t *at = (uint8_t *)array + slot * row;
    if (into_window) {
        GPU_TRY(cudaMemcpy2DAsync(at, pitch, packed, packed_pitch, count * row, s->params.layers,
                                  kind, s->queue));
    } else {
        GPU_TRY(cudaMemcpy2DAsync(packed, packed_pitch, at, pitch, count * row, s->params.layers,
                                  kind, s->queue));
    }
    return BASE_OK;
}

/* Move slots [from, slots) to begin at `to`, in pieces that do not overwrite what is still to move.
 * */
static base_status move_slots(gpu_stream *s, size_t from, size_t to, base_error *err)
{
    size_t count = s->slots - from, row = s->kv_width * sizeof(uint16_t);
    for (size_t done = 0; done < count;) {
        size_t piece = count - done < GPU_MOVE_SLOTS ? count - done : GPU_MOVE_SLOTS;
        size_t at = to < from ? done : count - done - piece;
        uint16_t *arrays[2] = {s->params.keys, s->params.values};
        for (int a = 0; a < 2; a++) {
            base_status status = copy_rows(s, arrays[a], from + at, piece, s->scratch, false,
                                           cudaMemcpyDeviceToDevice, piece * row, err);
            if (!status) {
                status = copy_rows(s, arrays[a], to + at, piece, s->scratch, true,
                                   cudaMemcpyDeviceToDevice, piece * row, err);
            }
            if (status) {
                return status;
            }
        }
        GPU_TRY(cudaMemcpyAsync(s->scratch, s->bias + from + at, piece * sizeof(float),
                                cudaMemcpyDeviceToDevice, s->queue));
        GPU_TRY(cudaMemcpyAsync(s->bias + to + at, s->scratch, piece * sizeof(float),
                                cudaMemcpyDeviceToDevice, s->queue));
        done += piece;
    }
    return BASE_OK;
}

static base_status remove_slots(gpu_stream *s, size_t at, size_t count, base_error *err)
{
    base_status status = move_slots(s, at + count, at, err);
    if (status) {
        return status;
    }
    s->slots -= count;
    GPU_TRY(cudaMemsetAsync(s->bias + s->slots, 0, count * sizeof(float), s->queue));
    return rotate_again(s, at, err);
}

base_status gpu_window_remove(gpu_stream *s, size_t at, size_t count, base_error *err)
{
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    base_status status = gpu_stream_usable(s, err);
    if (status || count == 0) {
        return status;
    }
    return gpu_stream_check(s, remove_slots(s, at, count, err));
}

static base_status read_slots(gpu_stream *s, size_t at, size_t count, uint8_t *block,
                              base_error *err)
{
    size_t bytes = count * s->kv_width * sizeof(uint16_t);
    base_status status = copy_rows(s, s->params.keys, at, count, block, false,
                                   cudaMemcpyDeviceToHost, 2 * bytes, err);
    if (status || (status = copy_rows(s, s->params.values, at, count, block + bytes, false,
                                      cudaMemcpyDeviceToHost, 2 * bytes, err))) {
        return status;
    }
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return BASE_OK;
}

base_status gpu_block_read(const gpu_stream *stream, size_t at, size_t count, void *block,
                           base_error *err)
{
    gpu_stream *s = (gpu_stream *)stream; /* only its queue and its mark of failure change */
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    base_status status = gpu_stream_usable(s, err);
    if (status || count == 0) {
        return status;
    }
    return gpu_stream_check(s, read_slots(s, at, count, (uint8_t *)block, err));
}

static base_status fill_bias(gpu_stream *s, size_t at, size_t count, float bias, base_error *err)
{
    for (size_t done = 0; done < count;) {
        size_t piece = s->scratch_bytes / sizeof(float);
        piece = count - done < piece ? count - done : piece;
        for (size_t i = 0; i < piece; i++) {
            ((float *)s->staging)[i] = bias;
        }
        GPU_TRY(cudaMemcpyAsync(s->bias + at + done, s->staging, piece * sizeof(float),
                                cudaMemcpyHostToDevice, s->queue));
        GPU_TRY(cudaStreamSynchronize(s->queue));
        done += piece;
    }
    return BASE_OK;
}

/* Page-locked staging in pieces of GPU_MOVE_SLOTS slots: host copy, one upload, then rows to their
 * places. */
static base_status insert_slots(gpu_stream *s, size_t at, size_t count, const uint8_t *block,
                                float bias, base_error *err)
{
    size_t row = s->kv_width * sizeof(uint16_t), layers = s->params.layers;
    base_status status = move_slots(s, at, at + count, err);
    for (size_t done = 0; done < count && !status;) {
        size_t piece = count - done < GPU_MOVE_SLOTS ? count - done : GPU_MOVE_SLOTS;
        for (size_t i = 0; i < 2 * layers; i++) {
            memcpy(s->staging + i * piece * row, block + (i * count + done) * row, piece * row);
        }
        GPU_TRY(cudaMemcpyAsync(s->scratch, s->staging, 2 * layers * piece * row,
                                cudaMemcpyHostToDevice, s->queue));
        status = copy_rows(s, s->params.keys, at + done, piece, s->scratch, true,
                           cudaMemcpyDeviceToDevice, 2 * piece * row, err);
        if (!status) {
            status = copy_rows(s, s->params.values, at + done, piece, s->scratch + piece * row,
                               true, cudaMemcpyDeviceToDevice, 2 * piece * row, err);
        }
        GPU_TRY(cudaStreamSynchronize(s->queue)); /* staging is used again */
        done += piece;
    }
    if (status || (status = fill_bias(s, at, count, bias, err))) {
        return status;
    }
    s->slots += count;
    return rotate_again(s, at, err);
}

base_status gpu_window_insert(gpu_stream *s, size_t at, size_t count, const void *block, float bias,
                              base_error *err)
{
    BASE_ASSERT(at <= s->slots);
    base_status status = gpu_stream_usable(s, err);
    if (status) {
        return status;
    }
    if (count > s->slots_max - s->slots) {
        return base_fail(err, BASE_LIMIT, "the window of %zu slots is full (%zu present, %zu more)",
                         s->slots_max, s->slots, count);
    }
    return count == 0
               ? BASE_OK
               : gpu_stream_check(s, insert_slots(s, at, count, (const uint8_t *)block, bias, err));
}

base_status gpu_window_set_bias(gpu_stream *s, size_t at, size_t count, float bias, base_error *err)
{
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    base_status status = gpu_stream_usable(s, err);
    return status ? status : gpu_stream_check(s, fill_bias(s, at, count, bias, err));
}
