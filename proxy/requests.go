package proxy

import (
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/recent"
)

// Requests are the last requests of the request plane. *recent.Ring is one.
type Requests interface {
	List() []recent.Request
	Get(id string) (recent.Request, bool)
}

type requestList struct {
	Requests []recent.Request `json:"requests"` // newest first
}

// listRequests answers with the last requests, of one tenant with ?tenant=, at most ?limit= of them.
func listRequests(requests Requests) gin.HandlerFunc {
	return func(c *gin.Context) {
		most, ok := limitOf(c)
		if !ok {
			return
		}
		out := requestList{Requests: []recent.Request{}}
		for _, r := range requests.List() {
			if tenant := c.Query("tenant"); tenant != "" && r.Tenant != tenant {
				continue
			}
			if len(out.Requests) == most {
				break
			}
			out.Requests = append(out.Requests, r)
		}
		writeJSON(c, http.StatusOK, out)
	}
}

// explanation is everything that is known of one request.
type explanation struct {
	Request  recent.Request `json:"request"`
	Summary  []string       `json:"summary"` // sentences for a person
	Fidelity fidelity       `json:"fidelity"`
	// Rules are what the policy looks at for such a request, in order, as it is in force now.
	Rules          []policy.Step `json:"rules"`
	PolicyNow      string        `json:"policyNow"`      // version
	PolicyTheSame  bool          `json:"policyTheSame"`  // as when the request was decided
	PagesConnected bool          `json:"pagesConnected"` // the engine's adapter sent pages for it
}

type fidelity struct {
	Pages          int     `json:"pages"`
	Ratio          float64 `json:"ratio,omitempty"`
	Measured       bool    `json:"measured"`
	AttentionError float64 `json:"attentionError,omitempty"`
}

func explainRequest(cfg *AdminConfig) gin.HandlerFunc {
	return func(c *gin.Context) {
		r, ok := cfg.Requests.Get(c.Param("id"))
		if !ok {
			writeError(c, http.StatusNotFound, codes.AdminUnknownRequest, "no request of this id is remembered")
			return
		}
		f := r.Fidelity()
		out := explanation{
			Request: r, Fidelity: fidelity{f.Pages, f.Ratio, f.Measured, f.AttentionError}, PagesConnected: len(r.Pages) > 0,
			Rules: []policy.Step{}, Summary: summary(&r, f, cfg.NoPages()),
		}
		if set := cfg.Policies.Current(); set != nil {
			out.PolicyNow = set.Version()
			if r.Decision != nil {
				out.PolicyTheSame = r.Decision.Version == out.PolicyNow
				out.Rules = set.Explain(policy.Request{Tenant: r.Tenant, Model: r.Model, Tokens: r.PromptEstimate, Header: r.Header})
			}
		}
		writeJSON(c, http.StatusOK, out)
	}
}

// summary says in sentences what happened. noPages is why nothing is heard of pages; empty: something is.
func summary(r *recent.Request, f recent.Fidelity, noPages string) []string {
	var out []string
	if r.Decision != nil {
		out = append(out, "Policy: "+r.Decision.Reason+".")
	}
	if r.Method == recent.AloneMethod {
		return append(out, summaryOfPages(r, f)...)
	}
	if r.Gate != nil {
		out = append(out, "Gate: "+string(r.Gate.Reason)+", because "+r.Gate.Why+".")
	}
	if p := r.Spans; p != nil {
		text := "Protected messages: " + strconv.Itoa(p.Tokens) + " tokens in " + strconv.Itoa(len(p.Spans)) + " ranges"
		switch {
		case p.Why != "":
			text = "Protected messages: not found, because " + p.Why + "; so the prompt stays exact"
		case len(p.Spans) == 0:
			text = "Protected messages: the request has none"
		}
		if out = append(out, text+"."); p.Mismatch {
			out = append(out, "The engine counted other tokens for the prompt than its /tokenize: the ranges may be wrong.")
		}
	}
	switch {
	case r.Decision == nil:
		out = append(out, "It was refused or cut before anything was decided.")
	case f.Pages > 0:
		text := "Pages: " + strconv.Itoa(f.Pages) + " at ratio " + strconv.FormatFloat(f.Ratio, 'f', 3, 64)
		if f.Measured {
			text += ", attention error at worst " + strconv.FormatFloat(f.AttentionError, 'f', 4, 64)
		} else {
			text += ", not measured: they brought no queries"
		}
		out = append(out, text+".")
	case r.Gate != nil && r.Gate.Compress && noPages != "":
		out = append(out, "Pages: not known, because "+noPages+".")
	case r.Gate != nil && r.Gate.Compress:
		out = append(out, "Pages: none came from the engine; without an adapter nothing is compressed.")
	default:
		out = append(out, "Pages: none, as was decided.")
	}
	if r.Error != "" {
		out = append(out, "Error: "+r.Error+".")
	}
	return out
}

// summaryOfPages says what became of pages that belong to no request.
func summaryOfPages(r *recent.Request, f recent.Fidelity) (out []string) {
	if f.Pages > 0 {
		text := "Pages: " + strconv.Itoa(f.Pages) + " at ratio " + strconv.FormatFloat(f.Ratio, 'f', 3, 64)
		if f.Measured {
			text += ", attention error at worst " + strconv.FormatFloat(f.AttentionError, 'f', 4, 64)
		} else {
			text += ", not measured: they brought no queries"
		}
		out = append(out, text+".")
	}
	for i := range r.Pages {
		p := &r.Pages[i]
		text := "Page " + strconv.Itoa(i+1) + ": "
		switch {
		case p.Error != "":
			text += "not compressed, " + p.Error
		case p.Reason != "":
			text += p.Outcome + ", because " + p.Reason
		default:
			text += p.Outcome
		}
		out = append(out, text+".")
		if i == 7 && len(r.Pages) > 8 {
			return append(out, "And "+strconv.Itoa(len(r.Pages)-8+r.Omitted)+" more.")
		}
	}
	return out
}
