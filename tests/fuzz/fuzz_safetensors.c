/* tests/fuzz/fuzz_safetensors.c: the safetensors loader: what it accepts lies inside the file. */
#include <string.h>

#include "engine/safetensors.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_words[] = {"\"dtype\":\"F32\"",
                                  "\"shape\":[",
                                  "\"data_offsets\":[0,",
                                  "__metadata__",
                                  "18446744073709551615",
                                  "-1",
                                  "1e3",
                                  "\"BF16\"",
                                  "\"I64\"",
                                  "{}",
                                  "]}",
                                  NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    base_error err = {0};
    safetensors_file *file = NULL;
    base_status status = safetensors_open_memory("f.safetensors", data, size, &file, &err);
    FUZZ_CHECK(!status || (err.code == status && err.text[0]));
    for (size_t i = 0; !status && i < safetensors_count(file); i++) {
        const safetensors_tensor *t = safetensors_at(file, i);
        FUZZ_CHECK(t->size == 0 || (t->data >= data && t->data + t->size <= data + size));
        FUZZ_CHECK(t->dimensions <= SAFETENSORS_DIMENSIONS_MAX);
        FUZZ_CHECK(safetensors_find(file, t->name));
        if (t->size > 0) {
            volatile uint8_t ends = t->data[0] ^ t->data[t->size - 1];
            (void)ends;
        }
    }
    safetensors_close(file);
    return 0;
}
