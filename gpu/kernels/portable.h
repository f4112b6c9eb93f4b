// The few things that a kernel needs from its machine, under one name for clang's PTX back end (built without CUDA's headers),
// for nvcc, and for the fake driver, which runs the threads of a block as fibers on a CPU.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef short i16;
typedef int i32;
typedef unsigned u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

#define WARP 32

#if defined(SEMPROXY_FAKE)

#include "machine.h"

#elif defined(__CUDACC__) || defined(__CUDA__)

#if defined(__clang__)
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define TID() __nvvm_read_ptx_sreg_tid_x()
#define BID() __nvvm_read_ptx_sreg_ctaid_x()
#define BLOCK_BARRIER() __syncthreads()
#define WARP_BARRIER() __nvvm_bar_warp_sync(0xffffffffu)
#define SHFL(x, l) __nvvm_shfl_sync_idx_i32(0xffffffffu, (x), (l), 31)
#define SHFL_XOR(x, m) __nvvm_shfl_sync_bfly_i32(0xffffffffu, (x), (m), 31)
#define BALLOT(p) __nvvm_vote_ballot_sync(0xffffffffu, (p))
#define ATOMIC_ADD(p, v) __nvvm_atom_add_gen_i((p), (v))
#define FFS(x) __builtin_ffs(x)
#else
#define TID() ((int)threadIdx.x)
#define BID() ((int)blockIdx.x)
#define BLOCK_BARRIER() __syncthreads()
#define WARP_BARRIER() __syncwarp()
#define SHFL(x, l) __shfl_sync(0xffffffffu, (x), (l))
#define SHFL_XOR(x, m) __shfl_xor_sync(0xffffffffu, (x), (m))
#define BALLOT(p) __ballot_sync(0xffffffffu, (p))
#define ATOMIC_ADD(p, v) atomicAdd((p), (v))
#define FFS(x) __ffs(x)
#endif

#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
#define LAUNCH_BOUNDS(n) __attribute__((launch_bounds(n)))
#if !defined(__clang__)
#undef LAUNCH_BOUNDS
#define LAUNCH_BOUNDS(n) __launch_bounds__(n)
#endif

DEVICE i32 tid() { return TID(); }
DEVICE i32 bid() { return BID(); }
DEVICE void sync() { BLOCK_BARRIER(); }
DEVICE void warp_sync() { WARP_BARRIER(); }
DEVICE i32 shfl(i32 x, i32 lane) { return SHFL(x, lane); }
DEVICE i32 shfl_xor(i32 x, i32 mask) { return SHFL_XOR(x, mask); }
DEVICE u32 ballot(bool p) { return BALLOT(p); }
DEVICE i32 atomic_add(i32* p, i32 v) { return ATOMIC_ADD(p, v); }
DEVICE i32 find_first(u32 x) { return FFS((int)x) - 1; } // x is not 0
DEVICE i32 bits_of(f32 x) { union { f32 f; i32 i; } u; u.f = x; return u.i; }
DEVICE f32 float_of(i32 x) { union { f32 f; i32 i; } u; u.i = x; return u.f; }
DEVICE f32 widen_f16(u16 x) { f32 y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
DEVICE f32 exp_2(f32 x) { f32 y; asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEVICE f32 log_2(f32 x) { f32 y; asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEVICE f64 root(f64 x) { f64 y; asm("sqrt.rn.f64 %0, %1;" : "=d"(y) : "d"(x)); return y; }
DEVICE f32 fused(f32 a, f32 b, f32 c) { f32 y; asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c)); return y; }
extern __shared__ __attribute__((aligned(16))) u8 shared_memory[];
DEVICE u8* smem() { return shared_memory; }

#else
#error "compile with clang -x cuda, nvcc or -DSEMPROXY_FAKE"
#endif

struct alignas(16) Four { u32 x, y, z, w; };
struct alignas(8) Two { u32 x, y; };
struct alignas(16) Quad { f32 x, y, z, w; };

DEVICE i32 imin(i32 a, i32 b) { return a < b ? a : b; }
DEVICE i32 imax(i32 a, i32 b) { return a > b ? a : b; }
DEVICE f32 shfl_xor(f32 x, i32 mask) { return float_of(shfl_xor(bits_of(x), mask)); }
DEVICE f64 shfl_xor(f64 x, i32 mask) {
  union { f64 d; i32 i[2]; } u;
  u.d = x;
  u.i[0] = shfl_xor(u.i[0], mask);
  u.i[1] = shfl_xor(u.i[1], mask);
  return u.d;
}

// team_sum adds x over the lanes of a team of 2^k lanes. Every lane of the warp calls it.
template <typename T> DEVICE T team_sum(T x, i32 team) {
  for (i32 m = team >> 1; m > 0; m >>= 1) x += shfl_xor(x, m);
  return x;
}
