package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"
)

// authorize lets those use the admin API who know the token. Without a token it answers the machine itself only: the
// connection must come from it, and be meant for it, so that no web page can use a browser here to read it.
func authorize(token func() string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if token == nil {
			if !local(c.Request.RemoteAddr) || !local(c.Request.Host) {
				c.Abort()
				writeError(c, http.StatusForbidden, "local_only", "without admin.tokenFile the API answers this machine only")
			}
			return
		}
		got := sha256.Sum256([]byte(bearer(c.Request)))
		want := sha256.Sum256([]byte(token()))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			c.Abort()
			c.Header("WWW-Authenticate", "Bearer")
			writeError(c, http.StatusUnauthorized, "unauthorized", "the token of admin.tokenFile is required: Authorization: Bearer <token>")
		}
	}
}

// bearer is the token of a request; empty when there is not exactly one.
func bearer(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// local says whether host, with or without a port, is this machine by loopback.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
