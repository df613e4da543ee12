/* engine/tokenizer_bpe.h: what tokenizer.c (loading) and tokenizer_bpe.c (encoding) share.
 * Internal.
 *
 * A *symbol* is a byte string that merging can meet: the ids of the vocabulary first, then strings
 * that are no token of their own.
 */
#ifndef ENGINE_TOKENIZER_BPE_H
#define ENGINE_TOKENIZER_BPE_H

#include <string.h>

#include "engine/tokenizer.h"

#define TOKENIZER_NO_RANK UINT32_MAX

typedef enum tokenizer_kind {
    TOKENIZER_NORMAL,
    TOKENIZER_SPECIAL, /* control, unknown, unused */
    TOKENIZER_USER
} tokenizer_kind;

/* A pair of neighbours that may be merged. */
typedef struct tokenizer_merge {
    uint64_t pair; /* left symbol << 32 | right symbol */
    uint32_t rank; /* TOKENIZER_NO_RANK = free slot */
    uint32_t result;
} tokenizer_merge;

struct tokenizer {
    void *pattern; /* compiled; only tokenizer_bpe.c knows its type */
    size_t vocabulary;
    base_buffer bytes; /* of all symbols, one after the other */
    uint32_t *starts;  /* [symbol_count + 1] in bytes */
    size_t symbol_count, symbol_capacity;
    uint8_t *kinds;          /* [vocabulary] tokenizer_kind */
    bool *ends;              /* [vocabulary] ends a turn or a text */
    uint32_t *slots;         /* byte string -> symbol + 1; open addressing */
    size_t slot_count;       /* power of two */
    tokenizer_merge *merges; /* open addressing */
    size_t merge_slots;      /* power of two */
    uint32_t byte_symbols[256];
    int32_t *users; /* ids of TOKENIZER_USER, longest first */
    size_t user_count;
    int32_t bos, eos;
    bool adds_bos;
    bool whole_words; /* a word that is a token is not merged */
};

static inline const char *tokenizer_symbol_bytes(const tokenizer *t, size_t symbol, size_t *size)
{
    *size = t->starts[symbol + 1] - t->starts[symbol];
    return t->bytes.data + t->starts[symbol];
}

/* Finaliser of MurmurHash3 (Appleby): spreads the bits that an address is taken from. */
static inline uint64_t tokenizer_mix(uint64_t x)
{
    x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

/* The slot that holds these bytes, or the free one where they belong. */
static inline uint32_t *tokenizer_symbol_slot(const tokenizer *t, const char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * UINT64_C(0x100000001b3);
    }
    size_t at = (size_t)tokenizer_mix(hash) & (t->slot_count - 1);
    for (;; at = (at + 1) & (t->slot_count - 1)) {
        if (t->slots[at] == 0) {
            return &t->slots[at];
        }
        size_t other_size;
        const char *other = tokenizer_symbol_bytes(t, t->slots[at] - 1, &other_size);
        if (other_size == size && memcmp(other, bytes, size) == 0) {
            return &t->slots[at];
        }
    }
}

static inline tokenizer_merge *tokenizer_merge_slot(const tokenizer *t, uint64_t pair)
{
    size_t at = (size_t)tokenizer_mix(pair) & (t->merge_slots - 1);
    while (t->merges[at].rank != TOKENIZER_NO_RANK && t->merges[at].pair != pair) {
        at = (at + 1) & (t->merge_slots - 1);
    }
    return &t->merges[at];
}

static inline uint64_t tokenizer_pair(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

/* A family of pre-tokenizers: the pattern that cuts text into words. */
typedef struct tokenizer_family {
    const char *name;
    const char *pattern;
    bool whole_words; /* a word that is a token is not merged */
    bool adds_bos;
} tokenizer_family;

/* NULL when unknown. */
const tokenizer_family *tokenizer_bpe_family(gguf_text name);
base_status tokenizer_bpe_compile(const tokenizer_family *family, void **pattern, base_error *err);
void tokenizer_bpe_free_pattern(void *pattern);
/* Cut valid UTF-8 into words: their byte ends into ends [size at most]. For tests; encoding does
 * the same word by word. Errors: BASE_NO_MEMORY, BASE_LIMIT (the matcher gave up). */
base_status tokenizer_bpe_split(const void *pattern, const char *text, size_t size, size_t *ends,
                                size_t *count);

#endif
