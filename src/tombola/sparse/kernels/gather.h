// Examples are rows; the kernels want one row for each feature. Turning a block of 16 x 16 around in registers.
#pragma once

#include <algorithm>

#include "vector.h"

namespace tombola {

// to[j][i] = rows[i][j]
inline void turn_block(const float* const* rows, float* const* to) {
#if defined(__AVX512F__)
  __m512 r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(rows[i]);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 low = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), high = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    const __m512 low2 = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    const __m512 high2 = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    _mm512_storeu_ps(to[i], _mm512_shuffle_f32x4(low, low2, 0x88));
    _mm512_storeu_ps(to[i + 4], _mm512_shuffle_f32x4(high, high2, 0x88));
    _mm512_storeu_ps(to[i + 8], _mm512_shuffle_f32x4(low, low2, 0xdd));
    _mm512_storeu_ps(to[i + 12], _mm512_shuffle_f32x4(high, high2, 0xdd));
  }
#else
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) to[j][i] = rows[i][j];
  }
#endif
}

struct Examples {
  const float* first;    // one row for each example
  int64_t stride;        // floats from one to the next
  const int64_t* which;  // their numbers, or null for the first ones
  int32_t count;
  int32_t features;

  const float* row(int i) const { return first + stride * (which ? which[i] : i); }
};

// Turns the features from `f` on of sixteen examples around.
inline void gather_block(const float* const* examples, int f, const int32_t* target, float* out, int batch) {
  alignas(64) float nowhere[kLanes];
  const float* rows[kLanes];
  float* to[kLanes];
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) {
    rows[lane] = examples[lane] + f;
    to[lane] = target[f + lane] >= 0 ? out + int64_t(target[f + lane]) * batch : nowhere;
  }
  turn_block(rows, to);
}

// Sixteen examples; beyond the last one it is repeated.
struct Sixteen {
  const float* row[kLanes];

  Sixteen(const Examples& examples, int first) {
    for (int lane = 0; lane < kLanes; ++lane) row[lane] = examples.row(std::min(first + lane, examples.count - 1));
  }

  void fetch(int f) const {
    for (int lane = 0; lane < kLanes; ++lane) __builtin_prefetch(row[lane] + f, 0, 2);
  }
};

// out[target[f], i] = examples[i, f]; a feature whose target is negative is left out; lanes beyond the last example
// repeat it.
inline void gather(const Examples& examples, const int32_t* target, float* out, int batch) {
  // Examples lie anywhere in memory; so far ahead of the turning their lines are asked for.
  constexpr int kAhead = 16 * kLanes;
  const int whole = examples.features / kLanes * kLanes, rest = examples.features - whole;
  Sixteen now(examples, 0);
  for (int f = 0; f < std::min(kAhead, whole); f += kLanes) now.fetch(f);
  for (int i = 0; i < batch; i += kLanes) {
    const Sixteen next(examples, i + kLanes);
    for (int f = 0; f < whole; f += kLanes) {
      if (f + kAhead < whole) {
        now.fetch(f + kAhead);
      } else if (i + kLanes < batch && f + kAhead - whole < whole) {
        next.fetch(f + kAhead - whole);
      }
      gather_block(now.row, f, target, out + i, batch);
    }
    // The last example ends where its row does: nothing beyond may be read.
    for (int f = whole; f < whole + rest; ++f) {
      if (target[f] < 0) continue;
      for (int lane = 0; lane < kLanes; ++lane) out[int64_t(target[f]) * batch + i + lane] = now.row[lane][f];
    }
    now = next;
  }
}

// The other way round, for the gradient of dense layers: one row for each example, cut into panels of `panel` features,
// [panel][example][feature of the panel]. `features` is padded and `in` has as many rows.
inline void turn_into_panels(const float* in, int features, int panel, int examples, int batch, float* out) {
  alignas(64) float nowhere[kLanes];
  for (int first = 0; first < features; first += panel) {
    const int width = features - first < panel ? features - first : panel;
    float* part = out + int64_t(first) * examples;
    for (int f = 0; f < width; f += kLanes) {
      for (int i = 0; i < examples; i += kLanes) {
        const float* rows[kLanes];
        float* to[kLanes];
        for (int j = 0; j < kLanes; ++j) {
          rows[j] = in + int64_t(first + f + j) * batch + i;
          to[j] = i + j < examples ? part + int64_t(i + j) * width + f : nowhere;
        }
        turn_block(rows, to);
      }
    }
  }
}

}  // namespace tombola
