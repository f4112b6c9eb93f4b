package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/semproxy/semproxy/codes"
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

// maxReply bounds an answer that is read whole before it passes; a longer one is looked at as it passes.
const maxReply = 1 << 20

// modifyResponse prepares the engine's answer for the client.
func (p *Proxy) modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	x.status, x.headerTime = res.StatusCode, p.cfg.Now().Sub(x.sent)
	x.release()
	for name := range res.Header {
		if strings.HasPrefix(name, ownPrefix) || dialect.PrivateHeader(name) && !x.relay {
			delete(res.Header, name)
		}
	}
	res.Header.Del("X-Request-Id") // it is set already
	if x.decision != nil && !p.cfg.HideDecision {
		res.Header.Set(headerDecision, decisionText(x, p.cfg.Recent.AdapterSeen(x.request.Model)))
		if f := p.cfg.Recent.Fidelity(x.object); f.Pages > 0 {
			x.early = true
			res.Header.Set(headerRatio, ratioText(f.Ratio))
			if f.Measured {
				res.Header.Set(headerFidelity, ratioText(1-f.AttentionError))
			}
		}
	}
	p.cors(x, res)
	body := &watched{ReadCloser: res.Body, x: x, limit: p.cfg.IdleTimeout}
	body.timer = time.AfterFunc(p.cfg.IdleTimeout, func() { x.cancel(errIdle) })
	res.Body = body
	if res.Request.Method == http.MethodHead || x.route.Pattern == "/metrics" {
		return nil
	}
	read := io.ReadCloser(body)
	switch coding := strings.ToLower(strings.Join(res.Header.Values("Content-Encoding"), ",")); coding {
	case "", "identity":
	case "gzip", "x-gzip": // though it was not asked for
		res.Header.Del("Content-Encoding")
		res.Header.Del("Content-Length")
		res.ContentLength = -1
		read = &unzipped{ReadCloser: body}
	default:
		return refuse(http.StatusBadGateway, codes.EngineEncoding, "the engine compressed its answer in a way that cannot be read, though it was asked not to")
	}
	dialect.ReadUsageHeaders(res.Header, &x.usage)
	if said := res.Header.Get("Metadata"); said != "" && x.route.Kind == dialect.Embed { // vLLM's, where the answer is numbers as bytes
		x.answer.Whole([]byte(said))
	}
	switch kind := mediaType(res.Header.Get("Content-Type")); {
	case kind == "text/event-stream":
		res.Header.Del("Content-Length") // something may be removed
		res.ContentLength = -1
		res.Body = dialect.NewEvents(read, x)
		return nil
	case strings.HasSuffix(kind, "ndjson"), strings.HasSuffix(kind, "jsonl"), strings.HasSuffix(kind, "json-seq"): // one value after the other
		x.look(res, read, nil)
		return nil
	case kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "text/json":
		return x.whole(res, read, nil)
	}
	return x.unknown(res, read)
}

// unzipped is an answer that the engine has compressed.
type unzipped struct {
	io.ReadCloser
	zip *gzip.Reader
}

// Read is part of io.Reader.
func (u *unzipped) Read(p []byte) (int, error) {
	if u.zip == nil {
		zip, err := gzip.NewReader(u.ReadCloser)
		if err != nil {
			return 0, err
		}
		u.zip = zip
	}
	return u.zip.Read(p)
}

// Event is part of dialect.Seer: it looks at one event of a stream.
func (x *exchange) Event(data []byte) (shown []byte, changed bool) {
	x.passes()
	shown, changed = x.answer.Event(data)
	x.keep()
	return shown, changed
}

// Begin is part of dialect.Seer.
func (x *exchange) Begin() {
	x.passes()
	x.answer.Begin()
}

// Pass is part of dialect.Seer.
func (x *exchange) Pass(p []byte) []byte {
	shown := x.answer.Pass(p)
	x.keep()
	return shown
}

// passes notes an event's time.
func (x *exchange) passes() {
	x.last = x.p.cfg.Now()
	x.release() // where the answer had begun before the engine had all of the body
	if x.events++; x.events == 1 {
		x.first = x.last
	}
}

// unknown is an answer that says to be neither JSON nor events, and may be either all the same.
func (x *exchange) unknown(res *http.Response, body io.ReadCloser) error {
	first := make([]byte, 0, 512)
	begins := first
	for begun := false; !begun && len(first) < cap(first); {
		n, err := body.Read(first[len(first):cap(first)])
		if err != nil && !errors.Is(err, io.EOF) {
			return x.brokeOff()
		}
		first = first[:len(first)+n]
		if begins, begun = beginning(first); err != nil {
			break
		}
	}
	switch {
	case len(begins) == 0 && len(first) < cap(first): // nothing but space
	case len(begins) == 0: // more space than anybody writes
		x.look(res, body, first)
		return nil
	case begins[0] == '{' || begins[0] == '[':
		return x.whole(res, body, first)
	case eventLike(begins):
		res.Header.Del("Content-Length")
		res.ContentLength = -1
		res.Body = dialect.NewEvents(after(first, body), x)
		return nil
	}
	res.Body = after(first, body)
	return nil
}

