/* engine/cuda/lab/lab_tiles.cu: attention of many tokens at once, in versions. A program, not part
 * of the library.
 *
 *   warp      a warp a token and KV head, over its slots (attend.cuh): keys are read by every token
 *   loads     64 tokens by 64 slots on tensor cores (attention.cu), keys by 32-bit loads
 *   matrices  the same, keys by ldmatrix
 *
 * Compared with a float64 softmax on the CPU (core_attend's definition), of every token of small
 * cases and of every 97th of large ones. Bytes: q, keys, values and outputs, once; below them the
 * rate of products, 4 D flops a head for every slot that a token sees.
 */
#include "engine/cuda/attend.cuh"
#include "engine/cuda/lab/lab.cuh"
#include "engine/cuda/prefill.cuh"

struct tiles_case {
    const char *name;
    size_t heads, kv_heads, head_size, before, tokens, window; /* window: slots seen, 0 = all */
};

static const tiles_case small_cases[] = {
    {"4 heads of 64, 100 tokens", 4, 2, 64, 0, 100, 0},
    {"2 heads of 128, 30 + 70 tokens", 2, 1, 128, 30, 70, 0},
    {"4 heads of 24, 130 tokens, W 40", 4, 4, 24, 0, 130, 40},
    {"3 heads of 80, 10 + 65 tokens, W 33", 3, 1, 80, 10, 65, 33},
};
static const tiles_case large_cases[] = {
    {"32 heads of 64, 2048 tokens", 32, 8, 64, 0, 2048, 0},
    {"32 heads of 64, 2048 + 2048 tokens", 32, 8, 64, 2048, 2048, 0},
    {"32 heads of 64, 2048, W 1024", 32, 8, 64, 0, 2048, 1024},
    {"32 heads of 128, 2048 tokens", 32, 8, 128, 0, 2048, 0},
};

/* Block (token, KV head). */
static __global__ void __launch_bounds__(32)
    warp_kernel(const __grid_constant__ gpu_attention_params p, uint32_t lanes)
{
    GPU_SHARED(memory);
    float *shared = (float *)memory; /* [GPU_HEADS_AT_ONCE, D + 2] */
    uint32_t lane = threadIdx.x, t = blockIdx.x, g = blockIdx.y, repeat = p.heads / p.kv_heads;
    const gpu_path see = p.paths[p.tokens + t];
    uint32_t d = lane % lanes * 8, width = p.head_size + 2;
    size_t base = g * p.head_size + d;
    const gpu_slots slots = {p.keys[0] + base,         p.values[0] + base, p.bias[0],
                             p.kv_heads * p.head_size, p.head_size,        lanes};
    for (uint32_t h = 0; h < repeat; h += GPU_HEADS_AT_ONCE) {
        float q[GPU_HEADS_AT_ONCE][8];
        uint32_t head = g * repeat + h, count = min(repeat - h, (uint32_t)GPU_HEADS_AT_ONCE);
#pragma unroll
        for (uint32_t i = 0; i < GPU_HEADS_AT_ONCE; i++) {
            const float *from =
                p.q + (size_t)t * p.q_stride + (head + (i < count ? i : 0)) * p.head_size;
#pragma unroll
            for (uint32_t j = 0; j < 8; j++) { /* rotations of the case are by nothing */
                q[i][j] = d < p.head_size ? from[d + j] * p.scale : 0.0f;
            }
        }
        gpu_attend<1>(slots, see.from, see.to, q, shared, 0, lane);
        __syncwarp();
        for (uint32_t i = lane; i < count * p.head_size; i += 32) {
            uint32_t which = i / p.head_size, c = i % p.head_size;
            p.out[((size_t)t * p.heads + head + which) * p.head_size + c] =
                gpu_float_to_half(shared[which * width + 2 + c] / shared[which * width + 1]);
        }
        __syncwarp();
    }
}

struct window {
    std::vector<uint16_t> keys, values; /* [slots, G*D] */
    std::vector<float> bias, q;         /* [slots] [T, H*D] */
};

static size_t first_seen(const tiles_case *c, size_t t)
{
    size_t end = c->before + t + 1;
    return c->window && end > c->window ? end - c->window : 0;
}

static void attend_on_cpu(const tiles_case *c, const window *w, size_t t, float *out)
{
    size_t d = c->head_size, row = c->kv_heads * d, from = first_seen(c, t);
    size_t to = c->before + t + 1;
    std::vector<double> score(to), sum(d);
    for (size_t h = 0; h < c->heads; h++) {
        size_t g = h / (c->heads / c->kv_heads) * d;
        const float *q = w->q.data() + (t * c->heads + h) * d;
        double largest = -INFINITY, total = 0.0;
        for (size_t s = from; s < to; s++) {
            score[s] = 0.0;
            for (size_t i = 0; i < d; i++) {
                score[s] += (double)q[i] * (double)kernel_half_to_float(w->keys[s * row + g + i]);
            }
            score[s] = score[s] / sqrt((double)d) + (double)w->bias[s];
            largest = std::max(largest, score[s]);
        }
        std::fill(sum.begin(), sum.end(), 0.0);
        for (size_t s = from; s < to; s++) {
            double weight = exp(score[s] - largest);
            total += weight;
            for (size_t i = 0; i < d; i++) {
                sum[i] += weight * (double)kernel_half_to_float(w->values[s * row + g + i]);
            }
        }
        for (size_t i = 0; i < d; i++) {
            out[h * d + i] = (float)(sum[i] / total);
        }
    }
}

