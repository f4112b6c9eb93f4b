package shm

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

const patience = 20 * time.Second

// fixture is a server with its metrics.
type fixture struct {
	*Server
	socket string
	reader *sdkmetric.ManualReader
}

func serve(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{socket: filepath.Join(t.TempDir(), "s"), reader: sdkmetric.NewManualReader()}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(f.reader))
	cfg := Config{Socket: f.socket, Instance: "one", MeterProvider: provider, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.Server, err = Listen(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// counted is how often a code was counted, over all tenants.
func (f *fixture) counted(t testing.TB, code string) (n int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := f.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == semconv.MetricErrors {
				for _, p := range sum.DataPoints {
					if v, _ := p.Attributes.Value(semconv.ErrorCode); v.AsString() == code {
						n += p.Value
					}
				}
			}
		}
	}
	return n
}

// dial makes a session of tenant; NATS, which would carry the challenge, is left out.
func (f *fixture) dial(t testing.TB, tenant string, opts Options) *Session {
	t.Helper()
	opts.Socket = f.socket
	s, err := Dial(t.Context(), opts, func(_ context.Context, instance, challenge string) error {
		if instance != "one" {
			t.Errorf("instance: got %q, want one", instance)
		}
		return f.Attach(tenant, challenge)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// raw is a sender that does as it likes.
type raw struct {
	*net.UnixConn
	t testing.TB
	hello
}

func (f *fixture) raw(t testing.TB) *raw {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: f.socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &raw{UnixConn: conn, t: t}
	r.hear(&r.hello)
	return r
}

func (r *raw) hear(into any) {
	r.t.Helper()
	var text [maxMessage]byte
	_ = r.SetReadDeadline(time.Now().Add(patience))
	n, err := r.Read(text[:])
	if err == nil {
		err = json.Unmarshal(text[:n], into)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// say sends text with files and returns the answer.
func (r *raw) say(text string, files ...*os.File) (a answer) {
	r.t.Helper()
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := r.WriteMsgUnix([]byte(text), rights, nil); err != nil {
		r.t.Fatal(err)
	}
	r.hear(&a)
	return a
}

// memfd makes a memfd of size bytes with these seals.
func memfd(t testing.TB, size int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

// shared makes a file under /dev/shm of size bytes.
func shared(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.CreateTemp(Folder, FilePrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		_ = os.Remove(f.Name())
	})
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// write lays content in a block of f.
func write(t testing.TB, f *os.File, offset int64, generation uint64, content []byte) {
	t.Helper()
	if _, err := f.WriteAt(append(blockHeader(generation), content...), offset); err != nil {
		t.Fatal(err)
	}
}

func randomPage(seed uint64, n int) []byte {
	page := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(page)
	return page
}

// read opens a descriptor and reads its page; the bytes are a copy.
func (f *fixture) read(tenant, descriptor string) ([]byte, error) {
	b, err := f.Open(tenant, descriptor)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	page, err := b.Read()
	return bytes.Clone(page), err
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}
