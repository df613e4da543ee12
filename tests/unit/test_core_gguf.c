/* GGUF files: every value type is read, and every kind of damage is an error that names its
 * place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/gguf.h"
#include "make_gguf.h"
#include "models.h"

enum { TENSOR_BYTES = 2 * 64 * 4, QUANT_BYTES = 3 * 2 * 20 };

/* A whole file: one key of each type, arrays, two tensors. */
static make_gguf whole_file(uint32_t version)
{
    make_gguf m = {0};
    make_header(&m, version, 2, 17);
    make_key(&m, "u8", MAKE_U8);
    make_u8(&m, 200);
    make_key(&m, "i8", MAKE_I8);
    make_u8(&m, 0xfe);
    make_key(&m, "u16", MAKE_U16);
    make_bytes(&m, "\x34\x12", 2);
    make_key(&m, "i16", MAKE_I16);
    make_bytes(&m, "\xff\xff", 2);
    make_key_u32(&m, "u32", 4000000000u);
    make_key(&m, "i32", MAKE_I32);
    make_u32(&m, (uint32_t)-5);
    make_key(&m, "f32", MAKE_F32);
    make_f32(&m, 0.5f);
    make_key(&m, "bool", MAKE_BOOL);
    make_u8(&m, 1);
    make_key_text(&m, "text", "some text");
    make_key(&m, "u64", MAKE_U64);
    make_u64(&m, UINT64_MAX);
    make_key(&m, "i64", MAKE_I64);
    make_u64(&m, (uint64_t)INT64_MIN);
    make_key(&m, "f64", MAKE_F64);
    double real = -0.125;
    uint64_t bits;
    memcpy(&bits, &real, sizeof bits);
    make_u64(&m, bits);
    make_array(&m, "texts", MAKE_TEXT, 3);
    make_text(&m, "a");
    make_text(&m, "");
    make_text(&m, "ccc");
    make_array(&m, "i32s", MAKE_I32, 2);
    make_u32(&m, 7);
    make_u32(&m, (uint32_t)-7);
    make_array(&m, "f32s", MAKE_F32, 5);
    for (int i = 0; i < 5; i++) {
        make_f32(&m, (float)i);
    }
    make_array(&m, "nothing", MAKE_U8, 0);
    make_key_u32(&m, "general.alignment", 64);

    make_text(&m, "plain");
    make_u32(&m, 2);
    make_u64(&m, 64);
    make_u64(&m, 2);
    make_u32(&m, 0);
    make_u64(&m, 0);
    make_text(&m, "quantised");
    make_u32(&m, 2);
    make_u64(&m, 64);
    make_u64(&m, 3);
    make_u32(&m, 3);
    make_u64(&m, TENSOR_BYTES);
    make_padding(&m, 64);
    for (int i = 0; i < TENSOR_BYTES + QUANT_BYTES; i++) {
        make_u8(&m, (uint8_t)i);
    }
    return m;
}

static base_status open_bytes(const void *data, size_t size, base_error *err)
{
    gguf_file *file = NULL;
    guarded g = guarded_copy(data, size);
    base_status status = gguf_open_memory("test.gguf", g.data, size, &file, err);
    if (status) {
        assert_null(file);
        assert_int_equal(err->code, status);
        assert_non_null(strstr(err->text, "test.gguf"));
    } else {
        gguf_close(file);
    }
    guarded_free(&g);
    return status;
}

/* Look at everything that a file offers. */
static void read_everything(const gguf_file *file)
{
    for (size_t i = 0; i < gguf_key_count(file); i++) {
        gguf_text name, text;
        char value[40], key[64];
        uint64_t u;
        int64_t s;
        double real;
        bool flag;
        size_t count;
        gguf_key_at(file, i, &name, value, sizeof value);
        snprintf(key, sizeof key, "%.*s", (int)(name.size < 60 ? name.size : 60), name.data);
        gguf_get_u64(file, key, &u);
        gguf_get_f64(file, key, &real);
        gguf_get_bool(file, key, &flag);
        gguf_get_text(file, key, &text);
        for (size_t k = 0; gguf_array_count(file, key, &count) && k < count + 1; k++) {
            gguf_array_text(file, key, k, &text);
            gguf_array_i64(file, key, k, &s);
            gguf_array_f64(file, key, k, &real);
        }
    }
    unsigned sum = 0;
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        for (size_t k = 0; k < t->size; k++) {
            sum += t->data[k];
        }
    }
    assert_true(sum < UINT32_MAX);
}

