/* eval/results_sqlite.c: DIR/results.sqlite and DIR/results.jsonl (schema in results.h). Alone in
 * eval/ it knows SQLite.
 *
 * WAL with synchronous=NORMAL while a run is open: a row costs no fsync and survives the death of
 * the process. Closing goes back to one plain file, so that a finished DIR can be copied and read
 * from anywhere. results.jsonl is derived: it is written anew on opening.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "eval/internal.h"

enum {
    SCHEMA_VERSION = 1,
    APPLICATION_ID = 0x65767231, /* "evr1": tells our file from any other SQLite file */
    PATH_SIZE = 4096,
    BUSY_TIMEOUT_MS = 10000
};

struct eval_results {
    sqlite3 *db;
    FILE *lines;
    char path[PATH_SIZE], lines_path[PATH_SIZE];
    eval_run run; /* identity only */
    sqlite3_stmt *has, *count, *add, *add_token;
};

/* The one place in eval/ where SQLite's codes become ours. */
static base_status fail_sqlite(base_error *err, sqlite3 *db, int code, const char *path)
{
    base_status status;
    switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* the statements are fixed: it is the schema that is not ours */
        status = BASE_CORRUPT;
        break;
    case SQLITE_FULL:
        status = BASE_DISK_FULL;
        break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        status = BASE_PERMISSION;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        status = BASE_BUSY;
        break;
    case SQLITE_NOMEM:
        status = BASE_NO_MEMORY;
        break;
    default:
        status = BASE_IO;
    }
    base_fail(err, status, "%s: %s", path, db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    if (err) {
        err->system_code = code;
    }
    return status;
}

static base_status execute(sqlite3 *db, const char *path, const char *sql, base_error *err)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? BASE_OK : fail_sqlite(err, db, code, path);
}

static base_status prepare(sqlite3 *db, const char *path, const char *sql, sqlite3_stmt **out,
                           base_error *err)
{
    int code = sqlite3_prepare_v2(db, sql, -1, out, NULL);
    return code == SQLITE_OK ? BASE_OK : fail_sqlite(err, db, code, path);
}

/* Run a statement without rows and make it ready for its next use. */
static base_status run_once(sqlite3 *db, const char *path, sqlite3_stmt *statement, base_error *err)
{
    int code = sqlite3_step(statement);
    base_status status = code == SQLITE_DONE ? BASE_OK : fail_sqlite(err, db, code, path);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

static base_status query_int(sqlite3 *db, const char *path, const char *sql, int64_t *value,
                             base_error *err)
{
    sqlite3_stmt *statement = NULL;
    base_status status = prepare(db, path, sql, &statement, err);
    if (!status) {
        int code = sqlite3_step(statement);
        if (code == SQLITE_ROW) {
            *value = sqlite3_column_int64(statement, 0);
        } else {
            status = code == SQLITE_DONE
                         ? base_fail(err, BASE_CORRUPT, "%s: a row is missing", path)
                         : fail_sqlite(err, db, code, path);
        }
    }
    sqlite3_finalize(statement);
    return status;
}

/* --- the schema, from the tables of internal.h ------------------------------------------------ */

static base_status sql_failed(base_status status, base_error *err)
{
    return status ? base_fail(err, status, "no memory for a statement") : BASE_OK;
}

static base_status create_schema(sqlite3 *db, const char *path, base_error *err)
{
    static const char *const types[] = {
        [EVAL_FIELD_TEXT] = "TEXT", [EVAL_FIELD_FLAG] = "INTEGER", [EVAL_FIELD_COUNT] = "INTEGER",
        [EVAL_FIELD_REAL] = "REAL", [EVAL_FIELD_SHARE] = "REAL",   [EVAL_FIELD_JSON] = "TEXT"};
    base_buffer sql = {0};
    base_status status =
        base_buffer_printf(&sql,
                           "PRAGMA application_id = %d; PRAGMA user_version = %d;"
                           "CREATE TABLE run(run TEXT PRIMARY KEY, seed INTEGER NOT NULL,"
                           " question_limit INTEGER NOT NULL",
                           APPLICATION_ID, SCHEMA_VERSION);
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS && !status; i++) {
        status = base_buffer_printf(&sql, ", %s TEXT NOT NULL", eval_identity_fields[i].name);
    }
    if (!status) {
        status = base_buffer_append_text(&sql,
                                         ");CREATE TABLE results(run TEXT NOT NULL REFERENCES run");
    }
    for (size_t i = 0; i < EVAL_FIELD_ROWS && !status; i++) {
        status = base_buffer_printf(&sql, ", %s %s%s", eval_fields[i].name,
                                    types[eval_fields[i].kind], i < 2 ? " NOT NULL" : "");
    }
    if (!status) {
        status = base_buffer_append_text(
            &sql,
            ", PRIMARY KEY(run, arm, question));"
            "CREATE TABLE traces(run TEXT NOT NULL REFERENCES run, arm TEXT NOT NULL,"
            " question TEXT NOT NULL, token INTEGER NOT NULL, text TEXT, entropy_nats REAL,"
            " surprise_nats REAL, event INTEGER NOT NULL, attention_mass REAL,"
            " PRIMARY KEY(run, arm, question, token));"
            "CREATE VIEW rows AS SELECT suite, git_commit, model_hash, seed, command, results.*"
            " FROM results JOIN run USING(run)");
    }
    status = sql_failed(status, err);
    if (!status) {
        status = execute(db, path, sql.data, err);
    }
    base_buffer_free(&sql);
    return status;
}

