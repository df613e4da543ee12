/* eval/internal.h: what the files behind eval/results.h share: the fields of a row as a table, and
 * the identity as text. */
#ifndef EVAL_INTERNAL_H
#define EVAL_INTERNAL_H

#include "eval/results.h"

typedef enum eval_field_kind {
    EVAL_FIELD_TEXT,  /* const char *; NULL = absent */
    EVAL_FIELD_FLAG,  /* int8_t; -1 = absent */
    EVAL_FIELD_COUNT, /* int64_t; -1 = absent */
    EVAL_FIELD_REAL,  /* double; NAN = absent */
    EVAL_FIELD_SHARE, /* double in 0..1; NAN = absent */
    EVAL_FIELD_JSON   /* json_t *; NULL = absent */
} eval_field_kind;

typedef struct eval_field {
    const char *name; /* column and JSON key */
    eval_field_kind kind;
    size_t offset; /* in eval_row */
} eval_field;

/* arm and question first, then the other fields of eval_row. */
enum { EVAL_FIELD_ROWS = 33 };
extern const eval_field eval_fields[EVAL_FIELD_ROWS];

/* The fields of an identity, `seed` and `limit` apart, in the order that eval_identity_id
 * hashes. */
typedef struct eval_identity_field {
    const char *name;
    size_t offset; /* of a const char * in eval_identity */
    bool compared; /* decides whether it is the same run */
} eval_identity_field;
enum { EVAL_IDENTITY_TEXTS = 11 };
extern const eval_identity_field eval_identity_fields[EVAL_IDENTITY_TEXTS];

/* The text behind an identity field, "" for NULL. */
const char *eval_identity_text(const eval_identity *identity, size_t field);
/* First 16 hexadecimal digits of the SHA-256 of: the compared texts in the order of
 * eval_identity_fields, then seed and limit in decimal, a newline behind each. */
base_status eval_identity_id(const eval_identity *identity, char id[17], base_error *err);
/* BASE_EXISTS with a text that names the first difference between the run of `dir` and the wanted
 * one; BASE_OK when they are the same run. */
base_status eval_identity_same(const char *dir, const eval_identity *there,
                               const eval_identity *wanted, base_error *err);
/* Is `arm` one of the list "a,b,c"? */
bool eval_list_holds(const char *list, const char *arm);

/* BASE_INVALID when a row may not be kept (see eval_results_add). */
base_status eval_row_check(const eval_row *row, const char *arms, base_error *err);
/* One line of results.jsonl: the measured fields, and suite, run, git_commit, model_hash, seed,
 * command. Without newline; malloc'd by jansson: release with free(). NULL = no memory. */
char *eval_row_json(const eval_row *row, const eval_identity *identity, const char *id);

#endif
