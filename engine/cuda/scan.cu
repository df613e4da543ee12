/* engine/cuda/scan.cu: the mixers of fading layers over many tokens in chunks, on tensor cores.
 * Definition: mixer_run (mixer.h), token by token; equal up to rounding. Forms: Yang et al. 2024
 * (GDN, the WY form of DeltaNet: Yang et al. 2024b), Dao & Gu 2024 (Mamba2), Gated KalmaNet.
 *
 * Within a chunk of tokens i = 0, 1, ... with log decays g, G_i = g_0 + ... + g_i, decay(i, j) =
 * e^(G_i - G_j) for j <= i, and S the state before it, every mixer is
 *   state behind it   e^G_last S + sum_j decay(last, j) k_j d_j^T
 *   read with q at i  e^G_i S^T q + sum_(j <= i) decay(i, j) (q . k_j) d_j
 * where d is what a token writes:
 *   Mamba2  k = delta B, d = v
 *   GDN     d_i = beta_i (v_i - e^G_i S^T k_i - sum_(j < i) decay(i, j) (k_i . k_j) d_j), so with
 *           L_ij = beta_i decay(i, j) (k_i . k_j), j < i:  d = u - w S,
 *           (1 + L) [u, w] = beta [v, e^G k], solved by substitution, 16 tokens at a time
 *   GKA     two states with the same k: the covariance, d = k, and U, d = v. All tokens of a chunk
 *           solve (P_i + lambda_i) x_i = q_i together: P_i x_i is a read of the first, o_i one of
 *           the second; |P_i|^2 = e^2g |P_(i-1)|^2 + 2 e^g k_i . P_(i-1) k_i + |k_i|^4
 *
 * Three kernels. prepare: convolution, unit lengths, gates and u, w, all chunks side by side.
 * carry: d and the states before every chunk, one chunk after the other, with a head's columns
 * shared out among blocks. read: outputs, norm and gate, all chunks side by side. Products are of
 * f32 numbers (gpu_tiles). Long runs go in pieces, so that scratch memory is bounded.
 *
 * States are copied aside before every CORE_SNAPSHOT_EVERY-th of the last tokens, as fading.c does;
 * chunks end there. A log decay below -40 counts as -40: e^-40 of anything is lost beside the
 * token's own part, and the differences of sums stay exact enough.
 */
#include "engine/cuda/mixer_step.cuh"
#include "engine/cuda/mma.cuh"
#include "engine/cuda/prefill.cuh"

enum {
    THREADS = 256,
    SLICE = 16,  /* columns of a state that a block of `carry` takes */
    PAD = 4,     /* floats between rows, against bank conflicts; 8 where rows are read as B */
    STAGED = 128 /* largest key size whose covariance `read` keeps in shared memory */
};

/* --- where things are ------------------------------------------------------------------------- */

static inline __host__ __device__ uint32_t slot_floats(const gpu_mixer &m, uint32_t chunk)
{
    return chunk * (m.n * (m.kind == MIXER_GDN ? 3 : 2) + m.p + 2) + m.head_state;
}

/* What is known of one chunk of one head, in scratch memory. */
struct view {
    float *q, *k, *w; /* [chunk, n] */
    float *d;         /* [chunk, p] */
    float *sum;       /* [chunk] G */
    float *alpha;     /* [chunk] */
    float *state;     /* [head_state] before the chunk */
};

static __device__ __forceinline__ view view_of(const gpu_scan_params &p, uint32_t number,
                                               uint32_t h)
{
    const gpu_mixer &m = p.mixer;
    view v;
    v.q = p.scratch + (size_t)(number * m.heads + h) * slot_floats(m, p.chunk);
    v.k = v.q + p.chunk * m.n;
    v.w = v.k + p.chunk * m.n;
    v.d = m.kind == MIXER_GDN ? v.w + p.chunk * m.n : v.w;
    v.sum = v.d + p.chunk * m.p;
    v.alpha = v.sum + p.chunk;
    v.state = v.alpha + p.chunk;
    return v;
}

/* Tokens of one chunk. */
struct span {
    uint32_t from, count;
};

/* Chunks before `fine` have p.chunk tokens, those behind it end where a snapshot is due. */
static inline __host__ __device__ uint32_t coarse_chunks(const gpu_scan_params &p)
{
    return (p.fine - p.first + p.chunk - 1) / p.chunk;
}

static inline __host__ __device__ uint32_t all_chunks(const gpu_scan_params &p)
{
    uint32_t every = CORE_SNAPSHOT_EVERY;
    return coarse_chunks(p) + (p.fine < p.end ? (p.end - 1) / every - p.fine / every + 1 : 0);
}

