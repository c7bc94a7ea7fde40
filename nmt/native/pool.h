/* Threads that wait for work: a loop over tasks on several cores, the caller's thread among them. */
#ifndef NMT_POOL_H
#define NMT_POOL_H

#include <stdint.h>

/* Does one of the tasks; `worker` counts from 0, below the number of threads. */
typedef void (*nmt_task)(void *shared, int64_t task, int64_t worker);

/* Does tasks 0 .. count - 1, each by a worker that is free, and returns when all are done. One loop runs at a time:
 * others wait, and a fork begins anew. */
void nmt_run(nmt_task function, void *shared, int64_t count, int64_t threads);

/* The same with task t by worker t % threads, so that what a worker adds up does not depend on chance. */
void nmt_run_in_turn(nmt_task function, void *shared, int64_t count, int64_t threads);

#endif
