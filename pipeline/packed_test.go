package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// keeper keeps a copy of the last result, which is padded.
type keeper struct {
	pipeline.Compressor
	last compress.Result
}

func (k *keeper) Compress(ctx context.Context, in *compress.Input, opt *compress.Options, out *compress.Result) error {
	err := k.Compressor.Compress(ctx, in, opt, out)
	k.last = *out
	k.last.K, k.last.V = slices.Clone(out.K), slices.Clone(out.V)
	k.last.Counts, k.last.Bias, k.last.Positions = slices.Clone(out.Counts), slices.Clone(out.Bias), slices.Clone(out.Positions)
	k.last.Slots, k.last.Assign = slices.Clone(out.Slots), slices.Clone(out.Assign)
	return err
}

func TestAdaptivePageAtHalfTheTokensTakesHalfTheBytes(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range configs.Pages() {
		blob := demoPage(t, name)
		in, err := page.Decode(blob, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		rep, cores := send(t, r, "half", blob)
		if cores.Slots == nil {
			t.Fatalf("%s: got the padded form for heads of different size, want the packed form", name)
		}
		if got := float64(len(cores.K)+len(cores.V)) / float64(len(in.K)+len(in.V)); got > 0.56 || math.Abs(got-rep.Ratio) > 1e-9 {
			t.Errorf("%s: got %.3f of K's and V's bytes, want the ratio %.3f, at most 0.56", name, got, rep.Ratio)
		}
		if got := float64(rep.BytesOut) / float64(rep.BytesIn); got > 0.56 {
			t.Errorf("%s: got %.3f of all bytes, want at most 0.56", name, got)
		}
	}
}

func TestHeadsOfOneSizeStayPadded(t *testing.T) {
	r := newRig(t, nil)
	for _, tenant := range []string{"quarter", "exact"} {
		if _, cores := send(t, r, tenant, demoPage(t, "kjv")); cores.Slots != nil {
			t.Errorf("%s: got the packed form, want the padded form: its heads are of one size", tenant)
		}
	}
}

func TestEveryHeadOfTheReplyIsTheCompressors(t *testing.T) {
	k := &keeper{}
	r := newRig(t, func(c *pipeline.Config) { k.Compressor, c.Compressor = c.Compressor, k })
	for _, name := range configs.Pages() {
		for _, tenant := range []string{"half", "quarter", "similar", "paper"} {
			_, cores := send(t, r, tenant, demoPage(t, name))
			res := &k.last
			row := len(res.K) / len(res.Counts)
			for plane, slots := range res.Slots {
				got, n, first := cores.Head(plane/res.Heads, plane%res.Heads), int(slots), plane*res.Cores
				if got.N != n || !bytes.Equal(got.K, res.K[first*row:(first+n)*row]) || !bytes.Equal(got.V, res.V[first*row:(first+n)*row]) {
					t.Fatalf("%s/%s: head %d: got %d cores or other rows, want the compressor's %d", name, tenant, plane, got.N, n)
				}
				for i := range n {
					count, bias := int32(word(got.Counts, i)), math.Float32frombits(word(got.Bias, i))
					at := math.Float32frombits(word(got.Positions, i))
					if count != res.Counts[first+i] || bias != res.Bias[first+i] || at != res.Positions[first+i] {
						t.Fatalf("%s/%s: head %d, core %d: got count %d, bias %v, position %v; want %d, %v, %v", name, tenant, plane, i,
							count, bias, at, res.Counts[first+i], res.Bias[first+i], res.Positions[first+i])
					}
				}
			}
			for i := range len(cores.Assign) / 4 {
				if got := int32(word(cores.Assign, i)); got != res.Assign[i] {
					t.Fatalf("%s/%s: token %d: got core %d, want %d", name, tenant, i, got, res.Assign[i])
				}
			}
		}
	}
}

func word(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }

func TestThePackedFormComesFromTheStoreAsItWent(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv")
	first, cores := send(t, r, "half", blob)
	second, again := send(t, r, "half", blob)
	if second.Outcome != semconv.OutcomeStored || second.BytesOut != first.BytesOut {
		t.Fatalf("outcome %q of %d bytes, want stored, %d bytes", second.Outcome, second.BytesOut, first.BytesOut)
	}
	object, err := r.Get(context.Background(), "half", first.Object)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := page.DecodeCores(object, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]*page.Cores{"sent again": again, "got by its key": kept} {
		if got.Slots == nil || !bytes.Equal(got.Slots, cores.Slots) || got.Cores != cores.Cores || !bytes.Equal(got.K, cores.K) || !bytes.Equal(got.V, cores.V) ||
			!bytes.Equal(got.Counts, cores.Counts) || !bytes.Equal(got.Bias, cores.Bias) || !bytes.Equal(got.Positions, cores.Positions) || !bytes.Equal(got.Assign, cores.Assign) {
			t.Errorf("%s: the cores differ from the first reply's", name)
		}
	}
}
