package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/config"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/transport/page"
)

// proveFlags are the flags of "semproxy prove".
type proveFlags struct {
	tenant, page, model string
	rounds              int
	maxRatio, maxError  float64
	maxLatency, timeout time.Duration
	asJSON              bool
}

func newProveCommand() *cobra.Command {
	var f proveFlags
	cmd := &cobra.Command{
		Use:   "prove",
		Short: "Send a real page through an installed sidecar and hold the answer against limits",
		Long: `Send KV pages of a trained model to a running sidecar over NATS, as an engine of one tenant would, and check what comes
back: the ratio, the attention error (computed here from the page and the cores; the sidecar's word for it must agree), the
time, that nothing is lost (counts sum to the tokens, biases are their logarithms, tokens kept alone are unchanged bit for
bit), and that the same page sent again is answered from the store with the same cores.

It waits for the sidecar until --timeout. Where a limit does not hold, or the sidecar does not answer, it exits with 1 and
says why, with a code:

  prove.unreachable      no sidecar answered in time
  prove.refused          the sidecar refused the page; the sidecar's own code follows
  prove.integrity        the cores are not those of the page, or something was lost
  prove.ratio            more was kept than --max-ratio allows
  prove.attention_error  more was lost than --max-error allows, or it was not measured
  prove.latency          a page took longer than --max-latency
  prove.store            the page sent again was not answered from the store

Where to connect is said as for serve: --nats-url and its credentials, SEMPROXY_NATS_URL and so on, or --config. They are
those of the tenant, not of the sidecar. Without a URL it is the server that a sidecar of this machine runs. Where
that server has users, give --nats-embedded-users-file: the tenant's user is looked up in it.

Every run sends pages that the store has not seen (one token id differs). They stay there as the tenant's policy says.`,
		Example: `  semproxy prove --tenant acme --nats-url nats://nats:4222 --nats-creds-file acme.creds
  semproxy prove --tenant acme --max-ratio 0.55 --max-error 0.3 --max-latency 250ms --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.tenant, "tenant", "", "tenant to speak as (required)")
	fl.StringVar(&f.page, "page", configs.Pages()[0], "page to send: one of "+strings.Join(configs.Pages(), ", ")+", or a file")
	fl.StringVar(&f.model, "model", "", "name of the model that the page is said to be of, as policies match it (default the page's own)")
	fl.IntVar(&f.rounds, "rounds", 5, "how often the page is sent")
	fl.Float64Var(&f.maxRatio, "max-ratio", 0.9, "most cores per token, in (0, 1]; 1 allows a policy that compresses nothing")
	fl.Float64Var(&f.maxError, "max-error", 0.5, "largest attention error, relative; 0: no limit")
	fl.DurationVar(&f.maxLatency, "max-latency", 0, "longest time from a page to its cores; 0: no limit")
	fl.DurationVar(&f.timeout, "timeout", 2*time.Minute, "for everything, the wait for the sidecar included")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	config.RegisterFlags(fl, "nats.url", "nats.credsFile", "nats.nkeyFile", "nats.tls.", "nats.embedded.usersFile")
	_ = cmd.MarkFlagRequired("tenant")
	return cmd
}

func (f *proveFlags) check() error {
	switch {
	case f.rounds < 1 || f.rounds > 1000:
		return fmt.Errorf("--rounds must be from 1 to 1000, got %d", f.rounds)
	case !(f.maxRatio > 0 && f.maxRatio <= 1): // NaN too
		return fmt.Errorf("--max-ratio must be in (0, 1], got %v", f.maxRatio)
	case !(f.maxError >= 0):
		return fmt.Errorf("--max-error must not be negative, got %v", f.maxError)
	case f.maxLatency < 0 || f.timeout <= 0:
		return errors.New("--max-latency must not be negative, and --timeout must be positive")
	}
	return nil
}

func (f *proveFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	whole, err := f.load()
	if err != nil {
		return err
	}
	target, err := proveTarget(&loaded.Config, f.tenant)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	p := &proof{Tenant: f.tenant, Server: target.shown, Page: filepath.Base(f.page), Model: whole.Model, MaxRatio: f.maxRatio, MaxError: f.maxError,
		MaxLatency: f.maxLatency.Seconds(), page: whole}
	err = p.make(ctx, target, f.rounds, cmd.ErrOrStderr())
	if cmd.Context().Err() != nil {
		return cmd.Context().Err()
	}
	if err != nil {
		p.fail(codeProveRefused, "%s", err)
	} else if len(p.Failures) == 0 {
		p.judge()
	}
	p.OK = len(p.Failures) == 0
	if err := p.write(cmd.OutOrStdout(), f.asJSON); err != nil {
		return err
	}
	return p.error()
}

// load reads the page that is to be sent.
func (f *proveFlags) load() (*page.Page, error) {
	var blob []byte
	var err error
	if slices.Contains(configs.Pages(), f.page) {
		blob, err = fs.ReadFile(configs.Demo(), f.page+".page.safetensors")
	} else {
		blob, err = readPage(f.page)
	}
	if err != nil {
		return nil, fmt.Errorf("--page must be one of %s, or a file: %w", strings.Join(configs.Pages(), ", "), err)
	}
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		return nil, fmt.Errorf("--page %s: %s: %w", f.page, pipeline.CodeOf(err), err)
	}
	if f.model != "" {
		p.Model = f.model
	}
	return p, nil
}

// fresh makes the pages of one round: the same keys, values and queries, under ids that no store has seen, whole or, where
// that does not fit a message, a layer at a time.
func fresh(whole *page.Page, maxPayload int64) ([]*page.Page, error) {
	p := *whole
	ids := make([]int64, p.Tokens)
	for i := range ids {
		ids[i] = p.TokenIDs.At(i)
	}
	ids[0] = rand.Int64N(1 << 31)
	p.TokenIDs, p.Sequence = page.Ints64Of(ids), fmt.Sprintf("prove-%08x", rand.Uint32())
	blob, err := p.Append(nil)
	if err != nil {
		return nil, err
	}
	if int64(len(blob)) <= maxPayload || p.Layers == 1 {
		return []*page.Page{&p}, nil
	}
	return byLayer(&p), nil
}

// write tells the result to a person or a program.
func (p *proof) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(p)
	}
	return p.writeText(w)
}
