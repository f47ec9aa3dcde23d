// The losses, over logits with one row for each class and the batch along it: softmax cross-entropy, and the squared
// error to the label's unit vector.
#pragma once

#include <cmath>

#include "activation.h"

namespace tombola {

enum Loss : int32_t { kCrossEntropy = 0, kSquaredError = 1 };

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

// Whether the label has the first largest logit of an example; a NaN counts as the largest, as in torch.
inline bool is_right(const float* logits, int64_t label, int classes, int batch) {
  int best = 0;
  for (int c = 1; c < classes; ++c) {
    const float value = logits[int64_t(c) * batch], held = logits[int64_t(best) * batch];
    if (held == held && !(value <= held)) best = c;
  }
  return best == label;
}

// Adds to the sum of the losses (nats) and to the number of examples that are right.
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
      *right += is_right(own, labels[i + lane], classes, batch);
    }
  }
}

// gradient of the mean over `examples` and classes; lanes beyond them are zero. `gradient` may be `logits`.
inline void squared_error_gradient(const float* logits, const int64_t* labels, int classes, int examples, int batch,
                                   float* gradient) {
  const float share = 2.0f / (float(examples) * float(classes));
  for (int i = 0; i < batch; i += kLanes) {
    alignas(64) int32_t label[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) label[lane] = i + lane < examples ? int32_t(labels[i + lane]) : -1;
    for (int c = 0; c < classes; ++c) {
      const float* own = logits + int64_t(c) * batch + i;
      float* to = gradient + int64_t(c) * batch + i;
      for (int lane = 0; lane < kLanes; ++lane) {
        to[lane] = label[lane] < 0 ? 0 : (own[lane] - float(label[lane] == c)) * share;
      }
    }
  }
}

// Adds to the sum over examples of the mean over classes, and to the number of examples that are right.
inline void squared_error(const float* logits, const int64_t* labels, int classes, int examples, int batch,
                          double* loss, int64_t* right) {
  for (int i = 0; i < examples; ++i) {
    double sum = 0;
    for (int c = 0; c < classes; ++c) {
      const float apart = logits[int64_t(c) * batch + i] - float(labels[i] == c);
      sum += double(apart * apart);  // in float, as in torch: what is infinite there is so here
    }
    *loss += sum / classes;
    *right += is_right(logits + i, labels[i], classes, batch);
  }
}

// Either loss.
inline void loss_gradient(int32_t kind, const float* logits, const int64_t* labels, int classes, int examples,
                          int batch, float* gradient) {
  const auto function = kind == kSquaredError ? squared_error_gradient : cross_entropy_gradient;
  function(logits, labels, classes, examples, batch, gradient);
}

inline void add_loss(int32_t kind, const float* logits, const int64_t* labels, int classes, int examples, int batch,
                     double* loss, int64_t* right) {
  const auto function = kind == kSquaredError ? squared_error : cross_entropy;
  function(logits, labels, classes, examples, batch, loss, right);
}

}  // namespace tombola
