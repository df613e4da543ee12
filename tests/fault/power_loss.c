/* tests/fault/power_loss.c: power loss, replayed from a recorded trace of writes and fsyncs.
 *
 *   power_loss FOLDER REPLAYS SEED
 *
 * The steps of fault_workload.h run once, undisturbed; every operation of LMDB, SQLite, FAISS and
 * our own code on the store's files is recorded (interpose.h), and after each step what is then
 * acknowledged: the export. A replay takes a random moment of that trace and makes the disk as a
 * power loss may leave it:
 *   - what was written before a completed fsync of its file (or by a synchronous write) is there;
 *   - of later writes any may be missing, in any order (later over earlier), whole or in part, by
 *     sectors of 512 bytes; so may the one that is under way;
 *   - names (created, renamed, removed) are there up to the last fsync of a folder at least, beyond
 *     that up to any point in their order: a journal commits in order. An fsync of a file alone
 *     does not keep its name.
 * What a program changes through a shared map is lost: LMDB's reader table, the index of SQLite's
 * log. Then: verify finds nothing wrong, the content is what was acknowledged, or that and the one
 * step under way, and when the next has opened the store, what was forgotten is in no byte.
 */
#include <math.h>

#include "tests/fault/fault_workload.h"
#include "tests/fault/interpose.h"

enum { STEPS = 20, SECTOR = 512, WATCHED_MAX = 64 };

typedef struct trace_op {
    interpose_kind kind;
    char *path, *to; /* relative to the store, "" = the store itself */
    uint64_t inode;
    char *data;
    size_t size;
    int64_t offset;
    bool durable;
} trace_op;

typedef struct trace {
    char root[FAULT_PATH_MAX];
    trace_op *ops;
    size_t count, capacity;
    size_t marks[STEPS + 1];        /* operations before step i was acknowledged */
    base_buffer exports[STEPS + 1]; /* what is acknowledged then */
    struct {
        size_t step; /* after which it must be gone */
        char word[32];
    } forgotten[WATCHED_MAX];
    size_t forgotten_count;
} trace;

/* --- recording ------------------------------------------------------------------------------- */

static void record(void *argument, const interpose_op *op)
{
    trace *t = argument;
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 1024;
        t->ops = realloc(t->ops, t->capacity * sizeof *t->ops);
        if (!t->ops) {
            abort();
        }
    }
    trace_op *to = &t->ops[t->count++];
    const char *path = op->path + strlen(t->root);
    *to = (trace_op){.kind = op->kind,
                     .path = strdup(*path == '/' ? path + 1 : path),
                     .to = op->to ? strdup(op->to + strlen(t->root) + 1) : NULL,
                     .inode = op->inode,
                     .size = op->size,
                     .offset = op->offset,
                     .durable = op->durable};
    if (op->size > 0) {
        to->data = malloc(op->size);
        if (!to->data) {
            abort();
        }
        memcpy(to->data, op->data, op->size);
    }
}

/* Words of the first line that the next export has no more. */
static void note_forgotten(trace *t, size_t step)
{
    const char *before = t->exports[step].data, *after = t->exports[step + 1].data;
    for (const char *at = before; (at = strstr(at, "word")); at++) {
        char word[32];
        size_t size = 4 + strspn(at + 4, "0123456789");
        snprintf(word, sizeof word, "%.*s in", (int)size, at);
        if (size > 4 && !strstr(after, word) && t->forgotten_count < WATCHED_MAX) {
            snprintf(word, sizeof word, "%.*s", (int)size, at);
            if (!strstr(after, word)) {
                t->forgotten[t->forgotten_count].step = step + 1;
                memcpy(t->forgotten[t->forgotten_count++].word, word, sizeof word);
            }
        }
    }
}

static bool record_workload(trace *t)
{
    workload w = {0};
    base_error err = {0};
    mkdir(t->root, 0700);
    interpose_watch(t->root, record, t);
    base_status status = workload_open(&w, t->root, &err);
    status = status ? status : workload_export(&w, &t->exports[0], &err);
    t->marks[0] = t->count;
    for (size_t i = 0; i < STEPS && !status; i++) {
        status = workload_step(&w, i, &err);
        t->marks[i + 1] = t->count;
        status = status ? status : workload_export(&w, &t->exports[i + 1], &err);
        if (!status) {
            note_forgotten(t, i);
        }
    }
    workload_close(&w);
    interpose_watch(NULL, NULL, NULL);
    if (status) {
        fprintf(stderr, "power_loss: the undisturbed run: %s\n", err.text);
    }
    return !status && t->forgotten_count > 0;
}

/* --- the disk after a power loss ------------------------------------------------------------- */

