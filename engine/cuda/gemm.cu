/* engine/cuda/gemm.cu: matrix products on tensor cores, through cuBLAS. Row-major operands are
 * column-major transposed: out^T [N, T] = W [N, K] x^T, so cuBLAS gets W transposed and x as it
 * lies. The scalar twin is a plain sum of products.
 */
#include "engine/cuda/prefill.cuh"

#if defined(GPU_EMULATE)

base_status gpu_gemm_open(void **handle, cudaStream_t, base_error *)
{
    *handle = NULL;
    return BASE_OK;
}

void gpu_gemm_close(void *) {}

base_status gpu_gemm(void *, const uint16_t *w, const uint16_t *x, void *out, size_t n, size_t k,
                     size_t tokens, size_t out_stride, bool out_half, bool add, float scale,
                     base_error *)
{
    for (size_t t = 0; t < tokens; t++) {
        for (size_t r = 0; r < n; r++) {
            float total = 0.0f;
            for (size_t c = 0; c < k; c++) {
                total += kernel_half_to_float(w[r * k + c]) * kernel_half_to_float(x[t * k + c]);
            }
            total *= scale;
            if (out_half) {
                ((uint16_t *)out)[t * out_stride + r] = kernel_float_to_half(total);
            } else {
                float *to = (float *)out + t * out_stride + r;
                *to = (add ? *to : 0.0f) + total;
            }
        }
    }
    return BASE_OK;
}

#else

#include <cublas_v2.h>

static base_status fail(base_error *err, cublasStatus_t code, const char *what)
{
    base_status status = code == CUBLAS_STATUS_ALLOC_FAILED ? BASE_NO_MEMORY : BASE_DEVICE;
    base_fail(err, status, "GPU: cuBLAS %s (%d) in %s", cublasGetStatusString(code), (int)code,
              what);
    if (err) {
        err->system_code = (int)code;
    }
    return status;
}

base_status gpu_gemm_open(void **handle, cudaStream_t queue, base_error *err)
{
    cublasHandle_t made = NULL;
    cublasStatus_t code = cublasCreate(&made);
    if (code != CUBLAS_STATUS_SUCCESS) {
        return fail(err, code, "cublasCreate");
    }
    *handle = made;
    code = cublasSetStream(made, queue);
    return code == CUBLAS_STATUS_SUCCESS ? BASE_OK : fail(err, code, "cublasSetStream");
}

void gpu_gemm_close(void *handle)
{
    if (handle) {
        (void)cublasDestroy((cublasHandle_t)handle);
    }
}

base_status gpu_gemm(void *handle, const uint16_t *w, const uint16_t *x, void *out, size_t n,
                     size_t k, size_t tokens, size_t out_stride, bool out_half, bool add,
                     float scale, base_error *err)
{
    const float beta = add ? 1.0f : 0.0f;
    cublasStatus_t code = cublasGemmEx(
        (cublasHandle_t)handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)tokens, (int)k, &scale, w,
        CUDA_R_16F, (int)k, x, CUDA_R_16F, (int)k, &beta, out, out_half ? CUDA_R_16F : CUDA_R_32F,
        (int)out_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return code == CUBLAS_STATUS_SUCCESS ? BASE_OK : fail(err, code, "a matrix product");
}

base_status gpu_gemm_square(void *handle, const uint16_t *a, const uint16_t *b, uint16_t *out,
                            size_t n, base_error *err)
{
    const float one = 1.0f, zero = 0.0f;
    cublasStatus_t code =
        cublasGemmEx((cublasHandle_t)handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n, (int)n, (int)n, &one,
                     a, CUDA_R_16BF, (int)n, b, CUDA_R_16BF, (int)n, &zero, out, CUDA_R_16BF,
                     (int)n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return code == CUBLAS_STATUS_SUCCESS ? BASE_OK : fail(err, code, "a square product");
}

#endif
