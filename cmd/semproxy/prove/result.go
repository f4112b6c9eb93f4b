package prove

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// Codes of what "semproxy prove" finds; they are stable.
const (
	codeProveUnreachable = "prove.unreachable"
	codeProveRefused     = "prove.refused"
	codeProveIntegrity   = "prove.integrity"
	codeProveRatio       = "prove.ratio"
	codeProveError       = "prove.attention_error"
	codeProveLatency     = "prove.latency"
	codeProveStore       = "prove.store"
)

// Proof is what "semproxy prove" found; its JSON form is stable. Times are in seconds.
type Proof struct {
	OK       bool           `json:"ok"`
	Failures []proofFailure `json:"failures"`

	Tenant string `json:"tenant"`
	Server string `json:"server"` // without who logs in
	Page   string `json:"page"`
	Model  string `json:"model"`

	Waited  float64 `json:"waited"` // until the sidecar answered
	Device  string  `json:"device"`
	Profile string  `json:"profile"`
	Rule    string  `json:"rule"`
	Reason  string  `json:"reason"`
	Outcome string  `json:"outcome"` // compressed or exact
	Guard   string  `json:"guard"`

	Pages    int     `json:"pages"` // sent and answered
	Tokens   int     `json:"tokens"`
	BytesIn  int     `json:"bytes_in"`
	BytesOut int     `json:"bytes_out"`
	Ratio    float64 `json:"ratio"` // cores per token, mean over pages
	MaxRatio float64 `json:"max_ratio"`

	AttentionError *float64 `json:"attention_error"` // computed here, mean over pages; null: the page carries no queries
	WorstError     *float64 `json:"worst_error"`     // of the worst head of all pages
	MaxError       float64  `json:"max_error"`

	LatencyP50 float64 `json:"latency_p50"`
	LatencyMax float64 `json:"latency_max"`
	MaxLatency float64 `json:"max_latency"`
	StoredP50  float64 `json:"stored_p50"` // of pages sent again; 0: nothing is stored

	page         *page.Page
	times, again []time.Duration
}

type proofFailure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (p *Proof) fail(code, format string, args ...any) {
	p.Failures = append(p.Failures, proofFailure{code, fmt.Sprintf(format, args...)})
}

// error is nil where everything holds.
func (p *Proof) error() error {
	faults := make([]error, 0, len(p.Failures))
	for _, f := range p.Failures {
		faults = append(faults, fmt.Errorf("%s: %s", f.Code, f.Message))
	}
	return errors.Join(faults...)
}

// make sends the pages and takes in what comes back. An error is the sidecar's refusal.
func (p *Proof) make(ctx context.Context, target *proofTarget, rounds int, progress io.Writer) error {
	began := time.Now()
	s, err := target.await(ctx, progress)
	p.Waited = time.Since(began).Seconds()
	if err != nil {
		if ctx.Err() == nil {
			return err
		}
		p.fail(codeProveUnreachable, "no sidecar answered tenant %s at %s within %s: %s", p.Tenant, p.Server, show.Duration(time.Since(began)), err)
		return nil
	}
	defer s.close()
	p.Device = s.state.Device
	c := compress.New(0)
	defer c.Close()
	for range rounds {
		pages, err := fresh(p.page, s.most)
		if err != nil {
			return err
		}
		for _, one := range pages {
			if err := p.exchange(ctx, s, c, one); err != nil {
				if ctx.Err() == nil {
					return err
				}
				p.fail(codeProveUnreachable, "the time was up after %d pages: %s", p.Pages, err)
				return nil
			}
		}
	}
	return nil
}

// exchange sends one page, checks its cores, and sends it again.
func (p *Proof) exchange(ctx context.Context, s *session, c *compress.Compressor, sent *page.Page) error {
	blob, err := sent.Append(nil)
	if err != nil {
		return err
	}
	reply, err := s.Compress(ctx, blob)
	if err != nil {
		return err
	}
	p.Pages++
	p.Tokens += sent.Tokens
	p.times = append(p.times, reply.Duration)
	p.BytesIn += len(blob)
	p.BytesOut += len(reply.Body)
	cores, err := page.DecodeCores(reply.Body, page.DefaultLimits()) // the counts of every head are checked here
	if err == nil {
		err = Belongs(sent, cores)
	}
	if err != nil {
		p.fail(codeProveIntegrity, "page %d: %s", p.Pages, err)
		return nil
	}
	p.Ratio += cores.Ratio
	p.Device, p.Profile, p.Rule, p.Guard = cores.Engine, cores.Policy, cores.Rule, cores.Fidelity["guard"]
	p.Outcome, p.Reason = reply.Header.Get(sidecar.HeaderOutcome), reply.Header.Get(sidecar.HeaderReason)
	if sent.Q != nil {
		if err := p.remeasure(ctx, c, sent, cores); err != nil {
			return err
		}
	}
	if p.Outcome != semconv.OutcomeCompressed {
		return nil
	}
	reply, err = s.Compress(ctx, blob)
	if err != nil {
		return err
	}
	p.again = append(p.again, reply.Duration)
	second, err := page.DecodeCores(reply.Body, page.DefaultLimits())
	switch {
	case err != nil:
		p.fail(codeProveIntegrity, "page %d sent again: %s", p.Pages, err)
	case reply.Header.Get(sidecar.HeaderOutcome) != semconv.OutcomeStored:
		p.fail(codeProveStore, "page %d sent again was %s, not answered from the store", p.Pages, reply.Header.Get(sidecar.HeaderOutcome))
	case !bytes.Equal(second.K, cores.K) || !bytes.Equal(second.V, cores.V) || !bytes.Equal(second.Counts, cores.Counts) || !bytes.Equal(second.Bias, cores.Bias):
		p.fail(codeProveStore, "page %d sent again was answered with other cores", p.Pages)
	}
	return nil
}

