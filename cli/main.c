/* cli/main.c: the command line. One table of options, one of commands; a command gets the options
 * it names and its operands. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/log.h"
#include "cli/cli.h"

typedef enum kind { FLAG, TEXT, ADAPTER, COUNT, BIG, SIZE, REAL, TIME } kind;

typedef struct option {
    const char *name; /* without "--" */
    char letter;      /* short form, 0 = none */
    kind kind;
    size_t offset;
    const char *argument, *help;
} cli_option;

#define AT(field) offsetof(cli_options, field)
static const cli_option options[] = {
    {"store", 0, TEXT, AT(store), "DIR",
     "the store (else $EIDETIC_STORE, else the user's data folder)"},
    {"model", 0, TEXT, AT(model), "FILE",
     "GGUF model (else $EIDETIC_MODEL, else the default model)"},
    {"encoder", 0, TEXT, AT(encoder), "DIR", "text encoder folder (else the default encoder)"},
    {"adapter", 0, ADAPTER, AT(adapters), "FILE|none",
     "LoRA adapter or trained mixers (GGUF), or both (given twice); else, where they are, "
     "MODEL.reader.gguf for ask, chat and eval, and MODEL.core.gguf for these and generate"},
    {"core", 0, TEXT, AT(core), "full|window|hybrid",
     "attention over all slots; sinks and the last W tokens, endlessly; a hybrid's fading layers"},
    {"window", 0, COUNT, AT(window), "W", "full: slots of the window; window: tokens seen (1,024)"},
    {"threads", 0, COUNT, AT(threads), "N", "threads (default: all cores)"},
    {"device", 0, TEXT, AT(device), "cpu|cuda|auto",
     "where the model runs (cpu); auto: on the GPU where one can be used"},
    {"kv-type", 0, TEXT, AT(kv_type), "q8|f16", "form of keys and values on disk (q8)"},
    {"kv-budget", 0, SIZE, AT(kv_budget), "SIZE",
     "disk for keys and values (64M, 2G): what is least used and weakest goes"},
    {"now", 0, TIME, AT(now_us), "TIME", "the clock (RFC 3339 or a date; default: the wall clock)"},
    {"json", 0, FLAG, AT(json), NULL, "print one JSON document"},
    {"help", 'h', FLAG, AT(help), NULL, "this text"},
    {"arm", 0, TEXT, AT(arm), "full|static|prompt|none", "how memory is used (default full)"},
    {"splice-state", 0, TEXT, AT(splice_state), "none|replay|sum|picaso",
     "what recurrent states make of a memory (default none)"},
    {"as-of", 0, TIME, AT(as_of_us), "TIME", "only what was known at that time"},
    {"about", 0, TIME, AT(about_us), "TIME", "the time the question is about (ranking only)"},
    {"max-tokens", 0, COUNT, AT(max_tokens), "N", "longest answer"},
    {"seed", 0, BIG, AT(seed), "N", "seed of sampling"},
    {"temp", 0, REAL, AT(temperature), "X", "temperature, 0 = greedy (default)"},
    {"top-k", 0, COUNT, AT(top_k), "K", "sample from the K most likely"},
    {"top-p", 0, REAL, AT(top_p), "P", "sample from the most likely that hold P"},
    {"min-p", 0, REAL, AT(min_p), "P", "drop what is less than P times as likely as the first"},
    {"event-threshold", 0, REAL, AT(event_threshold), "NATS",
     "entropy at which memory is consulted, at the start"},
    {"event-rate", 0, REAL, AT(event_rate), "SHARE", "share of tokens the threshold adapts to"},
    {"event-stride", 0, COUNT, AT(event_stride), "N", "test every N-th token"},
    {"read-only", 0, FLAG, AT(read_only), NULL, "write nothing to the store"},
    {"trace", 0, FLAG, AT(trace), NULL, "show why memory was consulted and what came back"},
    {"session", 0, TEXT, AT(session), "NAME", "name of the conversation"},
    {"resume-at", 0, TEXT, AT(resume_at), "TURN",
     "go on behind this turn of the conversation (a number, or 'last')"},
    {"prompt", 'p', TEXT, AT(prompt), "TEXT", "text to continue ('-': standard input)"},
    {"count", 'n', COUNT, AT(max_tokens), "N",
     "tokens to generate; bench: vectors of the index, episodes of the corpus"},
    {"results", 'k', COUNT, AT(k), "N", "results"},
    {"source", 0, TEXT, AT(source), "S", "name of the source"},
    {"observed-at", 0, TIME, AT(observed_at_us), "TIME", "when the text was true or published"},
    {"valid-from", 0, TIME, AT(valid_from_us), "TIME", "begin of validity"},
    {"valid-to", 0, TIME, AT(valid_to_us), "TIME", "end of validity"},
    {"half-life", 0, REAL, AT(half_life_s), "SECONDS",
     "half-life of sources without a measured one; with 'age': set it (0: as measured)"},
    {"id", 0, BIG, AT(id), "ID", "episode"},
    {"query", 0, TEXT, AT(query), "TEXT", "what search finds for this text"},
    {"from", 0, TIME, AT(from_us), "TIME", "observed at or after"},
    {"to", 0, TIME, AT(to_us), "TIME", "observed before"},
    {"no-supersede", 0, FLAG, AT(no_supersede), NULL,
     "leave it to 'age' to close what is replaced in other documents"},
    {"watch", 0, FLAG, AT(watch), NULL, "go on: take in what changes, until interrupted"},
    {"dry-run", 0, FLAG, AT(dry_run), NULL, "only count"},
    {"repair", 0, FLAG, AT(repair), NULL, "rebuild what is derived, salvage what is valid"},
    {"documents", 0, TEXT, AT(documents), "FILE",
     "documents.jsonl; bench: a corpus, whatever ingest takes"},
    {"questions", 0, TEXT, AT(questions), "FILE", "questions.jsonl"},
    {"arms", 0, TEXT, AT(arms), "A,B", "arms to compare"},
    {"limit", 0, COUNT, AT(limit), "N",
     "at most N questions; bench: tokens of a round, episodes to encode"},
    {"mode", 0, TEXT, AT(mode), "MODE",
     "haystack: ingested, lived; stream: forced, free; events: retrieve, write"},
    {"tokens", 0, COUNT, AT(tokens), "N", "haystack: size of the text (16,000)"},
    {"controls", 0, COUNT, AT(controls), "N", "questions of the controls (40), 0 = none"},
    {"without-evidence", 0, REAL, AT(without_evidence), "SHARE",
     "share of questions whose evidence is left out: can it abstain?"},
    {"replay", 0, FLAG, AT(replay), NULL, "documents become known as the questions' time goes on"},
    {"depth", 0, COUNT, AT(depth), "N", "tokens that stand in the window before"},
    {"batch", 0, COUNT, AT(batch), "N", "sequences that decode together (1 to 64; greedy steps)"},
    {"rounds", 0, COUNT, AT(rounds), "N", "rounds to take the median of (5)"},
    {"paced", 0, FLAG, AT(paced), NULL, "a round for each line of standard input"},
    {"no-detector", 0, FLAG, AT(no_detector), NULL, "without the innovation test"},
    {"out", 'o', TEXT, AT(out), "PATH", "where results go"},
    {"layers", 0, TEXT, AT(layers), "L", "layers to prime, e.g. 1,3,5-9 (default: every second)"},
    {"mixer", 0, TEXT, AT(mixer), "gdn|gka|mamba2", "mixer of the primed layers (default gdn)"},
};
enum { OPTION_COUNT = sizeof options / sizeof *options };

