// Proportional attention of few queries over many keys: decode steps over a paged cache, and the fidelity of a page.
#pragma once
#include "rows.h"

enum { ATTEND_THREADS = 128, KEYS = 64, QUERIES = 16 };
#define NONE -1e30f // the logit of what is not there

// Row r of k is its elements [r*dim, (r+1)*dim). Token t of head h of sequence b is row
//   b*row_b + t*row_t + h*row_h                                       when table is null, else
//   table[b*table_stride + t/block_size]*row_b + t%block_size*row_t + h*row_h.
// bias, counts: one per row, or null; a row of count 0, or of bias -inf, is padding. Without a bias it is the logarithm of the
// count, or nothing where plain says so. q and out are [batch, heads, per, dim]: the queries of all
// query heads that share a KV head follow each other.
struct Attend {
  const u8 *q, *k, *v;
  const f32* bias;
  const i32* counts;
  const i32* table;
  const i32* lens;            // [batch, heads], tokens; null: len each
  const f32 *kscale, *vscale; // [batch, heads] or null
  f32* part;                  // [batch, heads, per, splits, dim + 2]
  f32* out;
  i64 row_b, row_t, row_h;
  i32 batch, heads, per, dim, dtype, qdtype, block_size, table_stride, splits, split_len, query_blocks, len, plain;
  f32 scale;                  // of the logits, times log2(e)
};

DEVICE i64 row_of(const Attend& a, i32 b, i32 h, i32 t) {
  if (!a.table) return b * a.row_b + t * a.row_t + h * a.row_h;
  return a.table[(i64)b * a.table_stride + t / a.block_size] * a.row_b + t % a.block_size * a.row_t + h * a.row_h;
}

