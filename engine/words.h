/* engine/words.h: the words of a text, for rules that compare texts by them.
 */
#ifndef ENGINE_WORDS_H
#define ENGINE_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"
#include "store/store.h"

/* ASCII capitals of text become small letters, in place. */
void session_words_lower(base_buffer *text);
/* Next word of lower-cased text from *at; digits with inner '.', '-', ':' stay one word ("3.11.4",
 * "2024-05-01"). false: there is none. */
bool session_words_next(const char *text, size_t size, size_t *at, const char **word,
                        size_t *length);
/* Does a word carry no content (articles, prepositions, forms of "to be"; English)? */
bool session_words_is_function(const char *word, size_t size);
/* Is a word, as it is written, with a capital (ASCII)? */
bool session_words_is_capital(const char *written);
/* Is a lower-cased word a month, a weekday or a year? Written like a name, it says when. */
bool session_words_is_date(const char *word, size_t size);
/* Append an episode's text and title, lower-cased. BASE_OK or BASE_NO_MEMORY. */
base_status session_words_append_note(base_buffer *out, const store_episode *episode);
/* Does lower-cased text hold the word? */
bool session_words_hold(const base_buffer *text, const char *word, size_t length);
/* ... or one that shares its stem ("sails", "sailing")? */
bool session_words_hold_stem(const base_buffer *text, const char *word, size_t size);
/* Does a word of a question ask for nothing of its own ("the current name"; function words)? */
bool session_words_ask_nothing(const char *word, size_t size);
/* Is a text one statement: of 30 words or fewer? */
bool session_words_is_short(const base_buffer *text);

#endif
