/* engine/gguf.c: reader of GGUF v2 and v3 files, little-endian, from a read-only memory map.
 *
 * Layout (GGUF specification of the ggml project):
 *
 *   "GGUF" | version u32 | tensor count u64 | key count u64
 *   key:    name text | type u32 | value                        (text = length u64 + bytes)
 *           array value: element type u32 | count u64 | elements
 *   tensor: name text | dimensions u32 | shape u64[dimensions] | type u32 | offset u64
 *   padding to `general.alignment` (32 unless the key says otherwise) | tensor data
 *
 * Every number of the file is checked against the bytes that are left before it is used, and every
 * count against a cap; nothing is allocated in proportion to a count that the file could not hold.
 * Values are not copied: a key remembers where its value stands. Not read: version 1 (32-bit
 * counts), big-endian files, arrays of arrays.
 */
#include "engine/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"

enum {
    GGUF_KEYS_MAX = 65536,      /* chosen: real files have some dozens */
    GGUF_TENSORS_MAX = 1 << 20, /* chosen: the largest mixtures of experts have some ten thousand */
    GGUF_NAME_MAX = 1024,       /* bytes of a key or tensor name; chosen */
    GGUF_ALIGNMENT_DEFAULT = 32, /* specification */
    GGUF_ALIGNMENT_MAX = 1 << 20,
    GGUF_DIMENSIONS_MAX = 4 /* specification */
};

typedef enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_TEXT,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_COUNT
} value_type;

/* Bytes of a value of fixed size; 0 = text or array. */
static const uint8_t value_bytes[VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

typedef struct key_entry {
    gguf_text name;
    uint32_t type; /* of the value, or of the elements of an array */
    bool is_array;
    size_t count;         /* elements of an array, else 1 */
    const uint8_t *value; /* first element */
    size_t *text_at;      /* array of text: byte offset of each element in the file; owned */
    size_t begin, end;    /* of the whole entry in the file */
} key_entry;

/* Open addressing over names; slot = index + 1, 0 = free. */
typedef struct name_table {
    uint32_t *slots;
    size_t slot_count; /* power of two */
} name_table;

struct gguf_file {
    base_map map;
    bool owns_map;
    char *path;
    const uint8_t *data;
    size_t size;
    key_entry *keys;
    size_t key_count;
    gguf_tensor *tensors;
    size_t tensor_count;
    name_table key_table, tensor_table;
    void *owner; /* of keys and tensors that lie elsewhere */
    void (*release)(void *owner);
};

/* --- names ------------------------------------------------------------------------------------ */

/* FNV-1a (Fowler, Noll, Vo). */
static uint64_t hash_name(gguf_text name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ (uint8_t)name.data[i]) * UINT64_C(0x100000001b3);
    }
    return hash ^ (hash >> 32);
}

