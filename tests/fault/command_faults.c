/* tests/fault/command_faults.c: the program's own commands, killed or failed at chosen operations.
 *
 *   command_faults PROGRAM LIBINTERPOSE ENCODER OTHER_ENCODER FOLDER KILLS INJECTIONS SEED
 *
 * A store with documents, newer versions, keys and values, uses, an index segment and a tail is
 * made by the commands themselves. Then, KILLS + INJECTIONS times, one of ingest, age, forget,
 * reindex and chat runs on a copy of it, and at a random operation on its files (interpose.h) it is
 * killed, or the operation fails: no space left (once, or from then on), an I/O error, a short
 * write, a failed fsync. Afterwards:
 *   - killed: nothing else ended it; failed: it said so and left with 1, or it had done its work;
 *   - verify finds nothing wrong in what is left, as it lies there;
 *   - every document that was acknowledged is there, word for word, and what the command adds is
 *     there in whole commits in their order; a command that left with 0 has done all of it;
 *   - of what was forgotten, once that is committed, no byte is left when the next has opened the
 *     store (text, vectors, keys and values);
 *   - the command run again without a fault ends in the undisturbed store's content.
 */
#include "tests/fault/chat_model.h"
#include "tests/fault/fault_store.h"

enum { INGEST, AGE, FORGET, REINDEX, CHAT, COMMANDS };
enum { CLASS_COUNT = 4, SECRETS_MAX = 24 };

static const char *const command_names[COMMANDS] = {"ingest", "age", "forget", "reindex", "chat"};

/* Kinds of faults and the class whose operations they count (interpose.h). */
static const struct {
    const char *name;
    int class;
} kills[] = {{"kill", 0}, {"killmid", 0}},
  injections[] = {{"enospc", 1}, {"full", 1}, {"eio", 0}, {"short", 2}, {"sync", 3}};

typedef struct secret {
    const char *kind;
    void *bytes;
    size_t size;
} secret;

typedef struct campaign {
    const char *program, *preload, *encoder, *other_encoder, *folder;
    char base[256], work[256], documents[256], more[256], model[256];
    base_buffer before;          /* export of the base store */
    base_buffer after[COMMANDS]; /* and after each command, undisturbed */
    uint64_t operations[COMMANDS][CLASS_COUNT];
    secret secrets[SECRETS_MAX]; /* bytes of what `forget` takes out */
    size_t secret_count;
    base_rng rng;
    uint64_t runs[COMMANDS], failed_visibly, harmless;
} campaign;

/* --- the commands ---------------------------------------------------------------------------- */

static fault_run run_command(const campaign *c, int command, const char *path, const char *fault,
                             const char *counts)
{
    char root[FAULT_PATH_MAX], preload[FAULT_PATH_MAX], what[64], where[FAULT_PATH_MAX];
    const char *heads[COMMANDS][8] = {
        [INGEST] = {"ingest", c->more},
        [AGE] = {"age", "--half-life", "864000"},
        [FORGET] = {"forget", "--source", "secret"},
        [REINDEX] = {"reindex"},
        [CHAT] = {"chat", "--model", c->model, "--max-tokens", "3"},
    };
    const char *argv[FAULT_ARGUMENTS_MAX] = {c->program}, *environment[8] = {0};
    size_t n = 1, e = 0;
    for (size_t i = 0; i < 8 && heads[command][i]; i++) {
        argv[n++] = heads[command][i];
    }
    const char *tail[] = {
        "--store",   path, "--encoder", command == REINDEX ? c->other_encoder : c->encoder,
        "--threads", "1",  "--now",     "2025-03-01"};
    for (size_t i = 0; i < sizeof tail / sizeof *tail; i++) {
        argv[n++] = tail[i];
    }
    snprintf(root, sizeof root, "EIDETIC_FAULT_ROOT=%s", path);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", c->preload);
    snprintf(what, sizeof what, "EIDETIC_FAULT=%s", fault ? fault : "");
    snprintf(where, sizeof where, "EIDETIC_FAULT_COUNTS=%s", counts ? counts : "");
    if (fault || counts) {
        environment[e++] = root;
        environment[e++] = preload;
    }
    if (fault) {
        environment[e++] = what;
    }
    if (counts) {
        environment[e++] = where;
    }
    const char *input = command == CHAT ? "What does item 7 cost, and item 8?\n" : NULL;
    return fault_execute(argv, environment, input, c->folder);
}

