package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/eval/embedded"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/studio"
)

func newStudio(t *testing.T) *studio.Studio {
	t.Helper()
	vocabulary, err := studio.Vocabulary()
	if err != nil {
		t.Fatal(err)
	}
	known := sidecar.NewModels(nil)
	s := studio.New(studio.Options{Models: known, Text: embedded.Page, Words: studio.Words(known.Text, vocabulary)})
	t.Cleanup(s.Close)
	return s
}

func TestTheStudioMeasuresAProfileOnAPage(t *testing.T) {
	s := newStudio(t)
	var last float64
	for _, ratio := range []string{"0.75", "0.5", "0.25"} {
		r, err := s.Run(t.Context(), studio.Request{Source: "demo:kjv", Profile: json.RawMessage(`{"method": "weighted", "ratio": ` + ratio + `}`)})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Measured || r.AttentionError <= last || len(r.Loss) != r.Layers || len(r.Loss[0]) != r.QHeads || len(r.Slots) != r.Layers {
			t.Errorf("ratio %s: got %v after %v, and %d layers of losses: want more loss with fewer cores", ratio, r.AttentionError, last, len(r.Loss))
		}
		last = r.AttentionError
		raw, err := base64.StdEncoding.DecodeString(r.Assign)
		if err != nil || len(raw) != 2*r.Layers*r.Heads*r.Tokens {
			t.Errorf("ratio %s: got %d bytes of assignment, %v", ratio, len(raw), err)
		}
		sum, n := 0.0, 0
		for _, row := range r.Loss {
			for _, e := range row {
				sum, n = sum+e, n+1
			}
		}
		if d := sum/float64(n) - r.AttentionError; d > 0.01 || d < -0.01 {
			t.Errorf("ratio %s: the heads' losses have the mean %v, the page says %v", ratio, sum/float64(n), r.AttentionError)
		}
		set, err := policy.Compile(policy.Source{Name: "copied.yaml", Data: []byte(r.YAML)})
		if err != nil || len(set.Tenants()) != 1 {
			t.Errorf("ratio %s: the YAML that is copied is no policy: %v\n%s", ratio, err, r.YAML)
		}
	}
}

