/* The thread that begins and ends MPI; notes between ranks. */
#include "comm/mpi/life.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"

static const double END_MS = 10e3, END_AFTER_FAILURE_MS = 1e3, TELL_MS = 50;

/* Under the lock. */
static void listen_for_notes(dk_mpi_life *life)
{
    if (MPI_Irecv(&life->heard, sizeof life->heard, MPI_BYTE, MPI_ANY_SOURCE, DK_MPI_TAG,
                  life->control, &life->hears) != MPI_SUCCESS) {
        life->hears = MPI_REQUEST_NULL;
    }
}

static void begin(dk_mpi_life *life)
{
    int given = 0, begun = 0, here = 1;
    MPI_Comm host;
    MPI_Initialized(&begun);
    if (begun) {
        snprintf(life->failure, sizeof life->failure,
                 "MPI has begun in this process before, and can do so once");
        return;
    }
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given) != MPI_SUCCESS ||
        given < MPI_THREAD_SERIALIZED) {
        snprintf(life->failure, sizeof life->failure,
                 "MPI cannot be used by more than one thread (MPI_THREAD_SERIALIZED)");
        return;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &life->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &life->ranks);
    if (MPI_Comm_dup(MPI_COMM_WORLD, &life->data) != MPI_SUCCESS ||
        MPI_Comm_dup(MPI_COMM_WORLD, &life->control) != MPI_SUCCESS) {
        snprintf(life->failure, sizeof life->failure, "MPI_Comm_dup failed");
        return;
    }
    MPI_Comm_set_errhandler(life->data, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(life->control, MPI_ERRORS_RETURN);
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host) ==
        MPI_SUCCESS) {
        MPI_Comm_size(host, &here);
        MPI_Comm_free(&host);
    }
    life->cores_are_short = life->cores_are_short || here >= sysconf(_SC_NPROCESSORS_ONLN);
}

static void set_phase(dk_mpi_life *life, dk_mpi_phase phase)
{
    pthread_mutex_lock(&life->lock);
    if (phase == DK_MPI_RUNS) {
        listen_for_notes(life);
    }
    life->phase = phase;
    pthread_cond_broadcast(&life->changed);
    pthread_mutex_unlock(&life->lock);
}

static void *live(void *context)
{
    dk_mpi_life *life = context;
    begin(life);
    if (life->failure[0] != '\0') {
        set_phase(life, DK_MPI_FAILED);
        return NULL;
    }
    set_phase(life, DK_MPI_RUNS);
    pthread_mutex_lock(&life->lock);
    while (life->phase != DK_MPI_ENDS) {
        pthread_cond_wait(&life->changed, &life->lock);
    }
    if (life->hears != MPI_REQUEST_NULL) {
        MPI_Cancel(&life->hears);
        MPI_Request_free(&life->hears);
    }
    pthread_mutex_unlock(&life->lock);
    MPI_Finalize();
    set_phase(life, DK_MPI_ENDED);
    return NULL;
}

/* Under the lock: until the phase is another than `phase`; false when the time is over. */
static bool wait_while(dk_mpi_life *life, dk_mpi_phase phase, double until_ms)
{
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1e3)};
    until.tv_nsec = (long)((until_ms - (double)until.tv_sec * 1e3) * 1e6);
    while (life->phase == phase) {
        if (pthread_cond_timedwait(&life->changed, &life->lock, &until) != 0) {
            return life->phase != phase;
        }
    }
    return true;
}