static bool must_run(const campaign *c, int command, const char *path, const char *counts)
{
    fault_run run = run_command(c, command, path, NULL, counts);
    bool good = fault_exited_with(&run, 0);
    if (!good) {
        char text[32];
        fprintf(stderr, "command_faults: undisturbed %s: %s\n%s", command_names[command],
                fault_describe(run.status, text), run.err.data);
    }
    fault_run_free(&run);
    return good;
}

/* --- the store to begin with ----------------------------------------------------------------- */

static bool write_lines(const char *path, base_rng *rng, int first, int last, bool secrets)
{
    FILE *file = fopen(path, "w");
    for (int i = first; file && i < last; i++) {
        /* Every fourth of the later ones is a newer version of an earlier one. */
        int id = first > 0 && i % 4 == 0 ? i - first : i;
        fprintf(file,
                "{\"id\":\"item %d\",\"source\":\"shop\",\"title\":\"Price list\",\"text\":\"Item "
                "%d costs %llu coins. It is sold in box %llu.\","
                "\"observed_at\":\"20%02d-02-01\"}\n",
                id, id, (unsigned long long)base_rng_below(rng, 100000),
                (unsigned long long)base_rng_below(rng, 1000), first > 0 ? 23 : 21);
        if (secrets && i % 10 == 7) {
            fprintf(file,
                    "{\"id\":\"hushword%d\",\"source\":\"secret\",\"text\":\"Item 7 and item 8 "
                    "cost zanzibarcode%d, whispered vaultdoor%d.\","
                    "\"observed_at\":\"2022-01-01\"}\n",
                    i, i, i);
        }
    }
    return file && fclose(file) == 0;
}

static void add_secret(campaign *c, const char *kind, const void *bytes, size_t size)
{
    secret *s = &c->secrets[c->secret_count++];
    if (c->secret_count == SECRETS_MAX || !(s->bytes = malloc(size))) {
        abort();
    }
    s->kind = kind;
    s->size = size;
    memcpy(s->bytes, bytes, size);
}

typedef struct secret_walk {
    campaign *c;
    store *s;
} secret_walk;

/* The vector of a secret episode as f32, and a run of bytes of its keys and values. */
static bool note_secret(void *argument, const store_view *view)
{
    secret_walk *w = argument;
    if (memmem(view->text, view->text_size, "zanzibarcode", 12) && view->vector) {
        add_secret(w->c, "vector", view->vector, 16 * sizeof *view->vector);
    }
    return true;
}

static bool note_secrets(campaign *c)
{
    static const char *const words[] = {"zanzibarcode", "vaultdoor", "hushword"};
    store *s = NULL;
    base_error err = {0};
    uint64_t damaged;
    store_options options = {.read_only = true};
    for (size_t i = 0; i < 3; i++) {
        add_secret(c, "text", words[i], strlen(words[i]));
    }
    secret_walk walk = {.c = c};
    bool good = store_open(c->base, &options, &s, &err) == BASE_OK &&
                store_scan(s, 0, note_secret, &walk, &damaged, &err) == BASE_OK;
    store_close(s);
    return good && c->secret_count > 3;
}

