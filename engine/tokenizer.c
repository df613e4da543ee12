/* engine/tokenizer.c: loads a byte-level BPE tokenizer from GGUF metadata and answers about single
 * tokens. Encoding is in tokenizer_bpe.c, WordPiece in wordpiece.c. Not here: SentencePiece.
 *
 * Tokens of type "control" can only be had by name (tokenizer_special): encoding never yields one.
 * Those of type "user defined" are cut out of the text before the pattern runs, as llama.cpp does,
 * unless they are written <|like this|> or end a turn: then they are control tokens too.
 */
#include "engine/tokenizer.h"

#include <string.h>

#include "base/text.h"
#include "engine/tokenizer_bpe.h"

enum { TOKENS_MAX = 1 << 22 /* chosen: ten times the largest vocabulary known */ };

/* --- symbols ---------------------------------------------------------------------------------- */

/* Add a symbol at the end of the list, without making it findable. */
static base_status append_symbol(tokenizer *t, const char *bytes, size_t size, base_error *err)
{
    if (t->symbol_count + 1 >= t->symbol_capacity) {
        size_t capacity = t->symbol_capacity ? 2 * t->symbol_capacity : 1024;
        uint32_t *starts = base_realloc(t->starts, capacity * sizeof *starts);
        if (!starts) {
            return base_fail(err, BASE_NO_MEMORY, "out of memory for the tokenizer");
        }
        starts[0] = 0;
        t->starts = starts;
        t->symbol_capacity = capacity;
    }
    base_status status = base_buffer_append(&t->bytes, bytes, size);
    if (status) {
        return base_fail(err, status, "no room for the token texts");
    }
    t->symbol_count++;
    t->starts[t->symbol_count] = (uint32_t)t->bytes.size;
    return BASE_OK;
}

/* The symbol of these bytes, made if there is none. */
static base_status intern(tokenizer *t, const char *bytes, size_t size, uint32_t *symbol,
                          base_error *err)
{
    uint32_t *slot = tokenizer_symbol_slot(t, bytes, size);
    if (*slot == 0) {
        base_status status = append_symbol(t, bytes, size, err);
        if (status) {
            return status;
        }
        *slot = (uint32_t)t->symbol_count;
    }
    *symbol = *slot - 1;
    return BASE_OK;
}

/* GPT-2 writes bytes as printable characters: those that are printable stand for themselves, the
 * others follow from U+0100 on in order. Returns the byte, or -1 for a character outside that
 * alphabet. */
static int alphabet_byte(uint32_t code_point)
{
    if ((code_point >= 0x21 && code_point <= 0x7e) || (code_point >= 0xa1 && code_point <= 0xac) ||
        (code_point >= 0xae && code_point <= 0xff)) {
        return (int)code_point;
    }
    if (code_point >= 0x100 && code_point <= 0x120) { /* bytes 00 to 20 */
        return (int)(code_point - 0x100);
    }
    if (code_point >= 0x121 && code_point <= 0x142) { /* bytes 7f to a0 */
        return (int)(code_point - 0x121 + 0x7f);
    }
    return code_point == 0x143 ? 0xad : -1;
}

/* Bytes of a text in that alphabet. False (with the text itself in out) if a character is not of
 * it. */
static bool decode_alphabet(const char *text, size_t size, base_buffer *out, base_status *status)
{
    base_buffer_clear(out);
    for (size_t at = 0; at < size;) {
        uint32_t code_point;
        at += base_utf8_decode(text + at, size - at, &code_point);
        int byte = alphabet_byte(code_point);
        if (byte < 0) {
            base_buffer_clear(out);
            *status = base_buffer_append(out, text, size);
            return false;
        }
        char c = (char)(unsigned char)byte;
        *status = base_buffer_append(out, &c, 1);
        if (*status) {
            return false;
        }
    }
    *status = BASE_OK;
    return true;
}

/* --- loading ---------------------------------------------------------------------------------- */

static base_status load_id(const gguf_file *file, const char *key, size_t vocabulary, int32_t *id,
                           base_error *err)
{
    uint64_t value;
    *id = -1;
    if (!gguf_get_u64(file, key, &value)) {
        return BASE_OK;
    }
    if (value >= vocabulary) {
        return base_fail(err, BASE_CORRUPT, "%s: key '%s': no token %llu in a vocabulary of %zu",
                         gguf_path(file), key, (unsigned long long)value, vocabulary);
    }
    *id = (int32_t)value;
    return BASE_OK;
}

