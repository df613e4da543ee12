/* engine/fading.c: mixers in a running stream: of recurrent layers, and the fading half of B'MOJO-F
 * layers, whose keys and values f are seen when a token has left the exact window. They move on
 * with every token.
 *
 * A recurrent state cannot be run backwards. So states are copied every SNAPSHOT_EVERY tokens, and
 * the projections of the last CORE_ROLLBACK + SNAPSHOT_EVERY tokens are kept: to drop tokens, the
 * copy before the place is taken and the tokens between are given to the mixers again. They see the
 * same numbers in the same order, so the state is bit for bit that of never having run the others.
 * Memories that enter states do so before one token, then as now: splice_state.c.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/stream.h"

enum {
    SNAPSHOT_EVERY = CORE_SNAPSHOT_EVERY,
    SNAPSHOTS = CORE_SNAPSHOTS,
    ROWS_KEPT = CORE_ROLLBACK + SNAPSHOT_EVERY
};

static const core_fading *any_fading(const core_model *model)
{
    for (size_t i = 0; i < model->shape.layers; i++) {
        if (model->layers[i].fading) {
            return model->layers[i].fading;
        }
    }
    return NULL;
}

void core_fading_sizes(core_stream *s)
{
    const core_fading *f = any_fading(s->model);
    BASE_ASSERT(f != NULL);
    s->mixer_floats = mixer_state_floats(&f->mixer);
    s->mixer_row = mixer_row(&f->mixer);
    s->mixer_out = mixer_out_width(&f->mixer);
    s->mixer_head_count = f->mixer.heads;
    s->mixer_scratch_floats = mixer_scratch_floats(&f->mixer, s->batch_max);
    if (s->splice_state == CORE_SPLICE_PICASO) { /* the heads' sums of log decays */
        s->mixer_floats += s->mixer_head_count;
    }
    s->mixer_kept = SNAPSHOTS * s->mixer_floats + ROWS_KEPT * s->mixer_row;
    if (s->device) { /* keeps more rows in place of the convolution's own */
        s->mixer_floats -= (f->mixer.kernel - 1) * mixer_conv_width(&f->mixer);
        s->mixer_kept = SNAPSHOTS * s->mixer_floats + GPU_MIXER_ROWS * s->mixer_row;
    }
}

void core_fading_clear(core_stream *s)
{
    size_t layers = s->model->mixer_layers;
    s->run_tokens = 0;
    if (s->gpu) {
        gpu_mixers_clear(s->gpu);
        return;
    }
    memset(s->mixer_state, 0, layers * s->mixer_floats * sizeof(float));
    memset(s->mixer_before, 0, layers * s->mixer_kept * sizeof(float));
}

static float *state_of(const core_stream *s, const core_fading *f)
{
    return s->mixer_state + f->index * s->mixer_floats;
}

static float *snapshot_of(const core_stream *s, const core_fading *f, size_t token)
{
    return s->mixer_before + f->index * s->mixer_kept +
           token / SNAPSHOT_EVERY % SNAPSHOTS * s->mixer_floats;
}

static float *row_of(const core_stream *s, const core_fading *f, size_t token)
{
    return s->mixer_before + f->index * s->mixer_kept + SNAPSHOTS * s->mixer_floats +
           token % ROWS_KEPT * s->mixer_row;
}

void core_fading_run(core_stream *s, const core_fading *f, size_t tokens)
{
    float *state = state_of(s, f);
    for (size_t done = 0, count; done < tokens; done += count) {
        size_t at = s->run_tokens + done, to_snapshot = SNAPSHOT_EVERY - at % SNAPSHOT_EVERY;
        const float *rows = s->mixer_rows + done * s->mixer_row;
        count = tokens - done < to_snapshot ? tokens - done : to_snapshot;
        if (at % SNAPSHOT_EVERY == 0) {
            memcpy(snapshot_of(s, f, at), state, s->mixer_floats * sizeof *state);
        }
        core_state_compose(s, f, at, state);
        core_state_run(s, f, rows, count, state, s->mixer_heads + done * s->mixer_out,
                       s->novelty ? s->mixer_novelty : NULL);
        for (size_t t = 0; t < count; t++) {
            memcpy(row_of(s, f, at + t), rows + t * s->mixer_row, s->mixer_row * sizeof *rows);
        }
        for (size_t h = 0; s->novelty && done + count == tokens && h < s->mixer_head_count; h++) {
            s->novelty_sum += s->mixer_novelty[(count - 1) * s->mixer_head_count + h];
        }
    }
}

void core_fading_drop(core_stream *s, size_t tokens)
{
    BASE_ASSERT(tokens > 0 && tokens <= s->run_tokens);
    size_t end = s->run_tokens - tokens, from = end - end % SNAPSHOT_EVERY;
    core_state_rewind(s, end);
    if (end == 0) {
        core_fading_clear(s);
        return;
    }
    BASE_ASSERT(tokens <= CORE_ROLLBACK);
    if (s->gpu) {
        gpu_mixers_rewind(s->gpu, from / SNAPSHOT_EVERY % SNAPSHOTS, from, end);
    }
    for (size_t i = 0; !s->gpu && i < s->model->shape.layers; i++) {
        const core_fading *f = s->model->layers[i].fading;
        if (f) {
            memcpy(state_of(s, f), snapshot_of(s, f, from), s->mixer_floats * sizeof(float));
            for (size_t t = from; t < end; t++) {
                core_state_compose(s, f, t, state_of(s, f));
                core_state_run(s, f, row_of(s, f, t), 1, state_of(s, f), NULL, NULL);
            }
        }
    }
    s->run_tokens = end;
}
