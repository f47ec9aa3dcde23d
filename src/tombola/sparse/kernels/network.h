// A whole network: iterations of gather, forward, loss, backward and update, and evaluation.
#pragma once

#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "activation.h"
#include "dense.h"
#include "gather.h"
#include "loss.h"
#include "rows.h"
#include "update.h"

namespace tombola {

struct Linear {
  Rows rows;             // without columns when the layer is dense
  Entries weight, bias;  // a layer without bias has zeros there and a count of 0
  Entries idle_weight, idle_bias;  // left, but no output depends on them: their gradient is zero
  const float* bias_factor;        // 1 or 0 for each bias, or null
  const uint16_t* kept;            // of a dense layer: a bit for each value, or null when all are left
  int64_t weight_step, bias_step;  // steps taken so far
  int32_t dense;

  int outputs() const { return rows.forth.count; }
  Dense shape() const { return {rows.forth.count, padded(rows.back.count)}; }
};

enum Kind : int32_t { kLinear = 0, kActivation = 1, kDropout = 2 };

struct Operation {
  int32_t kind;
  int32_t which;         // a linear layer's number, an activation's kind, a dropout's number
  float slope;           // of a leaky ReLU
  int32_t width;         // features that come out
  int32_t full;          // of a dropout: features that masks are drawn for
  const int32_t* target; // of a dropout: where each of these is here, or -1
};

struct Plan {
  const Linear* linears;
  const Operation* operations;
  const int32_t* target;  // where each input feature is here, or -1
  Rule rule;
  int32_t linear_count, operation_count, inputs, features, batch_size, evaluation_batch, loss;
};

struct Data {
  const float* x;  // [examples, features]
  const int64_t* y;
};

struct Block {
  const int64_t* order;        // [steps * batch_size]: numbers of examples
  const double* rates;         // [steps]
  const float* const* dropout; // for each dropout [steps, batch_size, full]: 0, or the factor of what is left
  int64_t steps;
  double seconds;              // no iteration begins after so many, but at least one is made
};

class Floats {
 public:
  explicit Floats(int64_t count) : at_(static_cast<float*>(std::aligned_alloc(64, size(count)))) {
    if (!at_) throw std::bad_alloc();
    std::memset(at_.get(), 0, size(count));
  }
  float* get() const { return at_.get(); }

 private:
  static size_t size(int64_t count) { return (sizeof(float) * size_t(count) + 64) / 64 * 64; }
  struct Free {
    void operator()(float* at) const { std::free(at); }
  };
  std::unique_ptr<float, Free> at_;
};

class Network {
 public:
  explicit Network(const Plan& plan)
      : plan_(plan),
        linears_(plan.linears, plan.linears + plan.linear_count),
        operations_(plan.operations, plan.operations + plan.operation_count),
        labels_(plan.batch_size),
        train_(plan, operations_, plan.batch_size),
        evaluation_(plan, operations_, plan.evaluation_batch),
        gradient_(widest() * train_.batch),
        next_gradient_(widest() * train_.batch),
        turned_(widest() * train_.batch) {}

  // Returns how many iterations were made.
  int64_t train(const Data& data, const Block& block) {
    const auto began = std::chrono::steady_clock::now();
    for (int64_t step = 0; step < block.steps; ++step) {
      if (step && std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count() > block.seconds) {
        return step;
      }
      iterate(data, block, step);
    }
    return block.steps;
  }

  // Adds to the sum of the losses and to the number of right answers over consecutive examples.
  void evaluate(const Data& data, int64_t count, double* loss, int64_t* right) {
    for (int64_t first = 0; first < count; first += plan_.evaluation_batch) {
      const int examples = int(std::min<int64_t>(plan_.evaluation_batch, count - first));
      gather({data.x + first * plan_.features, plan_.features, nullptr, examples, plan_.features}, plan_.target,
             evaluation_.input(), evaluation_.batch);
      const float* logits = forward(evaluation_, nullptr, 0);
      add_loss(plan_.loss, logits, data.y + first, classes(), examples, evaluation_.batch, loss, right);
    }
  }

 private:
  // The activations of one batch: what goes into each operation, and last what comes out.
  struct Pass {
    int batch;
    std::vector<Floats> values, masks;

    Pass(const Plan& plan, const std::vector<Operation>& operations, int examples) : batch(padded(examples)) {
      values.emplace_back(int64_t(padded(plan.inputs)) * batch);
      for (const Operation& one : operations) {
        values.emplace_back(int64_t(padded(one.width)) * batch);
        if (one.kind == kDropout) masks.emplace_back(int64_t(one.width) * batch);
      }
    }
    float* input() const { return values[0].get(); }
  };

  int classes() const { return operations_.back().width; }

  int64_t widest() const {
    int width = padded(plan_.inputs);
    for (const Operation& one : operations_) width = std::max(width, padded(one.width));
    return width;
  }

