/* Damage: verify names it and never crashes; repair keeps every whole record and says what is lost.
 * */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "store/db.h"
#include "store_testing.h"

#define DOCUMENTS 40
enum { NODE_DOCUMENTS = 6, NODE_TEXT = 5000, NODE_DIM = 600 };

static void data_path(void **state, char out[4096])
{
    snprintf(out, 4096, "%s/data.mdb", (const char *)*state);
}

/* Documents with vectors, uses, KV and a second version of each tenth. */
static void fill(void **state)
{
    store *s = open_store(*state);
    float vector[8] = {0.6f, 0.8f};
    uint8_t tag[32] = {9};
    char id[16], text[128];
    for (int i = 0; i < DOCUMENTS; i++) {
        store_new_span spans[SPANS_MAX];
        snprintf(id, sizeof id, "d%d", i);
        snprintf(text, sizeof text, "Entry %d has colour %d.|Second line %d.|Third line %d.", i,
                 7 * i, i, i);
        store_new_document doc =
            cut_document(i % 2 ? "odd" : "even", id, text, (i + 1) * DAY, spans);
        doc.vector_dim = 8;
        doc.encoder = "e";
        spans[0].vector = spans[1].vector = vector;
        store_txn *txn;
        store_put_result result;
        uint64_t first;
        size_t count;
        assert_ok(store_begin(s, DAY, &txn, err));
        assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
        assert_ok(store_put_use(txn, first, 50 * DAY, 0.5f, err));
        assert_ok(store_put_kv(txn, first, tag, text, 100, err));
        if (i % 10 == 0) {
            store_new_document second =
                cut_document("even", id, "New text.|Second line.", 90 * DAY, spans);
            assert_ok(store_put_document(txn, &second, &result, &first, &count, err));
        }
        assert_ok(store_commit(txn, err));
    }
    store_close(s);
}
#define EPISODES (3 * DOCUMENTS + 2 * (DOCUMENTS / 10))

static bool has_problem(const store_verify_report *report, const char *kind, uint64_t id)
{
    for (size_t i = 0; i < report->count; i++) {
        if (strcmp(report->problems[i].kind, kind) == 0 &&
            (id == 0 || report->problems[i].id == id)) {
            return true;
        }
    }
    return false;
}

/* Offset in data.mdb of a text, which must be there once per occurrence asked for. */
static long find_bytes(const char *path, const void *wanted, size_t size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long length = ftell(file), found = -1;
    char *bytes = test_malloc((size_t)length);
    rewind(file);
    assert_int_equal(fread(bytes, 1, (size_t)length, file), length);
    fclose(file);
    for (long i = 0; i + (long)size <= length && found < 0; i++) {
        if (memcmp(bytes + i, wanted, size) == 0) {
            found = i;
        }
    }
    test_free(bytes);
    return found;
}

static void flip_bit(const char *path, long offset, int bit)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, offset, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, offset, SEEK_SET);
    fputc(byte ^ 1 << bit, file);
    fclose(file);
}

static base_buffer read_file(const char *path)
{
    base_map map;
    base_buffer bytes = {0};
    assert_ok(base_map_open(path, &map, err));
    assert_int_equal(base_buffer_append(&bytes, map.data, map.size), BASE_OK);
    base_map_close(&map);
    return bytes;
}

static void write_file(const char *path, const base_buffer *bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->data, 1, bytes->size, file), bytes->size);
    assert_int_equal(fclose(file), 0);
}

static void assert_text(store *s, uint64_t id, const char *text)
{
    store_episode e = get_episode(s, id);
    assert_string_equal(e.text, text);
    store_episode_free(&e);
}

/* Put only what is live into a new data.mdb, so that each text is in the file once. */
static void rewrite(void **state)
{
    store *s = open_store(*state);
    assert_ok(store_scrub(s, err));
    store_close(s);
}

/* Goal: a whole store has no problems, before and after a rewrite. */
static void test_store_verify_finds_nothing_in_a_whole_store(void **state)
{
    fill(state);
    assert_verifies(*state, EPISODES);
    rewrite(state);
    assert_verifies(*state, EPISODES);
}

/* Goal: one flipped bit in an episode is found, named, never returned; repair keeps all the others.
 * */
