/* ingest/read_jsonl.c: one document a line. A line that cannot be taken is reported with file and
 * line number; the rest goes on. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ingest/ingest.h"

enum { READ_STEP = 1 << 16 };

/* A text field: false when it is there but is no text. A whole number is taken as its digits (ids
 * often are numbers); number [24] holds them. */
static bool get_text(json_t *line, const char *name, char *number, const char **out)
{
    json_t *value = json_object_get(line, name);
    *out = NULL;
    if (json_is_integer(value) && number) {
        snprintf(number, 24, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        *out = number;
    } else if (value && !json_is_null(value)) {
        *out = json_string_value(value);
        return *out != NULL;
    }
    return true;
}

/* A time field, else the fallback; false after a report. */
static bool get_time(ingest *in, json_t *line, const char *name, const char *place,
                     int64_t fallback, int64_t *out)
{
    const char *text;
    base_error err = {0};
    *out = fallback;
    if (!get_text(line, name, NULL, &text)) {
        ingest_problem(in, "%s: \"%s\" is not a text", place, name);
        return false;
    }
    if (text && base_time_parse(text, strlen(text), out, &err)) {
        ingest_problem(in, "%s: \"%s\": %s", place, name, err.text);
        return false;
    }
    return true;
}

/* The kind that an export names; false after a report. */
static bool get_kind(ingest *in, json_t *line, const char *place, store_kind *out)
{
    const char *text = NULL;
    *out = STORE_DOCUMENT;
    if (!ingest_get_options(in)->restore) {
        return true;
    }
    bool good = get_text(line, "kind", NULL, &text);
    for (int i = 0; good && text && i < 3; i++) {
        if (strcmp(text, ingest_kinds[i]) == 0) {
            *out = (store_kind)i;
            return true;
        }
    }
    if (!good || text) {
        ingest_problem(in, "%s: \"kind\" is none of document, user, assistant", place);
    }
    return good && !text;
}

static base_status read_line(ingest *in, const char *place, const char *source, const char *text,
                             size_t size, int64_t file_time_us, base_error *err)
{
    const ingest_options *o = ingest_get_options(in);
    json_error_t problem;
    json_t *line = json_loadb(text, size, 0, &problem);
    ingest_document d = {.place = place};
    base_status status = BASE_OK;
    if (!line || !json_is_object(line)) {
        if (line) {
            ingest_problem(in, "%s: not a JSON object", place);
        } else {
            ingest_problem(in, "%s, column %d: %s", place, problem.column, problem.text);
        }
        json_decref(line);
        return BASE_OK;
    }
    char id[24];
    const char *fields[] = {"id", "source", "title", "text"};
    const char **values[] = {&d.external_id, &d.source, &d.title, &d.text};
    bool good = true;
    for (size_t i = 0; i < 4 && good; i++) {
        good = get_text(line, fields[i], i == 0 ? id : NULL, values[i]);
        if (!good) {
            ingest_problem(in, "%s: \"%s\" is not a text", place, fields[i]);
        }
    }
    if (good && !d.text) {
        ingest_problem(in, "%s: \"text\" is missing", place);
        good = false;
    }
    int64_t observed = o->observed_at_us == BASE_TIME_NONE ? file_time_us : o->observed_at_us;
    if (good && get_kind(in, line, place, &d.kind) &&
        get_time(in, line, "observed_at", place, observed, &d.observed_at_us) &&
        get_time(in, line, "valid_from", place, o->valid_from_us, &d.valid_from_us) &&
        get_time(in, line, "valid_to", place, o->valid_to_us, &d.valid_to_us)) {
        d.source = o->source ? o->source : d.source && *d.source ? d.source : source;
        d.text_size = strlen(d.text);
        d.observed_at_is_guess = o->observed_at_us == BASE_TIME_NONE &&
                                 !json_is_string(json_object_get(line, "observed_at"));
        status = ingest_add(in, &d, err);
    }
    json_decref(line);
    return status;
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == 0 || !strchr(" \t\r", text[i])) {
            return false;
        }
    }
    return true;
}

/* A file being cut into lines. */
typedef struct line_reader {
    FILE *file;
    char step[READ_STEP];
    size_t held, used; /* bytes of step, and those given out */
    base_buffer line;
} line_reader;

/* The next line without its newline. *end: there is none. *too_long: it had more bytes than a
 * document may have and was passed over. */
static base_status next_line(line_reader *r, bool *end, bool *too_long)
{
    base_status status = BASE_OK;
    bool any = false;
    *too_long = *end = false;
    base_buffer_clear(&r->line);
    for (;;) {
        if (r->used == r->held) {
            r->held = fread(r->step, 1, sizeof r->step, r->file);
            r->used = 0;
            if (r->held == 0) {
                *end = !any;
                return status;
            }
        }
        any = true;
        const char *from = r->step + r->used;
        const char *newline = memchr(from, '\n', r->held - r->used);
        size_t n = newline ? (size_t)(newline - from) : r->held - r->used;
        r->used += n + (newline != NULL);
        /* JSON may need six bytes where the text has one. */
        *too_long |= r->line.size + n > 6 * INGEST_DOCUMENT_BYTES_MAX;
        if (!*too_long && (status = base_buffer_append(&r->line, from, n))) {
            return status;
        }
        if (newline) {
            return status;
        }
    }
}

base_status ingest_read_jsonl(ingest *in, const char *path, const char *source, FILE *file,
                              size_t first_line, int64_t file_time_us, base_error *err)
{
    line_reader *r = base_calloc(1, sizeof *r);
    if (!r) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", path);
    }
    r->file = file;
    base_status status = BASE_OK;
    for (size_t number = first_line; !status; number++) {
        bool end, too_long;
        char place[4200];
        snprintf(place, sizeof place, "%s:%zu", path, number);
        status = next_line(r, &end, &too_long);
        if (status) {
            base_fail(err, status, "%s: no memory for a line", place);
        } else if (end) {
            break;
        } else if (too_long) {
            ingest_problem(in, "%s: longer than a document may be (%zu bytes)", place,
                           INGEST_DOCUMENT_BYTES_MAX);
        } else {
            const char *text = r->line.data ? r->line.data : "";
            size_t size = r->line.size;
            if (number == 1 && size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
                text += 3; /* byte order mark */
                size -= 3;
            }
            if (!is_blank(text, size)) {
                status = read_line(in, place, source, text, size, file_time_us, err);
            }
        }
    }
    if (!status && ferror(file)) {
        ingest_problem(in, "%s: cannot be read to its end", path);
    }
    base_buffer_free(&r->line);
    base_free(r);
    return status;
}
