/* engine/window.c: the slots of a stream: they enter, are inserted and removed, and slide out of a
 * bounded window. Contracts: core.h; slots and places: stream.h.
 *
 * A key is stored before its rotation and rotated from what was stored, so whatever moves is
 * rotated again from the same bits. Sliding moves memory only: the oldest live tokens leave behind
 * the sinks, `gone` counts them, and every other slot keeps its index, its rotation, and so its
 * bits. The exception is a memory with older and newer live tokens on its two sides: when those
 * behind it leave, it closes up with what follows, and is rotated to its new position.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/stream.h"

static size_t place_of(const core_stream *s, size_t slot)
{
    BASE_ASSERT(s->gone == 0 || slot < s->sinks || slot >= s->sinks + s->gone);
    return slot < s->sinks ? slot : slot - s->gone;
}

size_t core_slots(const core_stream *s)
{
    return s->places + s->gone;
}

size_t core_slots_begin(const core_stream *s)
{
    return s->window ? (s->places < s->sinks ? s->places : s->sinks) + s->gone : 0;
}

size_t core_slots_free(const core_stream *s)
{
    if (s->window == 0) {
        return s->slots_max - s->places;
    }
    size_t live = s->window + CORE_ROLLBACK + s->batch_max, taken = live + s->sinks + s->owned;
    return s->slots_max > taken ? s->slots_max - taken : 0;
}

size_t core_window(const core_stream *s)
{
    return s->window;
}

bool core_has_state(const core_stream *s)
{
    return s->mixing;
}

int32_t core_token(const core_stream *s, size_t slot)
{
    BASE_ASSERT(slot < core_slots(s));
    return s->tokens[place_of(s, slot)];
}

size_t core_owner_slot(const core_stream *s, uint32_t owner)
{
    for (size_t i = 0; s->owned > 0 && i < s->places; i++) {
        if (s->owner[i] == owner) {
            return i < s->sinks ? i : i + s->gone;
        }
    }
    return SIZE_MAX;
}

void core_set_sinks(core_stream *s, size_t count)
{
    BASE_ASSERT(s->gone == 0);
    s->sinks = count > s->sinks_min ? count : s->sinks_min;
}

void core_stream_clear(core_stream *s)
{
    bool moved = s->gone > 0;
    s->places = 0;
    s->gone = 0;
    s->owned = 0;
    s->sinks = s->sinks_min;
    memset(s->bias, 0, s->slots_max * sizeof *s->bias);
    memset(s->owner, 0, s->slots_max * sizeof *s->owner);
    if (moved) {
        core_angles(s, 0, s->slots_max);
    }
    if (s->mixing) {
        core_state_forget(s);
        core_fading_clear(s);
    }
}

/* --- keys and values -------------------------------------------------------------------------- */

static void store(const core_stream *s, uint8_t *to, const float *from, size_t count)
{
    if (s->kv_f32) {
        memcpy(to, from, count * sizeof(float));
    } else {
        s->kernels->to_half((uint16_t *)(void *)to, from, count);
    }
}

/* x [G*D] to the heads' rows of a place. */
static void store_heads(const core_stream *s, uint8_t *array, size_t plane, size_t place,
                        const float *x)
{
    size_t d = s->model->shape.head_size;
    for (size_t head = 0; head < s->model->shape.kv_heads; head++) {
        store(s, core_head_row(s, array, plane, head, place), x + head * d, d);
    }
}

/* rotated[place] = R(slot) keys[place], from the stored form, and the coarse copy. work: [G*D] f32.
 */
static void rotate_key(core_stream *s, size_t plane, size_t place, float *work)
{
    const core_shape *shape = &s->model->shape;
    size_t half = shape->head_size / 2;
    const uint8_t *key = core_key_row(s, plane, place);
    if (s->kv_f32) {
        memcpy(work, key, s->kv_width * sizeof(float));
    } else {
        s->kernels->from_half(work, (const uint16_t *)(const void *)key, s->kv_width);
    }
    s->kernels->rope(work, shape->kv_heads, shape->head_size, s->place_cosine + place * half,
                     s->place_sine + place * half, s->model->rope_halves);
    store_heads(s, s->rotated, plane, place, work);
    for (size_t head = 0; s->coarse_slots > 0 && head < shape->kv_heads; head++) {
        kernel_coarse_keys coarse = core_coarse_keys(s, plane, head, 0);
        kernel_coarse_store(&coarse, place, work + head * shape->head_size, shape->head_size);
    }
}

