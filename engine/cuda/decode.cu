/* engine/cuda/decode.cu: one token through a model in one persistent, cooperative kernel.
 *
 * One block a multiprocessor. A layer is five phases with a grid barrier after each:
 *   1  rmsnorm + query, key and value products, in a fading layer with the mixer's projections
 *   2  the key enters its slot; attention over all the token's paths in one pass, cut into parts,
 *      each with its own maximum and sum; beside it, on other blocks, the mixer's heads. The last
 *      block of a KV head merges the parts:
 *      o = sum_p e^(m_p - M) o_p / sum_p e^(m_p - M) l_p, M = max m_p (Milakov & Gimelshein 2018;
 *      split over keys: Dao 2023); a part belongs to one owner, whose attention mass falls out
 *   3  output product + residual; beside it the mixer's output, f
 *   4  rmsnorm + gate and up products + silu(gate) * up; beside it keys and values of f
 *   5  down product + residual; keys and values of f enter the fading plane
 * and at the end the final norm, the logits, their log-sum-exp, entropy and largest index
 * (kernels.h, logit_stats). A token's fading slot is seen when it has left the exact window, so
 * nothing waits for the mixer, and a fading layer costs bytes but no barrier. Weights stream
 * through shared memory all the while (gemv.cuh), also across barriers.
 *
 * Results do not depend on which block is last anywhere: every sum has one order for a given number
 * of blocks. A slot of bias -inf has weight 0, but the cut into parts depends on the number of
 * slots, so "the same bits as its absence" holds on the CPU only. Scalar twin: core_run with
 * KERNEL_ACT_F32.
 */
#include "engine/cuda/attend.cuh"
#include "engine/cuda/gemv.cuh"
#include "engine/cuda/mixer_step.cuh"
#include "engine/cuda/slots.cuh"
#include "engine/cuda/stats.cuh"

#include <math.h>

/* Phases of a layer, and the one behind the last layer. */
enum { QKV, ATTENTION, OUTPUT, GATE_UP, DOWN, PHASES, LOGITS = PHASES };

/* The block's shared memory: stages and their barriers, activations, partial sums, small things. */
struct gpu_work {
    uint8_t *stages;
    uint64_t *barriers;
    gpu_activations x, x2; /* x2: of matrices whose input is 1 */
    float *partial;
    float *reduce; /* [GPU_WARPS * 4] */
    uint32_t *flag;
    gpu_cursor *cursors; /* [GPU_WARPS] */
};

/* Where things are. Called anew in every phase: the addresses must not live in registers across
 * attention, which needs them all. */
static __device__ __forceinline__ gpu_work work_of(const gpu_decode_params &p, uint8_t *memory)
{
    gpu_work w;
    uint32_t stages = p.stages;
#if !defined(GPU_EMULATE)
    asm volatile(""
                 : "+r"(stages)); /* not the same value as last time, for all the compiler knows */
#endif
    w.stages = memory;
    uint8_t *at = memory + GPU_WARPS * stages * GPU_STAGE_BYTES;
    w.barriers = (uint64_t *)at;
    at += GPU_WARPS * stages * sizeof(uint64_t);
    w.x.base = at; /* every part is a multiple of 16 */
    w.x.columns = 0;
    at += p.x_bytes;
    w.x2.base = at;
    w.x2.columns = 0;
    at += p.x2_bytes;
    w.partial = (float *)at;
    w.reduce = w.partial + p.partial_floats;
    w.flag = (uint32_t *)(w.reduce + GPU_WARPS * 4);
    w.cursors = (gpu_cursor *)(w.flag + 4);
    return w;
}

/* What a warp keeps of its ring between phases. */
struct gpu_place {
    uint32_t at, parity;
};

static __device__ __forceinline__ gpu_ring ring_of(const gpu_decode_params &p, const gpu_work &work,
                                                   gpu_place place, uint32_t warp)
{
    gpu_ring ring;
    ring.stages = p.stages;
    ring.stage = work.stages + warp * ring.stages * GPU_STAGE_BYTES;
    ring.barrier = work.barriers + warp * ring.stages;
    ring.next = work.cursors + warp;
    ring.at = place.at;
    ring.parity = place.parity;
    return ring;
}

