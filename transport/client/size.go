package client

import (
	"context"
	"encoding/json"
	"fmt"
)

const (
	headerRoom    = 2048      // of a message
	defaultRegion = 256 << 20 // bytes, as shm.Options has it
	defaultMost   = 64 << 20  // bytes of a page that a sidecar takes, where it does not say
)

// MaxPage is how many bytes a page may have to be sent by this client: what the sidecar says that it takes of the tenant, and
// what a NATS message, or a third of the shared memory, has room for. page.Page's Split divides a larger one.
func (c *Client) MaxPage(ctx context.Context) (int64, error) {
	state, err := c.Stat(ctx)
	if err != nil {
		return 0, err
	}
	var said struct {
		Most int64 `json:"max_page_bytes"`
	}
	if err := json.Unmarshal(state.Body, &said); err != nil {
		return 0, fmt.Errorf("the sidecar's state: %w", err)
	}
	if said.Most <= 0 {
		said.Most = defaultMost
	}
	way := c.nc.MaxPayload() - headerRoom
	if c.memory != nil {
		region := c.opts.SharedMemory.RegionBytes
		if region <= 0 {
			region = defaultRegion
		}
		way = max(way, region/3)
	}
	return min(said.Most, way), nil
}
