/* engine/words.c: see words.h. */
#include "engine/words.h"

#include <string.h>

#include "base/text.h"

static const char *const function_words[] = {
    "a",     "an",  "the",  "of",  "in",    "on",   "at",   "to",   "for",  "by",  "with",
    "from",  "as",  "is",   "are", "was",   "were", "be",   "been", "it",   "its", "this",
    "that",  "and", "or",   "not", "no",    "yes",  "he",   "she",  "they", "his", "her",
    "their", "has", "have", "had", "which", "who",  "what", "when", "where"};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool session_words_is_function(const char *word, size_t size)
{
    for (size_t i = 0; i < sizeof function_words / sizeof *function_words; i++) {
        if (strlen(function_words[i]) == size && memcmp(function_words[i], word, size) == 0) {
            return true;
        }
    }
    return false;
}

bool session_words_next(const char *text, size_t size, size_t *at, const char **word,
                        size_t *length)
{
    while (*at < size && !base_is_word_byte(text[*at])) {
        ++*at;
    }
    size_t begin = *at;
    while (*at < size) {
        char c = text[*at];
        bool inner = (c == '.' || c == '-' || c == ':') && *at > begin && *at + 1 < size &&
                     text[*at + 1] >= '0' && text[*at + 1] <= '9';
        if (!base_is_word_byte(c) && !inner) {
            break;
        }
        ++*at;
    }
    *word = text + begin;
    *length = *at - begin;
    return *length > 0;
}

void session_words_lower(base_buffer *text)
{
    for (size_t i = 0; i < text->size; i++) {
        if (text->data[i] >= 'A' && text->data[i] <= 'Z') {
            text->data[i] = (char)(text->data[i] + ('a' - 'A'));
        }
    }
}

bool session_words_is_capital(const char *written)
{
    return *written >= 'A' && *written <= 'Z';
}

bool session_words_is_date(const char *word, size_t size)
{
    static const char *const list[] = {
        "january",   "february",  "march",   "april",    "may",      "june",   "july",
        "august",    "september", "october", "november", "december", "monday", "tuesday",
        "wednesday", "thursday",  "friday",  "saturday", "sunday",   "jan",    "feb",
        "mar",       "apr",       "jun",     "jul",      "aug",      "sep",    "sept",
        "oct",       "nov",       "dec"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (strlen(list[i]) == size && memcmp(list[i], word, size) == 0) {
            return true;
        }
    }
    bool century = size == 4 && ((word[0] == '1' && word[1] >= '5') || memcmp(word, "20", 2) == 0);
    return century && is_digit(word[1]) && is_digit(word[2]) && is_digit(word[3]);
}

base_status session_words_append_note(base_buffer *out, const store_episode *episode)
{
    base_buffer text = {0};
    base_status status = base_buffer_append(&text, episode->text, episode->text_size);
    if (!status && !(status = base_buffer_append_text(&text, " ")) &&
        !(status = base_buffer_append_text(&text, episode->title)) &&
        !(status = base_buffer_append_text(&text, " "))) {
        session_words_lower(&text);
        status = base_buffer_append(out, text.data, text.size);
    }
    base_buffer_free(&text);
    return status;
}

bool session_words_hold(const base_buffer *text, const char *word, size_t length)
{
    const char *other;
    size_t at = 0, other_length;
    while (session_words_next(text->data, text->size, &at, &other, &other_length)) {
        if (other_length == length && memcmp(other, word, length) == 0) {
            return true;
        }
    }
    return false;
}

/* Does a word b of a text share the stem of a: do they begin alike, but for two letters of the
 * shorter at most ("sails", "sailing"; "citizen", "citizenship"), four letters at least? A number
 * is whole, or has more parts in the text ("2.14", "2.14.3"). */
static bool share_stem(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t shorter = a_size < b_size ? a_size : b_size, same = 0;
    while (same < shorter && a[same] == b[same]) {
        same++;
    }
    if (same == a_size && (same == b_size || b[same] == '.')) {
        return true;
    }
    return !is_digit(*a) && same >= 4 && same + 2 >= shorter;
}

bool session_words_hold_stem(const base_buffer *text, const char *word, size_t size)
{
    const char *other;
    size_t at = 0, other_size;
    while (session_words_next(text->data, text->size, &at, &other, &other_size)) {
        if (share_stem(word, size, other, other_size)) {
            return true;
        }
    }
    return false;
}

bool session_words_ask_nothing(const char *word, size_t size)
{
    static const char *const list[] = {"current", "currently", "now",   "latest", "newest",
                                       "recent",  "today",     "name",  "named",  "called",
                                       "does",    "did",       "whose", "kind",   "type"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (strlen(list[i]) == size && memcmp(list[i], word, size) == 0) {
            return true;
        }
    }
    return !is_digit(*word) && (size < 3 || session_words_is_function(word, size));
}

bool session_words_is_short(const base_buffer *text)
{
    enum { WORDS_MAX = 30 };
    const char *word;
    size_t at = 0, size, count = 0;
    while (count <= WORDS_MAX && session_words_next(text->data, text->size, &at, &word, &size)) {
        count++;
    }
    return count <= WORDS_MAX;
}