static __device__ __forceinline__ span span_of(const gpu_scan_params &p, uint32_t number)
{
    uint32_t coarse = coarse_chunks(p), every = CORE_SNAPSHOT_EVERY;
    span s;
    if (number < coarse) {
        s.from = p.first + number * p.chunk;
        s.count = min(p.chunk, p.fine - s.from);
    } else {
        uint32_t at = p.fine / every + (number - coarse);
        s.from = max(at * every, p.fine);
        s.count = min((at + 1) * every, p.end) - s.from;
    }
    return s;
}

/* Rows of a chunk as the products take them; those behind the last token write nothing. */
static __device__ __forceinline__ uint32_t rows_of(const span &s)
{
    return (s.count + 15) / 16 * 16;
}

/* --- prepare ---------------------------------------------------------------------------------- */

/* Scale factors of the rows under the convolution of a chunk: factor [2, chunk + kernel - 1], of
 * queries and keys, from token from - (kernel - 1) on. */
static __device__ void norm_factors(const gpu_scan_params &p, const span &s, uint32_t q_at,
                                    uint32_t k_at, float *factor)
{
    const gpu_mixer &m = p.mixer;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, count = s.count + m.kernel - 1;
    for (uint32_t i = warp; i < 2 * count; i += THREADS / 32) {
        uint32_t which = i / count, at = s.from + i % count;
        float sum = 0.0f;
        if (at + 1 >= m.kernel) {
            const float *row = gpu_mixer_row(m, p.rows, at + 1 - m.kernel) + (which ? k_at : q_at);
            for (uint32_t c = lane; c < m.n; c += 32) {
                sum += row[c] * row[c];
            }
        }
        sum = gpu_warp_sum(sum);
        if (lane == 0) {
            factor[which * (p.chunk + m.kernel) + i % count] =
                1.0f / sqrtf(sum / (float)m.n + 1e-6f);
        }
    }
    __syncthreads();
}

/* q [rows, n], k [rows, n], v [rows, p] of head h, convolved; zeros behind the last token. */
static __device__ void convolve(const gpu_scan_params &p, const span &s, uint32_t h, float *q,
                                float *k, float *v, float *factor)
{
    const gpu_mixer &m = p.mixer;
    const gpu_layer &w = *p.layer;
    uint32_t q_at = h / (m.heads / m.q_heads) * m.n;
    uint32_t k_at = m.q_heads * m.n + h / (m.heads / m.k_heads) * m.n;
    uint32_t v_at = (m.q_heads + m.k_heads) * m.n + h / (m.heads / m.v_heads) * m.p;
    uint32_t width = 2 * m.n + m.p;
    if (w.conv_q_norm || w.conv_k_norm) {
        norm_factors(p, s, q_at, k_at, factor);
    }
    for (uint32_t at = threadIdx.x; at < rows_of(s) * width; at += THREADS) {
        uint32_t i = at / width, c = at % width, part = c < m.n ? 0 : c < 2 * m.n ? 1 : 2;
        uint32_t column = c - part * m.n, t = s.from + i;
        uint32_t channel = (part == 0 ? q_at : part == 1 ? k_at : v_at) + column;
        const float *weight = part == 0 ? w.conv_q_norm : part == 1 ? w.conv_k_norm : NULL;
        float sum = 0.0f;
        for (uint32_t j = 0; i < s.count && j < m.kernel && j <= t; j++) {
            float x = gpu_mixer_row(m, p.rows, t - j)[channel];
            if (weight) {
                x = x * factor[part * (p.chunk + m.kernel) + i + m.kernel - 1 - j] * weight[column];
            }
            sum += w.conv[channel * m.kernel + m.kernel - 1 - j] * x;
        }
        if (i < s.count) {
            sum += w.conv_bias ? w.conv_bias[channel] : 0.0f;
        }
        float *to = part == 0   ? q + i * (m.n + PAD)
                    : part == 1 ? k + i * (m.n + PAD)
                                : v + i * (m.p + PAD);
        to[column] = sum * gpu_sigmoid(sum);
    }
    __syncthreads();
}

/* sum [rows]: G; scale [rows]: beta, of Mamba2 delta; alpha [rows]. log_decay [rows]: scratch. */
static __device__ void gates(const gpu_scan_params &p, const span &s, uint32_t h, float *sum,
                             float *scale, float *alpha, float *log_decay)
{
    const gpu_mixer &m = p.mixer;
    const gpu_layer &w = *p.layer;
    uint32_t i = threadIdx.x, rows = rows_of(s);
    if (i < rows) {
        log_decay[i] = scale[i] = alpha[i] = 0.0f;
    }
    if (i < s.count) {
        const float *row = gpu_mixer_row(m, p.rows, s.from + i) + m.conv_width + m.heads * m.p;
        float step = row[h] + w.dt_bias[h], delta = step > 20.0f ? step : log1pf(expf(step));
        log_decay[i] = fmaxf(w.a[h] * delta, -40.0f);
        scale[i] = delta;
        if (m.kind != MIXER_MAMBA2) {
            scale[i] = gpu_sigmoid(row[m.heads + h] + (w.beta_bias ? w.beta_bias[h] : 0.0f));
        }
        if (m.kind == MIXER_GKA) {
            scale[i] += 1e-6f;
            alpha[i] = gpu_sigmoid(row[2 * m.heads + h] + (w.alpha_bias ? w.alpha_bias[h] : 0.0f));
        }
    }
    __syncthreads();
    if (i < rows) {
        float total = 0.0f;
        for (uint32_t j = 0; j <= i; j++) {
            total += log_decay[j];
        }
        sum[i] = total;
    }
    __syncthreads();
}

