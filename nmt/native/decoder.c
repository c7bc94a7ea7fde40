/* A step of a Transformer's decoder, and what comes of it: the best next tokens. For one core with AVX-512;
 * `nmt/products.py` calls it.
 *
 * Hypotheses go through all layers in blocks of rows, so that what passes from one operation to the next stays
 * in the cache of the core. All numbers but int8 matrices are float32.
 */

#include "kernels.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <math.h>

#include "products.h"

#define BLOCK 192   /* rows, at most: whole tiles */
#define APART 16   /* numbers between two rows, lest all rows of a tile fall on the same lines of the cache */
#define SPAN 64     /* tokens whose largest score is kept, to look for the best among few */
#define OUTPUTS 512 /* tokens scored at a time: 192 x 512 float32 are 400 kB */

/* LayerNorm (Ba et al. 2016), or without bias RMSNorm (Zhang and Sennrich 2019); without weight nothing. */
typedef struct {
    const float *weight, *bias;
    float epsilon;
} nmt_norm;

/* `nmt/products.py: _Layer` is the same. */
typedef struct {
    nmt_matrix self_input, self_output, cross_query, cross_output, inner, outer;
    nmt_norm self_norm, cross_norm, feed_norm;
} nmt_layer;

/* Whether this processor has the instructions. */
int64_t nmt_can_multiply(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

/* Bytes that `nmt_multiply` needs. */
int64_t nmt_multiply_room(int64_t inputs) { return BLOCK * (4 * (inputs + APART) + inputs + 8) + 256; }

/* y = x W' + b, rows contiguous. */
WIDE void nmt_multiply(const nmt_matrix *w, const float *x, int64_t rows, float *y, float *room) {
    int64_t step = w->width, crowded = !w->scales && step >= 512 && step % 128 == 0;
    uint8_t *bytes = (uint8_t *)(room + BLOCK * (w->inputs + APART));
    for (int64_t n = 0; n < rows; n += BLOCK) {
        int64_t some = rows - n < BLOCK ? rows - n : BLOCK;
        const float *from = x + n * step;
        if (crowded) /* see APART */
            for (int64_t i = 0; i < some; i++) memcpy(room + i * (step + APART), from + i * step, step * sizeof(float));
        multiply(w, crowded ? room : from, some, crowded ? step + APART : step, y + n * w->outputs, w->outputs, 0,
                 bytes);
    }
}

WIDE_INLINE void normalize(const nmt_norm *norm, const float *x, int64_t rows, int64_t width, float *y,
                           int64_t y_step) {
    for (int64_t n = 0; n < rows; n++) {
        const float *from = x + n * width;
        float *to = y + n * y_step, mean = 0.0f, squares = 0.0f;
        if (norm->bias) {
            for (int64_t i = 0; i < width; i++) mean += from[i];
            mean /= (float)width;
        }
        for (int64_t i = 0; i < width; i++) squares += (from[i] - mean) * (from[i] - mean);
        float scale = 1.0f / sqrtf(squares / (float)width + norm->epsilon);
        if (norm->bias)
            for (int64_t i = 0; i < width; i++) to[i] = (from[i] - mean) * scale * norm->weight[i] + norm->bias[i];
        else
            for (int64_t i = 0; i < width; i++) to[i] = from[i] * scale * norm->weight[i];
    }
}

/* What all rows of a call share. */
typedef struct {
    int64_t width, feed_width, heads, hypotheses;
    const int64_t *place; /* of row n: b * hypotheses + k */
    const int64_t *length; /* of each sentence: tokens before this one */
    int64_t capacity;      /* slots of the cache */
    int32_t *ancestors;    /* (B, K, most): slots of each hypothesis's tokens */
    int64_t most;
    const int64_t *count; /* of each sentence: source tokens */
    int64_t positions;    /* of the memory */
    int64_t pre_norm;
    int64_t block; /* rows at a time */
} nmt_step;

/* Room for a block. */
typedef struct {
    float *entered, *projected, *context, *inner, *scores;
    int64_t step; /* between the scores of two heads */
    uint8_t *bytes;
} rooms;

#define GROUP 8 /* vectors of 16 that stay in registers: of one or several heads */

/* Attention of one query over the heads of a group, each of `vectors` x 16; see `attend_head` in kernels.h. A key
 * is read from its beginning to its end. `step`: between the scores of two heads. */
WIDE_INLINE void attend_group(const float *query, const float *keys, const float *values, const int32_t *slots,
                              int64_t stride, int64_t count, int64_t step, float *scores, float *context,
                              const int vectors) {
    const float scale = 1.0f / sqrtf(16.0f * (float)vectors);
    floats held[GROUP];
    for (int i = 0; i < GROUP; i++) held[i] = (floats)_mm512_loadu_ps(query + 16 * i) * scale;
    for (int64_t j = 0; j < count; j++) {
        const float *key = keys + stride * (slots ? slots[j] : j);
        for (int h = 0; h < GROUP / vectors; h++) {
            floats sum = (floats){0};
            for (int i = 0; i < vectors; i++)
                sum += held[h * vectors + i] * (floats)_mm512_loadu_ps(key + 16 * (h * vectors + i));
            scores[h * step + j] = _mm512_reduce_add_ps((__m512)sum);
        }
    }
    for (int h = 0; h < GROUP / vectors; h++) {
        float *own = scores + h * step, largest = -FLT_MAX, total = 0.0f;
        for (int64_t j = 0; j < count; j++) largest = own[j] > largest ? own[j] : largest;
        for (int64_t j = 0; j < count; j++) {
            own[j] = exponential(own[j] - largest);
            total += own[j];
        }
        float share = 1.0f / total;
        for (int64_t j = 0; j < count; j++) own[j] *= share;
    }
    for (int i = 0; i < GROUP; i++) held[i] = (floats){0};
    for (int64_t j = 0; j < count; j++) {
        const float *value = values + stride * (slots ? slots[j] : j);
        for (int h = 0; h < GROUP / vectors; h++)
            for (int i = h * vectors; i < (h + 1) * vectors; i++)
                held[i] += scores[h * step + j] * (floats)_mm512_loadu_ps(value + 16 * i);
    }
    for (int i = 0; i < GROUP; i++) _mm512_storeu_ps(context + 16 * i, (__m512)held[i]);
}

/* Multi-head attention of one query, as `attend` in kernels.h; `scores` is room for 8 * step numbers. */
WIDE __attribute__((noinline)) static void attend_widely(const float *query, const float *keys, const float *values,
                                                         const int32_t *slots, int64_t stride, int64_t count,
                                                         int64_t heads, int64_t width, int64_t step,
                                                         float *scores, float *context) {
    int64_t model = heads * width;
    if (model % (16 * GROUP) || 16 * GROUP % width || width % 16) {
        attend(query, keys, values, slots, stride, count, heads, width, 1.0f / sqrtf((float)width), scores, context);
        return;
    }
    for (int64_t at = 0; at < model; at += 16 * GROUP) {
#define CALL(vectors) \
    attend_group(query + at, keys + at, values + at, slots, stride, count, step, scores, context + at, vectors)
        if (width == 32) CALL(2);
        else if (width == 64) CALL(4);
        else if (width == 16) CALL(1);
        else CALL(8);
    }
}

/* Keys and values go to the slots `length * K + k` of the cache (B, capacity, 2 * width). */
WIDE_INLINE void attend_to_prefix(const nmt_step *s, int64_t first, int64_t rows, float *cache, const rooms *r) {
    int64_t width = s->width;
    for (int64_t n = 0; n < rows; n++) {
        int64_t place = s->place[first + n], sentence = place / s->hypotheses, used = s->length[sentence];
        int32_t slot = (int32_t)(used * s->hypotheses + place % s->hypotheses);
        float *own = cache + sentence * s->capacity * 2 * width;
        int32_t *mine = s->ancestors + place * s->most;
        memcpy(own + (int64_t)slot * 2 * width, r->projected + n * (3 * width + APART) + width, 2 * width * sizeof(float));
        mine[used] = slot;
        attend_widely(r->projected + n * (3 * width + APART), own, own + width, mine, 2 * width, used + 1, s->heads,
                      width / s->heads, r->step, r->scores, r->context + n * (width + APART));
    }
}

WIDE_INLINE void attend_to_source(const nmt_step *s, int64_t first, int64_t rows, const float *memory,
                                  const rooms *r) {
    int64_t width = s->width;
    for (int64_t n = 0; n < rows; n++) {
        int64_t sentence = s->place[first + n] / s->hypotheses;
        const float *own = memory + sentence * s->positions * 2 * width;
        attend_widely(r->projected + n * (width + APART), own, own + width, NULL, 2 * width, s->count[sentence], s->heads,
                      width / s->heads, r->step, r->scores, r->context + n * (width + APART));
    }
}

/* Bytes that `nmt_decode` needs. */
int64_t nmt_decode_room(int64_t block, int64_t width, int64_t feed_width, int64_t longest) {
    int64_t widest = width > feed_width ? width : feed_width;
    return 4 * (block * (5 * width + feed_width + 4 * APART) + GROUP * (longest + 16)) + block * (widest + 8) + 256;
}

/* One token further: x (rows, width) are embeddings and become hidden states. `caches` and `memories`: of each
 * layer. */
WIDE void nmt_decode(const nmt_layer *layers, int64_t count, const nmt_norm *last, const nmt_step *s, float *x,
                     int64_t rows, float *const *caches, const float *const *memories, float *room) {
    int64_t width = s->width, thrice = 3 * width + APART, feed = s->feed_width + APART, once = width + APART;
    rooms r;
    r.entered = room;
    r.projected = r.entered + s->block * once;
    r.context = r.projected + s->block * thrice;
    r.inner = r.context + s->block * once;
    r.scores = r.inner + s->block * feed;
    r.step = s->most > s->positions ? s->most : s->positions;
    r.bytes = (uint8_t *)(r.scores + GROUP * r.step);
    for (int64_t first = 0; first < rows; first += s->block) {
        int64_t some = rows - first < s->block ? rows - first : s->block;
        float *x_block = x + first * width;
        /* A sub-layer reads `from`; its result is added to the block, which is normalised before or after. */
        float *from = s->pre_norm ? r.entered : x_block;
        int64_t step = s->pre_norm ? once : width;
        for (int64_t l = 0; l < count; l++) {
            const nmt_layer *layer = layers + l;
            if (s->pre_norm) normalize(&layer->self_norm, x_block, some, width, from, step);
            multiply(&layer->self_input, from, some, step, r.projected, thrice, 0, r.bytes);
            attend_to_prefix(s, first, some, caches[l], &r);
            multiply(&layer->self_output, r.context, some, once, x_block, width, ADD, r.bytes);
            normalize(s->pre_norm ? &layer->cross_norm : &layer->self_norm, x_block, some, width, from, step);
            multiply(&layer->cross_query, from, some, step, r.projected, once, 0, r.bytes);
            attend_to_source(s, first, some, memories[l], &r);
            multiply(&layer->cross_output, r.context, some, once, x_block, width, ADD, r.bytes);
            normalize(s->pre_norm ? &layer->feed_norm : &layer->cross_norm, x_block, some, width, from, step);
            multiply(&layer->inner, from, some, step, r.inner, feed, RELU, r.bytes);
            multiply(&layer->outer, r.inner, some, feed, x_block, width, ADD, r.bytes);
            if (!s->pre_norm) normalize(&layer->feed_norm, x_block, some, width, x_block, width);
        }
        if (last->weight) normalize(last, x_block, some, width, x_block, width);
    }
}

/* Bytes that `nmt_rank` needs. */
int64_t nmt_rank_room(int64_t width) { return 4 * BLOCK * OUTPUTS + BLOCK * (width + 8) + 256; }

/* `value` at its place among the best so far, largest first; among equals the earlier token. */
WIDE_INLINE int64_t insert(float value, int64_t token, float *best, int64_t *tokens, int64_t found, int64_t k) {
    int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && best[at - 1] < value; at--) {
        best[at] = best[at - 1];
        tokens[at] = tokens[at - 1];
    }
    best[at] = value;
    tokens[at] = token;
    return found;
}

