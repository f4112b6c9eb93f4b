package shm

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// BenchmarkExchange is the way of a descriptor by the socket and back, without the page.
func BenchmarkExchange(b *testing.B) {
	f := serve(b, nil)
	f.Serve(func(_ string, _ nats.Header, answer func(*nats.Msg) error) { _ = answer(ok("object")) })
	s := f.dial(b, "acme", Options{})
	l, err := s.Put([]byte("page"), 10)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Release()
	header := nats.Header{"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Exchange(b.Context(), l, header); err != nil {
			b.Fatal(err)
		}
	}
}
