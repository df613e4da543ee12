/* engine/mixer.c: the layers of mixer.h, token by token. Work is shared out by heads; a head runs
 * through all tokens while its state stays in the cache. */
#include "engine/mixer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels.h"
#include "engine/kernels_state.h"

static const char *const names[MIXER_KIND_COUNT] = {"gdn", "gka", "mamba2"};

const char *mixer_name(mixer_kind kind)
{
    return (unsigned)kind < MIXER_KIND_COUNT ? names[kind] : "?";
}

bool mixer_parse(const char *name, size_t size, mixer_kind *kind)
{
    for (int i = 0; i < MIXER_KIND_COUNT; i++) {
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0) {
            *kind = (mixer_kind)i;
            return true;
        }
    }
    return false;
}

static size_t q_width(const mixer *m)
{
    return m->q_heads * m->key_size;
}

static size_t k_width(const mixer *m)
{
    return m->k_heads * m->key_size;
}

size_t mixer_conv_width(const mixer *m)
{
    return q_width(m) + k_width(m) + m->v_heads * m->value_size;
}

size_t mixer_out_width(const mixer *m)
{
    return m->heads * m->value_size;
}

size_t mixer_row(const mixer *m)
{
    size_t per_head = m->kind == MIXER_MAMBA2 ? 1 : m->kind == MIXER_GDN ? 2 : 3;
    return mixer_conv_width(m) + mixer_out_width(m) + per_head * m->heads;
}

size_t mixer_head_floats(const mixer *m)
{
    return m->key_size * (m->value_size + (m->kind == MIXER_GKA ? m->key_size : 0));
}

size_t mixer_state_floats(const mixer *m)
{
    return m->heads * mixer_head_floats(m) + (m->kernel - 1) * mixer_conv_width(m);
}

size_t mixer_scratch_floats(const mixer *m, size_t tokens)
{
    return (m->kernel - 1 + 2 * tokens) * mixer_conv_width(m);
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

/* --- convolution ------------------------------------------------------------------------------ */

static void rms_heads(float *x, size_t heads, size_t size, const float *weight)
{
    for (size_t h = 0; h < heads; h++, x += size) {
        float squares = 0.0f;
        for (size_t i = 0; i < size; i++) {
            squares += x[i] * x[i];
        }
        float factor = 1.0f / sqrtf(squares / (float)size + 1e-6f);
        for (size_t i = 0; i < size; i++) {
            x[i] = x[i] * factor * weight[i];
        }
    }
}

typedef struct run_job {
    const mixer *m;
    const float *rows;
    size_t row_stride, tokens;
    float *state, *out, *innovation;
    float *before; /* [kernel-1+T, conv width]: the tail, then this call's q, k, v */
    float *after;  /* [T, conv width]: convolved */
} run_job;

/* The rows under the convolution: what the last call left, then what came now. */
static void gather(const run_job *job, float *tail)
{
    const mixer *m = job->m;
    size_t width = mixer_conv_width(m), kept = (m->kernel - 1) * width;
    if (kept > 0) {
        memcpy(job->before, tail, kept * sizeof *tail);
    }
    for (size_t t = 0; t < job->tokens; t++) {
        float *to = job->before + kept + t * width;
        memcpy(to, job->rows + t * job->row_stride, width * sizeof *to);
        if (m->q_norm) {
            rms_heads(to, m->q_heads, m->key_size, m->q_norm);
        }
        if (m->k_norm) {
            rms_heads(to + q_width(m), m->k_heads, m->key_size, m->k_norm);
        }
    }
    if (kept > 0) {
        memcpy(tail, job->before + job->tokens * width, kept * sizeof *tail);
    }
}

/* x <- SiLU(x) */
static void activate(float *x, size_t count)
{
    enum { AT_ONCE = 64 };
    float ones[AT_ONCE];
    for (size_t i = 0; i < AT_ONCE; i++) {
        ones[i] = 1.0f;
    }
    for (size_t at = 0; at < count; at += AT_ONCE) {
        kernel_get()->silu_mul(x + at, ones, count - at < AT_ONCE ? count - at : AT_ONCE);
    }
}

static void convolve(void *argument, size_t begin, size_t end, size_t thread)
{
    const run_job *job = argument;
    const mixer *m = job->m;
    size_t width = mixer_conv_width(m);
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *to = job->after + t * width;
        kernel_state_convolve(job->before + t * width, width, m->kernel, m->conv, to);
        if (m->conv_bias) {
            kernel_get()->add(to, m->conv_bias, width);
        }
        activate(to, width);
    }
}

