/* engine/cuda/lab/lab_scan.cu: the mixers of a fading layer over many tokens, in versions. A
 * program, not part of the library.
 *
 *   steps     a block a head, token by token, the state in shared memory (mixers.cu)
 *   chunk C   chunks of C tokens on tensor cores (scan.cu); gpu_chunk_size names the one in use
 *
 * Compared with mixer_run: outputs (f16), the state behind the last token, and the states before
 * every CORE_SNAPSHOT_EVERY-th of the last tokens. Bytes: rows read, outputs written.
 */
#include "engine/cuda/lab/lab_mixers.cuh"

struct scan_case {
    const char *name;
    lab_mixer_shape shape;
    size_t before, tokens; /* the first `before` on the CPU, with whose state the device begins */
};

static const scan_case small_cases[] = {
    {"gdn 2 x 64, 37 + 330 tokens", {MIXER_GDN, 2, 1, 64, 64, false}, 37, 330},
    {"gdn 2 x 8, 150 tokens", {MIXER_GDN, 2, 2, 8, 8, false}, 0, 150},
    {"gdn 1 x 128 x 24, 16 + 65 tokens", {MIXER_GDN, 1, 1, 128, 24, false}, 16, 65},
    {"gka 2 x 64, 37 + 150 tokens", {MIXER_GKA, 2, 1, 64, 64, false}, 37, 150},
    {"gka 2 x 16, 1 + 5 tokens", {MIXER_GKA, 2, 1, 16, 16, false}, 1, 5},
    {"gka 1 x 136, 100 tokens", {MIXER_GKA, 1, 1, 136, 136, false}, 0, 100},
    {"mamba2 2 x 64, 37 + 215 tokens", {MIXER_MAMBA2, 2, 1, 64, 64, true}, 37, 215},
    {"mamba2 2 x 8 x 40, 3 + 90 tokens", {MIXER_MAMBA2, 2, 2, 8, 40, true}, 3, 90},
};
/* A layer of the 1B shape, and of one of 8B. */
static const scan_case large_cases[] = {
    {"gdn 32 x 64, 2048 tokens", {MIXER_GDN, 32, 8, 64, 64, false}, 32, 2048},
    {"gdn 32 x 128, 2048 tokens", {MIXER_GDN, 32, 8, 128, 128, false}, 0, 2048},
    {"gka 32 x 64, 2048 tokens", {MIXER_GKA, 32, 8, 64, 64, false}, 32, 2048},
    {"gka 32 x 128, 512 tokens", {MIXER_GKA, 32, 8, 128, 128, false}, 0, 512},
    {"mamba2 32 x 64, 2048 tokens", {MIXER_MAMBA2, 32, 8, 64, 64, true}, 32, 2048},
    {"mamba2 32 x 128, 2048 tokens", {MIXER_MAMBA2, 32, 8, 128, 128, true}, 0, 2048},
};

/* What mixer_run says: states before the first token and behind the last, and copies aside. */
struct expected {
    std::vector<float> start, end, out; /* [floats] [floats] [tokens, H*P] */
    std::vector<float> snapshots;       /* [CORE_SNAPSHOTS, floats] */
    std::vector<bool> due;              /* [CORE_SNAPSHOTS] */
};

static void run_on_cpu(const lab_mixer *on, const scan_case *c, const std::vector<float> &rows,
                       base_pool *pool, expected *to)
{
    const mixer *m = &on->m;
    size_t row = mixer_row(m), floats = on->device.floats, all = c->before + c->tokens;
    size_t every = CORE_SNAPSHOT_EVERY;
    std::vector<float> state(mixer_state_floats(m)), scratch(mixer_scratch_floats(m, all));
    to->out.resize(c->tokens * mixer_out_width(m));
    to->snapshots.resize(CORE_SNAPSHOTS * floats);
    to->due.assign(CORE_SNAPSHOTS, false);
    mixer_run(m, pool, rows.data(), row, c->before, state.data(), NULL, NULL, scratch.data());
    to->start.assign(state.begin(), state.begin() + (ptrdiff_t)floats);
    for (size_t t = c->before, count; t < all; t += count) {
        if (t % every == 0 && t + CORE_SNAPSHOTS * every >= all) {
            size_t number = t / every % CORE_SNAPSHOTS;
            std::copy(state.begin(), state.begin() + (ptrdiff_t)floats,
                      to->snapshots.begin() + (ptrdiff_t)(number * floats));
            to->due[number] = true;
        }
        count = std::min(every - t % every, all - t);
        mixer_run(m, pool, rows.data() + t * row, row, count, state.data(),
                  to->out.data() + (t - c->before) * mixer_out_width(m), NULL, scratch.data());
    }
    to->end.assign(state.begin(), state.begin() + (ptrdiff_t)floats);
}

