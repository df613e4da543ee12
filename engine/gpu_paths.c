/* engine/gpu_paths.c: see gpu_paths.h. */
#include "engine/gpu_paths.h"

#include <string.h>

#include "base/mem.h"

/* --- parts ------------------------------------------------------------------------------------ */

static uint32_t turn_of(const core_stream *s, const core_view *view)
{
    size_t half = s->model->shape.head_size / 2;
    if (view->cosine >= s->place_cosine && view->cosine < s->place_cosine + s->slots_max * half) {
        return (uint32_t)(s->slots_max + (size_t)(view->cosine - s->place_cosine) / half);
    }
    return (uint32_t)((size_t)(view->cosine - s->cosine) / half);
}

size_t gpu_parts(const core_stream *s, const core_views *views, size_t goal, gpu_part *out)
{
    enum { LEAST = 64 };
    size_t total = 0, parts = 0;
    for (size_t i = 0; i < views->count; i++) {
        total += views->list[i].count;
    }
    size_t piece = (total + goal - 1) / goal, least = (total + LEAST - 1) / LEAST;
    piece = piece > LEAST ? piece : LEAST;
    piece = piece > least ? piece : least; /* LEAST pieces at most, and a rest at every border */
    for (size_t i = 0; i < views->count; i++) {
        const core_view *view = &views->list[i];
        size_t at = view->from, end = view->from + view->count;
        while (at < end) {
            uint32_t owner = s->owner[at];
            size_t to = at + 1;
            while (to < end && to - at < piece && s->owner[to] == owner) {
                to++;
            }
            BASE_ASSERT(parts < GPU_PARTS_MAX);
            out[parts++] = (gpu_part){.from = (uint32_t)at,
                                      .count = (uint32_t)(to - at),
                                      .turn = turn_of(s, view),
                                      .owner = (uint16_t)owner,
                                      .fading = view->fading};
            at = to;
        }
    }
    return parts;
}

/* --- paths ------------------------------------------------------------------------------------ */

typedef struct run {
    size_t from, to; /* places of memories that stand side by side */
} run;

static size_t find_runs(const core_stream *s, run *runs, size_t max)
{
    size_t count = 0;
    for (size_t i = s->sinks; s->owned > 0 && i < s->places; i++) {
        if (s->owner[i] == 0) {
            continue;
        }
        if (count > 0 && runs[count - 1].to == i) {
            runs[count - 1].to++;
        } else {
            BASE_ASSERT(count < max);
            runs[count++] = (run){i, i + 1};
        }
    }
    return count;
}

static size_t live_between(const core_stream *s, size_t from, size_t to)
{
    size_t live = 0;
    for (size_t i = from; i < to; i++) {
        live += s->owner[i] == 0;
    }
    return live;
}

/* Runs do not straddle `begin` or `near`: both are live slots, or the end of the sinks. */
static gpu_path memory_path(const core_stream *s, const run *r, const core_sight *sight,
                            size_t place)
{
    if (r->from >= sight->near || r->to > place) {
        return (gpu_path){0, 0, 0};
    }
    size_t hidden = r->from < sight->begin ? live_between(s, r->to, sight->begin) : 0;
    return (gpu_path){(uint32_t)r->from, (uint32_t)r->to,
                      (uint32_t)(s->slots_max + place - hidden)};
}

size_t gpu_paths(const core_stream *s, size_t tokens, size_t window, size_t exact, gpu_path *paths,
                 gpu_range *ranges)
{
    enum { SINKS = GPU_PATH_FADING + 1, NEAR, MEMORIES };
    run runs[GPU_PATHS_MAX - MEMORIES];
    size_t run_count = find_runs(s, runs, GPU_PATHS_MAX - MEMORIES), count = MEMORIES + run_count;
    size_t tiles = (tokens + GPU_TILE - 1) / GPU_TILE;
    for (size_t t = 0; t < tokens; t++) {
        size_t place = s->places + t;
        core_sight sight = core_look(s, place, window, exact);
        uint32_t own = (uint32_t)(s->slots_max + place), end = (uint32_t)place + 1;
        uint32_t begin = (uint32_t)sight.begin, near = (uint32_t)sight.near;
        bool moved = sight.hidden > 0 || s->gone > 0;
        uint32_t rank = moved ? (uint32_t)(place - sight.hidden) : own;
        bool one = !moved && near == sight.sinks; /* everything in one path */
        paths[GPU_PATH_FADING * tokens + t] = (gpu_path){begin, near, own};
        paths[SINKS * tokens + t] = (gpu_path){0, one ? 0 : (uint32_t)sight.sinks, rank};
        paths[NEAR * tokens + t] = (gpu_path){one ? 0 : near, end, own};
        for (size_t r = 0; r < run_count; r++) {
            paths[(MEMORIES + r) * tokens + t] = memory_path(s, &runs[r], &sight, place);
        }
    }
    for (size_t i = 0; i < count * tiles; i++) {
        size_t path = i / tiles, first = i % tiles * GPU_TILE;
        gpu_range range = {UINT32_MAX, 0};
        for (size_t t = first; t < tokens && t < first + GPU_TILE; t++) {
            const gpu_path *p = &paths[path * tokens + t];
            if (p->from < p->to) {
                range.from = p->from < range.from ? p->from : range.from;
                range.to = p->to > range.to ? p->to : range.to;
            }
        }
        ranges[i] = range.from < range.to ? range : (gpu_range){0, 0};
    }
    return count;
}