#define COMMON " now json help threads "
#define MODEL " model adapter core window device kv-type "
#define STORE " store "
#define ASKING                                                                                    \
    " encoder arm as-of about max-tokens seed temp top-k top-p min-p event-threshold event-rate " \
    "event-stride read-only trace half-life kv-budget "

static const struct command {
    const char *name, *operands, *help;
    const char *allowed; /* option names, each between blanks */
    int operands_min, operands_max;
    cli_command *run;
} commands[] = {
    {"ingest", "PATH...", "take in text, Markdown, HTML, PDF, JSONL, folders or '-'",
     COMMON STORE " encoder source observed-at valid-from valid-to no-supersede watch ", 1, 1 << 20,
     cmd_ingest},
    {"ask", "QUESTION", "answer from memory, with citations",
     COMMON STORE MODEL ASKING " splice-state ", 1, 1, cmd_ask},
    {"chat", "", "converse; what is said becomes memory",
     COMMON STORE MODEL ASKING " session resume-at ", 0, 0, cmd_chat},
    {"generate", "", "continue --prompt TEXT",
     COMMON STORE MODEL ASKING " splice-state prompt count ", 0, 0, cmd_generate},
    {"tokenize", "TEXT", "token ids of a text", COMMON MODEL, 1, 1, cmd_tokenize},
    {"model", "", "what the model file holds", COMMON MODEL, 0, 0, cmd_model},
    {"search", "QUERY", "retrieval alone",
     COMMON STORE " encoder results as-of about read-only half-life arm ", 1, 1, cmd_search},
    {"show", "ID", "one episode with its history", COMMON STORE " as-of half-life ", 1, 1,
     cmd_show},
    {"stats", "", "the store in numbers; with --out FILE, strength over time as a page",
     COMMON STORE " out ", 0, 0, cmd_stats},
    {"verify", "", "check every record and index", COMMON STORE " encoder repair ", 0, 0,
     cmd_verify},
    {"age", "", "run the decay scheduler now", COMMON STORE " encoder source half-life kv-budget ",
     0, 0, cmd_age},
    {"forget", "", "remove episodes for good",
     COMMON STORE " encoder id source query results from to dry-run ", 0, 0, cmd_forget},
    {"backup", "DIR", "copy the store into an empty folder, while it is in use", COMMON STORE, 1, 1,
     cmd_backup},
    {"restore", "DIR", "make the store again from a backup", COMMON STORE " encoder ", 1, 1,
     cmd_restore},
    {"export", "", "all documents and versions as JSONL", COMMON STORE " out ", 0, 0, cmd_export},
    {"import", "FILE...", "take in what export wrote ('-': standard input)",
     COMMON STORE " encoder no-supersede ", 1, 1 << 20, cmd_import},
    {"reindex", "", "change the text encoder in place, to --encoder or the default",
     COMMON STORE " encoder ", 0, 0, cmd_reindex},
    {"prime", "MODEL", "make a hybrid (-o FILE) of a Transformer",
     COMMON " out window layers mixer seed ", 1, 1, cmd_prime},
    {"bench", "prefill|decode|splice|retrieval|upkeep|ingest|encoder|limits", "measure speed",
     COMMON STORE MODEL " encoder limit depth batch rounds paced no-detector documents count out ",
     1, 1, cmd_bench},
    {"eval", "SUITE",
     "evaluate; or 'report DIR...': draw results, 'import FILE': another program's",
     COMMON MODEL ASKING " store documents questions arms limit out mode tokens controls "
                         "without-evidence replay ",
     1, 1 << 20, cmd_eval},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

int cli_fail(const base_error *err)
{
    fprintf(stderr, "eidetic: %s\n", err->text[0] ? err->text : base_status_text(err->code));
    return CLI_FAILED;
}

int cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "eidetic: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    return CLI_USAGE;
}