typedef struct disk_file {
    uint64_t inode;
    base_buffer data;      /* as it is durable */
    const trace_op **open; /* writes and resizes since the last fsync */
    size_t open_count, open_capacity;
} disk_file;

typedef struct disk {
    disk_file files[512];
    size_t file_count;
    const trace_op *names[1024]; /* operations on names, in order */
    size_t name_file[1024];      /* the file that a CREATE made */
    size_t name_count, name_durable;
    base_rng *rng;
} disk;

/* The newest file with that inode: a number is used again after its file is gone. */
static disk_file *find_file(disk *d, uint64_t inode)
{
    for (size_t i = d->file_count; i > 0; i--) {
        if (d->files[i - 1].inode == inode) {
            return &d->files[i - 1];
        }
    }
    return NULL;
}

static void set_size(base_buffer *data, size_t size)
{
    static const char zeros[4096];
    while (data->size < size) {
        size_t more = size - data->size < sizeof zeros ? size - data->size : sizeof zeros;
        if (base_buffer_append(data, zeros, more) != BASE_OK) {
            abort();
        }
    }
    data->size = size;
}

/* torn: each sector by chance. */
static void apply(disk *d, base_buffer *data, const trace_op *op, bool torn)
{
    if (op->kind == INTERPOSE_RESIZE) {
        set_size(data, (size_t)op->offset);
        return;
    }
    for (size_t at = 0; at < op->size;) {
        size_t place = (size_t)op->offset + at, rest = SECTOR - place % SECTOR;
        size_t size = rest < op->size - at ? rest : op->size - at;
        if (!torn || base_rng_below(d->rng, 2)) {
            if (data->size < place + size) {
                set_size(data, place + size);
            }
            memcpy(data->data + place, op->data + at, size);
        }
        at += size;
    }
}

static void settle(disk *d, disk_file *file)
{
    for (size_t i = 0; i < file->open_count; i++) {
        apply(d, &file->data, file->open[i], false);
    }
    file->open_count = 0;
}

static void keep_open(disk_file *file, const trace_op *op)
{
    if (file->open_count == file->open_capacity) {
        file->open_capacity = file->open_capacity ? 2 * file->open_capacity : 64;
        file->open = realloc(file->open, file->open_capacity * sizeof *file->open);
        if (!file->open) {
            abort();
        }
    }
    file->open[file->open_count++] = op;
}

/* under_way: it has begun, nobody knows how far it came. */
static void take_op(disk *d, const trace_op *op, bool under_way)
{
    disk_file *file = find_file(d, op->inode);
    switch (op->kind) {
    case INTERPOSE_WRITES:
    case INTERPOSE_RESIZE:
        if (!file) {
            fprintf(stderr, "power_loss: a write to %s, which nobody made\n", op->path);
            abort();
        }
        keep_open(file, op);
        if (op->durable && !under_way) {
            /* A synchronous write keeps itself, not what came before it. */
            file->open_count--;
            apply(d, &file->data, op, false);
        }
        return;
    case INTERPOSE_FSYNC:
        if (under_way) {
            return;
        }
        if (file) {
            settle(d, file);
        } else {
            d->name_durable = d->name_count; /* a folder */
        }
        return;
    case INTERPOSE_CREATE:
        if (d->file_count == 512) {
            abort();
        }
        d->files[d->file_count] = (disk_file){.inode = op->inode};
        d->name_file[d->name_count] = d->file_count++;
        break;
    default:
        break;
    }
    if (d->name_count == 1024) {
        abort();
    }
    d->names[d->name_count++] = op;
}

/* What is left of the open writes of a file. */
static void lose(disk *d, disk_file *file)
{
    uint64_t mode = base_rng_below(d->rng, 5);
    for (size_t i = file->open_count; i > 1 && mode >= 3; i--) { /* reordered */
        size_t k = (size_t)base_rng_below(d->rng, i);
        const trace_op *swap = file->open[i - 1];
        file->open[i - 1] = file->open[k];
        file->open[k] = swap;
    }
    for (size_t i = 0; i < file->open_count && mode > 0; i++) {
        bool kept = mode == 1 || base_rng_below(d->rng, 2); /* 0: all dropped, 1: all there */
        if (kept) {
            apply(d, &file->data, file->open[i], mode == 4 || mode == 2);
        }
    }
}

