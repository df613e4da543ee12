/* tests/gpu/no_folder.c: in place of engine/folder.c where there is no JSON library
 * (engine/cuda/device_check.sh on a bare machine): models in folders are refused. */
#include "engine/folder.h"

bool gguf_is_folder(const char *path)
{
    (void)path;
    return false;
}

base_status gguf_open_folder(const char *path, gguf_file **out, base_error *err)
{
    (void)out;
    return base_fail(err, BASE_UNSUPPORTED, "%s: built without a JSON library", path);
}
