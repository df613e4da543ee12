/* base/cpu.c: instruction-set detection by CPUID and XGETBV (Intel SDM vol. 1, §13 and §15.3: both
 * the processor and the operating system's saved register state must agree). Anything but x86-64 is
 * "scalar".
 */
#include "base/cpu.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const char *const names[BASE_ISA_COUNT] = {"scalar", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Register sets that the operating system saves (XCR0). */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

/* Linux saves the 8 KB of tiles only for processes that have asked for them
 * (Documentation/arch/x86/xstate.rst): arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA). */
static bool may_use_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return false;
#endif
}

base_isa base_isa_detect(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) {
        return BASE_ISA_SCALAR;
    }
    const uint32_t fma = 1U << 12, osxsave = 1U << 27, avx = 1U << 28, f16c = 1U << 29;
    if (!has(c, fma | osxsave | avx | f16c) || (saved_state() & 0x6) != 0x6) {
        return BASE_ISA_SCALAR;
    }
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, 1U << 5)) {
        return BASE_ISA_SCALAR;
    }
    const uint32_t f = 1U << 16, dq = 1U << 17, bw = 1U << 30, vl = 1U << 31, vnni = 1U << 11;
    if (has(b, f | dq | bw | vl) && has(c, vnni) && (saved_state() & 0xe6) == 0xe6) {
        const uint32_t tile = 1U << 24, int8 = 1U << 25;
        const uint64_t tiles = 0x60000;
        return has(d, tile | int8) && (saved_state() & tiles) == tiles && may_use_tiles()
                   ? BASE_ISA_AMX
                   : BASE_ISA_AVX512;
    }
    return BASE_ISA_AVX2;
}
bool base_cpu_has_crc32c(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && has(c, 1U << 20); /* SSE4.2 */
}
#else
base_isa base_isa_detect(void)
{
    return BASE_ISA_SCALAR;
}

bool base_cpu_has_crc32c(void)
{
    return false;
}
#endif

const char *base_isa_name(base_isa isa)
{
    return (unsigned)isa < BASE_ISA_COUNT ? names[isa] : "?";
}

bool base_isa_parse(const char *text, base_isa *isa)
{
    for (size_t i = 0; i < BASE_ISA_COUNT; i++) {
        if (text && strcmp(text, names[i]) == 0) {
            *isa = (base_isa)i;
            return true;
        }
    }
    return false;
}
