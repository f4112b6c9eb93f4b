// The scheduler: what the driver and the kernels need of it.
#pragma once
#include <stddef.h>
#include <string.h>

#include <functional>

namespace fake {
struct Thread {
  int tid, bid;
};
extern Thread* current;
unsigned char* shared();
void block_barrier();
void warp_barrier();
// Every lane gives x and gets the 32 values of its warp.
const int* exchange(int x);

// run_block runs body once per thread; false when threads were left waiting at a barrier.
bool run_block(const std::function<void()>& body, int bid, int threads, size_t shared_bytes);
// seed makes the order of threads and streams random; 0: in order.
void seed(unsigned long long s);

struct Kernel {
  const char* name;
  size_t param_size;
  void (*call)(const void* param);
};
extern const Kernel kernels[];
extern const int kernel_count;
}  // namespace fake
