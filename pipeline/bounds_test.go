package pipeline_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/transport/page"
)

// The goals of docs/explanation/reliability.md: what a page may cost by its bytes, whatever its shape.
const (
	memoryPerByte = 12
	memoryFixed   = 64 << 20
	secondsPerMiB = 2.0
	leastBytes    = 256 << 10
)

// shape is a page that was made up.
type shape struct {
	layers, heads, tokens, dim int
	qheads, queries            int // 0: none
	dtype                      page.DType
	keys                       string // random, equal, orthogonal
	boundary, protect, sparse  bool
	block                      int // of the prefix; 0: none is said
	profile                    string
	costly                     bool // it must be refused, by its work alone
}

func (s shape) String() string {
	return fmt.Sprintf("%s [%d,%d,%d,%d] %s q[%d,%d] keys=%s boundary=%v protect=%v sparse=%v block=%d",
		s.profile, s.layers, s.heads, s.tokens, s.dim, s.dtype, s.qheads, s.queries, s.keys, s.boundary, s.protect, s.sparse, s.block)
}

// shapeProfiles are the ways to compress that differ in what they need.
var shapeProfiles = map[string]string{
	"weighted":  "{ method: weighted, ratio: 0.25 }",
	"tiny":      "{ method: weighted, ratio: 0.001 }",
	"guarded":   "{ method: weighted, ratio: 0.02, guard: { maxAttentionError: 0.0001, onViolation: relax } }",
	"longest":   "{ method: semantic, ratio: 0.25, chunk: { min: 1024, max: 1024 } }",
	"shortest":  "{ method: semantic, ratio: 0.25, chunk: { min: 1, max: 1 } }",
	"wide":      "{ method: semantic, ratio: 0.25, chunk: { min: 1, max: 1024 } }",
	"shared":    "{ method: semantic, ratio: 0.25, clusters: shared }",
	"equal":     "{ method: semantic, ratio: 0.05, budget: equal, regular: true }",
	"layered":   "{ method: weighted, ratio: 0.125, budget: layered }",
	"threshold": "{ method: semantic, threshold: 0.9 }",
	"paper":     "{ method: paper, ratio: 0.25 }",
	"hybrid":    "{ method: hybrid, ratio: 0.25 }",
	"attention": "{ method: attention, ratio: 0.25 }",
	"window":    "{ method: window, ratio: 0.25 }",
	"uniform":   "{ method: uniform, ratio: 0.25 }",
	"keynorm":   "{ method: keynorm, ratio: 0.25 }",
	"fp8":       "{ method: weighted, ratio: 0.25, fp8: true, assign: true }",
	"none":      "{ method: none }",
}

func shapeRules() string {
	b := "apiVersion: semproxy.io/v1\nprofiles:\n"
	for name, p := range shapeProfiles {
		b += "  " + name + ": " + p + "\n"
	}
	b += "tenants:\n"
	for name := range shapeProfiles {
		b += "  " + name + ": { rules: [ { profile: " + name + " } ] }\n"
	}
	return b
}

// draw makes up a shape of at most so many bytes: dimensions are drawn by their logarithm, so that extremes are as likely as
// what is usual.
func draw(rng *rand.Rand, most int) shape {
	upTo := func(n int) int { return int(math.Exp(rng.Float64() * math.Log(float64(max(n, 1))+0.999))) }
	names := make([]string, 0, len(shapeProfiles))
	for name := range shapeProfiles {
		names = append(names, name)
	}
	// The order of a map is not the seed's.
	for i := range names {
		for k := i + 1; k < len(names); k++ {
			if names[k] < names[i] {
				names[i], names[k] = names[k], names[i]
			}
		}
	}
	s := shape{profile: names[rng.IntN(len(names))], dtype: page.DType(1 + rng.IntN(5)), keys: []string{"random", "equal", "orthogonal"}[rng.IntN(3)],
		boundary: rng.IntN(2) == 0, protect: rng.IntN(3) == 0, sparse: rng.IntN(3) == 0, block: []int{0, 1, 16}[rng.IntN(3)]}
	s.dim = upTo(256)
	if rng.IntN(2) == 0 {
		s.dim = []int{1, 2, 64, 128}[rng.IntN(4)]
	}
	s.layers, s.heads = upTo(64), upTo(64)
	row := 2 * s.layers * s.heads * s.dim * s.dtype.Size()
	s.tokens = max(1, upTo(max(1, most/(row+8))))
	if left := most - s.tokens*(row+8); left > 0 && rng.IntN(3) > 0 {
		s.qheads = s.heads * upTo(8)
		if s.queries = upTo(left / max(1, 2*s.layers*s.qheads*s.dim)); s.queries == 0 {
			s.qheads = 0
		}
	}
	return s
}

