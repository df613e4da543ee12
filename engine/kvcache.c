/* engine/kvcache.c: see kvcache.h. A second, small stream holds the fixed prefix; a block is run
 * behind it, copied out, and dropped. */
#include "engine/kvcache.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"

struct kvcache {
    core_stream *stream;
    const core_model *model;
    const prompt *prompt;
    kvblob_shape shape;
    void *block; /* [KVCACHE_BLOCK_MAX tokens] what the window gets; until the next get */
    uint8_t tag[32], lived_tag[32];
};

static void make_tag(kvcache *c, const core_model *model, const core_stream_options *options)
{
    base_sha256 hash;
    uint8_t numbers[16];
    char core[32] = "full";
    const char *chat = chat_name(c->prompt->chat);
    if (options->hybrid) {
        snprintf(core, sizeof core, "hybrid:%zu", core_model_exact_window(model));
    } else if (options->window > 0) {
        snprintf(core, sizeof core, "window:%zu", options->window);
    }
    base_put_u32(numbers, PROMPT_VERSION);
    base_put_u32(numbers + 4, options->kv_f32);
    /* A device's kernels round in their own way. */
    base_put_u32(numbers + 8, options->device ? UINT32_MAX : (uint32_t)options->activations);
    base_put_u32(numbers + 12, (uint32_t)c->shape.type);
    base_sha256_begin(&hash);
    base_sha256_add(&hash, core_model_hash(model), 32);
    base_sha256_add(&hash, core, strlen(core) + 1);
    base_sha256_add(&hash, chat, strlen(chat) + 1);
    base_sha256_add(&hash, numbers, sizeof numbers);
    for (size_t i = 0; i < c->prompt->prefix.count; i++) {
        base_put_u32(numbers, (uint32_t)c->prompt->prefix.ids[i]);
        base_sha256_add(&hash, numbers, 4);
    }
    base_sha256_end(&hash, c->tag);
    base_sha256_begin(&hash);
    base_sha256_add(&hash, c->tag, sizeof c->tag);
    base_sha256_add(&hash, "lived", 6);
    base_sha256_end(&hash, c->lived_tag);
}

base_status kvcache_open(const core_model *model, const core_stream_options *options,
                         kvblob_type type, const prompt *p, kvcache **out, base_error *err)
{
    const core_shape *shape = core_model_shape(model);
    kvcache *c = base_calloc(1, sizeof *c);
    if (!c) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for the KV cache");
    }
    c->model = model;
    c->prompt = p;
    core_stream_options own = *options;
    own.slots_max = p->prefix.count + CORE_SINKS_MIN + KVCACHE_BLOCK_MAX;
    own.hybrid = false; /* a memory enters attention only; so short a text sees nothing fading */
    base_status status = core_stream_open(model, &own, &c->stream, err);
    if (!status) {
        size_t token_bytes = core_block_bytes(c->stream, 1);
        if (token_bytes == 0) {
            kvcache_close(c);
            return base_fail(err, BASE_UNSUPPORTED,
                             "%s: a model without attention cannot take memories in",
                             gguf_path(core_model_file(model)));
        }
        size_t head_bytes = shape->head_size * (options->kv_f32 ? sizeof(float) : sizeof(uint16_t));
        c->shape = (kvblob_shape){.type = type,
                                  .heads = token_bytes / head_bytes,
                                  .head_size = shape->head_size,
                                  .wide = options->kv_f32};
        c->block = base_alloc_aligned(KVCACHE_BLOCK_MAX * token_bytes);
        if (!c->block) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for the KV cache");
        }
    }
    if (status) {
        kvcache_close(c);
        return status;
    }
    make_tag(c, model, options);
    *out = c;
    return BASE_OK;
}

void kvcache_close(kvcache *c)
{
    if (c) {
        core_stream_close(c->stream);
        base_free_aligned(c->block);
        base_free(c);
    }
}

const uint8_t *kvcache_tag(const kvcache *c)
{
    return c->tag;
}

/* The window gets what lies in the blob, wherever that came from. */
static void open_blob(kvcache *c, kvcache_block *out)
{
    kvblob_decode(&c->shape, out->blob, c->block);
    out->block = c->block;
}

