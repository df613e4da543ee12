/* ingest/ingest.c: the pipeline. Documents gather in a batch; a batch is encoded together and
 * committed together. */
#include "ingest/ingest.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/chunk.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"

/* A batch is one fsync: large enough to share it, small enough that a kill loses little work. */
enum { BATCH_SPANS = 512, BATCH_DOCUMENTS = 256, ENCODE_SPANS = 64 };

typedef struct pending {
    char *source, *external_id, *title, *text;
    size_t text_size;
    store_new_document document;
    store_new_span *spans;
    char **sections;  /* [span_count] */
    char **encodings; /* [span_count] what the encoder sees */
} pending;

struct ingest {
    store *store;
    retrieval *retrieval;
    encoder *encoder;
    ingest_options options;
    ingest_counts counts;
    pending batch[BATCH_DOCUMENTS];
    size_t batch_count, span_count;
};

base_status ingest_open(store *s, retrieval *r, encoder *e, const ingest_options *options,
                        ingest **out, base_error *err)
{
    if (!options->sink && store_is_read_only(s)) {
        return base_fail(err, BASE_PERMISSION, "%s: the store cannot be written", store_path(s));
    }
    ingest *in = base_calloc(1, sizeof *in);
    if (!in) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for an ingest");
    }
    in->store = s;
    in->retrieval = r;
    in->encoder = e;
    in->options = *options;
    *out = in;
    return BASE_OK;
}

static void free_strings(char **strings, size_t count)
{
    for (size_t i = 0; strings && i < count; i++) {
        base_free(strings[i]);
    }
    base_free(strings);
}

static void free_pending(pending *p)
{
    free_strings(p->sections, p->document.span_count);
    free_strings(p->encodings, p->document.span_count);
    base_free(p->spans);
    base_free(p->source);
    base_free(p->external_id);
    base_free(p->title);
    base_free(p->text);
    *p = (pending){0};
}

static void clear_batch(ingest *in)
{
    for (size_t i = 0; i < in->batch_count; i++) {
        free_pending(&in->batch[i]);
    }
    in->batch_count = in->span_count = 0;
}

void ingest_close(ingest *in)
{
    if (in) {
        clear_batch(in);
        base_free(in);
    }
}

void ingest_set_now(ingest *in, int64_t now_us)
{
    in->options.now_us = now_us;
}

void ingest_get_counts(const ingest *in, ingest_counts *counts)
{
    *counts = in->counts;
}

const ingest_options *ingest_get_options(const ingest *in)
{
    return &in->options;
}

void ingest_problem(ingest *in, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    in->counts.failed++;
    if (in->options.on_problem) {
        in->options.on_problem(in->options.argument, text);
    }
}

/* --- a batch ---------------------------------------------------------------------------------- */

static void show_progress(const ingest *in, size_t encoded)
{
    if (in->options.on_progress) {
        ingest_counts counts = in->counts;
        counts.episodes += encoded;
        in->options.on_progress(in->options.argument, &counts);
    }
}

/* In steps, so that progress moves within a large document. */
static base_status encode_texts(const ingest *in, const char *const *texts, const size_t *sizes,
                                size_t count, float *vectors, base_error *err)
{
    base_status status = BASE_OK;
    for (size_t done = 0; done < count && !status; done += ENCODE_SPANS) {
        size_t n = count - done < ENCODE_SPANS ? count - done : ENCODE_SPANS;
        show_progress(in, done);
        status = encoder_encode_batch(in->encoder, texts + done, sizes + done, n,
                                      vectors + done * encoder_dim(in->encoder), err);
    }
    return status;
}

/* *vectors stays NULL where a sink takes the texts. */
static base_status encode_batch(ingest *in, float **vectors, base_error *err)
{
    size_t n = 0;
    const char **texts = base_calloc(in->span_count + 1, sizeof *texts);
    size_t *sizes = base_calloc(in->span_count + 1, sizeof *sizes);
    if (!in->options.sink) {
        *vectors = base_calloc(in->span_count + 1, encoder_dim(in->encoder) * sizeof **vectors);
    }
    base_status status = BASE_OK;
    if (!texts || !sizes || (!*vectors && !in->options.sink)) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory to encode a batch");
    }
    for (size_t i = 0; i < in->batch_count && !status; i++) {
        for (size_t k = 0; k < in->batch[i].document.span_count; k++, n++) {
            texts[n] = in->batch[i].encodings[k];
            sizes[n] = strlen(texts[n]);
        }
    }
    if (!status && in->options.sink) {
        status = in->options.sink(in->options.argument, texts, sizes, n, err);
    } else if (!status) {
        status = encode_texts(in, texts, sizes, n, *vectors, err);
    }
    base_free(texts);
    base_free(sizes);
    return status;
}

