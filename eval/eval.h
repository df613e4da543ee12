/* eval/eval.h: the evaluation harness. Judge-free: answers are compared with gold texts by rule.
 *
 * A suite is a set of documents and dated questions (made from a seed, or given), or a text that is
 * forced through the loop. The runner (runner.c) asks every arm the same questions, each over its
 * own byte copy of the store with use-recording off, and keeps one row an answer (results.h), so
 * that a run that was stopped goes on where it was. Before that it runs the controls of the splice
 * (controls.c) and stops when one fails.
 *
 * A question is {"id","question","answers","stale_answers","as_of","now","evidence","meta"};
 * meta.time_axis "valid" maps as_of to --about, else to --as-of; "now" (default: as_of on the axis
 * "observed") is the clock (semantics §1). Of meta are read: kind, cluster, page, product (unit of
 * resampling), updates, updates_so_far, distance, unchanged, past.
 */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include <stdio.h>

#include "engine/engine.h"

enum { EVAL_ARMS_MAX = 16, EVAL_ARM_NAME_MAX = 64 };
#define EVAL_RIVAL_STRENGTH 0.1f

/* An arm, and how it departs from its defaults: "full", "full+trigger=once+no-bias". */
typedef struct eval_arm {
    char name[EVAL_ARM_NAME_MAX]; /* as it was asked for */
    engine_arm arm;
    engine_trigger trigger;
    engine_layout layout;
    core_splice_state splice_state;
    bool no_bias, no_time, no_bm25, no_kv_disk, no_draft, no_follow, no_names, plain, query_hidden;
    bool warm;  /* asked twice, the second answer counts: keys and values come from disk then */
    bool rival; /* oracle: what the evidence replaced lies beside it at EVAL_RIVAL_STRENGTH */
} eval_arm;

/* What may follow "+" in an arm, for a help text. */
extern const char eval_arm_ablations[];
/* "none,prompt,full+no-bias" -> arms [EVAL_ARMS_MAX]. BASE_INVALID names what is wrong: an unknown
 * arm or ablation, one that stands twice, an empty list, too many. */
base_status eval_arms_parse(const char *text, eval_arm *arms, size_t *count, base_error *err);
/* Write arm and ablations into session options. */
void eval_arm_apply(const eval_arm *arm, engine_session_options *options);

typedef struct eval_options {
    const char *suite;                 /* one of eval_suites */
    const char *arms;                  /* NULL = the suite's default */
    const char *documents, *questions; /* files that the suite needs, else NULL */
    const char *out;                   /* folder of results, store and what was generated */
    size_t limit;                      /* questions; 0 = all of a file, the suite's default */
    uint64_t seed;                     /* of what is generated or drawn */
    size_t max_tokens;                 /* of an answer, 0 = 24 */
    size_t tokens;                     /* of the text of documents, 0 = 16,000 */
    /* haystack: ingested, lived; stream: forced, free; events: retrieve, write; NULL: the first */
    const char *mode;
    bool replay;             /* documents become known as the questions' time goes on */
    double without_evidence; /* share of questions whose evidence is left out */
    size_t controls;         /* questions of the controls; 0 = no controls */
    int64_t now_us; /* for questions without a time; BASE_TIME_NONE = the newest document's */
    bool may_abstain;
    double half_life_s;             /* of sources without a measured one; NAN = no decay */
    engine_session_options session; /* defaults for every arm */
    const char *settings;           /* all of session that was asked for, as text: names the run */
    const char *command;            /* recorded */
    FILE *progress;                 /* may be NULL */
} eval_options;

enum { EVAL_CONTROLS_DEFAULT = 40 };

typedef struct eval_suite {
    const char *name, *help;
    const char *arms;          /* default */
    size_t limit;              /* default, 0 = all */
    bool documents, questions; /* files that it needs */
} eval_suite;
enum { EVAL_SUITE_COUNT = 7 };
extern const eval_suite eval_suites[EVAL_SUITE_COUNT];
const eval_suite *eval_suite_find(const char *name); /* NULL when there is none */
/* Suite events in mode write: detectors choose sentences of a text to store, not places to ask. */
bool eval_detectors_write(const char *suite, const char *mode);
/* Does the suite need `documents`? mode NULL: its default. */
bool eval_takes_documents(const eval_suite *suite, const char *mode);

/* Run a suite, or go on with the run that options->out holds. All results are in options->out then
 * (eval_run_load). Errors: BASE_INVALID (bad input, named by file and line), BASE_EXISTS (out holds
 * another run: the text says what differs), BASE_CANCELLED (a control of the splice failed: no
 * figure of this run would mean anything), and those of store, engine and results. */
base_status eval_run_suite(engine *e, const eval_options *options, base_error *err);

/* Case, articles and punctuation aside (SQuAD's rule). Tokens are whole words: "1.0.1" is not in
 * "1.0.12". */
bool eval_same(const char *answer, const char *gold);
bool eval_holds(const char *answer, const char *gold);
double eval_f1(const char *answer, const char *gold);

#endif
