/* engine/state.c: a running stream as bytes, and back. Contract: core.h.
 *
 * Little-endian, without padding:
 *   "EIDSTATE" | u32 version | u32 instruction set, or "CUDA" | model hash [32] | u32 element bytes
 *   | u32 activations | u32 hybrid | u32 0 | u64 planes, kv width, window, sinks, places, gone, run
 *   tokens, mixer floats, mixer kept, layers with a mixer
 *   bias f32 [places] | owner u32 [places] | tokens i32 [places]
 *   per plane: keys [places, G*D] before rotation, values [places, G*D], in the stream's KV type
 *   per layer with a mixer: state f32 [mixer floats]; then per layer what running again needs
 *   SHA-256 of all before [32]
 * Rotated keys are made again from the stored ones, as everywhere. The model hash covers weights
 * and adapters; together with the instruction set it makes the continuation bitwise.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/stream.h"

enum { VERSION = 1, NUMBERS = 10, HEADER = 8 + 4 + 4 + 32 + 4 * 4 + NUMBERS * 8, DIGEST = 32 };
enum { DEVICE_KERNELS = 0x41445543 }; /* "CUDA", where a device runs the stream */

/* Which kernels go on with the same bits. */
static uint32_t kernels_of(const core_stream *s)
{
    return s->gpu ? (uint32_t)DEVICE_KERNELS : (uint32_t)s->kernels->isa;
}

static void numbers_of(const core_stream *s, uint64_t out[NUMBERS])
{
    const uint64_t numbers[NUMBERS] = {s->planes,
                                       s->kv_width,
                                       s->window,
                                       s->sinks,
                                       s->places,
                                       s->gone,
                                       s->run_tokens,
                                       s->mixing ? s->mixer_floats : 0,
                                       s->mixing ? s->mixer_kept : 0,
                                       s->mixing ? s->model->mixer_layers : 0};
    memcpy(out, numbers, sizeof numbers);
}

static void write_header(const core_stream *s, uint8_t out[HEADER])
{
    uint64_t numbers[NUMBERS];
    numbers_of(s, numbers);
    memcpy(out, "EIDSTATE", 8);
    base_put_u32(out + 8, VERSION);
    base_put_u32(out + 12, kernels_of(s));
    memcpy(out + 16, s->model->hash, 32);
    base_put_u32(out + 48, (uint32_t)s->element);
    base_put_u32(out + 52, (uint32_t)s->activations);
    base_put_u32(out + 56, s->hybrid);
    base_put_u32(out + 60, 0);
    for (size_t i = 0; i < NUMBERS; i++) {
        base_put_u64(out + 64 + 8 * i, numbers[i]);
    }
}

/* What a state of `places` places has behind its header, without the digest. */
static size_t body_bytes(const core_stream *s, size_t places)
{
    size_t mixers = s->mixing ? s->model->mixer_layers * (s->mixer_floats + s->mixer_kept) : 0;
    return places * 12 + s->planes * 2 * places * s->kv_width * s->element + mixers * sizeof(float);
}

size_t core_state_bytes(const core_stream *s)
{
    return HEADER + body_bytes(s, s->places) + DIGEST;
}

/* Keys, values and mixers of a device, in the order of the body. */
static void move_device(core_stream *s, uint8_t *to, const uint8_t *from)
{
    size_t rows = s->planes * 2 * s->places * s->kv_width * s->element;
    size_t states = s->model->mixer_layers * s->mixer_floats * sizeof(float);
    if (to) {
        gpu_rows_read(s->gpu, s->planes, 0, s->places, to);
    } else {
        gpu_rows_write(s->gpu, s->planes, 0, s->places, from);
    }
    if (s->mixing && to) {
        gpu_mixers_read(s->gpu, (float *)(void *)(to + rows),
                        (float *)(void *)(to + rows + states));
    } else if (s->mixing) {
        gpu_mixers_write(s->gpu, (const float *)(const void *)(from + rows),
                         (const float *)(const void *)(from + rows + states));
    }
}

