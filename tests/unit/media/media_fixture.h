/* What the tests of media files share: a temporary folder, frames to write, and libav as an
   independent reader of videos. */
#ifndef DK_TESTS_MEDIA_FIXTURE_H
#define DK_TESTS_MEDIA_FIXTURE_H

#include "test.h"

#include "media/media.h"

/* cmocka setup and teardown: *state is the folder's path (char *). */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* folder/name; owned (dk_free). */
char *fixture_path(void **state, const char *name);
int fixture_file_count(void **state);

/* Smooth colours that move with the frame, and a hard-edged square. frames->rgb is owned. */
void fixture_frames(dk_frames *frames, int count, int height, int width);
void fixture_frames_release(dk_frames *frames);

/* Peak signal-to-noise ratio in dB; 100 when equal. */
double fixture_psnr(const uint8_t *a, const uint8_t *b, size_t bytes);

/* A video as libav reads it. */
typedef struct clip {
    int count, height, width;
    double fps;
    char *comment; /* owned, or NULL */
    uint8_t *rgb;  /* [count][height][width][3], owned */
} clip;

void clip_read(clip *out, const char *path);
void clip_release(clip *c);

#endif