static base_status put_batch(ingest *in, const float *vectors, base_error *err)
{
    size_t dim = encoder_dim(in->encoder), n = 0;
    store_txn *txn = NULL;
    ingest_counts counts = in->counts;
    base_status status = store_begin(in->store, in->options.now_us, &txn, err);
    for (size_t i = 0; i < in->batch_count && !status; i++) {
        pending *p = &in->batch[i];
        store_put_result result;
        uint64_t first = 0;
        size_t count = 0;
        for (size_t k = 0; k < p->document.span_count; k++, n++) {
            p->spans[k].vector = vectors + n * dim;
        }
        status = store_put_document(txn, &p->document, &result, &first, &count, err);
        if (!status) {
            counts.documents_new += result == STORE_PUT_NEW;
            counts.documents_updated += result == STORE_PUT_NEW_VERSION;
            counts.documents_unchanged += result == STORE_PUT_UNCHANGED;
            counts.episodes += count;
            counts.bytes += result == STORE_PUT_UNCHANGED ? 0 : p->text_size;
        }
    }
    if (status) {
        store_abort(txn);
    } else if (!(status = store_commit(txn, err))) {
        in->counts = counts;
    }
    return status;
}

static void count_sunk(ingest *in)
{
    in->counts.documents_new += in->batch_count;
    in->counts.episodes += in->span_count;
    for (size_t i = 0; i < in->batch_count; i++) {
        in->counts.bytes += in->batch[i].text_size;
    }
}

base_status ingest_commit(ingest *in, bool flush, base_error *err)
{
    float *vectors = NULL;
    base_status status = BASE_OK;
    if (in->batch_count > 0) {
        status = encode_batch(in, &vectors, err);
        if (!status && in->options.sink) {
            count_sunk(in);
        } else if (!status) {
            status = put_batch(in, vectors, err);
        }
        base_free(vectors);
        clear_batch(in);
    }
    show_progress(in, 0);
    if (!status && flush && !in->options.sink && !(status = retrieval_sync(in->retrieval, err))) {
        status = retrieval_flush(in->retrieval, false, err);
    }
    return status;
}

/* --- a document ------------------------------------------------------------------------------- */

/* Cut the text and lay out spans, sections and encodings. What is said is cut into sentences, as
 * lived memory is: one turn may speak of many things. */
static base_status cut(pending *p, base_error *err)
{
    const base_chunk_options turn = {.token_target = BASE_CHUNK_SENTENCE};
    const base_chunk_options *options = p->document.kind == STORE_DOCUMENT ? NULL : &turn;
    base_span *cuts = NULL;
    size_t count = 0;
    base_status status = base_chunk_text(p->text, p->text_size, options, &cuts, &count, err);
    if (status) {
        return status;
    }
    p->spans = base_calloc(count + 1, sizeof *p->spans);
    p->sections = base_calloc(count + 1, sizeof *p->sections);
    p->encodings = base_calloc(count + 1, sizeof *p->encodings);
    if (!p->spans || !p->sections || !p->encodings) {
        base_free(cuts);
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu spans", count);
    }
    p->document.span_count = count;
    p->document.spans = p->spans;
    for (size_t i = 0; i < count && !status; i++) {
        const base_span *c = &cuts[i];
        p->sections[i] =
            base_strndup(p->text + c->section_start, c->section_end - c->section_start);
        p->encodings[i] = p->sections[i] ? ingest_encoding(p->title, p->sections[i],
                                                           p->text + c->start, c->end - c->start)
                                         : NULL;
        if (!p->encodings[i]) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu spans", count);
        }
        p->spans[i] =
            (store_new_span){.start_byte = c->start, .end_byte = c->end, .section = p->sections[i]};
    }
    base_free(cuts);
    return status;
}

static base_status copy_document(ingest *in, const ingest_document *d, pending *p, base_error *err)
{
    p->source = base_strdup(d->source);
    p->external_id = base_strdup(d->external_id ? d->external_id : "");
    p->title = base_strdup(d->title ? d->title : "");
    p->text = base_strndup(d->text, d->text_size);
    p->text_size = d->text_size;
    if (!p->source || !p->external_id || !p->title || !p->text) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a document");
    }
    p->document = (store_new_document){.source = p->source,
                                       .external_id = p->external_id,
                                       .title = p->title,
                                       .text = p->text,
                                       .text_size = p->text_size,
                                       .observed_at_us = d->observed_at_us,
                                       .observed_at_is_guess = d->observed_at_is_guess,
                                       .valid_from_us = d->valid_from_us,
                                       .valid_to_us = d->valid_to_us,
                                       .kind = d->kind};
    if (!in->options.sink) {
        p->document.vector_dim = encoder_dim(in->encoder);
        p->document.encoder = encoder_name(in->encoder);
    }
    return BASE_OK;
}

