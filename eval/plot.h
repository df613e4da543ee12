/* eval/plot.h: the pictures of the report: SVG that stands in the page, coloured by the page's CSS
 * (classes k0 .. k11), each with a title and a text alternative. No scripts, no other files.
 *
 * All functions append to `out`; a failure (memory) sticks in out->status and is looked at once, at
 * the end.
 */
#ifndef EVAL_PLOT_H
#define EVAL_PLOT_H

#include "base/mem.h"
#include "eval/results.h"

typedef struct eval_text {
    base_buffer buffer;
    base_status status;
} eval_text;

/* printf into the page. %s must not bring text of others: that goes through eval_text_escape. */
void eval_text_add(eval_text *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text as XML content or attribute value; what XML forbids becomes U+FFFD. */
void eval_text_escape(eval_text *out, const char *text);

enum { EVAL_COLOURS = 12 };

/* The page down to <body>, XHTML syntax, with the look of all pages (report_style.h). */
void eval_page_begin(eval_text *out, const char *title);

typedef struct eval_point {
    double x, x_low, x_high; /* NAN bounds: no interval */
    double y, y_low, y_high;
} eval_point;

typedef struct eval_series {
    const char *name;
    size_t colour; /* < EVAL_COLOURS; the shape of its marks follows it */
    const eval_point *points;
    size_t count;
} eval_series;

typedef struct eval_tick {
    double at;
    const char *label;
} eval_tick;

typedef struct eval_axes {
    const char *id; /* unique in the page: made of letters, digits and '-' */
    const char *title, *x_label, *y_label;
    const eval_tick *x_ticks; /* those inside the data are drawn; NULL: 1, 2, 5 steps */
    size_t x_tick_count;
    bool y_share; /* y is 0..1, shown in per cent */
} eval_axes;

/* Points joined by lines, a line a series, named at its right end; x on a log scale, > 0. */
void eval_plot_lines(eval_text *out, const eval_axes *axes, const eval_series *series,
                     size_t count);
/* One point a series, intervals both ways, named beside it; x on a log scale, > 0. */
void eval_plot_scatter(eval_text *out, const eval_axes *axes, const eval_series *series,
                       size_t count);
/* One bar a series (points[0].y) with its interval; value written at its end. unit as in
 * EVAL_METRIC_MAP. */
void eval_plot_bars(eval_text *out, const char *id, const char *title, const char *unit,
                    const eval_series *series, size_t count);
/* Differences (points[0].y with interval) around a line at 0. less, more: what lies on either
 * side. */
void eval_plot_differences(eval_text *out, const char *id, const char *title, const char *less,
                           const char *more, const eval_series *series, size_t count);
/* Entropy, events and attention mass along the tokens of an answer. */
void eval_plot_trace(eval_text *out, const char *id, const eval_trace *trace);

#endif
