/* store/record.c: encoders and decoders of the formats in record.h. Pure: bytes in, structs out, no
 * database. */
#include "store/record.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

#define META_FIXED 122
#define SOURCE_FIXED 34
#define DOCUMENT_FIXED 42
#define VERSION_FIXED 90
#define SPAN_FIXED 112
#define VECTOR_FIXED 12
#define STATE_SIZE 24
#define STATE_STREAM_SIZE 48 /* with what it replaced */
#define CHANGES_SIZE 24      /* behind a document's external id */
#define DRIFT_SIZE 48        /* behind a source's name */
#define COMMIT_SIZE 32

_Static_assert(STORE_TABLE_COUNT == 14, "table numbers are on disk: only append");

const char *store_table_name(store_table table)
{
    static const char *const names[STORE_TABLE_COUNT] = {
        "meta",    "source", "source_key", "document", "document_key", "version",   "version_time",
        "episode", "vector", "state",      "use",      "kv",           "forgotten", "commit"};
    return (unsigned)table < STORE_TABLE_COUNT ? names[table] : "unknown";
}

/* --- keys ---------------------------------------------------------------------------------- */

static void put_u32_be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Flipping the sign bit makes two's complement sort by value. */
static void put_time_be(uint8_t *p, int64_t time_us)
{
    base_put_u64_be(p, (uint64_t)time_us ^ (UINT64_C(1) << 63));
}

int64_t store_key_time(const uint8_t *p)
{
    return (int64_t)(base_get_u64_be(p) ^ (UINT64_C(1) << 63));
}

