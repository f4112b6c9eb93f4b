package config

import "github.com/semproxy/semproxy/policy"

// Config is everything that can be set. The tags name the key in YAML and say what it does; `secret` marks values that are
// redacted when shown.
type Config struct {
	NATS         NATS            `yaml:"nats"`
	Admin        Admin           `yaml:"admin"`
	Policy       Policy          `yaml:"policy"`
	Store        Store           `yaml:"store"`
	Compress     Compress        `yaml:"compress"`
	Limits       Limits          `yaml:"limits"`
	Models       []Model         `yaml:"models" help:"what is known of models: a list of {match, tokenizerFile, layout}; the first whose match fits counts"`
	Proxy        Proxy           `yaml:"proxy"`
	Telemetry    Telemetry       `yaml:"telemetry"`
	DrainTimeout policy.Duration `yaml:"drainTimeout" help:"how long accepted pages may take to be answered after SIGTERM"`
}

// NATS says which server carries the pages.
type NATS struct {
	URL       string   `yaml:"url" strict:"secret" help:"servers to connect to, separated by commas; empty: run one in this process"`
	CredsFile string   `yaml:"credsFile" help:"credentials (.creds) for url"`
	NKeyFile  string   `yaml:"nkeyFile" help:"seed of the nkey for url"`
	TLS       TLS      `yaml:"tls"`
	Embedded  Embedded `yaml:"embedded"`
}

// TLS applies to the connection to NATS.URL.
type TLS struct {
	CAFile   string `yaml:"caFile" help:"roots to trust instead of the system's"`
	CertFile string `yaml:"certFile" help:"client certificate; needs keyFile"`
	KeyFile  string `yaml:"keyFile" help:"key of certFile"`
}

// Embedded is the server of this process, used when NATS.URL is empty.
type Embedded struct {
	Listen     string          `yaml:"listen" help:"host:port for clients; port 0 lets the system choose; beyond loopback usersFile is demanded"`
	MaxPayload policy.ByteSize `yaml:"maxPayload" help:"longest message"`
	UsersFile  string          `yaml:"usersFile" help:"users with their passwords and tenants; empty: nobody has to log in"`
}

// Admin is the listener of health, readiness and metrics.
type Admin struct {
	Listen    string `yaml:"listen" help:"host:port of health, readiness, metrics and the admin API"`
	TokenFile string `yaml:"tokenFile" help:"file of the bearer token that the admin API wants; empty: it answers the machine itself only"`
	Writable  bool   `yaml:"writable" help:"the admin API may replace the policy; needs tokenFile"`
}

// Policy says where the tenants' policies are.
type Policy struct {
	Path  string `yaml:"path" help:"policy file or folder; empty: pages are answered uncompressed"`
	Watch bool   `yaml:"watch" help:"read the policy again when it changes"`
}

// Store bounds what is kept of compressed pages.
type Store struct {
	Dir         string          `yaml:"dir" help:"folder of the files that outlive the process; empty: memory only"`
	MemoryBytes policy.ByteSize `yaml:"memoryBytes" help:"most that is kept in memory"`
	MaxBytes    policy.ByteSize `yaml:"maxBytes" help:"most that is kept in dir"`
}

// Compress is about the work on one page.
type Compress struct {
	Workers      int             `yaml:"workers" help:"goroutines over the layers and heads of a page; 0: one per core"`
	MaxPageBytes policy.ByteSize `yaml:"maxPageBytes" help:"a larger page is refused"`
}

// Limits is the admission of pages.
type Limits struct {
	Workers        int             `yaml:"workers" help:"pages worked on at the same time; 0: one per core"`
	Queue          int             `yaml:"queue" help:"pages that wait for a worker; more are answered busy"`
	InFlightBytes  policy.ByteSize `yaml:"inFlightBytes" help:"bytes of all pages that wait or are worked on; more are answered busy"`
	RequestTimeout policy.Duration `yaml:"requestTimeout" help:"a page not answered after this is given up"`
}

// Model is what is known of the models whose name matches a pattern.
type Model struct {
	Match         string `yaml:"match"`         // * stands for any text, ? for one byte
	TokenizerFile string `yaml:"tokenizerFile"` // its tokenizer.json, for pages without a boundary tensor
	Layout        string `yaml:"layout"`        // the only layout accepted; empty: any
}

// Telemetry is what is not set by the OTEL_ variables.
type Telemetry struct {
	LogLevel  string `yaml:"logLevel" help:"debug, info, warn or error"`
	LogFormat string `yaml:"logFormat" help:"json or text"`
}

// Default returns the configuration of a process that was told nothing.
func Default() Config {
	return Config{
		NATS:         NATS{Embedded: Embedded{Listen: "127.0.0.1:4222", MaxPayload: 8 << 20}},
		Admin:        Admin{Listen: "127.0.0.1:9090"},
		Policy:       Policy{Watch: true},
		Store:        Store{MemoryBytes: 256 << 20, MaxBytes: 8 << 30},
		Compress:     Compress{MaxPageBytes: 64 << 20},
		Limits:       Limits{Queue: 256, InFlightBytes: 512 << 20, RequestTimeout: policy.Duration(30e9)},
		Models:       []Model{},
		Proxy:        defaultProxy(),
		Telemetry:    Telemetry{LogLevel: "info", LogFormat: "json"},
		DrainTimeout: policy.Duration(25e9),
	}
}
