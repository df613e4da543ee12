/* engine/cuda/lab/lab_mixers.cuh: random mixers, for lab_scan.cu and lab_step.cu. */
#ifndef ENGINE_CUDA_LAB_MIXERS_CUH
#define ENGINE_CUDA_LAB_MIXERS_CUH

#include "engine/cuda/lab/lab.cuh"
#include "engine/cuda/prefill.cuh"

struct lab_mixer_shape {
    mixer_kind kind;
    size_t heads, kv_heads, key_size, value_size;
    bool normed; /* queries and keys are normed under the convolution */
};

/* A mixer with random weights, on both sides. */
struct lab_mixer {
    mixer m;
    gpu_mixer device;
    gpu_layer layer; /* pointers to device memory */
    std::vector<std::vector<float>> weights;
};

static inline const float *lab_draw(lab_mixer *to, size_t count, float low, float high,
                                    uint64_t *seed, const float **device)
{
    std::vector<float> values(count);
    for (float &v : values) {
        v = low + (high - low) * 0.5f * (lab_uniform(seed) + 1.0f);
    }
    *device = lab_device(values.data(), count);
    to->weights.push_back(values);
    return to->weights.back().data();
}

static inline void lab_make_mixer(lab_mixer *to, const lab_mixer_shape *c, uint64_t *seed)
{
    mixer *m = &to->m;
    gpu_layer *l = &to->layer;
    to->weights.reserve(16); /* vectors stay where they are */
    m->kind = c->kind;
    m->heads = c->heads;
    m->q_heads = c->kind == MIXER_MAMBA2 ? c->kv_heads : c->heads;
    m->k_heads = m->v_heads = c->kv_heads;
    m->key_size = c->key_size;
    m->value_size = m->norm_group = m->norm_weights = c->value_size;
    m->kernel = 4;
    m->norm_eps = 1e-6f;
    m->ridge = 0.02f;
    m->iterations = 30;
    size_t width = mixer_conv_width(m);
    m->conv = lab_draw(to, width * m->kernel, -0.6f, 0.6f, seed, &l->conv);
    m->conv_bias = lab_draw(to, width, -0.2f, 0.2f, seed, &l->conv_bias);
    m->a = lab_draw(to, m->heads, -1.5f, -0.02f, seed, &l->a);
    m->dt_bias = lab_draw(to, m->heads, -3.0f, 0.0f, seed, &l->dt_bias);
    m->norm = lab_draw(to, m->norm_weights, 0.75f, 1.25f, seed, &l->norm);
    m->gate = lab_draw(to, m->heads, 0.5f, 1.5f, seed, &l->gate);
    if (c->kind == MIXER_MAMBA2) {
        m->skip = lab_draw(to, m->heads, 0.5f, 1.5f, seed, &l->skip);
    } else {
        m->beta_bias = lab_draw(to, m->heads, -1.0f, 1.0f, seed, &l->beta_bias);
    }
    if (c->kind == MIXER_GKA) {
        m->alpha_bias = lab_draw(to, m->heads, -1.0f, 1.0f, seed, &l->alpha_bias);
    }
    if (c->normed) {
        m->q_norm = lab_draw(to, m->key_size, 0.75f, 1.25f, seed, &l->conv_q_norm);
        m->k_norm = lab_draw(to, m->key_size, 0.75f, 1.25f, seed, &l->conv_k_norm);
    }
    gpu_mixer *d = &to->device;
    d->kind = (uint32_t)m->kind;
    d->heads = (uint32_t)m->heads;
    d->q_heads = (uint32_t)m->q_heads;
    d->k_heads = (uint32_t)m->k_heads;
    d->v_heads = (uint32_t)m->v_heads;
    d->n = (uint32_t)m->key_size;
    d->p = (uint32_t)m->value_size;
    d->kernel = (uint32_t)m->kernel;
    d->norm_weights = (uint32_t)m->norm_weights;
    d->norm_group = (uint32_t)m->norm_group;
    d->iterations = (uint32_t)m->iterations;
    d->row = (uint32_t)mixer_row(m);
    d->conv_width = (uint32_t)width;
    d->head_state = d->n * (d->p + (m->kind == MIXER_GKA ? d->n : 0));
    d->floats = d->heads * d->head_state;
    d->eps = m->norm_eps;
    d->ridge = m->ridge;
}

#endif