// load_tile widens rows [from, from+KEYS) of x, zeros beyond to.
DEVICE void load_tile(f32* tile, i32 stride, const Attend& a, const u8* x, f32 scale, i32 b, i32 h, i32 from, i32 to) {
  i32 octets = a.dim / 8, size = element_size(a.dtype);
  for (i32 i = tid(); i < KEYS * octets; i += ATTEND_THREADS) {
    i32 r = i / octets, o = i % octets * 8;
    f32 y[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (from + r < to) load8(y, x + (row_of(a, b, h, from + r) * a.dim + o) * size, a.dtype, scale);
    f32* p = tile + r * stride + o;
    *(Quad*)p = Quad{y[0], y[1], y[2], y[3]};
    *(Quad*)(p + 4) = Quad{y[4], y[5], y[6], y[7]};
  }
}

// load_queries widens queries [first, first+count) of a KV head and scales them, zeros up to QUERIES.
DEVICE void load_queries(f32* q, const Attend& a, i32 plane, i32 first, i32 count) {
  i32 d = a.dim, size = element_size(a.qdtype);
  for (i32 i = tid(); i < QUERIES * d / 8; i += ATTEND_THREADS) {
    i32 r = i * 8 / d, o = i * 8 % d;
    f32 y[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (r < count) load8(y, a.q + (((i64)plane * a.per + first + r) * d + o) * size, a.qdtype, 1);
    for (i32 e = 0; e < 8; e++) q[i * 8 + e] = y[e] * a.scale;
  }
}

// tile_logits fills p, [QUERIES, KEYS], for the keys of a tile, NONE where there is none. A thread has one key and half of the
// queries.
DEVICE void tile_logits(f32* p, const f32* q, const f32* tile, const Attend& a, i32 b, i32 h, i32 base, i32 to) {
  i32 t = tid(), d = a.dim, stride = d + 4, key = t & (KEYS - 1), half = t / KEYS * (QUERIES / 2);
  f32 s[QUERIES / 2];
#pragma unroll
  for (i32 i = 0; i < QUERIES / 2; i++) s[i] = 0;
  for (i32 e = 0; e < d; e += 4) {
    Quad k = *(const Quad*)(tile + key * stride + e);
#pragma unroll
    for (i32 i = 0; i < QUERIES / 2; i++) {
      Quad y = *(const Quad*)(q + (half + i) * d + e);
      s[i] = fused(k.w, y.w, fused(k.z, y.z, fused(k.y, y.y, fused(k.x, y.x, s[i]))));
    }
  }
  f32 bias = 0;
  bool seen = base + key < to;
  if (seen && (a.bias || a.counts)) {
    i64 row = row_of(a, b, h, base + key);
    i32 count = a.counts ? a.counts[row] : 1;
    if (count <= 0) seen = false;
    else bias = a.bias ? a.bias[row] * 1.44269504f : a.plain ? 0 : log_2((f32)count);
    seen = seen && bias > NONE; // -inf pads too
  }
#pragma unroll
  for (i32 i = 0; i < QUERIES / 2; i++) p[(half + i) * KEYS + key] = seen ? s[i] + bias : NONE;
}

// warp_max is the largest x of a warp.
DEVICE f32 warp_max(f32 x) {
  for (i32 m = WARP / 2; m > 0; m >>= 1) {
    f32 o = shfl_xor(x, m);
    x = o > x ? o : x;
  }
  return x;
}

// outputs adds a tile's values, weighed, to element e of every query's output.
DEVICE void outputs(f32 (&acc)[QUERIES], i32 e, i32 d, const f32* tile, const f32* p, const f32* fade) {
  if (e >= d) return;
  i32 stride = d + 4;
#pragma unroll
  for (i32 i = 0; i < QUERIES; i++) acc[i] *= fade[i];
  for (i32 k = 0; k < KEYS; k += 4) {
    const f32* v = tile + k * stride + e;
    f32 v0 = v[0], v1 = v[stride], v2 = v[2 * stride], v3 = v[3 * stride];
#pragma unroll
    for (i32 i = 0; i < QUERIES; i++) {
      Quad w = *(const Quad*)(p + i * KEYS + k);
      acc[i] = fused(w.w, v3, fused(w.z, v2, fused(w.y, v1, fused(w.x, v0, acc[i]))));
    }
  }
}

// One block is at most QUERIES queries of one KV head over one run of its keys.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_attend(const Attend a) {
  i32 x = bid(), t = tid(), d = a.dim, stride = d + 4;
  i32 split = x % a.splits;
  x /= a.splits;
  i32 first = x % a.query_blocks * QUERIES;
  x /= a.query_blocks;
  i32 h = x % a.heads, b = x / a.heads;
  i32 queries = imin(a.per - first, QUERIES), plane = b * a.heads + h, len = a.lens ? a.lens[plane] : a.len;
  i32 from = split * a.split_len, to = imin(from + a.split_len, len);
  f32* q = (f32*)smem();            // [QUERIES, dim]
  f32* p = q + QUERIES * d;         // [QUERIES, KEYS]
  f32* fade = p + QUERIES * KEYS;   // [QUERIES], what the sums so far are multiplied by
  f32* tile = fade + QUERIES;       // [KEYS, stride]
  load_queries(q, a, plane, first, queries);
  f32 low[QUERIES], high[QUERIES], top[QUERIES / 4], sum[QUERIES / 4]; // a thread has elements t and t+ATTEND_THREADS
#pragma unroll
  for (i32 i = 0; i < QUERIES; i++) low[i] = high[i] = 0;
#pragma unroll
  for (i32 i = 0; i < QUERIES / 4; i++) { top[i] = NONE; sum[i] = 0; }
  i32 lane = t & (WARP - 1), warp = t / WARP;
  for (i32 base = from; base < to; base += KEYS) {
    sync(); // the values of the tile before are no longer read
    load_tile(tile, stride, a, a.k, scale_of(a.kscale, plane), b, h, base, to);
    sync();
    tile_logits(p, q, tile, a, b, h, base, to);
    sync();
    load_tile(tile, stride, a, a.v, scale_of(a.vscale, plane), b, h, base, to);
    // Softmax: a warp has every fourth query, a lane two keys.
#pragma unroll
    for (i32 i = 0; i < QUERIES / 4; i++) {
      i32 r = i * 4 + warp;
      f32 u = p[r * KEYS + lane], v = p[r * KEYS + lane + WARP], most = warp_max(u > v ? u : v);
      most = most > top[i] ? most : top[i];
      f32 f = exp_2(top[i] - most);
      u = u > NONE ? exp_2(u - most) : 0;
      v = v > NONE ? exp_2(v - most) : 0;
      sum[i] = sum[i] * f + team_sum(u + v, WARP);
      top[i] = most;
      p[r * KEYS + lane] = u;
      p[r * KEYS + lane + WARP] = v;
      if (lane == 0) fade[r] = f;
    }
    sync();
    outputs(low, t, a.dim, tile, p, fade);
    outputs(high, t + ATTEND_THREADS, a.dim, tile, p, fade);
  }
  f32* out = a.part + ((i64)plane * a.per + first) * a.splits * (d + 2) + (i64)split * (d + 2);
  i64 step = (i64)a.splits * (d + 2);
#pragma unroll
  for (i32 i = 0; i < QUERIES; i++) {
    if (i < queries && t < d) out[i * step + 2 + t] = low[i];
    if (i < queries && t + ATTEND_THREADS < d) out[i * step + 2 + t + ATTEND_THREADS] = high[i];
  }
#pragma unroll
  for (i32 i = 0; i < QUERIES / 4; i++) {
    i32 r = i * 4 + warp;
    if (lane == 0 && r < queries) {
      out[r * step] = top[i];
      out[r * step + 1] = sum[i];
    }
  }
}

// One block is one query: joins what the runs of keys gave.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_combine(const Attend a) {
  i32 d = a.dim;
  const f32* part = a.part + (i64)bid() * a.splits * (d + 2);
  f32 top = NONE, sum = 0;
  for (i32 s = 0; s < a.splits; s++) top = part[s * (d + 2)] > top ? part[s * (d + 2)] : top;
  for (i32 s = 0; s < a.splits; s++) sum += part[s * (d + 2) + 1] * exp_2(part[s * (d + 2)] - top);
  f32 inv = sum > 0 ? 1 / sum : 0;
  for (i32 e = tid(); e < d; e += ATTEND_THREADS) {
    f32 y = 0;
    for (i32 s = 0; s < a.splits; s++) y += part[s * (d + 2) + 2 + e] * exp_2(part[s * (d + 2)] - top);
    a.out[(i64)bid() * d + e] = y * inv;
  }
}
