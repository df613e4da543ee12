/* engine/tokenizer.h: text <-> token ids. Byte-level BPE (Sennrich et al. 2016; GPT-2 byte
 * alphabet) from GGUF metadata, with the pre-tokenizers `smollm`, `gpt-2`, `llama-bpe`, `qwen2`
 * (patterns run by PCRE2), and WordPiece (Devlin et al. 2019) for the text encoder.
 */
#ifndef ENGINE_TOKENIZER_H
#define ENGINE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "engine/gguf.h"

typedef struct tokenizer tokenizer;

/* From tokenizer.ggml.* keys. Errors: BASE_UNSUPPORTED names the unknown model or pre-tokenizer;
 * BASE_CORRUPT. */
base_status tokenizer_open(const gguf_file *file, tokenizer **out, base_error *err);
void tokenizer_close(tokenizer *t);

/* Tokenize text as *data*: special tokens in it are never parsed as special. *ids [*count] freed by
 * base_free. A byte that begins no UTF-8 character is read as U+FFFD, as in llama.cpp. Thread-safe
 * on a shared tokenizer. Errors: BASE_NO_MEMORY, BASE_LIMIT (longer than 715 million bytes). */
base_status tokenizer_encode(const tokenizer *t, const char *text, size_t size, int32_t **ids,
                             size_t *count, base_error *err);
/* Append the bytes of one id to out. Special tokens give "" unless show_special. A code point may
 * span several ids. */
base_status tokenizer_decode(const tokenizer *t, int32_t id, bool show_special, base_buffer *out);

/* Id of "<|im_start|>" etc., -1 when absent. Looks through the vocabulary. */
int32_t tokenizer_special(const tokenizer *t, const char *text);
int32_t tokenizer_bos(const tokenizer *t); /* -1 when none */
int32_t tokenizer_eos(const tokenizer *t);
bool tokenizer_adds_bos(const tokenizer *t);           /* plain text begins with BOS */
bool tokenizer_is_end(const tokenizer *t, int32_t id); /* any end-of-turn or end-of-text token */
size_t tokenizer_vocabulary(const tokenizer *t);

/* WordPiece, uncased as in BERT: vocabulary one token a line. */
typedef struct wordpiece wordpiece;
base_status tokenizer_wordpiece_open(const char *vocabulary_path, wordpiece **out, base_error *err);
void tokenizer_wordpiece_close(wordpiece *w);
size_t tokenizer_wordpiece_vocabulary(const wordpiece *w);
/* [CLS] ... [SEP], at most ids_max ids (cut before [SEP]); returns the count. */
size_t tokenizer_wordpiece_encode(const wordpiece *w, const char *text, size_t size, int32_t *ids,
                                  size_t ids_max);

#endif
