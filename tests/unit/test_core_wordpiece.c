/* WordPiece: rules on a made vocabulary, ids of the published one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/tokenizer.h"
#include "make_gguf.h"
#include "models.h"

static const char *const made[] = {
    "[PAD]", "[UNK]", "[CLS]", "[SEP]",        "un", "##aff", "##able",   "una", "a", "b", ",",
    "!",     "cafe",  "##s",   "\xe4\xb8\xad", "i",  "ss",    "\xce\xb1", "##b", "[", "]", "sep"};

/* A vocabulary file in a temporary folder; the caller unlinks it. */
static void write_lines(char *path, const char *const *lines, size_t count, const char *line_end)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < count; i++) {
        assert_true(fprintf(file, "%s%s", lines[i], line_end) > 0);
    }
    assert_int_equal(fclose(file), 0);
}

static wordpiece *open_made(void)
{
    char path[] = "/tmp/eidetic-wordpiece-XXXXXX";
    wordpiece *w = NULL;
    write_lines(path, made, sizeof made / sizeof made[0], "\n");
    assert_int_equal(tokenizer_wordpiece_open(path, &w, NULL), BASE_OK);
    unlink(path);
    return w;
}

static int32_t made_id(const char *piece)
{
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        if (strcmp(made[i], piece) == 0) {
            return (int32_t)i;
        }
    }
    fail_msg("no piece '%s'", piece);
    return -1;
}

/* Pieces of text, shown with spaces between. */
static void expect_pieces(const wordpiece *w, const char *text, size_t size, const char *wanted)
{
    int32_t ids[64];
    char shown[1024] = "";
    guarded g = guarded_copy(text, size);
    size_t count = tokenizer_wordpiece_encode(w, (const char *)g.data, size, ids, 64), at = 0;
    guarded_free(&g);
    assert_true(count >= 2);
    assert_int_equal(ids[0], made_id("[CLS]"));
    assert_int_equal(ids[count - 1], made_id("[SEP]"));
    for (size_t i = 1; i + 1 < count; i++) {
        at +=
            (size_t)snprintf(shown + at, sizeof shown - at, "%s%s", i > 1 ? " " : "", made[ids[i]]);
    }
    if (strcmp(shown, wanted) != 0) {
        fail_msg("'%s' gives '%s', not '%s'", text, shown, wanted);
    }
}

/* Goal: words are cut greedily, and normalised before. Method: cases that follow from the rules. */
static void test_words_are_cut_greedily(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"   \n\t ", ""},
        {"unaff", "[UNK]"}, /* "una" is taken first, and "##ff" is missing */
        {"Un", "un"},
        {"unable", "[UNK]"}, /* the same: no second try with "un" */
        {"a,b!", "a , b !"},
        {"a b", "a b"},
        {"a\xc2\xa0"
         "b\xe3\x80\x80"
         "a",
         "a b a"}, /* no-break and ideographic space */
        {"CAF\xc3\x89s", "cafe ##s"},
        {"cafe\xcc\x81s", "cafe ##s"}, /* combining accent */
        {"a\xe4\xb8\xad"
         "b",
         "a \xe4\xb8\xad b"},
        {"\xe4\xb8\xad\xe4\xb8\xad", "\xe4\xb8\xad \xe4\xb8\xad"},
        {"a\xc2\xad"
         "b",
         "a ##b"}, /* soft hyphen */
        {"a\xef\xbf\xbd"
         "b\x01",
         "a ##b"},                /* replacement, control */
        {"a\xff\xc3", "a"},       /* broken */
        {"\xc4\xb0", "i"},        /* dotted capital I */
        {"\xce\x86", "\xce\xb1"}, /* Greek capital alpha with tonos */
        {"zzz", "[UNK]"},
        {"a\xe2\x80\x94"
         "b",
         "a [UNK] b"}, /* em dash: punctuation that the vocabulary lacks */
        {"[SEP]", "[ sep ]"},
        {"[CLS]", "[ [UNK] ]"},
    };
    wordpiece *w = open_made();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_pieces(w, cases[i][0], strlen(cases[i][0]), cases[i][1]);
    }
    expect_pieces(w, "a\0b", 3, "a ##b"); /* NUL is a control character */
    tokenizer_wordpiece_close(w);
}

/* Goal: a word of more than 100 characters is unknown, one of 100 is not. */
static void test_very_long_words_are_unknown(void **state)
{
    (void)state;
    wordpiece *w = open_made();
    char text[102];
    int32_t ids[200];
    memset(text, 'b', sizeof text);
    assert_int_equal(tokenizer_wordpiece_encode(w, text, 100, ids, 200), 102);
    assert_int_equal(ids[1], made_id("b"));
    assert_int_equal(ids[100], made_id("##b"));
    assert_int_equal(tokenizer_wordpiece_encode(w, text, 101, ids, 200), 3);
    assert_int_equal(ids[1], made_id("[UNK]"));
    tokenizer_wordpiece_close(w);
}

/* Goal: the list is cut to its room and still ends with [SEP]. Method: every room, against a
 * guard. */