/* Goal: each value comes back, in versions 2 and 3. Method: a file with one key of each type. */
static void test_every_value_type_is_read(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        make_gguf m = whole_file(version);
        gguf_file *f = NULL;
        uint64_t u;
        int64_t s;
        double real;
        bool flag;
        gguf_text text;
        size_t count;
        assert_int_equal(gguf_open_memory("test.gguf", m.data, m.size, &f, NULL), BASE_OK);
        assert_string_equal(gguf_path(f), "test.gguf");
        assert_int_equal(gguf_key_count(f), 17);
        assert_true(gguf_get_u64(f, "u8", &u) && u == 200);
        assert_true(gguf_get_u64(f, "u16", &u) && u == 0x1234);
        assert_true(gguf_get_u64(f, "u32", &u) && u == 4000000000u);
        assert_true(gguf_get_u64(f, "u64", &u) && u == UINT64_MAX);
        assert_false(gguf_get_u64(f, "i8", &u));
        assert_false(gguf_get_u64(f, "i64", &u));
        assert_false(gguf_get_u64(f, "f32", &u));
        assert_false(gguf_get_u64(f, "absent", &u));
        assert_true(gguf_get_f64(f, "f32", &real) && real == 0.5);
        assert_true(gguf_get_f64(f, "f64", &real) && real == -0.125);
        assert_true(gguf_get_bool(f, "bool", &flag) && flag);
        assert_false(gguf_get_bool(f, "u8", &flag));
        assert_true(gguf_get_text(f, "text", &text));
        assert_true(text.size == 9 && memcmp(text.data, "some text", 9) == 0);
        assert_true(gguf_array_count(f, "texts", &count) && count == 3);
        assert_true(gguf_array_text(f, "texts", 1, &text) && text.size == 0);
        assert_true(gguf_array_text(f, "texts", 2, &text) && memcmp(text.data, "ccc", 3) == 0);
        assert_false(gguf_array_text(f, "texts", 3, &text));
        assert_true(gguf_array_i64(f, "i32s", 1, &s) && s == -7);
        assert_true(gguf_array_f64(f, "f32s", 4, &real) && real == 4.0);
        assert_false(gguf_array_f64(f, "f32s", 5, &real));
        assert_true(gguf_array_count(f, "nothing", &count) && count == 0);
        assert_false(gguf_array_count(f, "text", &count));
        gguf_close(f);
        make_free(&m);
    }
}

/* Goal: tensors have their shape, place and size. Method: the two of the file. */
static void test_tensors_are_found_where_they_are(void **state)
{
    (void)state;
    make_gguf m = whole_file(3);
    gguf_file *f = NULL;
    assert_int_equal(gguf_open_memory("test.gguf", m.data, m.size, &f, NULL), BASE_OK);
    assert_int_equal(gguf_tensor_count(f), 2);
    const gguf_tensor *t = gguf_find_tensor(f, "quantised");
    assert_ptr_equal(t, gguf_tensor_at(f, 1));
    assert_int_equal(t->type, 3);
    assert_int_equal(t->dimensions, 2);
    assert_int_equal(t->shape[0], 64);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->shape[2], 1);
    assert_int_equal(t->size, QUANT_BYTES);
    assert_ptr_equal(t->data, m.data + m.size - QUANT_BYTES);
    assert_int_equal(gguf_find_tensor(f, "plain")->size, TENSOR_BYTES);
    assert_int_equal((gguf_find_tensor(f, "plain")->data - m.data) % 64, 0);
    assert_null(gguf_find_tensor(f, "absent"));
    gguf_close(f);
    make_free(&m);
}