/* "SELECT arm, question, ... FROM results ..." or the matching INSERT. */
static base_status prepare_rows(sqlite3 *db, const char *path, bool insert, sqlite3_stmt **out,
                                base_error *err)
{
    base_buffer sql = {0};
    base_status status =
        base_buffer_append_text(&sql, insert ? "INSERT INTO results VALUES(?1" : "SELECT run");
    for (size_t i = 0; i < EVAL_FIELD_ROWS && !status; i++) {
        status = insert ? base_buffer_printf(&sql, ", ?%zu", i + 2)
                        : base_buffer_printf(&sql, ", %s", eval_fields[i].name);
    }
    if (!status) {
        status = base_buffer_append_text(&sql, insert ? ")"
                                                      : " FROM results WHERE arm = ?1"
                                                        " ORDER BY rowid");
    }
    status = sql_failed(status, err);
    if (!status) {
        status = prepare(db, path, sql.data, out, err);
    }
    base_buffer_free(&sql);
    return status;
}

/* Is this our file, of our version? *empty: it holds nothing at all. */
static base_status check_file(sqlite3 *db, const char *path, bool *empty, base_error *err)
{
    int64_t application = 0, version = 0, tables = 0;
    base_status status;
    if ((status = query_int(db, path, "SELECT count(*) FROM sqlite_master", &tables, err)) ||
        (status = query_int(db, path, "PRAGMA application_id", &application, err)) ||
        (status = query_int(db, path, "PRAGMA user_version", &version, err))) {
        return status;
    }
    *empty = tables == 0 && application == 0 && version == 0;
    if (*empty) {
        return BASE_OK;
    }
    if (application != APPLICATION_ID) {
        return base_fail(err, BASE_CORRUPT, "%s is no results of an evaluation", path);
    }
    if (version != SCHEMA_VERSION) {
        return base_fail(err, BASE_VERSION, "%s has layout %lld, this program knows %d", path,
                         (long long)version, SCHEMA_VERSION);
    }
    return BASE_OK;
}

/* --- reading ---------------------------------------------------------------------------------- */

typedef struct text_block {
    struct text_block *next;
    char text[];
} text_block;

