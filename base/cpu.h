/* base/cpu.h: which instruction set the kernels may use. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stdbool.h>

typedef enum base_isa {
    BASE_ISA_SCALAR, /* plain C */
    BASE_ISA_AVX2,   /* AVX2 + FMA + F16C */
    BASE_ISA_AVX512, /* AVX-512 F/BW/VL/DQ + VNNI */
    BASE_ISA_AMX,    /* AVX-512 as above + AMX-TILE and AMX-INT8 */
    BASE_ISA_COUNT
} base_isa;

/* Best set that processor and operating system support. Asks Linux for the use of AMX tiles, which
 * it grants a process on demand. */
base_isa base_isa_detect(void);
/* The instruction that base/hash_crc_sse42.c needs (x86-64, SSE4.2). */
bool base_cpu_has_crc32c(void);
const char *base_isa_name(base_isa isa);
/* "scalar", "avx2", "avx512", "amx"; false for any other text. */
bool base_isa_parse(const char *text, base_isa *isa);

#endif