static dk_mpi_life *create(bool cores_are_short)
{
    dk_mpi_life *life = dk_alloc(sizeof *life);
    pthread_condattr_t attributes;
    *life = (dk_mpi_life){.cores_are_short = cores_are_short,
                          .hears = MPI_REQUEST_NULL,
                          .gave_up = -1,
                          .next_tag = DK_MPI_TAG + 1};
    for (int i = 0; i < DK_COMM_MOST_RANKS; i++) {
        life->tells[i] = MPI_REQUEST_NULL;
    }
    pthread_mutex_init(&life->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&life->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return life;
}

static void destroy(dk_mpi_life *life)
{
    pthread_join(life->thread, NULL);
    pthread_cond_destroy(&life->changed);
    pthread_mutex_destroy(&life->lock);
    dk_free(life);
}

static dk_status check_world(const dk_mpi_life *life, const dk_transport_options *options,
                             dk_error *err)
{
    if (life->ranks > DK_COMM_MOST_RANKS) {
        return dk_fail(err, DK_INVALID, "mpi: %d ranks, accepted are up to %d", life->ranks,
                       DK_COMM_MOST_RANKS);
    }
    if (life->ranks == 1 && options->ranks > 1) {
        return dk_fail(err, DK_INVALID,
                       "mpi: this process is one rank alone, %d were asked for: mpirun -n %d "
                       "starts them (or srun, with --mpi=pmix)",
                       options->ranks, options->ranks);
    }
    return DK_OK;
}

dk_status dk_mpi_life_begin(dk_mpi_life **out, const dk_transport_options *options,
                            dk_error *err)
{
    dk_mpi_life *life = create(options->cores_are_short);
    if (pthread_create(&life->thread, NULL, live, life) != 0) {
        dk_free(life);
        return dk_fail(err, DK_MEMORY, "mpi: its thread cannot be started");
    }
    pthread_mutex_lock(&life->lock);
    bool begun = wait_while(life, DK_MPI_BEGINS, options->deadline_ms);
    dk_mpi_phase phase = life->phase;
    pthread_mutex_unlock(&life->lock);
    if (!begun) {
        pthread_detach(life->thread); /* it cannot be stopped: life stays */
        return dk_fail(err, DK_TIMEOUT,
                       "mpi: not all of the ranks that mpirun has started have come in time");
    }
    if (phase == DK_MPI_FAILED) {
        dk_status status = dk_fail(err, DK_UNSUPPORTED, "mpi: %s", life->failure);
        destroy(life);
        return status;
    }
    dk_status status = check_world(life, options, err);
    if (status != DK_OK) {
        dk_mpi_life_end(life);
        return status;
    }
    *out = life;
    return DK_OK;
}

void dk_mpi_life_hear(dk_mpi_life *life)
{
    int done = 1;
    MPI_Status status;
    while (!life->spoiled && life->hears != MPI_REQUEST_NULL &&
           MPI_Test(&life->hears, &done, &status) == MPI_SUCCESS && done) {
        int from = status.MPI_SOURCE;
        if (from >= 0 && from < life->ranks && life->heard.leaves) {
            life->left_ms[from] = dk_now_ms();
        } else if (from >= 0 && from < life->ranks && life->gave_up < 0) {
            life->heard.why[DK_MPI_WHY_BYTES - 1] = '\0';
            memcpy(life->why, life->heard.why, sizeof life->why);
            life->gave_up = from;
        }
        listen_for_notes(life);
    }
}

/* Small messages are gone at once, or need a push. */
static bool all_told(dk_mpi_life *life)
{
    int done = 0;
    pthread_mutex_lock(&life->lock);
    if (!life->spoiled) {
        MPI_Testall(life->ranks, life->tells, &done, MPI_STATUSES_IGNORE);
    }
    bool over = done || life->spoiled;
    pthread_mutex_unlock(&life->lock);
    return over;
}

void dk_mpi_life_tell(dk_mpi_life *life, bool leaves, const char *why)
{
    pthread_mutex_lock(&life->lock);
    bool tells = !life->has_told && !life->spoiled;
    life->has_told = true;
    if (tells) {
        life->told.leaves = leaves;
        snprintf(life->told.why, sizeof life->told.why, "%s", why);
    }
    for (int rank = 0; tells && rank < life->ranks; rank++) {
        if (rank != life->rank &&
            MPI_Isend(&life->told, sizeof life->told, MPI_BYTE, rank, DK_MPI_TAG, life->control,
                      &life->tells[rank]) != MPI_SUCCESS) {
            life->tells[rank] = MPI_REQUEST_NULL;
        }
    }
    if (!leaves && life->gave_up < 0) {
        life->gave_up = life->rank;
        snprintf(life->why, sizeof life->why, "%s", why);
    }
    pthread_mutex_unlock(&life->lock);
    double until_ms = dk_now_ms() + TELL_MS;
    while (tells && !all_told(life) && dk_now_ms() < until_ms) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

void dk_mpi_life_end(dk_mpi_life *life)
{
    dk_mpi_life_tell(life, true, "");
    pthread_mutex_lock(&life->lock);
    bool well = !life->failed && life->gave_up < 0;
    bool ended = false;
    if (!life->spoiled) {
        life->phase = DK_MPI_ENDS;
        pthread_cond_broadcast(&life->changed);
        ended =
            wait_while(life, DK_MPI_ENDS, dk_now_ms() + (well ? END_MS : END_AFTER_FAILURE_MS));
    }
    pthread_mutex_unlock(&life->lock);
    if (ended) {
        destroy(life);
    } else {
        dk_process_skip_ends(); /* MPI's end would take from the thread what it works on */
        pthread_detach(life->thread);
    }
}
