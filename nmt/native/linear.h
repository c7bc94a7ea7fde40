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
    float *grads;    /* room for gradients: that of y as int8, `nmt_linear_grads` */
    float *room;     /* of each thread, `nmt_linear_room` */
    float *y;        /* (N, O) */
    const float *y_grad;
    float *x_grad;                  /* (N, I), or NULL */
    float *weight_grad, *bias_grad; /* (O, I) and (O), or NULL */
} nmt_linear;

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

/* Of `linear_bytes.c`. */
int64_t nmt_bytes_room(int64_t inputs);
int64_t nmt_bytes_grads(int64_t rows, int64_t outputs);
void nmt_bytes_forward(const nmt_linear *l);
void nmt_bytes_backward(const nmt_linear *l);

#endif