/* Goal: a value is shown short and on one line. Method: buffers of several sizes. */
static void test_values_are_shown_short(void **state)
{
    (void)state;
    make_gguf m = {0};
    make_header(&m, 3, 0, 3);
    make_key_text(&m, "lines", "one\ntwo\tthree");
    make_array(&m, "many", MAKE_I32, 6);
    for (uint32_t i = 0; i < 6; i++) {
        make_u32(&m, (uint32_t)-1 - i);
    }
    make_key(&m, "real", MAKE_F32);
    make_f32(&m, 1e-5f);
    gguf_file *f = NULL;
    gguf_text key;
    char value[64];
    assert_int_equal(gguf_open_memory("test.gguf", m.data, m.size, &f, NULL), BASE_OK);
    gguf_key_at(f, 0, &key, value, sizeof value);
    assert_string_equal(value, "one two three");
    gguf_key_at(f, 0, &key, value, 5);
    assert_string_equal(value, "one ");
    gguf_key_at(f, 0, &key, value, 1);
    assert_string_equal(value, "");
    gguf_key_at(f, 1, &key, value, sizeof value);
    assert_string_equal(value, "[6] -1 -2 -3 -4 ...");
    gguf_key_at(f, 2, &key, value, sizeof value);
    assert_memory_equal(value, "9.9999997", 9);
    gguf_close(f);
    make_free(&m);
}

/* Goal: a file cut anywhere is an error, and reading stays inside it. Method: every prefix, its end
 * at an unreadable page. */
static void test_every_truncated_copy_is_corrupt(void **state)
{
    (void)state;
    make_gguf m = whole_file(3);
    base_error err;
    for (size_t size = 0; size < m.size; size++) {
        assert_int_equal(open_bytes(m.data, size, &err), BASE_CORRUPT);
    }
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_OK);
    make_free(&m);
}

/* Goal: no damage makes reading leave the file. Method: every byte takes several values; what still
 * opens is read whole, its end at an unreadable page. */
static void test_no_changed_byte_leads_outside_the_file(void **state)
{
    (void)state;
    make_gguf m = whole_file(3);
    const uint8_t changes[] = {0x01, 0x80, 0xff, 0x08, 0x20};
    size_t opened = 0, refused = 0;
    for (size_t at = 0; at < m.size - TENSOR_BYTES - QUANT_BYTES; at++) {
        for (size_t c = 0; c < sizeof changes; c++) {
            guarded g = guarded_copy(m.data, m.size);
            gguf_file *f = NULL;
            base_error err;
            g.data[at] ^= changes[c];
            base_status status = gguf_open_memory("test.gguf", g.data, m.size, &f, &err);
            if (status) {
                assert_true(status == BASE_CORRUPT || status == BASE_VERSION ||
                            status == BASE_UNSUPPORTED);
                refused++;
            } else {
                read_everything(f);
                gguf_close(f);
                opened++;
            }
            guarded_free(&g);
        }
    }
    assert_true(opened > 0);
    assert_true(refused > 0);
    make_free(&m);
}

/* Goal: other magic, versions and byte order are told apart. */
static void test_other_formats_are_named(void **state)
{
    (void)state;
    base_error err;
    make_gguf m = whole_file(3);
    m.data[0] = 'X';
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_CORRUPT);
    assert_non_null(strstr(err.text, "magic"));
    make_free(&m);
    m = whole_file(1);
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_VERSION);
    make_free(&m);
    m = whole_file(4);
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_VERSION);
    make_free(&m);
    m = whole_file(3u << 24);
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_VERSION);
    assert_non_null(strstr(err.text, "big-endian"));
    make_free(&m);
}

static void expect_corrupt(make_gguf *m, const char *place)
{
    base_error err;
    assert_int_equal(open_bytes(m->data, m->size, &err), BASE_CORRUPT);
    if (!strstr(err.text, place)) {
        fail_msg("'%s' does not name '%s'", err.text, place);
    }
    make_free(m);
}

