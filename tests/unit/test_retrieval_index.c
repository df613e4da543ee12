/* Vector indexes: our flat search is the oracle; FAISS agrees with it, exactly or with a stated
 * recall. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "retrieval/index.h"
#include "retrieval/retrieval.h"

#define DIM 48

/* Unit vectors in clumps, as text vectors lie: 64 centres and jitter. */
static void draw(base_rng *rng, const float *centres, float *v)
{
    const float *c = centres + base_rng_below(rng, 64) * DIM;
    float norm = 0;
    for (int i = 0; i < DIM; i++) {
        v[i] = c[i] + 0.5f * (float)base_rng_normal(rng);
        norm += v[i] * v[i];
    }
    for (int i = 0; i < DIM; i++) {
        v[i] /= sqrtf(norm);
    }
}

static void draw_centres(base_rng *rng, float *centres)
{
    for (int i = 0; i < 64 * DIM; i++) {
        centres[i] = (float)base_rng_normal(rng);
    }
}

/* n vectors under ids 10, 13, 16 ... */
static void fill(retrieval_flat *flat, size_t n, uint64_t seed, float *centres)
{
    base_rng rng;
    base_rng_seed(&rng, seed);
    draw_centres(&rng, centres);
    flat->dim = DIM;
    for (size_t i = 0; i < n; i++) {
        float v[DIM];
        draw(&rng, centres, v);
        assert_int_equal(retrieval_flat_add(flat, 10 + 3 * i, v, NULL), BASE_OK);
    }
}

/* Goal: flat search returns exactly the best. Method: against a full sort by insertion, 500
 * vectors, 20 queries. */
static void test_retrieval_flat_search_is_exact(void **state)
{
    (void)state;
    retrieval_flat flat = {0};
    float centres[64 * DIM];
    fill(&flat, 500, 1, centres);
    base_rng rng;
    base_rng_seed(&rng, 2);
    for (int round = 0; round < 20; round++) {
        float q[DIM];
        draw(&rng, centres, q);
        retrieval_near found[500];
        size_t wanted = 1 + (size_t)base_rng_below(&rng, 500);
        size_t n = retrieval_flat_search(&flat, q, wanted, found);
        assert_int_equal(n, wanted);
        for (size_t i = 0; i + 1 < n; i++) {
            assert_true(found[i].similarity >= found[i + 1].similarity);
        }
        size_t better = 0; /* vectors above the last one found */
        for (size_t i = 0; i < flat.count; i++) {
            float s = retrieval_dot(q, flat.vectors + i * DIM, DIM);
            better += s > found[n - 1].similarity;
        }
        assert_true(better < n);
    }
    assert_int_equal(retrieval_flat_search(&flat, centres, 0, NULL), 0);
    retrieval_near all[600];
    assert_int_equal(retrieval_flat_search(&flat, centres, 600, all), 500);
    retrieval_flat_free(&flat);
}

/* Goal: removal keeps the others in order, unknown ids are ignored. */
static void test_retrieval_flat_remove_keeps_the_rest(void **state)
{
    (void)state;
    retrieval_flat flat = {0};
    float centres[64 * DIM];
    fill(&flat, 100, 3, centres);
    float kept[DIM];
    memcpy(kept, retrieval_flat_get(&flat, 16), sizeof kept);
    const uint64_t gone[] = {1, 10, 13, 14, 307, 9999};
    retrieval_flat_remove(&flat, gone, sizeof gone / sizeof gone[0]);
    assert_int_equal(flat.count, 97);
    assert_null(retrieval_flat_get(&flat, 10));
    assert_null(retrieval_flat_get(&flat, 307));
    assert_null(retrieval_flat_get(&flat, 14));
    assert_memory_equal(retrieval_flat_get(&flat, 16), kept, sizeof kept);
    retrieval_flat_free(&flat);
}

/* Share of the flat top ten that the index returns, over 100 queries. */
static double recall_at_10(const retrieval_flat *flat, const retrieval_faiss *index,
                           const float *centres)
{
    base_rng rng;
    base_rng_seed(&rng, 5);
    size_t hit = 0;
    for (int round = 0; round < 100; round++) {
        float q[DIM];
        draw(&rng, centres, q);
        retrieval_near a[10], b[10];
        size_t n = retrieval_flat_search(flat, q, 10, a), m;
        assert_int_equal(retrieval_faiss_search(index, q, 10, b, &m, NULL), BASE_OK);
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < m; k++) {
                hit += a[i].id == b[k].id;
            }
        }
    }
    return (double)hit / 1000.0;
}

