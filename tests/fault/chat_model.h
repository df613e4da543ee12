/* tests/fault/chat_model.h: a model file that chats: a byte vocabulary, the ChatML template and two
 * small layers of random weights. What it says means nothing; that it says it, consults memory and
 * has keys and values to keep is all that a campaign wants.
 */
#ifndef FAULT_CHAT_MODEL_H
#define FAULT_CHAT_MODEL_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/rng.h"
#include "base/text.h"
#include "tests/unit/make_gguf.h"

enum { CHAT_MODEL_LAYERS = 2, CHAT_MODEL_C = 32, CHAT_MODEL_F = 64, CHAT_MODEL_V = 260 };

static inline void chat_model_number(make_gguf *m, const char *key, uint32_t value)
{
    char name[64];
    snprintf(name, sizeof name, "llama.%s", key);
    make_key_u32(m, name, value);
}

static inline void chat_model_vocabulary(make_gguf *m)
{
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"};
    uint32_t next = 256;
    make_key_text(m, "tokenizer.ggml.model", "gpt2");
    make_key_text(m, "tokenizer.ggml.pre", "gpt-2");
    make_array(m, "tokenizer.ggml.tokens", MAKE_TEXT, CHAT_MODEL_V);
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
        char text[5] = {0};
        base_utf8_encode(printable ? byte : next++, text);
        make_text(m, text);
    }
    for (int i = 0; i < 4; i++) {
        make_text(m, special[i]);
    }
    make_array(m, "tokenizer.ggml.token_type", MAKE_I32, CHAT_MODEL_V);
    for (int i = 0; i < CHAT_MODEL_V; i++) {
        make_u32(m, i < 256 ? 1 : 3);
    }
    make_array(m, "tokenizer.ggml.merges", MAKE_TEXT, 0);
    make_key_u32(m, "tokenizer.ggml.bos_token_id", 256);
    make_key_u32(m, "tokenizer.ggml.eos_token_id", 258);
    make_key_text(m, "tokenizer.chat_template",
                  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}");
}

typedef struct chat_model_tensor {
    char name[48];
    uint32_t rows, columns;
} chat_model_tensor;

static inline size_t chat_model_tensors(chat_model_tensor list[32])
{
    static const struct {
        const char *name;
        uint32_t rows, columns;
    } layer[] = {{"attn_norm", 1, CHAT_MODEL_C},
                 {"attn_q", CHAT_MODEL_C, CHAT_MODEL_C},
                 {"attn_k", CHAT_MODEL_C, CHAT_MODEL_C},
                 {"attn_v", CHAT_MODEL_C, CHAT_MODEL_C},
                 {"attn_output", CHAT_MODEL_C, CHAT_MODEL_C},
                 {"ffn_norm", 1, CHAT_MODEL_C},
                 {"ffn_gate", CHAT_MODEL_F, CHAT_MODEL_C},
                 {"ffn_up", CHAT_MODEL_F, CHAT_MODEL_C},
                 {"ffn_down", CHAT_MODEL_C, CHAT_MODEL_F}};
    size_t count = 0;
    list[count++] = (chat_model_tensor){"token_embd.weight", CHAT_MODEL_V, CHAT_MODEL_C};
    for (int i = 0; i < CHAT_MODEL_LAYERS; i++) {
        for (size_t k = 0; k < sizeof layer / sizeof *layer; k++) {
            chat_model_tensor *t = &list[count++];
            snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", i, layer[k].name);
            t->rows = layer[k].rows;
            t->columns = layer[k].columns;
        }
    }
    list[count++] = (chat_model_tensor){"output_norm.weight", 1, CHAT_MODEL_C};
    return count;
}

/* Write the file; false when it cannot be written. */
static inline bool chat_model_write(const char *path)
{
    make_gguf m = {0};
    chat_model_tensor tensors[32];
    base_rng rng;
    uint64_t offset = 0;
    size_t count = chat_model_tensors(tensors);
    base_rng_seed(&rng, 7);
    make_header(&m, 3, count, 15);
    make_key_text(&m, "general.architecture", "llama");
    chat_model_number(&m, "block_count", CHAT_MODEL_LAYERS);
    chat_model_number(&m, "embedding_length", CHAT_MODEL_C);
    chat_model_number(&m, "attention.head_count", 2);
    chat_model_number(&m, "attention.head_count_kv", 2);
    chat_model_number(&m, "feed_forward_length", CHAT_MODEL_F);
    chat_model_number(&m, "context_length", 4096);
    chat_model_vocabulary(&m);
    for (size_t i = 0; i < count; i++) {
        make_text(&m, tensors[i].name);
        make_u32(&m, tensors[i].rows == 1 ? 1 : 2);
        make_u64(&m, tensors[i].columns);
        if (tensors[i].rows > 1) {
            make_u64(&m, tensors[i].rows);
        }
        make_u32(&m, 0); /* F32 */
        make_u64(&m, offset);
        offset += ((uint64_t)tensors[i].rows * tensors[i].columns * 4 + 31) / 32 * 32;
    }
    make_padding(&m, 32);
    for (size_t i = 0; i < count; i++) {
        bool vector = tensors[i].rows == 1;
        float scale = vector ? 0.1f : 1.0f / sqrtf((float)tensors[i].columns);
        for (uint32_t k = 0; k < tensors[i].rows * tensors[i].columns; k++) {
            make_f32(&m, (vector ? 1.0f : 0.0f) + scale * (float)base_rng_normal(&rng));
        }
        make_padding(&m, 32);
    }
    FILE *file = fopen(path, "wb");
    bool good = file && fwrite(m.data, 1, m.size, file) == m.size;
    good = file && fclose(file) == 0 && good;
    make_free(&m);
    return good;
}

#endif
