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
	Proxy                // of the proxy
	Admin                // of the admin API
)

// Code is one code.
type Code struct {
	Name      string
	In        In
	Status    string // of HTTP, of the proxy and the admin API; empty: it is in no answer
	Retryable bool   // the same bytes may succeed when they are sent again after a while; else the code is final
	Meaning   string // Markdown
	Remedy    string // what a sender does; Markdown; empty of shared memory, where all have the same, and of the admin API
}

var all = append([]Code{
	{Name: LimitRate, In: Plane, Retryable: true,
		Meaning: "the tenant's pages per second are used up", Remedy: "wait, send again; send more slowly"},
	{Name: LimitBytes, In: Plane, Retryable: true,
		Meaning: "the tenant has as many bytes in flight as it may", Remedy: "wait for replies, send again"},
	{Name: LimitJobs, In: Plane, Retryable: true,
		Meaning: "as many bytes of the tenant's jobs wait as may", Remedy: "wait, send again"},
	{Name: Busy, In: Plane, Retryable: true,
		Meaning: "no room in this sidecar's queue or memory", Remedy: "wait, send again"},
	{Name: Draining, In: Plane, Retryable: true,
		Meaning: "this sidecar is stopping", Remedy: "send again: another will take it"},
	{Name: Deadline, In: Plane, Retryable: true,
		Meaning: "not finished in time, or no reply came in time", Remedy: "send again"},
	{Name: Unreachable, In: Plane, Retryable: true,
		Meaning: "from a client: no sidecar or no NATS server takes the page", Remedy: "wait, send again"},
	{Name: StoreAway, In: Plane, Retryable: true,
		Meaning: "the store does not answer", Remedy: "wait, send again; the operator looks at [the runbook](../how-to/runbook.md)"},
	{Name: JobPending, In: Plane, Retryable: true,
		Meaning: "no outcome of that job is known (yet)", Remedy: "ask again later"},
	{Name: NotFound, In: Plane, Retryable: false,
		Meaning: "there is no such object (any more)", Remedy: "compute it again"},
	{Name: PolicyDenied, In: Plane, Retryable: false,
		Meaning: "the tenant's policy, or NATS, does not allow it", Remedy: "ask the operator"},
	{Name: NoTokenizer, In: Plane, Retryable: false,
		Meaning: "the tenant's policy protects texts, and no tokenizer is configured for the model", Remedy: "ask the operator"},
	{Name: HeadWeights, In: Plane, Retryable: false,
		Meaning: "the tenant's policy weighs the heads of another model", Remedy: "ask the operator"},
	{Name: BadOption, In: Plane, Retryable: false,
		Meaning: "options of the compressor contradict each other; a checked policy never does", Remedy: "ask the operator"},
	{Name: PageTooCostly, In: Plane, Retryable: false,
		Meaning: "the page's shape asks for more memory or work than its bytes may cost ([limits](page-plane.md#what-a-page-may-cost))", Remedy: "send fewer queries, or fewer tokens per page"},
	{Name: PageNoQueries, In: Plane, Retryable: false,
		Meaning: "the tenant's method chooses tokens by the page's queries, and the page carries no `q`", Remedy: "send `q`, or ask the operator for another method"},
	{Name: ReplyTooLarge, In: Plane, Retryable: false,
		Meaning: "the reply does not fit a NATS message; a reply `exact` goes without its body instead", Remedy: "send fewer layers or tokens per page"},
	{Name: StoreSealed, In: Plane, Retryable: false,
		Meaning: "the object is encrypted with a key that this sidecar does not have", Remedy: "ask the operator, or compute it again"},
	{Name: StoreBadKey, In: Plane, Retryable: false,
		Meaning: "the object's name is not 64 lower-case hexadecimal digits", Remedy: "fix the sender"},
	{Name: StoreTooLarge, In: Plane, Retryable: false,
		Meaning: "the object alone is over the tenant's `storedBytes` or the store's limit", Remedy: "send fewer layers or tokens per page, or ask the operator"},
	{Name: JobUnsupported, In: Plane, Retryable: false,
		Meaning: "this sidecar keeps no jobs, or none for this tenant", Remedy: "ask the operator"},
	{Name: JobNoRoom, In: Plane, Retryable: false,
		Meaning: "JetStream has no room for what the tenant's jobs reserve", Remedy: "send the page, or ask the operator"},
	{Name: JobIDTaken, In: Plane, Retryable: false,
		Meaning: "another page was sent with that `Nats-Msg-Id` a moment ago", Remedy: "give each page an id of its own"},
	{Name: JobBadID, In: Plane, Retryable: false,
		Meaning: "the job's id is not 1 to 64 letters, digits, underscores or hyphens", Remedy: "fix the sender"},
	{Name: JobPoison, In: Plane, Retryable: false,
		Meaning: "outcome of a job: its workers die at it; it is a dead letter", Remedy: "ask the operator"},
	{Name: JobDamaged, In: Plane, Retryable: false,
		Meaning: "outcome of a job: its bytes were changed in JetStream's files", Remedy: "send the page again"},
	{Name: JobGaveUp, In: Plane, Retryable: false,
		Meaning: "outcome of a job: it was tried 100 times", Remedy: "ask the operator"},
	{Name: SubjectInvalid, In: Plane, Retryable: false,
		Meaning: "the tenant's name or the operation is not valid", Remedy: "fix the subject"},
	{Name: Internal, In: Plane, Retryable: false,
		Meaning: "a fault of the server; its log has the details", Remedy: "report it"},
	{Name: PageTruncated, In: Page, Retryable: false,
		Meaning: "the blob ends before what its header announces", Remedy: "send the whole message; over NATS split pages that exceed `max_payload`"},
	{Name: PageBadHeader, In: Page, Retryable: false,
		Meaning: "the header is not the JSON of the wire format, repeats a key, leaves a hole or a byte over", Remedy: "write the blob with the safetensors library"},
	{Name: PageOverlap, In: Page, Retryable: false,
		Meaning: "two tensors claim the same bytes", Remedy: "write the blob with the safetensors library"},
	{Name: PageTooLarge, In: Page, Retryable: false,
		Meaning: "a length is over its limit, or the page has more bytes than the sidecar takes (`max_page_bytes` of `stat`)", Remedy: "send smaller pages (by layer first, then by token range), or raise the limit"},
	{Name: PageBadFormat, In: Page, Retryable: false,
		Meaning: "`format` is another kind or version", Remedy: "send `semproxy.page.v1`; upgrade the older side"},
	{Name: PageBadMetadata, In: Page, Retryable: false,
		Meaning: "a metadata value is missing or malformed", Remedy: "see the table of keys"},
	{Name: PageBadRope, In: Page, Retryable: false,
		Meaning: "`rope` is malformed, or of an unknown type", Remedy: "describe the rotation exactly; a model with another kind (M-RoPE ...) cannot be compressed"},
	{Name: PageMissingTensor, In: Page, Retryable: false,
		Meaning: "a required tensor is absent", Remedy: "send it"},
	{Name: PageUnknownTensor, In: Page, Retryable: false,
		Meaning: "a tensor that the format does not know", Remedy: "leave it out; check its name"},
	{Name: PageBadShape, In: Page, Retryable: false,
		Meaning: "a shape does not fit the page, or its bytes", Remedy: "make it as in the table of tensors"},
	{Name: PageBadDType, In: Page, Retryable: false,
		Meaning: "an element type is unknown or not allowed there", Remedy: "convert the tensor; `dtype` must be that of `k`"},
	{Name: PageBadScale, In: Page, Retryable: false,
		Meaning: "FP8 without scales, scales without FP8, a scale that is not finite and positive (of codes: negative or not finite)", Remedy: "send both scales with FP8 (1.0 where the engine uses none), and none otherwise"},
	{Name: PageNotFinite, In: Page, Retryable: false,
		Meaning: "NaN or Inf, or codes beyond `dtype`; the sentence names layer, head, token and dim", Remedy: "find it in the engine: such a page is broken already"},
	{Name: PageBadPositions, In: Page, Retryable: false,
		Meaning: "positions are negative, repeat or go back", Remedy: "send the tokens of one sequence, in order"},
	{Name: PageBadTokenIDs, In: Page, Retryable: false,
		Meaning: "a token id is negative or over 2^31-1", Remedy: "send the ids of the vocabulary, no padding"},
	{Name: PageBadCounts, In: Page, Retryable: false,
		Meaning: "slots, counts, bias, dropped or assign do not account for every token exactly once", Remedy: "the cores are broken: report it, use the original page"},
	{Name: PageEmpty, In: Page, Retryable: false,
		Meaning: "no token (or no core)", Remedy: "do not send empty pages"},
	{Name: PageBadChecksum, In: Page, Retryable: false,
		Meaning: "the bytes are not the ones that were hashed", Remedy: "they changed on the way: check the sender's buffers, then send the page again"},
	{Name: PageBadPrefix, In: Page, Retryable: false,
		Meaning: "what the page or a prefix request says of the tokens before it is malformed", Remedy: "fix the sender"},
	{Name: PageLayout, In: Page, Retryable: false,
		Meaning: "the engine's layout is not the configured one", Remedy: "after an engine upgrade, check the connector, then configure the new fingerprint"},
	{Name: MemoryUnsupported, In: Memory, Retryable: false,
		Meaning: "this sidecar takes no shared memory", Remedy: ""},
	{Name: MemoryBadDescriptor, In: Memory, Retryable: false,
		Meaning: "malformed, or a block outside its region", Remedy: ""},
	{Name: MemoryUnknownRegion, In: Memory, Retryable: false,
		Meaning: "not attached to this sidecar (any more): it has been restarted, or the request went to another", Remedy: ""},
	{Name: MemoryDenied, In: Memory, Retryable: false,
		Meaning: "the region belongs to another tenant", Remedy: ""},
	{Name: MemoryStale, In: Memory, Retryable: false,
		Meaning: "the block has another generation", Remedy: ""},
	{Name: MemoryTruncated, In: Memory, Retryable: false,
		Meaning: "the region is shorter than when it was attached", Remedy: ""},
	{Name: MemoryChecksum, In: Memory, Retryable: false,
		Meaning: "the page is not what its checksum says", Remedy: ""},
	{Name: MemoryBadChallenge, In: Memory, Retryable: false,
		Meaning: "no sender of this sidecar holds that challenge", Remedy: ""},
	{Name: MemoryNotAttached, In: Memory, Retryable: false,
		Meaning: "the socket's tenant was not proved, or not lately", Remedy: ""},
	{Name: MemoryPeer, In: Memory, Retryable: false,
		Meaning: "the process on the socket has a user that is not allowed", Remedy: ""},
	{Name: MemoryPages, In: Memory, Retryable: false,
		Meaning: "as many pages are under way by the socket as may be", Remedy: ""},
	{Name: MemoryBadRegion, In: Memory, Retryable: false,
		Meaning: "not a regular, readable and writable memory file of the size that was said", Remedy: ""},
	{Name: MemoryUnsealed, In: Memory, Retryable: false,
		Meaning: "a memfd that its sender could cut short", Remedy: ""},
	{Name: MemoryLimit, In: Memory, Retryable: false,
		Meaning: "more regions, bytes or senders than allowed", Remedy: ""},
}, request...)

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
		Proxy:  "| code | status | again | meaning | what a client does |\n| --- | --- | --- | --- | --- |\n",
		Admin:  "| code | status | meaning |\n| --- | --- | --- |\n",
	}[in])
	for i := range all {
		c := &all[i]
		if c.In != in {
			continue
		}
		fmt.Fprintf(&b, "| `%s` |", c.Name)
		if in == Proxy || in == Admin {
			fmt.Fprintf(&b, " %s |", c.Status)
		}
		if in == Plane || in == Proxy {
			fmt.Fprintf(&b, " %s |", map[bool]string{true: "yes", false: "no"}[c.Retryable])
		}
		fmt.Fprintf(&b, " %s |", c.Meaning)
		if in != Memory && in != Admin {
			fmt.Fprintf(&b, " %s |", c.Remedy)
		}
		b.WriteString("\n")
	}
	return b.String()
}
