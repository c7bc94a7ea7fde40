/* Output projection, cross-entropy and their gradients in one, for cores with AVX-512; `nmt/fused_loss.py` calls
 * them.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <float.h>
#include <math.h>

#include "bytes.h"
#include "kernels.h"

#define CHUNK 48   /* positions whose scores exist at once: whole tiles, an even number */
#define OF_BYTES 96 /* the same for products of int8, which are over groups of positions */

int64_t nmt_can_pair(void) { return __builtin_cpu_supports("avx512bf16"); }

/* `nmt/fused_loss.py: _Loss` is the same. H hidden width, in words h; V vocabulary, in words v. */
typedef struct {
    const float *hidden, *weight, *bias; /* (N, H), (V, H), (V) or NULL */
    const int64_t *target;
    int64_t rows, width, vocabulary;
    int64_t kind;      /* of factors */
    int64_t gradient;  /* whether it is wanted */
    int64_t threads;
    float smoothing, z_loss;
    float *panels;     /* room: (V / 32, h, 32) words, or panels of bytes */
    float *by_outputs; /* room: (v, H padded to 32) words, or panels of bytes; NULL: `weight` is as it should be */
    float *room;       /* of each thread, `nmt_loss_room` */
    float *hidden_grad; /* (N, H) */
    float *weight_grads, *bias_grads; /* of each thread, (V, H) and (V), zeros; or NULL */
    double *smoothed, *plain;         /* of each thread, zeros */
} nmt_loss;

static int64_t score_row(const nmt_loss *l) { return whole(l->vocabulary, 32) + 16; } /* no power of 2 */

/* Words that a thread needs: scores, and what they and hidden states are as factors. */
int64_t nmt_loss_room(int64_t kind, int64_t width, int64_t vocabulary) {
    int64_t row = whole(vocabulary, 32) + 16;
    if (kind != BYTES) return 2 * CHUNK * row + 2 * CHUNK * (whole(width, 32) + 32) + 64;
    grouping own = groups_of(width), along = groups_of(vocabulary), across = groups_of(OF_BYTES);
    int64_t rows = OF_BYTES * max_of(own.groups * (own.words + 1), along.groups * (along.words + 1));
    return OF_BYTES * row + max_of(rows, row * (across.words + 1) + panels_of_bytes(width, across)) + 64;
}

/* Words of a matrix (rows, width) that is laid out for sums over columns, and for sums over rows. */
int64_t nmt_loss_panels(int64_t kind, int64_t width, int64_t vocabulary) {
    if (kind == BYTES) return panels_of_bytes(vocabulary, groups_of(width));
    return whole(vocabulary, PANEL) * (kind == HALVES ? (width + 1) / 2 : width);
}

int64_t nmt_loss_by_outputs(int64_t kind, int64_t width, int64_t vocabulary) {
    if (kind == BYTES) return panels_of_bytes(width, groups_of(vocabulary));
    if (kind == FLOATS && width % PANEL == 0) return 0;
    return (kind == HALVES ? (vocabulary + 1) / 2 : vocabulary) * whole(width, PANEL) + 32;
}

static WIDE void pack(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_loss *l = shared;
    int64_t words = l->kind == HALVES ? (l->width + 1) / 2 : l->width;
    int64_t at = task * PANEL;
    pack_panel(l->weight, at, l->vocabulary, l->width, l->kind == HALVES, l->panels + at * words);
    if (l->by_outputs) pack_by_outputs(l->weight, at, l->vocabulary, l->width, l->kind == HALVES, l->by_outputs);
}

static WIDE void pack_rows_of_bytes(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_loss *l = shared;
    grouping g = groups_of(l->width);
    rows_as_panel(l->weight, task * PANEL, l->vocabulary, g, l->panels + task * panels_of_bytes(PANEL, g));
}

static WIDE void pack_columns_of_bytes(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_loss *l = shared;
    int64_t strips = (l->width + STRIP - 1) / STRIP;
    columns_as_panels(l->weight, l->width, task % strips * STRIP, groups_of(l->vocabulary), task / strips,
                      l->by_outputs, 1);
}

/* Scores of a row become the gradient of its loss by them; adds its losses up. With `target_grad` what is not negative
 * remains in the row: what smoothing takes away everywhere stays in, and the target's own gradient goes there. */
