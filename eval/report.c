/* eval/report.c: the page. A run is told in this order: what it says in one sentence, figures of
 * the arms, differences, what they cost, how they hold up over time, one answer in detail, all
 * figures, where it comes from. What cannot be drawn is said in words. */
#include "eval/report.h"

#include <stdio.h>
#include <string.h>

#include "eval/plot.h"
#include "eval/stats.h"

enum { ARMS_MAX = 16, BUCKET_ROWS_MIN = 5 }; /* a bucket of fewer rows is in the table only */

/* Arms that have a colour of their own; others take the next free ones. */
static size_t colour_of(const eval_run *run, const char *arm)
{
    static const char *const known[] = {"none", "full-context", "prompt",  "static",
                                        "full", "oracle",       "outside", "outside-plain"};
    enum { KNOWN = sizeof known / sizeof *known };
    size_t next = KNOWN;
    for (size_t i = 0; i < KNOWN; i++) {
        if (strcmp(arm, known[i]) == 0) {
            return i;
        }
    }
    for (size_t i = 0; i < run->arm_count && strcmp(run->arms[i], arm) != 0; i++) {
        bool is_known = false;
        for (size_t k = 0; k < KNOWN; k++) {
            is_known = is_known || strcmp(run->arms[i], known[k]) == 0;
        }
        next += !is_known;
    }
    return KNOWN + (next - KNOWN) % (EVAL_COLOURS - KNOWN);
}

/* --- figures of a run, computed once ---------------------------------------------------------- */

typedef struct figures {
    const eval_run *run;
    size_t arm_count;
    eval_estimate of[ARMS_MAX][EVAL_METRIC_COUNT];
    size_t questions; /* rows of the arm that has most */
    size_t reference; /* arm that the others are compared with: full, else the last */
    eval_metric main; /* what "right" means in this run */
} figures;

static bool has(const figures *f, eval_metric metric)
{
    for (size_t i = 0; i < f->arm_count; i++) {
        if (f->of[i][metric].n > 0) {
            return true;
        }
    }
    return false;
}

static base_status compute(const eval_run *run, figures *f, base_error *err)
{
    static const eval_metric mains[] = {EVAL_METRIC_CONTAINS, EVAL_METRIC_VALUE_TOP1,
                                        EVAL_METRIC_EM, EVAL_METRIC_EVIDENCE};
    base_status status = BASE_OK;
    *f = (figures){.run = run, .arm_count = run->arm_count > ARMS_MAX ? ARMS_MAX : run->arm_count};
    for (size_t i = 0; i < f->arm_count; i++) {
        size_t rows = 0;
        for (size_t k = 0; k < run->row_count; k++) {
            rows += strcmp(run->rows[k].arm, run->arms[i]) == 0;
        }
        f->questions = rows > f->questions ? rows : f->questions;
        for (size_t m = 0; m < EVAL_METRIC_COUNT && !status; m++) {
            status = eval_run_figure(run, run->arms[i], (eval_metric)m, &f->of[i][m], err);
        }
        if (strcmp(run->arms[i], "full") == 0) {
            f->reference = i;
        }
    }
    if (f->arm_count && strcmp(run->arms[f->reference], "full") != 0) {
        f->reference = f->arm_count - 1;
    }
    for (size_t i = sizeof mains / sizeof *mains; i-- > 0;) {
        f->main = has(f, mains[i]) ? mains[i] : f->main;
    }
    return status;
}

static bool is_share(eval_metric metric)
{
    return strcmp(eval_metric_unit(metric), "share") == 0;
}

static void figure_text(eval_metric metric, double value, char out[32])
{
    if (isnan(value)) {
        snprintf(out, 32, "–");
    } else if (is_share(metric)) {
        snprintf(out, 32, "%.1f %%", 100 * value);
    } else {
        snprintf(out, 32, "%.*f", fabs(value) >= 100 ? 0 : fabs(value) >= 10 ? 1 : 2, value);
    }
}

static void interval_text(eval_metric metric, double low, double high, char out[64])
{
    double scale = is_share(metric) ? 100 : 1;
    int digits = is_share(metric) || fabs(high) >= 10 ? 1 : 2;
    out[0] = 0;
    if (!isnan(low) && !isnan(high)) {
        digits = !is_share(metric) && fabs(high) >= 100 ? 0 : digits;
        snprintf(out, 64, "%.*f to %.*f", digits, scale * low, digits, scale * high);
    }
}

