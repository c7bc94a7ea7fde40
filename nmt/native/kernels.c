/* Inner loops of translation on a CPU, for one core each; `nmt/kernels.py` calls them. No Python in here.
 *
 * All numbers are float32, rows are contiguous. The compiler vectorises; every function comes in several
 * versions, for the widest registers the processor has.
 */

#include "kernels.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VERSIONS
#endif

/* Self-attention of one more token. Row n is hypothesis place[n] = b * hypotheses + k. Its query, key and
 * value are projected[n] (3 * heads * width); key and value are written to the cache (B, capacity, 2 * heads *
 * width), slot length[b] * hypotheses + k, which becomes its ancestor number length[b]. */
VERSIONS void nmt_attend_to_prefix(const float *projected, const int64_t *place, int64_t rows,
                                   int64_t hypotheses, const int64_t *length, float *cache, int64_t capacity,
                                   int32_t *ancestors, int64_t most, int64_t heads, int64_t width, float scale,
                                   float *scores, float *context) {
    int64_t model = heads * width;
    for (int64_t n = 0; n < rows; n++) {
        int64_t sentence = place[n] / hypotheses, used = length[sentence];
        int32_t slot = (int32_t)(used * hypotheses + place[n] % hypotheses);
        float *own = cache + sentence * capacity * 2 * model;
        int32_t *mine = ancestors + place[n] * most;
        memcpy(own + (int64_t)slot * 2 * model, projected + n * 3 * model + model, 2 * model * sizeof(float));
        mine[used] = slot;
        attend(projected + n * 3 * model, own, own + model, mine, 2 * model, used + 1, heads, width, scale,
                   scores, context + n * model);
    }
}

/* Attention over the source: the first count[b] of the keys and values (B, positions, 2 * heads * width). */
VERSIONS void nmt_attend_to_source(const float *query, const int64_t *place, int64_t rows, int64_t hypotheses,
                                   const int64_t *count, const float *memory, int64_t positions, int64_t heads,
                                   int64_t width, float scale, float *scores, float *context) {
    int64_t model = heads * width;
    for (int64_t n = 0; n < rows; n++) {
        int64_t sentence = place[n] / hypotheses;
        const float *own = memory + sentence * positions * 2 * model;
        attend(query + n * model, own, own + model, NULL, 2 * model, count[sentence], heads, width, scale,
                   scores, context + n * model);
    }
}

/* The first used[n] blocks of row rows[n] of one buffer become those of row places[n] of another, or of the same
 * one where neither of rows and places falls and no place is above its row. Sizes are in bytes. */
void nmt_move_rows(const char *from, int64_t from_row, char *into, int64_t into_row, const int64_t *rows,
                   const int64_t *places, const int64_t *used, int64_t count, int64_t block) {
    for (int64_t n = 0; n < count; n++) {
        const char *source = from + rows[n] * from_row;
        char *target = into + places[n] * into_row;
        if (source != target) memmove(target, source, used[n] * block);
    }
}

/* tanh(x), relative error below 1e-6 where it matters: (1 - t) / (1 + t) with t = exp(-2 |x|). */
INLINE float hyperbolic_tangent(float x) {
    float size = x < 0.0f ? -x : x, t = exponential(-2.0f * size);
    float y = (1.0f - t) / (1.0f + t);
    return x < 0.0f ? -y : y;
}

/* Additive attention: e_j = energy' tanh(query + keys_j) for the first count[b] of the keys (B, positions,
 * width); weights (N, positions), 0 beyond; context, the sum of the values (B, positions, value_width). Row n is
 * of sentence n / queries. */
VERSIONS void nmt_attend_additively(const float *query, int64_t rows, int64_t queries, const int64_t *count,
                                    const float *keys, const float *values, int64_t positions, int64_t width,
                                    int64_t value_width, const float *energy, float *weights, float *context) {
    for (int64_t n = 0; n < rows; n++) {
        int64_t sentence = n / queries, most = count[sentence];
        const float *q = query + n * width, *own = keys + sentence * positions * width;
        float *e = weights + n * positions, *c = context + n * value_width, largest = -FLT_MAX, total = 0.0f;
        for (int64_t j = 0; j < most; j++) {
            const float *k = own + j * width;
            float sum = 0.0f;
            for (int64_t i = 0; i < width; i++) sum += energy[i] * hyperbolic_tangent(q[i] + k[i]);
            e[j] = sum;
            largest = sum > largest ? sum : largest;
        }
        for (int64_t j = 0; j < most; j++) {
            e[j] = exponential(e[j] - largest);
            total += e[j];
        }
        for (int64_t i = 0; i < value_width; i++) c[i] = 0.0f;
        for (int64_t j = 0; j < positions; j++) {
            e[j] = j < most ? e[j] / total : 0.0f;
            if (j >= most) continue;
            const float *v = values + (sentence * positions + j) * value_width;
            float weight = e[j];
            for (int64_t i = 0; i < value_width; i++) c[i] += weight * v[i];
        }
    }
}

