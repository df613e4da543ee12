/* tests/fuzz/fuzz_jsonl.c: the JSONL reader, also with the fields of an export. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/sink.h"

const char *const fuzz_words[] = {"{\"text\":\"a\"}\n",
                                  "\"id\":",
                                  "\"source\":",
                                  "\"title\":",
                                  "\"observed_at\":",
                                  "\"valid_from\":",
                                  "\"valid_to\":",
                                  "\"kind\":\"user\"",
                                  "\\u0000",
                                  "\\ud800",
                                  "1e999",
                                  "2025-02-30",
                                  "null",
                                  "[[[[",
                                  "\r\n",
                                  NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int restore = 0; restore < 2 && size > 0; restore++) {
        base_error err = {0};
        FILE *file = fmemopen((void *)(uintptr_t)data, size, "rb");
        FUZZ_CHECK(file);
        ingest *in = sink_open(restore);
        FUZZ_CHECK(ingest_read_jsonl(in, "f.jsonl", "s", file, 1, 0, &err) == BASE_OK);
        fclose(file);
    }
    return 0;
}