static void p_text(double p, char out[32])
{
    if (isnan(p)) {
        snprintf(out, 32, "–");
    } else if (p < 0.001) {
        snprintf(out, 32, "&lt; 0.001");
    } else {
        snprintf(out, 32, "%.3f", p);
    }
}

/* --- parts of the page ------------------------------------------------------------------------ */

static void write_lead(eval_text *out, const figures *f, const eval_pair *pairs)
{
    char text[32], interval[64], p[32];
    const char *reference = f->run->arms[f->reference];
    size_t best = f->arm_count;
    const eval_estimate *own = &f->of[f->reference][f->main];
    if (own->n == 0) {
        return;
    }
    for (size_t i = 0; i < f->arm_count; i++) {
        if (i != f->reference && strcmp(f->run->arms[i], "oracle") != 0 && f->of[i][f->main].n &&
            (best == f->arm_count || f->of[i][f->main].value > f->of[best][f->main].value)) {
            best = i;
        }
    }
    figure_text(f->main, own->value, text);
    interval_text(f->main, own->low, own->high, interval);
    eval_text_add(out, "<p class=\"lead\">Arm <b>");
    eval_text_escape(out, reference);
    eval_text_add(out, "</b>: %s (%s), %s", text, interval, eval_metric_label(f->main));
    if (best < f->arm_count) {
        const eval_pair *pair = &pairs[best];
        p_text(pair->p_bootstrap, p);
        eval_text_add(out, "; %+.1f points against <b>", 100 * pair->difference);
        eval_text_escape(out, f->run->arms[best]);
        eval_text_add(out, "</b> on the same questions (%+.1f to %+.1f, p %s%s)", 100 * pair->low,
                      100 * pair->high, p[0] == '&' ? "" : "= ", p);
    }
    eval_text_add(out, ".</p>\n");
}

static void write_bars(eval_text *out, const figures *f, size_t run)
{
    static const eval_metric shown[] = {
        EVAL_METRIC_CONTAINS,       EVAL_METRIC_STALE,        EVAL_METRIC_EM,
        EVAL_METRIC_AS_OF,          EVAL_METRIC_VALUE_TOP1,   EVAL_METRIC_VALUE_NLL,
        EVAL_METRIC_ABSTAIN_RECALL, EVAL_METRIC_FALSE_FORGET, EVAL_METRIC_EVIDENCE,
        EVAL_METRIC_LOOKUPS,        EVAL_METRIC_TOKENS_FIRST, EVAL_METRIC_ANSWER_MS};
    eval_text_add(out, "<h3>Arms</h3>\n<p class=\"note\">Bars with 95 %% intervals; the scale of "
                       "each panel is its own.</p>\n<div class=\"panels\">\n");
    for (size_t m = 0; m < sizeof shown / sizeof *shown; m++) {
        eval_series series[ARMS_MAX];
        eval_point points[ARMS_MAX];
        char id[32], title[128];
        size_t count = 0;
        for (size_t i = 0; i < f->arm_count; i++) {
            const eval_estimate *e = &f->of[i][shown[m]];
            if (e->n > 0) {
                points[count] = (eval_point){.y = e->value, .y_low = e->low, .y_high = e->high};
                series[count] = (eval_series){f->run->arms[i], colour_of(f->run, f->run->arms[i]),
                                              &points[count], 1};
                count++;
            }
        }
        if (count > 0) {
            const char *label = eval_metric_label(shown[m]);
            snprintf(id, sizeof id, "bars-%zu-%zu", run, m);
            snprintf(title, sizeof title, "%c%s%s",
                     label[0] >= 'a' ? label[0] - 'a' + 'A' : label[0], label + 1,
                     eval_metric_better(shown[m]) < 0 ? " (less is better)" : "");
            eval_plot_bars(out, id, title, eval_metric_unit(shown[m]), series, count);
        }
    }
    eval_text_add(out, "</div>\n");
}

