/* store/ageing.c: what the comparison of episodes of different documents writes. Which episodes
 * fill one slot is decided in retrieval/; the order in time is checked here. */
#include "store/internal.h"

base_status store_put_superseded(store_txn *txn, uint64_t older, uint64_t newer, bool *changed,
                                 base_error *err)
{
    store_span_record old_span, new_span;
    store_state before;
    *changed = false;
    base_status status = store_load_span(txn->db, older, &old_span, NULL, err);
    int64_t old_us = status == BASE_OK ? old_span.observed_at_us : 0;
    if (status == BASE_OK) {
        status = store_load_span(txn->db, newer, &new_span, NULL, err);
    }
    if (status == BASE_OK) {
        status = store_load_state(txn->db, older, &before, err);
    }
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    int64_t new_us = new_span.observed_at_us;
    bool in_order = old_us != new_us ? old_us < new_us : older < newer;
    if (!in_order || before.superseded_at_us <= new_us) {
        return BASE_OK;
    }
    store_state after = before;
    after.superseded_at_us = new_us;
    after.superseded_by = newer;
    *changed = true;
    return store_save_state(txn, older, &before, &after, err);
}

base_status store_put_compared(store_txn *txn, uint64_t id, base_error *err)
{
    (void)err;
    if (id > txn->meta.compared) {
        txn->meta.compared = id;
        txn->changed = true;
    }
    return BASE_OK;
}

base_status store_get_compared(store *s, uint64_t *id, base_error *err)
{
    store_reader reader;
    store_meta meta;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_meta(reader.txn, &meta, err);
    if (status == BASE_OK) {
        *id = meta.compared;
    }
    store_read_end(s, &reader);
    if (status == BASE_NOT_FOUND) {
        *id = 0;
        return BASE_OK;
    }
    return status;
}
