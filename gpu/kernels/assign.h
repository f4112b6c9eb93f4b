// Thresholds become clusters, clusters are numbered in the order of their seeds.
#pragma once
#include "budget.h"
#include "select.h"

// One warp is one chunk of one group: every token's seed.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_assign(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 task = p.index * COUNT_WARPS + tid() / WARP, lane = tid() & (WARP - 1);
  i32 k = task % j->chunks_len, g = task / j->chunks_len;
  if (g >= j->groups) return;
  Chunk c = j->chunks[k];
  i64 at = (i64)g * j->n + c.lo;
  i32* seed = j->seed + at;
  for (i32 i = lane; i < c.hi - c.lo; i += WARP)
    if (j->single[at + i]) seed[i] = c.lo + i;
  clusters(j->sim + (i64)g * j->sim_len + c.sim, c.ld, j->cand + at, j->cand_len[(i64)g * j->chunks_len + k], j->threshold[g],
           [=](i32 token, i32 s) { seed[token] = c.lo + s; });
}

// One block is one group: makes up for a budget that no threshold meets to the core. The members least similar to their seeds
// leave their clusters.
KERNEL LAUNCH_BOUNDS(SELECT_THREADS) semproxy_fill(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (j->budget != LAYERED && !((j->flags & REGULAR) && j->budget == EQUAL)) return;
  i32 g = p.index, n = j->n, t = tid();
  i32* seed = j->seed + (i64)g * n;
  const i16* sim = j->sim + (i64)g * j->sim_len;
  i32* found = (i32*)(smem() + sizeof(Selected));
  if (t == 0) *found = 0;
  sync();
  for (i32 i = t; i < n; i += SELECT_THREADS)
    if (seed[i] == i) atomic_add(found, 1);
  sync();
  i32 slots = imin(j->quota[g] - *found, n - *found);
  if (slots <= 0) return;
  const i32* chunk_of = j->chunk_of;
  const Chunk* chunks = j->chunks;
  select_top((Selected*)smem(), n, slots,
    [=](i32 i, u32& x) {
      i32 s = seed[i];
      if (s == i) return false;
      Chunk c = chunks[chunk_of[i]];
      x = 32767u - (u32)(i32)sim[c.sim + (i64)(s - c.lo) * c.ld + i - c.lo];
      return true;
    },
    [=](i32 i) { seed[i] = i; });
}

// sort_keys sorts n keys, a power of two, in ascending order: a bitonic network over one block.
DEVICE void sort_keys(u64* keys, i32 n) {
  for (i32 size = 2; size <= n; size <<= 1)
    for (i32 step = size >> 1; step > 0; step >>= 1) {
      sync();
      for (i32 i = tid(); i < n / 2; i += SELECT_THREADS) {
        i32 lo = 2 * i - (i & (step - 1)), hi = lo + step;
        u64 a = keys[lo], b = keys[hi];
        if ((a > b) == ((lo & size) == 0)) {
          keys[lo] = b;
          keys[hi] = a;
        }
      }
    }
  sync();
}

// One block is one group: numbers the clusters in seed order and lists their members in order of position.
KERNEL LAUNCH_BOUNDS(SELECT_THREADS) semproxy_rank(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 g = p.index, n = j->n, t = tid();
  const i32* seed = j->seed + (i64)g * n;
  i32* label = j->label + (i64)g * n;
  i32* start = j->start + (i64)g * (n + 1);
  i32* member = j->member + (i64)g * n;
  u64* keys = j->keys + (i64)g * j->padded;
  i32* found = (i32*)smem();
  i32* totals = found + 1; // [SELECT_THREADS]
  bool by_position = j->flags & BY_POSITION;
  if (t == 0) *found = 0;
  sync();
  for (i32 i = t; i < n; i += SELECT_THREADS)
    if (seed[i] == i) keys[atomic_add(found, 1)] = seed_key(by_position ? 0 : j->centrality[(i64)g * n + i], i, by_position);
  sync();
  i32 m = *found, pow2 = 1;
  while (pow2 < m) pow2 <<= 1;
  for (i32 i = m + t; i < pow2; i += SELECT_THREADS) keys[i] = ~0ull;
  sort_keys(keys, pow2);
  for (i32 i = t; i < m; i += SELECT_THREADS) member[keys[i] & 0xfffff] = i; // the rank of each seed, for now
  for (i32 i = t; i <= m; i += SELECT_THREADS) start[i] = 0;
  sync();
  for (i32 i = t; i < n; i += SELECT_THREADS) {
    label[i] = member[seed[i]];
    atomic_add(&start[label[i] + 1], 1);
  }
  sync();
  // Sum up: a thread has a run of clusters.
  i32 run = (m + SELECT_THREADS) / SELECT_THREADS, from = t * run, to = imin(from + run, m + 1), sum = 0;
  for (i32 i = from; i < to; i++) sum += start[i];
  totals[t] = sum;
  sync();
  sum = 0;
  for (i32 i = 0; i < t; i++) sum += totals[i];
  for (i32 i = from; i < to; i++) start[i] = sum += start[i];
  sync();
  // The members of a cluster are of one chunk: a token's place is the number of those before it.
  for (i32 i = t; i < n; i += SELECT_THREADS) {
    i32 before = 0, s = seed[i];
    for (i32 o = j->chunks[j->chunk_of[i]].lo; o < i; o++) before += seed[o] == s;
    member[start[label[i]] + before] = i;
  }
  if (t == 0) j->cores[g] = m;
}
