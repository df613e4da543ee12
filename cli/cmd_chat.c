/* cli/cmd_chat.c: a conversation. Everything said is kept verbatim as episodes of the source
 * "chat/NAME" before the next turn, and is memory in this and in later conversations. So is the
 * state behind every turn, from which another process can go on (conversation.h). While the user
 * types, what was said is compared with older memories and closes what it replaces (upkeep.h).
 */
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/conversation.h"
#include "cli/upkeep.h"
#include "ingest/ingest.h"

enum {
    ANSWER_TOKENS = 192,
    HISTORY_LINES = 500,
    WRITER_WAIT_MS = 5000,
    SLICE = 16,     /* episodes aged after a turn where nobody types */
    LAST_SLICE = 64 /* when the user leaves */
};

typedef struct chat {
    const cli_options *o;
    engine *e;
    cli_memory memory;
    engine_session *session;
    engine_session_options options;
    ingest *in;
    engine_answer last;
    char source[256];
    int64_t now_us, as_of_us;
    size_t turn;   /* in this process */
    size_t number; /* in document ids: goes on where a resumed conversation stood */
    conversation line;
    upkeep *upkeep; /* NULL with --read-only */
    bool warned;    /* of an error in it */
} chat;

static void print_piece(void *argument, const char *text, size_t size)
{
    (void)argument;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
}

/* Without --now the clock goes on. */
static void tick(chat *c)
{
    c->now_us = c->o->now_us;
    if (c->turn > 0) {
        static int64_t begin;
        int64_t wall = base_time_now();
        begin = begin ? begin : wall;
        c->now_us += wall - begin;
    }
    engine_session_set_time(c->session, c->now_us,
                            c->as_of_us == BASE_TIME_NONE ? c->now_us : c->as_of_us,
                            c->o->about_us);
}

enum { ID_SIZE = 64 };

static void turn_id(const chat *c, store_kind kind, char id[ID_SIZE])
{
    snprintf(id, ID_SIZE, "%lld-%zu-%s", (long long)c->now_us, c->number,
             kind == STORE_TURN_USER ? "user" : "assistant");
}

static base_status remember(chat *c, store_kind kind, const char *text, base_error *err)
{
    char id[ID_SIZE], title[320];
    if (c->o->read_only || !*text) {
        return BASE_OK;
    }
    turn_id(c, kind, id);
    snprintf(title, sizeof title, "%s said in %s",
             kind == STORE_TURN_USER ? "The user" : "The assistant", c->source);
    ingest_document document = {.source = c->source,
                                .external_id = id,
                                .title = title,
                                .text = text,
                                .text_size = strlen(text),
                                .observed_at_us = c->now_us,
                                .valid_from_us = BASE_TIME_NONE,
                                .valid_to_us = BASE_TIME_NONE,
                                .kind = kind,
                                .place = id};
    base_status status = ingest_add(c->in, &document, err);
    if (!status) {
        status = ingest_commit(c->in, false, err);
    }
    if (!status) {
        status = retrieval_sync(c->memory.retrieval, err);
    }
    return status;
}

/* The turn is over: keep what it takes to go on from here. A conversation goes on without, too. */
static int keep(chat *c, bool answered)
{
    char user[ID_SIZE], assistant[ID_SIZE];
    base_error err = {0};
    if (c->o->read_only) {
        return CLI_DONE;
    }
    turn_id(c, STORE_TURN_USER, user);
    turn_id(c, STORE_TURN_ASSISTANT, assistant);
    base_status status = conversation_keep(&c->line, c->session, user, answered ? assistant : "",
                                           !answered || c->last.turns_dropped, &err);
    if (status == BASE_CANCELLED) {
        fprintf(stderr, "eidetic: something was forgotten: the conversation begins anew\n");
        conversation_restart(&c->line);
        status = engine_session_restart(c->session, &c->options, &err);
        return status ? cli_fail(&err) : CLI_DONE;
    }
    if (status && !c->line.warned) {
        c->line.warned = true;
        cli_fail(&err);
    }
    return CLI_DONE;
}

