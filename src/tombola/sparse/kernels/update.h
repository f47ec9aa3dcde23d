// The optimisers, as torch defines them.
#pragma once

#include <cmath>

#include "vector.h"

namespace tombola {

enum Optimizer : int32_t { kSgd = 0, kMomentum = 1, kNesterov = 2, kAdam = 3, kAdamW = 4 };

struct Rule {
  int32_t kind;
  double momentum, weight_decay, beta1, beta2, eps;
};

// A tensor's entries with the optimiser's state; each array has room for a multiple of 16.
struct Entries {
  float* value;
  float* first;   // momentum, or Adam's first moment; null where the rule has none
  float* second;  // Adam's second moment
  int64_t count;

  Entries from(int64_t start, int64_t length) const {
    return {value + start, first ? first + start : nullptr, second ? second + start : nullptr, length};
  }
};

// A rule at one step: what its formulas take besides the entries.
struct Step {
  int32_t kind;
  float rate, decay, momentum, approach1, keep2, approach2, root_scale, eps;

  // `step` counts from 1.
  Step(const Rule& rule, double lr, int64_t step)
      : kind(rule.kind),
        rate(float(-lr)),
        decay(float(kind == kAdamW ? 1 - lr * rule.weight_decay : rule.weight_decay)),
        momentum(float(rule.momentum)),
        approach1(float(1 - rule.beta1)),
        keep2(float(rule.beta2)),
        approach2(float(1 - rule.beta2)),
        root_scale(1),
        eps(float(rule.eps)) {
    if (kind == kAdam || kind == kAdamW) {
      rate = float(-lr / (1 - std::pow(rule.beta1, double(step))));
      root_scale = float(1 / std::sqrt(1 - std::pow(rule.beta2, double(step))));
    }
  }
};

template <int32_t kind>
inline void update_all(const Step& step, const Entries& to, const float* gradient) {
  for (int64_t i = 0; i < to.count; i += kLanes) {
    Lanes value = load(to.value + i), slope = gradient ? load(gradient + i) : splat(0);
    if constexpr (kind == kAdamW) {
      value = value * splat(step.decay);
    } else if (step.decay != 0) {  // torch leaves the term out as well, and so makes no NaN of an infinite value
      slope = slope + value * splat(step.decay);
    }
    if constexpr (kind == kSgd) {
      value = value + splat(step.rate) * slope;
    } else if constexpr (kind == kMomentum || kind == kNesterov) {
      const Lanes moved = load(to.first + i) * splat(step.momentum) + slope;
      store(to.first + i, moved);
      value = value + splat(step.rate) * (kind == kNesterov ? slope + moved * splat(step.momentum) : moved);
    } else {
      const Lanes old = load(to.first + i);
      const Lanes first = old + splat(step.approach1) * (slope - old);
      const Lanes second = load(to.second + i) * splat(step.keep2) + splat(step.approach2) * (slope * slope);
      store(to.first + i, first);
      store(to.second + i, second);
      value = value + splat(step.rate) * first / (root(second) * splat(step.root_scale) + splat(step.eps));
    }
    store(to.value + i, value);
  }
}

// One step of the entries; a null gradient is zero.
inline void update(const Step& step, const Entries& to, const float* gradient) {
  switch (step.kind) {
    case kSgd: return update_all<kSgd>(step, to, gradient);
    case kMomentum: return update_all<kMomentum>(step, to, gradient);
    case kNesterov: return update_all<kNesterov>(step, to, gradient);
    case kAdam: return update_all<kAdam>(step, to, gradient);
    default: return update_all<kAdamW>(step, to, gradient);
  }
}

}  // namespace tombola