static void test_store_flipped_bit_is_found_and_repaired(void **state)
{
    char path[4096];
    data_path(state, path);
    fill(state);
    rewrite(state);
    long offset = find_bytes(path, "Second line 17.|", 16);
    assert_true(offset > 0);
    flip_bit(path, offset + 3, 4);
    store *s = open_store(*state);
    store_text_hit hit;
    uint64_t damaged = 3 * 17 + 2 * 2 + 2;
    store_episode e;
    base_error error;
    assert_int_equal(store_get(s, damaged, &e, &error), BASE_CORRUPT);
    assert_non_null(strstr(error.text, "episode"));
    assert_int_equal(get_brief(s, damaged, BASE_TIME_MAX).id, 0);
    store_close(s);

    store_verify_report report;
    assert_ok(store_verify(*state, false, &report, err));
    assert_true(has_problem(&report, "checksum", damaged));
    assert_int_equal(report.episodes_checked, EPISODES - 1);
    base_free(report.problems);
    assert_ok(store_verify(*state, true, &report, err));
    assert_true(report.repaired > 0);
    assert_true(has_problem(&report, "lost", damaged));
    base_free(report.problems);
    assert_verifies(*state, EPISODES - 1);

    s = open_store(*state);
    assert_int_equal(store_get(s, damaged, &e, NULL), BASE_NOT_FOUND);
    assert_text(s, damaged + 1, "Third line 17.");
    uint64_t *ids;
    size_t count;
    assert_ok(store_forgotten(s, DOCUMENTS, &ids, &count, err));
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], damaged);
    base_free(ids);
    assert_int_equal(find_text(s, "colour 119", BASE_TIME_MAX, &hit, 1), 1);
    assert_int_equal(hit.id, damaged - 1);
    assert_int_equal(put_text(s, "new", "n", "Goes on.", DAY, NULL), EPISODES + 1);
    store_close(s);
    assert_verifies(*state, EPISODES);
}

/* LMDB's node: the value's size, flags and the key's size in 8 bytes, key, value; a large value
 * lies behind the head of a page of its own, whose number stands in the node. */
enum { NODE_FLAGS = 4, NODE_HEAD = 8, PAGE_HEAD = 16, PAGE = 4096 };

/* Where the node of a record begins; *large when it has pages of its own. */
static size_t find_node(const base_buffer *data, store_table table, const store_key *key,
                        bool *large)
{
    store_table found;
    store_key own;
    uint64_t commit;
    size_t size, record = 0;
    uint8_t head[STORE_KEY_MAX + 8], *bytes = (uint8_t *)data->data;
    for (size_t at = 0; at < data->size && record == 0; at++) {
        if (store_record_probe(bytes + at, data->size - at, &found, &own, &commit, &size) &&
            found == table && memcmp(own.data, key->data, key->size) == 0) {
            record = at;
        }
    }
    assert_true(record > 0);
    *large = memcmp(bytes + record - key->size, key->data, key->size) != 0;
    if (!*large) {
        return record - key->size - NODE_HEAD;
    }
    assert_int_equal(record % PAGE, PAGE_HEAD);
    memcpy(head, key->data, key->size);
    base_put_u64(head + key->size, record / PAGE);
    uint8_t *key_at = (uint8_t *)bytes_in(data, head, key->size + 8);
    assert_non_null(key_at);
    return (size_t)(key_at - bytes) - NODE_HEAD;
}

/* Documents of a short and a long text with vectors; the first changes, of the second the first
 * text is used and the other forgotten. Then each record is in the file once. */
