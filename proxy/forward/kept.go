package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/semproxy/semproxy/codes"
)

// Answers that the engine keeps (/v1/responses) are a tenant's own: only it may ask for one again, cancel it, or go on from it. An id that the
// engine takes from the proxy says itself whose it is, in every replica and after a restart. Ids that an engine chooses are remembered here,
// for a while.

const keptPrefix = "resp_"

// keptID is a new id of a tenant: a random part, and what shows that the tenant was given it. It needs no secret, because the engine knows the
// id as a whole: one that another tenant makes of the same random part is another's.
func keptID(tenant string) string {
	nonce := randomHex()
	return keptPrefix + nonce + keptTag(tenant, nonce)
}

func keptTag(tenant, nonce string) string {
	h := sha256.Sum256([]byte("semproxy.kept.v1\x00" + tenant + "\x00" + nonce))
	return hex.EncodeToString(h[:16])
}

// ownsID says whether keptID made an id for the tenant.
func ownsID(tenant, id string) bool {
	rest, ok := strings.CutPrefix(id, keptPrefix)
	return ok && len(rest) == 64 && rest[32:] == keptTag(tenant, rest[:32])
}

// Bounds of what is remembered of each tenant.
const (
	keptEach = 4096
	keptFor  = 24 * time.Hour
)

// kept remembers the ids that answers have named, of each tenant the newest.
type kept struct {
	mu   sync.Mutex
	each map[string]*keptRing
}

type keptRing struct {
	at   map[[16]byte]time.Time
	ring [][16]byte // in order of arrival
	next int
}

func keptKey(tenant, id string) (key [16]byte) {
	h := sha256.Sum256([]byte(tenant + "\x00" + id))
	copy(key[:], h[:])
	return key
}

// add notes an id of a tenant. entry must come from a bounded set, such as the entries of the policy.
func (k *kept) add(entry, tenant, id string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.each[entry]
	if r == nil {
		r = &keptRing{at: map[[16]byte]time.Time{}}
		k.each[entry] = r
	}
	key := keptKey(tenant, id)
	if _, there := r.at[key]; !there {
		if len(r.ring) < keptEach {
			r.ring = append(r.ring, key)
		} else {
			delete(r.at, r.ring[r.next])
			r.ring[r.next] = key
			r.next = (r.next + 1) % keptEach
		}
	}
	r.at[key] = now
}

func (k *kept) has(entry, tenant, id string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.each[entry]
	if r == nil {
		return false
	}
	at, ok := r.at[keptKey(tenant, id)]
	return ok && now.Sub(at) < keptFor
}

// keep notes the answer's id as soon as it has passed: the client may ask for it at once.
func (x *exchange) keep() {
	if id := x.answer.ID(); id != "" && !x.noted {
		x.noted = true
		if !ownsID(x.who.Tenant, id) {
			x.p.kept.add(x.entry, x.who.Tenant, id, x.p.cfg.Now())
		}
	}
}

// recalls refuses a request for an answer that is not the tenant's own.
func (p *Proxy) recalls(x *exchange, id string) error {
	if ownsID(x.who.Tenant, id) || p.kept.has(x.entry, x.who.Tenant, id, p.cfg.Now()) {
		return nil
	}
	return refuse(http.StatusNotFound, codes.ResponseNotFound, "the tenant has no answer of this id, or it was made too long ago")
}

// recalled holds what a request refers to to its tenant.
func (p *Proxy) recalled(x *exchange) error {
	if !x.route.Keeps {
		return nil
	}
	if x.request.Conversation {
		return refuse(http.StatusNotFound, codes.ResponseNotFound, "conversations are not forwarded, so there is none of this name")
	}
	limits := x.rules.Limits(x.who.Tenant)
	if x.request.Background && x.request.MaxTokens == 0 && limits.Metered() {
		return refuse(http.StatusBadRequest, codes.RequestBackground, "an answer in the background needs max_output_tokens: what it will use is counted now")
	}
	if x.request.Previous == "" {
		return nil
	}
	return p.recalls(x, x.request.Previous)
}
