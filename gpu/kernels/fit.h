// Cores that give the queries that teach what the originals gave them. Keys of merged cores are moved so that their logits are those of
// their members together; values are moved by ridge regression,
// V + X'^T (X' X'^T + l I)^-1 (Y - X V), with X the attention of the queries to the cores, X' its columns of those that move and Y what
// they got from the originals. Between kernels only sums of softmax are kept; attention is computed again where it is wanted.
#pragma once
#include "attended.h"

enum { TEACHERS = 64, SYSTEM = TEACHERS + 1 }; // queries of a plane that teach, at most; the length of a row of their system

// See compress: the weights of staying near the mean of the members' values and near the mean key, what is added to a logit at most,
// and the variance of a folded bias from which on less of it is folded.
#define RIDGE 6.4
#define KEY_RIDGE 0.3
#define KEY_LIMIT 2.0f
#define FOLD_LIMIT 1.0
#define LN2 0.693147180559945

// moves reports whether core c of a plane may have another value: all but those of sinks, recent and protected tokens.
DEVICE bool moves(const Job* j, i32 plane, i32 c) {
  i32 g = plane / j->group_heads;
  c -= j->sinks;
  if (c < 0 || c >= j->cores[g]) return false;
  const i32* start = j->start + (i64)g * (j->n + 1) + c;
  return start[1] - start[0] > 1 || !j->keep[j->member[(i64)g * j->n + start[0]]];
}

// weights fills w, [TEACHERS, KEYS], with the attention of a plane's teachers to the cores whose keys are in tile. q is room for
// QUERIES of them.
DEVICE void weights(f32* w, f32* q, const f32* tile, const Job* j, const Attend& a, i32 plane, i32 base) {
  for (i32 first = 0; first < TEACHERS; first += QUERIES) {
    load_queries(q, a, plane, first, imin(a.per - first, QUERIES));
    sync();
    tile_logits(w + first * KEYS, q, tile, a, plane / a.heads, plane % a.heads, base, a.len);
    sync();
  }
  const f32* s = j->softmax + (i64)plane * a.per * 2;
  for (i32 i = tid(); i < TEACHERS * KEYS; i += ATTEND_THREADS) {
    i32 r = i / KEYS;
    w[i] = r < a.per && w[i] > NONE ? exp_2(w[i] - s[2 * r]) * s[2 * r + 1] : 0;
  }
  sync();
}

// nudge adds to the eight elements at x the sum over the queries that teach of their weights, KEYS apart, times rows of z.
DEVICE void nudge(u8* x, const f32* w, const f32* z, const Attend& a, f32 scale) {
  f32 move[8] = {0, 0, 0, 0, 0, 0, 0, 0}, y[8];
  for (i32 r = 0; r < a.per; r++) {
    Quad lo = *(const Quad*)(z + r * a.dim), hi = *(const Quad*)(z + r * a.dim + 4);
    f32 by = w[r * KEYS];
    move[0] = fused(by, lo.x, move[0]);
    move[1] = fused(by, lo.y, move[1]);
    move[2] = fused(by, lo.z, move[2]);
    move[3] = fused(by, lo.w, move[3]);
    move[4] = fused(by, hi.x, move[4]);
    move[5] = fused(by, hi.y, move[5]);
    move[6] = fused(by, hi.z, move[6]);
    move[7] = fused(by, hi.w, move[7]);
  }
  load8(y, x, a.dtype, scale);
  for (i32 k = 0; k < 8; k++) y[k] += move[k];
  store8(x, y, a.dtype, scale);
}

// cholesky makes the lower half of m, [n, SYSTEM], L with L L^T = m + lambda I, and reports whether m was positive. A thread has a
// row.
DEVICE bool cholesky(f64* m, i32 n, f64 lambda) {
  i32 t = tid();
  bool positive = true;
  f64* row = m + t * SYSTEM;
  for (i32 k = 0; k < n; k++) {
    f64 x = 0;
    if (t >= k && t < n) {
      x = row[k];
      for (i32 i = 0; i < k; i++) x -= row[i] * m[k * SYSTEM + i];
    }
    if (t == k) {
      x += lambda;
      row[k] = x > 0 && x - x == 0 ? root(x) : 0;
    }
    sync();
    f64 pivot = m[k * SYSTEM + k];
    if (t > k && t < n) row[k] = pivot > 0 ? x / pivot : 0;
    positive = positive && pivot > 0;
    sync();
  }
  return positive;
}