static __device__ __forceinline__ void grid_barrier(uint32_t *counter, uint32_t target)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        gpu_release_add(counter);
        while ((int32_t)(gpu_acquire(counter) - target) < 0) {
        }
        __threadfence();
    }
    __syncthreads();
}

/* --- activations into shared memory ----------------------------------------------------------- */

static __device__ __forceinline__ void load8(const float *from, float v[8])
{
    float4 a = __ldcg((const float4 *)from), b = __ldcg((const float4 *)from + 1);
    v[0] = a.x;
    v[1] = a.y;
    v[2] = a.z;
    v[3] = a.w;
    v[4] = b.x;
    v[5] = b.y;
    v[6] = b.z;
    v[7] = b.w;
}

/* from [columns] as it is. */
static __device__ void fill_plain(gpu_activations &x, bool coded, const float *from,
                                  uint32_t columns)
{
    x.columns = columns;
    for (uint32_t base = 0; base < columns; base += GPU_THREADS * 8) {
        uint32_t c = base + threadIdx.x * 8;
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (c < columns) {
            load8(from + c, v);
        }
        gpu_store_activations(x, coded, c, v);
    }
}

/* rmsnorm of the residual stream; keep: NULL, or where one block leaves it. */
static __device__ void fill_normed(const gpu_decode_params &p, gpu_work &work, bool coded,
                                   const float *weight, float *keep)
{
    float v[GPU_NORM_CHUNKS][8];
    float squares = 0.0f;
    work.x.columns = p.channels;
#pragma unroll
    for (int i = 0; i < GPU_NORM_CHUNKS; i++) {
        uint32_t c = ((uint32_t)i * GPU_THREADS + threadIdx.x) * 8;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            v[i][j] = 0.0f;
        }
        if (c < p.channels) {
            load8(p.x + c, v[i]);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
            squares += v[i][j] * v[i][j];
        }
    }
    float total = gpu_block_sum(squares, work.reduce);
    float factor = 1.0f / sqrtf(total / (float)p.channels + p.eps);
#pragma unroll
    for (int i = 0; i < GPU_NORM_CHUNKS; i++) {
        uint32_t base = (uint32_t)i * GPU_THREADS * 8, c = base + threadIdx.x * 8;
        if (base >= p.channels) {
            break;
        }
        if (c < p.channels) {
            const float4 *w = (const float4 *)(weight + c);
            float4 a = __ldg(w), b = __ldg(w + 1);
            const float scale[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
            for (int j = 0; j < 8; j++) {
                v[i][j] = v[i][j] * factor * scale[j];
            }
            for (int j = 0; keep && blockIdx.x == 0 && j < 8; j++) {
                keep[c + (uint32_t)j] = v[i][j];
            }
        }
        gpu_store_activations(work.x, coded, c, v[i]);
    }
}

/* --- products --------------------------------------------------------------------------------- */

/* All matrices of the phase that begins at p.program[*index]; leaves their partial sums behind a
 * block barrier. */
static __device__ void run_phase(const gpu_decode_params &p, uint32_t index, gpu_place *place,
                                 gpu_work &work)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    gpu_ring ring = ring_of(p, work, *place, warp);
    float *partial = work.partial;
    __syncthreads(); /* activations are in place */
    for (;; index++) {
        const gpu_matrix m = p.program[index];
        uint32_t begin, end;
        gpu_product_any(m, ring, m.input ? work.x2 : work.x, partial, warp, lane);
        gpu_block_groups(m, &begin, &end);
        partial += (end - begin) * m.split * GPU_GROUP_ROWS;
        if (m.last) {
            break;
        }
    }
    place->at = ring.at;
    place->parity = ring.parity;
    __syncthreads();
}

