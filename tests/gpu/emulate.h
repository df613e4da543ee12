/* tests/gpu/emulate.h: enough of CUDA in plain C++ to run the kernels of engine/cuda/ without a
 * device, as a test.
 *
 * Compile the .cu files as C++ with `-include tests/gpu/emulate.h`: they then run on fibers, one
 * fiber per CUDA thread, all blocks of a cooperative launch alive at once. A fiber gives way at
 * every barrier, shuffle and spin, so that a missing barrier between threads, a wrong barrier
 * phase, or an output that nobody writes shows up as a wrong result or a deadlock report. Blocks of
 * other launches run one after the other, forwards and backwards in turn. Memory comes poisoned.
 * Bulk copies are late on purpose: the target is poisoned when the copy is issued and filled some
 * time after its barrier is waited for; so are uploads by cudaMemcpyAsync, until their queue is
 * waited for or goes on. GPU_EMULATE_LOST_AFTER=N loses the device at launch N. GPU_WARP_COPIES:
 * the copies of cards before compute capability 9.0.
 * What this cannot show: memory ordering between multiprocessors, alignment rules of vector loads,
 * speed.
 *
 * Only what that folder uses is here, with CUDA's meaning and names. x86-64 only (the fiber switch
 * is assembly).
 */
#ifndef TESTS_GPU_EMULATE_H
#define TESTS_GPU_EMULATE_H

#define GPU_EMULATE 1

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#if !defined(__x86_64__)
#error "the emulator switches fibers with x86-64 assembly"
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* --- fibers ----------------------------------------------------------------------------------- */

