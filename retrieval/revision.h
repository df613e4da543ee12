/* retrieval/revision.h: is one document a later version of another, under another id? Pure
 * functions of their words.
 *
 * Wikis, standards and exported notes keep their versions as separate documents, with hardly a new
 * sentence and several changed fields. slot.h, which looks for one value in one sentence, leaves
 * those open. Texts are compared by the sets of their three-word shingles (Broder 1997), titles by
 * words, figures by themselves: "release 2.14.15 ..." is no version of "release 2.15.3 ..." however
 * alike the sentences are.
 */
#ifndef RETRIEVAL_REVISION_H
#define RETRIEVAL_REVISION_H

#include "retrieval/slot.h"

/* Whole documents. False for fewer than 24 words: short texts are alike by chance, as those of a
 * list are. At most the first 256 words are read. */
bool retrieval_is_revision(const retrieval_statement *older, const retrieval_statement *newer);

/* Parts of two versions: do they stand in one place and differ? */
bool retrieval_is_revised_part(const char *older, size_t older_size, const char *newer,
                               size_t newer_size);

#endif
