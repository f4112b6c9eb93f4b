package scalebench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Namespaced starts this program again in a network namespace of its own, in which servers get namespaces of theirs. Nothing
// of the machine's network is touched, and all of it ends with the processes. err says why it cannot be.
func Namespaced(program string, args ...string) (*exec.Cmd, error) {
	for _, tool := range []string{"unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, err
		}
	}
	if out, err := exec.Command("unshare", "--net", "ip", "link", "add", "b0", "type", "bridge").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no network namespaces here: %w: %s", err, bytes.TrimSpace(out))
	}
	return exec.Command("unshare", append([]string{"--net", program}, args...)...), nil
}

// bridge is the switch of the namespace in which the bench runs. Its own address is the first.
const bridge = "b0"

func address(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// openBridge prepares the namespace that the bench runs in.
func openBridge() error {
	return errors.Join(ip("link", "set", "lo", "up"), ip("link", "add", bridge, "type", "bridge"),
		ip("addr", "add", address(0)+"/24", "dev", bridge), ip("link", "set", bridge, "up"))
}

func ip(args ...string) error { return tool("ip", args...) }

func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// namespace is a network of its own with one address, joined to the bridge.
type namespace struct{ index int }

func (n namespace) host() string { return address(n.index) }

// command starts the program in a new namespace; it waits there until the namespace has its network.
func (n namespace) command(program string, args ...string) (*exec.Cmd, func() error, error) {
	cmd := exec.Command("unshare", append([]string{"--net", "sh", "-c", `read -r go && exec "$@"`, "sh", program}, args...)...)
	gate, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, func() error { return n.connect(cmd, gate) }, nil
}

func (n namespace) connect(cmd *exec.Cmd, gate io.WriteCloser) error {
	defer func() { _ = gate.Close() }()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	for its := own; its == own; { // until unshare has done it
		if its, err = os.Readlink("/proc/" + pid + "/ns/net"); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	outer := "v" + strconv.Itoa(n.index)
	within := []string{"-t", pid, "-n", "ip"}
	err = errors.Join(
		ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", pid),
		ip("link", "set", outer, "master", bridge, "up"),
		tool("nsenter", append(within, "addr", "add", n.host()+"/24", "dev", "eth0")...),
		tool("nsenter", append(within, "link", "set", "eth0", "up")...),
		tool("nsenter", append(within, "link", "set", "lo", "up")...),
	)
	if err != nil {
		return err
	}
	_, err = io.WriteString(gate, "go\n")
	return err
}

// received reads the namespace's own counter.
func (n namespace) received(pid int) (int64, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "eth0:"); ok {
			bytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return bytes, err == nil
		}
	}
	return 0, false
}