static int run(const scan_case *c, base_pool *pool, double copy, cudaStream_t queue)
{
    static const uint32_t versions[] = {0, 16, 32, 64}; /* 0: steps */
    uint64_t seed = 7;
    lab_mixer on = {};
    lab_make_mixer(&on, &c->shape, &seed);
    size_t all = c->before + c->tokens, row = on.device.row, width = mixer_out_width(&on.m);
    std::vector<float> rows(all * row);
    for (float &v : rows) {
        v = 1.5f * lab_uniform(&seed);
    }
    expected want;
    run_on_cpu(&on, c, rows, pool, &want);
    size_t floats = on.device.floats, limit = 227 * 1024;
    gpu_scan_params p = {};
    p.mixer = on.device;
    p.layer = lab_device(&on.layer, 1);
    p.rows = {NULL, lab_device(rows.data(), rows.size()), 0};
    p.first = (uint32_t)c->before;
    p.end = (uint32_t)all;
    p.states = lab_device((const float *)NULL, floats);
    p.snapshots = lab_device((const float *)NULL, CORE_SNAPSHOTS * floats);
    p.out = lab_device((const uint16_t *)NULL, c->tokens * width);
    int bad = 0;
    for (uint32_t chunk : versions) {
        char name[32];
        snprintf(name, sizeof name, chunk ? "chunk %u%s" : "steps", chunk,
                 chunk == gpu_chunk_size(&p.mixer, limit) ? " *" : "");
        p.chunk = chunk;
        cudaError_t code =
            chunk ? gpu_chunks_prepare(&p.mixer, chunk) : gpu_steps_prepare(&p.mixer, limit);
        if (code != cudaSuccess) {
            (void)cudaGetLastError();
            printf("%-34s %-16s does not fit\n", c->name, name);
            continue;
        }
        p.scratch =
            chunk ? lab_device((const float *)NULL, gpu_chunk_floats(&p.mixer, c->tokens, chunk))
                  : NULL;
        auto launch = [&]() {
            LAB(chunk ? gpu_chunks_launch(&p, queue) : gpu_steps_launch(&p, limit, queue));
        };
        LAB(cudaMemcpy(p.states, want.start.data(), floats * sizeof(float),
                       cudaMemcpyHostToDevice));
        LAB(cudaMemsetAsync(p.out, 0xFF, c->tokens * width * sizeof *p.out, queue));
        LAB(cudaMemsetAsync(p.snapshots, 0xFF, CORE_SNAPSHOTS * floats * sizeof(float), queue));
        launch();
        LAB(cudaStreamSynchronize(queue));
        std::vector<uint16_t> half = lab_host(p.out, c->tokens * width);
        std::vector<float> out(half.size()), end = lab_host(p.states, floats);
        std::vector<float> aside = lab_host(p.snapshots, CORE_SNAPSHOTS * floats);
        for (size_t i = 0; i < half.size(); i++) {
            out[i] = kernel_half_to_float(half[i]);
        }
        double error = lab_distance(out.data(), want.out.data(), out.size());
        double state = lab_distance(end.data(), want.end.data(), floats);
        for (size_t i = 0; i < CORE_SNAPSHOTS; i++) {
            if (want.due[i]) {
                double here = lab_distance(aside.data() + i * floats,
                                           want.snapshots.data() + i * floats, floats);
                state = here <= state ? state : here; /* keeps a NaN */
            }
        }
        /* Outputs are f16, 2^-11 at most a value; sums of f32 in another order, of which 30 steps
         * of GKA's iteration make more. States never leave f32. */
        double seconds = lab_seconds(queue, launch);
        double bytes = (double)(c->tokens * (row * sizeof(float) + width * sizeof(uint16_t)));
        bad += lab_row(c->name, name, error, 4e-4, seconds, bytes, copy);
        if (!(state <= 5e-6)) {
            printf("%-34s %-16s states %.1e BAD\n", c->name, name, state);
            bad++;
        } else if (!lab_timed) {
            printf("%-34s %-16s states %.1e ok\n", c->name, name, state);
        }
    }
    return bad;
}

int main()
{
    base_pool *pool = NULL;
    base_error err = {};
    if (base_pool_create(0, &pool, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int bad = lab_cases(small_cases, large_cases,
                        [pool](const scan_case *c, double copy, cudaStream_t queue) {
                            return run(c, pool, copy, queue);
                        });
    base_pool_free(pool);
    return bad;
}
