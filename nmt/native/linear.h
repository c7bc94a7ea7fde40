/* What the two files of linear layers share: `linear.c` (float32, bfloat16) and `linear_bytes.c` (int8). */
#ifndef NMT_LINEAR_H
#define NMT_LINEAR_H

#include "words.h"

#define CHUNK 192 /* rows of a task: whole tiles, an even number */
#define BLOCK 96  /* outputs of a task, at most: whole tiles */

/* `nmt/linear.py: _Linear` is the same. */
typedef struct {
    const float *x, *weight, *bias; /* (N, I), (O, I), (O) or NULL */
    int64_t rows, inputs, outputs;
    int64_t kind; /* of factors */
    int64_t relu; /* y = max(0, x W' + b) */
    int64_t threads;
    float *panels;   /* room: W laid out, `nmt_linear_panels` of I for O columns; for gradients of O for I */
    float *x_panels; /* room for gradients: x laid out, of N for I columns */
    float *room;     /* of each thread, `nmt_linear_room` bytes */
    float *y;        /* (N, O) */
    const float *y_grad;
    float *x_grad;                  /* (N, I), or NULL */
    float *weight_grad, *bias_grad; /* (O, I) and (O), or NULL */
} nmt_linear;

/* A row of the product, finished: with bias, and with what is below 0 cut off; what is no number stays none. */
WIDE_INLINE void finish_row(const nmt_linear *l, float *y) {
    if (l->bias)
        for (int64_t o = 0; o < l->outputs; o++) y[o] += l->bias[o];
    if (l->relu)
        for (int64_t o = 0; o < l->outputs; o += 16) {
            __mmask16 mask = l->outputs - o >= 16 ? 0xffff : (__mmask16)((1 << (l->outputs - o)) - 1);
            __m512 sum = _mm512_maskz_loadu_ps(mask, y + o);
            _mm512_mask_storeu_ps(y + o, mask, at_least(0.0f, sum));
        }
}

/* Outputs at .. at + count of row n of the gradient of y; with ReLU in `room`, 0 where y was cut off. */
WIDE_INLINE const float *grad_of_row(const nmt_linear *l, int64_t n, int64_t at, int64_t count, float *room) {
    const float *grad = l->y_grad + n * l->outputs + at, *y = l->y + n * l->outputs + at;
    if (!l->relu) return grad;
    for (int64_t o = 0; o < count; o += 16) {
        __mmask16 mask = count - o >= 16 ? 0xffff : (__mmask16)((1 << (count - o)) - 1);
        __mmask16 passed = _mm512_cmp_ps_mask(_mm512_maskz_loadu_ps(mask, y + o), _mm512_setzero_ps(), _CMP_NLE_UQ);
        _mm512_mask_storeu_ps(room + o, mask, _mm512_maskz_loadu_ps(mask & passed, grad + o));
    }
    return room;
}

/* Outputs of a task of the gradient by the matrix: as many for each thread. */
static inline int64_t block_of(const nmt_linear *l) {
    int64_t tasks = l->threads * ((l->outputs + BLOCK * l->threads - 1) / (BLOCK * l->threads));
    return whole((l->outputs + tasks - 1) / tasks, TILE);
}

/* Of `linear_bytes.c`. */
int64_t nmt_bytes_room(int64_t inputs, int64_t outputs);
void nmt_bytes_forward(const nmt_linear *l);
void nmt_bytes_backward(const nmt_linear *l);

#endif