static void fill_nodes(void **state, size_t vector_dim)
{
    store *s = open_store(*state);
    char id[16], text[NODE_TEXT + 64];
    float vector[NODE_DIM] = {0.6f, 0.8f};
    const uint64_t forgotten = 4;
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    for (int i = 0; i < NODE_DOCUMENTS; i++) {
        store_new_span spans[SPANS_MAX];
        store_put_result result;
        uint64_t first;
        size_t count;
        snprintf(id, sizeof id, "d%d", i);
        int size = snprintf(text, sizeof text, "Short text %d.|Long text %d ", i, i);
        memset(text + size, 'x', NODE_TEXT);
        text[size + NODE_TEXT] = '\0';
        store_new_document doc = cut_document("s", id, text, DAY, spans);
        doc.vector_dim = vector_dim;
        doc.encoder = "e";
        spans[0].vector = spans[1].vector = vector;
        assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
        assert_int_equal(first, 2 * i + 1);
    }
    assert_ok(store_commit(txn, err));
    put_text(s, "s", "d0", "Newer text.", 2 * DAY, NULL);
    assert_ok(store_begin(s, 3 * DAY, &txn, err));
    assert_ok(store_put_use(txn, 3, 3 * DAY, 0.5f, err));
    assert_ok(store_forget(txn, &forgotten, 1, NULL, err));
    assert_ok(store_commit(txn, err));
    store_close(s);
    rewrite(state);
}
#define NODE_EPISODES (2 * NODE_DOCUMENTS + 1 - 1)

/* Repair keeps all of what fill_nodes wrote. */
static void assert_repair_keeps_all(void **state)
{
    char name[16];
    store_verify_report report;
    assert_ok(store_verify(*state, true, &report, err));
    for (size_t i = 0; i < report.count; i++) {
        if (strncmp(report.problems[i].kind, "lost", 4) == 0) {
            fail_msg("%s: %llu", report.problems[i].kind,
                     (unsigned long long)report.problems[i].id);
        }
    }
    base_free(report.problems);
    assert_verifies(*state, NODE_EPISODES);
    store *s = open_store(*state);
    for (uint64_t id = 1; id <= 2 * NODE_DOCUMENTS; id++) {
        if (id != 4) {
            store_episode e = get_episode(s, id);
            snprintf(name, sizeof name, "d%d", (int)(id - 1) / 2);
            assert_string_equal(e.source, "s");
            assert_string_equal(e.external_id, name);
            assert_non_null(e.vector);
            assert_int_equal(e.superseded_at_us, id < 3 ? 2 * DAY : BASE_TIME_MAX);
            assert_int_equal(e.use_count, id == 3);
            store_episode_free(&e);
        }
    }
    store_close(s);
}

/* Goal: a record is whole, but what the database keeps beside it was hit: a walk over the tables
 * gets no whole record there, or dies of it, and nothing is lost all the same. Method: each bit
 * of this for a small and a large record is named; repaired is one of each byte, and what flags
 * LMDB knows, and of each other table one. */
static void test_store_record_of_a_spoilt_node_is_kept(void **state)
{
    const struct {
        store_table table;
        store_key key;
        size_t vector_dim;
        bool large;
    } nodes[] = {{STORE_TABLE_EPISODE, store_key_u64(3), 8, false},
                 {STORE_TABLE_EPISODE, store_key_u64(6), 8, true},
                 {STORE_TABLE_VECTOR, store_key_u64(3), 8, false},
                 {STORE_TABLE_VECTOR, store_key_u64(3), NODE_DIM, true},
                 {STORE_TABLE_SOURCE, store_key_u32(1), 8, false},
                 {STORE_TABLE_DOCUMENT, store_key_u64(2), 8, false},
                 {STORE_TABLE_VERSION, store_key_version(2, 1), 8, false},
                 {STORE_TABLE_STATE, store_key_u64(2), 8, false},
                 {STORE_TABLE_USE, store_key_use(3, 3 * DAY), 8, false},
                 {STORE_TABLE_FORGOTTEN, store_key_part(3, 0), 8, false},
                 {STORE_TABLE_COMMIT, store_key_u64(2), 8, false}};
    char path[4096], catalog[4096];
    data_path(state, path);
    snprintf(catalog, sizeof catalog, "%s/catalog.sqlite", (const char *)*state);
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        bool large, verbatim = nodes[i].table == STORE_TABLE_EPISODE ||
                               nodes[i].table == STORE_TABLE_VECTOR;
        remove_tree(*state);
        mkdir(*state, 0700);
        fill_nodes(state, nodes[i].vector_dim);
        base_buffer data = read_file(path), rows = read_file(catalog);
        size_t node = find_node(&data, nodes[i].table, &nodes[i].key, &large);
        assert_int_equal(large, nodes[i].large);
        int bits =
            verbatim ? 8 * (NODE_HEAD + 8 + (large ? 8 : 0)) : 1; /* with the page's number */
        for (int bit = 0; bit < bits; bit++) {
            store_verify_report report;
            write_file(path, &data);
            write_file(catalog, &rows);
            flip_bit(path, (long)node + bit / 8, bit % 8);
            assert_ok(store_verify(*state, false, &report, err));
            if (report.count == 0) {
                fail_msg("bit %d of the node of case %zu: nothing is named", bit, i);
            }
            base_free(report.problems);
            if (bit % 9 == 0 || (bit >= 8 * NODE_FLAGS && bit < 8 * NODE_FLAGS + 3)) {
                assert_repair_keeps_all(state);
            }
        }
        base_buffer_free(&data);
        base_buffer_free(&rows);
    }
}

