package sidecar

import "github.com/semproxy/semproxy/proxy/recent"

// Request is what the sidecar remembers of a request.
func (s *Sidecar) Request(id string) (recent.Request, bool) { return s.ring.Get(id) }
