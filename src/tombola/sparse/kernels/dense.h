// A dense matrix, its columns in panels of 64: [panel][row][column of the panel].
//
// One register-blocked product serves the forward pass, the backward pass and the gradient. Each sum is taken in the
// order of its terms, one at a time, as in the sparse kernels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "vector.h"

namespace tombola {

constexpr int kPanel = 64;

struct Dense {
  int32_t outputs, inputs;  // inputs padded to a multiple of 16

  int panels() const { return (inputs + kPanel - 1) / kPanel; }
  int width(int panel) const { return std::min(kPanel, inputs - panel * kPanel); }
  int64_t offset(int panel) const { return int64_t(panel) * kPanel * outputs; }
};

struct Factor {  // element (i, t) is at [i * row + t * term]
  const float* at;
  int64_t row, term;
};

// out[i, j] = (from zero, or from what is there) + sum over t of a[i, t] * b[t, j]; a tile of rows x vectors
template <int rows, int vectors, bool onto>
inline void product_tile(const Factor& a, const float* b, int64_t b_stride, int terms, float* out, int64_t out_stride) {
  Lanes sum[rows][vectors];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) sum[i][j] = onto ? load(out + i * out_stride + kLanes * j) : splat(0);
  }
  const float* factor = a.at;
  if (a.term == 1) {
    // The next tile's factors: a tile is too short for the processor to foresee them.
    for (int i = rows; i < 2 * rows; ++i) {
      for (int t = 0; t < terms; t += kLanes) __builtin_prefetch(factor + i * a.row + t);
    }
  }
  for (int t = 0; t < terms; ++t, factor += a.term, b += b_stride) {
    Lanes wide[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) wide[j] = load(b + kLanes * j);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const Lanes one = splat(factor[i * a.row]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = sum[i][j] + one * wide[j];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) store(out + i * out_stride + kLanes * j, sum[i][j]);
  }
}

// Calls `kernel` with the largest compile-time size that fits, again and again: along rows or along vectors.
template <int most, class Kernel>
inline void in_parts(int count, const Kernel& kernel) {
  int first = 0;
  for (; count - first >= most; first += most) kernel(first, std::integral_constant<int, most>());
  if constexpr (most > 1) {
    if (first < count) in_parts<most - 1>(count - first, [&](int at, auto size) { kernel(first + at, size); });
  }
}

// The whole product; `width`, a multiple of 16, is that of b and out.
template <bool onto>
inline void product(const Factor& a, int rows, const float* b, int64_t b_stride, int terms, float* out,
                    int64_t out_stride, int width) {
  in_parts<kTileVectors>(width / kLanes, [&](int j, auto vectors) {
    in_parts<kTileRows>(rows, [&](int i, auto tile) {
      product_tile<decltype(tile)::value, decltype(vectors)::value, onto>(
          Factor{a.at + i * a.row, a.row, a.term}, b + kLanes * j, b_stride, terms, out + i * out_stride + kLanes * j,
          out_stride);
    });
  });
}

// out = bias + values x in; rows of `in` up to the padded number of inputs exist and the values there are zero.
inline void dense_forward(const Dense& dense, const float* values, const float* bias, const float* in, float* out,
                          int batch) {
  for (int r = 0; r < dense.outputs; ++r) {
    for (int i = 0; i < batch; i += kLanes) store(out + int64_t(r) * batch + i, splat(bias[r]));
  }
  for (int p = 0; p < dense.panels(); ++p) {
    const Factor factor{values + dense.offset(p), dense.width(p), 1};
    product<true>(factor, dense.outputs, in + int64_t(p) * kPanel * batch, batch, dense.width(p), out, batch, batch);
  }
}

// out = transposed values x in
inline void dense_backward(const Dense& dense, const float* values, const float* in, float* out, int batch) {
  for (int p = 0; p < dense.panels(); ++p) {
    const Factor factor{values + dense.offset(p), 1, dense.width(p)};
    product<false>(factor, dense.width(p), in, batch, dense.outputs, out + int64_t(p) * kPanel * batch, batch, batch);
  }
}

// Calls take(first, count, gradient) for consecutive values: sums over the batch of out_gradient x in. `turned` holds
// the inputs with one row for each example, in panels: [panel][example][column of the panel].
template <class Take>
inline void dense_gradient(const Dense& dense, const float* turned, const float* out_gradient, int examples, int batch,
                           const Take& take) {
  alignas(64) float gradient[kTileRows * kPanel];
  for (int p = 0; p < dense.panels(); ++p) {
    const int width = dense.width(p);
    const float* panel = turned + int64_t(p) * kPanel * examples;
    for (int r = 0; r < dense.outputs; r += kTileRows) {
      const int rows = std::min(kTileRows, dense.outputs - r);
      const Factor factor{out_gradient + int64_t(r) * batch, batch, 1};
      product<false>(factor, rows, panel, width, examples, gradient, width, width);
      take(dense.offset(p) + int64_t(r) * width, rows * width, gradient);
    }
  }
}

}  // namespace tombola