static char folder[] = "retrieval_index_XXXXXX";

/* As segments.c does it: trained on a part, then filled in batches of uneven size. */
static base_status build(const char *kind, const retrieval_flat *flat, retrieval_faiss **out,
                         base_error *err)
{
    size_t sample = flat->count / 2 + 1, third = flat->count / 3;
    size_t ends[] = {third / 2, third * 2, flat->count}, at = 0;
    base_status status = retrieval_faiss_create(
        kind, DIM, flat->vectors, sample < flat->count ? sample : flat->count, out, err);
    for (size_t i = 0; i < 3 && !status; i++) {
        status =
            retrieval_faiss_add(*out, flat->ids + at, flat->vectors + at * DIM, ends[i] - at, err);
        at = ends[i];
    }
    return status;
}

/* Goal: a flat FAISS segment returns the oracle's results, also after being written and read, and
 * says which vectors it holds. */
static void test_retrieval_faiss_flat_equals_our_flat(void **state)
{
    (void)state;
    retrieval_flat flat = {0};
    float centres[64 * DIM];
    fill(&flat, 2000, 4, centres);
    char kind[RETRIEVAL_KIND_MAX];
    retrieval_faiss_kind(flat.count, DIM, kind);
    retrieval_faiss *index = NULL, *again = NULL;
    base_error err = {0};
    assert_int_equal(build(kind, &flat, &index, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_count(index), 2000);
    assert_true(recall_at_10(&flat, index, centres) >= 0.999);
    char path[128];
    snprintf(path, sizeof path, "%s/a.faiss", folder);
    assert_int_equal(retrieval_faiss_write(index, path, &err), BASE_OK);
    base_map map;
    assert_int_equal(base_map_open(path, &map, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_read(kind, map.data, map.size, DIM, &again, &err), BASE_OK);
    assert_true(recall_at_10(&flat, again, centres) >= 0.999);
    bool agrees;
    assert_int_equal(
        retrieval_faiss_check(again, flat.ids[7], flat.vectors + 7 * DIM, &agrees, &err), BASE_OK);
    assert_true(agrees);
    assert_int_equal(
        retrieval_faiss_check(again, flat.ids[8], flat.vectors + 7 * DIM, &agrees, &err), BASE_OK);
    assert_false(agrees);
    assert_int_equal(retrieval_faiss_check(again, 11, flat.vectors, &agrees, &err), BASE_OK);
    assert_false(agrees);
    /* another dimension, a cut file, foreign bytes: refused. (FAISS leaks when the body is cut; the
     * checksum that is verified before keeps such bytes from it.) */
    retrieval_faiss *none = NULL;
    assert_int_equal(retrieval_faiss_read(kind, map.data, map.size, DIM + 1, &none, &err),
                     BASE_CORRUPT);
    assert_int_equal(retrieval_faiss_read(kind, map.data, 3, DIM, &none, &err), BASE_CORRUPT);
    assert_int_equal(retrieval_faiss_read(kind, "no index at all", 15, DIM, &none, &err),
                     BASE_CORRUPT);
    assert_int_equal(retrieval_faiss_read(kind, "", 0, DIM, &none, &err), BASE_CORRUPT);
    assert_null(none);
    base_map_close(&map);
    unlink(path);
    retrieval_faiss_free(index);
    retrieval_faiss_free(again);
    retrieval_flat_free(&flat);
}

/* Goal: the compressed kind for large segments finds at least 95 of 100 of the true top ten. */
static void test_retrieval_faiss_ivf_recall_is_95_percent(void **state)
{
    (void)state;
    retrieval_flat flat = {0};
    float centres[64 * DIM];
    fill(&flat, 20000, 6, centres);
    char kind[RETRIEVAL_KIND_MAX];
    retrieval_faiss_kind(60000, DIM, kind); /* what 60,000 would get, on fewer, to be quick */
    assert_non_null(strstr(kind, "IVF"));
    retrieval_faiss *index = NULL;
    base_error err = {0};
    assert_int_equal(build(kind, &flat, &index, &err), BASE_OK);
    double recall = recall_at_10(&flat, index, centres);
    print_message("recall@10 of %s on 20,000 clumped vectors: %.3f\n", kind, recall);
    assert_true(recall >= 0.95);
    /* written and read */
    retrieval_faiss *again = NULL;
    base_map map;
    char path[128];
    snprintf(path, sizeof path, "%s/b.faiss", folder);
    assert_int_equal(retrieval_faiss_write(index, path, &err), BASE_OK);
    assert_int_equal(base_map_open(path, &map, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_read(kind, map.data, map.size, DIM, &again, &err), BASE_OK);
    assert_true(recall_at_10(&flat, again, centres) == recall);
    retrieval_faiss_set_quick(again, true);
    assert_true(recall_at_10(&flat, again, centres) >= 0.9);
    retrieval_faiss_set_quick(again, false);
    assert_true(recall_at_10(&flat, again, centres) == recall);
    /* cut in the first part's head, and in what follows the lists: refused */
    retrieval_faiss *none = NULL;
    assert_int_equal(retrieval_faiss_read(kind, map.data, 40, DIM, &none, &err), BASE_CORRUPT);
    assert_int_equal(retrieval_faiss_read(kind, map.data, map.size - 8, DIM, &none, &err),
                     BASE_CORRUPT);
    assert_null(none);
    bool agrees;
    assert_int_equal(
        retrieval_faiss_check(again, flat.ids[7], flat.vectors + 7 * DIM, &agrees, &err), BASE_OK);
    assert_true(agrees);
    assert_int_equal(/* another's vector, in another clump; an id that is not there */
                     retrieval_faiss_check(again, flat.ids[8], flat.vectors + 7 * DIM, &agrees,
                                           &err),
                     BASE_OK);
    assert_false(agrees);
    assert_int_equal(
        retrieval_faiss_check(again, flat.ids[flat.count - 1] + 1, flat.vectors, &agrees, &err),
        BASE_OK);
    assert_false(agrees);
    base_map_close(&map);
    unlink(path);
    retrieval_faiss_free(again);
    retrieval_faiss_free(index);
    retrieval_flat_free(&flat);
}

/* A segment's bytes: trained on the first half of flat, holding what is not in gone (ascending).
 */
static base_map write_without(const retrieval_flat *flat, const char *kind, const uint64_t *gone,
                              size_t gone_count, const char *path)
{
    retrieval_faiss *index = NULL;
    retrieval_flat kept = {.dim = DIM};
    base_error err = {0};
    base_map map;
    for (size_t i = 0; i < flat->count; i++) {
        assert_int_equal(retrieval_flat_add(&kept, flat->ids[i], flat->vectors + i * DIM, &err),
                         BASE_OK);
    }
    retrieval_flat_remove(&kept, gone, gone_count);
    assert_int_equal(
        retrieval_faiss_create(kind, DIM, flat->vectors, flat->count / 2, &index, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_add(index, kept.ids, kept.vectors, kept.count, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_write(index, path, &err), BASE_OK);
    assert_int_equal(base_map_open(path, &map, &err), BASE_OK);
    retrieval_faiss_free(index);
    retrieval_flat_free(&kept);
    return map;
}

/* Goal: a segment's file without some vectors is, byte for byte, what it would have been had they
 * never come; what is no such file is refused, full disks and failing allocations are told, and no
 * damage ends the program. Method: 6,000 vectors, every seventh, a run of 500 and some unknown ids
 * go; 300 flips and cuts of the file. */
static void test_retrieval_segment_strip_leaves_no_byte(void **state)
{
    (void)state;
    enum { N = 6000 };
    retrieval_flat flat = {0};
    float centres[64 * DIM];
    fill(&flat, N, 8, centres);
    char kind[RETRIEVAL_KIND_MAX], whole[128], some[128], out[128];
    retrieval_faiss_kind(N, DIM, kind);
    snprintf(whole, sizeof whole, "%s/whole", folder);
    snprintf(some, sizeof some, "%s/some", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    static uint64_t gone[N];
    size_t count = 0;
    for (size_t i = 0; i < N; i++) {
        if (i % 7 == 0 || (i >= 2000 && i < 2500)) {
            gone[count++] = flat.ids[i];
        } else if (i % 50 == 1) {
            gone[count++] = flat.ids[i] + 1; /* nobody's */
        }
    }
    base_map all = write_without(&flat, kind, NULL, 0, whole);
    base_map wanted = write_without(&flat, kind, gone, count, some);
    base_map made;
    base_error err = {0};
    retrieval_stripped left;
    assert_int_equal(retrieval_segment_strip(all.data, all.size, gone, count, out, &left, &err),
                     BASE_OK);
    assert_int_equal(base_map_open(out, &made, &err), BASE_OK);
    assert_int_equal(made.size, wanted.size);
    assert_memory_equal(made.data, wanted.data, made.size);
    assert_int_equal(left.first_id, flat.ids[1]);
    assert_int_equal(left.last_id, flat.ids[N - 2]); /* the last is a seventh one */
    base_map_close(&made);
    unlink(out);
    /* all of it: no file */
    assert_int_equal(retrieval_segment_strip(all.data, all.size, flat.ids, N, out, &left, &err),
                     BASE_OK);
    assert_int_equal(left.count, 0);
    assert_int_equal(access(out, F_OK), -1);
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(
            retrieval_segment_strip(all.data, all.size, gone, count, "/dev/full", &left, &err),
            BASE_DISK_FULL);
    }
    base_status status = BASE_NO_MEMORY;
    for (size_t n = 1; status != BASE_OK; n += n < 4 ? 1 : 40) { /* one for each list, mostly */
        base_mem_fail_at(n);
        status = retrieval_segment_strip(all.data, all.size, gone, count, out, &left, &err);
        base_mem_fail_at(0);
        assert_true(status == BASE_OK || status == BASE_NO_MEMORY);
    }
    uint8_t *damaged = base_alloc(all.size);
    base_rng rng;
    base_rng_seed(&rng, 9);
    for (int round = 0; round < 300; round++) {
        memcpy(damaged, all.data, all.size);
        size_t size = round % 3 ? all.size : (size_t)base_rng_below(&rng, all.size);
        /* half of the flips in what is not codes: the heads, and the ends */
        size_t at = (size_t)base_rng_below(&rng, round % 2 ? all.size : 400);
        damaged[at] ^= (uint8_t)(1U << base_rng_below(&rng, 8));
        status = retrieval_segment_strip(damaged, size, gone, count, out, &left, &err);
        assert_true(status == BASE_OK || status == BASE_UNSUPPORTED);
        assert_true(status != BASE_OK || size == all.size);
    }
    retrieval_faiss *index = NULL;
    assert_int_equal(build("IDMap2,Flat", &flat, &index, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_write(index, some, &err), BASE_OK);
    assert_int_equal(base_map_open(some, &made, &err), BASE_OK);
    assert_int_equal(retrieval_segment_strip(made.data, made.size, gone, count, out, &left, &err),
                     BASE_UNSUPPORTED);
    retrieval_faiss_free(index);
    base_map_close(&made);
    base_map_close(&all);
    base_map_close(&wanted);
    base_free(damaged);
    retrieval_flat_free(&flat);
    unlink(whole);
    unlink(some);
    unlink(out);
}

/* Goal: what FAISS refuses becomes a status with a text, and an unwritable path names itself. */
static void test_retrieval_faiss_errors_are_ours(void **state)
{
    (void)state;
    float v[DIM] = {1};
    uint64_t id = 1;
    retrieval_faiss *index = NULL;
    base_error err = {0};
    assert_int_equal(retrieval_faiss_create("Nonsense", DIM, v, 1, &index, &err), BASE_INVALID);
    assert_non_null(strstr(err.text, "Nonsense"));
    assert_int_equal(retrieval_faiss_create("IDMap2,Flat", DIM, v, 1, &index, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_add(index, &id, v, 1, &err), BASE_OK);
    assert_int_equal(retrieval_faiss_write(index, "no/such/folder/x", &err), BASE_NOT_FOUND);
    assert_non_null(strstr(err.text, "no/such/folder/x"));
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(retrieval_faiss_write(index, "/dev/full", &err), BASE_DISK_FULL);
    }
    retrieval_faiss_free(index);
    retrieval_faiss_free(NULL);
}

/* Goal: where FAISS was compiled for AVX2, a processor without it gets an error that says so. */
static void test_retrieval_faiss_names_the_processor_it_needs(void **state)
{
    (void)state;
    base_error err = {0};
    assert_int_equal(retrieval_usable(BASE_ISA_SCALAR, &err),
                     RETRIEVAL_FAISS_AVX2 ? BASE_UNSUPPORTED : BASE_OK);
    assert_int_equal(strstr(err.text, "AVX2") != NULL, RETRIEVAL_FAISS_AVX2);
    assert_int_equal(retrieval_usable(BASE_ISA_AVX2, &err), BASE_OK);
    assert_int_equal(retrieval_usable(BASE_ISA_AMX, &err), BASE_OK);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retrieval_flat_search_is_exact),
        cmocka_unit_test(test_retrieval_flat_remove_keeps_the_rest),
        cmocka_unit_test(test_retrieval_faiss_flat_equals_our_flat),
        cmocka_unit_test(test_retrieval_faiss_ivf_recall_is_95_percent),
        cmocka_unit_test(test_retrieval_segment_strip_leaves_no_byte),
        cmocka_unit_test(test_retrieval_faiss_errors_are_ours),
        cmocka_unit_test(test_retrieval_faiss_names_the_processor_it_needs),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
