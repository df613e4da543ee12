/* cli/cmd_eval.c: run an evaluation suite; a table for a person, then one JSON object on the last
 * line. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "eval/eval.h"

enum { ANSWER_TOKENS = 24 };

static bool parse_arms(const char *text, eval_options *options)
{
    char name[32];
    while (*text) {
        size_t size = strcspn(text, ",");
        if (size >= sizeof name || options->arm_count == ENGINE_ARM_COUNT) {
            return false;
        }
        memcpy(name, text, size);
        name[size] = 0;
        if (!engine_arm_parse(name, &options->arms[options->arm_count++])) {
            return false;
        }
        text += size + (text[size] == ',');
    }
    return options->arm_count > 0;
}

static json_t *json_score(const eval_score *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "em", s->em, "contains",
                     s->contains, "f1", s->f1, "stale", s->stale, "as_of", s->as_of, "abstained",
                     s->abstained, "lookups_per_100", s->lookups_per_100, "citation_precision",
                     s->cited ? (double)s->cited_right / (double)s->cited : 0.0, "evidence_found",
                     s->evidence_found, "answer_ms", s->answer_ms);
}

int cmd_eval(const cli_options *o)
{
    base_error err = {0};
    engine *e = NULL;
    eval_score scores[ENGINE_ARM_COUNT];
    cli_memory no_memory = {0};
    eval_options options = {.documents = o->documents,
                            .questions = o->questions,
                            .out = o->out,
                            .limit = o->limit,
                            .seed = o->seed,
                            .max_tokens = o->max_tokens ? o->max_tokens : ANSWER_TOKENS,
                            .now_us = o->now_us,
                            .may_abstain = true};
    if (strcmp(o->operands[0], "report") == 0) {
        return cli_eval_report(o);
    }
    if (strcmp(o->operands[0], "import") == 0) {
        return cli_eval_import(o);
    }
    if (o->operand_count > 1) {
        return cli_usage("eval takes one suite; '%s' is one too many", o->operands[1]);
    }
    if (strcmp(o->operands[0], "files") != 0) {
        return cli_usage("eval: the suite '%s' is not there (only: files)", o->operands[0]);
    }
    if (!o->documents || !o->questions || !o->out) {
        return cli_usage("eval files needs --documents FILE --questions FILE --out DIR");
    }
    if (!parse_arms(o->arms ? o->arms : "none,prompt,static,full", &options)) {
        return cli_usage("--arms: a list of none, prompt, static, full, oracle");
    }
    if (cli_session_options(o, &no_memory, &options.session, &err) ||
        cli_open_engine(o, CLI_ENCODER | CLI_READER, &e, &err) ||
        eval_files(e, &options, stderr, scores, &err)) {
        engine_close(e);
        return cli_fail(&err);
    }
    json_t *arms = json_object();
    printf("| arm | n | contains | exact | F1 | stale | as-of | abstained | evidence | lookups/100 "
           "| ms |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < options.arm_count; i++) {
        const eval_score *s = &scores[i];
        printf("| %s | %zu | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.1f | %.0f |\n",
               engine_arm_name(options.arms[i]), s->n, s->contains, s->em, s->f1, s->stale,
               s->as_of, s->abstained, s->evidence_found, s->lookups_per_100, s->answer_ms);
        json_object_set_new(arms, engine_arm_name(options.arms[i]), json_score(s));
    }
    size_t n = scores[0].n;
    engine_close(e);
    return cli_print_json(json_pack("{s:s, s:I, s:I, s:o}", "suite", "files", "n", (json_int_t)n,
                                    "seed", (json_int_t)o->seed, "arms", arms));
}