static const char *keep_text(eval_run *run, const char *text, size_t size)
{
    text_block *block = base_alloc(sizeof *block + size + 1);
    if (!block) {
        return NULL;
    }
    memcpy(block->text, text, size);
    block->text[size] = 0;
    block->next = run->texts;
    run->texts = block;
    return block->text;
}

static base_status column_text(eval_run *run, sqlite3_stmt *s, int column, const char **out,
                               base_error *err)
{
    *out = NULL;
    if (sqlite3_column_type(s, column) == SQLITE_NULL) {
        return BASE_OK;
    }
    const unsigned char *text = sqlite3_column_text(s, column);
    *out =
        text ? keep_text(run, (const char *)text, (size_t)sqlite3_column_bytes(s, column)) : NULL;
    return *out ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for results");
}

static double column_real(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? (double)NAN
                                                         : sqlite3_column_double(s, column);
}

static base_status read_field(eval_run *run, sqlite3_stmt *s, int column, const eval_field *field,
                              const char *path, eval_row *row, base_error *err)
{
    char *at = (char *)row + field->offset;
    bool absent = sqlite3_column_type(s, column) == SQLITE_NULL;
    const char *text;
    base_status status = BASE_OK;
    switch (field->kind) {
    case EVAL_FIELD_TEXT:
        status = column_text(run, s, column, &text, err);
        memcpy(at, &text, sizeof text);
        break;
    case EVAL_FIELD_FLAG: {
        int8_t flag = (int8_t)(absent ? -1 : sqlite3_column_int(s, column) != 0);
        memcpy(at, &flag, sizeof flag);
        break;
    }
    case EVAL_FIELD_COUNT: {
        int64_t count = absent ? -1 : sqlite3_column_int64(s, column);
        memcpy(at, &count, sizeof count);
        break;
    }
    case EVAL_FIELD_REAL:
    case EVAL_FIELD_SHARE: {
        double real = column_real(s, column);
        memcpy(at, &real, sizeof real);
        break;
    }
    case EVAL_FIELD_JSON: {
        const char *json_text = (const char *)sqlite3_column_text(s, column);
        json_t *json = json_text ? json_loads(json_text, JSON_DECODE_ANY, NULL) : NULL;
        if (!absent && !json) {
            status = base_fail(err, BASE_CORRUPT, "%s: row (%s, %s): %s is no JSON", path,
                               row->arm ? row->arm : "", row->question ? row->question : "",
                               field->name);
        }
        memcpy(at, &json, sizeof json);
        break;
    }
    }
    return status;
}

static base_status read_row(eval_run *run, sqlite3_stmt *s, const char *path, eval_row *row,
                            base_error *err)
{
    base_status status = BASE_OK;
    *row = EVAL_ROW_EMPTY;
    for (size_t i = 0; i < EVAL_FIELD_ROWS && !status; i++) {
        status = read_field(run, s, (int)i + 1, &eval_fields[i], path, row, err);
    }
    return status;
}

static base_status read_identity(sqlite3 *db, const char *path, eval_run *run, base_error *err)
{
    base_buffer sql = {0};
    sqlite3_stmt *s = NULL;
    int64_t runs = 0;
    base_status status = query_int(db, path, "SELECT count(*) FROM run", &runs, err);
    if (!status && runs != 1) {
        status = base_fail(err, BASE_CORRUPT, "%s holds %lld runs, expected is one", path,
                           (long long)runs);
    }
    if (status) {
        return status;
    }
    status = base_buffer_append_text(&sql, "SELECT run, seed, question_limit");
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS && !status; i++) {
        status = base_buffer_printf(&sql, ", %s", eval_identity_fields[i].name);
    }
    if (!status) {
        status = base_buffer_append_text(&sql, " FROM run");
    }
    status = sql_failed(status, err);
    if (!status && !(status = prepare(db, path, sql.data, &s, err)) &&
        sqlite3_step(s) != SQLITE_ROW) {
        status = base_fail(err, BASE_CORRUPT, "%s: the run is missing", path);
    }
    if (!status) {
        const char *id = (const char *)sqlite3_column_text(s, 0);
        snprintf(run->id, sizeof run->id, "%s", id ? id : "");
        run->identity.seed = (uint64_t)sqlite3_column_int64(s, 1);
        run->identity.limit = (size_t)sqlite3_column_int64(s, 2);
    }
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS && !status; i++) {
        const char *text;
        status = column_text(run, s, (int)i + 3, &text, err);
        memcpy((char *)&run->identity + eval_identity_fields[i].offset, &text, sizeof text);
    }
    sqlite3_finalize(s);
    base_buffer_free(&sql);
    return status;
}