static void print_help(const struct command *command)
{
    if (!command) {
        printf(
            "usage: eidetic COMMAND [OPTIONS]\n\nA language model with an on-disk memory that it "
            "consults by itself.\n\n");
        for (int i = 0; i < COMMAND_COUNT; i++) {
            printf("  %-9s %-15s %s\n", commands[i].name, commands[i].operands, commands[i].help);
        }
        printf("\n'eidetic COMMAND --help' lists the options of a command.\n");
        return;
    }
    printf("usage: eidetic %s %s [OPTIONS]\n%s\n\n", command->name, command->operands,
           command->help);
    for (int i = 0; i < OPTION_COUNT; i++) {
        char word[64], form[64];
        snprintf(word, sizeof word, " %s ", options[i].name);
        if (strstr(command->allowed, word)) {
            snprintf(form, sizeof form, "%s%s %s",
                     options[i].letter ? (char[]){'-', options[i].letter, ',', ' ', '-', '-', 0}
                                       : "--",
                     options[i].name, options[i].argument ? options[i].argument : "");
            printf("  %-36s %s\n", form, options[i].help);
        }
    }
}

static bool parse_number(const char *text, double *real, uint64_t *big)
{
    char *end;
    errno = 0;
    if (real) {
        *real = strtod(text, &end);
        return *text && !*end && errno == 0 && isfinite(*real) && *real >= 0;
    }
    *big = strtoull(text, &end, 10);
    return *text && !*end && errno == 0 && !strchr(text, '-');
}

