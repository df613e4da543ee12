/* eval/report_markdown.c: the figures as Markdown, for a README or a commit. */
#include <stdio.h>
#include <string.h>

#include "eval/plot.h"
#include "eval/report.h"

/* What fits a README; the page has all figures. */
static const struct {
    eval_metric metric;
    const char *name;
} columns[] = {{EVAL_METRIC_CONTAINS, "contains"},
               {EVAL_METRIC_EM, "exact"},
               {EVAL_METRIC_VALUE_TOP1, "value top-1"},
               {EVAL_METRIC_VALUE_NLL, "value NLL"},
               {EVAL_METRIC_STALE, "stale"},
               {EVAL_METRIC_AS_OF, "as-of"},
               {EVAL_METRIC_ABSTAINED, "abstained"},
               {EVAL_METRIC_ABSTAIN_RECALL, "unanswerable, said so"},
               {EVAL_METRIC_FALSE_FORGET, "false forget"},
               {EVAL_METRIC_CITATION_PRECISION, "citations right"},
               {EVAL_METRIC_EVIDENCE, "evidence"},
               {EVAL_METRIC_RECALL_1, "R@1"},
               {EVAL_METRIC_MRR, "MRR"},
               {EVAL_METRIC_FIRED, "fired where needed"},
               {EVAL_METRIC_FIRED_PRECISION, "events needed"},
               {EVAL_METRIC_LOOKUPS, "lookups/100"},
               {EVAL_METRIC_TOKENS_FIRST, "tokens to first"},
               {EVAL_METRIC_ANSWER_MS, "ms"}};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* A cell: no '|' and no line break may come from outside. */
static void cell_text(eval_text *out, const char *text)
{
    for (; *text; text++) {
        eval_text_add(out, *text == '|' || *text == '\n' || *text == '\r' ? " " : "%c", *text);
    }
}

static void figure(eval_text *out, eval_metric metric, const eval_estimate *e)
{
    int digits = strcmp(eval_metric_unit(metric), "share") == 0 ? 3 : e->value >= 100 ? 0 : 2;
    if (e->n == 0) {
        eval_text_add(out, " – |");
    } else if (isnan(e->low)) {
        eval_text_add(out, " %.*f |", digits, e->value);
    } else {
        eval_text_add(out, " %.*f [%.*f, %.*f] |", digits, e->value, digits, e->low, digits,
                      e->high);
    }
}

static base_status write_table(eval_text *out, const eval_run *run, base_error *err)
{
    bool shown[COLUMNS] = {false};
    eval_estimate e;
    base_status status = BASE_OK;
    for (size_t i = 0; i < run->arm_count * COLUMNS && !status; i++) {
        status = eval_run_figure(run, run->arms[i / COLUMNS], columns[i % COLUMNS].metric, &e, err);
        shown[i % COLUMNS] = shown[i % COLUMNS] || (!status && e.n > 0);
    }
    eval_text_add(out, "| arm | n |");
    for (size_t m = 0; m < COLUMNS; m++) {
        if (shown[m]) {
            eval_text_add(out, " %s |", columns[m].name);
        }
    }
    eval_text_add(out, "\n| --- | --- |");
    for (size_t m = 0; m < COLUMNS; m++) {
        eval_text_add(out, "%s", shown[m] ? " --- |" : "");
    }
    eval_text_add(out, "\n");
    for (size_t i = 0; i < run->arm_count && !status; i++) {
        size_t rows = 0;
        for (size_t k = 0; k < run->row_count; k++) {
            rows += strcmp(run->rows[k].arm, run->arms[i]) == 0;
        }
        eval_text_add(out, "| ");
        cell_text(out, run->arms[i]);
        eval_text_add(out, " | %zu |", rows);
        for (size_t m = 0; m < COLUMNS && !status; m++) {
            if (shown[m]) {
                status = eval_run_figure(run, run->arms[i], columns[m].metric, &e, err);
                figure(out, columns[m].metric, &e);
            }
        }
        eval_text_add(out, "\n");
    }
    return status;
}

static base_status write_pairs(eval_text *out, const eval_run *run, base_error *err)
{
    static const eval_metric compared[] = {EVAL_METRIC_CONTAINS, EVAL_METRIC_STALE,
                                           EVAL_METRIC_VALUE_TOP1};
    const char *reference = run->arms[run->arm_count - 1];
    base_status status = BASE_OK;
    for (size_t i = 0; i < run->arm_count; i++) {
        reference = strcmp(run->arms[i], "full") == 0 ? "full" : reference;
    }
    eval_text_add(out, "\nDifferences on the same questions, 95 %% intervals:\n\n"
                       "| figure | arms | n | difference | p (bootstrap) | p (McNemar) |\n"
                       "| --- | --- | --- | --- | --- | --- |\n");
    for (size_t m = 0; m < sizeof compared / sizeof *compared; m++) {
        for (size_t i = 0; i < run->arm_count && !status; i++) {
            eval_pair pair;
            if (strcmp(run->arms[i], reference) == 0 ||
                (status = eval_run_pair(run, reference, run->arms[i], compared[m], &pair, err)) ||
                isnan(pair.difference)) {
                continue;
            }
            eval_text_add(out, "| %s | ", eval_metric_label(compared[m]));
            cell_text(out, reference);
            eval_text_add(out, " − ");
            cell_text(out, run->arms[i]);
            eval_text_add(out, " | %zu | %+.3f", pair.a.n, pair.difference);
            if (isnan(pair.low)) { /* fewer than two groups to draw from */
                eval_text_add(out, " | – | ");
            } else {
                eval_text_add(out, " [%+.3f, %+.3f] | %.3f | ", pair.low, pair.high,
                              pair.p_bootstrap);
            }
            eval_text_add(out, pair.has_mcnemar ? "%.3g |\n" : "– |\n", pair.p_mcnemar);
        }
    }
    return status;
}

base_status eval_report_markdown(const eval_run *runs, size_t count, base_buffer *out,
                                 base_error *err)
{
    eval_text text = {0};
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        const eval_identity *id = &runs[i].identity;
        eval_text_add(&text, "%s### ", i ? "\n" : "");
        cell_text(&text, id->suite);
        eval_text_add(&text,
                      "\n\nSeed %llu, commit %.12s, model %.12s; 95 %% bootstrap intervals "
                      "in brackets.\n\n",
                      (unsigned long long)id->seed, id->commit, id->model_hash);
        if (runs[i].arm_count == 0) {
            eval_text_add(&text, "No answers yet.\n");
            continue;
        }
        status = write_table(&text, &runs[i], err);
        if (!status && runs[i].arm_count > 1) {
            status = write_pairs(&text, &runs[i], err);
        }
    }
    if (!status && (text.status || base_buffer_append(out, text.buffer.data, text.buffer.size))) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for the report");
    }
    base_buffer_free(&text.buffer);
    return status;
}
