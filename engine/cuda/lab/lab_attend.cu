/* engine/cuda/lab/lab_attend.cu: one token's attention over a long window, in versions. A program,
 * not part of the library.
 *
 *   warp      a warp a KV head: no split
 *   1 part    a block of four warps a KV head, whose results are merged (batch.cu)
 *   N parts   the same, with the slots split into N parts that a second kernel merges
 *
 * gpu_attend (attend.cuh) is the same in all of them and in the decode kernel. Compared with a
 * float64 softmax on the CPU (core_attend's definition). Bytes: keys and values in sight.
 */
#include "engine/cuda/attend.cuh"
#include "engine/cuda/lab/lab.cuh"
#include "engine/cuda/prefill.cuh"

struct attend_case {
    const char *name;
    size_t sequences, heads, kv_heads, head_size, slots;
};

static const attend_case small_cases[] = {
    {"2 x 4 heads of 64, 300 slots", 2, 4, 2, 64, 300},
    {"3 x 6 heads of 80, 129 slots", 3, 6, 1, 80, 129},
    {"1 x 2 heads of 128, 64 slots", 1, 2, 2, 128, 64},
};
static const attend_case large_cases[] = {
    {"1 x 32 heads of 64, 2048 slots", 1, 32, 8, 64, 2048},
    {"1 x 32 heads of 64, 32768 slots", 1, 32, 8, 64, 32768},
    {"1 x 32 heads of 128, 8192 slots", 1, 32, 8, 128, 8192},
    {"16 x 32 heads of 64, 4096 slots", 16, 32, 8, 64, 4096},
};

/* The version `warp`: out f16 at once, as nothing is to merge. Block (KV head, sequence). */
static __global__ void __launch_bounds__(32)
    warp_kernel(const __grid_constant__ gpu_parts_params p, uint32_t slots_seen)
{
    GPU_SHARED(memory);
    float *shared = (float *)memory; /* [GPU_HEADS_AT_ONCE, D + 2] */
    uint32_t lane = threadIdx.x, g = blockIdx.x, n = blockIdx.y, repeat = p.heads / p.kv_heads;
    const gpu_sequence s = p.list[n];
    uint32_t d = lane % p.lanes * 8, width = p.head_size + 2;
    size_t base = p.own + g * p.head_size + d;
    const gpu_slots slots = {s.rotated + base,         s.values + base, s.bias,
                             p.kv_heads * p.head_size, p.head_size,     p.lanes};
    for (uint32_t h = 0; h < repeat; h += GPU_HEADS_AT_ONCE) {
        float q[GPU_HEADS_AT_ONCE][8];
        uint32_t head = g * repeat + h, count = min(repeat - h, (uint32_t)GPU_HEADS_AT_ONCE);
#pragma unroll
        for (uint32_t i = 0; i < GPU_HEADS_AT_ONCE; i++) {
            const float *from =
                p.q + (size_t)n * p.q_stride + (head + (i < count ? i : 0)) * p.head_size;
#pragma unroll
            for (uint32_t j = 0; j < 8; j++) { /* rotations of the case are by nothing */
                q[i][j] = d < p.head_size ? from[d + j] * p.scale : 0.0f;
            }
        }
        gpu_attend<1>(slots, 0, slots_seen, q, shared, 0, lane);
        __syncwarp();
        for (uint32_t i = lane; i < count * p.head_size; i += 32) {
            uint32_t which = i / p.head_size, c = i % p.head_size;
            p.out[((size_t)n * p.heads + head + which) * p.head_size + c] =
                gpu_float_to_half(shared[which * width + 2 + c] / shared[which * width + 1]);
        }
        __syncwarp();
    }
}

/* One sequence's memory, and what its heads say. */
struct memory {
    std::vector<uint16_t> keys, values; /* [slots, G*D] */
    std::vector<float> bias, q;         /* [slots] [H, D] */
};

static void draw(memory *to, const attend_case *c, uint64_t *seed)
{
    size_t row = c->kv_heads * c->head_size;
    to->keys.resize(c->slots * row);
    to->values.resize(c->slots * row);
    to->bias.resize(c->slots);
    to->q.resize(c->heads * c->head_size);
    for (size_t i = 0; i < to->keys.size(); i++) {
        to->keys[i] = kernel_float_to_half(2.0f * lab_uniform(seed));
        to->values[i] = kernel_float_to_half(lab_uniform(seed));
    }
    for (size_t i = 0; i < c->slots; i++) {
        to->bias[i] = i % 7 == 3 ? -INFINITY : i % 5 == 0 ? -0.5f : 0.0f;
    }
    for (float &x : to->q) {
        x = 2.0f * lab_uniform(seed);
    }
}

