// Sixteen floats at a time, whatever the processor's own width is.
//
// Every kernel is written once on `Lanes`; the same sources are compiled for each level with other flags.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace tombola {

constexpr int kLanes = 16;

#if defined(__AVX512F__)
constexpr int kNative = 16;
constexpr int kTileVectors = 4;  // 6 x 4 accumulators, 4 operands and a factor in 32 registers
constexpr int kTileRows = 6;
constexpr int kRowVectors = 8;
#elif defined(__AVX2__)
constexpr int kNative = 8;
constexpr int kTileVectors = 1;
constexpr int kTileRows = 6;
constexpr int kRowVectors = 4;
#else
constexpr int kNative = 4;
constexpr int kTileVectors = 1;
constexpr int kTileRows = 2;
constexpr int kRowVectors = 2;
#endif

typedef float Native __attribute__((vector_size(4 * kNative)));
typedef int32_t Whole __attribute__((vector_size(4 * kNative)));

// The parts have names, for compilers keep an array of them in memory; `folded` is their sum.
#if defined(__AVX512F__)
struct Lanes {
  Native a;
};
#define TOMBOLA_EACH(f) {f(a)}
inline Native folded(const Lanes& value) { return value.a; }
#elif defined(__AVX2__)
struct Lanes {
  Native a, b;
};
#define TOMBOLA_EACH(f) {f(a), f(b)}
inline Native folded(const Lanes& value) { return value.a + value.b; }
#else
struct Lanes {
  Native a, b, c, d;
};
#define TOMBOLA_EACH(f) {f(a), f(b), f(c), f(d)}
inline Native folded(const Lanes& value) { return (value.a + value.b) + (value.c + value.d); }
#endif

template <class Function, class... Args>
inline __attribute__((always_inline)) Lanes each(Function function, const Args&... args) {
#define TOMBOLA_PART(name) function(args.name...)
  return TOMBOLA_EACH(TOMBOLA_PART);
#undef TOMBOLA_PART
}

inline Native native(float value) { return value - Native{}; }

inline Native take(const float* from) {
  Native out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

inline void put(float* to, Native value) { std::memcpy(to, &value, sizeof value); }

// function(0), function(1), ... for the parts in order
template <class Function>
inline __attribute__((always_inline)) Lanes numbered(Function function) {
  enum { a, b, c, d };
#define TOMBOLA_PART(name) function(name)
  return TOMBOLA_EACH(TOMBOLA_PART);
#undef TOMBOLA_PART
}

inline Lanes splat(float value) {
  const Native all = native(value);
  return numbered([&](int) { return all; });
}

inline Lanes load(const float* from) {
  return numbered([&](int part) { return take(from + kNative * part); });
}

inline void store(float* to, const Lanes& value) {
  const auto one = [&](Native part) {
    put(to, part);
    to += kNative;
    return part;
  };
  each(one, value);
}

inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return each([](Native x, Native y) { return x + y; }, a, b);
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return each([](Native x, Native y) { return x - y; }, a, b);
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return each([](Native x, Native y) { return x * y; }, a, b);
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return each([](Native x, Native y) { return x / y; }, a, b);
}

inline Native root(Native x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#else
  for (int i = 0; i < kNative; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

inline Lanes root(const Lanes& a) {
  return each([](Native x) { return root(x); }, a);
}

// Sums of neighbours: a0+a1, a2+a3, ..., then those of b.
inline Native pair_up(Native a, Native b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Sums of sixteen are made in two steps, so that little is stored between: `kept` sums of each at first.
constexpr int kKept = kNative / 4;

// kKept partial sums of each of four, one after the other.
inline Native four_sums(const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
  return pair_up(pair_up(folded(a), folded(b)), pair_up(folded(c), folded(d)));
}

template <int count>
inline __attribute__((always_inline)) Native totals(const float* partial) {
  if constexpr (count == 1) {
    return take(partial);
  } else {
    return pair_up(totals<count / 2>(partial), totals<count / 2>(partial + count / 2 * kNative));
  }
}

// The sixteen sums of which `partial` holds kKept parts each.
inline Lanes totals_of_sixteen(const float* partial) {
  return numbered([&](int part) { return totals<kKept>(partial + part * kKept * kNative); });
}

constexpr int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

}  // namespace tombola
