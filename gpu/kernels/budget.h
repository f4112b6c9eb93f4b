// The thresholds that meet the budget. Count is only nearly monotone in the threshold, so the path of the bisection is the
// specification; a launch counts at the three thresholds that the next two steps of it may ask for.
#pragma once
#include "rows.h"

enum { COUNT_WARPS = 4, COUNT_THREADS = COUNT_WARPS * WARP, NODES = 3 };

enum { ALL = 0, EACH = 1, AT = 2 }; // what a launch counts for: the page's threshold, each group's, or at the page's

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
  i32 kind = b.arg & 3, launch = b.arg >> 2, nodes = kind == AT ? 1 : NODES;
  i32 task = p.index * COUNT_WARPS + tid() / WARP;
  i32 node = task % nodes, chunk = task / nodes % j->chunks_len, g = task / nodes / j->chunks_len;
  bool all = j->budget == ADAPTIVE || j->budget == LAYERED;
  if (g >= j->groups || launch >= j->launches || j->budget == FIXED) return;
  if (kind == EACH ? j->budget == ADAPTIVE : kind == AT ? j->budget != LAYERED : !all) return;
  i32* total = j->counts + g;
  i32 t = j->threshold[g];
  if (kind != AT) {
    i32 domain = kind == EACH ? 1 + g : 0;
    Search s = replay(j, domain, launch);
    t = (s.lo + s.hi) >> 1;
    if (node == 1) s.hi = t;
    if (node == 2) s.lo = t;
    if (s.hi - s.lo <= 1) return;
    t = (s.lo + s.hi) >> 1;
    total = j->totals + ((i64)domain * j->launches + launch) * NODES + node;
  }
  Chunk c = j->chunks[chunk];
  i32 n = clusters(j->sim + (i64)g * j->sim_len + c.sim, c.ld, j->cand + (i64)g * j->n + c.lo,
                   j->cand_len[(i64)g * j->chunks_len + chunk], t, [](i32, i32) {});
  if ((tid() & (WARP - 1)) == 0 && n > 0) atomic_add(total, n);
}

// One block is one page: writes the thresholds that were found. arg: ALL for the page's, EACH for each group's.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_settle(const Batch b) {
  const Job* j = place(b).job;
  bool fixed = j->budget == FIXED, each = j->budget == EQUAL || j->budget == LAYERED;
  if (b.arg == EACH && (fixed || !each)) return;
  if (b.arg == ALL && !fixed && j->budget == EQUAL) return;
  i32 t = fixed ? j->fixed : 0;
  if (!fixed && b.arg == ALL) t = replay(j, 0, j->launches).lo;
  for (i32 g = tid(); g < j->groups; g += COUNT_THREADS)
    j->threshold[g] = b.arg == EACH ? replay(j, 1 + g, j->launches).best : t;
}

// One block is one page: gives the heads of a layer equal quotas, what they have together at the page's threshold but no less
// than any of them needs.
KERNEL LAUNCH_BOUNDS(COUNT_THREADS) semproxy_quota(const Batch b) {
  const Job* j = place(b).job;
  if (j->budget != LAYERED) return;
  i32 heads = j->groups / j->layers;
  for (i32 l = tid(); l < j->layers; l += COUNT_THREADS) {
    i32 quota = 0, least = 0;
    for (i32 g = l * heads; g < (l + 1) * heads; g++) {
      quota += j->counts[g] + j->singles[g];
      least = imax(least, j->least[g]);
    }
    for (i32 g = l * heads; g < (l + 1) * heads; g++) j->quota[g] = imax(quota / heads, least);
  }
}