static bool text_is(const char *bytes, size_t size, const char *text)
{
    return size == strlen(text) && memcmp(bytes, text, size) == 0;
}

/* Names under which the model families end a turn or a text. */
static bool names_an_end(const char *bytes, size_t size)
{
    static const char *const names[] = {
        "<|im_end|>", "<|endoftext|>", "<|eot_id|>",      "<|eom_id|>", "<|end_of_text|>",
        "<|end|>",    "<end_of_turn>", "<|end_of_turn|>", "</s>",       "<EOT>",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (text_is(bytes, size, names[i])) {
            return true;
        }
    }
    return false;
}

static bool looks_special(const char *bytes, size_t size)
{
    return size > 4 && memcmp(bytes, "<|", 2) == 0 && memcmp(bytes + size - 2, "|>", 2) == 0;
}

/* GGUF token types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. Without them,
 * names decide. */
static tokenizer_kind kind_of(int64_t type, const char *bytes, size_t size)
{
    switch (type) {
    case 2:
    case 3:
    case 5:
        return TOKENIZER_SPECIAL;
    case 4:
        return looks_special(bytes, size) || names_an_end(bytes, size) ? TOKENIZER_SPECIAL
                                                                       : TOKENIZER_USER;
    case 0:
        return looks_special(bytes, size) ? TOKENIZER_SPECIAL : TOKENIZER_NORMAL;
    default:
        return TOKENIZER_NORMAL;
    }
}

static base_status load_tokens(tokenizer *t, const gguf_file *file, base_error *err)
{
    base_status status = BASE_OK;
    base_buffer decoded = {0};
    size_t type_count = 0;
    bool typed = gguf_array_count(file, "tokenizer.ggml.token_type", &type_count);
    if (typed && type_count != t->vocabulary) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: key 'tokenizer.ggml.token_type': %zu types for %zu "
                         "tokens",
                         gguf_path(file), type_count, t->vocabulary);
    }
    for (size_t i = 0; i < t->vocabulary && !status; i++) {
        gguf_text text;
        int64_t type = 0;
        if (!gguf_array_text(file, "tokenizer.ggml.tokens", i, &text) ||
            (typed && !gguf_array_i64(file, "tokenizer.ggml.token_type", i, &type))) {
            status = base_fail(err, BASE_CORRUPT, "%s: token %zu has no text or type",
                               gguf_path(file), i);
            break;
        }
        tokenizer_kind kind = kind_of(type, text.data, text.size);
        if ((int32_t)i == t->bos || (int32_t)i == t->eos) {
            kind = TOKENIZER_SPECIAL;
        }
        t->kinds[i] = (uint8_t)kind;
        t->ends[i] = kind == TOKENIZER_SPECIAL && names_an_end(text.data, text.size);
        bool findable =
            kind == TOKENIZER_NORMAL && decode_alphabet(text.data, text.size, &decoded, &status);
        if (status) {
            base_fail(err, status, "%s: token %zu", gguf_path(file), i);
        } else if (kind == TOKENIZER_NORMAL) {
            status = append_symbol(t, decoded.data ? decoded.data : "", decoded.size, err);
        } else {
            status = append_symbol(t, text.data, text.size, err);
        }
        if (!status && findable && decoded.size > 0) {
            *tokenizer_symbol_slot(t, decoded.data, decoded.size) =
                (uint32_t)i + 1; /* the last of equals */
        }
        t->user_count += kind == TOKENIZER_USER;
    }
    base_buffer_free(&decoded);
    return status;
}

