/* engine/kvcache.h: keys and values of an episode: read from the store under this engine's tag,
 * else computed behind the fixed prefix.
 *
 * KV tag = SHA-256 over (model and adapter hash, core and window, template name, wrapper version,
 * token ids of the fixed prefix, KV type); it holds no date, question or history (semantics §5), so
 * what is computed once serves every later question. Blob on disk: kvblob.h. The first use splices
 * what its own blob says, so a memory has the same bits whether computed or from disk.
 */
#ifndef ENGINE_KVCACHE_H
#define ENGINE_KVCACHE_H

#include "engine/core.h"
#include "engine/kvblob.h"
#include "engine/prompt.h"
#include "store/store.h"

typedef struct kvcache kvcache;

enum { KVCACHE_BLOCK_MAX = 256 }; /* tokens of one memory block; longer text is cut there */

/* kv_f32 etc. as in core_stream_options. The fixed prefix is run with the first block that has to
 * be computed. All borrowed pointers must outlive it. */
base_status kvcache_open(const core_model *model, const core_stream_options *options,
                         kvblob_type type, const prompt *p, kvcache **out, base_error *err);
void kvcache_close(kvcache *c);
const uint8_t *kvcache_tag(const kvcache *c); /* [32] */

typedef struct kvcache_block {
    void *blob;        /* base_free; what store_put_kv takes */
    size_t blob_size;
    const void *block; /* for core_window_insert; until the next get */
    size_t count;      /* tokens */
    bool from_disk;
    double compute_ms;
} kvcache_block;

/* s may be NULL (never from disk). A damaged or foreign blob is computed anew. */
base_status kvcache_get(kvcache *c, store *s, const store_episode *episode, kvcache_block *out,
                        base_error *err);

/* What mixers read of the episode's block, run behind the fixed prefix in any case: rows of *count
 * tokens for core_state_enter, the caller's to base_free. Not kept on disk. CPU only. */
base_status kvcache_rows(kvcache *c, const store_episode *episode, float **rows, size_t *count,
                         base_error *err);

/* Lived keys and values: as they were in a running window of text, with what they had seen; only
 * such a window takes them. They lie under a tag of their own, beside the other. */
const uint8_t *kvcache_lived_tag(const kvcache *c); /* [32] */
/* Slots [at, at + count) of a stream with this cache's model and KV type, count <=
 * KVCACHE_BLOCK_MAX; only the blob of *out is set. */
base_status kvcache_take(kvcache *c, const core_stream *from, size_t at, size_t count,
                         kvcache_block *out, base_error *err);
/* As kvcache_get, from disk only: false where there are none. */
bool kvcache_get_lived(kvcache *c, store *s, uint64_t episode, kvcache_block *out);

#endif
