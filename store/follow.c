/* store/follow.c: the catalogue runs behind the records. It is brought up to the newest commit from
 * the commit ids that both carry, emptied and filled anew when their histories differ, and held in
 * memory where the folder may not be written. */
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "store/internal.h"

/* Does the history of the records contain the state of the catalogue? */
static base_status shares_history(store_db_txn *txn, const store_catalog_state *state,
                                  const store_meta *meta, bool *shared, base_error *err)
{
    *shared = false;
    if (state->commit == 0 || state->commit > meta->last_commit) {
        *shared = state->commit == 0;
        return BASE_OK;
    }
    store_commit_record commit;
    base_status status = store_load_commit(txn, state->commit, &commit, err);
    if (status == BASE_NOT_FOUND || status == BASE_CORRUPT) {
        return BASE_OK; /* cannot be told: fill anew */
    }
    if (status == BASE_OK) {
        *shared = commit.chain == state->chain && commit.next_episode == state->last_episode + 1;
    }
    return status;
}

static const store_removed *find_removed(const store_removed *removed, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (removed[i].id == id && removed[i].text) {
            return &removed[i];
        }
    }
    return NULL;
}

/* Take out what was forgotten since; *complete is false when a text is not at hand any more. */
static base_status follow_forgotten(store_db_txn *txn, store_catalog *c,
                                    const store_catalog_state *state, const store_removed *removed,
                                    size_t removed_count, bool *complete, base_error *err)
{
    store_ids ids = {0};
    *complete = true;
    base_status status = store_load_forgotten(txn, state->commit, &ids, err);
    for (size_t i = 0; i < ids.count && status == BASE_OK; i++) {
        if (ids.items[i] > state->last_episode) {
            break; /* came and went without the catalogue */
        }
        const store_removed *text = find_removed(removed, removed_count, ids.items[i]);
        if (!text) {
            *complete = false;
            break;
        }
        store_catalog_entry entry = {.id = text->id,
                                     .title = store_slice_of(text->title, text->title_size),
                                     .text = store_slice_of(text->text, text->text_size)};
        status = store_catalog_take_out(c, &entry, err);
    }
    store_ids_free(&ids);
    return status;
}