/* Lengths and factors of q, k and v, a warp a token. */
static __device__ void scale_rows(const gpu_mixer &m, uint32_t rows, float *q, float *k, float *v,
                                  const float *scale)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (uint32_t i = warp; i < rows; i += THREADS / 32) {
        float *query = q + i * (m.n + PAD), *key = k + i * (m.n + PAD),
              *value = v + i * (m.p + PAD);
        float a = 0.0f, b = 0.0f, by_q = 1.0f, by_k = scale[i];
        for (uint32_t c = lane; c < m.n; c += 32) {
            a += query[c] * query[c];
            b += key[c] * key[c];
        }
        a = gpu_warp_sum(a);
        b = gpu_warp_sum(b);
        if (m.kind == MIXER_GDN) {
            by_q = 1.0f / sqrtf(a + 1e-6f) / sqrtf((float)m.n);
            by_k = 1.0f / sqrtf(b + 1e-6f);
        } else if (m.kind == MIXER_GKA) {
            by_q = 1.0f / (sqrtf(a) + 1e-6f);
            by_k = scale[i] / (sqrtf(b) + 1e-6f);
        }
        for (uint32_t c = lane; c < m.n; c += 32) {
            query[c] *= by_q;
            key[c] *= by_k;
        }
        for (uint32_t c = lane; m.kind != MIXER_MAMBA2 && c < m.p; c += 32) {
            value[c] *= scale[i];
        }
    }
    __syncthreads();
}

/* 16 rows of a column below one another: x_i -= sum_(b <= j < i) L_ij x_j. */
static __device__ __forceinline__ void substitute(const float *lower, uint32_t stride, float *x,
                                                  uint32_t x_stride)
{
    float y[16];
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) {
        y[i] = x[i * x_stride];
#pragma unroll
        for (uint32_t j = 0; j < i; j++) {
            y[i] -= lower[i * stride + j] * y[j];
        }
        x[i * x_stride] = y[i];
    }
}

/* GDN: (1 + L) [u, w] = beta [v, e^G k]. In: beta v in u; out: u, w. lower [rows, chunk + PAD]. */
static __device__ void solve_chunk(const gpu_mixer &m, uint32_t rows, uint32_t chunk,
                                   const float *k, float *u, float *w, const float *sum,
                                   const float *scale, float *lower)
{
    const uint32_t nl = m.n + PAD, pl = m.p + PAD, ll = chunk + PAD;
    gpu_tiles(
        rows, rows, m.n, [&](uint32_t i, uint32_t c) { return k[i * nl + c]; },
        [&](uint32_t c, uint32_t j) { return k[j * nl + c]; },
        [&](uint32_t i, uint32_t j, float value) {
            lower[i * ll + j] = j < i ? scale[i] * expf(sum[i] - sum[j]) * value : 0.0f;
        });
    for (uint32_t at = threadIdx.x; at < rows * m.n; at += THREADS) {
        uint32_t i = at / m.n, c = at % m.n;
        w[i * nl + c] = scale[i] * expf(sum[i]) * k[i * nl + c];
    }
    __syncthreads();
    for (uint32_t b = 0; b < rows; b += 16) {
        const float *block = lower + b * ll;
        if (b > 0) {
            gpu_tiles(
                16, m.n, b, [&](uint32_t i, uint32_t j) { return block[i * ll + j]; },
                [&](uint32_t j, uint32_t c) { return w[j * nl + c]; },
                [&](uint32_t i, uint32_t c, float value) { w[(b + i) * nl + c] -= value; });
            gpu_tiles(
                16, m.p, b, [&](uint32_t i, uint32_t j) { return block[i * ll + j]; },
                [&](uint32_t j, uint32_t c) { return u[j * pl + c]; },
                [&](uint32_t i, uint32_t c, float value) { u[(b + i) * pl + c] -= value; });
            __syncthreads();
        }
        for (uint32_t c = threadIdx.x; c < m.n + m.p; c += THREADS) {
            bool key = c < m.n;
            substitute(block + b, ll, key ? w + b * nl + c : u + b * pl + (c - m.n), key ? nl : pl);
        }
        __syncthreads();
    }
}

