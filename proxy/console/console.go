// Package console carries the admin console: pages that a browser runs, built ahead from the folder web and embedded in the binary.
// They hold no data; they ask the admin API for it, with its token. Nothing outside the process is needed to use them.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// dist is made by web/build.mjs; CI makes it again and compares.
//
//go:embed dist
var dist embed.FS

// security lets the pages run their own files only: no inline script or style, no other host, no frame.
const security = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// File is one of the console's files, for a page that carries all of it.
func File(name string) ([]byte, error) { return dist.ReadFile("dist/" + name) }

// Handler serves the files; a path that is none of them is the page itself, whose views have paths of their own.
func Handler() http.Handler {
	type file struct {
		data      []byte
		kind, tag string
	}
	files := map[string]file{}
	_ = fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		kind := mime.TypeByExtension(path.Ext(name))
		switch path.Ext(name) { // the system's table may lack them
		case ".js":
			kind = "text/javascript; charset=utf-8"
		case ".css":
			kind = "text/css; charset=utf-8"
		case ".svg":
			kind = "image/svg+xml"
		case ".html":
			kind = "text/html; charset=utf-8"
		}
		sum := sha256.Sum256(data)
		files[strings.TrimPrefix(name, "dist/")] = file{data, kind, `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.Trim(r.URL.Path, "/")
		f, ok := files[name]
		if !ok {
			if path.Ext(name) != "" {
				http.NotFound(w, r)
				return
			}
			f = files["index.html"]
		}
		h := w.Header()
		h.Set("Content-Type", f.kind)
		h.Set("Content-Security-Policy", security)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.tag)
		if r.Header.Get("If-None-Match") == f.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(f.data)
	})
}