static bool same_text(gguf_text a, gguf_text b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static base_status table_create(name_table *table, size_t count, base_error *err)
{
    table->slot_count = 8;
    while (table->slot_count < 2 * count) {
        table->slot_count *= 2;
    }
    table->slots = base_calloc(table->slot_count, sizeof *table->slots);
    return table->slots ? BASE_OK
                        : base_fail(err, BASE_NO_MEMORY, "out of memory for a model file");
}

/* The slot that holds the name, or the free one where it belongs. `names` yields the name of an
 * index. */
typedef gguf_text name_of(const gguf_file *file, size_t index);

static gguf_text key_name(const gguf_file *file, size_t index)
{
    return file->keys[index].name;
}

static gguf_text tensor_name(const gguf_file *file, size_t index)
{
    return file->tensors[index].name;
}

static uint32_t *table_slot(const gguf_file *file, const name_table *table, name_of *names,
                            gguf_text name)
{
    size_t at = (size_t)hash_name(name) & (table->slot_count - 1);
    while (table->slots[at] != 0 && !same_text(names(file, table->slots[at] - 1), name)) {
        at = (at + 1) & (table->slot_count - 1);
    }
    return &table->slots[at];
}

/* --- bounded reading -------------------------------------------------------------------------- */

typedef struct reader {
    gguf_file *file;
    size_t at;
    char place[96]; /* "key 'x'" for messages */
    base_error *err;
} reader;

static size_t left(const reader *r)
{
    return r->file->size - r->at;
}

/* A name of the file for a message: printable, short. */
static void name_place(reader *r, const char *kind, gguf_text name)
{
    size_t n = name.size < 60 ? name.size : 60;
    int used = snprintf(r->place, sizeof r->place, "%s '", kind);
    size_t at = used > 0 ? (size_t)used : 0;
    for (size_t i = 0; i < n && at + 2 < sizeof r->place; i++) {
        char c = name.data[i];
        r->place[at++] = (c >= 32 && c < 127) ? c : '?';
    }
    r->place[at++] = '\'';
    r->place[at] = '\0';
}

static base_status corrupt(const reader *r, size_t at, const char *what)
{
    return base_fail(r->err, BASE_CORRUPT, "%s: %s at byte %zu: %s", r->file->path, r->place, at,
                     what);
}

static base_status read_u32(reader *r, uint32_t *value)
{
    if (left(r) < 4) {
        return corrupt(r, r->at, "the file ends here");
    }
    *value = base_get_u32(r->file->data + r->at);
    r->at += 4;
    return BASE_OK;
}

static base_status read_u64(reader *r, uint64_t *value)
{
    if (left(r) < 8) {
        return corrupt(r, r->at, "the file ends here");
    }
    *value = base_get_u64(r->file->data + r->at);
    r->at += 8;
    return BASE_OK;
}

static base_status read_text(reader *r, uint64_t size_max, gguf_text *text)
{
    size_t at = r->at;
    uint64_t size = 0;
    base_status status = read_u64(r, &size);
    if (status) {
        return status;
    }
    if (size > left(r)) {
        return corrupt(r, at, "a text runs past the end of the file");
    }
    if (size > size_max) {
        return corrupt(r, at, "a name is absurdly long");
    }
    text->data = (const char *)(r->file->data + r->at);
    text->size = (size_t)size;
    r->at += (size_t)size;
    return BASE_OK;
}

/* --- keys ------------------------------------------------------------------------------------- */

static base_status read_array(reader *r, key_entry *key)
{
    size_t at = r->at;
    uint64_t count;
    base_status status = read_u32(r, &key->type);
    if (!status) {
        status = read_u64(r, &count);
    }
    if (status) {
        return status;
    }
    if (key->type >= VALUE_COUNT) {
        return corrupt(r, at, "unknown type of array elements");
    }
    if (key->type == VALUE_ARRAY) {
        return base_fail(r->err, BASE_UNSUPPORTED, "%s: %s at byte %zu: an array of arrays",
                         r->file->path, r->place, at);
    }
    size_t element_min = key->type == VALUE_TEXT ? 8 : value_bytes[key->type];
    if (count > left(r) / element_min) {
        return corrupt(r, at, "an array runs past the end of the file");
    }
    key->is_array = true;
    key->count = (size_t)count;
    key->value = r->file->data + r->at;
    if (key->type != VALUE_TEXT) {
        r->at += key->count * element_min;
        return BASE_OK;
    }
    key->text_at = base_calloc(key->count, sizeof *key->text_at);
    if (!key->text_at) {
        return base_fail(r->err, BASE_NO_MEMORY, "%s: out of memory for %s", r->file->path,
                         r->place);
    }
    for (size_t i = 0; i < key->count; i++) {
        gguf_text ignored;
        key->text_at[i] = r->at;
        status = read_text(r, UINT64_MAX, &ignored);
        if (status) {
            return status;
        }
    }
    return BASE_OK;
}

static base_status read_entry(reader *r, size_t index)
{
    gguf_file *file = r->file;
    key_entry *key = &file->keys[index];
    size_t at = r->at;
    snprintf(r->place, sizeof r->place, "key number %zu", index);
    base_status status = read_text(r, GGUF_NAME_MAX, &key->name);
    if (status) {
        return status;
    }
    name_place(r, "key", key->name);
    uint32_t *slot = table_slot(file, &file->key_table, key_name, key->name);
    if (*slot != 0) {
        return corrupt(r, at, "the key occurs twice");
    }
    key->begin = at;
    file->key_count = index + 1; /* from here on gguf_close releases its offsets */
    *slot = (uint32_t)index + 1;
    at = r->at;
    status = read_u32(r, &key->type);
    if (status) {
        return status;
    }
    if (key->type >= VALUE_COUNT) {
        return corrupt(r, at, "unknown type of value");
    }
    if (key->type == VALUE_ARRAY) {
        return read_array(r, key);
    }
    key->count = 1;
    key->value = file->data + r->at;
    if (key->type == VALUE_TEXT) {
        gguf_text ignored;
        return read_text(r, UINT64_MAX, &ignored);
    }
    if (left(r) < value_bytes[key->type]) {
        return corrupt(r, r->at, "the file ends here");
    }
    r->at += value_bytes[key->type];
    return BASE_OK;
}

static base_status read_key(reader *r, size_t index)
{
    base_status status = read_entry(r, index);
    r->file->keys[index].end = r->at;
    return status;
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* Values in a block and its bytes, by type number; 0 = a number that the specification leaves
 * out. */
/* clang-format off */
static const struct {
    uint16_t values, bytes;
} tensor_blocks[] = {
    [0] = {1, 4},      [1] = {1, 2},      [2] = {32, 18},    [3] = {32, 20},    [6] = {32, 22},
    [7] = {32, 24},    [8] = {32, 34},    [9] = {32, 36},    [10] = {256, 84},  [11] = {256, 110},
    [12] = {256, 144}, [13] = {256, 176}, [14] = {256, 210}, [15] = {256, 292}, [16] = {256, 66},
    [17] = {256, 74},  [18] = {256, 98},  [19] = {256, 50},  [20] = {32, 18},   [21] = {256, 110},
    [22] = {256, 82},  [23] = {256, 136}, [24] = {1, 1},     [25] = {1, 2},     [26] = {1, 4},
    [27] = {1, 8},     [28] = {1, 8},     [29] = {256, 56},  [30] = {1, 2},     [34] = {256, 54},
    [35] = {256, 66},  [39] = {32, 17},
};
/* clang-format on */

/* Bytes of a tensor; 0 when its type is unknown, so that a reader can still list it. */
static base_status tensor_size(const reader *r, const gguf_tensor *tensor, size_t at, size_t *size)
{
    *size = 0;
    size_t rows = 1;
    for (size_t d = 0; d < tensor->dimensions; d++) {
        if (tensor->shape[d] == 0 || tensor->shape[d] > r->file->size * (uint64_t)8) {
            return corrupt(r, at, "an absurd dimension");
        }
        if (d > 0 && !base_size_mul(rows, (size_t)tensor->shape[d], &rows)) {
            return corrupt(r, at, "an absurd shape");
        }
    }
    if (tensor->type >= sizeof tensor_blocks / sizeof tensor_blocks[0] ||
        tensor_blocks[tensor->type].values == 0) {
        return BASE_OK;
    }
    size_t values = tensor_blocks[tensor->type].values;
    if (tensor->shape[0] % values != 0) {
        return corrupt(r, at, "a row is not a whole number of blocks");
    }
    size_t row_bytes;
    if (!base_size_mul((size_t)tensor->shape[0] / values, tensor_blocks[tensor->type].bytes,
                       &row_bytes) ||
        !base_size_mul(rows, row_bytes, size)) {
        return corrupt(r, at, "an absurd shape");
    }
    return BASE_OK;
}

/* Reads all of an entry; its offset stays in *offset until the data section is known. */
static base_status read_tensor(reader *r, size_t index, uint64_t *offset)
{
    gguf_file *file = r->file;
    gguf_tensor *tensor = &file->tensors[index];
    size_t at = r->at;
    snprintf(r->place, sizeof r->place, "tensor number %zu", index);
    base_status status = read_text(r, GGUF_NAME_MAX, &tensor->name);
    if (status) {
        return status;
    }
    name_place(r, "tensor", tensor->name);
    uint32_t *slot = table_slot(file, &file->tensor_table, tensor_name, tensor->name);
    if (*slot != 0) {
        return corrupt(r, at, "the tensor occurs twice");
    }
    *slot = (uint32_t)index + 1;
    at = r->at;
    uint32_t dimensions = 0;
    status = read_u32(r, &dimensions);
    if (status) {
        return status;
    }
    if (dimensions < 1 || dimensions > GGUF_DIMENSIONS_MAX) {
        return corrupt(r, at, "the number of dimensions is not 1 to 4");
    }
    tensor->dimensions = dimensions;
    for (size_t d = 0; d < GGUF_DIMENSIONS_MAX; d++) {
        tensor->shape[d] = 1;
        status = d < dimensions ? read_u64(r, &tensor->shape[d]) : BASE_OK;
        if (status) {
            return status;
        }
    }
    status = read_u32(r, &tensor->type);
    if (!status) {
        status = read_u64(r, offset);
    }
    return status ? status : tensor_size(r, tensor, at, &tensor->size);
}

static base_status read_alignment(reader *r, size_t *alignment)
{
    uint64_t value = GGUF_ALIGNMENT_DEFAULT;
    gguf_get_u64(r->file, "general.alignment", &value);
    if (value == 0 || value > GGUF_ALIGNMENT_MAX || (value & (value - 1)) != 0) {
        return base_fail(r->err, BASE_CORRUPT,
                         "%s: key 'general.alignment': %" PRIu64 " is no power of two up to %d",
                         r->file->path, value, GGUF_ALIGNMENT_MAX);
    }
    *alignment = (size_t)value;
    return BASE_OK;
}

/* Put every tensor at its place in the data section, which begins at the next multiple of the
 * alignment. */
static base_status place_tensors(reader *r, const uint64_t *offsets)
{
    gguf_file *file = r->file;
    size_t alignment = 1;
    base_status status = read_alignment(r, &alignment);
    if (status || file->tensor_count == 0) {
        return status;
    }
    size_t begin = (r->at + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < file->tensor_count; i++) {
        gguf_tensor *tensor = &file->tensors[i];
        name_place(r, "tensor", tensor->name);
        if (offsets[i] % alignment != 0) {
            return corrupt(r, begin, "its offset is not aligned");
        }
        if (begin > file->size || offsets[i] > file->size - begin ||
            tensor->size > file->size - begin - offsets[i]) {
            return base_fail(r->err, BASE_CORRUPT,
                             "%s: %s: %zu bytes at offset %" PRIu64 " of the data section (byte "
                             "%zu) run past the end of the file (%zu bytes)",
                             file->path, r->place, tensor->size, offsets[i], begin, file->size);
        }
        tensor->data = file->data + begin + offsets[i];
    }
    return BASE_OK;
}

/* --- opening ---------------------------------------------------------------------------------- */

static base_status read_header(reader *r, uint64_t *tensor_count, uint64_t *key_count)
{
    snprintf(r->place, sizeof r->place, "header");
    if (r->file->size < 8 || memcmp(r->file->data, "GGUF", 4) != 0) {
        return corrupt(r, 0, "no GGUF file (wrong magic)");
    }
    r->at = 4;
    uint32_t version;
    base_status status = read_u32(r, &version);
    if (status) {
        return status;
    }
    if (version != 2 && version != 3) {
        bool swapped = version != 0 && (version & 0xffff) == 0;
        return base_fail(r->err, BASE_VERSION,
                         "%s: GGUF version %" PRIu32 "%s; versions 2 and 3 "
                         "can be read",
                         r->file->path, version, swapped ? " (a big-endian file?)" : "");
    }
    size_t at = r->at;
    status = read_u64(r, tensor_count);
    if (!status) {
        status = read_u64(r, key_count);
    }
    if (status) {
        return status;
    }
    /* The smallest key is an empty name, a type and one byte; the smallest tensor has one
     * dimension. */
    if (*tensor_count > GGUF_TENSORS_MAX || *tensor_count > left(r) / 32) {
        return corrupt(r, at, "absurd number of tensors");
    }
    if (*key_count > GGUF_KEYS_MAX || *key_count > left(r) / 13) {
        return corrupt(r, at + 8, "absurd number of keys");
    }
    return BASE_OK;
}

static base_status parse(gguf_file *file, base_error *err)
{
    reader r = {.file = file, .err = err};
    uint64_t tensor_count, key_count;
    uint64_t *offsets = NULL;
    base_status status = read_header(&r, &tensor_count, &key_count);
    if (status) {
        return status;
    }
    file->keys = base_calloc((size_t)key_count, sizeof *file->keys);
    file->tensors = base_calloc((size_t)tensor_count, sizeof *file->tensors);
    offsets = base_calloc((size_t)tensor_count, sizeof *offsets);
    if (!file->keys || !file->tensors || !offsets) {
        status = base_fail(err, BASE_NO_MEMORY, "%s: out of memory", file->path);
        goto done;
    }
    status = table_create(&file->key_table, (size_t)key_count, err);
    if (!status) {
        status = table_create(&file->tensor_table, (size_t)tensor_count, err);
    }
    for (size_t i = 0; i < key_count && !status; i++) {
        status = read_key(&r, i);
    }
    for (size_t i = 0; i < tensor_count && !status; i++) {
        status = read_tensor(&r, i, &offsets[i]);
    }
    if (!status) {
        file->tensor_count = (size_t)tensor_count;
        status = place_tensors(&r, offsets);
    }
done:
    base_free(offsets);
    return status;
}

static base_status open_common(const char *path, const void *data, size_t size, gguf_file **out,
                               base_error *err)
{
    base_status status = BASE_OK;
    gguf_file *file = base_calloc(1, sizeof *file);
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
        gguf_close(file);
        return status;
    }
    *out = file;
    return BASE_OK;
}

base_status gguf_open(const char *path, gguf_file **out, base_error *err)
{
    return open_common(path, NULL, 0, out, err);
}

base_status gguf_open_memory(const char *name, const void *data, size_t size, gguf_file **out,
                             base_error *err)
{
    BASE_ASSERT(data != NULL);
    return open_common(name, data, size, out, err);
}

base_status gguf_open_parts(const char *name, const void *keys, size_t size,
                            const gguf_tensor *tensors, size_t tensor_count, void *owner,
                            void (*release)(void *owner), gguf_file **out, base_error *err)
{
    gguf_file *file = NULL;
    base_status status = gguf_open_memory(name, keys, size, &file, err);
    if (status) {
        release(owner);
        return status;
    }
    file->owner = owner;
    file->release = release;
    base_free(file->tensors);
    base_free(file->tensor_table.slots);
    file->tensor_table.slots = NULL;
    file->tensors = base_calloc(tensor_count, sizeof *tensors);
    status = file->tensors ? table_create(&file->tensor_table, tensor_count, err)
                           : base_fail(err, BASE_NO_MEMORY, "%s: out of memory", name);
    for (size_t i = 0; i < tensor_count && !status; i++) {
        file->tensors[i] = tensors[i];
        uint32_t *slot = table_slot(file, &file->tensor_table, tensor_name, tensors[i].name);
        *slot = *slot ? *slot : (uint32_t)i + 1;
    }
    if (status) {
        gguf_close(file);
        return status;
    }
    file->tensor_count = tensor_count;
    *out = file;
    return BASE_OK;
}

void gguf_close(gguf_file *file)
{
    if (!file) {
        return;
    }
    for (size_t i = 0; i < file->key_count; i++) {
        base_free(file->keys[i].text_at);
    }
    base_free(file->keys);
    base_free(file->tensors);
    base_free(file->key_table.slots);
    base_free(file->tensor_table.slots);
    if (file->owns_map) {
        base_map_close(&file->map);
    }
    base_free(file->path);
    if (file->release) {
        file->release(file->owner);
    }
    base_free(file);
}

const char *gguf_path(const gguf_file *file)
{
    return file->path;
}

size_t gguf_tensor_count(const gguf_file *file)
{
    return file->tensor_count;
}

const gguf_tensor *gguf_tensor_at(const gguf_file *file, size_t index)
{
    BASE_ASSERT(index < file->tensor_count);
    return &file->tensors[index];
}

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name)
{
    gguf_text text = {name, strlen(name)};
    uint32_t slot = *table_slot(file, &file->tensor_table, tensor_name, text);
    return slot == 0 ? NULL : &file->tensors[slot - 1];
}

