/* Fitting the projection, and previews while steps go on. */
#include "pipeline/preview.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"
#include "tensor/random.h"

enum {
    SIDE = 16, /* latent pixels of a fitted picture */
    PICTURES = 32,
    MOST = DK_WAN_VAE_MAX_CHANNELS + 1, /* unknowns of a colour */
};

/* Sums of the normal equations. */
typedef struct fit {
    dk_nn *nn;
    int64_t channels, factor; /* factor: pixels of a latent pixel's side */
    const float *latent;      /* of the picture at work, normalised: [channels][SIDE * SIDE] */
    double squares[MOST][MOST], products[MOST][3];
} fit;

static float unit(float sample)
{
    float value = sample * 0.5f + 0.5f;
    return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
}

static void add_pixel(fit *f, int64_t pixel, const double rgb[3])
{
    double x[MOST];
    for (int64_t c = 0; c < f->channels; c++) {
        x[c] = (double)f->latent[c * SIDE * SIDE + pixel];
    }
    x[f->channels] = 1;
    for (int64_t a = 0; a <= f->channels; a++) {
        for (int64_t b = 0; b <= f->channels; b++) {
            f->squares[a][b] += x[a] * x[b];
        }
        for (int k = 0; k < 3; k++) {
            f->products[a][k] += x[a] * rgb[k];
        }
    }
}

/* A decoded picture: the mean colour of the pixels that belong to each latent pixel. */
static dk_status add_picture(void *context, int64_t first_frame, int64_t count,
                             const dk_tensor *sample, dk_error *err)
{
    fit *f = context;
    int64_t factor = f->factor, width = SIDE * factor;
    void *memory;
    (void)first_frame;
    (void)count;
    DK_TRY(dk_try_alloc(&memory, dk_tensor_bytes(sample), "a preview's fit", err));
    const float *values = memory;
    dk_device_read(f->nn->device, memory, sample->data, dk_tensor_bytes(sample));
    dk_status status = dk_device_sync(f->nn->device, err);
    for (int64_t pixel = 0; pixel < SIDE * SIDE && status == DK_OK; pixel++) {
        double rgb[3] = {0};
        for (int64_t i = 0; i < factor * factor; i++) {
            int64_t y = pixel / SIDE * factor + i / factor;
            int64_t x = pixel % SIDE * factor + i % factor;
            for (int k = 0; k < 3; k++) {
                rgb[k] += (double)unit(values[(y * width + x) * 3 + k]);
            }
        }
        for (int k = 0; k < 3; k++) {
            rgb[k] /= (double)(factor * factor);
        }
        add_pixel(f, pixel, rgb);
    }
    dk_free(memory);
    return status;
}

/* Value of a coarse random grid between its points, of unit spread at them. */
static float between(const float *grid, int cells, int y, int x)
{
    float fy = (float)y * (float)(cells - 1) / (SIDE - 1);
    float fx = (float)x * (float)(cells - 1) / (SIDE - 1);
    int y0 = (int)fy, x0 = (int)fx;
    int y1 = y0 + 1 < cells ? y0 + 1 : y0, x1 = x0 + 1 < cells ? x0 + 1 : x0;
    float wy = fy - (float)y0, wx = fx - (float)x0;
    return (grid[y0 * cells + x0] * (1 - wx) + grid[y0 * cells + x1] * wx) * (1 - wy) +
           (grid[y1 * cells + x0] * (1 - wx) + grid[y1 * cells + x1] * wx) * wy;
}

/* Latents that vary as slowly as those of pictures: grids of 1 to 6 points a side. The spread
   is below 1, as between the points of a picture's latent: farther out the VAE is less linear.
 */
static void draw_latent(dk_generator *generator, int picture, int64_t channels, float *latent)
{
    enum { MOST_CELLS = 6 };
    float spread = 0.4f + 0.2f * (float)(picture % 5);
    float grid[MOST_CELLS * MOST_CELLS];
    int cells = 1 + picture % MOST_CELLS;
    for (int64_t c = 0; c < channels; c++) {
        dk_generator_randn(generator, grid, (int64_t)cells * cells);
        for (int i = 0; i < SIDE * SIDE; i++) {
            latent[c * SIDE * SIDE + i] = spread * between(grid, cells, i / SIDE, i % SIDE);
        }
    }
}

