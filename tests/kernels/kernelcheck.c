/* The program: walks the dispatch tables level by level, runs the checks of what is new at
   each, says which function a fault or a wrong number belongs to, and how to repeat it. */
#include "kernels/kernelcheck.h"

#include <fnmatch.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "device/device.h"
#include "kernels/cpu_flags.h"
#include "kernels/kernelcheck_run.h"

enum { PASSED = 0, FAILED = 1, USAGE = 2, SKIPPED = 77, SHOWN_FAILURES = 4 };

static const kc_family *const families[] = {
    &kc_decode, &kc_gemm, &kc_gemm_int8, &kc_quantize,    &kc_linear, &kc_attention,
    &kc_merge,  &kc_conv, &kc_norm,      &kc_elementwise, &kc_memory};

static sigjmp_buf after_fault; /* a handler has no argument to carry it */

static void on_fault(int signal)
{
    siglongjmp(after_fault, signal);
}

static void catch_faults(void)
{
    struct sigaction action = {.sa_handler = on_fault};
    const int signals[] = {SIGILL, SIGSEGV, SIGFPE, SIGBUS};
    for (int i = 0; i < KC_COUNT(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

/* FNV-1a: the same numbers for a case however the run was narrowed down. */
static uint64_t mix(uint64_t seed, const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    }
    return hash | 1u;
}

void kc_fail(kc *k, const char *format, ...)
{
    char what[256];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    k->failures++;
    if (k->failures <= SHOWN_FAILURES) {
        printf("FAILED %s at level %s, %s, round %d: %s\n"
               "    repeat: kernelcheck --seed %llu %s %s%s --function='%s'\n",
               k->function, k->level, k->where, k->round, what, (unsigned long long)k->seed,
               k->device != NULL ? "--device" : "--cpu", k->level, k->exact ? " --exact" : "",
               k->function);
    } else if (k->failures == SHOWN_FAILURES + 1) {
        printf("    further failures of %s are not shown\n", k->function);
    }
}

void kc_expect(kc *k, int64_t index, double got, double want, double allowed)
{
    if (got == want || fabs(got - want) <= allowed || (isnan(got) && isnan(want))) {
        return;
    }
    kc_fail(k, "dst[%lld] is %.9g, expected %.9g (off by %.3g, allowed %.3g)", (long long)index,
            got, want, fabs(got - want), allowed);
}

bool kc_looks_at(const kc *k, int64_t index)
{
    return !k->brief || index % 7 == 3;
}

void kc_untouched(kc *k, const void *now, const void *before, size_t from, size_t to)
{
    if (from < to && memcmp((const char *)now + from, (const char *)before + from, to - from)) {
        kc_fail(k, "bytes %zu to %zu of dst were written, expected as before", from, to);
    }
}

void kc_case(kc *k, int rounds, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(k->where, sizeof k->where, format, list);
    va_end(list);
    k->cases++;
    k->rounds = rounds;
    k->round = -1;
}

bool kc_next_round(kc *k)
{
    kc_release_blocks(k, true);
    k->round++;
    k->random = mix(mix(k->seed, k->function), k->where);
    if (k->round < k->rounds) {
        return true;
    }
    free(k->first);
    k->first = NULL;
    return false;
}

int kc_threads(const kc *k)
{
    static const int threads[] = {1, 16, 2, 3};
    return threads[k->round % KC_COUNT(threads)];
}

void kc_result(kc *k, const void *data, size_t bytes)
{
    if (k->round == 0) {
        k->first = realloc(k->first, bytes + 1);
        memcpy(k->first, data, bytes);
        k->first_bytes = bytes;
    } else if (bytes != k->first_bytes || memcmp(k->first, data, bytes) != 0) {
        kc_fail(k, "the result differs from that of round 0, expected the same bits");
    }
}

int kc_plan_rounds(const kc *k)
{
    return k->brief || k->device != NULL ? 2 : 4;
}

/* The signal that stopped the check, or 0. */
static int guarded(kc *k, const kc_test *test)
{
    int signal = sigsetjmp(after_fault, 1);
    if (signal == 0) {
        test->check(k);
    }
    return signal;
}

static bool run_test(kc *k, const kc_test *test)
{
    double start = dk_now_ms();
    k->function = test->name;
    k->cases = k->failures = 0;
    int signal = guarded(k, test);
    if (signal != 0) {
        kc_fail(k, "%s", strsignal(signal));
        kc_release_blocks(k, false);
        free(k->first);
        k->first = NULL;
    }
    printf("%s %s/%s: %d cases, %.2f s\n", k->failures == 0 ? "ok    " : "FAILED", k->function,
           k->level, k->cases, (dk_now_ms() - start) / 1000.0);
    fflush(stdout);
    return k->failures == 0;
}

typedef struct tally {
    int run, failed, lacking;
} tally;

static void set_level(kc *k, int level)
{
    k->flags = dk_cpu_levels[level].flags;
    k->level = dk_cpu_levels[level].name;
    k->lowest = level == 0;
    k->below = level > 0 ? dk_cpu_levels[level - 1].flags : 0;
}

static bool is_wanted(const kc_options *options, const kc_test *test)
{
    return options->function == NULL || fnmatch(options->function, test->name, 0) == 0;
}

static void run_or_list(kc *k, const kc_test *test, const kc_options *options, tally *sum)
{
    sum->run++;
    if (options->list) {
        printf("%s/%s\n", test->name, k->level);
    } else {
        sum->failed += run_test(k, test) ? 0 : 1;
    }
}

static void run_level(kc *k, int level, const kc_options *options, tally *sum)
{
    unsigned cpu = dk_cpu_flags_detect();
    int before = sum->run;
    set_level(k, level);
    if (!options->list && (cpu & k->flags) != k->flags) {
        printf("skipped: this CPU is at level %s and lacks %s\n", dk_cpu_flags_name(cpu),
               k->level);
        sum->lacking++;
        return;
    }
    for (int f = 0; f < KC_COUNT(families); f++) {
        for (int t = 0; t < families[f]->count; t++) {
            const kc_test *test = &families[f]->tests[t];
            if (is_wanted(options, test) && test->is_new(k)) {
                run_or_list(k, test, options, sum);
            }
        }
    }
    if (sum->run == before && !options->list) {
        printf("level %s has no version of its own%s\n", k->level,
               options->function != NULL ? " of these functions" : "");
    }
}

static int run_all(const kc_options *options)
{
    kc state = {.seed = options->seed, .brief = options->brief || KC_SLOW};
    tally sum = {0};
    bool known = options->level == NULL;
    catch_faults();
    for (int level = 0; level < DK_CPU_LEVELS; level++) {
        bool named =
            options->level != NULL && strcmp(options->level, dk_cpu_levels[level].name) == 0;
        if (options->level == NULL || named) {
            run_level(&state, level, options, &sum);
        }
        known = known || named;
    }
    if (!known) {
        fprintf(stderr,
                "--cpu is '%s', accepted are c, avx2, avxvnni, avx512, avx512bf16, amx\n",
                options->level);
        return USAGE;
    }
    if (options->list) {
        return PASSED;
    }
    printf("seed %llu: %d passed, %d failed, %d levels lacking\n",
           (unsigned long long)options->seed, sum.run - sum.failed, sum.failed, sum.lacking);
    return sum.failed > 0 ? FAILED : sum.run == 0 ? SKIPPED : PASSED;
}

/* Faults are not caught: they may come from threads of the device's libraries. */
static int run_device(const kc_options *options)
{
    const dk_device_options wanted = {.name = options->device, .exact = options->exact};
    kc state = {.seed = options->seed,
                .brief = options->brief || KC_SLOW,
                .level = options->device,
                .exact = options->exact};
    tally sum = {0};
    dk_error err;
    if (dk_device_open(&state.device, &wanted, &err) != DK_OK) {
        fprintf(stderr, "kernelcheck: %s\n", err.message);
        return FAILED;
    }
    bool bf16 = strstr(state.device->description, "products in bf16") != NULL;
    state.panels = bf16 ? DK_BF16 : DK_F32;
    printf("%s\n", state.device->description);
    for (int f = 0; f < KC_COUNT(families); f++) {
        for (int t = 0; t < families[f]->count; t++) {
            const kc_test *test = &families[f]->tests[t];
            if (is_wanted(options, test) && test->of_devices) {
                run_or_list(&state, test, options, &sum);
            }
        }
    }
    dk_device_close(&state.device);
    free(state.sent);
    printf("seed %llu: %d passed, %d failed\n", (unsigned long long)options->seed,
           sum.run - sum.failed, sum.failed);
    return sum.failed > 0 ? FAILED : sum.run == 0 ? SKIPPED : PASSED;
}

static int usage(const char *wrong)
{
    fprintf(stderr,
            "kernelcheck: '%s' is not accepted\n"
            "kernelcheck [--seed N] [--cpu LEVEL] [--function=PATTERN] [--brief] [--list]\n"
            "kernelcheck --device NAME [--exact] [--seed N] [--function=PATTERN] [--brief] "
            "[--list]\n"
            "kernelcheck --bench [--cpu LEVEL] [--function=PATTERN] [--shapes FILE] [--json]\n"
            "LEVEL: c, avx2, avxvnni, avx512, avx512bf16, amx (without it, all; --bench: the "
            "best)\n"
            "NAME: a device as darkroom's --device takes it: xpu, xpu:cpu; cpu with --exact\n"
            "exit codes: 0 passed, 1 failed, 2 usage, 77 nothing to run on this CPU\n",
            wrong);
    return USAGE;
}

/* The value of `--name VALUE` or `--name=VALUE`, or NULL. */
static const char *value_of(const char *name, int argc, char **argv, int *i)
{
    size_t length = strlen(name);
    if (strncmp(argv[*i], name, length) != 0) {
        return NULL;
    }
    if (argv[*i][length] == '=') {
        return argv[*i] + length + 1;
    }
    return argv[*i][length] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

int main(int argc, char **argv)
{
    kc_options options = {.seed = (uint64_t)time(NULL)};
    for (int i = 1; i < argc; i++) {
        const char *seed = value_of("--seed", argc, argv, &i), *value = NULL;
        char *end = NULL;
        if (seed != NULL) {
            options.seed = strtoull(seed, &end, 10);
            if (*seed == '\0' || *end != '\0') {
                return usage(seed);
            }
        } else if ((value = value_of("--cpu", argc, argv, &i)) != NULL) {
            options.level = value;
        } else if ((value = value_of("--device", argc, argv, &i)) != NULL) {
            options.device = value;
        } else if ((value = value_of("--function", argc, argv, &i)) != NULL) {
            options.function = value;
        } else if ((value = value_of("--shapes", argc, argv, &i)) != NULL) {
            options.shapes = value;
        } else if (strcmp(argv[i], "--list") == 0) {
            options.list = true;
        } else if (strcmp(argv[i], "--exact") == 0) {
            options.exact = true;
        } else if (strcmp(argv[i], "--brief") == 0) {
            options.brief = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            options.bench = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            options.json = true;
        } else {
            return usage(argv[i]);
        }
    }
    return options.device != NULL ? run_device(&options)
           : options.bench        ? kc_bench(&options)
                                  : run_all(&options);
}
