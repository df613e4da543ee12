/* ingest/reindex.c: what the encoder sees of an episode, and new vectors for all of them. */
#include <string.h>

#include "base/mem.h"
#include "ingest/ingest.h"

char *ingest_encoding(const char *title, const char *section, const char *text, size_t size)
{
    base_buffer b = {0};
    base_status status = BASE_OK;
    if (*title) {
        status = base_buffer_printf(&b, "%s. ", title);
    }
    if (!status && *section && strcmp(section, title) != 0) {
        status = base_buffer_printf(&b, "%s. ", section);
    }
    if (!status) {
        status = base_buffer_append(&b, text, size);
    }
    if (status) {
        base_buffer_free(&b);
        return NULL;
    }
    return b.data;
}

typedef struct reindex {
    encoder *encoder;
    void (*on_progress)(void *argument, uint64_t encoded);
    void *argument;
    uint64_t encoded;
} reindex;

static base_status encode(void *argument, const store_encode_item *items, size_t count,
                          float *vectors, base_error *err)
{
    reindex *r = argument;
    char **texts = base_calloc(count + 1, sizeof *texts);
    size_t *sizes = base_calloc(count + 1, sizeof *sizes);
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && texts && sizes && !status; i++) {
        const store_encode_item *item = &items[i];
        texts[i] = ingest_encoding(item->title, item->section, item->text, item->text_size);
        sizes[i] = texts[i] ? strlen(texts[i]) : 0;
        status = texts[i] ? BASE_OK : BASE_NO_MEMORY;
    }
    if (status || !texts || !sizes) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory to encode %zu episodes", count);
    } else {
        status = encoder_encode_batch(r->encoder, (const char *const *)texts, sizes, count, vectors,
                                      err);
    }
    for (size_t i = 0; texts && i < count; i++) {
        base_free(texts[i]);
    }
    base_free(texts);
    base_free(sizes);
    r->encoded += count;
    if (!status && r->on_progress) {
        r->on_progress(r->argument, r->encoded);
    }
    return status;
}

base_status ingest_reindex(store *s, encoder *e,
                           void (*on_progress)(void *argument, uint64_t encoded), void *argument,
                           store_reindex_receipt *receipt, base_error *err)
{
    reindex r = {.encoder = e, .on_progress = on_progress, .argument = argument};
    store_reindex_options options = {
        .encoder = encoder_name(e), .dim = encoder_dim(e), .encode = encode, .argument = &r};
    return store_reindex(s, &options, receipt, err);
}
