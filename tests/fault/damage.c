/* tests/fault/damage.c: flipped bits, overwritten blocks and cut-off ends in every file of a store.
 *
 *   damage FOLDER COUNT SEED
 *
 * The steps of fault_workload.h make a store. COUNT times a copy of it is damaged in one place of
 * one file, each file in turn, and then, each in a process of its own:
 *   - everything is read (export, episodes, vectors, keys and values, both searches): an error or
 *     an absence is allowed, another content is not;
 *   - what could not be read as before is named by verify;
 *   - verify --repair mends it: afterwards verify finds nothing, every episode that is left is word
 *     for word what it was (but for the names of a source or document whose record was hit), and
 *     none is lost whose record's bytes are as they were.
 */
#include <math.h>

#include "store/record.h"
#include "tests/fault/fault_workload.h"

enum { STEPS = 17, EPISODES_MAX = 256, PLACES_MAX = 4096, FILES_MAX = 32 };
enum { SAME, VISIBLE, WRONG };

typedef struct place {
    uint64_t id;
    size_t offset, size;
} place;

typedef struct campaign {
    char base[256], work[256];
    base_buffer exported;
    store_episode episodes[EPISODES_MAX];
    size_t episode_count;
    void *kv[EPISODES_MAX]; /* NULL: none */
    size_t kv_size[EPISODES_MAX];
    uint64_t found[EPISODES_MAX], near[EPISODES_MAX]; /* first hits of the searches */
    place places[PLACES_MAX]; /* episode records in data.mdb, old copies too */
    size_t place_count;
    base_buffer data; /* data.mdb of the base */
    char files[FILES_MAX][64];
    size_t file_count;
    base_rng rng;
    uint64_t harmless, named, lost, died;
} campaign;

static const uint8_t kv_tag[32] = {9};

/* --- reading everything ---------------------------------------------------------------------- */

/* The first word of the text that begins with "word" or "Step", as a query. */
static size_t query_of(const char *text, char out[64])
{
    const char *at = strstr(text, "word");
    at = at ? at : text;
    return (size_t)snprintf(out, 64, "%.*s", (int)strcspn(at, " ."), at);
}

static uint64_t search_text(store *s, const char *text)
{
    char query[64];
    store_text_hit hit;
    size_t count = 0, size = query_of(text, query);
    return store_search_text(s, query, size, BASE_TIME_MAX, 1, &hit, &count, NULL) || count == 0
               ? 0
               : hit.id;
}

static uint64_t search_near(retrieval *r, const store_episode *e)
{
    retrieval_hit hit;
    size_t count = 0;
    retrieval_query query = {.vector = e->vector,
                             .now_us = 900 * BASE_DAY_US,
                             .as_of_us = 900 * BASE_DAY_US,
                             .about_us = BASE_TIME_NONE,
                             .k = 1};
    return retrieval_search(r, &query, &hit, &count, NULL) || count == 0 ? 0 : hit.id;
}

/* A name is as it was, or, when the record that held it was hit and repair had to make one up, one
 * that says so. */
static bool same_name(const char *now, const char *was, bool repaired)
{
    return strcmp(now, was) == 0 || (repaired && strncmp(now, "recovered ", 10) == 0);
}

static bool same_episode(const store_episode *a, const store_episode *b, bool repaired)
{
    return a->text_size == b->text_size && strcmp(a->text, b->text) == 0 &&
           same_name(a->source, b->source, repaired) &&
           same_name(a->external_id, b->external_id, repaired) &&
           strcmp(a->title, b->title) == 0 && a->observed_at_us == b->observed_at_us &&
           a->document == b->document && a->version == b->version &&
           a->start_byte == b->start_byte;
}

static bool same_vector(const store_episode *a, const store_episode *b)
{
    return a->vector_dim == b->vector_dim &&
           memcmp(a->vector, b->vector, a->vector_dim * sizeof *a->vector) == 0;
}

static void note(int *result, int what)
{
    *result = what > *result ? what : *result;
}

/* SAME, VISIBLE (something is missing or an error) or WRONG. A search that leads elsewhere counts
 * as visible: what it leads to is read from the records. */