/* Bytes: a whole number, with K, M, G or T behind it for powers of 1,024. */
static bool parse_size(const char *text, uint64_t *bytes)
{
    const char *const units = "KMGT";
    size_t length = strlen(text);
    const char *unit = length > 1 ? strchr(units, text[length - 1]) : NULL;
    char digits[32];
    if (length >= sizeof digits) {
        return false;
    }
    snprintf(digits, sizeof digits, "%.*s", (int)(length - (unit ? 1 : 0)), text);
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (!parse_number(digits, NULL, bytes) || *bytes > UINT64_MAX >> shift) {
        return false;
    }
    *bytes <<= shift;
    return true;
}

static bool add_adapter(const char *adapters[CORE_ADAPTERS_MAX + 1], const char *path)
{
    size_t count = 0;
    while (adapters[count]) {
        count++;
    }
    if (count == CORE_ADAPTERS_MAX) {
        cli_usage("--adapter %s: given %d times already", path, CORE_ADAPTERS_MAX);
        return false;
    }
    adapters[count] = path;
    return true;
}

/* Put one value where it belongs; false after a message. */
static bool set_option(cli_options *o, const cli_option *option, const char *value)
{
    void *at = (char *)o + option->offset;
    uint64_t big = 0;
    double real = 0;
    base_error err = {0};
    switch (option->kind) {
    case FLAG:
        *(bool *)at = true;
        return true;
    case TEXT:
        *(const char **)at = value;
        return true;
    case ADAPTER:
        return add_adapter(at, value);
    case COUNT:
    case BIG:
        if (!parse_number(value, NULL, &big)) {
            cli_usage("--%s: '%s' is not a whole number", option->name, value);
            return false;
        }
        if (option->kind == BIG) {
            *(uint64_t *)at = big;
        } else {
            *(size_t *)at = (size_t)big;
        }
        return true;
    case SIZE:
        if (!parse_size(value, (uint64_t *)at)) {
            cli_usage("--%s: '%s' is not a size (a number of bytes, or 64K, 64M, 2G, 1T)",
                      option->name, value);
            return false;
        }
        return true;
    case REAL:
        if (!parse_number(value, &real, NULL)) {
            cli_usage("--%s: '%s' is not a number of 0 or more", option->name, value);
            return false;
        }
        *(double *)at = real;
        return true;
    case TIME:
        if (base_time_parse(value, strlen(value), (int64_t *)at, &err)) {
            cli_usage("--%s: %s", option->name, err.text);
            return false;
        }
        return true;
    }
    return false;
}

/* The option that an argument names; *value points behind '=' where there is one. */
static const cli_option *find_option(const char *argument, const char *allowed, const char **value)
{
    *value = NULL;
    for (int i = 0; i < OPTION_COUNT; i++) {
        const cli_option *option = &options[i];
        char word[64];
        snprintf(word, sizeof word, " %s ", option->name);
        bool known = strstr(allowed, word) != NULL;
        size_t length = strlen(option->name);
        if (known && argument[0] == '-' && option->letter && argument[1] == option->letter &&
            argument[2] == 0) {
            return option;
        }
        if (known && strncmp(argument, "--", 2) == 0 &&
            strncmp(argument + 2, option->name, length) == 0 &&
            (argument[2 + length] == 0 || argument[2 + length] == '=')) {
            *value = argument[2 + length] == '=' ? argument + 3 + length : NULL;
            return option;
        }
    }
    return NULL;
}

/* Reads argv behind the command's name; operands are moved to the front of argv. */
static bool parse(cli_options *o, const struct command *command, int argc, char **argv)
{
    bool only_operands = false;
    o->operands = argv;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i], *value;
        if (only_operands || argument[0] != '-' || argument[1] == 0) {
            o->operands[o->operand_count++] = argv[i];
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            only_operands = true;
            continue;
        }
        const cli_option *option = find_option(argument, command->allowed, &value);
        if (!option) {
            cli_usage("%s: unknown option %s (see eidetic %s --help)", command->name, argument,
                      command->name);
            return false;
        }
        if (option->kind == FLAG && value) {
            cli_usage("--%s takes no value", option->name);
            return false;
        }
        if (option->kind != FLAG && !value) {
            if (i + 1 == argc) {
                cli_usage("--%s needs a value", option->name);
                return false;
            }
            value = argv[++i];
        }
        if (!set_option(o, option, value)) {
            return false;
        }
    }
    if (!o->help &&
        (o->operand_count < command->operands_min || o->operand_count > command->operands_max)) {
        cli_usage("usage: eidetic %s %s [OPTIONS]", command->name, command->operands);
        return false;
    }
    return true;
}