// blob is the page of a shape.
func (s shape) blob(t testing.TB, rng *rand.Rand) []byte {
	t.Helper()
	size := s.dtype.Size()
	fill := func(n int, kind string) []byte {
		b := make([]byte, n*size)
		one := element(s.dtype)
		for i := range n {
			at := b[i*size : (i+1)*size]
			switch kind {
			case "random":
				copy(at, one)
				at[0] = byte(rng.IntN(64)) // finite in every type
				if size > 1 && rng.IntN(2) == 0 {
					at[size-1] ^= 0x80
				}
			case "equal":
				copy(at, one)
			case "orthogonal":
				if i%s.dim == (i/s.dim)%s.dim {
					copy(at, one)
				}
			}
		}
		return b
	}
	planes := s.layers * s.heads
	p := &page.Page{Model: "m", Sequence: "s", Layout: "l", Layers: s.layers, KVHeads: s.heads, Tokens: s.tokens, HeadDim: s.dim,
		TokensTotal: s.tokens, Pages: 1, DType: s.dtype, Rope: page.Rope{Type: "none"},
		K: fill(planes*s.tokens*s.dim, s.keys), V: fill(planes*s.tokens*s.dim, "random")}
	if s.dim%2 == 0 {
		p.Rope = page.Rope{Type: "default", Theta: 10000, RotaryDim: s.dim}
	}
	ids, at := make([]int32, s.tokens), make([]int32, s.tokens)
	for i := range ids {
		ids[i], at[i] = int32(rng.IntN(1000)), int32(i)
		if s.sparse {
			at[i] = int32(i * (math.MaxInt32 / (s.tokens + 1)))
		}
	}
	p.TokenIDs, p.Positions = page.IntsOf(ids), page.IntsOf(at)
	if s.dtype.IsF8() {
		scale := make([]byte, 0, 4*planes)
		for range planes {
			scale = binary.LittleEndian.AppendUint32(scale, math.Float32bits(1))
		}
		p.KScale, p.VScale = scale, scale
	}
	if s.queries > 0 {
		p.QHeads, p.Window, p.QDType = s.qheads, s.queries, s.dtype
		p.Q = fill(s.layers*s.qheads*s.queries*s.dim, "random")
	}
	if s.boundary {
		p.Boundary = make([]byte, s.tokens)
		for i := range p.Boundary {
			p.Boundary[i] = 1
		}
	}
	if s.protect { // all but a few
		p.Protect = make([]byte, s.tokens)
		for i := range p.Protect {
			if i%97 != 0 {
				p.Protect[i] = 1
			}
		}
	}
	if s.block > 0 {
		p.Extra = map[string]string{page.MetaPrefixBlock: strconv.Itoa(s.block)}
	}
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return blob
}

// element is a number near one.
func element(d page.DType) []byte {
	switch d {
	case page.BF16:
		return []byte{0x80, 0x3f}
	case page.F16:
		return []byte{0x00, 0x3c}
	case page.F32:
		return []byte{0, 0, 0x80, 0x3f}
	case page.F8E4M3:
		return []byte{0x38}
	}
	return []byte{0x3c}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// found is what a page of a shape cost.
type found struct {
	shape            shape
	bytes, allocated int
	cpu              time.Duration
	code             string // that it was refused with
}

// perMiB is the processor's time for a MiB of page.
func (f *found) perMiB() float64 {
	return f.cpu.Seconds() / (float64(max(f.bytes, leastBytes)) / (1 << 20))
}

// share is how much of what it may allocate it did.
func (f *found) share() float64 {
	return float64(f.allocated) / (memoryPerByte*float64(f.bytes) + memoryFixed)
}

// table shows the worst five by memory and by time; docs/explanation/reliability.md has it.
func table(t *testing.T, all []found) {
	t.Helper()
	t.Log("| worst by | shape: profile [layers, heads, tokens, dim] | page | allocated | of what it may | CPU per MiB |")
	t.Log("| --- | --- | --- | --- | --- | --- |")
	for _, by := range []struct {
		name string
		of   func(*found) float64
	}{{"memory", (*found).share}, {"CPU", (*found).perMiB}} {
		slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(by.of(&b), by.of(&a)) })
		for _, f := range all[:min(5, len(all))] {
			t.Logf("| %s | %s | %d KiB | %.1f MiB | %.0f %% | %.2f s |", by.name, f.shape, f.bytes>>10, float64(f.allocated)/(1<<20), 100*f.share(), f.perMiB())
		}
	}
}

