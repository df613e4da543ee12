/* store/catalog_sqlite.c: store/catalog.h on SQLite 3.40 with FTS5. Alone knows SQLite.
 *
 *   state(one row)       commit id, chain, last episode, number of episodes and of their tokens
 *   episodes(id, ...)    what the as-of cut and verify need
 *   fts(title, text)     FTS5, contentless, rowid = episode id; unicode61 without diacritics
 *
 * WAL with synchronous=NORMAL: no fsync per commit; power loss may take the last changes away,
 * never the file's consistency, and what is missing is caught up. secure_delete overwrites freed
 * content with zeros.
 *
 * Ranking: the postings of a term are read through FTS5's vocabulary table (fts5vocab, "instance")
 * and scored by bm25.c; the terms are those that store_terms_choose keeps. The as-of cut is made
 * before the k best are taken.
 */
#include "store/catalog.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "store/bm25.h"
#include "store/postings.h"
#include "store/terms.h"

#define SCHEMA_VERSION 2
#define PATH_SIZE 4096
#define BUSY_TIMEOUT_MS 10000
#define POSTINGS_MAX 60000 /* chosen: about 10 ms at 0.1 to 0.15 us a posting */

struct store_catalog {
    sqlite3 *db;
    store_catalog_mode mode;
    bool immutable;
    char path[PATH_SIZE];
    sqlite3_stmt *add_row, *add_text, *delete_row, *delete_text, *places, *rows, *frequency, *state;
    fts5_tokenizer methods;
    Fts5Tokenizer *tokenizer;
    int64_t added, added_tokens; /* since begin; taken out ones count below 0 */
    store_bm25 bm25;             /* holds episodes up to loaded_episode, of loaded_commit */
    uint64_t loaded_commit, loaded_episode;
    store_frequencies *frequencies;
    store_postings postings;
};

/* The one place where SQLite's codes become ours. */
static base_status fail_sqlite(base_error *err, sqlite3 *db, int code, const char *what,
                               const char *path)
{
    base_status status;
    switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* all statements are fixed: an error in one is a schema that is not ours */
        status = BASE_CORRUPT;
        break;
    case SQLITE_FULL:
        status = BASE_DISK_FULL;
        break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_AUTH:
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
    base_fail(err, status, "%s (%s): %s", what, path,
              db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    if (err) {
        err->system_code = code;
    }
    return status;
}

static base_status execute(store_catalog *c, const char *sql, base_error *err)
{
    int code = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? BASE_OK : fail_sqlite(err, c->db, code, "catalogue", c->path);
}

/* Run a statement that gives no rows, and make it ready for its next use. */
static base_status run(store_catalog *c, sqlite3_stmt *statement, base_error *err)
{
    int code = sqlite3_step(statement);
    base_status status = BASE_OK;
    if (code != SQLITE_DONE && code != SQLITE_ROW) {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

static base_status prepare(store_catalog *c, const char *sql, sqlite3_stmt **statement,
                           base_error *err)
{
    int code = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    return code == SQLITE_OK ? BASE_OK : fail_sqlite(err, c->db, code, "catalogue", c->path);
}

static base_status query_int(store_catalog *c, const char *sql, int64_t *value, base_error *err)
{
    sqlite3_stmt *statement;
    base_status status = prepare(c, sql, &statement, err);
    if (status != BASE_OK) {
        return status;
    }
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *value = sqlite3_column_int64(statement, 0);
    } else if (code == SQLITE_DONE) {
        status = base_fail(err, BASE_CORRUPT, "catalogue (%s): a row is missing", c->path);
    } else {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_finalize(statement);
    return status;
}

/* --- opening --------------------------------------------------------------------------------- */

static const char schema[] =
    "BEGIN;"
    "CREATE TABLE state(k INTEGER PRIMARY KEY CHECK(k = 1), commit_id INTEGER NOT NULL,"
    " chain INTEGER NOT NULL, last_episode INTEGER NOT NULL, episodes INTEGER NOT NULL,"
    " tokens INTEGER NOT NULL);"
    "INSERT INTO state VALUES(1, 0, 0, 0, 0, 0);"
    "CREATE TABLE episodes(id INTEGER PRIMARY KEY, document INTEGER NOT NULL,"
    " source INTEGER NOT NULL, observed_at INTEGER NOT NULL, tokens INTEGER NOT NULL);"
    "CREATE VIRTUAL TABLE fts USING fts5(title, text, content='',"
    " tokenize='unicode61 remove_diacritics 2');"
    "PRAGMA user_version = 2;"
    "COMMIT;";

static void close_connection(store_catalog *c)
{
    sqlite3_stmt **statements[] = {&c->add_row, &c->add_text, &c->delete_row, &c->delete_text,
                                   &c->places,  &c->rows,     &c->frequency,  &c->state};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        sqlite3_finalize(*statements[i]);
        *statements[i] = NULL;
    }
    if (c->tokenizer) {
        c->methods.xDelete(c->tokenizer);
        c->tokenizer = NULL;
    }
    if (c->db) {
        sqlite3_close(c->db);
        c->db = NULL;
    }
}

/* "file:" URI of a path: everything but unreserved characters and '/' is escaped. */
static base_status make_uri(const char *path, const char *options, char *out, size_t out_size)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    size_t used = (size_t)snprintf(out, out_size, "file:");
    for (const char *p = path; *p; p++) {
        if (used + 4 > out_size) {
            return BASE_LIMIT;
        }
        if (strchr(plain, *p)) {
            out[used++] = *p;
        } else {
            used += (size_t)snprintf(out + used, out_size - used, "%%%02X", (unsigned char)*p);
        }
    }
    if (used + strlen(options) + 1 > out_size) {
        return BASE_LIMIT;
    }
    memcpy(out + used, options, strlen(options) + 1);
    return BASE_OK;
}

static bool wal_has_content(const char *path)
{
    char wal[PATH_SIZE + 8];
    struct stat raw;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &raw) == 0 && raw.st_size > 0;
}

