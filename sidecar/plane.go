package sidecar

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/jobs"
	"github.com/semproxy/semproxy/transport/shm"
)

// startMemory takes the memory of senders on this machine.
func (s *Sidecar) startMemory(context.Context, Options) (err error) {
	s.instance = rand.Text()[:16] // told to senders on the socket; unlike that of any other sidecar
	c := &s.cfg.SharedMemory
	if c.Socket == "" {
		return nil
	}
	s.memory, err = shm.Listen(shm.Config{
		Socket: c.Socket, Instance: s.instance, AnyUser: c.AnyUser, MaxRegionBytes: int64(c.MaxRegionBytes),
		MaxPageBytes: int64(s.cfg.Compress.MaxPageBytes), MeterProvider: s.tel.MeterProvider, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("sharedMemory.socket %s: %w", c.Socket, err)
	}
	s.onStop(func(context.Context) error { return s.memory.Close() })
	return nil
}

// startJobs prepares the taking of jobs; run takes them.
func (s *Sidecar) startJobs(_ context.Context, opt Options) (err error) {
	c := &s.cfg.Jobs
	if !c.Enabled {
		return nil
	}
	s.jobs, err = jobs.New(jobs.Config{
		Conn: s.conn, Tenants: s.jobTenants, Replicas: c.Replicas, MaxBytes: int64(c.MaxBytes), DeadBytes: max(int64(c.MaxBytes)/4, 1<<20),
		AckWait: time.Duration(c.AckWait), Trial: s.trial(opt.Trial), Refused: s.neighbours.refuses("jetstream"), MeterProvider: s.tel.MeterProvider, Logger: s.log,
	})
	if err != nil || s.nats == nil {
		return err
	}
	return s.writeOperator()
}

// jobTenants are the tenants that may have jobs: those that the policy in force names.
func (s *Sidecar) jobTenants() []jobs.Tenant {
	set := s.rules()
	names := set.Tenants()
	all := make([]jobs.Tenant, 0, len(names))
	for _, name := range names {
		if transport.ValidTenant(name) && name != policy.UnknownTenant {
			all = append(all, jobs.Tenant{Name: name, MaxBytes: int64(set.Limits(name).QueuedBytes)})
		}
	}
	return all
}

// TakesJobs is the readiness of durable jobs.
func (s *Sidecar) TakesJobs(context.Context) error {
	if s.jobs == nil {
		return nil
	}
	return s.jobs.Ready()
}

func (s *Sidecar) startPlane(context.Context, Options) (err error) {
	cfg := transport.Config{
		Conn: s.conn, Handler: planeHandler{s.pipeline}, Limiter: tenantLimits{s.rules},
		Workers: s.cfg.RequestWorkers(), QueueLength: s.cfg.Limits.Queue, InFlightBytes: int64(s.cfg.Limits.InFlightBytes),
		RequestTimeout: time.Duration(s.cfg.Limits.RequestTimeout),
		PrivateInboxes: s.cfg.NATS.PrivateInboxes || s.nats != nil && s.nats.PrivateInboxes(),
		Refused:        s.neighbours.refuses("nats"),
		TracerProvider: s.tel.TracerProvider, MeterProvider: s.tel.MeterProvider, Logger: s.log, Instance: s.instance,
	}
	if s.memory != nil {
		cfg.Memory = s.memory
	}
	if s.jobs != nil {
		cfg.Jobs = s.jobs
	}
	if s.plane, err = transport.New(cfg); err != nil {
		return err
	}
	if err := s.plane.Start(); err != nil {
		return fmt.Errorf("start page plane: %w", err)
	}
	if s.memory != nil {
		s.memory.Serve(s.plane.Accept)
	}
	s.onStop(s.plane.Drain)
	return nil
}
