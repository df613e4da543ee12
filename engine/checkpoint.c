/* engine/checkpoint.c: a session between two answers as bytes, and back. Contract: engine.h.
 *
 * Little-endian, without padding:
 *   "EIDCHATS" | u32 version | u32 PROMPT_VERSION | u64 vocabulary | u64 memory_at, header_at,
 *   answer_at | u32 answered before | u32 prefix stands | u32 CRC-32C of the last answer
 *   innovation: f32 threshold at start, f32 target | u64 gap, stride | f32 threshold | u64 since
 *   event, seen, events, again in, open for
 *   u64 seed | sampler u64 [4] | noise u64 [4]
 *   u64 residents | each: u64 episode, at, count | f32 strength | f64 mass, mass tokens | u32 owner
 *   f32 [V] distribution behind the fixed prefix, where that stands
 *   u64 bytes of the stream's state | the state (state.c), which ends with its SHA-256
 * The file around it has a checksum of its own (store/sessions.h).
 */
#include "engine/session.h"

#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"

enum { VERSION = 2 };

/* --- one field after the other ---------------------------------------------------------------- */

/* Writes to `out`, or reads from [at, end); what goes wrong stays. */
typedef struct transfer {
    base_buffer *out; /* NULL: reading */
    const uint8_t *at, *end;
    base_status status;
} transfer;

static void move_bytes(transfer *t, void *field, size_t size)
{
    if (t->status) {
        return;
    }
    if (t->out) {
        t->status = base_buffer_append(t->out, field, size);
    } else if ((size_t)(t->end - t->at) < size) {
        t->status = BASE_CORRUPT;
    } else {
        memcpy(field, t->at, size);
        t->at += size;
    }
}

static void move_u64(transfer *t, uint64_t *field)
{
    uint8_t bytes[8];
    base_put_u64(bytes, *field);
    move_bytes(t, bytes, sizeof bytes);
    *field = base_get_u64(bytes);
}

static void move_size(transfer *t, size_t *field)
{
    uint64_t value = *field;
    move_u64(t, &value);
    *field = (size_t)value;
}

static void move_u32(transfer *t, uint32_t *field)
{
    uint8_t bytes[4];
    base_put_u32(bytes, *field);
    move_bytes(t, bytes, sizeof bytes);
    *field = base_get_u32(bytes);
}

static void move_flag(transfer *t, bool *field)
{
    uint32_t value = *field;
    move_u32(t, &value);
    *field = value != 0;
}

static void move_f32(transfer *t, float *field)
{
    uint8_t bytes[4];
    base_put_f32(bytes, *field);
    move_bytes(t, bytes, sizeof bytes);
    *field = base_get_f32(bytes);
}

static void move_f64(transfer *t, double *field)
{
    uint64_t bits;
    memcpy(&bits, field, sizeof bits);
    move_u64(t, &bits);
    memcpy(field, &bits, sizeof bits);
}

/* --- the parts -------------------------------------------------------------------------------- */

/* Everything but the distribution and the stream. */
typedef struct image {
    uint32_t version, prompt_version;
    uint64_t vocabulary, seed;
    size_t memory_at, header_at, answer_at;
    bool answered_before, prefix_stands;
    uint32_t reply;
    innovation innovation;
    base_rng sampler, noise;
    size_t resident_count;
    splice_resident residents[SPLICE_RESIDENTS_MAX];
} image;

static void move_innovation(transfer *t, innovation *i)
{
    move_f32(t, &i->options.threshold);
    move_f32(t, &i->options.target_rate);
    move_size(t, &i->options.gap);
    move_size(t, &i->options.stride);
    move_f32(t, &i->threshold);
    move_size(t, &i->since_event);
    move_size(t, &i->seen);
    move_size(t, &i->events);
    move_size(t, &i->again_in);
    move_size(t, &i->open_for);
}

static void move_resident(transfer *t, splice_resident *r)
{
    move_u64(t, &r->episode);
    move_size(t, &r->at);
    move_size(t, &r->count);
    move_f32(t, &r->strength);
    move_f64(t, &r->mass);
    move_f64(t, &r->mass_tokens);
    move_u32(t, &r->owner);
}

static void move_head(transfer *t, image *m)
{
    char magic[] = "EIDCHATS";
    move_bytes(t, magic, 8);
    if (memcmp(magic, "EIDCHATS", 8) != 0) {
        t->status = BASE_CORRUPT;
    }
    move_u32(t, &m->version);
    move_u32(t, &m->prompt_version);
    move_u64(t, &m->vocabulary);
}

