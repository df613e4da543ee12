/* engine/splice.h: a window that knows which slots are live tokens and which are spliced memories
 * (semantics §5).
 *
 *   fixed prefix | older live tokens | memories | newer live tokens
 *
 * Keeps the list of residents, and runs live tokens again after something was spliced before them.
 * Positions are indices (core.h), so an insert or an eviction closes up by itself.
 */
#ifndef ENGINE_SPLICE_H
#define ENGINE_SPLICE_H

#include "engine/core.h"

enum {
    SPLICE_RESIDENTS_MAX = 32,
    SPLICE_AGAIN_MAX = CORE_ROLLBACK /* tokens that may be run again */
};

typedef struct splice_resident {
    uint64_t episode;
    size_t at, count; /* slots [at, at+count) */
    float strength;   /* 0..1, decides eviction together with use */
    double mass;      /* attention it got, summed over the tokens run since it came in */
    double mass_tokens; /* number of those tokens */
    uint32_t owner;   /* core owner tag, 1.. */
} splice_resident;

typedef struct splice_window {
    core_stream *stream;
    int32_t *again; /* [SPLICE_AGAIN_MAX] ids of tokens that are run again */
    splice_resident residents[SPLICE_RESIDENTS_MAX];
    size_t resident_count;
    float mass[SPLICE_RESIDENTS_MAX + 1]; /* by owner, since the last collect */
    size_t mass_tokens;
} splice_window;

/* Takes over the stream: splice_close closes it. */
base_status splice_open(core_stream *stream_take, splice_window *w, base_error *err);
void splice_close(splice_window *w);
void splice_clear(splice_window *w);
size_t splice_slots(const splice_window *w);
size_t splice_free_slots(const splice_window *w); /* for a memory; unbounded: for tokens as well */

/* Run live tokens at the end; logits [rows, V] of the last rows, or NULL. BASE_LIMIT when they do
 * not fit. */
base_status splice_run(splice_window *w, const int32_t *tokens, size_t count, float *logits,
                       size_t rows, base_error *err);

/* Drop slots [at, end of window). No memory may lie there. */
void splice_truncate(splice_window *w, size_t at);

/* The last `count` tokens, all of the last splice_run, turn out not to have been said: as if they
 * had not been run. */
void splice_unrun(splice_window *w, size_t count);

/* Run the live tokens of slots [at, end) again, because something before them changed. logits [V]
 * of the last one, or NULL. No memory may lie there; at < slots, at most SPLICE_AGAIN_MAX
 * tokens. */
base_status splice_run_again(splice_window *w, size_t at, float *logits, base_error *err);

/* `at`, or where it lies inside a memory, the end of that. */
size_t splice_beside(const splice_window *w, size_t at);
/* Put an episode's block before slot `at`, not inside a memory. bias = ln(strength) (0 for no
 * bias). BASE_LIMIT: window or resident table full. */
base_status splice_insert(splice_window *w, size_t at, uint64_t episode, const void *block,
                          size_t count, float strength, float bias, base_error *err);
void splice_evict(splice_window *w, size_t resident);
/* The memory that was inserted last enters the states of mixers, too: core_state_enter. */
base_status splice_enter_state(splice_window *w, float *rows_take, size_t count, base_error *err);
/* Remove live slots [at, at+count) (oldest turns when a chat runs full). No memory may lie there.
 * */
void splice_remove_live(splice_window *w, size_t at, size_t count);

/* NULL when not resident */
const splice_resident *splice_find(const splice_window *w, uint64_t episode);
/* First slot behind all memories, 0 when there are none: tokens from here on can be run again. */
size_t splice_behind(const splice_window *w);
size_t splice_resident_slots(const splice_window *w);
/* The resident to give way: least strength x (use + a little for the newcomers); SIZE_MAX when
 * there is none. */
size_t splice_weakest(const splice_window *w);

/* Attention mass over the tokens run while on goes to the residents' sums. Off at the start. */
void splice_watch(splice_window *w, bool on);
void splice_collect(splice_window *w);

#endif