static bool make_base(campaign *c)
{
    /* Documents; a chat, which makes keys, values and uses; the index's segment; a tail. */
    if (!chat_model_write(c->model) || !write_lines(c->documents, &c->rng, 0, 40, true) ||
        !write_lines(c->more, &c->rng, 40, 64, false)) {
        return false;
    }
    char more[256];
    memcpy(more, c->more, sizeof more);
    memcpy(c->more, c->documents, sizeof more);
    bool good = must_run(c, INGEST, c->base, NULL);
    memcpy(c->more, more, sizeof more);
    return good && must_run(c, CHAT, c->base, NULL) && must_run(c, AGE, c->base, NULL) &&
           write_lines(c->documents, &c->rng, 80, 90, true) && note_secrets(c) &&
           fault_export(c->base, true, &c->before, "command_faults");
}

static bool make_references(campaign *c)
{
    char counts[512];
    snprintf(counts, sizeof counts, "%s/counts", c->folder);
    for (int i = 0; i < COMMANDS; i++) {
        fault_copy_store(c->base, c->work);
        if (!must_run(c, i, c->work, counts) ||
            !fault_export(c->work, true, &c->after[i], "command_faults") ||
            fault_verify(c->work, false, "command_faults") > 0) {
            return false;
        }
        FILE *file = fopen(counts, "r");
        unsigned long long n;
        for (int k = 0; file && k < CLASS_COUNT && fscanf(file, "%llu", &n) == 1; k++) {
            c->operations[i][k] = n;
        }
        if (file) {
            fclose(file);
        }
        if (c->operations[i][0] == 0) {
            fprintf(stderr, "command_faults: %s touches no file\n", command_names[i]);
            return false;
        }
    }
    return true;
}

/* --- what must hold -------------------------------------------------------------------------- */

static bool no_secret_left(const campaign *c)
{
    char path[FAULT_PATH_MAX];
    for (size_t i = 0; i < c->secret_count; i++) {
        if (fault_holds(c->work, c->secrets[i].bytes, c->secrets[i].size, path)) {
            fprintf(stderr, "command_faults: forgotten %s is still in %s\n", c->secrets[i].kind,
                    path);
            return false;
        }
    }
    return true;
}

/* Whole commits of the command, in order, behind all that was there before. */
static bool content_holds(const campaign *c, int command, const base_buffer *now, bool done)
{
    const base_buffer *after = &c->after[command];
    uint64_t before_lines, lines;
    if (done) {
        return fault_same(now, after) || (command == CHAT && now->size >= c->before.size);
    }
    if (command == FORGET) {
        return fault_same(now, &c->before) || fault_same(now, after);
    }
    return fault_is_prefix(now, &c->before, &before_lines) && fault_is_prefix(after, now, &lines);
}

static bool check(campaign *c, int command, const fault_run *run, bool killed)
{
    base_buffer now = {0};
    char text[32];
    bool good = false, done = fault_exited_with(run, 0);
    if (killed ? !WIFSIGNALED(run->status) || WTERMSIG(run->status) != SIGKILL
               : !done && (!fault_exited_with(run, 1) || !strstr(run->err.data, "eidetic: "))) {
        fprintf(stderr, "command_faults: %s ended with %s, saying: %s\n", command_names[command],
                fault_describe(run->status, text), run->err.data);
    } else if (fault_verify(c->work, false, "command_faults") > 0) {
        fprintf(stderr, "command_faults: what is left of %s does not verify\n",
                command_names[command]);
    } else if (!fault_export(c->work, true, &now, "command_faults")) {
    } else if (!content_holds(c, command, &now, done)) {
        fprintf(stderr, "command_faults: %s (%s) left another content:\n%s\n",
                command_names[command], done ? "done" : "not done", now.data);
    } else {
        good = command != FORGET || !fault_same(&now, &c->after[FORGET]) || no_secret_left(c);
    }
    base_buffer_free(&now);
    return good;
}

static bool check_resumed(campaign *c, int command)
{
    base_buffer now = {0};
    uint64_t lines;
    bool good = must_run(c, command, c->work, NULL) &&
                fault_verify(c->work, false, "command_faults") == 0 &&
                fault_export(c->work, true, &now, "command_faults");
    if (good && (command == CHAT ? !fault_is_prefix(&now, &c->before, &lines)
                                 : !fault_same(&now, &c->after[command]))) {
        fprintf(stderr, "command_faults: %s, run again, ends in another content:\n%s\n",
                command_names[command], now.data);
        good = false;
    }
    base_buffer_free(&now);
    return good && (command != FORGET || no_secret_left(c));
}

