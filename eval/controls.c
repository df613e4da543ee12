/* eval/controls.c: controls of the splice (semantics §5), inside every run: an evaluation of an
 * inert splice must not look like one of a memory.
 *
 *   (i)   a block behind bias -infinity cannot be heard: the logits are the same bits whatever it
 *         holds, and other bits when it is heard
 *   (ii)  values zeroed, or another episode's keys and values: right answers at most those without
 *         memory + 2 points
 *   (iii) the right keys and values: at least 20 points above both
 *
 * The engine takes no part in it: changed keys and values are put into the records of a store of
 * the controls' own (OUT/control), from where the loop splices them like any others. (ii) and (iii)
 * are compared with what chance allows: (ii) fails where the excess over 2 points has an exact
 * paired p < 0.05; (iii) where fewer than 20 points were measured, and they may be chance (p >=
 * 0.05) or 20 points lie above the one-sided 95 % bound of the difference. With fewer than 10
 * questions they are not decided. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/kvblob.h"
#include "engine/kvcache.h"
#include "eval/harness.h"

enum { DECIDED_MIN = 10, IDS_MAX = ENGINE_EVENT_MEMORIES_MAX };
static const double excess_max = 0.02, lead_min = 0.20, chance = 0.05, bound_z = 1.645;

static const char *const variant_names[EVAL_CONTROL_COUNT] = {"none", "own", "zeroed", "others"};

typedef struct asked {
    const eval_question *q;
    uint64_t ids[IDS_MAX];
    size_t count;
    bool right[EVAL_CONTROL_COUNT];
} asked;

typedef struct controls {
    eval_job *job;
    eval_memory m;
    engine_session *session;
    core_stream *stream; /* of control (i); knows the form of a block */
    asked *list;
    size_t count;
    uint8_t tag[32];
    const char *verdict; /* NULL = passed */
    char text[160];
} controls;

/* --- questions and their store ---------------------------------------------------------------- */

/* The newest document of every evidence of the chosen questions at its time: all others are left
 * out, or known already. documents [set's]. */
static base_status small_set(const eval_set *all, size_t wanted, uint64_t seed, eval_set *out,
                             base_error *err)
{
    base_rng rng;
    json_t *newest = json_object(), *id;
    size_t *order = base_calloc(all->question_count, sizeof *order), k;
    bool *needed = base_calloc(all->document_count, sizeof *needed);
    *out = (eval_set){.latest_us = all->latest_us};
    out->questions = base_calloc(wanted + 1, sizeof *out->questions);
    out->documents = base_calloc(all->document_count, sizeof *out->documents);
    if (!order || !needed || !out->questions || !out->documents) {
        base_free(order);
        base_free(needed);
        json_decref(newest);
        return base_fail(err, BASE_NO_MEMORY, "no memory for controls");
    }
    base_rng_seed(&rng, seed);
    eval_shuffle(&rng, order, all->question_count);
    for (size_t i = 0; i < all->question_count && out->question_count < wanted; i++) {
        const eval_question *q = &all->questions[order[i]];
        if (!q->answerable || json_array_size(q->evidence) == 0) {
            continue;
        }
        out->questions[out->question_count++] = *q;
        json_object_clear(newest);
        json_array_foreach(q->evidence, k, id)
        {
            json_object_set_new(newest, json_string_value(id), json_integer(-1));
        }
        for (size_t d = 0; d < all->document_count; d++) {
            const eval_document *document = &all->documents[d];
            if (document->observed_at_us <= q->as_of_us && !document->left_out &&
                json_object_get(newest, document->id)) {
                json_object_set_new(newest, document->id, json_integer((json_int_t)d));
            }
        }
        const char *name;
        json_object_foreach(newest, name, id)
        {
            if (json_integer_value(id) >= 0) {
                needed[json_integer_value(id)] = true;
            }
        }
    }
    for (size_t d = 0; d < all->document_count; d++) {
        if (needed[d]) {
            out->documents[out->document_count++] = all->documents[d];
        }
    }
    base_free(order);
    base_free(needed);
    json_decref(newest);
    return BASE_OK;
}