/* Without a write-ahead log the file is whole in itself and is read without locks, so that nothing
 * has to be created beside it; with one, SQLite needs its shared memory file. */
static base_status connect_read(store_catalog *c, base_error *err)
{
    char uri[4 * PATH_SIZE];
    struct stat raw;
    if (stat(c->path, &raw) != 0) {
        return base_fail_errno(err, errno, "cannot open %s", c->path);
    }
    c->immutable = !wal_has_content(c->path);
    if (make_uri(c->path, c->immutable ? "?immutable=1" : "?mode=ro", uri, sizeof uri) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", c->path);
    }
    int code = sqlite3_open_v2(uri, &c->db,
                               SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    return code == SQLITE_OK ? BASE_OK : fail_sqlite(err, c->db, code, "cannot open", c->path);
}

static base_status connect_write(store_catalog *c, base_error *err)
{
    /* SQLite would create the file with the mode 0644; its helpers take over the mode. */
    int fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", c->path);
    }
    close(fd);
    int code = sqlite3_open_v2(c->path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        return fail_sqlite(err, c->db, code, "cannot open", c->path);
    }
    sqlite3_busy_timeout(c->db, BUSY_TIMEOUT_MS);
    return execute(c,
                   "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                   "PRAGMA secure_delete = ON;",
                   err);
}

