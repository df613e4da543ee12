/* cli/cmd_eval.c: run an evaluation suite; its tables for a person, then one JSON object on the
 * last line. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "eval/eval.h"
#include "eval/results.h"

enum { PATH_SIZE = 4096, SETTINGS_SIZE = 512 };

void cli_eval_help(const cli_options *o)
{
    const eval_suite *one = o->operand_count > 0 ? eval_suite_find(o->operands[0]) : NULL;
    printf("\nSuites:\n");
    for (size_t i = 0; i < EVAL_SUITE_COUNT; i++) {
        const eval_suite *s = &eval_suites[i];
        if (!one || one == s) {
            printf("  %-12s %s\n", s->name, s->help);
            printf("  %-12s arms %s", "", s->arms);
            printf(s->limit ? ", %zu questions%s\n" : ", all questions%.0zu%s\n", s->limit,
                   s->documents
                       ? s->questions ? "; needs --documents, --questions" : "; needs --documents"
                       : "");
        }
    }
    printf("\nArms: none, full-context, prompt, static, full, oracle; each with ablations behind "
           "it:\n  %s\n"
           "\nDIR of --out gets results.sqlite, results.jsonl, report.html, report.md, "
           "controls.json and what was\ngenerated; the same command again goes on where it "
           "stopped. Controls (bias of minus infinity, values\nzeroed, another's keys and values) "
           "run first and stop it when they fail.\n",
           eval_arm_ablations);
}

/* What answers depend on beside the suite's own options: decides whether a run is the same. */
static void name_settings(const cli_options *o, char out[SETTINGS_SIZE])
{
    snprintf(out, SETTINGS_SIZE,
             "core=%s kv-type=%s window=%zu temp=%g top-k=%zu top-p=%g min-p=%g event-threshold=%g "
             "event-rate=%g event-stride=%zu half-life=%g",
             o->core ? o->core : "", o->kv_type ? o->kv_type : "", o->window, o->temperature,
             o->top_k, o->top_p, o->min_p, o->event_threshold, o->event_rate, o->event_stride,
             o->half_life_s);
}

/* {"full": {"em": x, ...}}: every figure that the run has; those of the contract are null without
 * data. */
static base_status json_arms(const eval_run *run, json_t *arms, base_error *err)
{
    static const eval_metric always[] = {
        EVAL_METRIC_EM,    EVAL_METRIC_CONTAINS,  EVAL_METRIC_F1,     EVAL_METRIC_STALE,
        EVAL_METRIC_AS_OF, EVAL_METRIC_ABSTAINED, EVAL_METRIC_LOOKUPS};
    for (size_t i = 0; i < run->arm_count; i++) {
        json_t *figures;
        base_status status = eval_run_json(run, run->arms[i], false, &figures, err);
        if (status) {
            return status;
        }
        for (size_t m = 0; m < sizeof always / sizeof *always; m++) {
            if (!json_object_get(figures, eval_metric_key(always[m]))) {
                json_object_set_new(figures, eval_metric_key(always[m]), json_null());
            }
        }
        json_object_set_new(arms, run->arms[i], figures);
    }
    return BASE_OK;
}

static size_t questions_of(const eval_run *run)
{
    size_t most = 0;
    for (size_t i = 0; i < run->arm_count; i++) {
        size_t n = 0;
        for (size_t k = 0; k < run->row_count; k++) {
            n += strcmp(run->rows[k].arm, run->arms[i]) == 0;
        }
        most = n > most ? n : most;
    }
    return most;
}

static int print_run(const cli_options *o)
{
    base_error err = {0};
    eval_run run;
    base_buffer markdown = {0};
    char page[PATH_SIZE];
    if (eval_run_load(o->out, &run, &err)) {
        return cli_fail(&err);
    }
    json_t *arms = json_object();
    int code = CLI_FAILED;
    if (cli_write_report(&run, 1, o->out, &markdown, page, &err) || json_arms(&run, arms, &err)) {
        code = cli_fail(&err);
        json_decref(arms);
    } else {
        fputs(markdown.data, stdout);
        fprintf(stderr, "wrote %s\n", page);
        json_t *all = json_pack("{s:s, s:I, s:I, s:o}", "suite", run.identity.suite, "n",
                                (json_int_t)questions_of(&run), "seed",
                                (json_int_t)run.identity.seed, "arms", arms);
        code = cli_print_json(all);
    }
    base_buffer_free(&markdown);
    eval_run_free(&run);
    return code;
}

static int check_usage(const cli_options *o, const eval_suite *suite)
{
    if (o->operand_count > 1) {
        return cli_usage("eval takes one suite; '%s' is one too many", o->operands[1]);
    }
    if (!suite) {
        char names[256] = "";
        for (size_t i = 0; i < EVAL_SUITE_COUNT; i++) {
            size_t used = strlen(names);
            snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", eval_suites[i].name);
        }
        return cli_usage("eval: the suite '%s' is not there (only: %s, report, import)",
                         o->operands[0], names);
    }
    bool documents = eval_takes_documents(suite, o->mode);
    if (!o->out || (documents && !o->documents) || (suite->questions && !o->questions)) {
        return cli_usage("eval %s needs%s%s --out DIR", suite->name,
                         documents ? " --documents FILE" : "",
                         suite->questions ? " --questions FILE" : "");
    }
    if (!documents && (o->documents || o->questions)) {
        return cli_usage("eval %s makes its own documents and questions", suite->name);
    }
    if (documents && !suite->questions && o->questions) {
        return cli_usage("eval %s makes its own questions", suite->name);
    }
    if (o->limit == 0) {
        return cli_usage("--limit 0: no questions are left");
    }
    return CLI_DONE;
}

int cmd_eval(const cli_options *o)
{
    base_error err = {0};
    engine *e = NULL;
    cli_memory no_memory = {0};
    char settings[SETTINGS_SIZE];
    eval_arm arms[EVAL_ARMS_MAX];
    size_t arm_count;
    if (strcmp(o->operands[0], "report") == 0) {
        return cli_eval_report(o);
    }
    if (strcmp(o->operands[0], "import") == 0) {
        return cli_eval_import(o);
    }
    int code = check_usage(o, eval_suite_find(o->operands[0]));
    if (code) {
        return code;
    }
    bool detectors = strcmp(o->operands[0], "events") == 0; /* its arms are checked there */
    if (o->arms && !detectors && eval_arms_parse(o->arms, arms, &arm_count, &err)) {
        return cli_usage("--%s", err.text);
    }
    name_settings(o, settings);
    eval_options options = {
        .suite = o->operands[0],
        .arms = o->arms,
        .documents = o->documents,
        .questions = o->questions,
        .out = o->out,
        .limit = cli_limit(o),
        .seed = o->seed,
        .max_tokens = o->max_tokens,
        .tokens = o->tokens,
        .mode = o->mode,
        .replay = o->replay,
        .without_evidence = o->without_evidence,
        .controls = o->controls == SIZE_MAX ? EVAL_CONTROLS_DEFAULT : o->controls,
        .now_us = o->now_given ? o->now_us : BASE_TIME_NONE,
        .may_abstain = true,
        .half_life_s = o->half_life_s,
        .settings = settings,
        .command = o->command,
        .progress = stderr};
    if (cli_session_options(o, &no_memory, &options.session, &err) ||
        cli_open_engine(o, CLI_ENCODER | CLI_READER | CLI_MIXERS, &e, &err) ||
        eval_run_suite(e, &options, &err)) {
        engine_close(e);
        return cli_fail(&err);
    }
    engine_close(e);
    return print_run(o);
}
