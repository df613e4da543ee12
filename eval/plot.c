/* eval/plot.c: see plot.h. Coordinates are pixels of the viewBox; x grows to the right, y down. */
#include "eval/plot.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "eval/report_style.h"

enum { WIDTH = 720, HEIGHT = 350, LEFT = 74, RIGHT = 140, TOP = 12, BOTTOM = 50, SERIES_MAX = 16 };
static const double CHARACTER = 6.9; /* mean width of a character of a 13 px label */

void eval_text_add(eval_text *out, const char *format, ...)
{
    char small[1024], *text = small;
    va_list args;
    va_start(args, format);
    int size = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (size >= (int)sizeof small) {
        if (!(text = base_alloc((size_t)size + 1))) {
            out->status = BASE_NO_MEMORY;
            return;
        }
        va_start(args, format);
        vsnprintf(text, (size_t)size + 1, format, args);
        va_end(args);
    }
    if (!out->status) {
        out->status =
            size < 0 ? BASE_INVALID : base_buffer_append(&out->buffer, text, (size_t)size);
    }
    if (text != small) {
        base_free(text);
    }
}

void eval_text_escape(eval_text *out, const char *text)
{
    size_t size = strlen(text);
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t used = base_utf8_decode(text + at, size - at, &c);
        if (c == '&' || c == '<' || c == '>' || c == '"') {
            eval_text_add(out, "&#%u;", (unsigned)c);
        } else if (c == UINT32_MAX || c == 0xFFFE || c == 0xFFFF ||
                   (c < 0x20 && c != '\t' && c != '\n' && c != '\r')) {
            eval_text_add(out, "\xEF\xBF\xBD");
        } else {
            eval_text_add(out, "%.*s", (int)used, text + at);
        }
        at += used;
    }
}

void eval_page_begin(eval_text *out, const char *title)
{
    eval_text_add(out, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">"
                       "<head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width="
                       "device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" "
                       "content=\"light dark\"/>\n<title>");
    eval_text_escape(out, title);
    eval_text_add(out, "</title>\n<style>\n%s", report_style);
    for (size_t i = 0; i < EVAL_COLOURS; i++) {
        eval_text_add(out, REPORT_STYLE_COLOUR, i, i, i, i, i, i, i, i);
    }
    eval_text_add(out, "</style></head>\n<body>");
}

/* --- parts ------------------------------------------------------------------------------------ */

static void begin(eval_text *out, const char *id, const char *title, double width, double height)
{
    eval_text_add(out,
                  "<figure><svg id=\"%s\" class=\"plot\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" "
                  "aria-labelledby=\"%s-t %s-d\"><title id=\"%s-t\">",
                  id, width, height, id, id, id);
    eval_text_escape(out, title);
    eval_text_add(out, "</title><desc id=\"%s-d\">", id);
}

static void end(eval_text *out, const char *title)
{
    eval_text_add(out, "</svg><figcaption>");
    eval_text_escape(out, title);
    eval_text_add(out, "</figcaption></figure>\n");
}

static void label(eval_text *out, double x, double y, const char *anchor, const char *class,
                  const char *text)
{
    eval_text_add(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor,
                  class);
    eval_text_escape(out, text);
    eval_text_add(out, "</text>\n");
}

static void line(eval_text *out, double x1, double y1, double x2, double y2, const char *class)
{
    eval_text_add(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
                  y1, x2, y2, class);
}

/* Each colour has a shape of its own, so that nothing hangs on the colour alone. */
static void mark(eval_text *out, double x, double y, size_t colour)
{
    static const char
        *const
            shapes[] =
                {
                    "m-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z", /* circle */
                    "m-4,-4h8v8h-8z",                                /* square */
                    "m0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",           /* diamond */
                    "m0,-5.2l5.2,9h-10.4z",                          /* triangle */
                    "m0,5.2l5.2,-9h-10.4z",                          /* triangle, point down */
                    "m-1.6,-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z", /* plus */
                    "m0,-5.6l1.6,3.8l4,0.3l-3.1,2.6l1,3.9l-3.5,-2.2l-3.5,2.2l1,-3.9l-3.1,-2.6l4,-0."
                    "3z", /* star */
                };
    static const size_t shape_of[EVAL_COLOURS] = {1, 5, 2, 3, 0, 4, 6, 1, 2, 3, 4, 5};
    eval_text_add(out, "<path d=\"M%.1f,%.1f%s\" class=\"mark k%zu\"/>\n", x, y,
                  shapes[shape_of[colour % EVAL_COLOURS]], colour % EVAL_COLOURS);
}