/* Goal: counts and lengths that the file cannot hold are refused before anything is allocated. */
static void test_absurd_counts_are_refused(void **state)
{
    (void)state;
    const uint64_t absurd[] = {1u << 21, UINT64_C(1) << 60, UINT64_MAX};
    for (size_t i = 0; i < 3; i++) {
        make_gguf m = {0};
        make_header(&m, 3, absurd[i], 0);
        make_bytes(&m, "padding padding padding padding padding", 40);
        expect_corrupt(&m, "tensors");
        make_header(&m, 3, 0, absurd[i]);
        make_bytes(&m, "padding padding padding padding padding", 40);
        expect_corrupt(&m, "keys");
        make_header(&m, 3, 0, 1);
        make_array(&m, "numbers", MAKE_U32, absurd[i]);
        expect_corrupt(&m, "numbers");
        make_header(&m, 3, 0, 1);
        make_array(&m, "texts", MAKE_TEXT, absurd[i]);
        make_text(&m, "one");
        expect_corrupt(&m, "texts");
        make_header(&m, 3, 0, 1);
        make_key(&m, "long", MAKE_TEXT);
        make_u64(&m, absurd[i]);
        expect_corrupt(&m, "long");
        make_header(&m, 3, 0, 1);
        make_u64(&m, absurd[i]);
        make_bytes(&m, "name and more", 13);
        expect_corrupt(&m, "key number 0");
    }
}

/* A file with one tensor of the given entry and `data` bytes behind it. */
static make_gguf one_tensor(uint32_t dimensions, const uint64_t *shape, uint32_t type,
                            uint64_t offset, size_t data)
{
    make_gguf m = {0};
    make_header(&m, 3, 1, 0);
    make_text(&m, "blk.0.weight");
    make_u32(&m, dimensions);
    for (uint32_t d = 0; d < dimensions; d++) {
        make_u64(&m, shape[d]);
    }
    make_u32(&m, type);
    make_u64(&m, offset);
    make_padding(&m, 32);
    for (size_t i = 0; i < data; i++) {
        make_u8(&m, 0);
    }
    return m;
}

/* Goal: tensors that do not fit the file or the format are refused by name. */
static void test_impossible_tensors_are_refused_by_name(void **state)
{
    (void)state;
    const char *name = "blk.0.weight";
    base_error err;
    make_gguf m = one_tensor(2, (uint64_t[]){32, 4}, 3, 0, 80);
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_OK);
    make_free(&m);
    m = one_tensor(2, (uint64_t[]){32, 4}, 3, 0, 79);
    expect_corrupt(&m, name);
    m = one_tensor(2, (uint64_t[]){32, 4}, 3, 32, 80);
    expect_corrupt(&m, name);
    m = one_tensor(2, (uint64_t[]){32, 4}, 3, UINT64_MAX - 31, 80);
    expect_corrupt(&m, name);
    m = one_tensor(2, (uint64_t[]){32, 4}, 3, 8, 200);
    expect_corrupt(&m, "aligned");
    m = one_tensor(2, (uint64_t[]){33, 4}, 3, 0, 200);
    expect_corrupt(&m, "blocks");
    m = one_tensor(2, (uint64_t[]){0, 4}, 0, 0, 200);
    expect_corrupt(&m, name);
    m = one_tensor(4, (uint64_t[]){32, 1u << 30, 1u << 30, 1u << 30}, 0, 0, 200);
    expect_corrupt(&m, name);
    m = one_tensor(3, (uint64_t[]){1000, 1000, UINT64_MAX}, 0, 0, 200);
    expect_corrupt(&m, name);
    m = one_tensor(0, NULL, 0, 0, 200);
    expect_corrupt(&m, "dimensions");
    m = one_tensor(5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, 200);
    expect_corrupt(&m, "dimensions");
}

/* Goal: a type number that nobody knows can be listed, with size 0. */
static void test_unknown_tensor_type_is_listed(void **state)
{
    (void)state;
    make_gguf m = one_tensor(1, (uint64_t[]){32}, 1234, 0, 10);
    gguf_file *f = NULL;
    assert_int_equal(gguf_open_memory("test.gguf", m.data, m.size, &f, NULL), BASE_OK);
    assert_int_equal(gguf_tensor_at(f, 0)->type, 1234);
    assert_int_equal(gguf_tensor_at(f, 0)->size, 0);
    gguf_close(f);
    make_free(&m);
}

