/* engine/kernels_scalar.c: every kernel in plain C. This is the definition; the vector files must
 * agree with it up to the order of f32 additions and the error of their exponential. Contracts and
 * sources: kernels.h and kernels_internal.h.
 */
#include <math.h>
#include <string.h>

#include "engine/kernels_internal.h"

/* --- matrix products ----------------------------------------------------------------- */

static void quantise(kernel_act_block *out, const float *x, size_t columns)
{
    for (size_t b = 0; b < columns / KERNEL_BLOCK; b++, out++, x += KERNEL_BLOCK) {
        float largest = 0.0F;
        for (size_t j = 0; j < KERNEL_BLOCK; j++) {
            largest = fmaxf(largest, fabsf(x[j]));
        }
        bool zero = largest < KERNEL_ACT_TINY;
        float inverse = zero ? 0.0F : 127.0F / largest;
        int32_t sum[2] = {0, 0};
        for (size_t j = 0; j < KERNEL_BLOCK; j++) {
            int32_t q = (int32_t)nearbyintf(x[j] * inverse);
            out->q[j] = (int8_t)q;
            sum[j / 16] += q;
        }
        out->scale = zero ? 0.0F : largest / 127.0F;
        out->scaled_sum = out->scale * (float)(sum[0] + sum[1]);
        out->bias_low = -128 * sum[0];
        out->bias_high = -128 * sum[1];
    }
}

static float scale_at(const kernel_matrix *w, const uint8_t *scales, size_t index)
{
    if (w->scales_f32) {
        float value;
        memcpy(&value, scales + 4 * index, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, scales + 2 * index, sizeof half);
    return kernel_half_to_float(half);
}

/* Signed codes of one row of a packed block. */
static void unpack(const kernel_matrix *w, const uint8_t *codes, size_t lane, int q[KERNEL_BLOCK])
{
    for (size_t c = 0; c < KERNEL_BLOCK; c++) {
        if (w->format == KERNEL_P8) {
            q[c] = codes[c / 4 * 64 + 4 * lane + c % 4] - 128;
        } else {
            unsigned pair = codes[c % 16 / 4 * 64 + 4 * lane + c % 4];
            q[c] = (int)(c < 16 ? pair & 15U : pair >> 4) - (w->has_min ? 0 : 8);
        }
    }
}

/* out = sum over blocks of (scale*sx) * (q . xq) + min * (sx * sum xq); the inner product is exact.
 */
static void packed_q8(const kernel_matrix *w, size_t group, const kernel_act_block *x,
                      size_t tokens, float *out, size_t out_stride)
{
    size_t blocks = w->columns / KERNEL_BLOCK, parts = KERNEL_BLOCK / w->scale_columns;
    size_t block_bytes = w->format == KERNEL_P4 ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    for (size_t lane = 0; lane < KERNEL_GROUP && KERNEL_GROUP * group + lane < w->rows; lane++) {
        for (size_t t = 0; t < tokens; t++) {
            float total = 0.0F;
            for (size_t b = 0; b < blocks; b++) {
                size_t cell = group * blocks + b;
                const uint8_t *scales = (const uint8_t *)w->scales + cell * kernel_scale_bytes(w);
                const kernel_act_block *a = &x[t * blocks + b];
                int q[KERNEL_BLOCK];
                unpack(w, (const uint8_t *)w->data + cell * block_bytes, lane, q);
                for (size_t p = 0; p < parts; p++) {
                    int32_t sum = 0;
                    for (size_t c = p * w->scale_columns; c < (p + 1) * w->scale_columns; c++) {
                        sum += q[c] * a->q[c];
                    }
                    float scale = scale_at(w, scales, KERNEL_GROUP * p + lane);
                    total += scale * a->scale * (float)sum;
                }
                if (w->has_min) {
                    total += scale_at(w, scales, KERNEL_GROUP * parts + lane) * a->scaled_sum;
                }
            }
            out[t * out_stride + KERNEL_GROUP * group + lane] = total;
        }
    }
}

static void packed_f32(const kernel_matrix *w, size_t group, const float *x, size_t tokens,
                       float *out, size_t out_stride)
{
    size_t blocks = w->columns / KERNEL_BLOCK, parts = KERNEL_BLOCK / w->scale_columns;
    size_t block_bytes = w->format == KERNEL_P4 ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    for (size_t lane = 0; lane < KERNEL_GROUP && KERNEL_GROUP * group + lane < w->rows; lane++) {
        for (size_t t = 0; t < tokens; t++) {
            double total = 0.0;
            for (size_t b = 0; b < blocks; b++) {
                size_t cell = group * blocks + b;
                const uint8_t *scales = (const uint8_t *)w->scales + cell * kernel_scale_bytes(w);
                float min = w->has_min ? scale_at(w, scales, KERNEL_GROUP * parts + lane) : 0.0F;
                int q[KERNEL_BLOCK];
                unpack(w, (const uint8_t *)w->data + cell * block_bytes, lane, q);
                for (size_t c = 0; c < KERNEL_BLOCK; c++) {
                    float scale = scale_at(w, scales, KERNEL_GROUP * (c / w->scale_columns) + lane);
                    float weight = scale * (float)q[c] + min;
                    total += (double)weight * (double)x[t * w->columns + KERNEL_BLOCK * b + c];
                }
            }
            out[t * out_stride + KERNEL_GROUP * group + lane] = (float)total;
        }
    }
}

static float plain_at(const kernel_matrix *w, size_t index)
{
    switch (w->format) {
    case KERNEL_F32:
        return ((const float *)w->data)[index];
    case KERNEL_F16:
        return kernel_half_to_float(((const uint16_t *)w->data)[index]);
    default:
        return kernel_bf16_to_float(((const uint16_t *)w->data)[index]);
    }
}

static void plain(const kernel_matrix *w, size_t group, const float *x, size_t tokens, float *out,
                  size_t out_stride)
{
    for (size_t n = KERNEL_GROUP * group; n < KERNEL_GROUP * (group + 1) && n < w->rows; n++) {
        for (size_t t = 0; t < tokens; t++) {
            double total = 0.0;
            for (size_t k = 0; k < w->columns; k++) {
                total += (double)plain_at(w, n * w->columns + k) * (double)x[t * w->columns + k];
            }
            out[t * out_stride + n] = (float)total;
        }
    }
}

/* --- rows ---------------------------------------------------------------------------- */

static void rmsnorm(float *out, const float *x, const float *weight, size_t channels, float eps)
{
    double squares = 0.0;
    for (size_t c = 0; c < channels; c++) {
        squares += (double)x[c] * (double)x[c];
    }
    float factor = 1.0F / sqrtf((float)(squares / (double)channels) + eps);
    for (size_t c = 0; c < channels; c++) {
        out[c] = x[c] * factor * weight[c];
    }
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias,
                      size_t channels, float eps)
{
    double sum = 0.0, squares = 0.0;
    for (size_t c = 0; c < channels; c++) {
        sum += (double)x[c];
    }
    float mean = (float)(sum / (double)channels);
    for (size_t c = 0; c < channels; c++) {
        double centred = (double)(x[c] - mean);
        squares += centred * centred;
    }
    float factor = 1.0F / sqrtf((float)(squares / (double)channels) + eps);
    for (size_t c = 0; c < channels; c++) {
        out[c] = (x[c] - mean) * factor * weight[c] + bias[c];
    }
}

static void rope(float *x, size_t heads, size_t head_size, const float *cosine, const float *sine,
                 bool neox)
{
    size_t half = head_size / 2, step = neox ? 1 : 2, apart = neox ? half : 1;
    for (size_t h = 0; h < heads; h++, x += head_size) {
        for (size_t i = 0; i < half; i++) {
            float a = x[step * i], b = x[step * i + apart];
            x[step * i] = a * cosine[i] - b * sine[i];
            x[step * i + apart] = a * sine[i] + b * cosine[i];
        }
    }
}

static void add(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] += y[i];
    }
}

