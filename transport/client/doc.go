// Package client sends KV pages to semproxy over NATS and gets their cores back.
//
//	c, err := client.Dial(url, transport.ConnectOptions{}, client.Options{Tenant: "acme"})
//	cores, err := c.Compress(ctx, page)
//
// The sender keeps its page until the reply has come. Whatever may pass (the sidecar is busy or stopping, nobody
// listens, the NATS server went away, no reply in time) is tried again with the same bytes, and the same bytes have the
// same key, so a page that was stored and whose reply was lost is not stored twice. What cannot pass comes back at once
// as an [*Error] with a stable code.
package client