/* --- one token of one head -------------------------------------------------------------------- */

typedef struct head_token {
    const float *k, *q, *v; /* [N], [N], [P] convolved */
    float decay;            /* e^g */
    float delta, beta, alpha;
} head_token;

static float squares(const float *x, size_t size)
{
    float sum = 0.0f;
    for (size_t i = 0; i < size; i++) {
        sum += x[i] * x[i];
    }
    return sum;
}

/* Step size of a head, which its decay follows. */
static float delta_of(const mixer *m, const float *row, size_t h)
{
    return softplus(row[mixer_conv_width(m) + mixer_out_width(m) + h] + m->dt_bias[h]);
}

float mixer_log_decay(const mixer *m, const float *row, size_t head)
{
    return m->a[head] * delta_of(m, row, head);
}

static head_token token_of(const run_job *job, size_t t, size_t h)
{
    const mixer *m = job->m;
    const float *conv = job->after + t * mixer_conv_width(m);
    const float *row = job->rows + t * job->row_stride;
    const float *per_head = row + mixer_conv_width(m) + mixer_out_width(m);
    head_token x = {.q = conv + h / (m->heads / m->q_heads) * m->key_size,
                    .k = conv + q_width(m) + h / (m->heads / m->k_heads) * m->key_size,
                    .v = conv + q_width(m) + k_width(m) +
                         h / (m->heads / m->v_heads) * m->value_size};
    x.delta = delta_of(m, row, h);
    x.decay = expf(m->a[h] * x.delta);
    if (m->kind != MIXER_MAMBA2) {
        x.beta = sigmoid(per_head[m->heads + h] + (m->beta_bias ? m->beta_bias[h] : 0.0f));
    }
    if (m->kind == MIXER_GKA) {
        x.beta += 1e-6f;
        x.alpha = sigmoid(per_head[2 * m->heads + h] + (m->alpha_bias ? m->alpha_bias[h] : 0.0f));
    }
    return x;
}

static float novelty(const float *e, const float *v, size_t size)
{
    return squares(e, size) / (squares(v, size) + 1e-6f);
}

static void step_gdn(const mixer *m, const head_token *x, float *state, float *o, float *innovation)
{
    float q[MIXER_SIZE_MAX], k[MIXER_SIZE_MAX], e[MIXER_SIZE_MAX];
    size_t n = m->key_size, p = m->value_size;
    float q_factor = 1.0f / sqrtf(squares(x->q, n) + 1e-6f) / sqrtf((float)n);
    float k_factor = 1.0f / sqrtf(squares(x->k, n) + 1e-6f);
    for (size_t i = 0; i < n; i++) {
        q[i] = x->q[i] * q_factor;
        k[i] = x->k[i] * k_factor;
    }
    kernel_state_delta(state, n, p, x->decay, x->beta, k, x->v, q, e, o);
    if (innovation) {
        *innovation = novelty(e, x->v, p);
    }
}

