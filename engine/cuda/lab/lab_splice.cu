/* engine/cuda/lab/lab_splice.cu: a memory comes into the window: slots behind its place move up,
 * its keys and values enter, and everything from there on is rotated to its new position. In
 * versions; a program, not part of the library.
 *
 *   kernels   rows out to scratch, back in, the block in, one rotation of all (rows.cu)
 *   fused     one kernel: a block a row, plane; where no more rows stand behind than come in,
 *             rows can go straight to their new place, rotated on the way
 *
 * Compared with the same done on the CPU (window.c: rotations from the stored f16 keys), bit for
 * bit but for the rotation's own rounding. Bytes: rows read and written. The upload of the block
 * from the host is not part of it.
 */
#include "engine/cuda/lab/lab.cuh"
#include "engine/cuda/prefill.cuh"
#include "engine/cuda/slots.cuh"

struct splice_case {
    const char *name;
    size_t planes, kv_heads, head_size, slots, behind, come;
    bool halves;
};

static const splice_case small_cases[] = {
    {"2 planes of 2 x 64, 24 behind 40", 2, 2, 64, 100, 24, 40, false},
    {"3 planes of 1 x 80, 5 behind 5", 3, 1, 80, 30, 5, 5, true},
};
static const splice_case large_cases[] = {
    {"16 planes of 8 x 64, 24 behind 64", 16, 8, 64, 1024, 24, 64, false},
    {"36 planes of 8 x 128, 24 behind 64", 36, 8, 128, 1024, 24, 64, true},
    {"16 planes of 8 x 64, 512 behind 512", 16, 8, 64, 4096, 512, 512, false},
};

struct fused_params {
    uint16_t *keys, *values, *rotated; /* [planes, slots_max, width] */
    const uint16_t *block;             /* [planes, 2, come, width] */
    const float2 *turns;               /* of places */
    uint32_t slots_max, width, head_size, halves, at, come;
};

/* One row of a plane to `to` (in elements), its key rotated on the way. */
static __device__ __forceinline__ void put_row(const fused_params &p, const uint16_t *key,
                                               const uint16_t *value, uint32_t place, size_t to)
{
    const float2 *turns = p.turns + (size_t)place * (p.head_size / 2);
    uint32_t half = p.head_size / 2;
    for (uint32_t c = threadIdx.x * 8; c < p.width; c += blockDim.x * 8) {
        *(uint4 *)(p.values + to + c) = *(const uint4 *)(value + c);
    }
    for (uint32_t i = threadIdx.x; i < p.width / 2; i += blockDim.x) {
        uint2 pair = gpu_pair(i % half, p.head_size, p.halves != 0);
        uint32_t head = i / half * p.head_size;
        uint16_t a = key[head + pair.x], b = key[head + pair.y];
        float x = gpu_half_to_float(a), y = gpu_half_to_float(b);
        float2 turn = turns[i % half];
        p.keys[to + head + pair.x] = a;
        p.keys[to + head + pair.y] = b;
        p.rotated[to + head + pair.x] = gpu_float_to_half(x * turn.x - y * turn.y);
        p.rotated[to + head + pair.y] = gpu_float_to_half(x * turn.y + y * turn.x);
    }
}

/* Block (row, plane): a row of the block takes a place whose row, if there is one, goes first; its
 * new place is nobody's old one, as no more rows stand behind than come in. */
static __global__ void fused_kernel(const __grid_constant__ fused_params p, uint32_t behind)
{
    uint32_t i = blockIdx.x, place = p.at + i;
    size_t here = ((size_t)blockIdx.y * p.slots_max + place) * p.width;
    const uint16_t *block = p.block + ((size_t)blockIdx.y * 2 * p.come + i) * p.width;
    if (i < behind) {
        put_row(p, p.keys + here, p.values + here, place + p.come, here + (size_t)p.come * p.width);
    }
    __syncthreads();
    put_row(p, block, block + (size_t)p.come * p.width, place, here);
}

/* A window on the host. */
struct window {
    std::vector<uint16_t> keys, values, rotated, block;
};

static void splice_on_cpu(const splice_case *c, window *w, const std::vector<float2> &turns)
{
    size_t row = c->kv_heads * c->head_size, half = c->head_size / 2, at = c->slots - c->behind;
    size_t most = c->slots + c->come;
    for (size_t plane = 0; plane < c->planes; plane++) {
        uint16_t *keys = w->keys.data() + plane * most * row;
        uint16_t *values = w->values.data() + plane * most * row;
        const uint16_t *block = w->block.data() + plane * 2 * c->come * row;
        memmove(keys + (at + c->come) * row, keys + at * row, c->behind * row * sizeof *keys);
        memmove(values + (at + c->come) * row, values + at * row, c->behind * row * sizeof *keys);
        memcpy(keys + at * row, block, c->come * row * sizeof *keys);
        memcpy(values + at * row, block + c->come * row, c->come * row * sizeof *keys);
        for (size_t place = at; place < most; place++) {
            for (size_t i = 0; i < row / 2; i++) {
                size_t pair = i % half, head = place * row + i / half * c->head_size;
                size_t x = head + (c->halves ? pair : 2 * pair);
                size_t y = head + (c->halves ? pair + half : 2 * pair + 1);
                float a = kernel_half_to_float(keys[x]), b = kernel_half_to_float(keys[y]);
                float2 turn = turns[place * half + pair];
                uint16_t *rotated = w->rotated.data() + plane * most * row;
                rotated[x] = kernel_float_to_half(a * turn.x - b * turn.y);
                rotated[y] = kernel_float_to_half(a * turn.y + b * turn.x);
            }
        }
    }
}

