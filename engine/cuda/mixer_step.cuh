/* engine/cuda/mixer_step.cuh: one token of one head of a recurrent layer (mixer.h, with its
 * equations) by all threads of a block. Scalar twin: mixer.c; sums run in another order here, so
 * results agree up to rounding.
 *
 * A convolution needs no state of its own: the rows of projections of the last GPU_MIXER_ROWS
 * tokens are kept, which running again needs anyway.
 */
#ifndef ENGINE_CUDA_MIXER_STEP_CUH
#define ENGINE_CUDA_MIXER_STEP_CUH

#include "engine/cuda/mixer.cuh"

struct gpu_mixer_space {
    float *q, *k, *x, *before, *product; /* [n] */
    float *v, *e, *o;                    /* [p] */
    float *partial;                      /* [threads or p] */
    float *reduce;                       /* [32] */
    float *factor;                       /* [2, MIXER_KERNEL_MAX] */
};

static __device__ __forceinline__ float gpu_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* gpu_block_sum, with `work` free again. */
static __device__ __forceinline__ float gpu_block_total(float value, float *work)
{
    float total = gpu_block_sum(value, work);
    __syncthreads();
    return total;
}

static __device__ float gpu_block_squares(const float *x, uint32_t size, float *work)
{
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < size; i += blockDim.x) {
        sum += x[i] * x[i];
    }
    return gpu_block_total(sum, work);
}

/* Threads in slices: a thread adds up rows r, r + slices, ... of column j; the slices' sums are
 * added in their order. update: S = decay S + k v^T on the way. out = S^T x, behind a barrier. */
static __device__ void gpu_state_pass(float *state, uint32_t n, uint32_t p, bool update,
                                      float decay, const float *k, const float *v, const float *x,
                                      float *out, float *partial)
{
    uint32_t width = min(p, (uint32_t)blockDim.x), slices = blockDim.x / width;
    uint32_t r = threadIdx.x / width;
    for (uint32_t j = threadIdx.x % width; r < slices && j < p; j += width) {
        float sum = 0.0f, value = update ? v[j] : 0.0f;
        for (uint32_t i = r; i < n; i += slices) {
            float s = state[(size_t)i * p + j];
            if (update) {
                s = decay * s + k[i] * value;
                state[(size_t)i * p + j] = s;
            }
            sum += x[i] * s;
        }
        partial[r * p + j] = sum;
    }
    __syncthreads();
    for (uint32_t j = threadIdx.x; j < p; j += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t s = 0; s < slices; s++) {
            sum += partial[s * p + j];
        }
        out[j] = sum;
    }
    __syncthreads();
}

static __device__ __forceinline__ const float *gpu_mixer_row(const gpu_mixer &m,
                                                             const gpu_mixer_rows &rows, uint32_t t)
{
    return t >= rows.batch_first ? rows.batch + (size_t)(t - rows.batch_first) * m.row
                                 : rows.ring + (size_t)(t % GPU_MIXER_ROWS) * m.row;
}

/* Scale factors of the rows under the convolution where queries and keys are normed before it. */
static __device__ void gpu_conv_factors(const gpu_mixer &m, const gpu_mixer_rows &rows, uint32_t t,
                                        uint32_t q_at, uint32_t k_at, const gpu_mixer_space &w)
{
    for (uint32_t i = 0; i < m.kernel && i <= t; i++) {
        const float *row = gpu_mixer_row(m, rows, t - i);
        for (uint32_t which = 0; which < 2; which++) {
            float sum = 0.0f;
            for (uint32_t c = threadIdx.x; c < m.n; c += blockDim.x) {
                float x = __ldcg(row + (which ? k_at : q_at) + c);
                sum += x * x;
            }
            float total = gpu_block_total(sum, w.reduce);
            if (threadIdx.x == 0) {
                w.factor[which * MIXER_KERNEL_MAX + i] = 1.0f / sqrtf(total / (float)m.n + 1e-6f);
            }
        }
    }
    __syncthreads();
}

/* Convolved q, k, v of head h at token t. Absent rows are zero. */
static __device__ void gpu_convolve(const gpu_mixer &m, const gpu_layer &w, uint32_t h,
                                    const gpu_mixer_rows &rows, uint32_t t,
                                    const gpu_mixer_space &s)
{
    uint32_t q_at = h / (m.heads / m.q_heads) * m.n;
    uint32_t k_at = m.q_heads * m.n + h / (m.heads / m.k_heads) * m.n;
    uint32_t v_at = (m.q_heads + m.k_heads) * m.n + h / (m.heads / m.v_heads) * m.p;
    if (w.conv_q_norm || w.conv_k_norm) {
        gpu_conv_factors(m, rows, t, q_at, k_at, s);
    }
    for (uint32_t c = threadIdx.x; c < 2 * m.n + m.p; c += blockDim.x) {
        uint32_t part = c < m.n ? 0 : c < 2 * m.n ? 1 : 2, i = c - part * m.n;
        uint32_t channel = (part == 0 ? q_at : part == 1 ? k_at : v_at) + i;
        const float *weight = part == 0 ? w.conv_q_norm : part == 1 ? w.conv_k_norm : NULL;
        float sum = 0.0f;
        for (uint32_t j = 0; j < m.kernel && j <= t; j++) {
            float x = __ldcg(gpu_mixer_row(m, rows, t - j) + channel);
            if (weight) {
                x = x * s.factor[part * MIXER_KERNEL_MAX + j] * weight[i];
            }
            sum += w.conv[channel * m.kernel + m.kernel - 1 - j] * x;
        }
        sum += w.conv_bias ? w.conv_bias[channel] : 0.0f;
        (part == 0 ? s.q : part == 1 ? s.k : s.v)[i] = sum * gpu_sigmoid(sum);
    }
    __syncthreads();
}

