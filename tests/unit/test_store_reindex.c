/* Re-indexing: new vectors for all at once, the old ones until then; cut short it goes on; what is
 * forgotten meanwhile leaves no vector; killed anywhere it ends well. */
#include <signal.h>
#include <sys/wait.h>

#include "store_testing.h"

enum { OLD_DIM = 4, NEW_DIM = 6 };

typedef struct fake {
    uint64_t calls, fail_at; /* the call that fails, 0 = none */
    store *forget_in;        /* forget episode 2 in the first call */
    bool slow;
} fake;

static void forget_second(store *s)
{
    uint64_t id = 2;
    store_txn *txn;
    store_forget_receipt receipt;
    assert_ok(store_begin(s, 99 * DAY, &txn, err));
    assert_ok(store_forget(txn, &id, 1, &receipt, err));
    assert_ok(store_commit(txn, err));
}

/* A vector that tells the id. */
static base_status encode(void *argument, const store_encode_item *items, size_t count,
                          float *vectors, base_error *err)
{
    fake *f = argument;
    if (++f->calls == f->fail_at) {
        return base_fail(err, BASE_CANCELLED, "stopped");
    }
    for (size_t i = 0; i < count; i++) {
        assert_true(strlen(items[i].text) == items[i].text_size);
        for (size_t k = 0; k < NEW_DIM; k++) {
            vectors[i * NEW_DIM + k] = k == 0 ? (float)items[i].id : 0.25f;
        }
    }
    if (f->forget_in) {
        forget_second(f->forget_in);
        f->forget_in = NULL;
    }
    if (f->slow) {
        usleep(1000);
    }
    return BASE_OK;
}

static store_reindex_options options_of(fake *f, const char *encoder)
{
    return (store_reindex_options){
        .encoder = encoder, .dim = NEW_DIM, .encode = encode, .argument = f};
}

/* count episodes in documents of 100, with vectors of encoder "old". */
static void fill(store *s, size_t count)
{
    static float vectors[100][OLD_DIM];
    static store_new_span spans[SPANS_MAX];
    for (size_t i = 0; i < count; i += 100) {
        char id[32], text[101];
        memset(text, 'x', 100);
        for (size_t k = 0; k < 100; k++) {
            text[k] = k % 2 ? '|' : 'a';
            vectors[k][0] = 1.0f;
        }
        text[100] = 0;
        snprintf(id, sizeof id, "d%zu", i);
        store_new_document doc = cut_document("w", id, text, DAY, spans);
        doc.vector_dim = OLD_DIM;
        doc.encoder = "old";
        for (size_t k = 0; k < doc.span_count; k++) {
            spans[k].vector = vectors[k];
        }
        store_txn *txn;
        store_put_result result;
        uint64_t first;
        size_t n;
        assert_ok(store_begin(s, DAY, &txn, err));
        assert_ok(store_put_document(txn, &doc, &result, &first, &n, err));
        assert_ok(store_commit(txn, err));
    }
}

static void assert_encoder(store *s, const char *name, size_t dim)
{
    char *encoder;
    size_t found;
    assert_ok(store_vector_info(s, &found, &encoder, err));
    assert_string_equal(encoder, name);
    assert_int_equal(found, dim);
    base_free(encoder);
}

static bool check_vector(void *argument, const store_view *view)
{
    uint64_t *count = argument;
    assert_non_null(view->vector);
    assert_int_equal(view->vector_dim, NEW_DIM);
    assert_float_equal(view->vector[0], (float)view->id, 0);
    (*count)++;
    return true;
}

static void assert_new_vectors(store *s, uint64_t expected)
{
    uint64_t count = 0, damaged;
    assert_encoder(s, "new", NEW_DIM);
    assert_ok(store_scan(s, 0, check_vector, &count, &damaged, err));
    assert_int_equal(damaged, 0);
    assert_int_equal(count, expected);
}

static bool side_is_gone(const char *path)
{
    char side[6000];
    snprintf(side, sizeof side, "%s/reindex", path);
    return access(side, F_OK) != 0;
}