// No page costs more memory or time than its bytes allow, whatever its shape; one that would is refused with page.too_costly.
// SEMPROXY_TEST_SHAPES says how many shapes are made up, SEMPROXY_TEST_SEED which.
func TestWorstShapesStayWithinTheirBytes(t *testing.T) {
	n, seed := intFrom(t, "SEMPROXY_TEST_SHAPES", 150), intFrom(t, "SEMPROXY_TEST_SEED", 1)
	rng := rand.New(rand.NewPCG(uint64(seed), 16))
	shapes := []shape{
		{layers: 1, heads: 1, tokens: 60000, dim: 2, qheads: 1, queries: 60000, dtype: page.F16, keys: "random", profile: "weighted"},
		{layers: 1, heads: 1, tokens: 14000, dim: 2, qheads: 1, queries: 14000, dtype: page.F16, keys: "random", profile: "weighted"},
		{layers: 1, heads: 1, tokens: 60000, dim: 2, qheads: 1, queries: 60000, dtype: page.F16, keys: "random", profile: "attention", costly: true},
		{layers: 1, heads: 1, tokens: 14000, dim: 2, qheads: 1, queries: 14000, dtype: page.F16, keys: "random", profile: "attention"},
		{layers: 1, heads: 1, tokens: 100, dim: 2, qheads: 1, queries: 1_000_000, dtype: page.F8E4M3, keys: "random", profile: "weighted"},
		{layers: 1, heads: 1, tokens: 100, dim: 1, qheads: 1000, queries: 1000, dtype: page.F8E4M3, keys: "random", profile: "weighted"},
		{layers: 1, heads: 1, tokens: 700000, dim: 1, dtype: page.F8E4M3, keys: "random", profile: "weighted"},
		{layers: 1, heads: 700, tokens: 5000, dim: 1, dtype: page.F8E4M3, keys: "random", profile: "weighted"},
		{layers: 512, heads: 64, tokens: 100, dim: 1, dtype: page.F8E4M3, keys: "random", profile: "weighted"},
		{layers: 1, heads: 1, tokens: 4000, dim: 64, dtype: page.F8E4M3, keys: "orthogonal", protect: true, profile: "tiny"},
	}
	for i := range n {
		most := 1 << 20
		if i%8 == 7 {
			most = 8 << 20
		}
		shapes = append(shapes, draw(rng, most))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var all []found
	refused := 0
	for _, s := range shapes {
		f := cost(t, s, rng)
		switch f.code {
		case "", "page.no_queries":
		case "page.too_costly":
			refused++
		default:
			t.Errorf("%s: %s", s, f.code)
		}
		if s.costly && f.code != "page.too_costly" {
			t.Errorf("%s (%d bytes): got %q, want page.too_costly: its work is not its bytes'", s, f.bytes, f.code)
		}
		if f.share() > 1 {
			t.Errorf("%s (%d bytes): allocated %.1f MiB", s, f.bytes, float64(f.allocated)/(1<<20))
		}
		for range 2 { // other work on the machine costs a processor's time too
			if f.perMiB() <= secondsPerMiB*slower {
				break
			}
			if again := cost(t, s, rng); again.cpu < f.cpu {
				f = again
			}
		}
		if f.perMiB() > secondsPerMiB*slower {
			t.Errorf("%s (%d bytes): %v of CPU", s, f.bytes, f.cpu)
		}
		all = append(all, f)
	}
	table(t, all)
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(b.share(), a.share()) })
	memory := all[0].share()
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(b.perMiB(), a.perMiB()) })
	t.Logf("%d shapes, %d refused, the worst allocated %.0f %% of 64 MiB and 12 bytes per byte, the slowest took %.2f s of CPU per MiB",
		len(shapes), refused, 100*memory, all[0].perMiB())
}