static __device__ void gpu_scale(float *x, uint32_t size, float factor)
{
    for (uint32_t i = threadIdx.x; i < size; i += blockDim.x) {
        x[i] *= factor;
    }
    __syncthreads();
}

/* |e|^2 / (|v|^2 + 1e-6), in every thread. */
static __device__ float gpu_novelty(const gpu_mixer_space &s, uint32_t p)
{
    return gpu_block_squares(s.e, p, s.reduce) / (gpu_block_squares(s.v, p, s.reduce) + 1e-6f);
}

static __device__ float gpu_step_gdn(const gpu_mixer &m, float decay, float beta, float *state,
                                     const gpu_mixer_space &s)
{
    float q = gpu_block_squares(s.q, m.n, s.reduce), k = gpu_block_squares(s.k, m.n, s.reduce);
    gpu_scale(s.q, m.n, 1.0f / sqrtf(q + 1e-6f) / sqrtf((float)m.n));
    gpu_scale(s.k, m.n, 1.0f / sqrtf(k + 1e-6f));
    gpu_state_pass(state, m.n, m.p, false, 0.0f, NULL, NULL, s.k, s.e, s.partial);
    for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
        s.e[j] = s.v[j] - decay * s.e[j];
    }
    __syncthreads();
    float novelty = gpu_novelty(s, m.p);
    gpu_scale(s.k, m.n, beta);
    gpu_state_pass(state, m.n, m.p, true, decay, s.k, s.e, s.q, s.o, s.partial);
    return novelty;
}

/* x of (S + ridge I) x = b by Chebyshev iteration, S [n, n] symmetric of Frobenius norm `norm`. */
static __device__ void gpu_solve(const gpu_mixer &m, float *state, float norm, const float *b,
                                 const gpu_mixer_space &s)
{
    float lambda = m.ridge * norm, eta = 2.0f / (2.0f * lambda + norm), omega = 2.0f;
    float rho = norm / (2.0f * lambda + norm) / 2.0f;
    for (uint32_t i = threadIdx.x; i < m.n; i += blockDim.x) {
        s.x[i] = eta * b[i];
        s.before[i] = 0.0f;
    }
    __syncthreads();
    for (uint32_t iteration = 0; iteration < m.iterations; iteration++) {
        omega = 1.0f / (1.0f - rho * rho * omega);
        gpu_state_pass(state, m.n, m.n, false, 0.0f, NULL, NULL, s.x, s.product, s.partial);
        for (uint32_t i = threadIdx.x; i < m.n; i += blockDim.x) {
            float x = s.x[i], slope = s.product[i] + lambda * x - b[i];
            s.x[i] = omega * (x - eta * slope) - (omega - 1.0f) * s.before[i];
            s.before[i] = x;
        }
        __syncthreads();
    }
}

static __device__ float gpu_step_gka(const gpu_mixer &m, float decay, float beta, float alpha,
                                     float *state, bool measured, const gpu_mixer_space &s)
{
    float *covariance = state, *u = state + (size_t)m.n * m.n, novelty = 1.0f;
    float q = gpu_block_squares(s.q, m.n, s.reduce), k = gpu_block_squares(s.k, m.n, s.reduce);
    gpu_scale(s.q, m.n, 1.0f / (sqrtf(q) + 1e-6f));
    gpu_scale(s.k, m.n, beta / (sqrtf(k) + 1e-6f));
    gpu_scale(s.v, m.p, beta);
    float norm = measured ? sqrtf(gpu_block_squares(covariance, m.n * m.n, s.reduce)) : 0.0f;
    if (norm > 0.0f) { /* before the update: what the state says of this token (mixer.c) */
        gpu_solve(m, covariance, norm, s.k, s);
        gpu_state_pass(u, m.n, m.p, false, 0.0f, NULL, NULL, s.x, s.e, s.partial);
        for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
            s.e[j] = s.v[j] - s.e[j];
        }
        __syncthreads();
        novelty = gpu_novelty(s, m.p);
    }
    gpu_state_pass(covariance, m.n, m.n, true, decay, s.k, s.k, s.q, s.product, s.partial);
    gpu_state_pass(u, m.n, m.p, true, decay, s.k, s.v, s.q, s.o, s.partial);
    norm = sqrtf(gpu_block_squares(covariance, m.n * m.n, s.reduce));
    gpu_solve(m, covariance, norm, s.q, s);
    for (uint32_t i = threadIdx.x; i < m.n; i += blockDim.x) {
        s.x[i] = (s.q[i] + alpha * (s.x[i] - s.q[i])) / sqrtf((float)m.n);
    }
    __syncthreads();
    gpu_state_pass(u, m.n, m.p, false, 0.0f, NULL, NULL, s.x, s.o, s.partial);
    return novelty;
}

