/* engine/prompt.h: the words around memories and questions: fixed prefix, memory block, question
 * (semantics §5 "wrapper").
 *
 *   system turn | worked examples | user turn opens the fixed prefix, the same for every question
 *   Note: {title}. {text}\n                                a memory block, any number of them
 *   Question: {question}, user turn closes                 the question part
 *   assistant turn opens                                   the header
 *
 * The form is the one that
 * did best in the rows of eval/wrapper_table.md that have been measured. PROMPT_VERSION is part of
 * every KV tag: raise it with any change.
 */
#ifndef ENGINE_PROMPT_H
#define ENGINE_PROMPT_H

#include <stdint.h>

#include "engine/chat.h"

#define PROMPT_VERSION 1

/* What a model that was taught to says when the notes do not hold the answer: counts as abstaining.
 * */
#define PROMPT_NOT_HELD "The notes do not say."

typedef struct prompt {
    const chat_template *chat; /* borrowed */
    chat_ids prefix;           /* ends with the opening of a user turn */
    /* opens a further user turn behind an answer: closes that, opens this */
    chat_ids user;
    chat_ids header;           /* opens the assistant's turn */
} prompt;

base_status prompt_open(const chat_template *chat, prompt *out, base_error *err);
void prompt_close(prompt *p);

/* Append the ids of one memory block; title may be "". Text is trimmed of white space at both ends.
 * */
base_status prompt_block(const prompt *p, const char *title, const char *text, size_t size,
                         chat_ids *out, base_error *err);
/* Append the question part. */
base_status prompt_question(const prompt *p, const char *question, chat_ids *out, base_error *err);

#endif
