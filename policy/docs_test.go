package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

// What the manual shows as a policy is one, without a warning.
func TestManualShowsPoliciesThatCompile(t *testing.T) {
	manual, err := os.ReadFile("../docs/reference/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(manual), -1)
	if len(blocks) == 0 {
		t.Fatal("got no YAML in docs/reference/policy.md, want some")
	}
	for _, block := range blocks {
		set, err := policy.Compile(policy.Source{Name: "docs/reference/policy.md", Data: []byte(block[1])})
		if err != nil {
			t.Errorf("got error %v, want none, for\n%s", err, block[1])
			continue
		}
		if got := set.Warnings(); len(got) != 0 {
			t.Errorf("got warnings %v, want none", got)
		}
	}
	for _, kind := range []string{policy.WarnLossy, policy.WarnUnsafe, policy.WarnEvicts, policy.WarnUnreachable, policy.WarnUnused, policy.WarnUnnamed, policy.WarnGuard, policy.WarnPattern, policy.WarnReserved, policy.WarnRecord} {
		if !strings.Contains(string(manual), "`"+kind+"`") {
			t.Errorf("the manual does not explain the warning %s", kind)
		}
	}
}
