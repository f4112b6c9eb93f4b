package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/semproxy/semproxy/policy/strict"
)

// prefix of every environment variable.
const prefix = "SEMPROXY_"

// Variables that begin with the prefix and are not configuration.
var otherVariables = []string{
	fileEnv,
	prefix + "PYTHON",  // the tests' interpreter
	prefix + "LIBCUDA", // where the GPU driver is
}

// policyAlias is an older name of policyPath, which it stands for everywhere.
const (
	policyPath  = prefix + "POLICY_PATH"
	policyAlias = prefix + "POLICY"
)

// serviceLink matches what Kubernetes sets in every container of a namespace that has a Service named semproxy or
// semproxy-anything, such as SEMPROXY_PORT_9090_TCP_ADDR.
var serviceLink = regexp.MustCompile(
	`^SEMPROXY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// environment picks the variables of this program out of env ("NAME=value"), and reports those that nothing reads.
func environment(env []string, keys []Key) (values map[string]string, problems []*strict.Error) {
	known := make([]string, 0, len(keys)+1)
	for _, k := range keys {
		known = append(known, k.Env)
	}
	known = append(known, fileEnv)
	values = make(map[string]string)
	alias := ""
	for _, line := range env {
		name, value, _ := strings.Cut(line, "=")
		switch {
		case !strings.HasPrefix(name, prefix):
		case slices.Contains(known, name):
			values[name] = value
		case name == policyAlias:
			alias = value
		case slices.Contains(otherVariables, name), strings.HasPrefix(name, prefix+"TEST_"), serviceLink.MatchString(name):
		default:
			if i := slices.IndexFunc(removed, func(r removedKey) bool { return name == envOf(r.path) }); i >= 0 {
				problems = append(problems, removed[i].set(name))
				continue
			}
			problem := "unknown environment variable"
			if hint := strict.Suggest(name, known); strings.HasPrefix(hint, "did you mean") {
				problem += ", " + hint
			}
			problems = append(problems, &strict.Error{File: name, Problem: problem})
		}
	}
	if _, set := values[policyPath]; !set && alias != "" {
		values[policyPath] = alias
	}
	return values, problems
}
