// Choosing exact tokens, and the order in which the others are taken as seeds.
#pragma once
#include "rows.h"

enum { SELECT_THREADS = 256, SELECT_WARPS = SELECT_THREADS / WARP };

// sortable maps a float to a key in the same order.
DEVICE u32 sortable(f32 x) {
  u32 b = (u32)bits_of(x == 0 ? 0.0f : x);
  return b >> 31 ? ~b : b | 0x80000000u;
}

// select_top calls take(i), in no order, for the k of total items with the largest keys; equal ones prefer the lower index.
// An item for which key is false is never taken. In its last pass key is asked once for each item, before take. One block of
// SELECT_THREADS.
struct Selected { i32 hist[256]; i32 warps[SELECT_WARPS]; i32 rest, digit; };

template <typename Key, typename Take> DEVICE void select_top(Selected* s, i32 total, i32 k, Key key, Take take) {
  i32 t = tid();
  u32 prefix = 0, mask = 0;
  i32 rest = k;
  for (i32 shift = 24; shift >= 0; shift -= 8) {
    s->hist[t] = 0;
    sync();
    for (i32 i = t; i < total; i += SELECT_THREADS) {
      u32 x;
      if (key(i, x) && (x & mask) == prefix) atomic_add(&s->hist[x >> shift & 255], 1);
    }
    sync();
    if (t == 0) {
      i32 digit = 255, left = rest;
      while (digit > 0 && left > s->hist[digit]) left -= s->hist[digit--];
      s->digit = digit;
      s->rest = left;
    }
    sync();
    prefix |= (u32)s->digit << shift;
    mask |= 255u << shift;
    rest = s->rest; // the next one is written two barriers on
  }
  // Larger keys are all taken; of the equal ones the first rest in order of index.
  i32 before = 0;
  for (i32 base = 0; base < total; base += SELECT_THREADS) {
    i32 i = base + t;
    u32 x = 0;
    bool has = i < total && key(i, x), equal = has && x == prefix;
    if (has && x > prefix) take(i);
    u32 votes = ballot(equal);
    if ((t & (WARP - 1)) == 0) s->warps[t / WARP] = __builtin_popcount(votes);
    sync();
    i32 rank = before + __builtin_popcount(votes & ((1u << (t & (WARP - 1))) - 1));
    for (i32 w = 0; w < SELECT_WARPS; w++) {
      if (w < t / WARP) rank += s->warps[w];
      before += s->warps[w];
    }
    if (equal && rank < rest) take(i);
    sync();
  }
}

// One block is one group, or those that share a budget when exact tokens compete across them: marks the tokens that never merge.
KERNEL LAUNCH_BOUNDS(SELECT_THREADS) semproxy_select(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  bool across = j->flags & ACROSS;
  i32 n = j->n, total = across ? j->pool * n : n;
  i64 first = (i64)p.index * total;
  const u8* keep = j->keep;
  u8* single = j->single + first;
  const f32* score = j->score + first;
  for (i32 i = tid(); i < total; i += SELECT_THREADS) single[i] = keep[i % n]; // the thread that may mark it below
  if (j->exact == 0) return;
  select_top((Selected*)smem(), total, j->exact,
    [=](i32 i, u32& x) { x = sortable(score[i]); return keep[i % n] == 0; },
    [=](i32 i) { single[i] = 1; });
}

// seed_key sorts into seed order: the more central first, then the lower index (compress.rank).
DEVICE u64 seed_key(f64 centrality, i32 index, bool by_position) {
  u64 key = by_position ? 0 : (u64)((2048 - centrality) * 4294967296.0);
  return key << 20 | (u64)index;
}

DEVICE u32 fixed_weight(f64 x) {
  x = x * 256 + 0.5;
  return !(x >= 1) ? 1 : x > 65535 ? 65535 : (u32)x;
}

// looked_weight is the share of a token's weight that what it is looked at has, squared: the mean over the group's heads.
DEVICE f64 looked_weight(const Job* j, i32 g, i32 i) {
  f64 sum = 0;
  for (i32 plane = g * j->group_heads; plane < (g + 1) * j->group_heads; plane++) {
    f64 look = j->looks[(i64)plane * j->tokens + j->sinks + i] / j->mean_look[plane];
    sum += (j->flags & IMPORTANT ? look > LEAST_LOOK ? look : LEAST_LOOK : (1 + look) / 2) / j->group_heads;
  }
  return sum;
}

struct Ordered { u64 key[1024]; u16 weight[1024]; i32 singles, candidates; };

// One block is one chunk of one group: lists its candidates in seed order, counts, and weighs the similarities.
KERNEL LAUNCH_BOUNDS(SELECT_THREADS) semproxy_order(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 g = p.index / j->chunks_len, k = p.index % j->chunks_len, t = tid();
  Chunk c = j->chunks[k];
  i32 n = c.hi - c.lo;
  i64 at = (i64)g * j->n + c.lo;
  Ordered* s = (Ordered*)smem();
  if (t == 0) s->singles = 0;
  sync();
  for (i32 i = t; i < n; i += SELECT_THREADS) {
    bool single = j->single[at + i];
    s->key[i] = single ? ~0ull : seed_key(j->centrality[at + i], i, j->flags & BY_POSITION);
    if (single) atomic_add(&s->singles, 1);
    if (j->flags & WEIGHED) {
      f64 age = j->age[c.lo + i], x = age;
      if (j->flags & DISTINCT) {
        f64 score = j->score[at + i];
        x *= root((score > 0 ? score : 0) / j->group_heads);
      }
      if (j->flags & LOOKED) x *= root(looked_weight(j, g, c.lo + i) / age);
      s->weight[i] = (u16)fixed_weight(x * j->dear[g]);
    }
  }
  sync();
  for (i32 i = t; i < n; i += SELECT_THREADS) {
    u64 key = s->key[i];
    if (key == ~0ull) continue;
    i32 rank = 0;
    for (i32 o = 0; o < n; o++) rank += s->key[o] < key;
    j->cand[at + rank] = (u16)i;
  }
  if (t == 0) {
    j->cand_len[(i64)g * j->chunks_len + k] = n - s->singles;
    atomic_add(&j->least[g], s->singles + (s->singles < n));
    atomic_add(&j->singles[g], s->singles);
    atomic_add(&j->singles[j->groups], s->singles);
  }
  if (!(j->flags & WEIGHED)) return;
  i16* sim = j->sim + (i64)g * j->sim_len + c.sim;
  for (i32 r = t / WARP; r < n; r += SELECT_WARPS)
    for (i32 i = t & (WARP - 1); i < n; i += WARP) {
      i32 x = sim[(i64)r * c.ld + i];
      u32 cost = (u32)imax(1024 - x, 0) * s->weight[i] / 256;
      sim[(i64)r * c.ld + i] = (i16)(1024 - (i32)(cost < 32767 ? cost : 32767));
    }
}
