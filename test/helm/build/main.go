// Command build makes the programs of the control plane, unless this machine has them already, and prints their folder.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/semproxy/semproxy/test/helm/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := controlplane.Build(ctx, ".", os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
	fmt.Println(dir)
}
