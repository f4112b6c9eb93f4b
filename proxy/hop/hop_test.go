package hop_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/hop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server speaks as its script says on every connection; serve is given the connection and how many there were before it.
type server struct {
	address string
	conns   atomic.Int64
	ended   atomic.Int64
}

func serve(t *testing.T, script func(conn net.Conn, r *bufio.Reader, n int)) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String()}
	var group sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			n := int(s.conns.Add(1)) - 1
			group.Go(func() {
				defer s.ended.Add(1)
				defer func() { _ = conn.Close() }()
				script(conn, bufio.NewReader(conn), n)
			})
		}
	})
	return s
}

// next reads one request; nil: the connection has ended.
func next(r *bufio.Reader) *http.Request {
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, request.Body)
	return request
}

// answers is a script that answers each request with text.
func answers(text string) func(net.Conn, *bufio.Reader, int) {
	return func(conn net.Conn, r *bufio.Reader, _ int) {
		for next(r) != nil {
			_, _ = io.WriteString(conn, text)
			if strings.Contains(text, "Connection: close") || strings.HasPrefix(text, "HTTP/1.0") || strings.HasSuffix(text, "CUT") {
				return
			}
		}
	}
}

// sender is either of the two transports.
type sender interface {
	send(r *http.Request, body string) (*http.Response, error)
	close()
}

type standard struct{ *http.Transport }

func (s standard) close() { s.CloseIdleConnections() }

func (s standard) send(r *http.Request, body string) (*http.Response, error) {
	r.Body, r.ContentLength = http.NoBody, 0
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	}
	return s.RoundTrip(r)
}

type own struct{ *hop.Transport }

func (s own) close() { s.CloseIdleConnections() }

func (s own) send(r *http.Request, body string) (*http.Response, error) {
	var pieces [][]byte
	if body != "" {
		pieces = [][]byte{[]byte(body[:len(body)/2]), []byte(body[len(body)/2:])}
	}
	for {
		res, kept, begun, err := s.Send(r, pieces, int64(len(body)))
		var timeout net.Error
		if err == nil || !kept || begun || r.Context().Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
			return res, err
		}
	}
}

// both runs a test with each of the transports.
func both(t *testing.T, test func(t *testing.T, open func(address string) sender)) {
	t.Helper()
	for name, make := range map[string]func(address string) sender{
		"net/http": func(string) sender {
			return standard{&http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, ResponseHeaderTimeout: 2 * time.Second, MaxIdleConnsPerHost: 64, IdleConnTimeout: 4 * time.Second}}
		},
		"hop": func(address string) sender { return own{hop.New(address, hop.Options{HeaderTimeout: 2 * time.Second})} },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(address string) sender {
				s := make(address)
				t.Cleanup(s.close)
				return s
			})
		})
	}
}

