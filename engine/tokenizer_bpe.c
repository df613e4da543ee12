/* engine/tokenizer_bpe.c: byte-level byte-pair encoding (Sennrich et al. 2016, "Neural machine
 * translation of rare words with subword units", algorithm 1) as GPT-2 does it: a pattern cuts the
 * text into words, the bytes of a word are merged pair by pair, always the pair of lowest rank,
 * leftmost first, until no pair is left that has a rank.
 *
 * Differences between model families lie in the pattern alone, except that `llama-bpe` takes a word
 * that is a token without merging. Broken UTF-8 is read as llama.cpp reads it: lenient about
 * overlong forms and surrogates, and each byte that begins nothing is U+FFFD. Unicode
 * normalisation, which the published Qwen2 tokenizer adds, is not done (nor by llama.cpp).
 *
 * Only this file uses PCRE2.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/text.h"
#include "engine/tokenizer_bpe.h"

enum {
    TEXT_BYTES_MAX = 0x7fffffff, /* positions inside a word are 32 bits */
    SHORT_WORD = 40              /* bytes up to which scanning for the best pair beats a heap */
};

/* --- patterns --------------------------------------------------------------------------------- */

/* Members of classes. S: White_Space of Unicode, spelled out, since \s of PCRE2 has U+180E besides.
 * L and N: letters and numbers, with those of Unicode 15.1 that an older PCRE2 (14.0 in 10.42) does
 * not know; llama.cpp's tables, which know them, gave this list. */
/* clang-format off */
#define S "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
          "\\x{205f}\\x{3000}"
#define L "\\p{L}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1123f}\\x{11240}" \
          "\\x{1342f}\\x{13441}-\\x{13446}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}" \
          "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}" \
          "\\x{31350}-\\x{323af}"
#define N "\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"

static const tokenizer_family families[] = {
    {"gpt-2",
     "'(?:[stmd]|re|ve|ll)| ?[" L "]+| ?[" N "]+| ?[^" S L N "]+|[" S "]+(?![^" S "])|[" S "]+",
     false, false},
    /* Published as two passes, single digits first; one pass if white space before a digit counts
     * as at an end. */
    {"smollm",
     "'(?:[stmd]|re|ve|ll)| ?[" L "]+|[" N "]| ?[^" S L N "]+|[" S "]+(?![^" S N "])|[" S "]+",
     false, false},
    {"llama-bpe",
     CONTRACTION "|[^\\r\\n" L N "]?[" L "]+|[" N "]{1,3}| ?[^" S L N "]+[\\r\\n]*"
     "|[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+",
     true, true},
    {"qwen2",
     CONTRACTION "|[^\\r\\n" L N "]?[" L "]+|[" N "]| ?[^" S L N "]+[\\r\\n]*"
     "|[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+",
     false, false},
};
/* clang-format on */