/* Version, statements, tokenizer. An empty file gets the schema when it may be written. */
static base_status set_up(store_catalog *c, base_error *err)
{
    static const struct {
        size_t member;
        const char *sql;
    } statements[] = {
#define STATEMENT(name, text) {offsetof(store_catalog, name), text}
        STATEMENT(add_row, "INSERT OR REPLACE INTO episodes VALUES(?1, ?2, ?3, ?4, ?5)"),
        STATEMENT(add_text, "INSERT INTO fts(rowid, title, text) VALUES(?1, ?2, ?3)"),
        STATEMENT(delete_row, "DELETE FROM episodes WHERE id = ?1"),
        STATEMENT(delete_text,
                  "INSERT INTO fts(fts, rowid, title, text) VALUES('delete', ?1, ?2, ?3)"),
        STATEMENT(places, "SELECT doc FROM temp.instances WHERE term = ?1"),
        STATEMENT(rows, "SELECT id, observed_at, tokens FROM episodes WHERE id > ?1 ORDER BY id"),
        STATEMENT(frequency, "SELECT doc FROM temp.vocabulary WHERE term = ?1"),
        STATEMENT(state, "SELECT commit_id, chain, last_episode, episodes, tokens FROM state"),
#undef STATEMENT
    };
    int64_t version = 0, tables = 0;
    sqlite3_busy_timeout(c->db, BUSY_TIMEOUT_MS);
    base_status status = execute(c, "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384;", err);
    if (status == BASE_OK) {
        status = query_int(c, "PRAGMA user_version", &version, err);
    }
    if (status == BASE_OK) {
        status = query_int(c, "SELECT count(*) FROM sqlite_master", &tables, err);
    }
    if (status == BASE_OK && version == 0 && tables == 0 && c->mode != STORE_CATALOG_READ) {
        /* Into the file itself: after a power loss its log may be gone, and without the log it is
         * then an older catalogue, not an unreadable one. */
        status = execute(c, schema, err);
        if (status == BASE_OK && c->mode == STORE_CATALOG_WRITE) {
            status = execute(c, "PRAGMA wal_checkpoint(TRUNCATE)", err);
        }
        version = SCHEMA_VERSION;
    }
    if (status == BASE_OK && version != SCHEMA_VERSION) {
        status = base_fail(err, version > SCHEMA_VERSION ? BASE_VERSION : BASE_CORRUPT,
                           "catalogue (%s) has layout %lld, expected %d", c->path,
                           (long long)version, SCHEMA_VERSION);
    }
    if (status == BASE_OK) {
        status = execute(c,
                         "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, fts, row);"
                         "CREATE VIRTUAL TABLE temp.instances USING fts5vocab(main, fts, instance)",
                         err);
    }
    for (size_t i = 0; i < sizeof statements / sizeof *statements && status == BASE_OK; i++) {
        sqlite3_stmt **member = (sqlite3_stmt **)(void *)((char *)c + statements[i].member);
        status = prepare(c, statements[i].sql, member, err);
    }
    return status;
}

/* The very tokenizer of the index, so that queries are cut as texts are. */
static base_status find_tokenizer(store_catalog *c, base_error *err)
{
    static const char *arguments[] = {"remove_diacritics", "2"};
    fts5_api *api = NULL;
    sqlite3_stmt *statement;
    base_status status = prepare(c, "SELECT fts5(?1)", &statement, err);
    if (status != BASE_OK) {
        return status;
    }
    sqlite3_bind_pointer(statement, 1, (void *)&api, "fts5_api_ptr", NULL);
    sqlite3_step(statement);
    sqlite3_finalize(statement);
    void *context = NULL;
    if (!api || api->xFindTokenizer(api, "unicode61", &context, &c->methods) != SQLITE_OK) {
        return base_fail(err, BASE_UNSUPPORTED, "this SQLite has no FTS5 tokenizer unicode61");
    }
    if (c->methods.xCreate(context, arguments, 2, &c->tokenizer) != SQLITE_OK) {
        c->tokenizer = NULL;
        return base_fail(err, BASE_NO_MEMORY, "cannot make the tokenizer of the catalogue");
    }
    return BASE_OK;
}

static base_status connect_memory(store_catalog *c, const char *folder, base_error *err)
{
    int code =
        sqlite3_open_v2(":memory:", &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        return fail_sqlite(err, c->db, code, "cannot open", ":memory:");
    }
    store_catalog *file = NULL;
    if (c->mode == STORE_CATALOG_MEMORY &&
        store_catalog_open(folder, STORE_CATALOG_READ, &file, NULL) == BASE_OK) {
        sqlite3_backup *backup = sqlite3_backup_init(c->db, "main", file->db, "main");
        code = backup ? sqlite3_backup_step(backup, -1) : SQLITE_ERROR;
        sqlite3_backup_finish(backup);
        store_catalog_close(file);
        if (code != SQLITE_DONE) {
            /* Half a copy is worth nothing: begin with an empty one. */
            sqlite3_close(c->db);
            c->db = NULL;
            code = sqlite3_open_v2(":memory:", &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                                   NULL);
            if (code != SQLITE_OK) {
                return fail_sqlite(err, c->db, code, "cannot open", ":memory:");
            }
        }
    }
    return BASE_OK;
}

static base_status connect(store_catalog *c, const char *folder, base_error *err)
{
    base_status status;
    if (c->mode == STORE_CATALOG_WRITE) {
        status = connect_write(c, err);
    } else if (c->mode == STORE_CATALOG_READ) {
        status = connect_read(c, err);
    } else {
        status = connect_memory(c, folder, err);
    }
    if (status == BASE_OK) {
        status = set_up(c, err);
    }
    if (status == BASE_OK) {
        status = find_tokenizer(c, err);
    }
    if (status != BASE_OK) {
        close_connection(c);
    }
    return status;
}

