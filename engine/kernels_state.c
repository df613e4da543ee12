/* engine/kernels_state.c: see kernels_state.h. Plain loops: they are the definition, and the
 * compiler vectorises them over P. */
#include "engine/kernels_state.h"

#include <string.h>

#include "engine/kernels_internal.h"

KERNEL_CLONES void kernel_state_convolve(const float *restrict rows, size_t width, size_t kernel,
                                         const float *restrict weights, float *restrict out)
{
    if (kernel == 4) { /* the usual one, which the compiler vectorises over channels */
        for (size_t c = 0; c < width; c++) {
            const float *w = weights + 4 * c;
            out[c] = w[0] * rows[c] + w[1] * rows[width + c] + w[2] * rows[2 * width + c] +
                     w[3] * rows[3 * width + c];
        }
        return;
    }
    for (size_t c = 0; c < width; c++) {
        out[c] = 0.0F;
        for (size_t k = 0; k < kernel; k++) {
            out[c] += weights[c * kernel + k] * rows[k * width + c];
        }
    }
}

KERNEL_CLONES void kernel_state_read(const float *restrict state, size_t n, size_t p,
                                     const float *restrict x, float *restrict out)
{
    memset(out, 0, p * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const float *row = state + i * p;
        for (size_t j = 0; j < p; j++) {
            out[j] += x[i] * row[j];
        }
    }
}

KERNEL_CLONES void kernel_state_add(float *restrict state, size_t n, size_t p, float decay,
                                    const float *restrict k, const float *restrict v,
                                    const float *restrict q, float *restrict out)
{
    memset(out, 0, p * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        float *row = state + i * p;
        for (size_t j = 0; j < p; j++) {
            row[j] = decay * row[j] + k[i] * v[j];
            out[j] += q[i] * row[j];
        }
    }
}

KERNEL_CLONES void kernel_state_delta(float *restrict state, size_t n, size_t p, float decay,
                                      float beta, const float *restrict k, const float *restrict v,
                                      const float *restrict q, float *restrict e,
                                      float *restrict out)
{
    memset(out, 0, p * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        float *row = state + i * p;
        for (size_t j = 0; j < p; j++) {
            row[j] = decay * row[j];
            out[j] += k[i] * row[j];
        }
    }
    for (size_t j = 0; j < p; j++) {
        e[j] = v[j] - out[j];
    }
    memset(out, 0, p * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        float *row = state + i * p, write = beta * k[i];
        for (size_t j = 0; j < p; j++) {
            row[j] += write * e[j];
            out[j] += q[i] * row[j];
        }
    }
}

KERNEL_CLONES float kernel_state_squares(const float *restrict state, size_t n, size_t p,
                                         float *restrict work)
{
    float total = 0.0F;
    memset(work, 0, p * sizeof *work);
    for (size_t i = 0; i < n; i++) {
        const float *row = state + i * p;
        for (size_t j = 0; j < p; j++) {
            work[j] += row[j] * row[j];
        }
    }
    for (size_t j = 0; j < p; j++) {
        total += work[j];
    }
    return total;
}

KERNEL_CLONES void kernel_state_chebyshev(const float *restrict state, size_t n,
                                          const float *restrict x, const float *restrict b,
                                          float ridge, float eta, float omega,
                                          const float *previous, float *next,
                                          float *restrict product)
{
    memset(product, 0, n * sizeof *product);
    for (size_t i = 0; i < n; i++) {
        const float *row = state + i * n;
        for (size_t j = 0; j < n; j++) {
            product[j] += x[i] * row[j];
        }
    }
    for (size_t j = 0; j < n; j++) {
        float residual = product[j] + ridge * x[j] - b[j];
        next[j] = omega * (x[j] - eta * residual) - (omega - 1.0F) * previous[j];
    }
}
