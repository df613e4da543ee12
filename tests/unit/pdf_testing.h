/* tests/unit/pdf_testing.h: small PDF files made in memory, one line of text a page. */
#ifndef PDF_TESTING_H
#define PDF_TESTING_H

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* Write a PDF with these page texts (ASCII, no brackets) into out. title NULL: none. encrypted: it
 * says that it is, with keys that no password opens. */
static inline void make_pdf(base_buffer *out, const char *const *pages, size_t count,
                            const char *title, int encrypted)
{
    size_t offsets[64], objects = 3 + 2 * count;
    base_buffer_clear(out);
    base_buffer_printf(out, "%%PDF-1.4\n");
    offsets[0] = out->size;
    base_buffer_printf(out, "1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n");
    offsets[1] = out->size;
    base_buffer_printf(out, "2 0 obj\n<< /Type /Pages /Count %zu /Kids [", count);
    for (size_t i = 0; i < count; i++) {
        base_buffer_printf(out, " %zu 0 R", 4 + 2 * i);
    }
    base_buffer_printf(out, " ] >>\nendobj\n");
    offsets[2] = out->size;
    base_buffer_printf(out,
                       "3 0 obj\n<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>\nendobj\n");
    for (size_t i = 0; i < count; i++) {
        offsets[3 + 2 * i] = out->size;
        base_buffer_printf(out,
                           "%zu 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] "
                           "/Resources << /Font << /F1 3 0 R >> >> /Contents %zu 0 R >>\nendobj\n",
                           4 + 2 * i, 5 + 2 * i);
        offsets[4 + 2 * i] = out->size;
        base_buffer_printf(out,
                           "%zu 0 obj\n<< /Length %zu >>\nstream\nBT /F1 12 Tf 50 700 Td (%s) Tj "
                           "ET\nendstream\nendobj\n",
                           5 + 2 * i, strlen(pages[i]) + 35, pages[i]);
    }
    size_t table = out->size;
    base_buffer_printf(out, "xref\n0 %zu\n0000000000 65535 f \n", objects + 1);
    for (size_t i = 0; i < objects; i++) {
        base_buffer_printf(out, "%010zu 00000 n \n", offsets[i]);
    }
    base_buffer_printf(out, "trailer\n<< /Size %zu /Root 1 0 R", objects + 1);
    if (title) {
        base_buffer_printf(out, " /Info << /Title (%s) >>", title);
    }
    if (encrypted) {
        base_buffer_printf(out,
                           " /ID [<00112233445566778899aabbccddeeff> "
                           "<00112233445566778899aabbccddeeff>] /Encrypt << /Filter /Standard /V 1 "
                           "/R 2 /P -4 /O (01234567890123456789012345678901) /U "
                           "(01234567890123456789012345678901) >>");
    }
    base_buffer_printf(out, " >>\nstartxref\n%zu\n%%%%EOF\n", table);
}

#endif