const tokenizer_family *tokenizer_bpe_family(gguf_text name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const char *known = families[i].name;
        if (name.size == strlen(known) && memcmp(name.data, known, name.size) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

base_status tokenizer_bpe_compile(const tokenizer_family *family, void **pattern, base_error *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)family->pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &at, NULL);
    if (!compiled) {
        char text[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return base_fail(err, BASE_UNSUPPORTED, "pattern of pre-tokenizer '%s' at %zu: %s",
                         family->name, (size_t)at, text);
    }
    /* Without a compiler for this processor, or where memory may not be made executable, matching
     * is interpreted. */
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    *pattern = compiled;
    return BASE_OK;
}

void tokenizer_bpe_free_pattern(void *pattern)
{
    pcre2_code_free(pattern);
}

/* --- merging ---------------------------------------------------------------------------------- */

/* A candidate in the heap; stale when one of its symbols has changed since. */
typedef struct candidate {
    uint32_t rank, left_at;
    uint32_t left, right, result;
} candidate;

/* State of one call of tokenizer_encode. */
typedef struct encoding {
    const tokenizer *t;
    pcre2_match_data *match;
    int32_t *ids;
    size_t count, capacity;
    uint32_t *symbols, *next, *previous; /* of a long word */
    candidate *heap;
    size_t word_capacity, heap_count;
    base_error *err;
} encoding;

static base_status out_of_memory(encoding *e)
{
    return base_fail(e->err, BASE_NO_MEMORY, "out of memory while tokenizing");
}

static base_status reserve_ids(encoding *e, size_t more)
{
    if (e->capacity - e->count >= more) {
        return BASE_OK;
    }
    size_t capacity = e->count + more > 2 * e->capacity ? e->count + more : 2 * e->capacity;
    int32_t *ids = base_realloc(e->ids, capacity * sizeof *ids);
    if (!ids) {
        return out_of_memory(e);
    }
    e->ids = ids;
    e->capacity = capacity;
    return BASE_OK;
}

/* A symbol that is no token falls back to its bytes; a byte without a token is left out, as
 * llama.cpp does. The caller has reserved room for every byte of the word. */
static void emit(encoding *e, uint32_t symbol)
{
    const tokenizer *t = e->t;
    if (symbol < t->vocabulary) {
        e->ids[e->count++] = (int32_t)symbol;
        return;
    }
    size_t size;
    const char *bytes = tokenizer_symbol_bytes(t, symbol, &size);
    for (size_t i = 0; i < size; i++) {
        uint32_t byte = t->byte_symbols[(uint8_t)bytes[i]];
        if (byte < t->vocabulary) {
            e->ids[e->count++] = (int32_t)byte;
        }
    }
}

static void merge_short(encoding *e, const char *word, size_t size)
{
    const tokenizer *t = e->t;
    uint32_t symbols[SHORT_WORD];
    const tokenizer_merge *pairs[SHORT_WORD]; /* pairs[i] joins symbols i and i + 1 */
    for (size_t i = 0; i < size; i++) {
        symbols[i] = t->byte_symbols[(uint8_t)word[i]];
        if (i > 0) {
            pairs[i - 1] = tokenizer_merge_slot(t, tokenizer_pair(symbols[i - 1], symbols[i]));
        }
    }
    while (size > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < size; i++) {
            best = pairs[i]->rank < pairs[best]->rank ? i : best;
        }
        if (pairs[best]->rank == TOKENIZER_NO_RANK) {
            break;
        }
        symbols[best] = pairs[best]->result;
        size--;
        memmove(symbols + best + 1, symbols + best + 2, (size - best - 1) * sizeof *symbols);
        if (best + 1 < size) {
            memmove(pairs + best, pairs + best + 1, (size - best - 1) * sizeof *pairs);
            pairs[best] = tokenizer_merge_slot(t, tokenizer_pair(symbols[best], symbols[best + 1]));
        }
        if (best > 0) {
            pairs[best - 1] =
                tokenizer_merge_slot(t, tokenizer_pair(symbols[best - 1], symbols[best]));
        }
    }
    for (size_t i = 0; i < size; i++) {
        emit(e, symbols[i]);
    }
}

static bool before(const candidate *a, const candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left_at < b->left_at);
}

static void heap_push(encoding *e, uint32_t left_at, uint32_t right_at)
{
    uint32_t left = e->symbols[left_at], right = e->symbols[right_at];
    const tokenizer_merge *m = tokenizer_merge_slot(e->t, tokenizer_pair(left, right));
    if (m->rank == TOKENIZER_NO_RANK) {
        return;
    }
    candidate added = {m->rank, left_at, left, right, m->result};
    size_t at = e->heap_count++;
    while (at > 0 && before(&added, &e->heap[(at - 1) / 2])) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = added;
}