base_status store_catalog_remove(const char *folder, base_error *err)
{
    static const char *const names[] = {STORE_CATALOG_NAME, STORE_CATALOG_NAME "-wal",
                                        STORE_CATALOG_NAME "-shm", STORE_CATALOG_NAME "-journal"};
    char path[PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (base_path_join(path, sizeof path, folder, names[i]) != BASE_OK) {
            return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
        }
        if (unlink(path) != 0 && errno != ENOENT) {
            return base_fail_errno(err, errno, "cannot remove %s", path);
        }
    }
    return BASE_OK;
}

base_status store_catalog_open(const char *folder, store_catalog_mode mode, store_catalog **out,
                               base_error *err)
{
    store_catalog *c = base_calloc(1, sizeof *c);
    if (!c) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    c->mode = mode;
    c->frequencies = base_calloc(1, sizeof *c->frequencies);
    base_status status = c->frequencies ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "out of memory");
    if (status == BASE_OK &&
        base_path_join(c->path, sizeof c->path, folder, STORE_CATALOG_NAME) != BASE_OK) {
        status = base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
    }
    if (status == BASE_OK) {
        base_error local;
        status = connect(c, folder, &local);
        bool useless = status == BASE_CORRUPT || status == BASE_VERSION;
        if (useless && mode == STORE_CATALOG_WRITE) {
            base_log(BASE_LOG_WARN, "the catalogue is unusable and will be rebuilt: %s",
                     local.text);
            status = store_catalog_remove(folder, &local);
            if (status == BASE_OK) {
                status = connect(c, folder, &local);
            }
        }
        if (status != BASE_OK && err) {
            *err = local;
        }
    }
    if (status != BASE_OK) {
        store_catalog_close(c);
        return status;
    }
    *out = c;
    return BASE_OK;
}

void store_catalog_close(store_catalog *c)
{
    if (c) {
        close_connection(c);
        base_free(c->frequencies);
        store_postings_clear(&c->postings);
        store_bm25_free(&c->bm25);
        base_free(c);
    }
}

store_catalog_mode store_catalog_mode_of(const store_catalog *c)
{
    return c->mode;
}

bool store_catalog_outdated(const store_catalog *c)
{
    return c->immutable && wal_has_content(c->path);
}

/* --- state and changes ----------------------------------------------------------------------- */

