package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// options are the flags.
type options struct {
	root      string // folder of the main module
	out       string // folder of the OCI layout, replaced whole
	version   string
	platforms []string          // architectures of the plain image
	gpu       []string          // of the one with GPU support
	debs      map[string]string // libc6 by architecture; others are fetched with apt-get
	folder    string            // of which only the provenance is written; empty: images are made
	chart     string            // file of a packaged chart that goes with them; empty: none
	push      string            // repository, such as 127.0.0.1:5000/semproxy
	budget    int64             // compressed bytes of an image
	created   time.Time
	revision  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		return nil // it has been printed
	}
	if err != nil {
		return err
	}
	if o.folder != "" {
		return o.attestFolder(o.folder)
	}
	images, err := o.build(ctx)
	if err != nil {
		return err
	}
	if err := images.write(o.out); err != nil {
		return err
	}
	var packed *chart
	if o.chart != "" {
		if packed, err = readChart(o.chart, o.created); err != nil {
			return err
		}
		if err := packed.write(o.out); err != nil {
			return err
		}
	}
	if err := images.report(stdout, o.budget); err != nil {
		return err
	}
	if o.push == "" {
		return nil
	}
	if err := images.push(ctx, o.push, stdout); err != nil || packed == nil {
		return err
	}
	return packed.push(ctx, o.push, stdout)
}

func parse(ctx context.Context, args []string) (*options, error) {
	o := &options{debs: map[string]string{}}
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	var platforms, gpu string
	f.StringVar(&o.root, "root", "../..", "folder of semproxy's sources")
	f.StringVar(&o.out, "out", "../../dist/image", "folder for the OCI layout and the SPDX documents; replaced whole")
	f.StringVar(&o.version, "version", "", "version of the images (default: git describe)")
	f.StringVar(&platforms, "arch", "amd64,arm64", "architectures of the plain image")
	f.StringVar(&gpu, "gpu-arch", "amd64", "architectures of the image with GPU support; empty: none")
	f.Func("libc-deb", "Debian's libc6 as ARCH=FILE, for a machine without apt-get or network (may be repeated)", func(s string) error {
		arch, file, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("must be ARCH=FILE")
		}
		o.debs[arch] = file
		return nil
	})
	f.StringVar(&o.chart, "chart", "", "packaged chart (.tgz) that goes into the layout too, and is pushed to charts beside the repository; empty: none")
	f.StringVar(&o.folder, "attest", "", "make no image, but write the provenance (SLSA, unsigned) of all files of this folder into it")
	f.StringVar(&o.push, "push", "", "repository to push to, such as 127.0.0.1:5000/semproxy")
	f.Int64Var(&o.budget, "budget", 32<<20, "most bytes that an image may have, compressed")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	o.platforms, o.gpu = split(platforms), split(gpu)
	return o, o.sources(ctx)
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// sources asks git what is built. Outside of a repository the version must be given, and the time is SOURCE_DATE_EPOCH's or 1970.
func (o *options) sources(ctx context.Context) error {
	git := func(args ...string) string {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = o.root
		out, err := cmd.Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	o.revision = git("rev-parse", "HEAD")
	if o.version == "" {
		o.version = git("describe", "--tags", "--always", "--dirty")
	}
	if o.version == "" {
		return fmt.Errorf("%s is not a git repository: give --version", o.root)
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		seconds = git("log", "-1", "--format=%ct")
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil && seconds != "" {
		return fmt.Errorf("SOURCE_DATE_EPOCH must be a number of seconds, got %q", seconds)
	}
	o.created = time.Unix(n, 0).UTC()
	return nil
}

// report lists the images, and refuses those over the budget.
func (s imageSet) report(w io.Writer, budget int64) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tPLATFORM\tCOMPRESSED\tFILES\tDIGEST")
	var over error
	for _, tag := range s {
		for _, i := range tag.images {
			fmt.Fprintf(t, "%s\tlinux/%s\t%.1f MiB\t%.1f MiB\t%s\n", tag.name, i.arch, mib(i.compressed), mib(i.files), i.digest)
			if i.compressed > budget {
				over = fmt.Errorf("%s for %s has %.1f MiB, the budget is %.1f MiB", tag.name, i.arch, mib(i.compressed), mib(budget))
			}
		}
		fmt.Fprintf(t, "%s\tindex\t\t\t%s\n", tag.name, tag.digest)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return over
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// compile builds the program for an architecture and returns its file in dir.
func (o *options) compile(ctx context.Context, dir, arch string, gpu bool) (string, error) {
	file := filepath.Join(dir, fmt.Sprintf("semproxy-%s-%v", arch, gpu))
	says := fmt.Sprintf("-s -w -X main.version=%s -X main.commit=%s -X main.date=%s", o.version, o.revision, o.created.Format(time.RFC3339))
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "nomsgpack", "-ldflags", says, "-o", file}
	if !gpu {
		args = append(args, "-tags", "nogpu,nomsgpack")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/semproxy")...)
	cmd.Dir, cmd.Stderr = o.root, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build for %s: %w", arch, err)
	}
	return file, nil
}
