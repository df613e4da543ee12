/* engine/cuda/slots.cuh: a key enters its slot; rows that move and are rotated (rows.cu). Twin:
 * core_kv_enter and rotate_key in window.c. */
#ifndef ENGINE_CUDA_SLOTS_CUH
#define ENGINE_CUDA_SLOTS_CUH

#include "engine/cuda/common.cuh"

/* Pair i of a head: which two columns are rotated together. */
static __device__ __forceinline__ uint2 gpu_pair(uint32_t i, uint32_t head_size, bool halves)
{
    uint2 pair;
    pair.x = halves ? i : 2 * i;
    pair.y = halves ? i + head_size / 2 : 2 * i + 1;
    return pair;
}

/* key [D] f32 of one head: stored as f16, and rotated from what was stored. Done by `count` threads
 * of which this is number `me`. */
static __device__ __forceinline__ void gpu_put_key(const float *key, uint32_t head_size,
                                                   bool halves, const float2 *turn, uint16_t *keys,
                                                   uint16_t *rotated, uint32_t me, uint32_t count)
{
    for (uint32_t i = me; i < head_size / 2; i += count) {
        uint2 pair = gpu_pair(i, head_size, halves);
        uint16_t a = gpu_float_to_half(key[pair.x]), b = gpu_float_to_half(key[pair.y]);
        float x = gpu_half_to_float(a), y = gpu_half_to_float(b);
        keys[pair.x] = a;
        keys[pair.y] = b;
        rotated[pair.x] = gpu_float_to_half(x * turn[i].x - y * turn[i].y);
        rotated[pair.y] = gpu_float_to_half(x * turn[i].y + y * turn[i].x);
    }
}

/* Keys of places [from, ...) to their rotated form. */
struct gpu_rotate_params {
    const uint16_t *keys;
    uint16_t *rotated;   /* [planes, slots_max, kv_width] */
    const float2 *turns; /* of places */
    uint32_t slots_max, from, kv_width, head_size, halves;
};
cudaError_t gpu_rotate_launch(const gpu_rotate_params *p, uint32_t count, uint32_t planes,
                              cudaStream_t queue);

/* Rows between the window and packed memory. */
struct gpu_rows_params {
    uint16_t *arrays[3];              /* [planes, slots_max, width]: keys, values, rotated keys */
    uint16_t *packed;                 /* [planes, arrays, packed_slots, width] */
    uint32_t slots_max, width, at;    /* place of the first row */
    uint32_t packed_slots, packed_at; /* rows of a packed array, and the first of them */
    uint32_t into;                    /* from packed into the window, else out of it */
};
cudaError_t gpu_rows_launch(const gpu_rows_params *p, uint32_t count, uint32_t planes,
                            uint32_t arrays, cudaStream_t queue);

#endif
