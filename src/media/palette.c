/* Median cut (Heckbert, 1982) with the cut at the mean: of the boxes of colours, the one with
   the largest squared error along an axis is cut there, until there are enough. Colours are
   counted in cells of 5 bits per channel, so a clip with few colours keeps them exactly. */
#include "media/palette.h"

#include <string.h>

#include "base/alloc.h"

enum {
    CHANNELS = 3,
    CELL_BITS = 5,
    CELLS = 1 << (3 * CELL_BITS),
    LOOKUP_BITS = 6, /* of the table colour -> number */
    LOOKUPS = 1 << (3 * LOOKUP_BITS),
    WEIGHT_SUM = 16 /* of Floyd and Steinberg's 7, 3, 5, 1 */
};

typedef struct cell {
    double count, mean[CHANNELS];
} cell;

/* cells[begin] to cells[end - 1]; error is the squared one along `axis`, the worst. */
typedef struct box {
    int begin, end, axis;
    double error, mean[CHANNELS];
} box;

struct dk_palette {
    uint32_t colors[DK_PALETTE_COLORS];
    int count, width, height;
    uint16_t *lookup; /* [LOOKUPS]: number + 1; 0: not yet searched */
    int *errors;      /* [2][width + 2][CHANNELS], in sixteenths: this row, the next */
};

static int index_of(const uint8_t *rgb, int bits)
{
    int drop = 8 - bits;
    return rgb[0] >> drop << (2 * bits) | rgb[1] >> drop << bits | rgb[2] >> drop;
}

/* Counts colours; returns how many cells are used, in front. */
static int count_colors(cell *cells, const dk_frames *frames)
{
    size_t pixels = (size_t)frames->count * (size_t)frames->height * (size_t)frames->width;
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *rgb = frames->rgb + i * CHANNELS;
        cell *c = &cells[index_of(rgb, CELL_BITS)];
        c->count++;
        for (int k = 0; k < CHANNELS; k++) {
            c->mean[k] += rgb[k];
        }
    }
    int used = 0;
    for (int i = 0; i < CELLS; i++) {
        if (cells[i].count > 0) {
            cells[used] = cells[i];
            for (int k = 0; k < CHANNELS; k++) {
                cells[used].mean[k] /= cells[used].count;
            }
            used++;
        }
    }
    return used;
}

static box measure(const cell *cells, int begin, int end)
{
    box b = {.begin = begin, .end = end};
    double count = 0, square[CHANNELS] = {0};
    for (int i = begin; i < end; i++) {
        count += cells[i].count;
        for (int k = 0; k < CHANNELS; k++) {
            b.mean[k] += cells[i].count * cells[i].mean[k];
            square[k] += cells[i].count * cells[i].mean[k] * cells[i].mean[k];
        }
    }
    for (int k = 0; k < CHANNELS; k++) {
        double error = square[k] - b.mean[k] * b.mean[k] / count;
        b.mean[k] /= count;
        if (error > b.error) {
            b.error = error;
            b.axis = k;
        }
    }
    return b;
}

/* Cells up to the mean to the front; returns where the others begin. */
static int partition(cell *cells, const box *b)
{
    int middle = b->begin;
    for (int i = b->begin; i < b->end; i++) {
        if (cells[i].mean[b->axis] <= b->mean[b->axis]) {
            cell kept = cells[middle];
            cells[middle++] = cells[i];
            cells[i] = kept;
        }
    }
    return middle;
}

static int cut_boxes(box boxes[DK_PALETTE_COLORS], cell *cells, int used)
{
    int count = 1;
    boxes[0] = measure(cells, 0, used);
    while (count < DK_PALETTE_COLORS) {
        box *worst = &boxes[0];
        for (int i = 1; i < count; i++) {
            worst = boxes[i].error > worst->error ? &boxes[i] : worst;
        }
        if (worst->error <= 0) {
            break;
        }
        int begin = worst->begin, end = worst->end, middle = partition(cells, worst);
        if (middle == begin || middle == end) { /* equal, but for rounding */
            worst->error = 0;
            continue;
        }
        *worst = measure(cells, begin, middle);
        boxes[count++] = measure(cells, middle, end);
    }
    return count;
}

