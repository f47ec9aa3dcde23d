// Sixteen floats at a time, whatever the processor's own width is.
//
// Every kernel is written once on `Lanes`; the same sources are compiled for each level with other flags.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define TOMBOLA_INLINE __attribute__((always_inline))

namespace tombola {

constexpr int kLanes = 16;
constexpr bool kLittle = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

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

// The four floats at an address again and again, and one of them everywhere.
inline Native repeated(const float* from) {
#if defined(__AVX512F__)
  return _mm512_broadcast_f32x4(_mm_loadu_ps(from));
#elif defined(__AVX2__)
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from));
#else
  return take(from);
#endif
}

template <int which>
inline Native spread(Native repeated) {
#if defined(__AVX512F__)
  return _mm512_permute_ps(repeated, which * 0x55);
#elif defined(__AVX2__)
  return _mm256_permute_ps(repeated, which * 0x55);
#else
  return native(repeated[which]);
#endif
}

// Sums of sixteen registers, in two steps. `four_sums` leaves some partial sums of each of four in one register;
// `sixteen_sums` makes the totals of sixteen out of four of these.
#if defined(__AVX512F__)
// Of each pair of groups of `distance` floats the first becomes the sum of a's pair, the second that of b's. A blend
// costs less than a shuffle, of which the processor makes one at a time.
template <int distance>
inline Native fold(Native a, Native b) {
  constexpr __mmask16 second = distance == 8 ? 0xff00 : distance == 4 ? 0xf0f0 : distance == 2 ? 0xcccc : 0xaaaa;
  const __m512 kept = _mm512_mask_mov_ps(a, second, b), other = _mm512_mask_mov_ps(b, second, a);
  if constexpr (distance == 8) return kept + _mm512_shuffle_f32x4(other, other, 0x4e);
  if constexpr (distance == 4) return kept + _mm512_shuffle_f32x4(other, other, 0xb1);
  if constexpr (distance == 2) return kept + _mm512_permute_ps(other, 0x4e);
  return kept + _mm512_permute_ps(other, 0xb1);
}

inline Native four_sums(const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
  return fold<4>(fold<8>(a.a, c.a), fold<8>(b.a, d.a));
}

inline Lanes sixteen_sums(Native a, Native b, Native c, Native d) {
  const __m512i turned = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {(Native)_mm512_permutexvar_ps(turned, fold<1>(fold<2>(a, c), fold<2>(b, d)))};
}
#else
// Sums of neighbours: a0+a1, a2+a3, ..., then those of b.
inline Native pair_up(Native a, Native b) {
#if defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

inline Native four_sums(const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
  return pair_up(pair_up(folded(a), folded(b)), pair_up(folded(c), folded(d)));
}

inline Lanes sixteen_sums(Native a, Native b, Native c, Native d) {
#if defined(__AVX2__)
  return {pair_up(a, b), pair_up(c, d)};
#else
  return {a, b, c, d};
#endif
}
#endif

constexpr int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

}  // namespace tombola
