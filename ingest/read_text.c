/* ingest/read_text.c: a text or Markdown file is one document; its id is its path, its title the
 * first Markdown heading or the file's name. */
#include <string.h>

#include "base/mem.h"
#include "ingest/ingest.h"

/* The first heading "# Title" of Markdown, of any level, outside code; NULL when there is none.
 * Caller frees. */
static char *markdown_title(const char *text, size_t size)
{
    bool in_code = false;
    size_t at = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* byte order mark */
    while (at < size) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        size_t marks = 0;
        while (marks < length && text[at + marks] == '#') {
            marks++;
        }
        in_code ^= length >= 3 && memcmp(text + at, "```", 3) == 0;
        if (!in_code && marks >= 1 && marks <= 6 && marks + 1 < length && text[at + marks] == ' ') {
            const char *title = text + at + marks;
            length -= marks;
            while (length > 0 && strchr(" #\r\t", title[length - 1])) {
                length--;
            }
            while (length > 0 && title[0] == ' ') {
                title++;
                length--;
            }
            if (length > 0) {
                return base_strndup(title, length);
            }
        }
        at += (end ? (size_t)(end - text) - at : size - at) + 1;
    }
    return NULL;
}

static bool is_markdown(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (strcmp(dot, ".md") == 0 || strcmp(dot, ".markdown") == 0);
}

static char *name_title(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    return base_strndup(name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
}

base_status ingest_add_file(ingest *in, const char *path, const char *source, const char *title,
                            const char *text, size_t size, int64_t file_time_us, base_error *err)
{
    const ingest_options *o = ingest_get_options(in);
    bool standard_input = strcmp(path, "-") == 0;
    char *name = title && *title  ? base_strdup(title)
                 : standard_input ? base_strdup("")
                                  : name_title(path);
    if (!name) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", path);
    }
    ingest_document document = {
        .source = o->source ? o->source : source,
        .external_id = standard_input ? NULL : path,
        .title = name,
        .text = text,
        .text_size = size,
        .observed_at_us = o->observed_at_us == BASE_TIME_NONE ? file_time_us : o->observed_at_us,
        .observed_at_is_guess = o->observed_at_us == BASE_TIME_NONE,
        .valid_from_us = o->valid_from_us,
        .valid_to_us = o->valid_to_us,
        .place = path};
    base_status status = ingest_add(in, &document, err);
    base_free(name);
    return status;
}

base_status ingest_read_text(ingest *in, const char *path, const char *source, const char *text,
                             size_t size, int64_t file_time_us, base_error *err)
{
    char *title = is_markdown(path) ? markdown_title(text, size) : NULL;
    base_status status = ingest_add_file(in, path, source, title, text, size, file_time_us, err);
    base_free(title);
    return status;
}
