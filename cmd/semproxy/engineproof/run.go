package engineproof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Tenant is whom to ask as.
type Tenant struct {
	Name string
	Key  string // API key; empty: none is sent
}

// Config says what to ask, and where.
type Config struct {
	Engine    *url.URL // semproxy's proxy
	Tenants   []Tenant
	Model     string // empty: the engine's first
	Prompts   []Prompt
	MaxTokens int  // of an answer, where a prompt does not say
	Salt      bool // ask in prefix caches of their own, by cache_salt

	Attempts  int           // of one request that fails
	Pause     time.Duration // before the second one
	Settle    time.Duration // for an adapter to store what it has computed
	Timeout   time.Duration // of one request
	Transport http.RoundTripper

	Limits Limits
	// Progress is told of each prompt; nil: nobody is.
	Progress func(done, total int, what string)
}

// Case is one prompt, asked both ways.
type Case struct {
	Tenant  string  `json:"tenant"`
	Profile string  `json:"profile"`
	Prompt  string  `json:"prompt"` // its id
	Exact   *Answer `json:"exact"`
	Again   *Answer `json:"again"` // exactly, a second time
	Cores   *Answer `json:"cores"`
	Error   string  `json:"error,omitempty"` // why there is no comparison

	Differs  Difference `json:"differs"`  // cores from exact
	Repeats  Difference `json:"repeats"`  // exact from exact
	HasTask  bool       `json:"has_task"` // right answers are given
	RightOff bool       `json:"right_exact"`
	RightOn  bool       `json:"right_cores"`
}

// compared reports whether the case says something of cores.
func (c *Case) compared() bool { return c.Error == "" && c.Cores != nil && c.Cores.OnCores() }

// measureTries is how often a request is asked on cores, where the gate leaves one exact to measure by.
const measureTries = 4

// Run asks everything, one request at a time. An error is one that ends it: nothing could be asked at all, or ctx ended. A prompt
// that fails is in its case.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &Report{Engine: cfg.Engine.Redacted(), Prompts: len(cfg.Prompts), Limits: cfg.Limits, Began: time.Now().UTC()}
	total, done := len(cfg.Prompts)*len(cfg.Tenants), 0
	for _, t := range cfg.Tenants {
		c := &client{
			base: cfg.Engine, key: t.Key, model: cfg.Model, attempts: max(1, cfg.Attempts), pause: cfg.Pause, salt: cfg.Salt, logprobs: true,
			http: &http.Client{Transport: cfg.Transport, Timeout: cfg.Timeout},
		}
		if c.model == "" {
			model, err := c.findModel(ctx)
			if err != nil {
				return nil, fmt.Errorf("prove.unreachable: tenant %s: %w", t.Name, err)
			}
			c.model = model
		}
		r.Model = c.model
		for i := range cfg.Prompts {
			if cfg.Progress != nil {
				cfg.Progress(done, total, t.Name+": prompt "+cfg.Prompts[i].ID)
			}
			one := cfg.prove(ctx, c, &cfg.Prompts[i])
			one.Tenant = t.Name
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			r.Cases = append(r.Cases, one)
			done++
		}
	}
	if cfg.Progress != nil {
		cfg.Progress(total, total, "")
	}
	r.judge()
	return r, nil
}

func (cfg *Config) prove(ctx context.Context, c *client, p *Prompt) (out Case) {
	out = Case{Prompt: p.ID, HasTask: len(p.Answer) > 0}
	tokens := p.MaxTokens
	if tokens == 0 {
		tokens = cfg.MaxTokens
	}
	nonce := fmt.Sprintf("prove-%016x-", rand.Uint64())
	fail := func(what string, err error) Case {
		out.Error = what + ": " + err.Error()
		return out
	}
	var err error
	if out.Exact, err = c.ask(ctx, p, tokens, "off", nonce+"exact"); err != nil {
		return fail("exactly", err)
	}
	if out.Exact.Decision == "" {
		return fail("exactly", errors.New("the answer has no Semproxy-Decision header: is --engine the address of semproxy's proxy, and proxy.headers on?"))
	}
	if out.Again, err = c.ask(ctx, p, tokens, "off", nonce+"again"); err != nil {
		return fail("exactly, again", err)
	}
	// What an adapter stores when a request has ended serves the next one with the same beginning.
	if out.Cores, err = c.ask(ctx, p, tokens, "on", nonce+"store"); err != nil {
		return fail("to be stored", err)
	}
	out.Profile = out.Cores.Profile
	for try := range measureTries {
		if try > 0 && out.Cores.Decision != "compress" && !slices.Contains([]string{"baseline", "learning", "probe"}, out.Cores.Gate) {
			break // nothing changes by asking again
		}
		wait := time.NewTimer(cfg.Settle)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fail("on cores", ctx.Err())
		}
		if out.Cores, err = c.ask(ctx, p, tokens, "on", fmt.Sprint(nonce, try)); err != nil {
			return fail("on cores", err)
		}
		if out.Cores.OnCores() {
			break
		}
	}
	out.Differs, out.Repeats = Compare(out.Exact, out.Cores), Compare(out.Exact, out.Again)
	out.RightOff, out.RightOn = p.right(out.Exact.Text), p.right(out.Cores.Text)
	return out
}
