package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Running asks a sidecar that runs, at the URL of its admin listener. token may be empty.
func (r *Report) Running(ctx context.Context, base, token, version string) {
	base = strings.TrimSuffix(base, "/")
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	get := func(path string, into any) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
		if err != nil {
			return err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
			return errToken
		case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable:
			return fmt.Errorf("%s answers %d", path, resp.StatusCode)
		}
		return json.Unmarshal(text, into)
	}
	var ready struct {
		Status string `json:"status"`
		Checks []struct {
			Name  string `json:"name"`
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"checks"`
	}
	if err := get("/readyz", &ready); err != nil {
		what, remedy, ok := Network(base, err)
		if !ok {
			what, remedy = base+" is no admin listener of semproxy: "+err.Error(), "give --admin the URL of admin.listen"
		}
		r.Fail("sidecar", what, remedy)
		return
	}
	for _, c := range ready.Checks {
		if c.OK {
			r.OK("sidecar."+c.Name, "ok")
		} else {
			r.Fail("sidecar."+c.Name, c.Error, "docs/how-to/runbook.md, \"not ready\"")
		}
	}
	var v map[string]string
	if err := get("/version", &v); err == nil {
		switch {
		case v["version"] != version:
			r.Warn("sidecar.version", "it is "+v["version"]+", this program is "+version, "use the program of the same release")
		default:
			r.OK("sidecar.version", v["version"])
		}
		r.OK("sidecar.device", v["device"])
	}
	r.traffic(get)
}

var errToken = errors.New("the admin API wants its token")

// traffic looks at what the sidecar has seen.
func (r *Report) traffic(get func(string, any) error) {
	var o struct {
		Notes   []string `json:"notes"`
		Tenants []struct {
			Tenant    string            `json:"tenant"`
			Pages     int               `json:"pages"`
			Refused   int               `json:"pagesRefused"`
			Requests  int               `json:"requests"`
			Measured  int               `json:"pagesMeasured"`
			ErrorSum  float64           `json:"attentionErrorSum"`
			Gate      map[string]int    `json:"gate"`
			ErrorCode map[string]uint64 `json:"errors"`
		} `json:"tenants"`
	}
	if err := get("/api/v1/overview", &o); err != nil {
		r.Warn("sidecar.traffic", err.Error(), "give --token-file the file of admin.tokenFile, or run it on the sidecar's own machine")
		return
	}
	for _, n := range o.Notes {
		r.Warn("sidecar.note", n, "")
	}
	if len(o.Tenants) == 0 {
		r.Warn("sidecar.traffic", "no page and no request has come since it started", "semproxy prove sends a page through it")
	}
	for _, t := range o.Tenants {
		asked := 0
		for _, reason := range []string{"pays", "kv_pressure", "learning", "probe", "gate_off"} {
			asked += t.Gate[reason]
		}
		switch {
		case asked > 4 && t.Pages == 0:
			r.Fail("sidecar.adapter", fmt.Sprintf("tenant %s: %d requests were to be compressed and no page came: the engine has no adapter", t.Tenant, asked), "run the engine with the connector of connectors/python; semproxy doctor --config FILE looks at the engine")
		case t.Pages > 0 && t.Refused*20 > t.Pages:
			r.Warn("sidecar.pages", fmt.Sprintf("tenant %s: %d of %d pages were refused: %s", t.Tenant, t.Refused, t.Pages, codes(t.ErrorCode)), "docs/reference/page-plane.md says what each code means")
		case t.Measured > 0 && t.ErrorSum/float64(t.Measured) > 0.3:
			r.Warn("sidecar.quality", fmt.Sprintf("tenant %s: the mean attention error is %.3f", t.Tenant, t.ErrorSum/float64(t.Measured)), "raise the ratio of its profile or give it a guard; the console's studio shows what that costs")
		default:
			r.OK("sidecar.tenant", fmt.Sprintf("%s: %d requests, %d pages", t.Tenant, t.Requests, t.Pages))
		}
	}
}

func codes(m map[string]uint64) string {
	var all []string
	for k, n := range m {
		all = append(all, fmt.Sprintf("%s %d", k, n))
	}
	return strings.Join(all, ", ")
}
