package forward

import (
	"fmt"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/canary"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// CanaryPlane lets a canary ask the engine as a tenant, with parameters as requests have them.
type CanaryPlane struct {
	Tenant string
	Policy func() *policy.Set
	Recent *recent.Ring
}

var _ canary.Plane = (*CanaryPlane)(nil)

// canaryTokens is about how many tokens the canary's prompt has, which its rule is found by.
const canaryTokens = 1200

func (c *CanaryPlane) decide(model string) (policy.Decision, error) {
	return c.Policy().Decide(policy.Request{Tenant: c.Tenant, Model: model, Tokens: canaryTokens})
}

// Digest is part of canary.Plane.
func (c *CanaryPlane) Digest(model string) (string, error) {
	d, err := c.decide(model)
	if err == nil && d.Plan.Untouched() {
		err = fmt.Errorf("the policy of tenant %s compresses nothing of %d tokens of model %q", c.Tenant, canaryTokens, model)
	}
	return d.PolicyDigest, err
}

// Begin is part of canary.Plane. The request is remembered, so that its pages are found and explained.
func (c *CanaryPlane) Begin(model string, compress bool) (canary.Params, string, error) {
	d, err := c.decide(model)
	if err != nil {
		return canary.Params{}, "", err
	}
	object := randomHex()
	c.Recent.Add(recent.Request{ID: "canary-" + object, Object: object, Tenant: c.Tenant, Method: "POST", Route: "/v1/completions", Model: model, Decision: &d})
	return canary.Params{
		KV:   KVParams{Tenant: c.Tenant, PolicyDigest: d.PolicyDigest, Object: object, Compress: compress},
		Salt: cacheSalt(c.Tenant, []byte(object)),
	}, object, nil
}

// Compressed is part of canary.Plane.
func (c *CanaryPlane) Compressed(object string) (n int) {
	r, ok := c.Recent.Get("canary-" + object)
	if !ok {
		return 0
	}
	for i := range r.Pages {
		if p := &r.Pages[i]; p.Error == "" && (p.Outcome == semconv.OutcomeCompressed || p.Outcome == semconv.OutcomeStored) {
			n++
		}
	}
	return n
}
