package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Server serves the page plane on one connection. Make it with [New], start it with [Server.Start], end it with
// [Server.Drain]. Safe for concurrent use.
type Server struct {
	cfg        Config
	admission  *admission
	metrics    *instruments
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator

	ctx    context.Context // the parent of every request; cancelled with errDraining
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards started, draining, subs
	started  bool
	draining bool
	subs     []*subscription

	faults faults

	workers  sync.WaitGroup
	stopping atomic.Bool // take no more pages by sockets
	refuse   atomic.Bool // answer every further message as draining
}

// request is one message on its way through the server.
type request struct {
	msg      *nats.Msg
	block    Block                 // where the body is, if it is in shared memory
	job      *Job                  // where the outcome goes, if not to msg.Reply
	answer   func(*nats.Msg) error // where the reply goes, if not to msg.Reply
	tenant   string
	label    attribute.KeyValue // the tenant as a metric attribute
	op       Op
	size     int64
	arrived  time.Time
	answered atomic.Bool // whoever sets it sends the reply
}

// New makes a server that does nothing yet. The error lists everything that is wrong with cfg.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:        cfg,
		admission:  newAdmission(cfg.QueueLength, cfg.InFlightBytes, cfg.MaxTenants, cfg.Workers),
		tracer:     cfg.TracerProvider.Tracer(scope),
		propagator: propagation.TraceContext{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if s.metrics, err = newInstruments(cfg.MeterProvider, s.admission.load); err != nil {
		s.cancel(nil)
		return nil, fmt.Errorf("transport: make metrics: %w", err)
	}
	return s, nil
}

// Start subscribes and starts the workers. When it returns on a connection that is up, the NATS server knows the
// subscriptions; on one that is still being made they follow by themselves. Call it once; after an error the server is
// of no further use.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.draining {
		return errors.New("transport: the server was started before")
	}
	s.started = true
	s.cfg.Conn.SetErrorHandler(s.onError)
	if err := s.subscribeAll(); err != nil {
		s.unsubscribeAll()
		return err
	}
	if s.cfg.Conn.IsConnected() {
		if err := s.cfg.Conn.FlushTimeout(5 * time.Second); err != nil {
			s.unsubscribeAll()
			return fmt.Errorf("transport: announce subscriptions: %w", err)
		}
	}
	for range s.cfg.Workers {
		s.workers.Go(s.work)
	}
	return nil
}

// receive is called by the client library, one message of a subscription at a time. It must not wait for anything but
// the connection.
func (s *Server) receive(msg *nats.Msg) {
	r := &request{msg: msg, size: int64(len(msg.Data)), arrived: time.Now()}
	r.label = s.metrics.label("", false)
	if msg.Reply == "" {
		s.metrics.countDropped(droppedNoReply, 1)
		return
	}
	var err error
	subject := msg.Subject
	if s.cfg.Instance != "" {
		subject = strings.TrimSuffix(subject, "."+s.cfg.Instance)
	}
	if r.tenant, r.op, err = ParseSubject(subject); err != nil {
		if !s.mayReply(msg.Reply, "") {
			s.metrics.countDropped(droppedBadReply, 1)
			return
		}
		e, _ := publicError(s.ctx, err)
		s.refuseRequest(r, e, 0)
		return
	}
	if !s.mayReply(msg.Reply, r.tenant) {
		s.metrics.countDropped(droppedBadReply, 1)
		s.cfg.Logger.Warn("reply subject refused", "tenant", r.tenant)
		return
	}
	limits, named := s.cfg.Limiter.Limits(r.tenant)
	r.label = s.metrics.label(r.tenant, named)
	if s.refuse.Load() {
		s.refuseRequest(r, errDraining, s.admission.retryAfter())
		return
	}
	if err := s.open(r); err != nil {
		e, _ := publicError(s.ctx, err)
		s.refuseRequest(r, e, 0)
		return
	}
	s.admit(r, limits)
}

// open finds the body of a request that names one in shared memory.
func (s *Server) open(r *request) error {
	descriptor := r.msg.Header.Get(HeaderMemory)
	if descriptor == "" {
		return nil
	}
	if s.cfg.Memory == nil {
		return errNoMemory
	}
	block, err := s.cfg.Memory.Open(r.tenant, descriptor)
	if err != nil {
		return err
	}
	r.block, r.size = block, block.Size()
	return nil
}

// mayReply says whether a reply for tenant may go to subject. The server may publish where tenants may not, so a reply
// subject is a request to act on a tenant's behalf and is checked: never into the page plane (it would speak as another
// tenant), the sidecars' own or the system's subjects, and only into the tenant's own inbox where inboxes are private.
func (s *Server) mayReply(subject, tenant string) bool {
	if s.cfg.PrivateInboxes {
		return tenant != "" && strings.HasPrefix(subject, inboxPrefix(tenant)+".")
	}
	for _, root := range [...]string{subjectRoot + ".", internalRoot + ".", "$"} {
		if strings.HasPrefix(subject, root) {
			return false
		}
	}
	return true
}