static void choose_colors(dk_palette *p, cell *cells, const dk_frames *frames)
{
    box boxes[DK_PALETTE_COLORS];
    p->count = cut_boxes(boxes, cells, count_colors(cells, frames));
    for (int i = 0; i < DK_PALETTE_COLORS; i++) {
        p->colors[i] = 0xFF000000;
        for (int k = 0; k < CHANNELS && i < p->count; k++) {
            p->colors[i] |= (uint32_t)(boxes[i].mean[k] + 0.5) << (8 * (CHANNELS - 1 - k));
        }
    }
}

static dk_status init(dk_palette *p, const dk_frames *frames, dk_error *err)
{
    void *memory;
    size_t row = ((size_t)frames->width + 2) * CHANNELS * sizeof *p->errors;
    p->width = frames->width;
    p->height = frames->height;
    DK_TRY(dk_try_alloc(&memory, LOOKUPS * sizeof *p->lookup, "GIF palette", err));
    p->lookup = memory;
    memset(p->lookup, 0, LOOKUPS * sizeof *p->lookup);
    DK_TRY(dk_try_alloc(&memory, 2 * row, "GIF rows", err));
    p->errors = memory;
    DK_TRY(dk_try_alloc(&memory, CELLS * sizeof(cell), "GIF colours", err));
    memset(memory, 0, CELLS * sizeof(cell));
    choose_colors(p, memory, frames);
    dk_free(memory);
    return DK_OK;
}

dk_status dk_palette_create(dk_palette **out, const dk_frames *frames, dk_error *err)
{
    dk_palette *p = dk_alloc(sizeof *p);
    dk_status status = init(p, frames, err);
    if (status != DK_OK) {
        dk_palette_destroy(&p);
        return status;
    }
    *out = p;
    return DK_OK;
}

void dk_palette_destroy(dk_palette **palette)
{
    if (*palette != NULL) {
        dk_free((*palette)->lookup);
        dk_free((*palette)->errors);
        dk_free(*palette);
        *palette = NULL;
    }
}

const uint32_t *dk_palette_colors(const dk_palette *palette)
{
    return palette->colors;
}

static int channel(uint32_t color, int k)
{
    return (int)(color >> (8 * (CHANNELS - 1 - k)) & 0xFF);
}

/* The number of the colour next to the middle of rgb's lookup cell. */
static int nearest(dk_palette *p, const uint8_t *rgb)
{
    uint16_t *known = &p->lookup[index_of(rgb, LOOKUP_BITS)];
    if (*known == 0) {
        const int step = 1 << (8 - LOOKUP_BITS);
        int best = 1 << 30;
        for (int i = 0; i < p->count; i++) {
            int distance = 0;
            for (int k = 0; k < CHANNELS; k++) {
                int d = (rgb[k] & -step) + step / 2 - channel(p->colors[i], k);
                distance += d * d;
            }
            if (distance < best) {
                best = distance;
                *known = (uint16_t)(i + 1);
            }
        }
    }
    return *known - 1;
}

/* `here` and `below` are the errors of this pixel, in this row and the next. */
static int map_pixel(dk_palette *p, const uint8_t *rgb, int *here, int *below)
{
    uint8_t wanted[CHANNELS];
    for (int k = 0; k < CHANNELS; k++) {
        int value = rgb[k] + here[k] / WEIGHT_SUM;
        wanted[k] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    int number = nearest(p, wanted);
    for (int k = 0; k < CHANNELS; k++) {
        int error = wanted[k] - channel(p->colors[number], k);
        here[k + CHANNELS] += 7 * error;
        below[k - CHANNELS] += 3 * error;
        below[k] += 5 * error;
        below[k + CHANNELS] += error;
    }
    return number;
}

void dk_palette_map(dk_palette *palette, uint8_t *dst, int stride, const uint8_t *rgb)
{
    size_t row = ((size_t)palette->width + 2) * CHANNELS;
    int *here = palette->errors, *below = palette->errors + row;
    memset(here, 0, row * sizeof *here);
    for (int y = 0; y < palette->height; y++) {
        memset(below, 0, row * sizeof *below);
        for (int x = 0; x < palette->width; x++) {
            size_t at = ((size_t)x + 1) * CHANNELS;
            dst[x] = (uint8_t)map_pixel(palette, rgb, here + at, below + at);
            rgb += CHANNELS;
        }
        dst += stride;
        int *swapped = here;
        here = below;
        below = swapped;
    }
}