asm(R"(
.text
.weak gpu_emulate_switch
.type gpu_emulate_switch, @function
gpu_emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
extern "C" void gpu_emulate_switch(void **save, void *load);

namespace emulate
{
enum { WARP = 32, STACK = 128 * 1024 };

struct meeting { /* a barrier of `size` fibers */
    unsigned size = 0, arrived = 0, generation = 0;
};
struct warp {
    meeting all;
    uint64_t slot[WARP];
    uint32_t a[WARP][4], b[WARP][2];
};
struct copy16 {
    void *to;
    const void *from;
};
struct copy {
    void *to;
    const void *from;
    uint32_t bytes;
    uint64_t *barrier;
    unsigned delay;
};
struct block {
    dim3 index;
    std::vector<warp> warps;
    meeting all;
    std::vector<copy> copies;
    std::map<uint64_t *, unsigned> arrived; /* of a warp's lanes (GPU_WARP_COPIES) */
    std::vector<uint8_t> shared;
};
struct fiber {
    dim3 thread;
    unsigned lane = 0;
    block *home = nullptr;
    warp *group = nullptr;
    void *stack_pointer = nullptr;
    uint8_t *stack = nullptr; /* of emulate::stacks */
    std::vector<copy16> copies;
    bool done = false;
};
struct world {
    std::vector<fiber> fibers;
    size_t at = 0, alive = 0, idle = 0;
    void *scheduler = nullptr;
    dim3 grid, threads;
    std::function<void()> body;
    uint32_t noise = 12345;
};
inline world *now = nullptr;
inline std::vector<std::unique_ptr<uint8_t[]>> stacks; /* used again by the next launch */

inline fiber &self()
{
    return now->fibers[now->at];
}
/* Let the others run. moved: something happened since the last call (deadlock detection). */
inline void give_way(bool moved)
{
    now->idle = moved ? 0 : now->idle + 1;
    if (now->idle > now->fibers.size() * 64 + 100000) {
        fprintf(stderr, "emulation: deadlock, block %u thread %u\n", self().home->index.x,
                self().thread.x);
        abort();
    }
    size_t from = now->at, to = from;
    do {
        to = to + 1 == now->fibers.size() ? 0 : to + 1;
    } while (now->fibers[to].done && to != from);
    if (to == from && !now->fibers[from].done) {
        return;
    }
    void **save = &now->fibers[from].stack_pointer;
    if (now->alive == 0) {
        gpu_emulate_switch(save, now->scheduler);
    }
    now->at = to;
    gpu_emulate_switch(save, now->fibers[to].stack_pointer);
}
inline void meet(meeting &m)
{
    unsigned generation = m.generation;
    if (++m.arrived == m.size) {
        m.arrived = 0;
        m.generation++;
        now->idle = 0;
        return;
    }
    while (m.generation == generation) {
        give_way(false);
    }
}
inline void entry()
{
    now->body();
    self().done = true;
    now->alive--;
    give_way(true);
    abort();
}
inline void run(unsigned first, unsigned count, size_t shared)
{
    unsigned size = now->threads.x * now->threads.y;
    std::vector<block> blocks(count);
    now->fibers.clear();
    now->fibers.resize((size_t)count * size);
    for (unsigned b = 0; b < count; b++) {
        unsigned n = first + b;
        blocks[b].index =
            dim3(n % now->grid.x, n / now->grid.x % now->grid.y, n / now->grid.x / now->grid.y);
        blocks[b].warps.resize((size + WARP - 1) / WARP);
        blocks[b].all.size = size;
        blocks[b].shared.assign(shared + 256, 0xA5);
        for (unsigned t = 0; t < size; t++) {
            fiber &f = now->fibers[(size_t)b * size + t];
            f.thread = dim3(t % now->threads.x, t / now->threads.x);
            f.lane = t % WARP;
            f.home = &blocks[b];
            f.group = &blocks[b].warps[t / WARP];
            f.group->all.size++;
            size_t number = (size_t)b * size + t;
            if (number == stacks.size()) {
                stacks.emplace_back(new uint8_t[STACK]);
            }
            f.stack = stacks[number].get();
            uintptr_t top = ((uintptr_t)f.stack + STACK) & ~(uintptr_t)15;
            void **frame = (void **)top - 8; /* six registers, the return address, alignment */
            memset(frame, 0, 8 * sizeof *frame);
            frame[6] = (void *)entry;
            f.stack_pointer = frame;
        }
    }
    now->alive = now->fibers.size();
    now->idle = 0;
    now->at = 0;
    gpu_emulate_switch(&now->scheduler, now->fibers[0].stack_pointer);
}
template <typename T> T exchange(T value, unsigned from)
{
    fiber &f = self();
    memcpy(&f.group->slot[f.lane], &value, sizeof value);
    meet(f.group->all);
    memcpy(&value, &f.group->slot[from % WARP], sizeof value);
    meet(f.group->all);
    return value;
}
inline uint8_t *shared()
{
    return (uint8_t *)(((uintptr_t)self().home->shared.data() + 127) & ~(uintptr_t)127);
}
} /* namespace emulate */

#define threadIdx (emulate::self().thread)
#define blockIdx (emulate::self().home->index)
#define blockDim (emulate::now->threads)
#define gridDim (emulate::now->grid)
#define GPU_SHARED(name) uint8_t *name = emulate::shared()

/* --- device functions ------------------------------------------------------------------------- */

static inline void __syncthreads()
{
    emulate::meet(emulate::self().home->all);
}
static inline void __syncwarp()
{
    emulate::meet(emulate::self().group->all);
}
static inline void __threadfence() {}
template <typename T> static inline T __shfl_xor_sync(unsigned, T value, int mask)
{
    return emulate::exchange(value, emulate::self().lane ^ (unsigned)mask);
}
template <typename T> static inline T __shfl_sync(unsigned, T value, int lane)
{
    return emulate::exchange(value, (unsigned)lane);
}
template <typename T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T atomicAdd(T *p, T value)
{
    T old = *p;
    *p = old + value;
    return old;
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++) {
        c += (int)(int8_t)(a >> 8 * i) * (int)(int8_t)(b >> 8 * i);
    }
    return c;
}
static inline int __float2int_rn(float x)
{
    return (int)nearbyintf(x);
}
static inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

extern "C" float kernel_half_to_float(uint16_t half);
extern "C" uint16_t kernel_float_to_half(float value);
static inline float gpu_half_to_float(uint16_t bits)
{
    return kernel_half_to_float(bits);
}
static inline uint16_t gpu_float_to_half(float value)
{
    return kernel_float_to_half(value);
}
static inline float2 gpu_half2_to_float2(unsigned bits)
{
    return {kernel_half_to_float((uint16_t)bits), kernel_half_to_float((uint16_t)(bits >> 16))};
}

