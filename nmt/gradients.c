/* Output projection, cross-entropy and their gradients in one, for cores with AVX-512; `nmt/gradients.py` calls
 * them.
 *
 * Products read words of 32 bits: a float32, or two bfloat16 that are multiplied with two others and added up in
 * float32. Pairs run along the axis that is summed over.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <float.h>
#include <math.h>

#include "kernels.h"
#include "products.h"

#define PAIRS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")))
#define CHUNK 48 /* positions whose scores exist at once: whole tiles, an even number */
#define DEPTH 256 /* words of a sum at a time, so that what is read stays in the cache */

int64_t nmt_can_pair(void) { return __builtin_cpu_supports("avx512bf16"); }

/* c (rows, columns of a panel) += a b over `depth` words; a: `a_row` words between rows, `a_step` along the sum; b:
 * 32 columns, `b_step` words between steps. `fresh`: = in place of +=. */
#define TILE_OF_WORDS(name, kind, multiply_add) \
    static inline __attribute__((always_inline)) kind void name( \
        const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_step, int64_t depth, float *c, \
        int64_t c_row, int fresh, __mmask16 low, __mmask16 high, const int rows) { \
        floats sums[TILE][2]; \
        ROWS { \
            sums[r][0] = fresh ? (floats){0} : (floats)_mm512_maskz_loadu_ps(low, c + r * c_row); \
            sums[r][1] = fresh ? (floats){0} : (floats)_mm512_maskz_loadu_ps(high, c + r * c_row + 16); \
        } \
        for (int64_t i = 0; i < depth; i++) { \
            __m512 first = _mm512_loadu_ps(b + i * b_step), second = _mm512_loadu_ps(b + i * b_step + 16); \
            ROWS { \
                __m512 factor = _mm512_set1_ps(a[r * a_row + i * a_step]); \
                multiply_add(sums[r][0], factor, first); \
                multiply_add(sums[r][1], factor, second); \
            } \
        } \
        ROWS { \
            _mm512_mask_storeu_ps(c + r * c_row, low, (__m512)sums[r][0]); \
            _mm512_mask_storeu_ps(c + r * c_row + 16, high, (__m512)sums[r][1]); \
        } \
    }
#define OF_FLOATS(sum, x, y) sum = (floats)_mm512_fmadd_ps(x, y, (__m512)sum)
#define OF_PAIRS(sum, x, y) sum = (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y)
TILE_OF_WORDS(tile_of_words, WIDE, OF_FLOATS)
TILE_OF_WORDS(tile_of_pairs, PAIRS, OF_PAIRS)

/* A product of words: c (rows, columns) = or += a b. b is readable to whole panels. */
#define PRODUCT(name, kind, tile) \
    static kind __attribute__((noinline)) void name(const float *a, int64_t a_row, int64_t a_step, const float *b, \
                                                    int64_t b_step, int64_t b_panel, int64_t depth, float *c, \
                                                    int64_t c_row, int64_t count, int64_t columns, int fresh) { \
        /* The smaller side is gone through for each part of the larger one, which is read once. */ \
        int64_t rows_first = count > columns, tiles = (count + TILE - 1) / TILE; \
        int64_t panels = (columns + PANEL - 1) / PANEL, inner = rows_first ? panels : tiles; \
        for (int64_t k = 0; k < depth; k += DEPTH) { \
            int64_t some_k = depth - k < DEPTH ? depth - k : DEPTH; \
            for (int64_t place = 0; place < tiles * panels; place++) { \
                int64_t n = (rows_first ? place / inner : place % inner) * TILE; \
                int64_t at = (rows_first ? place % inner : place / inner) * PANEL, left = columns - at; \
                __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1); \
                __mmask16 high = left >= 32 ? 0xffff : left <= 16 ? 0 : (__mmask16)((1 << (left - 16)) - 1); \
                const float *panel = b + at / PANEL * b_panel + k * b_step; \
                int64_t some = count - n < TILE ? count - n : TILE; \
                SOME_ROWS(some, tile(a + n * a_row + k * a_step, a_row, a_step, panel, b_step, some_k, \
                                     c + n * c_row + at, c_row, fresh && !k, low, high, rows)) \
            } \
        } \
    }
