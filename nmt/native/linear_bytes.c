/* A linear layer whose factors are int8, and its gradients, for cores with AVX-512's VNNI; `linear.c` calls them.
 *
 * All three products are of bytes (Xi et al. 2024, "Jetfire", have scales for blocks of both axes; here they are for
 * groups along the axis that is summed over, `bytes.h`). Weights, gradients and sums stay float32.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include "bytes.h"
#include "linear.h"

/* A chunk as bytes with its scales and a row, or a block of the gradient of y, as it is and as bytes. */
int64_t nmt_bytes_room(int64_t inputs, int64_t outputs) {
    int64_t widest = whole(inputs > outputs ? inputs : outputs, PANEL) + 64;
    int64_t chunk = CHUNK * (widest / 4 + 2 * (widest / GROUP + 1)) + widest;
    int64_t block = (GROUP + GROUP / 4 + 1) * BLOCK;
    return (chunk > block ? chunk : block) + 64;
}

static float *room_of(const nmt_linear *l, int64_t worker) {
    return l->room + worker * nmt_bytes_room(l->inputs, l->outputs);
}

static int64_t strips_of(int64_t columns) { return (columns + STRIP - 1) / STRIP; }

static WIDE void pack_for_y(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    grouping g = groups_of(l->inputs);
    rows_as_panel(l->weight, task * PANEL, l->outputs, g, l->panels + task * panels_of_bytes(PANEL, g));
}

/* Task by task a strip of columns, then the next group. */
static WIDE void pack_for_x_grad(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    int64_t strips = strips_of(l->inputs);
    columns_as_panels(l->weight, l->inputs, task % strips * STRIP, groups_of(l->outputs), task / strips, l->panels, 0);
}

static WIDE void pack_for_weight_grad(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    int64_t strips = strips_of(l->inputs);
    columns_as_panels(l->x, l->inputs, task % strips * STRIP, groups_of(l->rows), task / strips, l->x_panels,
                      0);
}

static WIDE void forward(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    grouping g = groups_of(l->inputs);
    float *scales = room_of(l, worker), *y = l->y + first * l->outputs;
    uint8_t *bytes = (uint8_t *)(scales + CHUNK * g.groups);
    for (int64_t n = 0; n < count; n++)
        row_as_factor(l->x + (first + n) * l->inputs, g, bytes + n * 4 * g.groups * g.words, scales + n * g.groups,
                      0);
    multiply_rows(bytes, scales, g, l->panels, y, l->outputs, count, l->outputs);
    if (l->bias || l->relu)
        for (int64_t n = 0; n < count; n++) finish_row(l, y + n * l->outputs);
}

static WIDE void backward_to_x(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    grouping g = groups_of(l->outputs);
    float *scales = room_of(l, worker), *row = scales + CHUNK * g.groups;
    uint8_t *bytes = (uint8_t *)(row + whole(l->outputs, 16));
    for (int64_t n = 0; n < count; n++)
        row_as_factor(grad_of_row(l, first + n, 0, l->outputs, row), g, bytes + n * 4 * g.groups * g.words,
                      scales + n * g.groups, 0);
    multiply_rows(bytes, scales, g, l->panels, l->x_grad + first * l->inputs, l->inputs, count, l->inputs);
}

static WIDE void backward_to_weight(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    int64_t inputs = l->inputs, outputs = l->outputs, at = task * block_of(l);
    int64_t count = outputs - at < block_of(l) ? outputs - at : block_of(l);
    grouping g = groups_of(l->rows);
    float *scales = room_of(l, worker), *grads = scales + BLOCK, *words = grads + GROUP * BLOCK, sums[BLOCK] = {0};
    for (int64_t k = 0; k < g.groups; k++) {
        int64_t first = k * 4 * g.words, left = l->rows - first, some = left < 4 * g.words ? left : 4 * g.words;
        for (int64_t n = 0; n < some; n++) {
            float *to = grads + n * BLOCK;
            const float *from = grad_of_row(l, first + n, at, count, to);
            if (from != to) memcpy(to, from, count * sizeof(float));
            for (int64_t o = 0; o < count; o++) sums[o] += to[o];
        }
        if (!l->weight_grad) continue;
        columns_as_factor(grads, BLOCK, some, count, g.words, words, scales, 0);
        product_of_group((const uint8_t *)words, 4, 4 * BLOCK, scales, 1, l->x_panels + k * (HEAD + g.words * PANEL), g,
                         l->weight_grad + at * inputs, inputs, count, inputs, !k);
    }
    if (l->bias_grad) memcpy(l->bias_grad + at, sums, count * sizeof(float));
}

void nmt_bytes_forward(const nmt_linear *l) {
    nmt_run(pack_for_y, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
    nmt_run(forward, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

void nmt_bytes_backward(const nmt_linear *l) {
    if (l->x_grad) {
        nmt_run(pack_for_x_grad, (void *)l, strips_of(l->inputs) * groups_of(l->outputs).groups, l->threads);
        nmt_run(backward_to_x, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
    }
    if (l->weight_grad)
        nmt_run(pack_for_weight_grad, (void *)l, strips_of(l->inputs) * groups_of(l->rows).groups, l->threads);
    if (l->weight_grad || l->bias_grad)
        nmt_run(backward_to_weight, (void *)l, (l->outputs + block_of(l) - 1) / block_of(l), l->threads);
}

#endif