static void write_differences(eval_text *out, const figures *f, eval_metric metric,
                              const eval_pair *pairs, size_t run)
{
    eval_series series[ARMS_MAX];
    eval_point points[ARMS_MAX];
    char names[ARMS_MAX][96], id[32], title[200];
    size_t count = 0;
    const char *reference = f->run->arms[f->reference];
    for (size_t i = 0; i < f->arm_count; i++) {
        if (i != f->reference && !isnan(pairs[i].difference)) {
            points[count] = (eval_point){
                .y = pairs[i].difference, .y_low = pairs[i].low, .y_high = pairs[i].high};
            snprintf(names[count], sizeof names[count], "%.40s − %.40s", reference,
                     f->run->arms[i]);
            series[count] =
                (eval_series){names[count], colour_of(f->run, f->run->arms[i]), &points[count], 1};
            count++;
        }
    }
    if (count > 0) {
        bool less_is_better = eval_metric_better(metric) < 0;
        snprintf(id, sizeof id, "pairs-%zu-%d", run, (int)metric);
        snprintf(title, sizeof title,
                 "Paired differences, %s: the same questions in both arms, 95 %% intervals",
                 eval_metric_label(metric));
        eval_plot_differences(out, id, title, less_is_better ? "better" : "worse",
                              less_is_better ? "worse" : "better", series, count);
    }
}

static void write_latency(eval_text *out, const figures *f, size_t run)
{
    eval_series series[ARMS_MAX];
    eval_point points[ARMS_MAX];
    char id[32], y_label[96];
    size_t count = 0;
    for (size_t i = 0; i < f->arm_count; i++) {
        const eval_estimate *y = &f->of[i][f->main], *x = &f->of[i][EVAL_METRIC_ANSWER_MS];
        if (y->n > 0 && x->n > 0 && x->value > 0) {
            points[count] = (eval_point){x->value, x->low, x->high, y->value, y->low, y->high};
            series[count] = (eval_series){f->run->arms[i], colour_of(f->run, f->run->arms[i]),
                                          &points[count], 1};
            count++;
        }
    }
    eval_text_add(out, "<h3>Accuracy against latency</h3>\n");
    if (count < 2) {
        eval_text_add(out,
                      "<p class=\"note\">Not drawn: it needs two arms with times; this run has "
                      "%zu.</p>\n",
                      count);
        return;
    }
    snprintf(id, sizeof id, "latency-%zu", run);
    snprintf(y_label, sizeof y_label, "%s", eval_metric_label(f->main));
    const eval_axes axes = {.id = id,
                            .title = "Accuracy against time per answer, one point an arm, 95 % "
                                     "intervals both ways; up and to the left is better",
                            .x_label = "time per answer in ms (log scale)",
                            .y_label = y_label,
                            .y_share = is_share(f->main)};
    eval_plot_scatter(out, &axes, series, count);
}

typedef struct along {
    eval_metric metric;
    eval_axis axis;
    const char *heading, *x_label, *first_column;
    const eval_tick *ticks;
    size_t tick_count;
} along;

typedef struct buckets {
    eval_bucket of[ARMS_MAX][EVAL_BUCKET_MAX];
    size_t count[ARMS_MAX];
} buckets;

