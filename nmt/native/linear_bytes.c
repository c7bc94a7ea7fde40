/* A linear layer whose factors are int8, and its gradients, for cores with AVX-512's VNNI; `linear.c` calls them.
 *
 * All three products are of bytes (Xi et al. 2024, "Jetfire", have scales for blocks of both axes; here they are for
 * groups along the axis that is summed over, `bytes.h`). Weights, gradients and sums stay float32.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include "bytes.h"
#include "linear.h"

/* The gradient of y as factors of both products that it is part of, for nmt_linear's `grads`. */
typedef struct {
    grouping along, across; /* of sums over outputs, over rows */
    uint8_t *rows;          /* (N, outputs in whole groups), for the gradient by x */
    float *row_scales;      /* (N, groups) */
    float *words;           /* (outputs / BLOCK, groups, words, BLOCK), for the gradient by the matrix */
    float *word_scales;     /* (groups, O) */
    float *sums;            /* (groups, O): of the rows of a group */
} factors;

static factors factors_of(int64_t rows, int64_t outputs, float *grads) {
    factors f = {.along = groups_of(outputs), .across = groups_of(rows)};
    int64_t padded = whole(outputs, BLOCK);
    f.words = grads;
    f.word_scales = f.words + padded * f.across.groups * f.across.words;
    f.sums = f.word_scales + f.across.groups * padded;
    f.row_scales = f.sums + f.across.groups * padded;
    f.rows = (uint8_t *)(f.row_scales + rows * f.along.groups);
    return f;
}

int64_t nmt_bytes_grads(int64_t rows, int64_t outputs) {
    grouping along = groups_of(outputs), across = groups_of(rows);
    return rows * along.groups * (along.words + 1) + whole(outputs, BLOCK) * across.groups * (across.words + 2) + 64;
}

/* A chunk as bytes with its scales, or a part of the gradient of y without what ReLU has stopped. */
int64_t nmt_bytes_room(int64_t inputs) {
    grouping g = groups_of(inputs);
    return max_of(CHUNK * g.groups * (g.words + 1), GROUP * GROUP) + 64;
}

static float *room_of(const nmt_linear *l, int64_t worker) { return l->room + worker * nmt_bytes_room(l->inputs); }

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
    float *scales = room_of(l, worker);
    uint8_t *bytes = (uint8_t *)(scales + CHUNK * g.groups);
    for (int64_t n = 0; n < count; n++)
        row_as_factor(l->x + (first + n) * l->inputs, g, bytes + n * 4 * g.groups * g.words, scales + n * g.groups, 0);
    multiply_rows(bytes, scales, g, l->panels, l->y + first * l->outputs, l->outputs, count, l->outputs, l->bias,
                  (int)l->relu);
}

/* A group of rows and a group of outputs of the gradient of y, which is read once: as factors of both products. */
static WIDE void pack_grads(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    factors f = factors_of(l->rows, l->outputs, l->grads);
    int64_t k = task / f.along.groups, j = task % f.along.groups, first = k * 4 * f.across.words, at = j * 4 * f.along.words;
    int64_t count = l->rows - first < 4 * f.across.words ? l->rows - first : 4 * f.across.words;
    int64_t columns = l->outputs - at < 4 * f.along.words ? l->outputs - at : 4 * f.along.words;
    int64_t padded = whole(l->outputs, BLOCK), step = l->outputs;
    float *sums = f.sums + k * padded + at, inverses[GROUP] __attribute__((aligned(64)));
    const float *grads = l->y_grad + first * l->outputs + at;
    __m512i most[GROUP / 16], least = _mm512_castps_si512(_mm512_set1_ps(LEAST));
    for (int64_t i = 0; i < columns; i += 16) {
        most[i / 16] = least;
        _mm512_mask_storeu_ps(sums + i, first_of(columns - i), _mm512_setzero_ps());
    }
    if (l->relu) step = GROUP;
    for (int64_t n = 0; n < count; n++) {
        const float *row = grads + n * step;
        if (l->relu) row = grad_of_row(l, first + n, at, columns, room_of(l, worker) + n * GROUP);
        __m512i largest = least;
        for (int64_t i = 0; i < columns; i += 16) {
            __mmask16 mask = first_of(columns - i);
            __m512 x = _mm512_maskz_loadu_ps(mask, row + i);
            largest = _mm512_max_epi32(largest, size_of(x));
            most[i / 16] = _mm512_max_epi32(most[i / 16], size_of(x));
            _mm512_mask_storeu_ps(sums + i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, sums + i), x));
        }
        int32_t bits = _mm512_reduce_max_epi32(largest);
        float size;
        memcpy(&size, &bits, 4);
        __m512 inverse = _mm512_set1_ps(127.0f / size);
        f.row_scales[(first + n) * f.along.groups + j] = size / 127.0f;
        uint8_t *to = f.rows + ((first + n) * f.along.groups + j) * 4 * f.along.words;
        for (int64_t i = 0; i < 4 * f.along.words; i += 16) {
            __m512 x = _mm512_maskz_loadu_ps(first_of(columns - i), row + i);
            _mm512_mask_cvtepi32_storeu_epi8(to + i, first_of(4 * f.along.words - i), unsigned_bytes(x, inverse, 0));
        }
    }
    if (l->relu) grads = room_of(l, worker);
    for (int64_t i = 0; i < columns; i += 16) {
        __m512 inverse = _mm512_div_ps(_mm512_set1_ps(127.0f), _mm512_castsi512_ps(most[i / 16]));
        _mm512_store_ps(inverses + i, inverse);
        _mm512_mask_storeu_ps(f.word_scales + k * padded + at + i, first_of(columns - i),
                              _mm512_div_ps(_mm512_castsi512_ps(most[i / 16]), _mm512_set1_ps(127.0f)));
    }
    for (int64_t w = 0; w < f.across.words; w++)
        for (int64_t i = 0; i < columns; i += 16) {
            __m512 inverse = _mm512_load_ps(inverses + i);
            __m512i four[4];
            for (int64_t n = 0; n < 4; n++) {
                __mmask16 mask = 4 * w + n < count ? first_of(columns - i) : 0;
                four[n] = unsigned_bytes(_mm512_maskz_loadu_ps(mask, grads + (4 * w + n) * step + i), inverse, 0);
                four[n] = _mm512_maskz_mov_epi32(mask, four[n]);
            }
            int64_t o = at + i; /* its 16 outputs may belong to two blocks where groups are no whole vectors */
            __m512i together = four_as_words(four);
            for (int64_t done = 0; done < 16 && i + done < columns;) {
                int64_t some = BLOCK - (o + done) % BLOCK < 16 - done ? BLOCK - (o + done) % BLOCK : 16 - done;
                __mmask16 mask = (__mmask16)(first_of(done + some) & ~first_of(done) & first_of(columns - i));
                float *to = f.words + (((o + done) / BLOCK * f.across.groups + k) * f.across.words + w) * BLOCK;
                _mm512_mask_storeu_ps(to + (o + done) % BLOCK - done, mask, (__m512)together);
                done += some;
            }
        }
}

