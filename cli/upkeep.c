/* cli/upkeep.c: see upkeep.h. */
#include "cli/upkeep.h"

#include <pthread.h>

#include "base/mem.h"

struct upkeep {
    store *s;
    retrieval *r;
    encoder *e;
    int64_t now_us;
    pthread_t thread;
    bool runs;
    atomic_bool stop;
    /* of the thread, read after it has ended */
    base_status status;
    base_error error;
};

base_status upkeep_measure(store *s, int64_t now_us, uint64_t *measured, base_error *err)
{
    store_txn *txn = NULL;
    base_status status = store_begin(s, now_us, &txn, err);
    if (status) {
        return status;
    }
    if ((status = store_put_drift(txn, measured, err))) {
        store_abort(txn);
        return status;
    }
    return store_commit(txn, err);
}

static base_status work(upkeep *u, int64_t now_us, const retrieval_supersede_limits *limits,
                        base_error *err)
{
    retrieval_supersede_receipt receipt = {0};
    uint64_t measured = 0;
    base_status status = ingest_supersede(u->r, u->e, now_us, limits, &receipt, err);
    if (!status && receipt.closed > 0 && receipt.left == 0) {
        status = upkeep_measure(u->s, now_us, &measured, err);
    }
    return status == BASE_BUSY ? BASE_OK : status; /* another process writes: later */
}

static void *run(void *argument)
{
    upkeep *u = argument;
    retrieval_supersede_limits limits = {.stop = &u->stop, .only_if_free = true};
    u->status = work(u, u->now_us, &limits, &u->error);
    return NULL;
}

base_status upkeep_open(store *s, retrieval *r, encoder *e, upkeep **out, base_error *err)
{
    upkeep *u = base_calloc(1, sizeof *u);
    if (!u) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for upkeep");
    }
    u->s = s;
    u->r = r;
    u->e = e;
    atomic_init(&u->stop, false);
    *out = u;
    return BASE_OK;
}

void upkeep_close(upkeep *u)
{
    if (u) {
        upkeep_end(u, NULL);
        base_free(u);
    }
}

void upkeep_begin(upkeep *u, int64_t now_us)
{
    BASE_ASSERT(!u->runs);
    u->now_us = now_us;
    u->status = BASE_OK;
    atomic_store(&u->stop, false);
    u->runs = pthread_create(&u->thread, NULL, run, u) == 0;
}

base_status upkeep_end(upkeep *u, base_error *err)
{
    if (!u->runs) {
        return BASE_OK;
    }
    atomic_store(&u->stop, true);
    pthread_join(u->thread, NULL);
    u->runs = false;
    if (u->status && err) {
        *err = u->error;
    }
    return u->status;
}

base_status upkeep_slice(upkeep *u, int64_t now_us, uint64_t episodes_max, base_error *err)
{
    retrieval_supersede_limits limits = {.episodes_max = episodes_max, .only_if_free = true};
    return work(u, now_us, &limits, err);
}
