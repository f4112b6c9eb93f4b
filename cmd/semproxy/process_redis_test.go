package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

const halfPolicy = "apiVersion: semproxy.io/v1\nprofiles: { half: { method: semantic, ratio: 0.5 } }\ntenants: { acme: { rules: [ { profile: half } ] } }\n"

// smallPage is page i of many: 64 tokens of one layer, other content in each.
func smallPage(t *testing.T, i int) []byte {
	t.Helper()
	const tokens, heads, dim = 64, 2, 16
	src := rand.New(rand.NewPCG(uint64(i), 1))
	kv := make([]byte, 0, 2*heads*tokens*dim)
	for range heads * tokens * dim {
		kv = binary.LittleEndian.AppendUint16(kv, uint16(0x3f00+src.IntN(256))) // BF16, about 0.5 to 1
	}
	ids, positions := make([]int32, tokens), make([]int32, tokens)
	for k := range ids {
		ids[k], positions[k] = int32(src.IntN(50_000)), int32(k)
	}
	p := page.Page{
		Model: "llama", Sequence: fmt.Sprint("page-", i), Layout: "test", TokensTotal: tokens, Pages: 1, DType: page.BF16,
		Rope: page.Rope{Type: "default", Theta: 10000, RotaryDim: dim}, Layers: 1, KVHeads: heads, Tokens: tokens, HeadDim: dim,
		K: kv, V: kv, TokenIDs: page.IntsOf(ids), Positions: page.IntsOf(positions),
	}
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// coresSum is the SHA-256 of everything that attention reads.
func coresSum(body []byte) (sum [32]byte, err error) {
	c, err := page.DecodeCores(body, page.DefaultLimits())
	if err != nil {
		return sum, err
	}
	return sumOf(c), nil
}

// cleanPipeline makes pages, and what a pipeline alone makes of each.
func cleanPipeline(t *testing.T, pages int) (blobs [][]byte, want [][32]byte) {
	t.Helper()
	set, err := policy.Compile(policy.Source{Name: "clean.yaml", Data: []byte(halfPolicy)})
	if err != nil {
		t.Fatal(err)
	}
	c := compress.New(1)
	defer c.Close()
	clean, err := pipeline.New(pipeline.Config{Policy: func() *policy.Set { return set }, Compressor: c})
	if err != nil {
		t.Fatal(err)
	}
	blobs, want = make([][]byte, pages), make([][32]byte, pages)
	for i := range blobs {
		blobs[i] = smallPage(t, i)
		out, err := clean.Compress(context.Background(), "acme", blobs[i])
		if err != nil {
			t.Fatal(err)
		}
		if want[i], err = coresSum(out.Body); err != nil {
			t.Fatal(err)
		}
		out.Release()
	}
	return blobs, want
}

// storedAsMade counts the objects that are there, each of which must be as want says; "" is none.
func storedAsMade(t *testing.T, conn *client.Client, objects []string, want [][32]byte) (there, wrong int) {
	t.Helper()
	for i, object := range objects {
		if object == "" {
			continue
		}
		reply, err := conn.Get(context.Background(), object)
		var ce *client.Error
		switch {
		case errors.As(err, &ce) && ce.Code == "not_found":
		case err != nil:
			t.Errorf("get of page %d: got %v, want it or not_found", i, err)
		default:
			there++
			if sum, err := coresSum(reply.Body); err != nil || sum != want[i] {
				wrong++
				t.Errorf("get of page %d: got other cores than in a clean run, %v", i, err)
			}
		}
	}
	return there, wrong
}

// Two sidecars over one Redis; Redis and a sidecar are killed again and again while pages are sent. Every page is
// answered, with the cores of a clean run, and what is stored afterwards is the same or not there.
func TestKilledRedisAndSidecarsLoseNothing(t *testing.T) {
	redistest.Need(t)
	pages, kills := 2000, 8
	if testing.Short() {
		pages, kills = 300, 3
	}
	blobs, want := cleanPipeline(t, pages)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(halfPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	url, server := natsServer(t), redistest.Start(t, "--appendonly", "yes")
	start := func() *process {
		return startProcess(t, "--nats-url", url, "--policy-path", file, "--store-redis-addrs", server.Addr, "--store-redis-timeout", "500ms")
	}
	sidecars := []*process{start(), start()}
	ready(t, url, "acme")

	patient := client.Options{Tenant: "acme", Timeout: 2 * time.Second, MaxAttempts: 1000, Backoff: client.Backoff{First: 10 * time.Millisecond, Max: 100 * time.Millisecond}}
	var next, answered, retried, wrong atomic.Int64
	objects := make([]string, pages)
	var senders sync.WaitGroup
	for range 6 {
		conn := dial(t, url, patient)
		senders.Go(func() {
			for i := int(next.Add(1)) - 1; i < pages; i = int(next.Add(1)) - 1 {
				reply, err := conn.Compress(context.Background(), blobs[i])
				if err != nil {
					t.Errorf("page %d: got %v, want its cores", i, err)
					continue
				}
				if sum, err := coresSum(reply.Body); err != nil || sum != want[i] {
					wrong.Add(1)
					t.Errorf("page %d: got other cores than in a clean run, %v", i, err)
				}
				objects[i] = reply.Header.Get(sidecar.HeaderObject)
				retried.Add(int64(reply.Attempts - 1))
				answered.Add(1)
			}
		})
	}
	for kill := range kills {
		at := int64((kill + 1) * pages / (kills + 1))
		redistest.Eventually(t, "pages are answered", func() bool { return answered.Load() >= at || next.Load() > int64(pages) })
		if kill%2 == 0 {
			server.Kill()
			server.Restart(t)
			continue
		}
		victim := (kill / 2) % len(sidecars)
		_ = sidecars[victim].cmd.Process.Kill()
		_ = sidecars[victim].cmd.Wait()
		sidecars[victim] = start()
	}
	senders.Wait()
	there, spoilt := storedAsMade(t, dial(t, url, patient), objects, want)
	t.Logf("%d of %d pages answered, %d wrong, %d sent again; %d kills; %d objects stored at the end", answered.Load(), pages, wrong.Load()+int64(spoilt), retried.Load(), kills, there)
}

// A replica that never saw a sequence finds what another one stored of it, over NATS.
func TestAPrefixIsFoundByAnotherSidecar(t *testing.T) {
	server := redistest.Start(t)
	a, b := sidecartest.Start(t, sidecartest.OverRedis(server.Addr, true, "")), sidecartest.Start(t, sidecartest.OverRedis(server.Addr, true, ""))
	blob := smallPage(t, 1)
	if _, err := a.Client(t, "acme", client.Options{}).Compress(context.Background(), blob); err != nil {
		t.Fatal(err)
	}
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, p.Tokens)
	for i := range ids {
		ids[i] = fmt.Sprint(p.TokenIDs.At(i))
	}
	request := fmt.Sprintf(`{"model":"llama","layout":"test","dtype":"BF16","rope":{"type":"default","theta":10000,"rotary_dim":16,"interleaved":false},
		"layers":1,"kv_heads":2,"head_dim":16,"token_ids":[%s,1,2,3]}`, strings.Join(ids, ","))
	conn := b.Client(t, "acme", client.Options{})
	reply, err := conn.Get(context.Background(), request)
	if err != nil || !strings.Contains(string(reply.Body), `"tokens":64`) {
		t.Fatalf("get of a prefix: got %v, want 64 tokens", err)
	}
	if reply, err = b.Client(t, "slow", client.Options{}).Get(context.Background(), request); err != nil || !strings.Contains(string(reply.Body), `"tokens":0`) {
		t.Errorf("get of another tenant's prefix: got %v, want nothing", err)
	}
	var ce *client.Error
	if _, err := conn.Get(context.Background(), "{"); !errors.As(err, &ce) || ce.Code != "page.bad_prefix" {
		t.Errorf("a malformed request: got %v, want page.bad_prefix", err)
	}
}