static double distance(const std::vector<uint16_t> &a, const std::vector<uint16_t> &b)
{
    std::vector<float> x, y;
    for (size_t i = 0; i < a.size(); i++) {
        x.push_back(kernel_half_to_float(a[i]));
        y.push_back(kernel_half_to_float(b[i]));
    }
    return lab_distance(x.data(), y.data(), x.size());
}

static int run(const splice_case *c, double copy, cudaStream_t queue)
{
    uint64_t seed = 9;
    size_t row = c->kv_heads * c->head_size, half = c->head_size / 2, most = c->slots + c->come;
    size_t all = c->planes * most * row, at = c->slots - c->behind, moved = c->behind + c->come;
    window start;
    for (std::vector<uint16_t> *v : {&start.keys, &start.values, &start.rotated}) {
        for (size_t i = 0; i < all; i++) {
            v->push_back(kernel_float_to_half(lab_uniform(&seed)));
        }
    }
    for (size_t i = 0; i < c->planes * 2 * c->come * row; i++) {
        start.block.push_back(kernel_float_to_half(lab_uniform(&seed)));
    }
    std::vector<float2> turns;
    for (size_t i = 0; i < most * half; i++) {
        float angle = (float)(i / half) / (1.0f + (float)(i % half));
        turns.push_back(make_float2(cosf(angle), sinf(angle)));
    }
    window want = start;
    splice_on_cpu(c, &want, turns);
    fused_params f = {};
    f.keys = lab_device((const uint16_t *)NULL, all);
    f.values = lab_device((const uint16_t *)NULL, all);
    f.rotated = lab_device((const uint16_t *)NULL, all);
    f.block = lab_device(start.block.data(), start.block.size());
    f.turns = lab_device(turns.data(), turns.size());
    f.slots_max = (uint32_t)most;
    f.width = (uint32_t)row;
    f.head_size = (uint32_t)c->head_size;
    f.halves = c->halves;
    f.at = (uint32_t)at;
    f.come = (uint32_t)c->come;
    uint16_t *scratch = lab_device((const uint16_t *)NULL, c->planes * 2 * c->behind * row);
    gpu_rows_params rows = {};
    rows.arrays[0] = f.keys;
    rows.arrays[1] = f.values;
    rows.arrays[2] = f.rotated;
    rows.slots_max = f.slots_max;
    rows.width = f.width;
    gpu_rotate_params turn = {f.keys, f.rotated, f.turns,     f.slots_max,
                              f.at,   f.width,   f.head_size, f.halves};
    uint32_t planes = (uint32_t)c->planes, behind = (uint32_t)c->behind;
    auto kernels = [&]() {
        for (uint32_t into = 0; into < 2; into++) {
            rows.packed = scratch;
            rows.packed_slots = behind;
            rows.at = f.at + into * f.come;
            rows.into = into;
            LAB(gpu_rows_launch(&rows, behind, planes, 2, queue));
        }
        rows.packed = (uint16_t *)f.block;
        rows.packed_slots = f.come;
        rows.at = f.at;
        LAB(gpu_rows_launch(&rows, f.come, planes, 2, queue));
        LAB(gpu_rotate_launch(&turn, (uint32_t)moved, planes, queue));
    };
    auto fused = [&]() {
        LAB(gpu_launch(false, fused_kernel, dim3(f.come, planes), dim3(256), 0, queue, f, behind));
    };
    int bad = 0;
    for (int version = 0; version < 2; version++) {
        LAB(cudaMemcpy(f.keys, start.keys.data(), all * 2, cudaMemcpyHostToDevice));
        LAB(cudaMemcpy(f.values, start.values.data(), all * 2, cudaMemcpyHostToDevice));
        LAB(cudaMemcpy(f.rotated, start.rotated.data(), all * 2, cudaMemcpyHostToDevice));
        version ? fused() : kernels();
        LAB(cudaStreamSynchronize(queue));
        bool same = lab_host(f.keys, all) == want.keys && lab_host(f.values, all) == want.values;
        double error = same ? distance(lab_host(f.rotated, all), want.rotated) : INFINITY;
        double seconds = version ? lab_seconds(queue, fused) : lab_seconds(queue, kernels);
        /* A product and a sum may be one instruction there: now and then f16 rounds otherwise. */
        bad += lab_row(c->name, version ? "fused" : "kernels *", error, 5e-5, seconds,
                       (double)(moved * c->planes * row * 5 * sizeof(uint16_t)), copy);
    }
    return bad;
}

int main()
{
    return lab_cases(small_cases, large_cases, run);
}
