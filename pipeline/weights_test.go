package pipeline_test

import (
	"context"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/transport/page"
)

func TestAHeadThatWeighsMoreKeepsMore(t *testing.T) {
	r := newRig(t, nil)
	_, even := send(t, r, "weighted", demoPage(t, "kjv"))
	_, got := send(t, r, "heads", demoPage(t, "kjv"))
	if got, even := got.Head(3, 0).N, even.Head(3, 0).N; got <= even {
		t.Errorf("head 3/0 has %d cores at weight 4, want more than the %d at 1", got, even)
	}
}

// A page of some layers takes the weights of those.
func TestHeadWeightsFollowTheLayersOfThePage(t *testing.T) {
	r := newRig(t, nil)
	p, err := page.Decode(demoPage(t, "kjv"), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	whole := p.Layers
	cut := func(b []byte, from, to int) []byte { return b[from*len(b)/whole : to*len(b)/whole] }
	k, v, q := p.K, p.V, p.Q
	two := func(first int) []byte {
		p.Layers, p.LayerFirst, p.K, p.V, p.Q = 2, first, cut(k, 3, 5), cut(v, 3, 5), cut(q, 3, 5)
		blob, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	_, even := send(t, r, "heads", two(0)) // as if they were the first layers, which weigh the same
	_, got := send(t, r, "heads", two(3))
	if got, even := got.Head(0, 0).N, even.Head(0, 0).N; got <= even {
		t.Errorf("head 3/0 has %d cores at weight 4, want more than the %d at 1", got, even)
	}
	for tenant, blob := range map[string][]byte{"heads": two(4), "alien": demoPage(t, "kjv")} {
		_, err := r.Compress(context.Background(), tenant, blob)
		if got := pipeline.CodeOf(err); got != "policy.head_weights" || !strings.Contains(err.Error(), "profile "+tenant) {
			t.Errorf("%s: got %v, want policy.head_weights that names the profile", tenant, err)
		}
	}
}
