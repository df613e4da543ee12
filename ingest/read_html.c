/* ingest/read_html.c: an HTML file is one document: its readable text as plain lines, its title
 * from <title>, the first heading or the file's name. The only user of libxml2.
 *
 * The parser tells elements one by one (no tree, so depth costs nothing), mends broken markup, and
 * decodes entities and the charset that the page declares; it never loads anything. What becomes
 * of them:
 *
 *   h1..h6            "# heading" on a line of its own: the section of what follows (base/chunk.h)
 *   p, blockquote ... a blank line around; div, dt, dd ...: a line of their own; br: a line end
 *   li                "- item" or, within ol, "1. item"
 *   tr                one line, its cells joined by " | "
 *   pre               white space as it is; elsewhere a run of it is one blank
 *   dropped whole     what is no text of the page: scripts, styles, navigation, controls, media
 */
#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "ingest/ingest.h"

enum { TITLE_BYTES_MAX = 1000, LISTS_MAX = 32 };

typedef struct page {
    base_buffer text, title, heading; /* heading: the first one */
    base_status status;               /* of the buffers */
    bool bad_charset;
    size_t skipped; /* elements open since the one that is dropped, 0 = none */
    size_t in_title, in_pre, in_heading;
    size_t breaks;    /* line ends owed before the next text: 0, 1 or 2 */
    bool space;       /* a blank is owed */
    bool row_started; /* a cell of this row has been written */
    size_t list_depth;
    unsigned list_next[LISTS_MAX]; /* number of the next item, 0 = not numbered */
} page;

typedef enum element_kind {
    INLINE,
    DROP,
    PARAGRAPH,
    LINE,
    HEADING,
    TITLE,
    PRE,
    LIST,
    ITEM,
    ROW,
    CELL
} element_kind;

static const struct element {
    const char *name;
    element_kind kind;
} elements[] = {
    {"address", LINE},     {"article", PARAGRAPH}, {"audio", DROP},      {"blockquote", PARAGRAPH},
    {"br", LINE},          {"button", DROP},       {"canvas", DROP},     {"caption", LINE},
    {"dd", LINE},          {"details", PARAGRAPH}, {"div", LINE},        {"dl", PARAGRAPH},
    {"dt", LINE},          {"embed", DROP},        {"fieldset", LINE},   {"figcaption", LINE},
    {"figure", LINE},      {"footer", PARAGRAPH},  {"h1", HEADING},      {"h2", HEADING},
    {"h3", HEADING},       {"h4", HEADING},        {"h5", HEADING},      {"h6", HEADING},
    {"header", PARAGRAPH}, {"hr", PARAGRAPH},      {"iframe", DROP},     {"legend", LINE},
    {"li", ITEM},          {"main", PARAGRAPH},    {"nav", DROP},        {"noscript", DROP},
    {"object", DROP},      {"ol", LIST},           {"p", PARAGRAPH},     {"pre", PRE},
    {"script", DROP},      {"section", PARAGRAPH}, {"select", DROP},     {"style", DROP},
    {"summary", LINE},     {"svg", DROP},          {"table", PARAGRAPH}, {"td", CELL},
    {"template", DROP},    {"textarea", DROP},     {"th", CELL},         {"title", TITLE},
    {"tr", ROW},           {"ul", LIST},           {"video", DROP},
};

static element_kind kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        if (strcmp(name, elements[i].name) == 0) {
            return elements[i].kind;
        }
    }
    return INLINE;
}

/* --- writing lines ---------------------------------------------------------------------------- */

static void put(page *p, const char *text, size_t size)
{
    if (!p->status) {
        p->status = base_buffer_append(&p->text, text, size);
    }
}

static void owe_breaks(page *p, size_t count)
{
    p->breaks = count > p->breaks ? count : p->breaks;
    p->space = false;
}

/* What is owed before text that follows. */
static void settle(page *p)
{
    if (p->text.size > 0 && p->breaks > 0) {
        put(p, "\n\n", p->breaks);
    } else if (p->text.size > 0 && p->space) {
        put(p, " ", 1);
    }
    p->breaks = 0;
    p->space = false;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Append with runs of white space as one blank, none at the beginning. */
static void put_collapsed(page *p, base_buffer *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size && !p->status && out->size < TITLE_BYTES_MAX; i++) {
        char c = is_space(text[i]) ? ' ' : text[i];
        if (c != ' ' || (out->size > 0 && out->data[out->size - 1] != ' ')) {
            p->status = base_buffer_append(out, &c, 1);
        }
    }
}

