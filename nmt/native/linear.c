/* A linear layer, with ReLU or without, and its gradients, for cores with AVX-512; `nmt/linear.py` calls them.
 *
 * Of rows that are multiplied each task takes a chunk, of the gradient by the matrix a block of outputs, for which it
 * goes through all rows: nothing is added up between tasks, and no number depends on how many threads there are.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include "bytes.h"
#include "linear.h"

#define AT_ONCE 192 /* words of the sum over rows: 32 columns of them are 24 kB, which stay in the first cache */

static int64_t words_of(const nmt_linear *l, int64_t count) { return l->kind == HALVES ? (count + 1) / 2 : count; }

/* Words that a thread needs: a chunk as words, rows without what ReLU has stopped, a block of the gradient of y. */
static int64_t words_of_room(int64_t inputs, int64_t outputs) {
    int64_t widest = whole(inputs > outputs ? inputs : outputs, PANEL) + 16;
    return CHUNK * widest + 2 * widest + AT_ONCE * BLOCK + 64;
}

/* Of numbers of 32 bits: what a thread needs. */
int64_t nmt_linear_room(int64_t kind, int64_t inputs, int64_t outputs) {
    return kind == BYTES ? nmt_bytes_room(inputs) : words_of_room(inputs, outputs);
}

int64_t nmt_linear_grads(int64_t kind, int64_t rows, int64_t outputs) {
    return kind == BYTES ? nmt_bytes_grads(rows, outputs) : 0;
}

/* And what a matrix needs that is laid out, for `columns` sums of `depth` products. */
int64_t nmt_linear_panels(int64_t kind, int64_t depth, int64_t columns) {
    if (kind == BYTES) return panels_of_bytes(columns, groups_of(depth));
    return whole(columns, PANEL) * (kind == HALVES ? (depth + 1) / 2 : depth);
}

static WIDE void pack_for_y(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    int64_t at = task * PANEL;
    pack_panel(l->weight, at, l->outputs, l->inputs, l->kind == HALVES, l->panels + at * words_of(l, l->inputs));
}

static WIDE void pack_for_x_grad(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    pack_rows(l->weight, task * PANEL, l->outputs, l->inputs, l->kind == HALVES, l->panels);
}

static WIDE void pack_for_weight_grad(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    pack_rows(l->x, task * PANEL, l->rows, l->inputs, l->kind == HALVES, l->x_panels);
}

/* A row of the product, finished: with bias, and with what is below 0 cut off; what is no number stays none. */
static WIDE void finish_row(const nmt_linear *l, float *y) {
    if (l->bias)
        for (int64_t o = 0; o < l->outputs; o++) y[o] += l->bias[o];
    if (l->relu)
        for (int64_t o = 0; o < l->outputs; o += 16) {
            __mmask16 mask = l->outputs - o >= 16 ? 0xffff : (__mmask16)((1 << (l->outputs - o)) - 1);
            __m512 sum = _mm512_maskz_loadu_ps(mask, y + o);
            _mm512_mask_storeu_ps(y + o, mask, at_least(0.0f, sum));
        }
}

static WIDE void forward(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK, inputs = l->inputs;
    int64_t words = words_of(l, inputs);
    const float *x = l->x + first * inputs;
    float *y = l->y + first * l->outputs;
    if (l->kind == HALVES) {
        int64_t step = whole(inputs, PANEL) / 2 + 16;
        float *along = l->room + worker * words_of_room(inputs, l->outputs);
        for (int64_t n = 0; n < count; n++) pair_neighbours(x + n * inputs, inputs, along + n * step);
        product_of_pairs(along, step, 1, l->panels, PANEL, words * PANEL, words, y, l->outputs, count, l->outputs, 1);
    } else
        product_of_words(x, inputs, 1, l->panels, PANEL, words * PANEL, words, y, l->outputs, count, l->outputs, 1);
    if (l->bias || l->relu)
        for (int64_t n = 0; n < count; n++) finish_row(l, y + n * l->outputs);
}

