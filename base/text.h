/* base/text.h: UTF-8 checks and decoding. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decode one code point at text[0..length). Returns bytes used (1..4) and the code point; an
 * invalid byte gives 1 and 0xFFFFFFFF (overlong forms, surrogates and > U+10FFFF are invalid).
 * length >= 1. */
size_t base_utf8_decode(const char *text, size_t length, uint32_t *code_point);
/* Encode; returns bytes written (1..4). code_point <= 0x10FFFF. */
size_t base_utf8_encode(uint32_t code_point, char out[4]);
/* Is the byte part of a word: an ASCII letter or figure, or of a character that is not ASCII? */
static inline bool base_is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (unsigned char)c >= 0x80;
}

/* Bytes of the number that a text begins with as an item of a list ("12. ", "3) "); 0 if none. */
size_t base_list_number_size(const char *text, size_t size);

/* Offset of the first invalid byte, or length if all is valid. */
size_t base_utf8_check(const char *text, size_t length);
/* Largest n <= limit at which text may be cut without splitting a code point. */
size_t base_utf8_cut(const char *text, size_t length, size_t limit);

#endif