/* --- values ----------------------------------------------------------------------------------- */

static const key_entry *find_key(const gguf_file *file, const char *name, bool is_array)
{
    gguf_text text = {name, strlen(name)};
    uint32_t slot = *table_slot(file, &file->key_table, key_name, text);
    if (slot == 0 || file->keys[slot - 1].is_array != is_array) {
        return NULL;
    }
    return &file->keys[slot - 1];
}

/* An integer of the file as sign and magnitude, so that u64 and i64 both fit. False for other
 * types. */
static bool load_integer(uint32_t type, const uint8_t *p, bool *negative, uint64_t *bits)
{
    int64_t value = 0;
    *negative = false;
    switch (type) {
    case VALUE_U8:
        *bits = p[0];
        return true;
    case VALUE_U16:
        *bits = base_get_u16(p);
        return true;
    case VALUE_U32:
        *bits = base_get_u32(p);
        return true;
    case VALUE_U64:
        *bits = base_get_u64(p);
        return true;
    case VALUE_I8:
        value = (int8_t)p[0];
        break;
    case VALUE_I16:
        value = (int16_t)base_get_u16(p);
        break;
    case VALUE_I32:
        value = (int32_t)base_get_u32(p);
        break;
    case VALUE_I64:
        value = (int64_t)base_get_u64(p);
        break;
    default:
        return false;
    }
    *negative = value < 0;
    *bits = (uint64_t)value;
    return true;
}

