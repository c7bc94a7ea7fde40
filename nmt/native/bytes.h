/* Products of int8 for training, on a core with AVX-512's VNNI: four bytes of a word are multiplied with four others
 * and added up in int32, exactly.
 *
 * Numbers become bytes group by group: GROUP of them at most, neighbours along the axis that is summed over, have one
 * scale, 127 being the largest of them. Groups are added up in float32. One factor is unsigned, as the instruction
 * has it: 128 more than it should be, which `offsets` take back; or numbers that are not negative, up to 255.
 */
#ifndef NMT_BYTES_H
#define NMT_BYTES_H

#include "words.h"

#define GROUP 512
#define HEAD (2 * PANEL) /* words of a panel's group before its factors: scales, offsets */
#define STRIP 128        /* columns that are laid out together: some cache lines of a row */

static inline int64_t max_of(int64_t one, int64_t other) { return one > other ? one : other; }

typedef struct {
    int64_t depth, groups, words; /* numbers of a sum, its groups, words of a group */
} grouping;

static inline grouping groups_of(int64_t depth) {
    if (!depth) return (grouping){0, 0, 0};
    int64_t groups = (depth + GROUP - 1) / GROUP;
    return (grouping){depth, groups, (depth + 4 * groups - 1) / (4 * groups)};
}

/* Words that `columns` columns take when they are laid out: (columns / 32, groups, HEAD + words * 32). */
static inline int64_t panels_of_bytes(int64_t columns, grouping g) {
    return whole(columns, PANEL) / PANEL * g.groups * (HEAD + g.words * PANEL);
}

/* What a group's products are added to, and what is done with the sum. */
typedef struct {
    int fresh;         /* nothing is there yet */
    int relu;          /* max(0, sum) */
    const float *bias; /* of columns, or NULL */
} sum_of_groups;

WIDE_INLINE void put(__m512 x, sum_of_groups s, int64_t at, float *to, __mmask16 mask) {
    AS_WRITTEN(x);
    if (!s.fresh) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, to));
    if (s.bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, s.bias + at));
    if (s.relu) x = at_least(0.0f, x);
    _mm512_mask_storeu_ps(to, mask, x);
}

/* c (rows, columns of a panel from `at` on) = or += a b for one group. a: words, `a_row` bytes between rows and `a_step`
 * along the sum, and scales of rows; b: a panel's group. */
WIDE_INLINE void tile_of_fours(const uint8_t *a, int64_t a_row, int64_t a_step, const float *scales, int64_t scale_step,
                               const float *b, int64_t words, int64_t at, float *c, int64_t c_row, sum_of_groups s,
                               __mmask16 low, __mmask16 high, const int rows) {
    integers sums[TILE][2];
    ROWS {
        sums[r][0] = (integers)_mm512_loadu_si512(b + PANEL);
        sums[r][1] = (integers)_mm512_loadu_si512(b + PANEL + 16);
    }
    const float *panel = b + HEAD;
    for (int64_t i = 0; i < words; i++, panel += PANEL) {
        __m512i first = _mm512_loadu_si512(panel), second = _mm512_loadu_si512(panel + 16);
        ROWS {
            int32_t four;
            memcpy(&four, a + r * a_row + i * a_step, 4);
            __m512i factor = _mm512_set1_epi32(four);
            sums[r][0] = (integers)_mm512_dpbusd_epi32((__m512i)sums[r][0], factor, first);
            sums[r][1] = (integers)_mm512_dpbusd_epi32((__m512i)sums[r][1], factor, second);
        }
    }
    __m512 low_scales = _mm512_loadu_ps(b), high_scales = _mm512_loadu_ps(b + 16);
    ROWS {
        __m512 scale = _mm512_set1_ps(scales[r * scale_step]);
        __m512 first = _mm512_mul_ps(scale, low_scales), second = _mm512_mul_ps(scale, high_scales);
        AS_WRITTEN(first);
        AS_WRITTEN(second);
        first = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums[r][0]), first);
        second = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums[r][1]), second);
        put(first, s, at, c + r * c_row + at, low);
        put(second, s, at + 16, c + r * c_row + at + 16, high);
    }
}

