package storebench_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storebench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(t testing.TB, server *redistest.Server, sum redis.Sum) storebench.Options {
	t.Helper()
	s, err := redis.Open(redis.Options{Addrs: []string{server.Addr}, Sum: sum})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return storebench.Options{Raw: server.Client(t), Store: s}
}

// Every side of every comparison is measured, and says something.
func TestEveryComparisonHasTwoRows(t *testing.T) {
	opt := options(t, redistest.Start(t), redis.CRC32C)
	opt.Sizes, opt.Concurrency, opt.Rounds, opt.Turn = []int{1000, 2 << 20}, []int{2}, 2, 10*time.Millisecond
	var got []string
	err := storebench.Run(t.Context(), opt, func(r storebench.Row) {
		got = append(got, fmt.Sprint(r.Op, " ", r.Size, " ", r.By))
		if r.Rate <= 0 || r.Ratio <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Concurrency != 2 {
			t.Errorf("row: got %+v, want positive figures", r)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "[put 1000 raw put 1000 store get 1000 raw get 1000 store put 2097152 raw put 2097152 store get 2097152 raw get 2097152 store]"
	if fmt.Sprint(got) != want {
		t.Errorf("rows: got %v, want %v", got, want)
	}
}

func TestAFailureEndsTheRun(t *testing.T) {
	server := redistest.Start(t)
	opt := options(t, server, redis.CRC32C)
	server.Kill()
	if err := storebench.Run(context.Background(), opt, func(storebench.Row) {}); err == nil {
		t.Error("Run without a server: got nil, want an error")
	}
}

// How far is the store from the raw client? The metric is the ratio of their rates, taken in turns.
func BenchmarkBesideRaw(b *testing.B) {
	server := redistest.Start(b)
	ballast := make([]byte, 128<<20) // what a sidecar holds; with an empty heap the collector would run all the time
	for _, sum := range []redis.Sum{redis.CRC32C, redis.SHA256} {
		opt := options(b, server, sum)
		for _, size := range []int{64 << 10, 1 << 20, 8 << 20} {
			for _, n := range []int{1, 4} {
				opt.Sizes, opt.Concurrency = []int{size}, []int{n}
				b.Run(fmt.Sprintf("sum=%s/size=%dKiB/at_once=%d", sum, size>>10, n), func(b *testing.B) {
					for range b.N {
						if err := storebench.Run(b.Context(), opt, func(r storebench.Row) {
							b.ReportMetric(r.Rate/(1<<30), r.Op+"-"+r.By+"-GiB/s")
							b.ReportMetric(r.Ratio, r.Op+"-ratio")
						}); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
	ballast[0] = 1
}
