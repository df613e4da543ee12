/* eval/results.h: what a run of the harness leaves behind, and reading it again.
 *
 * DIR/results.sqlite is the truth; DIR/results.jsonl holds the same rows, one JSON object a line,
 * for other programs. A run is named by its identity; DIR holds one run, and opening it again with
 * the same identity goes on where it stopped. Schema (version 1; eval/README.md has examples):
 *
 *   run(run PRIMARY KEY, suite, arms, seed, question_limit, options, command, git_commit, version,
 *       model_hash, adapter_hash, encoder_hash, documents_hash, questions_hash)
 *   results(run, arm, question, ...) one row an arm and question, PRIMARY KEY (run, arm, question);
 *       the other columns are the fields of eval_row by name; what was not measured is NULL;
 *       answers, stale_answers and extra are JSON text
 *   traces(run, arm, question, token, text, entropy_nats, surprise_nats, event, attention_mass)
 *   rows  a view: results with suite, git_commit, model_hash, seed and command in every row
 *
 * `run` is the first 16 hexadecimal digits of a hash of the identity, so that several
 * results.sqlite can be poured into one.
 *
 * Thread rule: one thread at a time an eval_results. Paths are UTF-8.
 */
#ifndef EVAL_RESULTS_H
#define EVAL_RESULTS_H

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* --- writing ---------------------------------------------------------------------------------- */

/* What a run is. Texts are copied on open; NULL counts as "". Everything but `command` decides
 * whether DIR holds the same run. Hashes are SHA-256 in hexadecimal (eval_hash_file), "" = none; of
 * several adapters: with blanks between. */
typedef struct eval_identity {
    const char *suite; /* "files", "overwrite", ... */
    const char *arms;  /* as asked for: "none,prompt,full" */
    uint64_t seed;
    size_t limit;        /* questions, 0 = all */
    const char *options; /* everything else that changes answers: ablations, W, k, ... as text */
    const char *command; /* the command line in full; recorded, not compared */
    const char *commit;  /* eval_commit() */
    const char *version; /* of the program */
    const char *model_hash, *adapter_hash, *encoder_hash, *documents_hash, *questions_hash;
} eval_identity;

/* One answer of one arm. Start from EVAL_ROW_EMPTY: what stays so is "not measured" and enters no
 * figure. Texts and JSON values are borrowed during the call. */
typedef struct eval_row {
    const char *arm, *question; /* both required; `question` is its id */
    const char *kind;           /* form of question ("single_now"), "" = none */
    const char *cluster;        /* document or case that questions share: the unit of resampling;
                                   "" = the question stands alone */
    const char *text;           /* of the question, may be NULL */
    const char *answer;         /* what the arm said */
    json_t *answers;            /* gold: array of texts, may be NULL */
    json_t *stale_answers;      /* array of texts, may be NULL */
    /* 1 yes, 0 no, -1 not applicable */
    int8_t em, contains;
    int8_t stale;        /* says an old value and no gold one; -1: has no old values to say */
    int8_t as_of;        /* 1, 0: asked about the past, answered right or not; -1: about now */
    int8_t abstained;    /* said that memory does not hold it */
    int8_t answerable;   /* the store holds the evidence */
    int8_t evidence;     /* evidence was among what was retrieved */
    int8_t false_forget; /* a value that nothing replaced was out of reach */
    double f1;           /* 0..1 */
    int64_t rank;        /* of the first evidence in the ranking: 1 best, 0 not there, -1 n/a */
    double age_s;        /* as-of minus observed_at of the evidence */
    int64_t distance;    /* tokens between evidence and question */
    int64_t updates;     /* of the asked key so far, first value included */
    int64_t lookups, events;
    /* run from the question to the first answer token, splices included; answer tokens; run again
     * in mid-answer */
    int64_t prefill_tokens, decode_tokens, rerun_tokens;
    double first_token_ms, answer_ms; /* from the question; to the first and to the last token */
    int64_t citations, citations_right;
    double value_nll, value_top1; /* teacher-forced: nats a token; share of values, 0..1 */
    /* object of the suite's own, may be NULL; metrics read "needed", "hits" (places of a text
     * where memory is needed, and those of them where an event fired), "store_bytes",
     * "store_tokens" */
    json_t *extra;
} eval_row;

#define EVAL_ROW_EMPTY                 \
    ((eval_row){.em = -1,              \
                .contains = -1,        \
                .stale = -1,           \
                .as_of = -1,           \
                .abstained = -1,       \
                .answerable = -1,      \
                .evidence = -1,        \
                .false_forget = -1,    \
                .f1 = NAN,             \
                .rank = -1,            \
                .age_s = NAN,          \
                .distance = -1,        \
                .updates = -1,         \
                .lookups = -1,         \
                .events = -1,          \
                .prefill_tokens = -1,  \
                .decode_tokens = -1,   \
                .rerun_tokens = -1,    \
                .first_token_ms = NAN, \
                .answer_ms = NAN,      \
                .citations = -1,       \
                .citations_right = -1, \
                .value_nll = NAN,      \
                .value_top1 = NAN})

