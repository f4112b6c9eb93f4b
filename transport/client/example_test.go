package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
)

// A page is sent to the sidecar of its tenant, and its cores come back. What may pass is tried again; what cannot pass is
// an error with a stable code.
func Example() {
	url, stop := startSidecar() // in production: the URL of NATS, with "semproxy serve" behind it
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.Dial(url, transport.ConnectOptions{}, client.Options{Tenant: "acme"})
	if err != nil {
		log.Print(err)
		return
	}
	defer c.Close()

	reply, err := c.Compress(ctx, []byte("a page")) // in production: (*page.Page).Append
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Printf("%s: %s\n", reply.Header.Get("Semproxy-Outcome"), reply.Body)

	_, err = c.Get(ctx, "9f86d081")
	var refused *client.Error
	if errors.As(err, &refused) {
		fmt.Printf("%s, again: %v\n", refused.Code, refused.Retryable)
	}
	// Output:
	// compressed: the cores of a page
	// not_found, again: false
}

// sidecar stands in for "semproxy serve".
type sidecar struct{}

func (sidecar) Compress(_ context.Context, _ string, page []byte) (transport.Reply, error) {
	return transport.Reply{Body: fmt.Appendf(nil, "the cores of %s", page), Header: map[string]string{"Semproxy-Outcome": "compressed"}}, nil
}

func (sidecar) Get(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{}, transport.NewError("not_found", "there is no such object")
}

func (sidecar) Stat(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{Body: []byte("{}")}, nil
}

func (sidecar) Limits(string) (transport.Limits, bool) { return transport.Limits{}, true }

// startSidecar serves tenants on loopback until stop is called.
func startSidecar() (url string, stop func()) {
	quiet := slog.New(slog.DiscardHandler)
	nats, err := transport.Embedded(transport.EmbeddedOptions{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := nats.Connect()
	if err != nil {
		log.Fatal(err)
	}
	server, err := transport.New(transport.Config{Conn: conn, Handler: sidecar{}, Limiter: sidecar{}, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	return nats.ClientURL(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(server.Drain(ctx), nats.Shutdown(ctx)); err != nil {
			log.Print(err)
		}
		conn.Close()
	}
}
