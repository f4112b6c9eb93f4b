package pipeline_test

import (
	"context"
	"math"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/transport/page"
)

func TestRemeasuringTheReplyGivesTheErrorThatTheReplyTells(t *testing.T) {
	r := newRig(t, nil)
	c := compress.New(2)
	defer c.Close()
	for _, name := range configs.Pages() {
		for _, tenant := range []string{"half", "quarter", "similar", "paper", "exact"} {
			blob := demoPage(t, name)
			p, err := page.Decode(blob, page.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			rep, cores := send(t, r, tenant, blob)
			f, err := pipeline.Remeasure(context.Background(), c, p, cores)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(f.Error-rep.AttentionError) > 1e-6 || math.Abs(f.Worst-rep.WorstError) > 1e-6 {
				t.Errorf("%s/%s: got error %v, worst %v; the reply says %v, %v", name, tenant, f.Error, f.Worst, rep.AttentionError, rep.WorstError)
			}
		}
	}
}

func TestRemeasuringSeesCoresThatWereChanged(t *testing.T) {
	r := newRig(t, nil)
	c := compress.New(2)
	defer c.Close()
	blob := demoPage(t, "kjv")
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	rep, cores := send(t, r, "half", blob)
	v := cores.V
	cores.V = append(append([]byte{}, v[len(v)/2:]...), v[:len(v)/2]...) // the heads' values changed places
	f, err := pipeline.Remeasure(context.Background(), c, p, cores)
	if err != nil {
		t.Fatal(err)
	}
	if f.Error < 2*rep.AttentionError {
		t.Errorf("got error %v for changed values, %v for the reply's own", f.Error, rep.AttentionError)
	}
	cores.Tokens++
	if _, err := pipeline.Remeasure(context.Background(), c, p, cores); err == nil {
		t.Error("got no error for cores of another page")
	}
}
