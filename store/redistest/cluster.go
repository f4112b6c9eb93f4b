package redistest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Cluster is three masters without replicas.
type Cluster struct{ Nodes []*Server }

const slots = 16384

// StartCluster starts three servers, each with every third of the slots, and waits until all agree. args go to each.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	Need(t)
	c := &Cluster{}
	for range 3 {
		c.Nodes = append(c.Nodes, start(t, true, append([]string{
			"--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--cluster-config-file", "nodes.conf",
			"--cluster-node-timeout", "15000", // a loaded machine is not a lost node
		}, args...)))
	}
	for i, n := range c.Nodes {
		node := n.Client(t)
		must(t, node.ClusterAddSlotsRange(t.Context(), i*slots/3, (i+1)*slots/3-1).Err())
		must(t, node.Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", portOf(c.Nodes[0].Addr), c.Nodes[0].bus).Err())
	}
	c.Wait(t)
	return c
}

// Addrs are the addresses of the nodes.
func (c *Cluster) Addrs() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Addr)
	}
	return all
}

// Client is a client of the whole cluster, closed with the test.
func (c *Cluster) Client(t testing.TB) *goredis.ClusterClient {
	t.Helper()
	client := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: c.Addrs(), DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Wait returns when every node knows all three and says that the cluster is whole.
func (c *Cluster) Wait(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		node := n.Client(t)
		Eventually(t, "the cluster is whole", func() bool {
			info, err := node.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
}

// Owner is the index of the node that has the slot.
func (c *Cluster) Owner(t testing.TB, slot int) int {
	t.Helper()
	all, err := c.Nodes[0].Client(t).ClusterShards(t.Context()).Result()
	must(t, err)
	for _, shard := range all {
		for _, r := range shard.Slots {
			for i, n := range c.Nodes {
				if int64(slot) >= r.Start && int64(slot) <= r.End && int64(portOf(n.Addr)) == shard.Nodes[0].Port {
					return i
				}
			}
		}
	}
	t.Fatalf("slot %d: got no owner", slot)
	return 0
}

// MoveSlot moves a slot to another node the way an operator's tool does: key by key, while clients go on.
func (c *Cluster) MoveSlot(t testing.TB, slot, to int) {
	t.Helper()
	ctx := t.Context()
	from := c.Owner(t, slot)
	source, target := c.Nodes[from].Client(t), c.Nodes[to].Client(t)
	sourceID, targetID := nodeID(t, source), nodeID(t, target)
	must(t, target.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID).Err())
	must(t, source.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", targetID).Err())
	for {
		keys, err := source.ClusterGetKeysInSlot(ctx, slot, 1).Result()
		must(t, err)
		if len(keys) == 0 {
			break
		}
		err = source.Do(ctx, "MIGRATE", "127.0.0.1", portOf(c.Nodes[to].Addr), keys[0], 0, 5000, "REPLACE").Err()
		must(t, err)
	}
	for _, node := range []*goredis.Client{target, source} {
		must(t, node.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID).Err())
	}
}

func nodeID(t testing.TB, node *goredis.Client) string {
	t.Helper()
	id, err := node.Do(t.Context(), "CLUSTER", "MYID").Text()
	must(t, err)
	return id
}

// Eventually asks until the answer is yes, and fails the test when that takes longer than a server may to start.
func Eventually(t testing.TB, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			t.Fatalf("not so in %v: %s", startLimit, what)
		case <-tick.C:
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("redis: %w", err))
	}
}

// Keys lists the keys that match the pattern, of every master.
func Keys(ctx context.Context, client goredis.UniversalClient, pattern string) ([]string, error) {
	cluster, ok := client.(*goredis.ClusterClient)
	if !ok {
		return client.Keys(ctx, pattern).Result()
	}
	var mu sync.Mutex
	var all []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *goredis.Client) error {
		found, err := c.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return err
	})
	return all, err
}
