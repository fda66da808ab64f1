/* JSON on jansson: strict parsing with limits, and typed access whose errors name the key.
   Accessors take `where` (a file name or "request") for their messages. */
#ifndef DK_BASE_JSON_H
#define DK_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DK_JSON_MAX_DEPTH = 64, DK_JSON_CONFIG_BYTES = 16 * 1024 * 1024 };

/* Parses one value: UTF-8 without NUL characters, duplicate keys refused, at most
   DK_JSON_MAX_DEPTH levels. Owned (json_decref). */
DK_MUST_USE dk_status dk_json_parse(json_t **out, const char *text, size_t size,
                                    const char *where, dk_error *err);
/* The same for a file of at most max_bytes. */
DK_MUST_USE dk_status dk_json_load(json_t **out, const char *path, size_t max_bytes,
                                   dk_error *err);

/* Reads object[key] into *out. An absent key (or null, where DK_JSON_NULL_IS_ABSENT is set)
   leaves *out as it is, unless DK_JSON_REQUIRED is set. A value of another type or outside
   [min, max] is DK_FORMAT. Strings are borrowed from the object. */
enum { DK_JSON_REQUIRED = 1, DK_JSON_NULL_IS_ABSENT = 2 };
DK_MUST_USE dk_status dk_json_int(const json_t *object, const char *key, int64_t min,
                                  int64_t max, unsigned flags, int64_t *out, const char *where,
                                  dk_error *err);
DK_MUST_USE dk_status dk_json_double(const json_t *object, const char *key, double min,
                                     double max, unsigned flags, double *out, const char *where,
                                     dk_error *err);
DK_MUST_USE dk_status dk_json_bool(const json_t *object, const char *key, unsigned flags,
                                   bool *out, const char *where, dk_error *err);
DK_MUST_USE dk_status dk_json_string(const json_t *object, const char *key, unsigned flags,
                                     const char **out, const char *where, dk_error *err);
/* An array of `count_min`..`count_max` numbers; *count receives how many. */
DK_MUST_USE dk_status dk_json_ints(const json_t *object, const char *key, int count_min,
                                   int count_max, int64_t min, int64_t max, unsigned flags,
                                   int64_t *out, int *count, const char *where, dk_error *err);
DK_MUST_USE dk_status dk_json_doubles(const json_t *object, const char *key, int count_min,
                                      int count_max, unsigned flags, double *out, int *count,
                                      const char *where, dk_error *err);
DK_MUST_USE dk_status dk_json_bools(const json_t *object, const char *key, int count_min,
                                    int count_max, unsigned flags, bool *out, int *count,
                                    const char *where, dk_error *err);

/* Nothing when the key is absent or its value is one of `accepted` (NULL-ended); otherwise
   DK_UNSUPPORTED with what is accepted. */
DK_MUST_USE dk_status dk_json_choice(const json_t *object, const char *key,
                                     const char *const *accepted, const char *where,
                                     dk_error *err);

const char *
dk_json_type_name(const json_t *value); /* "object", "string", …; "nothing" for NULL */

#endif