/* Why this cannot be a document, or NULL. */
static const char *document_problem(const ingest_document *d, char *reason, size_t size)
{
    const char *names[] = {d->source, d->external_id, d->title};
    static const char *const kinds[] = {"source", "id", "title"};
    for (size_t i = 0; i < 3; i++) {
        if (names[i] && base_utf8_check(names[i], strlen(names[i])) != strlen(names[i])) {
            snprintf(reason, size, "its %s is not valid UTF-8", kinds[i]);
            return reason;
        }
    }
    const char *nul = memchr(d->text, 0, d->text_size);
    if (nul) {
        snprintf(reason, size, "holds a zero at byte %zu, so it is no text (binary?)",
                 (size_t)(nul - d->text));
        return reason;
    }
    size_t bad = base_utf8_check(d->text, d->text_size);
    if (bad != d->text_size) {
        snprintf(reason, size, "not valid UTF-8 at byte %zu", bad);
        return reason;
    }
    if (d->text_size > INGEST_DOCUMENT_BYTES_MAX) {
        snprintf(reason, size, "%zu bytes, a document may have %zu", d->text_size,
                 INGEST_DOCUMENT_BYTES_MAX);
        return reason;
    }
    for (size_t i = 0; i < d->text_size; i++) {
        if (!strchr(" \t\r\n\v\f", d->text[i])) {
            return d->valid_from_us != BASE_TIME_NONE && d->valid_to_us != BASE_TIME_NONE &&
                           d->valid_from_us > d->valid_to_us
                       ? "valid_from lies after valid_to"
                       : NULL;
        }
    }
    return "holds no text";
}

base_status ingest_add(ingest *in, const ingest_document *d, base_error *err)
{
    char reason[128];
    if (in->options.stop && *in->options.stop) {
        return base_fail(err, BASE_CANCELLED, "%s: interrupted", d->place);
    }
    const char *problem = document_problem(d, reason, sizeof reason);
    if (problem) {
        ingest_problem(in, "%s: %s", d->place, problem);
        return BASE_OK;
    }
    pending *p = &in->batch[in->batch_count];
    store_put_result result = STORE_PUT_NEW;
    base_status status = copy_document(in, d, p, err);
    if (!status && !in->options.sink) {
        status = store_peek_document(in->store, &p->document, &result, err);
    }
    if (!status && result != STORE_PUT_UNCHANGED) {
        status = cut(p, err); /* after the peek: what is known costs next to nothing */
    }
    if (status || result == STORE_PUT_UNCHANGED) {
        in->counts.documents_unchanged += !status;
        free_pending(p);
        if (status) {
            base_error_prefix(err, "%s", d->place);
        }
        return status;
    }
    in->batch_count++;
    in->span_count += p->document.span_count;
    if (in->batch_count == BATCH_DOCUMENTS || in->span_count >= BATCH_SPANS) {
        return ingest_commit(in, false, err);
    }
    return BASE_OK;
}

/* --- files ------------------------------------------------------------------------------------ */

static bool has_suffix(const char *path, const char *suffix)
{
    size_t a = strlen(path), b = strlen(suffix);
    return a >= b && strcasecmp(path + a - b, suffix) == 0;
}

static bool is_html(const char *path)
{
    return has_suffix(path, ".html") || has_suffix(path, ".htm") || has_suffix(path, ".xhtml");
}

/* Report why a file cannot be read; only a lack of memory ends the whole ingest. */
static base_status skip_file(ingest *in, const base_error *problem, base_error *err)
{
    if (problem->code == BASE_NO_MEMORY) {
        return base_fail(err, problem->code, "%s", problem->text);
    }
    ingest_problem(in, "%s", problem->text);
    return BASE_OK;
}

/* A document without a name that tells its kind: by how it begins, blanks aside. */
static base_status read_unnamed(ingest *in, const char *text, size_t size, int64_t time_us,
                                base_error *err)
{
    size_t at = 0;
    while (at < size && text[at] && strchr(" \t\r\n", text[at])) {
        at++;
    }
    const char *start = text + at;
    if (size - at > 5 && memcmp(start, "%PDF-", 5) == 0) {
        return ingest_read_pdf(in, "-", "stdin", start, size - at, time_us, err);
    }
    if (size - at > 9 &&
        (strncasecmp(start, "<!doctype", 9) == 0 || strncasecmp(start, "<html", 5) == 0)) {
        return ingest_read_html(in, "-", "stdin", text, size, time_us, err);
    }
    return ingest_read_text(in, "-", "stdin", text, size, time_us, err);
}