static bool read_blob(kvcache *c, store *s, uint64_t episode, const uint8_t *tag,
                      kvcache_block *out)
{
    if (!s || store_get_kv(s, episode, tag, &out->blob, &out->blob_size, NULL) != BASE_OK) {
        return false;
    }
    out->count = kvblob_count(&c->shape, out->blob, out->blob_size);
    if (out->count > 0 && out->count <= KVCACHE_BLOCK_MAX) {
        out->from_disk = true;
        open_blob(c, out);
        return true;
    }
    base_free(out->blob);
    *out = (kvcache_block){0};
    return false;
}

/* Run an episode's block of *count tokens behind the prefix, where it stands until end_block. rows:
 * NULL, or what mixers read of it. */
static base_status begin_block(kvcache *c, const store_episode *episode, size_t *count,
                               float **rows, base_error *err)
{
    chat_ids ids = {0};
    base_status status =
        prompt_block(c->prompt, episode->title, episode->text, episode->text_size, &ids, err);
    *count = ids.count < KVCACHE_BLOCK_MAX ? ids.count : KVCACHE_BLOCK_MAX;
    /* Where every block comes from disk, the prefix is never run here. */
    if (!status && core_slots(c->stream) == 0) {
        core_set_sinks(c->stream, c->prompt->prefix.count);
        status = core_run(c->stream, c->prompt->prefix.ids, c->prompt->prefix.count, NULL, 0, err);
    }
    if (!status && rows &&
        !(*rows = base_calloc(core_rows_floats(c->model, *count), sizeof **rows))) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for what mixers read");
    }
    if (!status) {
        core_rows_watch(c->stream, rows ? *rows : NULL, *count);
        status = core_run(c->stream, ids.ids, *count, NULL, 0, err);
        core_rows_watch(c->stream, NULL, 0);
    }
    chat_ids_free(&ids);
    return status;
}

static void end_block(kvcache *c, size_t count)
{
    if (core_has_state(c->stream)) { /* which cannot go back that far */
        core_stream_clear(c->stream);
    } else {
        core_window_remove(c->stream, c->prompt->prefix.count, count);
    }
}

static base_status compute(kvcache *c, const store_episode *episode, kvcache_block *out,
                           base_error *err)
{
    double begin = base_clock_ms();
    base_status status = begin_block(c, episode, &out->count, NULL, err);
    if (status) {
        return status;
    }
    out->blob_size = kvblob_bytes(&c->shape, out->count);
    out->blob = base_calloc(1, out->blob_size);
    if (out->blob) {
        core_block_read(c->stream, c->prompt->prefix.count, out->count, c->block);
        kvblob_encode(&c->shape, c->block, out->count, out->blob);
        open_blob(c, out);
    }
    end_block(c, out->count);
    out->compute_ms = base_clock_ms() - begin;
    return out->blob ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for keys and values");
}

base_status kvcache_rows(kvcache *c, const store_episode *episode, float **rows, size_t *count,
                         base_error *err)
{
    *rows = NULL;
    base_status status = begin_block(c, episode, count, rows, err);
    if (status) {
        base_free(*rows);
        return status;
    }
    end_block(c, *count);
    return BASE_OK;
}

base_status kvcache_get(kvcache *c, store *s, const store_episode *episode, kvcache_block *out,
                        base_error *err)
{
    *out = (kvcache_block){0};
    return read_blob(c, s, episode->id, c->tag, out) ? BASE_OK : compute(c, episode, out, err);
}

const uint8_t *kvcache_lived_tag(const kvcache *c)
{
    return c->lived_tag;
}

base_status kvcache_take(kvcache *c, const core_stream *from, size_t at, size_t count,
                         kvcache_block *out, base_error *err)
{
    BASE_ASSERT(count > 0 && count <= KVCACHE_BLOCK_MAX);
    *out = (kvcache_block){.count = count, .blob_size = kvblob_bytes(&c->shape, count)};
    out->blob = base_calloc(1, out->blob_size);
    if (!out->blob) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for keys and values");
    }
    core_block_read(from, at, count, c->block);
    kvblob_encode(&c->shape, c->block, count, out->blob);
    return BASE_OK;
}

bool kvcache_get_lived(kvcache *c, store *s, uint64_t episode, kvcache_block *out)
{
    *out = (kvcache_block){0};
    return read_blob(c, s, episode, c->lived_tag, out);
}
