/* Dropout in one pass, for cores with AVX-512; `nmt/models/dropout.py` calls it. */

#include "pool.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include "products.h"

#define SPAN 16384 /* numbers of a task */

/* y = add + (x * scale where kept, else 0); element i is kept or not by a hash of (seed, i), so that nothing need be
 * remembered for the gradient. `nmt/models/dropout.py: _Dropout` is the same. */
typedef struct {
    const float *x, *add; /* add: or NULL */
    float *y;
    int64_t count;
    uint64_t seed;
    int64_t threshold; /* of 2^16: how many of them drop */
    int64_t threads;
    float scale;
} nmt_dropout_call;

/* A bijection of 32 bits in which each depends on all (Wellons 2018, "lowbias32"), the seed going in twice. */
WIDE_INLINE __m512i hashed(__m512i x, __m512i low, __m512i high) {
    x = _mm512_xor_si512(x, low);
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7feb352d));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_add_epi32(x, high);
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32((int)0x846ca68bu));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

static WIDE void drop(void *shared, int64_t task, int64_t worker) {
    (void)worker;
    const nmt_dropout_call *d = shared;
    __m512i low = _mm512_set1_epi32((int)(uint32_t)d->seed), high = _mm512_set1_epi32((int)(uint32_t)(d->seed >> 32));
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i threshold = _mm512_set1_epi32((int)d->threshold);
    __m512 scale = _mm512_set1_ps(d->scale);
    int64_t end = (task + 1) * SPAN < d->count ? (task + 1) * SPAN : d->count;
    for (int64_t first = task * SPAN; first < end; first += 32) {
        /* One hash serves two elements, 16 bits each. */
        __m512i bits = hashed(_mm512_add_epi32(lanes, _mm512_set1_epi32((int)(first / 2))), low, high);
        for (int half = 0; half < 2; half++) {
            int64_t at = first + 16 * half, left = end - at;
            if (left <= 0) break;
            __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1 << left) - 1);
            __m512i level = half ? _mm512_srli_epi32(bits, 16) : _mm512_and_si512(bits, _mm512_set1_epi32(0xffff));
            __mmask16 kept = mask & _mm512_cmpge_epi32_mask(level, threshold);
            __m512 y = _mm512_mul_ps(_mm512_maskz_loadu_ps(kept, d->x + at), scale);
            if (d->add) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, d->add + at));
            _mm512_mask_storeu_ps(d->y + at, mask, y);
        }
    }
}

void nmt_dropout(const nmt_dropout_call *d) { nmt_run(drop, (void *)d, (d->count + SPAN - 1) / SPAN, d->threads); }

#endif
