/* Files: mapped for reading, written whole under a temporary name and renamed. */
#ifndef DK_BASE_FILE_H
#define DK_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A read-only mapping. data is NULL when the file is empty. */
typedef struct dk_mapping {
    const unsigned char *data;
    size_t size;
} dk_mapping;

DK_MUST_USE dk_status dk_mapping_open(dk_mapping *out, const char *path, dk_error *err);
void dk_mapping_close(dk_mapping *mapping);

/* The whole file, NUL-terminated behind its size; owned (dk_free). Files over max_bytes are
   refused as DK_FORMAT. */
DK_MUST_USE dk_status dk_file_read(char **out, size_t *size, const char *path, size_t max_bytes,
                                   dk_error *err);

/* Writes path so that a reader sees the old file or the whole new one, never a part.
   DK_NO_SPACE: the disk is full; the old file, if any, is still there. */
DK_MUST_USE dk_status dk_file_write(const char *path, const void *data, size_t size,
                                    dk_error *err);

/* The same from several pieces, one behind the other, under a temporary name that the caller
   keeps (dk_file_temporary(path)): allocates nothing. */
typedef struct dk_file_piece {
    const void *data;
    size_t size;
} dk_file_piece;
DK_MUST_USE dk_status dk_file_write_pieces(const char *path, const char *temporary,
                                           const dk_file_piece *pieces, int count,
                                           dk_error *err);

/* All of it to an open file; path is for the message. */
DK_MUST_USE dk_status dk_file_write_all(int fd, const char *data, size_t size, const char *path,
                                        dk_error *err);

/* The two halves of the same promise, for writers that need a name: a temporary path beside
   `path` (owned), then a rename over it, or removal. */
char *dk_file_temporary(const char *path);
DK_MUST_USE dk_status dk_file_publish(const char *temporary, const char *path, dk_error *err);

/* What tells one version of a file from another without reading it: size and time of the last
   change. Zeros when there is no such file. */
typedef struct dk_file_stamp {
    int64_t bytes, changed_ns;
} dk_file_stamp;
dk_file_stamp dk_file_stamp_of(const char *path);

bool dk_path_exists(const char *path);
bool dk_path_is_folder(const char *path);
char *dk_path_join(const char *folder, const char *name); /* owned */
const char *dk_path_name(const char *path); /* borrowed from path: after the last '/' */
DK_MUST_USE dk_status dk_make_folders(const char *path, dk_error *err); /* like mkdir -p */
/* Removes a folder that this program made, with everything inside; links are not followed, nor
   what is mounted there entered. As much as can be; false: something is left, errno says why.
 */
bool dk_remove_tree(const char *path);

/* True for a plain relative name that stays inside its folder: not empty, no leading '/', no
   ".." part, no control characters. `allow_subfolders` permits '/' inside. */
bool dk_path_is_inside(const char *name, bool allow_subfolders);

#endif
