package transport

// Names that only the page plane uses; all others are in telemetry/semconv.
const (
	scope = "github.com/semproxy/semproxy/transport"

	subjectTemplate = "kv.{tenant}.v1.{op}"
	operation       = "process"
)
