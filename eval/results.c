/* eval/results.c: rows and identities as such: their fields, what is allowed in them, their JSON.
 * The database is in results_sqlite.c, the figures are in figures.c. */
#include "eval/results.h"

#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/text.h"
#include "eval/internal.h"

#define FIELD(kind, name)                                  \
    {                                                      \
#name, EVAL_FIELD_##kind, offsetof(eval_row, name) \
    }
const eval_field eval_fields[EVAL_FIELD_ROWS] = {
    FIELD(TEXT, arm),
    FIELD(TEXT, question),
    FIELD(TEXT, kind),
    FIELD(TEXT, cluster),
    FIELD(TEXT, text),
    FIELD(TEXT, answer),
    FIELD(JSON, answers),
    FIELD(JSON, stale_answers),
    FIELD(FLAG, em),
    FIELD(FLAG, contains),
    FIELD(FLAG, stale),
    FIELD(FLAG, as_of),
    FIELD(FLAG, abstained),
    FIELD(FLAG, answerable),
    FIELD(FLAG, evidence),
    FIELD(FLAG, false_forget),
    FIELD(SHARE, f1),
    FIELD(COUNT, rank),
    FIELD(REAL, age_s),
    FIELD(COUNT, distance),
    FIELD(COUNT, updates),
    FIELD(COUNT, lookups),
    FIELD(COUNT, events),
    FIELD(COUNT, prefill_tokens),
    FIELD(COUNT, decode_tokens),
    FIELD(COUNT, rerun_tokens),
    FIELD(REAL, first_token_ms),
    FIELD(REAL, answer_ms),
    FIELD(COUNT, citations),
    FIELD(COUNT, citations_right),
    FIELD(REAL, value_nll),
    FIELD(SHARE, value_top1),
    FIELD(JSON, extra),
};

#define TEXT_OF(member, compared)                          \
    {                                                      \
#member, offsetof(eval_identity, member), compared \
    }
const eval_identity_field eval_identity_fields[EVAL_IDENTITY_TEXTS] = {
    TEXT_OF(suite, true),
    TEXT_OF(arms, true),
    TEXT_OF(options, true),
    {"git_commit", offsetof(eval_identity, commit), true}, /* "commit" is a word of SQL */
    TEXT_OF(version, true),
    TEXT_OF(model_hash, true),
    TEXT_OF(adapter_hash, true),
    TEXT_OF(encoder_hash, true),
    TEXT_OF(documents_hash, true),
    TEXT_OF(questions_hash, true),
    TEXT_OF(command, false),
};

const char *eval_identity_text(const eval_identity *identity, size_t field)
{
    const char *text;
    memcpy(&text, (const char *)identity + eval_identity_fields[field].offset, sizeof text);
    return text ? text : "";
}

base_status eval_identity_id(const eval_identity *identity, char id[17], base_error *err)
{
    base_buffer text = {0};
    base_status status = BASE_OK;
    uint8_t digest[32];
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS && !status; i++) {
        if (eval_identity_fields[i].compared) {
            status = base_buffer_printf(&text, "%s\n", eval_identity_text(identity, i));
        }
    }
    if (!status) {
        status = base_buffer_printf(&text, "%llu\n%zu\n", (unsigned long long)identity->seed,
                                    identity->limit);
    }
    if (status) {
        base_buffer_free(&text);
        return base_fail(err, status, "no memory for the name of a run");
    }
    base_sha256_of(text.data, text.size, digest);
    base_hex(digest, 8, id);
    base_buffer_free(&text);
    return BASE_OK;
}

base_status eval_identity_same(const char *dir, const eval_identity *there,
                               const eval_identity *wanted, base_error *err)
{
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS; i++) {
        const char *a = eval_identity_text(there, i), *b = eval_identity_text(wanted, i);
        if (eval_identity_fields[i].compared && strcmp(a, b) != 0) {
            return base_fail(err, BASE_EXISTS,
                             "%s holds another run: its %s is \"%.160s\", wanted is \"%.160s\"",
                             dir, eval_identity_fields[i].name, a, b);
        }
    }
    if (there->seed != wanted->seed) {
        return base_fail(err, BASE_EXISTS, "%s holds another run: its seed is %llu, wanted is %llu",
                         dir, (unsigned long long)there->seed, (unsigned long long)wanted->seed);
    }
    if (there->limit != wanted->limit) {
        return base_fail(err, BASE_EXISTS, "%s holds another run: its limit is %zu, wanted is %zu",
                         dir, there->limit, wanted->limit);
    }
    return BASE_OK;
}

bool eval_list_holds(const char *list, const char *arm)
{
    size_t size = strlen(arm);
    while (*list) {
        size_t length = strcspn(list, ",");
        if (length == size && memcmp(list, arm, size) == 0) {
            return true;
        }
        list += length + (list[length] == ',');
    }
    return false;
}