/* Rows [rows, columns] of shared memory to scratch. */
static __device__ void put_rows(float *to, const float *from, uint32_t rows, uint32_t columns)
{
    for (uint32_t at = threadIdx.x * 4; at < rows * columns; at += THREADS * 4) {
        *(float4 *)(to + at) =
            *(const float4 *)(from + at / columns * (columns + PAD) + at % columns);
    }
}

static inline __host__ __device__ uint32_t prepare_floats(const gpu_mixer &m, uint32_t chunk)
{
    bool gdn = m.kind == MIXER_GDN;
    return chunk * (2 * (m.n + PAD) + m.p + PAD + 4 + (gdn ? m.n + PAD + chunk + PAD : 0)) +
           2 * (chunk + m.kernel);
}

/* Block (chunk, head). */
static __global__ void __launch_bounds__(THREADS)
    prepare_kernel(const __grid_constant__ gpu_scan_params p)
{
    GPU_SHARED(memory);
    const gpu_mixer &m = p.mixer;
    span s = span_of(p, p.begin + blockIdx.x);
    uint32_t h = blockIdx.y, rows = rows_of(s);
    float *q = (float *)memory, *k = q + p.chunk * (m.n + PAD), *v = k + p.chunk * (m.n + PAD);
    float *sum = v + p.chunk * (m.p + PAD), *scale = sum + p.chunk, *alpha = scale + p.chunk;
    float *log_decay = alpha + p.chunk, *w = log_decay + p.chunk;
    float *lower = w + p.chunk * (m.n + PAD);
    float *factor = m.kind == MIXER_GDN ? lower + p.chunk * (p.chunk + PAD) : w;
    view to = view_of(p, blockIdx.x, h);
    convolve(p, s, h, q, k, v, factor);
    gates(p, s, h, sum, scale, alpha, log_decay);
    scale_rows(m, rows, q, k, v, scale);
    if (m.kind == MIXER_GDN) {
        solve_chunk(m, rows, p.chunk, k, v, w, sum, scale, lower);
        put_rows(to.w, w, rows, m.n);
    }
    put_rows(to.q, q, rows, m.n);
    put_rows(to.k, k, rows, m.n);
    put_rows(to.d, v, rows, m.p);
    if (threadIdx.x < rows) {
        to.sum[threadIdx.x] = sum[threadIdx.x];
        to.alpha[threadIdx.x] = alpha[threadIdx.x];
    }
}

/* --- carry ------------------------------------------------------------------------------------ */

/* A block's columns of one state: of the covariance (GKA) or of what is read. */
struct columns {
    uint32_t at, count, width; /* width: of the whole state */
    uint32_t offset;           /* of its first float in the head's states */
    bool covariance;
};

static inline __host__ __device__ uint32_t slices_of(uint32_t width)
{
    return (width + SLICE - 1) / SLICE;
}

static __device__ __forceinline__ columns columns_of(const gpu_mixer &m, uint32_t slice)
{
    uint32_t before = m.kind == MIXER_GKA ? slices_of(m.n) : 0;
    columns c;
    c.covariance = slice < before;
    c.width = c.covariance ? m.n : m.p;
    c.at = (c.covariance ? slice : slice - before) * SLICE;
    c.count = min((uint32_t)SLICE, c.width - c.at);
    c.offset = (c.covariance || before == 0 ? 0 : m.n * m.n) + c.at;
    return c;
}

enum { STATE_ROW = SLICE + 8 };

static inline __host__ __device__ uint32_t carry_stage(const gpu_mixer &m, uint32_t chunk)
{
    return chunk * ((m.n + PAD) * (m.kind == MIXER_GDN ? 2 : 1) + STATE_ROW);
}

static inline __host__ __device__ uint32_t carry_floats(const gpu_mixer &m, uint32_t chunk)
{
    return m.n * STATE_ROW + 2 * carry_stage(m, chunk) + chunk;
}

/* rows [rows, columns] to shared memory in the background. */
static __device__ __forceinline__ void fetch(float *to, uint32_t to_row, const float *from,
                                             uint32_t from_row, uint32_t rows, uint32_t columns)
{
    uint32_t pieces = columns / 4;
    for (uint32_t i = threadIdx.x; i < rows * pieces; i += THREADS) {
        uint32_t row = i / pieces, c = i % pieces * 4;
        gpu_copy16(to + row * to_row + c, from + (size_t)row * from_row + c, true);
    }
}

/* What one chunk brings: k, w (GDN) and this block's columns of d. */
static __device__ __forceinline__ void fetch_chunk(const gpu_scan_params &p, const columns &c,
                                                   uint32_t number, float *stage)
{
    const gpu_mixer &m = p.mixer;
    view from = view_of(p, number, blockIdx.y);
    uint32_t rows = rows_of(span_of(p, p.begin + number)), nl = m.n + PAD;
    fetch(stage, nl, from.k, m.n, rows, m.n);
    if (m.kind == MIXER_GDN) {
        fetch(stage + p.chunk * nl, nl, from.w, m.n, rows, m.n);
    }
    fetch(stage + carry_stage(m, p.chunk) - p.chunk * STATE_ROW, STATE_ROW,
          (c.covariance ? from.k : from.d) + c.at, c.width, rows, c.count);
}

