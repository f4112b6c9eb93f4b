package proxybench

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a process and its children have used so far, and hold now.
type usage struct {
	cpu    time.Duration // user and system, in ticks of 10 ms
	memory int64         // bytes of anonymous memory that is resident
}

// usageOf reads /proc. What has ended in the meantime counts as nothing.
func usageOf(pid int) usage {
	var u usage
	dir := "/proc/" + strconv.Itoa(pid)
	if text, err := os.ReadFile(dir + "/stat"); err == nil {
		if i := bytes.LastIndexByte(text, ')'); i >= 0 { // the command's name may hold anything
			fields := strings.Fields(string(text[i+1:]))
			for _, f := range fields[11:13] { // utime, stime
				ticks, _ := strconv.ParseInt(f, 10, 64) // the kernel's own
				u.cpu += time.Duration(ticks) * 10 * time.Millisecond
			}
		}
	}
	if text, err := os.ReadFile(dir + "/status"); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				u.memory = kib << 10
			}
		}
	}
	if text, err := os.ReadFile(dir + "/task/" + strconv.Itoa(pid) + "/children"); err == nil {
		for _, f := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				of := usageOf(child)
				u.cpu, u.memory = u.cpu+of.cpu, u.memory+of.memory
			}
		}
	}
	return u
}

// pause sleeps more exactly than the runtime's timers, which are as coarse as a millisecond when nothing else happens.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&t, &t) == syscall.EINTR { //nolint:errorlint // an errno of the system call itself
	}
}

// openFiles is how many files a process may open, at most.
func openFiles() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Max, 1<<20))
}

// loadAverage is that of the last minute.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

// processor is the model's name.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