static WIDE void differentiate(const nmt_loss *l, float *row, int64_t target, float *target_grad, double *smoothed,
                               double *plain) {
    float largest = -FLT_MAX, total = 0.0f, sum = 0.0f, at_target = row[target];
    int64_t size = l->vocabulary;
    for (int64_t v = 0; v < size; v++) largest = row[v] > largest ? row[v] : largest;
    for (int64_t v = 0; v < size; v++) {
        float e = exponential(row[v] - largest);
        sum += row[v];
        row[v] = e;
        total += e;
    }
    float log_total = largest + logf(total);
    if (!is_finite(sum)) { /* a score that is not a number may not be seen otherwise */
        uint32_t bits = 0x7fc00000u;
        memcpy(&log_total, &bits, 4);
    }
    float uniform = l->smoothing / (float)size, share = (1.0f + 2.0f * l->z_loss * log_total) / total;
    *plain += (double)(log_total - at_target);
    *smoothed += (double)((1.0f - l->smoothing) * (log_total - at_target) +
                          l->smoothing * (log_total - sum / (float)size) + l->z_loss * log_total * log_total);
    if (!l->gradient) return;
    if (target_grad) uniform = 0.0f;
    for (int64_t v = 0; v < size; v++) row[v] = row[v] * share - uniform;
    row[target] -= 1.0f - l->smoothing;
    if (!is_finite(sum)) memcpy(row + target, &log_total, 4);
    if (!target_grad) return;
    *target_grad = row[target];
    row[target] = 0.0f;
}

static WIDE void chunk_of_loss(void *shared, int64_t task, int64_t worker) {
    const nmt_loss *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    int64_t row = score_row(l), width = l->width, padded = whole(width, 32);
    int64_t words = l->kind == HALVES ? (width + 1) / 2 : width, halves = (count + 1) / 2;
    float *scores = l->room + worker * nmt_loss_room(l->kind, width, l->vocabulary);
    float *along = scores + CHUNK * row, *across = along + CHUNK / 2 * row; /* pairs of neighbours, of rows */
    float *hidden_along = across + CHUNK / 2 * row, *hidden_across = hidden_along + CHUNK * padded;
    const float *hidden = l->hidden + first * width;
    if (l->kind == HALVES) {
        for (int64_t n = 0; n < count; n++) pair_neighbours(hidden + n * width, width, hidden_along + n * padded);
        product_of_pairs(hidden_along, padded, 1, l->panels, PANEL, words * PANEL, words, scores, row, count,
                         l->vocabulary, 1);
    } else
        product_of_words(hidden, width, 1, l->panels, PANEL, words * PANEL, words, scores, row, count,
                         l->vocabulary, 1);
    if (l->bias)
        for (int64_t n = 0; n < count; n++)
            for (int64_t v = 0; v < l->vocabulary; v++) scores[n * row + v] += l->bias[v];
    for (int64_t n = 0; n < count; n++)
        differentiate(l, scores + n * row, l->target[first + n], NULL, l->smoothed + worker,
                      l->plain + worker);
    if (!l->gradient) return;
    if (l->bias_grads) {
        float *sums = l->bias_grads + worker * l->vocabulary;
        for (int64_t n = 0; n < count; n++)
            for (int64_t v = 0; v < l->vocabulary; v++) sums[v] += scores[n * row + v];
    }
    float *hidden_grad = l->hidden_grad + first * width;
    float *weight_grad = l->weight_grads + worker * l->vocabulary * width;
    if (l->kind == HALVES) {
        int64_t by_two = (l->vocabulary + 1) / 2;
        for (int64_t n = 0; n < count; n++)
            pair_neighbours(scores + n * row, l->vocabulary, along + n * (row / 2));
        for (int64_t n = 0; n < count; n += 2) {
            const float *next = n + 1 < count ? scores + (n + 1) * row : 0;
            pair_rows(scores + n * row, next, l->vocabulary, across + n / 2 * row);
            pair_rows(hidden + n * width, next ? hidden + (n + 1) * width : 0, width, hidden_across + n / 2 * padded);
        }
        product_of_pairs(along, row / 2, 1, l->by_outputs, padded, PANEL, by_two, hidden_grad, width, count, width,
                         1);
        product_of_pairs(across, 1, row, hidden_across, padded, PANEL, halves, weight_grad, width, l->vocabulary,
                         width, 0);
    } else {
        /* `hidden` and `weight` are read to whole panels: beyond a last row there is room in neither. */
        const float *b = hidden;
        int64_t step = width;
        if (width % PANEL) {
            for (int64_t n = 0; n < count; n++)
                memcpy(hidden_across + n * padded, hidden + n * width, width * sizeof(float));
            b = hidden_across;
            step = padded;
        }
        product_of_words(scores, row, 1, l->by_outputs ? l->by_outputs : l->weight, l->by_outputs ? padded : width,
                         PANEL, l->vocabulary, hidden_grad, width, count, width, 1);
        product_of_words(scores, 1, row, b, step, PANEL, count, weight_grad, width, l->vocabulary, width, 0);
    }
}