/* Draws what has enough rows; the table holds everything. */
static base_status write_along(eval_text *out, const figures *f, const along *a, size_t run,
                               buckets *b, base_error *err)
{
    eval_series series[ARMS_MAX];
    eval_point points[ARMS_MAX][EVAL_BUCKET_MAX];
    char id[40];
    size_t drawn = 0, groups = 0, widest = 0;
    base_status status = BASE_OK;
    for (size_t i = 0; i < f->arm_count && !status; i++) {
        size_t count = 0;
        status = eval_run_along(f->run, f->run->arms[i], a->metric, a->axis, b->of[i], &b->count[i],
                                err);
        widest = b->count[i] > b->count[widest] ? i : widest;
        for (size_t k = 0; k < b->count[i] && !status; k++) {
            const eval_bucket *bucket = &b->of[i][k];
            if (bucket->y.n >= BUCKET_ROWS_MIN) {
                points[i][count++] = (eval_point){.x = bucket->x,
                                                  .x_low = (double)NAN,
                                                  .x_high = (double)NAN,
                                                  .y = bucket->y.value,
                                                  .y_low = bucket->y.low,
                                                  .y_high = bucket->y.high};
            }
        }
        groups = count > groups ? count : groups;
        if (count >= 2) {
            series[drawn++] = (eval_series){f->run->arms[i], colour_of(f->run, f->run->arms[i]),
                                            points[i], count};
        }
    }
    if (status || b->count[widest] == 0) {
        return status; /* named among what is not there */
    }
    eval_text_add(out, "<h3>%s</h3>\n", a->heading);
    if (drawn == 0) {
        eval_text_add(out,
                      "<p class=\"note\">Not drawn: it needs two groups of at least %d "
                      "questions; this run has %zu.</p>\n",
                      BUCKET_ROWS_MIN, groups);
    } else {
        snprintf(id, sizeof id, "along-%d-%d-%zu", (int)a->metric, (int)a->axis, run);
        char title[160];
        snprintf(title, sizeof title, "%s, by arm, with 95 %% intervals", a->heading);
        const eval_axes axes = {.id = id,
                                .title = title,
                                .x_label = a->x_label,
                                .y_label = eval_metric_label(a->metric),
                                .x_ticks = a->ticks,
                                .x_tick_count = a->tick_count,
                                .y_share = is_share(a->metric)};
        eval_plot_lines(out, &axes, series, drawn);
    }
    eval_text_add(out, "<div class=\"scroll\"><table><thead><tr><th>%s</th><th>n</th>",
                  a->first_column);
    for (size_t i = 0; i < f->arm_count; i++) {
        eval_text_add(out, "<th>");
        eval_text_escape(out, f->run->arms[i]);
        eval_text_add(out, "</th>");
    }
    eval_text_add(out, "</tr></thead><tbody>\n");
    for (size_t k = 0; k < b->count[widest]; k++) {
        const char *label = b->of[widest][k].label;
        eval_text_add(out, "<tr><td>");
        eval_text_escape(out, label);
        eval_text_add(out, "</td><td>%zu</td>", b->of[widest][k].y.n);
        for (size_t i = 0; i < f->arm_count; i++) {
            char text[32] = "–", interval[64] = "";
            for (size_t m = 0; m < b->count[i]; m++) {
                if (strcmp(b->of[i][m].label, label) == 0) {
                    figure_text(a->metric, b->of[i][m].y.value, text);
                    interval_text(a->metric, b->of[i][m].y.low, b->of[i][m].y.high, interval);
                }
            }
            eval_text_add(out, "<td>%s<span class=\"under\">%s</span></td>", text, interval);
        }
        eval_text_add(out, "</tr>\n");
    }
    eval_text_add(out, "</tbody></table></div>\n");
    return BASE_OK;
}

static base_status write_alongs(eval_text *out, const figures *f, size_t run, base_error *err)
{
    static const eval_tick ages[] = {{1.0 / 24, "1 hour"}, {1, "1 day"},    {7, "1 week"},
                                     {30, "1 month"},      {365, "1 year"}, {3650, "10 years"},
                                     {36500, "100 years"}};
    static const eval_tick distances[] = {{256, "256"},     {1024, "1 K"},    {4096, "4 K"},
                                          {16384, "16 K"},  {65536, "64 K"},  {262144, "256 K"},
                                          {1048576, "1 M"}, {4194304, "4 M"}, {16777216, "16 M"}};
    static const eval_tick updates[] = {{1, "1"},     {2, "2"},    {4, "4"},   {8, "8"},
                                        {16, "16"},   {32, "32"},  {64, "64"}, {128, "128"},
                                        {256, "256"}, {512, "512"}};
#define TICKS(list) list, sizeof list / sizeof *list
    const along all[] = {
        {f->main, EVAL_AXIS_AGE, "Recall against age",
         "age of the evidence when the question is asked (log scale)", "age", TICKS(ages)},
        {f->main, EVAL_AXIS_DISTANCE, "Recall against distance",
         "tokens between evidence and question (log scale)", "tokens", TICKS(distances)},
        {EVAL_METRIC_STALE, EVAL_AXIS_UPDATES, "Stale rate against number of updates",
         "values that the key has had (log scale)", "values", TICKS(updates)},
        {f->main, EVAL_AXIS_UPDATES, "Recall against number of updates",
         "values that the key has had (log scale)", "values", TICKS(updates)},
    };
#undef TICKS
    enum { ALL = sizeof all / sizeof *all };
    bool missing[ALL];
    size_t missing_count = 0;
    buckets *b = base_calloc(1, sizeof *b);
    base_status status = b ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for the report");
    for (size_t i = 0; i < ALL && !status; i++) {
        size_t before = out->buffer.size;
        status = write_along(out, f, &all[i], run, b, err);
        missing[i] = out->buffer.size == before;
        missing_count += missing[i];
    }
    if (!status && missing_count > 0) {
        eval_text_add(out, "<p class=\"note\">Not in this run, because its questions do not carry "
                           "what it needs: ");
        for (size_t i = 0, named = 0; i < ALL; i++) {
            if (missing[i]) {
                eval_text_add(out, "%s%c%s", named++ ? "; " : "", all[i].heading[0] - 'A' + 'a',
                              all[i].heading + 1);
            }
        }
        eval_text_add(out, ".</p>\n");
    }
    base_free(b);
    return status;
}

