package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport/page"
)

// survived is what a trial prints when it has lived through the page, whatever became of it.
const survived = "survived"

// trial works on a page in a process of its own, and reports whether that process died of it; nil where the program has no command
// for that.
func (s *Sidecar) trial(args []string) func(ctx context.Context, tenant string, blob []byte) (died bool) {
	if len(args) == 0 {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return nil
	}
	return func(ctx context.Context, tenant string, blob []byte) bool {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.Limits.RequestTimeout))
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stdin = io.MultiReader(strings.NewReader(tenant+"\n"), bytes.NewReader(blob))
		cmd.WaitDelay = time.Second
		var out bytes.Buffer
		cmd.Stdout = &out
		err := cmd.Run()
		if strings.TrimSpace(out.String()) == survived {
			return false
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) { // it could not be started: that says nothing of the page
			s.log.Warn("job_trial_failed", "tenant", tenant, "error", err)
			return false
		}
		s.log.Warn("job_trial_died", "tenant", tenant, "bytes", len(blob), "exit", exit.String())
		return true
	}
}

// TryPage compresses the page of in, a tenant's name before it, as serve would, and prints that it has survived that.
func TryPage(ctx context.Context, cfg *config.Config, in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	tenant, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	blob, err := io.ReadAll(io.LimitReader(r, int64(cfg.Compress.MaxPageBytes)+1))
	if err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	set, err := policy.Compile(policy.Source{Name: "builtin", Data: []byte(withoutPolicy)})
	if cfg.Policy.Path != "" {
		var w *watch.Watcher
		if w, err = watch.New(cfg.Policy.Path, watch.Options{}); err == nil {
			set = w.Current()
		}
	}
	if err != nil {
		return err
	}
	compressor := compress.New(1)
	defer compressor.Close()
	limits := page.DefaultLimits()
	limits.MaxBytes = int64(cfg.Compress.MaxPageBytes)
	p, err := pipeline.New(pipeline.Config{Policy: func() *policy.Set { return set }, Compressor: compressor, Models: NewModels(cfg.Models), Limits: limits})
	if err != nil {
		return err
	}
	if done, err := p.Compress(ctx, strings.TrimSpace(tenant), blob); err == nil {
		done.Release()
	}
	_, err = fmt.Fprintln(out, survived)
	return err
}
