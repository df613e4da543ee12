/* tests/fuzz/driver.c: drives a fuzz target without libFuzzer: FUZZ_TARGET [OPTION...] PATH...
 *
 *   PATH          a file, or a folder of files: the corpus; each is run as it is
 *   -runs=N       then N mutated inputs (default 0)
 *   -seconds=S    end after so long, whatever -runs says (0: no end)
 *   -seed=S       of the mutations (default 1)
 *   -keep=DIR     write inputs that reached new code there, for a larger corpus
 *
 * Coverage: the target's code calls __sanitizer_cov_trace_pc at every branch (-fsanitize-coverage=
 * trace-pc); pairs of successive places are marked in a table, and an input that marks a new one
 * becomes a parent of others. Without that flag every input comes from the corpus.
 *
 * An input that ends the program, or takes longer than 20 s, lies in the working folder as
 * crash-TARGET-RUN; run the target with that file to see it again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 17, INPUTS_MAX = 4096, EDGES = 1 << 16, HANG_S = 20, CHANGES_MAX = 6 };

typedef struct input {
    uint8_t *data;
    size_t size;
} input;

static input inputs[INPUTS_MAX];
static size_t input_count;
static uint8_t edges[EDGES], seen[EDGES];
static uintptr_t place_before;
static char crash_name[256];
static const uint8_t *current;
static size_t current_size;
static base_rng rng;

void __sanitizer_cov_trace_pc(void);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    edges[(place ^ (place_before >> 1)) % EDGES] = 1;
    place_before = place;
}

/* The sanitizers end by abort(), so that the handler below writes the input. */
const char *__asan_default_options(void)
{
    return "abort_on_error=1:allocator_may_return_null=1:detect_leaks=1";
}

const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1:halt_on_error=1";
}

static void on_end(int number)
{
    int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const char *text = number == SIGALRM ? "fuzz: too slow; input in " : "fuzz: input in ";
    ssize_t put =
        write(2, text, strlen(text)) + write(2, crash_name, strlen(crash_name)) + write(2, "\n", 1);
    put += fd < 0 ? -1 : write(fd, current, current_size);
    (void)put;
    signal(number, SIG_DFL);
    raise(number);
}

static uint64_t below(uint64_t count)
{
    return count ? base_rng_below(&rng, count) : 0;
}

/* --- mutations -------------------------------------------------------------------------------- */

/* data holds room for INPUT_MAX. Put `count` bytes of `with` (NULL: random ones) at a place. */
static void insert(input *in, const uint8_t *with, size_t count)
{
    size_t at = (size_t)below(in->size + 1);
    count = count > INPUT_MAX - in->size ? INPUT_MAX - in->size : count;
    memmove(in->data + at + count, in->data + at, in->size - at);
    for (size_t i = 0; i < count; i++) {
        in->data[at + i] = with ? with[i] : (uint8_t)below(256);
    }
    in->size += count;
}

static void erase(input *in)
{
    size_t at = (size_t)below(in->size), count = 1 + (size_t)below(below(4) ? 16 : in->size);
    count = count > in->size - at ? in->size - at : count;
    memmove(in->data + at, in->data + at + count, in->size - at - count);
    in->size -= count;
}

/* A number that is a limit of something, or near one, over the bytes at a place. */
static void put_number(input *in)
{
    static const uint64_t limits[] = {0,          1,           0x7f,    0x80,       0xff,
                                      0x7fff,     0x8000,      0xffff,  0x7fffffff, 0x80000000u,
                                      0xffffffff, 0x100000000, 1 << 20, INT64_MAX,  UINT64_MAX};
    uint64_t value = limits[below(sizeof limits / sizeof *limits)] + below(3) - 1;
    size_t width = (size_t)1 << below(4), at = (size_t)below(in->size);
    for (size_t i = 0; i < width && at + i < in->size; i++) {
        in->data[at + i] = (uint8_t)(value >> (8 * i));
    }
}

static void put_word(input *in)
{
    size_t count = 0;
    while (fuzz_words[count]) {
        count++;
    }
    if (count > 0) {
        const char *word = fuzz_words[below(count)];
        insert(in, (const uint8_t *)word, strlen(word));
    }
}

/* A piece of another input. */
static void put_piece(input *in)
{
    const input *from = &inputs[below(input_count)];
    if (from->size > 0) {
        size_t at = (size_t)below(from->size);
        size_t count = 1 + (size_t)below(below(3) ? 32 : from->size - at);
        insert(in, from->data + at, count > from->size - at ? from->size - at : count);
    }
}

