/* eval/set.c: documents and dated questions, parsed and checked: whatever is wrong is named by file
 * and line before anything is run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/harness.h"

/* --- JSON lines ------------------------------------------------------------------------------- */

typedef struct place {
    const char *name;
    size_t line;
} place;

static bool is_blank(const char *text, size_t size)
{
    return strspn(text, " \t\r\n") >= size;
}

/* Objects of a file as an array; number of the line of each in "lines" [size of the array]. */
static base_status read_lines(const base_buffer *text, const char *name, json_t **out,
                              size_t **lines, base_error *err)
{
    json_t *list = json_array();
    size_t line = 0, capacity = 0;
    base_status status = BASE_OK;
    *lines = NULL;
    for (size_t at = 0; at < text->size && !status;) {
        const char *begin = text->data + at, *end = memchr(begin, '\n', text->size - at);
        size_t size = end ? (size_t)(end - begin) : text->size - at;
        json_error_t problem;
        line++;
        at += size + 1;
        if (is_blank(begin, size)) {
            continue;
        }
        json_t *object = json_loadb(begin, size, 0, &problem);
        if (!object || !json_is_object(object)) {
            status = object ? base_fail(err, BASE_INVALID, "%s:%zu: not a JSON object", name, line)
                            : base_fail(err, BASE_INVALID, "%s:%zu, column %d: %s", name, line,
                                        problem.column, problem.text);
            json_decref(object);
            break;
        }
        size_t count = json_array_size(list);
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            size_t *grown = base_realloc(*lines, capacity * sizeof *grown);
            if (!grown) {
                status = base_fail(err, BASE_NO_MEMORY, "%s: no memory for its lines", name);
                json_decref(object);
                break;
            }
            *lines = grown;
        }
        (*lines)[count] = line;
        json_array_append_new(list, object);
    }
    if (!status && json_array_size(list) == 0) {
        status = base_fail(err, BASE_INVALID, "%s: there is nothing in it", name);
    }
    if (status) {
        json_decref(list);
        base_free(*lines);
        *lines = NULL;
        return status;
    }
    *out = list;
    return BASE_OK;
}

static base_status get_text(json_t *line, const char *field, bool required, const place *p,
                            const char **out, base_error *err)
{
    json_t *value = json_object_get(line, field);
    *out = "";
    if (!value || json_is_null(value)) {
        return required ? base_fail(err, BASE_INVALID, "%s:%zu: \"%s\" is missing", p->name,
                                    p->line, field)
                        : BASE_OK;
    }
    if (!json_is_string(value)) {
        return base_fail(err, BASE_INVALID, "%s:%zu: \"%s\" is not a text", p->name, p->line,
                         field);
    }
    *out = json_string_value(value);
    if (required && !**out) {
        return base_fail(err, BASE_INVALID, "%s:%zu: \"%s\" is empty", p->name, p->line, field);
    }
    return BASE_OK;
}

static base_status get_time(json_t *line, const char *field, const place *p, int64_t *out,
                            base_error *err)
{
    const char *text;
    base_status status = get_text(line, field, false, p, &text, err);
    *out = BASE_TIME_NONE;
    if (!status && *text && (status = base_time_parse(text, strlen(text), out, err))) {
        base_error_prefix(err, "%s:%zu: \"%s\"", p->name, p->line, field);
    }
    return status;
}

/* An array of texts. */
static base_status get_list(json_t *line, const char *field, bool required, const place *p,
                            json_t **out, base_error *err)
{
    json_t *list = json_object_get(line, field), *item;
    size_t i;
    *out = json_is_null(list) ? NULL : list;
    if (!*out) {
        return required ? base_fail(err, BASE_INVALID, "%s:%zu: \"%s\" is missing", p->name,
                                    p->line, field)
                        : BASE_OK;
    }
    bool good = json_is_array(list);
    json_array_foreach(list, i, item)
    {
        good = good && json_is_string(item) && *json_string_value(item);
    }
    return good ? BASE_OK
                : base_fail(err, BASE_INVALID, "%s:%zu: \"%s\" is not a list of texts", p->name,
                            p->line, field);
}