/* One token of a traced answer, in order. NAN = not measured. */
typedef struct eval_trace_token {
    const char *text; /* the token's bytes; invalid UTF-8 becomes U+FFFD */
    double entropy_nats, surprise_nats;
    bool event;            /* memory was consulted before it */
    double attention_mass; /* share of its attention that went to memories, 0..1 */
} eval_trace_token;

typedef struct eval_results eval_results;

/* Open DIR (created with its parents) for the run `identity`. An empty DIR begins it; one that
 * holds the same run goes on: its rows count, and results.jsonl is written anew from them. Errors:
 * BASE_EXISTS when DIR holds another run (the text says what differs and both values),
 * BASE_CORRUPT, BASE_VERSION when results.sqlite is no such file, BASE_INVALID without suite or
 * arms, I/O codes. *out is closed by eval_results_close. */
base_status eval_results_open(const char *dir, const eval_identity *identity, eval_results **out,
                              base_error *err);
void eval_results_close(eval_results *results); /* NULL is fine */

/* Is the row (arm, question) there? Cost: one look-up by key. */
bool eval_results_has(eval_results *results, const char *arm, const char *question);
/* Rows of one arm, of all arms for NULL. */
size_t eval_results_count(eval_results *results, const char *arm);

/* Add one row: committed to results.sqlite (survives the death of the process, not of the machine),
 * then appended to results.jsonl. Errors: BASE_EXISTS when (arm, question) is there, BASE_INVALID
 * when arm or question is missing, an arm not among the identity's, or a figure infinite or out of
 * its range (the text names it); nothing is written then. */
base_status eval_results_add(eval_results *results, const eval_row *row, base_error *err);

/* Keep the tokens of a few answers for the report's picture: tokens [count]; replaces what was kept
 * for (arm, question). */
base_status eval_results_trace(eval_results *results, const char *arm, const char *question,
                               const eval_trace_token *tokens, size_t count, base_error *err);

/* Keep the answers of another program as rows of a new run in `dir`, judged here (file format in
 * results_import.c). Errors: BASE_INVALID names file and line of a malformed one; those of
 * eval_results_open and _add. What came before the error stays. */
base_status eval_results_import(const char *path, const char *dir, base_error *err);

/* The commit that this program was built from, "-dirty" behind it where the checkout had changes;
 * "unknown" without git. */
const char *eval_commit(void);

/* SHA-256 of a file as 64 hexadecimal digits; path NULL or "" gives "". Errors name the path. */
base_status eval_hash_file(const char *path, char hex[65], base_error *err);

/* --- reading ---------------------------------------------------------------------------------- */

typedef struct eval_trace {
    const char *arm, *question;
    eval_trace_token *tokens;
    size_t count;
} eval_trace;

/* A run in memory. All texts belong to it. Rows: grouped by arm in the identity's order, then in
 * the order they were added; answers, stale_answers and extra may be NULL. */
typedef struct eval_run {
    char id[17];
    eval_identity identity;
    const char **arms; /* [arm_count] those of the identity that have rows */
    size_t arm_count;
    eval_row *rows;
    size_t row_count;
    eval_trace *traces;
    size_t trace_count;
    void *texts; /* owner of the texts */
} eval_run;

/* Read DIR/results.sqlite; a run that is being written can be read. Errors: BASE_NOT_FOUND without
 * such a file (with text), BASE_CORRUPT, BASE_VERSION; all name the file. */
base_status eval_run_load(const char *dir, eval_run *run, base_error *err);
void eval_run_free(eval_run *run);

/* --- figures ---------------------------------------------------------------------------------- */

/* Every metric is a ratio of sums over rows (a mean is a sum over a count): key in JSON and
 * columns, what a person reads, unit ("share": 0..1), and whether more is better (+1), worse (-1)
 * or neither (0). */
