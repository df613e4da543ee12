/* engine/cuda/lab/lab_step.cu: one token through a fading layer's mixers, in versions. A program,
 * not part of the library.
 *
 *   N threads   a block of so many threads a head and sequence (batch.cu); the decode kernel runs
 *               the same code (mixer_step.cuh) with 512
 *
 * Compared with mixer_run: outputs (f16) and states. Bytes: states read and written once, which is
 * all that GDN and Mamba2 need; GKA reads its covariance once more for every iteration, from the
 * caches.
 */
#include "engine/cuda/lab/lab_mixers.cuh"

struct step_case {
    const char *name;
    lab_mixer_shape shape;
    size_t sequences, before; /* tokens before: sequence i has i more */
};

static const step_case small_cases[] = {
    {"gdn 2 x 64, 3 together", {MIXER_GDN, 2, 1, 64, 64, false}, 3, 20},
    {"gka 2 x 16, 2 together", {MIXER_GKA, 2, 2, 16, 16, false}, 2, 5},
    {"mamba2 4 x 24 x 40", {MIXER_MAMBA2, 4, 2, 24, 40, true}, 1, 98},
};
static const step_case large_cases[] = {
    {"gdn 32 x 64", {MIXER_GDN, 32, 8, 64, 64, false}, 1, 32},
    {"gdn 32 x 64, 16 together", {MIXER_GDN, 32, 8, 64, 64, false}, 16, 32},
    {"gdn 32 x 128", {MIXER_GDN, 32, 8, 128, 128, false}, 1, 32},
    {"gka 32 x 64", {MIXER_GKA, 32, 8, 64, 64, false}, 1, 32},
    {"gka 32 x 128, 16 together", {MIXER_GKA, 32, 8, 128, 128, false}, 16, 32},
    {"mamba2 32 x 64, 16 together", {MIXER_MAMBA2, 32, 8, 64, 64, true}, 16, 32},
};

static int run(const step_case *c, double copy, cudaStream_t queue)
{
    uint64_t seed = 21;
    lab_mixer on = {};
    lab_make_mixer(&on, &c->shape, &seed);
    const mixer *m = &on.m;
    size_t row = on.device.row, floats = on.device.floats, n = c->sequences;
    size_t width = mixer_out_width(m), ring_floats = (size_t)GPU_MIXER_ROWS * row;
    std::vector<float> want_out(n * width), want_states, starts, last;
    std::vector<gpu_sequence> list(n);
    std::vector<gpu_moment> moments(n);
    for (size_t i = 0; i < n; i++) {
        size_t before = c->before + i;
        std::vector<float> rows((before + 1) * row), ring(ring_floats, NAN);
        std::vector<float> state(mixer_state_floats(m)), scratch(mixer_scratch_floats(m, before));
        for (float &v : rows) {
            v = 1.5f * lab_uniform(&seed);
        }
        for (size_t t = before > (size_t)GPU_MIXER_ROWS ? before - GPU_MIXER_ROWS : 0; t < before;
             t++) {
            std::copy(rows.begin() + (ptrdiff_t)(t * row),
                      rows.begin() + (ptrdiff_t)((t + 1) * row),
                      ring.begin() + (ptrdiff_t)(t % GPU_MIXER_ROWS * row));
        }
        mixer_run(m, NULL, rows.data(), row, before, state.data(), NULL, NULL, scratch.data());
        starts.insert(starts.end(), state.begin(), state.begin() + (ptrdiff_t)floats);
        mixer_run(m, NULL, rows.data() + before * row, row, 1, state.data(),
                  want_out.data() + i * width, NULL, scratch.data());
        want_states.insert(want_states.end(), state.begin(), state.begin() + (ptrdiff_t)floats);
        last.insert(last.end(), rows.end() - (ptrdiff_t)row, rows.end());
        list[i] = {};
        list[i].rows = lab_device(ring.data(), ring_floats);
        moments[i] = {};
        moments[i].number = (uint32_t)before;
    }
    float *states = lab_device(starts.data(), starts.size());
    for (size_t i = 0; i < n; i++) {
        list[i].states = states + i * floats;
    }
    gpu_mix_params p = {};
    p.mixer = on.device;
    p.layer = lab_device(&on.layer, 1);
    p.list = lab_device(list.data(), n);
    p.now = lab_device(moments.data(), n);
    p.rows = lab_device(last.data(), last.size());
    p.out = lab_device((const uint16_t *)NULL, n * width);
    int bad = 0;
    for (uint32_t threads : {128u, 256u, 512u}) {
        auto launch = [&]() { LAB(gpu_mix_launch(&p, (uint32_t)n, threads, queue)); };
        LAB(cudaMemcpy(states, starts.data(), starts.size() * sizeof(float),
                       cudaMemcpyHostToDevice));
        LAB(cudaMemsetAsync(p.out, 0xFF, n * width * sizeof *p.out, queue));
        launch();
        LAB(cudaStreamSynchronize(queue));
        std::vector<uint16_t> half = lab_host(p.out, n * width);
        std::vector<float> out(half.size()), end = lab_host(states, n * floats);
        for (size_t i = 0; i < half.size(); i++) {
            out[i] = kernel_half_to_float(half[i]);
        }
        double state = lab_distance(end.data(), want_states.data(), end.size());
        double error = lab_distance(out.data(), want_out.data(), out.size());
        char name[32];
        snprintf(name, sizeof name, "%u threads%s", threads, threads == 256 ? " *" : "");
        /* As in lab_scan.cu; a state that is off shows as an error without bound. */
        bad += lab_row(c->name, name, state <= 5e-6 ? error : INFINITY, 4e-4,
                       lab_seconds(queue, launch), (double)(n * floats * 2 * sizeof(float)), copy);
    }
    return bad;
}

int main()
{
    return lab_cases(small_cases, large_cases, run);
}
