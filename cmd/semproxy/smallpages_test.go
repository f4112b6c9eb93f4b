package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

const smallTokens = 32

// smallPages cut n different pages of 32 tokens of one head out of a real one.
func smallPages(t testing.TB, n int) [][]byte {
	t.Helper()
	whole, err := page.Decode(demoPage(t), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	row := whole.HeadDim * 2
	out := make([][]byte, n)
	for i := range out {
		head, from := i%(whole.Layers*whole.KVHeads), i/(whole.Layers*whole.KVHeads)%(whole.Tokens-smallTokens)
		at := (head*whole.Tokens + from) * row
		ids, positions := make([]int32, smallTokens), make([]int32, smallTokens)
		for k := range ids {
			ids[k], positions[k] = int32(whole.TokenIDs.At(from+k)), int32(k)
		}
		ids[0] = int32(i) // no two are alike
		p := *whole
		p.Sequence, p.Layers, p.KVHeads, p.Tokens, p.TokensTotal, p.Pages, p.Page = "small-"+strconv.Itoa(i), 1, 1, smallTokens, smallTokens, 1, 0
		p.K, p.V = whole.K[at:at+smallTokens*row], whole.V[at:at+smallTokens*row]
		p.TokenIDs, p.Positions = page.IntsOf(ids), page.IntsOf(positions)
		p.Q, p.QDType, p.QHeads, p.Window, p.Boundary, p.Protect = nil, 0, 0, 0, nil, nil
		if out[i], err = p.Append(nil); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func demoPage(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "configs", "demo", "kjv.page.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smallPolicy compresses pages that small.
const smallPolicy = `
apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5, protect: { sinks: 1, recent: 1 } } }
tenants: { acme: { rules: [ { profile: half } ] }, globex: { rules: [ { profile: half } ] } }
`

func writeSmallPolicy(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(smallPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// digest is sumOf the cores in body, whose sequence must be that of page i.
func digest(body []byte, i int) (sum [32]byte, err error) {
	c, err := page.DecodeCores(body, page.DefaultLimits())
	if err != nil {
		return sum, err
	}
	if want := "small-" + strconv.Itoa(i); c.Sequence != want {
		return sum, fmt.Errorf("the reply is about %s, want %s", c.Sequence, want)
	}
	return sumOf(c), nil
}

// sumOf is the SHA-256 of everything that attention reads of the cores.
func sumOf(c *page.Cores) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{c.K, c.V, c.Counts, c.Bias, c.Positions, c.Slots} {
		fmt.Fprint(h, len(part), ":")
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// cleanRun is what undisturbed processes make of the pages.
func cleanRun(t *testing.T, pages [][]byte) [][32]byte {
	t.Helper()
	url := natsServer(t)
	startProcess(t, "--nats-url", url, "--policy-path", writeSmallPolicy(t))
	ready(t, url, "acme")
	sums := make([][32]byte, len(pages))
	c := dial(t, url, client.Options{Tenant: "acme"})
	each(len(pages), 4, func(i int) {
		reply, err := c.Compress(context.Background(), pages[i])
		if err == nil {
			sums[i], err = digest(reply.Body, i)
		}
		if err != nil {
			t.Errorf("clean run, page %d: %v", i, err)
		}
	})
	return sums
}

// each calls f for 0 to n-1 from some goroutines.
func each(n, goroutines int, f func(i int)) {
	next := make(chan int)
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
}

// countFrom is a count from the environment, for the longer forms of make.
func countFrom(t testing.TB, name string, ordinary int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return ordinary
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: got %q, want a number of at least 1", name, text)
	}
	return n
}

// oneLayer is the first layer of a real page.
func oneLayer(t testing.TB) []byte {
	t.Helper()
	p, err := page.Decode(demoPage(t), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	n := p.KVHeads * p.Tokens * p.HeadDim * 2
	p.Layers, p.K, p.V, p.Q, p.QDType, p.QHeads, p.Window = 1, p.K[:n], p.V[:n], nil, 0, 0, 0
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

var unlikeSerial atomic.Uint32

// unlike is a copy of the demo's page that differs in its first token's id.
func unlike(blob []byte) []byte {
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		panic(err)
	}
	ids := make([]int32, p.Tokens)
	for k := range ids {
		ids[k] = int32(p.TokenIDs.At(k))
	}
	ids[0] = int32(unlikeSerial.Add(1))
	p.TokenIDs = page.IntsOf(ids)
	if blob, err = p.Append(nil); err != nil {
		panic(err)
	}
	return blob
}

func medianOf(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}