/* Arms of the identity, in its order. */
static base_status list_arms(eval_run *run, base_error *err)
{
    const char *list = run->identity.arms ? run->identity.arms : "";
    size_t count = 1;
    for (const char *p = list; *p; p++) {
        count += *p == ',';
    }
    run->arms = base_calloc(count, sizeof *run->arms);
    if (!run->arms) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu arms", count);
    }
    while (*list) {
        size_t size = strcspn(list, ",");
        if (size > 0 && !(run->arms[run->arm_count++] = keep_text(run, list, size))) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for %zu arms", count);
        }
        list += size + (list[size] == ',');
    }
    return BASE_OK;
}

static base_status read_rows(sqlite3 *db, const char *path, eval_run *run, base_error *err)
{
    sqlite3_stmt *s = NULL;
    int64_t total = 0;
    size_t arms = 0;
    base_status status;
    if ((status = query_int(db, path, "SELECT count(*) FROM results", &total, err)) ||
        (status = prepare_rows(db, path, false, &s, err))) {
        return status;
    }
    if (!(run->rows = base_calloc((size_t)total + 1, sizeof *run->rows))) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %lld results", (long long)total);
    }
    for (size_t arm = 0; arm < run->arm_count && !status; arm++) {
        size_t before = run->row_count;
        int code = SQLITE_DONE;
        sqlite3_bind_text(s, 1, run->arms[arm], -1, SQLITE_STATIC);
        /* a run that is being written may have grown since it was counted: the rest waits */
        while (!status && run->row_count < (size_t)total &&
               (code = sqlite3_step(s)) == SQLITE_ROW) {
            run->row_count++; /* first: what was read of it is freed in any case */
            status = read_row(run, s, path, &run->rows[run->row_count - 1], err);
        }
        if (!status && code != SQLITE_DONE && code != SQLITE_ROW) {
            status = fail_sqlite(err, db, code, path);
        }
        sqlite3_reset(s);
        if (run->row_count > before) {
            run->arms[arms++] = run->arms[arm];
        }
    }
    run->arm_count = arms;
    sqlite3_finalize(s);
    return status;
}