/* One row's sum goes where it belongs. */
static __device__ __forceinline__ void put_row(const gpu_decode_params &p, const gpu_layer &layer,
                                               const gpu_matrix &m, uint32_t r, float value)
{
    uint32_t row = m.row0 + r, q_width = p.heads * p.head_size;
    switch (m.to) {
    case GPU_TO_QKV:
        p.qkv[row] = layer.qkv_bias ? value + layer.qkv_bias[row] : value;
        break;
    case GPU_TO_MIXER:
        p.rows[(size_t)layer.fading * p.mixer_kept +
               (size_t)(p.number % GPU_MIXER_ROWS) * p.mixer.row + row] = value;
        break;
    case GPU_TO_RESIDUAL:
        p.x[row] = __ldcg(p.x + row) + value;
        break;
    case GPU_TO_FADING:
        p.fading[row] = p.residual ? value + __ldcg(p.normed + row) : value;
        break;
    default: /* GPU_TO_FADING_KV */
        p.fading_kv[row] = layer.qkv_bias ? value + layer.qkv_bias[q_width + row] : value;
        break;
    }
}

/* Groups alternate: 8 gate rows, 8 up rows. */
static __device__ __forceinline__ void finish_swiglu(const gpu_decode_params &p,
                                                     const gpu_matrix &m, const float *partial,
                                                     uint32_t begin, uint32_t end)
{
    for (uint32_t i = threadIdx.x; i < (end - begin) / 2 * GPU_GROUP_ROWS; i += GPU_THREADS) {
        uint32_t pair = i / GPU_GROUP_ROWS, r = i % GPU_GROUP_ROWS;
        float gate = gpu_partial_sum(m, partial, 2 * pair, r);
        float up = gpu_partial_sum(m, partial, 2 * pair + 1, r);
        p.hidden[(begin / 2 + pair) * GPU_GROUP_ROWS + r] = gate / (1.0f + expf(-gate)) * up;
    }
}

/* The sums of all matrices of a phase. */
static __device__ void finish_phase(const gpu_decode_params &p, uint32_t index, uint32_t layer,
                                    const gpu_work &work)
{
    const gpu_layer &l = p.layer_table[layer];
    const float *partial = work.partial;
    for (;; index++) {
        const gpu_matrix m = p.program[index];
        uint32_t begin, end;
        gpu_block_groups(m, &begin, &end);
        if (m.to == GPU_TO_HIDDEN) {
            finish_swiglu(p, m, partial, begin, end);
        } else {
            for (uint32_t i = threadIdx.x; i < (end - begin) * GPU_GROUP_ROWS; i += GPU_THREADS) {
                uint32_t r = begin * GPU_GROUP_ROWS + i;
                if (r < m.rows) {
                    put_row(p, l, m, r,
                            gpu_partial_sum(m, partial, i / GPU_GROUP_ROWS, i % GPU_GROUP_ROWS));
                }
            }
        }
        partial += (end - begin) * m.split * GPU_GROUP_ROWS;
        if (m.last) {
            break;
        }
    }
}

/* --- statistics of the logits ----------------------------------------------------------------- */

/* True in all threads of the block that arrives last of `count`; the counter is 0 again then. */
static __device__ bool arrive_last(uint32_t *counter, uint32_t count, uint32_t *flag)
{
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t last = atomicAdd(counter, 1u) == count - 1;
        if (last) {
            *counter = 0;
        }
        *flag = last;
        __threadfence();
    }
    __syncthreads();
    return *flag != 0;
}

