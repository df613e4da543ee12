/* engine/folder_vocab.c: tokenizer.json of a Hugging Face folder as the tokenizer keys of GGUF.
 * Byte-level BPE with the patterns of gpt-2, smollm, llama-bpe and qwen2 (tokenizer_bpe.c), told by
 * the expression itself; everything else is refused by name. Normalisers are not applied, as in
 * llama.cpp.
 */
#include <jansson.h>
#include <string.h>

#include "base/file.h"
#include "engine/folder.h"

enum { BYTES_MAX = 1 << 28, TOKENS_MAX = 1 << 22, NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5 };

/* NULL where it is absent; *status says what is wrong with it. */
static json_t *read_json(const char *folder, const char *name, base_status *status, base_error *err)
{
    char path[4096];
    base_buffer text = {0};
    base_file_info info;
    json_error_t problem;
    json_t *json = NULL;
    if (*status || base_path_join(path, sizeof path, folder, name) ||
        base_file_stat(path, &info, NULL) ||
        (*status = base_file_read(path, BYTES_MAX, &text, err))) {
        return NULL;
    }
    if (!(json = json_loadb(text.data, text.size, JSON_ALLOW_NUL, &problem))) {
        *status =
            base_fail(err, BASE_CORRUPT, "%s: byte %d: %s", path, problem.position, problem.text);
    }
    base_buffer_free(&text);
    return json;
}

/* --- which pattern cuts the text -------------------------------------------------------------- */

#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
#define OTHERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static base_status one_pattern(const json_t *part, const char **family, const char *folder,
                               base_error *err)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const char *pattern =
        json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    if (type && strcmp(type, "Split") == 0 && pattern) {
        if (strcmp(pattern, WORDS "{1,3}" OTHERS) == 0) {
            *family = "llama-bpe";
            return BASE_OK;
        }
        if (strcmp(pattern, WORDS OTHERS) == 0) {
            *family = "qwen2";
            return BASE_OK;
        }
    } else if (type && strcmp(type, "Digits") == 0) {
        *family = "smollm";
        return BASE_OK;
    } else if (type && strcmp(type, "ByteLevel") == 0) {
        *family = *family ? *family : "gpt-2";
        return BASE_OK;
    }
    return base_fail(err, BASE_UNSUPPORTED,
                     "%s/tokenizer.json: pre-tokenizer '%.20s' with pattern '%.100s' is not "
                     "supported",
                     folder, type ? type : "(none)", pattern ? pattern : "");
}

static base_status find_pattern(const json_t *json, const char **family, const char *folder,
                                base_error *err)
{
    const json_t *pre = json_object_get(json, "pre_tokenizer");
    const json_t *parts = json_object_get(pre, "pretokenizers");
    base_status status = parts ? BASE_OK : one_pattern(pre, family, folder, err);
    for (size_t i = 0; i < json_array_size(parts) && !status; i++) {
        status = one_pattern(json_array_get(parts, i), family, folder, err);
    }
    return status || *family
               ? status
               : base_fail(err, BASE_UNSUPPORTED, "%s/tokenizer.json: no pre-tokenizer", folder);
}

/* --- tokens ----------------------------------------------------------------------------------- */

typedef struct vocabulary {
    const char **texts;
    size_t *sizes;
    int32_t *types;
    size_t count;
} vocabulary;

static bool set_token(vocabulary *v, const json_t *id, const char *text, size_t size, int32_t type)
{
    json_int_t at = json_is_integer(id) ? json_integer_value(id) : -1;
    if (!text || at < 0 || at >= TOKENS_MAX) {
        return false;
    }
    v->texts[at] = text;
    v->sizes[at] = size;
    v->types[at] = type;
    v->count = (size_t)at + 1 > v->count ? (size_t)at + 1 : v->count;
    return true;
}

static bool read_tokens(vocabulary *v, json_t *model, const json_t *added)
{
    const char *text;
    json_t *id;
    bool good = true;
    json_object_foreach(json_object_get(model, "vocab"), text, id)
    {
        good = set_token(v, id, text, strlen(text), NORMAL) && good;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i),
                     *content = json_object_get(token, "content");
        bool special = json_is_true(json_object_get(token, "special"));
        good = set_token(v, json_object_get(token, "id"), json_string_value(content),
                         json_string_length(content), special ? CONTROL : USER) &&
               good;
    }
    return good && v->count > 0;
}

static void put_tokens(const vocabulary *v, gguf_keys *keys)
{
    gguf_keys_array(keys, "tokenizer.ggml.tokens", GGUF_KEYS_TEXT, v->count);
    for (size_t i = 0; i < v->count; i++) {
        bool given = v->texts[i] != NULL;
        gguf_keys_element(keys, given ? v->texts[i] : "[unused]", given ? v->sizes[i] : 8);
    }
    gguf_keys_array(keys, "tokenizer.ggml.token_type", GGUF_KEYS_I32, v->count);
    for (size_t i = 0; i < v->count; i++) {
        gguf_keys_number(keys, GGUF_KEYS_I32, v->texts[i] ? v->types[i] : UNUSED);
    }
}

