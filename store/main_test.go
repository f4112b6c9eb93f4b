package store_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary play another part: it runs one of children and exits.
const childEnv = "SEMPROXY_STORE_TEST_CHILD"

var children = map[string]func() int{}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(children[name]())
	}
	goleak.VerifyTestMain(m)
}
