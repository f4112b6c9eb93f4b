package natsconf

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/nats-io/nkeys"

	"github.com/semproxy/semproxy/transport"
)

// Modes: an account per tenant, where the NATS server writes the tenant into the subject, or one account in which users
// have permissions.
const (
	Accounts = "accounts"
	Users    = "users"
)

// Options say what is written.
type Options struct {
	Tenants      []string
	Mode         string // Accounts or Users
	Dir          string // where the files go; made where it is not there
	Nodes        []Node // one: a single server; more: a cluster
	Bind         string // address to listen on, without port
	MaxPayload   int    // bytes
	JetStreamDir string // where each server keeps jobs; "": none
	TLSCert      string // certificate of the servers; "": no TLS
	TLSKey       string
	TLSCA        string // verifies the other servers of a cluster
}

// Node is one server: its host, and ports for clients and for the other servers.
type Node struct {
	Host           string
	Client, Routes int
}

// ParseNode reads host[:client[:routes]]; the ports default to 4222 and 6222.
func ParseNode(text string) (n Node, err error) {
	parts := strings.Split(text, ":")
	n = Node{Host: parts[0], Client: 4222, Routes: 6222}
	for i, port := range []*int{&n.Client, &n.Routes} {
		if len(parts) > i+1 {
			v, err := strconv.ParseUint(parts[i+1], 10, 16)
			if err != nil || v == 0 {
				return n, fmt.Errorf("server %q: a port must be 1 to 65535", text)
			}
			*port = int(v)
		}
	}
	if n.Host == "" || len(parts) > 3 {
		return n, fmt.Errorf("server %q: must be host, host:client-port or host:client-port:route-port", text)
	}
	return n, nil
}

// Written is what Write made.
type Written struct {
	Configs []string // a file for each server
	Sidecar string   // seed of the sidecars
	Tenants []string // seeds, in the order of the tenants
	Kept    int      // seeds that were there before and stay valid
}

//go:embed nats-server.conf.tmpl
var text string

var configuration = template.Must(template.New("nats-server.conf").Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(text))

// sidecarName is the account of sidecars, and the name of their seed.
const sidecarName = "SEMPROXY"

// Services that tenants may ask of any sidecar, and of the one whose shared memory they use.
var (
	services  = []string{"compress", "get", "stat", "job", "result"}
	instances = []string{"compress", "job", "attach"}
)

type user struct{ Name, Key string }

// page is what the template sees.
type page struct {
	Options
	Node                Node
	Name                string
	Services, Instances []string
	Sidecar             user
	TenantUsers         []user
}

// Write makes the configuration of each server and the seeds that are not there yet. Seeds that are there stay, so that a
// tenant can be added without new keys for the others.
func Write(o Options) (*Written, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	w := &Written{}
	key := func(name string) (user, string, error) {
		path := filepath.Join(o.Dir, name+".nk")
		public, kept, err := seed(path)
		if kept {
			w.Kept++
		}
		return user{name, public}, path, err
	}
	p := page{Options: o, Services: services, Instances: instances}
	var err error
	if p.Sidecar, w.Sidecar, err = key(sidecarName); err != nil {
		return nil, err
	}
	for _, tenant := range o.Tenants {
		u, path, err := key(tenant)
		if err != nil {
			return nil, err
		}
		p.TenantUsers, w.Tenants = append(p.TenantUsers, u), append(w.Tenants, path)
	}
	for i, node := range o.Nodes {
		p.Node, p.Name = node, "nats-"+strconv.Itoa(i)
		path := filepath.Join(o.Dir, "nats-server.conf")
		if len(o.Nodes) > 1 {
			path = filepath.Join(o.Dir, p.Name+".conf")
		}
		var out strings.Builder
		if err := configuration.Execute(&out, p); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
			return nil, err
		}
		w.Configs = append(w.Configs, path)
	}
	return w, nil
}

func (o *Options) check() error {
	var faults []error
	if len(o.Tenants) == 0 {
		faults = append(faults, errors.New("tenants: name at least one"))
	}
	seen := make(map[string]bool)
	for _, t := range o.Tenants {
		switch {
		case !transport.ValidTenant(t):
			faults = append(faults, fmt.Errorf("tenant %q: the name must be 1 to 64 letters, digits, underscores or hyphens", t))
		case seen[t]:
			faults = append(faults, fmt.Errorf("tenant %q is named twice", t))
		case slices.Contains([]string{sidecarName, "SYS", "$G"}, t):
			faults = append(faults, fmt.Errorf("tenant %q: that is the name of an account of the servers", t))
		}
		seen[t] = true
	}
	if o.Mode != Accounts && o.Mode != Users {
		faults = append(faults, fmt.Errorf("mode %q: must be %s or %s", o.Mode, Accounts, Users))
	}
	if net.ParseIP(o.Bind) == nil {
		faults = append(faults, fmt.Errorf("bind %q: must be an IP address", o.Bind))
	}
	if o.MaxPayload < 1024 || o.MaxPayload > 64<<20 {
		faults = append(faults, fmt.Errorf("max payload %d: must be 1 KiB to 64 MiB", o.MaxPayload))
	}
	if (o.TLSCert == "") != (o.TLSKey == "") || (o.TLSCA != "" && o.TLSCert == "") {
		faults = append(faults, errors.New("TLS: certificate and key belong together, and ca needs them"))
	}
	if len(o.Nodes) == 2 {
		faults = append(faults, errors.New("servers: a cluster with JetStream needs three or five, got 2"))
	}
	return errors.Join(faults...)
}

// seed reads the seed at path, or makes one.
func seed(path string) (public string, kept bool, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		pair, err := nkeys.ParseDecoratedNKey(text)
		if err != nil {
			return "", false, fmt.Errorf("%s: it is there and holds no seed of an nkey", path)
		}
		public, err = pair.PublicKey()
		return public, true, err
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", false, err
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", false, err
	}
	secret, err := pair.Seed()
	if err != nil {
		return "", false, err
	}
	defer clear(secret)
	if err := os.WriteFile(path, append(slices.Clone(secret), '\n'), 0o600); err != nil {
		return "", false, err
	}
	public, err = pair.PublicKey()
	return public, false, err
}