/* "a b", or ["a", "b"]. False for anything else. */
static bool put_merges(const json_t *merges, gguf_keys *keys)
{
    size_t count = json_array_size(merges);
    bool good = json_is_array(merges);
    gguf_keys_array(keys, "tokenizer.ggml.merges", GGUF_KEYS_TEXT, count);
    for (size_t i = 0; i < count && good; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *a = json_string_value(json_array_get(merge, 0)),
                   *b = json_string_value(json_array_get(merge, 1));
        if (json_is_string(merge)) {
            gguf_keys_element(keys, json_string_value(merge), json_string_length(merge));
        } else if (a && b) {
            base_buffer both = {0};
            base_status status = base_buffer_printf(&both, "%s %s", a, b);
            keys->status = keys->status ? keys->status : status;
            gguf_keys_element(keys, both.data ? both.data : "", both.size);
            base_buffer_free(&both);
        } else {
            good = false;
        }
    }
    return good;
}

static void put_id(gguf_keys *keys, const char *key, const json_t *value)
{
    const json_t *id = json_is_array(value) ? json_array_get(value, 0) : value;
    if (json_is_integer(id) && json_integer_value(id) >= 0) {
        gguf_keys_u32(keys, key, (size_t)json_integer_value(id));
    }
}

/* --- the keys --------------------------------------------------------------------------------- */

static base_status put_model(const char *folder, const json_t *json, gguf_keys *keys,
                             size_t embedding_rows, base_error *err)
{
    json_t *model = json_object_get(json, "model");
    const char *type = json_string_value(json_object_get(model, "type")), *family = NULL;
    if (!type || strcmp(type, "BPE") != 0 ||
        json_is_true(json_object_get(model, "byte_fallback"))) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s/tokenizer.json: model '%.20s' is not supported (only byte-level BPE)",
                         folder, type ? type : "(none)");
    }
    base_status status = find_pattern(json, &family, folder, err);
    if (status) {
        return status;
    }
    vocabulary v = {.texts = base_calloc(TOKENS_MAX, sizeof *v.texts),
                    .sizes = base_calloc(TOKENS_MAX, sizeof *v.sizes),
                    .types = base_calloc(TOKENS_MAX, sizeof *v.types)};
    if (!v.texts || !v.sizes || !v.types) {
        status = base_fail(err, BASE_NO_MEMORY, "%s: no memory for the tokenizer", folder);
    } else if (!read_tokens(&v, model, json_object_get(json, "added_tokens"))) {
        status =
            base_fail(err, BASE_CORRUPT, "%s/tokenizer.json: a token without text or id", folder);
    } else if (v.count > embedding_rows) {
        status = base_fail(err, BASE_CORRUPT, "%s/tokenizer.json: %zu tokens, %zu embedding rows",
                           folder, v.count, embedding_rows);
    } else {
        gguf_keys_text(keys, "tokenizer.ggml.model", "gpt2", 4);
        gguf_keys_text(keys, "tokenizer.ggml.pre", family, strlen(family));
        put_tokens(&v, keys);
        if (!put_merges(json_object_get(model, "merges"), keys)) {
            status =
                base_fail(err, BASE_CORRUPT, "%s/tokenizer.json: a merge has no two parts", folder);
        }
    }
    base_free(v.texts);
    base_free(v.sizes);
    base_free(v.types);
    return status;
}

/* A template that puts special tokens around a text, here: before it. */
static bool adds_bos(const json_t *json, const json_t *config)
{
    const json_t *said = json_object_get(config, "add_bos_token");
    const json_t *post = json_object_get(json, "post_processor");
    const json_t *parts = json_object_get(post, "processors");
    if (json_is_boolean(said)) {
        return json_is_true(said);
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        post = json_object_get(part, "single") ? part : post;
    }
    return json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken");
}

static base_status put_template(const char *folder, const json_t *config, gguf_keys *keys,
                                base_error *err)
{
    const json_t *text = json_object_get(config, "chat_template");
    char path[4096];
    base_file_info info;
    base_buffer file = {0};
    base_status status = BASE_OK;
    if (json_is_string(text)) {
        gguf_keys_text(keys, "tokenizer.chat_template", json_string_value(text),
                       json_string_length(text));
    } else if (!base_path_join(path, sizeof path, folder, "chat_template.jinja") &&
               !base_file_stat(path, &info, NULL)) {
        status = base_file_read(path, BYTES_MAX, &file, err);
        if (!status) {
            gguf_keys_text(keys, "tokenizer.chat_template", file.data ? file.data : "", file.size);
        }
        base_buffer_free(&file);
    }
    return status;
}

base_status gguf_folder_vocabulary(const char *folder, size_t embedding_rows, gguf_keys *keys,
                                   base_error *err)
{
    base_status status = BASE_OK;
    json_t *json = read_json(folder, "tokenizer.json", &status, err);
    json_t *config = read_json(folder, "tokenizer_config.json", &status, err);
    json_t *model = read_json(folder, "config.json", &status, err);
    if (!status && !json) {
        status = base_fail(err, BASE_NOT_FOUND, "%s: no tokenizer.json", folder);
    }
    if (!status) {
        status = put_model(folder, json, keys, embedding_rows, err);
    }
    if (!status) {
        put_id(keys, "tokenizer.ggml.bos_token_id", json_object_get(model, "bos_token_id"));
        put_id(keys, "tokenizer.ggml.eos_token_id", json_object_get(model, "eos_token_id"));
        gguf_keys_bool(keys, "tokenizer.ggml.add_bos_token", adds_bos(json, config));
        status = put_template(folder, config, keys, err);
    }
    json_decref(json);
    json_decref(config);
    json_decref(model);
    return status;
}
