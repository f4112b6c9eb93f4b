//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