func request(t *testing.T, ctx context.Context, method, address string) *http.Request { //nolint:revive // the test first, as everywhere
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/v1/x?q=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnswersOfEveryKind(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	long := strings.Repeat("x", 100_000)
	both(t, func(t *testing.T, open func(string) sender) {
		for _, c := range []struct {
			name, method, text string
			status             int
			body, trailer      string
			fails              bool // to begin
			breaks             bool // in the body
			kept               bool
			hopOnly            bool // net/http takes bytes that come too early as the next answer, if the next request is sent before it sees them
		}{
			{name: "a length", text: ok + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
			{name: "a long body", text: ok + "Content-Length: 100000\r\n\r\n" + long, status: 200, body: long, kept: true},
			{name: "nothing", text: ok + "Content-Length: 0\r\n\r\n", status: 200, kept: true},
			{name: "chunks", text: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nyes\r\n0\r\n\r\n", status: 200, body: "okyes", kept: true},
			{name: "trailers", text: ok + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", status: 200, body: "ok", trailer: "7", kept: true},
			{name: "until the end", text: ok + "Connection: close\r\n\r\nok", status: 200, body: "ok"},
			{name: "a length and the end", text: ok + "Content-Length: 2\r\nConnection: close\r\n\r\nok", status: 200, body: "ok"},
			{name: "HTTP/1.0", text: "HTTP/1.0 200 OK\r\n\r\nok", status: 200, body: "ok"},
			{name: "no reason", text: "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
			{name: "no content", text: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, kept: true},
			{name: "not modified", text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", status: 304, kept: true},
			{name: "a head", method: "HEAD", text: ok + "Content-Length: 10\r\n\r\n", status: 200, kept: true},
			{name: "a head of chunks", method: "HEAD", text: ok + "Transfer-Encoding: chunked\r\n\r\n", status: 200, kept: true},
			{name: "go on", text: "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
			{name: "hints", text: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
			{name: "hints for ever", text: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20), fails: true},
			{name: "more than was said", text: ok + "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", status: 200, body: "ok", hopOnly: true},
			{name: "headers that are too long", text: ok + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", fails: true},
			{name: "many headers", text: ok + strings.Repeat("X-A: "+strings.Repeat("x", 1000)+"\r\n", 50) + "Content-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
			{name: "no HTTP", text: "SSH-2.0-OpenSSH_9.9\r\n\r\n", fails: true},
			{name: "a bad status", text: "HTTP/1.1 abc\r\n\r\n", fails: true},
			{name: "a bad header", text: ok + "no colon\r\n\r\n", fails: true},
			{name: "two lengths", text: ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", fails: true},
			{name: "a bad length", text: ok + "Content-Length: -2\r\n\r\nok", fails: true},
			{name: "an unknown coding", text: ok + "Transfer-Encoding: zip\r\n\r\nok", fails: true},
			{name: "death in the headers", text: ok + "Content-Len" + "CUT", fails: true},
			{name: "death in a body", text: ok + "Content-Length: 20\r\n\r\nok" + "CUT", status: 200, breaks: true},
			{name: "death in a chunk", text: ok + "Transfer-Encoding: chunked\r\n\r\n20\r\nok" + "CUT", status: 200, breaks: true},
			{name: "death before the last chunk", text: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nokCUT", status: 200, breaks: true},
			{name: "a bad chunk", text: ok + "Transfer-Encoding: chunked\r\n\r\nxx\r\nok\r\n0\r\n\r\nCUT", status: 200, breaks: true},
			{name: "gzip, as it is", text: ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", kept: true},
		} {
			if c.hopOnly && !strings.HasSuffix(t.Name(), "/hop") {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				s := serve(t, answers(c.text))
				client := open(s.address)
				c.method = cmp.Or(c.method, "POST")
				for range 2 {
					res, err := client.send(request(t, t.Context(), c.method, s.address), "{}")
					if c.fails {
						if err == nil {
							_ = res.Body.Close()
							t.Fatalf("got %s, want an error", res.Status)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					text, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if res.StatusCode != c.status || (err != nil) != c.breaks || !c.breaks && string(text) != c.body || res.Trailer.Get("X-Sum") != c.trailer {
						t.Errorf("got %d %.50q, %v, %v", res.StatusCode, text, res.Trailer, err)
					}
					if c.breaks && errors.Is(err, io.EOF) {
						t.Error("a death looks like an end")
					}
				}
				if n := s.conns.Load(); (n == 1) != c.kept {
					t.Errorf("got %d connections for two requests, want the first kept: %v", n, c.kept)
				}
			})
		}
	})
}

func TestAnswersBeforeTheAnswerAreShown(t *testing.T) {
	both(t, func(t *testing.T, open func(string) sender) {
		s := serve(t, answers("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		got := ""
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got += fmt.Sprint(code, h.Get("Link"))
			return nil
		}})
		res, err := open(s.address).send(request(t, ctx, "GET", s.address), "")
		if err != nil || got != "103</a>" {
			t.Fatalf("got %q, %v", got, err)
		}
		_ = res.Body.Close()
	})
}

// An engine that refuses before it has read the body, and closes: what it says arrives.
func TestAnEarlyRefusalArrives(t *testing.T) {
	both(t, func(t *testing.T, open func(string) sender) {
		s := serve(t, func(conn net.Conn, r *bufio.Reader, _ int) {
			if _, err := http.ReadRequest(r); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
				_, _ = io.Copy(io.Discard, r) // until the client is done
			}
		})
		client := open(s.address)
		for range 20 {
			res, err := client.send(request(t, t.Context(), "POST", s.address), strings.Repeat("x", hop.MaxBody))
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 413 || string(text) != "no" {
				t.Errorf("got %d %q, %v", res.StatusCode, text, err)
			}
			_ = res.Body.Close()
		}
	})
}

// What an engine says unasked on a kept connection is not the next request's answer; and one that it has closed is not used.
func TestAKeptConnectionIsLookedAt(t *testing.T) {
	for name, after := range map[string]string{"closed": "", "a timeout said": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad", "nonsense": "\r\n\r\n\x00"} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, open func(string) sender) {
				said := make(chan struct{}, 10)
				s := serve(t, func(conn net.Conn, r *bufio.Reader, _ int) {
					next(r)
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					time.Sleep(20 * time.Millisecond) // the client has it, and keeps the connection
					_, _ = io.WriteString(conn, after)
					_ = conn.(*net.TCPConn).CloseWrite()
					said <- struct{}{}
					_, _ = r.ReadByte()
				})
				client := open(s.address)
				for range 3 {
					res, err := client.send(request(t, t.Context(), "POST", s.address), "{}")
					if err != nil {
						t.Fatal(err)
					}
					if text, err := io.ReadAll(res.Body); err != nil || string(text) != "ok" {
						t.Errorf("got %d %q, %v, want its own answer", res.StatusCode, text, err)
					}
					_ = res.Body.Close()
					select {
					case <-said:
					case <-time.After(5 * time.Second):
						t.Fatal("the answer came on a connection that had said something else before")
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		})
	}
}

func TestTimeAndCancelling(t *testing.T) {
	both(t, func(t *testing.T, open func(string) sender) {
		s := serve(t, func(conn net.Conn, r *bufio.Reader, _ int) {
			request := next(r)
			if request != nil && request.Header.Get("X-Begin") != "" {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			}
			_, _ = r.ReadByte() // the client's end
		})
		client := open(s.address)
		_, err := client.send(request(t, t.Context(), "POST", s.address), "{}") //nolint:bodyclose // there is none
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("no answer: got %v, want a timeout", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := client.send(request(t, ctx, "POST", s.address), "{}"); !errors.Is(err, context.Canceled) { //nolint:bodyclose // there is none
			t.Errorf("cancelled before the answer: got %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		r := request(t, ctx, "POST", s.address)
		r.Header.Set("X-Begin", "1")
		res, err := client.send(r, "{}")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(20*time.Millisecond, cancel)
		if text, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) || string(text) != "half" {
			t.Errorf("cancelled in the answer: got %q, %v", text, err)
		}
		_ = res.Body.Close()
		r = request(t, t.Context(), "POST", s.address)
		r.Header.Set("X-Begin", "1")
		if res, err = client.send(r, "{}"); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // before its end
		if _, err := res.Body.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a closed answer: got %v, want an error", err)
		}
		for deadline := time.Now().Add(10 * time.Second); s.ended.Load() != s.conns.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d connections ended", s.ended.Load(), s.conns.Load())
			}
		}
	})
}

// What goes over the wire.
func TestTheRequestIsWrittenAsItIs(t *testing.T) {
	both(t, func(t *testing.T, open func(string) sender) {
		got := make(chan *http.Request, 10)
		bodies := make(chan string, 10)
		s := serve(t, func(conn net.Conn, r *bufio.Reader, _ int) {
			for {
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(request.Body)
				got <- request
				bodies <- string(body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		client := open(s.address)
		for _, c := range []struct {
			method, body string
			length       int64
		}{{"GET", "", 0}, {"POST", "", 0}, {"POST", "{}", 2}, {"POST", strings.Repeat("x", hop.MaxBody), hop.MaxBody}, {"DELETE", "", 0}} {
			r := request(t, t.Context(), c.method, s.address)
			r.Header["X-Two"] = []string{"a", "b"}
			r.Header.Set("User-Agent", "")
			res, err := client.send(r, c.body)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			seen, body := <-got, <-bodies
			if seen.Method != c.method || seen.RequestURI != "/v1/x?q=1" || seen.Host != s.address || seen.ContentLength != c.length || body != c.body || len(seen.TransferEncoding) > 0 ||
				strings.Join(seen.Header["X-Two"], ",") != "a,b" || len(seen.Header["User-Agent"]) > 0 && seen.Header.Get("User-Agent") != "" {
				t.Errorf("%s of %d bytes: got %+v", c.method, len(c.body), seen)
			}
			if _, said := seen.Header["Content-Length"]; c.method == "POST" && !said {
				t.Errorf("%s of %d bytes: no length is said", c.method, len(c.body))
			}
		}
		for name, value := range map[string]string{"X-A": "a\r\nX-B: b", "X-C": "a\nb", "X D": "a", "X-E": "a\x00b", "X-F\r\n": "a", "": "a"} {
			r := request(t, t.Context(), "POST", s.address)
			r.Header[name] = []string{value}
			if res, err := client.send(r, "{}"); err == nil {
				_ = res.Body.Close()
				t.Errorf("%q: %q was sent", name, value)
			}
		}
		if len(got) > 0 {
			t.Errorf("%d bad requests arrived", len(got))
		}
	})
}

func TestConnectionsAreKeptForAWhileAndNotMoreThanMany(t *testing.T) {
	s := serve(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	client := hop.New(s.address, hop.Options{Idle: 5, KeepAlive: 50 * time.Millisecond})
	defer client.CloseIdleConnections()
	var group sync.WaitGroup
	var failed atomic.Int64
	for range 50 {
		group.Go(func() {
			for range 20 {
				res, err := own{client}.send(request(t, t.Context(), "POST", s.address), "{}")
				if err != nil {
					failed.Add(1)
					continue
				}
				if text, err := io.ReadAll(res.Body); err != nil || string(text) != "ok" {
					failed.Add(1)
				}
				_ = res.Body.Close()
			}
		})
	}
	group.Wait()
	if n := client.Idle(); failed.Load() > 0 || n == 0 || n > 5 {
		t.Errorf("%d failed, %d are kept, want none and at most 5", failed.Load(), n)
	}
	for deadline := time.Now().Add(10 * time.Second); client.Idle() > 0 || s.ended.Load() != s.conns.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are kept, %d of %d have ended", client.Idle(), s.ended.Load(), s.conns.Load())
		}
	}
}
