// Element-wise functions and their derivatives, sixteen at a time. NaN goes through every one of them.
#pragma once

#include "vector.h"

namespace tombola {

enum Activation : int32_t { kRelu = 0, kLeakyRelu = 1, kTanh = 2, kSigmoid = 3, kGelu = 4, kGeluTanh = 5 };

inline Native bits(Whole x) { return (Native)x; }
inline Whole bits(Native x) { return (Whole)x; }
inline Native choose(Whole yes, Native a, Native b) { return yes ? a : b; }
inline Native magnitude(Native x) { return bits(bits(x) & 0x7fffffff); }

// e^x to about one unit in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' coefficients).
inline Native exponential(Native x) {
  const Native most = native(88.72283f), least = native(-87.33654f);
  const Whole above = x > most, below = x < least;
  const Native held = choose(above, most, choose(below, least, x));
  // Adding 1.5 * 2^23 rounds to the nearest whole number and leaves it in the low bits.
  const Native magic = native(12582912.0f);
  const Native shifted = held * native(1.44269504f) + magic;
  const Native n = shifted - magic;
  const Native r = (held - n * native(0.693359375f)) - n * native(-2.12194440e-4f);
  Native p = native(1.9875691500e-4f);
  p = p * r + native(1.3981999507e-3f);
  p = p * r + native(8.3334519073e-3f);
  p = p * r + native(4.1665795894e-2f);
  p = p * r + native(1.6666665459e-1f);
  p = p * r + native(5.0000001201e-1f);
  p = p * (r * r) + (r + native(1));
  // 2^128 is no float: the power is applied in two halves.
  const Whole power = bits(shifted) - bits(magic);
  const Whole half = power >> 1;
  const Native scaled = p * bits((half + 127) << 23) * bits((power - half + 127) << 23);
  return choose(above, native(__builtin_inff()), choose(below, native(0), scaled));
}

inline Native hyperbolic_tangent(Native x) {
  const Native size = magnitude(x);
  const Native far = native(1) - native(2) / (exponential(size + size) + native(1));
  const Native square = x * x;
  Native p = native(-5.70498872745e-3f);
  p = p * square + native(2.06390887954e-2f);
  p = p * square + native(-5.37397155531e-2f);
  p = p * square + native(1.33314422036e-1f);
  p = p * square + native(-3.33332819422e-1f);
  const Native near = p * square * x + x;
  return choose(size < native(0.625f), near, choose(x < native(0), -far, far));
}

inline Native logistic(Native x) { return native(1) / (native(1) + exponential(-x)); }

// The normal density and distribution function; the latter's absolute error is below 1e-7 (Abramowitz & Stegun 7.1.26).
struct Normal {
  Native density, distribution;

  explicit Normal(Native x) {
    const Native bell = exponential(x * x * native(-0.5f));
    density = bell * native(0.3989422804f);
    const Native t = native(1) / (magnitude(x) * native(0.3275911f * 0.70710678f) + native(1));
    Native p = native(0.5f * 1.061405429f);
    p = p * t + native(0.5f * -1.453152027f);
    p = p * t + native(0.5f * 1.421413741f);
    p = p * t + native(0.5f * -0.284496736f);
    p = p * t + native(0.5f * 0.254829592f);
    const Native tail = p * t * bell;
    distribution = choose(x < native(0), tail, native(1) - tail);
  }
};

// The inner function of GELU's approximation by the hyperbolic tangent, and its derivative.
struct Inner {
  Native tangent, slope;

  explicit Inner(Native x) {
    const Native square = x * x;
    tangent = hyperbolic_tangent(x * (square * native(0.044715f) + native(1)) * native(0.7978845608f));
    slope = (square * native(3 * 0.044715f) + native(1)) * native(0.7978845608f);
  }
};

// value(x) is the function; derivative(x, y) its derivative at x, where y is value(x).
template <int32_t kind>
struct Function {
  float slope;

  Native value(Native x) const {
    if constexpr (kind == kRelu) return choose(x <= native(0), native(0), x);
    if constexpr (kind == kLeakyRelu) return choose(x > native(0), x, x * native(slope));
    if constexpr (kind == kTanh) return hyperbolic_tangent(x);
    if constexpr (kind == kSigmoid) return logistic(x);
    if constexpr (kind == kGelu) return x * Normal(x).distribution;
    if constexpr (kind == kGeluTanh) return native(0.5f) * x * (native(1) + Inner(x).tangent);
  }

  Native derivative(Native x, Native y) const {
    if constexpr (kind == kRelu) return choose(y <= native(0), native(0), native(1));
    if constexpr (kind == kLeakyRelu) return choose(x > native(0), native(1), native(slope));
    if constexpr (kind == kTanh) return native(1) - y * y;
    if constexpr (kind == kSigmoid) return y * (native(1) - y);
    if constexpr (kind == kGelu) {
      const Normal normal(x);
      return normal.distribution + x * normal.density;
    }
    if constexpr (kind == kGeluTanh) {
      const Inner inner(x);
      const Native rise = (native(1) - inner.tangent * inner.tangent) * inner.slope;
      return native(0.5f) * (native(1) + inner.tangent + x * rise);
    }
  }
};

template <class Use>
inline void with_function(int32_t kind, float slope, const Use& use) {
  switch (kind) {
    case kRelu: return use(Function<kRelu>{slope});
    case kLeakyRelu: return use(Function<kLeakyRelu>{slope});
    case kTanh: return use(Function<kTanh>{slope});
    case kSigmoid: return use(Function<kSigmoid>{slope});
    case kGelu: return use(Function<kGelu>{slope});
    default: return use(Function<kGeluTanh>{slope});
  }
}

// out = function(in); `count` is a multiple of 16 and `out` may be `in`.
inline void activate(int32_t kind, float slope, const float* in, float* out, int64_t count) {
  with_function(kind, slope, [&](const auto& function) {
    for (int64_t i = 0; i < count; i += kLanes) {
      store(out + i, each([&](Native x) { return function.value(x); }, load(in + i)));
    }
  });
}

// gradient = gradient * function'(in), where out is function(in)
inline void activate_backward(int32_t kind, float slope, const float* in, const float* out, float* gradient,
                              int64_t count) {
  with_function(kind, slope, [&](const auto& function) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const Lanes derivative =
          each([&](Native x, Native y) { return function.derivative(x, y); }, load(in + i), load(out + i));
      store(gradient + i, load(gradient + i) * derivative);
    }
  });
}

inline void multiply(const float* in, const float* factor, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(out + i, load(in + i) * load(factor + i));
}

// Zeros what a bit of its sixteen does not keep; the first is the lowest bit.
inline void keep(const uint16_t* words, float* values, int64_t count) {
  alignas(64) int32_t bit[kLanes];
  for (int i = 0; i < kLanes; ++i) bit[i] = 1 << i;
  for (int64_t i = 0; i < count; i += kLanes) {
    for (int p = 0; p < kLanes; p += kNative) {
      Whole own;
      Native value;
      std::memcpy(&own, bit + p, sizeof own);
      std::memcpy(&value, values + i + p, sizeof value);
      const Native held = choose((own & int32_t(words[i / kLanes])) != 0, value, native(0));
      std::memcpy(values + i + p, &held, sizeof held);
    }
  }
}

}  // namespace tombola
