package semconv

import "go.opentelemetry.io/otel/attribute"

// Attributes of spans, metrics and logs. The value's type and unit is beside each; docs/reference/telemetry.md has the meaning.
const (
	Tenant       = attribute.Key("semproxy.tenant")        // string
	Policy       = attribute.Key("semproxy.policy")        // string: the profile's name
	PolicyDigest = attribute.Key("semproxy.policy.digest") // string: hex
	Rule         = attribute.Key("semproxy.rule")          // string: the rule that matched
	Method       = attribute.Key("semproxy.method")        // string: semantic, paper, none
	Model        = attribute.Key("semproxy.model")         // string
	Sequence     = attribute.Key("semproxy.sequence")      // string: the sender's id
	Object       = attribute.Key("semproxy.object")        // string: hex, the store's key
	Device       = attribute.Key("semproxy.device")        // string: cuda:0, cpu:avx512, cpu:generic

	Queued = attribute.Key("semproxy.gpu.queued")      // float: seconds that the page waited for its batch
	Batch  = attribute.Key("semproxy.gpu.batch_pages") // int: pages of its batch
	Engine = attribute.Key("semproxy.gpu.engine")      // string: copy_in, kernels, copy_out

	Layers   = attribute.Key("semproxy.layers")    // int
	Heads    = attribute.Key("semproxy.heads")     // int: KV heads
	Tokens   = attribute.Key("semproxy.tokens")    // int: tokens given
	Cores    = attribute.Key("semproxy.cores")     // int: cores kept, mean over layers and heads
	Ratio    = attribute.Key("semproxy.ratio")     // float: cores / tokens, 0..1
	BytesIn  = attribute.Key("semproxy.bytes.in")  // int: bytes of the request blob
	BytesOut = attribute.Key("semproxy.bytes.out") // int: bytes of the reply blob

	KeySimilarity  = attribute.Key("semproxy.fidelity.key_similarity")  // float: -1..1, 1 is exact
	AttentionError = attribute.Key("semproxy.fidelity.attention_error") // float: relative, 0 is exact
	WorstHead      = attribute.Key("semproxy.fidelity.worst")           // string: layer/head
	Guard          = attribute.Key("semproxy.guard")                    // string: GuardHeld ...
	HeadWeights    = attribute.Key("semproxy.head_weights")             // string: HeadWeightsProfile ...
	BoundarySource = attribute.Key("semproxy.boundary_source")          // string: BoundaryPage ...

	ErrorCode = attribute.Key("semproxy.error.code") // string: a stable code, page.bad_shape ...
	Outcome   = attribute.Key("semproxy.outcome")    // string: OutcomeCompressed ...
	Stage     = attribute.Key("semproxy.stage")      // string: StageTotal ...
	Reason    = attribute.Key("semproxy.reason")     // string: why a message was dropped, or how a neighbour refused
	Neighbour = attribute.Key("semproxy.neighbour")  // string: redis, nats, jetstream
	Part      = attribute.Key("semproxy.part")       // string: of the page plane

	StoreEvent = attribute.Key("semproxy.store.event") // string: StoreHit ...
)

// Attributes of OpenTelemetry's messaging conventions.
const (
	MessagingSystem      = attribute.Key("messaging.system")               // string: nats
	MessagingDestination = attribute.Key("messaging.destination.name")     // string: the subject
	MessagingTemplate    = attribute.Key("messaging.destination.template") // string: the subject without the tenant
	MessagingOperation   = attribute.Key("messaging.operation.name")       // string: send, process
	MessagingBodySize    = attribute.Key("messaging.message.body.size")    // int: bytes
	MessagingGroup       = attribute.Key("messaging.consumer.group.name")  // string: the queue group
)

// GenAISchema is the version of the GenAI conventions that the spans and metrics of the request plane follow: 1.42.0, in development, of the
// repository open-telemetry/semantic-conventions-genai, to which they have moved. Its operations know no rerank and no classify.
const GenAISchema = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"