/* --- tensor core fragments (engine/cuda/mma.cuh) ---------------------------------------------- */

static inline void gpu_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    emulate::warp &w = *emulate::self().group;
    unsigned lane = emulate::self().lane, g = lane / 4, t = lane % 4;
    memcpy(w.a[lane], a, sizeof w.a[lane]);
    memcpy(w.b[lane], b, sizeof w.b[lane]);
    emulate::meet(w.all);
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            uint32_t x = w.a[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            uint32_t y = w.b[column * 4 + k % 8 / 2][k / 8];
            c[i] += kernel_half_to_float((uint16_t)(x >> k % 2 * 16)) *
                    kernel_half_to_float((uint16_t)(y >> k % 2 * 16));
        }
    }
    emulate::meet(w.all);
}
/* Rounds as cvt.rna does: to the nearest, ties away from zero. */
static inline float gpu_tf32(float x)
{
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & ~0x1fffu);
}
static inline void gpu_mma_tf32(float c[4], const float a[4], const float b[2])
{
    emulate::warp &w = *emulate::self().group;
    unsigned lane = emulate::self().lane, g = lane / 4, t = lane % 4;
    memcpy(w.a[lane], a, sizeof w.a[lane]);
    memcpy(w.b[lane], b, sizeof w.b[lane]);
    emulate::meet(w.all);
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 8; k++) {
            /* The unit reads 19 bits of each number, whatever the others are. */
            c[i] += __uint_as_float(w.a[row % 8 * 4 + k % 4][row / 8 + k / 4 * 2] & ~0x1fffu) *
                    __uint_as_float(w.b[column * 4 + k % 4][k / 4] & ~0x1fffu);
        }
    }
    emulate::meet(w.all);
}
static inline void gpu_load_transposed(uint32_t b[4], const uint16_t *row)
{
    emulate::warp &w = *emulate::self().group;
    unsigned lane = emulate::self().lane, g = lane / 4, t = lane % 4;
    if ((uintptr_t)row % 16 != 0) {
        fprintf(stderr, "emulation: ldmatrix row is not aligned to 16\n");
        abort();
    }
    w.slot[lane] = (uint64_t)(uintptr_t)row;
    emulate::meet(w.all);
    for (unsigned j = 0; j < 4; j++) {
        const uint16_t *first = (const uint16_t *)(uintptr_t)w.slot[8 * j + 2 * t];
        const uint16_t *second = (const uint16_t *)(uintptr_t)w.slot[8 * j + 2 * t + 1];
        b[j] = (uint32_t)first[g] | (uint32_t)second[g] << 16;
    }
    emulate::meet(w.all);
}
static inline void gpu_load_matrices(uint32_t b[4], const uint16_t *row)
{
    emulate::warp &w = *emulate::self().group;
    unsigned lane = emulate::self().lane, g = lane / 4, t = lane % 4;
    if ((uintptr_t)row % 16 != 0) {
        fprintf(stderr, "emulation: ldmatrix row is not aligned to 16\n");
        abort();
    }
    w.slot[lane] = (uint64_t)(uintptr_t)row;
    emulate::meet(w.all);
    for (unsigned j = 0; j < 4; j++) {
        memcpy(&b[j], (const uint16_t *)(uintptr_t)w.slot[8 * j + g] + 2 * t, sizeof b[j]);
    }
    emulate::meet(w.all);
}
/* Copies land when their group is waited for, not before. */
static inline void gpu_copy16(void *to, const void *from, bool valid)
{
    memset(to, 0xA5, 16);
    emulate::self().copies.push_back({to, valid ? from : NULL});
}
static inline void gpu_copy_commit()
{
    emulate::self().copies.push_back({NULL, NULL}); /* end of a group */
}
static inline void gpu_copy_wait_but_one()
{
    std::vector<emulate::copy16> &copies = emulate::self().copies;
    size_t ends = 0, keep = copies.size();
    while (keep > 0 && !(copies[keep - 1].to == NULL && ++ends == 2)) {
        keep--; /* stops behind the second group end from the back */
    }
    for (size_t i = 0; i < keep; i++) {
        if (copies[i].to && copies[i].from) {
            memcpy(copies[i].to, copies[i].from, 16);
        } else if (copies[i].to) {
            memset(copies[i].to, 0, 16);
        }
    }
    copies.erase(copies.begin(), copies.begin() + (ptrdiff_t)keep);
}
static inline uint32_t gpu_pack_half2(float low, float high)
{
    return (uint32_t)kernel_float_to_half(low) | (uint32_t)kernel_float_to_half(high) << 16;
}

