/* base/text.c: UTF-8 as RFC 3629 defines it. Overlong forms, surrogates and values above U+10FFFF
 * are invalid; an invalid byte is consumed alone, so that decoding always makes progress.
 */
#include "base/text.h"

#include "base/status.h"

#define INVALID_CODE_POINT UINT32_C(0xFFFFFFFF)

/* Length of the sequence that a lead byte announces; 0 for a continuation byte or one that UTF-8
 * never holds. */
static size_t sequence_length(uint8_t lead)
{
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        return 2;
    }
    if (lead >= 0xE0 && lead <= 0xEF) {
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        return 4;
    }
    return 0;
}

size_t base_utf8_decode(const char *text, size_t length, uint32_t *code_point)
{
    BASE_ASSERT(length >= 1);
    const uint8_t *p = (const uint8_t *)text;
    size_t n = sequence_length(p[0]);
    *code_point = INVALID_CODE_POINT;
    if (n == 0 || n > length) {
        return 1;
    }
    if (n == 1) {
        *code_point = p[0];
        return 1;
    }
    uint32_t value = p[0] & (uint32_t)(0xFF >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 1;
        }
        value = (value << 6) | (p[i] & 0x3Fu);
    }
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[n] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 1;
    }
    *code_point = value;
    return n;
}

size_t base_utf8_encode(uint32_t code_point, char out[4])
{
    BASE_ASSERT(code_point <= 0x10FFFF);
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xC0 | (code_point >> 6));
        out[1] = (char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xE0 | (code_point >> 12));
        out[1] = (char)(0x80 | ((code_point >> 6) & 0x3F));
        out[2] = (char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (code_point >> 18));
    out[1] = (char)(0x80 | ((code_point >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((code_point >> 6) & 0x3F));
    out[3] = (char)(0x80 | (code_point & 0x3F));
    return 4;
}

size_t base_utf8_check(const char *text, size_t length)
{
    size_t i = 0;
    while (i < length) {
        if ((uint8_t)text[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t code_point;
        size_t n = base_utf8_decode(text + i, length - i, &code_point);
        if (code_point == INVALID_CODE_POINT) {
            return i;
        }
        i += n;
    }
    return length;
}

size_t base_utf8_cut(const char *text, size_t length, size_t limit)
{
    if (limit >= length) {
        return length;
    }
    /* The byte at the cut begins the rest: step back over at most three continuation bytes. Text
     * that has more of them in a row is not UTF-8, and any cut is as good as another. */
    for (size_t back = 0; back <= 3 && back <= limit; back++) {
        if (((uint8_t)text[limit - back] & 0xC0) != 0x80) {
            return limit - back;
        }
    }
    return limit;
}

size_t base_list_number_size(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size && text[at] >= '0' && text[at] <= '9') {
        at++;
    }
    bool number = at > 0 && at + 1 < size && (text[at] == '.' || text[at] == ')');
    return number && text[at + 1] == ' ' ? at + 2 : 0;
}