static __device__ void finish_logits(const gpu_decode_params &p, uint32_t index, gpu_work &work)
{
    const gpu_matrix m = p.program[index];
    uint32_t begin, end;
    gpu_stats s = {-INFINITY, 0.0f, 0.0f, INT32_MAX};
    gpu_block_groups(m, &begin, &end);
    for (uint32_t i = threadIdx.x; i < (end - begin) * GPU_GROUP_ROWS; i += GPU_THREADS) {
        uint32_t row = begin * GPU_GROUP_ROWS + i;
        if (row < m.rows) {
            float z = gpu_partial_sum(m, work.partial, i / GPU_GROUP_ROWS, i % GPU_GROUP_ROWS);
            p.logits[row] = z;
            gpu_stats one = {z, 1.0f, 0.0f, (int32_t)row};
            s = gpu_stats_merge(s, one);
        }
    }
    s = gpu_stats_block(s, work.reduce);
    if (threadIdx.x == 0) {
        p.stats[blockIdx.x] = s;
    }
    if (!arrive_last(&p.counters[1], gridDim.x, work.flag)) {
        return;
    }
    gpu_stats all = {-INFINITY, 0.0f, 0.0f, INT32_MAX};
    for (uint32_t b = threadIdx.x; b < gridDim.x; b += GPU_THREADS) {
        const float *from = (const float *)&p.stats[b];
        gpu_stats o;
        o.largest = __ldcg(from);
        o.total = __ldcg(from + 1);
        o.weighted = __ldcg(from + 2);
        o.best = __ldcg(&p.stats[b].best);
        all = gpu_stats_merge(all, o);
    }
    all = gpu_stats_block(all, work.reduce);
    if (threadIdx.x == 0) {
        float log_total = logf(all.total);
        *p.next_token = all.best;
        if (p.result) {
            p.result->token = all.best;
            p.result->surprise_nats = log_total; /* log-sum-exp minus the largest logit */
            p.result->entropy_nats = fmaxf(0.0f, log_total - all.weighted / all.total);
        }
    }
}

/* --- attention -------------------------------------------------------------------------------- */

/* Eight values of a query from column d on: normed where the model does that, rotated, scaled. All
 * lanes of a warp call this; `lanes` neighbouring ones hold the head. */
static __device__ __forceinline__ void load_query(const gpu_decode_params &p,
                                                  const gpu_layer &layer, uint32_t turn,
                                                  uint32_t head, uint32_t d, bool holds, float q[8])
{
    const float *from = p.qkv + head * p.head_size;
    const float2 *turns = p.turns + (size_t)turn * (p.head_size / 2);
    float scale = p.scale;
    if (layer.q_norm) {
        float squares = 0.0f;
        for (uint32_t i = 0; holds && i < 8; i++) {
            float x = __ldcg(from + d + i);
            squares += x * x;
        }
        for (uint32_t mask = p.slot_lanes / 2; mask > 0; mask /= 2) {
            squares += __shfl_xor_sync(0xffffffffu, squares, (int)mask);
        }
        scale *= 1.0f / sqrtf(squares / (float)p.head_size + p.eps);
    }
    for (uint32_t i = 0; holds && i < 8; i++) {
        uint32_t c = d + i, half = p.head_size / 2;
        bool second = p.halves ? c >= half : c % 2 != 0;
        uint32_t other = p.halves ? (second ? c - half : c + half) : c ^ 1;
        float2 turn2 = turns[p.halves ? c % half : c / 2];
        float x = __ldcg(from + c), y = __ldcg(from + other);
        if (layer.q_norm) {
            x *= layer.q_norm[c];
            y *= layer.q_norm[other];
        }
        q[i] = (x * turn2.x + (second ? y : -y) * turn2.y) * scale;
    }
}

/* One part of a KV head's slots for up to GPU_HEADS_AT_ONCE query heads: every warp's maximum, sum
 * and output to shared [warp][head][D + 2]. */
static __device__ void attend_slots(const gpu_decode_params &p, const gpu_layer &layer,
                                    const gpu_part &part, uint32_t kv_head, uint32_t head,
                                    uint32_t head_count, float *shared, uint32_t warp,
                                    uint32_t lane)
{
    uint32_t plane = part.fading ? p.attention_planes + layer.fading : layer.plane;
    uint32_t kv_width = p.kv_heads * p.head_size, d = lane % p.slot_lanes * 8;
    size_t base = (size_t)plane * p.slots_max * kv_width + kv_head * p.head_size + d;
    const gpu_slots slots = {p.rotated + base, p.values + base, p.bias,
                             kv_width,         p.head_size,     p.slot_lanes};
    float q[GPU_HEADS_AT_ONCE][8];
#pragma unroll
    for (int h = 0; h < GPU_HEADS_AT_ONCE; h++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            q[h][i] = 0.0f;
        }
        bool used = (uint32_t)h < head_count;
        load_query(p, layer, part.turn, head + (used ? (uint32_t)h : 0), d, d < p.head_size, q[h]);
    }
    gpu_attend<GPU_WARPS>(slots, part.from, part.from + part.count, q, shared, warp, lane);
}

