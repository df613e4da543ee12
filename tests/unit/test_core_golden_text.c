/* Tokenizers and encoder against the values in tests/golden (its README says how they were
 * made). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/tokenizer.h"
#include "engine/tokenizer_bpe.h"
#include "models.h"

#define GOLDEN EIDETIC_SOURCE_DIR "/tests/golden/"

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    if (!json) {
        fail_msg("%s:%d: %s", path, error.line, error.text);
    }
    return json;
}

static json_t *member(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (!value) {
        fail_msg("no member '%s'", key);
    }
    return value;
}

/* FNV-1a over numbers as u32 little-endian, continued from hash. */
static uint64_t hash_number(uint64_t hash, uint32_t number)
{
    uint8_t bytes[4];
    base_put_u32(bytes, number);
    for (size_t i = 0; i < 4; i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static const uint64_t hash_start = UINT64_C(0xcbf29ce484222325);

static void expect_hash(uint64_t hash, const json_t *wanted, const char *what, size_t index)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    if (strcmp(text, json_string_value(wanted)) != 0) {
        fail_msg("%s %zu: hash %s, not %s", what, index, text, json_string_value(wanted));
    }
}

/* Bytes of a string of hexadecimal digits; the caller frees them. */
static char *from_hex(const json_t *value, size_t *size)
{
    const char *hex = json_string_value(value);
    *size = strlen(hex) / 2;
    char *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < *size; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (char)(unsigned char)byte;
    }
    bytes[*size] = '\0';
    return bytes;
}