/* Goal: the old vectors serve until the end; an interrupted run goes on where it stopped; another
 * encoder begins anew; a second time there is nothing to do. */
static void test_store_reindex_resumes_and_switches_at_once(void **state)
{
    store *s = open_store(*state);
    store_reindex_receipt receipt;
    base_error error = {0};
    fake f = {.fail_at = 3};
    fill(s, 2000); /* 50 a document: 1000 episodes, four batches */
    store_reindex_options o = options_of(&f, "new");
    assert_int_equal(store_reindex(s, &o, &receipt, &error), BASE_CANCELLED);
    assert_int_equal(receipt.encoded, 512);
    assert_encoder(s, "old", OLD_DIM);
    f = (fake){0};
    assert_ok(store_reindex(s, &o, &receipt, err));
    assert_true(receipt.resumed);
    assert_int_equal(receipt.encoded, 1000 - 512);
    assert_int_equal(receipt.episodes, 1000);
    assert_new_vectors(s, 1000);
    assert_true(side_is_gone(*state));
    assert_ok(store_reindex(s, &o, &receipt, err));
    assert_int_equal(receipt.encoded, 0);
    /* half a run for one encoder, then another */
    f = (fake){.fail_at = 2};
    o = options_of(&f, "third");
    assert_int_equal(store_reindex(s, &o, &receipt, &error), BASE_CANCELLED);
    f = (fake){0};
    o = options_of(&f, "fourth");
    assert_ok(store_reindex(s, &o, &receipt, err));
    assert_false(receipt.resumed);
    assert_int_equal(receipt.encoded, 1000);
    store_close(s);
    assert_verifies(*state, 1000);
}

/* Goal: an episode that is forgotten while its vector waits beside does not come back, and a scrub
 * takes the waiting vectors away. */
static void test_store_reindex_drops_what_is_forgotten(void **state)
{
    store *s = open_store(*state);
    store_reindex_receipt receipt;
    base_error error = {0};
    fake f = {.forget_in = s};
    fill(s, 200);
    store_reindex_options o = options_of(&f, "new");
    assert_ok(store_reindex(s, &o, &receipt, err));
    assert_int_equal(receipt.episodes, 99);
    assert_new_vectors(s, 99);
    store_close(s);
    assert_verifies(*state, 99);
    s = open_store(*state);
    fake slow = {.fail_at = 1};
    o = options_of(&slow, "third");
    assert_int_equal(store_reindex(s, &o, &receipt, &error), BASE_CANCELLED);
    assert_false(side_is_gone(*state));
    assert_ok(store_scrub(s, err));
    assert_true(side_is_gone(*state));
    store_close(s);
}

/* Goal: killed at 25 moments, the store verifies each time and the next run ends the work. */
static void test_store_reindex_survives_kills(void **state)
{
    for (unsigned i = 0; i < 25; i++) {
        char path[5000];
        snprintf(path, sizeof path, "%s/%u", (char *)*state, i);
        store *s = open_store(path);
        fill(s, 1000);
        store_close(s);
        pid_t child = fork();
        if (child == 0) {
            store_options options = {0};
            store_reindex_receipt receipt;
            fake f = {.slow = true};
            store_reindex_options o = options_of(&f, "new");
            if (store_open(path, &options, &s, NULL) == BASE_OK) {
                store_reindex(s, &o, &receipt, NULL);
            }
            _exit(0);
        }
        usleep(i * 1000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_verifies(path, 500);
        s = open_store(path);
        store_reindex_receipt receipt;
        fake f = {0};
        store_reindex_options o = options_of(&f, "new");
        assert_ok(store_reindex(s, &o, &receipt, err));
        assert_new_vectors(s, 500);
        assert_true(side_is_gone(path));
        store_close(s);
        assert_verifies(path, 500);
    }
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_store_reindex_resumes_and_switches_at_once),
        in_folder(test_store_reindex_drops_what_is_forgotten),
        in_folder(test_store_reindex_survives_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
