package transport

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// BenchmarkEcho asks what the page plane costs: a page there and back through Server, beside a bare NATS responder on
// the same embedded server, both in process. Bytes are those of the request.
func BenchmarkEcho(b *testing.B) {
	e := startNATS(b, EmbeddedOptions{Listen: InProcessOnly})
	serve(b, e, handlerFunc(echo), nil)
	own, err := e.Connect()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(own.Close)
	if _, err := own.Subscribe("kv.bare.v0.echo", func(m *nats.Msg) { _ = own.Publish(m.Reply, m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := own.Flush(); err != nil {
		b.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(e))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	for _, size := range []int{512 << 10, 2 << 20} {
		page := make([]byte, size)
		for name, subject := range map[string]string{"server": "kv.acme.v1.compress", "bare": "kv.bare.v0.echo"} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					msg, err := nc.Request(subject, page, patience)
					if err != nil || len(msg.Data) != size {
						b.Fatalf("got %v, want the page back", err)
					}
				}
			})
		}
	}
}