/* Solves squares w = products in place by Cholesky's method, with a ridge that keeps channels
   of no influence at 0. */
static void solve(fit *f, dk_projection *out)
{
    int64_t n = f->channels + 1;
    double(*s)[MOST] = f->squares;
    for (int64_t i = 0; i < n; i++) {
        s[i][i] += 1e-3 * PICTURES * SIDE * SIDE;
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = j; i < n; i++) {
            double sum = s[i][j];
            for (int64_t k = 0; k < j; k++) {
                sum -= s[i][k] * s[j][k];
            }
            s[i][j] = i == j ? sqrt(sum) : sum / s[j][j];
        }
    }
    for (int rgb = 0; rgb < 3; rgb++) {
        double w[MOST];
        for (int64_t i = 0; i < n; i++) {
            w[i] = f->products[i][rgb];
            for (int64_t k = 0; k < i; k++) {
                w[i] -= s[i][k] * w[k];
            }
            w[i] /= s[i][i];
        }
        for (int64_t i = n; i-- > 0;) {
            for (int64_t k = i + 1; k < n; k++) {
                w[i] -= s[k][i] * w[k];
            }
            w[i] /= s[i][i];
            out->weight[rgb][i] = (float)w[i];
        }
    }
}

static dk_status decode_all(fit *f, dk_nn *nn, const dk_wan_vae *vae, float *latent,
                            const dk_tensor *device_latent, dk_error *err)
{
    const dk_wan_vae_config *c = dk_wan_vae_get_config(vae);
    dk_generator generator;
    float *scaled = latent + f->channels * SIDE * SIDE;
    dk_generator_init(&generator, DK_NOISE_TORCH_CPU, 1);
    f->latent = latent;
    for (int i = 0; i < PICTURES; i++) {
        draw_latent(&generator, i, f->channels, latent);
        for (int64_t k = 0; k < f->channels * SIDE * SIDE; k++) {
            int64_t channel = k / (SIDE * SIDE);
            scaled[k] =
                latent[k] * (float)c->latents_std[channel] + (float)c->latents_mean[channel];
        }
        dk_device_write(nn->device, device_latent->data, scaled,
                        dk_tensor_bytes(device_latent));
        DK_TRY(dk_wan_vae_decode(nn, vae, device_latent, 1, SIDE, SIDE, add_picture, f, err));
    }
    return DK_OK;
}

/* Least squares over 32 pictures of 16 x 16 latent pixels, as many as 1.3 frames of 832 x 480
   have: 0.07 s with the embedded model on two AVX2 threads. */
static dk_status fit_projection(dk_projection *out, dk_nn *nn, const dk_wan_vae *vae,
                                dk_error *err)
{
    const dk_wan_vae_config *c = dk_wan_vae_get_config(vae);
    void *latent;
    fit *f = dk_alloc(sizeof *f);
    f->nn = nn;
    f->channels = c->z_dim;
    f->factor = c->spatial_factor;
    dk_nn_dry_begin(nn);
    dk_tensor on_device = dk_nn_keep(nn, DK_F32, f->channels, SIDE * SIDE);
    dk_status status =
        dk_wan_vae_decode(nn, vae, &on_device, 1, SIDE, SIDE, add_picture, f, err);
    dk_status planned = dk_nn_dry_end(nn, status == DK_OK ? err : NULL);
    status = status != DK_OK ? status : planned;
    if (status == DK_OK) {
        status = dk_try_alloc(&latent, 2 * dk_tensor_bytes(&on_device), "a preview's fit", err);
    }
    if (status == DK_OK) {
        on_device = dk_nn_keep(nn, DK_F32, f->channels, SIDE * SIDE);
        status = decode_all(f, nn, vae, latent, &on_device, err);
        dk_free(latent);
    }
    if (status == DK_OK) {
        solve(f, out);
        out->fitted = true;
    }
    dk_free(f);
    return status;
}

