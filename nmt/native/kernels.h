/* What the inner loops share: exponentials, sizes, and attention of one query. */
#ifndef NMT_KERNELS_H
#define NMT_KERNELS_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#define MOST_WIDTH 256 /* of a head */
#define INLINE static inline __attribute__((always_inline))

/* exp(x) for x <= 0, relative error below 3e-7; below -87 as at -87, 1e-38. 2^n times a polynomial on +-ln(2)/2. */
INLINE float exponential(float x) {
    float clipped = x > -87.0f ? x : -87.0f;
    int32_t whole = (int32_t)(clipped * 1.44269504088896341f - 0.5f); /* to the nearest */
    float n = (float)whole;
    float r = clipped - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* By its bits, because the compiler takes it for granted (-ffast-math). */
INLINE int is_finite(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* Of the largest of a row's entries, or 1e-30. Sizes are compared as integers, in whose order what is no number is above
 * all: a row with one such entry has a scale that is no number. */
INLINE float largest_size(const float *x, int64_t count) {
    float largest = 1e-30f;
    int32_t most;
    memcpy(&most, &largest, 4);
    for (int64_t i = 0; i < count; i++) {
        int32_t size;
        memcpy(&size, x + i, 4);
        size &= 0x7fffffff;
        most = size > most ? size : most;
    }
    memcpy(&largest, &most, 4);
    return largest;
}

/* softmax(q k' / sqrt(width)) v for one query, one head and `count` keys. Key j is at keys + stride * j, or at
 * keys + stride * slots[j]; `scores` is room for count numbers. What is summed up stays in registers. */
INLINE void attend_head(const float *query, const float *keys, const float *values, const int32_t *slots,
                        int64_t stride, int64_t count, int64_t width, float scale, float *scores,
                        float *context) {
    float q[MOST_WIDTH], sums[MOST_WIDTH], largest = -FLT_MAX, total = 0.0f;
    for (int64_t i = 0; i < width; i++) q[i] = query[i] * scale;
    for (int64_t j = 0; j < count; j++) {
        const float *k = keys + stride * (slots ? slots[j] : j);
        float sum = 0.0f;
        for (int64_t i = 0; i < width; i++) sum += q[i] * k[i];
        scores[j] = sum;
    }
    for (int64_t j = 0; j < count; j++) largest = scores[j] > largest ? scores[j] : largest;
    for (int64_t j = 0; j < count; j++) {
        scores[j] = exponential(scores[j] - largest);
        total += scores[j];
    }
    for (int64_t i = 0; i < width; i++) sums[i] = 0.0f;
    for (int64_t j = 0; j < count; j++) {
        const float *v = values + stride * (slots ? slots[j] : j);
        float weight = scores[j];
        for (int64_t i = 0; i < width; i++) sums[i] += weight * v[i];
    }
    for (int64_t i = 0; i < width; i++) context[i] = sums[i] / total;
}

INLINE void attend(const float *query, const float *keys, const float *values, const int32_t *slots,
                   int64_t stride, int64_t count, int64_t heads, int64_t width, float scale, float *scores,
                   float *context) {
    for (int64_t h = 0; h < heads; h++) {
        int64_t at = h * width;
        /* Known widths make straight code of the inner loops. */
        if (width == 32)
            attend_head(query + at, keys + at, values + at, slots, stride, count, 32, scale, scores,
                        context + at);
        else if (width == 64)
            attend_head(query + at, keys + at, values + at, slots, stride, count, 64, scale, scores,
                        context + at);
        else
            attend_head(query + at, keys + at, values + at, slots, stride, count, width, scale, scores,
                        context + at);
    }
}

#endif