static void silu_mul(float *gate, const float *up, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        gate[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
    }
}

/* x * Phi(x) with Phi(x) = erfc(-x/sqrt 2)/2 (Hendrycks & Gimpel 2016); erfc keeps the negative
 * tail accurate. */
static void gelu(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = 0.5F * x[i] * erfcf(-x[i] * 0.70710678F);
    }
}

static float dot(const float *a, const float *b, size_t count)
{
    double total = 0.0;
    for (size_t i = 0; i < count; i++) {
        total += (double)a[i] * (double)b[i];
    }
    return (float)total;
}

static void to_half(uint16_t *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = kernel_float_to_half(x[i]);
    }
}

static void from_half(float *out, const uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = kernel_half_to_float(x[i]);
    }
}

/* --- attention ----------------------------------------------------------------------- */

static float kv_at(const kernel_kv *kv, const void *rows, size_t index)
{
    return kv->half ? kernel_half_to_float(((const uint16_t *)rows)[index])
                    : ((const float *)rows)[index];
}

static void attention_scores(float *scores, size_t scores_stride, const float *q,
                             size_t query_count, size_t q_stride, const kernel_kv *kv,
                             size_t kv_offset, size_t slots, size_t head_size, float scale,
                             const float *bias)
{
    for (size_t h = 0; h < query_count; h++) {
        for (size_t j = 0; j < slots; j++) {
            float product = 0.0F;
            for (size_t d = 0; d < head_size; d++) {
                size_t at = kernel_row_of(kv, j) * kv->stride + kv_offset + d;
                product += q[h * q_stride + d] * kv_at(kv, kv->keys, at);
            }
            scores[h * scores_stride + j] = product * scale + (bias ? bias[j] : 0.0F);
        }
    }
}

static void attention_weights(float *scores, size_t scores_stride, size_t rows, size_t slots,
                              const float *peaks, float *sums)
{
    for (size_t h = 0; h < rows; h++) {
        float *row = scores + h * scores_stride, peak = peaks ? peaks[h] : -INFINITY;
        for (size_t j = 0; !peaks && j < slots; j++) {
            peak = fmaxf(peak, row[j]);
        }
        sums[h] = 0.0F;
        for (size_t j = 0; j < slots; j++) {
            row[j] = peak == -INFINITY ? 0.0F : expf(row[j] - peak);
            sums[h] += row[j];
        }
    }
}