void core_kv_enter(core_stream *s, size_t plane, size_t place, float *key, const float *value)
{
    store(s, core_key_row(s, plane, place), key, s->kv_width);
    store_heads(s, s->values, plane, place, value);
    rotate_key(s, plane, place, key);
}

void core_kv_copy(const core_stream *s, size_t plane, size_t at, size_t count, uint8_t **to,
                  const uint8_t **from)
{
    size_t row = s->model->shape.head_size * s->element;
    core_copy(core_key_row(s, plane, at), count * s->kv_width * s->element, to, from);
    for (size_t place = at; place < at + count; place++) {
        for (size_t head = 0; head < s->model->shape.kv_heads; head++) {
            core_copy(core_head_row(s, s->values, plane, head, place), row, to, from);
        }
    }
}

typedef struct rotate_job {
    core_stream *s;
    size_t from, to;
} rotate_job;

static void rotate_planes(void *argument, size_t begin, size_t end, size_t thread)
{
    rotate_job *job = argument;
    float work[CORE_KV_WIDTH_MAX];
    (void)thread;
    for (size_t plane = begin; plane < end; plane++) {
        for (size_t place = job->from; place < job->to; place++) {
            rotate_key(job->s, plane, place, work);
        }
    }
}

/* Positions of places [from, to) changed. */
static void rotate_again(core_stream *s, size_t from, size_t to)
{
    rotate_job job = {s, from, to};
    if (s->gpu) {
        gpu_rows_rotate(s->gpu, from, to);
    } else if (from < to) {
        base_pool_run(s->pool, s->planes, 1, rotate_planes, &job);
    }
}

void core_angles(core_stream *s, size_t from, size_t to)
{
    size_t half = s->model->shape.head_size / 2;
    for (size_t place = from; place < to; place++) {
        double position = (double)(place < s->sinks ? place : place + s->gone);
        for (size_t i = 0; i < half; i++) {
            double angle = position * (double)s->model->frequencies[i];
            s->place_cosine[place * half + i] = (float)cos(angle);
            s->place_sine[place * half + i] = (float)sin(angle);
        }
    }
}

/* --- moving ----------------------------------------------------------------------------------- */

/* Rows [from, from + count) in each of `planes` planes of slots_max rows, to begin at `to`. */
static void move_rows(const core_stream *s, uint8_t *array, size_t planes, size_t row_bytes,
                      size_t from, size_t to, size_t count)
{
    for (size_t plane = 0; plane < planes; plane++) {
        uint8_t *first = array + plane * s->slots_max * row_bytes;
        memmove(first + to * row_bytes, first + from * row_bytes, count * row_bytes);
    }
}

/* Move places [from, places) to begin at `to`, in every plane, rotated keys with them. */
static void move_places(core_stream *s, size_t from, size_t to, bool rotated)
{
    const core_shape *shape = &s->model->shape;
    size_t heads = s->planes * shape->kv_heads, row = shape->head_size * s->element;
    size_t count = s->places - from;
    if (s->gpu) {
        gpu_rows_move(s->gpu, from, to, count, rotated);
    } else {
        move_rows(s, s->keys, s->planes, s->kv_width * s->element, from, to, count);
        move_rows(s, s->values, heads, row, from, to, count);
        if (rotated) {
            move_rows(s, s->rotated, heads, row, from, to, count);
        }
    }
    memmove(s->bias + to, s->bias + from, count * sizeof *s->bias);
    memmove(s->owner + to, s->owner + from, count * sizeof *s->owner);
    memmove(s->tokens + to, s->tokens + from, count * sizeof *s->tokens);
}

static void count_owned(core_stream *s)
{
    s->owned = 0;
    for (size_t i = 0; i < s->places; i++) {
        s->owned += s->owner[i] != 0;
    }
}

/* Take places [at, at + count) out. */
static void drop_places(core_stream *s, size_t at, size_t count, bool rotated)
{
    move_places(s, at + count, at, rotated);
    s->places -= count;
    memset(s->bias + s->places, 0, count * sizeof *s->bias);
    memset(s->owner + s->places, 0, count * sizeof *s->owner);
}

