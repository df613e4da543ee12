/* store/ageing.c: what the comparison of episodes of different documents writes. Which episodes
 * fill one slot is decided in retrieval/; the order in time is checked here. And what is counted by
 * it: the streams of each source and how often they change, from which half-lives follow (decay.c).
 * The counts move with each closing, in its commit; nothing is ever counted anew. */
#include "store/internal.h"

#define LN2 0.69314718055994531

/* What a stream adds to the counts of a source or document, or takes from them. */
static void count_changes(store_drift *d, const store_state *state, bool add)
{
    double first_s = (double)state->first_observed_us * 1e-6;
    if (state->changes == 0) {
        return;
    }
    if (add) {
        d->changed++;
        d->changes += state->changes;
        d->first_sum_s += first_s;
    } else { /* never below nothing: counts may be missing after damage */
        d->changed -= d->changed > 0;
        d->changes -= d->changes < state->changes ? d->changes : state->changes;
        d->first_sum_s = d->changed > 0 ? d->first_sum_s - first_s : 0.0;
    }
}

/* What changes in the counts of one source. */
typedef struct count_step {
    const store_state *leaves, *joins; /* state of the newest episode of a stream, NULL = none */
    int closed;                        /* episodes */
} count_step;

static base_status count_in_source(store_txn *txn, uint32_t id, const count_step *step,
                                   base_error *err)
{
    store_source source;
    base_status status = store_load_source(txn->db, id, &source, err);
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    if (step->leaves) {
        count_changes(&source.drift, step->leaves, false);
    }
    if (step->joins) {
        count_changes(&source.drift, step->joins, true);
    }
    source.closed += step->closed > 0;
    source.closed -= step->closed < 0 && source.closed > 0;
    store_key key = store_key_u32(id);
    return store_save_status(txn, store_source_encode(&txn->payload, &source), STORE_TABLE_SOURCE,
                             &key, false, err);
}

static base_status count_in_document(store_txn *txn, uint64_t id, const count_step *step,
                                     base_error *err)
{
    store_document document;
    bool any =
        (step->leaves && step->leaves->changes > 0) || (step->joins && step->joins->changes > 0);
    base_status status = any ? store_load_document(txn->db, id, &document, err) : BASE_NOT_FOUND;
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    if (step->leaves) {
        count_changes(&document.drift, step->leaves, false);
    }
    if (step->joins) {
        count_changes(&document.drift, step->joins, true);
    }
    store_key key = store_key_u64(id);
    return store_save_status(txn, store_document_encode(&txn->payload, &document),
                             STORE_TABLE_DOCUMENT, &key, false, err);
}

static base_status count_step_at(store_txn *txn, store_place place, const count_step *step,
                                 base_error *err)
{
    base_status status = count_in_source(txn, place.source, step, err);
    return status == BASE_OK ? count_in_document(txn, place.document, step, err) : status;
}

base_status store_leave_stream(store_txn *txn, store_place place, const store_state *before,
                               bool forgotten, base_error *err)
{
    bool open = before->superseded_at_us == BASE_TIME_MAX;
    count_step step = {.leaves = open ? before : NULL,
                       .closed = forgotten ? (open ? 0 : -1) : (open ? 1 : 0)};
    bool any = step.closed != 0 || (open && before->changes > 0);
    return any ? count_step_at(txn, place, &step, err) : BASE_OK;
}

base_status store_count_stream(store_txn *txn, store_place place, const store_state *state,
                               base_error *err)
{
    bool open = state->superseded_at_us == BASE_TIME_MAX;
    count_step step = {.joins = open ? state : NULL, .closed = !open};
    return !open || state->changes > 0 ? count_step_at(txn, place, &step, err) : BASE_OK;
}

