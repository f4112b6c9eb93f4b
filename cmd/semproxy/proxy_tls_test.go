package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
)

func (a *authority) pair(name string) tls.Certificate {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issueTo(name, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// The tenant that a gateway names is believed by the certificate that the gateway proves to hold, and by nothing else.
func TestATenantByMutualTLS(t *testing.T) {
	ours, other := newAuthority(t, t.TempDir()), newAuthority(t, t.TempDir())
	cert, key := ours.issue()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" && r.Header.Get("X-Tenant") != "" {
			t.Error("the tenant's header reached the engine")
		}
		_, _ = io.WriteString(w, "{}")
	}))
	defer engine.Close()
	sc := sidecartest.Start(t, func(c *config.Config) {
		c.Proxy.Listen, c.Proxy.Engine.URL = "127.0.0.1:0", engine.URL
		c.Proxy.TLS = config.ProxyTLS{CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(ours.dir, "ca.crt")}
		c.Proxy.Identity.Header = config.ProxyHeader{Name: "X-Tenant", Subjects: []string{"gateway"}}
	})
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	for _, c := range []struct {
		name    string
		certs   []tls.Certificate
		refused bool // by TLS
		status  int
	}{
		{"the gateway", []tls.Certificate{ours.pair("gateway")}, false, 200},
		{"another certificate of the same root", []tls.Certificate{ours.pair("stranger")}, false, 401},
		{"the gateway's name from another root", []tls.Certificate{other.pair("gateway")}, true, 0},
		{"no certificate", nil, false, 401},
	} {
		// What the server asks for would keep a certificate of another root at home: it is sent all the same.
		send := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c.certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &c.certs[0], nil
		}
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, GetClientCertificate: send, MinVersion: tls.VersionTLS12}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sc.ProxyURL()+"/v1/models", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Tenant", "acme")
		response, err := (&http.Client{Transport: transport}).Do(request)
		if (err != nil) != c.refused {
			t.Errorf("%s: got %v, want refused by TLS %v", c.name, err, c.refused)
		}
		if err == nil {
			if response.StatusCode != c.status || response.ProtoMajor != 2 {
				t.Errorf("%s: got %d by %s, want %d by HTTP/2", c.name, response.StatusCode, response.Proto, c.status)
			}
			_ = response.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}
