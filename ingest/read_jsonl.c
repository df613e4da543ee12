/* ingest/read_jsonl.c: one document a line. A line that cannot be taken is reported with file and
 * line number; the rest goes on. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ingest/ingest.h"

/* A text field: false when it is there but is no text. */
static bool get_text(json_t *line, const char *name, const char **out)
{
    json_t *value = json_object_get(line, name);
    *out = NULL;
    if (value && !json_is_null(value)) {
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
    if (!get_text(line, name, &text)) {
        ingest_problem(in, "%s: \"%s\" is not a text", place, name);
        return false;
    }
    if (text && base_time_parse(text, strlen(text), out, &err)) {
        ingest_problem(in, "%s: \"%s\": %s", place, name, err.text);
        return false;
    }
    return true;
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
        ingest_problem(in, "%s: %s", place, line ? "not a JSON object" : problem.text);
        json_decref(line);
        return BASE_OK;
    }
    const char *fields[] = {"id", "source", "title", "text"};
    const char **values[] = {&d.external_id, &d.source, &d.title, &d.text};
    bool good = true;
    for (size_t i = 0; i < 4 && good; i++) {
        good = get_text(line, fields[i], values[i]);
        if (!good) {
            ingest_problem(in, "%s: \"%s\" is not a text", place, fields[i]);
        }
    }
    if (good && !d.text) {
        ingest_problem(in, "%s: \"text\" is missing", place);
        good = false;
    }
    int64_t observed = o->observed_at_us == BASE_TIME_NONE ? file_time_us : o->observed_at_us;
    if (good && get_time(in, line, "observed_at", place, observed, &d.observed_at_us) &&
        get_time(in, line, "valid_from", place, o->valid_from_us, &d.valid_from_us) &&
        get_time(in, line, "valid_to", place, o->valid_to_us, &d.valid_to_us)) {
        d.source = o->source ? o->source : d.source && *d.source ? d.source : source;
        d.text_size = strlen(d.text);
        status = ingest_add(in, &d, err);
    }
    json_decref(line);
    return status;
}

base_status ingest_read_jsonl(ingest *in, const char *path, const char *source, const char *text,
                              size_t size, int64_t file_time_us, base_error *err)
{
    size_t number = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        char place[4200];
        number++;
        snprintf(place, sizeof place, "%s:%zu", path, number);
        bool blank = true;
        for (size_t i = 0; i < length && blank; i++) {
            blank = strchr(" \t\r", text[at + i]) != NULL && text[at + i];
        }
        if (!blank) {
            base_status status =
                read_line(in, place, source, text + at, length, file_time_us, err);
            if (status) {
                return status;
            }
        }
        at += length + 1;
    }
    return BASE_OK;
}
