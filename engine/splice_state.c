/* engine/splice_state.c: memories in the states of mixers (--splice-state; by default a memory
 * enters attention only). Contract: core.h.
 *
 * A memory stands before one live token. What mixers read of it are rows, taken while it was run
 * behind the fixed prefix, as its keys and values are. What a state S becomes there:
 *
 *   replay   the rows are run, as if the tokens had been read there: S and convolution go on
 *   sum      S <- S + S_m, S_m what the rows make of nothing; the convolution stays with live text
 *   picaso   S and S_m are composed in all orders and averaged (mixer_picaso). With A the product
 *            of all decays behind the stream's begin, A_m that of the rows, one memory gives
 *            S <- (1 + A_m) / 2 S + (1 + A) / 2 S_m; an empty stream (S = 0, A = 1) leaves S_m.
 *            For Mamba2 and GKA (P and U both decay by e^g) that is the average of reading them in
 *            either order, but for the first tokens under a convolution. GDN's transition is a
 *            matrix, e^g (I - beta k k^T), of which only e^g counts here: a later text does not
 *            overwrite what an earlier one wrote under the same keys.
 *
 * The state before a token is always without that token's memories: they enter when it is run, and
 * again when it is run again (fading.c), so that dropping tokens is exact here, too.
 */
#include <math.h>

#include "base/mem.h"
#include "engine/stream.h"

static const char *const names[CORE_SPLICE_COUNT] = {"none", "replay", "sum", "picaso"};

bool core_splice_state_parse(const char *text, core_splice_state *how)
{
    for (int i = 0; i < CORE_SPLICE_COUNT; i++) {
        if (strcmp(text, names[i]) == 0) {
            *how = (core_splice_state)i;
            return true;
        }
    }
    return false;
}

/* [H] sums of g, behind the mixer's own state. */
static float *log_decays(const core_fading *f, float *state)
{
    return state + mixer_state_floats(&f->mixer);
}

void core_state_run(core_stream *s, const core_fading *f, const float *rows, size_t tokens,
                    float *state, float *out, float *novelty)
{
    mixer_run(&f->mixer, s->pool, rows, s->mixer_row, tokens, state, out, novelty,
              s->mixer_scratch);
    for (size_t t = 0; s->splice_state == CORE_SPLICE_PICASO && t < tokens; t++) {
        for (size_t h = 0; h < s->mixer_head_count; h++) {
            log_decays(f, state)[h] += mixer_log_decay(&f->mixer, rows + t * s->mixer_row, h);
        }
    }
}

static void run_rows(core_stream *s, const core_fading *f, const float *rows, size_t tokens,
                     float *state)
{
    for (size_t done = 0, count; done < tokens; done += count) {
        count = tokens - done < s->batch_max ? tokens - done : s->batch_max;
        core_state_run(s, f, rows + done * s->mixer_row, count, state, NULL, NULL);
    }
}

/* --- what a state makes of memories ----------------------------------------------------------- */

/* to [floats] += weight from */
static void add(float *to, const float *from, size_t floats, float weight)
{
    for (size_t i = 0; i < floats; i++) {
        to[i] += weight * from[i];
    }
}

/* One head of a state takes in `count` states alone. */
static void add_head(const core_fading *f, size_t head, float *state, float *const *alone,
                     size_t count)
{
    size_t floats = mixer_head_floats(&f->mixer);
    for (size_t i = 0; i < count; i++) {
        add(state + head * floats, alone[i] + head * floats, floats, 1.0f);
    }
}

static void average_head(const core_fading *f, size_t head, float *state, float *const *alone,
                         size_t count)
{
    size_t floats = mixer_head_floats(&f->mixer);
    double decay[MIXER_PICASO_MAX], weight[MIXER_PICASO_MAX];
    float *live = state + head * floats;
    for (size_t i = 0; i <= count; i++) {
        decay[i] = exp((double)log_decays(f, i < count ? alone[i] : state)[head]);
    }
    mixer_picaso(decay, count + 1, weight);
    for (size_t i = 0; i < floats; i++) {
        live[i] *= (float)weight[count];
    }
    for (size_t i = 0; i < count; i++) {
        add(live, alone[i] + head * floats, floats, (float)weight[i]);
        log_decays(f, state)[head] += log_decays(f, alone[i])[head];
    }
}

