/* engine/stream.h: inside of a running stream, shared by core.c (the forward pass), window.c (slots
 * that come and go) and paths.c (what a token sees, and attention over it).
 *
 * Two ways to count slots. A *slot* is what core.h counts: its index is its position, for ever. A
 * *place* is where it lies in the arrays. In a bounded window live tokens leave behind the sinks;
 * `gone` of them have left, and slot = place + gone for every place behind the sinks. So nothing
 * that is still present is renumbered or rotated again when the window slides.
 *
 * Keys and values lie in planes: one per attention layer, in layer order, then one per fading
 * layer (what its mixer said, seen once the token has left the exact window).
 */
#ifndef ENGINE_STREAM_H
#define ENGINE_STREAM_H

#include <string.h>

#include "engine/gpu.h"
#include "engine/model.h"

enum {
    CORE_OWNERS_MAX = 64,
    CORE_GROUP_MAX = 1024, /* query heads that share a KV head, and head size, as model.c allows */
    CORE_HEAD_MAX = 512,
    CORE_COARSE_MIN = 4096,   /* slots from which on coarse keys are looked at first */
    CORE_COARSE_PART = 1024,  /* slots that are chosen from and added together */
    CORE_SNAPSHOT_EVERY = 16, /* tokens: fading.c */
    CORE_SNAPSHOTS = CORE_ROLLBACK / CORE_SNAPSHOT_EVERY + 1,
    CORE_VIEWS_MAX = 80 /* sinks, and three parts for every memory that can be resident */
};

/* Consecutive places that a token attends to, with the rotation of its query towards them. */
typedef struct core_view {
    size_t from, count;
    const float *cosine, *sine; /* [D/2] */
    bool fading;                /* keys and values of the fading plane */
} core_view;

typedef struct core_views {
    core_view list[CORE_VIEWS_MAX];
    size_t count;
} core_views;

/* A memory in the states of mixers (splice_state.c). */
typedef struct core_state_memory {
    /* owned. replay: rows [layers with a mixer, tokens, mixer_row]; else what they make of nothing:
     * states [layers with a mixer, mixer_floats] */
    float *data;
    size_t tokens;
    size_t before;  /* the live token, counted as run_tokens, before which it stands */
    uint32_t owner; /* 0: it has left attention */
} core_state_memory;

struct core_stream {
    const core_model *model;
    const kernel_table *kernels;
    base_pool *pool;
    kernel_activations activations;
    bool device;     /* a device's stream, also while it is being opened */
    gpu_stream *gpu; /* NULL = the CPU; else keys, values and mixers lie there, not here */
    bool kv_f32;
    size_t element;  /* bytes of one stored key or value element */
    size_t kv_width; /* G*D */
    size_t q_width;  /* H*D */
    size_t planes;   /* of keys and values */
    size_t places, slots_max, batch_max;

    size_t window; /* live tokens that a token sees behind the sinks; 0 = all */
    size_t sinks;  /* first slots, seen for ever */
    size_t sinks_min;
    size_t gone; /* live slots that have left */

    uint8_t *keys; /* [planes, slots_max, G*D] before rotation */
    /* What attention reads: a head's slots lie one behind the other, which the hardware's own
     * look-ahead follows. */
    uint8_t *rotated, *values;        /* [planes, G, slots_max, D] */
    /* 8-bit copies of rotated: codes [planes, G, coarse_slots * D], steps [planes, G,
     * coarse_slots]. coarse_slots is slots_max in whole groups, 0 where there are none: in f32,
     * bounded or short windows. */
    kernel_coarse_keys coarse;
    size_t coarse_slots;
    float *bias;                      /* [slots_max] ln(strength) */
    uint32_t *owner;                  /* [slots_max] 0 = live token */
    int32_t *tokens;                  /* [slots_max] id, -1 for a memory's */
    size_t owned;                     /* slots with an owner */
    float *cosine, *sine;             /* [slots_max, D/2] of position i */
    float *place_cosine, *place_sine; /* [slots_max, D/2] of the slot at place i */

    float *x;                 /* [batch_max, C] residual stream */
    float *normed;            /* [batch_max, C] */
    float *qkv;               /* [batch_max, (H+2G)*D] */
    float *attended;          /* [batch_max, H*D] */
    float *gate_up;           /* [batch_max, 2F] */
    float *hidden;            /* [batch_max, F] */
    float *projected;         /* [batch_max, C] */
    core_views *views;        /* [batch_max] what each token sees, in plain attention layers ... */
    core_views *fading_views; /* ... and in fading ones */
    float *query;             /* [threads, 2, H/G*D] a rotated query, one path's result */
    float *scores;            /* [threads, H/G, slots_max], or [H, slots_max] of one token */
    float *head_sums;         /* [H] 1 / sum of the weights, of one token */
    float *coarse_peaks;      /* [H, coarse_slots / 64] */
    float *head_peaks;        /* [H] largest of them */
    uint32_t *chosen;         /* [G, coarse_slots] */
    float *part_sums;         /* [parts, H] of one token's slots, part by part, ... */
    float *part_values;       /* [parts, H*D] */
    float *head_mass;         /* [batch_max, H, CORE_OWNERS_MAX] */
    float *row_mass;          /* [batch_max, CORE_OWNERS_MAX] of the last batch's tokens */
    size_t mass_rows;         /* of them that are not in *mass yet */
    void *matmul_scratch;
    void *arena;

