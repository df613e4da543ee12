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

/* The order in which a step reads weights. host [count + 1]: with the logits; behind them, not
 * counted, the embedding. */
struct gpu_program {
    gpu_matrix *host, *device;
    size_t count, weight_bytes;
    uint16_t **half; /* host [count]: f16 rows on the device; NULL where they would not fit */
};

struct gpu_model {
    core_shape shape;
    gpu_info info;
    bool hybrid; /* has fading layers: programs[1] runs them, programs[0] does not */
    bool rope_halves, fading_residual;
    /* Recurrent layers or Granite's factors: single tokens too are matrix products (batch.cu). */
    bool by_products;
    float embedding_scale, residual_scale, query_scale, logit_scale;
    size_t mixer_layers;
    size_t attention_planes, program_max;
    gpu_mixer mixer;
    size_t blocks;       /* of the decode kernel: multiprocessors */
    size_t shared_limit; /* bytes one block may ask for */
    gpu_arena arena;
    gpu_program programs[2];
    /* [layers]; on the device with the fading layers, and as if there were none */
    gpu_layer *host_layers, *layers, *plain_layers;
    float *norms;                                     /* device */
    float *frequencies;                               /* host [D/2] */
    size_t x_bytes, x2_bytes, partial_floats, stages; /* shared memory of the decode kernel */
};

struct gpu_prefill; /* prefill.cu */

/* Steps that wait for the host together; slots moved at once; blocks of that size under way. */
enum { GPU_STEPS = 256, GPU_MOVE_SLOTS = 128, GPU_STAGES = 4 };

struct gpu_stream {
    gpu_model *model;
    const core_stream *host; /* the books */
    const gpu_program *program;
    gpu_arena arena;
    cudaStream_t queue, copies; /* kernels; uploads of blocks beside them */
    cudaEvent_t staged[GPU_STAGES], used[GPU_STAGES];
    bool queue_open, copies_open, hybrid;
    bool mixing; /* has states: of fading or of recurrent layers */
    size_t events_open, next_stage;
    base_error broken; /* of the first failure; code 0 = none */
    size_t slots_max, planes, batch_max, kv_width;
    gpu_decode_params params;       /* everything but what one token decides */
    uint32_t passed;                /* grid barriers so far */
    float *bias, *fading_bias;      /* device [slots_max]; fading: -inf for a memory's slots */
    float2 *turns;                  /* device [2 * slots_max, D/2] */
    float *frequencies;             /* device [D/2] */
    size_t turns_sinks, turns_gone; /* for which the rows of places are right */
    float *host_bias;               /* page-locked [2 * slots_max]: what the device has */
    gpu_part *parts, *host_parts;   /* device, page-locked [GPU_STEPS, 2, GPU_PARTS_MAX] */
    core_step *results;             /* page-locked [GPU_STEPS] */
    float *mass, *host_mass;        /* device, page-locked [GPU_STEPS, G, CORE_OWNERS_MAX] */
    uint8_t *scratch;               /* device, GPU_MOVE_SLOTS rows of every plane, three arrays */
    uint8_t *staging[GPU_STAGES], *landing[GPU_STAGES]; /* page-locked; device: blocks */
    size_t stage_bytes;
    struct gpu_prefill *prefill; /* NULL: every token goes through the decode kernel */
    gpu_batch *alone;            /* where the model is by_products: this sequence by itself */
};

/* Keep the first failure: from then on the stream is broken. Returns status. */
base_status gpu_stream_check(gpu_stream *stream, base_status status, const base_error *err);
/* The first failure, again. */
base_status gpu_stream_usable(const gpu_stream *stream, base_error *err);
/* Biases and rotations on the device follow the host's books; `places` of them. */
base_status gpu_stream_follow(gpu_stream *stream, size_t places, base_error *err);
/* rows.cu: rotations of all places as the host's sinks and gone are now. */
base_status gpu_angles(gpu_stream *stream, base_error *err);

#endif