static int answer(chat *c, const char *text)
{
    base_error err = {0};
    size_t max = c->o->max_tokens ? c->o->max_tokens : ANSWER_TOKENS;
    tick(c);
    engine_answer_free(&c->last);
    /* The question is kept after it was answered: it must not be found as its own answer. */
    base_status status = engine_ask(c->session, text, max, &c->last, &err);
    printf("\n");
    if (!status) {
        cli_print_citations(&c->last);
        engine_session_write(c->session);
    } else {
        cli_fail(&err);
    }
    if (remember(c, STORE_TURN_USER, text, &err) ||
        (!status && remember(c, STORE_TURN_ASSISTANT, c->last.text, &err))) {
        cli_fail(&err);
        return CLI_FAILED;
    }
    int code = keep(c, !status);
    c->turn++;
    c->number++;
    return code;
}

/* "/why", "/asof DATE", "/help", "/quit". False to leave. */
static bool command(chat *c, const char *text)
{
    base_error err = {0};
    if (strcmp(text, "/quit") == 0 || strcmp(text, "/exit") == 0) {
        return false;
    }
    if (strcmp(text, "/why") == 0) {
        cli_print_trace(c->e, c->memory.store, &c->last);
    } else if (strncmp(text, "/asof", 5) == 0 && (text[5] == 0 || text[5] == ' ')) {
        const char *date = text + 5 + strspn(text + 5, " ");
        int64_t time = BASE_TIME_NONE;
        if (*date && base_time_parse(date, strlen(date), &time, &err)) {
            cli_fail(&err);
        } else {
            c->as_of_us = time;
            printf(*date ? "as of %s\n" : "as of now\n", date);
        }
    } else {
        printf("/why          why memory was consulted for the last answer, and what came back\n"
               "/asof DATE    answer as of that date; /asof alone: as of now\n"
               "/quit         leave\n");
    }
    return true;
}

/* An error of the upkeep is said once: the conversation goes on without it. */
static void warn_once(chat *c, base_status status, const base_error *err)
{
    if (status && !c->warned) {
        c->warned = true;
        cli_fail(err);
    }
}

static void begin_upkeep(chat *c)
{
    if (c->upkeep) {
        upkeep_begin(c->upkeep, c->now_us);
    }
}

static void end_upkeep(chat *c)
{
    base_error err = {0};
    if (c->upkeep) {
        warn_once(c, upkeep_end(c->upkeep, &err), &err);
    }
}

static void age_slice(chat *c, uint64_t episodes_max)
{
    base_error err = {0};
    if (c->upkeep) {
        warn_once(c, upkeep_slice(c->upkeep, c->now_us, episodes_max, &err), &err);
    }
}

static char *prompt_text(EditLine *line)
{
    (void)line;
    static char text[] = "> ";
    return text;
}

/* Lines until end of input; line editing and history on a terminal. There the upkeep runs while the
 * user types; what comes through a pipe comes at once: a slice after each turn, so that the same
 * lines always get the same answers. */
