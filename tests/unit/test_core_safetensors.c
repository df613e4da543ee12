/* Safetensors files: read whole, and every kind of damage is an error that names its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/safetensors.h"
#include "make_gguf.h"
#include "models.h"

static const char good_header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"
    "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]},"
    "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[40,40]}}";

enum { DATA_BYTES = 40 };

static make_gguf write_file(const char *header, size_t data_bytes)
{
    make_gguf m = {0};
    make_text(&m, header); /* the size of a header is written as that of a text */
    for (size_t i = 0; i < data_bytes; i++) {
        make_u8(&m, (uint8_t)i);
    }
    return m;
}

static base_status open_bytes(const void *data, size_t size, base_error *err)
{
    safetensors_file *file = NULL;
    guarded g = guarded_copy(data, size);
    base_status status = safetensors_open_memory("made.safetensors", g.data, size, &file, err);
    if (status) {
        assert_null(file);
        assert_int_equal(err->code, status);
        assert_non_null(strstr(err->text, "made.safetensors"));
    } else {
        unsigned sum = 0;
        for (size_t i = 0; i < safetensors_count(file); i++) {
            const safetensors_tensor *t = safetensors_at(file, i);
            for (size_t k = 0; k < t->size; k++) {
                sum += t->data[k];
            }
        }
        assert_true(sum < UINT32_MAX);
        safetensors_close(file);
    }
    guarded_free(&g);
    return status;
}

/* Goal: tensors have their name, type, shape and bytes. */
static void test_tensors_are_read(void **state)
{
    (void)state;
    make_gguf m = write_file(good_header, DATA_BYTES);
    safetensors_file *f = NULL;
    const uint8_t *data = m.data + m.size - DATA_BYTES;
    assert_int_equal(safetensors_open_memory("made.safetensors", m.data, m.size, &f, NULL),
                     BASE_OK);
    assert_string_equal(safetensors_path(f), "made.safetensors");
    assert_int_equal(safetensors_count(f), 4);
    const safetensors_tensor *t = safetensors_find(f, "a.weight");
    assert_ptr_equal(t, safetensors_at(f, 0));
    assert_string_equal(t->type, "F32");
    assert_int_equal(t->dimensions, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->shape[2], 1);
    assert_int_equal(t->size, 24);
    assert_ptr_equal(t->data, data);
    t = safetensors_find(f, "b");
    assert_string_equal(t->type, "BF16");
    assert_ptr_equal(t->data, data + 24);
    assert_int_equal(safetensors_find(f, "scalar")->dimensions, 0);
    assert_int_equal(safetensors_find(f, "scalar")->size, 8);
    assert_int_equal(safetensors_find(f, "empty")->size, 0);
    assert_null(safetensors_find(f, "__metadata__"));
    assert_null(safetensors_find(f, "absent"));
    safetensors_close(f);
    make_free(&m);
}

/* Goal: a file cut anywhere is an error, and reading stays inside it. */
static void test_every_truncated_copy_is_corrupt(void **state)
{
    (void)state;
    make_gguf m = write_file(good_header, DATA_BYTES);
    base_error err;
    for (size_t size = 0; size < m.size; size++) {
        assert_int_equal(open_bytes(m.data, size, &err), BASE_CORRUPT);
    }
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_OK);
    make_free(&m);
}

/* Goal: no damage makes reading leave the file. Method: every byte of the header takes several
 * values; what still opens is read whole. */
static void test_no_changed_byte_leads_outside_the_file(void **state)
{
    (void)state;
    make_gguf m = write_file(good_header, DATA_BYTES);
    const uint8_t changes[] = {0x01, 0x02, 0x08, 0x10, 0x80, 0xff};
    size_t opened = 0, refused = 0;
    for (size_t at = 0; at < m.size - DATA_BYTES; at++) {
        for (size_t c = 0; c < sizeof changes; c++) {
            base_error err;
            m.data[at] ^= changes[c];
            base_status status = open_bytes(m.data, m.size, &err);
            m.data[at] ^= changes[c];
            assert_true(status == BASE_OK || status == BASE_CORRUPT || status == BASE_UNSUPPORTED);
            opened += status == BASE_OK;
            refused += status != BASE_OK;
        }
    }
    assert_true(opened > 0);
    assert_true(refused > 0);
    make_free(&m);
}

/* Goal: each broken rule of the format is refused, the tensor named. */
static void test_broken_headers_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *header, *words;
        base_status status;
    } cases[] = {
        {"[]", "object", BASE_CORRUPT},
        {"{", "header at byte", BASE_CORRUPT},
        {"{\"w\":5}", "'w'", BASE_CORRUPT},
        {"{\"w\":{}}", "'w'", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", "data_offsets", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "shape", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"Q77\",\"shape\":[1],\"data_offsets\":[0,4]}}", "Q77",
         BASE_UNSUPPORTED},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "shape", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "shape",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", "shape",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
         "shape", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
         "shape", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}",
         "shape", BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "outside",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", "outside",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", "data_offsets",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", "data_offsets",
         BASE_CORRUPT},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "duplicate", BASE_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_gguf m = write_file(cases[i].header, 8);
        base_error err;
        assert_int_equal(open_bytes(m.data, m.size, &err), cases[i].status);
        if (!strstr(err.text, cases[i].words)) {
            fail_msg("'%s' does not say '%s'", err.text, cases[i].words);
        }
        make_free(&m);
    }
    make_gguf m = write_file(good_header, DATA_BYTES);
    base_error err;
    m.data[6] = 0x10; /* a header of 2^52 bytes */
    assert_int_equal(open_bytes(m.data, m.size, &err), BASE_CORRUPT);
    make_free(&m);
}

/* Goal: failed allocations are reported; nothing leaks. */
static void test_every_failed_allocation_is_an_error(void **state)
{
    (void)state;
    make_gguf m = write_file(good_header, DATA_BYTES);
    base_status status = BASE_NO_MEMORY;
    size_t n = 0;
    while (status == BASE_NO_MEMORY) {
        safetensors_file *f = NULL;
        base_mem_fail_at(++n);
        status = safetensors_open_memory("made.safetensors", m.data, m.size, &f, NULL);
        base_mem_fail_at(0);
        safetensors_close(f);
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 3);
    make_free(&m);
}

static void test_missing_file_is_not_found(void **state)
{
    (void)state;
    base_error err;
    safetensors_file *f = NULL;
    assert_int_equal(safetensors_open("no/such/model.safetensors", &f, &err), BASE_NOT_FOUND);
    assert_non_null(strstr(err.text, "no/such/model.safetensors"));
}

static void test_published_encoder_is_read(void **state)
{
    (void)state;
    char path[4096];
    safetensors_file *f = NULL;
    if (!models_path(MODELS_ENCODER "/model.safetensors", path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_int_equal(safetensors_open(path, &f, NULL), BASE_OK);
    const safetensors_tensor *t = safetensors_find(f, "embeddings.word_embeddings.weight");
    assert_non_null(t);
    assert_int_equal(t->shape[0], 30522);
    assert_int_equal(t->shape[1], 384);
    assert_int_equal(t->size, 30522 * 384 * 4);
    safetensors_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_are_read),
        cmocka_unit_test(test_every_truncated_copy_is_corrupt),
        cmocka_unit_test(test_no_changed_byte_leads_outside_the_file),
        cmocka_unit_test(test_broken_headers_are_refused_by_name),
        cmocka_unit_test(test_every_failed_allocation_is_an_error),
        cmocka_unit_test(test_missing_file_is_not_found),
        cmocka_unit_test(test_published_encoder_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
