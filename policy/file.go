package policy

// APIVersion is the only version of the file format.
const APIVersion = "semproxy.io/v1"

// UnknownTenant is the entry that applies to tenants that no file names.
const UnknownTenant = "unknown"

// File is one policy file as it is written. A pointer is nil where the file says nothing. The tags are the source of the
// JSON Schema (package schema), descriptions included.
type File struct {
	APIVersion string                 `yaml:"apiVersion" jsonschema:"required,enum=semproxy.io/v1" jsonschema_description:"Version of the file format."`
	Defaults   *DefaultsSpec          `yaml:"defaults" jsonschema_description:"What applies where no rule says otherwise. At most one file sets it."`
	Profiles   map[string]ProfileSpec `yaml:"profiles" jsonschema_description:"Named, reusable ways to compress. exact (method none) and balanced (semantic, ratio 0.5) always exist."`
	Tenants    map[string]TenantSpec  `yaml:"tenants" jsonschema_description:"Limits and rules per tenant. The name unknown applies to tenants that nobody named; without it they are denied."`
}

// DefaultsSpec is the defaults section.
type DefaultsSpec struct {
	Profile *string `yaml:"profile" jsonschema_description:"Profile for requests that no rule of their tenant matches. Without it they are not compressed."`
}

// ProfileSpec is a profile as it is written; Profile is what it means.
type ProfileSpec struct {
	Method      *Method      `yaml:"method" jsonschema:"required" jsonschema_description:"none keeps every token; weighted is the recommended way to merge; semantic is weighted without its weights; paper is the nearest reading of the SemantiCache paper; hybrid keeps what the last queries look at and merges the rest (needs q in the page). Baselines: uniform merges neighbours; window and keynorm and attention (which needs q) drop tokens."`
	Ratio       *float64     `yaml:"ratio" jsonschema:"exclusiveMinimum=0,maximum=1" jsonschema_description:"Tokens kept divided by tokens given. Default 0.5; 0.25 is lossy, 0.125 unsafe. Not together with threshold."`
	Threshold   *float64     `yaml:"threshold" jsonschema:"exclusiveMinimum=-1,maximum=1" jsonschema_description:"Merge tokens whose similarity reaches this number, however many that are. Not together with ratio, budget and exact."`
	Budget      *Budget      `yaml:"budget" jsonschema_description:"adaptive: one threshold over all layers and heads, which keep what they need; layered: the same number of cores for every layer, whose heads keep what they need; equal: the same number for every head. Default adaptive; paper: equal."`
	HeadWeights [][]float64  `yaml:"headWeights" jsonschema_description:"Only with method weighted and budget adaptive or layered: a list for each layer of the model, with a number for each KV head. A head that weighs more keeps more, at the same total. Measure them on your model; default: those that semproxy knows of the model (SmolLM2-135M, Qwen2.5-0.5B) at small ratios, else all 1; [[1]] means all 1."`
	Clusters    *Clusters    `yaml:"clusters" jsonschema_description:"perHead: every head clusters by itself; shared: one clustering for all heads of a layer. Default perHead with adaptive and paper, shared with equal."`
	Exact       *float64     `yaml:"exact" jsonschema:"minimum=0,exclusiveMaximum=1" jsonschema_description:"Share of the budget that keeps the most unusual tokens unmerged. Default 0.25; weighted, and with equal, 0.5; paper 0."`
	Regular     *bool        `yaml:"regular" jsonschema_description:"Only with budget equal. true: every head has exactly as many cores as the ratio allows; false: at most as many. Default true; paper: false."`
	FP8         *bool        `yaml:"fp8" jsonschema_description:"Send keys and values in 8 bits (E4M3) with a scale per head; with method none without meaning. Default false."`
	Bits        *int         `yaml:"bits" jsonschema:"enum=4,enum=8,enum=16" jsonschema_description:"Bits that each key and value takes on the wire and in the store: 8 and 4 are evenly spaced levels with a scale per token; with method none too, which then keeps every token at half or a quarter of the bytes. Default 16: the page's own type. Not together with fp8."`
	Chunk       *ChunkSpec   `yaml:"chunk" jsonschema_description:"Length of the chunks inside which tokens may merge."`
	Protect     *ProtectSpec `yaml:"protect" jsonschema_description:"Tokens that are never merged."`
	Guard       *GuardSpec   `yaml:"guard" jsonschema_description:"What happens when the measured loss is too large."`
	Store       *StoreSpec   `yaml:"store" jsonschema_description:"How the compressed object is kept."`
	Assign      *bool        `yaml:"assign" jsonschema_description:"Also return which core every token went to. Default false."`
}

