package semconv

// Span names. One page is one trace: the sender's SpanSend, then SpanPage with the steps below it.
const (
	SpanSend     = "kv.send"         // the sender's request, from publish to reply (kind PRODUCER)
	SpanPage     = "kv.page"         // the page's whole life in the sidecar (kind CONSUMER)
	SpanReceive  = "kv.receive"      // admission and decoding of the blob
	SpanDecide   = "semproxy.decide" // the policy's decision
	SpanCompress = "kv.compress"     // clustering, merging, fidelity, guard
	SpanStore    = "store.put"       // the store's commit
	SpanReply    = "kv.reply"        // encoding and sending the cores
)
