/* CRC-32C and SHA-256 against published values, and against themselves cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/hash_crc.h"

/* Goal: the published check values. Method: RFC 3720 B.4 and the Castagnoli check string. */
static void test_crc32c_gives_the_published_values(void **state)
{
    (void)state;
    uint8_t block[32];
    assert_int_equal(base_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(base_crc32c(0, "", 0), 0);
    memset(block, 0, sizeof block);
    assert_int_equal(base_crc32c(0, block, 32), 0x8A9136AAu);
    memset(block, 0xFF, sizeof block);
    assert_int_equal(base_crc32c(0, block, 32), 0x62A8AB43u);
    for (int i = 0; i < 32; i++) {
        block[i] = (uint8_t)i;
    }
    assert_int_equal(base_crc32c(0, block, 32), 0x46DD794Eu);
}

/* Goal: continuing equals doing at once. Method: every cut of 100 bytes. */
static void test_crc32c_continues_at_every_cut(void **state)
{
    (void)state;
    uint8_t data[100];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 37 + 11);
    }
    uint32_t whole = base_crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        uint32_t crc = base_crc32c(0, data, cut);
        assert_int_equal(base_crc32c(crc, data + cut, sizeof data - cut), whole);
    }
}

/* Goal: every form gives the same. Method: sizes to 300 at all alignments, against the tables. */
static void test_crc32c_is_the_same_in_every_form(void **state)
{
    (void)state;
    uint8_t data[320];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * i + 7 * i + 3);
    }
    for (size_t from = 0; from < 16; from++) {
        for (size_t size = 0; size <= 300; size++) {
            assert_int_equal(base_crc32c(0x12345678u, data + from, size),
                             base_crc32c_tables(0x12345678u, data + from, size));
        }
    }
}

static void assert_sha256(const void *data, size_t size, const char *expected)
{
    uint8_t digest[32];
    char hex[65];
    base_sha256_of(data, size, digest);
    base_hex(digest, sizeof digest, hex);
    assert_string_equal(hex, expected);
}

/* Goal: the examples of FIPS 180-4 / NIST CAVP. Method: compare hexadecimal digests. */
static void test_sha256_gives_the_published_values(void **state)
{
    (void)state;
    assert_sha256("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_sha256("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    size_t size = 1000000;
    char *many = malloc(size);
    assert_non_null(many);
    memset(many, 'a', size);
    assert_sha256(many, size, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(many);
}

/* Goal: adding in parts equals adding at once. Method: every cut of 200 bytes into two parts. */
static void test_sha256_continues_at_every_cut(void **state)
{
    (void)state;
    uint8_t data[200], whole[32], parts[32];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    base_sha256_of(data, sizeof data, whole);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        base_sha256 hash;
        base_sha256_begin(&hash);
        base_sha256_add(&hash, data, cut);
        base_sha256_add(&hash, data + cut, sizeof data - cut);
        base_sha256_end(&hash, parts);
        assert_memory_equal(parts, whole, sizeof whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_gives_the_published_values),
        cmocka_unit_test(test_crc32c_continues_at_every_cut),
        cmocka_unit_test(test_crc32c_is_the_same_in_every_form),
        cmocka_unit_test(test_sha256_gives_the_published_values),
        cmocka_unit_test(test_sha256_continues_at_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