// ChunkSpec bounds a chunk's length in tokens.
type ChunkSpec struct {
	Min *int `yaml:"min" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"A chunk closes at a delimiter from this many tokens on. Default 64; paper: 16."`
	Max *int `yaml:"max" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"A chunk closes at this many tokens at the latest. Default 96; paper: 64."`
}

// ProtectSpec names the tokens that stay as they are.
type ProtectSpec struct {
	Sinks  *int   `yaml:"sinks" jsonschema:"minimum=0,maximum=1048576" jsonschema_description:"First tokens of the sequence. Default 4; at least 1 with window."`
	Recent *int   `yaml:"recent" jsonschema:"minimum=0,maximum=1048576" jsonschema_description:"Last tokens of the sequence. Default 32; weighted: 16; not with window, which keeps as many as the ratio allows."`
	Spans  []Span `yaml:"spans" jsonschema:"maxItems=64" jsonschema_description:"Ranges of tokens, such as a system prompt."`

	Patterns []string `yaml:"patterns" jsonschema:"maxItems=32,minLength=1,maxLength=128" jsonschema_description:"Tokens whose text is part of one of these texts. The model needs a tokenizer; at most 128 bytes each."`
	Roles    []Role   `yaml:"roles" jsonschema:"maxItems=5" jsonschema_description:"Chat requests through the proxy: messages of these roles. Where their tokens cannot be found, the prompt stays exact."`
}

// Span is the range of token indices [From, To).
type Span struct {
	From int `yaml:"from" json:"from" jsonschema:"required,minimum=0" jsonschema_description:"First token of the range, counted from 0."`
	To   int `yaml:"to" json:"to" jsonschema:"required,minimum=1" jsonschema_description:"Token after the last one of the range."`
}

// GuardSpec bounds the measured loss.
type GuardSpec struct {
	MaxFactsLost      *float64     `yaml:"maxFactsLost" jsonschema:"exclusiveMinimum=0,exclusiveMaximum=1" jsonschema_description:"Largest expected share of a prompt's facts that may be lost, such as 0.02."`
	MaxAttentionError *float64     `yaml:"maxAttentionError" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Largest relative error of the attention output that is accepted. Kept for old policies: it hardly tells how much is lost; use maxFactsLost."`
	LossCurve         [][]float64  `yaml:"lossCurve" jsonschema:"minItems=2,maxItems=64" jsonschema_description:"What the pages of a model lose: points of [lookup error, share of facts lost], both rising, as semproxy calibrate --loss prints them for your model. Default: the curve of a model that semproxy knows, else of the one that loses most."`
	OnViolation       *OnViolation `yaml:"onViolation" jsonschema_description:"relax: try again with more tokens kept; pass: keep every token; report: return it all the same and say so. Default relax."`
}

// StoreSpec says how the object is kept.
type StoreSpec struct {
	TTL *Duration `yaml:"ttl" jsonschema_description:"How long the object is kept. Default: the store's own."`
}

// TenantSpec is a tenant as it is written.
type TenantSpec struct {
	Limits *LimitsSpec `yaml:"limits" jsonschema_description:"What the tenant may use. A limit that is left out is not enforced."`
	Verify *VerifySpec `yaml:"verify" jsonschema_description:"Sampled requests are asked again, exactly, to say how often compression changes an answer. Default: none is."`
	Routes []string    `yaml:"routes" jsonschema:"maxItems=64" jsonschema_description:"Paths of the engine that the proxy does not know, which this tenant may call all the same. Nothing can be put into such requests: no salt, no policy, so prompts may be shared with other tenants in the engine's prefix cache there."`
	Rules  []RuleSpec  `yaml:"rules" jsonschema_description:"Tried from the top; the first that matches wins."`
	Record *Record     `yaml:"record" jsonschema_description:"What the admin console may keep of the tenant's last pages, in memory: off, nothing but figures; pages, keys and values, to try other policies on; text, and what the tokens say. Default off."`
}

