/* base/chunk.h: cut a text into episodes of one to three sentences, 30 to 70 tokens (semantics §5).
 *
 * Spans partition the text: every byte belongs to exactly one span, in order, so that the stored
 * spans of a document give it back verbatim. Cuts fall at sentence ends, line ends, list items and
 * blank lines; headings ("# ..." in Markdown, or a short line that a blank line follows) begin a
 * new span and are reported as the section of what follows them. Short neighbouring lines are
 * joined up to the budget; a "sentence" longer than the budget is cut at white space, else between
 * code points.
 */
#ifndef BASE_CHUNK_H
#define BASE_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct base_span {
    size_t start, end;                 /* byte range [start, end) */
    size_t section_start, section_end; /* the heading in force, without markup; equal when none */
} base_span;

enum { BASE_CHUNK_SENTENCE = 16 }; /* a token_target that joins fragments only */

typedef struct base_chunk_options {
    size_t token_target; /* join sentences up to this many tokens; 0 = 48 */
    size_t token_max;    /* never exceed, tokens estimated; 0 = 70 */
} base_chunk_options;

/* Rough token count of English-like UTF-8 text for byte-level BPE and WordPiece: words, pieces of
 * long words, digits, punctuation. Within about 25 % on the dev corpora; never 0 for non-blank
 * text. */
size_t base_token_estimate(const char *text, size_t length);

/* Cut valid UTF-8 text. *spans: array of *count, freed by the caller with base_free. Text of only
 * white space gives 0 spans. Errors: BASE_NO_MEMORY, BASE_INVALID (not UTF-8; the offset is in the
 * text). */
base_status base_chunk_text(const char *text, size_t length, const base_chunk_options *options,
                            base_span **spans, size_t *count, base_error *err);

#endif
