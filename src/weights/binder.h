/* Binding: a model names every tensor it needs, with its shape, and gets a view or an f32 copy.
   What is missing, misshapen or left over becomes one error that names the tensors. */
#ifndef DK_WEIGHTS_BINDER_H
#define DK_WEIGHTS_BINDER_H

#include "base/string.h"
#include "weights/weights.h"

/* Owns the copies, and what a device made of the weights; lives as long as the model. Zero is a
   valid empty value. */
typedef struct dk_bound {
    void **values;
    int count;
    dk_device *device; /* borrowed: adopted what follows; NULL: none did */
    const void **adopted;
    int adopted_count;
    dk_shards *shards; /* borrowed: where layers' weights are; NULL: they stay where they are */
} dk_bound;
void dk_bound_release(dk_bound *bound);

typedef struct dk_binder {
    dk_weights *weights; /* borrowed */
    dk_bound *bound;
    dk_comm *comm; /* borrowed: over whose ranks parts are shared out; NULL: they are whole */
    dk_component component;
    const char *where;
    int layer; /* the one that `layer_room` is of */
    size_t layer_room;
    unsigned char *used; /* [dk_weights_count] */
    dk_string problems;
    int problem_count;
    dk_status status;
} dk_binder;

/* where: names the component in messages; borrowed until the finish. What is bound is adopted
   by the device that the weights are attached to. */
void dk_binder_init(dk_binder *binder, dk_weights *weights, dk_bound *bound, const char *where);
bool dk_binder_has(const dk_binder *binder, const char *name);

/* A view of a float tensor of exactly this shape; of a copy only where a file holds it at an
   address that its type does not allow. On a problem *out has data NULL. */
void dk_bind_tensor(dk_binder *binder, dk_tensor *out, int rank, const int64_t *shape,
                    const char *format, ...) DK_PRINTF(5, 6);
/* Of a matrix [shape[0]][shape[1]] the rows (axis 0: a view) or columns (axis 1: a copy, owned
   by `bound`) that are this rank's, where the weights are split: units of so many are shared
   out as equally as can be. */
void dk_bind_part(dk_binder *binder, dk_tensor *out, int axis, int64_t unit,
                  const int64_t shape[2], const char *format, ...) DK_PRINTF(6, 7);
/* The same of a vector. */
void dk_bind_f32_part(dk_binder *binder, const float **out, int64_t count, int64_t unit,
                      const char *format, ...) DK_PRINTF(5, 6);

/* Elements [begin, begin + count) of an axis of `total` that are a rank's; comm NULL: all. */
typedef struct dk_weight_part {
    int64_t begin, count;
} dk_weight_part;
dk_weight_part dk_weight_part_of(const dk_comm *comm, int64_t total, int64_t unit);

/* A vector, or a table [rows][cols], as f32. Unit axes do not count (norm weights come with
   them). On a problem *out is NULL. */
void dk_bind_f32(dk_binder *binder, const float **out, int64_t count, const char *format, ...)
    DK_PRINTF(4, 5);
void dk_bind_f32_table(dk_binder *binder, const float **out, int64_t rows, int64_t cols,
                       const char *format, ...) DK_PRINTF(5, 6);

/* Ends the binding and releases the binder. Tensors that nobody bound are problems too, unless
   their name matches one of `extras` (NULL-ended; a '*' at the start or end stands for
   anything). On failure the caller releases `bound`. */
DK_MUST_USE dk_status dk_binder_finish(dk_binder *binder, const char *const *extras,
                                       dk_error *err);

#endif
