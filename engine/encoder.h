/* engine/encoder.h: text -> unit vector, by all-MiniLM-L6-v2 (BERT encoder, mean pooling, L2 norm)
 * run on our own kernels. Reads a folder with model.safetensors, config.json, vocab.txt as
 * published (see ./dev setup).
 */
#ifndef ENGINE_ENCODER_H
#define ENGINE_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/thread.h"

typedef struct encoder encoder;

/* pool borrowed, may be NULL. Errors: BASE_NOT_FOUND, BASE_CORRUPT, BASE_UNSUPPORTED (another
 * architecture, named). */
base_status encoder_open(const char *folder, base_pool *pool, encoder **out, base_error *err);
void encoder_close(encoder *e);
base_pool *encoder_pool(const encoder *e);  /* as given to encoder_open */
size_t encoder_dim(const encoder *e);       /* 384 */
const char *encoder_name(const encoder *e); /* "all-MiniLM-L6-v2:<8 hex of its hash>" */
uint64_t encoder_tokens(const encoder *e);  /* run through the model since it was opened */
/* vector [dim]. Text longer than 256 word pieces is cut, as published. Empty text is encoded as its
 * two special tokens. */
base_status encoder_encode(encoder *e, const char *text, size_t size, float *vector,
                           base_error *err);
/* Many at once, batched by length: vectors [count, dim]. */
base_status encoder_encode_batch(encoder *e, const char *const *texts, const size_t *sizes,
                                 size_t count, float *vectors, base_error *err);

#endif