#define EVAL_METRIC_MAP(X)                                                                    \
    X(CONTAINS, "contains", "right answers", "share", 1)                                      \
    X(EM, "em", "exact match", "share", 1)                                                    \
    X(F1, "f1", "token F1", "share", 1)                                                       \
    X(STALE, "stale", "stale answers", "share", -1)                                           \
    X(AS_OF, "as_of", "right about the past", "share", 1)                                     \
    X(ABSTAINED, "abstained", "abstained", "share", 0)                                        \
    X(ABSTAIN_PRECISION, "abstain_precision", "abstentions that were right", "share", 1)      \
    X(ABSTAIN_RECALL, "abstain_recall", "unanswerable, and said so", "share", 1)              \
    X(FALSE_FORGET, "false_forget", "valid values out of reach", "share", -1)                 \
    X(CITATION_PRECISION, "citation_precision", "citations that hold the answer", "share", 1) \
    X(EVIDENCE, "evidence_found", "evidence among the retrieved", "share", 1)                 \
    X(RECALL_1, "recall_at_1", "evidence ranked first", "share", 1)                           \
    X(RECALL_4, "recall_at_4", "evidence among the first 4", "share", 1)                      \
    X(MRR, "mrr", "mean reciprocal rank", "share", 1)                                         \
    X(VALUE_TOP1, "value_top1", "values predicted (teacher-forced)", "share", 1)              \
    X(VALUE_NLL, "value_nll", "negative log likelihood of values", "nats", -1)                \
    X(FIRED, "fired", "events where memory is needed, of all such places", "share", 1)        \
    X(FIRED_PRECISION, "fired_precision", "events that are where memory is needed", "share", 1) \
    X(LOOKUPS, "lookups_per_100", "lookups per 100 answer tokens", "lookups", -1)             \
    X(EVENTS, "events_per_100", "events per 100 tokens", "events", 0)                         \
    X(TOKENS_FIRST, "tokens_to_first", "tokens run to first answer token", "tokens", -1)      \
    X(TOKENS_RUN, "tokens_run", "tokens run per answer", "tokens", -1)                        \
    X(FIRST_TOKEN_MS, "first_token_ms", "time to first answer token", "ms", -1)               \
    X(ANSWER_MS, "answer_ms", "time per answer", "ms", -1)                                    \
    X(STORE_BYTES, "bytes_per_token", "bytes on disk per remembered token", "bytes", -1)

typedef enum eval_metric {
#define EVAL_METRIC_ENUM(code, key, label, unit, better) EVAL_METRIC_##code,
    EVAL_METRIC_MAP(EVAL_METRIC_ENUM)
#undef EVAL_METRIC_ENUM
        EVAL_METRIC_COUNT
} eval_metric;

const char *eval_metric_key(eval_metric metric);
const char *eval_metric_label(eval_metric metric);
const char *eval_metric_unit(eval_metric metric);
int eval_metric_better(eval_metric metric);
/* Numerator and denominator that a row adds; false when it adds nothing (not measured). */
bool eval_metric_of(eval_metric metric, const eval_row *row, double *numerator,
                    double *denominator);

/* A figure with its 95 % bootstrap interval (percentiles over resampled groups). */
typedef struct eval_estimate {
    double value, low, high; /* NAN without data; low, high NAN with fewer than 2 groups */
    size_t n, groups;        /* rows and groups that it stands on */
} eval_estimate;

/* The figure of one arm. Deterministic: the draw is seeded by the run's seed. */
base_status eval_run_figure(const eval_run *run, const char *arm, eval_metric metric,
                            eval_estimate *out, base_error *err);

/* arm_a minus arm_b over the questions that both answered, with groups resampled together. */
typedef struct eval_pair {
    eval_estimate a, b;           /* over the common questions, without intervals */
    double difference, low, high; /* 95 % bootstrap interval of a - b */
    double p_bootstrap;           /* two-sided, from the same draw */
    bool has_mcnemar;             /* metric is yes or no for every row */
    size_t only_a, only_b;        /* discordant questions: right in one arm only */
    double p_mcnemar;             /* exact, two-sided (binomial); rows taken as independent */
} eval_pair;
base_status eval_run_pair(const eval_run *run, const char *arm_a, const char *arm_b,
                          eval_metric metric, eval_pair *out, base_error *err);

/* A metric along an axis. Buckets have fixed edges: ages 1 day, 1 week, 30, 90 and 365 days, 3 and
 * 10 years; distances powers of 4 from 1,024 tokens; updates powers of 2. */
typedef enum eval_axis { EVAL_AXIS_AGE, EVAL_AXIS_DISTANCE, EVAL_AXIS_UPDATES } eval_axis;
typedef struct eval_bucket {
    char label[32]; /* "1-4 K", "30-90 d", "5-8" */
    double x;       /* geometric mean of the axis over its rows: age in days, tokens, updates */
    eval_estimate y;
} eval_bucket;
enum { EVAL_BUCKET_MAX = 16 };
/* Buckets that have rows, in order of the axis: out [EVAL_BUCKET_MAX]. */
base_status eval_run_along(const eval_run *run, const char *arm, eval_metric metric, eval_axis axis,
                           eval_bucket *out, size_t *count, base_error *err);

/* {"em": x, ...}: every metric of an arm that has data; with_intervals: {"em": {"value", "low",
 * "high", "n"}, ...}. New reference in *out. */
base_status eval_run_json(const eval_run *run, const char *arm, bool with_intervals, json_t **out,
                          base_error *err);

#endif