/* Write the files under the names that survive. */
static void write_disk(disk *d, const char *target)
{
    struct {
        const char *path;
        size_t file; /* SIZE_MAX: a folder */
    } names[1024];
    size_t count = 0;
    size_t kept = d->name_durable + (size_t)base_rng_below(d->rng, d->name_count -
                                                                       d->name_durable + 1);
    for (size_t i = 0; i < kept; i++) {
        const trace_op *op = d->names[i];
        size_t from = 0, to = 0;
        while (from < count && strcmp(names[from].path, op->path) != 0) {
            from++;
        }
        switch (op->kind) {
        case INTERPOSE_CREATE:
        case INTERPOSE_MKDIR:
            names[count].path = op->path;
            names[count++].file = op->kind == INTERPOSE_CREATE ? d->name_file[i] : SIZE_MAX;
            break;
        case INTERPOSE_RENAME:
            while (to < count && strcmp(names[to].path, op->to) != 0) {
                to++;
            }
            if (from == count) {
                abort();
            }
            names[from].path = op->to;
            if (to < count) {
                names[to] = names[--count];
            }
            break;
        default:
            if (from < count) {
                names[from] = names[--count];
            }
        }
    }
    fault_remove(target);
    mkdir(target, 0700);
    for (int folders = 1; folders >= 0; folders--) {
        for (size_t i = 0; i < count; i++) {
            char path[2 * FAULT_PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", target, names[i].path);
            if (folders && names[i].file == SIZE_MAX) {
                mkdir(path, 0700);
            } else if (!folders && names[i].file != SIZE_MAX) {
                const base_buffer *data = &d->files[names[i].file].data;
                fault_write_file(path, data->data ? data->data : "", data->size);
            }
        }
    }
}

/* --- a replay -------------------------------------------------------------------------------- */

static bool check(const trace *t, const char *target, size_t acknowledged)
{
    base_buffer now = {0};
    char path[FAULT_PATH_MAX];
    bool good = false;
    if (fault_verify(target, false, "power_loss") > 0) {
        fprintf(stderr, "power_loss: what is left does not verify\n");
    } else if (!fault_export(target, true, &now, "power_loss")) {
    } else if (!fault_same(&now, &t->exports[acknowledged]) &&
               (acknowledged == STEPS || !fault_same(&now, &t->exports[acknowledged + 1]))) {
        fprintf(stderr, "power_loss: step %zu was acknowledged, the content is another\n",
                acknowledged);
    } else if (fault_verify(target, false, "power_loss") > 0) {
        fprintf(stderr, "power_loss: after the next has opened it, it does not verify\n");
    } else {
        good = true;
        for (size_t i = 0; i < t->forgotten_count && good; i++) {
            const char *word = t->forgotten[i].word;
            good = t->forgotten[i].step > acknowledged ||
                   !fault_holds(target, word, strlen(word), path);
            if (!good) {
                fprintf(stderr, "power_loss: forgotten \"%s\" is still in %s\n", word, path);
            }
        }
    }
    base_buffer_free(&now);
    return good;
}

static bool replay(const trace *t, const char *target, base_rng *rng, size_t *moment)
{
    static disk d;
    memset(&d, 0, sizeof d);
    d.rng = rng;
    /* From when the store was first whole on: the making of a store is not acknowledged. */
    *moment = t->marks[0] + (size_t)base_rng_below(rng, t->count - t->marks[0] + 1);
    for (size_t i = 0; i < *moment; i++) {
        take_op(&d, &t->ops[i], false);
    }
    if (*moment < t->count) {
        take_op(&d, &t->ops[*moment], true);
    }
    size_t acknowledged = 0;
    while (acknowledged < STEPS && t->marks[acknowledged + 1] <= *moment) {
        acknowledged++;
    }
    for (size_t i = 0; i < d.file_count; i++) {
        lose(&d, &d.files[i]);
    }
    write_disk(&d, target);
    for (size_t i = 0; i < d.file_count; i++) {
        base_buffer_free(&d.files[i].data);
        free(d.files[i].open);
    }
    return check(t, target, acknowledged);
}

int main(int argc, char **argv)
{
    static trace t;
    char target[FAULT_PATH_MAX];
    base_rng rng;
    uint64_t wrong = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: power_loss FOLDER REPLAYS SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[2], NULL, 10), seed = strtoull(argv[3], NULL, 10);
    snprintf(t.root, sizeof t.root, "%s/recorded", argv[1]);
    snprintf(target, sizeof target, "%s/replayed", argv[1]);
    if (!record_workload(&t)) {
        return 1;
    }
    for (uint64_t i = 0; i < count && wrong < 10; i++) {
        size_t moment;
        base_rng_seed(&rng, seed * 1000003 + i);
        if (!replay(&t, target, &rng, &moment)) {
            fprintf(stderr, "power_loss: replay %llu of seed %llu, at operation %zu (%s)\n",
                    (unsigned long long)i, (unsigned long long)seed, moment,
                    moment < t.count ? t.ops[moment].path : "end");
            wrong++;
        }
    }
    printf("%llu power losses at any of %zu operations in %d steps: %llu wrong (seed %llu)\n",
           (unsigned long long)count, t.count, STEPS, (unsigned long long)wrong,
           (unsigned long long)seed);
    return wrong > 0;
}
