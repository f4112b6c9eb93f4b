// A GPU's block of threads on a CPU: every thread is a fiber, and switches only where a real one may have to wait.
#pragma once

#include <math.h>

#include "machine_run.h"

#define KERNEL extern "C" void
#define DEVICE static inline
#define LAUNCH_BOUNDS(n)

#pragma GCC diagnostic ignored "-Wunused-function"

DEVICE i32 tid() { return fake::current->tid; }
DEVICE i32 bid() { return fake::current->bid; }
#ifndef FAKE_BARRIER
#define FAKE_BARRIER(id) true
#endif
// The mutation test builds with one barrier, counted in the order of the source, left out.
#define sync() (FAKE_BARRIER(__COUNTER__) ? fake::block_barrier() : (void)0)
DEVICE void warp_sync() { fake::warp_barrier(); }
DEVICE i32 shfl(i32 x, i32 lane) { return fake::exchange(x)[lane]; }
DEVICE i32 shfl_xor(i32 x, i32 mask) { return fake::exchange(x)[(tid() & 31) ^ mask]; }
DEVICE u32 ballot(bool p) {
  const int* all = fake::exchange(p);
  u32 mask = 0;
  for (int i = 0; i < 32; i++) mask |= (u32)(all[i] != 0) << i;
  return mask;
}
DEVICE i32 atomic_add(i32* p, i32 v) {
  i32 old = *p;
  *p += v;
  return old;
}
DEVICE i32 find_first(u32 x) { return __builtin_ctz(x); }
DEVICE i32 bits_of(f32 x) {
  i32 i;
  memcpy(&i, &x, 4);
  return i;
}
DEVICE f32 float_of(i32 x) {
  f32 f;
  memcpy(&f, &x, 4);
  return f;
}
DEVICE f32 widen_f16(u16 h) {
  u32 sign = (u32)(h & 0x8000) << 16;
  if ((h & 0x7c00) == 0x7c00) return float_of(sign | 0x7f800000 | (u32)(h & 0x3ff) << 13);
  return float_of(sign | bits_of(float_of((u32)(h & 0x7fff) << 13) * 0x1p112f));
}
DEVICE f32 exp_2(f32 x) { return exp2f(x); }
DEVICE f32 log_2(f32 x) { return log2f(x); }
DEVICE f64 root(f64 x) { return sqrt(x); }
DEVICE f32 fused(f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); }
DEVICE u8* smem() { return fake::shared(); }
