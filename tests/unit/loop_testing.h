/* tests/unit/loop_testing.h: an engine with the default models and a store in a temporary folder,
 * for tests of the loop. */
#ifndef TESTS_LOOP_TESTING_H
#define TESTS_LOOP_TESTING_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "ingest/ingest.h"
#include "tests/unit/models.h"

typedef struct loop {
    engine *e;
    char folder[4096];
    store *store;
    retrieval *retrieval;
    int64_t now_us;
} loop;

static inline void loop_check(base_status status, const base_error *err)
{
    if (status) {
        fprintf(stderr, "%s\n", err->text);
        abort();
    }
}

static inline void loop_open_engine_from(loop *l, engine_options options)
{
    char model[4096], encoder_path[4096];
    base_error err = {0};
    MODELS_REQUIRE(MODELS_GENERATOR, model);
    MODELS_REQUIRE(MODELS_ENCODER "/model.safetensors", encoder_path);
    models_path(MODELS_ENCODER, encoder_path, sizeof encoder_path);
    options.model_path = model;
    options.encoder_path = encoder_path;
    options.threads = 2;
    loop_check(engine_open(&options, &l->e, &err), &err);
    l->now_us = base_time_from_civil(2025, 1, 1);
}

/* With the adapters beside the model: trained mixers for a hybrid, and the reader if wanted. */
static inline void loop_open_adapted(loop *l, engine_core core, size_t window, kvblob_type kv_type,
                                     bool reader)
{
    char paths[2][4096];
    const char *adapters[3] = {NULL};
    size_t count = 0;
    if (reader) {
        MODELS_REQUIRE(MODELS_READER, paths[0]);
        adapters[count++] = paths[0];
    }
    if (core == ENGINE_CORE_HYBRID) {
        MODELS_REQUIRE(MODELS_MIXERS, paths[1]);
        adapters[count++] = paths[1];
    }
    loop_open_engine_from(
        l,
        (engine_options){.core = core, .window = window, .kv_type = kv_type, .adapters = adapters});
}

static inline void loop_open_engine_as(loop *l, engine_core core, size_t window,
                                       kvblob_type kv_type)
{
    loop_open_adapted(l, core, window, kv_type, false);
}

static inline void loop_open_reader(loop *l, engine_core core, size_t window)
{
    loop_open_adapted(l, core, window, KVBLOB_Q8, true);
}

static inline void loop_open_engine_with(loop *l, engine_core core, size_t window)
{
    loop_open_engine_as(l, core, window, KVBLOB_Q8);
}

static inline void loop_open_engine(loop *l)
{
    loop_open_engine_with(l, ENGINE_CORE_FULL, 0);
}

static inline int loop_remove(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void loop_open_store(loop *l)
{
    base_error err = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(l->folder, sizeof l->folder, "%s/eidetic-loop-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(l->folder)) {
        abort();
    }
    store_options options = {.create = true};
    loop_check(store_open(l->folder, &options, &l->store, &err), &err);
    loop_check(retrieval_open(l->store, encoder_dim(engine_encoder(l->e)), &l->retrieval, &err),
               &err);
}

static inline void loop_close_store(loop *l)
{
    retrieval_close(l->retrieval);
    store_close(l->store);
    nftw(l->folder, loop_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* Texts become documents "0", "1", ... observed on successive days from 2024-01-01. Returns with
 * the index in step. */
static inline void loop_ingest(loop *l, const char *const *titles, const char *const *texts,
                               size_t count)
{
    base_error err = {0};
    ingest *in = NULL;
    ingest_options options = {.now_us = l->now_us,
                              .observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE};
    loop_check(ingest_open(l->store, l->retrieval, engine_encoder(l->e), &options, &in, &err),
               &err);
    for (size_t i = 0; i < count; i++) {
        char id[32];
        snprintf(id, sizeof id, "%zu", i);
        ingest_document document = {.source = "test",
                                    .external_id = id,
                                    .title = titles ? titles[i] : "",
                                    .text = texts[i],
                                    .text_size = strlen(texts[i]),
                                    .observed_at_us = base_time_from_civil(2024, 1, 1) +
                                                      (int64_t)(i % 300) * BASE_DAY_US,
                                    .valid_from_us = BASE_TIME_NONE,
                                    .valid_to_us = BASE_TIME_NONE,
                                    .place = id};
        loop_check(ingest_add(in, &document, &err), &err);
    }
    loop_check(ingest_commit(in, true, &err), &err);
    ingest_close(in);
}

static inline engine_session *loop_session(loop *l, engine_arm arm, engine_session_options *o)
{
    base_error err = {0};
    engine_session *session = NULL;
    o->arm = arm;
    o->store = l->store;
    o->retrieval = l->retrieval;
    o->now_us = o->as_of_us = l->now_us;
    loop_check(engine_session_open(l->e, o, &session, &err), &err);
    return session;
}

/* Of this process. */
static inline size_t loop_resident_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long all = 0, resident = 0;
    if (file) {
        if (fscanf(file, "%lu %lu", &all, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

#endif
