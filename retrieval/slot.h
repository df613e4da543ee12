/* retrieval/slot.h: do two statements fill the same slot with another value? A pure function of
 * their words: no store, no index, no clock, no list of relations, templates or names.
 *
 * A statement is taken apart into an entity (the names it begins with), a frame (what is said of
 * the entity) and a value. Two statements fill one slot when
 *   - the same names stand before the value in both, and no other name does: "The capital of
 *     [England] is London" and "The capital of [France] is London" share a value, not a slot;
 *   - the values differ, stand at the end (or are figures, or stand before "is the ..."), and the
 *     frames are the same word for word, or mean the same: then the caller has both frames encoded,
 *     entity and value masked, and compares them (RETRIEVAL_SLOT_IF_FRAMES_AGREE);
 *   - where a role stands between two names ("is the founder of"), the other statement or the word
 *     tells which of them is the entity: many may be "the daughter of" one, one is "the founder";
 *   - for version numbers: the same product, and the newer text names the older version, or both
 *     lie in one line; parallel lines stay open;
 *   - the newer does not say that it only adds ("also", "another").
 * What cannot be told apart so is left open: a wrong closure hides a fact, a missing one does not.
 * English function words and endings of roles are known (they tell frame from value, and whose role
 * it is); other languages are decided by their names and figures, and by equal frames, alone.
 */
#ifndef RETRIEVAL_SLOT_H
#define RETRIEVAL_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RETRIEVAL_FRAME_MAX 512 /* bytes of a frame or value, NUL included */

typedef struct retrieval_statement {
    const char *title, *text; /* valid UTF-8; title "" when none; text need not end in NUL */
    size_t text_size;
} retrieval_statement;

typedef enum retrieval_slot_verdict {
    RETRIEVAL_SLOT_OTHER,          /* not one slot, or not to be told, or the same value */
    RETRIEVAL_SLOT_SAME,           /* one slot, another value */
    RETRIEVAL_SLOT_IF_FRAMES_AGREE /* one entity; same when the frames mean the same */
} retrieval_slot_verdict;

typedef struct retrieval_slot {
    retrieval_slot_verdict verdict;
    /* with IF_FRAMES_AGREE: the content words are the same but for their endings */
    bool same_stems;
    bool one_word; /* with IF_FRAMES_AGREE: one word stands for another, be strict */
    /* with IF_FRAMES_AGREE: what is said, as "it was founded by something", and the value */
    char older_frame[RETRIEVAL_FRAME_MAX], newer_frame[RETRIEVAL_FRAME_MAX];
    char older_value[RETRIEVAL_FRAME_MAX], newer_value[RETRIEVAL_FRAME_MAX];
} retrieval_slot;

/* older was observed before newer. Cost: O(words of older x words of newer), at most 96 each;
 * longer texts are RETRIEVAL_SLOT_OTHER. */
void retrieval_slot_compare(const retrieval_statement *older, const retrieval_statement *newer,
                            retrieval_slot *out);

/* The names in a statement, blank-separated, as a query for text search; the other content words
 * when there are none. Returns the bytes written to out [size], NUL excluded. */
size_t retrieval_slot_names(const retrieval_statement *statement, char *out, size_t size);

#endif
