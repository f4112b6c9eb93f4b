package config

import "github.com/semproxy/semproxy/policy"

// Config is everything that can be set. The tags name the key in YAML and say what it does; `secret` marks values that are
// redacted when shown.
type Config struct {
	Planes       string          `yaml:"planes" help:"what this process runs: both planes; requests (the proxy), beside another process that runs pages; or pages"`
	PlanesSocket string          `yaml:"planesSocket" help:"Unix socket on which the process of planes requests takes what that of planes pages reports; needed by both of them"`
	NATS         NATS            `yaml:"nats"`
	SharedMemory SharedMemory    `yaml:"sharedMemory"`
	Jobs         Jobs            `yaml:"jobs"`
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
	URL       string `yaml:"url" strict:"secret" help:"servers to connect to, separated by commas; empty: run one in this process"`
	CredsFile string `yaml:"credsFile" help:"credentials (.creds) for url"`
	NKeyFile  string `yaml:"nkeyFile" help:"seed of the nkey for url"`
	TLS       TLS    `yaml:"tls"`

	PrivateInboxes bool `yaml:"privateInboxes" help:"with url: tenants are users of one account, and replies go only below their _INBOX.<tenant>; not with accounts"`

	Embedded Embedded `yaml:"embedded"`
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

// SharedMemory is the fast path for senders on this machine.
type SharedMemory struct {
	Socket         string          `yaml:"socket" help:"Unix socket on which senders of this machine attach memory (Linux); empty: pages come over NATS only"`
	AnyUser        bool            `yaml:"anyUser" help:"let processes of every user attach; else those of this process's user and root"`
	MaxRegionBytes policy.ByteSize `yaml:"maxRegionBytes" help:"largest region that a sender may attach"`
}

// Jobs are pages whose senders do not wait, kept by NATS JetStream.
type Jobs struct {
	Enabled  bool            `yaml:"enabled" help:"keep pages as durable jobs, for the tenants that the policy names; needs JetStream on url, or dir"`
	Dir      string          `yaml:"dir" help:"folder in which the server of this process keeps jobs; not with nats.url"`
	Replicas int             `yaml:"replicas" help:"copies of each job in a cluster of NATS servers, 1 to 5"`
	MaxBytes policy.ByteSize `yaml:"maxBytes" help:"jobs of a tenant that wait, where its policy has no queuedBytes; more are refused. JetStream reserves as much, and a quarter of it for dead letters"`
	AckWait  policy.Duration `yaml:"ackWait" help:"a job goes to another sidecar when the one that has it shows no sign of life for so long"`
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
	Redis       Redis           `yaml:"redis"`
	Encryption  Encryption      `yaml:"encryption"`
}

// Redis is the store that several sidecars share. It takes the place of Store.Dir.
type Redis struct {
	Addrs        string          `yaml:"addrs" help:"host:port of a server, of nodes of a cluster or of sentinels, separated by commas; empty: no redis"`
	Cluster      bool            `yaml:"cluster" help:"addrs are nodes of a cluster; meant by several addrs without master as well"`
	Master       string          `yaml:"master" help:"name of the master that the sentinels at addrs watch"`
	Prefix       string          `yaml:"prefix" help:"before every key, so that others can use the same server"`
	UsernameFile string          `yaml:"usernameFile" help:"user to log in as; read again for each new connection"`
	PasswordFile string          `yaml:"passwordFile" help:"password; read again for each new connection"`
	TLS          RedisTLS        `yaml:"tls"`
	Required     bool            `yaml:"required" help:"without redis the sidecar is not ready and pages that would be stored are refused; false: they are kept in memory alone"`
	Timeout      policy.Duration `yaml:"timeout" help:"longest wait for an answer, apart from the bytes that it moves"`
}

// RedisTLS applies to the connections to Redis. The files are read again for each new connection.
type RedisTLS struct {
	Enabled    bool   `yaml:"enabled" help:"speak TLS with redis"`
	CAFile     string `yaml:"caFile" help:"roots to trust instead of the system's"`
	CertFile   string `yaml:"certFile" help:"client certificate; needs keyFile"`
	KeyFile    string `yaml:"keyFile" help:"key of certFile"`
	ServerName string `yaml:"serverName" help:"name in the server's certificate; empty: the host of the address"`
}

// Encryption is of what is stored, in Dir or in Redis.
type Encryption struct {
	KeysDir string `yaml:"keysDir" help:"folder of encryption keys (ID.key) and of the file tenants, which says whose objects are encrypted with which; empty: none are"`
}

// Compress is about the work on one page.
type Compress struct {
	Workers      int             `yaml:"workers" help:"goroutines over the layers and heads of a page; 0: one per core"`
	MaxPageBytes policy.ByteSize `yaml:"maxPageBytes" help:"a larger page is refused"`
	Device       string          `yaml:"device" help:"auto: the first GPU that can be used, else the CPU; cpu; or cuda:N"`
	GPU          GPU             `yaml:"gpu"`
}

// GPU is about the device that Compress.Device names.
type GPU struct {
	MemoryBytes policy.ByteSize `yaml:"memoryBytes" help:"most of the GPU's memory that pages may take; half as much pinned memory of the host"`
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
		Planes:       PlanesBoth,
		NATS:         NATS{Embedded: Embedded{Listen: "127.0.0.1:4222", MaxPayload: 8 << 20}},
		SharedMemory: SharedMemory{MaxRegionBytes: 1 << 30},
		Jobs:         Jobs{Replicas: 1, MaxBytes: 256 << 20, AckWait: policy.Duration(30e9)},
		Admin:        Admin{Listen: "127.0.0.1:9090"},
		Policy:       Policy{Watch: true},
		Store: Store{
			MemoryBytes: 256 << 20, MaxBytes: 8 << 30,
			Redis: Redis{Required: true, Timeout: policy.Duration(1e9)},
		},
		Compress:     Compress{MaxPageBytes: 64 << 20, Device: "auto", GPU: GPU{MemoryBytes: 1 << 30}},
		Limits:       Limits{Queue: 256, InFlightBytes: 512 << 20, RequestTimeout: policy.Duration(30e9)},
		Models:       []Model{},
		Proxy:        defaultProxy(),
		Telemetry:    Telemetry{LogLevel: "info", LogFormat: "json"},
		DrainTimeout: policy.Duration(25e9),
	}
}