// judge holds the means against the limits.
func (p *Proof) judge() {
	n := float64(p.Pages)
	p.Ratio /= n
	p.LatencyP50, p.LatencyMax = show.Quantile(p.times, 0.5).Seconds(), show.Quantile(p.times, 1).Seconds()
	if len(p.again) > 0 {
		p.StoredP50 = show.Quantile(p.again, 0.5).Seconds()
	}
	if p.Ratio > p.MaxRatio {
		hint := ""
		if p.Outcome == semconv.OutcomeExact {
			hint = fmt.Sprintf("; nothing was compressed (profile %s by %s: %s). Give the tenant a policy that compresses, or --max-ratio 1 where this is meant",
				p.Profile, p.Rule, p.Reason)
		}
		p.fail(codeProveRatio, "%.4f cores per token were kept, the most is %.4f%s", p.Ratio, p.MaxRatio, hint)
	}
	switch {
	case p.AttentionError == nil && p.MaxError > 0:
		p.fail(codeProveError, "the page carries no queries, so nothing can be measured: send another, or give --max-error 0")
	case p.AttentionError == nil:
	default:
		if *p.AttentionError /= n; p.MaxError > 0 && *p.AttentionError > p.MaxError {
			p.fail(codeProveError, "the attention error is %.4f, the most is %.4f", *p.AttentionError, p.MaxError)
		}
	}
	if p.MaxLatency > 0 && p.LatencyMax > p.MaxLatency {
		p.fail(codeProveLatency, "a page took %s, the most is %s", show.Duration(seconds(p.LatencyMax)), show.Duration(seconds(p.MaxLatency)))
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (p *Proof) writeText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("tenant", "%s at %s", p.Tenant, p.Server)
	if p.Device == "" && p.Pages == 0 {
		row("sidecar", "no answer in %s", show.Duration(seconds(p.Waited)))
	} else {
		row("sidecar", "answered after %s", show.Duration(seconds(p.Waited)))
	}
	if p.Pages > 0 {
		row("pages", "%d of %s (%s), %d tokens", p.Pages, p.Page, p.Model, p.Tokens)
		row("decision", "%s by %s (profile %s, guard %s)", p.Outcome, p.Rule, p.Profile, p.Guard)
		row("device", "%s", p.Device)
	}
	if p.LatencyMax > 0 { // judged
		row("ratio", "%.4f (at most %.4f)", p.Ratio, p.MaxRatio)
		row("bytes", "%s -> %s (%.1f %%)", show.Size(p.BytesIn), show.Size(p.BytesOut), 100*float64(p.BytesOut)/float64(p.BytesIn))
		if p.AttentionError != nil {
			row("attention error", "%.4f, worst head %.4f (%s)", *p.AttentionError, *p.WorstError, atMost(p.MaxError, fmt.Sprintf("%.4f", p.MaxError)))
		}
		row("latency", "p50 %s, max %s (%s)", show.Duration(seconds(p.LatencyP50)), show.Duration(seconds(p.LatencyMax)), atMost(p.MaxLatency, show.Duration(seconds(p.MaxLatency))))
		if p.StoredP50 > 0 {
			row("sent again", "from the store with the same cores, p50 %s", show.Duration(seconds(p.StoredP50)))
		}
		row("integrity", "counts sum to the tokens, biases are their logarithms, tokens kept alone have their keys")
	}
	verdict := "proved"
	if !p.OK {
		codes := make([]string, 0, len(p.Failures))
		for _, f := range p.Failures {
			codes = append(codes, f.Code)
		}
		verdict = "FAILED: " + strings.Join(codes, ", ")
	}
	row("result", "%s", verdict)
	return t.Flush()
}

func atMost(limit float64, text string) string {
	if limit == 0 {
		return "no limit"
	}
	return "at most " + text
}