/* Whether one of the numbers is none: by its bits, because the compiler takes it for granted (-ffast-math). */
INLINE int has_nan(const float *x, int64_t count) {
    uint32_t worst = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffffu;
        worst = bits > worst ? bits : worst;
    }
    return worst > 0x7f800000u;
}

/* The largest score of each row, and sum_v exp(scores[n, v] - largest); of what is no number, no number. */
VERSIONS void nmt_largest_and_sum(const float *scores, int64_t rows, int64_t vocabulary, float *largest,
                                  float *sums) {
    for (int64_t n = 0; n < rows; n++) {
        const float *row = scores + n * vocabulary;
        float most = -FLT_MAX, sum = 0.0f;
        for (int64_t v = 0; v < vocabulary; v++) most = row[v] > most ? row[v] : most;
        for (int64_t v = 0; v < vocabulary; v++) sum += exponential(row[v] - most);
        if (has_nan(row, vocabulary)) {
            uint32_t bits = 0x7fc00000u;
            memcpy(&sum, &bits, 4);
        }
        largest[n] = most;
        sums[n] = sum;
    }
}

/* The k largest of each row, largest first; among equals the first. */
VERSIONS void nmt_top_k(const float *scores, int64_t rows, int64_t vocabulary, int64_t k, float *best,
                        int64_t *token) {
    for (int64_t n = 0; n < rows; n++) {
        const float *row = scores + n * vocabulary;
        float *b = best + n * k;
        int64_t *t = token + n * k, found = 0;
        for (int64_t start = 0; start < vocabulary; start += 64) {
            int64_t end = start + 64 < vocabulary ? start + 64 : vocabulary;
            float most = row[start];
            for (int64_t v = start; v < end; v++) most = row[v] > most ? row[v] : most;
            if (found == k && most <= b[k - 1]) continue; /* nearly always */
            for (int64_t v = start; v < end; v++) {
                if (found == k && row[v] <= b[k - 1]) continue;
                int64_t place = found < k ? found++ : k - 1;
                for (; place > 0 && b[place - 1] < row[v]; place--) {
                    b[place] = b[place - 1];
                    t[place] = t[place - 1];
                }
                b[place] = row[v];
                t[place] = v;
            }
        }
    }
}

/* Each row on a scale of its own, 127 being its largest entry: x[n, i] is near q[n, i] * scale[n]. */
VERSIONS void nmt_quantize(const float *x, int64_t rows, int64_t width, int8_t *q, float *scale) {
    for (int64_t n = 0; n < rows; n++) {
        const float *row = x + n * width;
        int8_t *to = q + n * width;
        float most = largest_size(row, width);
        float inverse = 127.0f / most;
        for (int64_t i = 0; i < width; i++) {
            float y = row[i] * inverse;
            to[i] = (int8_t)(int32_t)(y + (y < 0.0f ? -0.5f : 0.5f));
        }
        scale[n] = most / 127.0f;
    }
}

/* product[n, o] * row_scale[n] * column_scale[o] + bias[o]; without a bias NULL. */
VERSIONS void nmt_rescale(const int32_t *product, int64_t rows, int64_t width, const float *row_scale,
                          const float *column_scale, const float *bias, float *y) {
    for (int64_t n = 0; n < rows; n++) {
        const int32_t *from = product + n * width;
        float *to = y + n * width, scale = row_scale[n];
        if (bias)
            for (int64_t o = 0; o < width; o++) to[o] = (float)from[o] * (scale * column_scale[o]) + bias[o];
        else
            for (int64_t o = 0; o < width; o++) to[o] = (float)from[o] * (scale * column_scale[o]);
    }
}
