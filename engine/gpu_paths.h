/* engine/gpu_paths.h: what tokens see (stream.h, core_look and core_see), as tables that kernels
 * walk through. Plain C, so that it is built and tested everywhere.
 *
 * Rotations on the device: row i of a table is position i, row slots_max + p the position of the
 * slot at place p. Positions count from the front, so a query that looks past slots out of sight is
 * rotated by fewer (paths.c).
 */
#ifndef ENGINE_GPU_PATHS_H
#define ENGINE_GPU_PATHS_H

#include "engine/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- one token at a time: parts whose softmax is merged --------------------------------------- */

enum { GPU_PARTS_MAX = 256 };

/* Consecutive places of one owner. The last part of a token holds its own place. */
typedef struct gpu_part {
    uint32_t from, count;
    uint32_t turn;   /* rotation of the query */
    uint16_t owner;  /* 0 = live tokens */
    uint16_t fading; /* keys and values of the fading plane */
} gpu_part;

/* What the views say, cut at owners and into pieces of at most about total / goal slots (64 at
 * least). out [GPU_PARTS_MAX]; returns how many. */
size_t gpu_parts(const core_stream *s, const core_views *views, size_t goal, gpu_part *out);

/* --- many tokens at once: paths that tiles of tokens walk through ----------------------------- */

enum {
    GPU_TILE = 64,      /* tokens */
    GPU_PATHS_MAX = 40, /* sinks, memories (SPLICE_RESIDENTS_MAX), fading, near */
    GPU_PATH_FADING = 0 /* number of the path through the fading plane: live slots only */
};

typedef struct gpu_path {
    uint32_t from, to, turn; /* places [from, to) */
} gpu_path;

typedef struct gpu_range {
    uint32_t from, to; /* of all tokens of a tile; empty: from == to */
} gpu_range;

/* For tokens at places [s->places, s->places + tokens): paths [count, tokens], ranges [count,
 * ceil(tokens / GPU_TILE)]; returns count. window, exact: as core_see. */
size_t gpu_paths(const core_stream *s, size_t tokens, size_t window, size_t exact, gpu_path *paths,
                 gpu_range *ranges);

#ifdef __cplusplus
}
#endif
#endif
