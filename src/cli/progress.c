/* The progress bar and its plain form. */
#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/string.h"

enum { DEFAULT_COLUMNS = 80, MIN_BAR = 8, MAX_BAR = 40, PLAIN_PAUSE_MS = 5000 };

void dk_progress_init(dk_progress *progress, dk_log_level level)
{
    const char *terminal = getenv("TERM");
    *progress = (dk_progress){.level = level};
    progress->terminal = isatty(STDERR_FILENO) != 0 && terminal != NULL &&
                         terminal[0] != '\0' && strcmp(terminal, "dumb") != 0;
}

/* The line goes, the cursor stands at its start. */
static void clear(dk_progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        p->drawn = false;
    }
}

void dk_progress_end(dk_progress *progress)
{
    clear(progress);
}

static int columns(void)
{
    struct winsize size = {0};
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : DEFAULT_COLUMNS;
}

/* "label [=====>     ] tail" in one write, cut at the terminal's width. */
static void draw(dk_progress *p, const char *label, double share, const char *tail)
{
    dk_string line = DK_STRING_EMPTY;
    int width = columns() - 1;
    int bar = width - (int)strlen(p->prefix) - (int)strlen(label) - (int)strlen(tail) - 4;
    bar = bar > MAX_BAR ? MAX_BAR : bar;
    dk_string_printf(&line, "%s%s", p->prefix, label);
    if (share >= 0 && bar >= MIN_BAR) {
        int filled = (int)(share * bar + 0.5);
        dk_string_puts(&line, " [");
        for (int i = 0; i < bar; i++) {
            dk_string_putc(&line, i < filled ? '=' : i == filled ? '>' : ' ');
        }
        dk_string_putc(&line, ']');
    }
    dk_string_printf(&line, " %s", tail);
    int shown = (int)line.length < width ? (int)line.length : width;
    fprintf(stderr, "\r%.*s\033[K", shown, line.data);
    fflush(stderr);
    p->drawn = true;
    dk_string_release(&line);
}

static void print_line(dk_progress *p, const char *line)
{
    clear(p);
    fprintf(stderr, "%s%s\n", p->prefix, line);
}

static void tell_step(dk_progress *p, const dk_event *event)
{
    char label[64], tail[96];
    snprintf(label, sizeof label, "%s %d/%d", event->stage, event->step, event->steps);
    snprintf(tail, sizeof tail, "%.0f ms/step, %.1f s left", event->ms, event->eta_ms / 1000);
    if (p->terminal) {
        draw(p, label, (double)event->step / event->steps, tail);
    } else {
        fprintf(stderr, "%sstep %d/%d, %s\n", p->prefix, event->step, event->steps, tail);
    }
}

void dk_progress_event(void *progress, const dk_event *event)
{
    dk_progress *p = progress;
    char line[160];
    if (p->level < DK_LOG_WARNING) {
        return;
    }
    switch (event->kind) {
    case DK_EVENT_WARNING:
        clear(p);
        fprintf(stderr, "darkroom: warning: %s\n", event->message);
        break;
    case DK_EVENT_STEP:
        tell_step(p, event);
        break;
    case DK_EVENT_STAGE_BEGIN:
        if (p->terminal) {
            draw(p, event->stage, -1, "...");
        }
        break;
    case DK_EVENT_STAGE_END:
        if (p->level >= DK_LOG_INFO) {
            snprintf(line, sizeof line, "%s: %.1f ms", event->stage, event->ms);
            print_line(p, line);
        }
        break;
    case DK_EVENT_PREVIEW:
        break;
    }
}

/* "1.2 GB" */
static const char *amount(char text[32], uint64_t bytes)
{
    if (bytes < 1000 * 1000) {
        snprintf(text, 32, "%.1f kB", (double)bytes / 1e3);
    } else if (bytes < 1000ull * 1000 * 1000) {
        snprintf(text, 32, "%.1f MB", (double)bytes / 1e6);
    } else {
        snprintf(text, 32, "%.2f GB", (double)bytes / 1e9);
    }
    return text;
}

void dk_progress_bytes(void *progress, const char *file, uint64_t done, uint64_t total)
{
    dk_progress *p = progress;
    char tail[80], a[32], b[32];
    if (p->level < DK_LOG_WARNING) {
        return;
    }
    snprintf(tail, sizeof tail, "%s of %s", amount(a, done), amount(b, total));
    if (p->terminal) {
        draw(p, file, total > 0 ? (double)done / (double)total : -1, tail);
        return;
    }
    double now = dk_now_ms();
    bool end = done == total;
    bool due = p->told_ms == 0 || now - p->told_ms > PLAIN_PAUSE_MS;
    if (end ? !p->told_end : due) {
        p->told_end = end;
        fprintf(stderr, "%s: %s\n", file, tail);
        p->told_ms = now;
    }
}

void dk_progress_log(void *progress, dk_log_level level, const char *line)
{
    static const char *const names[] = {"error: ", "warning: ", "", ""};
    clear(progress);
    fprintf(stderr, "darkroom: %s%s\n", names[level], line);
}
