/* Tokenizers, chat template and encoder against the values in tests/golden (its README says how
 * they were made). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/chat.h"
#include "engine/encoder.h"
#include "engine/kernels.h"
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

/* --- chat template ---------------------------------------------------------------------------- */

static void append_turn(const chat_template *chat, const char *role, const char *text,
                        chat_ids *ids)
{
    chat_role r = strcmp(role, "system") == 0 ? CHAT_SYSTEM
                  : strcmp(role, "user") == 0 ? CHAT_USER
                                              : CHAT_ASSISTANT;
    assert_int_equal(chat_open_turn(chat, r, ids, NULL), BASE_OK);
    assert_int_equal(chat_text(chat, text, strlen(text), ids, NULL), BASE_OK);
    assert_int_equal(chat_close_turn(chat, r, ids, NULL), BASE_OK);
}

/* Goal: conversations have the ids that the model's own template gives. Method: turns built one by
 * one; the system turn that the template adds by itself is given explicitly. A text that begins
 * with white space is the one documented difference (the template's line break and the text are
 * tokenised apart): there the text must come out the same. */
static void test_conversations_have_the_ids_of_the_template(void **state)
{
    (void)state;
    char path[4096];
    gguf_file *file = NULL;
    chat_template *chat = NULL;
    tokenizer *t = open_default();
    assert_true(models_path(MODELS_GENERATOR, path, sizeof path));
    assert_int_equal(gguf_open(path, &file, NULL), BASE_OK);
    assert_int_equal(chat_open(file, t, &chat, NULL), BASE_OK);
    json_t *json = load_json(GOLDEN "chat.json"), *row, *message, *id;
    size_t index, k, differ = 0;
    json_array_foreach(member(json, "conversations"), index, row)
    {
        chat_ids ids = {0};
        const json_t *messages = member(row, "messages"), *wanted = member(row, "ids");
        bool spaced = false;
        assert_int_equal(chat_begin(chat, &ids, NULL), BASE_OK);
        json_array_foreach(messages, k, message)
        {
            const char *role = json_string_value(member(message, "role"));
            const char *text = json_string_value(member(message, "content"));
            if (k == 0 && strcmp(role, "system") != 0) {
                append_turn(chat, "system",
                            "You are a helpful AI assistant named SmolLM, trained by "
                            "Hugging Face",
                            &ids);
            }
            append_turn(chat, role, text, &ids);
            spaced = spaced || text[0] == ' ' || text[0] == '\n';
        }
        if (json_is_true(member(row, "open"))) {
            assert_int_equal(chat_open_turn(chat, CHAT_ASSISTANT, &ids, NULL), BASE_OK);
        }
        bool same = ids.count == json_array_size(wanted);
        base_buffer shown = {0};
        json_array_foreach(wanted, k, id)
        {
            same = same && ids.ids[k] == json_integer_value(id);
        }
        for (k = 0; k < ids.count; k++) {
            assert_int_equal(tokenizer_decode(t, ids.ids[k], true, &shown), BASE_OK);
        }
        assert_string_equal(shown.data, json_string_value(member(row, "text")));
        if (!same && !spaced) {
            fail_msg("conversation %zu has other ids", index);
        }
        differ += !same;
        base_buffer_free(&shown);
        chat_ids_free(&ids);
    }
    assert_true(index >= 20);
    assert_true(differ <= 2);
    json_decref(json);
    chat_close(chat);
    tokenizer_close(t);
    gguf_close(file);
}

/* --- text encoder ----------------------------------------------------------------------------- */

