// Package prove is the command "semproxy prove": real pages through a running sidecar, and attacks of one tenant on another, each held
// against what must come back.
package prove

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport/page"
)

// proveFlags are the flags of "semproxy prove".
type proveFlags struct {
	tenant, page, model string
	rounds              int
	maxRatio, maxError  float64
	maxLatency, timeout time.Duration
	output              string
	engine              engineFlags
	tenancy             string // tenant that attacks; empty: none does
	attackerURL         string
	attackerCreds       string
	attackerNKey        string
}

// NewCommand is "semproxy prove".
func NewCommand() *cobra.Command {
	var f proveFlags
	cmd := &cobra.Command{
		Use:   "prove",
		Short: "Send a real page through an installed sidecar and hold the answer against limits",
		Long: `Send KV pages of a trained model to a running sidecar over NATS, as an engine of one tenant would, and check what comes
back: the ratio, the attention error (computed here from the page and the cores; the sidecar's word for it must agree), the
time, that nothing is lost (counts sum to the tokens, biases are their logarithms, tokens kept alone have their keys bit for
bit, protected ones their values too), and that the same page sent again is answered from the store with the same cores.

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

Every run sends pages that the store has not seen (one token id differs). They stay there as the tenant's policy says.

With --engine and --prompts it asks the operator's own prompts instead, of the engine behind semproxy's proxy: greedily, exactly
(Semproxy-Compress: off) and on cores, and tells what changed: answers, first differing token, log probabilities, the task's
score where right answers are given, time to first token, tokens per second, slots. The verdict of each tenant's profile is holds, fails
or no answer; it exits with 1 and prove.fails or prove.no_answer where it does not hold. A line of the file is
{"prompt": "..."} or {"messages": [...]}, and may have "answer" (a text or several, one of which a right answer contains),
"id", "max_tokens" and "headers". The first request of a prompt stores its cores, the next is measured; both are in prefix caches of
their own. What it asks counts against the tenant's limits, and what it stores stays as its policy says.

With --tenancy OTHER it has the tenant OTHER attack the tenant of --tenant instead, with credentials of both, and prints a verdict per
attack: whether OTHER can read, hear, take or learn of anything of --tenant's. It exits with 1 and prove.tenancy when one attack
succeeds. OTHER's credentials are --attacker-creds-file, --attacker-nkey-file or those in --attacker-url; with
--nats-embedded-users-file they are looked up there.`,
		Example: `  semproxy prove --tenant acme --nats-url nats://nats:4222 --nats-creds-file acme.creds
  semproxy prove --tenant acme --max-ratio 0.55 --max-error 0.3 --max-latency 250ms --json
  semproxy prove --engine http://127.0.0.1:8080 --prompts own.jsonl --key acme=acme.key --html own.html > own.md
  semproxy prove --tenant acme --nats-creds-file acme.creds --tenancy globex --attacker-creds-file globex.creds --nats-url nats://nats:4222`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.engine.url != "":
				return f.engine.run(cmd, f.output)
			case f.tenant == "":
				return errors.New("--tenant is required, or --engine and --prompts")
			}
			return f.run(cmd)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.tenant, "tenant", "", "tenant to speak as (required without --engine)")
	fl.StringVar(&f.page, "page", configs.Pages()[0], "page to send: one of "+strings.Join(configs.Pages(), ", ")+", or a file")
	fl.StringVar(&f.model, "model", "", "name of the model that the page is said to be of, as policies match it (default the page's own)")
	fl.IntVar(&f.rounds, "rounds", 5, "how often the page is sent")
	fl.Float64Var(&f.maxRatio, "max-ratio", 0.9, "most cores per token, in (0, 1]; 1 allows a policy that compresses nothing")
	fl.Float64Var(&f.maxError, "max-error", 0.5, "largest attention error, relative; 0: no limit")
	fl.DurationVar(&f.maxLatency, "max-latency", 0, "longest time from a page to its cores; 0: no limit")
	fl.DurationVar(&f.timeout, "timeout", 2*time.Minute, "for everything, the wait for the sidecar included")
	show.Flag(cmd, &f.output)
	show.Complete(cmd, "page", configs.Pages())
	show.JSONFlag(cmd, &f.output)
	fl.StringVar(&f.tenancy, "tenancy", "", "tenant that attacks the one of --tenant")
	fl.StringVar(&f.attackerURL, "attacker-url", "", "where the attacking tenant connects (default --nats-url)")
	fl.StringVar(&f.attackerCreds, "attacker-creds-file", "", "its credentials file")
	fl.StringVar(&f.attackerNKey, "attacker-nkey-file", "", "its nkey seed")
	config.RegisterFlags(fl, "nats.url", "nats.credsFile", "nats.nkeyFile", "nats.tls.", "nats.embedded.usersFile")
	f.engine.register(fl)
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
	if f.tenancy != "" {
		attacker, err := f.attacker(&loaded.Config)
		if err != nil {
			return err
		}
		return proveTenancy(ctx, target, attacker, whole, cmd.OutOrStdout(), cmd.ErrOrStderr(), f.output)
	}
	p := &Proof{Tenant: f.tenant, Server: target.shown, Page: filepath.Base(f.page), Model: whole.Model, MaxRatio: f.maxRatio, MaxError: f.maxError,
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
	if err := show.As(cmd.OutOrStdout(), f.output, p, p.writeText); err != nil {
		return err
	}
	return p.error()
}

// attacker is how the attacking tenant connects.
func (f *proveFlags) attacker(cfg *config.Config) (*proofTarget, error) {
	if f.tenancy == f.tenant {
		return nil, errors.New("--tenancy must name another tenant than --tenant")
	}
	own := *cfg
	if f.attackerURL != "" {
		own.NATS.URL = f.attackerURL
	}
	own.NATS.CredsFile, own.NATS.NKeyFile = f.attackerCreds, f.attackerNKey
	return proveTarget(&own, f.tenancy)
}

// load reads the page that is to be sent.
func (f *proveFlags) load() (*page.Page, error) {
	var blob []byte
	var err error
	if slices.Contains(configs.Pages(), f.page) {
		blob, err = fs.ReadFile(configs.Demo(), f.page+".page.safetensors")
	} else {
		blob, err = page.ReadFile(f.page)
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
// that is more than the sidecar takes, in pieces.
func fresh(whole *page.Page, most int64) ([]*page.Page, error) {
	p := *whole
	ids := make([]int64, p.Tokens)
	for i := range ids {
		ids[i] = p.TokenIDs.At(i)
	}
	ids[0] = rand.Int64N(1 << 31)
	p.TokenIDs, p.Sequence = page.Ints64Of(ids), fmt.Sprintf("prove-%08x", rand.Uint32())
	return p.Split(most)
}