/* The token's key and value of one KV head, as they come, enter a slot. shared [D]. Behind a
 * barrier. (Not inlined, as merge_heads: attention would spill registers.) */
static __device__ __noinline__ void enter_slot(const gpu_decode_params &p, const gpu_layer &layer,
                                               uint32_t plane, uint32_t kv_head, const float *keys,
                                               float *shared, float *reduce)
{
    uint32_t d = p.head_size, width = p.kv_heads * d;
    size_t at = ((size_t)plane * p.slots_max + p.place) * width + kv_head * d;
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < d; i += GPU_THREADS) {
        float key = __ldcg(keys + kv_head * d + i);
        shared[i] = key;
        squares += key * key;
        p.values[at + i] = gpu_float_to_half(__ldcg(keys + width + kv_head * d + i));
    }
    if (layer.k_norm) {
        float factor = 1.0f / sqrtf(gpu_block_total(squares, reduce) / (float)d + p.eps);
        for (uint32_t i = threadIdx.x; i < d; i += GPU_THREADS) {
            shared[i] = shared[i] * factor * layer.k_norm[i];
        }
    }
    __syncthreads();
    gpu_put_key(shared, d, p.halves != 0, p.turns + (size_t)(p.slots_max + p.place) * (d / 2),
                p.keys + at, p.rotated + at, threadIdx.x, GPU_THREADS);
    __syncthreads();
}

/* The share of attention that each owner's slots got, summed over the query heads of a KV head.
 * parts: {m, l, ...} of this KV head's first query head. */
static __device__ void add_mass(const gpu_decode_params &p, const gpu_part *list, uint32_t count,
                                uint32_t kv_head, const float *parts)
{
    uint32_t repeat = p.heads / p.kv_heads, width = p.head_size + 2;
    for (uint32_t owner = threadIdx.x; owner < CORE_OWNERS_MAX; owner += GPU_THREADS) {
        float sum = 0.0f;
        for (uint32_t i = 0; owner > 0 && i < count * repeat; i++) {
            uint32_t head = i / count, s = i % count;
            if (list[s].owner == owner) {
                const float *of_head = parts + (size_t)head * (GPU_PARTS_MAX + 1) * width;
                const float *part = of_head + (size_t)s * width;
                const float *all = of_head + (size_t)GPU_PARTS_MAX * width;
                sum +=
                    gpu_weight_of(__ldcg(part), __ldcg(all)) * __ldcg(part + 1) / __ldcg(all + 1);
            }
        }
        float *to = p.mass + kv_head * CORE_OWNERS_MAX + owner;
        *to = __ldcg(to) + sum;
    }
}

/* One part of a KV head's slots, for all its query heads: their m, l, o to p.partial. */
static __device__ void attend_part(const gpu_decode_params &p, const gpu_layer &layer,
                                   const gpu_part &part, uint32_t number, uint32_t kv_head,
                                   float *shared)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t repeat = p.heads / p.kv_heads, width = p.head_size + 2;
    for (uint32_t h = 0; h < repeat; h += GPU_HEADS_AT_ONCE) {
        uint32_t head = kv_head * repeat + h, count = min(repeat - h, (uint32_t)GPU_HEADS_AT_ONCE);
        attend_slots(p, layer, part, kv_head, head, count, shared, warp, lane);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count * p.head_size; i += GPU_THREADS) {
            uint32_t which = i / p.head_size, d = i % p.head_size;
            float m, l;
            float out = gpu_merge_parts(shared + which * width, GPU_WARPS,
                                        GPU_HEADS_AT_ONCE * width, d, false, &m, &l);
            float *to = p.partial + ((size_t)(head + which) * (GPU_PARTS_MAX + 1) + number) * width;
            to[2 + d] = out;
            if (d == 0) {
                to[0] = m;
                to[1] = l;
            }
        }
        __syncthreads();
    }
}