func TestTheStudioSaysWhatIsWrongWithAProfile(t *testing.T) {
	s := newStudio(t)
	for _, c := range []struct{ source, profile, want string }{
		{"demo:kjv", `{"method": "magic"}`, "method"}, {"demo:kjv", `{"method": "weighted", "ratio": 2}`, "ratio"}, {"demo:kjv", `[]`, "object"},
		{"demo:none", `{"method": "weighted"}`, "no page"}, {"page:p9", `{"method": "weighted"}`, "no page"}, {"demo:kjv", ``, "profile"},
	} {
		_, err := s.Run(t.Context(), studio.Request{Source: c.source, Profile: json.RawMessage(c.profile)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: got %v, want %q", c.source, c.profile, err, c.want)
		}
	}
}

func TestEveryMethodHasACurve(t *testing.T) {
	s := newStudio(t)
	for _, m := range []string{"weighted", "window", "uniform"} {
		c, err := s.Curve(t.Context(), studio.CurveRequest{Source: "demo:kjv", Profile: json.RawMessage(`{"method": "` + m + `", "guard": {"maxAttentionError": 0.01}}`), Ratios: []float64{0.5, 0.25}})
		if err != nil || len(c.Points) != 2 || c.Points[0].Bytes <= c.Points[1].Bytes || c.Points[0].Error >= c.Points[1].Error || c.Of != 5 {
			t.Errorf("%s: got %+v, %v, want two points, fewer bytes with more loss", m, c, err)
		}
	}
}

func TestATextOfOnesOwnBecomesAPage(t *testing.T) {
	s := newStudio(t)
	if _, err := s.AddText(t.Context(), "short"); err == nil {
		t.Error("a text of five letters: got no error")
	}
	src, err := s.AddText(t.Context(), strings.Repeat("In the beginning God created the heaven and the earth. And the earth was without form. ", 8))
	if err != nil || src.Tokens < 64 || src.QHeads == 0 {
		t.Fatalf("got %+v, %v", src, err)
	}
	words, err := s.Tokens(src.ID)
	if err != nil || words.Redacted || !strings.Contains(strings.Join(words.Words, ""), "created the heaven") || len(words.Breaks) == 0 {
		t.Errorf("got %+v, %v, want the text's tokens", words, err)
	}
	r, err := s.Run(t.Context(), studio.Request{Source: src.ID, Profile: json.RawMessage(`{"method": "weighted", "ratio": 0.5}`)})
	if err != nil || !r.Measured || r.AttentionError <= 0 || r.AttentionError > 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestOnlyWhatThePolicyAllowsIsRecorded(t *testing.T) {
	s := newStudio(t)
	blob, err := os.ReadFile("../../configs/demo/kjv.page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for id, allowed := range map[string]policy.Record{"p1": policy.RecordOff, "p2": policy.RecordPages, "p3": policy.RecordText} {
		if kept, _ := s.Record(id, "acme", blob, allowed); kept != (allowed != policy.RecordOff) {
			t.Errorf("%s: got %v", allowed, kept)
		}
	}
	if _, err := s.Tokens("page:p1"); err == nil {
		t.Error("a page that may not be recorded is there")
	}
	redacted, err := s.Tokens("page:p2")
	if err != nil || !redacted.Redacted || len(redacted.Words)+len(redacted.IDs) != 0 {
		t.Errorf("got %+v, %v, want no token", redacted, err)
	}
	shown, err := s.Tokens("page:p3")
	if err != nil || shown.Redacted || len(shown.Words) != 640 {
		t.Errorf("got %d words, %v", len(shown.Words), err)
	}
	var own []studio.Source
	for _, src := range s.Sources() {
		if src.Kind == "page" {
			own = append(own, src)
		}
	}
	if len(own) != 2 {
		t.Errorf("got %+v, want two pages", own)
	}
	s.Forget(func(string) policy.Record { return policy.RecordPages })
	if now, err := s.Tokens("page:p3"); err != nil || !now.Redacted {
		t.Errorf("after a stricter policy: got %+v, %v", now, err)
	}
	s.Forget(func(string) policy.Record { return policy.RecordOff })
	if _, err := s.Tokens("page:p2"); err == nil {
		t.Error("a page is there that the policy forbids now")
	}
	for i := range 40 {
		s.Record(string(rune('a'+i%26))+string(rune('a'+i/26)), "acme", blob, policy.RecordPages)
	}
	if n := len(s.Sources()); n > 3+32 {
		t.Errorf("got %d pages, want at most 32 and the demo's", n)
	}
}

func TestInspectShowsAPageInTheTerminalAndAsOneFile(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	got, err := runCommand(t, "inspect", "demo:kjv", "--ratio", "0.25", "--tokens", "60")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"attention error", "25.0 % of 640 tokens", "layer  loss of each query head", "share a letter"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", got, want)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Error("got colours though NO_COLOR is set")
	}
	t.Setenv("COLORTERM", "truecolor")
	if got, err := runCommand(t, "inspect", "demo:kjv", "--color", "always"); err != nil || !strings.Contains(got, "\x1b[30;48;2;") {
		t.Errorf("got %v and %.200q, want 24-bit colours", err, got)
	}
	t.Setenv("COLORTERM", "")
	if got, err := runCommand(t, "inspect", "demo:kjv", "--color", "always"); err != nil || !strings.Contains(got, "\x1b[30;48;5;") {
		t.Errorf("got %v and %.200q, want 256 colours", err, got)
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if _, err := runCommand(t, "inspect", "demo:kjv", "--html", file); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("</script>")); n != 2 || bytes.Contains(page, []byte("src=")) && bytes.Contains(page, []byte("<link")) || !bytes.Contains(page, []byte(`"method":"weighted"`)) {
		t.Errorf("got a page with %d ends of scripts, want 2 and nothing from elsewhere", n)
	}
	got, err = runCommand(t, "inspect", "../../configs/demo/kjv.page.safetensors", "-o", "json")
	var r studio.Result
	if err != nil || json.Unmarshal([]byte(got), &r) != nil || r.Tokens != 640 {
		t.Errorf("as JSON: got %v and %.100s", err, got)
	}
	if _, err := runCommand(t, "inspect", "demo:kjv", "--layer", "99"); err == nil || !strings.Contains(err.Error(), "layers 0 to 4") {
		t.Errorf("a layer that is not: got %v", err)
	}
}

func TestTheDemosPolicyIsWhatTheConsoleShows(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "demo", Data: policies.Demo})
	if err != nil || set.Record("acme") == policy.RecordOff {
		t.Errorf("got %v and record %q, want the demo's pages shown in the console", err, set.Record("acme"))
	}
}
