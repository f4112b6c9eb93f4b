package identity

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
)

// Header is a header that names the tenant, believed only from listed peers: by the address that the connection comes
// from (never by a header that says so), or by the subject of the certificate that the peer has proved to hold.
type Header struct {
	name     string
	peers    []netip.Prefix
	subjects []string
}

// NewHeader checks the lists: peers are networks such as 10.0.0.0/8, subjects the common names or DNS names of client
// certificates. At least one of them must be there.
func NewHeader(name string, peers, subjects []string) (*Header, error) {
	h := &Header{name: http.CanonicalHeaderKey(name), subjects: subjects}
	if len(peers)+len(subjects) == 0 {
		return nil, errors.New("a trusted header needs peers or subjects to trust")
	}
	for _, text := range peers {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("peer %q must be a network such as 10.0.0.0/8", text)
		}
		h.peers = append(h.peers, prefix.Masked())
	}
	return h, nil
}

// Trusts says whether the peer of the connection is listed.
func (h *Header) Trusts(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		leaf := r.TLS.VerifiedChains[0][0]
		for _, subject := range append([]string{leaf.Subject.CommonName}, leaf.DNSNames...) {
			if subject != "" && slices.Contains(h.subjects, subject) {
				return true
			}
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(h.peers, func(p netip.Prefix) bool { return p.Contains(addr) })
}
