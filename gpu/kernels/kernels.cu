// Every kernel, as one module. See job.h for what they share.
#include "similar.h"
#include "select.h"
#include "budget.h"
#include "assign.h"
#include "merge.h"
#include "attended.h"
#include "fit.h"

// Tells the host how this compiler lays the structures out: sizes, then offsets of fields that follow padding.
KERNEL semproxy_layout(i32* out) {
  if (tid() != 0) return;
  out[0] = sizeof(Job);
  out[1] = sizeof(Batch);
  out[2] = sizeof(Attend);
  out[3] = sizeof(Chunk);
  out[4] = sizeof(Tile);
  out[5] = __builtin_offsetof(Job, layers);
  out[6] = __builtin_offsetof(Job, threshold);
  out[7] = __builtin_offsetof(Job, partial);
  out[8] = __builtin_offsetof(Job, qdtype);
  out[9] = __builtin_offsetof(Attend, row_b);
  out[10] = __builtin_offsetof(Attend, scale);
  out[11] = __builtin_offsetof(Batch, arg);
}