static int run(const tiles_case *c, double copy, cudaStream_t queue)
{
    uint64_t seed = 5;
    size_t slots = c->before + c->tokens, row = c->kv_heads * c->head_size;
    size_t width = c->heads * c->head_size, every = lab_timed ? 97 : 1, seen = 0;
    size_t tiles = (c->tokens + GPU_TILE - 1) / GPU_TILE;
    window w;
    for (size_t i = 0; i < slots * row; i++) {
        w.keys.push_back(kernel_float_to_half(2.0f * lab_uniform(&seed)));
        w.values.push_back(kernel_float_to_half(lab_uniform(&seed)));
    }
    for (size_t i = 0; i < slots; i++) {
        w.bias.push_back(i % 7 == 3 ? -INFINITY : i % 5 == 0 ? -0.5f : 0.0f);
    }
    for (size_t i = 0; i < c->tokens * width; i++) {
        w.q.push_back(2.0f * lab_uniform(&seed));
    }
    /* Two paths: the fading one, empty, and what each token sees. */
    std::vector<gpu_path> paths(2 * c->tokens);
    std::vector<gpu_range> ranges(2 * tiles);
    for (size_t t = 0; t < c->tokens; t++) {
        uint32_t from = (uint32_t)first_seen(c, t), to = (uint32_t)(c->before + t + 1);
        gpu_range &range = ranges[tiles + t / GPU_TILE];
        paths[c->tokens + t] = {from, to, 0};
        range = t % GPU_TILE == 0 ? gpu_range{from, to}
                                  : gpu_range{std::min(range.from, from), std::max(range.to, to)};
        seen += to - from;
    }
    std::vector<float2> turns(c->head_size / 2, make_float2(1.0f, 0.0f));
    gpu_attention_params p = {};
    p.q = lab_device(w.q.data(), w.q.size());
    p.keys[0] = p.keys[1] = lab_device(w.keys.data(), w.keys.size());
    p.values[0] = p.values[1] = lab_device(w.values.data(), w.values.size());
    p.bias[0] = p.bias[1] = lab_device(w.bias.data(), slots);
    p.turns = lab_device(turns.data(), turns.size());
    p.paths = lab_device(paths.data(), paths.size());
    p.ranges = lab_device(ranges.data(), ranges.size());
    p.out = lab_device((const uint16_t *)NULL, c->tokens * width);
    p.path_count = 2;
    p.tokens = (uint32_t)c->tokens;
    p.q_stride = (uint32_t)width;
    p.heads = (uint32_t)c->heads;
    p.kv_heads = (uint32_t)c->kv_heads;
    p.head_size = (uint32_t)c->head_size;
    p.scale = 1.0f / sqrtf((float)c->head_size);
    uint32_t lanes = 1;
    for (; lanes * 8 < p.head_size; lanes *= 2) {
    }
    std::vector<float> want, got;
    for (size_t t = 0; t < c->tokens; t += every) {
        want.resize(want.size() + width);
        attend_on_cpu(c, &w, t, want.data() + want.size() - width);
    }
    LAB(gpu_attention_prepare());
    int bad = 0;
    for (int version = 0; version < 3; version++) {
        static const char *const names[] = {"warp", "loads *", "matrices"};
        auto launch = [&]() {
            LAB(version == 0 ? gpu_launch(false, warp_kernel, dim3(p.tokens, p.kv_heads), dim3(32),
                                          sizeof(float) * GPU_HEADS_AT_ONCE * (p.head_size + 2),
                                          queue, p, lanes)
                             : gpu_attention_launch(&p, version == 2, queue));
        };
        LAB(cudaMemsetAsync(p.out, 0xFF, c->tokens * width * sizeof *p.out, queue));
        launch();
        LAB(cudaStreamSynchronize(queue));
        std::vector<uint16_t> out = lab_host(p.out, c->tokens * width);
        got.clear();
        for (size_t t = 0; t < c->tokens; t += every) {
            for (size_t i = 0; i < width; i++) {
                got.push_back(kernel_half_to_float(out[t * width + i]));
            }
        }
        double seconds = lab_seconds(queue, launch);
        double bytes = (double)(c->tokens * width * 6 + slots * row * 4);
        /* Tiles round queries, weights and outputs to f16, 2^-11 each. */
        bad += lab_row(c->name, names[version], lab_distance(got.data(), want.data(), got.size()),
                       version == 0 ? 4e-4 : 2e-3, seconds, bytes, copy);
        if (seconds > 0.0) {
            double flops = 4.0 * (double)(seen * c->heads * c->head_size);
            printf("%-34s %-16s %.1f TFLOP/s\n", c->name, names[version], flops / seconds / 1e12);
        }
    }
    return bad;
}

int main()
{
    return lab_cases(small_cases, large_cases, run);
}
