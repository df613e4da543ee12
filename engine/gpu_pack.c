/* engine/gpu_pack.c: from a packed CPU matrix to the order in which a GPU reads weights (gpu_pack.h
 * has the layout).
 *
 * The source is a kernel_matrix, not the file, so that a model with a merged adapter goes the same
 * way.
 */
#include "engine/gpu_pack.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels_internal.h"

enum { ROWS = GPU_GROUP_ROWS, SEGMENT_UNITS_MAX = 16, SEGMENT_UNITS_MAX_P8 = 8 };
_Static_assert(SEGMENT_UNITS_MAX *(ROWS * 16 + ROWS * 4) <= GPU_SEGMENT_BYTES, "P4 fits");
_Static_assert(SEGMENT_UNITS_MAX_P8 *(ROWS * 32 + ROWS * 4) <= GPU_SEGMENT_BYTES, "P8 fits");

static size_t unit_columns(kernel_format format)
{
    switch (format) {
    case KERNEL_F32:
        return 4;
    case KERNEL_F16:
    case KERNEL_BF16:
        return 8;
    default:
        return 32;
    }
}

static size_t unit_bytes(kernel_format format)
{
    return format == KERNEL_P4   ? ROWS * (16 + 4)
           : format == KERNEL_P8 ? ROWS * (32 + 4)
                                 : ROWS * 16;
}

static base_status lay_out(gpu_layout *l, base_error *err)
{
    size_t per_unit = unit_columns(l->format);
    if (l->rows == 0 || l->columns == 0 || l->columns % per_unit != 0) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: a matrix of %zu x %zu does not fit units of %zu", l->rows,
                         l->columns, per_unit);
    }
    size_t limit = l->format == KERNEL_P8 ? SEGMENT_UNITS_MAX_P8 : SEGMENT_UNITS_MAX;
    l->groups = (l->rows + ROWS - 1) / ROWS;
    l->units = l->columns / per_unit;
    l->segments = (l->units + limit - 1) / limit;
    /* Even segments, each but the last a multiple of the four units that a warp reads at once. */
    size_t even = (l->units + l->segments - 1) / l->segments;
    l->segment_units = (even + 3) / 4 * 4;
    l->segments = (l->units + l->segment_units - 1) / l->segment_units;
    l->segment_bytes = l->segment_units * unit_bytes(l->format);
    l->group_bytes = l->units * unit_bytes(l->format);
    l->last_bytes = l->group_bytes - (l->segments - 1) * l->segment_bytes;
    if (!base_size_mul(l->groups, l->group_bytes, &l->bytes)) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: matrix of %zu x %zu", l->rows, l->columns);
    }
    return BASE_OK;
}

base_status gpu_layout_of(const kernel_matrix *matrix, gpu_layout *out, base_error *err)
{
    gpu_layout l = {
        .format = matrix->format, .unit = 1.0F, .rows = matrix->rows, .columns = matrix->columns};
    if (l.format == KERNEL_P4 || l.format == KERNEL_P8) {
        l.paired = l.format == KERNEL_P8 && matrix->scale_columns == 16;
        l.unit = matrix->scales_f32 ? 0x1p-8F : 1.0F;
        if (l.paired && matrix->has_min) {
            return base_fail(err, BASE_UNSUPPORTED, "GPU: two scales and a minimum per 32 columns");
        }
    }
    base_status status = lay_out(&l, err);
    if (!status) {
        *out = l;
    }
    return status;
}

base_status gpu_layout_half(size_t rows, size_t columns, gpu_layout *out, base_error *err)
{
    gpu_layout l = {.format = KERNEL_F16, .unit = 1.0F, .rows = rows, .columns = columns};
    base_status status = lay_out(&l, err);
    if (!status) {
        *out = l;
    }
    return status;
}

/* --- one row of a kernel_matrix, block by block (layout: kernels_internal.h) ------------------ */

