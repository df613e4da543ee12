/* engine/kernels_i16_avx512.h: what the AVX-512 and AMX products in 16-bit integers share. */
#ifndef ENGINE_KERNELS_I16_AVX512_H
#define ENGINE_KERNELS_I16_AVX512_H

#include <immintrin.h>

#include "engine/kernels_i16.h"
#include "engine/kernels_internal.h"

/* Sums of 16 rows for one token -> out[first row..], by the operations of the definition. */
KERNEL_INLINE void kernel_i16_store(const kernel_i16_matrix *m, size_t group, __m512i sum,
                                    float step, float *out)
{
    size_t first = group * KERNEL_I16_GROUP, left = m->rows - first;
    __mmask16 rows = (__mmask16)(left >= KERNEL_I16_GROUP ? 0xffffU : (1U << left) - 1U);
    __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(m->steps + first));
    product = _mm512_mul_ps(product, _mm512_set1_ps(step));
    product = _mm512_add_ps(product, _mm512_loadu_ps(m->bias + first));
    _mm512_mask_storeu_ps(out + first, rows, product);
}

#endif