static base_status load_merge(tokenizer *t, const gguf_file *file, size_t rank,
                              base_buffer *decoded, base_error *err)
{
    gguf_text text;
    if (!gguf_array_text(file, "tokenizer.ggml.merges", rank, &text)) {
        return base_fail(err, BASE_CORRUPT, "%s: merge %zu is no text", gguf_path(file), rank);
    }
    const char *space = text.size > 1 ? memchr(text.data + 1, ' ', text.size - 1) : NULL;
    if (!space) {
        return base_fail(err, BASE_CORRUPT, "%s: merge %zu has no two parts", gguf_path(file),
                         rank);
    }
    size_t left_size = (size_t)(space - text.data);
    uint32_t left, right, result;
    base_status status;
    if (!decode_alphabet(text.data, left_size, decoded, &status)) {
        return status; /* characters that no text has: never applies */
    }
    size_t cut = decoded->size;
    base_buffer tail = {0};
    if (!decode_alphabet(space + 1, text.size - left_size - 1, &tail, &status)) {
        base_buffer_free(&tail);
        return status;
    }
    status = tail.size ? base_buffer_append(decoded, tail.data, tail.size) : BASE_OK;
    size_t size = decoded->size;
    base_buffer_free(&tail);
    if (status || cut == size) {
        return base_fail(err, status ? status : BASE_CORRUPT, "%s: merge %zu is empty or too long",
                         gguf_path(file), rank);
    }
    status = intern(t, decoded->data, cut, &left, err);
    if (!status) {
        status = intern(t, decoded->data + cut, size - cut, &right, err);
    }
    if (!status) {
        status = intern(t, decoded->data, size, &result, err);
    }
    if (status) {
        return status;
    }
    tokenizer_merge *slot = tokenizer_merge_slot(t, tokenizer_pair(left, right));
    if (slot->rank == TOKENIZER_NO_RANK) { /* the first of equals */
        *slot = (tokenizer_merge){tokenizer_pair(left, right), (uint32_t)rank, result};
    }
    return BASE_OK;
}

/* Longest first, then by id, by insertion: these are few. */
static base_status collect_users(tokenizer *t, base_error *err)
{
    t->users = base_calloc(t->user_count, sizeof *t->users);
    if (!t->users) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the tokenizer");
    }
    size_t count = 0;
    for (size_t i = 0; i < t->vocabulary; i++) {
        size_t size, other;
        if (t->kinds[i] != TOKENIZER_USER) {
            continue;
        }
        tokenizer_symbol_bytes(t, i, &size);
        if (size == 0) {
            continue;
        }
        size_t at = count++;
        while (at > 0 &&
               (tokenizer_symbol_bytes(t, (size_t)t->users[at - 1], &other), other < size)) {
            t->users[at] = t->users[at - 1];
            at--;
        }
        t->users[at] = (int32_t)i;
    }
    t->user_count = count;
    return BASE_OK;
}

/* Room for every token, single byte, and three symbols a merge. */
static base_status allocate(tokenizer *t, size_t merge_count, base_error *err)
{
    t->slot_count = 1024;
    while (t->slot_count < 2 * (t->vocabulary + 256 + 3 * merge_count)) {
        t->slot_count *= 2;
    }
    t->merge_slots = 16;
    while (t->merge_slots < 2 * merge_count) {
        t->merge_slots *= 2;
    }
    t->slots = base_calloc(t->slot_count, sizeof *t->slots);
    t->merges = base_calloc(t->merge_slots, sizeof *t->merges);
    t->kinds = base_calloc(t->vocabulary, sizeof *t->kinds);
    t->ends = base_calloc(t->vocabulary, sizeof *t->ends);
    if (!t->slots || !t->merges || !t->kinds || !t->ends) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the tokenizer");
    }
    for (size_t i = 0; i < t->merge_slots; i++) {
        t->merges[i].rank = TOKENIZER_NO_RANK;
    }
    return BASE_OK;
}

static base_status load_merges(tokenizer *t, const gguf_file *file, size_t merge_count,
                               base_error *err)
{
    base_status status = BASE_OK;
    base_buffer decoded = {0};
    for (unsigned byte = 0; byte < 256 && !status; byte++) {
        char c = (char)(unsigned char)byte;
        status = intern(t, &c, 1, &t->byte_symbols[byte], err);
    }
    for (size_t i = 0; i < merge_count && !status; i++) {
        status = load_merge(t, file, i, &decoded, err);
    }
    base_buffer_free(&decoded);
    return status;
}

/* Ids of single tokens; every key may be absent. */
static base_status load_ids(tokenizer *t, const gguf_file *file, base_error *err)
{
    base_status status = load_id(file, "tokenizer.ggml.bos_token_id", t->vocabulary, &t->bos, err);
    return status ? status
                  : load_id(file, "tokenizer.ggml.eos_token_id", t->vocabulary, &t->eos, err);
}

