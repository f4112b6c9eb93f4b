package scalebench

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Costs are what one page takes of each part. Times are of processors, all processes of a part together.
type Costs struct {
	PageBytes  int64         `json:"page_bytes"`
	CoreBytes  int64         `json:"core_bytes"` // of the reply, and of the object that is stored
	Client     time.Duration `json:"client_cpu_ns"`
	Sidecar    time.Duration `json:"sidecar_cpu_ns"`
	NATS       time.Duration `json:"nats_cpu_ns"`
	Redis      time.Duration `json:"redis_cpu_ns"`
	NATSBytes  int64         `json:"nats_bytes"`  // that all NATS servers received; 0: not measured
	RedisBytes int64         `json:"redis_bytes"` // that all Redis servers received; 0: not measured
	Latency    time.Duration `json:"latency_ns"`  // median of a page that is alone
	Spread     float64       `json:"spread"`      // of the logarithm of such a page's time
}

// hops is how many NATS servers a message passes, on average: 1 to 2.
func (c *Costs) hops() float64 {
	if c.NATSBytes == 0 {
		return 5. / 3 // sender and receiver at random among three servers
	}
	return min(2, max(1, float64(c.NATSBytes)/float64(c.PageBytes+c.CoreBytes)))
}

func (c *Costs) redisBytes() float64 {
	if c.RedisBytes == 0 {
		return float64(c.CoreBytes)
	}
	return float64(c.RedisBytes)
}

// stray is what a page that is alone waits beside the time that it is worked on: the network, and processes that wake up.
func (c *Costs) stray() float64 {
	return max(0, (c.Latency - c.Client - c.Sidecar - c.NATS - c.Redis).Seconds())
}

// Deployment is the machines that the simulation assumes.
type Deployment struct {
	TokenBytes   int     `json:"token_bytes"`   // of K and V of one token
	NodeTokens   float64 `json:"node_tokens"`   // tokens a second that a node sends to be compressed
	NodeCores    int     `json:"node_cores"`    // of a node, for its sidecar
	Held         int     `json:"held"`          // pages of a node under way at once; one more is left exact
	NATSCores    int     `json:"nats_cores"`    // of each of the three NATS servers
	LinkBits     float64 `json:"link_bits"`     // a second, of every machine, each way
	LinkDelay    float64 `json:"link_delay_s"`  // between two machines
	GroupNodes   int     `json:"group_nodes"`   // nodes for each Redis cluster, where tenants are hashed over several
	RedisServers int     `json:"redis_servers"` // of a cluster
}

// DefaultDeployment is Llama-3-8B's KV (BF16, 8 heads of 128 in 32 layers) on machines of today.
func DefaultDeployment() Deployment {
	return Deployment{
		TokenBytes: 131072, NodeTokens: 2000, NodeCores: 4, Held: 16, NATSCores: 16, LinkBits: 25e9, LinkDelay: 50e-6,
		GroupNodes: 8, RedisServers: 3,
	}
}

func (d *Deployment) check() error {
	if d.TokenBytes < 1 || d.NodeTokens <= 0 || d.NodeCores < 1 || d.Held < 1 || d.NATSCores < 1 || d.LinkBits <= 0 || d.LinkDelay < 0 || d.GroupNodes < 1 || d.RedisServers < 1 {
		return errors.New("sizes, rates and cores of the deployment must be positive")
	}
	return nil
}

// Topology is how nodes are wired.
type Topology string

// The topologies, each mends what limits the one before it.
const (
	Shared  Topology = "one NATS, one Redis"
	Leaf    Topology = "leaf nodes, one Redis"
	Hashed  Topology = "leaf nodes, tenants over Redis clusters"
	PerNode Topology = "leaf nodes, a Redis per node"
)

// Topologies in order.
var Topologies = []Topology{Shared, Leaf, Hashed, PerNode}

// Resources that can be exhausted.
const (
	Sidecars   = "sidecars' cores"
	NATSCPU    = "NATS servers' cores"
	NATSLinks  = "NATS servers' network"
	RedisCPU   = "Redis's threads"
	RedisLinks = "Redis servers' network"
	NodeLinks  = "nodes' network"
)

// demand is how much a page takes of a resource, and how much of that there is.
type demand struct {
	resource string
	seconds  float64 // of one unit, by one page
	units    float64
}

// groups is the number of Redis clusters.
func (t Topology) groups(d *Deployment, nodes int) int {
	switch t {
	case Hashed:
		return (nodes + d.GroupNodes - 1) / d.GroupNodes
	case PerNode:
		return nodes
	}
	return 1
}

// redisServers is how many servers a Redis cluster has.
func (t Topology) redisServers(d *Deployment) int {
	if t == PerNode {
		return 1
	}
	return d.RedisServers
}

// demands lists what a page takes of everything.
func demands(c *Costs, d *Deployment, t Topology, nodes int) []demand {
	second := func(bytes float64) float64 { return 8 * bytes / d.LinkBits }
	page, cores := float64(c.PageBytes), float64(c.CoreBytes)
	redis := float64(t.groups(d, nodes) * t.redisServers(d))
	all := []demand{{RedisCPU, c.Redis.Seconds(), redis}}
	node := c.Sidecar.Seconds()
	if t == Shared {
		all = append(all,
			demand{NATSCPU, c.NATS.Seconds(), float64(3 * d.NATSCores)},
			demand{NATSLinks, second((page + cores) * c.hops()), 3}, // in; as much out
			demand{NodeLinks, second(page + cores), float64(nodes)}) // to NATS; as much back
	} else {
		node += c.NATS.Seconds() / c.hops() // the node's own server: nothing is passed on to another
	}
	all = append(all, demand{Sidecars, node, float64(nodes * d.NodeCores)})
	if t != PerNode {
		all = append(all, demand{RedisLinks, second(c.redisBytes()), redis})
	}
	return all
}

// Bound is the most tokens a second that the topology can compress on so many nodes, and what limits it: the least of what the nodes
// send and what each resource can do.
func Bound(c *Costs, d *Deployment, t Topology, nodes int) (tokens float64, limit string) {
	perPage := float64(c.PageBytes) / float64(d.TokenBytes)
	tokens, limit = d.NodeTokens*float64(nodes), ""
	for _, one := range demands(c, d, t, nodes) {
		if one.seconds == 0 {
			continue
		}
		if most := one.units / one.seconds * perPage; most < tokens {
			tokens, limit = most, one.resource
		}
	}
	return tokens, limit
}

// Saturates is the number of nodes from which on a shared resource limits the topology, up to most, and the resource; 0: none does.
func Saturates(c *Costs, d *Deployment, t Topology, most int) (nodes int, limit string) {
	for n := 1; n <= most; n++ {
		if _, limit := Bound(c, d, t, n); limit != "" {
			return n, limit
		}
	}
	return 0, ""
}

func (c *Costs) check() error {
	if c.PageBytes < 1 || c.CoreBytes < 0 || c.Sidecar <= 0 || c.NATS < 0 || c.Redis < 0 || c.Client < 0 || math.IsNaN(c.Spread) || c.Spread < 0 {
		return fmt.Errorf("costs of a page must be positive, got %+v", *c)
	}
	return nil
}
