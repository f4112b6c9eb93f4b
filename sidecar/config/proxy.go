package config

import "github.com/semproxy/semproxy/policy"

// Proxy is the request plane: the HTTP proxy in front of the engine.
type Proxy struct {
	Listen   string        `yaml:"listen" help:"host:port of the proxy in front of the engine; empty: no proxy"`
	TLS      ProxyTLS      `yaml:"tls"`
	Engine   ProxyEngine   `yaml:"engine"`
	Identity ProxyIdentity `yaml:"identity"`
	Limits   ProxyLimits   `yaml:"limits"`
	CORS     ProxyCORS     `yaml:"cors"`
	Gate     ProxyGate     `yaml:"gate"`
	Canary   ProxyCanary   `yaml:"canary"`
	Verify   ProxyVerify   `yaml:"verify"`
	Recent   int           `yaml:"recent" help:"requests that the admin API remembers"`
	Headers  bool          `yaml:"headers" help:"tell clients what was decided, in Semproxy- headers"`
}

// ProxyTLS applies to the proxy's listener.
type ProxyTLS struct {
	CertFile     string `yaml:"certFile" help:"certificate of the listener; needs keyFile; empty: no TLS"`
	KeyFile      string `yaml:"keyFile" help:"key of certFile"`
	ClientCAFile string `yaml:"clientCaFile" help:"roots of client certificates; a certificate is asked for and, where there is one, verified"`
}

// ProxyEngine is what the proxy stands in front of.
type ProxyEngine struct {
	URL             string          `yaml:"url" help:"base URL: http, https, or h2c for HTTP/2 without TLS"`
	Kind            string          `yaml:"kind" help:"vllm (is given kv_transfer_params and cache_salt), tgi or openai (are not)"`
	APIKeyFile      string          `yaml:"apiKeyFile" help:"file of the bearer token that the engine wants"`
	HeaderTimeout   policy.Duration `yaml:"headerTimeout" help:"how long the engine may take to begin an answer"`
	IdleTimeout     policy.Duration `yaml:"idleTimeout" help:"how long the engine may be silent in the middle of an answer"`
	TokenizeTimeout policy.Duration `yaml:"tokenizeTimeout" help:"how long the engine's /tokenize may take to say where the messages lie that a policy protects"`
	Connections     int             `yaml:"connections" help:"idle connections to the engine that are kept"`
	KeepAlive       policy.Duration `yaml:"keepAlive" help:"how long they are kept without a request; must be shorter than the engine keeps them (uvicorn, so vLLM: 5 s)"`
	RelayPeers      []string        `yaml:"relayPeers" help:"networks of routers between prefill and decode engines: kv_transfer_params of theirs and of the engine's answers to them pass"`
}

// ProxyIdentity says how tenants are told apart.
type ProxyIdentity struct {
	KeysFile        string      `yaml:"keysFile" help:"hashed API keys and their tenants; read again when it changes"`
	JWT             ProxyJWT    `yaml:"jwt"`
	Header          ProxyHeader `yaml:"header"`
	AnonymousTenant string      `yaml:"anonymousTenant" help:"tenant of requests without a credential; empty: they are refused"`
}

// ProxyJWT says which tokens are believed.
type ProxyJWT struct {
	JWKSFile string `yaml:"jwksFile" help:"JSON Web Key Set that signs tokens; read again when it changes"`
	JWKSURL  string `yaml:"jwksUrl" help:"where to fetch the key set instead"`
	Issuer   string `yaml:"issuer" help:"what a token's iss must be"`
	Audience string `yaml:"audience" help:"what must be among a token's aud"`
	Claim    string `yaml:"claim" help:"claim that names the tenant; dots lead into objects"`
}

// ProxyHeader says who is believed to name the tenant in a header.
type ProxyHeader struct {
	Name     string   `yaml:"name" help:"header that names the tenant, believed only from the peers and subjects listed"`
	Peers    []string `yaml:"peers" help:"networks that connections of trusted gateways come from, such as 10.0.0.0/8"`
	Subjects []string `yaml:"subjects" help:"names in verified client certificates of trusted gateways"`
}

// ProxyCORS says which web pages may call the proxy from a browser.
type ProxyCORS struct {
	Mode    string   `yaml:"mode" help:"pass (as the engine answers), off, or list (the proxy answers for the engine)"`
	Origins []string `yaml:"origins" help:"with mode list: the origins that may call, such as https://ui.example, or *"`
}