static base_status read_traces(sqlite3 *db, const char *path, eval_run *run, base_error *err)
{
    sqlite3_stmt *heads = NULL, *tokens = NULL;
    int64_t total = 0;
    int code;
    base_status status;
    if ((status =
             query_int(db, path, "SELECT count(*) FROM (SELECT DISTINCT arm, question FROM traces)",
                       &total, err)) ||
        (status = prepare(db, path,
                          "SELECT arm, question, count(*) FROM traces GROUP BY arm, question"
                          " ORDER BY min(rowid)",
                          &heads, err)) ||
        (status = prepare(db, path,
                          "SELECT text, entropy_nats, surprise_nats, event, attention_mass"
                          " FROM traces WHERE arm = ?1 AND question = ?2 ORDER BY token",
                          &tokens, err))) {
        goto done;
    }
    if (!(run->traces = base_calloc((size_t)total + 1, sizeof *run->traces))) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for traces");
    }
    while (!status && run->trace_count < (size_t)total && sqlite3_step(heads) == SQLITE_ROW) {
        eval_trace *trace = &run->traces[run->trace_count];
        size_t count = (size_t)sqlite3_column_int64(heads, 2);
        if ((status = column_text(run, heads, 0, &trace->arm, err)) ||
            (status = column_text(run, heads, 1, &trace->question, err))) {
            break;
        }
        if (!(trace->tokens = base_calloc(count + 1, sizeof *trace->tokens))) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for traces");
            break;
        }
        run->trace_count++;
        sqlite3_bind_text(tokens, 1, trace->arm, -1, SQLITE_STATIC);
        sqlite3_bind_text(tokens, 2, trace->question, -1, SQLITE_STATIC);
        while (!status && trace->count < count && sqlite3_step(tokens) == SQLITE_ROW) {
            eval_trace_token *t = &trace->tokens[trace->count++];
            status = column_text(run, tokens, 0, &t->text, err);
            t->entropy_nats = column_real(tokens, 1);
            t->surprise_nats = column_real(tokens, 2);
            t->event = sqlite3_column_int(tokens, 3) != 0;
            t->attention_mass = column_real(tokens, 4);
        }
        sqlite3_reset(tokens);
    }
    if (!status && (code = sqlite3_errcode(db)) != SQLITE_OK && code != SQLITE_DONE &&
        code != SQLITE_ROW) {
        status = fail_sqlite(err, db, code, path);
    }
done:
    sqlite3_finalize(heads);
    sqlite3_finalize(tokens);
    return status;
}

static base_status read_run(sqlite3 *db, const char *path, eval_run *run, base_error *err)
{
    base_status status;
    if ((status = read_identity(db, path, run, err)) || (status = list_arms(run, err)) ||
        (status = read_rows(db, path, run, err))) {
        return status;
    }
    return read_traces(db, path, run, err);
}

base_status eval_run_load(const char *dir, eval_run *out, base_error *err)
{
    char path[PATH_SIZE];
    base_file_info info;
    sqlite3 *db = NULL;
    eval_run run = {0};
    bool empty = false;
    base_status status = base_path_join(path, sizeof path, dir, "results.sqlite");
    if (status) {
        return base_fail(err, status, "path is too long: %.80s...", dir);
    }
    if ((status = base_file_stat(path, &info, err))) {
        return base_error_prefix(err, "%s holds no results of an evaluation", dir);
    }
    int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL);
    sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
    status =
        code == SQLITE_OK ? check_file(db, path, &empty, err) : fail_sqlite(err, db, code, path);
    if (!status && empty) {
        status = base_fail(err, BASE_CORRUPT, "%s is no results of an evaluation", path);
    }
    /* one transaction: rows and traces of one moment */
    if (!status && !(status = execute(db, path, "BEGIN", err)) &&
        (status = read_run(db, path, &run, err))) {
        eval_run_free(&run);
    }
    sqlite3_close(db);
    if (!status) {
        *out = run;
    }
    return status;
}

void eval_run_free(eval_run *run)
{
    if (!run) {
        return;
    }
    for (size_t i = 0; i < run->row_count; i++) {
        json_decref(run->rows[i].answers);
        json_decref(run->rows[i].stale_answers);
        json_decref(run->rows[i].extra);
    }
    for (size_t i = 0; i < run->trace_count; i++) {
        base_free(run->traces[i].tokens);
    }
    for (text_block *block = run->texts; block;) {
        text_block *next = block->next;
        base_free(block);
        block = next;
    }
    base_free(run->arms);
    base_free(run->rows);
    base_free(run->traces);
    *run = (eval_run){0};
}

/* --- writing ---------------------------------------------------------------------------------- */

static void bind_text(sqlite3_stmt *s, int index, const char *text)
{
    if (text) {
        sqlite3_bind_text(s, index, text, -1, SQLITE_TRANSIENT);
    } else {
        sqlite3_bind_null(s, index);
    }
}

