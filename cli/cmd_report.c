/* cli/cmd_report.c: eval report DIR...: runs that are there already, as a page (report.html), as
 * Markdown (report.md and stdout), or as JSON with intervals. eval import FILE: another program's
 * answers become such a run. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "eval/report.h"

enum { RUNS_MAX = 64, PATH_SIZE = 4096 };

static json_t *json_pair(const char *a, const char *b, eval_metric metric, const eval_pair *p)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:f, s:o, s:o, s:o, s:I, s:I, s:o}", "figure",
                     eval_metric_key(metric), "a", a, "b", b, "n", (json_int_t)p->a.n, "difference",
                     p->difference, "low", cli_json_number(p->low), "high",
                     cli_json_number(p->high), "p_bootstrap", cli_json_number(p->p_bootstrap),
                     "only_a", (json_int_t)p->only_a, "only_b", (json_int_t)p->only_b, "p_mcnemar",
                     cli_json_number(p->p_mcnemar));
}

/* Every pair of arms, for what is right and what is stale. */
static base_status json_pairs(const eval_run *run, json_t *list, base_error *err)
{
    static const eval_metric compared[] = {EVAL_METRIC_CONTAINS, EVAL_METRIC_STALE,
                                           EVAL_METRIC_VALUE_TOP1, EVAL_METRIC_ANSWER_MS};
    base_status status = BASE_OK;
    for (size_t m = 0; m < sizeof compared / sizeof *compared; m++) {
        for (size_t i = 0; i < run->arm_count; i++) {
            for (size_t k = i + 1; k < run->arm_count && !status; k++) {
                const char *a = run->arms[k], *b = run->arms[i];
                eval_pair pair;
                status = eval_run_pair(run, a, b, compared[m], &pair, err);
                if (!status && pair.a.n > 0) {
                    json_array_append_new(list, json_pair(a, b, compared[m], &pair));
                }
            }
        }
    }
    return status;
}

static base_status json_run(const eval_run *run, json_t **out, base_error *err)
{
    json_t *arms = json_object(), *pairs = json_array();
    base_status status = json_pairs(run, pairs, err);
    for (size_t i = 0; i < run->arm_count && !status; i++) {
        json_t *figures;
        if (!(status = eval_run_json(run, run->arms[i], true, &figures, err))) {
            json_object_set_new(arms, run->arms[i], figures);
        }
    }
    if (status) {
        json_decref(arms);
        json_decref(pairs);
        return status;
    }
    *out = json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "suite", run->identity.suite, "run", run->id,
                     "seed", (json_int_t)run->identity.seed, "git_commit", run->identity.commit,
                     "arms", arms, "pairs", pairs);
    return BASE_OK;
}

static base_status write_file(const char *folder, const char *name, const base_buffer *text,
                              char path[PATH_SIZE], base_error *err)
{
    if (base_path_join(path, PATH_SIZE, folder, name)) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
    }
    return base_file_replace(path, text->data, text->size, 0644, err);
}

base_status cli_write_report(const eval_run *runs, size_t count, const char *folder,
                             base_buffer *markdown, char page_path[4096], base_error *err)
{
    base_buffer page = {0};
    char path[PATH_SIZE];
    base_status status;
    if (!(status = eval_report_page(runs, count, &page, err)) &&
        !(status = eval_report_markdown(runs, count, markdown, err)) &&
        !(status = base_dir_create(folder, err)) &&
        !(status = write_file(folder, "report.html", &page, page_path, err))) {
        status = write_file(folder, "report.md", markdown, path, err);
    }
    base_buffer_free(&page);
    return status;
}

int cli_eval_report(const cli_options *o)
{
    base_error err = {0};
    eval_run runs[RUNS_MAX];
    base_buffer markdown = {0};
    char page_path[PATH_SIZE];
    size_t count = 0, wanted = (size_t)(o->operand_count - 1);
    json_t *list = json_array();
    base_status status = BASE_OK;
    if (wanted == 0 || wanted > RUNS_MAX) {
        json_decref(list);
        return cli_usage("eval report DIR...: folders of 1 to %d runs", RUNS_MAX);
    }
    const char *folder = o->out ? o->out : o->operands[1];
    while (count < wanted &&
           !(status = eval_run_load(o->operands[count + 1], &runs[count], &err))) {
        count++;
    }
    if (!status) {
        status = cli_write_report(runs, count, folder, &markdown, page_path, &err);
    }
    for (size_t i = 0; o->json && i < count && !status; i++) {
        json_t *run;
        if (!(status = json_run(&runs[i], &run, &err))) {
            json_array_append_new(list, run);
        }
    }
    int code = CLI_DONE;
    if (status) {
        code = cli_fail(&err);
    } else if (o->json) {
        code = cli_print_json(json_pack("{s:s, s:O}", "page", page_path, "runs", list));
    } else {
        fputs(markdown.data, stdout);
        fprintf(stderr, "wrote %s\n", page_path);
    }
    for (size_t i = 0; i < count; i++) {
        eval_run_free(&runs[i]);
    }
    json_decref(list);
    base_buffer_free(&markdown);
    return code;
}

int cli_eval_import(const cli_options *o)
{
    base_error err = {0};
    if (o->operand_count != 2 || !o->out) {
        return cli_usage("eval import FILE --out DIR");
    }
    return eval_results_import(o->operands[1], o->out, &err) ? cli_fail(&err) : CLI_DONE;
}
