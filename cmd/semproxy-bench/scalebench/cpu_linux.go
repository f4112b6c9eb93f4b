package scalebench

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the kernel's unit of processor time.
const tick = 10 * time.Millisecond

// cpuOf is what a process has used so far, in user and system mode. One that has ended counts as nothing.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(text, ')') // the command's name may hold anything
	return ticks(strings.Fields(string(text[i+1:]))[11:13])
}

// machineCPU is what all processes of the machine have used so far. known is false where that cannot be told.
func machineCPU() (used time.Duration, known bool) {
	text, err := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	if err != nil || len(f) < 9 || f[0] != "cpu" {
		return 0, false
	}
	return ticks(f[1:4]) + ticks(f[6:9]), true // without idle and iowait
}

func ticks(fields []string) (sum time.Duration) {
	for _, f := range fields {
		n, _ := strconv.ParseInt(f, 10, 64) // the kernel's own
		sum += time.Duration(n) * tick
	}
	return sum
}
