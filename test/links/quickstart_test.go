package links

import (
	"os"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The quickstart's policy is checked as a file and installed by the chart's values: both are the same.
func TestTheQuickstartsPolicyIsThatOfItsValues(t *testing.T) {
	read := func(name string) map[string]any {
		raw, err := os.ReadFile(root + "/helm/examples/quickstart/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := read("policy.yaml")
	delete(want, "apiVersion") // the chart writes it
	if got := read("semproxy.yaml")["policy"]; !reflect.DeepEqual(got, want) || len(want) != 2 {
		t.Errorf("got %v, want %v", got, want)
	}
}