static void encoder_folder(char *folder, size_t size)
{
    char path[4096];
    if (!models_path(MODELS_ENCODER "/model.safetensors", path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_true(models_path(MODELS_ENCODER, folder, size));
}

/* The published tokenizer reads "[SEP]" in a text as the special token; for us it is text. */
static bool spells_a_special_token(const char *text)
{
    return strstr(text, "[SEP]") || strstr(text, "[CLS]");
}

/* Goal: WordPiece gives the ids that the published encoder reads. Method: 200 texts, cut at 256. */
static void test_word_pieces_are_those_of_the_reference(void **state)
{
    (void)state;
    char folder[4096], path[4200];
    wordpiece *w = NULL;
    size_t index, k, size, special = 0;
    json_t *json = load_json(GOLDEN "encoder.json"), *entry, *id;
    encoder_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/vocab.txt", folder);
    assert_int_equal(tokenizer_wordpiece_open(path, &w, NULL), BASE_OK);
    json_array_foreach(member(json, "texts"), index, entry)
    {
        int32_t ids[256];
        char *text = from_hex(member(entry, "hex"), &size);
        size_t count = tokenizer_wordpiece_encode(w, text, size, ids, 256);
        if (spells_a_special_token(text)) {
            special++;
            for (k = 1; k + 1 < count; k++) {
                assert_true(ids[k] != 101 && ids[k] != 102);
            }
        } else {
            json_array_foreach(member(entry, "ids"), k, id)
            {
                if (k >= count || ids[k] != json_integer_value(id)) {
                    fail_msg("text %zu: id %zu is %d, not %lld", index, k,
                             k < count ? (int)ids[k] : -1, (long long)json_integer_value(id));
                }
            }
            assert_int_equal(count, k);
        }
        free(text);
    }
    assert_true(index >= 200);
    assert_int_equal(special, 1);
    tokenizer_wordpiece_close(w);
    json_decref(json);
}

/* Goal: vectors are those of the reference. Method: cosine of at least 0.9999 for each of 200
 * texts, in one batch; the reference is in half precision, which costs less than 1e-6. */
static void test_vectors_are_those_of_the_reference(void **state)
{
    (void)state;
    enum { DIM = 384 };
    char folder[4096];
    base_map file;
    encoder *e = NULL;
    base_error err = {0};
    size_t index, checked = 0;
    json_t *json = load_json(GOLDEN "encoder.json"), *entry;
    encoder_folder(folder, sizeof folder);
    assert_int_equal(base_map_open(GOLDEN "encoder.bin", &file, NULL), BASE_OK);
    assert_memory_equal(file.data, "EIDENC01", 8);
    size_t count = base_get_u32(file.data + 8);
    assert_int_equal(base_get_u32(file.data + 12), DIM);
    assert_int_equal(file.size, 16 + count * DIM * 2);
    assert_int_equal(json_array_size(member(json, "texts")), count);
    char **texts = calloc(count, sizeof *texts);
    size_t *sizes = calloc(count, sizeof *sizes);
    float *vectors = calloc(count * DIM, sizeof *vectors);
    assert_true(texts && sizes && vectors);
    json_array_foreach(member(json, "texts"), index, entry)
    {
        texts[index] = from_hex(member(entry, "hex"), &sizes[index]);
    }
    if (encoder_open(folder, NULL, &e, &err)) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(encoder_dim(e), DIM);
    assert_memory_equal(encoder_name(e), MODELS_ENCODER ":", strlen(MODELS_ENCODER) + 1);
    assert_int_equal(
        encoder_encode_batch(e, (const char *const *)texts, sizes, count, vectors, &err), BASE_OK);
    double least = 1.0;
    for (size_t i = 0; i < count; i++) {
        double product = 0.0, square = 0.0;
        for (size_t k = 0; k < DIM; k++) {
            double wanted =
                (double)kernel_half_to_float(base_get_u16(file.data + 16 + 2 * (i * DIM + k)));
            product += wanted * (double)vectors[i * DIM + k];
            square += wanted * wanted;
        }
        double cosine = product / sqrt(square);
        if (!spells_a_special_token(texts[i])) {
            least = cosine < least ? cosine : least;
            checked++;
            if (!(cosine >= 0.9999)) {
                fail_msg("text %zu: cosine %.7f", i, cosine);
            }
        }
        free(texts[i]);
    }
    print_message("%zu texts, smallest cosine %.7f\n", checked, least);
    assert_true(checked >= 199);
    encoder_close(e);
    free(texts);
    free(sizes);
    free(vectors);
    base_map_close(&file);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_text_gives_the_reference_ids),
        cmocka_unit_test(test_tricky_and_broken_strings_give_the_reference_ids),
        cmocka_unit_test(test_patterns_cut_where_the_reference_cuts),
        cmocka_unit_test(test_conversations_have_the_ids_of_the_template),
        cmocka_unit_test(test_word_pieces_are_those_of_the_reference),
        cmocka_unit_test(test_vectors_are_those_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
