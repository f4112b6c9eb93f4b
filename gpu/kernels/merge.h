// Clusters become cores.
#pragma once
#include "rows.h"

enum { MERGE_THREADS = 128, REDUCE_THREADS = 256 };

DEVICE void copy8(u8* to, const u8* from, i32 size) {
  if (size == 1) {
    *(Two*)to = *(const Two*)from;
    return;
  }
  for (i32 i = 0; i < size; i += 2) ((Four*)to)[i / 2] = ((const Four*)from)[i / 2];
}

// turn_by rotates a merged key by a fractional distance: a row of the table, and the rest of the angle, at most a half, by series.
DEVICE void turn_by(Row& r, const Job* j, const Lane& l, f64 distance) {
  i32 near = (i32)(distance + 0.5);
  f32 delta = (f32)(distance - near), c[8], s[8];
  load_angles(c, j->cos, near, j->half, l.l);
  load_angles(s, j->sin, near, j->half, l.l);
#pragma unroll
  for (i32 i = 0; i < 8; i++) {
    f32 x = delta * j->freq[8 * l.l + i], y = x * x;
    f32 si = x * (1 - y * (1.0f / 6 - y * (1.0f / 120 - y * (1.0f / 5040))));
    f32 co = 1 - y * (0.5f - y * (1.0f / 24 - y * (1.0f / 720 - y * (1.0f / 40320))));
    f32 u = c[i] * co - s[i] * si;
    s[i] = s[i] * co + c[i] * si;
    c[i] = u;
  }
  turn(r, c, s, j->flags & INTERLEAVED, 1);
}

#define MOST_LOOK 1099511627776.0 // larger than any look of a page whose looks are finite: it has fewer tokens

// matter is the weight of a token among the members of its core: how much it is looked at. What is no number weighs least.
DEVICE f64 matter(const Job* j, i32 plane, i32 i) {
  if (!(j->flags & LOOKED)) return 1;
  f64 look = j->looks[(i64)plane * j->tokens + j->sinks + i] / j->mean_look[plane];
  return look > LEAST_LOOK && look <= MOST_LOOK ? look : LEAST_LOOK;
}

// One team is one core of one plane, or what pads the plane: sinks, clusters, recent tokens, nothing.
KERNEL LAUNCH_BOUNDS(MERGE_THREADS) semproxy_merge(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 team = j->team, d = j->dim, size = element_size(j->dtype);
  i64 at = (i64)p.index * (MERGE_THREADS / team) + tid() / team; // core of all planes
  i32 plane = (i32)(at / j->width), c = (i32)(at % j->width);
  bool inside = plane < j->layers * j->heads;
  Lane l = lane_of(j, tid() & (team - 1));
  l.on = l.on && inside;
  const i32* positions = j->positions + j->sinks;
  const i32* ms = j->member;
  i32 count = 0, token = -1, lo = 0;
  if (inside) {
    i32 g = plane / j->group_heads, m = j->cores[g];
    if (c < j->sinks) {
      token = c;
    } else if (c < j->sinks + m) {
      const i32* start = j->start + (i64)g * (j->n + 1) + c - j->sinks;
      count = start[1] - start[0];
      ms += (i64)g * j->n + start[0];
      lo = j->chunks[j->chunk_of[ms[0]]].lo;
      if (count == 1) token = j->sinks + ms[0];
    } else if (c < j->sinks + m + j->recent) {
      token = j->tokens - j->recent + c - j->sinks - m;
    }
    if (token >= 0) count = 1;
  }
  bool merged = count > 1;
  Row key, unit, value, x;
  clear(key);
  clear(unit);
  clear(value);
  f64 length = 0, distance = 0, square = 0;
  if (merged) {
    const f32* norm = j->norm + (i64)plane * j->n;
    f64 all = 0;
    for (i32 i = 0; i < count; i++) all += matter(j, plane, ms[i]);
    for (i32 i = 0; i < count; i++) {
      i32 token_i = ms[i];
      f32 n = norm[token_i];
      f64 share = matter(j, plane, token_i) / all;
      f32 by = (f32)share;
      length += share * n;
      distance += share * (positions[token_i] - positions[lo]);
      if (!l.on) continue;
      load_unrotated(x, j, plane, lo, token_i, l);
      add(key, x, by);
      add(unit, x, 1 / (n + 1e-9f));
      load_row(x, j, j->v, j->vscale, plane, j->sinks + token_i, l);
      add(value, x, by);
      square += share * squares(x);
    }
    square *= count;
  } else if (token >= 0 && l.on) {
    load_row(value, j, j->v, j->vscale, plane, token, l);
    square = squares(value);
  }
  f32 scale = normalize(key, team);
  f32 similarity = team_sum(product(unit, key), team);
  if (!(j->flags & PLAIN_MEAN)) scale = (f32)length;
  if (merged && l.turns) turn_by(key, j, l, distance);
  multiply(key, scale);
  f32 ss = team_sum(squares(key), team);
  square = team_sum(square, team);
  f64 mean = team_sum((f64)squares(value), team);
  if (!inside) return;

  bool broken = merged && (ss != ss || !(similarity - similarity == 0));
  i64 row = (i64)plane * j->width + c;
  u8 *ok = j->out_k + row * d * size, *ov = j->out_v + row * d * size;
  if (l.on && count == 0) {
    Row zero;
    clear(zero);
    store8(ok + l.a * size, zero.a, j->dtype, 1);
    store8(ok + l.b * size, zero.b, j->dtype, 1);
    store8(ov + l.a * size, zero.a, j->dtype, 1);
    store8(ov + l.b * size, zero.b, j->dtype, 1);
  } else if (l.on) {
    i64 from = ((i64)plane * j->tokens + (merged ? j->sinks + ms[0] : token)) * d * size;
    if (merged && !broken) {
      f32 s = scale_of(j->kscale, plane);
      store8(ok + l.a * size, key.a, j->dtype, s);
      store8(ok + l.b * size, key.b, j->dtype, s);
    } else { // keys near float32's largest number overflow when they are turned: the first member stands in
      copy8(ok + l.a * size, j->k + from + l.a * size, size);
      copy8(ok + l.b * size, j->k + from + l.b * size, size);
    }
    if (merged) {
      f32 s = scale_of(j->vscale, plane);
      store8(ov + l.a * size, value.a, j->dtype, s);
      store8(ov + l.b * size, value.b, j->dtype, s);
    } else {
      copy8(ov + l.a * size, j->v + from + l.a * size, size);
      copy8(ov + l.b * size, j->v + from + l.b * size, size);
    }
  }
  if (l.l > 0) return;
  j->out_counts[row] = count;
  j->out_positions[row] = count == 0 ? 0 : merged ? (f32)(positions[lo] + distance) : (f32)j->positions[token];
  f64* sum = j->partial + row * 3;
  f64 lost = square - mean * count;
  sum[0] = count == 0 || broken ? 0 : merged ? similarity : 1;
  sum[1] = square;
  sum[2] = merged && lost > 0 ? lost : 0;
}