static __device__ float gpu_step_mamba2(const gpu_mixer &m, float decay, float delta, float skip,
                                        float *state, bool measured, const gpu_mixer_space &s)
{
    float novelty = 0.0f;
    if (measured) {
        float factor = decay / (gpu_block_squares(s.k, m.n, s.reduce) + 1e-6f);
        gpu_state_pass(state, m.n, m.p, false, 0.0f, NULL, NULL, s.k, s.e, s.partial);
        for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
            s.e[j] = s.v[j] - factor * s.e[j];
        }
        __syncthreads();
        novelty = gpu_novelty(s, m.p);
    }
    gpu_scale(s.k, m.n, delta);
    gpu_state_pass(state, m.n, m.p, true, decay, s.k, s.v, s.q, s.o, s.partial);
    for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
        s.o[j] += skip * s.v[j];
    }
    __syncthreads();
    return novelty;
}

/* Norm, gate, and the head's factor: s.o is the head's output. GROUPED: norms may be of several
 * heads (Mamba2), and are the caller's then. */
template <bool GROUPED>
static __device__ void gpu_mixer_finish(const gpu_mixer &m, const gpu_layer &w, uint32_t h,
                                        const float *row, const gpu_mixer_space &s)
{
    const float *gate = row + m.conv_width + h * m.p;
    bool mamba2 = m.kind == MIXER_MAMBA2;
    for (uint32_t j = threadIdx.x; mamba2 && j < m.p; j += blockDim.x) {
        float g = __ldcg(gate + j);
        s.o[j] *= g * gpu_sigmoid(g);
    }
    __syncthreads();
    if (GROUPED && m.norm_group != m.p) {
        return;
    }
    float squares = gpu_block_squares(s.o, m.p, s.reduce);
    float factor = 1.0f / sqrtf(squares / (float)m.p + m.eps);
    for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
        float o = s.o[j] * factor * w.norm[(h * m.p + j) % m.norm_weights];
        if (!mamba2) {
            float g = __ldcg(gate + j);
            o *= g * gpu_sigmoid(g);
        }
        s.o[j] = w.gate ? o * w.gate[h] : o;
    }
    __syncthreads();
}

static __device__ __forceinline__ gpu_mixer_space gpu_mixer_space_of(const gpu_mixer &m,
                                                                     float *work)
{
    gpu_mixer_space s;
    s.q = work;
    s.k = s.q + m.n;
    s.x = s.k + m.n;
    s.before = s.x + m.n;
    s.product = s.before + m.n;
    s.v = s.product + m.n;
    s.e = s.v + m.p;
    s.o = s.e + m.p;
    s.reduce = s.o + m.p;
    s.factor = s.reduce + 32;
    s.partial = s.factor + 2 * MIXER_KERNEL_MAX;
    return s;
}

/* Token t of head h: the state moves on; returns what it did not predict (measured, or GDN). The
 * head's output [p] is at gpu_mixer_space_of(m, work).o. All threads of the block call this. */
template <bool GROUPED>
static __device__ __forceinline__ float gpu_mixer_token(const gpu_mixer &m, const gpu_layer &w,
                                                        uint32_t h, const gpu_mixer_rows &rows,
                                                        uint32_t t, float *state, bool measured,
                                                        float *work)
{
    gpu_mixer_space s = gpu_mixer_space_of(m, work);
    const float *row = gpu_mixer_row(m, rows, t), *gates = row + m.conv_width + m.heads * m.p;
    gpu_convolve(m, w, h, rows, t, s);
    float step = __ldcg(gates + h) + w.dt_bias[h], novelty;
    float delta = step > 20.0f ? step : log1pf(expf(step)), decay = expf(w.a[h] * delta);
    if (m.kind == MIXER_MAMBA2) {
        novelty = gpu_step_mamba2(m, decay, delta, w.skip ? w.skip[h] : 0.0f, state, measured, s);
    } else {
        float beta =
            gpu_sigmoid(__ldcg(gates + m.heads + h) + (w.beta_bias ? w.beta_bias[h] : 0.0f));
        if (m.kind == MIXER_GDN) {
            novelty = gpu_step_gdn(m, decay, beta, state, s);
        } else {
            float alpha = gpu_sigmoid(__ldcg(gates + 2 * m.heads + h) +
                                      (w.alpha_bias ? w.alpha_bias[h] : 0.0f));
            novelty = gpu_step_gka(m, decay, beta + 1e-6f, alpha, state, measured, s);
        }
    }
    gpu_mixer_finish<GROUPED>(m, w, h, row, s);
    return novelty;
}

#endif
