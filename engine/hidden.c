/* engine/hidden.c: the model's own vector of a text: the ablation "query from hidden state"
 * (semantics §4), which needs no text encoder.
 *
 * The residual stream behind a layer two thirds up, of each token alike (scaled to a mean square of
 * 1), is averaged over the text. What all texts have in common is taken away: the same average over
 * the words of the fixed prefix.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/session.h"

enum { TEXT_MAX = 512 }; /* tokens that count */

size_t engine_hidden_dim(const engine *e)
{
    return core_model_shape(e->model)->channels;
}

static size_t layer_of(const engine *e)
{
    return 2 * core_model_shape(e->model)->layers / 3;
}

/* mean [channels] over the tokens. */
static base_status average(engine *e, const int32_t *ids, size_t count, float *mean,
                           base_error *err)
{
    size_t channels = engine_hidden_dim(e);
    memset(mean, 0, channels * sizeof *mean);
    core_stream_clear(e->hidden);
    core_hidden_watch(e->hidden, layer_of(e), mean);
    base_status status = core_run(e->hidden, ids, count, NULL, 0, err);
    core_hidden_watch(e->hidden, layer_of(e), NULL);
    for (size_t i = 0; i < channels && count > 0; i++) {
        mean[i] /= (float)count;
    }
    return status;
}

static base_status open_stream(engine *e, base_error *err)
{
    core_stream_options options = {.slots_max = TEXT_MAX,
                                   .activations = e->stream_options.activations,
                                   .kv_f32 = e->stream_options.kv_f32,
                                   .pool = e->pool};
    chat_template *chat = NULL;
    prompt words = {0};
    base_status status;
    if (!(e->hidden_centre = base_calloc(engine_hidden_dim(e), sizeof(float)))) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for hidden states");
    }
    if (!(status = chat_open(core_model_file(e->model), e->tokenizer, &chat, err)) &&
        !(status = prompt_open(chat, &words, err)) &&
        !(status = core_stream_open(e->model, &options, &e->hidden, err))) {
        size_t count = words.prefix.count < TEXT_MAX ? words.prefix.count : TEXT_MAX;
        status = average(e, words.prefix.ids, count, e->hidden_centre, err);
    }
    prompt_close(&words);
    chat_close(chat);
    if (status) { /* tried again by the next call */
        core_stream_close(e->hidden);
        base_free(e->hidden_centre);
        e->hidden = NULL;
        e->hidden_centre = NULL;
    }
    return status;
}

base_status engine_hidden_vector(engine *e, const char *text, size_t size, float *vector,
                                 base_error *err)
{
    size_t channels = engine_hidden_dim(e), count = 0;
    int32_t *ids = NULL;
    double squares = 0;
    base_status status = e->hidden ? BASE_OK : open_stream(e, err);
    if (status || (status = tokenizer_encode(e->tokenizer, text, size, &ids, &count, err))) {
        return status;
    }
    status = average(e, ids, count < TEXT_MAX ? count : TEXT_MAX, vector, err);
    base_free(ids);
    for (size_t i = 0; i < channels; i++) {
        vector[i] -= e->hidden_centre[i];
        squares += (double)vector[i] * (double)vector[i];
    }
    for (size_t i = 0; i < channels; i++) {
        vector[i] = squares > 0 ? vector[i] / (float)sqrt(squares) : i == 0;
    }
    return status;
}
