package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/doctor"
	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/store"
)

func newDoctorCommand() *cobra.Command {
	var admin, tokenFile, output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with a set-up: each line with its cause and remedy",
		Long: `Look at everything that a sidecar needs, as it would use it: configuration, policy, NATS (reachable, let in, may subscribe,
max_payload), JetStream, Redis (writable, scripts, memory), engine (routes, adapter), GPU, files, clocks, versions. Nothing is
changed, and no page is taken from a queue.

With --admin it asks a sidecar that runs instead. The exit code is 1 when a line says fail.`,
		Example: `  semproxy doctor --config /etc/semproxy/semproxy.yaml
  semproxy doctor --nats-url nats://nats:4222 --store-redis-addrs redis:6379
  semproxy doctor --admin http://127.0.0.1:9090`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &doctor.Report{Findings: []doctor.Finding{}}
			if admin != "" {
				token := ""
				if tokenFile != "" {
					text, err := config.ReadSecret(tokenFile)
					if err != nil {
						return err
					}
					token = text
				}
				r.Running(cmd.Context(), admin, token, versionString())
			} else {
				examine(cmd.Context(), r, config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
			}
			if err := show.As(cmd.OutOrStdout(), output, r, findings(r)); err != nil {
				return err
			}
			if r.Failed > 0 {
				return exit.FailedError{Text: show.Plural(r.Failed, "problem")}
			}
			return nil
		},
	}
	config.RegisterFlags(cmd.Flags())
	cmd.Flags().StringVar(&admin, "admin", "", "URL of the admin listener of a sidecar that runs, in place of a configuration")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "with --admin: file of the admin API's token")
	show.Flag(cmd, &output)
	show.JSONFlag(cmd, &output)
	return cmd
}

// findings writes them for a person.
func findings(r *doctor.Report) func(io.Writer) error {
	return func(w io.Writer) error { return writeFindings(w, r) }
}

func writeFindings(w io.Writer, r *doctor.Report) error {
	colour := map[doctor.Status]string{doctor.OK: "\x1b[32m", doctor.Warn: "\x1b[33m", doctor.Fail: "\x1b[31m"}
	for _, f := range r.Findings {
		status := fmt.Sprintf("%-4s", f.Status)
		if show.Coloured(w, "auto") {
			status = colour[f.Status] + status + "\x1b[0m"
		}
		fmt.Fprintf(w, "%s  %-18s %s\n", status, f.Check, f.What)
		if f.Remedy != "" {
			fmt.Fprintf(w, "      %-18s -> %s\n", "", f.Remedy)
		}
	}
	_, err := fmt.Fprintf(w, "\n%d looked at, %s, %s\n", len(r.Findings), show.Plural(r.Warned, "warning"), show.Plural(r.Failed, "problem"))
	return err
}

// examine looks at what a configuration names.
func examine(ctx context.Context, r *doctor.Report, from config.Sources) {
	r.OK("version", versionString())
	loaded, err := config.Load(from)
	if err != nil {
		for _, p := range strict.Problems(err) {
			r.Fail("configuration", p.Error(), "docs/reference/configuration.md has every key; semproxy config print shows where values come from")
		}
		if len(strict.Problems(err)) == 0 {
			r.Fail("configuration", err.Error(), "docs/reference/configuration.md")
		}
		return
	}
	name := loaded.File
	if name == "" {
		name = "no file: defaults, environment and flags"
	}
	r.OK("configuration", name)
	cfg := &loaded.Config
	set := examinePolicy(r, cfg)
	examineFiles(r, cfg)
	examinePlanes(r, cfg)
	mine := examineListeners(ctx, r, cfg)
	if cfg.RunsPages() {
		examineNATS(ctx, r, cfg, set)
	}
	examineStore(ctx, r, cfg)
	if cfg.RunsRequests() {
		e := doctor.Engine{URL: cfg.Proxy.Engine.URL, Kind: cfg.Proxy.Engine.Kind}
		if f := cfg.Proxy.Engine.APIKeyFile; f != "" {
			e.Key = func() string { key, _ := config.ReadSecret(f); return key }
		}
		r.Engine(ctx, e)
	}
	if cfg.RunsPages() {
		examineGPU(r, cfg)
	}
	if mine != "" {
		r.Running(ctx, mine, "", versionString())
	}
}

// examinePlanes looks at where the processes of the two planes meet.
func examinePlanes(r *doctor.Report, cfg *config.Config) {
	if cfg.Planes == config.PlanesBoth {
		return
	}
	dir := filepath.Dir(cfg.PlanesSocket)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		r.Fail("planes", "planesSocket: "+dir+" is no folder", "make it, for the user of both planes' processes alone")
		return
	}
	r.OK("planes", "this process runs "+cfg.Planes+", and meets that of the other plane at "+cfg.PlanesSocket)
}