/* sum_v exp(row[v] - most) of whole vectors; what pads the last is far below. */
WIDE_INLINE float sum_of_exponentials(const float *row, int64_t count, float most) {
    __m512 total = _mm512_setzero_ps();
    for (int64_t v = 0; v < count; v += 16)
        total = _mm512_add_ps(total, exponentials(_mm512_sub_ps(_mm512_loadu_ps(row + v), _mm512_set1_ps(most))));
    return _mm512_reduce_add_ps(total);
}

/* Of each row of hidden states (rows, width): log-probabilities of the k best tokens, largest first, and of
 * `end`. Banned tokens (sorted) are not among the best, but count in the sum. Fewer than k: -inf. */
WIDE void nmt_rank(const nmt_matrix *w, const float *hidden, int64_t rows, int64_t end, const int64_t *banned,
                   int64_t banned_count, int64_t k, float *best, int64_t *tokens, float *ending, float *room) {
    uint8_t *bytes = (uint8_t *)(room + BLOCK * OUTPUTS);
    for (int64_t first = 0; first < rows; first += BLOCK) {
        int64_t some = rows - first < BLOCK ? rows - first : BLOCK;
        float largest[BLOCK], sums[BLOCK];
        int64_t found[BLOCK];
        for (int64_t n = 0; n < some; n++) {
            largest[n] = -FLT_MAX;
            sums[n] = 0.0f;
            found[n] = 0;
        }
        int64_t next_banned = 0;
        for (int64_t at = 0; at < w->outputs; at += OUTPUTS) {
            nmt_matrix part = *w;
            part.outputs = w->outputs - at < OUTPUTS ? w->outputs - at : OUTPUTS;
            part.panels = w->scales ? (const void *)((const int8_t *)w->panels + at * w->inputs)
                                    : (const void *)((const float *)w->panels + at * w->inputs);
            if (w->bias) part.bias = w->bias + at;
            if (w->scales) part.scales = w->scales + at;
            if (w->offsets) part.offsets = w->offsets + at;
            multiply(&part, hidden + first * w->width, some, w->width, room, OUTPUTS, 0, bytes);
            int64_t after = next_banned;
            while (after < banned_count && banned[after] < at + part.outputs) after++;
            for (int64_t n = 0; n < some; n++) {
                float *row = room + n * OUTPUTS, *b = best + (first + n) * k, most = largest[n];
                float highs[OUTPUTS / SPAN];
                int64_t *t = tokens + (first + n) * k, known = found[n];
                if (end >= at && end < at + part.outputs) ending[first + n] = row[end - at];
                for (int64_t v = part.outputs; v % SPAN; v++) row[v] = -FLT_MAX;
                for (int64_t start = 0; start < part.outputs; start += SPAN) {
                    float high = -FLT_MAX;
                    for (int64_t v = start; v < start + SPAN; v++) high = row[v] > high ? row[v] : high;
                    highs[start / SPAN] = high;
                    most = high > most ? high : most;
                }
                sums[n] = sums[n] * exponential(largest[n] - most) + sum_of_exponentials(row, part.outputs, most);
                largest[n] = most;
                for (int64_t i = next_banned; i < after; i++) row[banned[i] - at] = -FLT_MAX;
                for (int64_t start = 0; start < part.outputs; start += SPAN) {
                    if (highs[start / SPAN] <= (known == k ? b[k - 1] : -FLT_MAX)) continue; /* nearly always */
                    for (int64_t v = start; v < start + SPAN; v++)
                        if (row[v] > (known == k ? b[k - 1] : -FLT_MAX))
                            known = insert(row[v], at + v, b, t, known, k);
                }
                found[n] = known;
            }
            next_banned = after;
        }
        for (int64_t n = 0; n < some; n++) {
            float total = largest[n] + logf(sums[n]), *b = best + (first + n) * k;
            int finite = is_finite(total) && largest[n] > -FLT_MAX; /* else scores were not numbers */
            for (int64_t i = 0; i < k; i++) {
                if (!finite || i >= found[n]) tokens[(first + n) * k + i] = 0;
                b[i] = finite && i < found[n] ? b[i] - total : -INFINITY;
            }
            ending[first + n] = finite ? ending[first + n] - total : -INFINITY;
        }
    }
}

#else

int64_t nmt_can_multiply(void) { return 0; }

#endif