/* Low half of a barrier: completed phases; high half: bytes still to come. */
static inline void gpu_mbarrier_init(uint64_t *barrier)
{
    *barrier = 0;
}
static inline void gpu_mbarrier_init_fence() {}
namespace emulate
{
inline void announce(uint64_t *barrier, void *to, const void *from, uint32_t bytes)
{
    now->noise = now->noise * 1664525u + 1013904223u;
    self().home->copies.push_back({to, from, bytes, barrier, now->noise >> 24 & 3u});
}
/* Something has landed or somebody has arrived: is the phase complete? */
inline void look(uint64_t *barrier)
{
#if defined(GPU_WARP_COPIES)
    unsigned &arrived = self().home->arrived[barrier];
    if (arrived < WARP || *barrier >> 32 != 0) {
        return;
    }
    arrived = 0;
#endif
    if (*barrier >> 32 == 0) {
        *barrier = (uint32_t)*barrier + 1u;
    }
}
} /* namespace emulate */
#if defined(GPU_WARP_COPIES)
static inline void gpu_mbarrier_arrive_copies(uint64_t *barrier)
{
    emulate::fiber &f = emulate::self();
    for (const emulate::copy16 &c : f.copies) {
        *barrier += (uint64_t)16 << 32;
        emulate::announce(barrier, c.to, c.from, 16);
    }
    f.copies.clear();
    f.home->arrived[barrier]++;
    emulate::look(barrier);
}
#else
static inline void gpu_mbarrier_expect(uint64_t *barrier, uint32_t bytes)
{
    *barrier += (uint64_t)bytes << 32;
}
static inline void gpu_bulk_load(void *to, const void *from, uint32_t bytes, uint64_t *barrier)
{
    if (((uintptr_t)to | (uintptr_t)from | bytes) % 16 != 0) {
        fprintf(stderr, "emulation: bulk copy of %u bytes is not aligned to 16\n", bytes);
        abort();
    }
    memset(to, 0xA5, bytes);
    emulate::announce(barrier, to, from, bytes);
}
#endif
static inline void gpu_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    while (((uint32_t)*barrier & 1u) == parity) {
        std::vector<emulate::copy> &copies = emulate::self().home->copies;
        bool moved = false;
        for (size_t i = 0; i < copies.size(); i++) {
            emulate::copy &c = copies[i];
            if (c.barrier != barrier || c.delay-- > 0) {
                continue;
            }
            memcpy(c.to, c.from, c.bytes);
            *barrier -= (uint64_t)c.bytes << 32;
            copies.erase(copies.begin() + (ptrdiff_t)i);
            emulate::look(barrier);
            moved = true;
            break;
        }
        emulate::give_way(moved);
    }
}
static inline void gpu_release_add(uint32_t *counter)
{
    *counter += 1;
}
static inline uint32_t gpu_acquire(const uint32_t *counter)
{
    emulate::give_way(false);
    return *counter;
}

/* --- run time --------------------------------------------------------------------------------- */