/* Every part of the body in order: copied to `to` or, where that is NULL, from `from`. */
static void move_body(core_stream *s, uint8_t *to, const uint8_t *from)
{
    size_t layers = s->model->mixer_layers;
    core_copy(s->bias, s->places * sizeof *s->bias, &to, &from);
    core_copy(s->owner, s->places * sizeof *s->owner, &to, &from);
    core_copy(s->tokens, s->places * sizeof *s->tokens, &to, &from);
    if (s->gpu) {
        move_device(s, to, from);
        return;
    }
    for (size_t plane = 0; plane < s->planes; plane++) {
        core_kv_copy(s, plane, 0, s->places, &to, &from);
    }
    if (s->mixing) {
        core_copy(s->mixer_state, layers * s->mixer_floats * sizeof(float), &to, &from);
        core_copy(s->mixer_before, layers * s->mixer_kept * sizeof(float), &to, &from);
    }
}

/* What a header says of the window, and the body behind it. */
static void take_over(core_stream *s, const uint8_t *bytes)
{
    core_stream_clear(s);
    s->sinks = (size_t)base_get_u64(bytes + 64 + 24);
    s->places = (size_t)base_get_u64(bytes + 64 + 32);
    s->gone = (size_t)base_get_u64(bytes + 64 + 40);
    s->run_tokens = (size_t)base_get_u64(bytes + 64 + 48);
    move_body(s, NULL, bytes + HEADER);
    core_window_remade(s);
}

size_t core_mark_bytes(const core_stream *s)
{
    return core_state_bytes(s) - DIGEST;
}

void core_mark(core_stream *s, void *out)
{
    uint8_t *bytes = out;
    BASE_ASSERT(s->memory_count == 0);
    write_header(s, bytes);
    move_body(s, bytes + HEADER, NULL);
}

void core_return(core_stream *s, const void *mark)
{
    take_over(s, mark);
}

void core_state_save(core_stream *s, void *out)
{
    uint8_t *bytes = out;
    base_sha256 hash;
    size_t size = core_mark_bytes(s);
    BASE_ASSERT(s->splice_state == CORE_SPLICE_NONE);
    core_mark(s, bytes);
    base_sha256_begin(&hash);
    base_sha256_add(&hash, bytes, size);
    base_sha256_end(&hash, bytes + size);
}

static base_status check_origin(const core_stream *s, const uint8_t *bytes, base_error *err)
{
    if (memcmp(bytes + 16, s->model->hash, 32) != 0) {
        return base_fail(err, BASE_INVALID, "the state was made by another model");
    }
    if (base_get_u32(bytes + 12) != kernels_of(s)) {
        return base_fail(err, BASE_INVALID, "the state was made with other kernels than %s",
                         s->gpu ? "the device's" : base_isa_name(s->kernels->isa));
    }
    uint8_t own[HEADER];
    write_header(s, own);
    /* KV type, activations, hybrid, planes, kv width and window; then the mixers' sizes. */
    if (memcmp(bytes + 48, own + 48, 16 + 3 * 8) != 0 ||
        memcmp(bytes + 64 + 7 * 8, own + 64 + 7 * 8, 3 * 8) != 0) {
        return base_fail(err, BASE_INVALID, "the state was made by a stream with other options");
    }
    return BASE_OK;
}

base_status core_state_restore(core_stream *s, const void *state, size_t size, base_error *err)
{
    const uint8_t *bytes = state;
    uint8_t digest[DIGEST];
    base_sha256 hash;
    if (size < HEADER + DIGEST || memcmp(bytes, "EIDSTATE", 8) != 0) {
        return base_fail(err, BASE_CORRUPT, "not the state of a stream, or cut short");
    }
    if (base_get_u32(bytes + 8) != VERSION) {
        return base_fail(err, BASE_VERSION, "the state has version %u, only %d can be read",
                         base_get_u32(bytes + 8), VERSION);
    }
    base_sha256_begin(&hash);
    base_sha256_add(&hash, bytes, size - DIGEST);
    base_sha256_end(&hash, digest);
    if (memcmp(digest, bytes + size - DIGEST, DIGEST) != 0) {
        return base_fail(err, BASE_CORRUPT, "the state is damaged: its checksum does not fit");
    }
    base_status status = check_origin(s, bytes, err);
    if (status) {
        return status;
    }
    uint64_t sinks = base_get_u64(bytes + 64 + 24), places = base_get_u64(bytes + 64 + 32);
    if (places > s->slots_max) {
        return base_fail(err, BASE_LIMIT, "the state has %llu slots, this window only %zu",
                         (unsigned long long)places, s->slots_max);
    }
    if (size != HEADER + body_bytes(s, (size_t)places) + DIGEST || sinks > s->slots_max) {
        return base_fail(err, BASE_CORRUPT, "the state's parts do not add up");
    }
    take_over(s, bytes);
    return BASE_OK;
}