void core_state_compose(core_stream *s, const core_fading *f, size_t token, float *state)
{
    float *alone[MIXER_PICASO_MAX];
    size_t count = 0;
    for (size_t i = 0; i < s->memory_count; i++) {
        const core_state_memory *m = &s->memories[i];
        if (m->before == token && s->splice_state == CORE_SPLICE_REPLAY) {
            run_rows(s, f, m->data + f->index * m->tokens * s->mixer_row, m->tokens, state);
        } else if (m->before == token) {
            BASE_ASSERT(count + 1 < MIXER_PICASO_MAX);
            alone[count++] = m->data + f->index * s->mixer_floats;
        }
    }
    for (size_t h = 0; count > 0 && h < s->mixer_head_count; h++) {
        if (s->splice_state == CORE_SPLICE_PICASO) {
            average_head(f, h, state, alone, count);
        } else {
            add_head(f, h, state, alone, count);
        }
    }
}

/* --- which memories there are ----------------------------------------------------------------- */

/* data [layers with a mixer, mixer_floats]: what `tokens` rows of each layer make of nothing. */
static float *make_alone(core_stream *s, const float *rows, size_t tokens)
{
    float *states = base_calloc(s->model->mixer_layers * s->mixer_floats, sizeof *states);
    for (size_t i = 0; states && i < s->model->shape.layers; i++) {
        const core_fading *f = s->model->layers[i].fading;
        if (f) {
            run_rows(s, f, rows + f->index * tokens * s->mixer_row, tokens,
                     states + f->index * s->mixer_floats);
        }
    }
    return states;
}

static void forget(core_stream *s, size_t index)
{
    base_free(s->memories[index].data);
    s->memory_count--;
    memmove(s->memories + index, s->memories + index + 1,
            (s->memory_count - index) * sizeof *s->memories);
}

void core_state_forget(core_stream *s)
{
    while (s->memory_count > 0) {
        forget(s, s->memory_count - 1);
    }
}

base_status core_state_enter(core_stream *s, uint32_t owner, float *rows_take, size_t tokens,
                             base_error *err)
{
    BASE_ASSERT(s->splice_state != CORE_SPLICE_NONE && owner > 0 && owner < CORE_OWNERS_MAX);
    float *data = rows_take;
    if (s->splice_state != CORE_SPLICE_REPLAY) {
        data = make_alone(s, rows_take, tokens);
        base_free(rows_take);
    }
    core_state_memory *grown =
        base_realloc(s->memories, (s->memory_count + 1) * sizeof *s->memories);
    if (!data || !grown) {
        s->memories = grown ? grown : s->memories;
        base_free(data);
        return base_fail(err, BASE_NO_MEMORY, "no memory for the state of a memory");
    }
    s->memories = grown;
    s->memories[s->memory_count++] = (core_state_memory){
        .data = data, .tokens = tokens, .before = s->run_tokens, .owner = owner};
    return BASE_OK;
}

void core_state_leave(core_stream *s, uint32_t owner)
{
    for (size_t i = s->memory_count; i-- > 0;) {
        core_state_memory *m = &s->memories[i];
        m->owner = m->owner == owner ? 0 : m->owner;
        bool pending = m->before == s->run_tokens;
        bool past = m->before + CORE_ROLLBACK + CORE_SNAPSHOT_EVERY <= s->run_tokens;
        if (m->owner == 0 && (pending || past)) {
            forget(s, i);
        }
    }
}

void core_state_rewind(core_stream *s, size_t token)
{
    for (size_t i = s->memory_count; i-- > 0;) {
        core_state_memory *m = &s->memories[i];
        if (m->before >= token && m->owner == 0) {
            forget(s, i);
        } else if (m->before > token) {
            m->before = token;
        }
    }
}
