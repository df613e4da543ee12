/* Byte-level BPE: against a naive merger on a made vocabulary, and against llama.cpp's ids on the
 * published one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/thread.h"
#include "engine/tokenizer.h"
#include "make_gguf.h"
#include "models.h"

enum { MERGES = 60, TOKENS_MAX = 400, TEXT_MAX = 64 };

/* A vocabulary in the making: 256 bytes in the GPT-2 alphabet, merges over a, b, c, special
 * tokens. */
typedef struct vocabulary {
    char tokens[TOKENS_MAX][TEXT_MAX];
    int32_t types[TOKENS_MAX];
    size_t count;
    char left[MERGES][TEXT_MAX], right[MERGES][TEXT_MAX];
    size_t merges;
} vocabulary;

static int32_t find_token(const vocabulary *v, const char *text)
{
    for (size_t i = 0; i < v->count; i++) {
        if (strcmp(v->tokens[i], text) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

static void add_token(vocabulary *v, const char *text, int32_t type)
{
    assert_true(v->count < TOKENS_MAX);
    snprintf(v->tokens[v->count], TEXT_MAX, "%s", text);
    v->types[v->count++] = type;
}

/* Byte as a character of the alphabet (Radford et al. 2019, the published encoder). */
static void add_bytes(vocabulary *v)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
        char text[5] = {0};
        base_utf8_encode(printable ? byte : next++, text);
        add_token(v, text, 1);
    }
}

/* Random merges of what is there; a few of their results are left out of the vocabulary. */
static vocabulary make_vocabulary(uint64_t seed)
{
    vocabulary v = {.count = 0};
    base_rng rng;
    base_rng_seed(&rng, seed);
    add_bytes(&v);
    char parts[MERGES + 3][TEXT_MAX] = {"a", "b", "c"};
    size_t part_count = 3;
    while (v.merges < MERGES) {
        const char *left = parts[base_rng_below(&rng, part_count)];
        const char *right = parts[base_rng_below(&rng, part_count)];
        char both[2 * TEXT_MAX];
        snprintf(both, sizeof both, "%s%s", left, right);
        if (strlen(both) > 12) {
            continue;
        }
        snprintf(v.left[v.merges], TEXT_MAX, "%s", left);
        snprintf(v.right[v.merges++], TEXT_MAX, "%s", right);
        snprintf(parts[part_count++], TEXT_MAX, "%.20s", both);
        if (find_token(&v, both) < 0 && base_rng_below(&rng, 8) != 0) {
            add_token(&v, both, 1);
        }
    }
    add_token(&v, "<|im_start|>", 3);
    add_token(&v, "<|im_end|>", 3);
    add_token(&v, "<|tool|>", 4);
    add_token(&v, "@user@", 4);
    add_token(&v, "@user", 4);
    return v;
}

static make_gguf write_vocabulary(const vocabulary *v, const char *model, const char *pre)
{
    make_gguf m = {0};
    make_header(&m, 3, 0, 7);
    make_key_text(&m, "tokenizer.ggml.model", model);
    make_key_text(&m, "tokenizer.ggml.pre", pre);
    make_array(&m, "tokenizer.ggml.tokens", MAKE_TEXT, v->count);
    for (size_t i = 0; i < v->count; i++) {
        make_text(&m, v->tokens[i]);
    }
    make_array(&m, "tokenizer.ggml.token_type", MAKE_I32, v->count);
    for (size_t i = 0; i < v->count; i++) {
        make_u32(&m, (uint32_t)v->types[i]);
    }
    make_array(&m, "tokenizer.ggml.merges", MAKE_TEXT, v->merges);
    for (size_t i = 0; i < v->merges; i++) {
        char text[2 * TEXT_MAX + 2];
        snprintf(text, sizeof text, "%s %s", v->left[i], v->right[i]);
        make_text(&m, text);
    }
    make_key_u32(&m, "tokenizer.ggml.bos_token_id", (uint32_t)find_token(v, "<|im_start|>"));
    make_key_u32(&m, "tokenizer.ggml.eos_token_id", (uint32_t)find_token(v, "<|im_end|>"));
    return m;
}

static tokenizer *open_vocabulary(const vocabulary *v, const char *pre)
{
    make_gguf m = write_vocabulary(v, "gpt2", pre);
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    base_error err = {0};
    assert_int_equal(gguf_open_memory("made.gguf", m.data, m.size, &f, &err), BASE_OK);
    if (tokenizer_open(f, &t, &err)) {
        fail_msg("%s", err.text);
    }
    gguf_close(f); /* the tokenizer keeps nothing of it */
    make_free(&m);
    return t;
}

/* One word the plain way: look for the lowest rank, merge its leftmost place, again. */
static size_t merge_naively(const vocabulary *v, const char *word, int32_t *ids)
{
    static char parts[4096][TEXT_MAX];
    size_t count = strlen(word), written = 0;
    assert_true(count <= 4096);
    for (size_t i = 0; i < count; i++) {
        snprintf(parts[i], TEXT_MAX, "%c", word[i]);
    }
    for (;;) {
        size_t best = v->merges, at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            for (size_t m = 0; m < best; m++) {
                if (strcmp(parts[i], v->left[m]) == 0 && strcmp(parts[i + 1], v->right[m]) == 0) {
                    best = m;
                    at = i;
                }
            }
        }
        if (best == v->merges) {
            break;
        }
        char both[2 * TEXT_MAX];
        snprintf(both, sizeof both, "%s%s", parts[at], parts[at + 1]);
        memcpy(parts[at], both, TEXT_MAX);
        memmove(parts[at + 1], parts[at + 2], (count - at - 2) * TEXT_MAX);
        count--;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t id = find_token(v, parts[i]);
        for (const char *c = parts[i]; id < 0 && *c; c++) {
            ids[written++] = find_token(v, (char[]){*c, '\0'});
        }
        if (id >= 0) {
            ids[written++] = id;
        }
    }
    return written;
}

