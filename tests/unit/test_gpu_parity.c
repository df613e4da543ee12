/* tests/unit/test_gpu_parity.c: the device computes what the CPU computes.
 *
 * Goal: every claim of tests/gpu/parity.c, as a CTest. Method: its own main, on synthetic models in
 * the build folder. Without a device it exits with 77, which CTest reports as skipped.
 */
#define main parity_main
#include "tests/gpu/parity.c"
#undef main
#include "tests/gpu/synthetic.c"

int main(void)
{
    char name[] = "parity", work[] = "--work", folder[] = EIDETIC_BINARY_DIR;
    char golden[] = "--golden", models[] = EIDETIC_SOURCE_DIR "/tests/golden";
    char *arguments[] = {name, work, folder, golden, models, NULL};
    return parity_main(5, arguments);
}
