//go:build !linux

package proxybench

import "time"

// usage is not known here.
type usage struct {
	cpu    time.Duration
	memory int64
}

func usageOf(int) usage { return usage{} }

func pause(d time.Duration) { time.Sleep(d) }

func openFiles() int { return 1024 }

func loadAverage() string { return "" }

func processor() string { return "" }
