/* retrieval/manifest.c: read and write the list of segments. The format is specified in manifest.h.
 */
#include "retrieval/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#define MANIFEST_BYTES_MAX (1u << 20)
#define PATH_BYTES 4096

/* Text being read, line by line. */
typedef struct cursor {
    const char *at, *end;
    char line[256];
} cursor;

/* Next line without its newline, cut to a buffer; false at the end or when it is too long to be
 * ours. */
static bool next_line(cursor *c)
{
    const char *newline = memchr(c->at, '\n', (size_t)(c->end - c->at));
    if (!newline || (size_t)(newline - c->at) >= sizeof c->line) {
        return false;
    }
    size_t n = (size_t)(newline - c->at);
    memcpy(c->line, c->at, n);
    c->line[n] = '\0';
    c->at = newline + 1;
    return true;
}

static bool read_field(cursor *c, const char *name, uint64_t *value)
{
    char key[16], rest;
    return next_line(c) && sscanf(c->line, "%15s %" SCNu64 "%c", key, value, &rest) == 2 &&
           strcmp(key, name) == 0;
}

static bool read_encoder(cursor *c, uint32_t *value)
{
    char rest;
    return next_line(c) && sscanf(c->line, "encoder %8" SCNx32 "%c", value, &rest) == 1;
}

static bool read_entry(const char *line, retrieval_entry *e)
{
    char rest;
    return sscanf(line,
                  "segment %47s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %8" SCNx32
                  " %8" SCNx32 " %39s%c",
                  e->file, &e->first_id, &e->last_id, &e->count, &e->bytes, &e->crc, &e->anchor,
                  e->kind, &rest) == 8 &&
           !strchr(e->file, '/') && e->file[0] != '.' && e->first_id >= 1 &&
           e->first_id <= e->last_id && e->count >= 1 && e->count <= e->last_id - e->first_id + 1;
}

static base_status damaged(base_error *err, const char *folder, const char *what)
{
    return base_fail(err, BASE_CORRUPT, "%s/manifest: %s", folder, what);
}

static base_status parse(const char *folder, const char *text, size_t size, retrieval_manifest *m,
                         base_error *err)
{
    cursor c = {.at = text, .end = text + size};
    unsigned version;
    if (!next_line(&c) || sscanf(c.line, "eidetic-index %u", &version) != 1) {
        return damaged(err, folder, "not an index manifest");
    }
    if (version > RETRIEVAL_MANIFEST_VERSION) {
        return base_fail(err, BASE_VERSION, "%s/manifest: version %u, this program knows %d",
                         folder, version, RETRIEVAL_MANIFEST_VERSION);
    }
    if (!read_field(&c, "dim", &m->dim) || (version > 1 && !read_encoder(&c, &m->encoder)) ||
        !read_field(&c, "serial", &m->serial) ||
        !read_field(&c, "commit", &m->commit) || !read_field(&c, "covered", &m->covered)) {
        return damaged(err, folder, "a field is missing or malformed");
    }
    m->entries = base_calloc(RETRIEVAL_SEGMENTS_MAX, sizeof *m->entries);
    if (!m->entries) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for the index manifest");
    }
    uint64_t last = 0;
    for (;;) {
        const char *line_start = c.at;
        uint32_t crc;
        char rest;
        if (!next_line(&c)) {
            return damaged(err, folder, "it ends early");
        }
        if (sscanf(c.line, "crc32c %8" SCNx32 "%c", &crc, &rest) == 1) {
            if (crc != base_crc32c(0, text, (size_t)(line_start - text)) || c.at != c.end) {
                return damaged(err, folder, "its checksum does not match");
            }
            return BASE_OK;
        }
        if (m->count == RETRIEVAL_SEGMENTS_MAX || !read_entry(c.line, &m->entries[m->count]) ||
            m->entries[m->count].first_id <= last || m->entries[m->count].last_id > m->covered) {
            return damaged(err, folder, "a segment line is malformed");
        }
        last = m->entries[m->count++].last_id;
    }
}

base_status retrieval_manifest_read(const char *folder, retrieval_manifest *out, base_error *err)
{
    char path[PATH_BYTES];
    base_status status = base_path_join(path, sizeof path, folder, "manifest");
    if (status != BASE_OK) {
        return base_fail(err, status, "path too long: %s", folder);
    }
    base_file_info info;
    status = base_file_stat(path, &info, NULL);
    if (status == BASE_NOT_FOUND) {
        return BASE_NOT_FOUND;
    }
    base_buffer buffer = {0};
    status = base_file_read(path, MANIFEST_BYTES_MAX, &buffer, err);
    retrieval_manifest read = {0};
    if (status == BASE_OK) {
        status = parse(folder, buffer.data ? buffer.data : "", buffer.size, &read, err);
    }
    base_buffer_free(&buffer);
    if (status != BASE_OK) {
        retrieval_manifest_free(&read);
        return status;
    }
    *out = read;
    return BASE_OK;
}

base_status retrieval_manifest_write(const char *folder, const retrieval_manifest *m,
                                     base_error *err)
{
    char path[PATH_BYTES];
    base_status status = base_path_join(path, sizeof path, folder, "manifest");
    if (status != BASE_OK) {
        return base_fail(err, status, "path too long: %s", folder);
    }
    base_buffer text = {.size_max = MANIFEST_BYTES_MAX};
    status = base_buffer_printf(
        &text,
        "eidetic-index %d\ndim %" PRIu64 "\nencoder %08" PRIx32 "\nserial %" PRIu64
        "\ncommit %" PRIu64 "\ncovered %" PRIu64 "\n",
        RETRIEVAL_MANIFEST_VERSION, m->dim, m->encoder, m->serial, m->commit, m->covered);
    for (size_t i = 0; i < m->count && status == BASE_OK; i++) {
        const retrieval_entry *e = &m->entries[i];
        status = base_buffer_printf(&text,
                                    "segment %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                                    " %08" PRIx32 " %08" PRIx32 " %s\n",
                                    e->file, e->first_id, e->last_id, e->count, e->bytes, e->crc,
                                    e->anchor, e->kind);
    }
    if (status == BASE_OK) {
        status = base_buffer_printf(&text, "crc32c %08" PRIx32 "\n",
                                    base_crc32c(0, text.data, text.size));
    }
    if (status != BASE_OK) {
        base_buffer_free(&text);
        return base_fail(err, status, "cannot lay out the index manifest");
    }
    status = base_file_replace(path, text.data, text.size, 0600, err);
    base_buffer_free(&text);
    return status;
}

void retrieval_manifest_free(retrieval_manifest *m)
{
    base_free(m->entries);
    memset(m, 0, sizeof *m);
}
