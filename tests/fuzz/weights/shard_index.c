/* Fuzz target: the index of a sharded component, beside two shards: `w` in a, `w` and `v` in b.
 */
#include <string.h>

#include "fuzz_folder.h"
#include "weights/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"model.safetensors.index.json", "a.safetensors",
                                    "b.safetensors", NULL};

static void end(void)
{
    fuzz_folder_remove(names);
}

static void begin(void)
{
    if (fuzz_folder[0] == '\0') {
        static float values[4] = {1, 2, 3, 4};
        fuzz_folder_open(end);
        for (int shard = 0; shard < 2; shard++) {
            char path[128];
            const dk_safetensors_entry entries[] = {{"w", DK_TENSOR(values, DK_F32, 2, 2)},
                                                    {"v", DK_TENSOR(values, DK_F32, 4)}};
            fuzz_file(path, names[1 + shard]);
            if (dk_safetensors_write(path, entries, 1 + shard, NULL) != DK_OK) {
                abort();
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dk_weights *weights;
    begin();
    fuzz_put(names[0], data, size);
    if (dk_weights_open(&weights, fuzz_folder, NULL) == DK_OK) {
        int count = dk_weights_count(weights);
        if (count < 1 || count > 2 || dk_weights_find(weights, "w") == NULL) {
            abort();
        }
        dk_weights_unref(weights);
    }
    return 0;
}
