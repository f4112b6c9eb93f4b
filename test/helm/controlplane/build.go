package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// programs are what a control plane is made of, with the packages that the module's "tool" lines name.
var programs = []struct{ name, pkg string }{
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
	{"kwok", "sigs.k8s.io/kwok/cmd/kwok"},
	{"helm4", "helm.sh/helm/v4/cmd/helm"},
	{"helm3", "helm.sh/helm/v3/cmd/helm"},
}

// ErrNotBuilt says that [Build] has not been run for the versions of this module.
var ErrNotBuilt = errors.New("the programs of the control plane are not built: run make test-control-plane")

// Find returns the folder of the programs. root is the module's folder.
func Find(root string) (string, error) {
	dir, err := cacheDir(root)
	if err != nil {
		return "", err
	}
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, p.name)); err != nil {
			return "", fmt.Errorf("%w (%s is missing)", ErrNotBuilt, p.name)
		}
	}
	return dir, nil
}

// cacheDir is named by everything that the programs depend on.
func cacheDir(root string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		h.Write(text)
	}
	return filepath.Join(cache, "semproxy", "control-plane", hex.EncodeToString(h.Sum(nil))[:16]), nil
}

// Build makes the programs that are missing and returns their folder. The first time takes minutes and is told to progress.
func Build(ctx context.Context, root string, progress io.Writer) (string, error) {
	dir, err := cacheDir(root)
	if err != nil {
		return "", err
	}
	if _, err := Find(root); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	flags, err := versionFlags(ctx, root)
	if err != nil {
		return "", err
	}
	for _, p := range programs {
		file := filepath.Join(dir, p.name)
		if _, err := os.Stat(file); err == nil {
			continue
		}
		began := time.Now()
		// By rename: a build that is interrupted, or one beside it, leaves no half of a program.
		tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w "+flags, "-o", tmp, p.pkg)
		cmd.Dir, cmd.Stdout, cmd.Stderr = root, progress, progress
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := cmd.Run(); err != nil {
			_ = os.Remove(tmp)
			return "", fmt.Errorf("build %s: %w", p.pkg, err)
		}
		if err := os.Rename(tmp, file); err != nil {
			return "", err
		}
		fmt.Fprintf(progress, "built %s in %.0f s\n", p.name, time.Since(began).Seconds())
	}
	return dir, removeOthers(dir)
}

// versionFlags tell the Kubernetes programs which version they are, as their own build does.
func versionFlags(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list k8s.io/kubernetes: %w", err)
	}
	version := strings.TrimSpace(string(out))
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 3 {
		return "", fmt.Errorf("k8s.io/kubernetes has the version %q", version)
	}
	var flags []string
	for _, v := range [][2]string{{"gitVersion", version}, {"gitMajor", parts[0]}, {"gitMinor", parts[1]}, {"gitTreeState", "clean"}} {
		flags = append(flags, fmt.Sprintf("-X k8s.io/component-base/version.%s=%s", v[0], v[1]))
	}
	return strings.Join(flags, " "), nil
}

// removeOthers removes the programs of earlier versions: they take 400 MB.
func removeOthers(dir string) error {
	others, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.Name() == filepath.Base(dir) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), o.Name())); err != nil {
			return err
		}
	}
	return nil
}