/* All parts of a KV head are there. */
static __device__ __noinline__ void merge_heads(const gpu_decode_params &p, const gpu_part *list,
                                                uint32_t count, uint32_t kv_head)
{
    uint32_t repeat = p.heads / p.kv_heads, width = p.head_size + 2;
    float *parts = p.partial + (size_t)kv_head * repeat * (GPU_PARTS_MAX + 1) * width;
    for (uint32_t i = threadIdx.x; i < repeat * p.head_size; i += GPU_THREADS) {
        uint32_t h = i / p.head_size, d = i % p.head_size;
        float *of_head = parts + (size_t)h * (GPU_PARTS_MAX + 1) * width;
        float m, l;
        float out = gpu_merge_parts(of_head, count, width, d, true, &m, &l);
        p.attended[(kv_head * repeat + h) * p.head_size + d] = out / l;
        if (d == 0) {
            of_head[(size_t)GPU_PARTS_MAX * width] = m;
            of_head[(size_t)GPU_PARTS_MAX * width + 1] = l;
        }
    }
    if (p.mass) {
        __syncthreads();
        add_mass(p, list, count, kv_head, parts);
    }
}

/* One head of the mixer. Not inlined: attention needs all registers. */
static __device__ __noinline__ void mixer_head(const gpu_decode_params &p, uint32_t number,
                                               uint32_t h, float *work)
{
    const gpu_layer &layer = p.layer_table[number];
    const gpu_mixer &m = p.mixer;
    gpu_mixer_rows rows = {p.rows + (size_t)layer.fading * p.mixer_kept, NULL, UINT32_MAX};
    float *state = p.states + (size_t)layer.fading * m.floats + (size_t)h * m.head_state;
    float novelty = gpu_mixer_token<false>(m, layer, h, rows, p.number, state,
                                           m.kind != MIXER_GKA || p.measures, work);
    const float *o = gpu_mixer_space_of(m, work).o;
    for (uint32_t j = threadIdx.x; j < m.p; j += GPU_THREADS) {
        p.mixer_heads[h * m.p + j] = o[j];
    }
    if (threadIdx.x == 0) {
        p.innovation[layer.fading * m.heads + h] = novelty;
    }
    __syncthreads();
}

static __device__ void attention_phase(const gpu_decode_params &p, uint32_t number, uint8_t *memory)
{
    bool fading = p.layer_table[number].fading != UINT32_MAX;
    uint32_t mixers = fading ? p.mixer.heads : 0, parts = p.part_count[fading];
    for (uint32_t h = blockIdx.x; h < mixers; h += gridDim.x) {
        mixer_head(p, number, h, (float *)work_of(p, memory).x.base);
    }
    /* The parts go on where the heads end, so that all blocks have as much to do. */
    uint32_t item = (blockIdx.x + gridDim.x - mixers % gridDim.x) % gridDim.x;
    for (; item < p.kv_heads * parts; item += gridDim.x) {
        const gpu_layer &layer = p.layer_table[number];
        const gpu_part *list = p.parts[fading];
        gpu_work work = work_of(p, memory);
        float *shared = (float *)work.x.base;
        uint32_t kv_head = item % p.kv_heads, which = item / p.kv_heads;
        if (which == parts - 1) { /* its own slot */
            enter_slot(p, layer, layer.plane, kv_head, p.qkv + p.heads * p.head_size, shared,
                       work.reduce);
        }
        attend_part(p, layer, list[which], which, kv_head, shared);
        if (arrive_last(&p.counters[2 + kv_head], parts, work.flag)) {
            merge_heads(p, list, parts, kv_head);
        }
        __syncthreads();
    }
}

/* What fading layers do beside the last phase's product. */
static __device__ void enter_fading(const gpu_decode_params &p, uint32_t number, gpu_work work)
{
    const gpu_layer &layer = p.layer_table[number];
    for (uint32_t g = blockIdx.x; g < p.kv_heads; g += gridDim.x) {
        enter_slot(p, layer, p.attention_planes + layer.fading, g, p.fading_kv,
                   (float *)work.x2.base, work.reduce);
    }
}