static void expect_ids(const tokenizer *t, const char *text, size_t size, const int32_t *wanted,
                       size_t wanted_count)
{
    int32_t *ids = NULL;
    size_t count = 0;
    base_error err = {0};
    assert_int_equal(tokenizer_encode(t, text, size, &ids, &count, &err), BASE_OK);
    for (size_t i = 0; i < count && i < wanted_count; i++) {
        if (ids[i] != wanted[i]) {
            fail_msg("id %zu of '%.60s' is %d, not %d", i, text, (int)ids[i], (int)wanted[i]);
        }
    }
    assert_int_equal(count, wanted_count);
    base_free(ids);
}

/* Goal: merging is exact, in the short and the long way. Method: random words of a, b, c up to 3000
 * letters against the naive merger, in which ties, overlaps and results that are no token occur. */
static void test_merging_equals_the_naive_algorithm(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 3, 5, 8, 13, 30, 39, 40, 41, 42, 80, 400};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        vocabulary v = make_vocabulary(seed);
        tokenizer *t = open_vocabulary(&v, "gpt-2");
        base_rng rng;
        base_rng_seed(&rng, 100 + seed);
        static char word[3001];
        static int32_t wanted[3001];
        for (size_t n = 0; n < 200; n++) {
            size_t size = n == 0 ? 3000 : sizes[n % (sizeof sizes / sizeof sizes[0])];
            uint64_t letters = 1 + base_rng_below(&rng, 3);
            for (size_t i = 0; i < size; i++) {
                word[i] = (char)('a' + (int)base_rng_below(&rng, letters));
            }
            word[size] = '\0';
            expect_ids(t, word, size, wanted, merge_naively(&v, word, wanted));
        }
        tokenizer_close(t);
    }
}

/* Random characters of several lengths, often white space and digits. */
static size_t random_text(base_rng *rng, char *text, size_t size_max)
{
    static const uint32_t from[] = {0x20, 0x61, 0x30, 0x09, 0xa0, 0x3b1, 0x4e00, 0x1f600, 0x300};
    size_t size = 0;
    while (size + 4 <= size_max) {
        uint32_t base = from[base_rng_below(rng, 9)];
        size += base_utf8_encode(base + (uint32_t)base_rng_below(rng, 16), text + size);
    }
    return size;
}