static void test_ids_are_cut_before_the_end_mark(void **state)
{
    (void)state;
    wordpiece *w = open_made();
    const char *text = "a b, cafes un! bbbb";
    int32_t all[64];
    size_t whole = tokenizer_wordpiece_encode(w, text, strlen(text), all, 64);
    assert_int_equal(whole, 13);
    for (size_t room = 2; room <= whole + 1; room++) {
        int32_t empty[16] = {0};
        guarded g = guarded_copy(empty, room * sizeof(int32_t));
        int32_t *ids = (int32_t *)(void *)g.data;
        size_t count = tokenizer_wordpiece_encode(w, text, strlen(text), ids, room);
        assert_int_equal(count, room < whole ? room : whole);
        assert_memory_equal(ids, all, (count - 1) * sizeof *ids);
        assert_int_equal(ids[count - 1], made_id("[SEP]"));
        guarded_free(&g);
    }
    tokenizer_wordpiece_close(w);
}

/* Goal: no text leads outside its bounds. Method: random bytes and random code points. */
static void test_random_bytes_are_harmless(void **state)
{
    (void)state;
    wordpiece *w = open_made();
    base_rng rng;
    base_rng_seed(&rng, 21);
    for (int n = 0; n < 3000; n++) {
        char text[64];
        int32_t ids[16];
        size_t size = base_rng_below(&rng, sizeof text);
        for (size_t i = 0; i < size; i++) {
            text[i] = (char)base_rng_below(&rng, 256);
        }
        guarded g = guarded_copy(text, size);
        size_t count = tokenizer_wordpiece_encode(w, (const char *)g.data, size, ids, 16);
        assert_in_range(count, 2, 16);
        for (size_t i = 0; i < count; i++) {
            assert_in_range(ids[i], 0, sizeof made / sizeof made[0] - 1);
        }
        guarded_free(&g);
    }
    tokenizer_wordpiece_close(w);
}

/* Goal: files that are no vocabulary are refused by name; line ends may be those of Windows. */
static void test_vocabulary_files_are_checked(void **state)
{
    (void)state;
    base_error err;
    wordpiece *w = NULL;
    char path[] = "/tmp/eidetic-wordpiece-XXXXXX", crlf[] = "/tmp/eidetic-wordpiece-XXXXXX",
         none[] = "/tmp/eidetic-wordpiece-XXXXXX";
    write_lines(path, made, 3, "\n"); /* no [SEP] */
    assert_int_equal(tokenizer_wordpiece_open(path, &w, &err), BASE_CORRUPT);
    assert_non_null(strstr(err.text, "[SEP]"));
    assert_non_null(strstr(err.text, path));
    unlink(path);
    write_lines(none, made, 0, "\n");
    assert_int_equal(tokenizer_wordpiece_open(none, &w, &err), BASE_CORRUPT);
    unlink(none);
    write_lines(crlf, made, sizeof made / sizeof made[0], "\r\n");
    assert_int_equal(tokenizer_wordpiece_open(crlf, &w, &err), BASE_OK);
    assert_int_equal(tokenizer_wordpiece_vocabulary(w), sizeof made / sizeof made[0]);
    expect_pieces(w, "cafes", 5, "cafe ##s");
    tokenizer_wordpiece_close(w);
    for (size_t n = 1; n <= 3; n++) {
        base_mem_fail_at(n);
        assert_int_equal(tokenizer_wordpiece_open(crlf, &w, &err), BASE_NO_MEMORY);
        base_mem_fail_at(0);
    }
    unlink(crlf);
    assert_int_equal(tokenizer_wordpiece_open("no/such/vocab.txt", &w, &err), BASE_NOT_FOUND);
}

/* Goal: the published ids. Method: what the published fast tokenizer (tokenizers 0.23.3) gives. */
static void test_published_vocabulary_gives_published_ids(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t ids[48]; /* ends with -1 */
    } cases[] = {
#include "wordpiece_cases.h"
    };
    char path[4096];
    wordpiece *w = NULL;
    int32_t ids[64];
    if (!models_path(MODELS_ENCODER "/vocab.txt", path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_int_equal(tokenizer_wordpiece_open(path, &w, NULL), BASE_OK);
    assert_int_equal(tokenizer_wordpiece_vocabulary(w), 30522);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t count = tokenizer_wordpiece_encode(w, cases[i].text, strlen(cases[i].text), ids, 64);
        for (size_t k = 0; k < count; k++) {
            if (ids[k] != cases[i].ids[k]) {
                fail_msg("id %zu of '%s' is %d, not %d", k, cases[i].text, (int)ids[k],
                         (int)cases[i].ids[k]);
            }
        }
        assert_int_equal(cases[i].ids[count], -1);
    }
    tokenizer_wordpiece_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_are_cut_greedily),
        cmocka_unit_test(test_very_long_words_are_unknown),
        cmocka_unit_test(test_ids_are_cut_before_the_end_mark),
        cmocka_unit_test(test_random_bytes_are_harmless),
        cmocka_unit_test(test_vocabulary_files_are_checked),
        cmocka_unit_test(test_published_vocabulary_gives_published_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