static void bind_real(sqlite3_stmt *s, int index, double real)
{
    if (isnan(real)) {
        sqlite3_bind_null(s, index);
    } else {
        sqlite3_bind_double(s, index, real);
    }
}

static base_status bind_field(sqlite3_stmt *s, int index, const eval_field *field,
                              const eval_row *row, base_error *err)
{
    const char *at = (const char *)row + field->offset, *text;
    int8_t flag;
    int64_t count;
    double real;
    json_t *json;
    switch (field->kind) {
    case EVAL_FIELD_TEXT:
        memcpy(&text, at, sizeof text);
        bind_text(s, index, text);
        break;
    case EVAL_FIELD_FLAG:
        memcpy(&flag, at, sizeof flag);
        flag < 0 ? sqlite3_bind_null(s, index) : sqlite3_bind_int(s, index, flag);
        break;
    case EVAL_FIELD_COUNT:
        memcpy(&count, at, sizeof count);
        count < 0 ? sqlite3_bind_null(s, index) : sqlite3_bind_int64(s, index, count);
        break;
    case EVAL_FIELD_REAL:
    case EVAL_FIELD_SHARE:
        memcpy(&real, at, sizeof real);
        bind_real(s, index, real);
        break;
    case EVAL_FIELD_JSON:
        memcpy(&json, at, sizeof json);
        if (json) {
            char *dump = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
            if (!dump) {
                return base_fail(err, BASE_NO_MEMORY, "%s cannot be written as JSON", field->name);
            }
            bind_text(s, index, dump);
            free(dump); /* jansson's own allocation */
        } else {
            sqlite3_bind_null(s, index);
        }
        break;
    }
    return BASE_OK;
}

static base_status begin_run(eval_results *r, const eval_identity *identity, base_error *err)
{
    char id[17];
    base_buffer sql = {0};
    sqlite3_stmt *s = NULL;
    base_status status;
    if ((status = eval_identity_id(identity, id, err)) ||
        (status = execute(r->db, r->path, "BEGIN IMMEDIATE", err)) ||
        (status = create_schema(r->db, r->path, err))) {
        return status;
    }
    status = base_buffer_append_text(&sql, "INSERT INTO run VALUES(?1, ?2, ?3");
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS && !status; i++) {
        status = base_buffer_printf(&sql, ", ?%zu", i + 4);
    }
    if (!status) {
        status = base_buffer_append_text(&sql, ")");
    }
    status = sql_failed(status, err);
    if (!status && !(status = prepare(r->db, r->path, sql.data, &s, err))) {
        bind_text(s, 1, id);
        sqlite3_bind_int64(s, 2, (int64_t)identity->seed);
        sqlite3_bind_int64(s, 3, (int64_t)identity->limit);
        for (size_t i = 0; i < EVAL_IDENTITY_TEXTS; i++) {
            bind_text(s, (int)i + 4, eval_identity_text(identity, i));
        }
        status = run_once(r->db, r->path, s, err);
    }
    sqlite3_finalize(s);
    base_buffer_free(&sql);
    return status ? status : execute(r->db, r->path, "COMMIT", err);
}

static base_status write_line(eval_results *r, const eval_row *row, base_error *err)
{
    char *line = eval_row_json(row, &r->run.identity, r->run.id);
    base_status status = BASE_OK;
    if (!line) {
        return base_fail(err, BASE_NO_MEMORY, "row (%s, %s) cannot be written as JSON", row->arm,
                         row->question);
    }
    if (fprintf(r->lines, "%s\n", line) < 0 || fflush(r->lines) != 0) {
        status = base_fail(err, BASE_IO, "%s: cannot be written", r->lines_path);
    }
    free(line); /* jansson's own allocation */
    return status;
}