/* The block's columns of a state [n, width] in global memory, from or to shared memory. */
static __device__ __forceinline__ void move_state(const gpu_mixer &m, const columns &c, float *all,
                                                  float *state, bool out)
{
    for (uint32_t i = threadIdx.x; i < m.n * c.count; i += THREADS) {
        uint32_t row = i / c.count, j = i % c.count;
        float *there = all + c.offset + (size_t)row * c.width + j;
        float *here = state + row * STATE_ROW + j;
        if (out) {
            *there = *here;
        } else {
            *here = *there;
        }
    }
}

/* Block (slice, head), chunk after chunk. */
static __global__ void __launch_bounds__(THREADS)
    carry_kernel(const __grid_constant__ gpu_scan_params p)
{
    GPU_SHARED(memory);
    const gpu_mixer &m = p.mixer;
    const columns c = columns_of(m, blockIdx.x);
    const uint32_t nl = m.n + PAD, stage_floats = carry_stage(m, p.chunk);
    float *state = (float *)memory, *stages = state + m.n * STATE_ROW;
    float *tail = stages + 2 * stage_floats, *own = p.states + (size_t)blockIdx.y * m.head_state;
    move_state(m, c, own, state, false);
    fetch_chunk(p, c, 0, stages);
    gpu_copy_commit();
    for (uint32_t number = 0; number < p.count; number++) {
        float *k = stages + number % 2 * stage_floats, *w = k + p.chunk * nl;
        float *d = k + stage_floats - p.chunk * STATE_ROW;
        const span s = span_of(p, p.begin + number);
        uint32_t rows = rows_of(s), every = CORE_SNAPSHOT_EVERY;
        view to = view_of(p, number, blockIdx.y);
        if (number + 1 < p.count) {
            fetch_chunk(p, c, number + 1, stages + (number + 1) % 2 * stage_floats);
        }
        gpu_copy_commit();
        if (threadIdx.x < rows) {
            tail[threadIdx.x] = expf(to.sum[rows - 1] - to.sum[threadIdx.x]);
        }
        float keep = expf(to.sum[rows - 1]);
        gpu_copy_wait_but_one();
        __syncthreads();
        move_state(m, c, to.state, state, true);
        if (s.from % every == 0 && s.from + CORE_SNAPSHOTS * every >= p.end) {
            move_state(m, c,
                       p.snapshots + s.from / every % CORE_SNAPSHOTS * (size_t)m.floats +
                           (size_t)blockIdx.y * m.head_state,
                       state, true);
        }
        if (m.kind == MIXER_GDN) {
            gpu_tiles(
                rows, c.count, m.n, [&](uint32_t i, uint32_t j) { return w[i * nl + j]; },
                [&](uint32_t j, uint32_t x) { return state[j * STATE_ROW + x]; },
                [&](uint32_t i, uint32_t x, float value) {
                    float written = d[i * STATE_ROW + x] - value;
                    d[i * STATE_ROW + x] = written;
                    to.d[i * m.p + c.at + x] = written;
                });
        }
        __syncthreads();
        gpu_tiles(
            m.n, c.count, rows,
            [&](uint32_t i, uint32_t j) { return i < m.n ? tail[j] * k[j * nl + i] : 0.0f; },
            [&](uint32_t j, uint32_t x) { return d[j * STATE_ROW + x]; },
            [&](uint32_t i, uint32_t x, float value) {
                float *at = state + i * STATE_ROW + x;
                *at = keep * *at + value;
            });
        __syncthreads();
    }
    move_state(m, c, own, state, true);
}

/* --- read ------------------------------------------------------------------------------------- */

/* What the read kernel works on, in shared memory; *_row: floats between rows. */
struct reading {
    uint32_t rows, nl, pl, bl;
    float *q, *k;      /* [chunk, n] */
    float *d, *o;      /* [chunk, p] */
    float *b;          /* [chunk, chunk] decay(i, j) (query_i . k_j) */
    float *sum, *keep; /* [chunk] G, e^G */
    /* GKA */
    float *x, *before, *product; /* [chunk, n] */
    float *norm, *omega, *eta;   /* [chunk] */
    float *reduce;               /* [32] */
};

static inline __host__ __device__ bool is_staged(const gpu_mixer &m)
{
    return m.kind == MIXER_GKA && m.n <= STAGED;
}