static int read_all(const campaign *c, bool searches)
{
    workload w = {0};
    store_options options = {.read_only = true};
    base_error err = {0};
    base_buffer text = {0};
    int result = SAME;
    if (store_open(c->work, &options, &w.s, &err) || retrieval_open(w.s, FAULT_DIM, &w.r, &err)) {
        workload_close(&w);
        return VISIBLE;
    }
    if (workload_export(&w, &text, &err)) {
        note(&result, VISIBLE);
    } else if (!fault_same(&text, &c->exported)) {
        note(&result, VISIBLE); /* its lines are compared as episodes below */
    }
    for (size_t i = 0; i < c->episode_count; i++) {
        store_episode e;
        void *kv = NULL;
        size_t size = 0;
        const store_episode *want = &c->episodes[i];
        if (store_get(w.s, want->id, &e, &err)) {
            note(&result, VISIBLE);
            continue;
        }
        note(&result, same_episode(&e, want, false) ? SAME : WRONG);
        note(&result, !e.vector ? VISIBLE : same_vector(&e, want) ? SAME : WRONG);
        note(&result, e.superseded_at_us == want->superseded_at_us ? SAME : VISIBLE);
        store_episode_free(&e);
        if (c->kv[i] && store_get_kv(w.s, want->id, kv_tag, &kv, &size, &err)) {
            note(&result, VISIBLE);
        } else if (c->kv[i]) {
            note(&result,
                 size == c->kv_size[i] && memcmp(kv, c->kv[i], size) == 0 ? SAME : WRONG);
            base_free(kv);
        }
        if (searches && (search_text(w.s, want->text) != c->found[i] ||
                         search_near(w.r, want) != c->near[i])) {
            note(&result, VISIBLE);
        }
    }
    base_buffer_free(&text);
    workload_close(&w);
    return result;
}

/* --- the base -------------------------------------------------------------------------------- */

static void find_places(campaign *c)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data.mdb", c->base);
    c->data = fault_read_file(path);
    for (size_t at = 0; at + 2 < c->data.size; at += 2) {
        store_table table;
        store_key key;
        uint64_t commit;
        size_t size;
        if (c->data.data[at] == 'e' &&
            store_record_probe((const uint8_t *)c->data.data + at, c->data.size - at, &table, &key,
                               &commit, &size) &&
            table == STORE_TABLE_EPISODE && c->place_count < PLACES_MAX) {
            uint64_t id = 0;
            for (int i = 0; i < 8; i++) {
                id = id << 8 | key.data[i];
            }
            c->places[c->place_count++] = (place){id, at, size};
        }
    }
}

static void list_files(campaign *c)
{
    static const char *const folders[] = {"", "index/"};
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", c->base, folders[i]);
        DIR *folder = opendir(path);
        struct dirent *entry;
        while (folder && (entry = readdir(folder)) && c->file_count < FILES_MAX) {
            char file[1024];
            struct stat info;
            snprintf(file, sizeof file, "%s%s", path, entry->d_name);
            if (strcmp(entry->d_name, "lock.mdb") != 0 && stat(file, &info) == 0 &&
                S_ISREG(info.st_mode) && info.st_size > 0) {
                snprintf(c->files[c->file_count++], sizeof c->files[0], "%s%.40s", folders[i],
                         entry->d_name);
            }
        }
        if (folder) {
            closedir(folder);
        }
    }
}

static bool make_base(campaign *c)
{
    workload w = {0};
    base_error err = {0};
    uint64_t *ids = NULL;
    size_t count = 0;
    mkdir(c->base, 0700);
    base_status status = workload_open(&w, c->base, &err);
    for (uint64_t i = 0; i < STEPS && !status; i++) {
        status = workload_step(&w, i, &err);
    }
    status = status ? status : workload_export(&w, &c->exported, &err);
    status = status ? status
                    : store_select(w.s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, &err);
    for (size_t i = 0; i < count && i < EPISODES_MAX && !status; i++) {
        status = store_get(w.s, ids[i], &c->episodes[i], &err);
        if (store_get_kv(w.s, ids[i], kv_tag, &c->kv[i], &c->kv_size[i], NULL)) {
            c->kv[i] = NULL;
        }
        c->found[i] = search_text(w.s, c->episodes[i].text);
        c->near[i] = search_near(w.r, &c->episodes[i]);
        c->episode_count = i + 1;
    }
    base_free(ids);
    workload_close(&w);
    if (status) {
        fprintf(stderr, "damage: %s\n", err.text);
        return false;
    }
    find_places(c);
    list_files(c);
    return c->episode_count > 20 && c->place_count >= c->episode_count && c->file_count >= 4;
}

/* --- one damage ------------------------------------------------------------------------------ */

/* Change the file; describe how. */
static void spoil(campaign *c, const char *file, char how[128])
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", c->work, file);
    base_buffer data = fault_read_file(path);
    size_t at = (size_t)base_rng_below(&c->rng, data.size), size = data.size;
    switch (base_rng_below(&c->rng, 6)) {
    case 0: /* the end is cut off */
        size = at;
        snprintf(how, 128, "%s cut to %zu of %zu bytes", file, size, data.size);
        break;
    case 1: { /* a block is overwritten */
        size_t block = 1 + (size_t)base_rng_below(&c->rng, 512);
        block = block < size - at ? block : size - at;
        bool zero = base_rng_below(&c->rng, 2) == 0;
        for (size_t i = 0; i < block; i++) {
            data.data[at + i] = zero ? 0 : (char)base_rng_below(&c->rng, 256);
        }
        snprintf(how, 128, "%zu bytes at %zu of %s overwritten", block, at, file);
        break;
    }
    default: {
        unsigned bit = (unsigned)base_rng_below(&c->rng, 8);
        data.data[at] = (char)((unsigned char)data.data[at] ^ (1u << bit));
        snprintf(how, 128, "bit %u at %zu of %s flipped", bit, at, file);
    }
    }
    fault_write_file(path, data.data, size);
    base_buffer_free(&data);
}

