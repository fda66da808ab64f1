/* The folders of jobs and the files in them. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "server/jobs/store.h"

enum { ID_DIGITS = 32 };

/* A folder that is being removed: no longer a job's, and swept should the removal not end. */
static const char removed_prefix[] = ".removed-";

static dk_status fail_errno(dk_error *err, const char *path)
{
    int code = errno;
    dk_status status = code == ENOENT || code == ENOTDIR  ? DK_NOT_FOUND
                       : code == ENOSPC || code == EDQUOT ? DK_NO_SPACE
                                                          : DK_IO;
    return dk_fail(err, status, "%s: %s", path, strerror(code));
}

/* Letters, '_', 32 digits: what dk_jobs_create makes. */
static bool is_id(const char *text)
{
    size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyz");
    const char *digits = text + letters + 1;
    return letters > 0 && text[letters] == '_' &&
           strspn(digits, "0123456789abcdef") == ID_DIGITS && digits[ID_DIGITS] == '\0';
}

char *dk_jobs_folder(const dk_jobs *jobs, const char *id)
{
    return dk_path_join(jobs->folder, id);
}

char *dk_jobs_path(const dk_jobs *jobs, const char *id, const char *name)
{
    if (!is_id(id) || !dk_path_is_inside(name, false)) {
        return NULL;
    }
    char *folder = dk_jobs_folder(jobs, id), *path = dk_path_join(folder, name);
    dk_free(folder);
    return path;
}

dk_status dk_jobs_sync_folder(const char *path, dk_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno(err, path);
    }
    dk_status status = fsync(fd) == 0 ? DK_OK : fail_errno(err, path);
    close(fd);
    return status;
}

static dk_status checked_path(const dk_jobs *jobs, const char *id, const char *name, char **out,
                              dk_error *err)
{
    char *path = dk_jobs_path(jobs, id, name);
    if (path == NULL) {
        return dk_fail(err, DK_INVALID,
                       "'%s' of job '%s': not a plain file name of a job by its id", name, id);
    }
    *out = path;
    return DK_OK;
}

/* A file with its bytes, durable as soon as its folder is. */
static dk_status write_file(const char *path, const void *data, size_t size, dk_error *err)
{
    dk_status status = dk_file_write(path, data, size, err);
    return status != DK_NO_SPACE
               ? status
               : dk_fail(err, status, "%s: no space left for %zu bytes", path, size);
}

dk_status dk_jobs_write(dk_jobs *jobs, const char *id, const char *name, const void *data,
                        size_t size, dk_error *err)
{
    char *path = NULL, *folder = NULL;
    DK_TRY(checked_path(jobs, id, name, &path, err));
    folder = dk_jobs_folder(jobs, id);
    dk_status status = write_file(path, data, size, err);
    if (status == DK_OK) {
        status = dk_jobs_sync_folder(folder, err);
    }
    dk_free(folder);
    dk_free(path);
    return status;
}

dk_status dk_jobs_persist(dk_jobs *jobs, const char *id, const char *name, dk_error *err)
{
    char *path = NULL, *folder = NULL;
    DK_TRY(checked_path(jobs, id, name, &path, err));
    folder = dk_jobs_folder(jobs, id);
    dk_status status = DK_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fsync(fd) != 0) {
        status = fail_errno(err, path);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (status == DK_OK) {
        status = dk_jobs_sync_folder(folder, err);
    }
    dk_free(folder);
    dk_free(path);
    return status;
}

static dk_status fill_folder(const char *folder, const dk_job_input *inputs, int count,
                             dk_error *err)
{
    for (int i = 0; i < count; i++) {
        char *path = dk_path_join(folder, inputs[i].name);
        dk_status status = write_file(path, inputs[i].data, inputs[i].size, err);
        dk_free(path);
        DK_TRY(status);
    }
    return dk_jobs_sync_folder(folder, err);
}

dk_status dk_jobs_folder_make(dk_jobs *jobs, const char *id, const dk_job_input *inputs,
                              int count, dk_error *err)
{
    char *folder = dk_jobs_folder(jobs, id);
    dk_status status = DK_OK;
    if (mkdir(folder, 0777) != 0) {
        status = fail_errno(err, folder);
        goto done;
    }
    status = fill_folder(folder, inputs, count, err);
    if (status == DK_OK) {
        status = dk_jobs_sync_folder(jobs->folder, err);
    }
    if (status != DK_OK) {
        dk_jobs_folder_remove(jobs, id);
    }
done:
    dk_free(folder);
    return status;
}