// VerifySpec says how a tenant's answers are verified, as it is written.
type VerifySpec struct {
	Share      *float64 `yaml:"share" jsonschema:"required,exclusiveMinimum=0,maximum=1" jsonschema_description:"Share of the compressed requests to chat and text completions that are asked again; each costs the engine three answers of at most 64 tokens."`
	MaxChanged *float64 `yaml:"maxChanged" jsonschema:"exclusiveMinimum=0,exclusiveMaximum=1" jsonschema_description:"Share of answers that may change. A profile that surely changes more is stepped back: prompts stay exact until the policy changes. Default: it is only reported."`
}

// LimitsSpec is a tenant's limits as they are written.
type LimitsSpec struct {
	PagesPerSecond *float64  `yaml:"pagesPerSecond" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Pages accepted per second, averaged."`
	InFlightBytes  *ByteSize `yaml:"inFlightBytes" jsonschema_description:"Bytes of pages that are being worked on at one time."`
	StoredBytes    *ByteSize `yaml:"storedBytes" jsonschema_description:"Bytes of compressed objects that are kept."`
	QueuedBytes    *ByteSize `yaml:"queuedBytes" jsonschema_description:"Bytes of durable jobs that wait."`

	RequestsPerSecond  *float64 `yaml:"requestsPerSecond" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Requests that the proxy accepts per second, averaged."`
	TokensPerMinute    *float64 `yaml:"tokensPerMinute" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Tokens, of prompts and of answers, per minute, averaged."`
	TokensPerHour      *float64 `yaml:"tokensPerHour" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Tokens per hour, besides those per minute."`
	TokensPerDay       *float64 `yaml:"tokensPerDay" jsonschema:"exclusiveMinimum=0" jsonschema_description:"Tokens per day, besides those per minute and hour."`
	CachedWeight       *float64 `yaml:"cachedTokenWeight" jsonschema:"minimum=0,maximum=1" jsonschema_description:"What a token of a prompt counts that the engine read from its prefix cache. Default 1."`
	ReasoningWeight    *float64 `yaml:"reasoningTokenWeight" jsonschema:"minimum=0" jsonschema_description:"What a token of an answer counts that is reasoning. Default 1."`
	Shadow             *bool    `yaml:"shadow" jsonschema_description:"Rates and budgets of requests and tokens are only reported, and nothing is refused by them. Default false."`
	ConcurrentRequests *int     `yaml:"concurrentRequests" jsonschema:"minimum=1" jsonschema_description:"Requests at one time; more wait. Default: proxy.limits.concurrentPerTenant."`
	QueuedRequests     *int     `yaml:"queuedRequests" jsonschema:"minimum=1" jsonschema_description:"Requests that wait for their turn; more are refused. Default: proxy.limits.queuePerTenant."`
}

// RuleSpec sends the requests that match to a profile. Nothing of a profile can be overridden here: every way to compress
// has a name.
type RuleSpec struct {
	Name    string     `yaml:"name" jsonschema:"maxLength=128" jsonschema_description:"What a person calls this rule."`
	Match   *MatchSpec `yaml:"match" jsonschema_description:"All conditions must hold. Without conditions the rule matches every request."`
	Profile *string    `yaml:"profile" jsonschema:"required" jsonschema_description:"Name of the profile that applies."`
}

// MatchSpec is a rule's conditions.
type MatchSpec struct {
	Model     *string `yaml:"model" jsonschema:"minLength=1,maxLength=256" jsonschema_description:"Model name; * stands for any text, ? for one character. Upper and lower case differ."`
	MinTokens *int    `yaml:"minTokens" jsonschema:"minimum=0" jsonschema_description:"Fewest tokens of the sequence, inclusive."`
	MaxTokens *int    `yaml:"maxTokens" jsonschema:"minimum=0" jsonschema_description:"Most tokens of the sequence, inclusive."`

	Headers map[string]string `yaml:"headers" jsonschema:"maxProperties=8" jsonschema_description:"Headers of a request through the proxy, each with a pattern for its value: X- headers that carry no credential, and User-Agent. A header that is not there matches nothing."`
}
