package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
)

// A password that changes in Redis and in the file takes effect with the next connection.
func TestAPasswordIsReadForEachConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "first")
	admin := goredis.NewClient(&goredis.Options{Addr: server.Addr, Password: "first", DisableIdentity: true})
	t.Cleanup(func() { _ = admin.Close() })
	var password atomic.Value
	password.Store("wrong")
	s := open(t, redis.Options{
		Addrs:       []string{server.Addr},
		Credentials: func() (string, string, error) { return "", password.Load().(string), nil },
	})
	put := func() error { return s.Put(t.Context(), testKey("a"), content, store.PutOptions{}) }
	if err := put(); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Put with a wrong password: got %v, want %v", err, store.ErrUnavailable)
	}
	password.Store("first")
	if err := put(); err != nil {
		t.Fatalf("Put with the password: got %v, want nil", err)
	}
	if err := admin.ConfigSet(t.Context(), "requirepass", "second").Err(); err != nil {
		t.Fatal(err)
	}
	password.Store("second")
	if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the new password is used", func() bool { return put() == nil })
}

// Certificates are read for each connection too, and both sides have to be right.
func TestTLSWithBothCertificates(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	dir := t.TempDir()
	authority, key := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", authority, key)
	certificate(t, dir, "client", authority, key)
	file := func(name string) string { return filepath.Join(dir, name) }
	server := redistest.Start(t)
	port := redistest.FreePort(t)
	if err := server.Client(t).Do(t.Context(), "CONFIG", "SET", "tls-cert-file", file("server.crt"), "tls-key-file", file("server.key"),
		"tls-ca-cert-file", file("ca.crt"), "tls-auth-clients", "yes", "tls-port", port).Err(); err != nil {
		t.Fatalf("this redis-server cannot speak TLS: %v", err)
	}
	pair, err := tls.LoadX509KeyPair(file("client.crt"), file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	addr := net.JoinHostPort("127.0.0.1", port)
	for name, c := range map[string]struct {
		config *tls.Config
		works  bool
	}{
		"both":                 {&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, true},
		"no roots":             {&tls.Config{Certificates: []tls.Certificate{pair}}, false},
		"no certificate":       {&tls.Config{RootCAs: roots}, false},
		"a server of any name": {&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "other.example"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, redis.Options{Addrs: []string{addr}, TLS: func() (*tls.Config, error) { return c.config, nil }})
			err := s.Put(t.Context(), testKey("a"), content, store.PutOptions{})
			if c.works != (err == nil) || !c.works && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Put: got %v, want success %v", err, c.works)
			}
		})
	}
}

// certificate writes NAME.crt and NAME.key, signed by the authority, or by itself.
func certificate(t *testing.T, dir, name string, authority *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	draft := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: authority == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if authority == nil {
		authority, signer = draft, key
	}
	der, err := x509.CreateCertificate(rand.Reader, draft, authority, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}
