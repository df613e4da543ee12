/* store/record.h: the bytes of every record of a store. Numbers are little-endian unless "BE" is
 * said.
 *
 * Each value in the key-value database is a *sealed* record. The seal repeats table and key, so
 * that a value that sits under a wrong key is noticed, and so that records can be found again in a
 * damaged file by their bytes alone (salvage.c).
 *
 *   offset  size  field
 *        0     2  magic "eR"
 *        2     1  table (store_table)
 *        3     1  record version, STORE_RECORD_VERSION
 *        4     4  payload size p (u32)
 *        8     8  id of the commit that wrote the record (u64)
 *       16     1  key size k
 *       17     k  key, as in the database
 *     17+k     p  payload
 *   17+k+p     4  CRC-32C (u32) of bytes 0 .. 17+k+p-1
 *
 * Validity rule: magic, table, key and sizes agree and the CRC holds; a larger record version is
 * BASE_VERSION, everything else that does not fit is BASE_CORRUPT. The numbers of a record hold NUL
 * bytes and texts hold none: no document can forge a record.
 *
 * Keys (u64, u32: big-endian so that they sort by value; times: u64 BE with the sign bit flipped)
 *   META         "meta"                                   one record
 *   SOURCE       source u32
 *   SOURCE_KEY   SHA-256 of the name                      -> source
 *   DOCUMENT     document u64
 *   DOCUMENT_KEY SHA-256 of source NUL external id        -> document
 *   VERSION      document u64, version u32
 *   VERSION_TIME document u64, observed_at, version u32   order of versions in time
 *   EPISODE      episode u64                              immutable
 *   VECTOR       episode u64
 *   STATE        episode u64                              absent = never superseded, never used
 *   USE          episode u64, time
 *   KV           episode u64, tag [32]
 *   FORGOTTEN    commit u64, part u32
 *   COMMIT       commit u64
 *
 * Payloads: offset, size, field ("." = the rest)
 *   META           0 4 format version   4 4 flags: bit 0 scrub pending
 *                  8 8 last commit     16 8 next episode     24 8 next document   32 4 next source
 *                 36 4 vector dim      40 8 episodes         48 8 documents       56 8 versions
 *                 64 8 superseded      72 8 kv entries       80 8 uses            88 8 dropped
 *                 96 8 bytes of text  104 8 bytes of vectors                     112 8 bytes of kv
 *                120 2 encoder size   122 . encoder          then, when not 0:
 *                  . 8 last episode compared with the others (supersession across documents)
 *   SOURCE         0 8 half-life in seconds (f64, +inf = not measured)             8 8 evidence
 *                 16 8 documents       24 8 episodes         32 2 name size       34 . name
 *                  then, when anything was measured (store_drift):
 *                  . 8 changed streams  . 8 changes           . 8 sum of their first times (f64, s)
 *                  . 8 last observed    . 8 flags: bit 0 half-life given from outside,
 *                                              bit 1 counted since its first episode
 *                  . 8 closed episodes
 *   SOURCE_KEY     0 4 source
 *   DOCUMENT       0 4 source           4 4 versions handed out                    8 32 its key
 *                 40 2 external id size                      42 . external id
 *                  then, when streams changed whose newest episode is in it:
 *                  . 8 changed streams  . 8 changes           . 8 sum of their first times (f64, s)
 *   DOCUMENT_KEY   0 8 document
 *   VERSION        0 8 first episode    8 4 episode count    12 1 kind            13 3 zero
 *                 16 8 observed_at     24 8 valid_from       32 8 valid_to        40 8 ingested_at
 *                 48 8 text size       56 32 SHA-256 of text 88 2 title size      90 . title
 *   VERSION_TIME  empty
 *   EPISODE        0 8 document         8 4 version          12 4 ordinal         16 4 source
 *                 20 1 kind            21 3 zero             24 8 start byte      32 8 end byte
 *                 40 8 observed_at     48 8 valid_from       56 8 valid_to        64 8 ingested_at
 *                 72 32 SHA-256 of text                     104 2 title size     106 2 section size
 *                108 4 text size      112 . title, section, text
 *   VECTOR         0 8 first 8 bytes of SHA-256 of the encoder's name  8 4 dim d  12 4d f32[d]
 *   STATE          0 8 superseded_at    8 8 superseded_by    16 8 use count
 *                  then, when it replaced or repeats another: 24 8 replaced  32 8 changes
 *                 40 8 observed_at of the first of its stream
 *   USE            0 4 attention mass f32
 *   KV            opaque
 *   FORGOTTEN     u64 ids, ascending
 *   COMMIT         0 8 clock            8 8 first episode    16 8 next episode
 *                 24 8 chain (first 8 bytes of a SHA-256, see internal.h)
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "base/mem.h"
#include "store/store.h"

#define STORE_RECORD_VERSION 1
#define STORE_RECORD_HEAD 17
#define STORE_RECORD_TAIL 4
#define STORE_KEY_MAX 40
#define STORE_NAME_MAX 65535u /* bytes of a title, section, source, external id or encoder */
#define STORE_PAYLOAD_MAX (UINT32_MAX / 4) /* 1 GiB: also the cap of base_buffer */

