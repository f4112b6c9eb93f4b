package transport

// Names that only the page plane uses; all others are in telemetry/semconv.
const (
	scope = "github.com/semproxy/semproxy/transport"

	metricDropped = "semproxy.transport.dropped" // counter, by reason
	metricPanics  = "semproxy.transport.panics"  // counter

	attrReason = "semproxy.reason"

	subjectTemplate = "kv.{tenant}.v1.{op}"
	operation       = "process"
)
