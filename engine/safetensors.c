/* engine/safetensors.c: reader of safetensors files (see the header). The JSON header is parsed by
 * Jansson; its counts, offsets and shapes are checked here. Not checked: that tensors leave no gap
 * and do not overlap, which reading does not need.
 */
#include "engine/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"

enum {
    HEADER_BYTES_MAX = 100 * 1000 * 1000, /* as in the reference implementation */
    TENSORS_MAX = 1 << 20                 /* chosen */
};

struct safetensors_file {
    base_map map;
    bool owns_map;
    char *path;
    const uint8_t *data;
    size_t size;
    json_t *header; /* owns the names */
    safetensors_tensor *tensors;
    size_t count;
};

/* Bytes of a value; 0 = unknown type. */
static size_t type_bytes(const char *type)
{
    static const struct {
        const char *name;
        size_t bytes;
    } types[] = {
        {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
        {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
        {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(type, types[i].name) == 0) {
            return types[i].bytes;
        }
    }
    return 0;
}

static base_status corrupt(const safetensors_file *file, const char *tensor, const char *what,
                           base_error *err)
{
    return base_fail(err, BASE_CORRUPT, "%s: tensor '%.100s': %s", file->path, tensor, what);
}

/* A JSON integer that is a size. */
static bool get_size(const json_t *value, uint64_t *size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *size = (uint64_t)json_integer_value(value);
    return true;
}

static base_status read_shape(const safetensors_file *file, const json_t *entry,
                              safetensors_tensor *tensor, size_t *values, base_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_DIMENSIONS_MAX) {
        return corrupt(file, tensor->name, "no shape of at most 8 dimensions", err);
    }
    tensor->dimensions = json_array_size(shape);
    size_t product = 1;
    for (size_t d = 0; d < SAFETENSORS_DIMENSIONS_MAX; d++) {
        tensor->shape[d] = 1;
        if (d < tensor->dimensions &&
            (!get_size(json_array_get(shape, d), &tensor->shape[d]) ||
             !base_size_mul(product, (size_t)tensor->shape[d], &product))) {
            return corrupt(file, tensor->name, "an absurd shape", err);
        }
    }
    *values = product;
    return BASE_OK;
}

/* data: begin of the data section. */
static base_status read_tensor(safetensors_file *file, const char *name, const json_t *entry,
                               const uint8_t *data, size_t data_size, base_error *err)
{
    safetensors_tensor *tensor = &file->tensors[file->count];
    tensor->name = name;
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    size_t values = 0;
    if (!type) {
        return corrupt(file, name, "no dtype", err);
    }
    size_t bytes = type_bytes(type);
    if (bytes == 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor '%.100s': values of type '%.20s'",
                         file->path, name, type);
    }
    memcpy(tensor->type, type, strlen(type) + 1);
    base_status status = read_shape(file, entry, tensor, &values, err);
    if (status) {
        return status;
    }
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end)) {
        return corrupt(file, name, "no data_offsets", err);
    }
    if (begin > end || end > data_size) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: tensor '%.100s': bytes %llu to %llu lie outside the data section of "
                         "%zu bytes",
                         file->path, name, (unsigned long long)begin, (unsigned long long)end,
                         data_size);
    }
    if (!base_size_mul(values, bytes, &tensor->size) || tensor->size != end - begin) {
        return corrupt(file, name, "its size does not fit its shape", err);
    }
    tensor->data = data + begin;
    file->count++;
    return BASE_OK;
}

static base_status parse(safetensors_file *file, base_error *err)
{
    if (file->size < 8) {
        return base_fail(err, BASE_CORRUPT, "%s: no safetensors file (%zu bytes)", file->path,
                         file->size);
    }
    uint64_t header_size = base_get_u64(file->data);
    if (header_size > file->size - 8 || header_size > HEADER_BYTES_MAX) {
        return base_fail(err, BASE_CORRUPT, "%s: a header of %llu bytes in a file of %zu",
                         file->path, (unsigned long long)header_size, file->size);
    }
    json_error_t problem;
    file->header = json_loadb((const char *)file->data + 8, (size_t)header_size,
                              JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(file->header)) {
        return base_fail(err, BASE_CORRUPT, "%s: header at byte %d: %s", file->path,
                         file->header ? 8 : 8 + problem.position,
                         file->header ? "no JSON object" : problem.text);
    }
    size_t entries = json_object_size(file->header);
    if (entries > TENSORS_MAX) {
        return base_fail(err, BASE_CORRUPT, "%s: absurd number of tensors: %zu", file->path,
                         entries);
    }
    file->tensors = base_calloc(entries, sizeof *file->tensors);
    if (!file->tensors) {
        return base_fail(err, BASE_NO_MEMORY, "%s: out of memory", file->path);
    }
    size_t begin = 8 + (size_t)header_size;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        base_status status = BASE_OK;
        if (strcmp(name, "__metadata__") != 0) {
            status = read_tensor(file, name, entry, file->data + begin, file->size - begin, err);
        }
        if (status) {
            return status;
        }
    }
    return BASE_OK;
}

static base_status open_common(const char *path, const void *data, size_t size,
                               safetensors_file **out, base_error *err)
{
    base_status status = BASE_OK;
    safetensors_file *file = base_calloc(1, sizeof *file);
    if (file) {
        file->path = base_strdup(path);
    }
    if (!file || !file->path) {
        status = base_fail(err, BASE_NO_MEMORY, "%s: out of memory", path);
        goto done;
    }
    if (data) {
        file->data = data;
        file->size = size;
    } else {
        status = base_map_open(path, &file->map, err);
        if (status) {
            goto done;
        }
        file->owns_map = true;
        file->data = file->map.data;
        file->size = file->map.size;
    }
    status = parse(file, err);
done:
    if (status) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return BASE_OK;
}

base_status safetensors_open(const char *path, safetensors_file **out, base_error *err)
{
    return open_common(path, NULL, 0, out, err);
}

base_status safetensors_open_memory(const char *name, const void *data, size_t size,
                                    safetensors_file **out, base_error *err)
{
    BASE_ASSERT(data != NULL);
    return open_common(name, data, size, out, err);
}

void safetensors_close(safetensors_file *file)
{
    if (!file) {
        return;
    }
    json_decref(file->header);
    base_free(file->tensors);
    if (file->owns_map) {
        base_map_close(&file->map);
    }
    base_free(file->path);
    base_free(file);
}

const char *safetensors_path(const safetensors_file *file)
{
    return file->path;
}

size_t safetensors_count(const safetensors_file *file)
{
    return file->count;
}

const safetensors_tensor *safetensors_at(const safetensors_file *file, size_t index)
{
    BASE_ASSERT(index < file->count);
    return &file->tensors[index];
}

const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) {
            return &file->tensors[i];
        }
    }
    return NULL;
}
