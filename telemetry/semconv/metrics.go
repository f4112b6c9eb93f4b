package semconv

// Instrument names. Prometheus shows dots as underscores and adds unit and _total; see docs/reference/telemetry.md.
const (
	MetricPages          = "semproxy.pages"                    // counter, by tenant and outcome
	MetricTokensIn       = "semproxy.tokens.in"                // counter, by tenant
	MetricCoresOut       = "semproxy.cores.out"                // counter, by tenant
	MetricBytesIn        = "semproxy.bytes.in"                 // counter, by tenant
	MetricBytesSaved     = "semproxy.bytes.saved"              // counter, by tenant
	MetricRatio          = "semproxy.ratio"                    // histogram, by tenant
	MetricAttentionError = "semproxy.fidelity.attention_error" // histogram, by tenant
	MetricKeySimilarity  = "semproxy.fidelity.key_similarity"  // histogram, by tenant
	MetricPageDuration   = "semproxy.page.duration"            // histogram, by stage
	MetricQueueDepth     = "semproxy.queue.depth"              // gauge
	MetricInFlightBytes  = "semproxy.inflight.bytes"           // gauge
	MetricErrors         = "semproxy.errors"                   // counter, by code
	MetricDropped        = "semproxy.transport.dropped"        // counter, by reason
	MetricPanics         = "semproxy.transport.panics"         // counter
	MetricSharedRegions  = "semproxy.shm.regions"              // gauge
	MetricSharedBytes    = "semproxy.shm.bytes"                // gauge
	MetricJobs           = "semproxy.jobs"                     // counter, by tenant and outcome
	MetricPolicyReloads  = "semproxy.policy.reloads"           // counter, by outcome
	MetricGPUBatch       = "semproxy.gpu.batch"                // histogram
	MetricGPUQueue       = "semproxy.gpu.queue"                // histogram
	MetricGPUBusy        = "semproxy.gpu.busy"                 // counter, by engine
	MetricGPUFallbacks   = "semproxy.gpu.fallbacks"            // counter, by reason
	MetricStoreEvents    = "semproxy.store.events"             // counter, by event
	MetricStoreBreakers  = "semproxy.store.breakers.open"      // gauge
	MetricStoreBytes     = "semproxy.store.bytes"              // gauge, by tenant
	MetricDegraded       = "semproxy.degraded"                 // gauge, by part
	MetricRefusals       = "semproxy.neighbour.refusals"       // counter, by neighbour and reason
	MetricReports        = "semproxy.reports"                  // counter, by outcome
	MetricReportsLink    = "semproxy.reports.connected"        // gauge

	MetricHTTPDuration  = "http.server.request.duration"        // histogram, by tenant, route, method, status
	MetricGenAIDuration = "gen_ai.server.request.duration"      // histogram, by tenant, operation, model
	MetricFirstToken    = "gen_ai.server.time_to_first_token"   // histogram, by tenant, operation, model
	MetricPerToken      = "gen_ai.server.time_per_output_token" // histogram, by tenant, operation, model
	MetricTokenUsage    = "gen_ai.client.token.usage"           // histogram, by tenant, operation, model, token type
	MetricProxyActive   = "semproxy.proxy.active"               // gauge, by tenant
	MetricProxyRefused  = "semproxy.proxy.refused"              // counter, by code
	MetricProxyShadowed = "semproxy.proxy.shadowed"             // counter, by tenant and code
	MetricGate          = "semproxy.gate.decisions"             // counter, by reason
	MetricCanaryRuns    = "semproxy.canary.runs"                // counter, by outcome
	MetricCanaryHeld    = "semproxy.canary.held"                // gauge
	MetricSpans         = "semproxy.proxy.spans"                // counter, by outcome
	MetricVerifySamples = "semproxy.verify.samples"             // counter, by tenant and outcome
	MetricVerifyBack    = "semproxy.verify.stepped_back"        // gauge
)

// Kind is the kind of an instrument.
type Kind string

// Kinds of instruments.
const (
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
	Gauge     Kind = "gauge"
)

// Metric describes an instrument. Unit is a UCUM code. Buckets are a histogram's upper bounds in that unit.
type Metric struct {
	Name, Unit, Description string
	Kind                    Kind
	Buckets                 []float64
}

