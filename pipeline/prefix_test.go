package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/page"
)

const (
	seqTokens, seqLayers, seqHeads, seqDim = 160, 4, 2, 8
	ropeJSON                               = `{"type":"default","theta":10000,"rotary_dim":8,"interleaved":false}`
)

// piece is the page of some tokens and layers of a sequence whose tokens are ids; its keys are not random only so that
// they do not matter.
func piece(t testing.TB, ids []int32, first, tokens, layerFirst, layers int, extra map[string]string) []byte {
	t.Helper()
	n := layers * seqHeads * tokens * seqDim
	kv := make([]byte, 0, 2*n)
	for i := range n {
		kv = binary.LittleEndian.AppendUint16(kv, uint16(0x3f00+(i*7919+first*31+layerFirst*17)%256)) // BF16, about 0.5 to 1
	}
	positions := make([]int32, tokens)
	for i := range positions {
		positions[i] = int32(first + i)
	}
	p := page.Page{
		Model: "llama", Sequence: "s", Layout: "test", LayerFirst: layerFirst, TokenFirst: first, TokensTotal: len(ids), Pages: 1,
		Rope: page.Rope{Type: "default", Theta: 10000, RotaryDim: 8}, DType: page.BF16,
		Layers: layers, KVHeads: seqHeads, Tokens: tokens, HeadDim: seqDim, K: kv, V: kv,
		TokenIDs: page.IntsOf(ids[first : first+tokens]), Positions: page.IntsOf(positions), Extra: map[string]string{},
	}
	if first > 0 {
		at := page.RootLink(page.DefaultBlock, extra[page.MetaPrefixSalt])
		for i := 0; i < first; i += page.DefaultBlock {
			at = at.Next(page.DefaultBlock, func(k int) int64 { return int64(ids[i+k]) })
		}
		p.Extra[page.MetaPrefix] = at.String()
	}
	for k, v := range extra {
		p.Extra[k] = v
	}
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func sequence(seed int32) []int32 {
	ids := make([]int32, seqTokens)
	for i := range ids {
		ids[i] = seed*1000 + int32(i)
	}
	return ids
}

func ask(t testing.TB, r *rig, tenant string, ids []int32, layers int, change string) page.PrefixReply {
	t.Helper()
	text, err := json.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"model":"llama","layout":"test","dtype":"BF16","rope":%s,"layers":%d,"kv_heads":2,"head_dim":8,"token_ids":%s}`, ropeJSON, layers, text)
	if old, by, ok := strings.Cut(change, " -> "); ok {
		body = strings.Replace(body, old, by, 1)
	}
	b, err := r.Prefix(context.Background(), tenant, []byte(body))
	if err != nil {
		t.Fatalf("Prefix: got %v, want nil", err)
	}
	var reply page.PrefixReply
	if err := json.Unmarshal(b, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

// shared are the ways in which a pipeline keeps what it needs to find prefixes.
func shared(t *testing.T, run func(t *testing.T, r *rig)) {
	t.Run("memory", func(t *testing.T) {
		run(t, newRig(t, func(c *pipeline.Config) {
			marks, err := store.NewMarks(c.Store.(store.Store), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			c.Prefixes = marks
		}))
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Start(t)
		run(t, newRig(t, func(c *pipeline.Config) { overRedis(t, server.Addr, c) }))
	})
}

func overRedis(t *testing.T, addr string, c *pipeline.Config) {
	t.Helper()
	s, err := redis.Open(redis.Options{Addrs: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c.Store, c.Prefixes, c.Claims = s, s, s
}

func TestTheLongestStoredPrefixIsFound(t *testing.T) {
	shared(t, func(t *testing.T, r *rig) {
		ids := sequence(1)
		want := func(name string, got page.PrefixReply, tokens, pages int) {
			t.Helper()
			if got.Tokens != tokens || len(got.Pages) != pages {
				t.Errorf("%s: got %d tokens in %d pages, want %d in %d", name, got.Tokens, len(got.Pages), tokens, pages)
			}
		}
		want("nothing is stored", ask(t, r, "half", ids, seqLayers, ""), 0, 0)
		send(t, r, "half", piece(t, ids, 0, 64, 0, 2, nil))
		want("half of the layers", ask(t, r, "half", ids, seqLayers, ""), 0, 0)
		want("the layers that are there", ask(t, r, "half", ids, 2, ""), 64, 1)
		send(t, r, "half", piece(t, ids, 0, 64, 2, 2, nil))
		want("all layers", ask(t, r, "half", ids, seqLayers, ""), 64, 2)
		send(t, r, "half", piece(t, ids, 128, 32, 0, 4, nil))
		want("a gap", ask(t, r, "half", ids, seqLayers, ""), 64, 2)
		send(t, r, "half", piece(t, ids, 64, 64, 0, 4, nil))
		all := ask(t, r, "half", ids, seqLayers, "")
		want("no gap", all, 160, 4)
		want("fewer tokens than the last page", ask(t, r, "half", ids[:150], seqLayers, ""), 128, 3)

		at := 0
		for _, x := range all.Pages {
			blob, err := r.Get(context.Background(), "half", x.Object)
			if err != nil {
				t.Fatalf("Get of %+v: got %v, want nil", x, err)
			}
			c, err := page.DecodeCores(blob, page.DefaultLimits())
			if err != nil || c.TokenFirst != x.TokenFirst || c.LayerFirst != x.LayerFirst || c.Tokens != x.Tokens || x.TokenFirst < at {
				t.Errorf("object of %+v: got tokens from %d, layers from %d, %v", x, c.TokenFirst, c.LayerFirst, err)
			}
			at = x.TokenFirst
		}

		other := slices.Clone(ids)
		other[100] = 7
		want("a sequence that differs at token 100", ask(t, r, "half", other, seqLayers, ""), 64, 2)
		want("another sequence", ask(t, r, "half", sequence(2), seqLayers, ""), 0, 0)
		want("another tenant with the same policy", ask(t, r, "twin", ids, seqLayers, ""), 0, 0)
		want("another tenant", ask(t, r, "quarter", ids, seqLayers, ""), 0, 0)
		want("a tenant whose pages are not stored", ask(t, r, "exact", ids, seqLayers, ""), 0, 0)
		for _, change := range []string{
			`"llama" -> "other"`, `"test" -> "other"`, `BF16 -> F16`, `10000 -> 500000`, `"kv_heads":2 -> "kv_heads":4`, `"head_dim":8 -> "head_dim":16`,
			`"layers" -> "prefix_salt":"lora","layers"`, `"layers" -> "prefix_block":32,"layers"`, `"layers":4 -> "layers":5`,
		} {
			want(change, ask(t, r, "half", ids, seqLayers, change), 0, 0)
		}
		send(t, r, "half", piece(t, ids, 0, 64, 0, 4, map[string]string{page.MetaPrefixSalt: "lora"}))
		want("under a salt", ask(t, r, "half", ids, seqLayers, `"layers" -> "prefix_salt":"lora","layers"`), 64, 1)

		if err := r.store.(interface {
			Delete(context.Context, store.Key) error
		}).Delete(context.Background(), store.Key{Tenant: "half", Object: all.Pages[2].Object}); err != nil {
			t.Fatal(err)
		}
		want("an object in the middle is gone", ask(t, r, "half", ids, seqLayers, ""), 64, 2)
	})
}

func TestAPageWithABadPrefixIsRefused(t *testing.T) {
	shared(t, func(t *testing.T, r *rig) {
		_, err := r.Compress(context.Background(), "half", piece(t, sequence(1), 16, 16, 0, 1, map[string]string{page.MetaPrefix: "xyz"}))
		if got := pipeline.CodeOf(err); got != page.CodeBadPrefix {
			t.Errorf("code: got %s, want %s", got, page.CodeBadPrefix)
		}
		if _, err := r.Prefix(context.Background(), "half", []byte("{")); pipeline.CodeOf(err) != page.CodeBadPrefix {
			t.Errorf("Prefix: got %v, want %s", err, page.CodeBadPrefix)
		}
	})
}

// counting is a compressor that counts, and takes its time.
type counting struct {
	pipeline.Compressor
	n     atomic.Int64
	pause chan struct{} // closed when it may go on
}

func (c *counting) Compress(ctx context.Context, in *compress.Input, opt *compress.Options, out *compress.Result) error {
	c.n.Add(1)
	<-c.pause
	return c.Compressor.Compress(ctx, in, opt, out)
}

// Of several senders of one page, in one sidecar and in several, one has it compressed.
func TestConcurrentMakersOfAnObjectDoTheWorkOnce(t *testing.T) {
	server := redistest.Start(t)
	c := &counting{pause: make(chan struct{})}
	var sidecars []*rig
	for range 2 {
		sidecars = append(sidecars, newRig(t, func(cfg *pipeline.Config) {
			overRedis(t, server.Addr, cfg)
			if c.Compressor == nil {
				c.Compressor = cfg.Compressor
			}
			cfg.Compressor = c
		}))
	}
	blob := piece(t, sequence(1), 0, 64, 0, 4, nil)
	var group sync.WaitGroup
	var bodies sync.Map
	for i := range 6 {
		group.Go(func() {
			out, err := sidecars[i%2].Compress(context.Background(), "half", blob)
			if err != nil {
				t.Errorf("Compress: got %v, want nil", err)
				return
			}
			bodies.Store(i, bytes.Clone(out.Body))
			out.Release()
		})
	}
	redistest.Eventually(t, "one is at work", func() bool { return c.n.Load() > 0 })
	close(c.pause)
	group.Wait()
	if got := c.n.Load(); got != 1 {
		t.Errorf("compressed: got %d times, want 1", got)
	}
	first, _ := bodies.Load(0)
	for i := range 6 {
		if b, _ := bodies.Load(i); first == nil || b == nil || len(b.([]byte)) != len(first.([]byte)) {
			t.Errorf("reply %d is another one than reply 0", i)
		}
	}
}

// Somebody who claims an object and dies costs the others a bounded wait; a Redis that is away costs none.
func TestAClaimIsOnlyACourtesy(t *testing.T) {
	server := redistest.Start(t)
	var claims pipeline.Claims
	r := newRig(t, func(cfg *pipeline.Config) {
		overRedis(t, server.Addr, cfg)
		claims = cfg.Claims
		cfg.Store = memory(t) // so that Redis may die
	})
	rep, _ := send(t, r, "half", piece(t, sequence(1), 0, 64, 0, 4, nil))
	key := store.Key{Tenant: "twin", Object: rep.Object}
	release, mine := claims.Claim(t.Context(), key, time.Hour)
	if !mine {
		t.Fatal("Claim: got none, want it")
	}
	if _, again := claims.Claim(t.Context(), key, time.Hour); again {
		t.Error("Claim of what is claimed: got it, want none")
	}
	release()
	if _, again := claims.Claim(t.Context(), key, time.Hour); !again {
		t.Error("Claim after its release: got none, want it")
	}

	dead := piece(t, sequence(2), 0, 64, 0, 4, nil)
	twin, _ := send(t, r, "twin", dead) // tells the name of the object
	if err := r.store.(*store.Files).Delete(t.Context(), store.Key{Tenant: "twin", Object: twin.Object}); err != nil {
		t.Fatal(err)
	}
	if _, mine := claims.Claim(t.Context(), store.Key{Tenant: "twin", Object: twin.Object}, time.Hour); !mine {
		t.Fatal("Claim: got none, want it")
	}
	if rep, _ := send(t, r, "twin", dead); rep.Outcome != "compressed" {
		t.Errorf("outcome with a dead owner: got %s, want compressed", rep.Outcome)
	}

	server.Kill()
	if rep, _ := send(t, r, "twin", piece(t, sequence(3), 0, 64, 0, 4, nil)); rep.Outcome != "compressed" {
		t.Errorf("outcome without Redis: got %s, want compressed", rep.Outcome)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Compress(ctx, "twin", piece(t, sequence(4), 0, 64, 0, 4, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("Compress, cancelled: got %v, want %v", err, context.Canceled)
	}
}

func memory(t *testing.T) *store.Files {
	t.Helper()
	files, err := store.OpenMemory(store.FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return files
}
