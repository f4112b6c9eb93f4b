package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

func TestDurableJobsFromSubmitToReplay(t *testing.T) {
	dir := t.TempDir()
	s := sidecartest.Start(t, func(c *config.Config) { c.Jobs.Enabled, c.Jobs.Dir = true, dir })
	sidecartest.Until(t, "jobs are taken", func() bool { return s.TakesJobs(t.Context()) == nil })
	c := s.Client(t, "acme", client.Options{})
	ctx := context.Background()

	job, err := c.Submit(ctx, "", sidecartest.Page(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Wait(ctx, job.ID)
	if err != nil {
		t.Fatal(err)
	}
	same, err := c.Compress(ctx, sidecartest.Page(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	cores, err := page.DecodeCores(got.Body, page.DefaultLimits())
	if err != nil || got.Header.Get(sidecar.HeaderObject) != same.Header.Get(sidecar.HeaderObject) {
		t.Fatalf("cores of a job: %v, object %q, want that of a request, %q", err, got.Header.Get(sidecar.HeaderObject), same.Header.Get(sidecar.HeaderObject))
	}
	again, err := page.DecodeCores(same.Body, page.DefaultLimits())
	if err != nil || !bytes.Equal(cores.K, again.K) || !bytes.Equal(cores.V, again.V) {
		t.Errorf("cores of a job differ from those of a request (%v)", err)
	}
	if twice, err := c.Submit(ctx, "", sidecartest.Page(t, "kjv")); err != nil || !twice.Duplicate || twice.ID != job.ID {
		t.Errorf("the same page again: got %+v, %v, want a duplicate", twice, err)
	}

	// A page that can never succeed.
	var ce *client.Error
	if job, err = c.Submit(ctx, "bad-one", sidecartest.Page(t, "kjv")[:1000]); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx, job.ID); !errors.As(err, &ce) || ce.Code != "page.truncated" {
		t.Errorf("a bad page: got %v, want code page.truncated", err)
	}
	list := func(args ...string) string {
		t.Helper()
		out, err := cli(t, append(append([]string{"jobs"}, args...), "--jobs-dir", dir)...)
		if err != nil {
			t.Errorf("jobs %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	sidecartest.Until(t, "the dead letter is listed", func() bool { return strings.Contains(list("letters", "acme"), "bad-one") })
	if out := list("letters", "acme"); !strings.Contains(out, "page.truncated") {
		t.Errorf("letters:\n%s", out)
	}
	if out := list("list", "--json"); !strings.Contains(out, `"tenant": "acme"`) || !strings.Contains(out, `"dead": 1`) {
		t.Errorf("list:\n%s", out)
	}
	if out := list("replay", "acme", "--all"); !strings.Contains(out, "1 of 1 letters sent again") {
		t.Errorf("replay:\n%s", out)
	}
	sidecartest.Until(t, "it is dead again", func() bool { return strings.Contains(list("letters", "acme"), "bad-one") })
	if out := list("drop", "acme", "2"); !strings.Contains(out, "1 of 1 letters deleted") {
		t.Errorf("drop:\n%s", out)
	}
	for _, c := range []struct{ args, want string }{
		{"replay acme", "--all"}, {"replay acme 1 --all", "--all"}, {"replay acme x", "not the number"},
		{"replay acme 77", "77"}, {"letters nobody", "no jobs"}, {"letters a.b", "tenant"},
	} {
		if _, err := cli(t, append(append([]string{"jobs"}, strings.Fields(c.args)...), "--jobs-dir", dir)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("jobs %s: got %v, want it to say %q", c.args, err, c.want)
		}
	}
	if _, err := cli(t, "jobs", "list", "--jobs-dir", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no sidecar") {
		t.Errorf("a folder of nobody: got %v", err)
	}
	resp, err := http.Get(s.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), `semproxy_jobs_total{`) || !strings.Contains(string(text), `semproxy_outcome="dead"`) {
		t.Errorf("metrics do not tell of the jobs (%v)", err)
	}
}

func TestWithoutJobsTheyAreRefused(t *testing.T) {
	s := sidecartest.Start(t, nil)
	var ce *client.Error
	if _, err := s.Client(t, "acme", client.Options{}).Submit(context.Background(), "", []byte("page")); !errors.As(err, &ce) || ce.Code != "job.unsupported" || ce.Retryable {
		t.Errorf("got %v, want the final code job.unsupported", err)
	}
}