/* c (count, columns) = or += a b for one group of the sum; `b` is that group of the first panel. */
static WIDE __attribute__((noinline, unused)) void product_of_group(const uint8_t *a, int64_t a_row, int64_t a_step,
                                                                    const float *scales, int64_t scale_step,
                                                                    const float *b, grouping g, float *c,
                                                                    int64_t c_row, int64_t count, int64_t columns,
                                                                    sum_of_groups s) {
    int64_t b_panel = g.groups * (HEAD + g.words * PANEL);
    for (int64_t at = 0; at < columns; at += PANEL, b += b_panel) {
        int64_t left = columns - at;
        __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1);
        __mmask16 high = left >= 32 ? 0xffff : left <= 16 ? 0 : (__mmask16)((1 << (left - 16)) - 1);
        for (int64_t n = 0; n < count; n += TILE) {
            int64_t some = count - n < TILE ? count - n : TILE;
            SOME_ROWS(some, tile_of_fours(a + n * a_row, a_row, a_step, scales + n * scale_step, scale_step, b, g.words,
                                          at, c + n * c_row, c_row, s, low, high, rows))
        }
    }
}

/* Sizes are compared as integers, in whose order what is no number is above all: it makes the scale no number. */
WIDE_INLINE __m512i size_of(__m512 x) {
    return _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff));
}

#define LEAST 1e-30f /* size of a group's largest, so that zeros have a scale */

/* What 16 numbers become: integers from -127 to 127, the nearest. */
WIDE_INLINE __m512i as_bytes(__m512 x, __m512 inverse) { return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)); }

/* What 16 shares of a whole, which are not negative, become: integers from 0 to 255, one of the two beside it, so that it
 * is right in the mean. Many small shares would else all become 0. The choice is by a number's own last digits. */
WIDE_INLINE __m512i shares_as_bytes(__m512 x, __m512 inverse) {
    __m512i bits = _mm512_mullo_epi32((__m512i)x, _mm512_set1_epi32((int)0x9e3779b1u));
    bits = _mm512_or_si512(_mm512_srli_epi32(bits, 9), _mm512_set1_epi32(0x3f800000)); /* 1 to 2 */
    __m512 more = _mm512_fmadd_ps(x, inverse, _mm512_sub_ps((__m512)bits, _mm512_set1_ps(1.0f)));
    return _mm512_min_epi32(_mm512_cvttps_epi32(more), _mm512_set1_epi32(255));
}

/* Factors that are unsigned: numbers of either sign and 128, or shares. */
WIDE_INLINE __m512i unsigned_bytes(__m512 x, __m512 inverse, const int shares) {
    if (shares) return shares_as_bytes(x, inverse);
    return _mm512_add_epi32(as_bytes(x, inverse), _mm512_set1_epi32(128));
}

#define MOST(shares) ((shares) ? 255.0f : 127.0f)

WIDE_INLINE __mmask16 first_of(int64_t left) { return left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1 << left) - 1); }

WIDE_INLINE float largest_of(const float *x, int64_t count) {
    __m512i most = _mm512_castps_si512(_mm512_set1_ps(LEAST));
    for (int64_t i = 0; i < count; i += 16)
        most = _mm512_max_epi32(most, size_of(_mm512_maskz_loadu_ps(first_of(count - i), x + i)));
    int32_t bits = _mm512_reduce_max_epi32(most);
    float largest;
    memcpy(&largest, &bits, 4);
    return largest;
}