/* The same in products of int8. Of the gradient p - q by the scores p is made bytes, where it is not the target's: that
 * one is multiplied as it is, and what q has everywhere is taken away by the caller. */
static WIDE void chunk_of_bytes(void *shared, int64_t task, int64_t worker) {
    const nmt_loss *l = shared;
    int64_t first = task * OF_BYTES, count = l->rows - first < OF_BYTES ? l->rows - first : OF_BYTES;
    int64_t row = score_row(l), width = l->width, size = l->vocabulary;
    grouping own = groups_of(width), along = groups_of(size), across = groups_of(count);
    float target_grad[OF_BYTES];
    float *scores = l->room + worker * nmt_loss_room(l->kind, width, size), *scales = scores + OF_BYTES * row;
    const float *hidden = l->hidden + first * width;
    uint8_t *bytes = (uint8_t *)(scales + OF_BYTES * own.groups);
    for (int64_t n = 0; n < count; n++)
        row_as_factor(hidden + n * width, own, bytes + n * 4 * own.groups * own.words, scales + n * own.groups, 0);
    multiply_rows(bytes, scales, own, l->panels, scores, row, count, size, l->bias, 0);
    for (int64_t n = 0; n < count; n++)
        differentiate(l, scores + n * row, l->target[first + n], target_grad + n, l->smoothed + worker,
                      l->plain + worker);
    if (!l->gradient) return;
    float *hidden_grad = l->hidden_grad + first * width;
    float *weight_grad = l->weight_grads + worker * size * width;
    if (l->bias_grads) {
        float *sums = l->bias_grads + worker * size;
        for (int64_t n = 0; n < count; n++) {
            for (int64_t v = 0; v < size; v++) sums[v] += scores[n * row + v];
            sums[l->target[first + n]] += target_grad[n];
        }
    }
    scales = scores + OF_BYTES * row;
    bytes = (uint8_t *)(scales + OF_BYTES * along.groups);
    for (int64_t n = 0; n < count; n++)
        row_as_factor(scores + n * row, along, bytes + n * 4 * along.groups * along.words, scales + n * along.groups, 1);
    multiply_rows(bytes, scales, along, l->by_outputs, hidden_grad, width, count, width, NULL, 0);
    float *words = scores + OF_BYTES * row, *panels = words + across.words * row;
    scales = panels + panels_of_bytes(width, across);
    columns_as_factor(scores, row, count, size, across.words, words, scales, 1);
    for (int64_t at = 0; at < width; at += STRIP) columns_as_panels(hidden, width, at, across, 0, panels, 1);
    product_of_group((const uint8_t *)words, 4, 4 * row, scales, 1, panels, across, weight_grad, width, size, width,
                     (sum_of_groups){0, 0, NULL});
    for (int64_t n = 0; n < count; n++) {
        int64_t target = l->target[first + n];
        for (int64_t i = 0; i < width; i++) {
            hidden_grad[n * width + i] += target_grad[n] * l->weight[target * width + i];
            weight_grad[target * width + i] += target_grad[n] * hidden[n * width + i];
        }
    }
}

/* Summed over the rows: losses with and without smoothing, and the gradients of the first; of int8 without what
 * smoothing spreads evenly. */
void nmt_cross_entropy(const nmt_loss *l) {
    int64_t panels = (l->vocabulary + PANEL - 1) / PANEL;
    if (l->kind == BYTES) {
        nmt_run(pack_rows_of_bytes, (void *)l, panels, l->threads);
        int64_t strips = (l->width + STRIP - 1) / STRIP;
        if (l->gradient)
            nmt_run(pack_columns_of_bytes, (void *)l, strips * groups_of(l->vocabulary).groups, l->threads);
        nmt_run_in_turn(chunk_of_bytes, (void *)l, (l->rows + OF_BYTES - 1) / OF_BYTES, l->threads);
        return;
    }
    nmt_run(pack, (void *)l, panels, l->threads);
    nmt_run_in_turn(chunk_of_loss, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

#else

int64_t nmt_can_pair(void) { return 0; }

#endif