static WIDE void backward_to_x(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    factors f = factors_of(l->rows, l->outputs, l->grads);
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    multiply_rows(f.rows + first * 4 * f.along.groups * f.along.words, f.row_scales + first * f.along.groups, f.along,
                  l->panels, l->x_grad + first * l->inputs, l->inputs, count, l->inputs, NULL, 0);
}

static WIDE void backward_to_weight(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_linear *l = shared;
    factors f = factors_of(l->rows, l->outputs, l->grads);
    int64_t inputs = l->inputs, at = task * BLOCK, count = l->outputs - at < BLOCK ? l->outputs - at : BLOCK;
    grouping g = f.across;
    for (int64_t k = 0; k < g.groups && l->weight_grad; k++)
        product_of_group((const uint8_t *)(f.words + (task * g.groups + k) * g.words * BLOCK), 4, 4 * BLOCK,
                         f.word_scales + k * whole(l->outputs, BLOCK) + at, 1, l->x_panels + k * (HEAD + g.words * PANEL),
                         g, l->weight_grad + at * inputs, inputs, count, inputs, (sum_of_groups){!k, 0, NULL});
    for (int64_t o = 0; o < count && l->bias_grad; o++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < g.groups; k++) sum += f.sums[k * whole(l->outputs, BLOCK) + at + o];
        l->bias_grad[at + o] = sum;
    }
}

void nmt_bytes_forward(const nmt_linear *l) {
    nmt_run(pack_for_y, (void *)l, (l->outputs + PANEL - 1) / PANEL, l->threads);
    nmt_run(forward, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

/* Tasks of several kinds, one after the other; which come first is what takes longest. */
static int64_t packs_of_grad(const nmt_linear *l) { return groups_of(l->outputs).groups * groups_of(l->rows).groups; }
static int64_t packs_of_weight(const nmt_linear *l) {
    return l->x_grad ? strips_of(l->inputs) * groups_of(l->outputs).groups : 0;
}
static int64_t packs_of_x(const nmt_linear *l) {
    return l->weight_grad ? strips_of(l->inputs) * groups_of(l->rows).groups : 0;
}
static int64_t blocks(const nmt_linear *l) {
    return l->weight_grad || l->bias_grad ? (l->outputs + BLOCK - 1) / BLOCK : 0;
}

static void pack_for_gradients(void *shared, int64_t task, int64_t worker) {
    const nmt_linear *l = shared;
    if (task < packs_of_grad(l))
        pack_grads(shared, task, worker);
    else if ((task -= packs_of_grad(l)) < packs_of_x(l))
        pack_for_weight_grad(shared, task, worker);
    else
        pack_for_x_grad(shared, task - packs_of_x(l), worker);
}

static void backward(void *shared, int64_t task, int64_t worker) {
    if (task < blocks(shared))
        backward_to_weight(shared, task, worker);
    else
        backward_to_x(shared, task - blocks(shared), worker);
}

void nmt_bytes_backward(const nmt_linear *l) {
    int64_t chunks = l->x_grad ? (l->rows + CHUNK - 1) / CHUNK : 0;
    nmt_run(pack_for_gradients, (void *)l, packs_of_grad(l) + packs_of_x(l) + packs_of_weight(l), l->threads);
    nmt_run(backward, (void *)l, blocks(l) + chunks, l->threads);
}

#endif
