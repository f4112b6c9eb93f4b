package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/codes"
)

// authorize lets those use the admin API who know the token. Without a token it answers the machine itself only: the
// connection must come from it, and be meant for it, so that no web page can use a browser here to read it.
func authorize(token func() string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if token == nil {
			onlyLocal(nil)(c)
			return
		}
		got := sha256.Sum256([]byte(bearer(c.Request)))
		want := sha256.Sum256([]byte(token()))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			c.Abort()
			c.Header("WWW-Authenticate", "Bearer")
			writeError(c, http.StatusUnauthorized, codes.AdminUnauthorized, "the token of admin.tokenFile is required: Authorization: Bearer <token>")
		}
	}
}

// onlyLocal answers the machine itself only, where there is no token. The console's files hold nothing of anybody; with a token they
// are for everyone, and what they ask for is not.
func onlyLocal(token func() string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if token == nil && (!local(c.Request.RemoteAddr) || !local(c.Request.Host) || !sameMachine(c.GetHeader("Origin"))) {
			c.Abort()
			writeError(c, http.StatusForbidden, codes.AdminLocalOnly, "without admin.tokenFile the API answers this machine only")
		}
	}
}

// sameMachine says whether a request's origin, where a browser names one, is a page of this machine.
func sameMachine(origin string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && local(u.Host)
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