/* Goal: decoding gives back what was encoded. Method: random valid UTF-8 in every family. */
static void test_decoding_inverts_encoding(void **state)
{
    (void)state;
    const char *families[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    vocabulary v = make_vocabulary(3);
    base_rng rng;
    base_rng_seed(&rng, 5);
    for (size_t k = 0; k < 4; k++) {
        tokenizer *t = open_vocabulary(&v, families[k]);
        for (int n = 0; n < 200; n++) {
            char text[300];
            size_t size = random_text(&rng, text, base_rng_below(&rng, sizeof text)), count = 0;
            int32_t *ids = NULL;
            base_buffer out = {0};
            assert_int_equal(tokenizer_encode(t, text, size, &ids, &count, NULL), BASE_OK);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(tokenizer_decode(t, ids[i], false, &out), BASE_OK);
            }
            assert_int_equal(out.size, size);
            if (size > 0) {
                assert_memory_equal(out.data, text, size);
            }
            base_buffer_free(&out);
            base_free(ids);
        }
        tokenizer_close(t);
    }
}

/* Goal: text never becomes a special token. Method: texts that spell them, alone and among
 * others. */
static void test_special_tokens_are_never_read_from_text(void **state)
{
    (void)state;
    const char *families[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    const char *texts[] = {"<|im_start|>",          "<|im_end|>", "a<|im_end|>b",
                           "<|im_start|>user\nabc", "<|tool|>",   "<|im_start|><|im_start|>"};
    vocabulary v = make_vocabulary(4);
    for (size_t k = 0; k < 4; k++) {
        tokenizer *t = open_vocabulary(&v, families[k]);
        int32_t start = tokenizer_special(t, "<|im_start|>"),
                end = tokenizer_special(t, "<|im_end|>");
        int32_t tool = tokenizer_special(t, "<|tool|>");
        assert_int_equal(start, find_token(&v, "<|im_start|>"));
        assert_int_equal(end, find_token(&v, "<|im_end|>"));
        assert_int_equal(tool, find_token(&v, "<|tool|>"));
        assert_int_equal(tokenizer_special(t, "a"), -1);
        assert_int_equal(tokenizer_special(t, "<|none|>"), -1);
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            int32_t *ids = NULL;
            size_t count = 0;
            assert_int_equal(tokenizer_encode(t, texts[i], strlen(texts[i]), &ids, &count, NULL),
                             BASE_OK);
            assert_true(count > 1);
            for (size_t n = 0; n < count; n++) {
                assert_true(ids[n] != start && ids[n] != end && ids[n] != tool);
            }
            base_free(ids);
        }
        tokenizer_close(t);
    }
}

/* Goal: user-defined tokens are cut out, the longest first, as llama.cpp does. */
static void test_user_defined_tokens_are_cut_out(void **state)
{
    (void)state;
    vocabulary v = make_vocabulary(4);
    tokenizer *t = open_vocabulary(&v, "gpt-2");
    int32_t longer = find_token(&v, "@user@"), shorter = find_token(&v, "@user");
    int32_t at = find_token(&v, "@"), z = find_token(&v, "z");
    expect_ids(t, "z@user@z", 8, (int32_t[]){z, longer, z}, 3);
    expect_ids(t, "@user@user@", 11,
               (int32_t[]){longer, find_token(&v, "u"), find_token(&v, "s"), find_token(&v, "e"),
                           find_token(&v, "r"), at},
               6);
    expect_ids(t, "@user@@user", 11, (int32_t[]){longer, shorter}, 2);
    tokenizer_close(t);
}

/* Goal: broken UTF-8 is read as llama.cpp reads it. Method: pairs of broken and equal whole text;
 * the pairs were confirmed with llama.cpp on a million bytes of random damage. */