base_status store_catalog_get_state(store_catalog *c, store_catalog_state *state, base_error *err)
{
    base_status status = BASE_OK;
    int code = sqlite3_step(c->state);
    if (code == SQLITE_ROW) {
        state->commit = (uint64_t)sqlite3_column_int64(c->state, 0);
        state->chain = (uint64_t)sqlite3_column_int64(c->state, 1);
        state->last_episode = (uint64_t)sqlite3_column_int64(c->state, 2);
        state->episodes = (uint64_t)sqlite3_column_int64(c->state, 3);
        state->tokens = (uint64_t)sqlite3_column_int64(c->state, 4);
    } else if (code == SQLITE_DONE) {
        status = base_fail(err, BASE_CORRUPT, "catalogue (%s): its state is missing", c->path);
    } else {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_reset(c->state);
    return status;
}

base_status store_catalog_begin(store_catalog *c, base_error *err)
{
    c->added = c->added_tokens = 0;
    return execute(c, "BEGIN IMMEDIATE", err);
}

void store_catalog_rollback(store_catalog *c)
{
    sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
}

base_status store_catalog_clear(store_catalog *c, base_error *err)
{
    c->added = c->added_tokens = 0;
    return execute(
        c,
        "DELETE FROM episodes; INSERT INTO fts(fts) VALUES('delete-all');"
        "UPDATE state SET commit_id = 0, chain = 0, last_episode = 0, episodes = 0, tokens = 0;",
        err);
}

static void bind_text(sqlite3_stmt *statement, int index, store_slice text)
{
    /* The caller's bytes outlive the step. */
    sqlite3_bind_text64(statement, index, text.data ? (const char *)text.data : "", text.size,
                        SQLITE_STATIC, SQLITE_UTF8);
}

base_status store_catalog_add(store_catalog *c, const store_catalog_entry *entry, base_error *err)
{
    uint64_t sum, tokens;
    base_status status = store_catalog_terms_sum(c, entry->title, entry->text, &sum, &tokens, err);
    if (status != BASE_OK) {
        return status;
    }
    sqlite3_bind_int64(c->add_row, 1, (sqlite3_int64)entry->id);
    sqlite3_bind_int64(c->add_row, 2, (sqlite3_int64)entry->document);
    sqlite3_bind_int64(c->add_row, 3, entry->source);
    sqlite3_bind_int64(c->add_row, 4, entry->observed_at_us);
    sqlite3_bind_int64(c->add_row, 5, (sqlite3_int64)tokens);
    status = run(c, c->add_row, err);
    if (status != BASE_OK) {
        return status;
    }
    sqlite3_bind_int64(c->add_text, 1, (sqlite3_int64)entry->id);
    bind_text(c->add_text, 2, entry->title);
    bind_text(c->add_text, 3, entry->text);
    status = run(c, c->add_text, err);
    if (status == BASE_OK) {
        c->added++;
        c->added_tokens += (int64_t)tokens;
    }
    return status;
}

base_status store_catalog_take_out(store_catalog *c, const store_catalog_entry *entry,
                                   base_error *err)
{
    uint64_t sum, tokens;
    base_status status = store_catalog_terms_sum(c, entry->title, entry->text, &sum, &tokens, err);
    if (status != BASE_OK) {
        return status;
    }
    sqlite3_bind_int64(c->delete_row, 1, (sqlite3_int64)entry->id);
    status = run(c, c->delete_row, err);
    if (status != BASE_OK || sqlite3_changes(c->db) == 0) {
        return status; /* was not there: a 'delete' of an absent text would damage the index */
    }
    sqlite3_bind_int64(c->delete_text, 1, (sqlite3_int64)entry->id);
    bind_text(c->delete_text, 2, entry->title);
    bind_text(c->delete_text, 3, entry->text);
    status = run(c, c->delete_text, err);
    if (status == BASE_OK) {
        c->added--;
        c->added_tokens -= (int64_t)tokens;
    }
    return status;
}

base_status store_catalog_finish(store_catalog *c, uint64_t commit, uint64_t chain,
                                 uint64_t last_episode, base_error *err)
{
    sqlite3_stmt *statement;
    base_status status = prepare(c,
                                 "UPDATE state SET commit_id = ?1, chain = ?2, last_episode = ?3,"
                                 " episodes = episodes + ?4, tokens = tokens + ?5",
                                 &statement, err);
    if (status == BASE_OK) {
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)commit);
        sqlite3_bind_int64(statement, 2, (sqlite3_int64)chain);
        sqlite3_bind_int64(statement, 3, (sqlite3_int64)last_episode);
        sqlite3_bind_int64(statement, 4, c->added);
        sqlite3_bind_int64(statement, 5, c->added_tokens);
        status = run(c, statement, err);
        sqlite3_finalize(statement);
    }
    if (status == BASE_OK) {
        status = execute(c, "COMMIT", err);
    }
    if (status != BASE_OK) {
        sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}

base_status store_catalog_vacuum(store_catalog *c, base_error *err)
{
    int in_log = 0, moved = 0;
    base_status status = execute(c, "VACUUM", err);
    if (status == BASE_OK && c->mode == STORE_CATALOG_WRITE) {
        int code =
            sqlite3_wal_checkpoint_v2(c->db, "main", SQLITE_CHECKPOINT_TRUNCATE, &in_log, &moved);
        if (code != SQLITE_OK) {
            status =
                fail_sqlite(err, c->db, code, "cannot empty the log of the catalogue", c->path);
        }
    }
    return status;
}

/* --- search ------------------------------------------------------------------------------------
 * */

static int collect_term(void *argument, int flags, const char *token, int size, int start, int end)
{
    (void)flags;
    (void)start;
    (void)end;
    return store_terms_add(argument, token, (size_t)size) == BASE_OK ? SQLITE_OK : SQLITE_NOMEM;
}

/* Distinct terms of a query, cut as the index cuts its texts. */
static base_status split_query(store_catalog *c, const char *query, size_t size, store_terms *terms,
                               base_error *err)
{
    if (size > INT32_MAX) {
        return base_fail(err, BASE_LIMIT, "a query of %zu bytes is too long", size);
    }
    if (c->methods.xTokenize(c->tokenizer, terms, FTS5_TOKENIZE_DOCUMENT, query, (int)size,
                             collect_term) != SQLITE_OK) {
        return base_fail(err, BASE_NO_MEMORY, "cannot split the query into terms");
    }
    store_terms_distinct(terms);
    return BASE_OK;
}