typedef enum store_table {
    STORE_TABLE_META,
    STORE_TABLE_SOURCE,
    STORE_TABLE_SOURCE_KEY,
    STORE_TABLE_DOCUMENT,
    STORE_TABLE_DOCUMENT_KEY,
    STORE_TABLE_VERSION,
    STORE_TABLE_VERSION_TIME,
    STORE_TABLE_EPISODE,
    STORE_TABLE_VECTOR,
    STORE_TABLE_STATE,
    STORE_TABLE_USE,
    STORE_TABLE_KV,
    STORE_TABLE_FORGOTTEN,
    STORE_TABLE_COMMIT,
    STORE_TABLE_COUNT
} store_table;

/* Name of the sub-database ("episode"); never NULL for a table below STORE_TABLE_COUNT. */
const char *store_table_name(store_table table);

/* Borrowed bytes. Out of the database: valid until its transaction ends. */
typedef struct store_slice {
    const uint8_t *data;
    size_t size;
} store_slice;

typedef struct store_key {
    uint8_t data[STORE_KEY_MAX];
    size_t size;
} store_key;

store_key store_key_meta(void);
store_key store_key_u32(uint32_t id);
store_key store_key_u64(uint64_t id);
store_key store_key_hash(const uint8_t hash[32]);
store_key store_key_version(uint64_t document, uint32_t version);
store_key store_key_version_time(uint64_t document, int64_t time_us, uint32_t version);
store_key store_key_use(uint64_t episode, int64_t time_us);
store_key store_key_kv(uint64_t episode, const uint8_t tag[32]);
store_key store_key_part(uint64_t commit, uint32_t part);
/* The times in VERSION_TIME and USE keys. */
int64_t store_key_time(const uint8_t *p /* [8] */);
/* The u32 in SOURCE, VERSION, VERSION_TIME and FORGOTTEN keys. */
uint32_t store_key_number(const uint8_t *p /* [4] */);
/* DOCUMENT_KEY of (source, external id). When external_id is "", content_hash stands in for it. */
void store_document_key(const char *source, const char *external_id, const uint8_t content_hash[32],
                        uint8_t out[32]);

/* Seal payload into out (cleared first). Errors: BASE_NO_MEMORY, BASE_LIMIT. */
base_status store_record_seal(base_buffer *out, store_table table, const store_key *key,
                              uint64_t commit, const void *payload, size_t payload_size);
/* Check a sealed value found under key; *payload borrows from it. BASE_CORRUPT, BASE_VERSION. */
base_status store_record_open(store_table table, const void *key, size_t key_size,
                              store_slice value, uint64_t *commit, store_slice *payload);
/* Does a whole valid record start at data? Fills table, key, size of the record; used to salvage.
 * */
bool store_record_probe(const uint8_t *data, size_t size, store_table *table, store_key *key,
                        uint64_t *commit, size_t *record_size);

/* --- payloads: text members borrow from the slice on decode; encode clears out first
 * ---------------- */

