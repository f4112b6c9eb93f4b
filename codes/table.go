package codes

import (
	"fmt"
	"strings"
)

// In says which table of docs/reference/errors.md has a code.
type In uint8

// Tables of the manual.
const (
	Plane  In = iota + 1 // of the page plane
	Page                 // of pages and cores
	Memory               // of shared memory
)

// Code is one code.
type Code struct {
	Name      string
	In        In
	Retryable bool   // the same bytes may succeed when they are sent again after a while; else the code is final
	Meaning   string // Markdown
	Remedy    string // what a sender does; Markdown; of shared memory empty: all have the same
}

var all = []Code{
	{LimitRate, Plane, true,
		"the tenant's pages per second are used up", "wait, send again; send more slowly"},
	{LimitBytes, Plane, true,
		"the tenant has as many bytes in flight as it may", "wait for replies, send again"},
	{LimitJobs, Plane, true,
		"as many bytes of the tenant's jobs wait as may", "wait, send again"},
	{Busy, Plane, true,
		"no room in this sidecar's queue or memory", "wait, send again"},
	{Draining, Plane, true,
		"this sidecar is stopping", "send again: another will take it"},
	{Deadline, Plane, true,
		"not finished in time, or no reply came in time", "send again"},
	{Unreachable, Plane, true,
		"from a client: no sidecar or no NATS server takes the page", "wait, send again"},
	{StoreAway, Plane, true,
		"the store does not answer", "wait, send again; the operator looks at [the runbook](../how-to/runbook.md)"},
	{JobPending, Plane, true,
		"no outcome of that job is known (yet)", "ask again later"},
	{NotFound, Plane, false,
		"there is no such object (any more)", "compute it again"},
	{PolicyDenied, Plane, false,
		"the tenant's policy, or NATS, does not allow it", "ask the operator"},
	{NoTokenizer, Plane, false,
		"the tenant's policy protects texts, and no tokenizer is configured for the model", "ask the operator"},
	{HeadWeights, Plane, false,
		"the tenant's policy weighs the heads of another model", "ask the operator"},
	{BadOption, Plane, false,
		"options of the compressor contradict each other; a checked policy never does", "ask the operator"},
	{PageTooCostly, Plane, false,
		"the page's shape asks for more memory or work than its bytes may cost ([limits](page-plane.md#what-a-page-may-cost))", "send fewer queries, or fewer tokens per page"},
	{PageNoQueries, Plane, false,
		"the tenant's method chooses tokens by the page's queries, and the page carries no `q`", "send `q`, or ask the operator for another method"},
	{ReplyTooLarge, Plane, false,
		"the reply does not fit a NATS message; a reply `exact` goes without its body instead", "send fewer layers or tokens per page"},
	{StoreSealed, Plane, false,
		"the object is encrypted with a key that this sidecar does not have", "ask the operator, or compute it again"},
	{StoreBadKey, Plane, false,
		"the object's name is not 64 lower-case hexadecimal digits", "fix the sender"},
	{StoreTooLarge, Plane, false,
		"the object alone is over the tenant's `storedBytes` or the store's limit", "send fewer layers or tokens per page, or ask the operator"},
	{JobUnsupported, Plane, false,
		"this sidecar keeps no jobs, or none for this tenant", "ask the operator"},
	{JobNoRoom, Plane, false,
		"JetStream has no room for what the tenant's jobs reserve", "send the page, or ask the operator"},
	{JobIDTaken, Plane, false,
		"another page was sent with that `Nats-Msg-Id` a moment ago", "give each page an id of its own"},
	{JobBadID, Plane, false,
		"the job's id is not 1 to 64 letters, digits, underscores or hyphens", "fix the sender"},
	{JobPoison, Plane, false,
		"outcome of a job: its workers die at it; it is a dead letter", "ask the operator"},
	{JobDamaged, Plane, false,
		"outcome of a job: its bytes were changed in JetStream's files", "send the page again"},
	{JobGaveUp, Plane, false,
		"outcome of a job: it was tried `jobs.maxDeliveries` times", "ask the operator"},
	{SubjectInvalid, Plane, false,
		"the tenant's name or the operation is not valid", "fix the subject"},
	{Internal, Plane, false,
		"a fault of the server; its log has the details", "report it"},
	{PageTruncated, Page, false,
		"the blob ends before what its header announces", "send the whole message; over NATS split pages that exceed `max_payload`"},
	{PageBadHeader, Page, false,
		"the header is not the JSON of the wire format, repeats a key, leaves a hole or a byte over", "write the blob with the safetensors library"},
	{PageOverlap, Page, false,
		"two tensors claim the same bytes", "write the blob with the safetensors library"},
	{PageTooLarge, Page, false,
		"a length is over its limit, or the page has more bytes than the sidecar takes (`max_page_bytes` of `stat`)", "send smaller pages (by layer first, then by token range), or raise the limit"},
	{PageBadFormat, Page, false,
		"`format` is another kind or version", "send `semproxy.page.v1`; upgrade the older side"},
	{PageBadMetadata, Page, false,
		"a metadata value is missing or malformed", "see the table of keys"},
	{PageBadRope, Page, false,
		"`rope` is malformed, or of an unknown type", "describe the rotation exactly; a model with another kind (M-RoPE ...) cannot be compressed"},
	{PageMissingTensor, Page, false,
		"a required tensor is absent", "send it"},
	{PageUnknownTensor, Page, false,
		"a tensor that the format does not know", "leave it out; check its name"},
	{PageBadShape, Page, false,
		"a shape does not fit the page, or its bytes", "make it as in the table of tensors"},
	{PageBadDType, Page, false,
		"an element type is unknown or not allowed there", "convert the tensor; `dtype` must be that of `k`"},
	{PageBadScale, Page, false,
		"FP8 without scales, scales without FP8, a scale that is not finite and positive (of codes: negative or not finite)", "send both scales with FP8 (1.0 where the engine uses none), and none otherwise"},
	{PageNotFinite, Page, false,
		"NaN or Inf, or codes beyond `dtype`; the sentence names layer, head, token and dim", "find it in the engine: such a page is broken already"},
	{PageBadPositions, Page, false,
		"positions are negative, repeat or go back", "send the tokens of one sequence, in order"},
	{PageBadTokenIDs, Page, false,
		"a token id is negative or over 2^31-1", "send the ids of the vocabulary, no padding"},
	{PageBadCounts, Page, false,
		"slots, counts, bias, dropped or assign do not account for every token exactly once", "the cores are broken: report it, use the original page"},
	{PageEmpty, Page, false,
		"no token (or no core)", "do not send empty pages"},
	{PageBadChecksum, Page, false,
		"the bytes are not the ones that were hashed", "they changed on the way: check the sender's buffers, then send the page again"},
	{PageBadPrefix, Page, false,
		"what the page or a prefix request says of the tokens before it is malformed", "fix the sender"},
	{PageLayout, Page, false,
		"the engine's layout is not the configured one", "after an engine upgrade, check the connector, then configure the new fingerprint"},
	{MemoryUnsupported, Memory, false,
		"this sidecar takes no shared memory", ""},
	{MemoryBadDescriptor, Memory, false,
		"malformed, or a block outside its region", ""},
	{MemoryUnknownRegion, Memory, false,
		"not attached to this sidecar (any more): it has been restarted, or the request went to another", ""},
	{MemoryDenied, Memory, false,
		"the region belongs to another tenant", ""},
	{MemoryStale, Memory, false,
		"the block has another generation", ""},
	{MemoryTruncated, Memory, false,
		"the region is shorter than when it was attached", ""},
	{MemoryChecksum, Memory, false,
		"the page is not what its checksum says", ""},
	{MemoryBadChallenge, Memory, false,
		"no sender of this sidecar holds that challenge", ""},
	{MemoryNotAttached, Memory, false,
		"the socket's tenant was not proved, or not lately", ""},
	{MemoryPeer, Memory, false,
		"the process on the socket has a user that is not allowed", ""},
	{MemoryPages, Memory, false,
		"as many pages are under way by the socket as may be", ""},
	{MemoryBadRegion, Memory, false,
		"not a regular, readable and writable memory file of the size that was said", ""},
	{MemoryUnsealed, Memory, false,
		"a memfd that its sender could cut short", ""},
	{MemoryLimit, Memory, false,
		"more regions, bytes or senders than allowed", ""},
}