// Metrics lists every instrument. The slice is the caller's.
func Metrics() []Metric {
	return []Metric{
		{Name: MetricPages, Unit: "{page}", Kind: Counter, Description: "Pages received, by tenant and outcome."},
		{Name: MetricTokensIn, Unit: "{token}", Kind: Counter, Description: "Tokens of the pages that were compressed."},
		{Name: MetricCoresOut, Unit: "{core}", Kind: Counter, Description: "Cores made of them, mean over layers and heads."},
		{Name: MetricBytesIn, Unit: "By", Kind: Counter, Description: "Bytes of the pages received."},
		{Name: MetricBytesSaved, Unit: "By", Kind: Counter, Description: "Bytes received less bytes replied, where fewer."},
		{Name: MetricRatio, Unit: "1", Kind: Histogram, Buckets: ratioBuckets(), Description: "Cores kept per token given; 0.25 is four times smaller."},
		{Name: MetricAttentionError, Unit: "1", Kind: Histogram, Buckets: errorBuckets(), Description: "Relative error of the attention output over the cores."},
		{Name: MetricKeySimilarity, Unit: "1", Kind: Histogram, Buckets: similarityBuckets(), Description: "Mean cosine between a token's key and its core's."},
		{Name: MetricPageDuration, Unit: "s", Kind: Histogram, Buckets: durationBuckets(), Description: "Time of a page, by stage."},
		{Name: MetricQueueDepth, Unit: "{page}", Kind: Gauge, Description: "Pages that wait for a worker."},
		{Name: MetricInFlightBytes, Unit: "By", Kind: Gauge, Description: "Bytes of the pages that wait or are worked on."},
		{Name: MetricErrors, Unit: "{error}", Kind: Counter, Description: "Errors answered, by code."},
		{Name: MetricDropped, Unit: "{message}", Kind: Counter, Description: "Messages dropped without an answer, by reason."},
		{Name: MetricPanics, Unit: "{panic}", Kind: Counter, Description: "Panics caught while a page was worked on."},
		{Name: MetricSharedRegions, Unit: "{region}", Kind: Gauge, Description: "Regions of shared memory that senders have attached."},
		{Name: MetricSharedBytes, Unit: "By", Kind: Gauge, Description: "Bytes of the shared memory that senders have attached."},
		{Name: MetricJobs, Unit: "{job}", Kind: Counter, Description: "Durable jobs, by tenant and outcome."},
		{Name: MetricPolicyReloads, Unit: "{reload}", Kind: Counter, Description: "Policy reloads, by outcome."},
		{Name: MetricGPUBatch, Unit: "{page}", Kind: Histogram, Buckets: batchBuckets(), Description: "Pages that went to the GPU together."},
		{Name: MetricGPUQueue, Unit: "s", Kind: Histogram, Buckets: durationBuckets(), Description: "Time from a batch's first page to its start."},
		{Name: MetricGPUBusy, Unit: "s", Kind: Counter, Description: "Time that the GPU's copy engines and kernels were busy, by engine."},
		{Name: MetricGPUFallbacks, Unit: "{page}", Kind: Counter, Description: "Pages that were computed on the CPU instead, by reason."},
		{Name: MetricStoreEvents, Unit: "{event}", Kind: Counter, Description: "What happened in the store, by event."},
		{Name: MetricStoreBreakers, Unit: "{server}", Kind: Gauge, Description: "Servers of the shared store that are left alone because they do not answer."},
		{Name: MetricStoreBytes, Unit: "By", Kind: Gauge, Description: "Bytes that a tenant has in the store, asked for every half minute."},
		{Name: MetricDegraded, Unit: "{part}", Kind: Gauge, Description: "1 while a part of the page plane does not work, else 0."},
		{Name: MetricRefusals, Unit: "{refusal}", Kind: Counter, Description: "What NATS, JetStream and Redis refused, by kind."},
		{Name: MetricReports, Unit: "{report}", Kind: Counter, Description: "Reports of pages between the planes' processes, by outcome."},
		{Name: MetricReportsLink, Unit: "{process}", Kind: Gauge, Description: "1 while the other plane's process is connected, else 0."},
		{Name: MetricHTTPDuration, Unit: "s", Kind: Histogram, Buckets: requestBuckets(), Description: "Time of a request through the proxy."},
		{Name: MetricGenAIDuration, Unit: "s", Kind: Histogram, Buckets: requestBuckets(), Description: "Time of a request that produces tokens."},
		{Name: MetricFirstToken, Unit: "s", Kind: Histogram, Buckets: requestBuckets(), Description: "Time from the request to the first event of a streamed answer."},
		{Name: MetricPerToken, Unit: "s", Kind: Histogram, Buckets: durationBuckets(), Description: "Time between two tokens of a streamed answer, after the first."},
		{Name: MetricTokenUsage, Unit: "{token}", Kind: Histogram, Buckets: tokenBuckets(), Description: "Tokens that a request used, as the engine counted them."},
		{Name: MetricProxyActive, Unit: "{request}", Kind: Gauge, Description: "Requests that are being served, by tenant."},
		{Name: MetricProxyRefused, Unit: "{request}", Kind: Counter, Description: "Requests that the proxy refused, by code."},
		{Name: MetricProxyShadowed, Unit: "{request}", Kind: Counter, Description: "Requests that limits in shadow mode would have refused, by code."},
		{Name: MetricCanaryRuns, Unit: "{run}", Kind: Counter, Description: "Runs of the canary, by outcome."},
		{Name: MetricCanaryHeld, Unit: "{engine}", Kind: Gauge, Description: "1 while the canary lets nothing be compressed on the engine, else 0."},
		{Name: MetricSpans, Unit: "{request}", Kind: Counter, Description: "Searches for the tokens of messages that policies protect, by outcome."},
		{Name: MetricVerifySamples, Unit: "{sample}", Kind: Counter, Description: "Requests that were asked again exactly, by tenant and outcome."},
		{Name: MetricVerifyBack, Unit: "{profile}", Kind: Gauge, Description: "Profiles of tenants that are stepped back because they changed too many answers."},
		{Name: MetricGate, Unit: "{request}", Kind: Counter, Description: "Verdicts of the cost gate, by reason."},
	}
}

// ratioBuckets are finest around the ratios that policies ask for: 1/8, 1/4, 1/2.
func ratioBuckets() []float64 {
	return []float64{0.05, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1}
}

func batchBuckets() []float64 { return []float64{1, 2, 4, 8, 16, 32, 64} }

func errorBuckets() []float64 {
	return []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1}
}

// similarityBuckets are finest near 1, where the good values are.
func similarityBuckets() []float64 {
	return []float64{0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1}
}

// durationBuckets go from 100 us to 10 s.
func durationBuckets() []float64 {
	return []float64{
		0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
	}
}

// requestBuckets go from 1 ms to ten minutes.
func requestBuckets() []float64 {
	return []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
}

// tokenBuckets are those of the GenAI conventions.
func tokenBuckets() []float64 {
	return []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576}
}
