// The thresholds that meet the budget. Count is only nearly monotone in the threshold, so the path of the bisection is the
// specification; a launch counts at the three thresholds that the next two steps of it may ask for.
#pragma once
#include "rows.h"

enum { COUNT_WARPS = 4, COUNT_THREADS = COUNT_WARPS * WARP, NODES = 3 };

enum { ALL = 0, EACH = 1 }; // what a launch counts for: the page's threshold, or each group's or layer's

struct Search { i32 lo, hi, best, most; };

// follow takes a step of the bisection: n cores at threshold t.
DEVICE void follow(Search& s, i32 t, i32 n, i32 slots) {
  if (n > slots) {
    s.hi = t;
    return;
  }
  if (n >= s.most || s.most > slots) {
    s.best = t;
    s.most = n;
  }
  s.lo = t;
}

// replay takes the steps whose counts are known: those of the first launches. Domain 0 is the page, 1 + g group g.
DEVICE Search replay(const Job* j, i32 domain, i32 launches) {
  Search s = {j->lowest, 1025, j->lowest, 0};
  i32 singles = 0, slots = j->slots * j->groups;
  if (domain > 0) {
    singles = j->singles[domain - 1];
    slots = j->quota[domain - 1];
    s.most = j->least[domain - 1]; // everything that may merge does
  } else {
    singles = j->singles[j->groups];
  }
  const i32* totals = j->totals + (i64)domain * j->launches * NODES;
  for (i32 i = 0; i < launches && s.hi - s.lo > 1; i++, totals += NODES) {
    i32 t = (s.lo + s.hi) >> 1, n = singles + totals[0];
    follow(s, t, n, slots);
    if (s.hi - s.lo > 1) follow(s, (s.lo + s.hi) >> 1, singles + totals[n > slots ? 1 : 2], slots);
  }
  return s;
}

// round_up is the least number of clusters, n at least, that with sinks and recent tokens makes whole granules of cores; or the
// largest number of them that the tokens allow.
DEVICE i32 round_up(const Job* j, i32 n) {
  i32 granule = j->granule, edge = j->sinks + j->recent, most = (j->n + edge) / granule * granule;
  i32 up = (n + edge + granule - 1) / granule * granule;
  return (most > edge && up > most ? most : up) - edge;
}

// layered_count is the cores of a group at a node of its pool's bisection, or when everything that may merge does.
DEVICE i32 layered_count(const Job* j, i32 g, i32 node) {
  return round_up(j, node < 0 ? j->least[g] : j->singles[g] + j->totals[(i64)(1 + g) * j->launches * NODES + node]);
}

// replay_layer is replay for groups that share a total, those of a layer or of the page, each rounded up to whole granules. best is
// the node of lo, -1: none.
DEVICE Search replay_layer(const Job* j, i32 layer, i32 launches) {
  Search s = {j->lowest, 1025, -1, 0};
  for (i32 step = 0, fits = 0; step < 2 * launches && s.hi - s.lo > 1; step++) {
    i32 node = step / 2 * NODES + (step & 1 ? 1 + fits : 0), sum = 0, t = (s.lo + s.hi) >> 1;
    for (i32 g = layer * j->pool; g < (layer + 1) * j->pool; g++) sum += layered_count(j, g, node);
    fits = sum <= j->pool * j->slots;
    if (fits) {
      s.lo = t;
      s.best = node;
    } else {
      s.hi = t;
    }
  }
  return s;
}

