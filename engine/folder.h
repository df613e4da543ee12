/* engine/folder.h: a model in a Hugging Face folder (config.json, model*.safetensors,
 * tokenizer.json), seen as a GGUF file: keys and names are those of the GGUF architecture, big
 * matrices stay where the maps of the safetensors files have them. */
#ifndef ENGINE_FOLDER_H
#define ENGINE_FOLDER_H

#include "engine/gguf.h"
#include "engine/gguf_keys.h"

/* Is there a folder with a config.json at `path`? */
bool gguf_is_folder(const char *path);
/* LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Mamba2ForCausalLM,
 * GraniteMoeHybridForCausalLM (without experts), HybridQwen3ForCausalLM. Errors: BASE_NOT_FOUND,
 * BASE_CORRUPT (a tensor that is missing, named), BASE_UNSUPPORTED (what the config asks for,
 * named), BASE_NO_MEMORY. */
base_status gguf_open_folder(const char *path, gguf_file **out, base_error *err);

/* --- folder_vocab.c --------------------------------------------------------------------------- */

/* The tokenizer's keys from tokenizer.json, tokenizer_config.json and config.json's ids. */
base_status gguf_folder_vocabulary(const char *path, size_t embedding_rows, gguf_keys *keys,
                                   base_error *err);

#endif
