/* cli/cmd_ask.c: ask and generate. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"

/* Where text lies that has left a window (lived memory). */
#define LIVED_SOURCE "lived"
#define PROMPT_BYTES_MAX ((size_t)64 << 20)

enum { ANSWER_TOKENS = 64, CONTINUATION_TOKENS = 64, LOCK_WAIT_MS = 50, LIVED_WAIT_MS = 5000 };

/* Without --store, a missing default store only means that nothing was remembered yet. */
static base_status open_memory(const cli_options *o, bool wanted, bool create, unsigned wait_ms,
                               cli_memory *memory, base_error *err)
{
    *memory = (cli_memory){0};
    if (!wanted || (o->arm && strcmp(o->arm, "none") == 0)) {
        return BASE_OK;
    }
    return cli_open_memory(o, create, wait_ms, memory, err);
}

static int print_answer(const cli_options *o, const engine *e, store *s, const char *question,
                        const engine_answer *answer)
{
    if (o->json) {
        return cli_print_json(cli_json_answer(o, e, question, answer));
    }
    printf("%s\n", answer->text);
    if (answer->citation_count > 0) {
        printf("\n");
        cli_print_citations(answer);
    }
    if (o->trace) {
        cli_print_trace(e, s, answer);
    }
    return CLI_DONE;
}

int cmd_ask(const cli_options *o)
{
    const char *question = o->operands[0];
    base_error err = {0};
    cli_memory memory = {0};
    engine *e = NULL;
    engine_session *session = NULL;
    engine_session_options options;
    engine_answer answer = {0};
    int code = CLI_FAILED;
    if (base_utf8_check(question, strlen(question)) != strlen(question) || !*question) {
        return cli_usage("the question is %s", *question ? "not valid UTF-8" : "empty");
    }
    if (open_memory(o, true, false, LOCK_WAIT_MS, &memory, &err) ||
        cli_session_options(o, &memory, &options, &err)) {
        code = cli_fail(&err);
        goto done;
    }
    options.may_abstain = true;
    if (cli_open_engine(o, CLI_READER | CLI_MIXERS | (memory.store ? CLI_ENCODER : 0), &e, &err) ||
        (engine_encoder(e) && cli_check_encoder(&memory, engine_encoder(e), &err)) ||
        engine_session_open(e, &options, &session, &err) ||
        engine_ask(session, question, o->max_tokens ? o->max_tokens : ANSWER_TOKENS, &answer,
                   &err)) {
        code = cli_fail(&err);
        goto done;
    }
    code = print_answer(o, e, memory.store, question, &answer);
    if (options.keep_writes) {
        fflush(stdout);
        engine_session_write(session);
    }
done:
    engine_answer_free(&answer);
    engine_session_close(session);
    engine_close(e);
    cli_close_memory(&memory);
    return code;
}

static void print_piece(void *argument, const char *text, size_t size)
{
    (void)argument;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
}

/* --prompt TEXT, or "-" for standard input. */
static base_status read_prompt(const cli_options *o, base_buffer *out, base_error *err)
{
    base_status status = BASE_OK;
    if (strcmp(o->prompt, "-") == 0) {
        status = base_file_read("-", PROMPT_BYTES_MAX, out, err);
    } else if ((status = base_buffer_append_text(out, o->prompt))) {
        base_fail(err, status, "no memory for the prompt");
    }
    if (!status &&
        (memchr(out->data, 0, out->size) || base_utf8_check(out->data, out->size) != out->size)) {
        status = base_fail(err, BASE_INVALID, "--prompt is not valid UTF-8 without zeros");
    }
    return status;
}

int cmd_generate(const cli_options *o)
{
    base_error err = {0};
    base_buffer prompt = {0};
    cli_memory memory = {0};
    engine *e = NULL;
    engine_session *session = NULL;
    engine_session_options options;
    engine_answer answer = {0};
    int code = CLI_DONE;
    if (!o->prompt) {
        return cli_usage("generate needs --prompt TEXT");
    }
    if (strcmp(o->prompt, "-") != 0 &&
        base_utf8_check(o->prompt, strlen(o->prompt)) != strlen(o->prompt)) {
        return cli_usage("--prompt is not valid UTF-8");
    }
    if (read_prompt(o, &prompt, &err) ||
        open_memory(o, o->store != NULL, !o->read_only, LIVED_WAIT_MS, &memory, &err) ||
        cli_session_options(o, &memory, &options, &err) ||
        cli_open_engine(o, CLI_MIXERS | (memory.store ? CLI_ENCODER : 0), &e, &err) ||
        (engine_encoder(e) && cli_check_encoder(&memory, engine_encoder(e), &err))) {
        code = cli_fail(&err);
        goto done;
    }
    options.on_text = o->json ? NULL : print_piece;
    options.lived_source = options.keep_writes ? LIVED_SOURCE : NULL;
    if (engine_session_open(e, &options, &session, &err) ||
        engine_generate(session, prompt.data, o->max_tokens ? o->max_tokens : CONTINUATION_TOKENS,
                        &answer, &err)) {
        code = cli_fail(&err);
        goto done;
    }
    if (o->json) {
        json_t *whole = cli_json_answer(o, e, prompt.data, &answer);
        code = cli_print_json(json_pack("{s:s, s:O, s:O, s:O}", "text", answer.text, "tokens",
                                        json_object_get(whole, "tokens"), "timing",
                                        json_object_get(whole, "timing"), "events",
                                        json_object_get(whole, "events")));
        json_decref(whole);
    } else {
        printf("\n");
        if (o->trace) {
            cli_print_trace(e, memory.store, &answer);
        }
    }
    if (options.keep_writes) {
        engine_session_write(session);
    }
done:
    base_buffer_free(&prompt);
    engine_answer_free(&answer);
    engine_session_close(session);
    engine_close(e);
    cli_close_memory(&memory);
    return code;
}
