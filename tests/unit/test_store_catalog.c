/* The derived catalogue: text search, and that it follows the records whatever happens to it. */
#include <math.h>
#include <sqlite3.h>

#include "store_testing.h"

static void catalog_path(void **state, const char *suffix, char out[4096])
{
    snprintf(out, 4096, "%s/catalog.sqlite%s", (const char *)*state, suffix);
}

static void copy_file(const char *from, const char *to)
{
    char block[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    size_t got;
    while ((got = fread(block, 1, sizeof block, in)) > 0) {
        assert_int_equal(fwrite(block, 1, got, out), got);
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void put_some(store *s, int from, int to)
{
    char id[16], text[64];
    for (int i = from; i < to; i++) {
        snprintf(id, sizeof id, "d%d", i);
        snprintf(text, sizeof text, "Item number%d is green.|It is heavy.", i);
        put_text(s, "w", id, text, (i + 1) * DAY, NULL);
    }
}

static void assert_found(store *s, const char *query, uint64_t id)
{
    store_text_hit hit = {0};
    size_t count = find_text(s, query, BASE_TIME_MAX, &hit, 1);
    if (count != 1 || hit.id != id) {
        fail_msg("\"%s\": %zu hits, first %llu, expected %llu", query, count,
                 (unsigned long long)hit.id, (unsigned long long)id);
    }
}

/* Goal: rarer terms weigh more, title and text both count, case and accents do not. */
static void test_store_text_search_ranks_by_bm25(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "a", "The river is long.|The bridge is long.|The r\xc3\xa9gion is dry.", DAY,
             NULL);
    store_new_span spans[SPANS_MAX];
    store_new_document doc = cut_document("w", "b", "Opened in 1811.", DAY, spans);
    doc.title = "Old Harbour";
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_commit(txn, err));
    store_text_hit hits[8];
    count = find_text(s, "How long is the BRIDGE?", BASE_TIME_MAX, hits, 8);
    assert_int_equal(count, 3);
    assert_int_equal(hits[0].id, 2);
    assert_int_equal(hits[1].id, 1);
    assert_true(hits[0].bm25 > hits[1].bm25);
    assert_true(hits[2].bm25 >= 0.0f);
    assert_found(s, "region", 3);
    assert_found(s, "harbour", 4);
    assert_found(s, "\"1811\" AND NEAR(* - ^ col:", 4);
    assert_int_equal(find_text(s, "", BASE_TIME_MAX, hits, 8), 0);
    assert_int_equal(find_text(s, "?! ...", BASE_TIME_MAX, hits, 8), 0);
    assert_int_equal(find_text(s, "absent", BASE_TIME_MAX, hits, 8), 0);
    assert_int_equal(find_text(s, "long", BASE_TIME_MAX, hits, 0), 0);
    store_close(s);
}

/* Goal: our scores are SQLite's own bm25(). Method: the same terms asked of its FTS5 table, with
 * repeated terms, titles and texts of different lengths, and a forgotten episode. */
static void test_store_text_search_scores_as_sqlite(void **state)
{
    static const char *const words[] = {"red", "green", "blue", "round", "square"};
    char path[4096], text[256], id[16];
    store *s = open_store(*state);
    for (unsigned i = 0; i < 60; i++) {
        size_t used = 0;
        for (unsigned j = 0; j <= i % 9; j++) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s word%u ",
                                     words[(i * i + 3 * j) % 5], i % 4 == 0 ? j : i);
        }
        snprintf(id, sizeof id, "d%u", i);
        put_text(s, "w", id, text, DAY, NULL);
    }
    uint64_t gone = 17;
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_forget(txn, &gone, 1, NULL, err));
    assert_ok(store_commit(txn, err));
    store_text_hit hits[60];
    size_t count = find_text(s, "Red square: word0 word3", BASE_TIME_MAX, hits, 60), compared = 0;
    store_close(s);
    sqlite3 *db;
    sqlite3_stmt *statement;
    catalog_path(state, "", path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    const char *sql = "SELECT rowid, bm25(fts) FROM fts WHERE fts MATCH"
                      " '\"red\" OR \"square\" OR \"word0\" OR \"word3\"'";
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        uint64_t row = (uint64_t)sqlite3_column_int64(statement, 0);
        double expected = -sqlite3_column_double(statement, 1);
        for (size_t i = 0; i < count; i++) {
            if (hits[i].id == row) {
                compared++;
                if (fabs((double)hits[i].bm25 - expected) > 1e-6 * (1.0 + expected)) {
                    fail_msg("episode %llu: %.9g, SQLite %.9g", (unsigned long long)row,
                             (double)hits[i].bm25, expected);
                }
            }
        }
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    assert_true(count > 30);
    assert_int_equal(compared, count);
    for (size_t i = 1; i < count; i++) {
        assert_true(hits[i - 1].bm25 >= hits[i].bm25);
    }
}