/* How many episodes, vectors, uses and keys and values a reader finds under the ids of fill(). */
static size_t count_readable(void **state)
{
    uint8_t tag[32] = {9};
    size_t count = 0;
    store *s = open_reader(*state);
    for (uint64_t id = 1; id <= EPISODES; id++) {
        store_episode e;
        void *kv = NULL;
        size_t size;
        if (store_get(s, id, &e, NULL) == BASE_OK) {
            count += 1 + (e.vector != NULL) + e.use_count;
            store_episode_free(&e);
        }
        count += store_get_kv(s, id, tag, &kv, &size, NULL) == BASE_OK;
        base_free(kv);
    }
    store_close(s);
    return count;
}

/* Goal: no record is hidden from lookups unnoticed. Method: in each page of LMDB that leads to
 * others, flip a bit of each byte of the keys that say which records lie behind which page: a walk
 * over the table still meets all records, a lookup goes astray. */
static void test_store_record_that_lookups_miss_is_named(void **state)
{
    enum { PAGE_FLAGS = 10, PAGE_LOWER = 12, BRANCH = 1 };
    char path[4096];
    size_t missed = 0;
    long last_at = 0;
    data_path(state, path);
    fill(state);
    rewrite(state);
    base_buffer data = read_file(path);
    size_t readable = count_readable(state);
    for (size_t page = 2 * PAGE; page < data.size; page += PAGE) {
        const uint8_t *head = (const uint8_t *)data.data + page;
        if (base_get_u16(head + PAGE_FLAGS) != BRANCH) {
            continue;
        }
        for (size_t i = PAGE_HEAD + 2; i < base_get_u16(head + PAGE_LOWER); i += 2) {
            size_t node = base_get_u16(head + i), key_size = base_get_u16(head + node + 6);
            for (size_t k = 0; k < key_size; k++) {
                long at = (long)(page + node + NODE_HEAD + k);
                store_verify_report report;
                flip_bit(path, at, 4);
                bool misses = count_readable(state) != readable;
                assert_ok(store_verify(*state, false, &report, err));
                if (misses && report.count == 0) {
                    fail_msg("byte %ld hides records: nothing is named", at);
                }
                base_free(report.problems);
                missed += misses;
                last_at = misses ? at : last_at;
                flip_bit(path, at, 4);
            }
        }
    }
    assert_true(missed > 10);
    base_buffer_free(&data);
    assert_verifies(*state, EPISODES);

    store_verify_report report;
    flip_bit(path, last_at, 4);
    assert_ok(store_verify(*state, true, &report, err));
    base_free(report.problems);
    assert_int_equal(count_readable(state), readable);
    assert_verifies(*state, EPISODES);
}

/* Flip every third bit of a range of the file in turn: verify names each. */
static void assert_flips_are_named(void **state, size_t begin, size_t size)
{
    char path[4096];
    data_path(state, path);
    for (size_t bit = 0; bit < 8 * size; bit += 3) {
        store_verify_report report;
        flip_bit(path, (long)(begin + bit / 8), (int)(bit % 8));
        assert_ok(store_verify(*state, false, &report, err));
        if (report.count == 0) {
            fail_msg("bit %zu of the %zu bytes at %zu: nothing is named", bit, size, begin);
        }
        base_free(report.problems);
        flip_bit(path, (long)(begin + bit / 8), (int)(bit % 8));
    }
}