// clusters runs greedy seed-based clustering of one chunk on one warp. Lane w holds the candidates 32w.. that are free, in
// seed order. take(token, seed) is called by the lane that finds that token joins seed.
template <typename Take> DEVICE i32 clusters(const i16* sim, i32 ld, const u16* cand, i32 n, i32 t, Take take) {
  i32 lane = tid() & (WARP - 1), words = (n + WARP - 1) / WARP, found = 0;
  i32 left = n - lane * WARP;
  u32 free = left >= WARP ? ~0u : left > 0 ? (1u << left) - 1 : 0;
  for (;;) {
    u32 any = ballot(free != 0);
    if (any == 0) return found;
    i32 w = find_first(any), first = w * WARP + find_first((u32)shfl((i32)free, w));
    i32 s = cand[first];
    const i16* row = sim + (i64)s * ld;
    found++;
    for (; w < words; w++) {
      i32 i = w * WARP + lane;
      i32 token = i < n ? cand[i] : 0;
      u32 mine = (u32)shfl((i32)free, w) >> lane & 1;
      bool joins = mine && (i == first || row[token] >= t);
      if (joins) take(token, s);
      u32 joined = ballot(joins);
      if (lane == w) free &= ~joined;
    }
  }
}

// One warp is one chunk of one group at one threshold: adds its clusters to the count of that threshold. arg is the kind and
// 4 times the launch.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_count(const Batch b) {
  Place p = place(b);
  const Job* j = p.job;
  i32 kind = b.arg & 3, launch = b.arg >> 2;
  i32 task = p.index * COUNT_WARPS + tid() / WARP;
  i32 node = task % NODES, chunk = task / NODES % j->chunks_len, g = task / NODES / j->chunks_len;
  if (g >= j->groups || launch >= j->launches || j->budget == FIXED || (kind == ALL) != (j->budget == ADAPTIVE)) return;
  i32 domain = kind == EACH ? 1 + g : 0;
  Search s = j->budget == LAYERED ? replay_layer(j, g / j->pool, launch) : replay(j, domain, launch);
  i32 t = (s.lo + s.hi) >> 1;
  if (node == 1) s.hi = t;
  if (node == 2) s.lo = t;
  if (s.hi - s.lo <= 1) return;
  t = (s.lo + s.hi) >> 1;
  i32* total = j->totals + ((i64)domain * j->launches + launch) * NODES + node;
  Chunk c = j->chunks[chunk];
  i32 n = clusters(j->sim + (i64)g * j->sim_len + c.sim, c.ld, j->cand + (i64)g * j->n + c.lo,
                   j->cand_len[(i64)g * j->chunks_len + chunk], t, [](i32, i32) {});
  if ((tid() & (WARP - 1)) == 0 && n > 0) atomic_add(total, n);
}

// One block is one page: writes the thresholds that were found. arg: ALL for the page's, EACH for each group's or layer's.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_settle(const Batch b) {
  const Job* j = place(b).job;
  bool each = j->budget == EQUAL || j->budget == LAYERED;
  if ((b.arg == EACH) != each) return;
  i32 t = j->budget == FIXED ? j->fixed : 0;
  if (j->budget == ADAPTIVE) t = replay(j, 0, j->launches).lo;
  for (i32 g = tid(); g < j->groups; g += COUNT_THREADS)
    j->threshold[g] = j->budget == LAYERED ? replay_layer(j, g / j->pool, j->launches).lo : each ? replay(j, 1 + g, j->launches).best : t;
}

// One block is one page: gives the groups that share a total what they have at its threshold, in whole granules, and the granules
// that are left to those that merge most.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_quota(const Batch b) {
  const Job* j = place(b).job;
  if (j->budget != LAYERED) return;
  for (i32 l = tid(); l < j->groups / j->pool; l += COUNT_THREADS) {
    i32 first = l * j->pool, sum = 0, node = replay_layer(j, l, j->launches).best;
    for (i32 g = first; g < first + j->pool; g++) sum += j->quota[g] = layered_count(j, g, node);
    for (; sum + j->granule <= j->pool * j->slots; sum += j->granule) {
      i32 most = -1;
      for (i32 g = first; g < first + j->pool; g++)
        if (round_up(j, j->quota[g] + 1) > j->quota[g] && (most < 0 || j->quota[g] < j->quota[most])) most = g;
      if (most < 0) break;
      j->quota[most] += j->granule;
    }
  }
}
