/* engine/splice.c: bookkeeping of live tokens and residents over a core stream. See splice.h. */
#include "engine/splice.h"

#include <string.h>

#include "base/mem.h"

base_status splice_open(core_stream *stream_take, splice_window *w, base_error *err)
{
    *w = (splice_window){.stream = stream_take};
    w->again = base_calloc(SPLICE_AGAIN_MAX, sizeof *w->again);
    if (!w->again) {
        splice_close(w);
        return base_fail(err, BASE_NO_MEMORY, "no memory for a window");
    }
    return BASE_OK;
}

void splice_close(splice_window *w)
{
    core_stream_close(w->stream);
    base_free(w->again);
    *w = (splice_window){0};
}

void splice_clear(splice_window *w)
{
    core_stream_clear(w->stream);
    w->resident_count = 0;
}

size_t splice_slots(const splice_window *w)
{
    return core_slots(w->stream);
}

size_t splice_free_slots(const splice_window *w)
{
    return core_slots_free(w->stream);
}

/* In a bounded window memories move when tokens beside them leave. */
static void find_residents(splice_window *w)
{
    for (size_t i = 0; core_window(w->stream) && i < w->resident_count; i++) {
        w->residents[i].at = core_owner_slot(w->stream, w->residents[i].owner);
    }
}

base_status splice_run(splice_window *w, const int32_t *tokens, size_t count, float *logits,
                       size_t rows, base_error *err)
{
    base_status status = core_run(w->stream, tokens, count, logits, rows, err);
    find_residents(w);
    return status;
}

/* Memories at or behind slot `at` start `shift` slots later (earlier if negative). */
static void shift_residents(splice_window *w, size_t at, ptrdiff_t shift)
{
    for (size_t i = 0; i < w->resident_count; i++) {
        if (w->residents[i].at >= at) {
            w->residents[i].at = (size_t)((ptrdiff_t)w->residents[i].at + shift);
        }
    }
}

static void assert_live(const splice_window *w, size_t at, size_t count)
{
    for (size_t i = 0; i < w->resident_count; i++) {
        const splice_resident *r = &w->residents[i];
        BASE_ASSERT(r->at + r->count <= at || r->at >= at + count);
    }
}

void splice_remove_live(splice_window *w, size_t at, size_t count)
{
    assert_live(w, at, count);
    core_window_remove(w->stream, at, count);
    shift_residents(w, at, -(ptrdiff_t)count);
}

void splice_truncate(splice_window *w, size_t at)
{
    splice_remove_live(w, at, core_slots(w->stream) - at);
}

void splice_unrun(splice_window *w, size_t count)
{
    core_mass_drop(w->stream, count);
    splice_truncate(w, core_slots(w->stream) - count);
}

base_status splice_run_again(splice_window *w, size_t at, float *logits, base_error *err)
{
    size_t count = core_slots(w->stream) - at;
    BASE_ASSERT(count > 0 && count <= SPLICE_AGAIN_MAX);
    for (size_t i = 0; i < count; i++) {
        w->again[i] = core_token(w->stream, at + i);
    }
    splice_truncate(w, at);
    return splice_run(w, w->again, count, logits, logits ? 1 : 0, err);
}

static uint32_t free_owner(const splice_window *w)
{
    for (uint32_t owner = 1; owner <= SPLICE_RESIDENTS_MAX; owner++) {
        bool taken = false;
        for (size_t i = 0; i < w->resident_count; i++) {
            taken = taken || w->residents[i].owner == owner;
        }
        if (!taken) {
            return owner;
        }
    }
    return 0;
}

base_status splice_insert(splice_window *w, size_t at, uint64_t episode, const void *block,
                          size_t count, float strength, float bias, base_error *err)
{
    uint32_t owner = free_owner(w);
    assert_live(w, at, 0);
    if (owner == 0) {
        return base_fail(err, BASE_LIMIT, "%d memories are resident already", SPLICE_RESIDENTS_MAX);
    }
    base_status status = core_window_insert(w->stream, at, count, block, bias, owner, err);
    if (status) {
        return status;
    }
    shift_residents(w, at, (ptrdiff_t)count);
    w->residents[w->resident_count++] = (splice_resident){
        .episode = episode, .at = at, .count = count, .strength = strength, .owner = owner};
    find_residents(w);
    return BASE_OK;
}

base_status splice_enter_state(splice_window *w, float *rows_take, size_t count, base_error *err)
{
    BASE_ASSERT(w->resident_count > 0);
    return core_state_enter(w->stream, w->residents[w->resident_count - 1].owner, rows_take, count,
                            err);
}

void splice_evict(splice_window *w, size_t resident)
{
    BASE_ASSERT(resident < w->resident_count);
    splice_resident gone = w->residents[resident];
    splice_collect(w);
    core_state_leave(w->stream, gone.owner);
    core_window_remove(w->stream, gone.at, gone.count);
    w->residents[resident] = w->residents[--w->resident_count];
    shift_residents(w, gone.at + gone.count, -(ptrdiff_t)gone.count);
}

const splice_resident *splice_find(const splice_window *w, uint64_t episode)
{
    for (size_t i = 0; i < w->resident_count; i++) {
        if (w->residents[i].episode == episode) {
            return &w->residents[i];
        }
    }
    return NULL;
}

size_t splice_beside(const splice_window *w, size_t at)
{
    for (size_t i = 0; i < w->resident_count; i++) {
        const splice_resident *r = &w->residents[i];
        if (at > r->at && at < r->at + r->count) {
            return r->at + r->count;
        }
    }
    return at;
}

size_t splice_behind(const splice_window *w)
{
    size_t behind = 0;
    for (size_t i = 0; i < w->resident_count; i++) {
        size_t end = w->residents[i].at + w->residents[i].count;
        behind = end > behind ? end : behind;
    }
    return behind;
}

size_t splice_resident_slots(const splice_window *w)
{
    size_t slots = 0;
    for (size_t i = 0; i < w->resident_count; i++) {
        slots += w->residents[i].count;
    }
    return slots;
}

size_t splice_weakest(const splice_window *w)
{
    /* A newcomer has had no chance to be used: it counts as used a little, so that age alone does
     * not protect. */
    const double fresh_mass = 0.05;
    size_t weakest = SIZE_MAX;
    double least = 0;
    for (size_t i = 0; i < w->resident_count; i++) {
        const splice_resident *r = &w->residents[i];
        double use = r->mass_tokens > 0 ? r->mass / r->mass_tokens : fresh_mass;
        double worth = (double)r->strength * (use + 1e-6);
        if (weakest == SIZE_MAX || worth < least) {
            weakest = i;
            least = worth;
        }
    }
    return weakest;
}

void splice_watch(splice_window *w, bool on)
{
    splice_collect(w);
    core_mass_watch(w->stream, on ? w->mass : NULL, SPLICE_RESIDENTS_MAX + 1,
                    on ? &w->mass_tokens : NULL);
}

void splice_collect(splice_window *w)
{
    core_mass_sum(w->stream);
    for (size_t i = 0; i < w->resident_count; i++) {
        splice_resident *r = &w->residents[i];
        r->mass += (double)w->mass[r->owner];
        r->mass_tokens += (double)w->mass_tokens;
    }
    memset(w->mass, 0, sizeof w->mass);
    w->mass_tokens = 0;
}