// byteOrderMark may stand before a text.
const byteOrderMark = "\xef\xbb\xbf"

// eventFields begin the lines of events.
var eventFields = []string{"data:", "event:", "id:", "retry:", ":"}

// beginning is a text without what may stand before it, and whether there is enough of it to tell what it is.
func beginning(first []byte) (begins []byte, enough bool) {
	if len(first) < len(byteOrderMark) && strings.HasPrefix(byteOrderMark, string(first)) {
		return nil, false
	}
	begins = bytes.TrimLeft(bytes.TrimPrefix(first, []byte(byteOrderMark)), " \t\r\n")
	for _, field := range eventFields {
		if len(begins) < len(field) && strings.HasPrefix(field, string(begins)) {
			return begins, false
		}
	}
	return begins, true
}

// eventLike says whether a text begins as streams of events do.
func eventLike(text []byte) bool {
	for _, field := range eventFields {
		if bytes.HasPrefix(text, []byte(field)) {
			return true
		}
	}
	return false
}

// after reads what was read already, then the rest.
func after(first []byte, body io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first), body), body}
}

// brokeOff is why an answer ended before it has begun to pass.
func (x *exchange) brokeOff() error {
	switch cause := context.Cause(x.ctx); {
	case errors.Is(cause, errIdle):
		return refuse(http.StatusGatewayTimeout, codes.EngineTimeout, "the engine stopped in the middle of the answer")
	case cause != nil:
		return errClientGone
	}
	return refuse(http.StatusBadGateway, codes.EngineBroken, "the engine died in the middle of the answer")
}

// whole reads an answer, which engines write in one piece, before it passes, and removes what is not the client's. Of a very long
// one that happens as it passes. first was read already.
func (x *exchange) whole(res *http.Response, body io.ReadCloser, first []byte) error {
	var text bytes.Buffer
	text.Grow(int(min(max(res.ContentLength, 0), maxReply)) + bytes.MinRead)
	text.Write(first)
	if _, err := text.ReadFrom(io.LimitReader(body, maxReply+1)); err != nil {
		return x.brokeOff()
	}
	if text.Len() > maxReply {
		x.look(res, body, text.Bytes())
		return nil
	}
	_ = body.Close() // read to its end
	shown, _ := x.answer.Whole(text.Bytes())
	x.keep()
	if res.ContentLength = int64(len(shown)); len(res.Trailer) > 0 {
		res.ContentLength = -1 // trailers follow chunks only
	} else {
		res.Header.Set("Content-Length", strconv.Itoa(len(shown)))
	}
	res.Body = io.NopCloser(bytes.NewReader(shown))
	return nil
}

// look lets an answer pass as it comes, and looks at it meanwhile.
func (x *exchange) look(res *http.Response, body io.ReadCloser, first []byte) {
	x.answer.Begin()
	res.Body = &looked{ReadCloser: after(first, body), x: x}
	res.Header.Del("Content-Length")
	res.ContentLength = -1
}

// looked is an answer that is looked at as it passes.
type looked struct {
	io.ReadCloser
	x     *exchange
	piece [4 << 10]byte
	out   []byte // read, not yet handed on; of the answer's reader, until the next piece
	err   error
}

// Read is part of io.Reader.
func (l *looked) Read(p []byte) (int, error) {
	for len(l.out) == 0 {
		if l.err != nil {
			return 0, l.err
		}
		n, err := l.ReadCloser.Read(l.piece[:])
		l.out, l.err = l.x.answer.Pass(l.piece[:n]), err
		l.x.keep()
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

// decisionText is what the client is told of the decision, as the parameters of a structured header.
func decisionText(x *exchange, adapter bool) string {
	action := "exact"
	if x.verdict.Compress {
		action = "compress"
	}
	text := append(make([]byte, 0, 128), action...)
	text = strconv.AppendQuote(append(text, "; profile="...), x.decision.Profile)
	text = strconv.AppendQuote(append(text, "; rule="...), x.decision.Rule)
	text = strconv.AppendQuote(append(text, "; gate="...), string(x.verdict.Reason))
	if x.verdict.Compress && !adapter {
		text = append(text, `; adapter="none seen"`...)
	}
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
		return refuse(b.x.status, codes.EngineTimeout, "the engine stopped in the middle of the answer")
	case cause != nil:
		return errClientGone
	}
	return refuse(b.x.status, codes.EngineBroken, "the engine died in the middle of the answer")
}

// Close is part of io.Closer.
func (b *watched) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}