static void test_broken_utf8_becomes_replacement_characters(void **state)
{
    (void)state;
    static const struct {
        const char *broken, *whole;
    } pairs[] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},
        {"\xe4\xbd"
         "a",
         "\xef\xbf\xbd\xef\xbf\xbd"
         "a"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc1\xa1", "a"}, /* overlong */
        {"\xe0\x81\xa1", "a"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd"},
        {"\xfe", "\xef\xbf\xbd"},
    };
    vocabulary v = make_vocabulary(4);
    tokenizer *t = open_vocabulary(&v, "smollm");
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        assert_int_equal(
            tokenizer_encode(t, pairs[i].whole, strlen(pairs[i].whole), &ids, &count, NULL),
            BASE_OK);
        guarded g = guarded_copy(pairs[i].broken, strlen(pairs[i].broken));
        expect_ids(t, (const char *)g.data, strlen(pairs[i].broken), ids, count);
        guarded_free(&g);
        base_free(ids);
    }
    /* A surrogate keeps its three bytes. */
    int32_t ids[3];
    const char *bytes[3] = {"\xc3\xad", "\xc5\x82", "\xc4\xa2"}; /* ed a0 80 in the alphabet */
    for (size_t i = 0; i < 3; i++) {
        ids[i] = find_token(&v, bytes[i]);
        assert_true(ids[i] >= 0);
    }
    expect_ids(t, "\xed\xa0\x80", 3, ids, 3);
    tokenizer_close(t);
}

/* Goal: the families cut words where their patterns say. Method: a vocabulary whose only merges
 * join pairs, so that a cut between the two shows. */
static void test_families_differ_where_their_patterns_do(void **state)
{
    (void)state;
    static const struct {
        const char *family, *text;
        size_t tokens; /* one more for each cut inside a pair */
    } cases[] = {
        {"gpt-2", "12", 1},     {"smollm", "12", 2},    {"llama-bpe", "12", 1},
        {"qwen2", "12", 2},     {"gpt-2", "(a", 2},     {"smollm", "(a", 2},
        {"llama-bpe", "(a", 1}, {"qwen2", "(a", 1},     {"gpt-2", "'S", 2},
        {"smollm", "'S", 2},    {"llama-bpe", "'S", 1}, {"qwen2", "'S", 1},
        {"gpt-2", " 1", 1},     {"smollm", " 1", 2},    {"llama-bpe", " 1", 2},
        {"qwen2", " 1", 2},     {"gpt-2", "1234", 2},   {"llama-bpe", "1234", 3},
        {"gpt-2", "  1", 2},    {"smollm", "  1", 2},
    };
    vocabulary v = {.count = 0};
    add_bytes(&v);
    const char *pairs[][2] = {{"1", "2"},        {"(", "a"}, {"'", "S"},
                              {"\xc4\xa0", "1"}, {"3", "4"}, {"\xc4\xa0", "\xc4\xa0"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char both[8];
        snprintf(both, sizeof both, "%s%s", pairs[i][0], pairs[i][1]);
        add_token(&v, both, 1);
        snprintf(v.left[i], TEXT_MAX, "%s", pairs[i][0]);
        snprintf(v.right[i], TEXT_MAX, "%s", pairs[i][1]);
        v.merges++;
    }
    add_token(&v, "<|im_start|>", 3);
    add_token(&v, "<|im_end|>", 3);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tokenizer *t = open_vocabulary(&v, cases[i].family);
        int32_t *ids = NULL;
        size_t count = 0;
        assert_int_equal(
            tokenizer_encode(t, cases[i].text, strlen(cases[i].text), &ids, &count, NULL), BASE_OK);
        if (count != cases[i].tokens) {
            fail_msg("%s cuts '%s' into %zu tokens, not %zu", cases[i].family, cases[i].text, count,
                     cases[i].tokens);
        }
        base_free(ids);
        tokenizer_close(t);
    }
}