static base_status mark_ends(tokenizer *t, const gguf_file *file, base_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < 2; i++) {
        int32_t id;
        base_status status = load_id(file, keys[i], t->vocabulary, &id, err);
        if (status) {
            return status;
        }
        if (id >= 0) {
            t->ends[id] = true;
        }
    }
    if (t->eos >= 0) {
        t->ends[t->eos] = true;
    }
    return BASE_OK;
}

static base_status load(tokenizer *t, const gguf_file *file, base_error *err)
{
    gguf_text model, name = {"(none given)", 12};
    if (!gguf_get_text(file, "tokenizer.ggml.model", &model)) {
        return base_fail(err, BASE_CORRUPT, "%s: key 'tokenizer.ggml.model' is missing",
                         gguf_path(file));
    }
    if (!text_is(model.data, model.size, "gpt2")) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: tokenizer model '%.*s' is not supported "
                         "(only 'gpt2', byte-level BPE)",
                         gguf_path(file), (int)(model.size < 64 ? model.size : 64), model.data);
    }
    gguf_get_text(file, "tokenizer.ggml.pre", &name);
    const tokenizer_family *pre = tokenizer_bpe_family(name);
    if (!pre) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: pre-tokenizer '%.*s' is not supported "
                         "(smollm, gpt-2, llama-bpe and qwen2 are)",
                         gguf_path(file), (int)(name.size < 64 ? name.size : 64), name.data);
    }
    size_t merge_count = 0;
    if (!gguf_array_count(file, "tokenizer.ggml.tokens", &t->vocabulary) || t->vocabulary == 0 ||
        t->vocabulary > TOKENS_MAX) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: key 'tokenizer.ggml.tokens' is missing or has an "
                         "absurd size",
                         gguf_path(file));
    }
    if (!gguf_array_count(file, "tokenizer.ggml.merges", &merge_count) ||
        merge_count > TOKENS_MAX) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: key 'tokenizer.ggml.merges' is missing or has an "
                         "absurd size",
                         gguf_path(file));
    }
    t->whole_words = pre->whole_words;
    t->adds_bos = pre->adds_bos;
    gguf_get_bool(file, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    base_status status = tokenizer_bpe_compile(pre, &t->pattern, err);
    if (!status) {
        status = allocate(t, merge_count, err);
    }
    if (!status) {
        status = load_ids(t, file, err);
    }
    if (!status) {
        status = load_tokens(t, file, err);
    }
    if (!status) {
        status = mark_ends(t, file, err);
    }
    if (!status) {
        status = load_merges(t, file, merge_count, err);
    }
    return status ? status : collect_users(t, err);
}

base_status tokenizer_open(const gguf_file *file, tokenizer **out, base_error *err)
{
    tokenizer *t = base_calloc(1, sizeof *t);
    if (!t) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the tokenizer");
    }
    base_status status = load(t, file, err);
    if (status) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return BASE_OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) {
        return;
    }
    tokenizer_bpe_free_pattern(t->pattern);
    base_buffer_free(&t->bytes);
    base_free(t->starts);
    base_free(t->kinds);
    base_free(t->ends);
    base_free(t->slots);
    base_free(t->merges);
    base_free(t->users);
    base_free(t);
}

/* --- single tokens ---------------------------------------------------------------------------- */

base_status tokenizer_decode(const tokenizer *t, int32_t id, bool show_special, base_buffer *out)
{
    if (id < 0 || (size_t)id >= t->vocabulary) {
        return BASE_INVALID;
    }
    if (t->kinds[id] == TOKENIZER_SPECIAL && !show_special) {
        return BASE_OK;
    }
    size_t size;
    const char *bytes = tokenizer_symbol_bytes(t, (size_t)id, &size);
    return base_buffer_append(out, bytes, size);
}

int32_t tokenizer_special(const tokenizer *t, const char *text)
{
    for (size_t i = 0; i < t->vocabulary; i++) {
        size_t size;
        const char *bytes = tokenizer_symbol_bytes(t, i, &size);
        if (t->kinds[i] != TOKENIZER_NORMAL && text_is(bytes, size, text)) {
            return (int32_t)i;
        }
    }
    return -1;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t)
{
    return t->adds_bos;
}

bool tokenizer_is_end(const tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocabulary && t->ends[id];
}

size_t tokenizer_vocabulary(const tokenizer *t)
{
    return t->vocabulary;
}
