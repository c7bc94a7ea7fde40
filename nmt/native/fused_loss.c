/* Output projection, cross-entropy and their gradients in one, for cores with AVX-512; `nmt/fused_loss.py` calls
 * them.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <float.h>
#include <math.h>

#include "kernels.h"
#include "words.h"

#define CHUNK 48 /* positions whose scores exist at once: whole tiles, an even number */

int64_t nmt_can_pair(void) { return __builtin_cpu_supports("avx512bf16"); }

/* `nmt/fused_loss.py: _Loss` is the same. H hidden width, in words h; V vocabulary, in words v. */
typedef struct {
    const float *hidden, *weight, *bias; /* (N, H), (V, H), (V) or NULL */
    const int64_t *target;
    int64_t rows, width, vocabulary;
    int64_t pairs;     /* products of bfloat16 */
    int64_t gradient;  /* whether it is wanted */
    int64_t threads;
    float smoothing, z_loss;
    float *panels;     /* room: (V / 32, h, 32) words */
    float *by_outputs; /* room: (v, H padded to 32) words; NULL: `weight` is as it should be */
    float *room;       /* of each thread, `nmt_loss_room` bytes */
    float *hidden_grad; /* (N, H) */
    float *weight_grads, *bias_grads; /* of each thread, (V, H) and (V), zeros; or NULL */
    double *smoothed, *plain;         /* of each thread, zeros */
} nmt_loss;

static int64_t score_row(const nmt_loss *l) { return whole(l->vocabulary, 32) + 16; } /* no power of 2 */

/* Bytes that a thread needs: scores as float32, and as pairs along either axis; hidden states as pairs. */
int64_t nmt_loss_room(int64_t width, int64_t vocabulary) {
    int64_t row = whole(vocabulary, 32) + 16;
    return 4 * (2 * CHUNK * row + 2 * CHUNK * (whole(width, 32) + 32)) + 256;
}

static WIDE void pack(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_loss *l = shared;
    int64_t words = l->pairs ? (l->width + 1) / 2 : l->width;
    int64_t at = task * PANEL;
    pack_panel(l->weight, at, l->vocabulary, l->width, (int)l->pairs, l->panels + at * words);
    if (l->by_outputs) pack_by_outputs(l->weight, at, l->vocabulary, l->width, (int)l->pairs, l->by_outputs);
}

/* Scores of a row become the gradient of its loss by them; adds its losses up. */
static WIDE void differentiate(const nmt_loss *l, float *row, int64_t target, double *smoothed, double *plain) {
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
    for (int64_t v = 0; v < size; v++) row[v] = row[v] * share - uniform;
    row[target] -= 1.0f - l->smoothing;
    if (!is_finite(sum)) memcpy(row + target, &log_total, 4);
}

static WIDE void chunk_of_loss(void *shared, int64_t task, int64_t worker) {
    const nmt_loss *l = shared;
    int64_t first = task * CHUNK, count = l->rows - first < CHUNK ? l->rows - first : CHUNK;
    int64_t row = score_row(l), width = l->width, padded = whole(width, 32);
    int64_t words = l->pairs ? (width + 1) / 2 : width, halves = (count + 1) / 2;
    float *scores = l->room + worker * (nmt_loss_room(width, l->vocabulary) / 4);
    float *along = scores + CHUNK * row, *across = along + CHUNK / 2 * row; /* pairs of neighbours, of rows */
    float *hidden_along = across + CHUNK / 2 * row, *hidden_across = hidden_along + CHUNK * padded;
    const float *hidden = l->hidden + first * width;
    if (l->pairs) {
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
        differentiate(l, scores + n * row, l->target[first + n], l->smoothed + worker, l->plain + worker);
    if (!l->gradient) return;
    if (l->bias_grads) {
        float *sums = l->bias_grads + worker * l->vocabulary;
        for (int64_t n = 0; n < count; n++)
            for (int64_t v = 0; v < l->vocabulary; v++) sums[v] += scores[n * row + v];
    }
    float *hidden_grad = l->hidden_grad + first * width;
    float *weight_grad = l->weight_grads + worker * l->vocabulary * width;
    if (l->pairs) {
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

/* Summed over the rows: losses with and without smoothing, and the gradients of the first. */
void nmt_cross_entropy(const nmt_loss *l) {
    nmt_run(pack, (void *)l, (l->vocabulary + PANEL - 1) / PANEL, l->threads);
    nmt_run(chunk_of_loss, (void *)l, (l->rows + CHUNK - 1) / CHUNK, l->threads);
}

#else

int64_t nmt_can_pair(void) { return 0; }

#endif