/* A row as unsigned bytes, padded to whole groups of words, and its groups' scales. */
WIDE_INLINE void row_as_factor(const float *x, grouping g, uint8_t *to, float *scales, const int shares) {
    for (int64_t k = 0; k < g.groups; k++, to += 4 * g.words) {
        const float *own = x + k * 4 * g.words;
        int64_t left = g.depth - k * 4 * g.words, count = left < 4 * g.words ? left : 4 * g.words;
        float largest = largest_of(own, count);
        __m512 inverse = _mm512_set1_ps(MOST(shares) / largest);
        scales[k] = largest / MOST(shares);
        for (int64_t i = 0; i < 4 * g.words; i += 16) {
            __m512 some = _mm512_maskz_loadu_ps(first_of(count - i), own + i);
            _mm512_mask_cvtepi32_storeu_epi8(to + i, first_of(4 * g.words - i), unsigned_bytes(some, inverse, shares));
        }
    }
}

/* Lays rows at .. at + 32 of a matrix (rows, depth) out as columns of a product. */
static WIDE __attribute__((unused)) void rows_as_panel(const float *matrix, int64_t at, int64_t rows, grouping g,
                                                       float *panel) {
    for (int64_t k = 0; k < g.groups; k++, panel += HEAD + g.words * PANEL) {
        int64_t left = g.depth - k * 4 * g.words, count = left < 4 * g.words ? left : 4 * g.words;
        int32_t *offsets = (int32_t *)panel + PANEL, *words = offsets + PANEL;
        for (int64_t o = 0; o < PANEL; o++) {
            const float *own = matrix + (at + o) * g.depth + k * 4 * g.words;
            int real = at + o < rows;
            float largest = real ? largest_of(own, count) : LEAST;
            __m512 inverse = _mm512_set1_ps(127.0f / largest);
            __m512i sum = _mm512_setzero_si512();
            for (int64_t i = 0; i < 4 * g.words; i += 16) {
                __m512 some = _mm512_maskz_loadu_ps(real ? first_of(count - i) : 0, own + i);
                __m512i whole = as_bytes(some, inverse);
                sum = _mm512_add_epi32(sum, whole);
                int32_t four[4];
                _mm_storeu_si128((__m128i *)four, _mm512_cvtepi32_epi8(whole));
                for (int64_t w = 0; w < 4 && i / 4 + w < g.words; w++) words[(i / 4 + w) * PANEL + o] = four[w];
            }
            panel[o] = largest / 127.0f;
            offsets[o] = -128 * _mm512_reduce_add_epi32(sum);
        }
    }
}

/* Four rows of 16 columns as words. */
WIDE_INLINE __m512i four_as_words(const __m512i *whole) {
    __m512i byte = _mm512_set1_epi32(0xff);
    __m512i low = _mm512_or_si512(_mm512_and_si512(whole[0], byte),
                                  _mm512_slli_epi32(_mm512_and_si512(whole[1], byte), 8));
    __m512i high = _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(whole[2], byte), 16),
                                   _mm512_slli_epi32(whole[3], 24));
    return _mm512_or_si512(low, high);
}

/* Of `count` rows (`step` numbers apart) `columns` columns, a group of a sum over rows: `most` / the largest of a column. */
WIDE_INLINE void inverses_of(const float *x, int64_t step, int64_t count, int64_t columns, float most,
                             float *inverses) {
    for (int64_t i = 0; i < columns; i += 16) _mm512_storeu_ps(inverses + i, _mm512_set1_ps(LEAST));
    for (int64_t n = 0; n < count; n++)
        for (int64_t i = 0; i < columns; i += 16) {
            __m512i largest = _mm512_loadu_si512(inverses + i);
            largest = _mm512_max_epi32(largest, size_of(_mm512_maskz_loadu_ps(first_of(columns - i), x + n * step + i)));
            _mm512_storeu_si512(inverses + i, largest);
        }
    for (int64_t i = 0; i < columns; i += 16)
        _mm512_storeu_ps(inverses + i, _mm512_div_ps(_mm512_set1_ps(most), _mm512_loadu_ps(inverses + i)));
}

/* 1 / x of so many numbers, in whole vectors: the compiler divides another way where it has few (-ffast-math). */
WIDE_INLINE void inverted(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i += 16)
        _mm512_storeu_ps(x + i, _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_loadu_ps(x + i)));
}

/* Lays a group k of rows of a matrix (depth, width), columns at .. at + STRIP, out for a sum over rows. `shares`: what
 * they are multiplied with. */
