/* ingest/read_text.c: a text or Markdown file is one document; its id is its path, its title the
 * first Markdown heading or the file's name. */
#include <string.h>

#include "base/mem.h"
#include "ingest/ingest.h"

/* The first line "# Title" of Markdown; NULL when there is none. Caller frees. */
static char *markdown_title(const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        if (length > 2 && text[at] == '#' && text[at + 1] == ' ') {
            const char *title = text + at + 2;
            length -= 2;
            while (length > 0 && strchr(" #\r\t", title[length - 1])) {
                length--;
            }
            return length > 0 ? base_strndup(title, length) : NULL;
        }
        at += length + 1;
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

base_status ingest_read_text(ingest *in, const char *path, const char *source, const char *text,
                             size_t size, int64_t file_time_us, base_error *err)
{
    const ingest_options *o = ingest_get_options(in);
    bool standard_input = strcmp(path, "-") == 0;
    char *title = is_markdown(path) ? markdown_title(text, size) : NULL;
    if (!title) {
        title = standard_input ? base_strdup("") : name_title(path);
    }
    if (!title) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", path);
    }
    ingest_document document = {
        .source = o->source ? o->source : source,
        .external_id = standard_input ? NULL : path,
        .title = title,
        .text = text,
        .text_size = size,
        .observed_at_us = o->observed_at_us == BASE_TIME_NONE ? file_time_us : o->observed_at_us,
        .valid_from_us = o->valid_from_us,
        .valid_to_us = o->valid_to_us,
        .place = path};
    base_status status = ingest_add(in, &document, err);
    base_free(title);
    return status;
}
