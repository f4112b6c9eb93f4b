package semconv

// Span names. One page is one trace: the sender's SpanSend, then SpanPage with the steps below it.
const (
	SpanSend     = "kv.send"         // the sender's request, from publish to reply (kind PRODUCER)
	SpanPage     = "kv.page"         // the page's whole life in the sidecar (kind CONSUMER)
	SpanReceive  = "kv.receive"      // the wait in the queue
	SpanDecide   = "semproxy.decide" // the policy's decision
	SpanCompress = "kv.compress"     // clustering, merging, fidelity, guard
	SpanStore    = "store.put"       // the store's commit
	SpanReply    = "kv.reply"        // sending the reply
)

// SpanEngine is of the request plane. A request's own span is named after what it asks for, "chat llama-3-8b", or after
// its route; SpanDecide and SpanEngine are below it, and the pages' spans below SpanEngine.
const SpanEngine = "engine.request" // from sending to the last byte of the answer (kind CLIENT)