static int converse(chat *c)
{
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    EditLine *edit = terminal ? el_init("eidetic", stdin, stdout, stderr) : NULL;
    History *past = terminal ? history_init() : NULL;
    HistEvent event;
    char *plain = NULL;
    size_t plain_size = 0;
    int code = CLI_DONE;
    if (edit && past) {
        history(past, &event, H_SETSIZE, HISTORY_LINES);
        el_set(edit, EL_PROMPT, prompt_text);
        el_set(edit, EL_EDITOR, "emacs");
        el_set(edit, EL_HIST, history, past);
    }
    while (code == CLI_DONE) {
        const char *got;
        int count = 0;
        if (edit) {
            begin_upkeep(c);
            got = el_gets(edit, &count);
            end_upkeep(c);
        } else {
            ssize_t n = getline(&plain, &plain_size, stdin);
            got = n > 0 ? plain : NULL;
        }
        if (!got) {
            break;
        }
        size_t size = strlen(got);
        while (size > 0 && strchr("\r\n ", got[size - 1])) {
            size--;
        }
        char *text = base_strndup(got, size);
        if (!text) {
            code = cli_usage("no memory for a line");
            break;
        }
        if (size > 0 && edit) {
            history(past, &event, H_ENTER, text);
        }
        bool go_on = true;
        if (base_utf8_check(text, size) != size) {
            cli_usage("that line is not valid UTF-8");
        } else if (text[0] == '/') {
            go_on = command(c, text);
        } else if (size > 0) {
            code = answer(c, text);
            if (!edit) {
                age_slice(c, SLICE);
            }
        }
        base_free(text);
        if (!go_on) {
            break;
        }
    }
    if (edit) {
        age_slice(c, LAST_SLICE);
    }
    if (past) {
        history_end(past);
    }
    if (edit) {
        el_end(edit);
    }
    free(plain); /* getline's own allocation */
    return code;
}

/* --resume-at TURN: a number, or "last". */
static base_status resume(chat *c, const char *text, base_error *err)
{
    char *end = NULL;
    size_t turn = SIZE_MAX, replayed = 0;
    if (strcmp(text, "last") != 0) {
        turn = strtoull(text, &end, 10);
        if (!*text || *end || strspn(text, "0123456789") != strlen(text) || turn == SIZE_MAX) {
            return base_fail(err, BASE_INVALID, "--resume-at %s is neither a number nor 'last'",
                             text);
        }
    }
    base_status status = conversation_resume(&c->line, c->session, turn, &replayed, err);
    if (!status) {
        c->number = c->line.count;
        fprintf(stderr, "eidetic: going on behind turn %zu%s\n", c->line.count,
                replayed ? ", read again" : "");
    }
    return status;
}

int cmd_chat(const cli_options *o)
{
    base_error err = {0};
    chat c = {.o = o, .now_us = o->now_us, .as_of_us = o->as_of_us};
    const char *name = o->session ? o->session : "default";
    int code = CLI_FAILED;
    if (!*name || strlen(name) > 200 || base_utf8_check(name, strlen(name)) != strlen(name)) {
        return cli_usage("--session: a name of 1 to 200 bytes");
    }
    snprintf(c.source, sizeof c.source, "chat/%s", name);
    ingest_options in_options = {.now_us = o->now_us,
                                 .observed_at_us = BASE_TIME_NONE,
                                 .valid_from_us = BASE_TIME_NONE,
                                 .valid_to_us = BASE_TIME_NONE};
    if (cli_open_memory(o, !o->read_only, WRITER_WAIT_MS, &c.memory, &err) ||
        cli_session_options(o, &c.memory, &c.options, &err) ||
        cli_open_engine(o, CLI_ENCODER | CLI_READER | CLI_MIXERS, &c.e, &err) ||
        cli_check_encoder(&c.memory, engine_encoder(c.e), &err)) {
        code = cli_fail(&err);
        goto done;
    }
    c.options.on_text = print_piece;
    c.line = (conversation){.source = c.source, .store = c.memory.store};
    conversation_restart(&c.line);
    if (engine_session_open(c.e, &c.options, &c.session, &err) ||
        (o->resume_at && resume(&c, o->resume_at, &err)) ||
        (!o->read_only &&
         (ingest_open(c.memory.store, c.memory.retrieval, engine_encoder(c.e), &in_options, &c.in,
                      &err) ||
          upkeep_open(c.memory.store, c.memory.retrieval, engine_encoder(c.e), &c.upkeep, &err)))) {
        code = cli_fail(&err);
        goto done;
    }
    code = converse(&c);
done:
    engine_answer_free(&c.last);
    conversation_free(&c.line);
    upkeep_close(c.upkeep);
    ingest_close(c.in);
    engine_session_close(c.session);
    engine_close(c.e);
    cli_close_memory(&c.memory);
    return code;
}
