/* store/write.c: a document, or a new version of one, becomes episodes. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "store/internal.h"

/* --- checks
 * ------------------------------------------------------------------------------------------ */

static base_status check_name(const char *name, const char *what, bool required, base_error *err)
{
    size_t size = name ? strlen(name) : 0;
    if (required && size == 0) {
        return base_fail(err, BASE_INVALID, "a document needs a %s", what);
    }
    if (size > STORE_NAME_MAX) {
        return base_fail(err, BASE_INVALID, "the %s is longer than %u bytes", what, STORE_NAME_MAX);
    }
    if (size > 0 && base_utf8_check(name, size) != size) {
        return base_fail(err, BASE_INVALID, "the %s is not valid UTF-8", what);
    }
    return BASE_OK;
}

/* Spans must cut the text between code points and leave nothing out. */
static base_status check_spans(const store_new_document *doc, base_error *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < doc->span_count; i++) {
        const store_new_span *span = &doc->spans[i];
        if (span->start_byte != at || span->end_byte <= at || span->end_byte > doc->text_size) {
            return base_fail(err, BASE_INVALID,
                             "span %zu [%llu, %llu) does not continue the text at byte %llu of %zu",
                             i, (unsigned long long)span->start_byte,
                             (unsigned long long)span->end_byte, (unsigned long long)at,
                             doc->text_size);
        }
        if (((uint8_t)doc->text[at] & 0xC0) == 0x80) {
            return base_fail(err, BASE_INVALID, "span %zu begins within a character, at byte %llu",
                             i, (unsigned long long)at);
        }
        base_status status = check_name(span->section, "section", false, err);
        if (status != BASE_OK) {
            return status;
        }
        if (span->vector && (doc->vector_dim == 0 || doc->vector_dim > STORE_VECTOR_DIM_MAX)) {
            return base_fail(err, BASE_INVALID, "vectors of size %zu; 1 to %d is possible",
                             doc->vector_dim, STORE_VECTOR_DIM_MAX);
        }
        for (size_t j = 0; span->vector && j < doc->vector_dim; j++) {
            if (!isfinite(span->vector[j])) {
                return base_fail(err, BASE_INVALID, "the vector of span %zu is not finite", i);
            }
        }
        at = span->end_byte;
    }
    if (at != doc->text_size) {
        return base_fail(err, BASE_INVALID, "the spans end at byte %llu of %zu",
                         (unsigned long long)at, doc->text_size);
    }
    return BASE_OK;
}

