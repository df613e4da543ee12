/* tests/fuzz/fuzz_html.c: the HTML reader: a document or a problem, never both or none. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/sink.h"

const char *const fuzz_words[] = {"<h1>",
                                  "</p>",
                                  "<li>",
                                  "<ol>",
                                  "<table><tr><td>",
                                  "<pre>",
                                  "<script",
                                  "</script>",
                                  "<!--",
                                  "<title>",
                                  "<![CDATA[",
                                  "&#0;",
                                  "&#xd800;",
                                  "&nbsp;",
                                  "<!DOCTYPE html",
                                  "<meta charset=utf-16>",
                                  "<meta charset=\"iso-8859-1\">",
                                  "\xff\xfe",
                                  "\xef\xbb\xbf",
                                  "<ul><ul><ul><ul>",
                                  NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    base_error err = {0};
    ingest *in = sink_open(false);
    FUZZ_CHECK(ingest_read_html(in, "f.html", "s", (const char *)data, size, 0, &err) == BASE_OK);
    FUZZ_CHECK(sink_documents() + sink_problems() == 1);
    return 0;
}