/* results.jsonl is made anew from the rows that are there. */
static base_status write_lines(eval_results *r, base_error *err)
{
    eval_run rows = {0};
    base_status status = read_run(r->db, r->path, &rows, err);
    if (!status && !(r->lines = fopen(r->lines_path, "w"))) {
        status = base_fail(err, BASE_IO, "%s: cannot be written", r->lines_path);
    }
    for (size_t i = 0; i < rows.row_count && !status; i++) {
        status = write_line(r, &rows.rows[i], err);
    }
    eval_run_free(&rows);
    return status;
}

static base_status open_files(eval_results *r, const char *dir, const eval_identity *identity,
                              base_error *err)
{
    base_file_info info;
    bool empty = false;
    base_status status;
    if (base_path_join(r->path, sizeof r->path, dir, "results.sqlite") ||
        base_path_join(r->lines_path, sizeof r->lines_path, dir, "results.jsonl")) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", dir);
    }
    if (base_file_stat(r->path, &info, NULL) == BASE_NOT_FOUND &&
        base_file_stat(r->lines_path, &info, NULL) == BASE_OK) {
        return base_fail(err, BASE_EXISTS, "%s holds results.jsonl without results.sqlite", dir);
    }
    int code = sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (code != SQLITE_OK) {
        return fail_sqlite(err, r->db, code, r->path);
    }
    sqlite3_busy_timeout(r->db, BUSY_TIMEOUT_MS);
    if ((status = check_file(r->db, r->path, &empty, err)) ||
        (status = execute(r->db, r->path, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
                          err)) ||
        (empty && (status = begin_run(r, identity, err))) ||
        (status = read_identity(r->db, r->path, &r->run, err)) ||
        (status = eval_identity_same(dir, &r->run.identity, identity, err)) ||
        (status = prepare(r->db, r->path,
                          "SELECT 1 FROM results WHERE run = ?1 AND arm = ?2 AND question = ?3",
                          &r->has, err)) ||
        (status =
             prepare(r->db, r->path, "SELECT count(*) FROM results WHERE ?1 IS NULL OR arm = ?1",
                     &r->count, err)) ||
        (status = prepare_rows(r->db, r->path, true, &r->add, err)) ||
        (status = prepare(r->db, r->path,
                          "INSERT INTO traces VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                          &r->add_token, err))) {
        return status;
    }
    return write_lines(r, err);
}

base_status eval_results_open(const char *dir, const eval_identity *identity, eval_results **out,
                              base_error *err)
{
    base_status status;
    if (!identity->suite || !*identity->suite || !identity->arms || !*identity->arms) {
        return base_fail(err, BASE_INVALID, "a run needs a suite and arms");
    }
    if (identity->seed > INT64_MAX) {
        return base_fail(err, BASE_INVALID, "the seed %llu is above 2^63 - 1",
                         (unsigned long long)identity->seed);
    }
    if ((status = base_dir_create(dir, err))) {
        return status;
    }
    eval_results *r = base_calloc(1, sizeof *r);
    if (!r) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for results");
    }
    if ((status = open_files(r, dir, identity, err))) {
        eval_results_close(r);
        return status;
    }
    *out = r;
    return BASE_OK;
}

