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

// Where four survivors take their activations. Loads are what a line is bound by, so places are loaded two at a time.
struct Four {
  const float *a, *b, *c, *d;

  Four(const float* in, const int32_t* across, int64_t batch) {
    two(in, across, batch, a, b);
    two(in, across + 2, batch, c, d);
  }

 private:
  static void two(const float* in, const int32_t* across, int64_t batch, const float*& first, const float*& second) {
    uint64_t both;
    std::memcpy(&both, across, sizeof both);
    const int64_t low = uint32_t(both), high = both >> 32;
    first = in + (kLittle ? low : high) * batch;
    second = in + (kLittle ? high : low) * batch;
  }
};

// Keeps the compiler from working the address out anew in every operand, which takes a quarter longer.
inline __attribute__((always_inline)) void in_register(const float*& address) { __asm__("" : "+r"(address)); }

template <int vectors>
struct Accumulators {
  Lanes lane[vectors];

  __attribute__((always_inline)) void add(const Lanes& wide, const float* from) {
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

// Values in the order of the survivors: four of them are one load, and each is spread from there.
struct Straight {
  const float* values;

  float operator()(int i) const { return values[i]; }

  struct Four {
    Native held;
    template <int which>
    Lanes value() const {
      const Native all = spread<which>(held);
      return numbered([&](int) { return all; });
    }
  };
  Four four(int i) const { return {repeated(values + i)}; }
};

// Values in another order than the survivors.
struct Scattered {
  const float* values;
  const int32_t* at;

  float operator()(int i) const { return values[at[i]]; }

  struct Four {
    const float* values;
    const int32_t* at;
    template <int which>
    Lanes value() const {
      return splat(values[at[which]]);
    }
  };
  Four four(int i) const { return {values, at + i}; }
};

// out = begin(line) + the sum over each line's survivors of values(i) * in[across[i]]
template <class Begin, class Values>
inline void lines_product(const Lines& lines, const float* in, float* out, int batch, const Begin& begin,
                          const Values& values) {
  along_batch<kRowVectors>(batch, [&](int first, auto vectors) {
    const float* from = in + first;
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
        for (; i + 4 <= end; i += 4) {
          const Four x(from, lines.across + i, batch);
          const auto four = values.four(i);
          sum.add(four.template value<0>(), x.a);
          sum.add(four.template value<1>(), x.b);
          sum.add(four.template value<2>(), x.c);
          sum.add(four.template value<3>(), x.d);
        }
        for (; i < end; ++i) sum.add(splat(values(i)), from + int64_t(lines.across[i]) * batch);
        sum.put(to);
      }
    }
  });
}

// out = bias + values x in
inline void rows_forward(const Rows& rows, const float* values, const float* bias, const float* in, float* out,
                         int batch) {
  lines_product(rows.forth, in, out, batch, [=](int r) { return bias[r]; }, Straight{values});
}

// out = transposed values x in
inline void rows_backward(const Rows& rows, const float* values, const float* in, float* out, int batch) {
  lines_product(rows.back, in, out, batch, [](int) { return 0.0f; }, Scattered{values, rows.at});
}

// Gradients of the survivors in the order of the values, handed over some at a time. What was put down last is held
// back, for a load waits long for stores just made that it does not match.
template <class Take>
class Spans {
 public:
  explicit Spans(const Take& take) : take_(take) {}

  int end() const { return first_ + kSpan; }
  float* at(int i) { return gradient_ + (i - first_); }

  // All before `i` are there.
  void reach(int i) {
    const int count = i - first_;
    if (count < kEnough) return;
    const int whole = (count - kHeld) / kLanes * kLanes;
    take_(first_, whole, gradient_);
    std::memmove(gradient_, gradient_ + whole, sizeof(float) * (count - whole));
    first_ += whole;
  }

  void finish(int i) {
    const int count = i - first_;
    std::memset(gradient_ + count, 0, sizeof(float) * kLanes);
    if (count) take_(first_, count, gradient_);
  }

 private:
  static constexpr int kSpan = 512, kEnough = 256, kHeld = 64;

  const Take& take_;
  int first_ = 0;
  alignas(64) float gradient_[kSpan + 2 * kLanes];
};

// For each row `begin(row)` gives the function that turns what goes into a survivor into its partial sums. Sixteen at a
// time; what the last ones of a row put down beyond its end is overwritten.
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
      const auto sums = [&](const float* a, const float* b, const float* c, const float* d) TOMBOLA_INLINE {
        return four_sums(product(a), product(b), product(c), product(d));
      };
      const auto four = [&](int k) TOMBOLA_INLINE {
        const Four x(in, lines.across + k, batch);
        return sums(x.a, x.b, x.c, x.d);
      };
      while (i < end) {
        const int stop = std::min(end, spans.end()), last = stop - 1;
        for (; i + kLanes <= stop; i += kLanes) {
          const Native a = four(i), b = four(i + 4), c = four(i + 8), d = four(i + 12);
          store(spans.at(i), sixteen_sums(a, b, c, d));
        }
        if (i < stop) {
          const auto x = [&](int k) TOMBOLA_INLINE { return in + int64_t(lines.across[std::min(k, last)]) * batch; };
          const auto some = [&](int k) TOMBOLA_INLINE { return sums(x(k), x(k + 1), x(k + 2), x(k + 3)); };
          const Native a = some(i);
          Native b = native(0), c = b, d = b;
          if (i + 4 < stop) {
            b = some(i + 4);
            if (i + 8 < stop) {
              c = some(i + 8);
              if (i + 12 < stop) d = some(i + 12);
            }
          }
          store(spans.at(i), sixteen_sums(a, b, c, d));
          i = stop;
        }
        spans.reach(i);
      }
    }
  }
  spans.finish(i);
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
