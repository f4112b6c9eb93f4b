// Package grafana holds the test of the chart's dashboard: a sidecar with real traffic, a real Prometheus that scrapes it, and every
// panel's queries asked of that.
package grafana