/* Goal: what is kept of a frequent term's postings changes no answer and does not outlive a change.
 * Method: a word of 300 among 900 episodes, asked again and again: equal bits; then with one
 * episode more, and one forgotten. */
static void test_store_text_search_repeats_itself(void **state)
{
    static store_new_span spans[SPANS_MAX];
    static char text[SPANS_MAX * 40];
    size_t used = 0, count;
    for (int i = 0; i < 900; i++) {
        const char *form = i % 3   ? "Thing %d stands here.|"
                           : i % 6 ? "Lamp %d, a lamp.|"
                                   : "A lamp is number %d there.|";
        used += (size_t)snprintf(text + used, sizeof text - used, form, i);
    }
    store *s = open_store(*state);
    store_new_document doc = cut_document("w", "a", text, DAY, spans);
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_commit(txn, err));
    static store_text_hit once[400], again[400];
    size_t found = find_text(s, "lamp 77", BASE_TIME_MAX, once, 400);
    assert_int_equal(found, 301); /* 300, and number 77, which is none */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(find_text(s, "lamp 77", BASE_TIME_MAX, again, 400), found);
        assert_memory_equal(once, again, found * sizeof *once);
    }
    put_text(s, "w", "b", "Lamp, lamp, lamp!", DAY, NULL);
    assert_int_equal(find_text(s, "lamp", BASE_TIME_MAX, again, 400), 301);
    assert_int_equal(again[0].id, 901);
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_forget(txn, &again[0].id, 1, NULL, err));
    assert_ok(store_commit(txn, err));
    assert_int_equal(find_text(s, "lamp", BASE_TIME_MAX, again, 400), 300);
    assert_int_not_equal(again[0].id, 901);
    store_close(s);
}

/* Goal: in a large store a term of more than half of the episodes is left out, rare ones still
 * work. */
static void test_store_text_search_drops_common_terms(void **state)
{
    static store_new_span spans[SPANS_MAX];
    static char text[SPANS_MAX * 32];
    size_t used = 0;
    for (int i = 0; i < 1200; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "The thing %d.|", i);
    }
    store *s = open_store(*state);
    store_new_document doc = cut_document("w", "a", text, DAY, spans);
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_commit(txn, err));
    store_text_hit hits[4];
    assert_int_equal(find_text(s, "the thing", BASE_TIME_MAX, hits, 4), 0);
    assert_int_equal(find_text(s, "the thing 77", BASE_TIME_MAX, hits, 4), 1);
    assert_int_equal(hits[0].id, 78);
    store_close(s);
    assert_verifies(*state, 1200);
}

/* Goal: a deleted catalogue is built again on open. */
static void test_store_deleted_catalog_is_rebuilt(void **state)
{
    char path[4096];
    store *s = open_store(*state);
    put_some(s, 0, 5);
    store_close(s);
    catalog_path(state, "", path);
    assert_int_equal(unlink(path), 0);
    s = open_store(*state);
    assert_found(s, "number3", 7);
    store_close(s);
    assert_verifies(*state, 10);
}

/* Goal: a catalogue that is some commits behind catches up; one that is ahead is rebuilt. */
static void test_store_catalog_catches_up_or_is_rebuilt(void **state)
{
    char path[4096], behind[4096], records[4096], old_records[4096];
    catalog_path(state, "", path);
    catalog_path(state, ".behind", behind);
    snprintf(records, sizeof records, "%s/data.mdb", (const char *)*state);
    snprintf(old_records, sizeof old_records, "%s/data.old", (const char *)*state);
    store *s = open_store(*state);
    put_some(s, 0, 3);
    store_close(s);
    copy_file(path, behind);
    copy_file(records, old_records);
    s = open_store(*state);
    put_some(s, 3, 6);
    store_close(s);

    assert_int_equal(rename(behind, path), 0);
    assert_verifies(*state, 12); /* behind is no damage */
    s = open_store(*state);
    assert_found(s, "number1", 3);
    assert_found(s, "number5", 11);
    store_close(s);
    assert_verifies(*state, 12);

    assert_int_equal(rename(old_records, records), 0); /* a restored older copy */
    store_verify_report report;
    assert_ok(store_verify(*state, false, &report, err));
    assert_int_equal(report.count, 1);
    assert_string_equal(report.problems[0].kind, "other_history");
    base_free(report.problems);
    s = open_store(*state);
    assert_found(s, "number1", 3);
    store_text_hit hit;
    assert_int_equal(find_text(s, "number5", BASE_TIME_MAX, &hit, 1), 0);
    put_text(s, "w", "other", "Another number5.", DAY,
             NULL); /* the same commit id, other content */
    assert_found(s, "number5", 7);
    store_close(s);
    assert_verifies(*state, 7);
}