// cost is what compressing a page of that shape took.
func cost(t *testing.T, s shape, rng *rand.Rand) found {
	t.Helper()
	blob := s.blob(t, rng)
	r := newRigOf(t, shapeRules(), func(c *pipeline.Config) { c.Store = nil })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := cpuTime()
	out, err := r.Compress(context.Background(), s.profile, blob)
	f := found{shape: s, bytes: len(blob), cpu: cpuTime() - began}
	runtime.ReadMemStats(&after)
	f.allocated = int(after.TotalAlloc - before.TotalAlloc)
	if err == nil {
		out.Release()
	} else {
		f.code = pipeline.CodeOf(err)
	}
	return f
}

func intFrom(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// A page that models and engines send is never too costly: 8 or 16 queries to a KV head, 64 positions, a guard that relaxes.
func TestUsualPagesAreNotTooCostly(t *testing.T) {
	for name, p := range shapeProfiles {
		for _, s := range []compress.Size{
			{Layers: 4, Heads: 8, Tokens: 2048, Dim: 128, Elem: 2, QHeads: 64, Queries: 64},
			{Layers: 1, Heads: 8, Tokens: 32768, Dim: 128, Elem: 2, QHeads: 128, Queries: 64},
			{Layers: 8, Heads: 8, Tokens: 1024, Dim: 64, Elem: 2, QHeads: 32, Queries: 64},
			{Layers: 8, Heads: 8, Tokens: 1024, Dim: 64, Elem: 1, QHeads: 64, Queries: 64},
			{Layers: 30, Heads: 3, Tokens: 4096, Dim: 64, Elem: 2, QHeads: 9, Queries: 64},
			{Layers: 2, Heads: 1, Tokens: 8192, Dim: 256, Elem: 2, QHeads: 8, Queries: 64},
		} {
			if strings.Contains(p, "max: 1024") { // longer than anybody's
				continue
			}
			if err := pipeline.Afford(s, shapeRules(), name); err != nil {
				t.Errorf("%s %+v: %v", name, s, err)
			}
		}
	}
}

// What an unusual page needed is given back when usual ones follow.
func TestMemoryOfAnUnusualPageIsGivenBack(t *testing.T) {
	r := newRigOf(t, shapeRules(), func(c *pipeline.Config) { c.Store = nil })
	rng := rand.New(rand.NewPCG(1, 2))
	large := shape{layers: 1, heads: 24, tokens: 24000, dim: 8, dtype: page.BF16, keys: "random", profile: "weighted"}.blob(t, rng)
	small := shape{layers: 1, heads: 2, tokens: 200, dim: 8, dtype: page.BF16, keys: "random", profile: "weighted"}.blob(t, rng)
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC() // once: a second collection would empty every pool
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	run := func(blob []byte) {
		out, err := r.Compress(context.Background(), "weighted", blob)
		if err != nil {
			t.Fatal(err)
		}
		out.Release()
	}
	run(small)
	before := heap()
	run(large)
	for range 64 {
		run(small)
	}
	if kept := heap() - before; kept > 16 {
		t.Errorf("%.0f MiB are still held after usual pages, of a page that needed more than is kept", kept)
	}
}

func TestQueriesInEightBitsAreMeasured(t *testing.T) {
	r := newRigOf(t, shapeRules(), func(c *pipeline.Config) { c.Store = nil })
	for _, d := range []page.DType{page.F8E4M3, page.F8E5M2} {
		blob := shape{layers: 1, heads: 2, tokens: 300, dim: 64, qheads: 4, queries: 8, dtype: d, keys: "random", profile: "weighted"}.blob(t, rand.New(rand.NewPCG(1, 1)))
		out, err := r.Compress(context.Background(), "weighted", blob)
		if err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		if !out.Measured || out.AttentionError <= 0 {
			t.Errorf("%s: got error %v, measured %v, want it measured", d, out.AttentionError, out.Measured)
		}
		out.Release()
	}
}