  void iterate(const Data& data, const Block& block, int64_t step) {
    const int64_t* order = block.order + step * plan_.batch_size;
    gather({data.x, plan_.features, order, plan_.batch_size, plan_.features}, plan_.target, train_.input(),
           train_.batch);
    for (int i = 0; i < plan_.batch_size; ++i) labels_[i] = data.y[order[i]];
    const float* logits = forward(train_, &block, step);
    loss_gradient(plan_.loss, logits, labels_.data(), classes(), plan_.batch_size, train_.batch, gradient_.get());
    backward(block.rates[step]);
  }

  const float* forward(const Pass& pass, const Block* block, int64_t step) {
    for (size_t i = 0; i < operations_.size(); ++i) {
      const Operation& one = operations_[i];
      const float* in = pass.values[i].get();
      float* out = pass.values[i + 1].get();
      const int64_t count = int64_t(one.width) * pass.batch;
      if (one.kind == kLinear) {
        const Linear& linear = linears_[one.which];
        if (linear.dense) {
          dense_forward(linear.shape(), linear.weight.value, linear.bias.value, in, out, pass.batch);
        } else {
          rows_forward(linear.rows, linear.weight.value, linear.bias.value, in, out, pass.batch);
        }
      } else if (one.kind == kActivation) {
        activate(one.which, one.slope, in, out, count);
      } else if (block) {
        const float* drawn = block->dropout[one.which] + step * plan_.batch_size * one.full;
        float* mask = pass.masks[one.which].get();
        gather({drawn, one.full, nullptr, plan_.batch_size, one.full}, one.target, mask, pass.batch);
        multiply(in, mask, out, count);
      } else {
        std::memcpy(out, in, sizeof(float) * count);
      }
    }
    return pass.values.back().get();
  }

  void backward(double rate) {
    bool wanted = true;  // nothing before the first linear layer has a gradient
    for (size_t i = operations_.size(); wanted; --i) {
      const Operation& one = operations_[i - 1];
      const float* in = train_.values[i - 1].get();
      const int64_t count = int64_t(one.width) * train_.batch;
      if (one.kind == kLinear) {
        wanted = one.which > 0;
        backward_linear(linears_[one.which], in, rate, wanted);
        if (wanted) std::swap(gradient_, next_gradient_);
      } else if (one.kind == kActivation) {
        activate_backward(one.which, one.slope, in, train_.values[i].get(), gradient_.get(), count);
      } else {
        multiply(gradient_.get(), train_.masks[one.which].get(), gradient_.get(), count);
      }
    }
  }

  // The gradient of the inputs comes first: the update changes the weights it is made with.
  void backward_linear(Linear& linear, const float* in, double rate, bool wanted) {
    const int batch = train_.batch;
    const float* out_gradient = gradient_.get();
    const Step weight_step(plan_.rule, rate, ++linear.weight_step);
    if (linear.dense) {
      const Dense shape = linear.shape();
      if (wanted) dense_backward(shape, linear.weight.value, out_gradient, next_gradient_.get(), batch);
      turn_into_panels(in, shape.inputs, kPanel, plan_.batch_size, batch, turned_.get());
      dense_gradient(shape, turned_.get(), out_gradient, plan_.batch_size, batch,
                     [&](int64_t first, int64_t count, float* gradient) {
                       if (linear.kept) keep(linear.kept + first / kLanes, gradient, count);
                       update(weight_step, linear.weight.from(first, count), gradient);
                     });
    } else {
      if (wanted) rows_backward(linear.rows, linear.weight.value, out_gradient, next_gradient_.get(), batch);
      rows_gradient(linear.rows, in, out_gradient, batch, [&](int64_t first, int64_t count, float* gradient) {
        update(weight_step, linear.weight.from(first, count), gradient);
      });
    }
    update(weight_step, linear.idle_weight, nullptr);
    const Step bias_step(plan_.rule, rate, ++linear.bias_step);
    if (linear.bias.count) update_bias(linear, bias_step);
    update(bias_step, linear.idle_bias, nullptr);
  }

  void update_bias(const Linear& linear, const Step& step) {
    const int outputs = linear.outputs(), batch = train_.batch;
    const auto sum = [&](int row) {
      const float* from = gradient_.get() + int64_t(std::min(row, outputs - 1)) * batch;
      Lanes all = load(from);
      for (int i = kLanes; i < batch; i += kLanes) all = all + load(from + i);
      return all;
    };
    const auto four = [&](int row) { return four_sums(sum(row), sum(row + 1), sum(row + 2), sum(row + 3)); };
    alignas(64) float gradient[kLanes];
    for (int first = 0; first < outputs; first += kLanes) {
      store(gradient, sixteen_sums(four(first), four(first + 4), four(first + 8), four(first + 12)));
      for (int r = 0; r < kLanes; ++r) {
        if (first + r >= outputs) {
          gradient[r] = 0;
        } else if (linear.bias_factor) {
          gradient[r] *= linear.bias_factor[first + r];
        }
      }
      update(step, linear.bias.from(first, std::min(kLanes, outputs - first)), gradient);
    }
  }

  Plan plan_;
  std::vector<Linear> linears_;
  std::vector<Operation> operations_;
  std::vector<int64_t> labels_;
  Pass train_, evaluation_;
  Floats gradient_, next_gradient_, turned_;
};

}  // namespace tombola