static void on_text(void *argument, const xmlChar *data, int size)
{
    page *p = argument;
    const char *text = (const char *)data;
    size_t n = (size_t)size, at = 0;
    if (p->skipped) {
        return;
    }
    if (p->in_title) {
        put_collapsed(p, &p->title, text, n);
        return;
    }
    if (p->in_heading == 1) {
        put_collapsed(p, &p->heading, text, n);
    }
    if (p->in_pre) {
        settle(p);
        put(p, text, n);
        return;
    }
    while (at < n) {
        size_t end = at;
        while (end < n && !is_space(text[end])) {
            end++;
        }
        if (end > at) {
            settle(p);
            put(p, text + at, end - at);
        }
        p->space = p->space || end < n;
        for (at = end; at < n && is_space(text[at]); at++) {
        }
    }
}

/* --- elements --------------------------------------------------------------------------------- */

/* Hidden, or the page's navigation by its role. */
static bool is_hidden(const xmlChar **attributes)
{
    for (; attributes && attributes[0]; attributes += 2) {
        const char *value = attributes[1] ? (const char *)attributes[1] : "";
        if (strcmp((const char *)attributes[0], "hidden") == 0 ||
            (strcmp((const char *)attributes[0], "role") == 0 &&
             strcmp(value, "navigation") == 0)) {
            return true;
        }
    }
    return false;
}

static void begin_item(page *p)
{
    char mark[16] = "- ";
    size_t depth = p->list_depth < LISTS_MAX ? p->list_depth : LISTS_MAX;
    unsigned *number = depth > 0 ? &p->list_next[depth - 1] : NULL;
    if (number && *number > 0) {
        snprintf(mark, sizeof mark, "%u. ", (*number)++);
    }
    owe_breaks(p, 1);
    settle(p);
    put(p, mark, strlen(mark));
}

static void on_start(void *argument, const xmlChar *name, const xmlChar **attributes)
{
    page *p = argument;
    const char *tag = (const char *)name;
    element_kind kind = kind_of(tag);
    if (p->skipped || kind == DROP || is_hidden(attributes)) {
        p->skipped++;
        return;
    }
    switch (kind) {
    case PARAGRAPH:
        owe_breaks(p, 2);
        break;
    case LINE:
        owe_breaks(p, 1);
        break;
    case HEADING:
        owe_breaks(p, 2);
        settle(p);
        put(p, "###### ", (size_t)(tag[1] - '0'));
        put(p, " ", 1);
        p->in_heading = p->heading.size == 0 ? 1 : 2;
        break;
    case TITLE:
        p->in_title++;
        break;
    case PRE:
        owe_breaks(p, 2);
        p->in_pre++;
        break;
    case LIST:
        owe_breaks(p, p->list_depth ? 1 : 2);
        if (p->list_depth < LISTS_MAX) {
            p->list_next[p->list_depth] = tag[0] == 'o';
        }
        p->list_depth++;
        break;
    case ITEM:
        begin_item(p);
        break;
    case ROW:
        owe_breaks(p, 1);
        p->row_started = false;
        break;
    case CELL:
        if (p->row_started) {
            put(p, " | ", 3);
        }
        p->breaks = p->row_started ? 0 : p->breaks;
        p->space = false;
        p->row_started = true;
        break;
    default:
        break;
    }
}

static void on_end(void *argument, const xmlChar *name)
{
    page *p = argument;
    if (p->skipped) {
        p->skipped--;
        return;
    }
    switch (kind_of((const char *)name)) {
    case PARAGRAPH:
        owe_breaks(p, 2);
        break;
    case HEADING:
        owe_breaks(p, 2);
        p->in_heading = 0;
        break;
    case TITLE:
        p->in_title -= p->in_title > 0;
        break;
    case PRE:
        p->in_pre -= p->in_pre > 0;
        owe_breaks(p, 2);
        break;
    case LIST:
        p->list_depth -= p->list_depth > 0;
        owe_breaks(p, p->list_depth ? 1 : 2);
        break;
    case LINE:
    case ITEM:
    case ROW:
        owe_breaks(p, 1);
        break;
    default:
        break;
    }
}