/* Number of episodes that hold a term, from the cache if it is there. */
static base_status count_term(store_catalog *c, store_term *term, base_error *err)
{
    if (store_postings_count(&c->postings, term) || store_frequencies_find(c->frequencies, term)) {
        return BASE_OK;
    }
    sqlite3_bind_text64(c->frequency, 1, term->text, term->size, SQLITE_STATIC, SQLITE_UTF8);
    int code = sqlite3_step(c->frequency);
    base_status status = BASE_OK;
    term->documents = 0;
    if (code == SQLITE_ROW) {
        term->documents = (uint64_t)sqlite3_column_int64(c->frequency, 0);
    } else if (code != SQLITE_DONE) {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_reset(c->frequency);
    sqlite3_clear_bindings(c->frequency);
    if (status == BASE_OK) {
        store_frequencies_keep(c->frequencies, term);
    }
    return status;
}

/* Times and lengths of the episodes that came since they were last loaded. */
static base_status load_rows(store_catalog *c, const store_catalog_state *state, base_error *err)
{
    if (state->commit == c->loaded_commit) {
        return BASE_OK;
    }
    if (state->last_episode < c->loaded_episode) {
        store_bm25_free(&c->bm25); /* filled anew with an older history */
        c->loaded_episode = 0;
    }
    base_status status = BASE_OK;
    int code;
    sqlite3_bind_int64(c->rows, 1, (sqlite3_int64)c->loaded_episode);
    while ((code = sqlite3_step(c->rows)) == SQLITE_ROW && status == BASE_OK) {
        uint64_t id = (uint64_t)sqlite3_column_int64(c->rows, 0);
        status = store_bm25_set(&c->bm25, id, sqlite3_column_int64(c->rows, 1),
                                (uint32_t)sqlite3_column_int64(c->rows, 2));
        c->loaded_episode = status == BASE_OK ? id : c->loaded_episode;
    }
    if (status != BASE_OK) {
        base_fail(err, status, "cannot load the catalogue: %s", base_status_text(status));
    } else if (code != SQLITE_DONE) {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    } else {
        c->loaded_commit = state->commit;
    }
    sqlite3_reset(c->rows);
    return status;
}

/* One episode of a term, to the scores and to what is kept of it. */
static base_status take_posting(store_catalog *c, uint64_t id, uint64_t frequency)
{
    store_postings_add(&c->postings, id, frequency);
    return store_bm25_postings(&c->bm25, &(store_bm25_posting){id, frequency}, 1);
}

/* The places of a term come ordered by episode. */
static base_status read_places(store_catalog *c, const store_term *term, base_error *err)
{
    base_status status = BASE_OK;
    uint64_t id = 0, frequency = 0;
    int code;
    sqlite3_bind_text64(c->places, 1, term->text, term->size, SQLITE_STATIC, SQLITE_UTF8);
    while ((code = sqlite3_step(c->places)) == SQLITE_ROW && status == BASE_OK) {
        uint64_t next = (uint64_t)sqlite3_column_int64(c->places, 0);
        if (next == id) {
            frequency++;
            continue;
        }
        if (frequency > 0) {
            status = take_posting(c, id, frequency);
        }
        id = next;
        frequency = 1;
    }
    if (status == BASE_OK && frequency > 0) {
        status = take_posting(c, id, frequency);
    }
    if (status != BASE_OK) {
        base_fail(err, status, "cannot search the text: %s", base_status_text(status));
    } else if (code != SQLITE_DONE) {
        status = fail_sqlite(err, c->db, code, "text search", c->path);
    }
    sqlite3_reset(c->places);
    sqlite3_clear_bindings(c->places);
    return status;
}

/* Add the score of one term. */
static base_status score_term(store_catalog *c, const store_catalog_state *state,
                              const store_term *term, base_error *err)
{
    bool found;
    store_bm25_term(&c->bm25, state->episodes, term->documents);
    base_status status = store_postings_score(&c->postings, term, &c->bm25, &found);
    if (status != BASE_OK) {
        return base_fail(err, status, "cannot search the text: %s", base_status_text(status));
    }
    if (!found) {
        store_postings_begin(&c->postings, term);
        status = read_places(c, term, err);
        if (status == BASE_OK) {
            store_postings_keep(&c->postings);
        }
    }
    return status;
}

/* What BM25 knows of every episode is that of *state, the newest, from here on. */
static base_status refresh_rows(store_catalog *c, store_catalog_state *state, base_error *err)
{
    base_status status = store_catalog_get_state(c, state, err);
    return status == BASE_OK ? load_rows(c, state, err) : status;
}

static base_status search_terms(store_catalog *c, store_terms *terms, base_error *err)
{
    store_catalog_state state;
    base_status status = refresh_rows(c, &state, err);
    if (status != BASE_OK) {
        return status;
    }
    store_frequencies_refresh(c->frequencies, state.last_episode, state.episodes);
    store_postings_refresh(&c->postings, state.last_episode, state.episodes);
    for (size_t i = 0; i < terms->count && status == BASE_OK; i++) {
        status = count_term(c, &terms->items[i], err);
    }
    size_t chosen = store_terms_choose(terms, state.episodes, POSTINGS_MAX);
    store_bm25_begin(&c->bm25, state.tokens, state.episodes);
    for (size_t i = 0; i < chosen && status == BASE_OK; i++) {
        status = score_term(c, &state, &terms->items[i], err);
    }
    return status;
}

base_status store_catalog_search(store_catalog *c, const char *query, size_t query_size,
                                 int64_t as_of_us, size_t k, store_text_hit *hits, size_t *count,
                                 base_error *err)
{
    store_terms terms = {0};
    base_status status = split_query(c, query, query_size, &terms, err);
    if (status == BASE_OK) {
        status = search_terms(c, &terms, err);
    }
    size_t found = store_bm25_finish(&c->bm25, as_of_us, status == BASE_OK ? k : 0, hits);
    if (status == BASE_OK) {
        *count = found;
    }
    store_terms_free(&terms);
    return status;
}

base_status store_catalog_known(store_catalog *c, int64_t as_of_us, uint64_t **ids, size_t *count,
                                base_error *err)
{
    store_catalog_state state;
    base_status status = refresh_rows(c, &state, err);
    if (status != BASE_OK) {
        return status;
    }
    size_t known = store_bm25_known(&c->bm25, as_of_us, NULL);
    uint64_t *list = base_alloc((known + 1) * sizeof *list);
    if (!list) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu ids", known);
    }
    *count = store_bm25_known(&c->bm25, as_of_us, list);
    *ids = list;
    return BASE_OK;
}