static void attend_on_cpu(const attend_case *c, const memory *m, float *out)
{
    size_t d = c->head_size, row = c->kv_heads * d;
    std::vector<double> score(c->slots), sum(d);
    for (size_t h = 0; h < c->heads; h++) {
        size_t g = h / (c->heads / c->kv_heads) * d;
        double largest = -INFINITY, total = 0.0;
        for (size_t s = 0; s < c->slots; s++) {
            score[s] = 0.0;
            for (size_t i = 0; i < d; i++) {
                score[s] += (double)m->q[h * d + i] *
                            (double)kernel_half_to_float(m->keys[s * row + g + i]);
            }
            score[s] = score[s] / sqrt((double)d) + (double)m->bias[s];
            largest = std::max(largest, score[s]);
        }
        std::fill(sum.begin(), sum.end(), 0.0);
        for (size_t s = 0; s < c->slots; s++) {
            double weight = exp(score[s] - largest);
            total += weight;
            for (size_t i = 0; i < d; i++) {
                sum[i] += weight * (double)kernel_half_to_float(m->values[s * row + g + i]);
            }
        }
        for (size_t i = 0; i < d; i++) {
            out[h * d + i] = (float)(sum[i] / total);
        }
    }
}

static int run(const attend_case *c, double copy, cudaStream_t queue)
{
    uint64_t seed = 3;
    size_t width = c->heads * c->head_size, half = c->head_size / 2, n = c->sequences;
    std::vector<float> want(n * width), q;
    std::vector<gpu_sequence> list(n);
    std::vector<float2> turns(c->slots * half, make_float2(1.0f, 0.0f));
    float2 *device_turns = lab_device(turns.data(), turns.size());
    for (size_t i = 0; i < n; i++) {
        memory m;
        draw(&m, c, &seed);
        attend_on_cpu(c, &m, want.data() + i * width);
        q.insert(q.end(), m.q.begin(), m.q.end());
        list[i] = {};
        list[i].rotated = lab_device(m.keys.data(), m.keys.size());
        list[i].values = lab_device(m.values.data(), m.values.size());
        list[i].bias = lab_device(m.bias.data(), m.bias.size());
        list[i].turns = device_turns;
    }
    gpu_parts_params p = {};
    p.list = lab_device(list.data(), n);
    p.q = lab_device(q.data(), q.size());
    p.partial = lab_device((const float *)NULL, n * c->heads * GPU_PARTS_MAX * (c->head_size + 2));
    p.out = lab_device((const uint16_t *)NULL, n * width);
    p.q_stride = (uint32_t)width;
    p.heads = (uint32_t)c->heads;
    p.kv_heads = (uint32_t)c->kv_heads;
    p.head_size = (uint32_t)c->head_size;
    p.slots_max = (uint32_t)c->slots;
    for (p.lanes = 1; p.lanes * 8 < p.head_size; p.lanes *= 2) {
    }
    p.scale = 1.0f / sqrtf((float)c->head_size);
    int bad = 0;
    for (uint32_t parts : {0u, 1u, 4u, 16u, 64u}) { /* 0: the version `warp` */
        std::vector<gpu_part> pieces;
        std::vector<gpu_moment> moments(n);
        for (uint32_t i = 0; i < parts; i++) {
            uint32_t from = (uint32_t)(c->slots * i / parts);
            uint32_t to = (uint32_t)(c->slots * (i + 1) / parts);
            pieces.push_back({from, to - from, 0, 0, 0});
        }
        for (gpu_moment &m : moments) {
            m = {};
            m.part_count[0] = parts;
        }
        p.parts = parts ? lab_device(pieces.data(), pieces.size()) : NULL;
        p.now = lab_device(moments.data(), n);
        auto launch = [&]() {
            size_t shared = sizeof(float) * GPU_HEADS_AT_ONCE * (c->head_size + 2);
            dim3 grid(p.kv_heads, (unsigned)n);
            LAB(parts ? gpu_parts_launch(&p, (uint32_t)n, parts, queue)
                      : gpu_launch(false, warp_kernel, grid, dim3(32), shared, queue, p,
                                   (uint32_t)c->slots));
        };
        LAB(cudaMemsetAsync(p.out, 0xFF, n * width * sizeof *p.out, queue));
        launch();
        LAB(cudaStreamSynchronize(queue));
        std::vector<uint16_t> got = lab_host(p.out, n * width);
        std::vector<float> out(got.size());
        for (size_t i = 0; i < got.size(); i++) {
            out[i] = kernel_half_to_float(got[i]);
        }
        char name[32];
        snprintf(name, sizeof name, parts ? "%u part%s" : "warp", parts, parts > 1 ? "s" : "");
        /* f16 outputs: 2^-11 a value at most. */
        double bytes = (double)(n * c->slots * c->kv_heads * c->head_size * 2 * sizeof(uint16_t));
        bad += lab_row(c->name, name, lab_distance(out.data(), want.data(), out.size()), 4e-4,
                       lab_seconds(queue, launch), bytes, copy);
    }
    return bad;
}

int main()
{
    return lab_cases(small_cases, large_cases, run);
}