void dk_projection_apply(const dk_projection *projection, int64_t channels, int64_t pixels,
                         const float *latent, float *planes, uint8_t *rgb)
{
    for (int k = 0; k < 3; k++) {
        const float *weight = projection->weight[k];
        float *plane = planes + k * pixels;
        for (int64_t i = 0; i < pixels; i++) {
            plane[i] = weight[channels];
        }
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t i = 0; i < pixels; i++) {
                plane[i] += weight[c] * latent[c * pixels + i];
            }
        }
        for (int64_t i = 0; i < pixels; i++) {
            float value = plane[i] * 255.0f;
            value = value > 0.0f ? value : 0.0f; /* NaN too */
            rgb[3 * i + k] = (uint8_t)(value < 255.0f ? value + 0.5f : 255.0f);
        }
    }
}

static dk_status make_room(dk_job *job, dk_error *err)
{
    dk_preview *p = &job->preview;
    int64_t pixels = job->latent_height * job->latent_width;
    void *memory, *rgb;
    if (p->latent == NULL) {
        size_t floats = (size_t)((2 * job->latent_channels + 3) * pixels);
        DK_TRY(dk_try_alloc(&memory, floats * sizeof(float), "a preview", err));
        p->latent = memory;
        p->velocity = p->latent + job->latent_channels * pixels;
        p->planes = p->velocity + job->latent_channels * pixels;
        DK_TRY(dk_try_alloc(&rgb, (size_t)pixels * 3, "a preview", err));
        p->rgb = rgb;
    }
    return DK_OK;
}

void dk_preview_release(dk_preview *preview)
{
    dk_free(preview->latent);
    dk_free(preview->rgb);
    *preview = (dk_preview){0};
}

/* The middle frame of a tensor [channels][frames][pixels]. */
static void read_frame(const dk_job *job, float *dst, const dk_tensor *src)
{
    int64_t pixels = job->latent_height * job->latent_width;
    for (int64_t c = 0; c < job->latent_channels; c++) {
        int64_t at = (c * job->latent_frames + job->latent_frames / 2) * pixels;
        dk_device_read(job->nn->device, dst + c * pixels, (const float *)src->data + at,
                       (size_t)pixels * sizeof(float));
    }
}

void dk_preview_look(dk_job *job, int i, const dk_tensor *latent, const dk_tensor *velocity)
{
    dk_preview *p = &job->preview;
    int64_t pixels = job->latent_height * job->latent_width;
    float sigma = dk_sampler_sigmas(job->sampler)[i];
    bool last = i + 1 == dk_sampler_steps(job->sampler);
    if (p->rgb == NULL || last || dk_now_ms() - p->told_ms < DK_PREVIEW_INTERVAL_MS) {
        return;
    }
    read_frame(job, p->latent, latent);
    read_frame(job, p->velocity, velocity);
    for (int64_t k = 0; k < job->latent_channels * pixels; k++) {
        p->latent[k] -= sigma * p->velocity[k];
    }
    dk_projection_apply(job->pipeline->projection, job->latent_channels, pixels, p->latent,
                        p->planes, p->rgb);
    p->due = true;
}

void dk_preview_tell(dk_job *job, int i)
{
    dk_preview *p = &job->preview;
    if (p->due) {
        dk_job_emit(job, &(dk_event){.kind = DK_EVENT_PREVIEW,
                                     .stage = dk_stage_denoising.name,
                                     .output = job->output,
                                     .step = i + 1,
                                     .steps = dk_sampler_steps(job->sampler),
                                     .preview = p->rgb,
                                     .preview_width = (int)job->latent_width,
                                     .preview_height = (int)job->latent_height});
        p->due = false;
        p->told_ms = dk_now_ms();
    }
}

static dk_status run(dk_job *job, dk_error *err)
{
    dk_projection *projection = job->pipeline->projection;
    if (!projection->fitted) {
        DK_TRY(fit_projection(projection, job->nn, job->pipeline->vae, err));
    }
    return make_room(job, err);
}

static bool applies(const dk_job *job)
{
    return job->previews;
}

const dk_stage dk_stage_preview_preparation = {
    .name = "preview preparation", .applies = applies, .run = run};