/* --- proof of agreement ---------------------------------------------------------------------- */

typedef struct text_sum {
    uint64_t sum, offset;
    unsigned column;
} text_sum;

static int add_instance(void *argument, int flags, const char *token, int size, int start, int end)
{
    text_sum *total = argument;
    (void)flags;
    (void)start;
    (void)end;
    total->sum += store_terms_fingerprint(token, (size_t)size, total->column, total->offset);
    total->offset++;
    return SQLITE_OK;
}

base_status store_catalog_terms_sum(store_catalog *c, store_slice title, store_slice text,
                                    uint64_t *sum, uint64_t *tokens, base_error *err)
{
    text_sum total = {0};
    *tokens = 0;
    store_slice parts[2] = {title, text};
    for (unsigned i = 0; i < 2; i++) {
        total.column = i;
        total.offset = 0;
        if (c->methods.xTokenize(c->tokenizer, &total, FTS5_TOKENIZE_DOCUMENT,
                                 parts[i].data ? (const char *)parts[i].data : "",
                                 (int)parts[i].size, add_instance) != SQLITE_OK) {
            return base_fail(err, BASE_NO_MEMORY, "cannot split a text into terms");
        }
        *tokens += total.offset;
    }
    *sum = total.sum;
    return BASE_OK;
}

typedef struct row_list {
    store_catalog_row *items;
    size_t count, capacity;
} row_list;

static store_catalog_row *row_list_add(row_list *list)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024, size;
        store_catalog_row *items = NULL;
        if (base_size_mul(capacity, sizeof *items, &size)) {
            items = base_realloc(list->items, size);
        }
        if (!items) {
            return NULL;
        }
        list->items = items;
        list->capacity = capacity;
    }
    store_catalog_row *row = &list->items[list->count++];
    memset(row, 0, sizeof *row);
    return row;
}