static void remove_tree(const dk_jobs *jobs, const char *folder)
{
    if (!dk_remove_tree(folder)) {
        dk_log_warn(jobs->log, "%s: cannot be removed: %s", folder, strerror(errno));
    }
}

void dk_jobs_folder_remove(const dk_jobs *jobs, const char *id)
{
    char *folder = dk_jobs_folder(jobs, id);
    dk_string gone = DK_STRING_EMPTY;
    dk_string_printf(&gone, "%s/%s%s", jobs->folder, removed_prefix, id);
    /* Under another name, so that a worker that still writes does not come between. */
    bool renamed = rename(folder, dk_string_text(&gone)) == 0;
    remove_tree(jobs, renamed ? dk_string_text(&gone) : folder);
    dk_string_release(&gone);
    dk_free(folder);
}

/* A name that dk_file_temporary makes: ".NAME.PID.part" and an ending. */
static bool is_temporary(const char *name)
{
    const char *part = strstr(name, ".part");
    while (part != NULL && part[5] != '\0' && part[5] != '.') {
        part = strstr(part + 1, ".part");
    }
    if (name[0] != '.' || part == NULL) {
        return false;
    }
    const char *digits = part;
    while (digits > name && isdigit((unsigned char)digits[-1])) {
        digits--;
    }
    return digits < part && digits > name + 1 && digits[-1] == '.';
}

static bool is_checkpoint(const char *name)
{
    static const char prefix[] = "checkpoint-";
    const char *digits = name + sizeof prefix - 1;
    return dk_starts_with(name, prefix) && digits[0] != '\0' &&
           digits[strspn(digits, "0123456789")] == '\0';
}

static bool is_needless(const char *name, bool finished, bool temporaries)
{
    if (is_temporary(name)) {
        return temporaries || (finished && dk_starts_with(name, ".checkpoint-"));
    }
    return finished && is_checkpoint(name);
}

void dk_jobs_folder_tidy(const dk_jobs *jobs, const char *id, bool finished, bool temporaries)
{
    char *folder = dk_jobs_folder(jobs, id);
    DIR *stream = opendir(folder);
    if (stream == NULL) {
        goto done;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        if (is_needless(entry->d_name, finished, temporaries) &&
            unlinkat(dirfd(stream), entry->d_name, 0) != 0 && errno != ENOENT) {
            dk_log_warn(jobs->log, "%s/%s: cannot be removed: %s", folder, entry->d_name,
                        strerror(errno));
        }
    }
    closedir(stream);
done:
    dk_free(folder);
}

static dk_status sweep_entry(dk_jobs *jobs, const char *name, int *swept, dk_error *err)
{
    dk_job_row row;
    bool removed = dk_starts_with(name, removed_prefix);
    if (!removed && !is_id(name)) {
        dk_log_warn(jobs->log, "%s/%s: not of the store, left as it is", jobs->folder, name);
        return DK_OK;
    }
    dk_status status =
        removed ? DK_NOT_FOUND : dk_jobs_find(&jobs->writer, name, NULL, &row, err);
    if (status == DK_NOT_FOUND) {
        char *folder = dk_jobs_folder(jobs, name);
        remove_tree(jobs, folder);
        dk_free(folder);
        ++*swept;
        return DK_OK;
    }
    DK_TRY(status);
    dk_jobs_folder_tidy(jobs, name, dk_job_state_is_final(row.state), true);
    return DK_OK;
}

dk_status dk_jobs_sweep(dk_jobs *jobs, dk_error *err)
{
    DIR *stream = opendir(jobs->folder);
    int swept = 0;
    if (stream == NULL) {
        return fail_errno(err, jobs->folder);
    }
    dk_status status = DK_OK;
    for (struct dirent *entry = readdir(stream); entry != NULL && status == DK_OK;
         entry = readdir(stream)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = sweep_entry(jobs, entry->d_name, &swept, err);
        }
    }
    closedir(stream);
    if (swept > 0) {
        dk_log_info(jobs->log, "%s: %d folders without a job were removed", jobs->folder,
                    swept);
    }
    return status;
}
