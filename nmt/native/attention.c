/* Attention of short sentences and its gradients, for cores with AVX-512; `nmt/short_attention.py` calls them.
 *
 * A head of a sentence is small enough for the cache of a core: keys, values, weights. Nothing is copied from or
 * to a layout of heads: rows of queries, keys and values are read where the projections have left them.
 */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <float.h>
#include <math.h>

#include "kernels.h"
#include "products.h"

/* Numbers of (sentence, position, head) apart; those of a head are neighbours. */
typedef struct {
    float *data;
    int64_t sentence, position, head;
} rows_of_heads;

/* `nmt/short_attention.py: _Attention` is the same. */
typedef struct {
    int64_t sentences, heads, width, queries, keys; /* width: of a head, a multiple of 16 */
    int64_t causal;
    const float *bias; /* (sentences, keys): -inf where no query may look; or NULL */
    rows_of_heads query, key, value, context;
    float *weights; /* (sentences, heads, queries, keys rounded up to 16); or NULL: not kept */
    rows_of_heads context_grad, query_grad, key_grad, value_grad;
    float *room; /* of each thread, `nmt_attention_room` bytes */
    int64_t threads;
} nmt_attention;

#define HIDDEN -1e30f /* a bias below: the weight is 0 */

static int64_t vectors_of(int64_t count) { return (count + 15) / 16; }

/* Bytes that a thread needs: keys or values turned, the gradients of both, some rows of weights. */
int64_t nmt_attention_room(int64_t keys, int64_t width) {
    return 4 * (3 * width + 5) * 16 * vectors_of(keys) + 256;
}

WIDE_INLINE float *row_of(const rows_of_heads *x, int64_t b, int64_t t, int64_t h) {
    return x->data + b * x->sentence + t * x->position + h * x->head;
}

/* (count, width) rows as (width, padded) columns; what pads is 0. */
WIDE_INLINE void turn(const rows_of_heads *x, int64_t b, int64_t h, int64_t count, int64_t width, int64_t padded,
                      float *to) {
    for (int64_t j = 0; j < padded; j++) {
        const float *row = row_of(x, b, j < count ? j : 0, h);
        for (int64_t i = 0; i < width; i++) to[i * padded + j] = j < count ? row[i] : 0.0f;
    }
}

/* Keys that some query of the sentence may look at: those after the last are padding. */
WIDE_INLINE int64_t keys_of(const nmt_attention *a, int64_t b) {
    int64_t count = a->keys;
    if (a->bias)
        while (count > 1 && a->bias[b * a->keys + count - 1] < HIDDEN) count--;
    return count;
}

/* Four queries at a time share what is loaded, and their sums do not wait for each other. Of the last, some may be
 * the same query again: what is written then is written twice, what is added up has weight 0. */
#define GROUP 4
#define QUERIES _Pragma("GCC unroll 4") for (int r = 0; r < GROUP; r++)
#define VECTORS(count) _Pragma("GCC unroll 2") for (int u = 0; u < (count); u++)

/* sums[r] = x_r turned: 16 positions of each of the four rows. */
WIDE_INLINE void scores_of(const float *const *x, const float *turned, int64_t width, int64_t padded, __m512 *sums) {
    floats held[GROUP];
    QUERIES held[r] = (floats){0};
    for (int64_t i = 0; i < width; i++) {
        __m512 column = _mm512_loadu_ps(turned + i * padded);
        QUERIES held[r] = (floats)_mm512_fmadd_ps(_mm512_set1_ps(x[r][i]), column, (__m512)held[r]);
    }
    QUERIES sums[r] = (__m512)held[r];
}

/* to_r = sum_j weights_r[j] rows_j, `vectors` x 16 of the width. */
WIDE_INLINE void weighted_sums(const float *const *weights, const rows_of_heads *rows, int64_t b, int64_t h, int64_t i,
                               int64_t count, float *const *to, const int vectors) {
    floats held[GROUP][2];
    QUERIES VECTORS(vectors) held[r][u] = (floats){0};
    for (int64_t j = 0; j < count; j++) {
        const float *row = row_of(rows, b, j, h) + i;
        VECTORS(vectors) {
            __m512 part = _mm512_loadu_ps(row + 16 * u);
            QUERIES held[r][u] = (floats)_mm512_fmadd_ps(_mm512_set1_ps(weights[r][j]), part, (__m512)held[r][u]);
        }
    }
    QUERIES VECTORS(vectors) _mm512_storeu_ps(to[r] + i + 16 * u, (__m512)held[r][u]);
}