static void write_traces(eval_text *out, const figures *f, size_t run)
{
    enum { TRACES_MAX = 3 };
    const eval_run *r = f->run;
    size_t shown = 0;
    for (size_t i = 0; i < r->trace_count && shown < TRACES_MAX; i++) {
        const eval_trace *trace = &r->traces[i];
        const eval_row *row = NULL;
        char id[40];
        if (trace->count < 2) {
            continue;
        }
        for (size_t k = 0; k < r->row_count && !row; k++) {
            if (strcmp(r->rows[k].arm, trace->arm) == 0 &&
                strcmp(r->rows[k].question, trace->question) == 0) {
                row = &r->rows[k];
            }
        }
        if (shown == 0) {
            eval_text_add(out, "<h3>Events and attention along a text</h3>\n");
        }
        eval_text_add(out, "<p class=\"note\">Arm ");
        eval_text_escape(out, trace->arm);
        eval_text_add(out, ", question ");
        eval_text_escape(out, trace->question);
        if (row && row->text) {
            eval_text_add(out, ": ");
            eval_text_escape(out, row->text);
        }
        eval_text_add(out, "</p>\n");
        snprintf(id, sizeof id, "trace-%zu-%zu", run, shown++);
        eval_plot_trace(out, id, trace);
        eval_text_add(out, "<p class=\"words\">");
        for (size_t k = 0; k < trace->count; k++) {
            const char *text = trace->tokens[k].text ? trace->tokens[k].text : "";
            if (trace->tokens[k].event) {
                eval_text_add(out, "<mark>");
            }
            eval_text_escape(out, text);
            if (trace->tokens[k].event) {
                eval_text_add(out, "</mark>");
            }
        }
        eval_text_add(out, "</p>\n<p class=\"note\">Underlined: memory was consulted before this "
                           "token.</p>\n");
    }
}

/* The arm with the best figure; arm_count when that means nothing. */
static size_t best_arm(const figures *f, eval_metric metric)
{
    size_t best = f->arm_count, with = 0;
    int better = eval_metric_better(metric);
    for (size_t i = 0; i < f->arm_count; i++) {
        const eval_estimate *e = &f->of[i][metric];
        if (strcmp(f->run->arms[i], "oracle") == 0 || e->n == 0) {
            continue;
        }
        with++;
        if (best == f->arm_count || better * e->value > better * f->of[best][metric].value) {
            best = i;
        }
    }
    return better != 0 && with > 1 ? best : f->arm_count;
}

static void write_figures(eval_text *out, const figures *f)
{
    eval_text_add(out, "<h3>All figures</h3>\n<p class=\"note\">With 95 %% bootstrap intervals; "
                       "bold: the best arm, oracle apart.</p>\n<div class=\"scroll\"><table>"
                       "<thead><tr><th>figure</th><th class=\"text\">unit</th>");
    for (size_t i = 0; i < f->arm_count; i++) {
        eval_text_add(out, "<th>");
        eval_text_escape(out, f->run->arms[i]);
        eval_text_add(out, "</th>");
    }
    eval_text_add(out, "</tr></thead><tbody>\n");
    for (size_t m = 0; m < EVAL_METRIC_COUNT; m++) {
        eval_metric metric = (eval_metric)m;
        size_t best = best_arm(f, metric);
        if (!has(f, metric)) {
            continue;
        }
        eval_text_add(out, "<tr><td>%s</td><td class=\"text\">%s</td>", eval_metric_label(metric),
                      is_share(metric) ? "%" : eval_metric_unit(metric));
        for (size_t i = 0; i < f->arm_count; i++) {
            const eval_estimate *e = &f->of[i][m];
            char text[32], interval[64];
            figure_text(metric, e->value, text);
            interval_text(metric, e->low, e->high, interval);
            eval_text_add(out, i == best ? "<td><b class=\"best\">%s</b>" : "<td>%s", text);
            eval_text_add(out, "<span class=\"under\">%s</span></td>", interval);
        }
        eval_text_add(out, "</tr>\n");
    }
    eval_text_add(out, "</tbody></table></div>\n");
}

