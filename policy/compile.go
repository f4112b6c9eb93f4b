package policy

import (
	"regexp"
	"slices"

	"github.com/semproxy/semproxy/defaults"
	"github.com/semproxy/semproxy/policy/strict"
)

// Source is one policy file: its name, for messages, and its bytes.
type Source struct {
	Name string
	Data []byte
}

// Names of tenants and profiles. A tenant is a token of a NATS subject, so it has no dots.
const (
	TenantPattern  = `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`
	ProfilePattern = `^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`
)

var (
	tenantName  = regexp.MustCompile(TenantPattern)
	profileName = regexp.MustCompile(ProfilePattern)
)

// The profiles that always exist. ProfileExact can be written again, but not as anything that merges.
const (
	ProfileExact    = "exact"
	ProfileBalanced = "balanced"
)

func builtins() map[string]Profile {
	return map[string]Profile{
		ProfileExact: {Method: MethodNone, Ratio: 1},
		ProfileBalanced: {
			Method: MethodWeighted, Ratio: defaults.Ratio, Budget: BudgetAdaptive, Clusters: ClustersPerHead, Exact: defaults.ExactWeighted,
			Chunk: Chunk{Min: defaults.ChunkMin, Max: defaults.ChunkMax}, Protect: Protect{Sinks: defaults.Sinks, Recent: defaults.RecentWeighted},
		},
	}
}

// origin is where a name was defined.
type origin struct {
	doc  *strict.Doc
	path string
}

func (o origin) String() string { return o.doc.Where(o.path) }

// compiler holds what the passes over the files share.
type compiler struct {
	problems []*strict.Error
	files    []parsed
	profiles map[string]Profile
	defined  map[string]origin // profiles that a file defines
	tenants  map[string]origin
	defaults *origin // where defaults were set
	fallback Decision
	used     map[string]bool // profiles that something names
	set      *Set
}

type parsed struct {
	file File
	check
}

// Compile checks all sources together and returns the policy that they describe. Several sources merge; a profile, a tenant
// or the defaults may be set in only one of them. The error joins every problem of every source, each of the form
// "file:line: path: problem, got X" (strict.Problems takes it apart).
func Compile(sources ...Source) (*Set, error) {
	c := &compiler{profiles: builtins(), defined: map[string]origin{}, tenants: map[string]origin{}, used: map[string]bool{}}
	c.set = &Set{tenants: map[string]*tenant{}, profiles: c.profiles}
	if len(sources) == 0 {
		return nil, &strict.Error{Problem: "there is no policy file"}
	}
	for _, s := range sources {
		c.parse(s)
	}
	for _, f := range c.files {
		c.addProfiles(f)
	}
	for _, f := range c.files {
		c.addDefaults(f)
	}
	for _, f := range c.files {
		c.addTenants(f)
	}
	if err := strict.Join(c.problems); err != nil {
		return nil, err
	}
	c.set.names = sortedKeys(c.set.tenants)
	c.warn()
	c.seal()
	return c.set, nil
}

func (c *compiler) parse(s Source) {
	var f File
	doc, err := strict.Decode(s.Name, s.Data, &f)
	c.problems = append(c.problems, strict.Problems(err)...)
	if doc.Line("") == 0 {
		return // nothing was read
	}
	p := parsed{file: f, check: check{doc: doc, problems: &c.problems}}
	c.files = append(c.files, p)
	p.missing("", "apiVersion")
	if f.APIVersion != APIVersion && doc.Has("apiVersion") {
		p.errorf("apiVersion", "must be %s, got %q", APIVersion, f.APIVersion)
	}
}

func (c *compiler) addProfiles(f parsed) {
	for _, name := range sortedKeys(f.file.Profiles) {
		path := strict.Key("profiles", name)
		if !profileName.MatchString(name) {
			f.errorf(path, "name must be 1 to 64 letters, digits, dots, dashes or underscores, got %q", name)
		}
		if !c.claim(f, c.defined, name, path, "profile") {
			continue
		}
		spec := f.file.Profiles[name]
		p := f.resolve(path, &spec)
		if name == ProfileExact && p.Bits > 0 {
			f.errorf(strict.Key(path, "bits"), "must be 16, because exact is the profile that changes nothing, got %d", p.Bits)
		}
		if name == ProfileExact && p.Method != MethodNone {
			f.errorf(strict.Key(path, "method"), "must be none, because exact is the profile that never merges, got %s", p.Method)
		}
		c.profiles[name] = p
	}
}

// claim records where a name is defined; a second definition is a problem that names the first.
func (c *compiler) claim(f parsed, defined map[string]origin, name, path, kind string) bool {
	if first, taken := defined[name]; taken {
		f.errorf(path, "%s is defined twice, first at %s", kind, first)
		return false
	}
	defined[name] = origin{f.doc, path}
	return true
}

func (c *compiler) addDefaults(f parsed) {
	if f.file.Defaults == nil {
		return
	}
	if c.defaults != nil {
		f.errorf("defaults", "is set twice, first at %s", c.defaults)
		return
	}
	c.defaults = &origin{f.doc, "defaults"}
	const path = "defaults.profile"
	if f.file.Defaults.Profile == nil || !c.knows(f, path, *f.file.Defaults.Profile) {
		return
	}
	c.fallback = c.decision(*f.file.Defaults.Profile)
	c.fallback.Rule, c.fallback.Source = path, f.doc.Where(path)
}

// knows checks a reference to a profile.
func (c *compiler) knows(f parsed, path, name string) bool {
	c.used[name] = true
	if _, ok := c.profiles[name]; !ok {
		f.errorf(path, "there is no profile %q, %s", name, strict.Suggest(name, sortedKeys(c.profiles)))
		return false
	}
	return true
}

// decision is what leads to a profile; the rule is filled in by the caller.
func (c *compiler) decision(profile string) Decision {
	plan := c.profiles[profile]
	return Decision{Profile: profile, RuleIndex: -1, Plan: plan, PolicyDigest: plan.Digest()}
}

// seal computes the version and writes it into every decision.
func (c *compiler) seal() {
	type ruleMeaning struct {
		Match         *Match
		Name, Profile string
		Plan          Profile
	}
	type tenantMeaning struct {
		Limits Limits
		Record Record        `json:",omitempty"`
		Verify Verify        `json:",omitzero"`
		Routes []string      `json:",omitempty"`
		Rules  []ruleMeaning // the last one is the fallback
	}
	meaning := map[string]tenantMeaning{}
	for name, t := range c.set.tenants {
		m := tenantMeaning{Limits: t.limits, Verify: t.verify, Routes: t.routes}
		if t.record != RecordOff {
			m.Record = t.record
		}
		for i := range t.rules {
			d := &t.rules[i].decision
			m.Rules = append(m.Rules, ruleMeaning{&t.rules[i].match, d.RuleName, d.Profile, d.Plan})
		}
		m.Rules = append(m.Rules, ruleMeaning{nil, t.fallback.Rule, t.fallback.Profile, t.fallback.Plan})
		meaning[name] = m
	}
	c.set.version = digest("semproxy.policy.set.v1", meaning)
	for _, t := range c.set.tenants {
		t.fallback.Version = c.set.version
		for i := range t.rules {
			t.rules[i].decision.Version = c.set.version
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
