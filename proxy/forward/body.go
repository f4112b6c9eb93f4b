package forward

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
)

// isJSON says whether a request's body is to be read before it is forwarded. Only a form of parts to a route that is known not
// to produce tokens is not: a body that says to be something else, or nothing, would be read as JSON by some engines.
func isJSON(r *http.Request, route dialect.Route) bool {
	if r.Method != http.MethodPost {
		return false
	}
	if route.Kind == dialect.Generate || route.Kind == dialect.Embed {
		return true
	}
	return mediaType(r.Header.Get("Content-Type")) != "multipart/form-data"
}

// maxMatched bounds a header's value that rules look at, which is kept with the request.
const maxMatched = 256

// headerValue is the value of a header that is there once; empty for any other.
func headerValue(h http.Header, name string) string {
	if values := h[name]; len(values) == 1 && len(values[0]) <= maxMatched {
		return values[0]
	}
	return ""
}

// mediaType is that of a Content-Type without its parameters; empty when it cannot be read.
func mediaType(header string) string {
	switch header {
	case "application/json", "text/event-stream": // what nearly all say
		return header
	}
	kind, _, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return kind
}

func refuse(status int, code, message string) error {
	return &dialect.Error{Status: status, Code: code, Message: message}
}

// checkJSON refuses what could be read otherwise by the engine than it is here.
func (p *Proxy) checkJSON(r *http.Request) error {
	kind := mediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") || len(r.Header.Values("Content-Type")) > 1 {
		return refuse(http.StatusUnsupportedMediaType, codes.RequestMediaType, "the body must be application/json")
	}
	return nil
}

// readPiece is how much of a body is read at one time.
const readPiece = 16 << 10

var readPieces = sync.Pool{New: func() any { return new([readPiece]byte) }}

// A body has to arrive at this rate on average, once it has had a third of clientTimeout; what it holds is given back else.
const leastRate = 8 << 10 // bytes per second

// read reads a JSON body whole, within the limits of length, of memory and of time, and what it asks for. What is held is counted
// in x.held.
func (p *Proxy) read(x *exchange, r *http.Request) (*dialect.Request, error) {
	if r.ContentLength > p.cfg.MaxJSON {
		return nil, errTooLarge
	}
	if !x.conn.upload() {
		return nil, &dialect.Error{Status: http.StatusTooManyRequests, Code: codes.LimitUploads, Message: "too many bodies arrive on this connection at one time"}
	}
	defer x.conn.uploaded()
	pace := &paced{ReadCloser: r.Body, deadline: http.NewResponseController(x.w), start: time.Now(), limit: p.cfg.ClientTimeout}
	src, size, err := p.unpack(x, pace, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = src.Close() }()
	if err := p.hold(x, readPiece); err != nil {
		return nil, err
	}
	piece := readPieces.Get().(*[readPiece]byte)
	defer readPieces.Put(piece)
	reader := dialect.NewReader(x.route, size)
	total := int64(0)
	base := x.held
	for {
		n, err := src.Read(piece[:])
		if total += int64(n); total > p.cfg.MaxJSON {
			return nil, errTooLarge
		}
		if n > 0 {
			if err := p.look(x, reader, piece[:n], total > turnless); err != nil {
				return nil, err
			}
			if err := p.hold(x, base+reader.Held()-x.held); err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return p.arrived(x, pace, reader)
		case pace.slow:
			return nil, errSlow
		case pace.err != nil:
			return nil, errClientGone
		case errors.Is(err, zstd.ErrWindowSizeExceeded):
			return nil, refuse(http.StatusUnsupportedMediaType, codes.RequestEncoding, "the body is compressed with a window of more than 8 MiB: use zstd's levels up to 19, and no long distance matching")
		case err != nil:
			return nil, refuse(http.StatusBadRequest, codes.RequestBadEncoding, "the body is not compressed as its Content-Encoding says")
		}
	}
}

// look gives a piece to the reader, when its turn comes where the body is long.
func (p *Proxy) look(x *exchange, reader *dialect.Reader, piece []byte, long bool) error {
	if long {
		defer p.turns.wait(x.entry)()
	}
	_, err := reader.Write(piece)
	return err
}

// arrived ends the reading.
func (p *Proxy) arrived(x *exchange, pace *paced, reader *dialect.Reader) (*dialect.Request, error) {
	if err := pace.end(); err != nil {
		return nil, err
	}
	request, err := reader.Request()
	if err != nil {
		return nil, err
	}
	return request, p.hold(x, reader.Held()-x.held) // what unpacking needed is given back
}

