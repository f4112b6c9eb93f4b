// A libcuda.so.1 without a GPU: the driver's functions that semproxy calls, over the scheduler of machine.cc.
//
// It is stricter than the real one. Work of a stream waits until somebody synchronises; what is read too early is stale. A copy
// needs pinned host memory and device memory that was allocated. A call on a thread without a context fails.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "machine_run.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

typedef int Result;
typedef unsigned long long Device;
enum {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
  ECC_UNCORRECTABLE = 214, UNSUPPORTED_PTX = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, OUT_OF_RESOURCES = 701, PRIMARY_CONTEXT_ACTIVE = 708, LAUNCH_FAILED = 719,
};
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Event {
  uint64_t recorded = 0, done = 0;
};
struct Stream {
  std::deque<std::function<Result()>> work;
};
struct Fault {
  long after = -1, times = 0; // after: calls that still succeed; -1: off
};

std::recursive_mutex lock;
std::map<char*, size_t> device_memory, host_memory;
std::set<Stream*> streams;
std::set<Event*> events;
std::set<void*> modules;
std::map<std::string, Fault> faults;
size_t used, host_used, peak;
long launches, violations, retained;
Result sticky;
bool initialised;
int in_order = 1;
unsigned long long random_state;
thread_local bool has_context;

size_t total_memory() {
  const char* s = getenv("FAKECUDA_MEMORY");
  return s ? strtoull(s, nullptr, 10) : (size_t)1 << 30;
}

// fails reports whether the next call of that kind shall fail.
bool fails(const char* kind) {
  auto f = faults.find(kind);
  if (f == faults.end() || f->second.after < 0) return false;
  if (f->second.after > 0) {
    f->second.after--;
    return false;
  }
  if (f->second.times > 0 && --f->second.times == 0) faults.erase(f);
  return true;
}

// FAKECUDA_FAULT=kind:after:times[,...] injects faults from the start.
void read_environment() {
  static bool done;
  if (done) return;
  done = true;
  if (const char* s = getenv("FAKECUDA_SEED")) {
    random_state = strtoull(s, nullptr, 10);
    in_order = random_state == 0;
    fake::seed(random_state);
  }
  const char* s = getenv("FAKECUDA_FAULT");
  std::string all = s ? s : "";
  for (size_t at = 0; at < all.size();) {
    size_t end = all.find(',', at);
    if (end == std::string::npos) end = all.size();
    char kind[32];
    long after = 0, times = 0;
    if (sscanf(all.substr(at, end - at).c_str(), "%31[^:]:%ld:%ld", kind, &after, &times) >= 1) faults[kind] = Fault{after, times};
    at = end + 1;
  }
}

size_t room(std::map<char*, size_t>& memory, void* p) {
  auto i = memory.upper_bound((char*)p);
  if (i == memory.begin()) return 0;
  --i;
  size_t off = (char*)p - i->first;
  return off < i->second ? i->second - off : 0;
}

Result violation(const char* what) {
  violations++;
  fprintf(stderr, "fakecuda: %s\n", what);
  return INVALID_VALUE;
}

// ready is the state in which a call finds the context.
Result ready() {
  if (!initialised) return NOT_INITIALIZED;
  if (!has_context) {
    violation("a call on a thread without a context");
    return INVALID_CONTEXT;
  }
  if (faults.count("lost") && fails("lost")) sticky = ECC_UNCORRECTABLE;
  return sticky;
}

void step(Stream* s) {
  auto f = std::move(s->work.front());
  s->work.pop_front();
  if (sticky == OK) sticky = f();
}

// unfence makes memory whole again before it is freed.
void unfence(char* p, size_t n) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(p, n);
#else
  (void)p, (void)n;
#endif
}

// copy moves bytes as the copy engine does: fences between arrays do not concern it.
void copy(void* to, const void* from, size_t n) {
#if defined(__SANITIZE_ADDRESS__) && defined(__x86_64__)
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
#else
  memmove(to, from, n);
#endif
}

