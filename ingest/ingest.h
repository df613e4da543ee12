/* ingest/ingest.h: documents into the store: read, cut into episodes, encode, commit in batches,
 * let the index follow.
 *
 * Idempotent: a document whose content is in the store changes nothing; changed content becomes a
 * new version. Resumable by that: every batch is one commit, a killed ingest is run again and skips
 * what it had committed. A bad file or line is reported and skipped, the rest goes on. Text,
 * Markdown, HTML, PDF, JSONL (one document a line:
 * {"id","source","title","text","observed_at","valid_from","valid_to"}, only text required),
 * folders, standard input.
 */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include <signal.h>
#include <stdio.h>

#include "engine/encoder.h"
#include "retrieval/supersede.h"
#include "store/store.h"

/* One document is one commit: this is what fits into it. */
#define INGEST_DOCUMENT_BYTES_MAX ((size_t)32 << 20)
#define INGEST_PDF_BYTES_MAX ((size_t)1 << 30) /* of the file; most of a large one is pictures */

typedef struct ingest_counts {
    uint64_t documents_new, documents_updated, documents_unchanged;
    uint64_t failed; /* files and lines that were reported and skipped */
    uint64_t episodes, bytes;
} ingest_counts;

typedef struct ingest_options {
    /* for documents that do not name theirs; NULL = the folder or file given */
    const char *source;
    /* for documents without; BASE_TIME_NONE = file time, for standard input now */
    int64_t observed_at_us;
    int64_t valid_from_us, valid_to_us; /* BASE_TIME_NONE = not given */
    int64_t now_us;                     /* clock of the commits */
    /* Not 0: ingest_add takes no more and returns BASE_CANCELLED (a signal handler sets it). May be
     * NULL. */
    const volatile sig_atomic_t *stop;
    bool restore; /* JSONL is an export of ours: its "kind" (turns of a conversation) holds */
    /* Both may be NULL. problem: one line that names file and place. progress: some times a
     * batch; its counts hold what the batch has encoded so far, before its commit. */
    void (*on_problem)(void *argument, const char *text);
    void (*on_progress)(void *argument, const ingest_counts *counts);
    /* Not NULL: nothing is stored. What the encoder would see of a batch goes here instead; texts
     * borrowed for the call. An error ends the ingest. */
    base_status (*sink)(void *argument, const char *const *texts, const size_t *sizes, size_t count,
                        base_error *err);
    void *argument;
} ingest_options;

typedef struct ingest ingest;

/* All borrowed; the store must be writable. With a sink, s, r and e may be NULL. */
base_status ingest_open(store *s, retrieval *r, encoder *e, const ingest_options *options,
                        ingest **out, base_error *err);
/* Read a file, a folder or "-" (JSONL when it begins with "{", PDF and HTML by their first bytes,
 * else one text). A document may have INGEST_DOCUMENT_BYTES_MAX bytes of text, a PDF file
 * INGEST_PDF_BYTES_MAX, a JSONL file any number of lines. Problems of single files and
 * lines are reported and counted; an error return means that nothing more can be written (disk
 * full, store damaged) or that the path itself cannot be read. */
base_status ingest_path(ingest *in, const char *path, base_error *err);

/* One file by its whole path, as documents of this source. Errors as ingest_path's. */
base_status ingest_read_file(ingest *in, const char *path, const char *source, base_error *err);

/* One document from the caller (chat turns). Copies everything. *unchanged may be NULL. */
typedef struct ingest_document {
    const char *source, *external_id, *title, *text; /* external_id may be NULL */
    size_t text_size;
    int64_t observed_at_us, valid_from_us, valid_to_us;
    /* nobody said when it was observed, the time is the file's: if only that has moved, nothing has
     * changed */
    bool observed_at_is_guess;
    store_kind kind;
    const char *place; /* for messages: file, or file:line */
} ingest_document;
base_status ingest_add(ingest *in, const ingest_document *document, base_error *err);

/* Compare what was not yet compared, and close what it replaces in other documents
 * (retrieval/supersede.h). limits NULL: none. */
base_status ingest_supersede(retrieval *r, encoder *e, int64_t now_us,
                             const retrieval_supersede_limits *limits,
                             retrieval_supersede_receipt *receipt, base_error *err);

/* Commit what is pending; the index follows (flush: into a segment). */
base_status ingest_commit(ingest *in, bool flush, base_error *err);
void ingest_set_now(ingest *in, int64_t now_us); /* clock of the commits to come */
void ingest_get_counts(const ingest *in, ingest_counts *counts);
void ingest_close(ingest *in); /* drops what was not committed */

/* Write every version of every document as a line of JSON, in commit order: what ingest takes, and
 * "ingested_at", "superseded_at" (when all of it was replaced), "kind", "version", and
 * "partly_forgotten" where the text has gaps. Vectors, uses and KV are not in it. out stays open.
 * Errors: those of reading, BASE_IO, BASE_DISK_FULL. */
typedef struct ingest_export_counts {
    uint64_t documents, versions, episodes, bytes;
} ingest_export_counts;
base_status ingest_export(store *s, FILE *out, ingest_export_counts *counts, base_error *err);

/* What the encoder sees of an episode: title, section and text. base_free; NULL without memory. */
char *ingest_encoding(const char *title, const char *section, const char *text, size_t size);
/* store_reindex with this encoder. on_progress may be NULL; encoded counts from this call on. */
base_status ingest_reindex(store *s, encoder *e,
                           void (*on_progress)(void *argument, uint64_t encoded), void *argument,
                           store_reindex_receipt *receipt, base_error *err);

/* read_*.c: one file -> ingest_add. file_time_us stands in where no time is given. What a reader
 * takes out of HTML and PDF is the stored text that citations index. read_jsonl reads line by line
 * to the end of file, which stays open; first_line is the number of the line it begins with. */
base_status ingest_read_text(ingest *in, const char *path, const char *source, const char *text,
                             size_t size, int64_t file_time_us, base_error *err);
base_status ingest_read_jsonl(ingest *in, const char *path, const char *source, FILE *file,
                              size_t first_line, int64_t file_time_us, base_error *err);
base_status ingest_read_html(ingest *in, const char *path, const char *source, const char *bytes,
                             size_t size, int64_t file_time_us, base_error *err);
base_status ingest_read_pdf(ingest *in, const char *path, const char *source, const void *bytes,
                            size_t size, int64_t file_time_us, base_error *err);
/* A whole file that is one document; its id is its path. title NULL or "": the file's name. */
base_status ingest_add_file(ingest *in, const char *path, const char *source, const char *title,
                            const char *text, size_t size, int64_t file_time_us, base_error *err);
/* Names of store_kind in an export. */
extern const char *const ingest_kinds[3];
/* Report a skipped file or line. */
void ingest_problem(ingest *in, const char *format, ...) __attribute__((format(printf, 2, 3)));
const ingest_options *ingest_get_options(const ingest *in);

#endif
