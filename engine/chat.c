/* engine/chat.c: chat templates as token ids.
 *
 * A GGUF file carries its template as a Jinja program. That program is not run: the families below
 * are told apart by the markers in its text, and what each puts around a turn is written down here.
 * Each marker must be a special token of the vocabulary, so that text cannot imitate a turn; where
 * it is not (TinyLlama and Zephyr write <|user|> as plain text, Llama-2 does so with [INST]) the
 * model is refused by name.
 *
 * Turns are built explicitly: a system turn that a template would add by itself when none is given
 * (SmolLM2, Qwen2) is not added. Gemma and Mistral have no system role: its text becomes a user
 * turn of its own. Template text and turn text are tokenised apart; that equals tokenising them
 * together unless the turn's text begins or ends with white space.
 */
#include "engine/chat.h"

#include <string.h>

#include "base/mem.h"

enum { CHAT_ROLES = 3, CHAT_MARKERS_MAX = 6, CHAT_IDS_MAX = 1 << 28 };

/* Text around turns: `...` is a special token, `eos` and `bos` those of the vocabulary. */
typedef struct chat_family {
    const char *name;
    const char *marks[CHAT_MARKERS_MAX]; /* all must stand in the template */
    const char *never;                   /* must not stand in it; NULL = no such */
    const char *open[CHAT_ROLES];
    const char *close[CHAT_ROLES];
    bool always_bos; /* also where the template does not name it */
} chat_family;

/* The first that fits is taken, so a family stands before those whose marks are a part of its
 * own. */
static const chat_family families[] = {
    {.name = "chatml",
     .marks = {"<|im_start|>", "<|im_end|>"},
     .never = "<|im_sep|>",
     .open = {"`<|im_start|>`system\n", "`<|im_start|>`user\n", "`<|im_start|>`assistant\n"},
     .close = {"`<|im_end|>`\n", "`<|im_end|>`\n", "`<|im_end|>`\n"}},
    {.name = "llama-3",
     .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .open = {"`<|start_header_id|>`system`<|end_header_id|>`\n\n",
              "`<|start_header_id|>`user`<|end_header_id|>`\n\n",
              "`<|start_header_id|>`assistant`<|end_header_id|>`\n\n"},
     .close = {"`<|eot_id|>`", "`<|eot_id|>`", "`<|eot_id|>`"},
     .always_bos = true},
    {.name = "gemma",
     .marks = {"<start_of_turn>", "<end_of_turn>"},
     .open = {"`<start_of_turn>`user\n", "`<start_of_turn>`user\n", "`<start_of_turn>`model\n"},
     .close = {"`<end_of_turn>`\n", "`<end_of_turn>`\n", "`<end_of_turn>`\n"},
     .always_bos = true},
    {.name = "phi-3",
     .marks = {"<|user|>", "<|assistant|>", "<|end|>"},
     .open = {"`<|system|>`\n", "`<|user|>`\n", "`<|assistant|>`\n"},
     .close = {"`<|end|>`\n", "`<|end|>`\n", "`<|end|>`\n"}},
    {.name = "zephyr",
     .marks = {"<|user|>", "<|assistant|>", "eos_token"},
     .open = {"`<|system|>`\n", "`<|user|>`\n", "`<|assistant|>`\n"},
     .close = {"`eos`\n", "`eos`\n", "`eos`\n"}},
    {.name = "llama-2",
     .marks = {"[INST]", "[/INST]", "<<SYS>>"},
     .open = {"`[INST]` `<<SYS>>`\n", "`[INST]` ", ""},
     .close = {"\n`<</SYS>>` `[/INST]`", " `[/INST]`", "`eos`"},
     .always_bos = true},
    {.name = "mistral-spaced",
     .marks = {"[INST] ", "[/INST]"},
     .open = {"`[INST]` ", "`[INST]` ", ""},
     .close = {" `[/INST]`", " `[/INST]`", "`eos`"},
     .always_bos = true},
    {.name = "mistral",
     .marks = {"[INST]", "[/INST]"},
     .open = {"`[INST]`", "`[INST]`", ""},
     .close = {"`[/INST]`", "`[/INST]`", "`eos`"},
     .always_bos = true},
};

struct chat_template {
    const chat_family *family;
    const tokenizer *tokenizer;
    chat_ids open[CHAT_ROLES], close[CHAT_ROLES];
    int32_t bos; /* -1 = conversations begin without */
};

/* --- lists of ids ----------------------------------------------------------------------------- */

void chat_ids_free(chat_ids *ids)
{
    base_free(ids->ids);
    *ids = (chat_ids){0};
}

base_status chat_ids_append(chat_ids *ids, const int32_t *more, size_t count)
{
    if (count > CHAT_IDS_MAX - ids->count) {
        return BASE_LIMIT;
    }
    if (ids->count + count > ids->capacity) {
        size_t capacity = ids->count + count + ids->capacity + 16;
        int32_t *grown = base_realloc(ids->ids, capacity * sizeof *grown);
        if (!grown) {
            return BASE_NO_MEMORY;
        }
        ids->ids = grown;
        ids->capacity = capacity;
    }
    if (count > 0) {
        memcpy(ids->ids + ids->count, more, count * sizeof *more);
        ids->count += count;
    }
    return BASE_OK;
}

