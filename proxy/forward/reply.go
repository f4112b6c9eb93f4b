package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// ownPrefix begins every header that is the proxy's own: none of a client's reaches the engine, none of the engine's the client.
const ownPrefix = "Semproxy-"

// Headers of an answer. The ratio and the fidelity are in the headers when pages were compressed before the answer began,
// else in the trailers when they were before it ended.
const (
	headerDecision = ownPrefix + "Decision"
	headerRatio    = ownPrefix + "Ratio"
	headerFidelity = ownPrefix + "Fidelity"
)

// errIdle is the cause when the engine has stopped in the middle of an answer.
var errIdle = errors.New("the engine sent nothing for too long")

// maxReply bounds what is kept of an answer to find its usage in.
const maxReply = 1 << 20

// modifyResponse prepares the engine's answer for the client.
func (p *Proxy) modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	x.status, x.headerTime = res.StatusCode, p.cfg.Now().Sub(x.sent)
	x.release()
	for name := range res.Header {
		if strings.HasPrefix(name, ownPrefix) {
			delete(res.Header, name)
		}
	}
	res.Header.Del("X-Request-Id") // it is set already
	if x.decision != nil && !p.cfg.HideDecision {
		res.Header.Set(headerDecision, decisionText(x))
		if f := p.cfg.Recent.Fidelity(x.object); f.Pages > 0 {
			x.early = true
			res.Header.Set(headerRatio, ratioText(f.Ratio))
			if f.Measured {
				res.Header.Set(headerFidelity, ratioText(1-f.AttentionError))
			}
		}
	}
	body := &watched{ReadCloser: res.Body, x: x, limit: p.cfg.IdleTimeout}
	body.timer = time.AfterFunc(p.cfg.IdleTimeout, func() { x.cancel(errIdle) })
	res.Body = body
	if x.request == nil || res.StatusCode >= http.StatusBadRequest {
		return nil
	}
	if coding := res.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return nil // what is compressed is not looked at
	}
	dialect.ReadUsageHeaders(res.Header, &x.usage)
	switch mediaType(res.Header.Get("Content-Type")) { // none is no stream
	case "text/event-stream":
		if x.hide {
			res.Header.Del("Content-Length")
			res.ContentLength = -1
		}
		res.Body = dialect.NewEvents(body, x.see)
	case "application/json":
		if p.cfg.Kind == VLLM {
			return x.whole(res, body)
		}
		res.Body = &kept{ReadCloser: body, usage: &x.usage, text: make([]byte, 0, min(max(res.ContentLength+1, 512), maxReply))}
	}
	return nil
}

// see looks at one event of a stream.
func (x *exchange) see(data []byte) (shown []byte, changed bool) {
	x.last = x.p.cfg.Now()
	x.release() // where the answer had begun before the engine had all of the body
	if x.events++; x.events == 1 {
		x.first = x.last
	}
	dialect.ReadUsage(data, &x.usage)
	if x.p.cfg.Kind == VLLM {
		data, changed = dialect.HideKV(data)
	}
	if !x.hide {
		return data, changed
	}
	shown, hidden := dialect.HideUsage(data)
	return shown, changed || hidden
}

// whole reads an answer, which engines write in one piece, before it passes, and removes what is not the client's. A very long
// one passes as it comes.
func (x *exchange) whole(res *http.Response, body io.ReadCloser) error {
	var text bytes.Buffer
	text.Grow(int(min(max(res.ContentLength, 0), maxReply)) + bytes.MinRead)
	n, err := text.ReadFrom(io.LimitReader(body, maxReply+1))
	switch {
	case err != nil && errors.Is(context.Cause(x.ctx), errIdle):
		return refuse(http.StatusGatewayTimeout, "engine.timeout", "the engine stopped in the middle of the answer")
	case err != nil && context.Cause(x.ctx) != nil:
		return errClientGone
	case err != nil:
		return refuse(http.StatusBadGateway, "engine.broken", "the engine died in the middle of the answer")
	case n > maxReply:
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&text, body), body}
		return nil
	}
	_ = body.Close() // read to its end
	dialect.ReadUsage(text.Bytes(), &x.usage)
	shown, changed := dialect.HideKV(text.Bytes())
	if changed {
		res.ContentLength = int64(len(shown))
		res.Header.Set("Content-Length", strconv.Itoa(len(shown)))
	}
	res.Body = io.NopCloser(bytes.NewReader(shown))
	return nil
}

// decisionText is what the client is told of the decision, as the parameters of a structured header.
func decisionText(x *exchange) string {
	action := "exact"
	if x.verdict.Compress {
		action = "compress"
	}
	text := append(make([]byte, 0, 128), action...)
	text = strconv.AppendQuote(append(text, "; profile="...), x.decision.Profile)
	text = strconv.AppendQuote(append(text, "; rule="...), x.decision.Rule)
	text = strconv.AppendQuote(append(text, "; gate="...), string(x.verdict.Reason))
	return string(text)
}

func ratioText(x float64) string { return strconv.FormatFloat(x, 'f', 4, 64) }

// trailers say what was known only after the answer had begun. They reach a client of HTTP/2, or of HTTP/1.1 where the
// answer came in chunks.
func (p *Proxy) trailers(x *exchange) {
	if x.decision == nil || x.early || p.cfg.HideDecision {
		return
	}
	f := p.cfg.Recent.Fidelity(x.object)
	if f.Pages == 0 {
		return
	}
	h := x.w.Header()
	h.Set(http.TrailerPrefix+headerRatio, ratioText(f.Ratio))
	if f.Measured {
		h.Set(http.TrailerPrefix+headerFidelity, ratioText(1-f.AttentionError))
	}
}

// watched is an answer's body that is given up when nothing comes for too long, and that remembers how it ended.
type watched struct {
	io.ReadCloser
	x     *exchange
	limit time.Duration
	timer *time.Timer
}

// Read is part of io.Reader.
func (b *watched) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.timer.Stop()
		if !errors.Is(err, io.EOF) {
			b.x.err = b.broken()
		}
	}
	return n, err
}

// broken says why an answer ended before its end.
func (b *watched) broken() error {
	cause := context.Cause(b.x.ctx)
	switch {
	case errors.Is(cause, errIdle):
		return refuse(b.x.status, "engine.timeout", "the engine stopped in the middle of the answer")
	case cause != nil:
		return errClientGone
	}
	return refuse(b.x.status, "engine.broken", "the engine died in the middle of the answer")
}

// Close is part of io.Closer.
func (b *watched) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}

// kept passes an answer and keeps it, up to a limit, to find its usage when it is whole.
type kept struct {
	io.ReadCloser
	usage *dialect.Usage
	text  []byte
	long  bool
}

// Read is part of io.Reader.
func (k *kept) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if k.long = k.long || len(k.text)+n > maxReply; k.long {
		k.text = nil
	} else {
		k.text = append(k.text, p[:n]...)
	}
	if errors.Is(err, io.EOF) {
		dialect.ReadUsage(k.text, k.usage)
		k.text = nil
	}
	return n, err
}