static int compare_rows(const void *a, const void *b)
{
    const store_catalog_row *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static store_catalog_row *find_row(store_catalog_row *rows, size_t count, uint64_t id)
{
    store_catalog_row wanted = {.id = id};
    return count ? bsearch(&wanted, rows, count, sizeof *rows, compare_rows) : NULL;
}

static base_status load_table_rows(store_catalog *c, row_list *list, base_error *err)
{
    sqlite3_stmt *statement;
    base_status status =
        prepare(c, "SELECT id, document, source, observed_at, tokens FROM episodes ORDER BY id",
                &statement, err);
    if (status != BASE_OK) {
        return status;
    }
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        store_catalog_row *row = row_list_add(list);
        if (!row) {
            sqlite3_finalize(statement);
            return base_fail(err, BASE_NO_MEMORY, "out of memory");
        }
        row->id = (uint64_t)sqlite3_column_int64(statement, 0);
        row->document = (uint64_t)sqlite3_column_int64(statement, 1);
        row->source = (uint32_t)sqlite3_column_int64(statement, 2);
        row->observed_at_us = sqlite3_column_int64(statement, 3);
        row->tokens = (uint64_t)sqlite3_column_int64(statement, 4);
    }
    if (code != SQLITE_DONE) {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_finalize(statement);
    return status;
}

/* Add up what the index holds of each episode. Ids that only the index knows go to strays. */
static base_status load_index_sums(store_catalog *c, row_list *list, row_list *strays,
                                   base_error *err)
{
    sqlite3_stmt *statement;
    base_status status =
        prepare(c, "SELECT term, doc, col = 'text', offset FROM temp.instances", &statement, err);
    if (status != BASE_OK) {
        return status;
    }
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *term = (const char *)sqlite3_column_text(statement, 0);
        size_t size = (size_t)sqlite3_column_bytes(statement, 0);
        uint64_t id = (uint64_t)sqlite3_column_int64(statement, 1);
        store_catalog_row *row = find_row(list->items, list->count, id);
        if (!row) {
            row = strays->count && strays->items[strays->count - 1].id == id
                      ? &strays->items[strays->count - 1]
                      : row_list_add(strays);
            if (!row) {
                sqlite3_finalize(statement);
                return base_fail(err, BASE_NO_MEMORY, "out of memory");
            }
            row->id = id;
        }
        row->terms_sum += store_terms_fingerprint(term ? term : "", size,
                                                  (unsigned)sqlite3_column_int(statement, 2),
                                                  (uint64_t)sqlite3_column_int64(statement, 3));
    }
    if (code != SQLITE_DONE) {
        status = fail_sqlite(err, c->db, code, "catalogue", c->path);
    }
    sqlite3_finalize(statement);
    return status;
}

/* SQLite's own check of pages and b-trees. */
static base_status check_file(store_catalog *c, bool *damaged, char *fault, base_error *err)
{
    sqlite3_stmt *statement;
    base_status status = prepare(c, "PRAGMA integrity_check(1)", &statement, err);
    if (status != BASE_OK) {
        return status;
    }
    *damaged = false;
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        *damaged = !text || strcmp(text, "ok") != 0;
        snprintf(fault, 200, "%s", text ? text : "");
    } else {
        *damaged = true;
        snprintf(fault, 200, "%s", sqlite3_errmsg(c->db));
    }
    sqlite3_finalize(statement);
    return BASE_OK;
}

base_status store_catalog_rows(store_catalog *c, store_catalog_row **rows, size_t *count,
                               bool *damaged, char *fault, base_error *err)
{
    row_list list = {0}, strays = {0};
    base_status status = check_file(c, damaged, fault, err);
    if (status == BASE_OK) {
        status = load_table_rows(c, &list, err);
    }
    if (status == BASE_OK) {
        status = load_index_sums(c, &list, &strays, err);
    }
    for (size_t i = 0; i < strays.count && status == BASE_OK; i++) {
        store_catalog_row *row = row_list_add(&list);
        if (!row) {
            status = base_fail(err, BASE_NO_MEMORY, "out of memory");
        } else {
            *row = strays.items[i];
        }
    }
    base_free(strays.items);
    if (status != BASE_OK) {
        base_free(list.items);
        return status;
    }
    if (strays.count && list.count > 1) {
        qsort(list.items, list.count, sizeof *list.items, compare_rows);
    }
    *rows = list.items;
    *count = list.count;
    return BASE_OK;
}
