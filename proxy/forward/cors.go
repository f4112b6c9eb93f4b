package forward

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
)

// Modes of CORS.
const (
	CORSPass = "pass" // as the engine says: its answers, those to preflights too, pass
	CORSOff  = "off"  // preflights are refused, and no answer allows anything
	CORSList = "list" // the proxy answers for the engine: the origins of a list
)

// CORS says which web pages may call the proxy from a browser.
type CORS struct {
	Mode    string   // "": CORSPass
	Origins []string // of CORSList: scheme://host[:port], or * for all
}

const (
	headerOrigin      = "Origin"
	headerAllowOrigin = "Access-Control-Allow-Origin"
	headerWanted      = "Access-Control-Request-Method"
	corsPrefix        = "Access-Control-"
)

// maxOrigins bounds what is remembered of what engines allow.
const maxOrigins = 256

// origins are what the engine has allowed: what is refused before the engine is asked says the same, so that a page can read why.
type origins struct {
	mu   sync.Mutex
	seen map[string]string // origin -> what was said; "*": to all
}

func (o *origins) learn(origin string, h http.Header) {
	said := h.Get(headerAllowOrigin)
	if origin == "" || said == "" {
		return
	}
	if said == "*" {
		origin = "*"
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) < maxOrigins {
		o.seen[origin] = said
	}
}

func (o *origins) allowed(origin string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if said := o.seen[origin]; said != "" {
		return said
	}
	return o.seen["*"]
}

// preflight says whether a request asks, without a credential, whether a page may send another.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get(headerOrigin) != "" && r.Header.Get(headerWanted) != ""
}

// listed says whether the configuration allows an origin.
func (c *CORS) listed(origin string) bool {
	return origin != "" && (slices.Contains(c.Origins, "*") || slices.Contains(c.Origins, origin))
}

// allow sets what an answer of the proxy's own says.
func (p *Proxy) allow(x *exchange) {
	origin := x.origin
	if origin == "" {
		return
	}
	said := ""
	switch {
	case p.cfg.CORS.Mode == CORSPass:
		said = p.origins.allowed(origin)
	case p.cfg.CORS.Mode == CORSList && p.cfg.CORS.listed(origin):
		said = origin
	}
	if said != "" {
		x.w.Header().Set(headerAllowOrigin, said)
		x.w.Header().Add("Vary", headerOrigin)
	}
}

// preflight answers one, or says that the engine does. found and allowed are those of the route for the method that is asked for.
func (p *Proxy) preflight(x *exchange, r *http.Request) (answered bool, err error) {
	switch p.cfg.CORS.Mode {
	case CORSOff:
		return false, refuse(http.StatusMethodNotAllowed, codes.RouteMethod, "this path has no such method")
	case CORSPass:
		if r.ContentLength != 0 {
			return false, refuse(http.StatusBadRequest, codes.RequestBadPreflight, "a preflight has no body")
		}
		if wait := p.strangers.take(p.cfg.Now()); wait > 0 {
			return false, &dialect.Error{Status: http.StatusTooManyRequests, Code: codes.LimitStrangers, Message: "too many requests without a credential; try again"}
		}
		return false, nil
	}
	p.allow(x)
	h := x.w.Header()
	if h.Get(headerAllowOrigin) == "" {
		return false, refuse(http.StatusForbidden, codes.CORSOrigin, "this origin is not among those that may call")
	}
	h.Set("Access-Control-Allow-Methods", cmp.Or(dialect.Methods(r.URL.Path), r.Header.Get(headerWanted)))
	if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" && len(wanted) < 1024 {
		h.Set("Access-Control-Allow-Headers", wanted)
	}
	h.Set("Access-Control-Max-Age", "600")
	h.Set("Content-Length", "0")
	x.status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	return true, nil
}

// cors makes the engine's answer say what the configuration says.
func (p *Proxy) cors(x *exchange, res *http.Response) {
	if p.cfg.CORS.Mode == CORSPass {
		p.origins.learn(x.origin, res.Header)
		return
	}
	for name := range res.Header {
		if strings.HasPrefix(name, corsPrefix) {
			delete(res.Header, name)
		}
	}
	if p.cfg.CORS.Mode == CORSList && p.cfg.CORS.listed(x.origin) {
		res.Header.Set(headerAllowOrigin, x.origin)
		res.Header.Set("Access-Control-Expose-Headers", "X-Request-Id, "+headerDecision+", "+headerRatio+", "+headerFidelity)
		res.Header.Add("Vary", headerOrigin)
	}
}
