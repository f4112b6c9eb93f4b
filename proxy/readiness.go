package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	// Probe says why the process is not ready, or nil. It obeys ctx and is called concurrently. A nil Probe always
	// passes: the check is there for its Detail.
	Probe func(ctx context.Context) error
	// Detail is shown whether the check passes or not, encoded as JSON: what a person wants to know and what must not
	// take the process out of service, such as the error of the last policy reload. May be nil.
	Detail func() any
}

type readiness struct {
	Status string        `json:"status"` // ready, not_ready
	Checks []checkResult `json:"checks"`
}

type checkResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Detail any    `json:"detail,omitempty"`
}

// readyz runs every check, also after one has failed: a person sees all reasons at once.
func readyz(checks []Check, limit time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), limit)
		defer cancel()
		status, result := http.StatusOK, readiness{Status: "ready", Checks: []checkResult{}}
		for _, check := range checks {
			one := checkResult{Name: check.Name, OK: true}
			if check.Probe != nil {
				if err := check.Probe(ctx); err != nil {
					one.OK, one.Error = false, err.Error()
					status, result.Status = http.StatusServiceUnavailable, "not_ready"
				}
			}
			if check.Detail != nil {
				one.Detail = check.Detail()
			}
			result.Checks = append(result.Checks, one)
		}
		writeJSON(c, status, result)
	}
}