func examineNATS(ctx context.Context, r *doctor.Report, cfg *config.Config, set *policy.Set) {
	if cfg.NATS.URL != "" {
		n := doctor.NATS{URL: cfg.NATS.URL, Shown: config.Redact(cfg.NATS.URL), Connect: sidecar.ConnectOptions(&cfg.NATS, slog.New(slog.DiscardHandler)), Jobs: cfg.Jobs.Enabled, Queue: int64(cfg.Jobs.MaxBytes)}
		if set != nil {
			n.Tenants = len(set.Tenants())
		}
		r.NATS(ctx, n)
	} else {
		r.OK("nats", "runs in the sidecar, at "+cfg.NATS.Embedded.Listen)
		if m := int64(cfg.NATS.Embedded.MaxPayload); m < 8<<20 {
			r.Warn("nats.max_payload", fmt.Sprintf("nats.embedded.maxPayload is %s: larger pages cannot be sent", show.Size(int(m))), "set it to 8MiB")
		}
	}
}

func examinePolicy(r *doctor.Report, cfg *config.Config) *policy.Set {
	if cfg.Policy.Path == "" {
		r.Warn("policy", "there is none: pages are answered uncompressed", "set policy.path; configs/policies/example.yaml has every key")
		return nil
	}
	sources, err := watch.LoadFiles(cfg.Policy.Path)
	if err != nil {
		r.Fail("policy", err.Error(), "check policy.path")
		return nil
	}
	set, err := policy.Compile(sources...)
	if err != nil {
		for _, p := range strict.Problems(err) {
			r.Fail("policy", p.Error(), "docs/reference/policy.md; semproxy policy check "+cfg.Policy.Path)
		}
		if len(strict.Problems(err)) == 0 {
			r.Fail("policy", err.Error(), "docs/reference/policy.md")
		}
		return nil
	}
	for _, w := range set.Warnings() {
		r.Warn("policy", w.String(), "docs/reference/policy.md")
	}
	r.OK("policy", fmt.Sprintf("%s in %s, version %.12s", show.Plural(len(set.Tenants()), "tenant"), cfg.Policy.Path, set.Version()))
	return set
}

// examineFiles reads what the sidecar reads when it starts.
func examineFiles(r *doctor.Report, cfg *config.Config) {
	secrets := map[string]string{"admin.tokenFile": cfg.Admin.TokenFile}
	if cfg.RunsPages() {
		examinePageFiles(r, cfg)
		secrets["nats.embedded.usersFile"], secrets["nats.credsFile"], secrets["nats.nkeyFile"] = cfg.NATS.Embedded.UsersFile, cfg.NATS.CredsFile, cfg.NATS.NKeyFile
	}
	if cfg.RunsRequests() {
		examineRequestFiles(r, cfg)
		secrets["proxy.engine.apiKeyFile"] = cfg.Proxy.Engine.APIKeyFile
	}
	for what, file := range secrets {
		if file == "" {
			continue
		}
		if text, err := config.ReadSecret(file); err != nil {
			r.Fail("files", what+": "+err.Error(), "make the file readable for the sidecar's user")
		} else if text == "" {
			r.Fail("files", what+": "+file+" is empty", "write the secret into it")
		}
	}
}

func examinePageFiles(r *doctor.Report, cfg *config.Config) {
	if err := sidecar.NewModels(cfg.Models).Load(); err != nil {
		r.Fail("tokenizer", err.Error(), "fetch the model's tokenizer.json again; without one, remove models[].tokenizerFile")
	}
	if dir := cfg.Store.Encryption.KeysDir; dir != "" {
		if _, err := store.OpenKeyring(dir, slog.New(slog.DiscardHandler)); err != nil {
			r.Fail("encryption", err.Error(), "docs/reference/store.md, encryption")
		} else {
			r.OK("encryption", dir)
		}
	}
}

func examineRequestFiles(r *doctor.Report, cfg *config.Config) {
	if f := cfg.Proxy.Identity.KeysFile; f != "" {
		if _, err := identity.OpenKeys(f, slog.New(slog.DiscardHandler), nil); err != nil {
			r.Fail("keys", err.Error(), "semproxy keys new --file "+f+" --tenant NAME writes it as it must be")
		} else {
			r.OK("keys", f)
		}
	}
	if f := cfg.Proxy.TLS.CertFile; f != "" {
		examineCertificate(r, f, cfg.Proxy.TLS.KeyFile)
	}
}

// soon is when a certificate's end is worth a warning.
const soon = 14 * 24 * time.Hour