static WIDE void backward_to_x(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    int64_t inputs = l->inputs, outputs = l->outputs, words = words_of(l, outputs);
    float *x_grad = l->x_grad + first * inputs, *room = l->room + worker * words_of_room(inputs, outputs);
    if (l->kind == HALVES) {
        int64_t step = whole(outputs, PANEL) / 2 + 16;
        float *row = room + CHUNK * (whole(outputs, PANEL) + 16);
        for (int64_t n = 0; n < count; n++)
            pair_neighbours(grad_of_row(l, first + n, 0, outputs, row), outputs, room + n * step);
        product_of_pairs(room, step, 1, l->panels, PANEL, words * PANEL, words, x_grad, inputs, count, inputs, 1);
    } else {
        const float *grad = l->y_grad + first * outputs;
        int64_t step = outputs;
        if (l->relu) {
            step = whole(outputs, PANEL) + 16;
            for (int64_t n = 0; n < count; n++) grad_of_row(l, first + n, 0, outputs, room + n * step);
            grad = room;
        }
        product_of_words(grad, step, 1, l->panels, PANEL, words * PANEL, words, x_grad, inputs, count, inputs, 1);
    }
}

/* Outputs of a task of the gradient by the matrix: as many for each thread. */
static int64_t block_of(const nmt_linear *l) {
    int64_t tasks = l->threads * ((l->outputs + BLOCK * l->threads - 1) / (BLOCK * l->threads));
    return whole((l->outputs + tasks - 1) / tasks, TILE);
}

static WIDE void backward_to_weight(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t inputs = l->inputs, outputs = l->outputs, at = task * block_of(l), rows = l->rows;
    int64_t count = outputs - at < block_of(l) ? outputs - at : block_of(l), words = words_of(l, rows);
    float *room = l->room + worker * words_of_room(inputs, outputs), *across = room + 2 * BLOCK;
    float sums[BLOCK] = {0};
    for (int64_t k = 0; k < words; k += AT_ONCE) {
        int64_t some = words - k < AT_ONCE ? words - k : AT_ONCE;
        for (int64_t i = k; i < k + some; i++) {
            float *to = across + (i - k) * BLOCK;
            if (l->kind == HALVES) {
                const float *even = grad_of_row(l, 2 * i, at, count, room), *odd = NULL;
                if (2 * i + 1 < rows) odd = grad_of_row(l, 2 * i + 1, at, count, room + BLOCK);
                pair_rows(even, odd, count, to);
                for (int64_t o = 0; o < count; o++) sums[o] += odd ? even[o] + odd[o] : even[o];
            } else {
                memcpy(to, grad_of_row(l, i, at, count, room), count * sizeof(float));
                for (int64_t o = 0; o < count; o++) sums[o] += to[o];
            }
        }
        if (!l->weight_grad) continue;
        float *to = l->weight_grad + at * inputs;
        if (l->kind == HALVES)
            product_of_pairs(across, 1, BLOCK, l->x_panels + k * PANEL, PANEL, words * PANEL, some, to, inputs, count,
                             inputs, !k);
        else
            product_of_words(across, 1, BLOCK, l->x_panels + k * PANEL, PANEL, words * PANEL, some, to, inputs, count,
                             inputs, !k);
    }
    if (l->bias_grad) memcpy(l->bias_grad + at, sums, count * sizeof(float));
}

/* y = x W' + b, with ReLU cut off below 0. */
void nmt_linear_forward(const nmt_linear *l) {
    if (l->kind == BYTES) {
        nmt_bytes_forward(l);
        return;
    }
    nmt_run(pack_for_y, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
    nmt_run(forward, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

/* Gradients by x, W and b from that by y. */
void nmt_linear_backward(const nmt_linear *l) {
    if (l->kind == BYTES) {
        nmt_bytes_backward(l);
        return;
    }
    if (l->x_grad) {
        nmt_run(pack_for_x_grad, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
        nmt_run(backward_to_x, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
    }
    if (l->weight_grad) nmt_run(pack_for_weight_grad, (void *)l, (l->rows + PANEL - 1) / PANEL, l->threads);
    if (l->weight_grad || l->bias_grad)
        nmt_run(backward_to_weight, (void *)l, (l->outputs + block_of(l) - 1) / block_of(l), l->threads);
}

#endif