static void expect_refused(const make_gguf *m, base_status wanted, const char *words)
{
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    base_error err = {0};
    assert_int_equal(gguf_open_memory("made.gguf", m->data, m->size, &f, &err), BASE_OK);
    assert_int_equal(tokenizer_open(f, &t, &err), wanted);
    assert_null(t);
    if (!strstr(err.text, words) || !strstr(err.text, "made.gguf")) {
        fail_msg("'%s' does not name '%s'", err.text, words);
    }
    gguf_close(f);
}

/* Goal: what cannot be run is refused by name, what is damaged too. */
static void test_unsupported_and_damaged_vocabularies_are_refused(void **state)
{
    (void)state;
    vocabulary v = make_vocabulary(4);
    make_gguf m = write_vocabulary(&v, "llama", "gpt-2");
    expect_refused(&m, BASE_UNSUPPORTED, "'llama'");
    make_free(&m);
    m = write_vocabulary(&v, "gpt2", "tekken");
    expect_refused(&m, BASE_UNSUPPORTED, "'tekken'");
    make_free(&m);
    vocabulary w = v;
    w.right[7][0] = '\0';
    m = write_vocabulary(&w, "gpt2", "gpt-2");
    expect_refused(&m, BASE_CORRUPT, "merge 7");
    make_free(&m);
    m = (make_gguf){0};
    make_header(&m, 3, 0, 0);
    expect_refused(&m, BASE_CORRUPT, "tokenizer.ggml.model");
    make_free(&m);
    const char *tokens[] = {"a", "b"};
    for (uint32_t types = 1; types <= 2; types++) {
        make_header(&m, 3, 0, 6);
        make_key_text(&m, "tokenizer.ggml.model", "gpt2");
        make_key_text(&m, "tokenizer.ggml.pre", "gpt-2");
        make_key_texts(&m, "tokenizer.ggml.tokens", tokens, 2);
        make_key_texts(&m, "tokenizer.ggml.merges", tokens, 0);
        make_array(&m, "tokenizer.ggml.token_type", MAKE_I32, types);
        for (uint32_t i = 0; i < types; i++) {
            make_u32(&m, 1);
        }
        make_key_u32(&m, "tokenizer.ggml.eos_token_id", types);
        expect_refused(&m, BASE_CORRUPT, types == 1 ? "token_type" : "eos_token_id");
        make_free(&m);
    }
}

/* Goal: every failed allocation is reported, opening and encoding; nothing leaks. */
static void test_every_failed_allocation_is_an_error(void **state)
{
    (void)state;
    vocabulary v = make_vocabulary(4);
    make_gguf m = write_vocabulary(&v, "gpt2", "smollm");
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    assert_int_equal(gguf_open_memory("made.gguf", m.data, m.size, &f, NULL), BASE_OK);
    base_status status = BASE_NO_MEMORY;
    size_t n = 0;
    while (status == BASE_NO_MEMORY) {
        base_mem_fail_at(++n);
        status = tokenizer_open(f, &t, NULL);
        base_mem_fail_at(0);
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 8);
    char text[600];
    memset(text, 'a', sizeof text);
    text[300] = (char)0xff;
    status = BASE_NO_MEMORY;
    for (n = 0; status == BASE_NO_MEMORY;) {
        int32_t *ids = NULL;
        size_t count;
        base_mem_fail_at(++n);
        status = tokenizer_encode(t, text, sizeof text, &ids, &count, NULL);
        base_mem_fail_at(0);
        base_free(ids);
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 4);
    tokenizer_close(t);
    gguf_close(f);
    make_free(&m);
}

typedef struct share {
    const tokenizer *t;
    const char *text;
    size_t size;
    int32_t *wanted;
    size_t count;
    bool equal[64];
} share;

static void encode_shared(void *argument, size_t begin, size_t end, size_t thread)
{
    share *s = argument;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        s->equal[i] = tokenizer_encode(s->t, s->text, s->size, &ids, &count, NULL) == BASE_OK &&
                      count == s->count && memcmp(ids, s->wanted, count * sizeof *ids) == 0;
        base_free(ids);
    }
}