static double larger(double a, double b)
{
    return isnan(a) || b > a ? b : a;
}

static double least(double a, double b)
{
    return isnan(a) || b < a ? b : a;
}

/* The step 1, 2 or 5 times a power of ten that cuts `range` into at most `parts`. */
static double step_of(double range, double parts)
{
    double power = pow(10, floor(log10(range / parts)));
    double rest = range / parts / power;
    return power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
}

static void number(double value, const char *unit, char *out, size_t size)
{
    double big = fabs(value);
    if (strcmp(unit, "share") == 0) {
        snprintf(out, size, "%.1f %%", 100 * value);
    } else {
        snprintf(out, size, "%.*f%s%s",
                 big >= 100  ? 0
                 : big >= 10 ? 1
                             : 2,
                 value, strcmp(unit, "ms") == 0 || strcmp(unit, "nats") == 0 ? " " : "",
                 strcmp(unit, "ms") == 0 || strcmp(unit, "nats") == 0 ? unit : "");
    }
}

/* --- frames with two axes --------------------------------------------------------------------- */

typedef struct frame {
    double x_from, x_to; /* logarithms */
    double y_to;         /* y begins at 0 */
} frame;

static double place_x(const frame *f, double x)
{
    return LEFT + (log(x) - f->x_from) / (f->x_to - f->x_from) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const frame *f, double y)
{
    double clipped = y < 0 ? 0 : y > f->y_to ? f->y_to : y;
    return HEIGHT - BOTTOM - clipped / f->y_to * (HEIGHT - TOP - BOTTOM);
}

static frame frame_of(const eval_axes *axes, const eval_series *series, size_t count)
{
    double x_low = (double)NAN, x_high = (double)NAN, y_high = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < series[i].count; k++) {
            const eval_point *p = &series[i].points[k];
            x_low = least(x_low, p->x_low > 0 ? p->x_low : p->x);
            x_high = larger(x_high, isnan(p->x_high) ? p->x : p->x_high);
            y_high = larger(y_high, isnan(p->y_high) ? p->y : p->y_high);
        }
    }
    /* at least a factor of 2 wide, and a margin of 6 % */
    double from = log(x_low), to = log(x_high), wide = larger(to - from, log(2));
    double middle = (from + to) / 2;
    frame f = {.x_from = middle - 0.56 * wide, .x_to = middle + 0.56 * wide};
    if (y_high <= 0) {
        y_high = axes->y_share ? 0.1 : 1;
    }
    double step = step_of(y_high, 5);
    f.y_to = step * ceil(y_high / step - 1e-9);
    if (axes->y_share && (f.y_to > 0.6 || f.y_to > 1)) {
        f.y_to = 1; /* a share is seen against the whole, unless it is small */
    }
    return f;
}

static void draw_axes(eval_text *out, const eval_axes *axes, const frame *f)
{
    double bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT, step = step_of(f->y_to, 5);
    char text[48];
    for (int i = 0; step * i <= f->y_to * 1.0001; i++) {
        double y = place_y(f, step * i);
        if (axes->y_share) {
            snprintf(text, sizeof text, "%.*f %%", step < 0.0099 ? 1 : 0, 100 * step * i);
        } else {
            snprintf(text, sizeof text, "%g", step * i);
        }
        line(out, LEFT, y, right, y, i == 0 ? "axis" : "grid");
        label(out, LEFT - 8, y + 4, "end", "tick", text);
    }
    double last = -1e9;
    for (size_t i = 0; i < axes->x_tick_count; i++) {
        double at = log(axes->x_ticks[i].at), x = place_x(f, axes->x_ticks[i].at);
        double half = CHARACTER * (double)strlen(axes->x_ticks[i].label) / 2 + 4;
        if (at >= f->x_from && at <= f->x_to && x - half > last) {
            line(out, x, bottom, x, bottom + 5, "axis");
            label(out, x, bottom + 19, "middle", "tick", axes->x_ticks[i].label);
            last = x + half;
        }
    }
    if (axes->x_tick_count == 0) {
        static const double steps[] = {1, 2, 5};
        for (int power = (int)floor(f->x_from / log(10)); power <= f->x_to / log(10); power++) {
            for (int i = 0; i < 3; i++) {
                double value = steps[i] * pow(10, power), x = place_x(f, value);
                snprintf(text, sizeof text, "%g", value);
                double half = CHARACTER * (double)strlen(text) / 2 + 4;
                if (log(value) >= f->x_from && log(value) <= f->x_to && x - half > last) {
                    line(out, x, bottom, x, bottom + 5, "axis");
                    label(out, x, bottom + 19, "middle", "tick", text);
                    last = x + half;
                }
            }
        }
    }
    label(out, (LEFT + right) / 2, HEIGHT - 8, "middle", "name", axes->x_label);
    eval_text_add(out,
                  "<text transform=\"translate(14,%.1f) rotate(-90)\" text-anchor=\"middle\" "
                  "class=\"name\">",
                  (TOP + bottom) / 2);
    eval_text_escape(out, axes->y_label);
    eval_text_add(out, "</text>\n");
}

