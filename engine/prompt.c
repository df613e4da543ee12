/* engine/prompt.c: see prompt.h. Text of documents and questions is data: the chat functions never
 * parse special tokens in it. */
#include "engine/prompt.h"

#include <string.h>

#include "base/mem.h"

static const char system_text[] = "Answer the question from the notes, in a few words.";

/* Invented worked examples, in the form that follows them. */
static const struct {
    const char *title, *text, *question, *answer;
} examples[] = {
    {"Larkspur Bridge — architect", "Larkspur Bridge was designed by Ines Halloran.",
     "Who designed Larkspur Bridge?", "Ines Halloran"},
    {"Tarn release", "Release note: Tarn 4.2.7 is out and replaces 4.2.6.",
     "What is the latest release of the Tarn 4.2 line?", "4.2.7"},
    {"Oakfield Museum — History",
     "The museum was in Castle Yard at first. In 1931 it moved to Mill Street, where it stayed "
     "until 1958.",
     "Where was the Oakfield Museum from 1931 to 1958?", "Mill Street"},
};

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

base_status prompt_block(const prompt *p, const char *title, const char *text, size_t size,
                         chat_ids *out, base_error *err)
{
    while (size > 0 && is_space(text[size - 1])) {
        size--;
    }
    while (size > 0 && is_space(*text)) {
        text++;
        size--;
    }
    base_buffer words = {0};
    base_status status = base_buffer_append_text(&words, "Note: ");
    if (!status && *title) {
        status = base_buffer_printf(&words, "%s. ", title);
    }
    if (!status && !(status = base_buffer_append(&words, text, size))) {
        status = base_buffer_append_text(&words, "\n");
    }
    status = status ? base_fail(err, status, "no memory for a note")
                    : chat_text(p->chat, words.data, words.size, out, err);
    base_buffer_free(&words);
    return status;
}

base_status prompt_question(const prompt *p, const char *question, chat_ids *out, base_error *err)
{
    base_buffer words = {0};
    base_status status = base_buffer_printf(&words, "Question: %s", question);
    if (status) {
        status = base_fail(err, status, "no memory for a question");
    } else if (!(status = chat_text(p->chat, words.data, words.size, out, err))) {
        status = chat_close_turn(p->chat, CHAT_USER, out, err);
    }
    base_buffer_free(&words);
    return status;
}

static base_status build_prefix(prompt *p, base_error *err)
{
    chat_ids *ids = &p->prefix;
    base_status status;
    if ((status = chat_begin(p->chat, ids, err)) ||
        (status = chat_open_turn(p->chat, CHAT_SYSTEM, ids, err)) ||
        (status = chat_text(p->chat, system_text, strlen(system_text), ids, err)) ||
        (status = chat_close_turn(p->chat, CHAT_SYSTEM, ids, err))) {
        return status;
    }
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        if ((status = chat_open_turn(p->chat, CHAT_USER, ids, err)) ||
            (status = prompt_block(p, examples[i].title, examples[i].text,
                                   strlen(examples[i].text), ids, err)) ||
            (status = prompt_question(p, examples[i].question, ids, err)) ||
            (status = chat_open_turn(p->chat, CHAT_ASSISTANT, ids, err)) ||
            (status = chat_text(p->chat, examples[i].answer, strlen(examples[i].answer), ids,
                                err)) ||
            (status = chat_close_turn(p->chat, CHAT_ASSISTANT, ids, err))) {
            return status;
        }
    }
    return chat_open_turn(p->chat, CHAT_USER, ids, err);
}

base_status prompt_open(const chat_template *chat, prompt *out, base_error *err)
{
    *out = (prompt){.chat = chat};
    base_status status;
    if ((status = build_prefix(out, err)) ||
        (status = chat_close_turn(chat, CHAT_ASSISTANT, &out->user, err)) ||
        (status = chat_open_turn(chat, CHAT_USER, &out->user, err)) ||
        (status = chat_open_turn(chat, CHAT_ASSISTANT, &out->header, err))) {
        prompt_close(out);
    }
    return status;
}

void prompt_close(prompt *p)
{
    chat_ids_free(&p->prefix);
    chat_ids_free(&p->user);
    chat_ids_free(&p->header);
    *p = (prompt){0};
}
