// The plain C interface: the network, and each kernel by itself for the tests that hold it against its reference.

#include "network.h"

#if defined(_WIN32)
#define TOMBOLA_API extern "C" __declspec(dllexport)
#else
#define TOMBOLA_API extern "C" __attribute__((visibility("default")))
#endif

using namespace tombola;

// Whether this processor can run the kernels of a level: 0 plain, 1 AVX2 with FMA, 2 AVX-512.
TOMBOLA_API int32_t tombola_runs(int32_t level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (level == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == 2) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return level == 0;
}

// Changes with every change of a structure or a signature below.
TOMBOLA_API int32_t tombola_interface() { return 3; }

// Null where memory does not suffice.
TOMBOLA_API Network* tombola_network(const Plan* plan) {
  try {
    return new Network(*plan);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

TOMBOLA_API void tombola_free(Network* network) { delete network; }

TOMBOLA_API int64_t tombola_train(Network* network, const Data* data, const Block* block) {
  return network->train(*data, *block);
}

TOMBOLA_API void tombola_evaluate(Network* network, const Data* data, int64_t count, double* loss, int64_t* right) {
  network->evaluate(*data, count, loss, right);
}

TOMBOLA_API void tombola_gather(const Examples* examples, const int32_t* target, float* out, int32_t batch) {
  gather(*examples, target, out, batch);
}

TOMBOLA_API void tombola_rows_forward(const Rows* rows, const float* values, const float* bias, const float* in,
                                      float* out, int32_t batch) {
  rows_forward(*rows, values, bias, in, out, batch);
}

TOMBOLA_API void tombola_rows_backward(const Rows* rows, const float* values, const float* in, float* out,
                                       int32_t batch) {
  rows_backward(*rows, values, in, out, batch);
}

TOMBOLA_API void tombola_rows_gradient(const Rows* rows, const float* in, const float* out_gradient, float* out,
                                       int32_t batch) {
  rows_gradient(*rows, in, out_gradient, batch, [&](int64_t first, int64_t count, const float* gradient) {
    std::memcpy(out + first, gradient, sizeof(float) * count);
  });
}

TOMBOLA_API void tombola_dense_forward(const Dense* dense, const float* values, const float* bias, const float* in,
                                       float* out, int32_t batch) {
  dense_forward(*dense, values, bias, in, out, batch);
}

TOMBOLA_API void tombola_dense_backward(const Dense* dense, const float* values, const float* in, float* out,
                                        int32_t batch) {
  dense_backward(*dense, values, in, out, batch);
}

TOMBOLA_API void tombola_dense_gradient(const Dense* dense, const float* in, const float* out_gradient, float* out,
                                        int32_t examples, int32_t batch) {
  const Floats turned(int64_t(dense->inputs) * batch);
  turn_into_panels(in, dense->inputs, kPanel, examples, batch, turned.get());
  dense_gradient(*dense, turned.get(), out_gradient, examples, batch,
                 [&](int64_t first, int64_t count, const float* gradient) {
                   std::memcpy(out + first, gradient, sizeof(float) * count);
                 });
}

TOMBOLA_API void tombola_activate(int32_t kind, float slope, const float* in, float* out, int64_t count) {
  activate(kind, slope, in, out, count);
}

TOMBOLA_API void tombola_activate_backward(int32_t kind, float slope, const float* in, const float* out,
                                           float* gradient, int64_t count) {
  activate_backward(kind, slope, in, out, gradient, count);
}

TOMBOLA_API void tombola_loss_gradient(int32_t kind, const float* logits, const int64_t* labels, int32_t classes,
                                       int32_t examples, int32_t batch, float* gradient) {
  loss_gradient(kind, logits, labels, classes, examples, batch, gradient);
}

TOMBOLA_API void tombola_add_loss(int32_t kind, const float* logits, const int64_t* labels, int32_t classes,
                                  int32_t examples, int32_t batch, double* loss, int64_t* right) {
  add_loss(kind, logits, labels, classes, examples, batch, loss, right);
}

TOMBOLA_API void tombola_update(const Rule* rule, double lr, int64_t step, const Entries* to, const float* gradient) {
  update(Step(*rule, lr, step), *to, gradient);
}

// Multiply-adds in registers and nothing else, for the benchmark's floor; returns how many operations were made.
TOMBOLA_API int64_t tombola_peak(int64_t rounds) {
  constexpr int kChains = kNative == 16 ? 24 : 12;
  Native sum[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum[i] = native(float(i));
  Native factor = native(0.999f), term = native(0.001f);
  for (int64_t round = 0; round < rounds; ++round) {
    // Opaque to the compiler, which would otherwise work the sums out.
    __asm__ volatile("" : "+m"(factor), "+m"(term));
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factor + term;
  }
  Native all = sum[0];
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) all = all + sum[i];
  volatile float sink = all[0];
  (void)sink;
  return rounds * kChains * kNative * 2;
}
