package pipeline

import "github.com/semproxy/semproxy/policy"

// request is what the rules are asked about a sequence of a tenant: the same for a page that is to be kept and for a
// lookup of what was. carried are the headers that the page or the lookup itself says; those of a request that is known
// here win over them.
func (p *Pipeline) request(rules *policy.Set, tenant, sequence, model string, tokens int, carried map[string]string) policy.Request {
	r := policy.Request{Tenant: tenant, Model: model, Tokens: tokens}
	if len(rules.Headers(tenant)) == 0 {
		return r
	}
	headers := carried
	if p.cfg.Headers != nil {
		if known := p.cfg.Headers(tenant, sequence); known != nil {
			headers = known
		}
	}
	r.Header = func(name string) string { return headers[name] }
	return r
}
