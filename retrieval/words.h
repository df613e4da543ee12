/* retrieval/words.h: a statement cut into words, and what two of them have in common.
 *
 * A word is a *name* when it holds a capital or a figure, a *function* word when it is one of the
 * English ones in words.c, else *content*. The first word of a sentence is a name only when the
 * other statement does not write it small. A role in capitals ("the CEO of") is content; content
 * words that both statements begin with, without an article, name what they are about.
 */
#ifndef RETRIEVAL_WORDS_H
#define RETRIEVAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORDS_MAX = 96, WORD_BYTES_MAX = 96 };

typedef enum word_kind { FUNCTION, CONTENT, NAME } word_kind;

typedef struct word {
    const char *text;
    size_t size;
    uint64_t hash; /* of the lower-cased word */
    word_kind kind;
    bool first, figure, connector, shared;
    bool subject; /* a name only because both statements begin with it: see mark_subject() */
} word;

typedef struct sentence {
    word words[WORDS_MAX];
    size_t count;
    bool question, too_long;
    size_t sentences;
} sentence;

/* The first `sentences_max` sentences of a UTF-8 text; words point into it. */
void retrieval_words_cut(const char *text, size_t size, size_t sentences_max, sentence *out);
/* Settle which words of two statements are names, and mark what both have. */
void retrieval_words_align(sentence *a, sentence *b);

static inline bool retrieval_is_digit(char c)
{
    return c >= '0' && c <= '9';
}
/* Is w, lower-cased, one of list [count]? */
bool retrieval_word_is_one_of(const word *w, const char *const *list, size_t count);
bool retrieval_word_is_copula(const word *w); /* a form of "to be" */
/* FNV-1a (Fowler, Noll, Vo) of the word, small: ASCII and the capitals of Latin-1. */
uint64_t retrieval_word_lower(const char *text, size_t size, char small[WORD_BYTES_MAX]);

#endif