base_status store_join_stream(store_txn *txn, const store_link *link, base_error *err)
{
    store_state before;
    base_status status = store_load_state(txn->db, link->newer, &before, err);
    if (status != BASE_OK) {
        return status;
    }
    store_state after = before;
    const store_state *old = &link->older_before;
    uint64_t changes = old->changes + link->changed;
    int64_t first_us =
        old->first_observed_us != BASE_TIME_NONE ? old->first_observed_us : link->older_observed_us;
    if (before.first_observed_us == BASE_TIME_NONE || first_us < before.first_observed_us) {
        after.first_observed_us = first_us;
    }
    after.changes = changes > before.changes ? changes : before.changes;
    after.replaced = link->changed ? link->older : old->replaced ? old->replaced : before.replaced;
    if (after.changes == before.changes && after.replaced == before.replaced &&
        after.first_observed_us == before.first_observed_us) {
        return BASE_OK;
    }
    if (after.changes > 0 && before.superseded_at_us == BASE_TIME_MAX) {
        count_step step = {.leaves = &before, .joins = &after};
        status = count_step_at(txn, link->newer_place, &step, err);
    }
    return status == BASE_OK ? store_save_state(txn, link->newer, &before, &after, err) : status;
}

base_status store_put_superseded(store_txn *txn, uint64_t older, uint64_t newer, bool *changed,
                                 base_error *err)
{
    store_span_record span;
    store_place older_place = {0};
    store_link link = {.older = older, .newer = newer, .changed = true};
    *changed = false;
    base_status status = store_load_span(txn->db, older, &span, NULL, err);
    if (status == BASE_OK) {
        link.older_observed_us = span.observed_at_us;
        older_place = (store_place){span.document, span.source};
        status = store_load_span(txn->db, newer, &span, NULL, err);
    }
    if (status == BASE_OK) {
        link.newer_place = (store_place){span.document, span.source};
        status = store_load_state(txn->db, older, &link.older_before, err);
    }
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    int64_t old_us = link.older_observed_us, new_us = span.observed_at_us;
    bool in_order = old_us != new_us ? old_us < new_us : older < newer;
    if (!in_order || link.older_before.superseded_at_us <= new_us) {
        return BASE_OK;
    }
    store_state after = link.older_before;
    after.superseded_at_us = new_us;
    after.superseded_by = newer;
    *changed = true;
    status = store_save_state(txn, older, &link.older_before, &after, err);
    if (status == BASE_OK) {
        status = store_leave_stream(txn, older_place, &link.older_before, false, err);
    }
    return status == BASE_OK ? store_join_stream(txn, &link, err) : status;
}

void store_source_drift(const store_source *source, store_drift *out)
{
    *out = source->drift;
    out->streams = source->episodes > source->closed ? source->episodes - source->closed : 0;
    out->streams = out->streams > out->changed ? out->streams : out->changed;
}

/* Half-life of the streams of one source that change, from what was counted. */
static base_status measure_source(store_txn *txn, uint32_t id, uint64_t *measured, base_error *err)
{
    store_source source;
    base_status status = store_load_source(txn->db, id, &source, err);
    if (status != BASE_OK) {
        return status;
    }
    const store_drift *d = &source.drift;
    double exposed_s = (double)d->changed * (double)d->last_observed_us * 1e-6 - d->first_sum_s;
    if (source.given || d->changes == 0 || exposed_s <= 0.0) {
        return BASE_OK;
    }
    ++*measured;
    double half_life_s = LN2 * exposed_s / (double)d->changes;
    if (half_life_s == source.half_life_s && source.evidence == d->changes) {
        return BASE_OK;
    }
    source.half_life_s = half_life_s;
    source.evidence = d->changes;
    store_key key = store_key_u32(id);
    return store_save_status(txn, store_source_encode(&txn->payload, &source), STORE_TABLE_SOURCE,
                             &key, false, err);
}

base_status store_put_drift(store_txn *txn, uint64_t *measured, base_error *err)
{
    *measured = 0;
    for (uint32_t id = 0; id < txn->meta.next_source; id++) {
        base_status status = measure_source(txn, id, measured, err);
        if (status != BASE_OK && status != BASE_NOT_FOUND) {
            return status;
        }
    }
    return BASE_OK;
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
