// How much the page's own queries look at each token (SnapKV), in two passes over the keys.
#pragma once
#include "attention.h"

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
  return a;
}

// One block is at most QUERIES queries of one plane: the largest logit of each and one over the sum of its softmax.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_softmax(const Batch b) {
  Place place_ = place(b);
  const Job* j = place_.job;
  Attend a = originals(j);
  i32 query_blocks = (a.per + QUERIES - 1) / QUERIES, plane = place_.index / query_blocks, first = place_.index % query_blocks * QUERIES;
  i32 queries = imin(a.per - first, QUERIES), d = a.dim, lane = tid() & (WARP - 1), warp = tid() / WARP;
  f32* q = (f32*)smem();          // [QUERIES, dim]
  f32* p = q + QUERIES * d;       // [QUERIES, KEYS]
  f32* tile = p + QUERIES * KEYS; // [KEYS, dim + 4]
  load_queries(q, a, plane, first, queries);
  f32 top[QUERIES / 4], sum[QUERIES / 4];
#pragma unroll
  for (i32 i = 0; i < QUERIES / 4; i++) { top[i] = NONE; sum[i] = 0; }
  for (i32 base = 0; base < j->tokens; base += KEYS) {
    load_tile(tile, d + 4, a, a.k, scale_of(j->kscale, plane), plane / a.heads, plane % a.heads, base, j->tokens);
    sync();
    tile_logits(p, q, tile, a, 0, 0, base, j->tokens);
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

// One block is KEYS tokens of one plane: the attention that they get, summed over the queries.
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
  if (t < KEYS && base + t < j->tokens) j->looks[(i64)plane * j->tokens + base + t] = sum;
}
