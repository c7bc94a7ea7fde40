/* Products for training, on a core with AVX-512.
 *
 * They read words of 32 bits: a float32, or two bfloat16 that are multiplied with two others and added up in
 * float32. Pairs run along the axis that is summed over.
 */
#ifndef NMT_WORDS_H
#define NMT_WORDS_H

#include "products.h"

#define PAIRS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")))
enum { FLOATS, HALVES, BYTES }; /* what factors are: float32, bfloat16, int8; `nmt/kernels.py: KINDS` is the same */

#define DEPTH 256 /* words of a sum at a time, so that what is read stays in the cache */

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
    static kind __attribute__((noinline, unused)) void name(const float *a, int64_t a_row, int64_t a_step, const float *b, \
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

static int64_t whole(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

/* Two rows of floats as pairs (first, second), rounded to the nearest; `second` NULL: zeros. */
static PAIRS __attribute__((unused)) void pair_rows(const float *first, const float *second, int64_t count, float *to) {
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
static PAIRS __attribute__((unused)) void pair_neighbours(const float *x, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = count - i >= 16 ? 0xffff : (__mmask16)((1 << (count - i)) - 1);
        __mmask16 words = count - i >= 16 ? 0xff : (__mmask16)((1 << ((count - i + 1) / 2)) - 1);
        __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
        _mm256_mask_storeu_epi32(to + i / 2, (__mmask8)words, halves);
    }
}

/* Lays 32 outputs of a matrix (outputs, width) out for x W': `panel` (width in words, 32). */
static WIDE __attribute__((unused)) void pack_panel(const float *weight, int64_t at, int64_t outputs, int64_t width,
                                                    int pairs, float *panel) {
    int64_t words = pairs ? (width + 1) / 2 : width;
    for (int64_t o = 0; o < PANEL; o++) {
        const float *row = weight + (at + o) * width;
        int real = at + o < outputs;
        if (pairs) {
            float line[words];
            if (real) pair_neighbours(row, width, line);
            for (int64_t i = 0; i < words; i++) panel[i * PANEL + o] = real ? line[i] : 0.0f;
        } else
            for (int64_t i = 0; i < words; i++) panel[i * PANEL + o] = real ? row[i] : 0.0f;
    }
}

/* Lays rows at .. at + 32 of a matrix (rows, width) out for a sum over rows: `panels` (width / 32, rows in words, 32). */
static WIDE __attribute__((unused)) void pack_rows(const float *matrix, int64_t at, int64_t rows, int64_t width,
                                                   int pairs, float *panels) {
    int64_t words = pairs ? (rows + 1) / 2 : rows;
    for (int64_t n = at; n < at + PANEL && n < rows; n += pairs ? 2 : 1) {
        const float *row = matrix + n * width;
        for (int64_t i = 0; i < width; i += PANEL) {
            int64_t some = width - i < PANEL ? width - i : PANEL;
            float *to = panels + i * words + (pairs ? n / 2 : n) * PANEL;
            if (pairs)
                pair_rows(row + i, n + 1 < rows ? row + width + i : NULL, some, to);
            else
                memcpy(to, row + i, some * sizeof(float));
        }
    }
}

/* And for y W: `by_outputs` (outputs in words, width padded to whole panels). */
static WIDE __attribute__((unused)) void pack_by_outputs(const float *weight, int64_t at, int64_t outputs,
                                                         int64_t width, int pairs, float *by_outputs) {
    int64_t padded = whole(width, PANEL);
    for (int64_t o = at; o < at + PANEL && o < outputs; o += pairs ? 2 : 1) {
        const float *row = weight + o * width;
        if (pairs)
            pair_rows(row, o + 1 < outputs ? row + width : 0, width, by_outputs + o / 2 * padded);
        else
            memcpy(by_outputs + o * padded, row, width * sizeof(float));
    }
}

#endif