static base_status check_head(const store_new_document *doc, base_error *err)
{
    base_status status = check_name(doc->source, "source", true, err);
    if (status == BASE_OK) {
        status = check_name(doc->external_id, "document id", false, err);
    }
    if (status == BASE_OK) {
        status = check_name(doc->title, "title", false, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    if (doc->observed_at_us == BASE_TIME_NONE || doc->observed_at_us == BASE_TIME_MAX) {
        return base_fail(err, BASE_INVALID, "a document needs the time when it was observed");
    }
    if (doc->valid_from_us != BASE_TIME_NONE && doc->valid_to_us != BASE_TIME_NONE &&
        doc->valid_from_us > doc->valid_to_us) {
        return base_fail(err, BASE_INVALID, "valid_from is later than valid_to");
    }
    if ((unsigned)doc->kind > STORE_TURN_ASSISTANT) {
        return base_fail(err, BASE_INVALID, "unknown kind %d of a document", (int)doc->kind);
    }
    if (doc->text_size > STORE_PAYLOAD_MAX / 2 || doc->span_count > UINT32_MAX / 2) {
        return base_fail(err, BASE_LIMIT, "a text of %zu bytes is too long", doc->text_size);
    }
    size_t valid = doc->text_size ? base_utf8_check(doc->text, doc->text_size) : 0;
    if (valid != doc->text_size) {
        return base_fail(err, BASE_INVALID, "the text is not valid UTF-8 at byte %zu", valid);
    }
    const char *nul = doc->text_size ? memchr(doc->text, '\0', doc->text_size) : NULL;
    if (nul) {
        return base_fail(err, BASE_INVALID, "the text holds a NUL at byte %zu",
                         (size_t)(nul - doc->text));
    }
    return BASE_OK;
}

/* All vectors of a store have one size and come from one encoder. */
static base_status check_vectors(store_txn *txn, const store_new_document *doc, base_error *err)
{
    bool any = false;
    for (size_t i = 0; i < doc->span_count && !any; i++) {
        any = doc->spans[i].vector != NULL;
    }
    if (!any) {
        return BASE_OK;
    }
    const char *encoder = doc->encoder ? doc->encoder : "";
    if (strlen(encoder) >= sizeof txn->meta.encoder) {
        return base_fail(err, BASE_INVALID, "the encoder's name is too long: %.80s...", encoder);
    }
    if (txn->meta.vector_dim == 0) {
        txn->meta.vector_dim = (uint32_t)doc->vector_dim;
        memcpy(txn->meta.encoder, encoder, strlen(encoder) + 1);
    }
    if (txn->meta.vector_dim != doc->vector_dim) {
        return base_fail(err, BASE_INVALID,
                         "vectors of size %zu; the store holds vectors of size %u", doc->vector_dim,
                         txn->meta.vector_dim);
    }
    if (encoder[0] && txn->meta.encoder[0] && strcmp(encoder, txn->meta.encoder) != 0) {
        return base_fail(err, BASE_INVALID, "vectors of encoder %s; the store holds those of %s",
                         encoder, txn->meta.encoder);
    }
    return BASE_OK;
}

/* --- which document, which version
 * ------------------------------------------------------------------- */

typedef struct put_state {
    const store_new_document *doc;
    uint8_t content_hash[32], document_key[32];
    uint64_t document; /* 0 = not there yet */
    uint32_t source, version;
} put_state;

static base_status find_document(store_db_txn *txn, put_state *put, base_error *err)
{
    const store_new_document *doc = put->doc;
    store_slice payload;
    base_sha256_of(doc->text, doc->text_size, put->content_hash);
    store_document_key(doc->source, doc->external_id, put->content_hash, put->document_key);
    store_key key = store_key_hash(put->document_key);
    put->document = 0;
    base_status status = store_load(txn, STORE_TABLE_DOCUMENT_KEY, &key, &payload, NULL, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    if (status == BASE_OK && store_u64_decode(payload, &put->document) != BASE_OK) {
        status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_DOCUMENT_KEY, key.data, key.size);
    }
    return status;
}

static bool same_version(const store_version *version, const put_state *put)
{
    const store_new_document *doc = put->doc;
    const char *title = doc->title ? doc->title : "";
    return memcmp(version->content_hash, put->content_hash, 32) == 0 &&
           version->valid_from_us == doc->valid_from_us &&
           version->valid_to_us == doc->valid_to_us && version->title.size == strlen(title) &&
           memcmp(version->title.data, title, version->title.size) == 0;
}

/* Is there a version with the same text, title and times? Only those of the same moment are asked.
 * */
static base_status find_same(store_db_txn *txn, const put_state *put, bool *found, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_key at = store_key_version_time(put->document, put->doc->observed_at_us, 0);
    *found = false;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_VERSION_TIME, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_seek(cursor, &at, &key, &value, err);
    while (status == BASE_OK && !*found && key.size == at.size &&
           memcmp(key.data, at.data, 16) == 0) {
        store_version version;
        status =
            store_load_version(txn, put->document, store_key_number(key.data + 16), &version, err);
        if (status == BASE_OK) {
            *found = same_version(&version, put);
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

/* Has the newest version in time the same text and title? */
static base_status newest_is_same(store_db_txn *txn, const put_state *put, bool *same,
                                  base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_key end = store_key_version_time(put->document, INT64_MAX, UINT32_MAX);
    *same = false;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_VERSION_TIME, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    /* No version has this key: the entry before the place where it would be is the newest. */
    status = store_db_seek(cursor, &end, &key, &value, err);
    if (status == BASE_NOT_FOUND) {
        status = store_db_last(cursor, &key, &value, err);
    } else if (status == BASE_OK) {
        status = store_db_previous(cursor, &key, &value, err);
    }
    if (status == BASE_OK && key.size == end.size && memcmp(key.data, end.data, 8) == 0) {
        store_version version;
        status =
            store_load_version(txn, put->document, store_key_number(key.data + 16), &version, err);
        *same = status == BASE_OK && same_version(&version, put);
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status classify(store_db_txn *txn, put_state *put, store_put_result *result,
                            base_error *err)
{
    bool same = false;
    base_status status = find_document(txn, put, err);
    if (status == BASE_OK && put->document) {
        status = put->doc->observed_at_is_guess ? newest_is_same(txn, put, &same, err)
                                                : find_same(txn, put, &same, err);
    }
    if (status == BASE_OK) {
        *result = !put->document ? STORE_PUT_NEW
                  : same         ? STORE_PUT_UNCHANGED
                                 : STORE_PUT_NEW_VERSION;
    }
    return status;
}

base_status store_peek_document(store *s, const store_new_document *doc, store_put_result *result,
                                base_error *err)
{
    store_reader reader;
    put_state put = {.doc = doc};
    base_status status = check_head(doc, err);
    if (status == BASE_OK) {
        status = store_read_begin(s, &reader, err);
    }
    if (status == BASE_OK) {
        status = classify(reader.txn, &put, result, err);
        store_read_end(s, &reader);
    }
    return status;
}

/* --- writing
 * --------------------------------------------------------------------------------------------- */

/* Find or make the source, and count what this document adds to it. */
static base_status save_source(store_txn *txn, put_state *put, bool new_document, base_error *err)
{
    const char *name = put->doc->source;
    uint8_t hash[32];
    store_source source = {
        .half_life_s = INFINITY, .name = store_slice_of(name, strlen(name)), .counted = true};
    base_status status = store_find_source(txn->db, name, &put->source, err);
    if (status == BASE_OK) {
        status = store_load_source(txn->db, put->source, &source, err);
        if (status == BASE_NOT_FOUND) {
            status = base_fail(err, BASE_CORRUPT, "source \"%s\" has no record", name);
        }
    } else if (status == BASE_NOT_FOUND) {
        uint8_t id[4];
        put->source = txn->meta.next_source++;
        base_put_u32(id, put->source);
        base_sha256_of(name, strlen(name), hash);
        store_key key = store_key_hash(hash);
        base_buffer_clear(&txn->payload);
        status = base_buffer_append(&txn->payload, id, sizeof id);
        status = store_save_status(txn, status, STORE_TABLE_SOURCE_KEY, &key, false, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    source.documents += new_document;
    source.episodes += put->doc->span_count;
    if (put->doc->observed_at_us > source.drift.last_observed_us) {
        source.drift.last_observed_us = put->doc->observed_at_us;
    }
    store_key key = store_key_u32(put->source);
    return store_save_status(txn, store_source_encode(&txn->payload, &source), STORE_TABLE_SOURCE,
                             &key, false, err);
}

/* Make the document, or hand out its next version number. */
static base_status save_document(store_txn *txn, put_state *put, base_error *err)
{
    const char *external_id = put->doc->external_id ? put->doc->external_id : "";
    store_document document = {.source = put->source,
                               .external_id = store_slice_of(external_id, strlen(external_id))};
    base_status status = BASE_OK;
    if (put->document == 0) {
        uint8_t id[8];
        put->document = txn->meta.next_document++;
        txn->meta.documents++;
        memcpy(document.key, put->document_key, 32);
        base_put_u64(id, put->document);
        store_key key = store_key_hash(put->document_key);
        base_buffer_clear(&txn->payload);
        status = base_buffer_append(&txn->payload, id, sizeof id);
        status = store_save_status(txn, status, STORE_TABLE_DOCUMENT_KEY, &key, false, err);
    } else {
        status = store_load_document(txn->db, put->document, &document, err);
        if (status == BASE_NOT_FOUND) {
            status = base_fail(err, BASE_CORRUPT, "document %llu has no record",
                               (unsigned long long)put->document);
        }
    }
    if (status != BASE_OK) {
        return status;
    }
    put->version = ++document.versions;
    store_key key = store_key_u64(put->document);
    return store_save_status(txn, store_document_encode(&txn->payload, &document),
                             STORE_TABLE_DOCUMENT, &key, false, err);
}

static base_status save_version(store_txn *txn, const put_state *put, base_error *err)
{
    const store_new_document *doc = put->doc;
    const char *title = doc->title ? doc->title : "";
    store_version version = {.first_episode = txn->meta.next_episode,
                             .episode_count = (uint32_t)doc->span_count,
                             .kind = doc->kind,
                             .observed_at_us = doc->observed_at_us,
                             .valid_from_us = doc->valid_from_us,
                             .valid_to_us = doc->valid_to_us,
                             .ingested_at_us = txn->clock_us,
                             .text_size = doc->text_size,
                             .title = store_slice_of(title, strlen(title))};
    memcpy(version.content_hash, put->content_hash, 32);
    store_key key = store_key_version(put->document, put->version);
    base_status status = store_save_status(txn, store_version_encode(&txn->payload, &version),
                                           STORE_TABLE_VERSION, &key, false, err);
    if (status == BASE_OK) {
        key = store_key_version_time(put->document, doc->observed_at_us, put->version);
        base_buffer_clear(&txn->payload);
        status = store_save(txn, STORE_TABLE_VERSION_TIME, &key, false, err);
    }
    if (status == BASE_OK) {
        txn->meta.versions++;
        store_chain_add(txn, put->document_key, 32);
        store_chain_add(txn, put->content_hash, 32);
    }
    return status;
}

static base_status save_vector(store_txn *txn, uint64_t id, const float *vector, size_t dim,
                               base_error *err)
{
    uint8_t encoder[32];
    store_key key = store_key_u64(id);
    base_sha256_of(txn->meta.encoder, strlen(txn->meta.encoder), encoder);
    base_status status =
        store_save_status(txn, store_vector_encode(&txn->payload, encoder, vector, dim),
                          STORE_TABLE_VECTOR, &key, true, err);
    if (status == BASE_OK) {
        txn->meta.bytes_vectors += 4 * dim;
    }
    return status;
}

static base_status save_span(store_txn *txn, const put_state *put, size_t index, base_error *err)
{
    const store_new_document *doc = put->doc;
    const store_new_span *span = &doc->spans[index];
    const char *title = doc->title ? doc->title : "", *section = span->section ? span->section : "";
    const char *text = doc->text + span->start_byte;
    size_t text_size = (size_t)(span->end_byte - span->start_byte);
    store_span_record record = {.document = put->document,
                                .version = put->version,
                                .ordinal = (uint32_t)index,
                                .source = put->source,
                                .kind = doc->kind,
                                .start_byte = span->start_byte,
                                .end_byte = span->end_byte,
                                .observed_at_us = doc->observed_at_us,
                                .valid_from_us = doc->valid_from_us,
                                .valid_to_us = doc->valid_to_us,
                                .ingested_at_us = txn->clock_us,
                                .title = store_slice_of(title, strlen(title)),
                                .section = store_slice_of(section, strlen(section)),
                                .text = store_slice_of(text, text_size)};
    base_sha256_of(text, text_size, record.content_hash);
    uint64_t id = txn->meta.next_episode++;
    store_key key = store_key_u64(id);
    base_status status = store_save_status(txn, store_span_encode(&txn->payload, &record),
                                           STORE_TABLE_EPISODE, &key, true, err);
    if (status == BASE_OK && span->vector) {
        status = save_vector(txn, id, span->vector, doc->vector_dim, err);
    }
    if (status == BASE_OK) {
        txn->meta.episodes++;
        txn->meta.bytes_text += text_size;
    }
    return status;
}

base_status store_put_document(store_txn *txn, const store_new_document *doc,
                               store_put_result *result, uint64_t *first_id, size_t *count,
                               base_error *err)
{
    put_state put = {.doc = doc};
    store_put_result kind = STORE_PUT_NEW;
    base_status status = check_head(doc, err);
    if (status == BASE_OK) {
        status = classify(txn->db, &put, &kind, err);
    }
    if (status == BASE_OK && kind == STORE_PUT_UNCHANGED) {
        *result = kind;
        *first_id = 0;
        *count = 0;
        return BASE_OK;
    }
    if (status == BASE_OK) {
        status = check_spans(doc, err);
    }
    if (status == BASE_OK) {
        status = check_vectors(txn, doc, err);
    }
    if (status == BASE_OK) {
        status = save_source(txn, &put, kind == STORE_PUT_NEW, err);
    }
    if (status == BASE_OK) {
        status = save_document(txn, &put, err);
    }
    uint64_t first = txn->meta.next_episode;
    if (status == BASE_OK) {
        status = save_version(txn, &put, err);
    }
    for (size_t i = 0; i < doc->span_count && status == BASE_OK; i++) {
        status = save_span(txn, &put, i, err);
    }
    if (status == BASE_OK && kind == STORE_PUT_NEW_VERSION) {
        status = store_supersede(txn, put.document, put.version, doc->observed_at_us, err);
    }
    if (status == BASE_OK) {
        *result = kind;
        *first_id = doc->span_count ? first : 0;
        *count = doc->span_count;
    }
    return status;
}