static bool load_real(uint32_t type, const uint8_t *p, double *value)
{
    if (type == VALUE_F32) {
        *value = (double)base_get_f32(p);
        return true;
    }
    if (type == VALUE_F64) {
        uint64_t bits = base_get_u64(p);
        memcpy(value, &bits, sizeof *value);
        return true;
    }
    return false;
}

bool gguf_get_u64(const gguf_file *file, const char *key, uint64_t *value)
{
    const key_entry *entry = find_key(file, key, false);
    bool negative;
    uint64_t bits;
    if (!entry || !load_integer(entry->type, entry->value, &negative, &bits) || negative) {
        return false;
    }
    *value = bits;
    return true;
}

bool gguf_get_f64(const gguf_file *file, const char *key, double *value)
{
    const key_entry *entry = find_key(file, key, false);
    return entry && load_real(entry->type, entry->value, value);
}

bool gguf_get_bool(const gguf_file *file, const char *key, bool *value)
{
    const key_entry *entry = find_key(file, key, false);
    if (!entry || entry->type != VALUE_BOOL) {
        return false;
    }
    *value = entry->value[0] != 0;
    return true;
}

/* A text whose bounds were checked when the file was opened. */
static gguf_text load_text(const uint8_t *p)
{
    gguf_text text = {(const char *)(p + 8), (size_t)base_get_u64(p)};
    return text;
}

