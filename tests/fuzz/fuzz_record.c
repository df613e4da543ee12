/* tests/fuzz/fuzz_record.c: the decoders of store records. First byte: which table; the rest is a
 * sealed value, and also a payload under a checksum that holds (which random bytes never have).
 * What a decoder accepts lies within its input, and decodes to the same again when encoded. */
#include <string.h>

#include "base/mem.h"
#include "store/record.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_words[] = {"eR", "source", "\x01\x00\x00\x00", NULL};

static store_slice payload;

static void inside(store_slice part)
{
    FUZZ_CHECK(part.size == 0 ||
               (part.data >= payload.data && part.data + part.size <= payload.data + payload.size));
}

static void same_again(base_status decoded, base_status encoded, const base_buffer *again)
{
    FUZZ_CHECK(decoded == BASE_OK && encoded == BASE_OK);
    FUZZ_CHECK(again->size == payload.size && memcmp(again->data, payload.data, again->size) == 0);
}

#define DECODED(kind) (store_##kind##_decode(payload, &kind) == BASE_OK)
/* kind was decoded: its encoding decodes to what has this encoding. */
#define AGAIN(kind)                                                          \
    do {                                                                     \
        base_buffer first = {0}, second = {0};                               \
        FUZZ_CHECK(store_##kind##_encode(&first, &kind) == BASE_OK);         \
        payload = store_slice_of(first.data, first.size);                    \
        base_status decoded = store_##kind##_decode(payload, &kind);         \
        same_again(decoded, store_##kind##_encode(&second, &kind), &second); \
        base_buffer_free(&first);                                            \
        base_buffer_free(&second);                                           \
    } while (0)

static void decode_document(store_table table)
{
    store_source source;
    store_document document;
    store_version version;
    store_span_record span;
    if (table == STORE_TABLE_SOURCE && DECODED(source)) {
        inside(source.name);
        AGAIN(source);
    } else if (table == STORE_TABLE_DOCUMENT && DECODED(document)) {
        inside(document.external_id);
        AGAIN(document);
    } else if (table == STORE_TABLE_VERSION && DECODED(version)) {
        inside(version.title);
        AGAIN(version);
    } else if (table == STORE_TABLE_EPISODE && DECODED(span)) {
        inside(span.title);
        inside(span.section);
        inside(span.text);
        FUZZ_CHECK(span.text.size == span.end_byte - span.start_byte);
        AGAIN(span);
    }
}

static void decode_state(store_table table)
{
    store_meta meta;
    store_vector_record vector;
    store_state state;
    store_commit_record commit;
    uint32_t number;
    uint64_t id;
    float mass;
    if (table == STORE_TABLE_META && DECODED(meta)) {
        FUZZ_CHECK(memchr(meta.encoder, 0, sizeof meta.encoder));
        AGAIN(meta);
    } else if (table == STORE_TABLE_VECTOR && DECODED(vector)) {
        inside(store_slice_of((const char *)vector.values, 4 * vector.dim));
        float *values = malloc(vector.dim * sizeof *values + 1);
        FUZZ_CHECK(values);
        store_vector_copy(&vector, values);
        free(values);
    } else if (table == STORE_TABLE_STATE && DECODED(state)) {
        AGAIN(state);
    } else if (table == STORE_TABLE_COMMIT && DECODED(commit)) {
        AGAIN(commit);
    } else if (table == STORE_TABLE_FORGOTTEN) {
        store_ids_check(payload);
    } else {
        store_u32_decode(payload, &number);
        store_u64_decode(payload, &id);
        store_mass_decode(payload, &mass);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    store_table table = (store_table)(data[0] % STORE_TABLE_COUNT);
    store_slice rest = {.data = data + 1, .size = size - 1}, opened;
    store_key key = store_key_u64(7), probed;
    base_buffer sealed = {0};
    uint64_t commit = 0;
    size_t record_size = 0;
    store_table found;
    store_record_open(table, key.data, key.size, rest, &commit, &opened);
    if (store_record_probe(rest.data, rest.size, &found, &probed, &commit, &record_size)) {
        FUZZ_CHECK(record_size <= rest.size && found < STORE_TABLE_COUNT);
    }
    FUZZ_CHECK(store_record_seal(&sealed, table, &key, 5, rest.data, rest.size) == BASE_OK);
    FUZZ_CHECK(store_record_open(table, key.data, key.size,
                                 store_slice_of(sealed.data, sealed.size), &commit,
                                 &payload) == BASE_OK);
    FUZZ_CHECK(commit == 5 && payload.size == rest.size);
    decode_document(table);
    payload = (store_slice){.data = data + 1, .size = size - 1};
    decode_state(table);
    base_buffer_free(&sealed);
    return 0;
}
