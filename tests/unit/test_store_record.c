/* Record formats: golden bytes, round trips, and every damaged byte noticed. */
#include <math.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "store/record.h"
#include "store_testing.h"

static void assert_hex(const base_buffer *buffer, const char *expected)
{
    char *hex = test_malloc(2 * buffer->size + 1);
    base_hex((const uint8_t *)buffer->data, buffer->size, hex);
    if (strcmp(hex, expected) != 0) {
        fail_msg("got      %s\nexpected %s", hex, expected);
    }
    test_free(hex);
}

static store_span_record example_span(void)
{
    store_span_record span = {.document = 7,
                              .version = 2,
                              .ordinal = 1,
                              .source = 3,
                              .kind = STORE_TURN_ASSISTANT,
                              .start_byte = 10,
                              .end_byte = 13,
                              .observed_at_us = 1,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_MAX,
                              .ingested_at_us = -2,
                              .title = store_slice_of("T", 1),
                              .section = store_slice_of("Se", 2),
                              .text = store_slice_of("abc", 3)};
    memset(span.content_hash, 0xAB, sizeof span.content_hash);
    return span;
}

/* Goal: the bytes on disk stay what they are. Method: written out by hand from the table in
 * record.h; a change here means a new format version. */
static void test_store_record_golden_bytes(void **state)
{
    (void)state;
    base_buffer payload = {0}, sealed = {0};
    store_key key = store_key_u64(0x0102030405060708u);
    assert_int_equal(store_record_seal(&sealed, STORE_TABLE_KV, &key, 5, "hi", 2), BASE_OK);
    uint8_t body[] = {'e', 'R', 11, 1, 2, 0, 0, 0, 5, 0, 0, 0,   0,  0,
                      0,   0,   8,  1, 2, 3, 4, 5, 6, 7, 8, 'h', 'i'};
    assert_int_equal(sealed.size, sizeof body + 4);
    assert_memory_equal(sealed.data, body, sizeof body);
    assert_int_equal(base_get_u32((uint8_t *)sealed.data + sizeof body),
                     base_crc32c(0, body, sizeof body));

    store_span_record span = example_span();
    assert_int_equal(store_span_encode(&payload, &span), BASE_OK);
    assert_hex(&payload, "0700000000000000"
                         "02000000"
                         "01000000"
                         "03000000"
                         "02000000"
                         "0a00000000000000"
                         "0d00000000000000"
                         "0100000000000000"
                         "0000000000000080"
                         "ffffffffffffff7f"
                         "feffffffffffffff"
                         "abababababababababababababababab"
                         "abababababababababababababababab"
                         "0100"
                         "0200"
                         "03000000"
                         "54"
                         "5365"
                         "616263");

    store_state closed = {.superseded_at_us = 258,
                          .superseded_by = 9,
                          .use_count = 1,
                          .first_observed_us = BASE_TIME_NONE};
    assert_int_equal(store_state_encode(&payload, &closed), BASE_OK);
    assert_hex(&payload, "0201000000000000"
                         "0900000000000000"
                         "0100000000000000");
    closed = (store_state){
        .superseded_at_us = 258, .replaced = 7, .changes = 3, .first_observed_us = 257};
    assert_int_equal(store_state_encode(&payload, &closed), BASE_OK);
    assert_hex(&payload, "0201000000000000"
                         "0000000000000000"
                         "0000000000000000"
                         "0700000000000000"
                         "0300000000000000"
                         "0101000000000000");

    store_source source = {.half_life_s = 2.0,
                           .evidence = 1,
                           .documents = 2,
                           .episodes = 3,
                           .name = store_slice_of("s", 1)};
    assert_int_equal(store_source_encode(&payload, &source), BASE_OK);
    assert_hex(&payload, "0000000000000040"
                         "0100000000000000"
                         "0200000000000000"
                         "0300000000000000"
                         "0100"
                         "73");
    source.drift =
        (store_drift){.changed = 4, .changes = 5, .first_sum_s = 2.0, .last_observed_us = 6};
    source.closed = 7;
    source.given = source.counted = true;
    assert_int_equal(store_source_encode(&payload, &source), BASE_OK);
    assert_hex(&payload, "0000000000000040"
                         "0100000000000000"
                         "0200000000000000"
                         "0300000000000000"
                         "0100"
                         "73"
                         "0400000000000000"
                         "0500000000000000"
                         "0000000000000040"
                         "0600000000000000"
                         "0300000000000000"
                         "0700000000000000");
    store_source again;
    store_slice bytes = store_slice_of((const char *)payload.data, payload.size);
    assert_int_equal(store_source_decode(bytes, &again), BASE_OK);
    assert_int_equal(again.name.size, 1);
    assert_int_equal(again.drift.changes, 5);
    assert_int_equal(again.closed, 7);
    assert_true(again.given && again.counted);

    store_document document = {.source = 3, .versions = 2, .external_id = store_slice_of("x", 1)};
    memset(document.key, 0xCD, 32);
    assert_int_equal(store_document_encode(&payload, &document), BASE_OK);
    assert_hex(&payload, "03000000"
                         "02000000"
                         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
                         "0100"
                         "78");

    store_version version = {.first_episode = 4,
                             .episode_count = 2,
                             .kind = STORE_TURN_USER,
                             .observed_at_us = 1,
                             .valid_from_us = 2,
                             .valid_to_us = 3,
                             .ingested_at_us = 4,
                             .text_size = 5,
                             .title = store_slice_of("t", 1)};
    assert_int_equal(store_version_encode(&payload, &version), BASE_OK);
    assert_hex(&payload, "0400000000000000"
                         "02000000"
                         "01000000"
                         "0100000000000000"
                         "0200000000000000"
                         "0300000000000000"
                         "0400000000000000"
                         "0500000000000000"
                         "0000000000000000000000000000000000000000000000000000000000000000"
                         "0100"
                         "74");

    const uint8_t encoder[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float values[2] = {1.0f, -0.5f};
    assert_int_equal(store_vector_encode(&payload, encoder, values, 2), BASE_OK);
    assert_hex(&payload, "0102030405060708"
                         "02000000"
                         "0000803f"
                         "000000bf");

    store_commit_record commit = {.clock_us = 1, .first_episode = 2, .next_episode = 3, .chain = 4};
    assert_int_equal(store_commit_encode(&payload, &commit), BASE_OK);
    assert_hex(&payload, "0100000000000000"
                         "0200000000000000"
                         "0300000000000000"
                         "0400000000000000");

    store_meta meta = {.format = 1,
                       .flags = 1,
                       .last_commit = 2,
                       .next_episode = 3,
                       .next_document = 4,
                       .next_source = 5,
                       .vector_dim = 6,
                       .episodes = 7,
                       .documents = 8,
                       .versions = 9,
                       .superseded = 10,
                       .kv_entries = 11,
                       .uses = 12,
                       .dropped_writes = 13,
                       .bytes_text = 14,
                       .bytes_vectors = 15,
                       .bytes_kv = 16,
                       .encoder = "e"};
    assert_int_equal(store_meta_encode(&payload, &meta), BASE_OK);
    assert_hex(&payload, "01000000"
                         "01000000"
                         "0200000000000000"
                         "0300000000000000"
                         "0400000000000000"
                         "05000000"
                         "06000000"
                         "0700000000000000"
                         "0800000000000000"
                         "0900000000000000"
                         "0a00000000000000"
                         "0b00000000000000"
                         "0c00000000000000"
                         "0d00000000000000"
                         "0e00000000000000"
                         "0f00000000000000"
                         "1000000000000000"
                         "0100"
                         "65");
    base_buffer_free(&payload);
    base_buffer_free(&sealed);
}

/* Goal: what is encoded comes back. */
static void test_store_record_round_trip(void **state)
{
    (void)state;
    base_buffer payload = {0};
    store_span_record span = example_span(), back;
    assert_int_equal(store_span_encode(&payload, &span), BASE_OK);
    assert_int_equal(store_span_decode(store_slice_of(payload.data, payload.size), &back), BASE_OK);
    assert_int_equal(back.document, 7);
    assert_int_equal(back.kind, STORE_TURN_ASSISTANT);
    assert_int_equal(back.valid_from_us, BASE_TIME_NONE);
    assert_int_equal(back.ingested_at_us, -2);
    assert_int_equal(back.text.size, 3);
    assert_memory_equal(back.text.data, "abc", 3);
    assert_memory_equal(back.section.data, "Se", 2);
    store_source source = {.half_life_s = INFINITY, .name = store_slice_of("", 0)}, source_back;
    assert_int_equal(store_source_encode(&payload, &source), BASE_OK);
    assert_int_equal(store_source_decode(store_slice_of(payload.data, payload.size), &source_back),
                     BASE_OK);
    assert_true(isinf(source_back.half_life_s));
    base_buffer_free(&payload);
}

/* Goal: no flipped bit goes unseen, no shorter record is read. Method: each bit of a sealed record
 * in turn; each shorter length, placed at the very end of its allocation. */
static void test_store_record_damage_is_seen(void **state)
{
    (void)state;
    base_buffer payload = {0}, sealed = {0};
    store_span_record span = example_span();
    store_key key = store_key_u64(42), other = store_key_u64(43);
    store_slice out;
    uint64_t commit;
    assert_int_equal(store_span_encode(&payload, &span), BASE_OK);
    assert_int_equal(
        store_record_seal(&sealed, STORE_TABLE_EPISODE, &key, 5, payload.data, payload.size),
        BASE_OK);
    store_slice value = store_slice_of(sealed.data, sealed.size);
    assert_int_equal(
        store_record_open(STORE_TABLE_EPISODE, key.data, key.size, value, &commit, &out), BASE_OK);
    assert_int_equal(commit, 5);
    assert_int_equal(store_record_open(STORE_TABLE_STATE, key.data, key.size, value, NULL, &out),
                     BASE_CORRUPT);
    assert_int_equal(
        store_record_open(STORE_TABLE_EPISODE, other.data, other.size, value, NULL, &out),
        BASE_CORRUPT);
    for (size_t bit = 0; bit < 8 * sealed.size; bit++) {
        sealed.data[bit / 8] = (char)(sealed.data[bit / 8] ^ (1 << (bit % 8)));
        assert_int_not_equal(
            store_record_open(STORE_TABLE_EPISODE, key.data, key.size, value, NULL, &out), BASE_OK);
        sealed.data[bit / 8] = (char)(sealed.data[bit / 8] ^ (1 << (bit % 8)));
    }
    for (size_t size = 0; size < sealed.size; size++) {
        char *copy = test_malloc(size + 1);
        memcpy(copy, sealed.data, size);
        assert_int_equal(store_record_open(STORE_TABLE_EPISODE, key.data, key.size,
                                           store_slice_of(copy, size), NULL, &out),
                         BASE_CORRUPT);
        test_free(copy);
    }
    for (size_t size = 0; size < payload.size; size++) {
        store_span_record back;
        assert_int_equal(store_span_decode(store_slice_of(payload.data, size), &back),
                         BASE_CORRUPT);
    }
    base_buffer_free(&payload);
    base_buffer_free(&sealed);
}

/* Goal: a record of a newer version is told apart from damage. */
static void test_store_record_newer_version_is_named(void **state)
{
    (void)state;
    base_buffer sealed = {0};
    store_key key = store_key_u64(1);
    store_slice out;
    assert_int_equal(store_record_seal(&sealed, STORE_TABLE_KV, &key, 1, "x", 1), BASE_OK);
    sealed.data[3] = STORE_RECORD_VERSION + 1;
    base_put_u32((uint8_t *)sealed.data + sealed.size - 4,
                 base_crc32c(0, sealed.data, sealed.size - 4));
    assert_int_equal(store_record_open(STORE_TABLE_KV, key.data, key.size,
                                       store_slice_of(sealed.data, sealed.size), NULL, &out),
                     BASE_VERSION);
    base_buffer_free(&sealed);
}

/* Goal: keys sort as their numbers do, negative times included. */
static void test_store_keys_sort_by_value(void **state)
{
    (void)state;
    const int64_t times[] = {INT64_MIN, -5, -1, 0, 1, 255, 256, INT64_MAX};
    for (size_t i = 0; i + 1 < sizeof times / sizeof *times; i++) {
        store_key a = store_key_use(9, times[i]), b = store_key_use(9, times[i + 1]);
        assert_true(memcmp(a.data, b.data, a.size) < 0);
        assert_int_equal(store_key_time(a.data + 8), times[i]);
    }
    store_key a = store_key_u64(255), b = store_key_u64(256);
    assert_true(memcmp(a.data, b.data, 8) < 0);
}

/* Goal: an empty external id lets the content stand in; no id can imitate that. */
static void test_store_document_key_keeps_names_apart(void **state)
{
    (void)state;
    uint8_t hash[32] = {1}, other[32] = {2}, a[32], b[32];
    store_document_key("s", "", hash, a);
    store_document_key("s", NULL, hash, b);
    assert_memory_equal(a, b, 32);
    store_document_key("s", "", other, b);
    assert_memory_not_equal(a, b, 32);
    store_document_key("s", "x", hash, a);
    store_document_key("s", "x", other, b);
    assert_memory_equal(a, b, 32);
    store_document_key("sx", "", hash, b);
    assert_memory_not_equal(a, b, 32);
    store_document_key("a", "bc", hash, a);
    store_document_key("ab", "c", hash, b);
    assert_memory_not_equal(a, b, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_record_golden_bytes),
        cmocka_unit_test(test_store_record_round_trip),
        cmocka_unit_test(test_store_record_damage_is_seen),
        cmocka_unit_test(test_store_record_newer_version_is_named),
        cmocka_unit_test(test_store_keys_sort_by_value),
        cmocka_unit_test(test_store_document_key_keeps_names_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