/* Goal: names are unique, alignments are powers of two, arrays are flat. */
static void test_rules_of_the_format_are_enforced(void **state)
{
    (void)state;
    base_error err;
    make_gguf m = {0};
    make_header(&m, 3, 0, 2);
    make_key_u32(&m, "same", 1);
    make_key_u32(&m, "same", 2);
    expect_corrupt(&m, "same");
    for (size_t i = 0; i < 3; i++) {
        const uint32_t alignments[] = {0, 24, 1u << 30};
        make_header(&m, 3, 0, 1);
        make_key_u32(&m, "general.alignment", alignments[i]);
        expect_corrupt(&m, "general.alignment");
    }
    make_header(&m, 3, 0, 1);
    make_key(&m, "odd", 13);
    make_u64(&m, 0);
    expect_corrupt(&m, "odd");
    make_header(&m, 3, 0, 1);
    make_array(&m, "nested", MAKE_ARRAY, 1);
    make_u64(&m, 0);
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_UNSUPPORTED);
    assert_non_null(strstr(err.text, "nested"));
    make_free(&m);
    make_header(&m, 3, 2, 0);
    for (int i = 0; i < 2; i++) {
        make_text(&m, "twice");
        make_u32(&m, 1);
        make_u64(&m, 1);
        make_u32(&m, 0);
        make_u64(&m, 0);
    }
    make_padding(&m, 32);
    make_u32(&m, 0);
    expect_corrupt(&m, "twice");
}

/* Goal: every failed allocation is reported and nothing leaks (under the address sanitizer). */
static void test_every_failed_allocation_is_an_error(void **state)
{
    (void)state;
    make_gguf m = whole_file(3);
    base_status status = BASE_NO_MEMORY;
    size_t n = 0;
    while (status == BASE_NO_MEMORY) {
        gguf_file *f = NULL;
        base_mem_fail_at(++n);
        status = gguf_open_memory("test.gguf", m.data, m.size, &f, NULL);
        base_mem_fail_at(0);
        gguf_close(f);
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 5);
    make_free(&m);
}

static void test_missing_file_is_not_found(void **state)
{
    (void)state;
    base_error err;
    gguf_file *f = NULL;
    assert_int_equal(gguf_open("no/such/file.gguf", &f, &err), BASE_NOT_FOUND);
    assert_non_null(strstr(err.text, "no/such/file.gguf"));
}

/* Goal: a published file opens and has what it is known to have. */
static void test_published_model_is_read(void **state)
{
    (void)state;
    char path[4096];
    gguf_file *f = NULL;
    base_error err;
    gguf_text text;
    size_t count;
    if (!models_path(MODELS_GENERATOR, path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_int_equal(gguf_open(path, &f, &err), BASE_OK);
    assert_int_equal(gguf_tensor_count(f), 272);
    assert_int_equal(gguf_key_count(f), 33);
    assert_true(gguf_get_text(f, "general.architecture", &text));
    assert_true(text.size == 5 && memcmp(text.data, "llama", 5) == 0);
    assert_true(gguf_array_count(f, "tokenizer.ggml.tokens", &count) && count == 49152);
    read_everything(f);
    gguf_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_type_is_read),
        cmocka_unit_test(test_tensors_are_found_where_they_are),
        cmocka_unit_test(test_values_are_shown_short),
        cmocka_unit_test(test_every_truncated_copy_is_corrupt),
        cmocka_unit_test(test_no_changed_byte_leads_outside_the_file),
        cmocka_unit_test(test_other_formats_are_named),
        cmocka_unit_test(test_absurd_counts_are_refused),
        cmocka_unit_test(test_impossible_tensors_are_refused_by_name),
        cmocka_unit_test(test_unknown_tensor_type_is_listed),
        cmocka_unit_test(test_rules_of_the_format_are_enforced),
        cmocka_unit_test(test_every_failed_allocation_is_an_error),
        cmocka_unit_test(test_missing_file_is_not_found),
        cmocka_unit_test(test_published_model_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
