package telemetry

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// environment is what the OTEL_* variables ask for.
type environment struct {
	traces  bool // export spans
	metrics bool // export metrics, beside being scraped
}

// readEnvironment decides whether anything is exported, and refuses what the exporters would ignore with a default
// (an endpoint that is no URL would silently become localhost). No error quotes a value: it may be a credential.
func readEnvironment() (environment, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return environment{}, nil
	}
	env := environment{traces: exports("TRACES"), metrics: exports("METRICS")}
	var faults []error
	for _, signal := range []string{"", "TRACES_", "METRICS_"} {
		faults = append(faults, checkEndpoint("OTEL_EXPORTER_OTLP_"+signal+"ENDPOINT"), checkHeaders("OTEL_EXPORTER_OTLP_"+signal+"HEADERS"))
	}
	return env, errors.Join(faults...)
}

// exports: an exporter that is named decides; without one, an endpoint means OTLP and no endpoint means nothing.
func exports(signal string) bool {
	switch os.Getenv("OTEL_" + signal + "_EXPORTER") {
	case "":
		return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	case "none":
		return false
	case "prometheus":
		return false // the admin port serves it already
	default:
		return true
	}
}

func checkEndpoint(name string) error {
	value := strings.TrimSpace(os.Getenv(name))
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("%s: must be a URL like http://collector:4318", name)
	}
	if u.User != nil {
		return fmt.Errorf("%s: must not hold credentials; put them into OTEL_EXPORTER_OTLP_HEADERS", name)
	}
	return nil
}

func checkHeaders(name string) error {
	value := os.Getenv(name)
	if value == "" {
		return nil
	}
	for i, entry := range strings.Split(value, ",") {
		key, content, ok := strings.Cut(entry, "=")
		_, err := url.PathUnescape(content)
		if !ok || strings.TrimSpace(key) == "" || err != nil {
			return fmt.Errorf("%s: entry %d must be key=value, percent-encoded", name, i+1)
		}
	}
	return nil
}