/* Goal: garbage instead of a catalogue is replaced, and damage met in mid-search is healed. */
static void test_store_damaged_catalog_is_replaced(void **state)
{
    char path[4096];
    catalog_path(state, "", path);
    store *s = open_store(*state);
    put_some(s, 0, 200);
    store_close(s);
    FILE *file = fopen(path, "wb");
    fputs("this is no database at all, but it is long enough to look like a file", file);
    fclose(file);
    s = open_store(*state);
    assert_found(s, "number30", 61);
    store_close(s);
    assert_verifies(*state, 400);

    file = fopen(path, "r+b"); /* all pages but the first: opens well, breaks later */
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    assert_true(size > 3 * 4096);
    fseek(file, 4096, SEEK_SET);
    for (long i = 4096; i < size; i++) {
        fputc(0x5A, file);
    }
    fclose(file);
    s = open_store(*state);
    assert_found(s, "number30", 61);
    store_close(s);
    assert_verifies(*state, 400);
}

/* Change the catalogue behind the store's back. */
static void tamper(void **state, const char *sql)
{
    char path[4096];
    sqlite3 *db;
    catalog_path(state, "", path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s", message);
    }
    sqlite3_close(db);
}

/* Goal: verify names each row and each text that disagrees, and repair mends them. */
static void test_store_verify_compares_catalog_record_by_record(void **state)
{
    static const struct {
        const char *sql, *kind;
        uint64_t id;
    } cases[] = {
        {"DELETE FROM episodes WHERE id = 4", "missing_in_catalog", 4},
        {"UPDATE episodes SET observed_at = 7 WHERE id = 5", "differs", 5},
        {"INSERT INTO episodes VALUES(99, 1, 1, 1, 3)", "not_in_records", 99},
        {"INSERT INTO fts(fts, rowid, title, text) VALUES('delete', 2, '', 'It is heavy.');"
         "INSERT INTO fts(rowid, title, text) VALUES(2, '', 'It is light.')",
         "text_differs", 2},
        {"INSERT INTO fts(rowid, title, text) VALUES(77, '', 'nobody')", "not_in_records", 77},
    };
    store *s = open_store(*state);
    put_some(s, 0, 4);
    store_close(s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        store_verify_report report;
        tamper(state, cases[i].sql);
        assert_ok(store_verify(*state, false, &report, err));
        if (report.count == 0) {
            fail_msg("not seen: %s", cases[i].sql);
        }
        assert_string_equal(report.problems[0].file, "catalog.sqlite");
        assert_string_equal(report.problems[0].kind, cases[i].kind);
        assert_int_equal(report.problems[0].id, cases[i].id);
        base_free(report.problems);
        assert_ok(store_verify(*state, true, &report, err));
        assert_true(report.repaired > 0);
        base_free(report.problems);
        assert_verifies(*state, 8);
    }
}

/* Goal: a read-only handle without a usable catalogue serves searches from memory, and writes
 * nothing. */
static void test_store_reader_without_catalog_searches_in_memory(void **state)
{
    char path[4096];
    catalog_path(state, "", path);
    store *s = open_store(*state);
    put_some(s, 0, 5);
    store_close(s);
    assert_int_equal(unlink(path), 0);
    s = open_reader(*state);
    assert_found(s, "number3", 7);
    store_close(s);
    assert_int_equal(access(path, F_OK), -1);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_text_search_ranks_by_bm25),
        WITH_FOLDER(test_store_text_search_repeats_itself),
        WITH_FOLDER(test_store_text_search_scores_as_sqlite),
        WITH_FOLDER(test_store_text_search_drops_common_terms),
        WITH_FOLDER(test_store_deleted_catalog_is_rebuilt),
        WITH_FOLDER(test_store_catalog_catches_up_or_is_rebuilt),
        WITH_FOLDER(test_store_damaged_catalog_is_replaced),
        WITH_FOLDER(test_store_verify_compares_catalog_record_by_record),
        WITH_FOLDER(test_store_reader_without_catalog_searches_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