/* Goal: what lookups do not ask for and the next write believes is no less looked at: where room is
 * in a page, which pages are free, how many there are. Method: flips in the head and the offsets of
 * a page of episodes, in the list of free pages and in LMDB's newer head. */
static void test_store_damage_that_writes_would_spread_is_named(void **state)
{
    enum { PAD = 8, KIND = 10, FREE_TREE = 24, LAST_PAGE = 120, TRANSACTION = 128 };
    enum { TREE = 48, DEPTH = 6, ROOT = 40 };
    char path[4096];
    bool large;
    data_path(state, path);
    fill(state);
    rewrite(state);
    base_buffer data = read_file(path);
    const uint8_t *bytes = (const uint8_t *)data.data;
    store_key key = store_key_u64(50);
    size_t page = find_node(&data, STORE_TABLE_EPISODE, &key, &large) / PAGE * PAGE;
    assert_flips_are_named(state, page, PAD);
    assert_flips_are_named(state, page + KIND, base_get_u16(bytes + page + 12) - KIND);

    size_t meta = PAGE_HEAD;
    if (base_get_u64(bytes + meta + TRANSACTION) <
        base_get_u64(bytes + PAGE + meta + TRANSACTION)) {
        meta += PAGE;
    }
    for (size_t tree = meta + FREE_TREE; tree < meta + LAST_PAGE; tree += TREE) {
        assert_flips_are_named(state, tree + DEPTH, TREE - DEPTH);
    }
    assert_flips_are_named(state, meta, 8);                 /* magic, version */
    assert_flips_are_named(state, meta + LAST_PAGE, 8 + 8); /* and the transaction */
    size_t list = (size_t)base_get_u64(bytes + meta + FREE_TREE + ROOT) * PAGE;
    assert_flips_are_named(state, list + KIND, PAGE_HEAD - KIND);
    size_t node = list + base_get_u16(bytes + list + PAGE_HEAD);
    assert_flips_are_named(state, node, NODE_HEAD);
    assert_true(base_get_u32(bytes + node) >= 16); /* some page is free */
    assert_flips_are_named(state, node + NODE_HEAD + 8, base_get_u32(bytes + node));
    assert_verifies(*state, EPISODES);

    /* The older head passes for the newer one: what was committed last is found all the same. */
    store_verify_report report;
    store *s = open_store(*state);
    put_text(s, "new", "n", "The last one.", DAY, NULL);
    store_close(s);
    flip_bit(path, (long)meta + TRANSACTION + 1, 5);
    assert_ok(store_verify(*state, true, &report, err));
    base_free(report.problems);
    assert_verifies(*state, EPISODES + 1);
    base_buffer_free(&data);
}

/* Goal: no bit in any record of any table is read wrongly. Method: flip one bit in each sealed
 * record of the file in turn; verify must name a problem each time. */
static void test_store_flip_in_each_record_is_named(void **state)
{
    char path[4096];
    data_path(state, path);
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.|Two.", DAY, NULL);
    put_text(s, "a", "1", "One.|Three.", 2 * DAY, NULL);
    store_txn *txn;
    uint8_t tag[32] = {9};
    uint64_t gone = 2;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_use(txn, 3, DAY, 0.5f, err));
    assert_ok(store_put_kv(txn, 3, tag, "kv", 2, err));
    assert_ok(store_forget(txn, &gone, 1, NULL, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_scrub(s, err));
    store_close(s);
    assert_verifies(*state, 3);
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file), records = 0;
    uint8_t *bytes = test_malloc(length);
    rewind(file);
    assert_int_equal(fread(bytes, 1, length, file), length);
    fclose(file);
    bool seen[STORE_TABLE_COUNT] = {false};
    for (size_t at = 0; at < length; at++) {
        store_table table;
        store_key key;
        uint64_t commit;
        size_t size;
        if (!store_record_probe(bytes + at, length - at, &table, &key, &commit, &size)) {
            continue;
        }
        store_verify_report report;
        records++;
        flip_bit(path, (long)(at + size / 2), 4);
        assert_ok(store_verify(*state, false, &report, err));
        if (report.count > 0) {
            seen[table] = true; /* an old META in a free page may go unseen, a live one not */
        }
        base_free(report.problems);
        flip_bit(path, (long)(at + size / 2), 4);
    }
    test_free(bytes);
    assert_true(records >= 18);
    for (int i = 0; i < STORE_TABLE_COUNT; i++) {
        if (!seen[i] && i != STORE_TABLE_VECTOR) {
            fail_msg("a flip in table %s went unseen", store_table_name((store_table)i));
        }
    }
    assert_verifies(*state, 3);
}