// hold counts n more bytes of the request's tenant.
func (p *Proxy) hold(x *exchange, n int64) error {
	if n != 0 && !p.memory.take(x.entry, n) {
		return refuse(http.StatusServiceUnavailable, codes.RequestMemory, "as many bytes of bodies are held as may be; try again")
	}
	x.held += n
	return nil
}

// unpack is a body as it was before it was compressed, and its length; negative: not known. The memory for it is counted.
func (p *Proxy) unpack(x *exchange, body io.ReadCloser, r *http.Request) (io.ReadCloser, int64, error) {
	coding := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ","))
	switch coding {
	case "", "identity":
		return body, r.ContentLength, nil
	case "gzip", "x-gzip":
		if err := p.hold(x, 64<<10); err != nil {
			return nil, 0, err
		}
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return nil, 0, refuse(http.StatusBadRequest, codes.RequestBadEncoding, "the body is not compressed as its Content-Encoding says")
		}
		r.Header.Del("Content-Encoding")
		return unpacked, -1, nil
	case "zstd":
		if err := p.hold(x, maxWindow+64<<10); err != nil {
			return nil, 0, err
		}
		unpacked, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(uint64(p.cfg.MaxJSON)+maxWindow))
		if err != nil {
			return nil, 0, err
		}
		r.Header.Del("Content-Encoding")
		return unpacked.IOReadCloser(), -1, nil
	}
	return nil, 0, refuse(http.StatusUnsupportedMediaType, codes.RequestEncoding, "the body may be compressed with gzip or zstd only")
}

// maxWindow is the memory that a body compressed with zstd may ask for: what RFC 8878 recommends that decoders have.
const maxWindow = 8 << 20

// paced is a body that must arrive at some rate.
type paced struct {
	io.ReadCloser
	deadline *http.ResponseController
	start    time.Time
	limit    time.Duration
	until    time.Duration // after start: the deadline that is set
	n        int64
	slow     bool
	err      error
}

// Read is part of io.Reader.
func (b *paced) Read(p []byte) (int, error) {
	if until := min(b.limit, b.limit/3+time.Duration(b.n)*time.Second/leastRate); b.until == 0 || until-b.until > b.limit/10 {
		b.until = until
		_ = b.deadline.SetReadDeadline(b.start.Add(until)) // without support there is none
	}
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err, b.slow = err, errors.Is(err, os.ErrDeadlineExceeded)
	}
	return n, err
}

func (b *paced) end() error {
	if err := b.deadline.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

var (
	errSlow       = refuse(http.StatusRequestTimeout, codes.RequestSlow, "the body did not arrive in time")
	errTooLarge   = refuse(http.StatusRequestEntityTooLarge, codes.RequestTooLarge, "the body is larger than the proxy accepts")
	errClientGone = errors.New("the client went away")
)

// streamed is a body that passes without being held: bounded in length, and cut when the client stops sending.
type streamed struct {
	io.ReadCloser
	form     bool // it is a form: its length may change
	deadline *http.ResponseController
	limit    time.Duration
	left     int64
	err      error
}

// Read is part of io.Reader.
func (s *streamed) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.form {
		return s.ReadCloser.Read(p)
	}
	_ = s.deadline.SetReadDeadline(time.Now().Add(s.limit)) // without support there is none
	n, err := s.ReadCloser.Read(p)
	_ = s.deadline.SetReadDeadline(time.Time{})
	if s.left -= int64(n); s.left < 0 {
		s.err = errTooLarge
		return 0, s.err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// streamed is the body of a request that was not read: of a form, the parts that may pass.
func (p *Proxy) streamed(x *exchange, r *http.Request) (*streamed, error) {
	body := &streamed{ReadCloser: r.Body, deadline: http.NewResponseController(x.w), limit: p.cfg.ClientTimeout, left: p.cfg.MaxBody}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || r.Method != http.MethodPost {
		return body, nil
	}
	if params["boundary"] == "" || len(r.Header.Values("Content-Type")) > 1 {
		return nil, refuse(http.StatusBadRequest, codes.RequestBadForm, "the form names no boundary")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return nil, refuse(http.StatusUnsupportedMediaType, codes.RequestEncoding, "a form must not be compressed")
	}
	return &streamed{ReadCloser: struct {
		io.Reader
		io.Closer
	}{dialect.NewForm(body, params["boundary"]), r.Body}, form: true}, nil
}