static inline __host__ __device__ uint32_t read_floats(const gpu_mixer &m, uint32_t chunk)
{
    bool gka = m.kind == MIXER_GKA;
    return chunk * ((gka ? 5 : 2) * (m.n + PAD) + 2 * (m.p + PAD) + chunk + PAD + 5) + 32 +
           (is_staged(m) ? m.n * (m.n + 8) : 0);
}

/* r.b = x_i . k_j, fading: times decay(i, j), and 0 for j > i. Behind a barrier. */
static __device__ void scores(const gpu_mixer &m, const reading &r, const float *x, bool fading)
{
    gpu_tiles(
        r.rows, r.rows, m.n, [&](uint32_t i, uint32_t c) { return x[i * r.nl + c]; },
        [&](uint32_t c, uint32_t j) { return r.k[j * r.nl + c]; },
        [&](uint32_t i, uint32_t j, float value) {
            float decay = !fading ? 1.0f : j <= i ? expf(r.sum[i] - r.sum[j]) : 0.0f;
            r.b[i * r.bl + j] = decay * value;
        });
    __syncthreads();
}

/* r.o = what all tokens read with x: from the state [n, p] before the chunk, and of its own tokens.
 * Behind a barrier. */
static __device__ void read_out(const gpu_mixer &m, const reading &r, const float *x,
                                const float *state)
{
    scores(m, r, x, true);
    gpu_tiles(
        r.rows, m.p, m.n, [&](uint32_t i, uint32_t c) { return x[i * r.nl + c]; },
        [&](uint32_t c, uint32_t j) { return state[c * m.p + j]; },
        [&](uint32_t i, uint32_t j, float value) { r.o[i * r.pl + j] = r.keep[i] * value; });
    gpu_tiles(
        r.rows, m.p, r.rows, [&](uint32_t i, uint32_t j) { return r.b[i * r.bl + j]; },
        [&](uint32_t j, uint32_t c) { return r.d[j * r.pl + c]; },
        [&](uint32_t i, uint32_t c, float value) { r.o[i * r.pl + c] += value; });
    __syncthreads();
}

/* r.product = P_0 x, times e^G, by rows. state: stride `row`. Behind a barrier. */
static __device__ void times_covariance(const gpu_mixer &m, const reading &r, const float *x,
                                        const float *state, uint32_t row)
{
    gpu_tiles(
        r.rows, m.n, m.n, [&](uint32_t i, uint32_t c) { return x[i * r.nl + c]; },
        [&](uint32_t c, uint32_t j) { return state[c * row + j]; },
        [&](uint32_t i, uint32_t j, float value) { r.product[i * r.nl + j] = r.keep[i] * value; });
    __syncthreads();
}

/* r.norm = Frobenius norms of the covariances behind every token. Leaves r.b and r.product used. */
static __device__ void covariance_norms(const gpu_mixer &m, const reading &r, const float *state,
                                        uint32_t row)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < m.n * m.n; i += THREADS) {
        float s = state[i / m.n * row + i % m.n];
        squares += s * s;
    }
    float total = gpu_block_total(squares, r.reduce);
    times_covariance(m, r, r.k, state, row);
    scores(m, r, r.k, false);
    /* e^g k . P_(i-1) k, |k|^2 */
    for (uint32_t i = warp; i < r.rows; i += THREADS / 32) {
        float sum = 0.0f;
        for (uint32_t c = lane; c < m.n; c += 32) {
            sum += r.k[i * r.nl + c] * r.product[i * r.nl + c];
        }
        for (uint32_t j = lane; j < i; j += 32) {
            sum += expf(r.sum[i] - r.sum[j]) * r.b[i * r.bl + j] * r.b[i * r.bl + j];
        }
        sum = gpu_warp_sum(sum);
        if (lane == 0) {
            r.norm[i] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < r.rows; i++) {
            float decay = expf(r.sum[i] - (i > 0 ? r.sum[i - 1] : 0.0f)), k = r.b[i * r.bl + i];
            total = decay * decay * total + 2.0f * r.norm[i] + k * k;
            r.norm[i] = sqrtf(total);
        }
    }
    __syncthreads();
}

/* GKA: r.x = N^-1/2 (q + alpha (x - q)), x of (P_i + lambda_i) x = q by Chebyshev iteration, all
 * tokens together. state: the covariance before the chunk, stride `row`. */