static base_status ask(controls *c, asked *a, eval_control v, base_error *err)
{
    eval_row row = EVAL_ROW_EMPTY;
    engine_answer answer;
    engine_session_options options = c->job->o->session;
    options.arm = v == EVAL_CONTROL_NO_MEMORY ? ENGINE_ARM_NONE : ENGINE_ARM_ORACLE;
    options.store = v == EVAL_CONTROL_NO_MEMORY ? NULL : c->m.store;
    options.retrieval = v == EVAL_CONTROL_NO_MEMORY ? NULL : c->m.retrieval;
    options.now_us = a->q->now_us;
    options.as_of_us = a->q->as_of_us;
    options.about_us = a->q->about_us;
    options.memories_max = IDS_MAX;
    options.keep_writes = v == EVAL_CONTROL_OWN;
    options.no_uses = true;
    options.oracle = a->ids;
    options.oracle_count = a->count;
    base_status status = c->session ? engine_session_restart(c->session, &options, err)
                                    : engine_session_open(c->job->e, &options, &c->session, err);
    if (status ||
        (status = engine_ask(c->session, a->q->text, c->job->o->max_tokens, &answer, err))) {
        return base_error_prefix(err, "controls, question %s", a->q->id);
    }
    row.answer = answer.text;
    row.abstained = answer.abstained;
    row.answers = a->q->answers;
    eval_judge(&row);
    a->right[v] = row.contains == 1;
    engine_answer_free(&answer);
    if (v == EVAL_CONTROL_OWN) {
        engine_session_write(c->session);
        memcpy(c->tag, engine_session_kv_tag(c->session), sizeof c->tag);
    }
    return BASE_OK;
}

/* --- changed keys and values ------------------------------------------------------------------ */

typedef struct blob {
    void *data;
    size_t size;
} blob;

static base_status put(controls *c, uint64_t id, const void *data, size_t size, base_error *err)
{
    store_txn *txn;
    base_status status = store_begin(c->m.store, c->job->set->latest_us, &txn, err);
    if (status) {
        return status;
    }
    if ((status = store_put_kv(txn, id, c->tag, data, size, err))) {
        store_abort(txn);
        return status;
    }
    return store_commit(txn, err);
}

/* The form of a blob, read from itself (kvblob.h). */
static kvblob_shape shape_of(const controls *c, const blob *b)
{
    const core_shape *model = core_model_shape(engine_model(c->job->e));
    return (kvblob_shape){.type = b->size > 8 ? (kvblob_type)base_get_u32((uint8_t *)b->data + 4)
                                              : KVBLOB_TYPES,
                          .heads = model->layers * 2 * model->kv_heads,
                          .head_size = model->head_size};
}

/* Keys and values of a blob as the window takes them, [layers][2][count][G*D]: base_free. */
static base_status block_of(const controls *c, const blob *b, uint8_t **block, size_t *count,
                            base_error *err)
{
    kvblob_shape shape = shape_of(c, b);
    *count = shape.type < KVBLOB_TYPES ? kvblob_count(&shape, b->data, b->size) : 0;
    if (*count == 0) {
        return base_fail(err, BASE_CORRUPT, "controls: keys and values of another form");
    }
    if (!(*block = base_alloc(core_block_bytes(c->stream, *count)))) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for controls");
    }
    kvblob_decode(&shape, b->data, *block);
    return BASE_OK;
}

static base_status zero_values(const controls *c, blob *b, base_error *err)
{
    uint8_t *block;
    size_t count, layers = core_model_shape(engine_model(c->job->e))->layers;
    base_status status = block_of(c, b, &block, &count, err);
    if (status) {
        return status;
    }
    kvblob_shape shape = shape_of(c, b);
    size_t part = core_block_bytes(c->stream, count) / layers / 2;
    for (size_t l = 0; l < layers; l++) {
        memset(block + (2 * l + 1) * part, 0, part);
    }
    kvblob_encode(&shape, block, count, b->data);
    base_free(block);
    return BASE_OK;
}

