/* A linear layer and its gradients, for cores with AVX-512; `nmt/linear.py` calls them. */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include "words.h"

#define CHUNK 192 /* rows of a task: whole tiles, an even number */

/* `nmt/linear.py: _Linear` is the same. */
typedef struct {
    const float *x, *weight, *bias; /* (N, I), (O, I), (O) or NULL */
    int64_t rows, inputs, outputs;
    int64_t pairs; /* products of bfloat16 */
    int64_t threads;
    float *panels;     /* room: (O / 32, I in words, 32); for gradients NULL */
    float *by_outputs; /* room: (O in words, I padded to 32), for gradients; NULL: `weight` is as it should be */
    float *room;       /* of each thread, `nmt_linear_room` bytes */
    float *y;          /* (N, O) */
    const float *y_grad;
    float *x_grad;                    /* (N, I), or NULL */
    float *weight_grads, *bias_grads; /* of each thread, (O, I) and (O), zeros; or NULL */
} nmt_linear;

/* Bytes that a thread needs: rows of x and of the gradient of y as words, along them and across. */
int64_t nmt_linear_room(int64_t inputs, int64_t outputs) {
    return 4 * CHUNK * (2 * (whole(inputs, PANEL) + 16) + 2 * (whole(outputs, PANEL) + 16)) + 256;
}

static WIDE void pack_for_y(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    int64_t words = l->pairs ? (l->inputs + 1) / 2 : l->inputs, at = task * PANEL;
    pack_panel(l->weight, at, l->outputs, l->inputs, (int)l->pairs, l->panels + at * words);
}

static WIDE void pack_for_x_grad(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    pack_by_outputs(l->weight, task * PANEL, l->outputs, l->inputs, (int)l->pairs, l->by_outputs);
}

static WIDE void forward(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK, inputs = l->inputs;
    const float *x = l->x + first * inputs;
    float *y = l->y + first * l->outputs;
    if (l->pairs) {
        int64_t words = (inputs + 1) / 2, step = whole(inputs, PANEL) + 16;
        float *along = l->room + worker * (nmt_linear_room(inputs, l->outputs) / 4);
        for (int64_t n = 0; n < count; n++) pair_neighbours(x + n * inputs, inputs, along + n * step);
        product_of_pairs(along, step, 1, l->panels, PANEL, words * PANEL, words, y, l->outputs, count, l->outputs, 1);
    } else
        product_of_words(x, inputs, 1, l->panels, PANEL, inputs * PANEL, inputs, y, l->outputs, count, l->outputs, 1);
    if (l->bias)
        for (int64_t n = 0; n < count; n++)
            for (int64_t o = 0; o < l->outputs; o++) y[n * l->outputs + o] += l->bias[o];
}

static WIDE void backward(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    int64_t inputs = l->inputs, outputs = l->outputs, x_step = whole(inputs, PANEL) + 16;
    int64_t y_step = whole(outputs, PANEL) + 16, halves = (count + 1) / 2;
    const float *x = l->x + first * inputs, *y_grad = l->y_grad + first * outputs;
    float *along = l->room + worker * (nmt_linear_room(inputs, outputs) / 4), *across = along + CHUNK * y_step;
    float *x_across = across + CHUNK * y_step;
    if (l->x_grad) {
        float *x_grad = l->x_grad + first * inputs;
        if (l->pairs) {
            for (int64_t n = 0; n < count; n++) pair_neighbours(y_grad + n * outputs, outputs, along + n * y_step);
            product_of_pairs(along, y_step, 1, l->by_outputs, x_step - 16, PANEL, (outputs + 1) / 2, x_grad, inputs,
                             count, inputs, 1);
        } else
            product_of_words(y_grad, outputs, 1, l->by_outputs ? l->by_outputs : l->weight,
                             l->by_outputs ? x_step - 16 : inputs, PANEL, outputs, x_grad, inputs, count, inputs, 1);
    }
    if (l->weight_grads) {
        float *weight_grad = l->weight_grads + worker * outputs * inputs;
        if (l->pairs) {
            for (int64_t n = 0; n < count; n += 2) {
                int last = n + 1 == count;
                pair_rows(y_grad + n * outputs, last ? 0 : y_grad + (n + 1) * outputs, outputs, across + n / 2 * y_step);
                pair_rows(x + n * inputs, last ? 0 : x + (n + 1) * inputs, inputs, x_across + n / 2 * x_step);
            }
            product_of_pairs(across, 1, y_step, x_across, x_step, PANEL, halves, weight_grad, inputs, outputs, inputs, 0);
        } else {
            const float *b = x;
            int64_t step = inputs;
            if (inputs % PANEL) { /* read to whole panels */
                for (int64_t n = 0; n < count; n++)
                    memcpy(x_across + n * x_step, x + n * inputs, inputs * sizeof(float));
                b = x_across;
                step = x_step;
            }
            product_of_words(y_grad, 1, outputs, b, step, PANEL, count, weight_grad, inputs, outputs, inputs, 0);
        }
    }
    if (l->bias_grads) {
        float *sums = l->bias_grads + worker * outputs;
        for (int64_t n = 0; n < count; n++)
            for (int64_t o = 0; o < outputs; o++) sums[o] += y_grad[n * outputs + o];
    }
}

/* y = x W' + b. */
void nmt_linear_forward(const nmt_linear *l) {
    nmt_run(pack_for_y, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
    nmt_run(forward, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

/* Gradients by x, W and b from that by y. */
void nmt_linear_backward(const nmt_linear *l) {
    if (l->by_outputs && l->x_grad) nmt_run(pack_for_x_grad, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
    nmt_run(backward, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

#endif