static void write_pair_rows(eval_text *out, const figures *f, eval_metric metric,
                            const eval_pair *pairs)
{
    for (size_t i = 0; i < f->arm_count; i++) {
        const eval_pair *pair = &pairs[i];
        char p[32], exact[32];
        if (i == f->reference || isnan(pair->difference)) {
            continue;
        }
        p_text(pair->p_bootstrap, p);
        p_text(pair->has_mcnemar ? pair->p_mcnemar : (double)NAN, exact);
        eval_text_add(out, "<tr><td>%s</td><td class=\"text\">", eval_metric_label(metric));
        eval_text_escape(out, f->run->arms[f->reference]);
        eval_text_add(out, " − ");
        eval_text_escape(out, f->run->arms[i]);
        eval_text_add(out,
                      "</td><td>%zu</td><td>%+.1f</td><td>%+.1f to %+.1f</td><td>%s</td>"
                      "<td>%zu : %zu</td><td>%s</td></tr>\n",
                      pair->a.n, 100 * pair->difference, 100 * pair->low, 100 * pair->high, p,
                      pair->only_a, pair->only_b, exact);
    }
}

static void write_identity(eval_text *out, const eval_run *run)
{
    const eval_identity *id = &run->identity;
    const struct {
        const char *name, *value;
    } list[] = {{"command", id->command},
                {"commit", id->commit},
                {"program", id->version},
                {"options", id->options},
                {"arms asked for", id->arms},
                {"model (SHA-256)", id->model_hash},
                {"adapter (SHA-256)", id->adapter_hash},
                {"encoder (SHA-256)", id->encoder_hash},
                {"documents (SHA-256)", id->documents_hash},
                {"questions (SHA-256)", id->questions_hash}};
    eval_text_add(out, "<h3>Where it comes from</h3>\n<dl>\n<dt>run</dt><dd>%s</dd>\n", run->id);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        eval_text_add(out, "<dt>%s</dt><dd>", list[i].name);
        eval_text_escape(out, list[i].value && *list[i].value ? list[i].value : "none");
        eval_text_add(out, "</dd>\n");
    }
    eval_text_add(out, "<dt>seed</dt><dd>%llu</dd>\n<dt>limit</dt><dd>",
                  (unsigned long long)id->seed);
    eval_text_add(out, id->limit ? "%zu questions" : "none", id->limit);
    eval_text_add(out, "</dd>\n</dl>\n");
}

static base_status pairs_of(const figures *f, eval_metric metric, eval_pair *pairs, base_error *err)
{
    base_status status = BASE_OK;
    for (size_t i = 0; i < f->arm_count && !status; i++) {
        status = eval_run_pair(f->run, f->run->arms[f->reference], f->run->arms[i], metric,
                               &pairs[i], err);
    }
    return status;
}

static base_status write_run(eval_text *out, const figures *f, size_t index, base_error *err)
{
    eval_pair pairs[ARMS_MAX], stale[ARMS_MAX];
    base_status status;
    eval_text_add(out, "<section>\n<h2>");
    eval_text_escape(out, f->run->identity.suite);
    eval_text_add(out, "</h2>\n<p class=\"note\">%zu questions, %zu arms, seed %llu</p>\n",
                  f->questions, f->arm_count, (unsigned long long)f->run->identity.seed);
    if (f->arm_count == 0) {
        eval_text_add(out, "<p class=\"note\">No answers yet.</p>\n");
        write_identity(out, f->run);
        eval_text_add(out, "</section>\n");
        return BASE_OK;
    }
    if ((status = pairs_of(f, f->main, pairs, err)) ||
        (status = pairs_of(f, EVAL_METRIC_STALE, stale, err))) {
        return status;
    }
    write_lead(out, f, pairs);
    write_bars(out, f, index);
    if (f->arm_count > 1) {
        eval_text_add(out, "<h3>Differences</h3>\n");
        write_differences(out, f, f->main, pairs, index);
        write_differences(out, f, EVAL_METRIC_STALE, stale, index);
        eval_text_add(out,
                      "<div class=\"scroll\"><table><thead><tr><th>figure</th>"
                      "<th class=\"text\">arms</th><th>n</th><th>points</th><th>95 %% interval</th>"
                      "<th>p (bootstrap)</th><th>one arm only</th><th>p (McNemar)</th></tr></thead>"
                      "<tbody>\n");
        write_pair_rows(out, f, f->main, pairs);
        write_pair_rows(out, f, EVAL_METRIC_STALE, stale);
        eval_text_add(out, "</tbody></table></div>\n");
    }
    write_latency(out, f, index);
    if ((status = write_alongs(out, f, index, err))) {
        return status;
    }
    write_traces(out, f, index);
    write_figures(out, f);
    write_identity(out, f->run);
    eval_text_add(out, "</section>\n");
    return BASE_OK;
}