static void attention_values(float *out, size_t out_stride, const float *p, size_t p_stride,
                             const float *factor, size_t query_count, const kernel_kv *kv,
                             size_t kv_offset, size_t slots, size_t columns, bool onto)
{
    for (size_t h = 0; h < query_count; h++) {
        float *to = out + h * out_stride;
        if (!onto) {
            memset(to, 0, columns * sizeof *to);
        }
        for (size_t j = 0; j < slots; j++) {
            size_t at = kernel_row_of(kv, j) * kv->stride + kv_offset;
            for (size_t d = 0; d < columns; d++) {
                to[d] += p[h * p_stride + j] * kv_at(kv, kv->values, at + d);
            }
        }
        for (size_t d = 0; d < columns; d++) {
            to[d] *= factor[h];
        }
    }
}

static void coarse_scores(float *scores, size_t scores_stride, float *peaks, size_t peaks_stride,
                          const float *q, size_t query_count, size_t q_stride,
                          const kernel_coarse_keys *keys, size_t slots, size_t head_size,
                          float scale)
{
    enum { GROUP = KERNEL_COARSE_GROUP };
    int16_t codes[KERNEL_COARSE_COLUMNS_MAX];
    for (size_t h = 0; h < query_count; h++) {
        float factor = scale * kernel_coarse_query(codes, q + h * q_stride, head_size);
        for (size_t j = 0; j < slots; j++) {
            const int8_t *key = keys->codes + j / GROUP * GROUP * head_size + j % GROUP * 2;
            float *peak = &peaks[h * peaks_stride + j / GROUP];
            int32_t sum = 0;
            for (size_t d = 0; d < head_size; d++) {
                sum += codes[d] * key[d / 2 * GROUP * 2 + d % 2];
            }
            float score = (float)sum * (keys->steps[j] * factor);
            scores[h * scores_stride + j] = score;
            *peak = j % GROUP == 0 || score > *peak ? score : *peak;
        }
    }
}

static size_t coarse_choose(uint32_t *list, const float *scores, size_t scores_stride, size_t rows,
                            const float *bounds, size_t slots, size_t base)
{
    size_t count = 0;
    for (size_t j = 0; j < slots; j++) {
        bool chosen = false;
        for (size_t h = 0; h < rows; h++) {
            chosen = chosen || scores[h * scores_stride + j] >= bounds[h];
        }
        if (chosen) {
            list[count++] = (uint32_t)(base + j);
        }
    }
    return count;
}

/* --- logits -------------------------------------------------------------------------- */

/* With d = z - max: lse = max + log(sum e^d), H = lse - sum p z = log(sum e^d) - sum d e^d / sum
 * e^d. */
static void logit_stats(const float *logits, size_t vocabulary, float *log_sum_exp, float *entropy,
                        size_t *argmax)
{
    BASE_ASSERT(vocabulary > 0);
    size_t best = 0;
    for (size_t v = 1; v < vocabulary; v++) {
        if (logits[v] > logits[best]) {
            best = v;
        }
    }
    double total = 0.0, weighted = 0.0;
    for (size_t v = 0; v < vocabulary; v++) {
        double d = (double)(logits[v] - logits[best]);
        if (d > -100.0) { /* e^-100 vanishes beside the 1 of the maximum; also masks -INF */
            total += exp(d);
            weighted += d * exp(d);
        }
    }
    *log_sum_exp = (float)((double)logits[best] + log(total));
    *entropy = (float)fmax(0.0, log(total) - weighted / total);
    *argmax = best;
}

/* --- the limit of arithmetic ------------------------------------------------------------------ */

static uint64_t int8_work(size_t rounds)
{
    enum { CHAINS = 8 };
    volatile int8_t factor = 3;
    int32_t sum[CHAINS] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (size_t i = 0; i < rounds; i++) {
        int8_t f = factor;
        for (size_t c = 0; c < CHAINS; c++) {
            sum[c] = (int32_t)((uint32_t)sum[c] + (uint32_t)((int32_t)(int8_t)sum[c] * f));
        }
    }
    volatile int32_t keep = 0;
    for (size_t c = 0; c < CHAINS; c++) {
        keep ^= sum[c];
    }
    return (uint64_t)rounds * CHAINS;
}

static const kernel_table table = {
    .isa = BASE_ISA_SCALAR,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .rope = rope,
    .add = add,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .dot = dot,
    .to_half = to_half,
    .from_half = from_half,
    .attention_scores = attention_scores,
    .attention_weights = attention_weights,
    .attention_values = attention_values,
    .coarse_scores = coarse_scores,
    .coarse_choose = coarse_choose,
    .logit_stats = logit_stats,
    .int8_work = int8_work,
};

const kernel_ops kernel_scalar_ops = {
    .table = &table,
    .quantise = quantise,
    .packed_q8 = packed_q8,
    .packed_f32 = packed_f32,
    .plain = plain,
};
