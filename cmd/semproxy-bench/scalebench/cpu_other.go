//go:build !linux

package scalebench

import "time"

func cpuOf(int) time.Duration { return 0 }

func machineCPU() (used time.Duration, known bool) { return 0, false }