/* Broken markup is mended, silently; text that does not decode is not. */
static void on_error(void *argument, xmlErrorPtr error)
{
    page *p = argument;
    if (error->code == XML_ERR_NO_MEMORY) {
        p->status = BASE_NO_MEMORY;
    }
    if (error->domain == XML_FROM_I18N || error->domain == XML_FROM_IO ||
        error->code == XML_ERR_UNSUPPORTED_ENCODING || error->code == XML_ERR_UNKNOWN_ENCODING) {
        p->bad_charset = true;
    }
}

/* --- the file --------------------------------------------------------------------------------- */

static bool has_wide_mark(const char *bytes, size_t size)
{
    return size >= 2 && (memcmp(bytes, "\xFF\xFE", 2) == 0 || memcmp(bytes, "\xFE\xFF", 2) == 0);
}

/* Bytes that are valid UTF-8 beyond ASCII are UTF-8, whatever the page declares. */
static bool is_utf8(const char *bytes, size_t size)
{
    if (base_utf8_check(bytes, size) != size) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)bytes[i] >= 0x80) {
            return true;
        }
    }
    return false;
}

static base_status parse(page *p, const char *bytes, size_t size)
{
    htmlParserCtxtPtr parser = htmlCreateMemoryParserCtxt(bytes, (int)size);
    if (!parser) {
        return BASE_NO_MEMORY;
    }
    htmlSAXHandler handler = {.startElement = on_start,
                              .endElement = on_end,
                              .characters = on_text,
                              .ignorableWhitespace = on_text,
                              .initialized = XML_SAX2_MAGIC,
                              .serror = on_error};
    bool utf8 = is_utf8(bytes, size);
    htmlCtxtUseOptions(parser, HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_NODEFDTD |
                                   (utf8 ? HTML_PARSE_IGNORE_ENC : 0));
    /* What decodes the input tells its errors to the thread's handler, not to the parser's. */
    xmlSetStructuredErrorFunc(p, on_error);
    htmlSAXHandler *own = parser->sax;
    parser->sax = &handler;
    parser->userData = p;
    if (utf8) {
        xmlSwitchEncoding(parser, XML_CHAR_ENCODING_UTF8);
        parser->charset = XML_CHAR_ENCODING_UTF8;
    }
    htmlParseDocument(parser);
    parser->sax = own;
    htmlFreeParserCtxt(parser);
    xmlSetStructuredErrorFunc(NULL, NULL);
    return p->status;
}

static const char *page_title(page *p)
{
    base_buffer *title = p->title.size > 0 ? &p->title : &p->heading;
    while (title->size > 0 && title->data[title->size - 1] == ' ') {
        title->data[--title->size] = 0;
    }
    if (title->size == 0) {
        return NULL;
    }
    title->data[base_utf8_cut(title->data, title->size, TITLE_BYTES_MAX)] = 0;
    return title->data;
}

base_status ingest_read_html(ingest *in, const char *path, const char *source, const char *bytes,
                             size_t size, int64_t file_time_us, base_error *err)
{
    page p = {.text = {.size_max = 2 * INGEST_DOCUMENT_BYTES_MAX}};
    const char *zero = size > 0 ? memchr(bytes, 0, size) : NULL;
    base_status status = BASE_OK;
    if (size > INGEST_DOCUMENT_BYTES_MAX) {
        ingest_problem(in, "%s: more than the %zu bytes a document may have", path,
                       INGEST_DOCUMENT_BYTES_MAX);
    } else if (size == 0) {
        ingest_problem(in, "%s: empty", path);
    } else if (zero && !has_wide_mark(bytes, size)) {
        ingest_problem(in, "%s: holds a zero at byte %zu, so it is no HTML (binary?)", path,
                       (size_t)(zero - bytes));
    } else if ((status = parse(&p, bytes, size)) == BASE_NO_MEMORY) {
        status = base_fail(err, status, "%s: no memory", path);
    } else if (status) {
        ingest_problem(in, "%s: its text is longer than a document may be", path);
        status = BASE_OK;
    } else if (p.bad_charset) {
        ingest_problem(in, "%s: its text does not decode in the charset that it declares", path);
    } else {
        const char *text = p.text.data ? p.text.data : "";
        status =
            ingest_add_file(in, path, source, page_title(&p), text, p.text.size, file_time_us, err);
    }
    base_buffer_free(&p.text);
    base_buffer_free(&p.title);
    base_buffer_free(&p.heading);
    return status;
}