static void mutate(input *in)
{
    for (uint64_t i = 0, changes = 1 + below(CHANGES_MAX); i < changes; i++) {
        uint64_t way = in->size > 0 ? below(9) : 4 + below(3);
        switch (way) {
        case 0:
            in->data[below(in->size)] ^= (uint8_t)(1u << below(8));
            break;
        case 1:
            in->data[below(in->size)] = (uint8_t)below(256);
            break;
        case 2:
        case 3:
            put_number(in);
            break;
        case 4:
            insert(in, NULL, 1 + (size_t)below(8));
            break;
        case 5:
            put_word(in);
            break;
        case 6:
            put_piece(in);
            break;
        case 7:
            erase(in);
            break;
        default:
            in->size = below(4) ? in->size : (size_t)below(in->size);
            break;
        }
    }
}

/* --- running ---------------------------------------------------------------------------------- */

/* The input lies in a block of its size: one byte too many is seen. True: it reached new code. */
static bool run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    bool news = false;
    FUZZ_CHECK(exact);
    memcpy(exact, data, size);
    current = data;
    current_size = size;
    place_before = 0;
    alarm(HANG_S);
    LLVMFuzzerTestOneInput(exact, size);
    alarm(0);
    free(exact);
    for (size_t i = 0; i < EDGES; i++) {
        news |= edges[i] && !seen[i];
        seen[i] |= edges[i];
    }
    memset(edges, 0, sizeof edges);
    return news;
}

static void add_input(const uint8_t *data, size_t size)
{
    if (input_count < INPUTS_MAX) {
        input *in = &inputs[input_count++];
        in->data = malloc(size ? size : 1);
        FUZZ_CHECK(in->data);
        memcpy(in->data, data, size);
        in->size = size;
    }
}

static void read_path(const char *path)
{
    static uint8_t bytes[INPUT_MAX];
    DIR *folder = opendir(path);
    for (struct dirent *e = folder ? readdir(folder) : NULL; e; e = readdir(folder)) {
        char name[4096];
        if (e->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, e->d_name);
            read_path(name);
        }
    }
    if (folder) {
        closedir(folder);
        return;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "fuzz: cannot open %s\n", path);
        exit(2);
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    add_input(bytes, size);
}

static int compare_inputs(const void *a, const void *b)
{
    const input *x = a, *y = b;
    if (x->size != y->size) {
        return x->size < y->size ? -1 : 1;
    }
    return memcmp(x->data, y->data, x->size);
}

static void keep(const char *folder, unsigned long long run_number, const input *in)
{
    char name[4096];
    snprintf(name, sizeof name, "%s/new-%llu", folder, run_number);
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(in->data, 1, in->size, file) != in->size || fclose(file) != 0) {
        fprintf(stderr, "fuzz: cannot write %s\n", name);
        exit(2);
    }
}

static size_t count_seen(void)
{
    size_t count = 0;
    for (size_t i = 0; i < EDGES; i++) {
        count += seen[i];
    }
    return count;
}

int main(int argc, char **argv)
{
    unsigned long long runs = 0, seconds = 0, seed = 1, done = 0;
    static uint8_t room[INPUT_MAX];
    static const int ends[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    const char *keep_folder = NULL, *slash = strrchr(argv[0], '/');
    const char *target = slash ? slash + 1 : argv[0];
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-keep=", 6) == 0) {
            keep_folder = argv[i] + 6;
        } else if (sscanf(argv[i], "-runs=%llu", &runs) != 1 &&
                   sscanf(argv[i], "-seconds=%llu", &seconds) != 1 &&
                   sscanf(argv[i], "-seed=%llu", &seed) != 1) {
            read_path(argv[i]);
        }
    }
    if (input_count == 0) {
        fprintf(stderr, "fuzz: no corpus\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        signal(ends[i], on_end);
    }
    qsort(inputs, input_count, sizeof *inputs, compare_inputs); /* folders are in no order */
    base_rng_seed(&rng, seed);
    size_t seeds = input_count;
    for (size_t i = 0; i < seeds; i++) {
        snprintf(crash_name, sizeof crash_name, "crash-%.200s-corpus-%zu", target, i);
        run(inputs[i].data, inputs[i].size);
    }
    size_t before = count_seen();
    time_t begin = time(NULL);
    for (; (runs == 0 ? seconds > 0 : done < runs) &&
           (seconds == 0 || (unsigned long long)(time(NULL) - begin) < seconds);
         done++) {
        const input *parent = &inputs[below(input_count)];
        input in = {room, parent->size};
        memcpy(room, parent->data, parent->size);
        mutate(&in);
        snprintf(crash_name, sizeof crash_name, "crash-%.200s-%llu-%llu", target, seed, done);
        if (run(in.data, in.size)) {
            add_input(in.data, in.size);
            if (keep_folder) {
                keep(keep_folder, done, &in);
            }
        }
    }
    printf(
        "%s: seed %llu, %zu files and %llu mutated inputs; %zu edges from the files, %zu in all\n",
        target, seed, seeds, done, before, count_seen());
    for (size_t i = 0; i < input_count; i++) {
        free(inputs[i].data);
    }
    return 0;
}
