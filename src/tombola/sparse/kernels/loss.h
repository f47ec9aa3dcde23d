// Softmax cross-entropy over logits with one row for each class and the batch along it.
#pragma once

#include <cmath>

#include "activation.h"

namespace tombola {

// The largest logit of each lane, and the sum of the exponentials of the differences to it.
struct Softmax {
  Lanes most, sum;

  Softmax(const float* logits, int classes, int batch) {
    most = load(logits);
    for (int c = 1; c < classes; ++c) {
      most = each([](Native a, Native b) { return choose(b > a, b, a); }, most, load(logits + int64_t(c) * batch));
    }
    sum = splat(0);
    for (int c = 0; c < classes; ++c) sum = sum + power(logits + int64_t(c) * batch);
  }

  Lanes power(const float* at) const {
    return each([](Native x, Native m) { return exponential(x - m); }, load(at), most);
  }
};

// gradient of the mean over `examples`; lanes beyond them are zero. `gradient` may be `logits`.
inline void cross_entropy_gradient(const float* logits, const int64_t* labels, int classes, int examples, int batch,
                                   float* gradient) {
  const float share = 1.0f / float(examples);
  for (int i = 0; i < batch; i += kLanes) {
    const Softmax softmax(logits + i, classes, batch);
    alignas(64) float here[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) here[lane] = i + lane < examples ? share : 0;
    const Lanes weight = load(here), scale = weight / softmax.sum;
    for (int c = 0; c < classes; ++c) {
      const int64_t at = int64_t(c) * batch + i;
      store(gradient + at, softmax.power(logits + at) * scale);
    }
    for (int lane = 0; lane < kLanes && i + lane < examples; ++lane) {
      gradient[labels[i + lane] * batch + i + lane] -= share;
    }
  }
}

// Adds to the sum of the losses (nats) and to the number of examples whose label has the first largest logit; a NaN
// counts as the largest, as in torch.
inline void cross_entropy(const float* logits, const int64_t* labels, int classes, int examples, int batch,
                          double* loss, int64_t* right) {
  for (int i = 0; i < batch; i += kLanes) {
    const Softmax softmax(logits + i, classes, batch);
    alignas(64) float most[kLanes], sum[kLanes];
    store(most, softmax.most);
    store(sum, softmax.sum);
    for (int lane = 0; lane < kLanes && i + lane < examples; ++lane) {
      const float* own = logits + i + lane;
      const float chosen = own[labels[i + lane] * batch];
      *loss += std::log(double(sum[lane])) + double(most[lane]) - double(chosen);
      int best = 0;
      for (int c = 1; c < classes; ++c) {
        const float value = own[int64_t(c) * batch], held = own[int64_t(best) * batch];
        if (held == held && !(value <= held)) best = c;
      }
      *right += best == labels[i + lane];
    }
  }
}

}  // namespace tombola