static bool holds_gold(const eval_question *q, const char *text)
{
    eval_row row = {.answer = text, .answers = q->answers};
    eval_judge(&row);
    return row.contains == 1;
}

/* An episode of another question, of which none could be answered right: *id 0 = there is none. */
static base_status find_other(controls *c, size_t mine, uint64_t *id, base_error *err)
{
    *id = 0;
    for (size_t i = 1; i < c->count && !*id; i++) {
        const asked *other = &c->list[(mine + i) % c->count];
        store_episode episode;
        base_status status = store_get(c->m.store, other->ids[0], &episode, err);
        if (status) {
            return status;
        }
        bool right = holds_gold(c->list[mine].q, episode.text);
        for (size_t k = 0; k < c->list[mine].count; k++) {
            right = right || c->list[mine].ids[k] == other->ids[0];
        }
        *id = right ? 0 : other->ids[0];
        store_episode_free(&episode);
    }
    return BASE_OK;
}

/* Ask with every block of the question's evidence changed, then put them back. */
static base_status ask_changed(controls *c, size_t index, eval_control v, base_error *err)
{
    asked *a = &c->list[index];
    blob own[IDS_MAX] = {{0}};
    uint64_t other = 0;
    base_status status = v == EVAL_CONTROL_OTHERS ? find_other(c, index, &other, err) : BASE_OK;
    if (status || (v == EVAL_CONTROL_OTHERS && !other)) {
        return status;
    }
    for (size_t i = 0; i < a->count && !status; i++) {
        blob changed = {0};
        if ((status =
                 store_get_kv(c->m.store, a->ids[i], c->tag, &own[i].data, &own[i].size, err)) ||
            (status = store_get_kv(c->m.store, v == EVAL_CONTROL_OTHERS ? other : a->ids[i], c->tag,
                                   &changed.data, &changed.size, err))) {
            base_error_prefix(err, "controls: keys and values of episode %llu",
                              (unsigned long long)a->ids[i]);
            break;
        }
        if (v == EVAL_CONTROL_ZEROED) {
            status = zero_values(c, &changed, err);
        }
        status = status ? status : put(c, a->ids[i], changed.data, changed.size, err);
        base_free(changed.data);
    }
    status = status ? status : ask(c, a, v, err);
    for (size_t i = 0; i < a->count; i++) {
        if (own[i].data && !status) {
            status = put(c, a->ids[i], own[i].data, own[i].size, err);
        }
        base_free(own[i].data);
    }
    return status;
}

/* --- control (i) ------------------------------------------------------------------------------ */

/* Logits [V] after prefix | block at this bias | question and header. */
static base_status listen(controls *c, const prompt *p, const chat_ids *question, const void *block,
                          size_t count, float bias, float *logits, base_error *err)
{
    base_status status;
    core_stream_clear(c->stream);
    core_set_sinks(c->stream, p->prefix.count);
    if ((status = core_run(c->stream, p->prefix.ids, p->prefix.count, NULL, 0, err)) ||
        (status = core_window_insert(c->stream, p->prefix.count, count, block, bias, 1, err)) ||
        (status = core_run(c->stream, question->ids, question->count, NULL, 0, err))) {
        return status;
    }
    return core_run(c->stream, p->header.ids, p->header.count, logits, 1, err);
}

static base_status hear_nothing(controls *c, const prompt *p, base_error *err)
{
    size_t v = core_model_shape(engine_model(c->job->e))->vocabulary, count = 0;
    size_t row = v * sizeof(float);
    uint8_t *block = NULL;
    float *logits = base_calloc(3 * v, sizeof *logits);
    chat_ids question = {0};
    blob b = {0};
    const asked *a = &c->list[0];
    base_status status =
        logits ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for controls");
    if (status || (status = prompt_question(p, a->q->text, &question, err)) ||
        (status = store_get_kv(c->m.store, a->ids[0], c->tag, &b.data, &b.size, err))) {
        goto done;
    }
    if ((status = block_of(c, &b, &block, &count, err))) {
        goto done;
    }
    if ((status = listen(c, p, &question, block, count, 0, logits, err)) ||
        (status = listen(c, p, &question, block, count, -INFINITY, logits + v, err))) {
        goto done;
    }
    memset(block, 0, core_block_bytes(c->stream, count));
    if (!(status = listen(c, p, &question, block, count, -INFINITY, logits + 2 * v, err))) {
        bool same = memcmp(logits + v, logits + 2 * v, row) == 0;
        c->verdict = !same ? "(i) a memory behind bias -infinity is heard"
                     : memcmp(logits, logits + v, row) == 0 ? "(i) a spliced memory is not heard"
                                                            : NULL;
    }
done:
    base_free(logits);
    base_free(block);
    base_free(b.data);
    chat_ids_free(&question);
    return status;
}

