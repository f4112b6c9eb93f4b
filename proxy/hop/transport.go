package hop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"sync"
	"time"
)

// MaxBody is the longest body that is sent here: with its headers it fits into the buffers of a connection, so that an engine that answers
// before it has read all does not wait for a reader.
const MaxBody = 64 << 10

const (
	readSize  = 2 << 10  // of the buffer that answers are read through: a stream holds it as long as it lives
	maxHeader = 64 << 10 // of an answer's headers
	max1xx    = 5        // answers before the answer
)

// Options adjust a Transport. The zero value of each field is useful.
type Options struct {
	Dial          func(ctx context.Context, network, address string) (net.Conn, error) // nil: a net.Dialer's
	Idle          int                                                                  // connections that are kept; 0: 512
	KeepAlive     time.Duration                                                        // how long without a request; 0: 4 s
	HeaderTimeout time.Duration                                                        // for the answer to begin; 0: none
}

// Transport is an http.RoundTripper for requests with bodies in memory to one address. It is safe for concurrent use.
type Transport struct {
	address string
	opt     Options

	mu    sync.Mutex
	idle  []*conn // the one used last is at the end
	timer *time.Timer
}

// conn is one connection. It serves one request at a time.
type conn struct {
	raw    net.Conn
	t      *Transport
	r      *bufio.Reader
	left   int64 // that may still be read while headers are
	since  time.Time
	served bool // a request before
}

// New makes a transport to host:port.
func New(address string, opt Options) *Transport {
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	if opt.Idle <= 0 {
		opt.Idle = 512
	}
	if opt.KeepAlive <= 0 {
		opt.KeepAlive = 4 * time.Second
	}
	return &Transport{address: address, opt: opt}
}

// Read is part of io.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHeader
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.raw.Read(p)
	c.left -= int64(n)
	return n, err
}

var errLongHeader = errors.New("the engine's headers are too long")

// unlimited is what a connection may read of a body.
const unlimited = 1<<63 - 1

// Send sends r with a body that is given in pieces, which stay the caller's, and returns the engine's answer. It reads nothing of r.Body.
// begun is false where no byte of an answer has come; where the connection had been kept then, and the request may be made twice, it can be
// sent again. The answer's body must be closed.
func (t *Transport) Send(r *http.Request, pieces [][]byte, size int64) (res *http.Response, kept, begun bool, err error) {
	ctx := r.Context()
	c := t.take()
	if kept = c != nil; !kept {
		if c, err = t.dial(ctx); err != nil {
			return nil, false, false, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(past) })
	res, begun, err = c.exchange(r, pieces, size)
	if err != nil {
		stop()
		_ = c.raw.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, kept, begun, err
	}
	res.Body = &body{ReadCloser: res.Body, c: c, stop: stop, ctx: ctx, keep: !res.Close && !r.Close}
	if res.Body.(*body).ReadCloser == http.NoBody {
		res.Body.(*body).end(true)
		res.Body = http.NoBody
	}
	return res, kept, true, nil
}

var past = time.Unix(1, 0)

func (t *Transport) dial(ctx context.Context) (*conn, error) {
	raw, err := t.opt.Dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, t: t}
	c.r = bufio.NewReaderSize(c, readSize)
	return c, nil
}

