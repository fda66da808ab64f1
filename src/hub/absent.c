/* What stands in for this folder in a build without DK_MEDIA: models lie in folders. */
#include "base/alloc.h"
#include "base/file.h"
#include "hub/hub.h"

dk_status dk_hub_resolve(char **folder, const char *model, const dk_hub_options *options,
                         dk_error *err)
{
    (void)options;
    if (dk_path_is_folder(model)) {
        *folder = dk_strdup(model);
        return DK_OK;
    }
    if (dk_path_exists(model)) {
        return dk_fail(err, DK_INVALID,
                       "model '%s' is a file, accepted is the path of a model folder", model);
    }
    if (model[0] == '/' || model[0] == '.' || model[0] == '~') {
        return dk_fail(err, DK_NOT_FOUND,
                       "model '%s': there is no such folder, accepted is the path of a model "
                       "folder",
                       model);
    }
    return dk_fail(
        err, DK_UNSUPPORTED,
        "model '%s': this build has no downloads (DK_MEDIA=OFF), accepted is the path "
        "of a model folder",
        model);
}
