/* engine/cuda/lab/lab_matrices.cuh: random packed matrices and their reference, for lab_gemv.cu. */
#ifndef ENGINE_CUDA_LAB_MATRICES_CUH
#define ENGINE_CUDA_LAB_MATRICES_CUH

#include "engine/cuda/decode.cuh"
#include "engine/cuda/lab/lab.cuh"

enum { LAB_PARTIAL = 4096 }; /* floats of partial sums in shared memory */

struct lab_case {
    const char *name;
    kernel_format format;
    kernel_source_type type;
    uint32_t rows, columns;
    double bound;
};

struct lab_set {
    uint32_t count;                 /* different matrices */
    gpu_matrix *programs;           /* device [count] */
    uint8_t *packed;                /* device */
    uint16_t *rows;                 /* device, bf16 row-major twins; NULL for coded formats */
    float *x, *y;                   /* device */
    size_t bytes;                   /* of one packed matrix */
    std::vector<double> *reference; /* of matrix 0 */
};

static inline uint32_t lab_x_bytes(kernel_format format, uint32_t columns)
{
    bool coded = format == KERNEL_P4 || format == KERNEL_P8;
    uint32_t bytes = coded ? columns * 2 + columns / 32 * (uint32_t)sizeof(float2) : columns * 4;
    return (bytes + 127) / 128 * 128;
}

static inline size_t lab_ring_bytes(uint32_t stages, uint32_t x_bytes)
{
    return (size_t)GPU_WARPS * stages * (GPU_SEGMENT_BYTES + sizeof(uint64_t)) + x_bytes +
           LAB_PARTIAL * sizeof(float) + GPU_WARPS * 128;
}

/* Raw rows of a GGUF type with sane scales. */
static inline void lab_fill(std::vector<uint8_t> &raw, kernel_source_type type, uint64_t *state)
{
    for (uint8_t &byte : raw) {
        byte = (uint8_t)lab_random(state);
    }
    if (type == KERNEL_SRC_BF16) {
        for (size_t i = 1; i < raw.size(); i += 2) { /* sign, exponent near 2^-6 */
            raw[i] = (uint8_t)((raw[i] & 0x80) | 0x3C);
        }
        return;
    }
    size_t block = type == KERNEL_SRC_Q4_1 ? 20 : 34;
    for (size_t i = 0; i < raw.size(); i += block) {
        uint16_t d = kernel_float_to_half(type == KERNEL_SRC_Q4_1 ? 0.004f : 0.0003f);
        memcpy(&raw[i], &d, 2);
        if (type == KERNEL_SRC_Q4_1) {
            uint16_t m = kernel_float_to_half(-0.03f);
            memcpy(&raw[i + 2], &m, 2);
        }
    }
}

/* Matrices for four times a 60 MB cache; matrix 0 has a float64 reference. The others repeat its
 * rows, rotated. */
static void lab_make(lab_set *set, const lab_case *c, uint32_t blocks)
{
    base_error err = {};
    uint64_t state = 99;
    size_t row_bytes = kernel_source_row_bytes(c->type, c->columns);
    std::vector<uint8_t> raw(c->rows * row_bytes);
    lab_fill(raw, c->type, &state);
    kernel_matrix m = {};
    gpu_layout l;
    if (kernel_matrix_pack(&m, c->type, raw.data(), c->rows, c->columns, true, &err) ||
        gpu_layout_of(&m, &l, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    std::vector<uint8_t> packed(l.bytes);
    if (gpu_pack(&l, &m, GPU_STACKED, 0, l.groups, packed.data(), &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    std::vector<float> x(c->columns), row(c->columns);
    for (float &v : x) {
        v = (float)lab_random(&state) / 1073741824.0f - 1.0f;
    }
    set->reference = new std::vector<double>(c->rows);
    for (uint32_t r = 0; r < c->rows; r++) {
        double total = 0.0;
        kernel_matrix_row(&m, r, row.data());
        for (uint32_t k = 0; k < c->columns; k++) {
            total += (double)row[k] * (double)x[k];
        }
        (*set->reference)[r] = total;
    }
    set->bytes = l.bytes;
    set->count = lab_timed ? (uint32_t)(240000000 / l.bytes + 1) : 1;
    LAB(cudaMalloc((void **)&set->packed, set->count * l.bytes));
    LAB(cudaMalloc((void **)&set->programs, set->count * sizeof(gpu_matrix)));
    LAB(cudaMalloc((void **)&set->x, c->columns * sizeof(float)));
    LAB(cudaMalloc((void **)&set->y, c->rows * sizeof(float)));
    LAB(cudaMemcpy(set->x, x.data(), c->columns * sizeof(float), cudaMemcpyHostToDevice));
    if (c->format == KERNEL_BF16) {
        LAB(cudaMalloc((void **)&set->rows, set->count * raw.size()));
    }
    std::vector<gpu_matrix> programs(set->count);
    for (uint32_t i = 0; i < set->count; i++) {
        gpu_matrix *to = &programs[i];
        memset(to, 0, sizeof *to);
        to->data = set->packed + i * l.bytes;
        to->groups = (uint32_t)l.groups;
        to->group_bytes = (uint32_t)l.group_bytes;
        to->segment_bytes = (uint32_t)l.segment_bytes;
        to->last_bytes = (uint32_t)l.last_bytes;
        to->segments = (uint16_t)l.segments;
        to->segment_units = (uint16_t)l.segment_units;
        to->last_units = (uint16_t)(l.units - (l.segments - 1) * l.segment_units);
        to->format = (uint8_t)l.format;
        to->last = 1;
        to->grain = 1;
        to->unit = l.unit;
        to->rows = c->rows;
        to->columns = c->columns;
        to->split = gpu_choose_split(to, blocks);
        LAB(cudaMemcpy(set->packed + i * l.bytes, packed.data(), l.bytes, cudaMemcpyHostToDevice));
        if (set->rows) {
            LAB(cudaMemcpy((uint8_t *)set->rows + i * raw.size(), raw.data(), raw.size(),
                           cudaMemcpyHostToDevice));
        }
    }
    LAB(cudaMemcpy(set->programs, programs.data(), set->count * sizeof(gpu_matrix),
                   cudaMemcpyHostToDevice));
    kernel_matrix_free(&m);
}

static double lab_error(const lab_set *set, const lab_case *c, cudaStream_t queue)
{
    std::vector<float> y(c->rows);
    double difference = 0.0, norm = 0.0;
    LAB(cudaStreamSynchronize(queue));
    LAB(cudaMemcpy(y.data(), set->y, c->rows * sizeof(float), cudaMemcpyDeviceToHost));
    for (uint32_t r = 0; r < c->rows; r++) {
        double d = (double)y[r] - (*set->reference)[r];
        difference += d * d;
        norm += (*set->reference)[r] * (*set->reference)[r];
    }
    return sqrt(difference / norm);
}

static void lab_free(lab_set *set)
{
    LAB(cudaFree(set->packed));
    LAB(cudaFree(set->programs));
    LAB(cudaFree(set->rows));
    LAB(cudaFree(set->x));
    LAB(cudaFree(set->y));
    delete set->reference;
}

#endif
