/* tests/fuzz/fuzz_gguf.c: the GGUF loader: the file's tables, then tokenizer, chat template and
 * weights of what it accepts, each of which may refuse it. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/chat.h"
#include "engine/core.h"
#include "engine/gguf.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_words[] = {"GGUF",
                                  "general.architecture",
                                  "llama",
                                  "qwen2",
                                  "qwen3",
                                  "bmojo",
                                  "llama.block_count",
                                  "llama.embedding_length",
                                  "llama.attention.head_count",
                                  "general.alignment",
                                  "tokenizer.ggml.tokens",
                                  "tokenizer.ggml.merges",
                                  "tokenizer.ggml.model",
                                  "token_embd.weight",
                                  "output.weight",
                                  "blk.0.attn_q.weight",
                                  "\x08\x00\x00\x00\x00\x00\x00\x00",
                                  NULL};

static void look_at_tables(const gguf_file *file, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        FUZZ_CHECK(t->dimensions >= 1 && t->dimensions <= 4);
        FUZZ_CHECK(t->size == 0 || (t->data >= data && t->data + t->size <= data + size));
    }
    for (size_t i = 0; i < gguf_key_count(file); i++) {
        gguf_text key, element;
        char value[64], name[256];
        size_t bytes = 0, count = 0;
        int64_t number;
        double real;
        gguf_key_at(file, i, &key, value, sizeof value);
        FUZZ_CHECK(gguf_key_bytes(file, i, &bytes) >= data && bytes <= size);
        snprintf(name, sizeof name, "%.*s", (int)(key.size < 255 ? key.size : 255), key.data);
        if (gguf_array_count(file, name, &count) && count > 0) {
            gguf_array_text(file, name, count - 1, &element);
            gguf_array_i64(file, name, count - 1, &number);
            gguf_array_f64(file, name, count - 1, &real);
            FUZZ_CHECK(!gguf_array_text(file, name, count, &element));
        }
    }
}

static void tokenize(const gguf_file *file)
{
    static const char text[] = "Two kettles, <|im_start|> 17 cups\n\xc3\xa9\xff";
    base_error err = {0};
    tokenizer *t = NULL;
    chat_template *chat = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    base_buffer said = {0};
    base_status status = tokenizer_open(file, &t, &err);
    if (!status && tokenizer_encode(t, text, sizeof text - 1, &ids, &count, &err) == BASE_OK) {
        for (size_t i = 0; i < count; i++) {
            FUZZ_CHECK(ids[i] >= 0 && (size_t)ids[i] < tokenizer_vocabulary(t));
            tokenizer_decode(t, ids[i], true, &said);
        }
    }
    if (!status && chat_open(file, t, &chat, &err) == BASE_OK) {
        chat_ids turn = {0};
        chat_begin(chat, &turn, &err);
        chat_open_turn(chat, CHAT_USER, &turn, &err);
        chat_text(chat, text, sizeof text - 1, &turn, &err);
        chat_close_turn(chat, CHAT_USER, &turn, &err);
        chat_ids_free(&turn);
    }
    base_buffer_free(&said);
    base_free(ids);
    chat_close(chat);
    tokenizer_close(t);
}

/* The model loader takes a path. */
static void load(const uint8_t *data, size_t size)
{
    char path[64];
    base_error err = {0};
    core_model *model = NULL;
    int fd = memfd_create("f.gguf", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    base_status status = core_model_open(path, NULL, NULL, &model, &err);
    FUZZ_CHECK(!status || (err.code == status && err.text[0]));
    FUZZ_CHECK(status || core_model_shape(model)->layers > 0);
    core_model_close(model);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    base_error err = {0};
    gguf_file *file = NULL;
    base_status status = gguf_open_memory("f.gguf", data, size, &file, &err);
    FUZZ_CHECK(!status || (err.code == status && err.text[0]));
    if (!status) {
        look_at_tables(file, data, size);
        tokenize(file);
        gguf_close(file);
        load(data, size);
    }
    return 0;
}