static bool one(campaign *c, uint64_t number, bool killed)
{
    int command = (int)(number % COMMANDS);
    size_t kind = killed ? base_rng_below(&c->rng, sizeof kills / sizeof *kills)
                         : base_rng_below(&c->rng, sizeof injections / sizeof *injections);
    int class = killed ? kills[kind].class : injections[kind].class;
    uint64_t at = 1 + base_rng_below(&c->rng, c->operations[command][class]);
    char fault[64];
    snprintf(fault, sizeof fault, "%s:%llu", killed ? kills[kind].name : injections[kind].name,
             (unsigned long long)at);
    fault_copy_store(c->base, c->work);
    fault_run run = run_command(c, command, c->work, fault, NULL);
    c->failed_visibly += !killed && fault_exited_with(&run, 1);
    c->harmless += !killed && fault_exited_with(&run, 0);
    c->runs[command]++;
    bool good = check(c, command, &run, killed) && check_resumed(c, command);
    if (!good) {
        fprintf(stderr, "command_faults: failed at number %llu: %s with %s\n%s\n",
                (unsigned long long)number, command_names[command], fault, run.err.data);
    }
    fault_run_free(&run);
    return good;
}

static int run_campaign(campaign *c, uint64_t kill_count, uint64_t injection_count, uint64_t seed)
{
    uint64_t wrong = 0;
    if (!make_base(c) || !make_references(c)) {
        return 1;
    }
    for (uint64_t i = 0; i < kill_count + injection_count && wrong < 10; i++) {
        wrong += !one(c, i, i < kill_count);
        if (wrong == 10) {
            fprintf(stderr, "command_faults: ended after %llu of %llu\n", (unsigned long long)i + 1,
                    (unsigned long long)(kill_count + injection_count));
        }
    }
    printf("%llu kills and %llu injected faults (%llu failed visibly, %llu were survived) of",
           (unsigned long long)kill_count, (unsigned long long)injection_count,
           (unsigned long long)c->failed_visibly, (unsigned long long)c->harmless);
    for (int i = 0; i < COMMANDS; i++) {
        printf(" %s %llu%s", command_names[i], (unsigned long long)c->runs[i],
               i + 1 < COMMANDS ? "," : "");
    }
    printf("; %llu wrong (seed %llu)\n", (unsigned long long)wrong, (unsigned long long)seed);
    return wrong > 0;
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "usage: command_faults PROGRAM LIBINTERPOSE ENCODER OTHER_ENCODER FOLDER "
                        "KILLS INJECTIONS SEED\n");
        return 2;
    }
    static campaign c;
    uint64_t seed = strtoull(argv[8], NULL, 10);
    c = (campaign){.program = argv[1],
                   .preload = argv[2],
                   .encoder = argv[3],
                   .other_encoder = argv[4],
                   .folder = argv[5]};
    base_rng_seed(&c.rng, seed);
    snprintf(c.base, sizeof c.base, "%s/base", c.folder);
    snprintf(c.work, sizeof c.work, "%s/work", c.folder);
    snprintf(c.documents, sizeof c.documents, "%s/documents.jsonl", c.folder);
    snprintf(c.more, sizeof c.more, "%s/more.jsonl", c.folder);
    snprintf(c.model, sizeof c.model, "%s/model.gguf", c.folder);
    int code = run_campaign(&c, strtoull(argv[6], NULL, 10), strtoull(argv[7], NULL, 10), seed);
    base_buffer_free(&c.before);
    for (int i = 0; i < COMMANDS; i++) {
        base_buffer_free(&c.after[i]);
    }
    for (size_t i = 0; i < c.secret_count; i++) {
        free(c.secrets[i].bytes);
    }
    return code;
}
