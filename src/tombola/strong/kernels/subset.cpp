// The nearest subset sum of many small lists, exactly: each list is halved, the sums of the halves are made in order,
// and one walk along both finds the closest pair. See reference.py for the same in torch, with equal answers.

#include <cstdint>
#include <new>
#include <vector>

#if defined(_WIN32)
#define TOMBOLA_API extern "C" __declspec(dllexport)
#else
#define TOMBOLA_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

// Write the keys of all subsets of `count` items in ascending order to `keys`, and give where they ended up: `keys` or
// `spare`. A key is a value times 2^bits plus the code of its subset, so no two are equal.
int64_t* sums(int64_t start, const int64_t* items, int32_t count, int32_t bits, int64_t* keys, int64_t* spare) {
  keys[0] = start << bits;
  int64_t size = 1;
  for (int32_t item = 0; item < count; ++item) {
    const int64_t add = (items[item] << bits) + (int64_t{1} << item);
    // Without and with the item, merged from both ends at once: two independent chains of comparisons.
    int64_t low_a = 0, low_b = 0, high_a = size - 1, high_b = size - 1;
    for (int64_t at = 0; at < size; ++at) {
      const int64_t a = keys[low_a], b = keys[low_b] + add;
      const bool first = a < b;
      spare[at] = first ? a : b;
      low_a += first;
      low_b += !first;
      const int64_t c = keys[high_a], d = keys[high_b] + add;
      const bool last = c > d;
      spare[2 * size - 1 - at] = last ? c : d;
      high_a -= last;
      high_b -= !last;
    }
    size *= 2;
    int64_t* const other = keys;
    keys = spare;
    spare = other;
  }
  return keys;
}

}  // namespace

// Changes with every change of the signature below.
TOMBOLA_API int32_t tombola_strong_interface() { return 1; }

// items: [rows, count] and targets: [rows] in fixed point; codes: [rows]. Gives 0, or 1 where memory does not suffice.
TOMBOLA_API int32_t tombola_nearest(const int64_t* items, const int64_t* targets, int64_t rows, int32_t count,
                                    int32_t bits, int64_t* codes) {
  const int32_t half = count / 2, rest = count - half;
  const int64_t size_a = int64_t{1} << half, size_b = int64_t{1} << rest;
  const int64_t code = (int64_t{1} << bits) - 1;
  std::vector<int64_t> room, negated;
  try {
    room.resize(2 * (size_a + size_b));
    negated.resize(rest > 0 ? rest : 1);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t* const own = items + row * count;
    for (int32_t k = 0; k < rest; ++k) negated[k] = -own[half + k];
    const int64_t* const a = sums(0, own, half, bits, room.data(), room.data() + size_a);
    int64_t* const later = room.data() + 2 * size_a;
    const int64_t* const b = sums(targets[row], negated.data(), rest, bits, later, later + size_b);
    // For every sum of the first half the last of the second's below it and the first not below it.
    int64_t best = INT64_MAX, found = 0, at = 0;
    for (int64_t k = 0; k < size_a; ++k) {
      const int64_t value = a[k] >> bits;
      while (at < size_b && (b[at] >> bits) < value) ++at;
      if (at > 0) {
        const int64_t away = value - (b[at - 1] >> bits);
        if (away < best) best = away, found = (a[k] & code) | ((b[at - 1] & code) << half);
      }
      if (at < size_b) {
        const int64_t away = (b[at] >> bits) - value;
        if (away < best) best = away, found = (a[k] & code) | ((b[at] & code) << half);
      }
    }
    codes[row] = found;
  }
  return 0;
}
