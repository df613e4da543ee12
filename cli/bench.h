/* cli/bench.h: what the parts of `eidetic bench` share. cmd_bench.c measures the model and the
 * machine, bench_ingest.c readers, text encoder and ingest, bench_retrieval.c a lookup,
 * bench_upkeep.c an index that grows and shrinks.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "base/rng.h"
#include "cli/cli.h"

enum { CLI_BENCH_ROUNDS_MAX = 1000, CLI_BENCH_PATH = 4096 };

typedef struct cli_bench_figure { /* of one round */
    double seconds, cpu_seconds;  /* on the wall; of all threads */
} cli_bench_figure;
cli_bench_figure cli_bench_now(void);
cli_bench_figure cli_bench_since(cli_bench_figure begin);

void cli_bench_sort(double *values, size_t count); /* ascending */

/* Runs `round` as often as is asked for. units: done by a round; rates [CLI_BENCH_ROUNDS_MAX] a
 * second, ascending. */
typedef base_status cli_bench_round(void *argument, base_error *err);
base_status cli_bench_rounds(const cli_options *o, cli_bench_round *round, void *argument,
                             double units, double *rates, size_t *count, base_error *err);

/* A new folder below $TMPDIR, locked until the program ends; those that killed programs left there
 * are removed. Removed with all that is in it ("": nothing). */
base_status cli_bench_folder_make(char folder[CLI_BENCH_PATH], base_error *err);
void cli_bench_folder_remove(const char *folder);

/* What the encoder is to see of a corpus: of --documents, read as ingest reads it, or of invented
 * documents. */
typedef struct cli_bench_corpus {
    char **texts; /* [count] */
    size_t *sizes;
    size_t count, bytes;
    char path[CLI_BENCH_PATH];   /* that was read */
    char folder[CLI_BENCH_PATH]; /* holds invented documents; "" when they were given */
} cli_bench_corpus;
/* invented: about as many episodes are made where --documents is not given. At most episodes_max of
 * what is read (0: all). On an error the corpus is to be closed, too. */
base_status cli_bench_corpus_open(const cli_options *o, size_t invented, size_t episodes_max,
                                  cli_bench_corpus *corpus, base_error *err);
void cli_bench_corpus_close(cli_bench_corpus *corpus);

/* A unit vector [dim], on the sphere at random. */
void cli_bench_random_vector(base_rng *rng, float *v, size_t dim);
/* out [dim]: a unit vector whose cosine with v (unit length) is `cosine`, turned towards `to`. */
void cli_bench_turn(const float *v, const float *to, float cosine, float *out, size_t dim);

int cli_bench_encoder(const cli_options *o);
int cli_bench_ingest(const cli_options *o);
int cli_bench_retrieval(const cli_options *o);
int cli_bench_upkeep(const cli_options *o);

#endif
