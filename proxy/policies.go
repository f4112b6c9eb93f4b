package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
)

// Policies are the rules in force, which can be replaced. *watch.Watcher is one.
type Policies interface {
	Current() *policy.Set
	// Swap puts set in force in place of the policy of that version, else it returns watch.ErrStale.
	Swap(version string, set *policy.Set) error
}

// policyProblems is the body of a refusal: every mistake of the file at once.
type policyProblems struct {
	Error struct {
		Code     string   `json:"code"`
		Message  string   `json:"message"`
		Problems []string `json:"problems"`
	} `json:"error"`
}

// compileBody reads the request's body as one policy file; false when it has been answered.
func compileBody(c *gin.Context) (*policy.Set, bool) {
	data, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, strict.MaxBytes))
	if err != nil {
		writeError(c, http.StatusRequestEntityTooLarge, codes.AdminTooLarge, "the policy is larger than a policy file may be")
		return nil, false
	}
	set, err := policy.Compile(policy.Source{Name: "request", Data: data})
	if err == nil {
		return set, true
	}
	var body policyProblems
	body.Error.Code, body.Error.Message = "bad_policy", "the policy has mistakes; the one in force stays"
	for _, p := range strict.Problems(err) {
		body.Error.Problems = append(body.Error.Problems, p.Error())
	}
	writeJSON(c, http.StatusUnprocessableEntity, body)
	return nil, false
}

// dryRun is what another policy would have made of the last requests.
type dryRun struct {
	From     string           `json:"from"` // version in force
	To       string           `json:"to"`
	Requests int              `json:"requests"` // looked at: those that were decided
	Changed  int              `json:"changed"`
	Denied   int              `json:"denied"`
	Changes  []change         `json:"changes"` // newest first
	Warnings []policy.Warning `json:"warnings"`
}

type change struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Model  string `json:"model"`
	Tokens int    `json:"tokens"`
	Before choice `json:"before"`
	After  choice `json:"after"`
}

type choice struct {
	Profile string  `json:"profile,omitempty"`
	Rule    string  `json:"rule,omitempty"`
	Method  string  `json:"method,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	Denied  string  `json:"denied,omitempty"` // why
	digest  string
}

func choiceOf(d *policy.Decision) choice {
	return choice{Profile: d.Profile, Rule: d.Rule, Method: string(d.Plan.Method), Ratio: d.Plan.Ratio, digest: d.PolicyDigest}
}

func dryRunPolicy(requests Requests, policies Policies) gin.HandlerFunc {
	return func(c *gin.Context) {
		set, ok := compileBody(c)
		if !ok {
			return
		}
		out := dryRun{From: policies.Current().Version(), To: set.Version(), Changes: []change{}, Warnings: append([]policy.Warning{}, set.Warnings()...)}
		for _, r := range requests.List() {
			if r.Decision == nil {
				continue
			}
			out.Requests++
			after := choice{}
			d, err := set.Decide(policy.Request{Tenant: r.Tenant, Model: r.Model, Tokens: r.PromptEstimate, Header: r.Header})
			if err != nil {
				out.Denied++
				after.Denied = err.Error()
			} else {
				after = choiceOf(&d)
			}
			before := choiceOf(r.Decision)
			if before.digest == after.digest { // a rule or a profile of another name that does the same changes nothing
				continue
			}
			out.Changed++
			out.Changes = append(out.Changes, change{r.ID, r.Tenant, r.Model, r.PromptEstimate, before, after})
		}
		writeJSON(c, http.StatusOK, out)
	}
}

type swapped struct {
	Version string `json:"version"` // in force now
}

// swapPolicy puts a policy in force in place of the one that the caller has seen, which If-Match names. It lasts until the
// policy's files change or the process ends.
func swapPolicy(policies Policies, writable bool, log *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !writable {
			writeError(c, http.StatusForbidden, codes.AdminReadOnly, "the API changes nothing unless admin.writable is set")
			return
		}
		seen := strings.Trim(c.GetHeader("If-Match"), `"`)
		if seen == "" {
			writeError(c, http.StatusPreconditionRequired, codes.AdminIfMatch, "If-Match must name the version that is to be replaced, as GET shows it")
			return
		}
		set, ok := compileBody(c)
		if !ok {
			return
		}
		err := policies.Swap(seen, set)
		c.Header("ETag", `"`+policies.Current().Version()+`"`)
		switch {
		case errors.Is(err, watch.ErrStale):
			writeError(c, http.StatusConflict, codes.AdminStale, "another version is in force, see ETag: look at it, then try again")
		case err != nil:
			writeError(c, http.StatusInternalServerError, codes.Internal, "the policy could not be replaced")
		default:
			log.WarnContext(c.Request.Context(), "policy_replaced", "from", seen, "to", set.Version(), "peer", c.Request.RemoteAddr,
				"effect", "until the policy's files change or the process ends")
			writeJSON(c, http.StatusOK, swapped{set.Version()})
		}
	}
}
