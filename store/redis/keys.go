package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/semproxy/semproxy/store"
)

// The keys, with the hash tags that decide their slot in a cluster:
//
//	PREFIX{tenant:object}:m          the manifest, a hash
//	PREFIX{tenant:object}:VERSION:I  tile I of one version
//	PREFIX{tenant:object}:VERSION:m  what becomes the manifest, for a moment
//	PREFIX{tenant:object}:c          who makes the object at the moment
//	PREFIX{tenant}:objects           hash: object -> "bytes seq"
//	PREFIX{tenant}:age               sorted set of objects by seq: the oldest first
//	PREFIX{tenant}:expiry            sorted set of the objects that expire, by milliseconds
//	PREFIX{tenant}:account           hash: bytes, seq
//	PREFIX{tenant}:doomed            hash: object -> seq: evicted, values perhaps not yet removed
//	PREFIX{tenant:LINK}:p            hash: what is stored behind a prefix
//	PREFIX{tenant}:budget:SECONDS    hash: left, at: tokens that the tenant may still use of a window, through the proxy
//	PREFIX{}:sweep                   who sweeps at the moment
//	PREFIX{}:trial                   that this user may write by scripts
type keys struct{ prefix string }

const (
	manifestSuffix = ":m"
	marksSuffix    = ":p"
	accountSuffix  = ":account"
)

// tenantName is the tenant as it is in keys: its own name where that is harmless, else "~" and a digest. The two
// never collide.
func tenantName(tenant string) string {
	if len(tenant) <= 64 && strings.Trim(tenant, plainBytes) == "" {
		return tenant
	}
	sum := sha256.Sum256([]byte(tenant))
	return "~" + hex.EncodeToString(sum[:])
}

const plainBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// object is the part that all keys of an object share.
func (k keys) object(key store.Key) string { return k.named(tenantName(key.Tenant), key.Object) }

func (k keys) named(tenant, object string) string {
	return k.prefix + "{" + tenant + ":" + object + "}"
}

func (k keys) sweep() string { return k.prefix + "{}:sweep" }

func (k keys) trial() string { return k.prefix + "{}:trial" }

func manifestKey(object string) string { return object + manifestSuffix }

func tileKey(object, version string, i int) string {
	return object + ":" + version + ":" + strconv.Itoa(i)
}

func tileKeys(object string, m *manifest) []string {
	all := make([]string, m.tiles())
	for i := range all {
		all[i] = tileKey(object, m.version, i)
	}
	return all
}

// account is the five keys of a tenant's account, as the scripts want them.
func (k keys) account(tenant string) []string {
	tag := k.prefix + "{" + tenant + "}"
	return []string{tag + ":objects", tag + ":age", tag + ":expiry", tag + accountSuffix, tag + ":doomed"}
}

// ownerOf takes a key apart: the tenant's name as it is in keys, the object (empty for a tenant's own keys) and what
// follows the hash tag. ok is false for a key that is not one of these.
func (k keys) ownerOf(key string) (tenant, object, rest string, ok bool) {
	tagged, found := strings.CutPrefix(key, k.prefix+"{")
	tag, rest, closed := strings.Cut(tagged, "}")
	if !found || !closed {
		return "", "", "", false
	}
	tenant, object, _ = strings.Cut(tag, ":")
	return tenant, object, rest, tenant != ""
}