static void describe(eval_text *out, const eval_axes *axes, const eval_series *series, size_t count)
{
    eval_text_escape(out, axes->y_label);
    eval_text_add(out, " against ");
    eval_text_escape(out, axes->x_label);
    for (size_t i = 0; i < count; i++) {
        eval_text_add(out, "; ");
        eval_text_escape(out, series[i].name);
        eval_text_add(out, ":");
        for (size_t k = 0; k < series[i].count; k++) {
            const eval_point *p = &series[i].points[k];
            eval_text_add(out, " %.3g at %.3g%s", p->y, p->x, k + 1 < series[i].count ? "," : "");
        }
    }
    eval_text_add(out, "</desc>\n");
}

/* Push labels apart until none lies over another: y [count] in any order, `height` apart. */
static void spread(double *y, const size_t *order, size_t count, double height, double low,
                   double high)
{
    for (int round = 0; round < 200; round++) {
        bool moved = false;
        for (size_t i = 0; i + 1 < count; i++) {
            double gap = y[order[i + 1]] - y[order[i]];
            if (gap < height - 0.01) {
                y[order[i]] -= (height - gap) / 2;
                y[order[i + 1]] += (height - gap) / 2;
                moved = true;
            }
        }
        for (size_t i = 0; i < count; i++) {
            double bound = y[i] < low ? low : y[i] > high ? high : y[i];
            moved = moved || fabs(bound - y[i]) > 0.01;
            y[i] = bound;
        }
        if (!moved) {
            return;
        }
    }
}

/* Intervals of several series stand side by side. */
static double aside_of(size_t index, size_t count)
{
    return 5.0 * ((double)index - (double)(count - 1) / 2);
}

static void name_ends(eval_text *out, const frame *f, const eval_series *series, size_t count)
{
    double wanted[SERIES_MAX], y[SERIES_MAX];
    size_t order[SERIES_MAX];
    for (size_t i = 0; i < count; i++) {
        wanted[i] = y[i] = place_y(f, series[i].points[series[i].count - 1].y);
        size_t k = i;
        for (; k > 0 && wanted[order[k - 1]] > wanted[i]; k--) {
            order[k] = order[k - 1];
        }
        order[k] = i;
    }
    spread(y, order, count, 17, TOP + 6, HEIGHT - BOTTOM - 2);
    for (size_t i = 0; i < count; i++) {
        char class[24];
        double x = place_x(f, series[i].points[series[i].count - 1].x) + aside_of(i, count) + 7;
        snprintf(class, sizeof class, "lead k%zu", series[i].colour);
        line(out, x, wanted[i], WIDTH - RIGHT + 16, y[i], class);
        snprintf(class, sizeof class, "series k%zu", series[i].colour);
        label(out, WIDTH - RIGHT + 20, y[i] + 4, "start", class, series[i].name);
    }
}

