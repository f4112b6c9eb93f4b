package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the files of libc6 that the program and NVIDIA's driver load.
var wanted = []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}

// loaders and triples are Debian's names for an architecture.
var (
	loaders = map[string]string{"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}
	triples = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
)

// glibc is what is taken of Debian's libc6.
type glibc struct {
	version string
	files   []file
}

// readGlibc unpacks the package for arch: the given file, else the cached one, else apt-get's.
func readGlibc(ctx context.Context, arch, deb string) (*glibc, error) {
	if loaders[arch] == "" {
		return nil, fmt.Errorf("no image with GPU support for %s: it is made for amd64 and arm64", arch)
	}
	if deb == "" {
		var err error
		if deb, err = fetchGlibc(ctx, arch); err != nil {
			return nil, fmt.Errorf("the C library for %s: %w; give --libc-deb %s=FILE, Debian's package libc6 (or --gpu-arch= for no GPU image)", arch, err, arch)
		}
	}
	version, err := dpkg(ctx, "--field", deb, "Version")
	if err != nil {
		return nil, err
	}
	blob, err := dpkg(ctx, "--fsys-tarfile", deb)
	if err != nil {
		return nil, err
	}
	g := &glibc{version: strings.TrimSpace(string(version))}
	return g, g.pick(arch, blob)
}

// fetchGlibc returns the package in the user's cache, and downloads it the first time.
func fetchGlibc(ctx context.Context, arch string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "semproxy", "image", arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "libc6_*.deb")); len(found) > 0 {
		return slices.Max(found), nil
	}
	tmp, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=", "libc6:"+arch)
	cmd.Dir, cmd.Stderr = tmp, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("apt-get download libc6:%s: %w", arch, err)
	}
	found, _ := filepath.Glob(filepath.Join(tmp, "libc6_*.deb"))
	if len(found) != 1 {
		return "", errors.New("apt-get downloaded nothing")
	}
	file := filepath.Join(dir, filepath.Base(found[0]))
	return file, os.Rename(found[0], file)
}

func dpkg(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// pick takes the wanted files out of the package's tar. /lib and /lib64 become links into /usr, as in Debian, so that the loader finds
// the libraries of the driver wherever the container runtime puts them.
func (g *glibc) pick(arch string, blob []byte) error {
	folder := "usr/lib/" + triples[arch]
	loader := path.Base(loaders[arch])
	names := append([]string{loader}, wanted...)
	found := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(blob)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("libc6: %w", err)
		}
		name, at := path.Base(h.Name), strings.TrimPrefix(path.Dir(path.Clean("/"+h.Name)), "/")
		at = strings.TrimPrefix(at, "usr/")
		switch {
		case h.Typeflag == tar.TypeReg && at == "lib/"+triples[arch] && slices.Contains(names, name):
			data, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("libc6: %s: %w", h.Name, err)
			}
			g.files = append(g.files, file{name: folder + "/" + name, mode: h.Mode & 0o777, data: data})
			found[name] = true
		case h.Typeflag == tar.TypeReg && h.Name == "./usr/share/doc/libc6/copyright":
			data, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("libc6: %s: %w", h.Name, err)
			}
			g.files = append(g.files, file{name: "usr/share/doc/libc6/copyright", mode: 0o644, data: data})
		}
	}
	for _, name := range names {
		if !found[name] {
			return fmt.Errorf("libc6 %s has no %s", g.version, name)
		}
	}
	g.files = append(g.files, file{name: "lib", link: "usr/lib"},
		// NVIDIA's container runtime looks for this file to know where the libraries of the driver belong.
		file{name: "etc/debian_version", mode: 0o644, data: []byte("libc6 " + g.version + "\n")})
	if dir := path.Dir(loaders[arch]); dir == "lib64" {
		g.files = append(g.files, file{name: "lib64", link: "usr/lib64"})
	}
	g.files = append(g.files, file{name: "usr/" + loaders[arch], link: "/" + folder + "/" + loader})
	return nil
}