static void move_image(transfer *t, image *m)
{
    size_t *marks[] = {&m->memory_at, &m->header_at, &m->answer_at};
    for (size_t i = 0; i < 3; i++) {
        move_size(t, marks[i]);
    }
    move_flag(t, &m->answered_before);
    move_flag(t, &m->prefix_stands);
    move_u32(t, &m->reply);
    move_innovation(t, &m->innovation);
    move_u64(t, &m->seed);
    for (size_t i = 0; i < 4; i++) {
        move_u64(t, &m->sampler.state[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        move_u64(t, &m->noise.state[i]);
    }
    move_size(t, &m->resident_count);
    if (m->resident_count > SPLICE_RESIDENTS_MAX) {
        t->status = BASE_CORRUPT;
        m->resident_count = 0;
    }
    for (size_t i = 0; i < m->resident_count; i++) {
        move_resident(t, &m->residents[i]);
    }
}

static size_t vocabulary(const engine_session *s)
{
    return core_model_shape(s->e->model)->vocabulary;
}

static void move_distribution(transfer *t, float *logits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        move_f32(t, &logits[i]);
    }
}

/* --- save ------------------------------------------------------------------------------------- */

base_status engine_session_save(engine_session *s, base_buffer *out, base_error *err)
{
    transfer t = {.out = out};
    if (s->options.splice_state != CORE_SPLICE_NONE) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "a session with memories in its states cannot be saved");
    }
    image m = {.version = VERSION,
               .prompt_version = PROMPT_VERSION,
               .vocabulary = vocabulary(s),
               .seed = s->options.sampling.seed,
               .memory_at = s->memory_at,
               .header_at = s->header_at,
               .answer_at = s->answer_at,
               .answered_before = s->answered_before,
               .prefix_stands = s->prefix_stands,
               .reply = s->reply,
               .innovation = s->innovation,
               .sampler = *sample_rng(s->sampler),
               .noise = s->noise,
               .resident_count = s->window.resident_count};
    memcpy(m.residents, s->window.residents, sizeof m.residents);
    size_t size = core_state_bytes(s->window.stream);
    move_head(&t, &m);
    move_image(&t, &m);
    if (m.prefix_stands) {
        move_distribution(&t, s->prefix_logits, vocabulary(s));
    }
    move_size(&t, &size);
    void *state = t.status ? NULL : base_alloc(size);
    if (state) {
        core_state_save(s->window.stream, state);
        move_bytes(&t, state, size);
    } else if (!t.status) {
        t.status = BASE_NO_MEMORY;
    }
    base_free(state);
    return t.status ? base_fail(err, t.status, "the session cannot be kept: %s",
                                base_status_text(t.status))
                    : BASE_OK;
}

/* --- restore ---------------------------------------------------------------------------------- */

static base_status check_head(const engine_session *s, const transfer *t, const image *m,
                              base_error *err)
{
    if (t->status) {
        return base_fail(err, t->status, "not the state of a session, or cut short");
    }
    if (m->version != VERSION) {
        return base_fail(err, BASE_VERSION, "the session has version %u, only %d can be read",
                         m->version, VERSION);
    }
    if (m->prompt_version != PROMPT_VERSION) {
        return base_fail(err, BASE_VERSION, "the session was led in wrapper version %u, this is %d",
                         m->prompt_version, PROMPT_VERSION);
    }
    return m->vocabulary == vocabulary(s)
               ? BASE_OK
               : base_fail(err, BASE_INVALID, "the state was made by another model");
}

/* Do marks and residents fit the stream that was restored? */
static bool fits(const engine_session *s, const image *m)
{
    size_t slots = core_slots(s->window.stream);
    bool good = m->memory_at <= slots && m->header_at <= slots && m->answer_at <= slots;
    for (size_t i = 0; i < m->resident_count && good; i++) {
        const splice_resident *r = &m->residents[i];
        good = r->owner > 0 && r->owner <= SPLICE_RESIDENTS_MAX && r->count <= slots &&
               core_owner_slot(s->window.stream, r->owner) == r->at && r->at <= slots - r->count;
    }
    return good;
}

static bool same_test(const innovation_options *a, const innovation_options *b)
{
    return a->threshold == b->threshold && a->target_rate == b->target_rate && a->gap == b->gap &&
           a->stride == b->stride;
}

static void take_image(engine_session *s, const image *m)
{
    s->memory_at = m->memory_at;
    s->header_at = m->header_at;
    s->answer_at = m->answer_at;
    s->answered_before = m->answered_before;
    s->prefix_stands = m->prefix_stands;
    s->reply = m->reply;
    if (same_test(&s->innovation.options, &m->innovation.options)) {
        s->innovation = m->innovation;
    }
    if (s->options.sampling.seed == m->seed) {
        *sample_rng(s->sampler) = m->sampler;
        s->noise = m->noise;
    }
    s->window.resident_count = m->resident_count;
    memcpy(s->window.residents, m->residents, sizeof m->residents);
}

base_status engine_session_restore(engine_session *s, const void *data, size_t size,
                                   base_error *err)
{
    transfer t = {.at = data, .end = (const uint8_t *)data + size};
    image m = {0};
    size_t state_size = 0;
    splice_watch(&s->window, false);
    splice_clear(&s->window);
    s->answered_before = s->prefix_stands = false;
    move_head(&t, &m);
    base_status status = check_head(s, &t, &m, err);
    if (status) {
        return status;
    }
    move_image(&t, &m);
    if (m.prefix_stands) {
        move_distribution(&t, s->prefix_logits, vocabulary(s));
    }
    move_size(&t, &state_size);
    if (t.status || state_size != (size_t)(t.end - t.at)) {
        return base_fail(err, BASE_CORRUPT, "the session's parts do not add up");
    }
    status = core_state_restore(s->window.stream, t.at, state_size, err);
    if (!status && !fits(s, &m)) {
        splice_clear(&s->window);
        status = base_fail(err, BASE_CORRUPT, "the session's marks do not fit its window");
    }
    if (!status) {
        take_image(s, &m);
    }
    return status;
}
