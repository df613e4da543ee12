/* engine/gpu_pack.h: weights in the order in which a GPU reads them. Plain C, so that it is built
 * and tested everywhere.
 *
 * Rows stand in groups of 8 (the last one filled up with zeros), columns in units: 16 bytes of a
 * row (32 for P8). A group is cut into segments of `segment_units` units; a segment is one
 * contiguous piece of memory that one warp fetches with one bulk copy:
 *
 *   codes   [units][8 rows][16 bytes]            (P8: [units][2 halves][8 rows][16 bytes])
 *   scales  [units][8 rows][2 x f16]             P4 and P8 only
 *
 *   format  columns of a unit   16 bytes hold
 *   F32            4            four floats
 *   F16, BF16      8            eight values
 *   P4            32            byte j: low nibble column j, high nibble column 16 + j
 *   P8            32            half h: columns 16h .. 16h + 15, signed
 *
 * The two f16 of a unit and row are {scale, min}, or {scale of the first 16, scale of the last 16
 * columns} when `paired`. w = (scale*q + min) * unit; unit is a power of two that keeps products of
 * K-quant scales inside f16. Scales that came from f16 are kept exactly; scales of Q4_K, Q5_K and
 * Q6_K (f16 times a small integer) are rounded to f16 once.
 */
#ifndef ENGINE_GPU_PACK_H
#define ENGINE_GPU_PACK_H

#include "engine/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GPU_GROUP_ROWS 8
#define GPU_SEGMENT_BYTES 2560 /* no segment is larger */

typedef struct gpu_layout {
    kernel_format format;
    bool paired;
    float unit;
    size_t rows, columns;
    size_t groups, units;           /* units of one row */
    size_t segments, segment_units; /* the last segment of a group may be shorter */
    size_t segment_bytes, last_bytes, group_bytes, bytes;
} gpu_layout;

/* Rows of several matrices side by side or interleaved, as one. */
typedef enum gpu_order {
    GPU_STACKED,    /* rows in their order */
    GPU_INTERLEAVED /* two equal halves: 8 rows of the first, 8 rows of the second, ... */
} gpu_order;

/* Layout for a packed or plain matrix. Errors: BASE_UNSUPPORTED (columns or rows that do not fit),
 * BASE_NO_MEMORY (overflow). */
base_status gpu_layout_of(const kernel_matrix *matrix, gpu_layout *out, base_error *err);
/* The same for values turned into f16 whatever the matrix holds. */
base_status gpu_layout_half(size_t rows, size_t columns, gpu_layout *out, base_error *err);

/* Write groups [first, first + count) of the layout to out [count * group_bytes]. Thread-safe. For
 * GPU_INTERLEAVED the rows must be a multiple of 16. Errors: BASE_UNSUPPORTED when a scale does not
 * fit f16. */
base_status gpu_pack(const gpu_layout *layout, const kernel_matrix *matrix, gpu_order order,
                     size_t first, size_t count, uint8_t *out, base_error *err);

/* Row `row` of packed groups, dequantised: out [columns]. Twin of the device's reading; for tests.
 * */
void gpu_unpack_row(const gpu_layout *layout, const uint8_t *groups, size_t row, float *out);

#ifdef __cplusplus
}
#endif
#endif