void eval_results_close(eval_results *r)
{
    if (!r) {
        return;
    }
    if (r->lines) {
        fclose(r->lines); /* every line was flushed */
    }
    sqlite3_finalize(r->has);
    sqlite3_finalize(r->count);
    sqlite3_finalize(r->add);
    sqlite3_finalize(r->add_token);
    if (r->add_token) { /* opened in full; a reader in between keeps the log: no harm */
        sqlite3_exec(r->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    }
    sqlite3_close(r->db);
    eval_run_free(&r->run);
    base_free(r);
}

bool eval_results_has(eval_results *r, const char *arm, const char *question)
{
    bind_text(r->has, 1, r->run.id);
    bind_text(r->has, 2, arm);
    bind_text(r->has, 3, question);
    bool has = sqlite3_step(r->has) == SQLITE_ROW;
    sqlite3_reset(r->has);
    return has;
}

size_t eval_results_count(eval_results *r, const char *arm)
{
    bind_text(r->count, 1, arm);
    size_t count =
        sqlite3_step(r->count) == SQLITE_ROW ? (size_t)sqlite3_column_int64(r->count, 0) : 0;
    sqlite3_reset(r->count);
    return count;
}

/* What a model says is bytes; the database and the page hold valid UTF-8 only: broken bytes become
 * U+FFFD. */
static base_status clean_text(const char *text, base_buffer *out, base_error *err)
{
    size_t size = strlen(text);
    base_status status = BASE_OK;
    for (size_t at = 0; at < size && !status;) {
        uint32_t code_point;
        size_t used = base_utf8_decode(text + at, size - at, &code_point);
        status = code_point == UINT32_MAX ? base_buffer_append_text(out, "\xEF\xBF\xBD")
                                          : base_buffer_append(out, text + at, used);
        at += used;
    }
    return status ? base_fail(err, status, "no memory for a text") : BASE_OK;
}

static base_status add_row(eval_results *r, const eval_row *row, base_error *err)
{
    base_status status = BASE_OK;
    bind_text(r->add, 1, r->run.id);
    for (size_t i = 0; i < EVAL_FIELD_ROWS && !status; i++) {
        status = bind_field(r->add, (int)i + 2, &eval_fields[i], row, err);
    }
    if (status) {
        sqlite3_clear_bindings(r->add);
    } else {
        status = run_once(r->db, r->path, r->add, err);
    }
    return status ? status : write_line(r, row, err);
}

base_status eval_results_add(eval_results *r, const eval_row *row, base_error *err)
{
    eval_row clean = *row;
    base_buffer answer = {0};
    base_status status = eval_row_check(row, r->run.identity.arms, err);
    if (status) {
        return status;
    }
    if (eval_results_has(r, row->arm, row->question)) {
        return base_fail(err, BASE_EXISTS, "row (%s, %s) is there already", row->arm,
                         row->question);
    }
    if (row->answer && *row->answer) {
        status = clean_text(row->answer, &answer, err);
        clean.answer = answer.data;
    }
    status = status ? status : add_row(r, &clean, err);
    base_buffer_free(&answer);
    return status;
}

base_status eval_results_trace(eval_results *r, const char *arm, const char *question,
                               const eval_trace_token *tokens, size_t count, base_error *err)
{
    sqlite3_stmt *s = NULL;
    base_status status;
    if ((status = execute(r->db, r->path, "BEGIN IMMEDIATE", err))) {
        return status;
    }
    if (!(status = prepare(r->db, r->path,
                           "DELETE FROM traces WHERE run = ?1 AND arm = ?2 AND question = ?3", &s,
                           err))) {
        bind_text(s, 1, r->run.id);
        bind_text(s, 2, arm);
        bind_text(s, 3, question);
        status = run_once(r->db, r->path, s, err);
    }
    sqlite3_finalize(s);
    for (size_t i = 0; i < count && !status; i++) {
        s = r->add_token;
        bind_text(s, 1, r->run.id);
        bind_text(s, 2, arm);
        bind_text(s, 3, question);
        sqlite3_bind_int64(s, 4, (int64_t)i);
        bind_real(s, 6, tokens[i].entropy_nats);
        bind_real(s, 7, tokens[i].surprise_nats);
        sqlite3_bind_int(s, 8, tokens[i].event);
        bind_real(s, 9, tokens[i].attention_mass);
        base_buffer text = {0};
        if (!(status = clean_text(tokens[i].text ? tokens[i].text : "", &text, err))) {
            bind_text(s, 5, text.data ? text.data : "");
            status = run_once(r->db, r->path, s, err);
        }
        base_buffer_free(&text);
    }
    if (!status) {
        status = execute(r->db, r->path, "COMMIT", err);
    }
    if (status) {
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}