typedef int cudaError_t;
typedef int cudaStream_t;
typedef struct {
    char name[256];
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int cooperativeLaunch;
} cudaDeviceProp;
enum {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice = 100,
    cudaErrorLaunchFailure = 719,
    cudaErrorInsufficientDriver = 35
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum {
    cudaEventDisableTiming,
    cudaHostAllocDefault,
    cudaFuncAttributeMaxDynamicSharedMemorySize,
    cudaStreamNonBlocking
};

static inline const char *cudaGetErrorString(cudaError_t)
{
    return "emulated error";
}
static inline cudaError_t cudaGetLastError()
{
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->major = 9;
    p->multiProcessorCount = 3;
    p->totalGlobalMem = (size_t)1 << 32;
    p->sharedMemPerBlockOptin = 227 * 1024;
    p->cooperativeLaunch = 1;
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    const char *mib = getenv("GPU_EMULATE_FREE_MIB"); /* a small card takes other paths */
    *total = (size_t)1 << 32;
    *available = mib ? (size_t)strtoul(mib, NULL, 10) << 20 : *total;
    return cudaSuccess;
}
/* Poisoned, so that a read of memory that nothing wrote gives NaN or absurd numbers. */
static inline cudaError_t cudaMalloc(void **p, size_t size)
{
    *p = aligned_alloc(256, (size + 255) / 256 * 256);
    if (!*p) {
        return cudaErrorMemoryAllocation;
    }
    memset(*p, 0xFF, size);
    return cudaSuccess;
}
static inline cudaError_t cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}
static inline cudaError_t cudaHostAlloc(void **p, size_t size, unsigned)
{
    return cudaMalloc(p, size);
}
static inline cudaError_t cudaFreeHost(void *p)
{
    return cudaFree(p);
}
namespace emulate
{
struct upload {
    void *to;
    const void *from;
    size_t size;
    int queue;
};
inline std::vector<upload> uploads;
/* Is the device gone? */
inline bool lost()
{
    static unsigned long launches = 0;
    const char *after = getenv("GPU_EMULATE_LOST_AFTER");
    launches = after ? launches + 1 : 0;
    return after && launches > strtoul(after, NULL, 10);
}
/* What was queued there happens now. */
inline void drain(int queue)
{
    for (size_t i = 0; i < uploads.size();) {
        if (uploads[i].queue == queue) {
            memmove(uploads[i].to, uploads[i].from, uploads[i].size);
            uploads.erase(uploads.begin() + (ptrdiff_t)i);
        } else {
            i++;
        }
    }
}
} /* namespace emulate */
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size,
                                          cudaMemcpyKind kind, cudaStream_t queue)
{
    if (kind == cudaMemcpyHostToDevice) {
        emulate::uploads.push_back({to, from, size, queue});
    } else {
        emulate::drain(queue);
        memmove(to, from, size);
    }
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind)
{
    memmove(to, from, size);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from,
                                            size_t from_pitch, size_t width, size_t height,
                                            cudaMemcpyKind, cudaStream_t queue)
{
    emulate::drain(queue);
    for (size_t i = 0; i < height; i++) {
        memmove((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    }
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t queue)
{
    emulate::drain(queue);
    memset(p, value, size);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    static int made = 0;
    *s = ++made;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t queue)
{
    emulate::drain(queue);
    return cudaSuccess;
}
/* An event is the queue on which it was recorded. */
typedef int *cudaEvent_t;
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new int(0);
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t queue)
{
    *event = queue;
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    emulate::drain(*event);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned)
{
    emulate::drain(*event);
    return cudaSuccess;
}
template <typename K> static inline cudaError_t cudaFuncSetAttribute(K, int, int)
{
    return cudaSuccess;
}

template <typename T> struct gpu_same {
    typedef T type;
};
/* Run a kernel to its end. Cooperative: all blocks at once, else one after another. */
template <typename... P>
static inline cudaError_t gpu_launch(bool cooperative, void (*kernel)(P...), dim3 grid,
                                     dim3 threads, size_t shared, cudaStream_t queue,
                                     typename gpu_same<P>::type... args)
{
    if (emulate::lost()) {
        return cudaErrorLaunchFailure;
    }
    emulate::drain(queue);
    emulate::world world;
    unsigned blocks = grid.x * grid.y * grid.z;
    world.grid = grid;
    world.threads = threads;
    world.body = [&]() { kernel(args...); };
    emulate::now = &world;
    if (cooperative) {
        emulate::run(0, blocks, shared);
    }
    static unsigned launches = 0; /* every second one backwards: no order is promised */
    launches++;
    for (unsigned b = 0; !cooperative && b < blocks; b++) {
        emulate::run(launches % 2 ? b : blocks - 1 - b, 1, shared);
    }
    emulate::now = nullptr;
    return cudaSuccess;
}

#endif