void eval_plot_lines(eval_text *out, const eval_axes *axes, const eval_series *series, size_t count)
{
    count = count > SERIES_MAX ? SERIES_MAX : count;
    frame f = frame_of(axes, series, count);
    begin(out, axes->id, axes->title, WIDTH, HEIGHT);
    describe(out, axes, series, count);
    draw_axes(out, axes, &f);
    for (size_t i = 0; i < count; i++) {
        double aside = aside_of(i, count);
        char class[24];
        snprintf(class, sizeof class, "bar k%zu", series[i].colour);
        eval_text_add(out, "<path class=\"line k%zu\" d=\"", series[i].colour);
        for (size_t k = 0; k < series[i].count; k++) {
            const eval_point *p = &series[i].points[k];
            eval_text_add(out, "%s%.1f,%.1f", k ? "L" : "M", place_x(&f, p->x) + aside,
                          place_y(&f, p->y));
        }
        eval_text_add(out, "\"/>\n");
        for (size_t k = 0; k < series[i].count; k++) {
            const eval_point *p = &series[i].points[k];
            double x = place_x(&f, p->x) + aside;
            if (!isnan(p->y_low)) {
                line(out, x, place_y(&f, p->y_low), x, place_y(&f, p->y_high), class);
            }
            mark(out, x, place_y(&f, p->y), series[i].colour);
        }
    }
    name_ends(out, &f, series, count);
    end(out, axes->title);
}

/* --- points with names beside them ------------------------------------------------------------ */

typedef struct box {
    double x1, y1, x2, y2;
} box;

static bool overlap(const box *a, const box *b)
{
    return a->x1 < b->x2 && b->x1 < a->x2 && a->y1 < b->y2 && b->y1 < a->y2;
}

/* Of eight places around a point, the first whose box meets least of what is there. */
static void name_points(eval_text *out, const frame *f, const eval_series *series, size_t count)
{
    static const double away[][2] = {{10, -10}, {10, 16}, {-10, -10}, {-10, 16},
                                     {12, 4},   {-12, 4}, {10, -26},  {10, 32}};
    box taken[4 * SERIES_MAX];
    size_t taken_count = 0;
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        double x = place_x(f, p->x), y = place_y(f, p->y);
        taken[taken_count++] = (box){x - 7, y - 7, x + 7, y + 7};
        if (!isnan(p->y_low)) {
            taken[taken_count++] = (box){x - 2, place_y(f, p->y_high), x + 2, place_y(f, p->y_low)};
        }
        if (!isnan(p->x_low)) {
            taken[taken_count++] = (box){place_x(f, p->x_low), y - 2, place_x(f, p->x_high), y + 2};
        }
    }
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        double x = place_x(f, p->x), y = place_y(f, p->y);
        double width = CHARACTER * (double)strlen(series[i].name);
        size_t best = 0, least_hits = SIZE_MAX;
        box best_box = {0};
        for (size_t k = 0; k < sizeof away / sizeof *away; k++) {
            double from = away[k][0] > 0 ? x + away[k][0] : x + away[k][0] - width;
            box b = {from, y + away[k][1] - 12, from + width, y + away[k][1] + 3};
            size_t hits =
                b.x2 > WIDTH - 2 || b.x1 < LEFT || b.y1 < 0 || b.y2 > HEIGHT - BOTTOM ? 8 : 0;
            for (size_t t = 0; t < taken_count; t++) {
                hits += overlap(&b, &taken[t]);
            }
            if (hits < least_hits) {
                least_hits = hits;
                best = k;
                best_box = b;
            }
        }
        char class[24];
        snprintf(class, sizeof class, "series k%zu", series[i].colour);
        label(out, best_box.x1, y + away[best][1], "start", class, series[i].name);
        taken[taken_count++] = best_box;
    }
}

void eval_plot_scatter(eval_text *out, const eval_axes *axes, const eval_series *series,
                       size_t count)
{
    count = count > SERIES_MAX ? SERIES_MAX : count;
    frame f = frame_of(axes, series, count);
    begin(out, axes->id, axes->title, WIDTH, HEIGHT);
    describe(out, axes, series, count);
    draw_axes(out, axes, &f);
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        double x = place_x(&f, p->x), y = place_y(&f, p->y);
        char class[24];
        snprintf(class, sizeof class, "bar k%zu", series[i].colour);
        if (!isnan(p->y_low)) {
            line(out, x, place_y(&f, p->y_low), x, place_y(&f, p->y_high), class);
        }
        if (!isnan(p->x_low)) {
            line(out, place_x(&f, p->x_low), y, place_x(&f, p->x_high), y, class);
        }
        mark(out, x, y, series[i].colour);
    }
    name_points(out, &f, series, count);
    end(out, axes->title);
}

/* --- bars and differences --------------------------------------------------------------------- */

static double names_width(const eval_series *series, size_t count)
{
    double width = 60;
    for (size_t i = 0; i < count; i++) {
        width = larger(width, CHARACTER * (double)strlen(series[i].name) + 14);
    }
    return width;
}

