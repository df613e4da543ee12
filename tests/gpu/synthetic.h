/* tests/gpu/synthetic.h: write a llama-architecture GGUF with random weights, for parity and timing
 * on a device. */
#ifndef TESTS_GPU_SYNTHETIC_H
#define TESTS_GPU_SYNTHETIC_H

#include "base/status.h"
#include "engine/kernels.h"

typedef struct synthetic_shape {
    size_t layers, channels, heads, kv_heads, head_size, feed_forward, vocabulary, context;
    kernel_source_type type;           /* of all matrices ... */
    kernel_source_type value_type;     /* ... but the value rows, */
    kernel_source_type up_type;        /* the up rows, */
    kernel_source_type embedding_type; /* and the embedding (and output) */
    bool untied;
} synthetic_shape;

/* Write the file. Weights are random codes with scales that keep activations near 1; the same seed
 * gives the same file. */
base_status synthetic_write(const char *path, const synthetic_shape *shape, uint64_t seed,
                            base_error *err);

#endif