/* --- documents -------------------------------------------------------------------------------- */

static int by_observed(const void *pa, const void *pb)
{
    const eval_document *a = pa, *b = pb;
    if (a->observed_at_us != b->observed_at_us) {
        return a->observed_at_us < b->observed_at_us ? -1 : 1;
    }
    return strtoull(a->place, NULL, 10) < strtoull(b->place, NULL, 10) ? -1 : 1;
}

/* Two lines with one id and one time: which of them is the newer version? */
static base_status note_version(json_t *seen, const eval_document *d, const place *p,
                                base_error *err)
{
    base_buffer key = {0};
    base_status status =
        base_buffer_printf(&key, "%s\n%s\n%lld", d->source, d->id, (long long)d->observed_at_us);
    if (!status && *d->id && json_object_get(seen, key.data)) {
        status = base_fail(err, BASE_INVALID,
                           "%s:%zu: the id \"%s\" stands twice with the same observed_at", p->name,
                           p->line, d->id);
    } else if (!status) {
        json_object_set_new(seen, key.data, json_true());
    }
    base_buffer_free(&key);
    return status;
}

static base_status parse_documents(eval_set *set, const char *name, int64_t guess_us,
                                   base_error *err)
{
    size_t *lines = NULL;
    json_t *seen = json_object();
    base_status status = read_lines(&set->documents_text, name, &set->documents_json, &lines, err);
    size_t count = json_array_size(set->documents_json);
    if (!status && !(set->documents = base_calloc(count, sizeof *set->documents))) {
        status = base_fail(err, BASE_NO_MEMORY, "%s: no memory", name);
    }
    set->latest_us = INT64_MIN;
    for (size_t i = 0; i < count && !status; i++) {
        json_t *line = json_array_get(set->documents_json, i);
        eval_document *d = &set->documents[i];
        place p = {name, lines[i]};
        snprintf(d->place, sizeof d->place, "%zu", p.line);
        if ((status = get_text(line, "id", false, &p, &d->id, err)) ||
            (status = get_text(line, "source", false, &p, &d->source, err)) ||
            (status = get_text(line, "title", false, &p, &d->title, err)) ||
            (status = get_text(line, "text", true, &p, &d->text, err)) ||
            (status = get_time(line, "observed_at", &p, &d->observed_at_us, err)) ||
            (status = get_time(line, "valid_from", &p, &d->valid_from_us, err)) ||
            (status = get_time(line, "valid_to", &p, &d->valid_to_us, err))) {
            break;
        }
        if (d->observed_at_us == BASE_TIME_NONE) {
            d->observed_at_us = guess_us;
            d->observed_at_is_guess = true;
        }
        d->source = *d->source ? d->source : "documents";
        set->latest_us = d->observed_at_us > set->latest_us ? d->observed_at_us : set->latest_us;
        status = note_version(seen, d, &p, err);
    }
    json_decref(seen);
    base_free(lines);
    if (!status) {
        set->document_count = count;
        qsort(set->documents, count, sizeof *set->documents, by_observed);
    }
    return status;
}

/* --- questions -------------------------------------------------------------------------------- */

static int64_t meta_count(json_t *meta, const char *name)
{
    json_t *value = json_object_get(meta, name);
    return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value)
                                                                    : -1;
}

static const char *meta_text(json_t *meta, const char *name)
{
    const char *text = json_string_value(json_object_get(meta, name));
    return text ? text : "";
}