/* Activations of the phase that begins at p.program[index]. */
static __device__ void fill_phase(const gpu_decode_params &p, uint32_t index, uint32_t layer,
                                  uint32_t phase, gpu_work &work)
{
    const gpu_matrix &first = p.program[index];
    bool coded = gpu_is_coded(first.format);
    if (phase == OUTPUT || phase == DOWN) {
        fill_plain(work.x, coded, phase == OUTPUT ? p.attended : p.hidden,
                   phase == OUTPUT ? p.heads * p.head_size : p.feed_forward);
    } else {
        size_t which = 2 * (size_t)layer + (phase == GATE_UP ? 1 : 0);
        bool kept = phase == QKV && p.residual && p.layer_table[layer].fading != UINT32_MAX;
        fill_normed(p, work, coded, p.norms + which * p.channels, kept ? p.normed : NULL);
    }
    if (!first.last && (phase == OUTPUT || phase == GATE_UP)) { /* the mixer's part */
        bool output = phase == OUTPUT;
        fill_plain(work.x2, gpu_is_coded(p.program[index + 1].format),
                   output ? p.mixer_heads : p.fading,
                   output ? p.mixer.heads * p.mixer.p : p.channels);
    }
}

/* --- the token -------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(GPU_THREADS, 1)
    decode_kernel(const __grid_constant__ gpu_decode_params p)
{
    GPU_SHARED(memory);
    gpu_place place;
    {
        gpu_work work = work_of(p, memory);
        gpu_place start = {0, 0};
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        gpu_ring ring = ring_of(p, work, start, warp);
        ring.open(p.program, p.program_count, warp, lane);
        place.at = ring.at;
        place.parity = ring.parity;
    }
    uint32_t token = (uint32_t)(p.token >= 0 ? p.token : *p.next_token);
    uint32_t column = blockIdx.x * GPU_THREADS + threadIdx.x;
    for (; column < p.channels; column += gridDim.x * GPU_THREADS) {
        p.x[column] = gpu_weight_at(*p.embedding, token, column);
    }
    grid_barrier(&p.counters[0], (p.barrier_base + 1) * gridDim.x);

    /* One loop over all phases, so that the products' code is there once. */
    uint32_t index = 0, steps = p.layers * PHASES + (p.want_logits ? 1 : 0);
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t layer = step / PHASES, phase = layer < p.layers ? step % PHASES : (uint32_t)LOGITS;
        if (phase == ATTENTION) {
            attention_phase(p, layer, memory);
        } else {
            gpu_work work = work_of(p, memory);
            if (phase == DOWN && p.layer_table[layer].fading != UINT32_MAX) {
                enter_fading(p, layer, work);
            }
            fill_phase(p, index, layer, phase, work);
            run_phase(p, index, &place, work);
            if (phase == LOGITS) {
                finish_logits(p, index, work);
                break;
            }
            finish_phase(p, index, layer, work);
            while (!p.program[index].last) {
                index++;
            }
            index++;
        }
        grid_barrier(&p.counters[0], (p.barrier_base + 2 + step) * gridDim.x);
    }
}

size_t gpu_decode_shared(const gpu_decode_params *p)
{
    return (size_t)GPU_WARPS * p->stages * (GPU_STAGE_BYTES + sizeof(uint64_t)) + p->x_bytes +
           p->x2_bytes + (p->partial_floats + GPU_WARPS * 4 + 4) * sizeof(float) +
           GPU_WARPS * sizeof(gpu_cursor);
}

uint32_t gpu_decode_barriers(const gpu_decode_params *p)
{
    return PHASES * p->layers + 1;
}

cudaError_t gpu_decode_prepare(size_t shared_bytes)
{
    return cudaFuncSetAttribute(decode_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shared_bytes);
}

cudaError_t gpu_decode_launch(const gpu_decode_params *p, uint32_t blocks, cudaStream_t stream)
{
    return gpu_launch(true, decode_kernel, dim3(blocks), dim3(GPU_THREADS), gpu_decode_shared(p),
                      stream, *p);
}