typedef struct store_meta {
    uint32_t format, flags;
    uint64_t last_commit, next_episode, next_document;
    uint32_t next_source, vector_dim;
    uint64_t episodes, documents, versions, superseded, kv_entries, uses, dropped_writes;
    uint64_t bytes_text, bytes_vectors, bytes_kv;
    char encoder[512]; /* NUL-terminated, "" until the first vector */
    uint64_t compared; /* episodes up to this id were compared with the others (ageing.c) */
} store_meta;
#define STORE_META_SCRUB_PENDING 1u
base_status store_meta_encode(base_buffer *out, const store_meta *meta);
base_status store_meta_decode(store_slice payload, store_meta *meta);

typedef struct store_source {
    double half_life_s;
    uint64_t evidence, documents, episodes;
    store_slice name;
    store_drift drift; /* streams: see store_source_drift */
    uint64_t closed;   /* episodes that something replaced */
    bool given;        /* half_life_s comes from outside */
    bool counted;      /* drift and closed hold for all of its episodes */
} store_source;
base_status store_source_encode(base_buffer *out, const store_source *source);
base_status store_source_decode(store_slice payload, store_source *source);

typedef struct store_document {
    uint32_t source, versions;
    uint8_t key[32];
    store_slice external_id;
    store_drift drift; /* of the streams whose newest episode is in it; streams, last_observed 0 */
} store_document;
base_status store_document_encode(base_buffer *out, const store_document *document);
base_status store_document_decode(store_slice payload, store_document *document);

typedef struct store_version {
    uint64_t first_episode;
    uint32_t episode_count;
    store_kind kind;
    int64_t observed_at_us, valid_from_us, valid_to_us, ingested_at_us;
    uint64_t text_size;
    uint8_t content_hash[32];
    store_slice title;
} store_version;
base_status store_version_encode(base_buffer *out, const store_version *version);
base_status store_version_decode(store_slice payload, store_version *version);

typedef struct store_span_record {
    uint64_t document;
    uint32_t version, ordinal, source;
    store_kind kind;
    uint64_t start_byte, end_byte;
    int64_t observed_at_us, valid_from_us, valid_to_us, ingested_at_us;
    uint8_t content_hash[32];
    store_slice title, section, text;
} store_span_record;
base_status store_span_encode(base_buffer *out, const store_span_record *span);
/* Also checks what can be checked within the record: text size = byte range. */
base_status store_span_decode(store_slice payload, store_span_record *span);

typedef struct store_vector_record {
    uint8_t encoder[8];
    size_t dim;
    const uint8_t *values; /* [dim] f32 little-endian, unaligned */
} store_vector_record;
base_status store_vector_encode(base_buffer *out, const uint8_t encoder[8], const float *vector,
                                size_t dim);
base_status store_vector_decode(store_slice payload, store_vector_record *vector);
void store_vector_copy(const store_vector_record *vector, float *out /* [dim] */);

typedef struct store_state {
    int64_t superseded_at_us; /* BASE_TIME_MAX = open */
    uint64_t superseded_by, use_count;
    uint64_t replaced;          /* the episode that it replaced, 0 = none */
    uint64_t changes;           /* how often its stream had changed when it came */
    int64_t first_observed_us;  /* of its stream; BASE_TIME_NONE: it is the first */
} store_state;
base_status store_state_encode(base_buffer *out, const store_state *state);
base_status store_state_decode(store_slice payload, store_state *state);

typedef struct store_commit_record {
    int64_t clock_us;
    uint64_t first_episode, next_episode; /* episodes [first, next) were written by it */
    uint64_t chain;
} store_commit_record;
base_status store_commit_encode(base_buffer *out, const store_commit_record *commit);
base_status store_commit_decode(store_slice payload, store_commit_record *commit);

base_status store_u32_decode(store_slice payload, uint32_t *value);
base_status store_u64_decode(store_slice payload, uint64_t *value);
base_status store_mass_decode(store_slice payload, float *mass);
/* FORGOTTEN: count = payload.size / 8, id i by base_get_u64(payload.data + 8 * i). BASE_CORRUPT
 * when not a multiple or not ascending. */
base_status store_ids_check(store_slice payload);

/* NUL-terminated copy of a slice; NULL when out of memory. base_free. */
char *store_slice_copy(store_slice slice);
static inline store_slice store_slice_of(const char *text, size_t size)
{
    store_slice slice = {(const uint8_t *)text, size};
    return slice;
}

#endif