static tokenizer *open_default(void)
{
    char path[4096];
    gguf_file *file = NULL;
    tokenizer *t = NULL;
    if (!models_path(MODELS_GENERATOR, path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_int_equal(gguf_open(path, &file, NULL), BASE_OK);
    assert_int_equal(tokenizer_open(file, &t, NULL), BASE_OK);
    gguf_close(file);
    return t;
}

static void expect_ids_hash(const tokenizer *t, const char *text, size_t size, const json_t *entry,
                            size_t index)
{
    int32_t *ids = NULL;
    size_t count = 0;
    uint64_t hash = hash_start;
    assert_int_equal(tokenizer_encode(t, text, size, &ids, &count, NULL), BASE_OK);
    for (size_t i = 0; i < count; i++) {
        hash = hash_number(hash, (uint32_t)ids[i]);
    }
    base_free(ids);
    if ((json_int_t)count != json_integer_value(member(entry, "ids"))) {
        fail_msg("piece %zu: %zu ids, not %lld", index, count,
                 (long long)json_integer_value(member(entry, "ids")));
    }
    expect_hash(hash, member(entry, "fnv"), "piece", index);
}

/* Goal: mixed text gives the ids of both reference programs. Method: 0.8 MB, as one string and in
 * pieces. */
static void test_mixed_text_gives_the_reference_ids(void **state)
{
    (void)state;
    tokenizer *t = open_default();
    base_map text;
    json_t *json = load_json(GOLDEN "tokenizer/mixed.json");
    assert_int_equal(base_map_open(GOLDEN "tokenizer/mixed.txt", &text, NULL), BASE_OK);
    assert_int_equal(text.size, json_integer_value(member(json, "bytes")));
    expect_ids_hash(t, (const char *)text.data, text.size, json, 0);
    size_t at = 0, index;
    json_t *piece;
    json_array_foreach(member(json, "pieces"), index, piece)
    {
        size_t size = (size_t)json_integer_value(member(piece, "bytes"));
        assert_true(size <= text.size - at);
        expect_ids_hash(t, (const char *)text.data + at, size, piece, index);
        at += size;
    }
    assert_int_equal(at, text.size);
    assert_true(index > 100);
    base_map_close(&text);
    json_decref(json);
    tokenizer_close(t);
}

/* Goal: tricky strings and broken UTF-8 give the reference ids. */
static void test_tricky_and_broken_strings_give_the_reference_ids(void **state)
{
    (void)state;
    const char *lists[] = {"valid", "broken"};
    tokenizer *t = open_default();
    json_t *json = load_json(GOLDEN "tokenizer/strings.json");
    for (size_t l = 0; l < 2; l++) {
        size_t index, k, size, count;
        json_t *entry, *id;
        assert_true(json_array_size(member(json, lists[l])) > 10);
        json_array_foreach(member(json, lists[l]), index, entry)
        {
            int32_t *ids = NULL;
            char *bytes = from_hex(member(entry, "hex"), &size);
            assert_int_equal(tokenizer_encode(t, bytes, size, &ids, &count, NULL), BASE_OK);
            json_array_foreach(member(entry, "ids"), k, id)
            {
                if (k >= count || ids[k] != json_integer_value(id)) {
                    fail_msg("%s string %zu (%s): id %zu is %d, not %lld", lists[l], index,
                             json_string_value(member(entry, "hex")), k,
                             k < count ? (int)ids[k] : -1, (long long)json_integer_value(id));
                }
            }
            assert_int_equal(count, k);
            base_free(ids);
            free(bytes);
        }
    }
    json_decref(json);
    tokenizer_close(t);
}

static void *compile(const char *name)
{
    void *pattern = NULL;
    const tokenizer_family *family = tokenizer_bpe_family((gguf_text){name, strlen(name)});
    assert_non_null(family);
    assert_int_equal(tokenizer_bpe_compile(family, &pattern, NULL), BASE_OK);
    return pattern;
}

static void check_pattern_on_strings(const void *pattern, const char *name, const json_t *strings)
{
    size_t index, k, size, count;
    json_t *entry, *end;
    json_array_foreach(strings, index, entry)
    {
        char *bytes = from_hex(member(entry, "hex"), &size);
        size_t *ends = calloc(size + 1, sizeof *ends);
        assert_non_null(ends);
        assert_int_equal(tokenizer_bpe_split(pattern, bytes, size, ends, &count), BASE_OK);
        json_array_foreach(member(entry, "ends"), k, end)
        {
            if (k >= count || ends[k] != (size_t)json_integer_value(end)) {
                fail_msg("%s, string %zu (%s): end %zu is %zu, not %lld", name, index,
                         json_string_value(member(entry, "hex")), k, k < count ? ends[k] : 0,
                         (long long)json_integer_value(end));
            }
        }
        assert_int_equal(count, k);
        free(ends);
        free(bytes);
    }
}

/* Goal: each pattern cuts where the reference cuts. Method: byte ends of the words of tricky
 * strings, and their hashes for the pieces of the mixed text; no model is needed. */
static void test_patterns_cut_where_the_reference_cuts(void **state)
{
    (void)state;
    base_map text;
    json_t *mixed = load_json(GOLDEN "tokenizer/mixed.json"), *entry, *piece;
    json_t *splits = load_json(GOLDEN "tokenizer/splits.json");
    size_t pattern_index, index;
    assert_int_equal(base_map_open(GOLDEN "tokenizer/mixed.txt", &text, NULL), BASE_OK);
    size_t *ends = calloc(text.size + 1, sizeof *ends);
    assert_non_null(ends);
    json_array_foreach(member(splits, "patterns"), pattern_index, entry)
    {
        const char *name = json_string_value(member(entry, "pattern"));
        void *pattern = compile(name);
        check_pattern_on_strings(pattern, name, member(entry, "strings"));
        size_t at = 0, count;
        json_array_foreach(member(entry, "pieces"), index, piece)
        {
            json_t *from = json_array_get(member(mixed, "pieces"), index);
            size_t size = (size_t)json_integer_value(member(from, "bytes"));
            uint64_t hash = hash_start;
            assert_true(size <= text.size - at);
            assert_int_equal(
                tokenizer_bpe_split(pattern, (const char *)text.data + at, size, ends, &count),
                BASE_OK);
            for (size_t i = 0; i < count; i++) {
                hash = hash_number(hash, (uint32_t)ends[i]);
            }
            assert_int_equal(count, json_integer_value(member(piece, "count")));
            expect_hash(hash, member(piece, "fnv"), name, index);
            at += size;
        }
        assert_int_equal(at, text.size);
        tokenizer_bpe_free_pattern(pattern);
    }
    assert_int_equal(pattern_index, 4);
    free(ends);
    base_map_close(&text);
    json_decref(splits);
    json_decref(mixed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_text_gives_the_reference_ids),
        cmocka_unit_test(test_tricky_and_broken_strings_give_the_reference_ids),
        cmocka_unit_test(test_patterns_cut_where_the_reference_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
