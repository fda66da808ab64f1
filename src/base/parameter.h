/* Tables of parameters: one entry names a field of a struct, its type, range, default and help.
   Command-line flags, configuration files, recipes, validation and docs/parameters.md all come
   from such tables, so that a field is described once. */
#ifndef DK_BASE_PARAMETER_H
#define DK_BASE_PARAMETER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/string.h"

typedef enum dk_parameter_type {
    DK_PARAMETER_TEXT,   /* const char * */
    DK_PARAMETER_CHOICE, /* const char *, one of `choices` */
    DK_PARAMETER_LEVEL,  /* int: the place in `choices`, from 0 */
    DK_PARAMETER_INT,    /* int */
    DK_PARAMETER_REAL,   /* double; NAN is "not set" and passes every check */
    DK_PARAMETER_SEED,   /* uint64_t; in JSON a number or, above 2^53, its digits as text */
    DK_PARAMETER_BOOL,   /* bool */
} dk_parameter_type;

typedef struct dk_parameter {
    const char *name; /* snake_case; the flag is --name with dashes */
    dk_parameter_type type;
    size_t offset;             /* of the field in its struct */
    double min, max;           /* INT, REAL; TEXT: max is the number of bytes, 0: no limit */
    const char *choices;       /* CHOICE, LEVEL: "a, b, c" */
    const char *unit;          /* "PIXELS", in the help; NULL: by type */
    const char *default_text;  /* for people: "the model's" */
    const char *help;          /* one line without a full stop */
    const char *only_pipeline; /* a pipeline class; NULL: every model has it */
} dk_parameter;

typedef struct dk_parameter_table {
    const char *title; /* "What to generate" */
    const dk_parameter *parameters;
    int count;
} dk_parameter_table;

/* The parameter of this name, in either spelling (num-frames, num_frames), or NULL. */
const dk_parameter *dk_parameter_find(const dk_parameter_table *table, const char *name);

/* Set a field of `object`. `where` begins the message: "--width" or "config.json: width". Texts
   stay borrowed from the caller's string or JSON value. JSON null leaves the field alone. */
DK_MUST_USE dk_status dk_parameter_set_text(const dk_parameter *parameter, void *object,
                                            const char *text, const char *where, dk_error *err);
DK_MUST_USE dk_status dk_parameter_set_json(const dk_parameter *parameter, void *object,
                                            const json_t *value, const char *where,
                                            dk_error *err);

/* The field as it stands against its range; NULL texts pass. */
DK_MUST_USE dk_status dk_parameter_check(const dk_parameter *parameter, const void *object,
                                         dk_error *err);
DK_MUST_USE dk_status dk_parameter_check_all(const dk_parameter_table *table,
                                             const void *object, dk_error *err);

/* The field as JSON: null for NULL texts and NAN, digits as text for seeds, levels by name.
   Owned. */
json_t *dk_parameter_get_json(const dk_parameter *parameter, const void *object);

/* The accepted words as a list; null when it is not one of a list. Owned. */
json_t *dk_parameter_choices_json(const dk_parameter *parameter);

/* "--num-frames" into out (owned by the caller's string). */
void dk_parameter_flag(dk_string *out, const dk_parameter *parameter);
/* "TEXT", "PIXELS", "N": what stands for the value in a usage line. */
const char *dk_parameter_unit(const dk_parameter *parameter);
/* "1 to 4097", "png, mp4", "a text": what is accepted. */
void dk_parameter_range(dk_string *out, const dk_parameter *parameter);

/* Changes of one character that turn one name into the other, '-' and '_' being equal. */
int dk_name_distance(const char *a, const char *b);

#endif
