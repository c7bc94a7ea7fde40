/* Matrix products for one core with AVX-512 and its int8 instructions (Intel from Ice Lake, AMD from Zen 4 on).
 *
 * A matrix is laid out once in panels of 32 outputs, so that a product reads it from its beginning to its end.
 * Twelve rows of x are multiplied with a panel at a time; their 24 vectors of sums stay in registers (Goto and
 * van de Geijn 2008). A row's sums are taken in the same order whatever rows are beside it, so its result
 * does not depend on them.
 */
#ifndef NMT_PRODUCTS_H
#define NMT_PRODUCTS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define WIDE_INLINE static inline __attribute__((always_inline)) WIDE
#if defined(__clang__)
#define NOT_COPIED
#else
#define NOT_COPIED __attribute__((noclone)) /* for constants it is called with: nothing gained, long to compile */
#endif
#define PANEL 32 /* outputs: nmt/products.py lays matrices out */
#define TILE 12  /* rows */
#define ROWS _Pragma("GCC unroll 12") for (int r = 0; r < rows; r++)

typedef float floats __attribute__((vector_size(64)));
typedef int32_t integers __attribute__((vector_size(64)));

/* y = x W' + b, for W of (outputs, inputs). `nmt/products.py: _Matrix` is the same. */
typedef struct {
    const void *panels;     /* float32 (outputs / 32, inputs, 32), or int8 (outputs / 32, inputs / 4, 32, 4) */
    const float *bias;      /* padded to whole panels, as what follows; or NULL */
    const float *scales;    /* of int8, of each output; NULL: float32 */
    const int32_t *offsets; /* of int8: -128 * sum of the output's weights */
    int64_t inputs, outputs; /* int8: inputs are padded to a multiple of 4 */
    int64_t width;          /* inputs without padding */
} nmt_matrix;

enum { ADD = 1, RELU = 2 }; /* to what stands in y; max(0, y) */

/* The compiler may order sums and products anew (-ffast-math), but not across this: the order must not depend on
 * the number of rows. */
#define AS_WRITTEN(x) __asm__("" : "+v"(x))

/* The larger of both; where x is no number neither is this, which depends on the order of the operands. */
WIDE_INLINE __m512 at_least(float least, __m512 x) {
    __m512 y;
    __asm__("vmaxps %1, %2, %0" : "=v"(y) : "v"(x), "v"(_mm512_set1_ps(least)));
    return y;
}

/* As `exponential` in kernels.h, with instructions of this processor. */
WIDE_INLINE __m512 exponentials(__m512 x) {
    x = at_least(-87.0f, x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.9875691500e-4f), r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

WIDE_INLINE void finish(float *y, __m512 sum, const float *bias, int todo, __mmask16 mask) {
    AS_WRITTEN(sum);
    if (bias) sum = _mm512_add_ps(sum, _mm512_loadu_ps(bias));
    AS_WRITTEN(sum);
    if (todo & ADD) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
    if (todo & RELU) sum = at_least(0.0f, sum);
    _mm512_mask_storeu_ps(y, mask, sum);
}

WIDE_INLINE void tile_of_floats(const nmt_matrix *w, int64_t at, const float *x, int64_t x_step, float *y,
                                int64_t y_step, int todo, __mmask16 low, __mmask16 high, const int rows) {
    const float *panel = (const float *)w->panels + at * w->inputs;
    floats sums[TILE][2];
    ROWS sums[r][0] = sums[r][1] = (floats){0};
    for (int64_t i = 0; i < w->inputs; i++, panel += PANEL) {
        floats first = *(const floats *)panel, second = *(const floats *)(panel + 16);
        ROWS {
            __m512 factor = _mm512_set1_ps(x[r * x_step + i]);
            sums[r][0] = (floats)_mm512_fmadd_ps(factor, (__m512)first, (__m512)sums[r][0]);
            sums[r][1] = (floats)_mm512_fmadd_ps(factor, (__m512)second, (__m512)sums[r][1]);
        }
    }
    const float *bias = w->bias ? w->bias + at : NULL;
    ROWS {
        finish(y + r * y_step, (__m512)sums[r][0], bias, todo, low);
        finish(y + r * y_step + 16, (__m512)sums[r][1], bias ? bias + 16 : NULL, todo, high);
    }
}

/* The instruction multiplies unsigned with signed bytes: x is 128 more than it should be, `offsets` less. */
WIDE_INLINE void tile_of_bytes(const nmt_matrix *w, int64_t at, const uint8_t *x, const float *x_scales,
                               float *y, int64_t y_step, int todo, __mmask16 low, __mmask16 high,
                               const int rows) {
    const int8_t *panel = (const int8_t *)w->panels + at * w->inputs;
    integers sums[TILE][2];
    ROWS {
        sums[r][0] = (integers)_mm512_loadu_si512(w->offsets + at);
        sums[r][1] = (integers)_mm512_loadu_si512(w->offsets + at + 16);
    }
    for (int64_t i = 0; i < w->inputs; i += 4, panel += 4 * PANEL) {
        __m512i first = _mm512_loadu_si512(panel), second = _mm512_loadu_si512(panel + 64);
        ROWS {
            int32_t four;
            memcpy(&four, x + r * w->inputs + i, 4);
            __m512i factor = _mm512_set1_epi32(four);
            sums[r][0] = (integers)_mm512_dpbusd_epi32((__m512i)sums[r][0], factor, first);
            sums[r][1] = (integers)_mm512_dpbusd_epi32((__m512i)sums[r][1], factor, second);
        }
    }
    const float *bias = w->bias ? w->bias + at : NULL;
    __m512 low_scales = _mm512_loadu_ps(w->scales + at), high_scales = _mm512_loadu_ps(w->scales + at + 16);
    ROWS {
        __m512 first = _mm512_mul_ps(_mm512_set1_ps(x_scales[r]), low_scales);
        __m512 second = _mm512_mul_ps(_mm512_set1_ps(x_scales[r]), high_scales);
        AS_WRITTEN(first);
        AS_WRITTEN(second);
        first = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums[r][0]), first);
        second = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums[r][1]), second);
        finish(y + r * y_step, first, bias, todo, low);
        finish(y + r * y_step + 16, second, bias ? bias + 16 : NULL, todo, high);
    }
}

