/* cli/conversation.c: see conversation.h. The log is one JSON document:
 * {"version":1,"turns":[{"user":ID,"assistant":ID,"abstained":false}]}; abstained: what
 * stood in the window left with that turn. */
#include "cli/conversation.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "store/sessions.h"

enum { LOG_VERSION = 1, PATH_SIZE = 4096 };

static void cut_turns(conversation *c, size_t count)
{
    while (c->count > count) {
        conversation_turn *t = &c->turns[--c->count];
        base_free(t->user);
        base_free(t->assistant);
    }
}

void conversation_free(conversation *c)
{
    cut_turns(c, 0);
    base_free(c->turns);
    c->turns = NULL;
}

void conversation_restart(conversation *c)
{
    cut_turns(c, 0);
    c->since = store_last_commit(c->store);
}

static base_status add_turn(conversation *c, const char *user, const char *assistant,
                            bool dropped, base_error *err)
{
    conversation_turn *grown = base_realloc(c->turns, (c->count + 1) * sizeof *grown);
    if (grown) {
        c->turns = grown;
        conversation_turn *t = &grown[c->count++];
        *t = (conversation_turn){base_strdup(user), base_strdup(assistant), dropped};
        if (t->user && t->assistant) {
            return BASE_OK;
        }
        cut_turns(c, c->count - 1);
    }
    return base_fail(err, BASE_NO_MEMORY, "no memory for a conversation");
}

/* --- the log ---------------------------------------------------------------------------------- */

static base_status read_turns(conversation *c, const json_t *root, const char *path,
                              base_error *err)
{
    const json_t *list = json_object_get(root, "turns");
    if (json_integer_value(json_object_get(root, "version")) != LOG_VERSION) {
        return base_fail(err, BASE_VERSION, "%s: a log of another version", path);
    }
    base_status status = BASE_OK;
    for (size_t i = 0; i < json_array_size(list) && !status; i++) {
        const json_t *t = json_array_get(list, i);
        const char *user = json_string_value(json_object_get(t, "user"));
        const char *assistant = json_string_value(json_object_get(t, "assistant"));
        if (!user || !assistant) {
            return base_fail(err, BASE_CORRUPT, "%s: turn %zu names no text", path, i + 1);
        }
        status = add_turn(c, user, assistant, json_is_true(json_object_get(t, "abstained")), err);
    }
    return status;
}

static base_status read_log(conversation *c, base_error *err)
{
    char path[PATH_SIZE];
    base_buffer log = {0};
    store_session_path(c->store, c->source, 0, path, sizeof path);
    base_status status = store_session_get(c->store, c->source, 0, &log, err);
    if (status == BASE_NOT_FOUND) {
        status = base_fail(err, BASE_NOT_FOUND, "no conversation of %s was kept in %s", c->source,
                           store_path(c->store));
    } else if (!status) {
        json_t *root = json_loadb(log.data, log.size, 0, NULL);
        status = root ? read_turns(c, root, path, err)
                      : base_fail(err, BASE_CORRUPT, "%s: not JSON", path);
        json_decref(root);
    }
    base_buffer_free(&log);
    return status;
}

static base_status write_log(const conversation *c, base_error *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->count; i++) {
        const conversation_turn *t = &c->turns[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "user", t->user, "assistant",
                                              t->assistant, "abstained", (int)t->dropped));
    }
    json_t *root = json_pack("{s:i, s:o}", "version", LOG_VERSION, "turns", list);
    size_t size = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
    char *text = size ? base_alloc(size) : NULL;
    base_status status = BASE_NO_MEMORY;
    if (text && json_dumpb(root, text, size, JSON_COMPACT) == size) {
        status = store_session_put(c->store, c->source, 0, 0, text, size, err);
    } else {
        base_fail(err, BASE_NO_MEMORY, "no memory for a log");
    }
    base_free(text);
    json_decref(root);
    return status;
}

/* --- going on --------------------------------------------------------------------------------- */

typedef struct said {
    base_buffer user, assistant;
} said;

