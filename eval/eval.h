/* eval/eval.h: the evaluation harness. Judge-free: answers are compared with gold texts by rule.
 *
 * Suite `files`: documents.jsonl + questions.jsonl. A question is
 * {"id","question","answers","stale_answers","as_of","evidence","meta"}; meta.time_axis "valid"
 * maps as_of to --about, else to --as-of; the question's own time is the clock (semantics §1).
 * Documents are ingested once into a store below the output folder; every arm asks the same
 * questions over it, with use-recording off.
 */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include <stdio.h>

#include "engine/engine.h"

typedef struct eval_options {
    const char *documents, *questions; /* paths */
    const char *out;                   /* folder for store and results.jsonl, created */
    engine_arm arms[ENGINE_ARM_COUNT];
    size_t arm_count;
    size_t limit;                      /* questions, 0 = all */
    uint64_t seed;                     /* of the draw when limit < all */
    size_t max_tokens;
    int64_t now_us;                    /* for questions without a time */
    bool may_abstain;
    engine_session_options session;    /* defaults for every arm */
} eval_options;

typedef struct eval_score {
    size_t n;
    /* shares; as_of: contains over questions with a past as_of */
    double em, contains, f1, stale, abstained, as_of;
    /* citations of answered questions, and those whose span holds a gold answer */
    size_t as_of_n, cited, cited_right;
    /* share of questions with a gold document among the spliced */
    double lookups_per_100, answer_ms, evidence_found;
} eval_score;

/* Runs the suite; one line a question and arm to out/results.jsonl; progress to `progress` (may be
 * NULL). scores [arm_count]. */
base_status eval_files(engine *e, const eval_options *options, FILE *progress, eval_score *scores,
                       base_error *err);

/* Case, articles and punctuation aside (SQuAD's rule). Tokens are whole words: "1.0.1" is not in
 * "1.0.12". */
bool eval_same(const char *answer, const char *gold);
bool eval_holds(const char *answer, const char *gold);
double eval_f1(const char *answer, const char *gold);

#endif
