package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

var (
	errNotConnected = errors.New("not connected to NATS")
	errDraining     = errors.New("draining: accepted pages are being finished, new ones go elsewhere")
)

// connected is the readiness of the page plane.
func (s *Sidecar) connected(context.Context) error {
	if !s.conn.IsConnected() {
		return errNotConnected
	}
	return nil
}

// notDraining takes the sidecar out of service while it stops.
func (s *Sidecar) notDraining(context.Context) error {
	if s.draining.Load() {
		return errDraining
	}
	return nil
}

// policyStatus is shown in readiness: a bad reload does not make the sidecar unready, since the last good rules serve.
func (s *Sidecar) policyStatus() any {
	if s.watcher != nil {
		return s.watcher.Status()
	}
	return watch.Status{Version: s.rules().Version()}
}

// swappable are rules that can be replaced.
type swappable interface {
	Current() *policy.Set
	Swap(version string, set *policy.Set) error
}

// told tells of a policy that was put in force by the admin API.
type told struct {
	swappable
	applied func(*policy.Set)
}

// Swap replaces the policy of that version.
func (t told) Swap(version string, set *policy.Set) error {
	err := t.swappable.Swap(version, set)
	if err == nil {
		t.applied(set)
	}
	return err
}

// fixedPolicy is a policy that no file follows.
type fixedPolicy struct {
	mu  sync.Mutex // of who swaps
	set atomic.Pointer[policy.Set]
}

func newFixedPolicy(set *policy.Set) *fixedPolicy {
	f := &fixedPolicy{}
	f.set.Store(set)
	return f
}

// Current is the policy in force.
func (f *fixedPolicy) Current() *policy.Set { return f.set.Load() }

// Swap replaces the policy of that version, else it returns watch.ErrStale.
func (f *fixedPolicy) Swap(version string, set *policy.Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set.Load().Version() != version {
		return watch.ErrStale
	}
	f.set.Store(set)
	return nil
}

// warnPolicy says what a policy allows and its author probably does not want.
func warnPolicy(log *slog.Logger, set *policy.Set) {
	for _, w := range set.Warnings() {
		log.Warn("policy_warning", "where", w.Where, "kind", w.Kind, "message", w.Message)
	}
}

// newReloadCounter logs and counts policy reloads.
func newReloadCounter(mp metric.MeterProvider, log *slog.Logger, applied func(*policy.Set)) (func(watch.Event), error) {
	reloads, err := mp.Meter(scope).Int64Counter(semconv.MetricPolicyReloads)
	if err != nil {
		return nil, err
	}
	return func(e watch.Event) {
		outcome := semconv.OutcomeApplied
		if e.Err != nil {
			outcome = semconv.OutcomeRejected
			for _, p := range strict.Problems(e.Err) {
				log.Error("policy_rejected", "problem", p.Error())
			}
			if len(strict.Problems(e.Err)) == 0 {
				log.Error("policy_rejected", "problem", e.Err.Error())
			}
		} else {
			log.Info("policy_applied", "version", e.Set.Version(), "tenants", len(e.Set.Tenants()))
			warnPolicy(log, e.Set)
			applied(e.Set)
		}
		reloads.Add(context.Background(), 1, metric.WithAttributes(semconv.Outcome.String(outcome)))
	}, nil
}

// usageLimit is how long the store may take to say what all tenants hold.
const usageLimit = 2 * time.Second

// TenantView is one tenant as the admin API shows it.
type TenantView struct {
	Tenant  string        `json:"tenant"`
	Limits  policy.Limits `json:"limits"`
	Rules   []policy.Rule `json:"rules"`
	Objects int           `json:"objects"`
	Bytes   int64         `json:"bytes"`
	Store   string        `json:"store,omitempty"` // code of the error for which objects and bytes are not known; page_plane: its process knows
	Active  int           `json:"active"`          // requests through the proxy
	Waiting int           `json:"waiting"`         // for their turn
}

// Tenants implements the admin API's view of the rules in force.
func (s *Sidecar) Tenants() any {
	set := s.rules()
	ctx, cancel := context.WithTimeout(context.Background(), usageLimit)
	defer cancel()
	var out []TenantView
	loads := map[string]limit.Load{}
	if s.requests != nil {
		loads = s.requests.admission.Loads()
	}
	for _, t := range set.Tenants() {
		v := TenantView{Tenant: t, Limits: set.Limits(t), Rules: set.Rules(t), Active: loads[t].Active, Waiting: loads[t].Waiting}
		var err error
		if s.store == nil {
			v.Store = partPages
		} else if v.Objects, v.Bytes, err = s.store.Usage(ctx, t); err != nil {
			v.Store = pipeline.CodeOf(err)
		}
		out = append(out, v)
	}
	return out
}

// policiesView is the effective policy as the admin API shows it.
type policiesView struct {
	Version  string                    `json:"version"`
	Status   any                       `json:"status"`
	Profiles map[string]policy.Profile `json:"profiles"`
	Warnings []policy.Warning          `json:"warnings,omitempty"`
}

// Policies implements the admin API's view of the profiles in force.
func (s *Sidecar) Policies() any {
	set := s.rules()
	v := policiesView{Version: set.Version(), Status: s.policyStatus(), Profiles: map[string]policy.Profile{}, Warnings: set.Warnings()}
	for _, name := range set.Profiles() {
		v.Profiles[name], _ = set.Profile(name)
	}
	return v
}