static __device__ void solve_all(const gpu_mixer &m, const reading &r, const float *state,
                                 uint32_t row, const float *alpha)
{
    covariance_norms(m, r, state, row);
    for (uint32_t at = threadIdx.x; at < r.rows * m.n; at += THREADS) {
        uint32_t i = at / m.n, c = i * r.nl + at % m.n;
        float norm = r.norm[i], eta = 2.0f / (2.0f * m.ridge * norm + norm);
        r.eta[i] = eta; /* the same from every thread */
        r.x[c] = eta * r.q[c];
        r.before[c] = 0.0f;
    }
    if (threadIdx.x < r.rows) {
        r.omega[threadIdx.x] = 2.0f;
    }
    __syncthreads();
    for (uint32_t iteration = 0; iteration < m.iterations; iteration++) {
        if (threadIdx.x < r.rows) { /* seen behind the barriers of the products */
            float norm = r.norm[threadIdx.x];
            float rho = norm / (2.0f * m.ridge * norm + norm) / 2.0f;
            r.omega[threadIdx.x] = 1.0f / (1.0f - rho * rho * r.omega[threadIdx.x]);
        }
        scores(m, r, r.x, true);
        times_covariance(m, r, r.x, state, row);
        gpu_tiles(
            r.rows, m.n, r.rows, [&](uint32_t i, uint32_t j) { return r.b[i * r.bl + j]; },
            [&](uint32_t j, uint32_t c) { return r.k[j * r.nl + c]; },
            [&](uint32_t i, uint32_t c, float value) {
                uint32_t at = i * r.nl + c;
                float x = r.x[at], omega = r.omega[i];
                float slope = r.product[at] + value + m.ridge * r.norm[i] * x - r.q[at];
                r.x[at] = omega * (x - r.eta[i] * slope) - (omega - 1.0f) * r.before[at];
                r.before[at] = x;
            });
        __syncthreads();
    }
    for (uint32_t at = threadIdx.x; at < r.rows * m.n; at += THREADS) {
        uint32_t i = at / m.n, c = i * r.nl + at % m.n;
        r.x[c] = (r.q[c] + alpha[i] * (r.x[c] - r.q[c])) / sqrtf((float)m.n);
    }
    __syncthreads();
}

/* Skip, norm, gate and the head's factor, a warp a token. */
static __device__ void finish(const gpu_scan_params &p, const reading &r, const span &s, uint32_t h)
{
    const gpu_mixer &m = p.mixer;
    const gpu_layer &w = *p.layer;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    bool mamba2 = m.kind == MIXER_MAMBA2;
    for (uint32_t i = warp; i < s.count; i += THREADS / 32) {
        uint32_t t = s.from + i;
        const float *gate = gpu_mixer_row(m, p.rows, t) + m.conv_width + h * m.p;
        float *o = r.o + i * r.pl, squares = 0.0f;
        for (uint32_t j = lane; j < m.p; j += 32) {
            float x = o[j];
            if (mamba2) {
                x += w.skip ? w.skip[h] * r.d[i * r.pl + j] : 0.0f;
                x *= gate[j] * gpu_sigmoid(gate[j]);
            }
            o[j] = x;
            squares += x * x;
        }
        float factor = 1.0f / sqrtf(gpu_warp_sum(squares) / (float)m.p + m.eps);
        uint16_t *to = p.out + (size_t)(t - p.first) * m.heads * m.p + h * m.p;
        for (uint32_t j = lane; j < m.p; j += 32) {
            if (m.norm_group != m.p) { /* norms of several heads are the caller's */
                to[j] = gpu_float_to_half(o[j]);
                continue;
            }
            float x = o[j] * factor * w.norm[(h * m.p + j) % m.norm_weights];
            if (!mamba2) {
                x *= gate[j] * gpu_sigmoid(gate[j]);
            }
            to[j] = gpu_float_to_half(w.gate ? x * w.gate[h] : x);
        }
    }
}

/* Rows of scratch to shared memory. */
static __device__ void get_rows(float *to, const float *from, uint32_t rows, uint32_t columns)
{
    for (uint32_t at = threadIdx.x * 4; at < rows * columns; at += THREADS * 4) {
        *(float4 *)(to + at / columns * (columns + PAD) + at % columns) =
            *(const float4 *)(from + at);
    }
}