static void take_meta(eval_question *q, json_t *meta)
{
    const char *const units[] = {"cluster", "page", "product"};
    q->meta = meta;
    q->kind = meta_text(meta, "kind");
    q->cluster = "";
    for (size_t i = 0; i < sizeof units / sizeof *units && !*q->cluster; i++) {
        q->cluster = meta_text(meta, units[i]);
    }
    if (!*q->cluster && json_array_size(q->evidence) > 0) {
        q->cluster = json_string_value(json_array_get(q->evidence, 0));
    }
    q->valid_time = strcmp(meta_text(meta, "time_axis"), "valid") == 0;
    q->unchanged =
        json_is_true(json_object_get(meta, "unchanged")) || strstr(q->kind, "unchanged") != NULL;
    q->past = json_is_true(json_object_get(meta, "past")) || strstr(q->kind, "past") != NULL;
    q->answerable = json_array_size(q->answers) > 0 && strcmp(q->kind, "unanswerable") != 0;
    q->updates = meta_count(meta, "updates");
    q->updates = q->updates < 0 ? meta_count(meta, "updates_so_far") : q->updates;
    q->distance = meta_count(meta, "distance");
}

/* Times of one question (semantics §1). */
static base_status take_times(eval_question *q, json_t *line, const place *p, int64_t now_us,
                              base_error *err)
{
    int64_t as_of, asked;
    base_status status = get_time(line, "as_of", p, &as_of, err);
    if (status || (status = get_time(line, "now", p, &asked, err))) {
        return status;
    }
    bool observed = as_of != BASE_TIME_NONE && !q->valid_time;
    q->now_us = asked != BASE_TIME_NONE ? asked : observed ? as_of : now_us;
    q->as_of_us = observed ? as_of : q->now_us;
    q->about_us = q->valid_time ? as_of : BASE_TIME_NONE;
    q->past = q->past || q->about_us != BASE_TIME_NONE;
    if (q->as_of_us > q->now_us) {
        return base_fail(err, BASE_INVALID, "%s:%zu: \"as_of\" lies behind \"now\"", p->name,
                         p->line);
    }
    return BASE_OK;
}

static base_status check_evidence(const eval_question *q, json_t *known, const place *p,
                                  base_error *err)
{
    size_t i;
    json_t *id;
    json_array_foreach(q->evidence, i, id)
    {
        if (!json_object_get(known, json_string_value(id))) {
            return base_fail(err, BASE_INVALID, "%s:%zu: the evidence \"%s\" is no document",
                             p->name, p->line, json_string_value(id));
        }
    }
    return BASE_OK;
}

static base_status parse_questions(eval_set *set, const char *name, int64_t now_us, base_error *err)
{
    size_t *lines = NULL;
    json_t *seen = json_object(), *known = json_object();
    base_status status = read_lines(&set->questions_text, name, &set->questions_json, &lines, err);
    size_t count = json_array_size(set->questions_json);
    for (size_t i = 0; i < set->document_count; i++) {
        json_object_set_new(known, set->documents[i].id, json_true());
    }
    if (!status && !(set->questions = base_calloc(count, sizeof *set->questions))) {
        status = base_fail(err, BASE_NO_MEMORY, "%s: no memory", name);
    }
    for (size_t i = 0; i < count && !status; i++) {
        json_t *line = json_array_get(set->questions_json, i);
        eval_question *q = &set->questions[i];
        place p = {name, lines[i]};
        if ((status = get_text(line, "id", true, &p, &q->id, err)) ||
            (status = get_text(line, "question", true, &p, &q->text, err)) ||
            (status = get_list(line, "answers", true, &p, &q->answers, err)) ||
            (status = get_list(line, "stale_answers", false, &p, &q->stale, err)) ||
            (status = get_list(line, "evidence", false, &p, &q->evidence, err)) ||
            (status = check_evidence(q, known, &p, err))) {
            break;
        }
        if (json_object_get(seen, q->id)) {
            status = base_fail(err, BASE_INVALID, "%s:%zu: the id \"%s\" stands twice", name,
                               p.line, q->id);
            break;
        }
        json_object_set_new(seen, q->id, json_true());
        take_meta(q, json_object_get(line, "meta"));
        status = take_times(q, line, &p, now_us, err);
    }
    set->question_count = status ? 0 : count;
    json_decref(seen);
    json_decref(known);
    base_free(lines);
    return status;
}