// solve replaces z, n elements that lie step apart, by the solution of L L^T x = z.
DEVICE void solve(f64* z, i32 step, const f64* l, i32 n) {
  for (i32 i = 0; i < n; i++) {
    f64 x = z[i * step];
    for (i32 k = 0; k < i; k++) x -= l[i * SYSTEM + k] * z[k * step];
    z[i * step] = x / l[i * SYSTEM + i];
  }
  for (i32 i = n - 1; i >= 0; i--) {
    f64 x = z[i * step];
    for (i32 k = i + 1; k < n; k++) x -= l[k * SYSTEM + i] * z[k * step];
    z[i * step] = x / l[i * SYSTEM + i];
  }
}

// fold_scale is what makes the mean of n products one, or less where they vary much.
DEVICE f64 fold_scale(const f64* products, i32 n) {
  f64 sum = 0, square = 0;
  for (i32 i = 0; i < n; i++) {
    sum += products[i];
    square += products[i] * products[i];
  }
  f64 mean = sum / n;
  if (!(mean > 1e-12)) return 0;
  f64 variance = square / n / (mean * mean) - 1;
  return variance > FOLD_LIMIT ? FOLD_LIMIT / variance / mean : 1 / mean;
}

// One block is one plane: for each query that teaches the key that adds one to its logit and little to those of the others, the rows of
// (Q Q^T + l I)^-1 Q.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_aim(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (!(j->flags & (FIT | FOLD))) return;
  i32 plane = p.index, d = j->dim, n = j->asks, t = tid();
  f64* m = (f64*)smem(); // [TEACHERS, SYSTEM]
  i64 at = (i64)plane * n * d;
  const f32* q = (const f32*)j->teach + at;
  f32 inv = (f32)(1 / root((f64)d));
  for (i32 i = t; i < n * n; i += ATTEND_THREADS) {
    i32 r = i / n, c = i % n;
    if (c > r) continue;
    f32 s = 0;
    for (i32 e = 0; e < d; e += 4) {
      Quad x = *(const Quad*)(q + r * d + e), y = *(const Quad*)(q + c * d + e);
      s = fused(x.w, y.w, fused(x.z, y.z, fused(x.y, y.y, fused(x.x, y.x, s))));
    }
    m[r * SYSTEM + c] = (f64)s / d;
  }
  sync();
  f64 trace = 0;
  for (i32 i = 0; i < n; i++) trace += m[i * SYSTEM + i];
  sync();
  bool positive = cholesky(m, n, KEY_RIDGE * trace / d + 1e-12);
  for (i32 e = t; e < d; e += ATTEND_THREADS) { // a thread has a column
    f64* z = j->solved + at + e;
    for (i32 i = 0; i < n; i++) z[i * d] = inv * q[i * d + e];
    solve(z, d, m, n);
    for (i32 i = 0; i < n; i++) j->aims[at + i * d + e] = positive ? (f32)z[i * d] : 0;
  }
}

// members_of are the tokens of a plane in the order of their clusters, as the queries that teach see them.
DEVICE Attend members_of(const Job* j, i32 plane) {
  Attend a = originals(j);
  a.q = j->teach;
  a.qdtype = F32;
  a.per = j->asks;
  a.k = j->k + ((i64)plane * j->tokens + j->sinks) * j->dim * element_size(j->dtype);
  a.table = j->member + (i64)(plane / j->group_heads) * j->n;
  a.block_size = 1;
  a.row_b = 1;
  a.row_t = a.row_h = 0;
  return a;
}

// join is the logarithm, to the base two, of 2^x and all 2^p[k] for k in [from, to).
DEVICE f32 join(f32 x, const f32* p, i32 from, i32 to) {
  f32 top = x, sum = 0;
  for (i32 k = from; k < to; k++) top = p[k] > top ? p[k] : top;
  for (i32 k = from; k < to; k++) sum += exp_2(p[k] - top);
  return top + log_2(sum + exp_2(x - top));
}