/* x of (S + ridge I) x = b, S [N, N] symmetric of Frobenius norm `norm`. */
static void solve(const mixer *m, const float *state, float norm, const float *b, float *x)
{
    size_t n = m->key_size;
    float previous[MIXER_SIZE_MAX] = {0}, product[MIXER_SIZE_MAX];
    float lambda = m->ridge * norm, eta = 2.0f / (2.0f * lambda + norm), omega = 2.0f;
    float rho = norm / (2.0f * lambda + norm) / 2.0f;
    for (size_t i = 0; i < n; i++) {
        x[i] = eta * b[i];
    }
    for (size_t iteration = 0; iteration < m->iterations; iteration++) {
        float next[MIXER_SIZE_MAX];
        omega = 1.0f / (1.0f - rho * rho * omega);
        kernel_state_chebyshev(state, n, x, b, lambda, eta, omega, previous, next, product);
        memcpy(previous, x, n * sizeof *x);
        memcpy(x, next, n * sizeof *x);
    }
}

static void step_gka(const mixer *m, const head_token *x, float *state, float *o, float *innovation)
{
    float q[MIXER_SIZE_MAX], k[MIXER_SIZE_MAX], v[MIXER_SIZE_MAX], y[MIXER_SIZE_MAX];
    float work[MIXER_SIZE_MAX];
    size_t n = m->key_size, p = m->value_size;
    float *covariance = state, *u = state + n * n;
    float q_factor = 1.0f / (sqrtf(squares(x->q, n)) + 1e-6f);
    float k_factor = x->beta / (sqrtf(squares(x->k, n)) + 1e-6f);
    for (size_t i = 0; i < n; i++) {
        q[i] = x->q[i] * q_factor;
        k[i] = x->k[i] * k_factor;
    }
    for (size_t j = 0; j < p; j++) {
        v[j] = x->v[j] * x->beta;
    }
    if (innovation) { /* before the update: what (e^g P, e^g U) say of this token */
        float norm = sqrtf(kernel_state_squares(covariance, n, n, work));
        *innovation = 1.0f;
        if (norm > 0.0f) {
            /* (e^g P + ridge |e^g P| I) x = k has the solution e^-g (P + ridge |P| I)^-1 k, and e^g
             * U^T takes the factor back. */
            solve(m, covariance, norm, k, y);
            kernel_state_read(u, n, p, y, work);
            for (size_t j = 0; j < p; j++) {
                work[j] = v[j] - work[j];
            }
            *innovation = novelty(work, v, p);
        }
    }
    kernel_state_add(covariance, n, n, x->decay, k, k, q, work);
    kernel_state_add(u, n, p, x->decay, k, v, q, work);
    if (!o) {
        return;
    }
    float norm = sqrtf(kernel_state_squares(covariance, n, n, work));
    solve(m, covariance, norm, q, y);
    for (size_t i = 0; i < n; i++) {
        y[i] = (q[i] + x->alpha * (y[i] - q[i])) / sqrtf((float)n);
    }
    kernel_state_read(u, n, p, y, o);
}

static void step_mamba2(const mixer *m, size_t h, const head_token *x, float *state, float *o,
                        float *innovation)
{
    float k[MIXER_SIZE_MAX], work[MIXER_SIZE_MAX];
    size_t n = m->key_size, p = m->value_size;
    if (innovation) {
        float factor = x->decay / (squares(x->k, n) + 1e-6f);
        kernel_state_read(state, n, p, x->k, work);
        for (size_t j = 0; j < p; j++) {
            work[j] = x->v[j] - factor * work[j];
        }
        *innovation = novelty(work, x->v, p);
    }
    for (size_t i = 0; i < n; i++) {
        k[i] = x->delta * x->k[i];
    }
    kernel_state_add(state, n, p, x->decay, k, x->v, x->q, o);
    for (size_t j = 0; j < p && m->skip; j++) {
        o[j] += m->skip[h] * x->v[j];
    }
}

/* --- all tokens ------------------------------------------------------------------------------- */