/* With several runs: right and stale of every arm in one table. */
static void write_overview(eval_text *out, const figures *all, size_t count)
{
    eval_text_add(out, "<div class=\"scroll\"><table><thead><tr><th>suite</th>"
                       "<th class=\"text\">arm</th><th>n</th><th>right</th><th>stale</th>"
                       "<th>abstained</th><th>ms per answer</th></tr></thead><tbody>\n");
    for (size_t r = 0; r < count; r++) {
        for (size_t i = 0; i < all[r].arm_count; i++) {
            static const eval_metric others[] = {EVAL_METRIC_STALE, EVAL_METRIC_ABSTAINED,
                                                 EVAL_METRIC_ANSWER_MS};
            const eval_estimate *e = &all[r].of[i][all[r].main];
            char text[32], interval[64];
            eval_text_add(out, "<tr><td>");
            eval_text_escape(out, i == 0 ? all[r].run->identity.suite : "");
            eval_text_add(out, "</td><td class=\"text\">");
            eval_text_escape(out, all[r].run->arms[i]);
            figure_text(all[r].main, e->value, text);
            interval_text(all[r].main, e->low, e->high, interval);
            eval_text_add(out, "</td><td>%zu</td><td>%s<span class=\"under\">%s</span></td>", e->n,
                          text, interval);
            for (size_t m = 0; m < sizeof others / sizeof *others; m++) {
                e = &all[r].of[i][others[m]];
                figure_text(others[m], e->value, text);
                interval_text(others[m], e->low, e->high, interval);
                eval_text_add(out, "<td>%s<span class=\"under\">%s</span></td>", text, interval);
            }
            eval_text_add(out, "</tr>\n");
        }
    }
    eval_text_add(out, "</tbody></table></div>\n");
}

static void write_head(eval_text *out, const figures *all, size_t count)
{
    eval_text title = {0};
    for (size_t i = 0; i < count; i++) {
        eval_text_add(&title, "%s%s", i ? ", " : "eidetic evaluation: ",
                      all[i].run->identity.suite);
    }
    eval_page_begin(out, title.buffer.data ? title.buffer.data : "");
    out->status = out->status ? out->status : title.status;
    base_buffer_free(&title.buffer);
    eval_text_add(out,
                  "<h1>eidetic evaluation</h1>\n<p class=\"note\">"
                  "Answers are compared with gold texts by rule, no judge: right means that the "
                  "answer holds one. Intervals: 95 %%, "
                  "bootstrap over groups of questions that share a document, %d draws, seeded. "
                  "A stale answer says a value of another time and no right one. Abstentions "
                  "count as wrong answers.</p>\n",
                  EVAL_BOOTSTRAP_SAMPLES);
}

base_status eval_report_page(const eval_run *runs, size_t count, base_buffer *out, base_error *err)
{
    eval_text text = {0};
    figures *all = base_calloc(count, sizeof *all);
    base_status status = all ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for the report");
    for (size_t i = 0; i < count && !status; i++) {
        status = compute(&runs[i], &all[i], err);
    }
    if (!status) {
        write_head(&text, all, count);
        if (count > 1) {
            write_overview(&text, all, count);
        }
    }
    for (size_t i = 0; i < count && !status; i++) {
        status = write_run(&text, &all[i], i, err);
    }
    eval_text_add(&text, "</body></html>\n");
    if (!status && (text.status || base_buffer_append(out, text.buffer.data, text.buffer.size))) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for the report");
    }
    base_buffer_free(&text.buffer);
    base_free(all);
    return status;
}
