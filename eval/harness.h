/* eval/harness.h: what the suites, the runner and the controls share. */
#ifndef EVAL_HARNESS_H
#define EVAL_HARNESS_H

#include <jansson.h>

#include "base/rng.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "ingest/ingest.h"

/* --- set.c: documents and questions ----------------------------------------------------------- */

/* Texts are borrowed from the set. */
typedef struct eval_document {
    const char *id, *source, *title, *text; /* id "" when none */
    int64_t observed_at_us, valid_from_us, valid_to_us;
    bool observed_at_is_guess, left_out;
    char place[24]; /* "line 12", for messages */
} eval_document;

typedef struct eval_question {
    const char *id, *text, *kind, *cluster; /* kind, cluster "" when none */
    json_t *answers, *stale, *evidence;     /* arrays; borrowed */
    json_t *meta;                           /* borrowed, may be NULL */
    int64_t now_us, as_of_us, about_us;
    bool valid_time; /* as_of was mapped to about */
    bool past, unchanged, answerable;
    int64_t updates, distance; /* -1 = not said */
} eval_question;

typedef struct eval_set {
    base_buffer documents_text, questions_text; /* JSON lines */
    json_t *documents_json, *questions_json;
    eval_document *documents;
    size_t document_count;
    eval_question *questions;
    size_t question_count;
    int64_t latest_us; /* newest observed_at */
} eval_set;

/* Parse and check set->documents_text and questions_text; the names stand in messages. Documents
 * without observed_at get guess_us; questions without a time get now_us (BASE_TIME_NONE: the newest
 * document's). BASE_INVALID names file and line: not JSON, a field missing or of the wrong type, a
 * date that does not parse, an id that stands twice, evidence that is no document; or says that
 * there is nothing in a file. */
base_status eval_set_parse(eval_set *set, const char *documents_name, const char *questions_name,
                           int64_t guess_us, int64_t now_us, base_error *err);
/* Keep a seeded draw of `limit` questions (0 or too many: all), in file order. */
base_status eval_set_draw(eval_set *set, size_t limit, uint64_t seed, base_error *err);
/* Leave out the evidence of a seeded share of the questions, with all documents of the same title;
 * every question that it touches becomes unanswerable. */
base_status eval_set_without_evidence(eval_set *set, double share, uint64_t seed, base_error *err);
void eval_set_free(eval_set *set);
/* The day of a time as "2024-05-01"; one line of JSON appended, object taken. */
base_status eval_add_line(base_buffer *out, json_t *object_take, base_error *err);

/* --- generators: documents and questions from a seed ------------------------------------------ */

typedef base_status eval_generator(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                   base_error *err);
eval_generator eval_generate_overwrite, eval_generate_consolidate, eval_generate_world,
    eval_generate_haystack, eval_generate_stream;

/* words.c: invented names and ordinary values, the same for the same number. Writes at most size
 * bytes. */
void eval_word_town(size_t number, char *out, size_t size);
void eval_word_person(size_t number, char *out, size_t size);
/* Two-word values ("copper heron"): EVAL_WORD_VALUES different ones. */
enum { EVAL_WORD_VALUES = 32 * 32 };
void eval_word_value(size_t number, char *out, size_t size);
/* order [count]: a seeded permutation of 0..count-1. */
void eval_shuffle(base_rng *rng, size_t *order, size_t count);

/* --- memory.c: a store under evaluation ------------------------------------------------------- */

typedef struct eval_memory {
    char path[4096];
    store *store;
    retrieval *retrieval;
    json_t *episodes; /* external id -> ids of its episodes */
    uint64_t mapped;  /* up to this episode */
    size_t documents; /* of a set in time order, taken in so far */
    uint64_t tokens;  /* of their text, by the generator's tokenizer */
} eval_memory;

/* Open or create DIR. hidden: its vectors are the model's own (eval_memory_hide). */
base_status eval_memory_open(engine *e, const char *path, bool hidden, eval_memory *m,
                             base_error *err);
/* Give all episodes of a closed store engine_hidden_vector's vectors. */
base_status eval_memory_hide(engine *e, const char *path, base_error *err);
void eval_memory_close(eval_memory *m);
/* Take in the documents of set from m->documents on that were observed up to `until`. */
base_status eval_memory_add(engine *e, eval_memory *m, const eval_set *set, int64_t until_us,
                            FILE *progress, base_error *err);
/* DIR/episodes.jsonl for other programs, in order of their ids: {"id","document","title","section",
 * "text","observed_at","valid_from","valid_to"}, times in RFC 3339 or absent. */
