// Command semproxy compresses KV-cache pages beside an inference engine. Run it with --help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "semproxy:", err)
		stop()
		os.Exit(exit.Code(err)) //nolint:gocritic // stop has been called
	}
}