/* Where this document's text belongs: NULL when it is none of the first `count` turns. */
static base_buffer *place_of(const conversation *c, size_t count, said *texts, const char *id)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(c->turns[i].user, id) == 0) {
            return &texts[i].user;
        }
        if (strcmp(c->turns[i].assistant, id) == 0) {
            return &texts[i].assistant;
        }
    }
    return NULL;
}

/* What was said in the first `count` turns, as far as it has not been forgotten. */
static base_status read_texts(const conversation *c, size_t count, said *texts, base_error *err)
{
    uint64_t *ids = NULL;
    size_t id_count = 0;
    base_status status =
        store_select(c->store, c->source, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &id_count, err);
    for (size_t i = 0; i < id_count && !status; i++) {
        store_episode episode;
        status = store_get(c->store, ids[i], &episode, err);
        if (status == BASE_NOT_FOUND) {
            status = BASE_OK; /* forgotten meanwhile */
            continue;
        }
        if (status) {
            break;
        }
        base_buffer *text = place_of(c, count, texts, episode.external_id);
        if (text && episode.ordinal == 0) {
            base_buffer_clear(text); /* a newer version of the same turn */
        }
        if (text && (status = base_buffer_append(text, episode.text, episode.text_size))) {
            base_fail(err, status, "no memory for a conversation");
        }
        store_episode_free(&episode);
    }
    base_free(ids);
    return status;
}

static base_status replay(conversation *c, engine_session *session, size_t turn, size_t *replayed,
                          base_error *err)
{
    size_t first = 0;
    for (size_t i = 0; i < turn; i++) {
        first = c->turns[i].dropped ? i + 1 : first;
    }
    said *texts = base_calloc(turn + 1, sizeof *texts);
    base_status status = texts ? read_texts(c, turn, texts, err)
                               : base_fail(err, BASE_NO_MEMORY, "no memory for a conversation");
    for (size_t i = first; i < turn && !status; i++) {
        if (texts[i].user.size > 0 && texts[i].assistant.size > 0) {
            status = engine_replay(session, texts[i].user.data, texts[i].assistant.data, err);
            ++*replayed;
        }
    }
    for (size_t i = 0; texts && i < turn; i++) {
        base_buffer_free(&texts[i].user);
        base_buffer_free(&texts[i].assistant);
    }
    base_free(texts);
    return status;
}

base_status conversation_resume(conversation *c, engine_session *session, size_t turn,
                                size_t *replayed, base_error *err)
{
    char path[PATH_SIZE];
    base_buffer state = {.size_max = (size_t)STORE_SESSION_BYTES_MAX};
    *replayed = 0;
    conversation_restart(c); /* before anything is read */
    base_status status = read_log(c, err);
    if (status) {
        return status;
    }
    turn = turn == SIZE_MAX ? c->count : turn;
    if (turn > c->count) {
        return base_fail(err, BASE_NOT_FOUND, "%s has %zu turns, there is no turn %zu", c->source,
                         c->count, turn);
    }
    cut_turns(c, turn);
    if (turn == 0) {
        return BASE_OK;
    }
    store_session_path(c->store, c->source, turn, path, sizeof path);
    status = store_session_get(c->store, c->source, turn, &state, err);
    if (!status && (status = engine_session_restore(session, state.data, state.size, err))) {
        base_error_prefix(err, "%s", path);
    } else if (status == BASE_NOT_FOUND || status == BASE_CANCELLED) {
        status = replay(c, session, turn, replayed, err);
    }
    base_buffer_free(&state);
    return status;
}

base_status conversation_keep(conversation *c, engine_session *session, const char *user,
                              const char *assistant, bool dropped, base_error *err)
{
    base_buffer state = {.size_max = (size_t)STORE_SESSION_BYTES_MAX};
    base_status status = add_turn(c, user, assistant, dropped, err);
    if (!status && !(status = store_session_drop(c->store, c->source, c->count - 1, err)) &&
        !(status = write_log(c, err)) && !(status = engine_session_save(session, &state, err))) {
        status =
            store_session_put(c->store, c->source, c->count, c->since, state.data, state.size, err);
    }
    base_buffer_free(&state);
    return status;
}
