/* cli/cli.h: the program around the libraries. Only here are arguments, environment, the wall
 * clock, stdout and exit codes.
 *
 * main.c reads options by one table and calls the command; everything a person reads goes to
 * stdout, progress and log to stderr. Exit codes: 0 done, 1 failed, 2 bad usage.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "eval/results.h"
#include "retrieval/retrieval.h"
#include "store/store.h"

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

typedef struct cli_options {
    /* any command */
    const char *store, *model, *encoder, *core, *device, *kv_type;
    const char *adapters[CORE_ADAPTERS_MAX + 1]; /* as often as --adapter was given, then NULL */
    size_t threads, window;
    uint64_t kv_budget; /* UINT64_MAX: none */
    int64_t now_us;
    bool json, help;
    /* asking */
    const char *arm, *splice_state, *session, *prompt, *resume_at;
    int64_t as_of_us, about_us; /* BASE_TIME_NONE when not given */
    size_t max_tokens, k;
    uint64_t seed;
    double temperature, top_p, min_p, event_threshold, event_rate;
    size_t top_k, event_stride;
    bool read_only, trace;
    /* ingest, age, forget, verify */
    const char *source, *query;
    int64_t observed_at_us, valid_from_us, valid_to_us, from_us, to_us;
    uint64_t id;
    double half_life_s;
    bool watch, dry_run, repair, force, no_supersede;
    /* eval */
    const char *documents, *questions, *arms, *out, *mode;
    size_t controls, tokens;
    double without_evidence;
    bool replay;
    size_t vector_size; /* of the encoder at hand, for a new store; 0 = the default encoder's */
    /* prime */
    const char *layers, *mixer;
    size_t limit; /* SIZE_MAX = not given */
    const char *command; /* the whole command line */
    bool now_given;
    /* bench */
    size_t depth, rounds, batch;
    bool paced, no_detector;
    /* what is left: operands */
    char **operands;
    int operand_count;
} cli_options;

typedef int cli_command(const cli_options *o);
cli_command cmd_ingest, cmd_ask, cmd_chat, cmd_generate, cmd_tokenize, cmd_model, cmd_search,
    cmd_show, cmd_stats, cmd_verify, cmd_age, cmd_forget, cmd_backup, cmd_restore, cmd_export,
    cmd_import, cmd_reindex, cmd_bench, cmd_eval, cmd_prime;

/* --limit, 0 when it was not given. */
size_t cli_limit(const cli_options *o);
/* eval SUITE --help: suites, arms, ablations. */
void cli_eval_help(const cli_options *o);
/* report.html and report.md of these runs into folder; *markdown [cleared by the caller]: the
 * latter; page: path of the former. */
base_status cli_write_report(const eval_run *runs, size_t count, const char *folder,
                             base_buffer *markdown, char page[4096], base_error *err);
/* eval report DIR..., eval import FILE */
int cli_eval_report(const cli_options *o);
int cli_eval_import(const cli_options *o);

/* Print "eidetic: TEXT" to stderr and return CLI_FAILED (CLI_USAGE). */
int cli_fail(const base_error *err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- opening things as the options say -------------------------------------------------------- */

typedef struct cli_memory {
    store *store;
    retrieval *retrieval;
    size_t vector_size; /* that retrieval was opened with */
} cli_memory;

enum cli_part {
    CLI_ENCODER = 1, /* the text encoder too */
    CLI_READER = 2,  /* the model's reader adapter, unless --adapter says otherwise */
    CLI_MIXERS = 4   /* its trained mixers: unless --adapter, --core or --window says otherwise */
};

/* The model and `parts` (cli_part). The reader adapter of X.gguf is X.reader.gguf beside it, for
 * the commands that read memory, its trained mixers are X.core.gguf, for those that generate (and
 * with --core hybrid for all); those about the model alone run it as it is. */
base_status cli_open_engine(const cli_options *o, unsigned parts, engine **out, base_error *err);
/* Opens store and index. create: for writers. Readers of a missing store get BASE_NOT_FOUND.
 * lock_wait_ms: see store_options. */
base_status cli_open_memory(const cli_options *o, bool create, unsigned lock_wait_ms,
                            cli_memory *out, base_error *err);
base_status cli_open_encoder(const cli_options *o, base_pool *pool, encoder **out, base_error *err);
/* Are the store's vectors this encoder's (or none there yet)? BASE_VERSION says what to do. */
base_status cli_check_encoder(const cli_memory *memory, const encoder *e, base_error *err);
/* Size of the store's vectors; of an empty store: of the encoder it will get, 0 = the default's. */
base_status cli_vector_size(store *s, size_t if_empty, size_t *dim, base_error *err);
void cli_close_memory(cli_memory *memory);
/* Default folder of the store and of the models; owned by the program, never NULL. */
const char *cli_store_path(const cli_options *o);
const char *cli_models_file(const char *name);
base_status cli_session_options(const cli_options *o, const cli_memory *memory,
                                engine_session_options *out, base_error *err);

/* --- printing --------------------------------------------------------------------------------- */

/* Search with the default encoder; hits [o->k or 10]. */
base_status cli_search(const cli_options *o, const cli_memory *memory, const char *text,
                       retrieval_hit *hits, size_t *count, base_error *err);

/* Print one JSON document and release it. */
int cli_print_json(json_t *document_take);
json_t *cli_json_time(int64_t time_us); /* RFC 3339 or null */
json_t *cli_json_number(double value);  /* null when not finite */
json_t *cli_json_answer(const cli_options *o, const engine *e, const char *question,
                        const engine_answer *answer);
void cli_print_citations(const engine_answer *answer);
void cli_print_trace(const engine *e, store *s, const engine_answer *answer);

#endif
