package sidecar

import (
	"context"
	"errors"
	"fmt"

	"github.com/semproxy/semproxy/proxy"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/reports"
	"github.com/semproxy/semproxy/store/redis"
)

// link leads to the process of the other plane.
type link interface {
	Connected() bool
	Run(ctx context.Context) error
}

// starts are the parts of what this process runs, in the order in which they start.
func (s *Sidecar) starts() []func(context.Context, Options) error {
	switch s.cfg.Planes {
	case config.PlanesRequests:
		return []func(context.Context, Options) error{
			s.startTelemetry, s.startPolicy, s.prepareProxy, s.startConsole, s.startBudgets, s.takeReports, s.startProxy, s.startAdmin,
		}
	case config.PlanesPages:
		return []func(context.Context, Options) error{
			s.startTelemetry, s.startPolicy, s.prepareProxy, s.startConsole, s.startStore, s.sendReports, s.startCompressor, s.startNATS, s.startMemory,
			s.startJobs, s.startPlane, s.startAdmin,
		}
	}
	return []func(context.Context, Options) error{
		s.startTelemetry, s.startPolicy, s.prepareProxy, s.startConsole, s.startStore, s.startCompressor, s.startNATS, s.startMemory,
		s.startJobs, s.startPlane, s.startProxy, s.startAdmin,
	}
}

// startBudgets opens the Redis in which replicas keep the tenants' budgets of tokens. The request plane's process wants no object of it.
func (s *Sidecar) startBudgets(context.Context, Options) (err error) {
	c := &s.cfg.Store.Redis
	if c.Addrs == "" {
		return nil
	}
	opt := RedisOptions(c, s.log)
	opt.Refused = s.neighbours.refuses("redis")
	if err = readable(opt); err == nil {
		s.redis, err = redis.Open(opt)
	}
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	s.onStop(func(context.Context) error { return s.redis.Close() })
	return nil
}

// takeReports binds the socket on which the page plane's process tells of its pages; run takes them.
func (s *Sidecar) takeReports(context.Context, Options) error {
	take := func(r *reports.Report) { s.learn(r, nil) }
	receiver, err := reports.Listen(s.cfg.PlanesSocket, take, reports.Options{Meter: s.tel.MeterProvider, Logger: s.log})
	if err != nil {
		return fmt.Errorf("planesSocket %s: %w", s.cfg.PlanesSocket, err)
	}
	s.onStop(func(context.Context) error { return receiver.Close() })
	s.link = receiver
	return nil
}

// sendReports prepares the telling of pages to the request plane's process; run connects to it.
func (s *Sidecar) sendReports(context.Context, Options) (err error) {
	if s.reports, err = reports.NewSender(s.cfg.PlanesSocket, reports.Options{Meter: s.tel.MeterProvider, Logger: s.log}); err != nil {
		return err
	}
	s.link = s.reports
	return nil
}

// noPages says why no page is compressed: the process that does it is away. Empty: one is there, as far as this one knows.
func (s *Sidecar) noPages() string {
	if s.cfg.Planes != config.PlanesRequests || s.link.Connected() {
		return ""
	}
	return "the page plane's process is not connected"
}

// pagesRun is the readiness of the page plane, where another process runs it.
func (s *Sidecar) pagesRun(context.Context) error {
	if why := s.noPages(); why != "" {
		return errors.New(why)
	}
	return nil
}

// linkView is the way to the request plane's process, as readiness shows it.
type linkView struct {
	Connected bool   `json:"connected"`
	Dropped   uint64 `json:"reportsDropped"`
}

// checks are the conditions of readiness of what this process runs.
func (s *Sidecar) checks() []proxy.Check {
	draining, rules := proxy.Check{Name: "draining", Probe: s.notDraining}, proxy.Check{Name: "policy", Detail: s.policyStatus}
	if !s.cfg.RunsPages() {
		return []proxy.Check{{Name: partPages, Probe: s.pagesRun, Pages: true}, draining, rules}
	}
	all := []proxy.Check{
		{Name: partNATS, Probe: s.connected, Pages: true},
		{Name: partSubscriptions, Probe: s.subscribed, Pages: true},
		{Name: partPayload, Probe: s.roomForPages, Warns: true},
		{Name: partJobs, Probe: s.TakesJobs, Pages: true},
		{Name: partJobsRoom, Probe: s.jobsHaveRoom, Warns: true},
		draining,
		{Name: partStore, Probe: s.stored, Detail: s.storeStatus, Pages: true},
		rules,
	}
	if s.reports != nil { // pages go on without it
		all = append(all, proxy.Check{Name: "request_plane", Detail: func() any { return linkView{s.reports.Connected(), s.reports.Dropped()} }})
	}
	return all
}

// linkNotes say what is missed of the other plane's process.
func (s *Sidecar) linkNotes() []string {
	switch {
	case s.link == nil || s.link.Connected():
		return nil
	case s.reports != nil:
		return []string{"The request plane's process is not connected: it does not learn of pages, which are served all the same."}
	}
	return []string{"The page plane's process is not connected: prompts stay exact, and what becomes of their pages is not known here."}
}