    /* Mixers, where the model has recurrent layers or uses fading ones; sizes in floats. */
    bool hybrid;       /* fading layers are used as such */
    bool mixing;       /* there are mixers: theirs, or recurrent layers */
    size_t run_tokens; /* live tokens that the states have seen */
    size_t mixer_floats, mixer_row, mixer_out, mixer_scratch_floats, mixer_kept;
    size_t mixer_head_count; /* of one layer */
    float *mixer_state;      /* [mixer layers, mixer_floats] */
    float *mixer_before;     /* [mixer layers, mixer_kept] what running again needs: fading.c */
    float *mixer_rows;       /* [batch_max, mixer_row] projections */
    float *mixer_heads;      /* [batch_max, mixer_out] */
    float *mixer_scratch;    /* [mixer_scratch_floats] */
    float *mixer_novelty;    /* [CORE_SNAPSHOT_EVERY, mixer_head_count] */

    core_splice_state splice_state;
    core_state_memory *memories; /* owned; [memory_count] in the order in which they came */
    size_t memory_count;

    float *mass; /* watched by the caller, NULL = off */
    size_t owners;
    size_t *mass_tokens;

    float *hidden_sum; /* watched by the caller, NULL = off */
    size_t hidden_layer;

    float *rows; /* watched by the caller, NULL = off: [layers with a mixer, rows_max, row] */
    size_t rows_max, rows_seen;

    float *novelty;    /* watched by the caller, NULL = off */
    float novelty_sum; /* of the last token that was run, over mixers and heads */
};

/* --- window.c --------------------------------------------------------------------------------- */

/* Row `place` of a plane of s->keys. */
static inline uint8_t *core_key_row(const core_stream *s, size_t plane, size_t place)
{
    return s->keys + (plane * s->slots_max + place) * s->kv_width * s->element;
}
/* Row `place` of a KV head in a plane of s->rotated or s->values. */
static inline uint8_t *core_head_row(const core_stream *s, uint8_t *array, size_t plane,
                                     size_t head, size_t place)
{
    size_t row = (plane * s->model->shape.kv_heads + head) * s->slots_max + place;
    return array + row * s->model->shape.head_size * s->element;
}
/* A KV head's coarse keys in a plane, from a group's first place on. */
static inline kernel_coarse_keys core_coarse_keys(const core_stream *s, size_t plane, size_t head,
                                                  size_t place)
{
    size_t row = (plane * s->model->shape.kv_heads + head) * s->coarse_slots + place;
    return (kernel_coarse_keys){.codes = s->coarse.codes + row * s->model->shape.head_size,
                                .steps = s->coarse.steps + row};
}
/* Copy `size` bytes of a stream's arrays to *to or, where that is NULL, there from *from, and move
 * the pointer on. */
static inline void core_copy(void *inside, size_t size, uint8_t **to, const uint8_t **from)
{
    if (*to) {
        memcpy(*to, inside, size);
        *to += size;
    } else {
        memcpy(inside, *from, size);
        *from += size;
    }
}
/* The same with places [at, at + count) of a plane as rows of G*D: keys before rotation, then
 * values. Rotated keys are the caller's business. */
void core_kv_copy(const core_stream *s, size_t plane, size_t at, size_t count, uint8_t **to,
                  const uint8_t **from);
/* Key and value [G*D] f32 of a new slot: stored, the key also rotated. key is overwritten. */
void core_kv_enter(core_stream *s, size_t plane, size_t place, float *key, const float *value);
/* Rotations of places [from, to) as sinks and gone are now. */
void core_angles(core_stream *s, size_t from, size_t to);
/* Make anew what follows from the stored keys, owners, sinks and gone. */
void core_window_remade(core_stream *s);
/* Forget the oldest live tokens that nothing can see or run again any more. */
void core_slide(core_stream *s);

/* --- paths.c ---------------------------------------------------------------------------------- */

/* What the token at `place` sees: sinks, memories, and of the last `window` live tokens (0 = all)
 * the `exact` newest as they are, the others through the fading plane. s->owner must be right up to
 * there. */
void core_see(const core_stream *s, size_t place, size_t window, size_t exact, core_views *out);
/* What a token at a place sees, as bounds: sinks [0, sinks), memories among [sinks, begin), fading
 * slots and memories [begin, near), everything [near, place]. hidden: live slots of [sinks, begin).
 */
typedef struct core_sight {
    size_t sinks, begin, near, hidden;
} core_sight;
core_sight core_look(const core_stream *s, size_t place, size_t window, size_t exact);
/* s->attended from s->qkv for `tokens` tokens: one softmax over everything in the token's views, in
 * these planes. Adds to s->row_mass. */
void core_attend(core_stream *s, size_t plane, size_t fading_plane, const core_views *views,
                 size_t tokens);

/* --- fading.c --------------------------------------------------------------------------------- */

/* Set the sizes of the mixers' parts. */
void core_fading_sizes(core_stream *s);
void core_fading_clear(core_stream *s);
/* s->mixer_heads from s->mixer_rows for the next `tokens` tokens; the state moves on. s->run_tokens
 * is the caller's to move, when all layers are through. */
void core_fading_run(core_stream *s, const core_fading *f, size_t tokens);
/* The last `tokens` tokens (one to CORE_ROLLBACK, or all) were never run. */
void core_fading_drop(core_stream *s, size_t tokens);

/* --- splice_state.c --------------------------------------------------------------------------- */

/* mixer_run of rows at stride mixer_row; with CORE_SPLICE_PICASO the sums of log decays that follow
 * the mixer's own state move on with it. */
void core_state_run(core_stream *s, const core_fading *f, const float *rows, size_t tokens,
                    float *state, float *out, float *novelty);
/* A layer's state before live token `token` takes in the memories that stand there. */
void core_state_compose(core_stream *s, const core_fading *f, size_t token, float *state);
/* Tokens from `token` on were never run: what stands behind it has not entered, or never did. */
void core_state_rewind(core_stream *s, size_t token);
void core_state_forget(core_stream *s); /* all memories */

#endif