/* rows_j += sum_r weights_r[j] x_r, for j below `count`. */
WIDE_INLINE void add_outer(const float *const *weights, const float *const *x, int64_t width, int64_t i, int64_t count,
                           float *rows, const int vectors) {
    floats held[GROUP][2];
    QUERIES VECTORS(vectors) held[r][u] = (floats)_mm512_loadu_ps(x[r] + i + 16 * u);
    for (int64_t j = 0; j < count; j++)
        VECTORS(vectors) {
            float *to = rows + j * width + i + 16 * u;
            __m512 sum = _mm512_loadu_ps(to);
            QUERIES sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[r][j]), (__m512)held[r][u], sum);
            _mm512_storeu_ps(to, sum);
        }
}

/* Scores of a row, 16 * `vectors` of them, become weights; the first `seen` keys may be looked at. */
WIDE_INLINE void soften(const nmt_attention *a, int64_t b, int64_t seen, int64_t vectors, float *row) {
    __m512 largest = _mm512_set1_ps(-FLT_MAX), total = _mm512_setzero_ps();
    for (int64_t v = 0; v < vectors; v++) {
        int64_t left = seen - 16 * v;
        __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1 << left) - 1);
        if (a->bias) {
            __m512 bias = _mm512_maskz_loadu_ps(mask, a->bias + b * a->keys + 16 * v);
            mask &= _mm512_cmp_ps_mask(bias, _mm512_set1_ps(HIDDEN), _CMP_GE_OQ);
        }
        __m512 x = _mm512_mask_mov_ps(_mm512_set1_ps(-FLT_MAX), mask, _mm512_loadu_ps(row + 16 * v));
        largest = _mm512_max_ps(largest, x);
        _mm512_storeu_ps(row + 16 * v, x);
    }
    float most = _mm512_reduce_max_ps(largest);
    for (int64_t v = 0; v < vectors; v++) {
        __m512 x = _mm512_loadu_ps(row + 16 * v);
        __mmask16 mask = _mm512_cmp_ps_mask(x, _mm512_set1_ps(HIDDEN), _CMP_NLT_UQ); /* and what is no number */
        x = _mm512_maskz_mov_ps(mask, exponentials(_mm512_sub_ps(x, _mm512_set1_ps(most))));
        total = _mm512_add_ps(total, x);
        _mm512_storeu_ps(row + 16 * v, x);
    }
    __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int64_t v = 0; v < vectors; v++)
        _mm512_storeu_ps(row + 16 * v, _mm512_mul_ps(_mm512_loadu_ps(row + 16 * v), share));
}

static WIDE void attend_forward(void *shared, int64_t task, int64_t worker) {
    const nmt_attention *a = shared;
    int64_t b = task / a->heads, h = task % a->heads, width = a->width, stride = 16 * vectors_of(a->keys);
    int64_t count = keys_of(a, b), padded = 16 * vectors_of(count);
    float *turned = a->room + worker * (nmt_attention_room(a->keys, width) / 4);
    float *room = turned + width * padded, scale = 1.0f / sqrtf((float)width);
    turn(&a->key, b, h, count, width, padded, turned);
    for (int64_t t = 0; t < a->queries; t += GROUP) {
        const float *query[GROUP];
        float *weights[GROUP], *context[GROUP];
        int64_t place[GROUP];
        QUERIES {
            place[r] = t + r < a->queries ? t + r : a->queries - 1;
            query[r] = row_of(&a->query, b, place[r], h);
            context[r] = row_of(&a->context, b, place[r], h);
            weights[r] = a->weights ? a->weights + ((b * a->heads + h) * a->queries + place[r]) * stride
                                    : room + r * stride;
        }
        int64_t seen = a->causal && place[GROUP - 1] + 1 < count ? place[GROUP - 1] + 1 : count;
        int64_t vectors = vectors_of(seen);
        for (int64_t v = 0; v < vectors; v++) {
            __m512 sums[GROUP];
            scores_of(query, turned + 16 * v, width, padded, sums);
            QUERIES _mm512_storeu_ps(weights[r] + 16 * v, _mm512_mul_ps(sums[r], _mm512_set1_ps(scale)));
        }
        for (int r = 0; r < GROUP && t + r < a->queries; r++) {
            int64_t own = a->causal && place[r] + 1 < count ? place[r] + 1 : count;
            soften(a, b, own, vectors, weights[r]);
            for (int64_t v = vectors; v < stride / 16; v++) _mm512_storeu_ps(weights[r] + 16 * v, _mm512_setzero_ps());
        }
        QUERIES weights[r] = weights[t + r < a->queries ? r : a->queries - 1 - t];
        if (width % 32)
            for (int64_t i = 0; i < width; i += 16)
                weighted_sums((const float *const *)weights, &a->value, b, h, i, seen, context, 1);
        else
            for (int64_t i = 0; i < width; i += 32)
                weighted_sums((const float *const *)weights, &a->value, b, h, i, seen, context, 2);
    }
}