static float scale_at(const kernel_matrix *m, const uint8_t *scales, size_t index)
{
    if (m->scales_f32) {
        float value;
        memcpy(&value, scales + 4 * index, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, scales + 2 * index, sizeof half);
    return kernel_half_to_float(half);
}

static void read_block(const kernel_matrix *m, size_t row, size_t block, kernel_source_block *out)
{
    size_t parts = KERNEL_BLOCK / m->scale_columns, lane = row % KERNEL_GROUP;
    size_t cell = row / KERNEL_GROUP * (m->columns / KERNEL_BLOCK) + block;
    size_t bytes = m->format == KERNEL_P4 ? KERNEL_P4_BYTES : KERNEL_P8_BYTES;
    const uint8_t *codes = (const uint8_t *)m->data + cell * bytes + 4 * lane;
    const uint8_t *scales = (const uint8_t *)m->scales + cell * kernel_scale_bytes(m);
    for (size_t c = 0; c < KERNEL_BLOCK; c++) {
        if (m->format == KERNEL_P8) {
            out->q[c] = (int8_t)(codes[c / 4 * 64 + c % 4] - 128);
        } else {
            unsigned pair = codes[c % 16 / 4 * 64 + c % 4];
            out->q[c] = (int8_t)((int)(c < 16 ? pair & 15U : pair >> 4) - (m->has_min ? 0 : 8));
        }
    }
    out->scale[0] = scale_at(m, scales, lane);
    out->scale[1] = parts == 2 ? scale_at(m, scales, KERNEL_GROUP + lane) : out->scale[0];
    out->min = m->has_min ? scale_at(m, scales, KERNEL_GROUP * parts + lane) : 0.0F;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Where unit `unit` of lane `lane` begins in a group, and the start of its scales. */
static uint8_t *codes_of(const gpu_layout *l, uint8_t *group, size_t unit, size_t lane)
{
    size_t segment = unit / l->segment_units, inside = unit % l->segment_units;
    size_t slab = l->format == KERNEL_P8 ? 2 * ROWS * 16 : ROWS * 16;
    return group + segment * l->segment_bytes + inside * slab + lane * 16;
}

static uint8_t *scales_of(const gpu_layout *l, uint8_t *group, size_t unit, size_t lane)
{
    size_t segment = unit / l->segment_units, inside = unit % l->segment_units;
    size_t slab = l->format == KERNEL_P8 ? 2 * ROWS * 16 : ROWS * 16;
    size_t count =
        segment + 1 < l->segments ? l->segment_units : l->units - segment * l->segment_units;
    return group + segment * l->segment_bytes + count * slab + inside * ROWS * 4 + lane * 4;
}

static bool put_half(uint8_t *to, float value)
{
    uint16_t half = kernel_float_to_half(value);
    memcpy(to, &half, sizeof half);
    return isfinite(kernel_half_to_float(half));
}

static bool put_block(const gpu_layout *l, uint8_t *group, size_t unit, size_t lane,
                      const kernel_source_block *block, bool has_min)
{
    uint8_t *codes = codes_of(l, group, unit, lane), *scales = scales_of(l, group, unit, lane);
    float inverse = 1.0F / l->unit, second = block->min;
    if (l->format == KERNEL_P8) {
        memcpy(codes, block->q, 16);
        memcpy(codes + ROWS * 16, block->q + 16, 16);
        second = l->paired ? block->scale[1] : second;
    } else {
        int offset = has_min ? 0 : 8; /* nibbles are unsigned: w = scale*(q + 8) - 8*scale */
        for (size_t c = 0; c < 16; c++) {
            codes[c] = (uint8_t)((block->q[c] + offset) | (block->q[c + 16] + offset) << 4);
        }
        second = has_min ? second : -8.0F * block->scale[0];
    }
    return put_half(scales, block->scale[0] * inverse) && put_half(scales + 2, second * inverse);
}

/* A plain matrix, or any matrix when the layout wants f16. work [columns] f32. */
static bool put_plain(const gpu_layout *l, uint8_t *group, size_t lane, const kernel_matrix *m,
                      size_t row, float *work)
{
    size_t per_unit = unit_columns(l->format);
    if (m->format == l->format) {
        size_t element = l->format == KERNEL_F32 ? 4 : 2;
        const uint8_t *from = (const uint8_t *)m->data + row * m->columns * element;
        for (size_t u = 0; u < l->units; u++) {
            memcpy(codes_of(l, group, u, lane), from + u * 16, 16);
        }
        return true;
    }
    bool fits = true;
    kernel_matrix_row(m, row, work);
    for (size_t k = 0; k < l->columns; k++) {
        fits &= put_half(codes_of(l, group, k / per_unit, lane) + k % per_unit * 2, work[k]);
    }
    return fits;
}

base_status gpu_pack(const gpu_layout *l, const kernel_matrix *matrix, gpu_order order,
                     size_t first, size_t count, uint8_t *out, base_error *err)
{
    BASE_ASSERT(first + count <= l->groups && matrix->rows == l->rows);
    BASE_ASSERT(order == GPU_STACKED || l->rows % (2 * ROWS) == 0);
    bool codes = l->format == KERNEL_P4 || l->format == KERNEL_P8;
    bool convert = !codes && matrix->format != l->format;
    float *work = NULL;
    if (convert && !(work = base_alloc(l->columns * sizeof *work))) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no memory to pack a row");
    }
    bool fits = true;
    memset(out, 0, count * l->group_bytes);
    for (size_t g = first; g < first + count; g++, out += l->group_bytes) {
        size_t start = order == GPU_STACKED ? g * ROWS : g % 2 * (l->rows / 2) + g / 2 * ROWS;
        for (size_t lane = 0; lane < ROWS && start + lane < l->rows; lane++) {
            if (!codes) {
                fits &= put_plain(l, out, lane, matrix, start + lane, work);
                continue;
            }
            for (size_t u = 0; u < l->units; u++) {
                kernel_source_block block;
                read_block(matrix, start + lane, u, &block);
                fits &= put_block(l, out, u, lane, &block, matrix->has_min);
            }
        }
    }
    base_free(work);
    return fits ? BASE_OK
                : base_fail(err, BASE_UNSUPPORTED,
                            "GPU: a weight or scale is outside the range of f16");
}

void gpu_unpack_row(const gpu_layout *l, const uint8_t *groups, size_t row, float *out)
{
    size_t lane = row % ROWS, per_unit = unit_columns(l->format);
    /* codes_of and scales_of only add offsets; nothing is written here. */
    union {
        const uint8_t *in;
        uint8_t *at;
    } group = {groups + row / ROWS * l->group_bytes};
    for (size_t k = 0; k < l->columns; k++) {
        size_t u = k / per_unit, c = k % per_unit;
        const uint8_t *codes = codes_of(l, group.at, u, lane);
        uint16_t half[2];
        if (l->format == KERNEL_F32) {
            memcpy(&out[k], codes + 4 * c, sizeof out[k]);
            continue;
        }
        if (l->format == KERNEL_F16 || l->format == KERNEL_BF16) {
            memcpy(half, codes + 2 * c, sizeof half[0]);
            out[k] = l->format == KERNEL_F16 ? kernel_half_to_float(half[0])
                                             : kernel_bf16_to_float(half[0]);
            continue;
        }
        memcpy(half, scales_of(l, group.at, u, lane), sizeof half);
        float scale = kernel_half_to_float(half[l->paired && c >= 16 ? 1 : 0]);
        float min = l->paired ? 0.0F : kernel_half_to_float(half[1]);
        int q = l->format == KERNEL_P4 ? (codes[c % 16] >> (c < 16 ? 0 : 4)) & 15
                                       : (int8_t)codes[c / 16 * ROWS * 16 + c % 16];
        out[k] = (scale * (float)q + min) * l->unit;
    }
}
