package pipeline

import (
	"maps"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/transport/page"
)

// An upgraded sidecar must not serve what an older one made: a changed preset changes object keys and places of prefixes, for
// every method, though the policy is the same.
func TestAChangedPresetChangesKeysAndPlaces(t *testing.T) {
	for _, method := range slices.Sorted(maps.Keys(presets)) {
		d := policy.Decision{PolicyDigest: "d", Plan: policy.Profile{Method: method, Ratio: 0.5, Chunk: policy.Chunk{Min: 64, Max: 96}}}
		j := &job{tenant: "acme", page: &page.Page{}}
		object, at := j.object(&d), place("acme", [32]byte{}, terms(&d, "m"), page.Link{})
		if got := j.object(&d); got != object {
			t.Fatalf("%s: the key is not the same for the same page: %s and %s", method, got, object)
		}
		preset := presets[method]
		presets[method] = func() compress.Options {
			o := preset()
			o.Recency += 0.5
			return o
		}
		newObject, newAt := j.object(&d), place("acme", [32]byte{}, terms(&d, "m"), page.Link{})
		presets[method] = preset
		if newObject == object || newAt == at {
			t.Errorf("%s: a changed preset leaves the object's key or the prefix's place as it was", method)
		}
	}
}
