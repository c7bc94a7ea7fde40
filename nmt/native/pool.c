#include "pool.h"

typedef struct {
    nmt_task function;
    void *shared;
    int64_t count, threads;
    int in_turn;
} loop;

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <signal.h>

#define MOST_THREADS 256
#define SPINS 2000 /* looks at the flag before a worker sleeps: some microseconds, the gap between two loops */

static pthread_mutex_t one_loop = PTHREAD_MUTEX_INITIALIZER, state = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t begun = PTHREAD_COND_INITIALIZER, ended = PTHREAD_COND_INITIALIZER;
static int64_t workers; /* that were started */
static volatile int64_t number; /* of the loop */
static volatile int64_t busy;   /* workers that have not finished it */
static loop now;
static int64_t next; /* task, where they are not done in turn */

static void work(int64_t worker, loop l) {
    if (l.in_turn)
        for (int64_t task = worker; task < l.count; task += l.threads) l.function(l.shared, task, worker);
    else
        for (int64_t task; (task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < l.count;)
            l.function(l.shared, task, worker);
}

static void *wait_for_loops(void *argument) {
    int64_t worker = (int64_t)(intptr_t)argument, seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && __atomic_load_n(&number, __ATOMIC_ACQUIRE) == seen; i++)
#if defined(__x86_64__)
            __builtin_ia32_pause();
#else
            ;
#endif
        pthread_mutex_lock(&state);
        while (number == seen) pthread_cond_wait(&begun, &state);
        seen = number;
        loop mine = now;
        pthread_mutex_unlock(&state);
        if (worker >= mine.threads) continue;
        work(worker, mine);
        pthread_mutex_lock(&state);
        if (--busy == 0) pthread_cond_signal(&ended);
        pthread_mutex_unlock(&state);
    }
    return 0;
}

/* A forked process has the memory of the threads and not the threads. */
static void forget(void) {
    pthread_mutex_init(&one_loop, 0);
    pthread_mutex_init(&state, 0);
    pthread_cond_init(&begun, 0);
    pthread_cond_init(&ended, 0);
    workers = number = busy = 0;
}

static void run(loop l) {
    static int watches;
    if (l.threads > l.count) l.threads = l.count;
    if (l.threads > MOST_THREADS) l.threads = MOST_THREADS;
    if (l.threads < 2) { /* of one thread the loop is its own: others may run at the same time */
        for (int64_t task = 0; task < l.count; task++) l.function(l.shared, task, 0);
        return;
    }
    pthread_mutex_lock(&one_loop);
    if (!watches) watches = !pthread_atfork(0, 0, forget);
    pthread_mutex_lock(&state);
    sigset_t all, before; /* signals are for the threads of Python */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (workers < l.threads - 1) {
        pthread_t thread;
        pthread_attr_t detached;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        int failed = pthread_create(&thread, &detached, wait_for_loops, (void *)(intptr_t)(workers + 1));
        pthread_attr_destroy(&detached);
        if (failed) break;
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
    if (workers < l.threads - 1) { /* the system gives no more: this thread does their share */
        pthread_mutex_unlock(&state);
        l.in_turn = 1;
        for (int64_t worker = 0; worker < l.threads; worker++) work(worker, l);
        pthread_mutex_unlock(&one_loop);
        return;
    }
    now = l;
    next = 0;
    busy = l.threads - 1;
    __atomic_store_n(&number, number + 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&begun);
    pthread_mutex_unlock(&state);
    work(0, l);
    pthread_mutex_lock(&state);
    while (busy) pthread_cond_wait(&ended, &state);
    pthread_mutex_unlock(&state);
    pthread_mutex_unlock(&one_loop);
}

#else

static void run(loop l) {
    if (l.threads > l.count) l.threads = l.count;
    for (int64_t worker = 0; worker < l.threads; worker++)
        for (int64_t task = worker; task < l.count; task += l.threads) l.function(l.shared, task, worker);
}

#endif

void nmt_run(nmt_task function, void *shared, int64_t count, int64_t threads) {
    run((loop){function, shared, count, threads, 0});
}

void nmt_run_in_turn(nmt_task function, void *shared, int64_t count, int64_t threads) {
    run((loop){function, shared, count, threads, 1});
}