base_status eval_set_parse(eval_set *set, const char *documents_name, const char *questions_name,
                           int64_t guess_us, int64_t now_us, base_error *err)
{
    base_status status = parse_documents(set, documents_name, guess_us, err);
    if (!status) {
        status = parse_questions(set, questions_name,
                                 now_us == BASE_TIME_NONE ? set->latest_us : now_us, err);
    }
    return status;
}

void eval_set_free(eval_set *set)
{
    base_free(set->documents);
    base_free(set->questions);
    json_decref(set->documents_json);
    json_decref(set->questions_json);
    base_buffer_free(&set->documents_text);
    base_buffer_free(&set->questions_text);
    *set = (eval_set){0};
}

/* --- draws ------------------------------------------------------------------------------------ */

/* chosen [count]: a seeded draw of `wanted` of them. */
static base_status draw(size_t count, size_t wanted, uint64_t seed, bool **chosen, base_error *err)
{
    size_t *order = base_calloc(count, sizeof *order);
    base_rng rng;
    *chosen = base_calloc(count, sizeof **chosen);
    if (!order || !*chosen) {
        base_free(order);
        base_free(*chosen);
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu questions", count);
    }
    base_rng_seed(&rng, seed);
    eval_shuffle(&rng, order, count);
    for (size_t i = 0; i < wanted; i++) {
        (*chosen)[order[i]] = true;
    }
    base_free(order);
    return BASE_OK;
}

base_status eval_set_draw(eval_set *set, size_t limit, uint64_t seed, base_error *err)
{
    bool *chosen;
    size_t kept = 0;
    if (limit == 0 || limit >= set->question_count) {
        return BASE_OK;
    }
    base_status status = draw(set->question_count, limit, seed, &chosen, err);
    if (status) {
        return status;
    }
    for (size_t i = 0; i < set->question_count; i++) {
        if (chosen[i]) {
            set->questions[kept++] = set->questions[i];
        }
    }
    set->question_count = kept;
    base_free(chosen);
    return BASE_OK;
}

base_status eval_set_without_evidence(eval_set *set, double share, uint64_t seed, base_error *err)
{
    size_t wanted = (size_t)(share * (double)set->question_count + 0.5), k;
    bool *chosen;
    json_t *ids = json_object(), *titles = json_object(), *gone = json_object(), *id;
    base_status status = draw(set->question_count, wanted, seed + 1, &chosen, err);
    for (size_t i = 0; i < set->question_count && !status; i++) {
        json_array_foreach(set->questions[i].evidence, k, id)
        {
            if (chosen[i]) {
                json_object_set_new(ids, json_string_value(id), json_true());
            }
        }
    }
    for (size_t i = 0; i < set->document_count && !status; i++) {
        const eval_document *d = &set->documents[i];
        if (*d->title && json_object_get(ids, d->id)) {
            json_object_set_new(titles, d->title, json_true());
        }
    }
    for (size_t i = 0; i < set->document_count && !status; i++) {
        eval_document *d = &set->documents[i];
        d->left_out = json_object_get(ids, d->id) || json_object_get(titles, d->title);
        if (d->left_out) {
            json_object_set_new(gone, d->id, json_true());
        }
    }
    for (size_t i = 0; i < set->question_count && !status; i++) {
        json_array_foreach(set->questions[i].evidence, k, id)
        {
            if (json_object_get(gone, json_string_value(id))) {
                set->questions[i].answerable = false;
            }
        }
    }
    json_decref(ids);
    json_decref(titles);
    json_decref(gone);
    if (!status) {
        base_free(chosen);
    }
    return status;
}

base_status eval_add_line(base_buffer *out, json_t *object_take, base_error *err)
{
    char *text = object_take ? json_dumps(object_take, JSON_COMPACT) : NULL;
    base_status status = text ? base_buffer_printf(out, "%s\n", text) : BASE_NO_MEMORY;
    free(text); /* jansson's own allocation */
    json_decref(object_take);
    return status ? base_fail(err, status, "no memory for a question") : BASE_OK;
}