/* Goal: one tokenizer serves several threads. Method: the same text in four threads, 64 times. */
static void test_tokenizer_is_shared_by_threads(void **state)
{
    (void)state;
    vocabulary v = make_vocabulary(4);
    share s = {.t = open_vocabulary(&v, "llama-bpe")};
    base_pool *pool = NULL;
    base_rng rng;
    char text[3000];
    base_rng_seed(&rng, 8);
    s.text = text;
    s.size = random_text(&rng, text, sizeof text);
    assert_int_equal(tokenizer_encode(s.t, text, s.size, &s.wanted, &s.count, NULL), BASE_OK);
    assert_int_equal(base_pool_create(4, &pool, NULL), BASE_OK);
    base_pool_run(pool, 64, 1, encode_shared, &s);
    for (size_t i = 0; i < 64; i++) {
        assert_true(s.equal[i]);
    }
    base_pool_free(pool);
    base_free(s.wanted);
    tokenizer_close((tokenizer *)(uintptr_t)s.t);
}

/* Goal: single tokens are known for what they are. */
static void test_single_tokens_are_described(void **state)
{
    (void)state;
    vocabulary v = make_vocabulary(4);
    tokenizer *t = open_vocabulary(&v, "smollm");
    base_buffer out = {0};
    int32_t start = find_token(&v, "<|im_start|>"), end = find_token(&v, "<|im_end|>");
    assert_int_equal(tokenizer_vocabulary(t), v.count);
    assert_int_equal(tokenizer_bos(t), start);
    assert_int_equal(tokenizer_eos(t), end);
    assert_false(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, end));
    assert_false(tokenizer_is_end(t, start));
    assert_false(tokenizer_is_end(t, -1));
    assert_false(tokenizer_is_end(t, (int32_t)v.count));
    assert_int_equal(tokenizer_decode(t, start, false, &out), BASE_OK);
    assert_int_equal(out.size, 0);
    assert_int_equal(tokenizer_decode(t, start, true, &out), BASE_OK);
    assert_string_equal(out.data, "<|im_start|>");
    assert_int_equal(tokenizer_decode(t, -1, true, &out), BASE_INVALID);
    assert_int_equal(tokenizer_decode(t, (int32_t)v.count, true, &out), BASE_INVALID);
    base_buffer_free(&out);
    tokenizer_close(t);
    t = open_vocabulary(&v, "llama-bpe");
    assert_true(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

/* Goal: the default model's ids. Method: what llama.cpp (commit 0c1e57098, llama_tokenize without
 * special tokens) gives for the same bytes. */
static void test_published_vocabulary_gives_published_ids(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t ids[48]; /* ends with -1 */
    } cases[] = {
#include "tokenizer_cases.h"
    };
    char path[4096];
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    if (!models_path(MODELS_GENERATOR, path, sizeof path)) {
        print_message("SKIPPED: %s is missing, run ./dev setup\n", path);
        skip();
    }
    assert_int_equal(gguf_open(path, &f, NULL), BASE_OK);
    assert_int_equal(tokenizer_open(f, &t, NULL), BASE_OK);
    assert_int_equal(tokenizer_vocabulary(t), 49152);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_false(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, 0));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t count = 0;
        while (cases[i].ids[count] >= 0) {
            count++;
        }
        expect_ids(t, cases[i].text, strlen(cases[i].text), cases[i].ids, count);
    }
    tokenizer_close(t);
    gguf_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging_equals_the_naive_algorithm),
        cmocka_unit_test(test_decoding_inverts_encoding),
        cmocka_unit_test(test_special_tokens_are_never_read_from_text),
        cmocka_unit_test(test_user_defined_tokens_are_cut_out),
        cmocka_unit_test(test_broken_utf8_becomes_replacement_characters),
        cmocka_unit_test(test_families_differ_where_their_patterns_do),
        cmocka_unit_test(test_unsupported_and_damaged_vocabularies_are_refused),
        cmocka_unit_test(test_every_failed_allocation_is_an_error),
        cmocka_unit_test(test_tokenizer_is_shared_by_threads),
        cmocka_unit_test(test_single_tokens_are_described),
        cmocka_unit_test(test_published_vocabulary_gives_published_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
