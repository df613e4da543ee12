/* tests/fuzz/sink.c: see sink.h. Every document is held against what ingest_add demands of a
 * reader, and cut as it would be. */
#include "tests/fuzz/sink.h"

#include <stdarg.h>
#include <string.h>

#include "base/chunk.h"
#include "base/mem.h"
#include "base/text.h"
#include "tests/fuzz/fuzz.h"

static ingest_options options;
static size_t documents, problems;

base_status __wrap_ingest_add(ingest *in, const ingest_document *d, base_error *err);
void __wrap_ingest_problem(ingest *in, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const ingest_options *__wrap_ingest_get_options(const ingest *in);

ingest *sink_open(bool restore)
{
    options = (ingest_options){.observed_at_us = BASE_TIME_NONE,
                               .valid_from_us = BASE_TIME_NONE,
                               .valid_to_us = BASE_TIME_NONE,
                               .restore = restore};
    documents = problems = 0;
    return (ingest *)&options;
}

size_t sink_documents(void)
{
    return documents;
}

size_t sink_problems(void)
{
    return problems;
}

const ingest_options *__wrap_ingest_get_options(const ingest *in)
{
    return (const ingest_options *)in;
}

void __wrap_ingest_problem(ingest *in, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    FUZZ_CHECK(in == (ingest *)&options && length > 0);
    problems++;
}

base_status __wrap_ingest_add(ingest *in, const ingest_document *d, base_error *err)
{
    FUZZ_CHECK(in == (ingest *)&options && d->source && *d->source && d->place && d->text);
    FUZZ_CHECK(d->kind <= STORE_TURN_ASSISTANT);
    base_span *spans = NULL;
    size_t count = 0, at = 0;
    if (base_utf8_check(d->text, d->text_size) == d->text_size) {
        base_status status = base_chunk_text(d->text, d->text_size, NULL, &spans, &count, err);
        FUZZ_CHECK(status == BASE_OK);
        for (size_t i = 0; i < count; i++) {
            FUZZ_CHECK(spans[i].start == at && spans[i].end > at);
            FUZZ_CHECK(spans[i].section_start <= spans[i].section_end);
            FUZZ_CHECK(spans[i].section_end <= d->text_size);
            at = spans[i].end;
        }
        FUZZ_CHECK(count == 0 || at == d->text_size);
    }
    base_free(spans);
    documents++;
    return BASE_OK;
}