static base_status control_bits(controls *c, base_error *err)
{
    chat_template *chat = NULL;
    prompt p = {0};
    base_status status = chat_open(core_model_file(engine_model(c->job->e)),
                                   engine_tokenizer(c->job->e), &chat, err);
    if (!status && !(status = prompt_open(chat, &p, err))) {
        status = hear_nothing(c, &p, err);
        prompt_close(&p);
    }
    chat_close(chat);
    return status;
}

/* --- what they say ---------------------------------------------------------------------------- */

typedef struct paired {
    size_t only_a, only_b;
    double difference; /* a - b, as a share */
    double p;          /* one-sided, exact: a is better by chance */
} paired;

static paired compare(const bool right[][EVAL_CONTROL_COUNT], size_t count, eval_control a,
                      eval_control b)
{
    paired r = {0};
    for (size_t i = 0; i < count; i++) {
        r.only_a += right[i][a] && !right[i][b];
        r.only_b += right[i][b] && !right[i][a];
    }
    size_t n = r.only_a + r.only_b;
    r.difference = ((double)r.only_a - (double)r.only_b) / (double)count;
    for (size_t k = r.only_a; k <= n; k++) {
        r.p += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) -
                   (double)n * log(2.0));
    }
    return r;
}

bool eval_controls_passed(const bool right[][EVAL_CONTROL_COUNT], size_t count, char text[160])
{
    text[0] = 0;
    for (eval_control v = EVAL_CONTROL_ZEROED;
         count >= DECIDED_MIN && v <= EVAL_CONTROL_OTHERS && !text[0]; v++) {
        paired more = compare(right, count, v, EVAL_CONTROL_NO_MEMORY),
               lead = compare(right, count, EVAL_CONTROL_OWN, v);
        double n = (double)count;
        double variance =
            (double)(lead.only_a + lead.only_b) / n - lead.difference * lead.difference;
        double bound = lead.difference + bound_z * sqrt(fmax(variance, 0) / n);
        if (more.difference > excess_max && more.p < chance) {
            snprintf(text, 160,
                     "(ii) %s keys and values give %.0f points more right answers than "
                     "no memory",
                     variant_names[v], 100 * more.difference);
        } else if (lead.difference < lead_min && (lead.p >= chance || bound < lead_min)) {
            snprintf(text, 160,
                     "(iii) the right keys and values give only %.0f points more right "
                     "answers than %s ones",
                     100 * lead.difference, variant_names[v]);
        }
    }
    return !text[0];
}

static base_status judge(controls *c, base_error *err)
{
    bool(*right)[EVAL_CONTROL_COUNT] = base_calloc(c->count + 1, sizeof *right);
    if (!right) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for controls");
    }
    for (size_t i = 0; i < c->count; i++) {
        memcpy(right[i], c->list[i].right, sizeof right[i]);
    }
    if (!c->verdict &&
        !eval_controls_passed((const bool(*)[EVAL_CONTROL_COUNT])right, c->count, c->text)) {
        c->verdict = c->text;
    }
    base_free(right);
    return BASE_OK;
}