/* Goal: wherever the file is cut off, verify reports damage and open refuses; no crash. Repair
 * saves what lies before the cut. */
static void test_store_truncated_file_is_reported(void **state)
{
    char path[4096], keep[4096];
    data_path(state, path);
    snprintf(keep, sizeof keep, "%s/keep", (const char *)*state);
    fill(state);
    rewrite(state);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    off_t size = info.st_size;
    FILE *in = fopen(path, "rb");
    char *bytes = test_malloc((size_t)size);
    assert_int_equal(fread(bytes, 1, (size_t)size, in), size);
    fclose(in);
    const off_t cuts[] = {0, 100, 4096, 8192, size / 4, size / 2 + 7, size / 4 * 3};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        store_verify_report report;
        store *s = NULL;
        store_options options = {0};
        FILE *out = fopen(path, "wb");
        assert_int_equal(fwrite(bytes, 1, (size_t)size, out), size);
        fclose(out);
        assert_int_equal(truncate(path, cuts[i]), 0);
        base_status status = store_verify(*state, false, &report, NULL);
        if (status == BASE_OK) {
            if (report.count == 0) {
                fail_msg("cut at %lld of %lld: nothing reported", (long long)cuts[i],
                         (long long)size);
            }
            base_free(report.problems);
        }
        base_error error;
        status = store_open(*state, &options, &s, &error);
        if (status == BASE_OK) {
            fail_msg("cut at %lld of %lld: opened", (long long)cuts[i], (long long)size);
        }
    }
    /* The last cut took a quarter: most comes back. */
    store_verify_report report;
    assert_ok(store_verify(*state, true, &report, err));
    size_t lost = 0;
    for (size_t i = 0; i < report.count; i++) {
        lost += strcmp(report.problems[i].kind, "lost") == 0;
    }
    base_free(report.problems);
    assert_in_range(lost, 0, EPISODES / 2);
    assert_verifies(*state, EPISODES - lost);
    test_free(bytes);
}

/* Flip a bit in every head that the newest commit wrote; returns that commit. */
static uint64_t damage_newest_heads(const char *path)
{
    base_map map;
    uint64_t newest = 0;
    for (int round = 0; round < 2; round++) { /* find the newest; damage its heads */
        assert_ok(base_map_open(path, &map, err));
        for (size_t at = 0; at < map.size; at++) {
            store_table table;
            store_key key;
            uint64_t commit;
            size_t size;
            if (map.data[at] == 'e' &&
                store_record_probe(map.data + at, map.size - at, &table, &key, &commit, &size) &&
                table == STORE_TABLE_META) {
                if (round == 0) {
                    newest = commit > newest ? commit : newest;
                } else if (commit == newest) {
                    flip_bit(path, (long)(at + size - 1), 4);
                }
            }
        }
        base_map_close(&map);
    }
    return newest;
}

/* Goal: what the newest commit wrote is salvaged from the bytes even when its head is what is
 * damaged and only older heads are left: the catalogue knows that the commit had ended. Method: the
 * newest heads and LMDB's own two first pages are spoiled. */
static void test_store_salvage_trusts_the_catalogue_for_the_newest_commit(void **state)
{
    char path[4096];
    data_path(state, path);
    fill(state);
    assert_int_equal(damage_newest_heads(path), DOCUMENTS);
    char zeros[8192] = {0};
    FILE *file = fopen(path, "r+b");
    assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
    fclose(file);
    store_verify_report report;
    assert_ok(store_verify(*state, true, &report, err));
    assert_false(has_problem(&report, "lost", 0));
    base_free(report.problems);
    assert_verifies(*state, EPISODES);
}

/* Goal: pages of garbage anywhere: verify reports or all is well, never a crash; repair gives a
 * store that verifies, and every text that it has is right. Fixed positions, all pages but a few.
 */
