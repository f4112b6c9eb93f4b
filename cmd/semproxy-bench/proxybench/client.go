package proxybench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// conn is one kept connection of a client.
type conn struct {
	net.Conn
	r *bufio.Reader
}

// connect opens a connection that lives until ctx ends.
func connect(ctx context.Context, addr string) (*conn, error) {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	return &conn{c, bufio.NewReaderSize(c, 2<<10)}, nil
}

// prepared is a request as it goes over the wire; headers are "Name: value".
func prepared(key string, promptBytes int, stream bool, headers ...string) []byte {
	member := ""
	if stream {
		member = `,"stream":true`
	}
	body := `{"model":"m","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"` +
		strings.Repeat("word ", promptBytes/5) + `"}],"max_tokens":16` + member + `}`
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer " + key + "\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	return fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

// post sends a request and reads its whole answer. first is when the first byte of the body was there.
func (c *conn) post(request []byte) (first time.Time, err error) {
	response, err := c.begin(request)
	if err != nil {
		return first, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	var b [1]byte
	if _, err := io.ReadFull(response.Body, b[:]); err != nil {
		return first, err
	}
	first = time.Now()
	_, err = io.Copy(io.Discard, response.Body)
	return first, err
}

// begin sends a request and reads its answer's head. The caller reads the body.
func (c *conn) begin(request []byte) (*http.Response, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		_ = response.Body.Close()
		return nil, fmt.Errorf("answered %s: %s", response.Status, text)
	}
	return response, nil
}