static base_status report(controls *c, base_error *err)
{
    json_t *right = json_object();
    char path[4096];
    for (eval_control v = 0; v < EVAL_CONTROL_COUNT; v++) {
        size_t count = 0;
        for (size_t i = 0; i < c->count; i++) {
            count += c->list[i].right[v];
        }
        json_object_set_new(right, variant_names[v], json_integer((json_int_t)count));
    }
    base_buffer text = {0};
    base_status status =
        eval_add_line(&text,
                      json_pack("{s:I, s:o, s:b, s:b, s:s?}", "n", (json_int_t)c->count, "right",
                                right, "decided", c->count >= DECIDED_MIN, "passed",
                                c->verdict == NULL, "failed", c->verdict),
                      err);
    if (!status && !(status = base_path_join(path, sizeof path, c->job->path, "controls.json"))) {
        status = base_file_replace(path, text.data, text.size, 0644, err);
    }
    if (!status && c->job->o->progress) {
        fprintf(c->job->o->progress, "controls: %s", text.data);
    }
    base_buffer_free(&text);
    return status;
}

/* --- all of them ------------------------------------------------------------------------------ */

static base_status open_controls(controls *c, const eval_set *set, base_error *err)
{
    enum { BEFORE_AND_BEHIND = 2048 };
    char path[4096];
    core_stream_options options = {.slots_max = BEFORE_AND_BEHIND + KVCACHE_BLOCK_MAX,
                                   .pool = engine_pool(c->job->e),
                                   .device = engine_gpu(c->job->e)};
    int64_t observed;
    base_status status = base_path_join(path, sizeof path, c->job->path, "control");
    if (status || (status = eval_memory_remove(path, err)) ||
        (status = eval_memory_open(c->job->e, path, false, &c->m, err)) ||
        (status = eval_memory_add(c->job->e, &c->m, set, INT64_MAX, NULL, err)) ||
        (status = core_stream_open(engine_model(c->job->e), &options, &c->stream, err))) {
        return status;
    }
    if (!(c->list = base_calloc(set->question_count, sizeof *c->list))) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for controls");
    }
    for (size_t i = 0; i < set->question_count && !status; i++) {
        asked *a = &c->list[c->count];
        a->q = &set->questions[i];
        status = eval_memory_evidence(&c->m, a->q, a->ids, IDS_MAX, &a->count, &observed, err);
        c->count += a->count > 0;
    }
    return status;
}

static bool passed_before(const eval_job *job)
{
    char path[4096];
    json_t *report = NULL;
    if (eval_results_count(job->results, NULL) > 0 &&
        !base_path_join(path, sizeof path, job->path, "controls.json")) {
        report = json_load_file(path, 0, NULL);
    }
    bool passed = json_is_true(json_object_get(report, "passed"));
    json_decref(report);
    return passed;
}

base_status eval_run_controls(eval_job *job, base_error *err)
{
    controls c = {.job = job};
    eval_set small = {0};
    if (job->o->controls == 0 || passed_before(job)) {
        return BASE_OK;
    }
    base_status status = small_set(job->set, job->o->controls, job->o->seed, &small, err);
    if (!status && small.question_count > 0 && !(status = open_controls(&c, &small, err))) {
        for (size_t i = 0; i < c.count && !status; i++) {
            (void)((status = ask(&c, &c.list[i], EVAL_CONTROL_NO_MEMORY, err)) ||
                   (status = ask(&c, &c.list[i], EVAL_CONTROL_OWN, err)));
        }
        if (!status && c.count > 0) {
            status = control_bits(&c, err);
        }
        for (size_t i = 0; i < c.count && !status; i++) {
            (void)((status = ask_changed(&c, i, EVAL_CONTROL_ZEROED, err)) ||
                   (status = ask_changed(&c, i, EVAL_CONTROL_OTHERS, err)));
        }
        if (!status && !(status = judge(&c, err))) {
            status = report(&c, err);
        }
        if (!status && c.verdict) {
            status = base_fail(err, BASE_CANCELLED, "stopped: control %s (%zu questions)",
                               c.verdict, c.count);
        }
    }
    engine_session_close(c.session);
    core_stream_close(c.stream);
    eval_memory_close(&c.m);
    base_free(c.list);
    base_free(small.questions);
    base_free(small.documents);
    return status;
}