void eval_plot_bars(eval_text *out, const char *id, const char *title, const char *unit,
                    const eval_series *series, size_t count)
{
    enum { BAR_WIDTH = 350, ROW = 26, VALUE = 72 };
    double left = names_width(series, count), top = 0, from_top = 4, scale = 0;
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        top = larger(top, isnan(p->y_high) ? p->y : p->y_high);
    }
    scale = top > 0 ? (BAR_WIDTH - left - VALUE) / top : 0;
    begin(out, id, title, BAR_WIDTH, from_top + ROW * (double)count + 4);
    for (size_t i = 0; i < count; i++) {
        char text[48];
        number(series[i].points[0].y, unit, text, sizeof text);
        eval_text_escape(out, series[i].name);
        eval_text_add(out, " %s%s", text, i + 1 < count ? "; " : "");
    }
    eval_text_add(out, "</desc>\n");
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        double y = from_top + ROW * (double)i, reach = p->y;
        char text[48], class[24];
        label(out, left - 8, y + 17, "end", "name", series[i].name);
        eval_text_add(out,
                      "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=\"k%zu\"/>\n",
                      left, y + 4, larger(p->y * scale, 0), ROW - 8, series[i].colour);
        if (!isnan(p->y_low)) {
            snprintf(class, sizeof class, "whisker");
            double low = left + p->y_low * scale, high = left + p->y_high * scale, at = y + ROW / 2;
            line(out, low, at, high, at, class);
            line(out, low, at - 4, low, at + 4, class);
            line(out, high, at - 4, high, at + 4, class);
            reach = larger(reach, p->y_high);
        }
        number(p->y, unit, text, sizeof text);
        label(out, left + reach * scale + 7, y + 17, "start", "value", text);
    }
    line(out, left, from_top, left, from_top + ROW * (double)count, "axis");
    end(out, title);
}

void eval_plot_differences(eval_text *out, const char *id, const char *title, const char *less,
                           const char *more, const eval_series *series, size_t count)
{
    enum { ROW = 28, HEAD = 26, FOOT = 40, VALUE = 170 };
    double left = names_width(series, count), right = WIDTH - VALUE, reach = 0.02;
    double height = HEAD + ROW * (double)count + FOOT, bottom = height - FOOT;
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        reach = larger(reach, fabs(p->y));
        reach = isnan(p->y_low) ? reach : larger(reach, larger(fabs(p->y_low), fabs(p->y_high)));
    }
    double step = step_of(2 * reach, 6), zero = (left + right) / 2;
    double scale = (right - left) / 2 / (reach * 1.05);
    begin(out, id, title, WIDTH, height);
    for (size_t i = 0; i < count; i++) {
        eval_text_escape(out, series[i].name);
        eval_text_add(out, " %+.1f points%s", 100 * series[i].points[0].y,
                      i + 1 < count ? "; " : "");
    }
    eval_text_add(out, "</desc>\n");
    for (int i = (int)-floor(reach / step); i <= (int)floor(reach / step); i++) {
        char text[48];
        double x = zero + step * i * scale;
        snprintf(text, sizeof text, i ? "%+.*f" : "%.*f", step < 0.0099 ? 1 : 0, 100 * step * i);
        line(out, x, HEAD - 4, x, bottom, i == 0 ? "axis" : "grid");
        label(out, x, bottom + 16, "middle", "tick", text);
    }
    label(out, (left + right) / 2, height - 6, "middle", "name", "difference in points");
    label(out, zero - 10, 14, "end", "side", less);
    label(out, zero + 10, 14, "start", "side", more);
    for (size_t i = 0; i < count; i++) {
        const eval_point *p = &series[i].points[0];
        double y = HEAD + ROW * ((double)i + 0.5), x = zero + p->y * scale;
        char text[64], class[24];
        label(out, left - 8, y + 4, "end", "name", series[i].name);
        snprintf(class, sizeof class, "bar k%zu", series[i].colour);
        if (!isnan(p->y_low)) {
            line(out, zero + p->y_low * scale, y, zero + p->y_high * scale, y, class);
        }
        mark(out, x, y, series[i].colour);
        if (isnan(p->y_low)) {
            snprintf(text, sizeof text, "%+.1f", 100 * p->y);
        } else {
            snprintf(text, sizeof text, "%+.1f  (%+.1f to %+.1f)", 100 * p->y, 100 * p->y_low,
                     100 * p->y_high);
        }
        label(out, right + 12, y + 4, "start", "value", text);
    }
    end(out, title);
}