static WIDE void attend_backward(void *shared, int64_t task, int64_t worker) {
    const nmt_attention *a = shared;
    int64_t b = task / a->heads, h = task % a->heads, width = a->width, stride = 16 * vectors_of(a->keys);
    int64_t count = keys_of(a, b), padded = 16 * vectors_of(count);
    float *turned = a->room + worker * (nmt_attention_room(a->keys, width) / 4), scale = 1.0f / sqrtf((float)width);
    float *key_grad = turned + width * padded, *value_grad = key_grad + padded * width;
    float *room = value_grad + padded * width, *nothing = room + GROUP * stride;
    turn(&a->value, b, h, count, width, padded, turned);
    memset(key_grad, 0, 2 * padded * width * sizeof(float));
    memset(nothing, 0, stride * sizeof(float));
    for (int64_t t = 0; t < a->queries; t += GROUP) {
        const float *query[GROUP], *context_grad[GROUP], *weights[GROUP];
        float *grads[GROUP], *query_grad[GROUP];
        int64_t last = 0;
        QUERIES {
            int64_t place = t + r < a->queries ? t + r : a->queries - 1;
            last = place;
            query[r] = row_of(&a->query, b, place, h);
            context_grad[r] = row_of(&a->context_grad, b, place, h);
            query_grad[r] = row_of(&a->query_grad, b, place, h);
            weights[r] = a->weights + ((b * a->heads + h) * a->queries + place) * stride;
            grads[r] = room + r * stride;
        }
        int64_t seen = a->causal && last + 1 < count ? last + 1 : count, vectors = vectors_of(seen);
        __m512 dots[GROUP];
        QUERIES dots[r] = _mm512_setzero_ps();
        for (int64_t v = 0; v < vectors; v++) {
            __m512 sums[GROUP];
            scores_of(context_grad, turned + 16 * v, width, padded, sums);
            QUERIES {
                dots[r] = _mm512_fmadd_ps(sums[r], _mm512_loadu_ps(weights[r] + 16 * v), dots[r]);
                _mm512_storeu_ps(grads[r] + 16 * v, sums[r]);
            }
        }
        QUERIES {
            __m512 dot = _mm512_set1_ps(_mm512_reduce_add_ps(dots[r]));
            for (int64_t v = 0; v < vectors; v++) {
                __m512 x = _mm512_sub_ps(_mm512_loadu_ps(grads[r] + 16 * v), dot);
                x = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_loadu_ps(weights[r] + 16 * v)), _mm512_set1_ps(scale));
                _mm512_storeu_ps(grads[r] + 16 * v, x);
            }
        }
        const float *own_grads[GROUP], *own_weights[GROUP]; /* a query that is there again adds nothing */
        QUERIES {
            own_grads[r] = t + r < a->queries ? grads[r] : nothing;
            own_weights[r] = t + r < a->queries ? weights[r] : nothing;
        }
        if (width % 32)
            for (int64_t i = 0; i < width; i += 16) {
                weighted_sums((const float *const *)grads, &a->key, b, h, i, seen, query_grad, 1);
                add_outer(own_grads, query, width, i, seen, key_grad, 1);
                add_outer(own_weights, context_grad, width, i, seen, value_grad, 1);
            }
        else
            for (int64_t i = 0; i < width; i += 32) {
                weighted_sums((const float *const *)grads, &a->key, b, h, i, seen, query_grad, 2);
                add_outer(own_grads, query, width, i, seen, key_grad, 2);
                add_outer(own_weights, context_grad, width, i, seen, value_grad, 2);
            }
    }
    for (int64_t j = 0; j < a->keys; j++) {
        float *dk = row_of(&a->key_grad, b, j, h), *dv = row_of(&a->value_grad, b, j, h);
        for (int64_t i = 0; i < width; i++) {
            dk[i] = j < count ? key_grad[j * width + i] : 0.0f;
            dv[i] = j < count ? value_grad[j * width + i] : 0.0f;
        }
    }
}

/* softmax(q k' / sqrt(width) + bias) v. */
void nmt_attention_forward(const nmt_attention *a) {
    nmt_run(attend_forward, (void *)a, a->sentences * a->heads, a->threads);
}

/* Gradients of queries, keys and values from that of the context. */
void nmt_attention_backward(const nmt_attention *a) {
    nmt_run(attend_backward, (void *)a, a->sentences * a->heads, a->threads);
}

#endif
