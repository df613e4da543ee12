/* eval/results_import.c: answers of another program, judged by the same rules and kept as rows, so
 * that its figures stand beside ours in one report (eval/bench_rag.py).
 *
 * FILE is JSON lines. The first is the run: {"suite","arms","seed","limit","options","command",
 * "model_hash",...}; commit and version are this program's. All other lines are rows: the fields of
 * eval_row by name, the question's id as "id" or "question". Where "contains" is missing and there
 * are "answers", the answer is judged: em, contains, f1, stale.
 */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/harness.h"
#include "eval/internal.h"

/* One field out of a line; false when it has the wrong type. A missing one or null stays empty. */
static bool take(json_t *line, const eval_field *field, eval_row *row)
{
    json_t *json = json_object_get(line, field->name);
    char *at = (char *)row + field->offset;
    if (!json || json_is_null(json)) {
        return true;
    }
    switch (field->kind) {
    case EVAL_FIELD_TEXT: {
        const char *text = json_string_value(json);
        memcpy(at, &text, sizeof text);
        return text != NULL;
    }
    case EVAL_FIELD_FLAG: {
        int8_t flag = json_is_true(json);
        memcpy(at, &flag, sizeof flag);
        return json_is_boolean(json);
    }
    case EVAL_FIELD_COUNT: {
        int64_t count = json_integer_value(json);
        memcpy(at, &count, sizeof count);
        return json_is_integer(json);
    }
    case EVAL_FIELD_REAL:
    case EVAL_FIELD_SHARE: {
        double real = json_number_value(json);
        memcpy(at, &real, sizeof real);
        return json_is_number(json);
    }
    case EVAL_FIELD_JSON:
        memcpy(at, &json, sizeof json);
        return json_is_array(json) || json_is_object(json);
    }
    return false;
}

static base_status import_row(json_t *line, const char *place, eval_results *results,
                              base_error *err)
{
    eval_row row = EVAL_ROW_EMPTY;
    for (size_t i = 0; i < EVAL_FIELD_ROWS; i++) {
        if (!take(line, &eval_fields[i], &row)) {
            return base_fail(err, BASE_INVALID, "%s: \"%s\" is of the wrong type", place,
                             eval_fields[i].name);
        }
    }
    if (!row.question) {
        row.question = json_string_value(json_object_get(line, "id"));
    }
    if (row.contains < 0 && json_array_size(row.answers) > 0) {
        eval_judge(&row);
    }
    base_status status = eval_results_add(results, &row, err);
    return status ? base_error_prefix(err, "%s", place) : BASE_OK;
}

static base_status open_run(json_t *head, const char *place, const char *dir, eval_results **out,
                            base_error *err)
{
    eval_identity identity = {0};
    for (size_t i = 0; i < EVAL_IDENTITY_TEXTS; i++) {
        const char *text = json_string_value(json_object_get(head, eval_identity_fields[i].name));
        memcpy((char *)&identity + eval_identity_fields[i].offset, &text, sizeof text);
    }
    json_int_t seed = json_integer_value(json_object_get(head, "seed"));
    json_int_t limit = json_integer_value(json_object_get(head, "limit"));
    if (!identity.suite || !identity.arms || seed < 0 || limit < 0) {
        return base_fail(err, BASE_INVALID,
                         "%s: the first line needs \"suite\" and \"arms\", seed and limit of 0 or "
                         "more",
                         place);
    }
    identity.seed = (uint64_t)seed;
    identity.limit = (size_t)limit;
    identity.commit = eval_commit();
    identity.version = EIDETIC_VERSION;
    return eval_results_open(dir, &identity, out, err);
}

base_status eval_results_import(const char *path, const char *dir, base_error *err)
{
    base_buffer text = {0};
    eval_results *results = NULL;
    char place[4200];
    size_t number = 0;
    base_status status = base_file_read(path, (size_t)1 << 30, &text, err);
    for (size_t at = 0; at < text.size && !status;) {
        const char *end = memchr(text.data + at, '\n', text.size - at);
        size_t size = end ? (size_t)(end - text.data) - at : text.size - at;
        json_error_t problem;
        snprintf(place, sizeof place, "%s:%zu", path, ++number);
        json_t *line = size ? json_loadb(text.data + at, size, 0, &problem) : NULL;
        if (size && !line) {
            status = base_fail(err, BASE_INVALID, "%s: %s", place, problem.text);
        } else if (line && !results) {
            status = open_run(line, place, dir, &results, err);
        } else if (line) {
            status = import_row(line, place, results, err);
        }
        json_decref(line);
        at += size + 1;
    }
    if (!status && !results) {
        status = base_fail(err, BASE_INVALID, "%s: no run in it", path);
    }
    eval_results_close(results);
    base_buffer_free(&text);
    return status;
}