/* --- a trace ---------------------------------------------------------------------------------- */

void eval_plot_trace(eval_text *out, const char *id, const eval_trace *trace)
{
    enum { UPPER = 170, LOWER = 70, GAP = 34, TRACE_TOP = 18, MARGIN = 16 };
    double bottom = TRACE_TOP + UPPER, mass_top = bottom + GAP, mass_bottom = mass_top + LOWER;
    double most = 1, mass = 0, wide = (WIDTH - LEFT - MARGIN) / (double)trace->count;
    size_t events = 0;
    char text[64];
    for (size_t i = 0; i < trace->count; i++) {
        most =
            larger(most, isnan(trace->tokens[i].entropy_nats) ? 0 : trace->tokens[i].entropy_nats);
        mass = larger(mass,
                      isnan(trace->tokens[i].attention_mass) ? 0 : trace->tokens[i].attention_mass);
        events += trace->tokens[i].event;
    }
    double step = step_of(most, 4), mass_step = mass > 0 ? step_of(mass, 2) : 0.5;
    most = step * ceil(most / step - 1e-9);
    mass = mass > 0 ? mass_step * ceil(mass / mass_step - 1e-9) : 1;
    begin(out, id, "Events and attention along an answer", WIDTH, mass_bottom + 44);
    eval_text_add(out, "%zu tokens, memory consulted %zu times</desc>\n", trace->count, events);
    for (int i = 0; step * i <= most * 1.0001; i++) {
        double y = bottom - step * i / most * UPPER;
        snprintf(text, sizeof text, "%g", step * i);
        line(out, LEFT, y, WIDTH - MARGIN, y, i ? "grid" : "axis");
        label(out, LEFT - 8, y + 4, "end", "tick", text);
    }
    for (int i = 0; mass_step * i <= mass * 1.0001; i++) {
        double y = mass_bottom - mass_step * i / mass * LOWER;
        snprintf(text, sizeof text, "%g %%", 100 * mass_step * i);
        line(out, LEFT, y, WIDTH - MARGIN, y, i ? "grid" : "axis");
        label(out, LEFT - 8, y + 4, "end", "tick", text);
    }
    label(out, LEFT, TRACE_TOP - 6, "start", "name",
          "entropy of the next token (nats); ▼ memory consulted");
    label(out, LEFT, mass_top - 8, "start", "name", "attention that goes to memories");
    for (size_t i = 0; i < trace->count; i++) {
        const eval_trace_token *t = &trace->tokens[i];
        double x = LEFT + wide * (double)i;
        if (t->event) {
            line(out, x + wide / 2, TRACE_TOP + 4, x + wide / 2, mass_bottom, "event");
            mark(out, x + wide / 2, TRACE_TOP + 4, 5);
        }
        if (!isnan(t->attention_mass)) {
            double y = mass_bottom - t->attention_mass / mass * LOWER;
            eval_text_add(out,
                          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                          "class=\"k4 soft\"/>\n",
                          x, y, wide, mass_bottom - y);
        }
    }
    eval_text_add(out, "<path class=\"line k2\" d=\"");
    bool pen = false;
    for (size_t i = 0; i < trace->count; i++) {
        double entropy = trace->tokens[i].entropy_nats, x = LEFT + wide * (double)i;
        if (isnan(entropy)) {
            pen = false;
            continue;
        }
        double y = bottom - entropy / most * UPPER;
        eval_text_add(out, "%s%.1f,%.1fH%.1f", pen ? "L" : "M", x, y, x + wide);
        pen = true;
    }
    eval_text_add(out, "\"/>\n");
    step = step_of((double)trace->count, 10);
    step = step < 1 ? 1 : step;
    for (int i = 0; step * i < (double)trace->count; i++) {
        snprintf(text, sizeof text, "%g", step * i);
        label(out, LEFT + wide * (step * i + 0.5), mass_bottom + 17, "middle", "tick", text);
    }
    label(out, (LEFT + WIDTH - MARGIN) / 2.0, mass_bottom + 37, "middle", "name",
          "token of the answer");
    end(out, "Where memory was consulted in an answer, and how much attention went to it");
}