// drain runs a stream's work. In random order other streams get ahead at times.
Result drain(Stream* s) {
  while (!s->work.empty() && sticky == OK) {
    if (!in_order)
      for (Stream* o : streams) {
        random_state = random_state * 6364136223846793005ull + 1;
        if (o != s && !o->work.empty() && random_state >> 62 == 0) step(o);
      }
    step(s);
  }
  if (sticky != OK) s->work.clear();
  return sticky;
}

Result drain_all() {
  for (Stream* s : streams) drain(s);
  return sticky;
}

} // namespace

#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock); read_environment()
#define READY LOCKED; if (Result r = ready()) return r

EXPORT Result cuInit(unsigned) {
  LOCKED;
  if (fails("init")) return NO_DEVICE;
  initialised = true;
  return OK;
}
EXPORT Result cuDriverGetVersion(int* v) {
  LOCKED;
  *v = fails("driver") ? 10020 : 12040;
  return OK;
}
EXPORT Result cuDeviceGetCount(int* n) {
  LOCKED;
  *n = getenv("FAKECUDA_DEVICES") ? atoi(getenv("FAKECUDA_DEVICES")) : 1;
  return OK;
}
EXPORT Result cuDeviceGet(int* d, int i) { *d = i; return OK; }
EXPORT Result cuDeviceGetName(char* s, int n, int) { snprintf(s, n, "semproxy fake"); return OK; }
EXPORT Result cuDeviceTotalMem_v2(size_t* n, int) { *n = total_memory(); return OK; }
EXPORT Result cuDeviceGetAttribute(int* v, int what, int) {
  LOCKED;
  switch (what) {
  case 16: *v = 4; return OK;           // multiprocessors
  case 75: *v = fails("old") ? 7 : 8; return OK; // compute capability
  case 76: *v = 0; return OK;
  case 97: *v = 163 << 10; return OK;   // shared memory per block, opt-in
  }
  return INVALID_VALUE;
}
EXPORT Result cuDevicePrimaryCtxSetFlags_v2(int, unsigned) {
  LOCKED;
  return retained > 0 ? PRIMARY_CONTEXT_ACTIVE : OK;
}
EXPORT Result cuDevicePrimaryCtxRetain(void** c, int) {
  LOCKED;
  if (sticky != OK && fails("dead")) return sticky;
  *c = (void*)0x1000;
  retained++;
  return OK;
}
EXPORT Result cuDevicePrimaryCtxRelease_v2(int) {
  LOCKED;
  retained--;
  return OK;
}
EXPORT Result cuDevicePrimaryCtxReset_v2(int) {
  LOCKED;
  if (sticky != OK && faults.count("dead")) return sticky; // stays lost
  sticky = OK;
  for (auto& m : device_memory) {
    unfence(m.first, m.second);
    free(m.first);
  }
  for (auto& m : host_memory) free(m.first);
  device_memory.clear();
  host_memory.clear();
  for (Stream* s : streams) delete s;
  for (Event* e : events) delete e;
  for (void* m : modules) free(m);
  streams.clear();
  events.clear();
  modules.clear();
  used = host_used = 0;
  return OK;
}
EXPORT Result cuCtxSetCurrent(void* c) { has_context = c != nullptr; return OK; }
EXPORT Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  READY;
  *total = total_memory();
  *free_bytes = *total - used;
  return OK;
}
EXPORT Result cuMemAlloc_v2(Device* p, size_t n) {
  READY;
  if (n == 0) return INVALID_VALUE;
  if (fails("alloc") || used + n > total_memory()) return OUT_OF_MEMORY;
  char* m = (char*)aligned_alloc(256, (n + 255) / 256 * 256);
  memset(m, 0xa5, n);
  device_memory[m] = n;
  used += n;
  if (used > peak) peak = used;
  *p = (Device)m;
  return OK;
}
EXPORT Result cuMemFree_v2(Device p) {
  READY;
  if (Result r = drain_all()) return r;
  auto i = device_memory.find((char*)p);
  if (i == device_memory.end()) return violation("cuMemFree of what was not allocated");
  used -= i->second;
  unfence(i->first, i->second);
  free(i->first);
  device_memory.erase(i);
  return OK;
}
EXPORT Result cuMemHostAlloc(void** p, size_t n, unsigned) {
  READY;
  if (fails("hostalloc")) return OUT_OF_MEMORY;
  char* m = (char*)aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  memset(m, 0xa5, n);
  host_memory[m] = n;
  host_used += n;
  *p = m;
  return OK;
}
EXPORT Result cuMemFreeHost(void* p) {
  READY;
  if (Result r = drain_all()) return r;
  auto i = host_memory.find((char*)p);
  if (i == host_memory.end()) return violation("cuMemFreeHost of what was not allocated");
  host_used -= i->second;
  free(i->first);
  host_memory.erase(i);
  return OK;
}
static Result enqueue(Stream* s, std::function<Result()> f) {
  if (!streams.count(s)) return INVALID_HANDLE;
  s->work.push_back(std::move(f));
  return OK;
}
EXPORT Result cuMemcpyHtoDAsync_v2(Device to, const void* from, size_t n, Stream* s) {
  READY;
  if (fails("copy")) return INVALID_VALUE;
  if (room(device_memory, (void*)to) < n) return violation("copy to device memory that was not allocated");
  if (room(host_memory, (void*)from) < n) return violation("copy from host memory that is not pinned");
  return enqueue(s, [=] { copy((void*)to, from, n); return OK; });
}
EXPORT Result cuMemcpyDtoHAsync_v2(void* to, Device from, size_t n, Stream* s) {
  READY;
  if (room(device_memory, (void*)from) < n) return violation("copy from device memory that was not allocated");
  if (room(host_memory, to) < n) return violation("copy to host memory that is not pinned");
  return enqueue(s, [=] { copy(to, (void*)from, n); return OK; });
}
EXPORT Result cuMemcpyDtoDAsync_v2(Device to, Device from, size_t n, Stream* s) {
  READY;
  if (room(device_memory, (void*)from) < n || room(device_memory, (void*)to) < n) return violation("copy of device memory that was not allocated");
  return enqueue(s, [=] { copy((void*)to, (void*)from, n); return OK; });
}
EXPORT Result cuMemsetD8Async(Device to, unsigned char x, size_t n, Stream* s) {
  READY;
  if (room(device_memory, (void*)to) < n) return violation("memset of device memory that was not allocated");
  return enqueue(s, [=] { memset((void*)to, x, n); return OK; });
}
EXPORT Result cuStreamCreate(Stream** s, unsigned) {
  READY;
  streams.insert(*s = new Stream);
  return OK;
}
EXPORT Result cuStreamDestroy_v2(Stream* s) {
  READY;
  if (!streams.count(s)) return INVALID_HANDLE;
  drain(s);
  streams.erase(s);
  delete s;
  return OK;
}
EXPORT Result cuStreamSynchronize(Stream* s) {
  READY;
  return streams.count(s) ? drain(s) : INVALID_HANDLE;
}
EXPORT Result cuEventCreate(Event** e, unsigned) {
  READY;
  events.insert(*e = new Event);
  return OK;
}
EXPORT Result cuEventDestroy_v2(Event* e) {
  READY;
  if (!events.count(e)) return INVALID_HANDLE;
  drain_all();
  events.erase(e);
  delete e;
  return OK;
}
EXPORT Result cuEventRecord(Event* e, Stream* s) {
  READY;
  if (!events.count(e)) return INVALID_HANDLE;
  uint64_t n = ++e->recorded;
  return enqueue(s, [=] { e->done = n; return OK; });
}
EXPORT Result cuEventSynchronize(Event* e) {
  READY;
  if (!events.count(e)) return INVALID_HANDLE;
  for (Stream* s : streams)
    while (e->done < e->recorded && !s->work.empty() && sticky == OK) step(s);
  return sticky;
}
EXPORT Result cuEventElapsedTime(float* ms, Event* a, Event* b) {
  READY;
  if (!events.count(a) || !events.count(b)) return INVALID_HANDLE;
  *ms = 0.001f; // there is no clock to read: work runs when somebody waits
  return OK;
}
EXPORT Result cuModuleLoadData(void** m, const void* image) {
  READY;
  if (fails("module")) return UNSUPPORTED_PTX;
  if (strstr((const char*)image, ".target sm_") == nullptr) return INVALID_VALUE;
  modules.insert(*m = malloc(1));
  return OK;
}
EXPORT Result cuModuleUnload(void* m) {
  READY;
  if (!modules.erase(m)) return INVALID_HANDLE;
  free(m);
  return OK;
}
EXPORT Result cuModuleGetFunction(void** f, void* m, const char* name) {
  READY;
  if (!modules.count(m)) return INVALID_HANDLE;
  for (int i = 0; i < fake::kernel_count; i++)
    if (strcmp(fake::kernels[i].name, name) == 0) {
      *f = (void*)&fake::kernels[i];
      return OK;
    }
  return NOT_FOUND;
}
EXPORT Result cuFuncSetAttribute(void*, int, int) { READY; return OK; }
EXPORT Result cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream* s,
                             void** params, void**) {
  READY;
  if (fails("launch")) return OUT_OF_RESOURCES;
  if (gx == 0 || gy != 1 || gz != 1 || bx == 0 || bx > 1024 || by != 1 || bz != 1 || shared > 163 << 10) return violation("a launch of a bad shape");
  const fake::Kernel* k = (const fake::Kernel*)f;
  std::string param((const char*)params[0], k->param_size);
  launches++;
  return enqueue(s, [=]() -> Result {
    if (fails("kernel")) return LAUNCH_FAILED;
    alignas(16) char copy[256];
    memcpy(copy, param.data(), param.size());
    for (unsigned b = 0; b < gx; b++) {
      unsigned block = in_order ? b : gx - 1 - b;
      if (!fake::run_block([&] { k->call(copy); }, (int)block, (int)bx, shared)) return LAUNCH_FAILED;
    }
    return OK;
  });
}
EXPORT Result cuGetErrorName(Result r, const char** s) {
  switch (r) {
  case INVALID_VALUE: *s = "CUDA_ERROR_INVALID_VALUE"; break;
  case OUT_OF_MEMORY: *s = "CUDA_ERROR_OUT_OF_MEMORY"; break;
  case NO_DEVICE: *s = "CUDA_ERROR_NO_DEVICE"; break;
  case INVALID_CONTEXT: *s = "CUDA_ERROR_INVALID_CONTEXT"; break;
  case ECC_UNCORRECTABLE: *s = "CUDA_ERROR_ECC_UNCORRECTABLE"; break;
  case UNSUPPORTED_PTX: *s = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"; break;
  case OUT_OF_RESOURCES: *s = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
  case LAUNCH_FAILED: *s = "CUDA_ERROR_LAUNCH_FAILED"; break;
  default: *s = "CUDA_ERROR_UNKNOWN"; return INVALID_VALUE;
  }
  return OK;
}