static int as_verify(const campaign *c, bool repair)
{
    return fault_verify(c->work, repair, NULL) > 0 ? VISIBLE : SAME;
}

static int as_reader(const campaign *c, bool searches)
{
    return read_all(c, searches);
}

/* Run in a child, whose words are thrown away; its result, or -1 when it was killed by a signal. */
static int in_child(int (*work)(const campaign *c, bool flag), const campaign *c, bool flag)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(fd, STDERR_FILENO);
        _exit(work(c, flag));
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Are all places of this episode's record as they were? */
static bool intact(const campaign *c, uint64_t id, const base_buffer *now)
{
    bool any = false;
    for (size_t i = 0; i < c->place_count; i++) {
        const place *p = &c->places[i];
        if (p->id == id) {
            if (p->offset + p->size > now->size ||
                memcmp(now->data + p->offset, c->data.data + p->offset, p->size) != 0) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

/* Every episode is there as it was, or its record was hit. */
static bool check_repaired(campaign *c, const base_buffer *damaged)
{
    store *s = NULL;
    store_options options = {.create = false};
    base_error err = {0};
    bool good = true;
    if (store_open(c->work, &options, &s, &err)) {
        fprintf(stderr, "damage: the repaired store does not open: %s\n", err.text);
        return false;
    }
    for (size_t i = 0; i < c->episode_count; i++) {
        store_episode e;
        const store_episode *want = &c->episodes[i];
        if (store_get(s, want->id, &e, &err)) {
            c->lost++;
            if (intact(c, want->id, damaged)) {
                fprintf(stderr, "damage: episode %llu was whole and is lost\n",
                        (unsigned long long)want->id);
                good = false;
            }
            continue;
        }
        if (!same_episode(&e, want, true)) {
            fprintf(stderr, "damage: episode %llu is repaired into another\n",
                    (unsigned long long)want->id);
            good = false;
        }
        store_episode_free(&e);
    }
    store_close(s);
    return good;
}

static bool one(campaign *c, uint64_t number)
{
    char how[128], path[512];
    const char *file = c->files[number % c->file_count];
    fault_copy_store(c->base, c->work);
    spoil(c, file, how);
    snprintf(path, sizeof path, "%s/data.mdb", c->work);
    base_buffer damaged = fault_read_file(path);
    int read = in_child(as_reader, c, true);
    int named = in_child(as_verify, c, false);
    bool good = true;
    c->died += read < 0;
    if (read == WRONG || named < 0 || (read != SAME && named == SAME)) {
        fprintf(stderr, "damage: %s\n",
                read == WRONG  ? "another content was read as if it were right"
                : named < 0    ? "verify died of it"
                               : "verify does not name it");
        good = false;
    } else if (named == SAME) {
        c->harmless++;
    } else {
        c->named++;
        int repair = in_child(as_verify, c, true), again = in_child(as_verify, c, false);
        if (repair < 0 || again != SAME) {
            fprintf(stderr, "damage: %s\n", repair < 0 ? "repair died" : "it is not mended");
            (void)fault_verify(c->work, false, "damage");
            good = false;
        } else {
            good = check_repaired(c, &damaged);
        }
    }
    if (!good) {
        fprintf(stderr, "damage: number %llu: %s\n", (unsigned long long)number, how);
    }
    base_buffer_free(&damaged);
    return good;
}

int main(int argc, char **argv)
{
    static campaign c;
    uint64_t wrong = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: damage FOLDER COUNT SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[2], NULL, 10), seed = strtoull(argv[3], NULL, 10);
    base_rng_seed(&c.rng, seed);
    snprintf(c.base, sizeof c.base, "%s/base", argv[1]);
    snprintf(c.work, sizeof c.work, "%s/work", argv[1]);
    if (!make_base(&c)) {
        return 1;
    }
    for (uint64_t i = 0; i < count && wrong < 10; i++) {
        wrong += !one(&c, i);
    }
    printf("%llu damages in %zu files: %llu named and repaired (%llu episodes whose record was hit "
           "are lost, of %zu in each store), %llu touched nothing that is read, %llu ended a "
           "reader; %llu wrong (seed %llu)\n",
           (unsigned long long)count, c.file_count, (unsigned long long)c.named,
           (unsigned long long)c.lost, c.episode_count, (unsigned long long)c.harmless,
           (unsigned long long)c.died, (unsigned long long)wrong, (unsigned long long)seed);
    return wrong > 0;
}
