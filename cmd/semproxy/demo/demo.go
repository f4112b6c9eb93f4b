// Package demo is the command "semproxy demo": a whole sidecar in this process, and three tenants that send it the pages of real prompts.
package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/eval/embedded"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/studio"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// demoTenants are the tenants of configs/policies/demo.yaml, and how each sends: a whole model per page, or a layer at a
// time as engines with large models do. variant names the part of the expected files that the tenant's policy gives.
var demoTenants = []demoTenant{
	{name: "acme", whole: true, variant: "r500_model"},
	{name: "globex", whole: true, variant: "r250_rec"},
	{name: "initech", variant: "r500_paper"},
}

type demoTenant struct {
	name, variant string
	whole         bool
}

// NewCommand is "semproxy demo" of this version.
func NewCommand(version string) *cobra.Command {
	var keep bool
	var colour string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything in this process on real pages and show what it did",
		Long: `Start an embedded NATS server, the sidecar and its store on free loopback ports, send real KV pages of a trained
model as three tenants with three policies, and print what each of them got: how much smaller, how close, how fast.
Nothing outside this process is needed or touched.`,
		Example: "  semproxy demo\n  semproxy demo --keep    # stay up: send your own pages, look at /metrics",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), version, cmd.OutOrStdout(), cmd.ErrOrStderr(), keep, show.Coloured(cmd.OutOrStdout(), colour))
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "stay up until interrupted")
	cmd.Flags().Var(&show.Choice{Value: show.OrAuto(&colour), Of: []string{"auto", "always", "never"}}, "color", "auto, always or never")
	return cmd
}

func runDemo(ctx context.Context, version string, stdout, stderr io.Writer, keep, colour bool) error {
	set, err := policy.Compile(policy.Source{Name: "configs/policies/demo.yaml", Data: policies.Demo})
	if err != nil {
		return err
	}
	cfg := config.Default()
	cfg.NATS.Embedded.Listen, cfg.Admin.Listen, cfg.Telemetry.LogLevel = "127.0.0.1:0", "127.0.0.1:0", "error"
	cfg.Store.Dir, err = os.MkdirTemp("", "semproxy-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(cfg.Store.Dir) }()
	users := make([]transport.User, len(demoTenants))
	for i, t := range demoTenants {
		users[i] = transport.User{Tenant: t.name, Name: t.name, Password: rand.Text()}
	}
	spans := tracetest.NewSpanRecorder()
	s, err := sidecar.Start(ctx, &cfg, sidecar.Options{Version: version, Text: embedded.Page, TextChars: embedded.MaxChars, Policy: set, Users: users, LogOutput: stderr, Spans: []sdktrace.SpanProcessor{spans}})
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(stop) }()

	err = demonstrate(ctx, stdout, s, users, spans, colour)
	if err == nil && keep {
		err = invite(ctx, stdout, s, cfg.Store.Dir, users)
	}
	cancel()
	if stopErr := <-stopped; err == nil {
		err = stopErr
	}
	return err
}

// demonstrate sends the pages and prints what came back.
func demonstrate(ctx context.Context, w io.Writer, s *sidecar.Sidecar, users []transport.User, spans *tracetest.SpanRecorder, colour bool) error {
	vocabulary, err := studio.Vocabulary()
	if err != nil {
		return err
	}
	start := time.Now()
	fmt.Fprintf(w, "semproxy demo: three tenants send the KV pages of %d real prompts through NATS at %s to %s\n\n",
		len(configs.Pages()), s.NATSURL(), s.Device())
	results := make([]*demoResult, len(demoTenants))
	for i, t := range demoTenants {
		if results[i], err = t.send(ctx, s, users[i]); err != nil {
			return fmt.Errorf("tenant %s: %w", t.name, err)
		}
	}
	if err := writeDemoTable(w, results); err != nil {
		return err
	}
	acme := results[0]
	writeTrace(w, spans.Ended(), acme.traceID, "one page of "+acme.tenant.name)
	writeStrip(w, acme.sample, acme.sampleCores, vocabulary, colour)
	fmt.Fprintf(w, "\n%d pages in %s. Every head's counts sum to the tokens given.\n", total(results), show.Duration(time.Since(start)))
	for _, r := range results {
		if r.wrong > 0 {
			return fmt.Errorf("%d pages of %s differ from the reference", r.wrong, r.tenant.name)
		}
	}
	return nil
}

// send is one tenant's run: every prompt, then every prompt again.
func (t demoTenant) send(ctx context.Context, s *sidecar.Sidecar, user transport.User) (*demoResult, error) {
	conn, err := nats.Connect(s.NATSURL(), nats.UserInfo(user.Name, user.Password), nats.CustomInboxPrefix(transport.InboxPrefix(t.name)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, err := client.New(conn, client.Options{Tenant: t.name, TracerProvider: s.TracerProvider()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	result := &demoResult{tenant: t, sampleCores: nil}
	for round := range 2 {
		for _, name := range configs.Pages() {
			blob, err := fs.ReadFile(configs.Demo(), name+".page.safetensors")
			if err != nil {
				return nil, err
			}
			whole, err := page.Decode(blob, page.DefaultLimits())
			if err != nil {
				return nil, err
			}
			want, err := expectedLabels(name, t.variant)
			if err != nil {
				return nil, err
			}
			for _, p := range t.cut(whole) {
				if err := result.exchange(ctx, c, p, want, round > 0); err != nil {
					return nil, fmt.Errorf("page %s: %w", name, err)
				}
			}
		}
	}
	return result, nil
}

// cut makes the pages that the tenant sends of a whole one.
func (t demoTenant) cut(whole *page.Page) []*page.Page {
	if t.whole {
		return []*page.Page{whole}
	}
	return byLayer(whole)
}

// byLayer cuts a page into one per layer.
func byLayer(whole *page.Page) []*page.Page {
	pages := make([]*page.Page, whole.Layers)
	for l := range pages {
		p := *whole
		part := func(b []byte) []byte { n := len(b) / whole.Layers; return b[l*n : (l+1)*n] }
		p.Layers, p.LayerFirst, p.Page, p.Pages = 1, whole.LayerFirst+l, l, whole.Layers
		p.K, p.V, p.Q = part(whole.K), part(whole.V), part(whole.Q)
		p.KScale, p.VScale = part(whole.KScale), part(whole.VScale)
		pages[l] = &p
	}
	return pages
}

func total(rs []*demoResult) (n int) {
	for _, r := range rs {
		n += r.pages + r.again
	}
	return n
}

// invite says how to send more, and waits.
func invite(ctx context.Context, w io.Writer, s *sidecar.Sidecar, dir string, users []transport.User) error {
	file, err := os.CreateTemp(dir, "users-*.txt") // mode 0600, removed with the folder
	if err != nil {
		return err
	}
	for _, u := range users {
		fmt.Fprintf(file, "%s %s\n", u.Name, u.Password)
	}
	if err := file.Close(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nStaying up; Ctrl-C ends it. Look at it in a browser: %s/console/\nNATS %s (users and passwords in %s), metrics %s/metrics. Look into a page: semproxy inspect p1 --admin %s\n",
		s.AdminURL(), s.NATSURL(), file.Name(), s.AdminURL(), s.AdminURL())
	<-ctx.Done()
	return nil
}