void core_window_remove(core_stream *s, size_t slot, size_t count)
{
    BASE_ASSERT(slot <= core_slots(s) && count <= core_slots(s) - slot);
    if (count == 0) {
        return;
    }
    size_t at = place_of(s, slot);
    BASE_ASSERT(s->gone == 0 || at >= s->sinks);
    size_t owned = s->owned;
    bool last = at + count == s->places;
    drop_places(s, at, count, false);
    count_owned(s);
    size_t live = count - (owned - s->owned);
    if (s->mixing && last && live > 0) {
        core_fading_drop(s, live);
    }
    rotate_again(s, at, s->places);
}

void core_slide(core_stream *s)
{
    size_t half = s->model->shape.head_size / 2;
    size_t live = s->places - (s->sinks < s->places ? s->sinks : s->places) - s->owned;
    size_t keep = s->window + CORE_ROLLBACK, surplus = live > keep ? live - keep : 0;
    size_t begin = s->sinks; /* of what has not been looked at */
    for (size_t left = surplus; left > 0;) {
        while (s->owner[begin] != 0) {
            begin++;
        }
        size_t end = begin;
        while (end < s->places && end - begin < left && s->owner[end] == 0) {
            end++;
        }
        drop_places(s, begin, end - begin, true);
        left -= end - begin;
        s->gone += end - begin;
        size_t kept = s->slots_max - end;
        memmove(s->place_cosine + begin * half, s->place_cosine + end * half,
                kept * half * sizeof(float));
        memmove(s->place_sine + begin * half, s->place_sine + end * half,
                kept * half * sizeof(float));
        core_angles(s, begin + kept, s->slots_max);
    }
    if (begin > s->sinks) { /* memories that closed up with what is behind the tokens that left */
        core_angles(s, s->sinks, begin);
        rotate_again(s, s->sinks, begin);
    }
}

void core_window_remade(core_stream *s)
{
    count_owned(s);
    if (s->gone > 0) {
        core_angles(s, 0, s->slots_max);
    }
    rotate_again(s, 0, s->places);
}

/* --- blocks ----------------------------------------------------------------------------------- */

size_t core_block_bytes(const core_stream *s, size_t count)
{
    return s->model->attention_planes * 2 * count * s->kv_width * s->element;
}

void core_block_read(const core_stream *s, size_t slot, size_t count, void *block)
{
    BASE_ASSERT(slot <= core_slots(s) && count <= core_slots(s) - slot);
    size_t at = place_of(s, slot);
    uint8_t *to = block;
    if (s->gpu) {
        gpu_rows_read(s->gpu, s->model->attention_planes, at, count, block);
        return;
    }
    for (size_t plane = 0; plane < s->model->attention_planes; plane++) {
        core_kv_copy(s, plane, at, count, &to, NULL);
    }
}

base_status core_window_insert(core_stream *s, size_t slot, size_t count, const void *block,
                               float bias, uint32_t owner, base_error *err)
{
    BASE_ASSERT(slot <= core_slots(s) && owner > 0 && owner < CORE_OWNERS_MAX);
    if (count > core_slots_free(s)) {
        return base_fail(err, BASE_LIMIT, "the window of %zu slots is full (%zu present, %zu more)",
                         s->slots_max, s->places, count);
    }
    if (count > s->slots_max - s->places) {
        core_slide(s); /* tokens that have left lie where core_slots_free has room */
    }
    size_t begin = core_slots_begin(s);
    size_t at = place_of(s, s->gone > 0 && slot < begin ? begin : slot);
    if (s->window > 0 && at < s->sinks) {
        BASE_ASSERT(s->gone == 0);
        s->sinks = at; /* the sinks end where the first memory begins */
    }
    move_places(s, at, at + count, false);
    const uint8_t *from = block;
    uint8_t *to = NULL;
    if (s->gpu) {
        gpu_rows_write(s->gpu, s->model->attention_planes, at, count, block);
    }
    for (size_t plane = 0; !s->gpu && plane < s->model->attention_planes; plane++) {
        core_kv_copy(s, plane, at, count, &to, &from);
    }
    for (size_t i = 0; i < count; i++) {
        s->bias[at + i] = bias;
        s->owner[at + i] = owner;
        s->tokens[at + i] = -1;
    }
    s->places += count;
    s->owned += count;
    rotate_again(s, at, s->places);
    return BASE_OK;
}

void core_window_set_bias(core_stream *s, size_t slot, size_t count, float bias)
{
    BASE_ASSERT(slot <= core_slots(s) && count <= core_slots(s) - slot);
    for (size_t i = 0; i < count; i++) {
        s->bias[place_of(s, slot) + i] = bias;
    }
}