static base_status read_text_file(ingest *in, const char *path, const char *source,
                                  int64_t file_time_us, base_error *err)
{
    base_buffer text = {0};
    base_error problem = {0};
    base_status status = base_file_read(path, INGEST_DOCUMENT_BYTES_MAX, &text, &problem);
    if (status) {
        status = skip_file(in, &problem, err);
    } else if (text.size == 0) {
        ingest_problem(in, "%s: empty", path);
    } else if (is_html(path)) {
        status = ingest_read_html(in, path, source, text.data, text.size, file_time_us, err);
    } else {
        status = ingest_read_text(in, path, source, text.data, text.size, file_time_us, err);
    }
    base_buffer_free(&text);
    return status;
}

static base_status read_pdf_file(ingest *in, const char *path, const char *source,
                                 int64_t file_time_us, base_error *err)
{
    base_map map = {0};
    base_error problem = {0};
    base_status status = base_map_open(path, &map, &problem);
    if (status) {
        return skip_file(in, &problem, err);
    }
    if (map.size == 0) {
        ingest_problem(in, "%s: empty", path);
    } else if (map.size > INGEST_PDF_BYTES_MAX) {
        ingest_problem(in, "%s: larger than the limit of %zu bytes", path, INGEST_PDF_BYTES_MAX);
    } else {
        status = ingest_read_pdf(in, path, source, map.data, map.size, file_time_us, err);
    }
    base_map_close(&map);
    return status;
}

/* Standard input: JSONL when its first sign that is not blank is "{", else one document. */
static base_status read_standard_input(ingest *in, base_error *err)
{
    int c;
    size_t first_line = 1;
    base_buffer text = {0};
    base_status status = BASE_OK;
    int64_t now_us = in->options.now_us;
    while ((c = getc(stdin)) != EOF && strchr(" \t\r\n", c) && c && !status) {
        char blank = (char)c;
        first_line += c == '\n';
        status = base_buffer_append(&text, &blank, 1);
    }
    if (c == '{' && !status) {
        ungetc(c, stdin);
        status = ingest_read_jsonl(in, "-", "stdin", stdin, first_line, now_us, err);
        base_buffer_free(&text);
        return status;
    }
    while (c != EOF && !status && text.size <= INGEST_DOCUMENT_BYTES_MAX) {
        char step[4096];
        size_t n = 0;
        step[n++] = (char)c;
        n += fread(step + n, 1, sizeof step - n, stdin);
        status = base_buffer_append(&text, step, n);
        c = getc(stdin);
    }
    if (status) {
        base_fail(err, status, "standard input: no memory for %zu bytes", text.size);
    } else if (ferror(stdin)) {
        ingest_problem(in, "standard input: cannot be read");
    } else if (text.size == 0) {
        ingest_problem(in, "standard input: empty");
    } else {
        status = read_unnamed(in, text.data, text.size, now_us, err);
    }
    base_buffer_free(&text);
    return status;
}

base_status ingest_read_file(ingest *in, const char *path, const char *source, base_error *err)
{
    base_file_info info;
    base_error problem = {0};
    if (base_file_stat(path, &info, &problem)) {
        return skip_file(in, &problem, err);
    }
    if (has_suffix(path, ".pdf")) {
        return read_pdf_file(in, path, source, info.modified_us, err);
    }
    if (!has_suffix(path, ".jsonl") && !has_suffix(path, ".ndjson")) {
        return read_text_file(in, path, source, info.modified_us, err);
    }
    FILE *file = fopen(path, "re");
    if (!file) {
        base_fail_errno(&problem, errno, "cannot open %s", path);
        return skip_file(in, &problem, err);
    }
    base_status status = ingest_read_jsonl(in, path, source, file, 1, info.modified_us, err);
    fclose(file);
    return status;
}

static base_status read_folder(ingest *in, const char *folder, base_error *err)
{
    char **files = NULL;
    size_t count = 0;
    base_status status = base_dir_walk(folder, &files, &count, err);
    for (size_t i = 0; i < count && !status; i++) {
        status = ingest_read_file(in, files[i], folder, err);
    }
    free_strings(files, count);
    return status;
}

base_status ingest_path(ingest *in, const char *path, base_error *err)
{
    char whole[PATH_MAX];
    base_file_info info;
    if (strcmp(path, "-") == 0) {
        return read_standard_input(in, err);
    }
    base_status status = base_file_stat(path, &info, err);
    if (status) {
        return status;
    }
    if (!realpath(path, whole)) {
        return base_fail(err, BASE_NOT_FOUND, "%s: no such file or folder", path);
    }
    if (info.is_dir) {
        return read_folder(in, whole, err);
    }
    if (!info.is_regular) {
        return base_fail(err, BASE_INVALID, "%s: neither a file nor a folder", path);
    }
    char source[PATH_MAX];
    snprintf(source, sizeof source, "%s", whole);
    char *slash = strrchr(source, '/');
    if (slash && slash != source) {
        *slash = 0;
    }
    return ingest_read_file(in, whole, source, err);
}