// One block is KEYS cores of one plane: moves the keys of merged ones, so that a query that teaches gives a core the attention that it
// gave the core's members.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_keys(const Batch b) {
  Place place_ = place(b);
  const Job* j = place_.job;
  if (!(j->flags & FIT)) return;
  Attend a = cores_of(j);
  i32 tiles = (a.len + KEYS - 1) / KEYS, plane = place_.index / tiles, base = place_.index % tiles * KEYS, d = a.dim, size = element_size(a.dtype);
  i32 g = plane / j->group_heads, m = j->cores[g], t = tid();
  const i32* start = j->start + (i64)g * (j->n + 1) - j->sinks;
  i32 low = imax(base, j->sinks), high = imin(base + KEYS, j->sinks + m); // the clusters among them
  f32* q = (f32*)smem();            // [QUERIES, dim]
  f32* p = q + QUERIES * d;         // [QUERIES, KEYS]
  f32* lack = p + QUERIES * KEYS;   // [TEACHERS, KEYS], logits of the members together, then what the cores' lack
  f32* tile = lack + TEACHERS * KEYS; // [KEYS, dim + 4]
  for (i32 i = t; i < TEACHERS * KEYS; i += ATTEND_THREADS) lack[i] = NONE;
  Attend o = members_of(j, plane);
  f32 scale = scale_of(j->kscale, plane);
  for (i32 from = low < high ? start[low] : 0, to = low < high ? start[high] : 0; from < to; from += KEYS) {
    load_tile(tile, d + 4, o, o.k, scale, 0, 0, from, to);
    for (i32 first = 0; first < o.per; first += QUERIES) {
      load_queries(q, o, plane, first, imin(o.per - first, QUERIES));
      sync();
      tile_logits(p, q, tile, o, 0, 0, from, to);
      sync();
      for (i32 i = t; i < QUERIES * KEYS; i += ATTEND_THREADS) {
        i32 r = i / KEYS, c = base + i % KEYS;
        if (c < low || c >= high) continue;
        i32 lo = imax(start[c] - from, 0), hi = imin(start[c + 1] - from, KEYS);
        if (lo < hi) lack[first * KEYS + i] = join(lack[first * KEYS + i], p + r * KEYS, lo, hi);
      }
    }
  }
  load_tile(tile, d + 4, a, a.k, scale, plane / a.heads, plane % a.heads, base, a.len);
  for (i32 first = 0; first < a.per; first += QUERIES) {
    load_queries(q, a, plane, first, imin(a.per - first, QUERIES));
    sync();
    tile_logits(p, q, tile, a, plane / a.heads, plane % a.heads, base, a.len);
    sync();
    for (i32 i = t; i < QUERIES * KEYS; i += ATTEND_THREADS) {
      f32 x = (f32)((lack[first * KEYS + i] - p[i]) * LN2);
      x = x > KEY_LIMIT ? KEY_LIMIT : x;
      lack[first * KEYS + i] = x > -KEY_LIMIT ? x : -KEY_LIMIT;
    }
  }
  sync();
  for (i32 i = t; i < KEYS * d / 8; i += ATTEND_THREADS) {
    i32 c = i * 8 / d, e = i * 8 % d;
    if (base + c >= a.len || j->out_counts[(i64)plane * j->width + base + c] <= 1) continue;
    u8* k = j->out_k + (((i64)plane * j->width + base + c) * d + e) * size;
    nudge(k, lack + c, j->aims + (i64)plane * a.per * d + e, a, scale);
  }
}

// One block is one plane: moves the bias of merged cores into their keys, k + bias f, along the direction f whose product with the
// queries that teach is nearest one: the sum of what semproxy_aim found, divided by its mean product.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_fold(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (!(j->flags & FOLD)) return;
  i32 plane = p.index, d = j->dim, n = j->asks, t = tid(), size = element_size(j->dtype);
  f64* products = (f64*)smem();         // [TEACHERS]
  f32* f = (f32*)(products + TEACHERS); // [dim]
  i64 at = (i64)plane * n * d;
  const f32* q = (const f32*)j->teach + at;
  f32 inv = (f32)(1 / root((f64)d));
  for (i32 e = t; e < d; e += ATTEND_THREADS) {
    f32 s = 0;
    for (i32 r = 0; r < n; r++) s += j->aims[at + r * d + e];
    f[e] = s;
  }
  sync();
  if (t < n) {
    f32 s = 0;
    for (i32 e = 0; e < d; e++) s = fused(inv * q[t * d + e], f[e], s);
    products[t] = s;
  }
  sync();
  f64 by = fold_scale(products, n);
  const i32* counts = j->out_counts + (i64)plane * j->width;
  f32 scale = scale_of(j->kscale, plane);
  for (i32 i = t; i < j->width * d / 8; i += ATTEND_THREADS) {
    i32 c = i * 8 / d, e = i * 8 % d;
    if (counts[c] <= 1) continue;
    f32 x[8], much = (f32)(log_2((f32)counts[c]) * LN2 * by);
    u8* k = j->out_k + (((i64)plane * j->width + c) * d + e) * size;
    load8(x, k, j->dtype, scale);
    for (i32 y = 0; y < 8; y++) x[y] = fused(much, f[e + y], x[y]);
    store8(k, x, j->dtype, scale);
  }
}