// Control, for tests.

// fakecuda_fault makes calls of a kind fail: after that many successes, that many times (0: for ever); after -1: no more.
EXPORT void fakecuda_fault(const char* kind, long after, long times) {
  LOCKED;
  if (after < 0) faults.erase(kind);
  else faults[kind] = Fault{after, times};
}
EXPORT void fakecuda_seed(unsigned long long s) {
  LOCKED;
  in_order = s == 0;
  random_state = s;
  fake::seed(s);
}
// fakecuda_stat: 0 device bytes, 1 pinned bytes, 2 streams, 3 events, 4 modules, 5 launches, 6 violations, 7 contexts, 8 most device bytes.
EXPORT long fakecuda_stat(int what) {
  LOCKED;
  long all[] = {(long)used, (long)host_used, (long)streams.size(), (long)events.size(), (long)modules.size(), launches, violations, retained, (long)peak};
  return what >= 0 && what < 9 ? all[what] : -1;
}
// fakecuda_fence marks the end of an array inside an allocation.
EXPORT void fakecuda_fence(char* at, size_t n, size_t taken) {
#if defined(__SANITIZE_ADDRESS__)
  LOCKED;
  ASAN_UNPOISON_MEMORY_REGION(at, n);
  ASAN_POISON_MEMORY_REGION(at + n, taken - n);
#else
  (void)at, (void)n, (void)taken;
#endif
}
EXPORT void fakecuda_revive() {
  LOCKED;
  faults.clear();
}