static candidate heap_pop(encoding *e)
{
    candidate top = e->heap[0];
    candidate last = e->heap[--e->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= e->heap_count) {
            break;
        }
        if (child + 1 < e->heap_count && before(&e->heap[child + 1], &e->heap[child])) {
            child++;
        }
        if (!before(&e->heap[child], &last)) {
            break;
        }
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

static base_status reserve_word(encoding *e, size_t size)
{
    if (size <= e->word_capacity) {
        return BASE_OK;
    }
    base_free(e->symbols);
    base_free(e->next);
    base_free(e->previous);
    base_free(e->heap);
    e->word_capacity = 0;
    e->symbols = base_calloc(size, sizeof *e->symbols);
    e->next = base_calloc(size, sizeof *e->next);
    e->previous = base_calloc(size, sizeof *e->previous);
    e->heap =
        base_calloc(3 * size, sizeof *e->heap); /* size - 1 at first, two more a tokenizer_merge */
    if (!e->symbols || !e->next || !e->previous || !e->heap) {
        return out_of_memory(e);
    }
    e->word_capacity = size;
    return BASE_OK;
}

/* The same in O(n log n), by a linked list of symbols and a heap of candidates. */
static base_status merge_long(encoding *e, const char *word, size_t size)
{
    const uint32_t none = UINT32_MAX;
    base_status status = reserve_word(e, size);
    if (status) {
        return status;
    }
    e->heap_count = 0;
    for (uint32_t i = 0; i < size; i++) {
        e->symbols[i] = e->t->byte_symbols[(uint8_t)word[i]];
        e->previous[i] = i == 0 ? none : i - 1;
        e->next[i] = i + 1 == size ? none : i + 1;
        if (i > 0) {
            heap_push(e, i - 1, i);
        }
    }
    while (e->heap_count > 0) {
        candidate c = heap_pop(e);
        uint32_t at = c.left_at, right_at = e->next[at];
        if (e->symbols[at] != c.left || right_at == none || e->symbols[right_at] != c.right) {
            continue;
        }
        e->symbols[at] = c.result;
        e->symbols[right_at] = none; /* gone: no candidate names it */
        e->next[at] = e->next[right_at];
        if (e->next[at] != none) {
            e->previous[e->next[at]] = at;
            heap_push(e, at, e->next[at]);
        }
        if (e->previous[at] != none) {
            heap_push(e, e->previous[at], at);
        }
    }
    for (uint32_t at = 0; at != none; at = e->next[at]) {
        emit(e, e->symbols[at]);
    }
    return BASE_OK;
}

static base_status encode_word(encoding *e, const char *word, size_t size)
{
    base_status status = reserve_ids(e, size);
    if (status) {
        return status;
    }
    if (e->t->whole_words) {
        uint32_t slot = *tokenizer_symbol_slot(e->t, word, size);
        if (slot != 0 && slot - 1 < e->t->vocabulary) {
            e->ids[e->count++] = (int32_t)(slot - 1);
            return BASE_OK;
        }
    }
    if (size <= SHORT_WORD) {
        merge_short(e, word, size);
        return BASE_OK;
    }
    return merge_long(e, word, size);
}

/* --- text ------------------------------------------------------------------------------------- */

/* End of the word that begins at `at`; 0 when matching failed (*problem: PCRE2's code). */
static size_t word_end(const void *pattern, pcre2_match_data *match, const char *shape, size_t size,
                       size_t at, int *problem)
{
    int found = pcre2_match(pattern, (PCRE2_SPTR)shape, size, at, PCRE2_NO_UTF_CHECK, match, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        found = pcre2_match(pattern, (PCRE2_SPTR)shape, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            match, NULL);
    }
    size_t end = at;
    if (found > 0) {
        end = pcre2_get_ovector_pointer(match)[1];
    } else if (found != PCRE2_ERROR_NOMATCH) {
        *problem = found;
        return 0;
    }
    if (end == at) {
        uint32_t ignored; /* no pattern leaves a character out; if one did, it would be a word */
        end = at + base_utf8_decode(shape + at, size - at, &ignored);
    }
    return end;
}

base_status tokenizer_bpe_split(const void *pattern, const char *text, size_t size, size_t *ends,
                                size_t *count)
{
    int problem = 0;
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(pattern, NULL);
    if (!match) {
        return BASE_NO_MEMORY;
    }
    *count = 0;
    for (size_t at = 0; at < size;) {
        at = word_end(pattern, match, text, size, at, &problem);
        if (at == 0) {
            break;
        }
        ends[(*count)++] = at;
    }
    pcre2_match_data_free(match);
    bool whole = size == 0 || (*count > 0 && ends[*count - 1] == size);
    return whole ? BASE_OK : BASE_LIMIT;
}

/* Cut valid UTF-8 `shape` into words; their bytes are taken from `text` of the same length. */
static base_status encode_words(encoding *e, const char *shape, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        int problem = 0;
        size_t end = word_end(e->t->pattern, e->match, shape, size, at, &problem);
        if (end == 0) {
            return base_fail(e->err, BASE_LIMIT,
                             "the pre-tokenizer failed at byte %zu of a text (PCRE2 error %d)", at,
                             problem);
        }
        base_status status = encode_word(e, text + at, end - at);
        if (status) {
            return status;
        }
        at = end;
    }
    return BASE_OK;
}

/* One code point as llama.cpp reads it: any well-formed sequence by its length bits, overlong and
 * surrogate alike; anything else is one byte and U+FFFD. What lies above U+10FFFF (llama.cpp gives
 * up there) is U+FFFD as well. */