static void run_heads(void *argument, size_t begin, size_t end, size_t thread)
{
    const run_job *job = argument;
    const mixer *m = job->m;
    float none[MIXER_SIZE_MAX];
    (void)thread;
    for (size_t h = begin; h < end; h++) {
        float *state = job->state + h * mixer_head_floats(m);
        for (size_t t = 0; t < job->tokens; t++) {
            head_token x = token_of(job, t, h);
            float *o = job->out ? job->out + t * mixer_out_width(m) + h * m->value_size : NULL;
            float *innovation = job->innovation ? job->innovation + t * m->heads + h : NULL;
            if (m->kind == MIXER_GDN) {
                step_gdn(m, &x, state, o ? o : none, innovation);
            } else if (m->kind == MIXER_GKA) {
                step_gka(m, &x, state, o, innovation);
            } else {
                step_mamba2(m, h, &x, state, o ? o : none, innovation);
            }
        }
    }
}

/* o [H*P] *= SiLU(gate) */
static void apply_gate(const mixer *m, const float *gate, float *o)
{
    float factors[MIXER_SIZE_MAX];
    size_t p = m->value_size;
    for (size_t h = 0; h < m->heads; h++, gate += p, o += p) {
        memcpy(factors, gate, p * sizeof *o);
        kernel_get()->silu_mul(factors, o, p);
        memcpy(o, factors, p * sizeof *o);
    }
}

/* Norm and gate, and the factor of each head. */
static void finish(void *argument, size_t begin, size_t end, size_t thread)
{
    const run_job *job = argument;
    const mixer *m = job->m;
    size_t width = mixer_out_width(m);
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *o = job->out + t * width;
        const float *gate = job->rows + t * job->row_stride + mixer_conv_width(m);
        if (m->kind == MIXER_MAMBA2) {
            apply_gate(m, gate, o);
        }
        for (size_t at = 0; at < width; at += m->norm_group) {
            kernel_get()->rmsnorm(o + at, o + at, m->norm + at % m->norm_weights, m->norm_group,
                                  m->norm_eps);
        }
        if (m->kind != MIXER_MAMBA2) {
            apply_gate(m, gate, o);
        }
        for (size_t h = 0; h < m->heads && m->gate; h++) {
            for (size_t j = 0; j < m->value_size; j++) {
                o[h * m->value_size + j] *= m->gate[h];
            }
        }
    }
}

void mixer_run(const mixer *m, base_pool *pool, const float *rows, size_t row_stride, size_t tokens,
               float *state, float *out, float *innovation, float *scratch)
{
    size_t width = mixer_conv_width(m);
    BASE_ASSERT(m->key_size <= MIXER_SIZE_MAX && m->value_size <= MIXER_SIZE_MAX);
    run_job job = {.m = m,
                   .rows = rows,
                   .row_stride = row_stride,
                   .tokens = tokens,
                   .state = state,
                   .out = out,
                   .innovation = innovation,
                   .before = scratch,
                   .after = scratch + (m->kernel - 1 + tokens) * width};
    base_pool *few = tokens > 4 ? pool : NULL;
    gather(&job, state + m->heads * mixer_head_floats(m));
    base_pool_run(few, tokens, 1, convolve, &job);
    base_pool_run(pool, m->heads, 1, run_heads, &job);
    if (out) {
        base_pool_run(few, tokens, 1, finish, &job);
    }
}

/* --- composition ------------------------------------------------------------------------------ */

/* c_i = mean over r of the mean product of r of the other decays. The means of products grow by one
 * decay at a time: with m of them, p_r <- (1 - r/m) p_r + (r/m) A p_{r-1}. All stay in 0..1. */
static double picaso_weight(const double *decay, size_t count, size_t one)
{
    double sum = 0.0, means[MIXER_PICASO_MAX] = {1.0};
    size_t m = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == one) {
            continue;
        }
        m++;
        for (size_t r = m; r > 0; r--) {
            double share = (double)r / (double)m;
            means[r] = (1.0 - share) * means[r] + share * decay[i] * means[r - 1];
        }
    }
    for (size_t r = 0; r < count; r++) {
        sum += means[r];
    }
    return sum / (double)count;
}

void mixer_picaso(const double *decay, size_t count, double *weights)
{
    BASE_ASSERT(count <= MIXER_PICASO_MAX);
    for (size_t i = 0; i < count; i++) {
        weights[i] = picaso_weight(decay, count, i);
    }
}