var retryable = func() map[string]bool {
	m := make(map[string]bool, len(all))
	for i := range all {
		m[all[i].Name] = all[i].Retryable
	}
	return m
}()

// All are the codes in the order of the manual.
func All() []Code { return append([]Code(nil), all...) }

// Retryable reports whether the same bytes may succeed when sent again after a while. A code that is not in the table is retryable
// where it is about a limit.
func Retryable(code string) bool {
	yes, known := retryable[code]
	return yes || !known && strings.HasPrefix(code, "limit.")
}

// Table writes a table of the manual as Markdown.
func Table(in In) string {
	var b strings.Builder
	b.WriteString(map[In]string{
		Plane:  "| code | again | meaning | what a sender does |\n| --- | --- | --- | --- |\n",
		Page:   "| code | what is wrong | what to do |\n| --- | --- | --- |\n",
		Memory: "| code | meaning |\n| --- | --- |\n",
	}[in])
	for i := range all {
		c := &all[i]
		if c.In != in {
			continue
		}
		fmt.Fprintf(&b, "| `%s` |", c.Name)
		if in == Plane {
			fmt.Fprintf(&b, " %s |", map[bool]string{true: "yes", false: "no"}[c.Retryable])
		}
		fmt.Fprintf(&b, " %s |", c.Meaning)
		if in != Memory {
			fmt.Fprintf(&b, " %s |", c.Remedy)
		}
		b.WriteString("\n")
	}
	return b.String()
}