/* A row on a scale of its own, 127 being its largest entry; 128 more, to be unsigned. `to` is padded. */
WIDE_INLINE float row_as_bytes(const float *x, int64_t width, int64_t padded, uint8_t *to) {
    float most = largest_size(x, width);
    float inverse = 127.0f / most;
    for (int64_t i = 0; i < width; i++) {
        float y = x[i] * inverse;
        to[i] = (uint8_t)((int32_t)(y + (y < 0.0f ? -0.5f : 0.5f)) + 128);
    }
    for (int64_t i = width; i < padded; i++) to[i] = 128;
    return most / 127.0f;
}

#define CASE(n, call) \
    case n: { enum { rows = n }; call; break; }
#define SOME_ROWS(count, call) \
    switch (count) { \
        CASE(1, call) CASE(2, call) CASE(3, call) CASE(4, call) CASE(5, call) CASE(6, call) \
        CASE(7, call) CASE(8, call) CASE(9, call) CASE(10, call) CASE(11, call) CASE(12, call) \
    }

/* y (count, outputs) = x (count, width) times the matrix; for int8 `room` has rows as bytes and their
 * scales: count * (inputs + 4) bytes, and 64. */
static WIDE NOT_COPIED __attribute__((noinline, unused)) void multiply(const nmt_matrix *w, const float *x, int64_t count,
                                                            int64_t x_step, float *y, int64_t y_step, int todo,
                                                            uint8_t *room) {
    float *x_scales = (float *)room;
    uint8_t *bytes = room + 4 * count;
    if (w->scales)
        for (int64_t n = 0; n < count; n++)
            x_scales[n] = row_as_bytes(x + n * x_step, w->width, w->inputs, bytes + n * w->inputs);
    for (int64_t at = 0; at < w->outputs; at += PANEL) {
        int64_t left = w->outputs - at;
        __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1);
        __mmask16 high = left >= 32 ? 0xffff : left <= 16 ? 0 : (__mmask16)((1 << (left - 16)) - 1);
        for (int64_t n = 0; n < count; n += TILE) {
            int64_t some = count - n < TILE ? count - n : TILE;
            float *to = y + n * y_step + at;
            if (w->scales)
                SOME_ROWS(some, tile_of_bytes(w, at, bytes + n * w->inputs, x_scales + n, to, y_step, todo,
                                              low, high, rows))
            else
                SOME_ROWS(some, tile_of_floats(w, at, x + n * x_step, x_step, to, y_step, todo, low, high, rows))
        }
    }
}

#endif
