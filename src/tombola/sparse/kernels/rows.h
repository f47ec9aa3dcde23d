// A sparse matrix by rows, the columns cut into blocks that stay in the first cache.
//
// Activations have one row for each feature and the batch along it, so a surviving weight is a stream of multiply-adds
// as wide as the batch. The order of the terms of any sum is that of the columns (or rows), as in the dense kernels.
#pragma once

#include <algorithm>

#include "vector.h"

namespace tombola {

// One way through the matrix: block after block, and in each the lines (rows, or columns for the way back).
struct Lines {
  int32_t count, blocks;
  const int32_t* starts;  // [blocks * count + 1]: where the survivors of each line in each block begin
  const int32_t* across;  // [survivors]: where each survivor is in its line
};

struct Rows {
  Lines forth, back;
  const int32_t* at;  // [survivors]: where those of the way back are in the values, which are in the order of `forth`
};

// Keeps the compiler from working the address out anew in every operand, which takes a quarter longer.
inline __attribute__((always_inline)) void in_register(const float*& address) { __asm__("" : "+r"(address)); }

template <int vectors>
struct Accumulators {
  Lanes lane[vectors];

  __attribute__((always_inline)) void add(float factor, const float* from) {
    const Lanes wide = splat(factor);
    in_register(from);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) lane[j] = lane[j] + wide * load(from + kLanes * j);
  }
  __attribute__((always_inline)) void put(float* to) const {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) store(to + kLanes * j, lane[j]);
  }
  __attribute__((always_inline)) void take(const float* from) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) lane[j] = load(from + kLanes * j);
  }
  __attribute__((always_inline)) Lanes dot(const float* with) const {
    in_register(with);
    Lanes sum = lane[0] * load(with);
#pragma GCC unroll 8
    for (int j = 1; j < vectors; ++j) sum = sum + lane[j] * load(with + kLanes * j);
    return sum;
  }
  __attribute__((always_inline)) void fill(float value) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) lane[j] = splat(value);
  }
};

// Calls `kernel` with each number of vectors up to the most that a level keeps in registers, along the batch.
template <int most, class Kernel>
inline void along_batch(int batch, const Kernel& kernel) {
  int first = 0;
  for (; batch - first >= most * kLanes; first += most * kLanes) kernel(first, std::integral_constant<int, most>());
  if constexpr (most > 1) {
    if (first < batch) {
      along_batch<most - 1>(batch - first, [&](int at, auto vectors) { kernel(first + at, vectors); });
    }
  }
}

// out = begin(line) + the sum over each line's survivors of value(i) * in[across[i]]
template <class Begin, class Value>
inline void lines_product(const Lines& lines, const float* in, float* out, int batch, const Begin& begin,
                          const Value& value) {
  along_batch<kRowVectors>(batch, [&](int first, auto vectors) {
    int i = 0;
    for (int block = 0; block < lines.blocks; ++block) {
      for (int line = 0; line < lines.count; ++line) {
        const int end = lines.starts[block * lines.count + line + 1];
        float* to = out + int64_t(line) * batch + first;
        Accumulators<decltype(vectors)::value> sum;
        if (block == 0) {
          sum.fill(begin(line));
        } else if (i == end) {
          continue;
        } else {
          sum.take(to);
        }
        for (; i < end; ++i) sum.add(value(i), in + int64_t(lines.across[i]) * batch + first);
        sum.put(to);
      }
    }
  });
}

// out = bias + values x in
inline void rows_forward(const Rows& rows, const float* values, const float* bias, const float* in, float* out,
                         int batch) {
  lines_product(rows.forth, in, out, batch, [=](int r) { return bias[r]; }, [=](int i) { return values[i]; });
}

// out = transposed values x in
inline void rows_backward(const Rows& rows, const float* values, const float* in, float* out, int batch) {
  const int32_t* at = rows.at;
  lines_product(rows.back, in, out, batch, [](int) { return 0.0f; }, [=](int i) { return values[at[i]]; });
}

// Gradients of the survivors in the order of the values, a span at a time: some partial sums of each are put down first,
// so that the loop over a row has nothing else in it, and added up together when the span is full.
template <class Take>
class Spans {
 public:
  static constexpr int kSpan = 512;

  explicit Spans(const Take& take) : take_(take) {}

  int end() const { return first_ + kSpan; }
  float* partial(int i) { return partial_ + kKept * (i - first_); }

  // Hands over the span up to a survivor and begins the next one there.
  void close(int at) {
    const int count = at - first_;
    std::memset(partial(at), 0, sizeof(float) * kKept * kLanes);
    for (int i = 0; i < count; i += kLanes) store(gradient_ + i, totals_of_sixteen(partial_ + kKept * i));
    if (count) take_(first_, count, gradient_);
    first_ = at;
  }

 private:
  const Take& take_;
  int first_ = 0;
  alignas(64) float partial_[kKept * (kSpan + kLanes)];
  alignas(64) float gradient_[kSpan];
};

// For each row `begin(row)` gives the function that turns what goes into a survivor into its partial sums. Four at a
// time; beyond the end of a row its last survivor is taken again, and what that leaves behind is overwritten.
template <class Take, class Begin>
inline void in_spans(const Rows& rows, const float* in, int batch, const Take& take, const Begin& begin) {
  Spans<Take> spans(take);
  const Lines& lines = rows.forth;
  int i = 0;
  for (int block = 0; block < lines.blocks; ++block) {
    for (int line = 0; line < lines.count; ++line) {
      const int end = lines.starts[block * lines.count + line + 1];
      if (i == end) continue;
      const auto product = begin(line);
      while (i < end) {
        const int stop = std::min(end, spans.end()), last = stop - 1;
        const auto at = [&](int k) { return product(in + int64_t(lines.across[std::min(k, last)]) * batch); };
        float* to = spans.partial(i);
        for (; i < stop; i += 4, to += 4 * kKept) {
          const Native sums = four_sums(at(i), at(i + 1), at(i + 2), at(i + 3));
          std::memcpy(to, &sums, sizeof sums);
        }
        i = stop;
        if (i == spans.end()) spans.close(i);
      }
    }
  }
  spans.close(i);
}

// Calls take(first, count, gradient) for consecutive survivors: sums over the batch of out_gradient x in.
template <class Take>
inline void rows_gradient(const Rows& rows, const float* in, const float* out_gradient, int batch, const Take& take) {
  if (batch > kRowVectors * kLanes) {
    in_spans(rows, in, batch, take, [&](int r) {
      const float* own = out_gradient + int64_t(r) * batch;
      return [own, batch](const float* x) {
        Lanes sum = load(own) * load(x);
        for (int i = kLanes; i < batch; i += kLanes) sum = sum + load(own + i) * load(x + i);
        return sum;
      };
    });
    return;
  }
  along_batch<kRowVectors>(batch, [&](int, auto vectors) {
    in_spans(rows, in, batch, take, [&](int r) {
      Accumulators<decltype(vectors)::value> own;
      own.take(out_gradient + int64_t(r) * batch);
      return [own](const float* x) { return own.dot(x); };
    });
  });
}

}  // namespace tombola