uint32_t store_key_number(const uint8_t *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

store_key store_key_meta(void)
{
    store_key key = {.data = "meta", .size = 4};
    return key;
}

store_key store_key_u32(uint32_t id)
{
    store_key key = {.size = 4};
    put_u32_be(key.data, id);
    return key;
}

store_key store_key_u64(uint64_t id)
{
    store_key key = {.size = 8};
    base_put_u64_be(key.data, id);
    return key;
}

store_key store_key_hash(const uint8_t hash[32])
{
    store_key key = {.size = 32};
    memcpy(key.data, hash, 32);
    return key;
}

store_key store_key_version(uint64_t document, uint32_t version)
{
    store_key key = store_key_u64(document);
    put_u32_be(key.data + 8, version);
    key.size = 12;
    return key;
}

store_key store_key_version_time(uint64_t document, int64_t time_us, uint32_t version)
{
    store_key key = store_key_u64(document);
    put_time_be(key.data + 8, time_us);
    put_u32_be(key.data + 16, version);
    key.size = 20;
    return key;
}

store_key store_key_use(uint64_t episode, int64_t time_us)
{
    store_key key = store_key_u64(episode);
    put_time_be(key.data + 8, time_us);
    key.size = 16;
    return key;
}

store_key store_key_kv(uint64_t episode, const uint8_t tag[32])
{
    store_key key = store_key_u64(episode);
    memcpy(key.data + 8, tag, 32);
    key.size = 40;
    return key;
}

store_key store_key_part(uint64_t commit, uint32_t part)
{
    return store_key_version(commit, part);
}

void store_document_key(const char *source, const char *external_id, const uint8_t content_hash[32],
                        uint8_t out[32])
{
    base_sha256 hash;
    base_sha256_begin(&hash);
    base_sha256_add(&hash, source, strlen(source) + 1);
    if (external_id && external_id[0]) {
        base_sha256_add(&hash, external_id, strlen(external_id));
    } else {
        /* A NUL first: no external id begins so. */
        base_sha256_add(&hash, "\0sha256:", 8);
        base_sha256_add(&hash, content_hash, 32);
    }
    base_sha256_end(&hash, out);
}

/* --- the seal -------------------------------------------------------------------------------- */

base_status store_record_seal(base_buffer *out, store_table table, const store_key *key,
                              uint64_t commit, const void *payload, size_t payload_size)
{
    BASE_ASSERT(key->size <= STORE_KEY_MAX);
    BASE_ASSERT((unsigned)table < STORE_TABLE_COUNT);
    if (payload_size > STORE_PAYLOAD_MAX) {
        return BASE_LIMIT;
    }
    uint8_t head[STORE_RECORD_HEAD + STORE_KEY_MAX], tail[STORE_RECORD_TAIL];
    head[0] = 'e';
    head[1] = 'R';
    head[2] = (uint8_t)table;
    head[3] = STORE_RECORD_VERSION;
    base_put_u32(head + 4, (uint32_t)payload_size);
    base_put_u64(head + 8, commit);
    head[16] = (uint8_t)key->size;
    memcpy(head + STORE_RECORD_HEAD, key->data, key->size);
    size_t head_size = STORE_RECORD_HEAD + key->size;
    uint32_t crc = base_crc32c(0, head, head_size);
    base_put_u32(tail, base_crc32c(crc, payload, payload_size));
    base_buffer_clear(out);
    base_status status = base_buffer_append(out, head, head_size);
    if (status == BASE_OK) {
        status = base_buffer_append(out, payload, payload_size);
    }
    if (status == BASE_OK) {
        status = base_buffer_append(out, tail, sizeof tail);
    }
    return status;
}

/* Sizes and checksum, without asking which record it should be. */
static base_status record_check(const uint8_t *data, size_t size, size_t *record_size)
{
    if (size < STORE_RECORD_HEAD + STORE_RECORD_TAIL || data[0] != 'e' || data[1] != 'R') {
        return BASE_CORRUPT;
    }
    size_t key_size = data[16], payload_size = base_get_u32(data + 4);
    if (data[2] >= STORE_TABLE_COUNT || key_size > STORE_KEY_MAX ||
        payload_size > STORE_PAYLOAD_MAX) {
        return BASE_CORRUPT;
    }
    size_t body = STORE_RECORD_HEAD + key_size + payload_size;
    if (size < body + STORE_RECORD_TAIL ||
        base_crc32c(0, data, body) != base_get_u32(data + body)) {
        return BASE_CORRUPT;
    }
    *record_size = body + STORE_RECORD_TAIL;
    return data[3] > STORE_RECORD_VERSION ? BASE_VERSION : BASE_OK;
}

base_status store_record_open(store_table table, const void *key, size_t key_size,
                              store_slice value, uint64_t *commit, store_slice *payload)
{
    size_t record_size = 0;
    base_status status = record_check(value.data, value.size, &record_size);
    if (status != BASE_OK) {
        return status;
    }
    if (record_size != value.size || value.data[2] != (uint8_t)table ||
        value.data[16] != key_size || memcmp(value.data + STORE_RECORD_HEAD, key, key_size) != 0) {
        return BASE_CORRUPT;
    }
    if (commit) {
        *commit = base_get_u64(value.data + 8);
    }
    payload->data = value.data + STORE_RECORD_HEAD + key_size;
    payload->size = base_get_u32(value.data + 4);
    return BASE_OK;
}

bool store_record_probe(const uint8_t *data, size_t size, store_table *table, store_key *key,
                        uint64_t *commit, size_t *record_size)
{
    if (record_check(data, size, record_size) != BASE_OK) {
        return false;
    }
    *table = (store_table)data[2];
    key->size = data[16];
    memcpy(key->data, data + STORE_RECORD_HEAD, key->size);
    *commit = base_get_u64(data + 8);
    return true;
}

/* --- helpers --------------------------------------------------------------------------------- */

char *store_slice_copy(store_slice slice)
{
    return base_strndup(slice.data ? (const char *)slice.data : "", slice.size);
}

static base_status append_fixed(base_buffer *out, const uint8_t *fixed, size_t size)
{
    base_buffer_clear(out);
    return base_buffer_append(out, fixed, size);
}

static base_status append_slice(base_buffer *out, base_status status, store_slice slice)
{
    return status == BASE_OK ? base_buffer_append(out, slice.data, slice.size) : status;
}

/* Tail of a payload that consists of one text of a u16 size. */
static base_status take_name(store_slice payload, size_t fixed, size_t size_at, store_slice *name)
{
    if (payload.size < fixed || payload.size - fixed != base_get_u16(payload.data + size_at)) {
        return BASE_CORRUPT;
    }
    name->data = payload.data + fixed;
    name->size = payload.size - fixed;
    return BASE_OK;
}

static int64_t get_i64(const uint8_t *p)
{
    return (int64_t)base_get_u64(p);
}

static void put_i64(uint8_t *p, int64_t v)
{
    base_put_u64(p, (uint64_t)v);
}

static bool kind_valid(uint8_t kind)
{
    return kind <= STORE_TURN_ASSISTANT;
}

/* --- payloads -------------------------------------------------------------------------------- */

base_status store_meta_encode(base_buffer *out, const store_meta *m)
{
    uint8_t p[META_FIXED];
    store_slice encoder = store_slice_of(m->encoder, strlen(m->encoder));
    base_put_u32(p, m->format);
    base_put_u32(p + 4, m->flags);
    base_put_u64(p + 8, m->last_commit);
    base_put_u64(p + 16, m->next_episode);
    base_put_u64(p + 24, m->next_document);
    base_put_u32(p + 32, m->next_source);
    base_put_u32(p + 36, m->vector_dim);
    base_put_u64(p + 40, m->episodes);
    base_put_u64(p + 48, m->documents);
    base_put_u64(p + 56, m->versions);
    base_put_u64(p + 64, m->superseded);
    base_put_u64(p + 72, m->kv_entries);
    base_put_u64(p + 80, m->uses);
    base_put_u64(p + 88, m->dropped_writes);
    base_put_u64(p + 96, m->bytes_text);
    base_put_u64(p + 104, m->bytes_vectors);
    base_put_u64(p + 112, m->bytes_kv);
    base_put_u16(p + 120, (uint16_t)encoder.size);
    uint8_t compared[8];
    base_put_u64(compared, m->compared);
    base_status status = append_slice(out, append_fixed(out, p, sizeof p), encoder);
    return status == BASE_OK && m->compared ? base_buffer_append(out, compared, sizeof compared)
                                            : status;
}

base_status store_meta_decode(store_slice payload, store_meta *m)
{
    store_slice encoder;
    const uint8_t *p = payload.data;
    if (payload.size >= 4 && base_get_u32(p) > STORE_FORMAT_VERSION) {
        m->format = base_get_u32(p);
        return BASE_VERSION;
    }
    m->compared = 0;
    if (payload.size >= META_FIXED + 8 &&
        payload.size - META_FIXED - 8 == base_get_u16(payload.data + 120)) {
        m->compared = base_get_u64(p + payload.size - 8);
        payload.size -= 8;
    }
    base_status status = take_name(payload, META_FIXED, 120, &encoder);
    if (status != BASE_OK || encoder.size >= sizeof m->encoder) {
        return BASE_CORRUPT;
    }
    m->format = base_get_u32(p);
    m->flags = base_get_u32(p + 4);
    m->last_commit = base_get_u64(p + 8);
    m->next_episode = base_get_u64(p + 16);
    m->next_document = base_get_u64(p + 24);
    m->next_source = base_get_u32(p + 32);
    m->vector_dim = base_get_u32(p + 36);
    m->episodes = base_get_u64(p + 40);
    m->documents = base_get_u64(p + 48);
    m->versions = base_get_u64(p + 56);
    m->superseded = base_get_u64(p + 64);
    m->kv_entries = base_get_u64(p + 72);
    m->uses = base_get_u64(p + 80);
    m->dropped_writes = base_get_u64(p + 88);
    m->bytes_text = base_get_u64(p + 96);
    m->bytes_vectors = base_get_u64(p + 104);
    m->bytes_kv = base_get_u64(p + 112);
    memcpy(m->encoder, encoder.data, encoder.size);
    m->encoder[encoder.size] = '\0';
    return m->vector_dim <= STORE_VECTOR_DIM_MAX ? BASE_OK : BASE_CORRUPT;
}

static void put_changes(uint8_t *p /* [CHANGES_SIZE] */, const store_drift *d)
{
    uint64_t bits;
    memcpy(&bits, &d->first_sum_s, sizeof bits);
    base_put_u64(p, d->changed);
    base_put_u64(p + 8, d->changes);
    base_put_u64(p + 16, bits);
}

static void get_changes(const uint8_t *p /* [CHANGES_SIZE] */, store_drift *d)
{
    uint64_t bits = base_get_u64(p + 16);
    d->changed = base_get_u64(p);
    d->changes = base_get_u64(p + 8);
    memcpy(&d->first_sum_s, &bits, sizeof bits);
}

/* Take a tail of a known size off a payload that is otherwise `fixed` bytes and the text whose size
 * stands at `size_at`; NULL when there is none. */
static const uint8_t *take_tail(store_slice *payload, size_t fixed, size_t size_at, size_t tail)
{
    if (payload->size < fixed + tail ||
        payload->size - fixed - tail != base_get_u16(payload->data + size_at)) {
        return NULL;
    }
    payload->size -= tail;
    return payload->data + payload->size;
}

base_status store_source_encode(base_buffer *out, const store_source *s)
{
    uint8_t p[SOURCE_FIXED];
    uint64_t bits;
    BASE_ASSERT(s->name.size <= STORE_NAME_MAX);
    memcpy(&bits, &s->half_life_s, sizeof bits);
    base_put_u64(p, bits);
    base_put_u64(p + 8, s->evidence);
    base_put_u64(p + 16, s->documents);
    base_put_u64(p + 24, s->episodes);
    base_put_u16(p + 32, (uint16_t)s->name.size);
    base_status status = append_slice(out, append_fixed(out, p, sizeof p), s->name);
    const store_drift *d = &s->drift;
    bool any =
        d->changes > 0 || d->last_observed_us != 0 || s->closed > 0 || s->given || s->counted;
    if (status != BASE_OK || !any) {
        return status;
    }
    uint8_t tail[DRIFT_SIZE];
    put_changes(tail, d);
    put_i64(tail + 24, d->last_observed_us);
    base_put_u64(tail + 32, (uint64_t)s->given | (uint64_t)s->counted << 1);
    base_put_u64(tail + 40, s->closed);
    return base_buffer_append(out, tail, sizeof tail);
}

base_status store_source_decode(store_slice payload, store_source *s)
{
    const uint8_t *tail = take_tail(&payload, SOURCE_FIXED, 32, DRIFT_SIZE);
    base_status status = take_name(payload, SOURCE_FIXED, 32, &s->name);
    if (status != BASE_OK) {
        return status;
    }
    uint64_t bits = base_get_u64(payload.data);
    memcpy(&s->half_life_s, &bits, sizeof bits);
    s->evidence = base_get_u64(payload.data + 8);
    s->documents = base_get_u64(payload.data + 16);
    s->episodes = base_get_u64(payload.data + 24);
    memset(&s->drift, 0, sizeof s->drift);
    s->closed = 0;
    s->counted = false;
    s->given = isfinite(s->half_life_s); /* before drift was measured, all came from outside */
    if (tail) {
        get_changes(tail, &s->drift);
        s->drift.last_observed_us = get_i64(tail + 24);
        s->given = base_get_u64(tail + 32) & 1;
        s->counted = base_get_u64(tail + 32) >> 1 & 1;
        s->closed = base_get_u64(tail + 40);
    }
    return s->half_life_s > 0.0 ? BASE_OK : BASE_CORRUPT;
}

base_status store_document_encode(base_buffer *out, const store_document *d)
{
    uint8_t p[DOCUMENT_FIXED];
    BASE_ASSERT(d->external_id.size <= STORE_NAME_MAX);
    base_put_u32(p, d->source);
    base_put_u32(p + 4, d->versions);
    memcpy(p + 8, d->key, 32);
    base_put_u16(p + 40, (uint16_t)d->external_id.size);
    base_status status = append_slice(out, append_fixed(out, p, sizeof p), d->external_id);
    if (status == BASE_OK && d->drift.changed > 0) {
        uint8_t tail[CHANGES_SIZE];
        put_changes(tail, &d->drift);
        status = base_buffer_append(out, tail, sizeof tail);
    }
    return status;
}

base_status store_document_decode(store_slice payload, store_document *d)
{
    const uint8_t *tail = take_tail(&payload, DOCUMENT_FIXED, 40, CHANGES_SIZE);
    base_status status = take_name(payload, DOCUMENT_FIXED, 40, &d->external_id);
    if (status != BASE_OK) {
        return status;
    }
    d->source = base_get_u32(payload.data);
    d->versions = base_get_u32(payload.data + 4);
    memcpy(d->key, payload.data + 8, 32);
    memset(&d->drift, 0, sizeof d->drift);
    if (tail) {
        get_changes(tail, &d->drift);
    }
    return BASE_OK;
}

base_status store_version_encode(base_buffer *out, const store_version *v)
{
    uint8_t p[VERSION_FIXED] = {0};
    BASE_ASSERT(v->title.size <= STORE_NAME_MAX);
    base_put_u64(p, v->first_episode);
    base_put_u32(p + 8, v->episode_count);
    p[12] = (uint8_t)v->kind;
    put_i64(p + 16, v->observed_at_us);
    put_i64(p + 24, v->valid_from_us);
    put_i64(p + 32, v->valid_to_us);
    put_i64(p + 40, v->ingested_at_us);
    base_put_u64(p + 48, v->text_size);
    memcpy(p + 56, v->content_hash, 32);
    base_put_u16(p + 88, (uint16_t)v->title.size);
    return append_slice(out, append_fixed(out, p, sizeof p), v->title);
}

base_status store_version_decode(store_slice payload, store_version *v)
{
    const uint8_t *p = payload.data;
    base_status status = take_name(payload, VERSION_FIXED, 88, &v->title);
    if (status != BASE_OK || !kind_valid(p[12])) {
        return BASE_CORRUPT;
    }
    v->first_episode = base_get_u64(p);
    v->episode_count = base_get_u32(p + 8);
    v->kind = (store_kind)p[12];
    v->observed_at_us = get_i64(p + 16);
    v->valid_from_us = get_i64(p + 24);
    v->valid_to_us = get_i64(p + 32);
    v->ingested_at_us = get_i64(p + 40);
    v->text_size = base_get_u64(p + 48);
    memcpy(v->content_hash, p + 56, 32);
    return v->first_episode <= UINT64_MAX - v->episode_count ? BASE_OK : BASE_CORRUPT;
}

base_status store_span_encode(base_buffer *out, const store_span_record *s)
{
    uint8_t p[SPAN_FIXED] = {0};
    BASE_ASSERT(s->title.size <= STORE_NAME_MAX);
    BASE_ASSERT(s->section.size <= STORE_NAME_MAX);
    BASE_ASSERT(s->text.size <= UINT32_MAX);
    base_put_u64(p, s->document);
    base_put_u32(p + 8, s->version);
    base_put_u32(p + 12, s->ordinal);
    base_put_u32(p + 16, s->source);
    p[20] = (uint8_t)s->kind;
    base_put_u64(p + 24, s->start_byte);
    base_put_u64(p + 32, s->end_byte);
    put_i64(p + 40, s->observed_at_us);
    put_i64(p + 48, s->valid_from_us);
    put_i64(p + 56, s->valid_to_us);
    put_i64(p + 64, s->ingested_at_us);
    memcpy(p + 72, s->content_hash, 32);
    base_put_u16(p + 104, (uint16_t)s->title.size);
    base_put_u16(p + 106, (uint16_t)s->section.size);
    base_put_u32(p + 108, (uint32_t)s->text.size);
    base_status status = append_fixed(out, p, sizeof p);
    status = append_slice(out, status, s->title);
    status = append_slice(out, status, s->section);
    return append_slice(out, status, s->text);
}

base_status store_span_decode(store_slice payload, store_span_record *s)
{
    const uint8_t *p = payload.data;
    if (payload.size < SPAN_FIXED || !kind_valid(p[20])) {
        return BASE_CORRUPT;
    }
    s->document = base_get_u64(p);
    s->version = base_get_u32(p + 8);
    s->ordinal = base_get_u32(p + 12);
    s->source = base_get_u32(p + 16);
    s->kind = (store_kind)p[20];
    s->start_byte = base_get_u64(p + 24);
    s->end_byte = base_get_u64(p + 32);
    s->observed_at_us = get_i64(p + 40);
    s->valid_from_us = get_i64(p + 48);
    s->valid_to_us = get_i64(p + 56);
    s->ingested_at_us = get_i64(p + 64);
    memcpy(s->content_hash, p + 72, 32);
    s->title.size = base_get_u16(p + 104);
    s->section.size = base_get_u16(p + 106);
    s->text.size = base_get_u32(p + 108);
    s->title.data = p + SPAN_FIXED;
    s->section.data = s->title.data + s->title.size;
    s->text.data = s->section.data + s->section.size;
    if (payload.size != (uint64_t)SPAN_FIXED + s->title.size + s->section.size + s->text.size ||
        s->end_byte < s->start_byte || s->end_byte - s->start_byte != s->text.size) {
        return BASE_CORRUPT;
    }
    return BASE_OK;
}

base_status store_vector_encode(base_buffer *out, const uint8_t encoder[8], const float *vector,
                                size_t dim)
{
    uint8_t p[VECTOR_FIXED];
    BASE_ASSERT(dim <= STORE_VECTOR_DIM_MAX);
    memcpy(p, encoder, 8);
    base_put_u32(p + 8, (uint32_t)dim);
    base_status status = append_fixed(out, p, sizeof p);
    for (size_t i = 0; i < dim && status == BASE_OK; i++) {
        uint8_t value[4];
        base_put_f32(value, vector[i]);
        status = base_buffer_append(out, value, sizeof value);
    }
    return status;
}

base_status store_vector_decode(store_slice payload, store_vector_record *v)
{
    if (payload.size < VECTOR_FIXED) {
        return BASE_CORRUPT;
    }
    memcpy(v->encoder, payload.data, 8);
    v->dim = base_get_u32(payload.data + 8);
    v->values = payload.data + VECTOR_FIXED;
    if (v->dim == 0 || v->dim > STORE_VECTOR_DIM_MAX || payload.size != VECTOR_FIXED + 4 * v->dim) {
        return BASE_CORRUPT;
    }
    return BASE_OK;
}

void store_vector_copy(const store_vector_record *v, float *out)
{
    for (size_t i = 0; i < v->dim; i++) {
        out[i] = base_get_f32(v->values + 4 * i);
    }
}

base_status store_state_encode(base_buffer *out, const store_state *s)
{
    uint8_t p[STATE_STREAM_SIZE];
    bool stream = s->first_observed_us != BASE_TIME_NONE;
    put_i64(p, s->superseded_at_us);
    base_put_u64(p + 8, s->superseded_by);
    base_put_u64(p + 16, s->use_count);
    base_put_u64(p + 24, s->replaced);
    base_put_u64(p + 32, s->changes);
    put_i64(p + 40, s->first_observed_us);
    return append_fixed(out, p, stream ? STATE_STREAM_SIZE : STATE_SIZE);
}

base_status store_state_decode(store_slice payload, store_state *s)
{
    if (payload.size != STATE_SIZE && payload.size != STATE_STREAM_SIZE) {
        return BASE_CORRUPT;
    }
    bool stream = payload.size == STATE_STREAM_SIZE;
    s->superseded_at_us = get_i64(payload.data);
    s->superseded_by = base_get_u64(payload.data + 8);
    s->use_count = base_get_u64(payload.data + 16);
    s->replaced = stream ? base_get_u64(payload.data + 24) : 0;
    s->changes = stream ? base_get_u64(payload.data + 32) : 0;
    s->first_observed_us = stream ? get_i64(payload.data + 40) : BASE_TIME_NONE;
    return BASE_OK;
}

base_status store_commit_encode(base_buffer *out, const store_commit_record *c)
{
    uint8_t p[COMMIT_SIZE];
    put_i64(p, c->clock_us);
    base_put_u64(p + 8, c->first_episode);
    base_put_u64(p + 16, c->next_episode);
    base_put_u64(p + 24, c->chain);
    return append_fixed(out, p, sizeof p);
}

base_status store_commit_decode(store_slice payload, store_commit_record *c)
{
    if (payload.size != COMMIT_SIZE) {
        return BASE_CORRUPT;
    }
    c->clock_us = get_i64(payload.data);
    c->first_episode = base_get_u64(payload.data + 8);
    c->next_episode = base_get_u64(payload.data + 16);
    c->chain = base_get_u64(payload.data + 24);
    return c->first_episode <= c->next_episode ? BASE_OK : BASE_CORRUPT;
}

base_status store_u32_decode(store_slice payload, uint32_t *value)
{
    if (payload.size != 4) {
        return BASE_CORRUPT;
    }
    *value = base_get_u32(payload.data);
    return BASE_OK;
}

base_status store_u64_decode(store_slice payload, uint64_t *value)
{
    if (payload.size != 8) {
        return BASE_CORRUPT;
    }
    *value = base_get_u64(payload.data);
    return BASE_OK;
}

base_status store_mass_decode(store_slice payload, float *mass)
{
    if (payload.size != 4) {
        return BASE_CORRUPT;
    }
    *mass = base_get_f32(payload.data);
    return BASE_OK;
}

base_status store_ids_check(store_slice payload)
{
    if (payload.size % 8 != 0) {
        return BASE_CORRUPT;
    }
    for (size_t i = 8; i < payload.size; i += 8) {
        if (base_get_u64(payload.data + i) <= base_get_u64(payload.data + i - 8)) {
            return BASE_CORRUPT;
        }
    }
    return BASE_OK;
}
