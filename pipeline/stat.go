package pipeline

import (
	"context"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/transport/page"
)

// State is what a tenant may know of itself.
type State struct {
	Tenant  string `json:"tenant"`
	Policy  string `json:"policy"` // version of the rules in force
	Device  string `json:"device"`
	Objects int    `json:"objects"` // stored
	Bytes   int64  `json:"bytes"`

	MaxPageBytes int64    `json:"max_page_bytes"` // a larger page of the tenant is refused, however it comes
	PageTensors  []string `json:"page_tensors"`   // names of those that a page may have

	Object *ObjectState `json:"object,omitempty"` // when one was asked for
}

// ObjectState describes one stored object.
type ObjectState struct {
	Object  string     `json:"object"`
	Size    int64      `json:"size"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"` // nil: never
}

// Stat describes a tenant, and one of its objects when object is not empty.
func (p *Pipeline) Stat(ctx context.Context, tenant, object string) (*State, error) {
	rules := p.cfg.Policy()
	if _, ok := rules.Resolve(tenant); !ok {
		return nil, &policy.DeniedError{Tenant: tenant}
	}
	s := &State{Tenant: tenant, Policy: rules.Version(), Device: p.cfg.Compressor.Device(), PageTensors: page.Tensors()}
	s.MaxPageBytes = p.cfg.Limits.MaxBytes
	if most := int64(rules.Limits(tenant).InFlightBytes); most > 0 {
		s.MaxPageBytes = min(s.MaxPageBytes, most)
	}
	if p.cfg.Store == nil {
		return s, nil
	}
	var err error
	if s.Objects, s.Bytes, err = p.cfg.Store.Usage(ctx, tenant); err != nil {
		return nil, err
	}
	if object == "" {
		return s, nil
	}
	info, err := p.cfg.Store.Stat(ctx, store.Key{Tenant: tenant, Object: object})
	if err != nil {
		return nil, err
	}
	s.Object = &ObjectState{Object: object, Size: info.Size, Created: info.Created}
	if !info.Expires.IsZero() {
		s.Object.Expires = &info.Expires
	}
	return s, nil
}
