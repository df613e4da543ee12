/* ingest/supersede.c: supersession across documents with the text encoder at hand. */
#include "ingest/ingest.h"

static base_status encode_frames(void *argument, const char *const *texts, const size_t *sizes,
                                 size_t count, float *vectors, base_error *err)
{
    return encoder_encode_batch(argument, texts, sizes, count, vectors, err);
}

base_status ingest_supersede(retrieval *r, encoder *e, int64_t now_us,
                             const retrieval_supersede_limits *limits,
                             retrieval_supersede_receipt *receipt, base_error *err)
{
    retrieval_supersede_options options = {
        .now_us = now_us, .encode = encode_frames, .argument = e, .pool = encoder_pool(e)};
    if (limits) {
        options.limits = *limits;
    }
    return retrieval_supersede(r, &options, receipt, err);
}