// One block is one plane: the products of the teachers' attention to the cores that move, and what they lack through their inverse.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_solve(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (!(j->flags & FIT)) return;
  Attend a = cores_of(j);
  i32 plane = p.index, d = a.dim, n = a.per, t = tid(), tx = t & 15, ty = t >> 4;
  f32* q = (f32*)smem();           // [QUERIES, dim]
  f32* w = q + QUERIES * d;        // [TEACHERS, KEYS]
  f32* tile = w + TEACHERS * KEYS; // [KEYS, dim + 4]
  f32 acc[8][4];
#pragma unroll
  for (i32 i = 0; i < 8; i++)
#pragma unroll
    for (i32 k = 0; k < 4; k++) acc[i][k] = 0;
  f64 all = 0;
  for (i32 base = 0; base < a.len; base += KEYS) {
    load_tile(tile, d + 4, a, a.k, scale_of(j->kscale, plane), plane / a.heads, plane % a.heads, base, a.len);
    sync(); // nor are the weights of the tile before read any more
    weights(w, q, tile, j, a, plane, base);
    bool still = !moves(j, plane, base + (t & (KEYS - 1)));
    for (i32 i = t; i < TEACHERS * KEYS; i += ATTEND_THREADS) { // a thread has one core
      all += (f64)w[i] * w[i];
      if (still) w[i] = 0;
    }
    sync();
    for (i32 k = 0; k < KEYS; k += 4) {
      Quad y[4];
#pragma unroll
      for (i32 c = 0; c < 4; c++) y[c] = *(const Quad*)(w + (tx + 16 * c) * KEYS + k);
#pragma unroll
      for (i32 i = 0; i < 8; i++) {
        Quad x = *(const Quad*)(w + (ty + 8 * i) * KEYS + k);
#pragma unroll
        for (i32 c = 0; c < 4; c++) acc[i][c] = fused(x.w, y[c].w, fused(x.z, y[c].z, fused(x.y, y[c].y, fused(x.x, y[c].x, acc[i][c]))));
      }
    }
  }
  sync();
  f64* m = (f64*)smem();           // [TEACHERS, SYSTEM], over what was there
  f64* sums = m + TEACHERS * SYSTEM; // [ATTEND_THREADS / WARP]
#pragma unroll
  for (i32 i = 0; i < 8; i++)
#pragma unroll
    for (i32 c = 0; c < 4; c++) m[(ty + 8 * i) * SYSTEM + tx + 16 * c] = acc[i][c];
  all = team_sum(all, WARP);
  if ((t & (WARP - 1)) == 0) sums[t / WARP] = all;
  sync();
  all = 0;
  for (i32 i = 0; i < ATTEND_THREADS / WARP; i++) all += sums[i];
  i32 slots = j->sinks + j->cores[plane / j->group_heads] + j->recent;
  bool positive = cholesky(m, n, RIDGE * all / (n * slots) + 1e-12);
  i64 at = (i64)plane * n * d;
  for (i32 e = t; e < d; e += ATTEND_THREADS) { // a thread has a column
    f64* z = j->solved + at + e;
    for (i32 i = 0; i < n; i++) z[i * d] = j->want[at + i * d + e] - j->rest[at + i * d + e];
    solve(z, d, m, n);
    for (i32 i = 0; i < n; i++) j->rest[at + i * d + e] = positive ? (f32)z[i * d] : 0;
  }
}

// One block is KEYS cores of one plane: moves their values.
KERNEL LAUNCH_BOUNDS(ATTEND_THREADS) semproxy_fit(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (!(j->flags & FIT)) return;
  Attend a = cores_of(j);
  i32 tiles = (a.len + KEYS - 1) / KEYS, plane = p.index / tiles, base = p.index % tiles * KEYS, d = a.dim, size = element_size(a.dtype);
  f32* q = (f32*)smem();
  f32* w = q + QUERIES * d;
  f32* tile = w + TEACHERS * KEYS;
  load_tile(tile, d + 4, a, a.k, scale_of(j->kscale, plane), plane / a.heads, plane % a.heads, base, a.len);
  sync();
  weights(w, q, tile, j, a, plane, base);
  f32 scale = scale_of(j->vscale, plane);
  for (i32 i = tid(); i < KEYS * d / 8; i += ATTEND_THREADS) {
    i32 c = i * 8 / d, e = i * 8 % d;
    if (!moves(j, plane, base + c)) continue;
    u8* v = j->out_v + (((i64)plane * j->width + base + c) * d + e) * size;
    nudge(v, w + c, j->rest + (i64)plane * a.per * d + e, a, scale);
  }
}
