/* eval/report.h: runs as a page and as a Markdown table. */
#ifndef EVAL_REPORT_H
#define EVAL_REPORT_H

#include "base/mem.h"
#include "eval/results.h"
#include "store/store.h"

/* One self-contained page (XHTML syntax, UTF-8: it parses as XML and as HTML): pictures as SVG,
 * tables with intervals and paired differences, identity of every run; no scripts, no other files;
 * prints. runs [count >= 1]; appends to *out. Errors: BASE_NO_MEMORY. */
base_status eval_report_page(const eval_run *runs, size_t count, base_buffer *out, base_error *err);

/* The figures as Markdown: a table a run with 95 % intervals, and the paired differences. */
base_status eval_report_markdown(const eval_run *runs, size_t count, base_buffer *out,
                                 base_error *err);

/* What ageing has left of the episodes of a store, by their age: a self-contained page, a line a
 * source. Appends to *page. Errors: those of reading the store, BASE_NO_MEMORY. */
base_status eval_strength_page(store *s, int64_t now_us, base_buffer *page, base_error *err);

#endif
