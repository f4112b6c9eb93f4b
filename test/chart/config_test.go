package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the chart writes, semproxy takes: the configuration with the container's variables, and the policy's folder.
func TestSemproxyTakesEveryRenderedConfigurationAndPolicy(t *testing.T) {
	semproxy := binary(t, "semproxy-static")
	sets := map[string][]string{
		"one node":  {valuesFile(t, `nats: { url: "nats://nats.llm:4222", existingSecret: semproxy-nats, secretKeys: { nkey: sidecar.nk } }`), "--set=redis.addrs=redis.llm:6379"},
		"a cluster": {valuesFile(t, "nats: { url: \"tls://a:4222,tls://b:4222\" }\nredis: { addrs: \"a:6379,b:6379,c:6379\", tls: true }\nconfig: { jobs: { enabled: true, replicas: 3 } }\n")},
		"tokens": {valuesFile(t, "config: { proxy: { identity: { jwt: { jwksUrl: \"https://idp/keys\", issuer: idp, audience: kv } } }, "+
			"models: [ { match: \"llama*\", layout: x } ] }\n")},
		"jobs of one pod": {valuesFile(t, "data: { enabled: true }\nconfig: { jobs: { enabled: true, dir: /var/lib/semproxy/jobs } }\n")},
	}
	for name, vals := range values {
		sets[name] = []string{valuesFile(t, vals)}
	}
	examples, err := filepath.Glob("../../helm/examples/*/semproxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		sets[e] = []string{"--values=" + e}
	}
	for name, args := range sets {
		t.Run(name, func(t *testing.T) {
			all := objects(t, render(t, args...))
			// Keys win over the file's: what the container gets by its environment.
			flags := []string{"config", "print", "--config", writeFile(t, "semproxy.yaml", text(t, all, "demo-semproxy-config", "semproxy.yaml"))}
			if !strings.Contains(name, "no proxy") {
				flags = append(flags, "--proxy-engine-url=http://127.0.0.1:8000")
			}
			runs := [][]string{nil}
			if name == "two planes" {
				runs = [][]string{{"--planes=requests"}, {"--planes=pages", "--admin-listen=:9999"}}
			}
			for _, run := range runs {
				if _, err := output(t, "", semproxy, append(flags, run...)...); err != nil {
					t.Error(err)
				}
			}
			dir := t.TempDir()
			policy, ok := at(find(t, all, "ConfigMap", "demo-semproxy-policy"), "data").(map[string]any)
			if !ok || policy["policy.yaml"] == nil {
				t.Fatal("demo-semproxy-policy has no policy.yaml")
			}
			// prove.yaml is there unless the policy itself has the tenant of `helm test`.
			for file, content := range policy {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content.(string)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := output(t, "", semproxy, "policy", "check", dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// text is a file of a ConfigMap.
func text(t *testing.T, all []object, name, file string) string {
	t.Helper()
	s, ok := at(find(t, all, "ConfigMap", name), "data", file).(string)
	if !ok {
		t.Fatalf("%s has no %s", name, file)
	}
	return s
}