static void test_store_garbage_pages_are_survived(void **state)
{
    char path[4096];
    data_path(state, path);
    fill(state);
    rewrite(state);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    size_t size = (size_t)info.st_size, pages = size / 4096;
    char *bytes = test_malloc(size);
    FILE *in = fopen(path, "rb");
    assert_int_equal(fread(bytes, 1, size, in), size);
    fclose(in);
    size_t noticed = 0;
    for (size_t page = 0; page < pages; page += 3) {
        FILE *out = fopen(path, "wb");
        assert_int_equal(fwrite(bytes, 1, size, out), size);
        fseek(out, (long)(page * 4096), SEEK_SET);
        for (int i = 0; i < 4096; i++) {
            fputc((int)((page * 131 + (size_t)i * 7) & 0xFF), out);
        }
        fclose(out);
        store_verify_report report = {0};
        assert_ok(store_verify(*state, false, &report, err));
        noticed += report.count > 0;
        base_free(report.problems);
        assert_ok(store_verify(*state, true, &report, err));
        base_free(report.problems);
        assert_ok(store_verify(*state, false, &report, err));
        if (report.count) {
            fail_msg("page %zu: %zu problems after repair, first %s %llu", page, report.count,
                     report.problems[0].kind, (unsigned long long)report.problems[0].id);
        }
        base_free(report.problems);
        store *s = open_store(*state);
        for (uint64_t id = 1; id <= EPISODES; id++) {
            store_episode e;
            if (store_get(s, id, &e, NULL) == BASE_OK) {
                uint8_t hash[32];
                base_sha256_of(e.text, e.text_size, hash);
                assert_memory_equal(hash, e.content_hash, 32);
                store_episode_free(&e);
            }
        }
        store_close(s);
    }
    assert_true(noticed > pages / 12);
    test_free(bytes);
}

/* Goal: a store of a newer format is refused by name, untouched. Method: raise the number in META.
 * */
static void test_store_newer_format_is_refused(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.", DAY, NULL);
    store_close(s);
    store_db *db;
    store_db_txn *txn;
    store_slice value, payload;
    store_key key = store_key_meta();
    store_meta meta;
    base_buffer encoded = {0}, sealed = {0};
    store_db_options options = {0};
    assert_ok(store_db_open(*state, &options, &db, err));
    assert_ok(store_db_begin(db, true, &txn, err));
    assert_ok(store_db_get(txn, STORE_TABLE_META, &key, &value, err));
    assert_int_equal(store_record_open(STORE_TABLE_META, key.data, key.size, value, NULL, &payload),
                     BASE_OK);
    assert_int_equal(store_meta_decode(payload, &meta), BASE_OK);
    meta.format = STORE_FORMAT_VERSION + 1;
    assert_int_equal(store_meta_encode(&encoded, &meta), BASE_OK);
    assert_int_equal(
        store_record_seal(&sealed, STORE_TABLE_META, &key, 1, encoded.data, encoded.size), BASE_OK);
    assert_ok(store_db_put(txn, STORE_TABLE_META, &key, sealed.data, sealed.size, false, err));
    assert_ok(store_db_commit(txn, err));
    store_db_close(db);
    base_buffer_free(&encoded);
    base_buffer_free(&sealed);
    store_options open = {.create = true};
    base_error error;
    assert_int_equal(store_open(*state, &open, &s, &error), BASE_VERSION);
    assert_non_null(strstr(error.text, "format 2"));
    store_verify_report report;
    assert_int_equal(store_verify(*state, true, &report, &error), BASE_VERSION);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_verify_finds_nothing_in_a_whole_store),
        WITH_FOLDER(test_store_flipped_bit_is_found_and_repaired),
        WITH_FOLDER(test_store_record_of_a_spoilt_node_is_kept),
        WITH_FOLDER(test_store_record_that_lookups_miss_is_named),
        WITH_FOLDER(test_store_damage_that_writes_would_spread_is_named),
        WITH_FOLDER(test_store_flip_in_each_record_is_named),
        WITH_FOLDER(test_store_truncated_file_is_reported),
        WITH_FOLDER(test_store_salvage_trusts_the_catalogue_for_the_newest_commit),
        WITH_FOLDER(test_store_garbage_pages_are_survived),
        WITH_FOLDER(test_store_newer_format_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