/* Block (chunk, head). */
static __global__ void __launch_bounds__(THREADS)
    read_kernel(const __grid_constant__ gpu_scan_params p)
{
    GPU_SHARED(memory);
    const gpu_mixer &m = p.mixer;
    bool gka = m.kind == MIXER_GKA;
    span s = span_of(p, p.begin + blockIdx.x);
    view from = view_of(p, blockIdx.x, blockIdx.y);
    reading r;
    r.rows = rows_of(s);
    r.nl = m.n + PAD;
    r.pl = m.p + PAD;
    r.bl = p.chunk + PAD;
    r.q = (float *)memory;
    r.k = r.q + p.chunk * r.nl;
    r.d = r.k + p.chunk * r.nl;
    r.o = r.d + p.chunk * r.pl;
    r.b = r.o + p.chunk * r.pl;
    r.sum = r.b + p.chunk * r.bl;
    r.keep = r.sum + p.chunk;
    r.norm = r.keep + p.chunk;
    r.omega = r.norm + p.chunk;
    r.eta = r.omega + p.chunk;
    r.reduce = r.eta + p.chunk;
    r.x = r.reduce + 32;
    r.before = r.x + p.chunk * r.nl;
    r.product = r.before + p.chunk * r.nl;
    get_rows(r.q, from.q, r.rows, m.n);
    get_rows(r.k, from.k, r.rows, m.n);
    get_rows(r.d, from.d, r.rows, m.p);
    if (threadIdx.x < r.rows) {
        float sum = from.sum[threadIdx.x];
        r.sum[threadIdx.x] = sum;
        r.keep[threadIdx.x] = expf(sum);
    }
    const float *covariance = from.state, *state = from.state + (gka ? m.n * m.n : 0);
    uint32_t row = m.n;
    if (is_staged(m)) {
        float *staged = r.product + p.chunk * r.nl;
        row = m.n + 8;
        for (uint32_t i = threadIdx.x; i < m.n * m.n; i += THREADS) {
            staged[i / m.n * row + i % m.n] = covariance[i];
        }
        covariance = staged;
    }
    __syncthreads();
    if (gka) {
        solve_all(m, r, covariance, row, from.alpha);
    }
    read_out(m, r, gka ? r.x : r.q, state);
    finish(p, r, s, blockIdx.y);
}

/* --- host ------------------------------------------------------------------------------------- */

/* Of the kernel that needs most. */
static size_t shared_bytes(const gpu_mixer &m, uint32_t chunk)
{
    uint32_t a = prepare_floats(m, chunk), b = carry_floats(m, chunk), c = read_floats(m, chunk);
    uint32_t most = a > b ? a : b;
    return sizeof(float) * (most > c ? most : c);
}

uint32_t gpu_chunk_size(const gpu_mixer *m, size_t shared_limit)
{
    if (m->n % 8 != 0 || m->p % 8 != 0) {
        return 0;
    }
    /* Within a chunk the work of a token grows with its length, of GKA in every iteration. */
    uint32_t chunk = m->kind == MIXER_GKA ? 32 : 64;
    while (chunk >= 16 && shared_bytes(*m, chunk) > shared_limit) {
        chunk /= 2;
    }
    return chunk >= 16 ? chunk : 0;
}

/* All runs of `tokens` have at most so many chunks. */
static uint32_t chunks_within(uint32_t tokens, uint32_t chunk)
{
    return tokens / chunk + CORE_SNAPSHOTS + 3;
}

size_t gpu_chunk_floats(const gpu_mixer *m, size_t tokens, uint32_t chunk)
{
    uint32_t some = chunks_within((uint32_t)tokens, chunk);
    return (size_t)(some < GPU_CHUNKS ? some : (uint32_t)GPU_CHUNKS) * m->heads *
           slot_floats(*m, chunk);
}

cudaError_t gpu_chunks_prepare(const gpu_mixer *m, uint32_t chunk)
{
    size_t f = sizeof(float);
    cudaError_t code =
        cudaFuncSetAttribute(prepare_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)(prepare_floats(*m, chunk) * f));
    if (code == cudaSuccess) {
        code = cudaFuncSetAttribute(carry_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    (int)(carry_floats(*m, chunk) * f));
    }
    if (code == cudaSuccess) {
        code = cudaFuncSetAttribute(read_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    (int)(read_floats(*m, chunk) * f));
    }
    return code;
}

cudaError_t gpu_chunks_launch(const gpu_scan_params *params, cudaStream_t queue)
{
    gpu_scan_params p = *params;
    const gpu_mixer &m = p.mixer;
    uint32_t every = CORE_SNAPSHOT_EVERY, kept = CORE_SNAPSHOTS * every;
    uint32_t least = p.end > kept ? (p.end - kept + every - 1) / every * every : 0;
    uint32_t slices = slices_of(m.p) + (m.kind == MIXER_GKA ? slices_of(m.n) : 0);
    size_t f = sizeof(float);
    cudaError_t code = cudaSuccess;
    p.fine = least > p.first ? least : p.first;
    uint32_t all = all_chunks(p);
    for (p.begin = 0; p.begin < all && code == cudaSuccess; p.begin += p.count) {
        p.count = all - p.begin < (uint32_t)GPU_CHUNKS ? all - p.begin : (uint32_t)GPU_CHUNKS;
        code = gpu_launch(false, prepare_kernel, dim3(p.count, m.heads), dim3(THREADS),
                          prepare_floats(m, p.chunk) * f, queue, p);
        if (code == cudaSuccess) {
            code = gpu_launch(false, carry_kernel, dim3(slices, m.heads), dim3(THREADS),
                              carry_floats(m, p.chunk) * f, queue, p);
        }
        if (code == cudaSuccess) {
            code = gpu_launch(false, read_kernel, dim3(p.count, m.heads), dim3(THREADS),
                              read_floats(m, p.chunk) * f, queue, p);
        }
    }
    return code;
}