static void log_to_stderr(void *argument, base_log_level level, const char *text)
{
    (void)argument;
    if (level >= BASE_LOG_WARN || getenv("EIDETIC_VERBOSE")) {
        fprintf(stderr, "eidetic: %s\n", text);
    }
}

static bool select_isa(void)
{
    const char *wanted = getenv("EIDETIC_ISA");
    base_isa isa = base_isa_detect();
    if (wanted && !base_isa_parse(wanted, &isa)) {
        cli_usage("EIDETIC_ISA: '%s' is none of scalar, avx2, avx512, amx", wanted);
        return false;
    }
    kernel_select(isa);
    return true;
}

size_t cli_limit(const cli_options *o)
{
    return o->limit == SIZE_MAX ? 0 : o->limit;
}

/* The command line as one text; a word with blanks in quotes. */
static const char *join(int argc, char **argv)
{
    static char line[8192];
    size_t used = 0;
    for (int i = 0; i < argc && used < sizeof line; i++) {
        const char *quote = strpbrk(argv[i], " \t\n\"") ? "'" : "";
        int n = snprintf(line + used, sizeof line - used, "%s%s%s%s", i ? " " : "", quote, argv[i],
                         quote);
        used += n > 0 ? (size_t)n : 0;
    }
    return line;
}

/* Before FAISS's initialisers, which run before main and may hold instructions of AVX2. */
__attribute__((constructor(101))) static void check_processor(void)
{
    base_error err = {0};
    if (retrieval_usable(base_isa_detect(), &err)) {
        fprintf(stderr, "eidetic: %s\n", err.text);
        _exit(CLI_FAILED);
    }
}

int main(int argc, char **argv)
{
    cli_options o = {.now_us = BASE_TIME_NONE,
                     .as_of_us = BASE_TIME_NONE,
                     .about_us = BASE_TIME_NONE,
                     .observed_at_us = BASE_TIME_NONE,
                     .valid_from_us = BASE_TIME_NONE,
                     .valid_to_us = BASE_TIME_NONE,
                     .from_us = BASE_TIME_NONE,
                     .to_us = BASE_TIME_MAX,
                     .kv_budget = UINT64_MAX,
                     .top_p = 1.0,
                     .half_life_s = NAN,
                     .limit = SIZE_MAX,
                     .controls = SIZE_MAX,
                     .command = join(argc, argv)};
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(NULL);
        return argc < 2 ? CLI_USAGE : CLI_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("eidetic %s\n", EIDETIC_VERSION);
        return CLI_DONE;
    }
    base_log_set(log_to_stderr, NULL);
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) {
            continue;
        }
        if (!parse(&o, &commands[i], argc - 2, argv + 2) || !select_isa()) {
            return CLI_USAGE;
        }
        engine_arm arm;
        if (o.arm && (!engine_arm_parse(o.arm, &arm) || arm >= ENGINE_ARM_ORACLE)) {
            return cli_usage("--arm %s is none of full, static, prompt, none", o.arm);
        }
        if (o.help) {
            print_help(&commands[i]);
            if (commands[i].run == cmd_eval) {
                cli_eval_help(&o);
            }
            return CLI_DONE;
        }
        o.now_given = o.now_us != BASE_TIME_NONE;
        if (o.now_us == BASE_TIME_NONE) {
            o.now_us = base_time_now();
        }
        int code = commands[i].run(&o);
        if (fflush(stdout) != 0 || ferror(stdout)) {
            fprintf(stderr, "eidetic: cannot write the output: %s\n", strerror(errno));
            return CLI_FAILED;
        }
        return code;
    }
    return cli_usage("unknown command '%s' (see eidetic --help)", argv[1]);
}
