/* tests/fuzz/sink.h: where the readers of ingest/ put what they read, without a store: linked with
 * --wrap, so that calls of ingest_add and its like come to sink.c. */
#ifndef FUZZ_SINK_H
#define FUZZ_SINK_H

#include "ingest/ingest.h"

/* A handle that only sink.c looks at; restore: as in ingest_options. */
ingest *sink_open(bool restore);
/* Documents and problems since sink_open. */
size_t sink_documents(void);
size_t sink_problems(void);

#endif