base_status eval_memory_list(eval_memory *m, const char *dir, base_error *err);
/* Byte copy of the files of a closed store; what stands at `to` is replaced. */
base_status eval_memory_copy(const char *from, const char *to, base_error *err);
base_status eval_memory_remove(const char *path, base_error *err);
/* Episodes of the question's evidence that are known and current at its time, those that hold a
 * gold answer first; of a document of several only these where there are some. ids [max].
 * *observed_us: the newest, BASE_TIME_NONE when there is none. */
base_status eval_memory_evidence(eval_memory *m, const eval_question *q, uint64_t *ids, size_t max,
                                 size_t *count, int64_t *observed_us, base_error *err);

/* --- run.c: what every suite's run begins and ends with --------------------------------------- */

typedef struct eval_job {
    engine *e;
    const eval_options *o;
    const eval_suite *suite;
    eval_arm arms[EVAL_ARMS_MAX];
    size_t arm_count;
    eval_set *set;
    eval_results *results;
    char path[4096];    /* out */
    size_t total, done; /* rows, for progress */
    double begin_ms, told_ms;
    size_t asked; /* rows made by this process */
} eval_job;

/* One row is there: tell how far it is, every 10 seconds and at the end. */
void eval_job_tell(eval_job *job, const char *arm, bool last);
/* Judge row->answer by row->answers and stale_answers: em, contains, f1, stale (an abstention is a
 * wrong answer, semantics §9). */
void eval_judge(eval_row *row);
/* What an answer cost: lookups, events, tokens run, time to its first token. */
void eval_note_cost(const engine_answer *a, eval_row *row);
/* Trace of one answer for the report's picture. */
base_status eval_job_trace(eval_job *job, const char *arm, const char *question,
                           const engine_answer *answer, base_error *err);

/* recall.c: arms over documents and questions. */
base_status eval_run_recall(eval_job *job, base_error *err);
/* What the store holds of a question's evidence at its time. */
enum { EVAL_EVIDENCE_MAX = 16 };
typedef struct eval_evidence {
    uint64_t ids[EVAL_EVIDENCE_MAX];
    float strength[EVAL_EVIDENCE_MAX]; /* arm oracle+rival */
    size_t count;
    int64_t observed_us; /* BASE_TIME_NONE when count is 0 */
} eval_evidence;
/* Begin a row: the question, and where its evidence stands in the arm's own ranking. */
base_status eval_note_question(eval_job *job, const eval_arm *arm, eval_memory *m,
                               const eval_question *q, eval_evidence *known, eval_row *row,
                               base_error *err);
/* Judge the answer and count; all but answer_ms. The row borrows the answer's text. */
void eval_note_answer(const eval_arm *arm, const eval_question *q, const engine_answer *a,
                      const eval_evidence *known, eval_row *row);
/* OUT/store with all documents; path: where it is. */
base_status eval_memory_fill(eval_job *job, char path[4096], base_error *err);

/* stream.c: a text that is forced, with the places of its values in tokens. */
enum { EVAL_TEXT_VALUES_MAX = 8 };
typedef struct eval_text_value {
    const char *text; /* borrowed from the question */
    size_t at, end;   /* tokens [at, end) of the text */
} eval_text_value;
typedef struct eval_text_values {
    base_buffer text;
    eval_text_value values[EVAL_TEXT_VALUES_MAX];
    size_t count;
} eval_text_values;
/* Close it in any case. BASE_INVALID: a question of another suite. */
base_status eval_text_open(engine *e, const eval_question *q, eval_text_values *t, base_error *err);
void eval_text_close(eval_text_values *t);

/* lived.c, stream.c, events.c */
base_status eval_run_lived(eval_job *job, base_error *err);
base_status eval_run_stream(eval_job *job, base_error *err);
base_status eval_run_events(eval_job *job, base_error *err);

/* controls.c: semantics §5 over the first o->controls questions with evidence, in a store of their
 * own. Writes out/controls.json; BASE_CANCELLED when one fails. Done already: nothing. */
base_status eval_run_controls(eval_job *job, base_error *err);
typedef enum eval_control {
    EVAL_CONTROL_NO_MEMORY,
    EVAL_CONTROL_OWN,    /* the right keys and values */
    EVAL_CONTROL_ZEROED, /* their values zeroed */
    EVAL_CONTROL_OTHERS, /* another episode's */
    EVAL_CONTROL_COUNT
} eval_control;
/* Controls (ii) and (iii) over questions answered right or not [count]; text: what failed, "" when
 * nothing did or there are too few to decide. */
bool eval_controls_passed(const bool right[][EVAL_CONTROL_COUNT], size_t count, char text[160]);

#endif
