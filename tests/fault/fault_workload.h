/* tests/fault/fault_workload.h: a store's life in numbered steps, made from their numbers alone, on
 * an open store and its index: documents and newer versions with vectors, uses, keys and values,
 * forgetting, flushing the index, another encoder. A step returns when all of it is acknowledged.
 */
#ifndef FAULT_WORKLOAD_H
#define FAULT_WORKLOAD_H

#include "tests/fault/fault_store.h"

enum { WORKLOAD_DOCUMENTS = 3, WORKLOAD_FORGET = 5, WORKLOAD_FLUSH = 3, WORKLOAD_REINDEX = 12 };

/* Unit vector number `number` of an encoder of that kind. */
static inline void workload_vector(uint64_t kind, uint64_t number, float out[FAULT_DIM])
{
    base_rng rng;
    double sum = 0;
    base_rng_seed(&rng, kind * 1000003 + number);
    for (int i = 0; i < FAULT_DIM; i++) {
        out[i] = (float)base_rng_normal(&rng);
        sum += (double)out[i] * out[i];
    }
    for (int i = 0; i < FAULT_DIM; i++) {
        out[i] = (float)(out[i] / sqrt(sum));
    }
}

static inline const char *workload_encoder(bool second)
{
    return second ? "second:0002" : "first:0001";
}

typedef struct workload {
    store *s;
    retrieval *r;
    bool second; /* the store has been re-indexed */
} workload;

static inline base_status workload_open(workload *w, const char *path, base_error *err)
{
    store_options options = {.create = true};
    base_status status = store_open(path, &options, &w->s, err);
    return status ? status : retrieval_open(w->s, FAULT_DIM, &w->r, err);
}

static inline void workload_close(workload *w)
{
    retrieval_close(w->r);
    store_close(w->s);
    w->r = NULL;
    w->s = NULL;
}

static inline base_status workload_put(workload *w, store_txn *txn, uint64_t step, int number,
                                       uint64_t *first, base_error *err)
{
    char id[48], text[512];
    static float vectors[2][FAULT_DIM];
    store_new_span spans[2] = {{0}};
    size_t count;
    store_put_result result;
    bool shared = number == 0;
    snprintf(id, sizeof id, shared ? "shared %llu" : "step %llu %d",
             (unsigned long long)(shared ? step % 4 : step), number);
    uint64_t word = (step * 10 + (uint64_t)number) * 7919 % 1000003;
    int one = snprintf(text, sizeof text, "Step%llu says word%llu in part %d. ",
                       (unsigned long long)step, (unsigned long long)word, number);
    int both = one + snprintf(text + one, sizeof text - (size_t)one, "Then it says more%llu.",
                              (unsigned long long)(step * 104729 % 100003));
    for (int i = 0; i < 2; i++) {
        workload_vector(w->second ? 2 : 1, step * 10 + (uint64_t)number * 2 + (uint64_t)i,
                        vectors[i]);
        spans[i].start_byte = i ? (uint64_t)one : 0;
        spans[i].end_byte = (uint64_t)(i ? both : one);
        spans[i].vector = vectors[i];
    }
    store_new_document doc = {.source = number == 2 ? "aside" : "main",
                              .external_id = id,
                              .title = "Step",
                              .text = text,
                              .text_size = (size_t)both,
                              .observed_at_us = (int64_t)(step + 1) * BASE_DAY_US,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .spans = spans,
                              .span_count = 2,
                              .vector_dim = FAULT_DIM,
                              .encoder = workload_encoder(w->second)};
    return store_put_document(txn, &doc, &result, first, &count, err);
}

static inline base_status workload_ingest(workload *w, uint64_t step, base_error *err)
{
    store_txn *txn;
    uint8_t tag[32] = {9}, kv[700];
    uint64_t first = 0;
    base_status status = store_begin(w->s, (int64_t)(step + 1) * BASE_DAY_US, &txn, err);
    if (status) {
        return status;
    }
    for (int i = 0; i < WORKLOAD_DOCUMENTS && !status; i++) {
        status = workload_put(w, txn, step, i, &first, err);
    }
    for (size_t i = 0; i < sizeof kv; i++) {
        kv[i] = (uint8_t)(step * 31 + i * 7);
    }
    if (!status && step % 2 == 0) {
        status = store_put_kv(txn, first, tag, kv, sizeof kv, err);
    }
    if (!status && step % 2 == 0) {
        status = store_put_use(txn, first, (int64_t)(step + 1) * BASE_DAY_US, 0.2f, err);
    }
    if (status) {
        store_abort(txn);
        return status;
    }
    return store_commit(txn, err);
}

/* Forget the first episode that there is, as the command does. */
static inline base_status workload_forget(workload *w, uint64_t step, base_error *err)
{
    store_txn *txn;
    store_forget_receipt receipt;
    uint64_t *ids = NULL;
    size_t count = 0;
    base_status status =
        store_select(w->s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err);
    if (!status && !(status = store_begin(w->s, (int64_t)(step + 1) * BASE_DAY_US, &txn, err))) {
        status = store_forget(txn, ids, count ? 1 : 0, &receipt, err);
        if (status) {
            store_abort(txn);
        } else {
            status = store_commit(txn, err);
        }
    }
    base_free(ids);
    if (!status) {
        status = store_scrub(w->s, err);
    }
    if (!status) {
        status = retrieval_sync(w->r, err);
    }
    return status ? status : retrieval_flush(w->r, true, err);
}

static inline base_status workload_encode(void *argument, const store_encode_item *items,
                                          size_t count, float *vectors, base_error *err)
{
    (void)argument;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        workload_vector(2, 5000 + items[i].id, vectors + i * FAULT_DIM);
    }
    return BASE_OK;
}

static inline base_status workload_reindex(workload *w, base_error *err)
{
    store_reindex_options options = {
        .encoder = workload_encoder(true), .dim = FAULT_DIM, .encode = workload_encode};
    store_reindex_receipt receipt;
    retrieval_close(w->r);
    w->r = NULL;
    base_status status = store_reindex(w->s, &options, &receipt, err);
    if (!status) {
        w->second = true;
        status = retrieval_open(w->s, FAULT_DIM, &w->r, err);
    }
    return status ? status : retrieval_flush(w->r, true, err);
}

/* Steps from 0 on. */
static inline base_status workload_step(workload *w, uint64_t step, base_error *err)
{
    if (step % WORKLOAD_FORGET == WORKLOAD_FORGET - 1) {
        return workload_forget(w, step, err);
    }
    if (step == WORKLOAD_REINDEX) {
        return workload_reindex(w, err);
    }
    base_status status = workload_ingest(w, step, err);
    if (!status && step % WORKLOAD_FLUSH == WORKLOAD_FLUSH - 1) {
        status = retrieval_flush(w->r, true, err);
    }
    return status ? status : retrieval_sync(w->r, err);
}

/* The export of the open store, appended to out. */
static inline base_status workload_export(workload *w, base_buffer *out, base_error *err)
{
    char *text = NULL;
    size_t size = 0;
    ingest_export_counts counts;
    FILE *stream = open_memstream(&text, &size);
    base_status status = stream ? ingest_export(w->s, stream, &counts, err) : BASE_NO_MEMORY;
    if (stream) {
        fclose(stream);
    }
    status = status ? status : base_buffer_append(out, text, size);
    free(text);
    return status;
}

#endif