bool gguf_text_is(gguf_text text, const char *word)
{
    return text.data && text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

bool gguf_get_text(const gguf_file *file, const char *key, gguf_text *value)
{
    const key_entry *entry = find_key(file, key, false);
    if (!entry || entry->type != VALUE_TEXT) {
        return false;
    }
    *value = load_text(entry->value);
    return true;
}

bool gguf_array_count(const gguf_file *file, const char *key, size_t *count)
{
    const key_entry *entry = find_key(file, key, true);
    if (!entry) {
        return false;
    }
    *count = entry->count;
    return true;
}

bool gguf_array_text(const gguf_file *file, const char *key, size_t index, gguf_text *value)
{
    const key_entry *entry = find_key(file, key, true);
    if (!entry || entry->type != VALUE_TEXT || index >= entry->count) {
        return false;
    }
    *value = load_text(file->data + entry->text_at[index]);
    return true;
}

bool gguf_array_i64(const gguf_file *file, const char *key, size_t index, int64_t *value)
{
    const key_entry *entry = find_key(file, key, true);
    bool negative;
    uint64_t bits;
    if (!entry || index >= entry->count || entry->type == VALUE_TEXT ||
        !load_integer(entry->type, entry->value + index * value_bytes[entry->type], &negative,
                      &bits) ||
        (!negative && bits > INT64_MAX)) {
        return false;
    }
    *value = (int64_t)bits;
    return true;
}

bool gguf_array_f64(const gguf_file *file, const char *key, size_t index, double *value)
{
    const key_entry *entry = find_key(file, key, true);
    return entry && index < entry->count && entry->type != VALUE_TEXT &&
           load_real(entry->type, entry->value + index * value_bytes[entry->type], value);
}

/* --- listing ---------------------------------------------------------------------------------- */

size_t gguf_key_count(const gguf_file *file)
{
    return file->key_count;
}

/* Append to out, cut at its end; control characters become spaces. */
static void append_text(char *out, size_t out_size, size_t *at, const char *text, size_t size)
{
    for (size_t i = 0; i < size && *at + 1 < out_size; i++) {
        out[(*at)++] = (unsigned char)text[i] < 32 || text[i] == 127 ? ' ' : text[i];
    }
    out[*at] = '\0';
}

static void append_value(char *out, size_t out_size, size_t *at, uint32_t type, const uint8_t *p)
{
    bool negative = false;
    uint64_t bits = 0;
    double real = 0;
    char text[40];
    if (type == VALUE_TEXT) {
        gguf_text value = load_text(p);
        append_text(out, out_size, at, value.data, value.size);
        return;
    }
    if (type == VALUE_BOOL) {
        snprintf(text, sizeof text, "%s", p[0] ? "true" : "false");
    } else if (load_real(type, p, &real)) {
        snprintf(text, sizeof text, "%.9g", real);
    } else {
        load_integer(type, p, &negative, &bits);
        if (negative) {
            snprintf(text, sizeof text, "%" PRId64, (int64_t)bits);
        } else {
            snprintf(text, sizeof text, "%" PRIu64, bits);
        }
    }
    append_text(out, out_size, at, text, strlen(text));
}

const uint8_t *gguf_key_bytes(const gguf_file *file, size_t index, size_t *size)
{
    BASE_ASSERT(index < file->key_count);
    *size = file->keys[index].end - file->keys[index].begin;
    return file->data + file->keys[index].begin;
}

void gguf_key_at(const gguf_file *file, size_t index, gguf_text *key, char *value,
                 size_t value_size)
{
    BASE_ASSERT(index < file->key_count);
    BASE_ASSERT(value_size > 0);
    const key_entry *entry = &file->keys[index];
    size_t at = 0;
    *key = entry->name;
    value[0] = '\0';
    if (!entry->is_array) {
        append_value(value, value_size, &at, entry->type, entry->value);
        return;
    }
    char head[48];
    snprintf(head, sizeof head, "[%zu]", entry->count);
    append_text(value, value_size, &at, head, strlen(head));
    for (size_t i = 0; i < entry->count && i < 4; i++) {
        const uint8_t *element = entry->type == VALUE_TEXT
                                     ? file->data + entry->text_at[i]
                                     : entry->value + i * value_bytes[entry->type];
        append_text(value, value_size, &at, " ", 1);
        append_value(value, value_size, &at, entry->type, element);
    }
    if (entry->count > 4) {
        append_text(value, value_size, &at, " ...", 4);
    }
}