static size_t decode_lenient(const char *text, size_t size, uint32_t *code_point)
{
    uint8_t lead = (uint8_t)text[0];
    size_t length = lead < 0x80   ? 1
                    : lead < 0xc0 ? 0
                    : lead < 0xe0 ? 2
                    : lead < 0xf0 ? 3
                    : lead < 0xf8 ? 4
                                  : 0;
    *code_point = 0xfffd;
    if (length == 0 || length > size) {
        return 1;
    }
    uint32_t value = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80) {
            return 1;
        }
        value = value << 6 | ((uint8_t)text[i] & 0x3f);
    }
    if (value <= 0x10ffff) {
        *code_point = value;
    }
    return length;
}

static size_t encode_three(uint32_t code_point, char *out)
{
    out[0] = (char)(0xe0 | code_point >> 12);
    out[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code_point & 0x3f));
    return 3;
}

/* Text that is not UTF-8: a copy as code points, and a second one for the pattern, where a
 * surrogate (which PCRE2 refuses) is the private U+E000: of the same class in every pattern, and as
 * long. */
static base_status encode_broken(encoding *e, const char *text, size_t size)
{
    base_status status;
    char *copy = base_alloc(2 * 3 * size);
    if (!copy) {
        return out_of_memory(e);
    }
    char *shape = copy + 3 * size;
    size_t length = 0;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        at += decode_lenient(text + at, size - at, &c);
        if (c >= 0xd800 && c <= 0xdfff) {
            encode_three(c, copy + length);
            length += encode_three(0xe000, shape + length);
        } else {
            char encoded[4];
            size_t n = base_utf8_encode(c, encoded);
            memcpy(copy + length, encoded, n);
            memcpy(shape + length, encoded, n);
            length += n;
        }
    }
    status = encode_words(e, shape, copy, length);
    base_free(copy);
    return status;
}

static base_status encode_plain(encoding *e, const char *text, size_t size)
{
    if (size == 0) {
        return BASE_OK;
    }
    return base_utf8_check(text, size) == size ? encode_words(e, text, text, size)
                                               : encode_broken(e, text, size);
}

static const char *find_bytes(const char *text, size_t size, const char *what, size_t what_size)
{
    const char *end = text + size;
    while ((size_t)(end - text) >= what_size) {
        text = memchr(text, what[0], (size_t)(end - text) - what_size + 1);
        if (!text) {
            return NULL;
        }
        if (memcmp(text, what, what_size) == 0) {
            return text;
        }
        text++;
    }
    return NULL;
}

/* Cut out user-defined tokens from the `from`-th on, longest first; what lies between is plain
 * text. */
static base_status encode_fragment(encoding *e, const char *text, size_t size, size_t from)
{
    const tokenizer *t = e->t;
    for (; from < t->user_count; from++) {
        size_t token_size;
        const char *token = tokenizer_symbol_bytes(t, (size_t)t->users[from], &token_size);
        const char *found;
        while ((found = find_bytes(text, size, token, token_size)) != NULL) {
            size_t head = (size_t)(found - text);
            base_status status = encode_fragment(e, text, head, from + 1);
            if (!status) {
                status = reserve_ids(e, 1);
            }
            if (status) {
                return status;
            }
            e->ids[e->count++] = t->users[from];
            text = found + token_size;
            size -= head + token_size;
        }
    }
    return encode_plain(e, text, size);
}

base_status tokenizer_encode(const tokenizer *t, const char *text, size_t size, int32_t **ids,
                             size_t *count, base_error *err)
{
    encoding e = {.t = t, .err = err};
    base_status status;
    if (size > TEXT_BYTES_MAX / 3) {
        return base_fail(err, BASE_LIMIT, "a text of %zu bytes is too long to tokenize at once",
                         size);
    }
    e.match = pcre2_match_data_create_from_pattern(t->pattern, NULL);
    if (!e.match) {
        return out_of_memory(&e);
    }
    status = reserve_ids(&e, size / 3 + 16);
    if (!status) {
        status = encode_fragment(&e, text, size, 0);
    }
    pcre2_match_data_free(e.match);
    base_free(e.symbols);
    base_free(e.next);
    base_free(e.previous);
    base_free(e.heap);
    if (status) {
        base_free(e.ids);
        return status;
    }
    *ids = e.ids;
    *count = e.count;
    return BASE_OK;
}
