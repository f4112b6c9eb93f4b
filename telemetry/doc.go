// Package telemetry starts what makes semproxy visible: traces and metrics by OpenTelemetry, a Prometheus handler for
// the admin port, and a structured log that names the trace of each line.
//
// [Setup] is called once, by the wiring; everything else takes the providers and the logger that it returns. Where
// traces and metrics go is decided by the standard OTEL_* environment variables. With none of them set nothing leaves
// the process: spans are made, so that replies and log lines carry a trace id, and are dropped; metrics wait to be
// scraped. The names that are recorded are in telemetry/semconv.
package telemetry