// Attributes of the request plane. Those of the GenAI and HTTP conventions are written here because OpenTelemetry's Go
// module no longer has a package for the former.
const (
	RequestID  = attribute.Key("semproxy.request.id") // string: X-Request-Id
	GateReason = attribute.Key("semproxy.gate")       // string: why the cost gate said what it said
	Credential = attribute.Key("semproxy.credential") // string: key, token, header, anonymous

	GenAIOperation       = attribute.Key("gen_ai.operation.name")                // string: chat, text_completion, embeddings, and rerank, classify, which are semproxy's
	GenAIProvider        = attribute.Key("gen_ai.provider.name")                 // string: vllm, tgi, openai
	GenAIModel           = attribute.Key("gen_ai.request.model")                 // string
	GenAIMaxTokens       = attribute.Key("gen_ai.request.max_tokens")            // int
	GenAIInputTokens     = attribute.Key("gen_ai.usage.input_tokens")            // int
	GenAIOutputTokens    = attribute.Key("gen_ai.usage.output_tokens")           // int
	GenAICachedTokens    = attribute.Key("gen_ai.usage.cache_read.input_tokens") // int
	GenAIReasoningTokens = attribute.Key("gen_ai.usage.reasoning.output_tokens") // int
	GenAIResponseModel   = attribute.Key("gen_ai.response.model")                // string
	GenAITokenType       = attribute.Key("gen_ai.token.type")                    // string: TokenInput, TokenOutput

	HTTPMethod    = attribute.Key("http.request.method")       // string
	HTTPRoute     = attribute.Key("http.route")                // string: the path's pattern
	HTTPStatus    = attribute.Key("http.response.status_code") // int
	ServerAddress = attribute.Key("server.address")            // string: the engine's host
	ErrorType     = attribute.Key("error.type")                // string: a stable code or a status
)

// Values of GenAITokenType.
const (
	TokenInput  = "input"
	TokenOutput = "output"
)

// SystemNATS is the value of MessagingSystem.
const SystemNATS = "nats"

// Values of Outcome: what became of a page, of a policy reload, and of a report between the planes' processes.
const (
	OutcomeCompressed = "compressed" // cores were made
	OutcomeStored     = "stored"     // the object was already there
	OutcomeExact      = "exact"      // the policy or the guard let the page through unchanged
	OutcomeRefused    = "refused"    // final error: the sender must not retry
	OutcomeRetry      = "retry"      // retryable error
	OutcomeApplied    = "applied"    // policy reload: new rules are in force
	OutcomeRejected   = "rejected"   // policy reload: the last good rules stay in force
	OutcomeSent       = "sent"       // report: written to the request plane's process
	OutcomeDropped    = "dropped"    // report: the request plane's process was away or slow
	OutcomeReceived   = "received"   // report: taken over; one that is no report is refused
)

// Values of Guard: what the fidelity guard did.
const (
	GuardOff         = "off"          // the policy has none
	GuardHeld        = "held"         // measured, within the limit
	GuardRelaxed     = "relaxed"      // kept more tokens until it held
	GuardPassthrough = "passthrough"  // gave the page back unchanged
	GuardViolated    = "violated"     // over the limit; the policy only reports
	GuardUnmeasured  = "not_measured" // the page brought no queries to measure with
)

// Values of HeadWeights: who says which KV heads matter more.
const (
	HeadWeightsProfile = "profile" // the policy's profile
	HeadWeightsModel   = "model"   // what the program knows of the model
	HeadWeightsNone    = "none"    // nobody: all alike
)

// Values of BoundarySource: where the delimiters came from.
const (
	BoundaryPage      = "page"      // the page's own boundary tensor
	BoundaryTokenizer = "tokenizer" // the model's tokenizer
	BoundaryNone      = "none"      // neither: chunks of fixed length
)

// Values of Engine: what of a GPU is busy.
const (
	EngineCopyIn  = "copy_in"
	EngineKernels = "kernels"
	EngineCopyOut = "copy_out"
)

// Values of StoreEvent: what happened in the store.
const (
	StoreHit        = "hit"         // a read that found the object
	StoreMemoryHit  = "memory_hit"  // one that needed nothing but memory
	StoreAwayHit    = "away_hit"    // one from memory that nobody confirmed: the shared store was away
	StoreMiss       = "miss"        // a read that found none
	StoreDamaged    = "damaged"     // an object that was not what was written; removed
	StoreExpired    = "expired"     // an object whose time was over
	StoreEvicted    = "evicted"     // an object that had to go for a limit
	StoreRepaired   = "repaired"    // an entry of an account, or a value without an owner, that was put right
	StoreFailure    = "failure"     // a command that the shared store did not answer
	StoreCut        = "cut"         // a command that the circuit breaker kept back
	StoreKept       = "kept"        // an object that went to memory alone: the shared store was away
	StoreSealed     = "sealed"      // an object that was encrypted
	StoreKeyMissing = "key_missing" // an object whose encryption key is not here
	StoreNotOpened  = "not_opened"  // an object that did not open with its key, or should have been encrypted
)

// Values of Stage: the parts of a page's time.
const (
	StageTotal    = "total"
	StageReceive  = "receive"
	StageDecide   = "decide"
	StageCompress = "compress"
	StageStore    = "store"
	StageReply    = "reply"
)
