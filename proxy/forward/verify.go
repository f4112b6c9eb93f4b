package forward

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/verify"
)

// sample keeps the body of a request that is to be verified, by chance, until its answer has ended.
func (p *Proxy) sample(x *exchange) {
	if p.cfg.Verify == nil || x.verdict == nil || !x.verdict.Compress || !x.route.UsageOption || x.relay || x.body.Len() > verify.MaxBody {
		return
	}
	if p.cfg.Verify.Wants(x.rules.Verify(x.who.Tenant).Share) {
		x.sampled = bytes.Clone(x.body.Bytes())
	}
}

var errNotAgain = errors.New("the request cannot be asked again")

// offer gives a sampled request whose answer ended well to be asked again.
func (p *Proxy) offer(x *exchange) {
	if x.sampled == nil || x.err != nil || x.status != http.StatusOK {
		return
	}
	route, body, params := x.route, x.sampled, p.params(x, "").KV
	kv, ok := params.(KVParams)
	if !ok {
		return
	}
	p.cfg.Verify.Offer(verify.Sample{
		Tenant: x.who.Tenant, Profile: x.decision.Profile, Digest: x.decision.PolicyDigest,
		MaxChanged: x.rules.Verify(x.who.Tenant).MaxChanged, Path: route.Pattern,
		Ask: func(compress bool) ([]byte, error) {
			kv.Object, kv.Compress = randomHex(), compress
			again, ok := dialect.Again(route, body, kv)
			if !ok {
				return nil, errNotAgain
			}
			return again, nil
		},
	})
}