func examineCertificate(r *doctor.Report, certFile, keyFile string) {
	if _, err := sidecar.ProxyTLS(&config.ProxyTLS{CertFile: certFile, KeyFile: keyFile}); err != nil {
		r.Fail("tls", err.Error(), "check proxy.tls.certFile and keyFile: they must belong together")
		return
	}
	text, err := os.ReadFile(certFile)
	if err != nil {
		return
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch now := time.Now(); {
	case err != nil:
		r.Fail("tls", certFile+": "+err.Error(), "make the certificate anew")
	case now.After(cert.NotAfter):
		r.Fail("tls", fmt.Sprintf("the certificate %s ended %s", certFile, cert.NotAfter.Format(time.DateTime)), "renew it; the sidecar reads it when it starts")
	case now.Before(cert.NotBefore):
		r.Fail("tls", fmt.Sprintf("the certificate %s begins %s", certFile, cert.NotBefore.Format(time.DateTime)), "check this machine's clock")
	case now.Add(soon).After(cert.NotAfter):
		r.Warn("tls", fmt.Sprintf("the certificate %s ends %s", certFile, cert.NotAfter.Format(time.DateTime)), "renew it")
	default:
		r.OK("tls", "until "+cert.NotAfter.Format(time.DateOnly))
	}
}

// examineListeners tries the addresses. It returns the URL of a sidecar that has them already.
func examineListeners(ctx context.Context, r *doctor.Report, cfg *config.Config) string {
	addresses := []struct{ key, at string }{{"admin.listen", cfg.Admin.Listen}}
	if cfg.RunsRequests() {
		addresses = append(addresses, struct{ key, at string }{"proxy.listen", cfg.Proxy.Listen})
	}
	if cfg.NATS.URL == "" && cfg.RunsPages() {
		addresses = append(addresses, struct{ key, at string }{"nats.embedded.listen", cfg.NATS.Embedded.Listen})
	}
	running := ""
	if host, port, err := net.SplitHostPort(cfg.Admin.Listen); err == nil && port != "0" {
		if host == "" || host == "0.0.0.0" || host == "::" {
			host = "127.0.0.1"
		}
		if url := "http://" + net.JoinHostPort(host, port); isSemproxy(ctx, url) {
			running = url
		}
	}
	for _, a := range addresses {
		if a.at == "" {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.at)
		switch {
		case err == nil:
			_ = l.Close()
		case running != "" && errors.Is(err, syscall.EADDRINUSE):
		case errors.Is(err, syscall.EADDRINUSE):
			r.Fail("listen", a.key+": another program listens at "+a.at, "end it, or choose another port")
		default:
			r.Fail("listen", a.key+": "+err.Error(), "choose an address of this machine, and a port that this user may have")
		}
	}
	return running
}

// isSemproxy says whether a sidecar answers there.
func isSemproxy(ctx context.Context, url string) bool {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	var ready struct {
		Checks []any `json:"checks"`
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&ready) == nil && len(ready.Checks) > 0
}

func examineStore(ctx context.Context, r *doctor.Report, cfg *config.Config) {
	c := &cfg.Store.Redis
	switch {
	case c.Addrs != "":
		opt := sidecar.RedisOptions(c, slog.New(slog.DiscardHandler))
		r.Redis(ctx, doctor.Redis{Addrs: opt.Addrs, Cluster: opt.Cluster, Master: opt.Master, Prefix: opt.Prefix, Credentials: opt.Credentials, TLS: opt.TLS, Required: c.Required})
	case !cfg.RunsPages():
		return
	case cfg.Store.Dir != "":
		examineDir(r, "store.dir", cfg.Store.Dir)
	default:
		r.OK("store", "memory of the sidecar: prefixes are forgotten with the process")
	}
	if cfg.Jobs.Enabled && cfg.Jobs.Dir != "" && cfg.RunsPages() {
		examineDir(r, "jobs.dir", cfg.Jobs.Dir)
	}
}

// examineDir wants a folder that can be written.
func examineDir(r *doctor.Report, key, dir string) {
	at := dir
	for { // what is not there is made, if what is above it can be written
		if _, err := os.Stat(at); err == nil {
			break
		}
		up := filepath.Dir(at)
		if up == at {
			break
		}
		at = up
	}
	f, err := os.CreateTemp(at, ".semproxy-doctor-*")
	if err != nil {
		r.Fail(key, strings.TrimPrefix(err.Error(), "open ")+": the folder cannot be written", "give the sidecar's user the folder, or choose another")
		return
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	r.OK(key, dir)
}

func examineGPU(r *doctor.Report, cfg *config.Config) {
	if cfg.Compress.Device == config.DeviceCPU {
		r.OK("gpu", "not wanted: compress.device is cpu")
		return
	}
	g := describeGPUs()
	index, named := cfg.Compress.CUDA()
	for _, d := range g.Devices {
		if d.Usable && (!named || d.Device == fmt.Sprintf("cuda:%d", index)) {
			r.OK("gpu", d.Device+", "+d.Name)
			return
		}
		if named && d.Device == fmt.Sprintf("cuda:%d", index) {
			g.Problem = d.Problem
		}
	}
	why := g.Problem
	if why == "" {
		why = "the driver has no device that can be used"
	}
	if named {
		r.Fail("gpu", cfg.Compress.Device+" cannot be used: "+why, "semproxy gpu info; give the container the GPU, or set compress.device: auto")
		return
	}
	r.OK("gpu", "none, pages are compressed on the CPU ("+why+")")
}
