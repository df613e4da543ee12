/* store/put.c: the small writes: states, uses, keys and values, half-lives, the count of dropped
 * writes. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "store/internal.h"

void store_chain_add(store_txn *txn, const void *data, size_t size)
{
    base_sha256_add(&txn->chain, data, size);
}

base_status store_save_state(store_txn *txn, uint64_t id, const store_state *before,
                             const store_state *after, base_error *err)
{
    bool was = before->superseded_at_us != BASE_TIME_MAX;
    bool is = after->superseded_at_us != BASE_TIME_MAX;
    store_key key = store_key_u64(id);
    if (is && !was) {
        txn->meta.superseded++;
    } else if (was && !is) {
        txn->meta.superseded--;
    }
    return store_save_status(txn, store_state_encode(&txn->payload, after), STORE_TABLE_STATE, &key,
                             false, err);
}

/* Is the episode there at all? BASE_NOT_FOUND with a text, since writing to a missing one is an
 * error. */
static base_status require_episode(store_txn *txn, uint64_t id, base_error *err)
{
    store_slice value;
    store_key key = store_key_u64(id);
    base_status status = store_db_get(txn->db, STORE_TABLE_EPISODE, &key, &value, err);
    return status == BASE_NOT_FOUND
               ? base_fail(err, BASE_NOT_FOUND, "there is no episode %llu", (unsigned long long)id)
               : status;
}

base_status store_put_use(store_txn *txn, uint64_t episode, int64_t time_us, float mass,
                          base_error *err)
{
    if (!(mass >= 0.0f) || isinf(mass) || time_us == BASE_TIME_NONE || time_us == BASE_TIME_MAX) {
        return base_fail(err, BASE_INVALID, "a use needs a time and a finite mass >= 0");
    }
    base_status status = require_episode(txn, episode, err);
    if (status != BASE_OK) {
        return status;
    }
    store_key key = store_key_use(episode, time_us);
    store_slice payload;
    float before = -1.0f;
    status = store_load(txn->db, STORE_TABLE_USE, &key, &payload, NULL, err);
    if (status == BASE_OK && store_mass_decode(payload, &before) != BASE_OK) {
        before = -1.0f; /* damaged: written anew */
    }
    bool replaced = status == BASE_OK;
    if (status != BASE_OK && status != BASE_NOT_FOUND && status != BASE_CORRUPT) {
        return status;
    }
    if (before >= mass) {
        return BASE_OK; /* the same moment again: the larger mass stands */
    }
    uint8_t bytes[4];
    base_put_f32(bytes, mass);
    base_buffer_clear(&txn->payload);
    status = base_buffer_append(&txn->payload, bytes, sizeof bytes);
    status = store_save_status(txn, status, STORE_TABLE_USE, &key, false, err);
    if (status == BASE_OK && !replaced) {
        txn->meta.uses++;
    }
    if (status == BASE_OK && mass >= STORE_USE_MASS_MIN && before < STORE_USE_MASS_MIN) {
        store_state state, counted;
        status = store_load_state(txn->db, episode, &state, err);
        counted = state;
        counted.use_count++;
        if (status == BASE_OK) {
            status = store_save_state(txn, episode, &state, &counted, err);
        }
    }
    return status;
}

base_status store_put_kv(store_txn *txn, uint64_t episode, const uint8_t tag[32], const void *data,
                         size_t size, base_error *err)
{
    base_status status = require_episode(txn, episode, err);
    if (status != BASE_OK) {
        return status;
    }
    store_key key = store_key_kv(episode, tag);
    store_slice payload;
    status = store_load(txn->db, STORE_TABLE_KV, &key, &payload, NULL, err);
    if (status == BASE_OK) {
        txn->meta.bytes_kv -= payload.size;
    } else if (status == BASE_NOT_FOUND) {
        txn->meta.kv_entries++;
    } else if (status != BASE_CORRUPT) {
        return status;
    }
    status = store_record_seal(&txn->sealed, STORE_TABLE_KV, &key, txn->commit, data, size);
    if (status != BASE_OK) {
        return store_fail_record(err, status, STORE_TABLE_KV, key.data, key.size);
    }
    txn->changed = true;
    txn->meta.bytes_kv += size;
    return store_db_put(txn->db, STORE_TABLE_KV, &key, txn->sealed.data, txn->sealed.size, false,
                        err);
}

base_status store_put_half_life(store_txn *txn, const char *source, double half_life_s,
                                uint64_t evidence, base_error *err)
{
    if (!(half_life_s >= 0.0)) {
        return base_fail(err, BASE_INVALID, "a half-life must be 0 (as measured) or above");
    }
    uint32_t id = 0;
    store_source record;
    base_status status = store_find_source(txn->db, source, &id, err);
    if (status == BASE_OK) {
        status = store_load_source(txn->db, id, &record, err);
    }
    if (status == BASE_NOT_FOUND) {
        return base_fail(err, BASE_NOT_FOUND, "there is no source \"%s\"", source);
    }
    if (status != BASE_OK) {
        return status;
    }
    record.given = half_life_s > 0.0;
    record.half_life_s = record.given ? half_life_s : INFINITY;
    record.evidence = record.given ? evidence : 0;
    store_key key = store_key_u32(id);
    return store_save_status(txn, store_source_encode(&txn->payload, &record), STORE_TABLE_SOURCE,
                             &key, false, err);
}

base_status store_count_dropped(store *s, uint64_t count, base_error *err)
{
    pthread_mutex_lock(&s->small_lock);
    s->dropped_pending += count;
    pthread_mutex_unlock(&s->small_lock);
    if (s->read_only || count == 0) {
        return BASE_OK; /* shown by this handle's stats, lost with it */
    }
    store_txn *txn;
    store_commit_record last = {0};
    base_status status = store_begin_within(s, 0, 0, &txn, err);
    if (status == BASE_BUSY) {
        return BASE_OK; /* goes along with the next commit of this handle */
    }
    if (status != BASE_OK) {
        return status;
    }
    if (txn->meta.last_commit > 0) {
        status = store_load_commit(txn->db, txn->meta.last_commit, &last, err);
    }
    if (status != BASE_OK) {
        store_abort(txn);
        return status;
    }
    txn->clock_us = last.clock_us; /* no clock was given */
    txn->changed = true;
    return store_commit(txn, err);
}