static base_status check_field(const eval_row *row, const eval_field *field, base_error *err)
{
    const char *at = (const char *)row + field->offset;
    int8_t flag;
    int64_t count;
    double real;
    switch (field->kind) {
    case EVAL_FIELD_FLAG:
        memcpy(&flag, at, sizeof flag);
        if (flag < -1 || flag > 1) {
            return base_fail(err, BASE_INVALID, "%s is %d, not 1, 0 or -1", field->name, flag);
        }
        break;
    case EVAL_FIELD_COUNT:
        memcpy(&count, at, sizeof count);
        if (count < -1) {
            return base_fail(err, BASE_INVALID, "%s is %lld", field->name, (long long)count);
        }
        break;
    case EVAL_FIELD_REAL:
    case EVAL_FIELD_SHARE:
        memcpy(&real, at, sizeof real);
        if (isinf(real) || (field->kind == EVAL_FIELD_SHARE && (real < 0 || real > 1))) {
            return base_fail(err, BASE_INVALID, "%s is %g", field->name, real);
        }
        break;
    case EVAL_FIELD_TEXT: {
        const char *text;
        memcpy(&text, at, sizeof text);
        /* an answer is made valid on the way in */
        if (text && field->offset != offsetof(eval_row, answer) &&
            base_utf8_check(text, strlen(text)) != strlen(text)) {
            return base_fail(err, BASE_INVALID, "%s is not valid UTF-8", field->name);
        }
        break;
    }
    case EVAL_FIELD_JSON:
        break;
    }
    return BASE_OK;
}

base_status eval_row_check(const eval_row *row, const char *arms, base_error *err)
{
    base_status status = BASE_OK;
    if (!row->arm || !*row->arm || !row->question || !*row->question) {
        return base_fail(err, BASE_INVALID, "a row needs an arm and the id of a question");
    }
    if (!eval_list_holds(arms, row->arm)) {
        return base_fail(err, BASE_INVALID, "the arm \"%s\" is none of the run's (%s)", row->arm,
                         arms);
    }
    for (size_t i = 0; i < EVAL_FIELD_ROWS && !status; i++) {
        status = check_field(row, &eval_fields[i], err);
    }
    if (!status && row->citations_right > row->citations) {
        status = base_fail(err, BASE_INVALID, "citations_right is %lld of %lld",
                           (long long)row->citations_right, (long long)row->citations);
    }
    return status ? base_error_prefix(err, "row (%s, %s)", row->arm, row->question) : BASE_OK;
}

/* The value of a field as JSON; NULL when it was not measured (or memory is short). */
static json_t *field_json(const eval_row *row, const eval_field *field)
{
    const char *at = (const char *)row + field->offset;
    const char *text;
    json_t *json;
    int8_t flag;
    int64_t count;
    double real;
    switch (field->kind) {
    case EVAL_FIELD_TEXT:
        memcpy(&text, at, sizeof text);
        return text ? json_string(text) : NULL;
    case EVAL_FIELD_FLAG:
        memcpy(&flag, at, sizeof flag);
        return flag < 0 ? NULL : json_boolean(flag);
    case EVAL_FIELD_COUNT:
        memcpy(&count, at, sizeof count);
        return count < 0 ? NULL : json_integer((json_int_t)count);
    case EVAL_FIELD_REAL:
    case EVAL_FIELD_SHARE:
        memcpy(&real, at, sizeof real);
        return isnan(real) ? NULL : json_real(real);
    case EVAL_FIELD_JSON:
        memcpy(&json, at, sizeof json);
        return json_incref(json);
    }
    return NULL;
}

char *eval_row_json(const eval_row *row, const eval_identity *identity, const char *id)
{
    /* "id" is the question's, as in questions.jsonl */
    json_t *line = json_pack("{s:s}", "id", row->question);
    for (size_t i = 0; i < EVAL_FIELD_ROWS && line; i++) {
        json_t *value =
            strcmp(eval_fields[i].name, "question") == 0 ? NULL : field_json(row, &eval_fields[i]);
        if (value && json_object_set_new(line, eval_fields[i].name, value) != 0) {
            json_decref(line);
            line = NULL;
        }
    }
    json_t *run = line ? json_pack("{s:s, s:s, s:s, s:s, s:I, s:s}", "suite",
                                   identity->suite ? identity->suite : "", "run", id, "git_commit",
                                   identity->commit ? identity->commit : "", "model_hash",
                                   identity->model_hash ? identity->model_hash : "", "seed",
                                   (json_int_t)identity->seed, "command",
                                   identity->command ? identity->command : "")
                       : NULL;
    char *text = run && json_object_update(line, run) == 0
                     ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9))
                     : NULL;
    json_decref(run);
    json_decref(line);
    return text;
}

base_status eval_hash_file(const char *path, char hex[65], base_error *err)
{
    base_map map;
    uint8_t digest[32];
    hex[0] = 0;
    if (!path || !*path) {
        return BASE_OK;
    }
    base_status status = base_map_open(path, &map, err);
    if (!status) {
        base_sha256_of(map.data, map.size, digest);
        base_hex(digest, sizeof digest, hex);
        base_map_close(&map);
    }
    return status;
}
