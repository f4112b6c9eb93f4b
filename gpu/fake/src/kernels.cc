// The kernels, compiled for the fibers of machine.cc.
#define SEMPROXY_FAKE 1
#include "../../kernels/kernels.cu"
#include "machine_run.h"

#define PAGES(name) {#name, sizeof(Batch), [](const void* p) { name(*(const Batch*)p); }}

namespace fake {
const Kernel kernels[] = {
    PAGES(semproxy_similar), PAGES(semproxy_mean),   PAGES(semproxy_score),  PAGES(semproxy_select), PAGES(semproxy_order),
    PAGES(semproxy_count),   PAGES(semproxy_settle), PAGES(semproxy_quota),  PAGES(semproxy_assign), PAGES(semproxy_fill),
    PAGES(semproxy_rank),    PAGES(semproxy_merge),  PAGES(semproxy_reduce), PAGES(semproxy_narrow), PAGES(semproxy_softmax), PAGES(semproxy_looks),
    PAGES(semproxy_meanlook), PAGES(semproxy_aim), PAGES(semproxy_keys), PAGES(semproxy_solve), PAGES(semproxy_fit), PAGES(semproxy_fold),
    {"semproxy_attend", sizeof(Attend), [](const void* p) { semproxy_attend(*(const Attend*)p); }},
    {"semproxy_combine", sizeof(Attend), [](const void* p) { semproxy_combine(*(const Attend*)p); }},
    {"semproxy_layout", sizeof(i32*), [](const void* p) { semproxy_layout(*(i32* const*)p); }},
};
const int kernel_count = sizeof(kernels) / sizeof(kernels[0]);
}  // namespace fake
