/* tests/fuzz/fuzz_pdf.c: the PDF reader: a document or a problem, whatever becomes of the child
 * process that reads the file. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/sink.h"

const char *const fuzz_words[] = {"%PDF-1.7",
                                  "obj\n",
                                  "endobj\n",
                                  "stream\n",
                                  "endstream\n",
                                  "/Length 9",
                                  "/Kids [",
                                  "/Parent 2 0 R",
                                  "/Filter /FlateDecode",
                                  "/ToUnicode 3 0 R",
                                  "xref\n",
                                  "trailer\n",
                                  "/Encrypt << >>",
                                  " Tj ET",
                                  "/Count 999999999",
                                  NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    base_error err = {0};
    ingest *in = sink_open(false);
    FUZZ_CHECK(ingest_read_pdf(in, "f.pdf", "s", data, size, 0, &err) == BASE_OK);
    FUZZ_CHECK(sink_documents() + sink_problems() == 1);
    return 0;
}