// exchange writes the request and reads the answer's head.
func (c *conn) exchange(r *http.Request, pieces [][]byte, size int64) (res *http.Response, begun bool, err error) {
	writeErr := c.write(r, pieces, size)
	if errors.Is(writeErr, errBadRequest) {
		return nil, true, writeErr // it is not to be sent again
	}
	wait := c.t.opt.HeaderTimeout
	if writeErr != nil { // an engine may have answered before it has read all, and closed
		if wait = time.Second; c.served {
			return nil, false, writeErr
		}
	}
	if wait > 0 {
		if err := c.raw.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, false, err
		}
		if r.Context().Err() != nil { // it has come between
			_ = c.raw.SetDeadline(past)
		}
	}
	c.left = maxHeader
	trace := httptrace.ContextClientTrace(r.Context())
	for n := 0; ; n++ {
		if _, err := c.r.Peek(1); err != nil {
			if writeErr != nil {
				err = writeErr
			}
			return nil, begun, err
		}
		begun = true
		if res, err = http.ReadResponse(c.r, r); err != nil {
			return nil, true, err
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if n == max1xx {
			return nil, true, errors.New("the engine sent too many answers before the answer")
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, true, err
			}
		}
	}
	c.left = unlimited
	if wait > 0 && writeErr == nil {
		if err := c.raw.SetReadDeadline(time.Time{}); err != nil {
			return nil, true, err
		}
		if r.Context().Err() != nil {
			_ = c.raw.SetDeadline(past)
		}
	}
	if writeErr != nil {
		res.Close = true
	}
	return res, true, nil
}

var errBadRequest = errors.New("the request has a header that cannot be sent")

var heads = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// write sends the head, and the body with it in one call.
func (c *conn) write(r *http.Request, pieces [][]byte, size int64) error {
	buffer := heads.Get().(*[]byte)
	defer heads.Put(buffer)
	head, err := appendHead((*buffer)[:0], r, size)
	if err != nil {
		return err
	}
	*buffer = head[:0]
	if len(pieces) == 0 || size == 0 {
		_, err = c.raw.Write(head)
		return err
	}
	if len(pieces) == 1 && len(head)+len(pieces[0]) <= cap(head) { // short ones are copied together
		_, err = c.raw.Write(append(head, pieces[0]...))
		return err
	}
	all := make(net.Buffers, 0, 1+len(pieces))
	all = append(append(all, head), pieces...)
	_, err = all.WriteTo(c.raw)
	return err
}

// appendHead writes a request's line and headers. Those that belong to the connection are written here alone.
func appendHead(b []byte, r *http.Request, size int64) ([]byte, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	target := r.URL.RequestURI()
	if !valid(host) || !valid(target) || !token(r.Method) {
		return nil, fmt.Errorf("%w: host, path or method", errBadRequest)
	}
	b = append(append(append(b, r.Method...), ' '), target...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), '\r', '\n')
	for name, values := range r.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
			continue
		}
		for _, value := range values {
			if !token(name) || !valid(value) {
				return nil, fmt.Errorf("%w: %q", errBadRequest, name)
			}
			if name == "User-Agent" && value == "" {
				continue
			}
			b = append(append(append(append(append(b, name...), ':', ' '), value...), '\r'), '\n')
		}
	}
	if size > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, size, 10)
		b = append(b, '\r', '\n')
	}
	if r.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, '\r', '\n'), nil
}

// valid says whether a text may stand in a line.
func valid(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// token says whether a text may be a header's name.
func token(text string) bool {
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case c == '!', c == '#', c == '$', c == '%', c == '&', c == '\'', c == '*', c == '+', c == '-', c == '.', c == '^', c == '_', c == '`', c == '|', c == '~':
		default:
			return false
		}
	}
	return text != ""
}

// body is an answer's. When it has been read to its end the connection is kept.
type body struct {
	io.ReadCloser
	c    *conn
	stop func() bool
	ctx  context.Context
	keep bool
	done bool
	err  error
}

// Read is part of io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.done {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	if b.err = err; errors.Is(err, io.EOF) {
		b.end(true)
	} else {
		if b.ctx.Err() != nil {
			b.err = b.ctx.Err()
		}
		b.end(false)
	}
	return n, b.err
}

// Close is part of io.Closer.
func (b *body) Close() error {
	if !b.done {
		b.err = http.ErrBodyReadAfterClose
		b.end(false)
	}
	return nil
}

func (b *body) end(whole bool) {
	b.done = true
	if stopped := b.stop(); !whole || !b.keep || !stopped || b.c.r.Buffered() > 0 {
		_ = b.c.raw.Close()
		return
	}
	b.c.t.put(b.c)
}
