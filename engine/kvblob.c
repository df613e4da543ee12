/* engine/kvblob.c: see kvblob.h. */
#include "engine/kvblob.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/status.h"
#include "engine/kernels.h"

enum { VERSION = 2, HEADER = 64, LEVELS = 127, HEAD_MAX = 512 };

static const char *const type_names[KVBLOB_TYPES] = {"q8", "f16"};

const char *kvblob_type_name(kvblob_type type)
{
    return (unsigned)type < KVBLOB_TYPES ? type_names[type] : "?";
}

bool kvblob_type_parse(const char *text, kvblob_type *type)
{
    for (int i = 0; i < KVBLOB_TYPES; i++) {
        if (strcmp(text, type_names[i]) == 0) {
            *type = (kvblob_type)i;
            return true;
        }
    }
    return false;
}

static size_t element_bytes(const kvblob_shape *shape)
{
    return shape->wide ? sizeof(float) : sizeof(uint16_t);
}

static size_t body_bytes(const kvblob_shape *shape, size_t count)
{
    size_t heads = count * shape->heads;
    if (shape->type == KVBLOB_Q8) {
        return heads * (sizeof(float) + shape->head_size);
    }
    return heads * shape->head_size * element_bytes(shape);
}

size_t kvblob_bytes(const kvblob_shape *shape, size_t count)
{
    return HEADER + body_bytes(shape, count);
}

/* --- one head --------------------------------------------------------------------------------- */

/* q [n] = round(x / s), s = max|x| / 127; returns s. What is not finite counts as the largest that
 * f16 holds, or as 0. */
static float quantise_head(const float *x, size_t n, int8_t *q)
{
    const float largest = 65504.0f;
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++) {
        peak = fmaxf(peak, fminf(fabsf(x[i]), largest));
    }
    float scale = peak / LEVELS, inverse = peak > 0.0f ? LEVELS / peak : 0.0f;
    for (size_t i = 0; i < n; i++) {
        float level = isnan(x[i]) ? 0.0f : x[i] * inverse;
        q[i] = (int8_t)lrintf(fmaxf(-LEVELS, fminf(LEVELS, level)));
    }
    return scale;
}

void kvblob_encode(const kvblob_shape *shape, const void *block, size_t count, void *blob)
{
    uint8_t *to = blob;
    size_t heads = count * shape->heads, d = shape->head_size;
    const uint8_t *from = block;
    float work[HEAD_MAX];
    BASE_ASSERT(d <= HEAD_MAX);
    memset(to, 0, HEADER);
    base_put_u32(to, VERSION);
    base_put_u32(to + 4, (uint32_t)shape->type);
    base_put_u32(to + 8, (uint32_t)count);
    base_put_u32(to + 12, (uint32_t)d);
    base_put_u32(to + 16, (uint32_t)shape->heads);
    to += HEADER;
    if (shape->type != KVBLOB_Q8) {
        memcpy(to, block, body_bytes(shape, count));
        return;
    }
    int8_t *levels = (int8_t *)(to + heads * sizeof(float));
    for (size_t h = 0; h < heads; h++) {
        const uint8_t *head = from + h * d * element_bytes(shape);
        if (shape->wide) {
            memcpy(work, head, d * sizeof *work);
        } else {
            kernel_get()->from_half(work, (const uint16_t *)(const void *)head, d);
        }
        base_put_f32(to + h * sizeof(float), quantise_head(work, d, levels + h * d));
    }
}

size_t kvblob_count(const kvblob_shape *shape, const void *blob, size_t size)
{
    const uint8_t *bytes = blob;
    if (size <= HEADER || base_get_u32(bytes) != VERSION ||
        base_get_u32(bytes + 4) != (uint32_t)shape->type ||
        base_get_u32(bytes + 12) != shape->head_size || base_get_u32(bytes + 16) != shape->heads) {
        return 0;
    }
    size_t count = base_get_u32(bytes + 8);
    return count <= size && kvblob_bytes(shape, count) == size ? count : 0;
}

void kvblob_decode(const kvblob_shape *shape, const void *blob, void *block)
{
    const uint8_t *from = (const uint8_t *)blob + HEADER;
    size_t count = base_get_u32((const uint8_t *)blob + 8), d = shape->head_size;
    size_t heads = count * shape->heads;
    uint8_t *to = block;
    float work[HEAD_MAX];
    if (shape->type != KVBLOB_Q8) {
        memcpy(block, from, body_bytes(shape, count));
        return;
    }
    const int8_t *levels = (const int8_t *)(from + heads * sizeof(float));
    for (size_t h = 0; h < heads; h++) {
        float scale = base_get_f32(from + h * sizeof(float));
        for (size_t i = 0; i < d; i++) {
            work[i] = (float)levels[h * d + i] * scale;
        }
        uint8_t *head = to + h * d * element_bytes(shape);
        if (shape->wide) {
            memcpy(head, work, d * sizeof *work);
        } else {
            kernel_get()->to_half((uint16_t *)(void *)head, work, d);
        }
    }
}
