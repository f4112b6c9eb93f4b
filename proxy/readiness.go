package proxy

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	// Probe says why the process is not ready, or nil. It obeys ctx and is called concurrently. A nil Probe always
	// passes: the check is there for its Detail.
	Probe func(ctx context.Context) error
	// Pages says that the check is of the page plane: /readyz/pages wants it. /readyz wants it too, unless requests are served
	// without the page plane: then they go on, exact, and the check is only shown.
	Pages bool
	// Warns says that the check is shown, and wanted by /readyz/pages alone.
	Warns bool
	// Detail is shown whether the check passes or not, encoded as JSON: what a person wants to know and what must not
	// take the process out of service, such as the error of the last policy reload. May be nil.
	Detail func() any
}

type readiness struct {
	Status   string        `json:"status"`             // ready, not_ready
	Degraded []string      `json:"degraded,omitempty"` // checks that fail and are not wanted here
	Checks   []checkResult `json:"checks"`
}

type checkResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Detail any    `json:"detail,omitempty"`
}

// What the paths of readiness want.
func wantsAll(Check) bool        { return true }
func wantsRequests(c Check) bool { return !c.Pages && !c.Warns }
func wantsHard(c Check) bool     { return !c.Warns }

func readyz(cfg *AdminConfig, wanted func(Check) bool) gin.HandlerFunc {
	return func(c *gin.Context) {
		status, result := cfg.ready(c.Request.Context(), wanted)
		writeJSON(c, status, result)
	}
}

// ready runs every check, also after one has failed: a person sees all reasons at once.
func (cfg *AdminConfig) ready(ctx context.Context, wanted func(Check) bool) (int, readiness) {
	ctx, cancel := context.WithTimeout(ctx, cfg.CheckLimit)
	defer cancel()
	status, result := http.StatusOK, readiness{Status: "ready", Checks: []checkResult{}}
	for _, check := range cfg.Checks {
		one := checkResult{Name: check.Name, OK: true}
		if check.Probe != nil {
			if err := check.Probe(ctx); err != nil {
				one.OK, one.Error = false, err.Error()
				if wanted(check) {
					status, result.Status = http.StatusServiceUnavailable, "not_ready"
				} else {
					result.Degraded = append(result.Degraded, check.Name)
				}
			}
		}
		if check.Detail != nil {
			one.Detail = check.Detail()
		}
		result.Checks = append(result.Checks, one)
	}
	return status, result
}