// One block is one plane: sums over its cores, and the core of every token.
KERNEL LAUNCH_BOUNDS(REDUCE_THREADS) semproxy_reduce(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 plane = p.index, g = plane / j->group_heads, m = j->cores[g], t = tid();
  f64* all = (f64*)smem(); // [3, REDUCE_THREADS]
  f64 x[3] = {0, 0, 0};
  for (i32 c = t; c < j->width; c += REDUCE_THREADS)
    for (i32 i = 0; i < 3; i++) x[i] += j->partial[((i64)plane * j->width + c) * 3 + i];
  for (i32 i = 0; i < 3; i++) all[i * REDUCE_THREADS + t] = x[i];
  for (i32 half = REDUCE_THREADS / 2; half > 0; half >>= 1) {
    sync();
    if (t < half)
      for (i32 i = 0; i < 3; i++) all[i * REDUCE_THREADS + t] += all[i * REDUCE_THREADS + t + half];
  }
  if (t == 0) {
    f64 square = all[REDUCE_THREADS], lost = all[2 * REDUCE_THREADS];
    j->out_similarity[plane] = (f32)(all[0] / j->tokens);
    j->out_error[plane] = square > 0 ? (f32)root(lost / square) : 0;
  }
  const i32* label = j->label + (i64)g * j->n;
  i32* assign = j->out_assign + (i64)plane * j->tokens;
  for (i32 i = t; i < j->tokens; i += REDUCE_THREADS) {
    i32 k = i - j->sinks;
    assign[i] = k < 0 ? i : k < j->n ? j->sinks + label[k] : j->sinks + m + k - j->n;
  }
}

// One block is the keys or the values of one plane: rounds the cores to 8 bits with the scale that maps the largest element to
// the largest finite code.
KERNEL LAUNCH_BOUNDS(REDUCE_THREADS) semproxy_narrow(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  if (j->out8 == 0) return;
  i32 plane = p.index >> 1, t = tid(), size = element_size(j->dtype);
  bool values = p.index & 1;
  i64 at = (i64)plane * j->width * j->dim;
  const u8* from = (values ? j->out_v : j->out_k) + at * size;
  u8* to = (values ? j->out_v8 : j->out_k8) + at;
  f32* all = (f32*)smem(); // [REDUCE_THREADS]
  f32 most = 0, x[8];
  i64 octets = (i64)j->width * j->dim / 8; // what pads a plane is zero
  for (i64 i = t; i < octets; i += REDUCE_THREADS) {
    load8(x, from + i * 8 * size, j->dtype, 1);
    for (i32 e = 0; e < 8; e++) {
      f32 y = x[e] < 0 ? -x[e] : x[e];
      most = y > most ? y : most;
    }
  }
  all[t] = most;
  for (i32 half = REDUCE_THREADS / 2; half > 0; half >>= 1) {
    sync();
    if (t < half && all[t + half] > all[t]) all[t] = all[t + half];
  }
  sync();
  most = all[0];
  f32 scale = most > 1e-30f ? most / (j->out8 == F8E4M3 ? 448.0f : 57344.0f) : 1;
  for (i64 i = t; i < octets; i += REDUCE_THREADS) {
    load8(x, from + i * 8 * size, j->dtype, 1);
    store8(to + i * 8, x, j->out8, scale);
  }
  if (t == 0) (values ? j->out_vscale : j->out_kscale)[plane] = scale;
}