static WIDE __attribute__((unused)) void columns_as_panels(const float *matrix, int64_t width, int64_t at, grouping g,
                                                           int64_t k, float *panels, int shares) {
    float inverses[STRIP];
    int32_t sums[STRIP] __attribute__((aligned(64))) = {0};
    int64_t columns = width - at < STRIP ? width - at : STRIP, block = HEAD + g.words * PANEL;
    int64_t first = k * 4 * g.words, left = g.depth - first, count = left < 4 * g.words ? left : 4 * g.words;
    const float *x = matrix + first * width + at;
    inverses_of(x, width, count, columns, 127.0f, inverses);
    panels += (at / PANEL * g.groups + k) * block;
    for (int64_t w = 0; w < g.words; w++)
        for (int64_t i = 0; i < whole(columns, PANEL); i += 16) {
            __m512 inverse = _mm512_loadu_ps(inverses + i);
            __m512i four[4], sum = _mm512_load_si512(sums + i);
            for (int64_t n = 0; n < 4; n++) {
                __mmask16 mask = 4 * w + n < count ? first_of(columns - i) : 0;
                four[n] = as_bytes(_mm512_maskz_loadu_ps(mask, x + (4 * w + n) * width + i), inverse);
                four[n] = _mm512_maskz_mov_epi32(mask, four[n]); /* beyond the last column there is no scale */
                sum = _mm512_add_epi32(sum, four[n]);
            }
            _mm512_store_si512(sums + i, sum);
            _mm512_storeu_si512(panels + i / PANEL * g.groups * block + HEAD + w * PANEL + i % PANEL,
                                four_as_words(four));
        }
    inverted(inverses, columns);
    for (int64_t i = 0; i < whole(columns, PANEL); i++) {
        float *panel = panels + i / PANEL * g.groups * block;
        panel[i % PANEL] = i < columns ? inverses[i] : 0.0f;
        ((int32_t *)panel)[PANEL + i % PANEL] = shares ? 0 : -128 * sums[i];
    }
}

/* A group of a sum over rows of x (count, columns), `step` numbers apart, as factors: words (words, columns), four rows
 * in each, unsigned, `step` words apart, and a scale for each column (room for whole vectors). */
WIDE_INLINE void columns_as_factor(const float *x, int64_t step, int64_t count, int64_t columns, int64_t words,
                                   float *to, float *scales, const int shares) {
    inverses_of(x, step, count, columns, MOST(shares), scales);
    for (int64_t w = 0; w < words; w++)
        for (int64_t i = 0; i < columns; i += 16) {
            __m512 inverse = _mm512_loadu_ps(scales + i);
            __m512i four[4];
            for (int64_t n = 0; n < 4; n++) {
                __mmask16 mask = 4 * w + n < count ? first_of(columns - i) : 0;
                four[n] = unsigned_bytes(_mm512_maskz_loadu_ps(mask, x + (4 * w + n) * step + i), inverse, shares);
                four[n] = _mm512_maskz_mov_epi32(mask, four[n]); /* what is beyond the sum is multiplied with 0 */
            }
            _mm512_mask_storeu_ps(to + w * step + i, first_of(columns - i), (__m512)four_as_words(four));
        }
    inverted(scales, columns);
}

/* y (count, columns) = rows times the panels, whose sums are over `g`; with a bias, or NULL, and ReLU. */
static WIDE __attribute__((unused)) void multiply_rows(const uint8_t *rows, const float *scales, grouping g,
                                                       const float *panels, float *y, int64_t y_step, int64_t count,
                                                       int64_t columns, const float *bias, int relu) {
    int64_t step = 4 * g.groups * g.words;
    for (int64_t k = 0; k < g.groups; k++) {
        int last = k == g.groups - 1;
        product_of_group(rows + k * 4 * g.words, step, 4, scales + k, g.groups, panels + k * (HEAD + g.words * PANEL),
                         g, y, y_step, count, columns, (sum_of_groups){!k, last && relu, last ? bias : NULL});
    }
}

#endif