/* Add every episode with id > after. A damaged one is left out; verify names it. */
static base_status follow_new(store_db_txn *txn, store_catalog *c, uint64_t after, base_error *err)
{
    store_db_cursor *cursor;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_EPISODE, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    store_slice key, value, payload;
    store_key start = store_key_u64(after + 1);
    uint64_t damaged = 0;
    status = store_db_seek(cursor, &start, &key, &value, err);
    while (status == BASE_OK) {
        store_span_record span;
        if (store_record_open(STORE_TABLE_EPISODE, key.data, key.size, value, NULL, &payload) ==
                BASE_OK &&
            key.size == 8 && store_span_decode(payload, &span) == BASE_OK) {
            store_catalog_entry entry = {.id = base_get_u64_be(key.data),
                                         .document = span.document,
                                         .source = span.source,
                                         .observed_at_us = span.observed_at_us,
                                         .title = span.title,
                                         .text = span.text};
            status = store_catalog_add(c, &entry, err);
        } else {
            damaged++;
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    if (damaged > 0) {
        base_log(BASE_LOG_WARN, "%llu damaged episodes were left out of the catalogue",
                 (unsigned long long)damaged);
    }
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status follow(store_db_txn *txn, store_catalog *c, const store_removed *removed,
                          size_t removed_count, bool anew, base_error *err)
{
    store_meta meta;
    store_catalog_state state;
    store_commit_record last = {0};
    base_status status = store_load_meta(txn, &meta, err);
    if (status == BASE_OK && meta.last_commit > 0) {
        status = store_load_commit(txn, meta.last_commit, &last, err);
    }
    if (status == BASE_OK) {
        status = store_catalog_get_state(c, &state, err);
    }
    if (status == BASE_OK && !anew && state.commit == meta.last_commit &&
        state.chain == last.chain) {
        return BASE_OK;
    }
    if (status == BASE_OK) {
        /* From here on another writer of the catalogue waits; what it left is looked at again. */
        status = store_catalog_begin(c, err);
    }
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND
                   ? base_fail(err, BASE_CORRUPT, "the newest commit has no record")
                   : status;
    }
    bool complete = false;
    status = store_catalog_get_state(c, &state, err);
    if (status == BASE_OK && !anew) {
        status = shares_history(txn, &state, &meta, &complete, err);
    }
    if (status == BASE_OK && complete) {
        status = follow_forgotten(txn, c, &state, removed, removed_count, &complete, err);
    }
    if (status == BASE_OK && !complete) {
        base_log(BASE_LOG_INFO, "the catalogue is filled anew from the records");
        status = store_catalog_clear(c, err);
        state.last_episode = 0;
    }
    if (status == BASE_OK) {
        status = follow_new(txn, c, state.last_episode, err);
    }
    if (status != BASE_OK) {
        store_catalog_rollback(c);
        return status;
    }
    return store_catalog_finish(c, meta.last_commit, last.chain, meta.next_episode - 1, err);
}

base_status store_follow(store_db_txn *txn, store_catalog *c, const store_removed *removed,
                         size_t removed_count, base_error *err)
{
    return follow(txn, c, removed, removed_count, false, err);
}

base_status store_follow_anew(store_db_txn *txn, store_catalog *c, base_error *err)
{
    return follow(txn, c, NULL, 0, true, err);
}

/* The file as it is will do when it has the newest commit (or a writer of this store is at it). */
static base_status check_current(store *s, store_db_txn *txn, store_catalog *c, base_error *err)
{
    store_meta meta;
    store_catalog_state state;
    base_status status = store_load_meta(txn, &meta, err);
    if (status == BASE_OK) {
        status = store_catalog_get_state(c, &state, err);
    }
    if (status == BASE_OK && state.commit != meta.last_commit && s->read_only) {
        status = base_fail(err, BASE_BUSY, "the catalogue is behind the records");
    }
    return status;
}

/* Open in one mode and follow as far as that mode may. */
static base_status attach(store *s, store_db_txn *txn, store_catalog_mode mode, base_error *err)
{
    store_catalog *c = NULL;
    base_status status = store_catalog_open(s->path, mode, &c, err);
    if (status == BASE_OK) {
        status = mode == STORE_CATALOG_READ ? check_current(s, txn, c, err)
                                            : store_follow(txn, c, NULL, 0, err);
    }
    if (status == BASE_CORRUPT && mode == STORE_CATALOG_WRITE) {
        /* Damage inside the file showed on the way: one more time from nothing. */
        base_log(BASE_LOG_WARN, "the catalogue is damaged and will be rebuilt: %s", err->text);
        store_catalog_close(c);
        c = NULL;
        status = store_catalog_remove(s->path, err);
        if (status == BASE_OK) {
            status = store_catalog_open(s->path, mode, &c, err);
        }
        if (status == BASE_OK) {
            status = store_follow(txn, c, NULL, 0, err);
        }
    }
    if (status != BASE_OK) {
        store_catalog_close(c);
        return status;
    }
    s->catalog = c;
    return BASE_OK;
}

void store_catalog_attach(store *s, bool may_write, bool distrust)
{
    const struct {
        store_catalog_mode mode;
        bool wanted;
    } ways[] = {{STORE_CATALOG_WRITE, may_write},
                {STORE_CATALOG_READ, !distrust},
                {STORE_CATALOG_MEMORY, !distrust},
                {STORE_CATALOG_FRESH, true}};
    store_reader reader;
    base_error local = {0};
    pthread_mutex_lock(&s->catalog_lock);
    store_catalog_close(s->catalog);
    s->catalog = NULL;
    base_status status = store_read_begin(s, &reader, &local);
    if (status == BASE_OK) {
        if (may_write && distrust) {
            store_catalog_remove(s->path, NULL);
        }
        status = BASE_BUSY;
        for (size_t i = 0; i < sizeof ways / sizeof *ways && status != BASE_OK; i++) {
            if (ways[i].wanted) {
                status = attach(s, reader.txn, ways[i].mode, &local);
                if (status != BASE_OK) {
                    base_log(ways[i].mode == STORE_CATALOG_READ ? BASE_LOG_DEBUG : BASE_LOG_WARN,
                             "catalogue of %s: %s", s->path, local.text);
                }
            }
        }
        store_read_end(s, &reader);
    } else {
        base_log(BASE_LOG_WARN, "catalogue of %s: %s", s->path, local.text);
    }
    pthread_mutex_unlock(&s->catalog_lock);
}

void store_catalog_commit(store *s, const store_removed *removed, size_t removed_count)
{
    store_reader reader;
    base_error local = {0};
    base_status status = BASE_CORRUPT;
    pthread_mutex_lock(&s->catalog_lock);
    if (s->catalog && store_catalog_mode_of(s->catalog) == STORE_CATALOG_WRITE) {
        status = store_read_begin(s, &reader, &local);
        if (status == BASE_OK) {
            status = store_follow(reader.txn, s->catalog, removed, removed_count, &local);
            store_read_end(s, &reader);
        }
        if (status != BASE_OK) {
            base_log(BASE_LOG_WARN, "the catalogue did not follow: %s", local.text);
        }
    }
    pthread_mutex_unlock(&s->catalog_lock);
    if (status == BASE_CORRUPT) {
        /* Opened in another mode because it was busy then, or damaged: now is the time. */
        store_catalog_attach(s, true, false);
    }
}