// ProxyLimits bound what the proxy holds at one time.
type ProxyLimits struct {
	Connections         int             `yaml:"connections" help:"connections of clients; for one more, one that serves no request is closed"`
	Concurrent          int             `yaml:"concurrent" help:"requests of all tenants at one time, waiting ones too; more are refused"`
	ConcurrentPerTenant int             `yaml:"concurrentPerTenant" help:"requests of one tenant, where its policy does not say; more wait"`
	QueuePerTenant      int             `yaml:"queuePerTenant" help:"requests of one tenant that wait; more are refused"`
	QueueTimeout        policy.Duration `yaml:"queueTimeout" help:"how long a request may wait"`
	MaxJSONBytes        policy.ByteSize `yaml:"maxJsonBytes" help:"a longer JSON body is refused: what is not read cannot be vouched for"`
	MaxBodyBytes        policy.ByteSize `yaml:"maxBodyBytes" help:"a longer upload (multipart, streamed) is refused"`
	BufferedBytes       policy.ByteSize `yaml:"bufferedBytes" help:"bytes of all JSON bodies held at one time, and of one tenant's a quarter, but two of maxJsonBytes at least; more are refused"`
	MaxHeaderBytes      policy.ByteSize `yaml:"maxHeaderBytes" help:"bytes of a request's headers"`
	ClientTimeout       policy.Duration `yaml:"clientTimeout" help:"how long a client may take for its headers, for a JSON body, and for each step of a stream"`
}

// ProxyGate adjusts the cost gate.
type ProxyGate struct {
	Enabled   bool `yaml:"enabled" help:"compress only when it should pay; false: whenever the policy says so"`
	MinTokens int  `yaml:"minTokens" help:"shorter prompts are not compressed"`
}

// ProxyCanary compares answers with and without compressed KV.
type ProxyCanary struct {
	Tenant       string          `yaml:"tenant" help:"tenant whose policy compresses the canary's prompt; nothing is compressed until its answers are alike; empty: no canary"`
	Model        string          `yaml:"model" help:"model to ask; empty: the first of the engine's"`
	MinAgreement float64         `yaml:"minAgreement" help:"share of the answer that must be the same from its beginning on"`
	Interval     policy.Duration `yaml:"interval" help:"how often the engine is looked at, to see that it has started anew"`
	Timeout      policy.Duration `yaml:"timeout" help:"how long an answer may take"`
}

// ProxyVerify bounds what verifying costs the engine; which answers are verified is the policy's.
type ProxyVerify struct {
	Every   policy.Duration `yaml:"every" help:"least time between two requests that are asked again, of all tenants"`
	Timeout policy.Duration `yaml:"timeout" help:"how long an answer may take"`
}

func defaultProxy() Proxy {
	return Proxy{
		Engine: ProxyEngine{
			Kind: "vllm", HeaderTimeout: policy.Duration(600e9), IdleTimeout: policy.Duration(300e9), TokenizeTimeout: policy.Duration(1e9), Connections: 512,
			KeepAlive: policy.Duration(4e9), RelayPeers: []string{},
		},
		Identity: ProxyIdentity{JWT: ProxyJWT{Claim: "tenant"}, Header: ProxyHeader{Peers: []string{}, Subjects: []string{}}},
		Limits: ProxyLimits{
			Connections: 16384, Concurrent: 4096, ConcurrentPerTenant: 256, QueuePerTenant: 256, QueueTimeout: policy.Duration(30e9),
			MaxJSONBytes: 16 << 20, MaxBodyBytes: 1 << 30, BufferedBytes: 256 << 20, MaxHeaderBytes: 16 << 10, ClientTimeout: policy.Duration(30e9),
		},
		CORS:   ProxyCORS{Mode: "pass", Origins: []string{}},
		Gate:   ProxyGate{Enabled: true, MinTokens: 512},
		Canary: ProxyCanary{MinAgreement: 0.9, Interval: policy.Duration(5e9), Timeout: policy.Duration(60e9)},
		Verify: ProxyVerify{Every: policy.Duration(10e9), Timeout: policy.Duration(60e9)},
		Recent: 1000, Headers: true,
	}
}
