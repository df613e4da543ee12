/* engine/chat.h: the model's chat template as token ids. Known templates are recognised from
 * tokenizer.chat_template (ChatML, Llama-3, Zephyr, Gemma, Mistral [INST] ...); an unknown one is
 * refused by name (its first characters). Text inside a turn is data: special tokens only where the
 * template itself puts them.
 */
#ifndef ENGINE_CHAT_H
#define ENGINE_CHAT_H

#include "engine/tokenizer.h"

typedef enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } chat_role;
typedef struct chat_template chat_template;

/* Borrowed tokenizer must outlive it. Errors: BASE_UNSUPPORTED. */
base_status chat_open(const gguf_file *file, const tokenizer *t, chat_template **out,
                      base_error *err);
void chat_close(chat_template *c);
const char *chat_name(const chat_template *c); /* "chatml", ... */

/* A growing list of ids. */
typedef struct chat_ids {
    int32_t *ids; /* base_free */
    size_t count, capacity;
} chat_ids;
void chat_ids_free(chat_ids *ids);
base_status chat_ids_append(chat_ids *ids, const int32_t *more, size_t count);

/* Append the pieces of a turn. begin: BOS of a conversation if the template has one. open:
 * everything before a turn's text ("<|im_start|>user\n"); text: plain text; close: everything after
 * it ("<|im_end|>\n"). The assistant header is chat_open_turn(CHAT_ASSISTANT). */
base_status chat_begin(const chat_template *c, chat_ids *ids, base_error *err);
base_status chat_open_turn(const chat_template *c, chat_role role, chat_ids *ids, base_error *err);
base_status chat_text(const chat_template *c, const char *text, size_t size, chat_ids *ids,
                      base_error *err);
base_status chat_close_turn(const chat_template *c, chat_role role, chat_ids *ids, base_error *err);

#endif