PRODUCT(product_of_words, WIDE, tile_of_words)
PRODUCT(product_of_pairs, PAIRS, tile_of_pairs)

/* `nmt/gradients.py: _Loss` is the same. H hidden width, in words h; V vocabulary, in words v. */
typedef struct {
    const float *hidden, *weight, *bias; /* (N, H), (V, H), (V) or NULL */
    const int64_t *target;
    int64_t rows, width, vocabulary;
    int64_t pairs;     /* products of bfloat16 */
    int64_t gradient;  /* whether it is wanted */
    int64_t threads;
    float smoothing;
    float *panels;     /* room: (V / 32, h, 32) words */
    float *by_outputs; /* room: (v, H padded to 32) words; NULL: `weight` is as it should be */
    float *room;       /* of each thread, `nmt_loss_room` bytes */
    float *hidden_grad; /* (N, H) */
    float *weight_grads, *bias_grads; /* of each thread, (V, H) and (V), zeros; or NULL */
    double *smoothed, *plain;         /* of each thread, zeros */
} nmt_loss;

static int64_t whole(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
static int64_t score_row(const nmt_loss *l) { return whole(l->vocabulary, 32) + 16; } /* no power of 2 */

/* Bytes that a thread needs: scores as float32, and as pairs along either axis; hidden states as pairs. */
int64_t nmt_loss_room(int64_t width, int64_t vocabulary) {
    int64_t row = whole(vocabulary, 32) + 16;
    return 4 * (2 * CHUNK * row + 2 * CHUNK * (whole(width, 32) + 32)) + 256;
}

/* Two rows of floats as pairs (first, second), rounded to the nearest; `second` NULL: zeros. */
static PAIRS void pair_rows(const float *first, const float *second, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = count - i >= 16 ? 0xffff : (__mmask16)((1 << (count - i)) - 1);
        __m512 x = _mm512_maskz_loadu_ps(mask, first + i);
        __m512 y = second ? _mm512_maskz_loadu_ps(mask, second + i) : _mm512_setzero_ps();
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(y));
        _mm512_mask_storeu_epi32(to + i, mask, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* A row of floats as pairs of neighbours: (count + 1) / 2 words. */
static PAIRS void pair_neighbours(const float *x, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = count - i >= 16 ? 0xffff : (__mmask16)((1 << (count - i)) - 1);
        __mmask16 words = count - i >= 16 ? 0xff : (__mmask16)((1 << ((count - i + 1) / 2)) - 1);
        __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
        _mm256_mask_storeu_epi32(to + i / 2, (__mmask8)words, halves);
    }
}

/* Lays out 32 outputs of the matrix: task `at / 32`. */
static WIDE void pack(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_loss *l = shared;
    int64_t words = l->pairs ? (l->width + 1) / 2 : l->width, at = task * PANEL;
    float *panel = l->panels + at * words;
    for (int64_t o = 0; o < PANEL; o++) {
        const float *row = l->weight + (at + o) * l->width;
        int real = at + o < l->vocabulary;
        if (l->pairs) {
            float line[words];
            if (real) pair_neighbours(row, l->width, line);
            for (int64_t i = 0; i < words; i++) panel[i * PANEL + o] = real ? line[i] : 0.0f;
        } else
            for (int64_t i = 0; i < words; i++) panel[i * PANEL + o] = real ? row[i] : 0.0f;
    }
    int64_t padded = whole(l->width, 32);
    if (!l->pairs && l->by_outputs)
        for (int64_t o = at; o < at + PANEL && o < l->vocabulary; o++)
            memcpy(l->by_outputs + o * padded, l->weight + o * l->width, l->width * sizeof(float));
    if (l->pairs && l->gradient)
        for (int64_t o = 0; o < PANEL && at + o < l->vocabulary; o += 2) {
            const float *row = l->weight + (at + o) * l->width;
            pair_rows(row, at + o + 1 < l->vocabulary ? row + l->width : 0, l->width,
                      l->by_outputs + (at + o) / 2 * padded);
        }
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
    float uniform = l->smoothing / (float)size, share = 1.0f / total;
    *plain += (double)(log_total - at_target);
    *smoothed += (double)((1.0f - l->smoothing) * (log_total - at_target) +
                          l->smoothing * (log_total - sum / (float)size));
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
