// The scheduler of machine.h: runs one block at a time, its threads as fibers.
#include "machine_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fake {

Thread* current;

namespace {

enum State { READY, AT_BLOCK, AT_WARP, DONE };

constexpr int warp_size = 32, most_threads = 1024;
constexpr size_t stack_size = 128 << 10;

struct Fiber {
  Thread thread;
  State state;
#if defined(__x86_64__)
  void* sp;
#else
  ucontext_t context;
#endif
};

struct Warp {
  int alive, arrived, phase;
  int slot[2][warp_size];
};

// One launch at a time: the driver's lock is held.
struct Machine {
  Fiber fiber[most_threads];
  Warp warp[most_threads / warp_size];
  Fiber main;
  char* stacks = nullptr;
  std::vector<int> ready;
  int threads = 0, alive = 0, arrived = 0;
  const std::function<void()>* body = nullptr;
  unsigned char* shared = nullptr;
  unsigned long long random = 0; // 0: in order
} m;

// In random order each block has threads that are kept waiting while any other can run, one or a warp of them: so a barrier that
// is missing shows, where a fair order would let everybody pass in time.
int starved_first, starved_last;

unsigned next_random() {
  m.random = m.random * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(m.random >> 33);
}

#if defined(__x86_64__)
extern "C" void fake_switch(void** from, void* to);
asm(R"(
.text
.globl fake_switch
.hidden fake_switch
.type fake_switch, @function
fake_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
void switch_to(Fiber& from, Fiber& to) { fake_switch(&from.sp, to.sp); }
#else
void switch_to(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
#endif

int self() { return current->tid; }

void yield() {
  Fiber& f = m.fiber[self()];
  switch_to(f, m.main);
}

void make_ready(int i) {
  m.fiber[i].state = READY;
  m.ready.push_back(i);
}

void release_block() {
  m.arrived = 0;
  for (int i = 0; i < m.threads; i++)
    if (m.fiber[i].state == AT_BLOCK) make_ready(i);
}

void release_warp(int w) {
  m.warp[w].arrived = 0;
  m.warp[w].phase ^= 1;
  for (int i = w * warp_size; i < (w + 1) * warp_size && i < m.threads; i++)
    if (m.fiber[i].state == AT_WARP) make_ready(i);
}

void enter() {
  (*m.body)();
  int i = self(), w = i / warp_size;
  m.fiber[i].state = DONE;
  m.alive--;
  m.warp[w].alive--;
  if (m.alive > 0 && m.arrived == m.alive) release_block();
  if (m.warp[w].alive > 0 && m.warp[w].arrived == m.warp[w].alive) release_warp(w);
  yield();
  abort();
}

void prepare(int i) {
  char* stack = m.stacks + (size_t)i * stack_size;
  Fiber& f = m.fiber[i];
#if defined(__x86_64__)
  void** sp = (void**)(stack + stack_size);
  *--sp = nullptr; // a return address that is never used keeps the stack aligned
  *--sp = (void*)enter;
  for (int k = 0; k < 6; k++) *--sp = nullptr;
  f.sp = sp;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = stack;
  f.context.uc_stack.ss_size = stack_size;
  f.context.uc_link = nullptr;
  makecontext(&f.context, enter, 0);
#endif
}

} // namespace

unsigned char* shared() { return m.shared; }

void block_barrier() {
  m.fiber[self()].state = AT_BLOCK;
  if (++m.arrived == m.alive) release_block();
  yield();
}

const int* exchange(int x) {
  int i = self();
  Warp& w = m.warp[i / warp_size];
  const int phase = w.phase;
  w.slot[phase][i % warp_size] = x;
  m.fiber[i].state = AT_WARP;
  if (++w.arrived == w.alive) release_warp(i / warp_size);
  yield();
  return w.slot[phase];
}

void warp_barrier() { exchange(0); }

void seed(unsigned long long s) { m.random = s; }

bool run_block(const std::function<void()>& body, int bid, int threads, size_t shared_bytes) {
  if (threads < 1 || threads > most_threads) return false;
  if (m.stacks == nullptr) {
    void* p = mmap(nullptr, stack_size * most_threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    m.stacks = (char*)p;
  }
  // Memory of its own per block, so that the address sanitizer sees its end; full of what a real one may hold.
  m.shared = (unsigned char*)aligned_alloc(64, (shared_bytes + 63) / 64 * 64 + 64);
  memset(m.shared, 0xa5, shared_bytes);
  m.body = &body;
  m.threads = m.alive = threads;
  m.arrived = 0;
  m.ready.clear();
  for (int w = 0; w * warp_size < threads; w++) {
    m.warp[w].alive = threads - w * warp_size < warp_size ? threads - w * warp_size : warp_size;
    m.warp[w].arrived = m.warp[w].phase = 0;
  }
  for (int i = 0; i < threads; i++) {
    m.fiber[i].thread = Thread{i, bid};
    prepare(i);
    make_ready(i);
  }
  if (m.random != 0) {
    starved_first = starved_last = (int)(next_random() % threads);
    if (next_random() % 4) {
      starved_first -= starved_first % warp_size;
      starved_last = starved_first + warp_size - 1;
    }
  }
  size_t head = 0;
  while (head < m.ready.size()) {
    if (m.random != 0) {
      size_t k = head;
      for (int tries = 0; tries < 16; tries++) {
        k = head + next_random() % (m.ready.size() - head);
        if (m.ready[k] < starved_first || m.ready[k] > starved_last) break;
      }
      int x = m.ready[k];
      m.ready[k] = m.ready[head];
      m.ready[head] = x;
    }
    int i = m.ready[head++];
    if (head == m.ready.size()) {
      m.ready.clear();
      head = 0;
    }
    current = &m.fiber[i].thread;
    switch_to(m.main, m.fiber[i]);
  }
  free(m.shared);
  current = nullptr;
  if (m.alive > 0) fprintf(stderr, "fakecuda: %d threads of block %d wait at a barrier that the others never reach\n", m.alive, bid);
  return m.alive == 0;
}

} // namespace fake