static base_status append(chat_ids *ids, const int32_t *more, size_t count, base_error *err)
{
    base_status status = chat_ids_append(ids, more, count);
    return status
               ? base_fail(err, status, "no room for %zu more tokens behind %zu", count, ids->count)
               : BASE_OK;
}

/* --- recognising a template ------------------------------------------------------------------- */

static bool contains(gguf_text text, const char *what)
{
    size_t size = strlen(what);
    for (size_t at = 0; at + size <= text.size; at++) {
        if (memcmp(text.data + at, what, size) == 0) {
            return true;
        }
    }
    return false;
}

static const chat_family *recognise(gguf_text text)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        bool fits = families[i].never == NULL || !contains(text, families[i].never);
        for (size_t m = 0; m < CHAT_MARKERS_MAX && families[i].marks[m] && fits; m++) {
            fits = contains(text, families[i].marks[m]);
        }
        if (fits) {
            return &families[i];
        }
    }
    return NULL;
}

static int32_t find_marker(const tokenizer *t, const char *marker)
{
    if (strcmp(marker, "eos") == 0) {
        return tokenizer_eos(t);
    }
    return tokenizer_special(t, marker);
}

/* Append plain text as ids. */
static base_status append_text(const tokenizer *t, const char *text, size_t size, chat_ids *ids,
                               base_error *err)
{
    int32_t *found = NULL;
    size_t count = 0;
    base_status status = tokenizer_encode(t, text, size, &found, &count, err);
    if (!status) {
        status = append(ids, found, count, err);
    }
    base_free(found);
    return status;
}

/* Text with `special` parts into ids. */
static base_status compile(const chat_template *c, const char *piece, chat_ids *ids,
                           base_error *err)
{
    base_status status = BASE_OK;
    while (*piece && !status) {
        size_t size = strcspn(piece, "`");
        if (size > 0) {
            status = append_text(c->tokenizer, piece, size, ids, err);
            piece += size;
            continue;
        }
        char marker[40];
        size = strcspn(++piece, "`");
        BASE_ASSERT(size < sizeof marker);
        memcpy(marker, piece, size);
        marker[size] = '\0';
        int32_t id = find_marker(c->tokenizer, marker);
        if (id < 0) {
            return base_fail(err, BASE_UNSUPPORTED,
                             "chat template '%s': its marker %s is no special token of this "
                             "vocabulary, so that text could imitate a turn",
                             c->family->name, marker);
        }
        status = append(ids, &id, 1, err);
        piece += size + 1;
    }
    return status;
}

static base_status load(chat_template *c, const gguf_file *file, base_error *err)
{
    gguf_text text;
    if (!gguf_get_text(file, "tokenizer.chat_template", &text)) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: the model has no chat template",
                         gguf_path(file));
    }
    c->family = recognise(text);
    if (!c->family) {
        char head[81];
        size_t size = text.size < sizeof head - 1 ? text.size : sizeof head - 1;
        for (size_t i = 0; i < size; i++) {
            head[i] = (unsigned char)text.data[i] < 32 ? ' ' : text.data[i];
        }
        head[size] = '\0';
        return base_fail(err, BASE_UNSUPPORTED, "%s: unknown chat template: %s...", gguf_path(file),
                         head);
    }
    for (size_t role = 0; role < CHAT_ROLES; role++) {
        base_status status = compile(c, c->family->open[role], &c->open[role], err);
        if (!status) {
            status = compile(c, c->family->close[role], &c->close[role], err);
        }
        if (status) {
            base_error_prefix(err, "%s", gguf_path(file));
            return status;
        }
    }
    if (c->family->always_bos || contains(text, "bos_token") || tokenizer_adds_bos(c->tokenizer)) {
        c->bos = tokenizer_bos(c->tokenizer);
    }
    return BASE_OK;
}

base_status chat_open(const gguf_file *file, const tokenizer *t, chat_template **out,
                      base_error *err)
{
    chat_template *c = base_calloc(1, sizeof *c);
    if (!c) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the chat template");
    }
    c->tokenizer = t;
    c->bos = -1;
    base_status status = load(c, file, err);
    if (status) {
        chat_close(c);
        return status;
    }
    *out = c;
    return BASE_OK;
}

void chat_close(chat_template *c)
{
    if (!c) {
        return;
    }
    for (size_t role = 0; role < CHAT_ROLES; role++) {
        chat_ids_free(&c->open[role]);
        chat_ids_free(&c->close[role]);
    }
    base_free(c);
}

const char *chat_name(const chat_template *c)
{
    return c->family->name;
}

/* --- turns ------------------------------------------------------------------------------------ */

base_status chat_begin(const chat_template *c, chat_ids *ids, base_error *err)
{
    return c->bos < 0 ? BASE_OK : append(ids, &c->bos, 1, err);
}

base_status chat_open_turn(const chat_template *c, chat_role role, chat_ids *ids, base_error *err)
{
    BASE_ASSERT((size_t)role < CHAT_ROLES);
    return append(ids, c->open[role].ids, c->open[role].count, err);
}

base_status chat_text(const chat_template *c, const char *text, size_t size, chat_ids *ids,
                      base_error *err)
{
    return append_text(c->tokenizer, text, size, ids, err);
}

base_status chat_close_turn(const chat_template *c, chat_role role, chat_ids *ids, base_error *err)
{
    BASE_ASSERT((size_t)role < CHAT_ROLES);
    return append(ids, c->close[role].ids, c->close[role].count, err);
}
