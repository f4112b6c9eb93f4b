// How much queries look at each token, in two passes over the keys: the page's own (SnapKV), or those of the future.
#pragma once
#include "attention.h"

enum { MEAN_THREADS = 256 };

DEVICE Attend originals(const Job* j) {
  Attend a = {};
  a.q = j->q;
  a.k = j->k;
  a.row_b = (i64)j->heads * j->tokens;
  a.row_t = 1;
  a.row_h = j->tokens;
  a.heads = j->heads;
  a.per = j->queries;
  a.dim = j->dim;
  a.dtype = j->dtype;
  a.qdtype = j->qdtype;
  a.scale = 1.44269504f / (f32)root((f64)j->dim);
  a.len = j->tokens;
  return a;
}

// cores_of is the attention of the queries that teach to the merged cores, before they are rounded to 8 bits.
DEVICE Attend cores_of(const Job* j) {
  Attend a = originals(j);
  a.q = j->teach;
  a.k = j->out_k;
  a.counts = j->out_counts;
  a.row_b = (i64)j->heads * j->width;
  a.row_h = a.len = j->width;
  a.per = j->asks;
  a.plain = (j->flags & FOLD) != 0;
  a.qdtype = F32;
  return a;
}

// One block is at most QUERIES queries of one plane: the largest logit of each and one over the sum of its softmax. arg: 0 over
// the originals, 1 over the cores.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_softmax(const Batch b) {
  Place place_ = place(b);
  const Job* j = place_.job;
  Attend a = b.arg ? cores_of(j) : originals(j);
  i32 query_blocks = (a.per + QUERIES - 1) / QUERIES, plane = place_.index / query_blocks, first = place_.index % query_blocks * QUERIES;
  i32 queries = imin(a.per - first, QUERIES), d = a.dim, lane = tid() & (WARP - 1), warp = tid() / WARP;
  f32* q = (f32*)smem();          // [QUERIES, dim]
  f32* p = q + QUERIES * d;       // [QUERIES, KEYS]
  f32* tile = p + QUERIES * KEYS; // [KEYS, dim + 4]
  load_queries(q, a, plane, first, queries);
  f32 top[QUERIES / 4], sum[QUERIES / 4];
#pragma unroll
  for (i32 i = 0; i < QUERIES / 4; i++) { top[i] = NONE; sum[i] = 0; }
  for (i32 base = 0; base < a.len; base += KEYS) {
    load_tile(tile, d + 4, a, a.k, scale_of(j->kscale, plane), plane / a.heads, plane % a.heads, base, a.len);
    sync();
    tile_logits(p, q, tile, a, plane / a.heads, plane % a.heads, base, a.len);
    sync();
#pragma unroll
    for (i32 i = 0; i < QUERIES / 4; i++) {
      i32 r = i * 4 + warp;
      f32 u = p[r * KEYS + lane], v = p[r * KEYS + lane + WARP], most = warp_max(u > v ? u : v);
      most = most > top[i] ? most : top[i];
      sum[i] = sum[i] * exp_2(top[i] - most) + team_sum(exp_2(u - most) + exp_2(v - most), WARP);
      top[i] = most;
    }
  }
#pragma unroll
  for (i32 i = 0; i < QUERIES / 4; i++) {
    i32 r = i * 4 + warp;
    if (lane > 0 || r >= queries) continue;
    f32* out = j->softmax + ((i64)plane * a.per + first + r) * 2;
    out[0] = top[i];
    out[1] = 1 / sum[i];
  }
}

// One block is KEYS tokens of one plane: the attention that they get, summed over the queries; looked: times the lengths of
// their values.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_looks(const Batch b) {
  Place place_ = place(b);
  const Job* j = place_.job;
  Attend a = originals(j);
  i32 tiles = (j->tokens + KEYS - 1) / KEYS, plane = place_.index / tiles, base = place_.index % tiles * KEYS, d = a.dim, t = tid();
  f32* q = (f32*)smem();
  f32* p = q + QUERIES * d;
  f32* tile = p + QUERIES * KEYS;
  load_tile(tile, d + 4, a, a.k, scale_of(j->kscale, plane), plane / a.heads, plane % a.heads, base, j->tokens);
  f32 sum = 0;
  for (i32 first = 0; first < a.per; first += QUERIES) {
    i32 queries = imin(a.per - first, QUERIES);
    load_queries(q, a, plane, first, queries);
    sync();
    tile_logits(p, q, tile, a, 0, 0, base, j->tokens);
    sync();
    const f32* s = j->softmax + ((i64)plane * a.per + first) * 2;
    if (t < KEYS)
      for (i32 r = 0; r < queries; r++) sum += exp_2(p[r * KEYS + t] - s[2 * r]) * s[2 * r + 1];
  }
  if (j->flags & LOOKED) {
    load_tile(tile, d + 4, a, j->v, scale_of(j->vscale, plane), plane / a.heads, plane % a.heads, base, j->tokens);
    sync();
    f32 ss = 0;
    if (t < KEYS)
      for (i32 e = 0; e < d; e++) ss = fused(tile[t * (d + 4) + e], tile[t * (d + 4) + e], ss);
    sum *= (f32)root(ss);
  }
  if (t < KEYS && base + t < j->tokens) j->looks[(i64)plane * j->tokens + base + t] = sum;
}

// One block is one plane: the mean of the looks at its tokens behind the sinks, which get attention whatever they mean.
KERNEL LAUNCH_BOUNDS(MEAN_THREADS) semproxy_meanlook(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (!(j->flags & LOOKED)) return;
  i32 t = tid();
  f64* all = (f64*)smem(); // [MEAN_THREADS]
  f64 sum = 0;
  for (i32 i = j->sinks + t; i < j->tokens; i += MEAN_THREADS) sum += j->looks[(i64)p.index * j->tokens + i];
  all[t] = sum;
  for (i32 half = MEAN_THREADS / 2; half > 0; half >>= 1) {
    sync();
    if (t < half) all[t] += all[t + half];
  }
  if (t == 0) j->mean_look[p.index] = all[0] / (j->tokens - j->sinks) + 1e-30;
}
