/* engine/cuda/internal.cuh: a model and a stream on the device, shared by the host code of this
 * folder. */
#ifndef ENGINE_CUDA_INTERNAL_CUH
#define ENGINE_CUDA_INTERNAL_CUH

#include "engine/cuda/decode.cuh"

/* Device memory of one owner; released together. */
enum { GPU_ARENA_MAX = 8192 };
struct gpu_arena {
    void **pieces;
    size_t count, bytes;
};
/* Take `bytes` (at least 1), 256-aligned. Errors: BASE_NO_MEMORY with what is free, BASE_DEVICE. */
base_status gpu_arena_take(gpu_arena *arena, size_t bytes, const char *what, void **out,
                           base_error *err);
void gpu_arena_free(gpu_arena *arena);

struct gpu_model {
    core_shape shape;
    gpu_info info;
    size_t blocks;       /* of the decode kernel: multiprocessors */
    size_t shared_limit; /* bytes one block may ask for */
    gpu_arena arena;
    gpu_matrix *host_program; /* [program_count + 1], the last is the embedding */
    gpu_matrix *program;      /* the same on the device */
    size_t program_count;     /* with the logits, without the embedding */
    uint16_t **half;          /* host [program_count]: f16 rows on the device; NULL where they
                                 would not fit */
    float *norms;             /* device */
    float *frequencies;       /* host [D/2] */
    size_t weight_bytes;
    size_t x_bytes, partial_floats, stages; /* shared memory of the decode kernel */
};

struct gpu_prefill; /* prefill.cu */

struct gpu_stream {
    gpu_model *model;
    gpu_arena arena;
    cudaStream_t queue;
    bool queue_open, broken;
    size_t slots, slots_max, batch_max, kv_width;
    gpu_decode_params params; /* everything but slots, token, result */
    uint32_t passed;          /* grid barriers so far */
    float *bias;              /* device [slots_max]; 0 behind the slots present */
    uint8_t *scratch;         /* device, GPU_MOVE_SLOTS rows of every layer, keys and values */
    gpu_step *results;        /* page-locked [GPU_RESULTS] */
    uint8_t *staging;         /* page-locked, as large as scratch */
    size_t scratch_bytes;
    struct gpu_prefill *prefill; /* NULL: every token goes through the decode kernel */
};
static const size_t GPU_RESULTS = 1024, GPU_MOVE_SLOTS = 128;

/* Mark the stream unusable after a device failure and return the status. */
base_status gpu_stream_check(gpu_stream *stream, base_status status);
/* BASE_DEVICE if an earlier call failed. */
base_status gpu_stream_usable(const gpu_stream *stream, base_error *err);

#endif
