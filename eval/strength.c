/* eval/strength.c: what ageing has left of a store's episodes, by their age, as a page. Sources are
 * drawn that hold most episodes; of each an even sample. An age counts while at least a quarter of
 * the sample has reached it: beyond, the line would show who is left rather than how they age. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/plot.h"
#include "eval/report.h"

enum { SOURCES_MAX = 8, SAMPLE_MAX = 400, AGES = 32 };

typedef struct source_line {
    const store_source_info *info;
    eval_point points[AGES];
    size_t count;
} source_line;

static int by_episodes(const void *a, const void *b)
{
    const store_source_info *x = *(const store_source_info *const *)a;
    const store_source_info *y = *(const store_source_info *const *)b;
    return x->episodes == y->episodes ? strcmp(x->source, y->source)
                                      : (x->episodes < y->episodes) - (x->episodes > y->episodes);
}

/* Mean strength of the sample at one age, over those that are so old; *count: how many. */
static base_status mean_strength(store *s, const store_brief *sample, size_t sample_count,
                                 double age_s, int64_t now_us, double *mean, size_t *count,
                                 base_error *err)
{
    double sum = 0.0;
    *count = 0;
    for (size_t i = 0; i < sample_count; i++) {
        double at_us = (double)sample[i].observed_at_us + age_s * 1e6;
        if (sample[i].id == 0 || at_us > (double)now_us) {
            continue;
        }
        store_brief then;
        base_status status = store_get_briefs(s, &sample[i].id, 1, (int64_t)at_us, &then, err);
        if (status) {
            return status;
        }
        sum += store_strength(&then, (int64_t)at_us);
        ++*count;
    }
    *mean = *count > 0 ? sum / (double)*count : NAN;
    return BASE_OK;
}

static base_status measure(store *s, int64_t now_us, source_line *line, base_error *err)
{
    uint64_t *ids = NULL;
    store_brief sample[SAMPLE_MAX];
    size_t total = 0;
    base_status status = store_select(s, line->info->source, BASE_TIME_NONE, BASE_TIME_MAX, &ids,
                                      &total, err);
    if (status) {
        return status;
    }
    size_t count = total < SAMPLE_MAX ? total : SAMPLE_MAX;
    for (size_t i = 0; i < count; i++) {
        ids[i] = ids[i * total / count];
    }
    status = store_get_briefs(s, ids, count, now_us, sample, err);
    base_free(ids);
    for (size_t i = 0; i < AGES && !status; i++) {
        double days = exp2((double)i / 2), mean; /* 1 day to 127 years */
        size_t reached;
        status = mean_strength(s, sample, count, days * 86400, now_us, &mean, &reached, err);
        if (status || reached == 0 || 4 * reached < count) {
            break;
        }
        line->points[line->count++] = (eval_point){days, NAN, NAN, mean, NAN, NAN};
    }
    return status;
}

static void write_table(eval_text *out, const source_line *lines, size_t count)
{
    eval_text_add(out, "<table><thead><tr><th>source</th><th>episodes</th><th>things</th>"
                       "<th>of these changed</th><th>changes</th><th>half-life of what changes"
                       "</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < count; i++) {
        const store_source_info *s = lines[i].info;
        eval_text_add(out, "<tr><td>");
        eval_text_escape(out, s->source);
        eval_text_add(out, "</td><td>%llu</td><td>%llu</td><td>%llu</td><td>%llu</td>",
                      (unsigned long long)s->episodes, (unsigned long long)s->drift.streams,
                      (unsigned long long)s->drift.changed, (unsigned long long)s->drift.changes);
        if (isfinite(s->half_life_s)) {
            eval_text_add(out, "<td>%.1f days%s</td></tr>\n", s->half_life_s / 86400,
                          s->given ? " (given)" : "");
        } else {
            eval_text_add(out, "<td>not measured</td></tr>\n");
        }
    }
    eval_text_add(out, "</tbody></table>\n");
}

static void draw(eval_text *out, const source_line *lines, size_t count)
{
    static const eval_tick ticks[] = {{1, "1 day"},    {7, "1 week"},      {30, "1 month"},
                                      {365, "1 year"}, {3652, "10 years"}, {36525, "100 years"}};
    const eval_axes axes = {.id = "strength",
                            .title = "Mean strength of episodes by age, a line a source",
                            .x_label = "age of the episode",
                            .y_label = "mean strength",
                            .x_ticks = ticks,
                            .x_tick_count = sizeof ticks / sizeof *ticks,
                            .y_share = true};
    eval_series series[SOURCES_MAX];
    size_t drawn = 0;
    for (size_t i = 0; i < count; i++) {
        if (lines[i].count > 1) {
            series[drawn++] =
                (eval_series){lines[i].info->source, i, lines[i].points, lines[i].count};
        }
    }
    eval_page_begin(out, "eidetic: strength over time");
    eval_text_add(out, "<h1>Strength over time</h1>\n<p class=\"note\">What ageing has left of the "
                       "episodes of each source, by their age: decay by the half-life, down to a "
                       "quarter for what nothing replaced; a tenth of it once replaced.</p>\n");
    if (drawn > 0) {
        eval_plot_lines(out, &axes, series, drawn);
    } else {
        eval_text_add(out, "<p class=\"note\">Not drawn: no source is older than a day.</p>\n");
    }
    write_table(out, lines, count);
    eval_text_add(out, "</body></html>\n");
}

base_status eval_strength_page(store *s, int64_t now_us, base_buffer *page, base_error *err)
{
    store_stats stats = {0};
    eval_text text = {0};
    source_line *lines = base_calloc(SOURCES_MAX, sizeof *lines);
    const store_source_info **order = NULL;
    base_status status = lines ? store_get_stats(s, &stats, err) : BASE_NO_MEMORY;
    if (!status && !(order = base_calloc(stats.source_count + 1, sizeof(store_source_info *)))) {
        status = BASE_NO_MEMORY;
    }
    for (size_t i = 0; i < stats.source_count && order; i++) {
        order[i] = &stats.sources[i];
    }
    if (order) {
        qsort(order, stats.source_count, sizeof(store_source_info *), by_episodes);
    }
    size_t count = stats.source_count < SOURCES_MAX ? stats.source_count : SOURCES_MAX;
    for (size_t i = 0; i < count && !status; i++) {
        lines[i].info = order[i];
        status = measure(s, now_us, &lines[i], err);
    }
    if (!status) {
        draw(&text, lines, count);
        status = text.status ? text.status
                             : base_buffer_append(page, text.buffer.data, text.buffer.size);
    }
    base_buffer_free(&text.buffer);
    base_free(order);
    base_free(lines);
    store_stats_free(&stats);
    return status == BASE_NO_MEMORY ? base_fail(err, status, "no memory for the page") : status;
}
