package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// InProcessOnly as EmbeddedOptions.Listen opens no port.
const InProcessOnly = "-"

// DefaultMaxPayload is the largest message of the embedded server: the most that NATS recommends.
const DefaultMaxPayload = 8 << 20

// writeDeadline is how long the embedded server waits for a client that does not read; then it cuts the connection.
const writeDeadline = 5 * time.Second

// EmbeddedOptions describe a nats-server inside this process.
type EmbeddedOptions struct {
	Listen     string       // host:port; "" is loopback with a port chosen by the system; [InProcessOnly] opens none
	MaxPayload int          // bytes of the largest message; default [DefaultMaxPayload]
	Users      []User       // who may connect; none: anybody who reaches the port may speak as any tenant
	JobsDir    string       // folder of the streams of jobs; "": no JetStream
	Logger     *slog.Logger // default slog.Default
}

// EmbeddedServer is a running nats-server. Safe for concurrent use.
type EmbeddedServer struct {
	server   *server.Server
	own      credentials
	listens  bool
	private  bool
	warnings []string
	logger   *slog.Logger
}

// Embedded starts a nats-server in this process, without signal handlers or clustering, with storage only for jobs. When it returns, the
// port (if any) accepts connections.
func Embedded(opts EmbeddedOptions) (*EmbeddedServer, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	setDefault(&opts.MaxPayload, DefaultMaxPayload)
	if opts.MaxPayload < 1024 || opts.MaxPayload > 64<<20 {
		return nil, errors.New("embedded NATS: MaxPayload must be 1 KiB to 64 MiB")
	}
	so := &server.Options{
		ServerName: "semproxy-embedded", NoSigs: true, NoLog: true, NoSystemAccount: true,
		MaxPayload: int32(opts.MaxPayload),
		// A burst of pages waits for the sidecar in the server; past this bound the server cuts the connection.
		MaxPending:    int64(max(256<<20, 16*opts.MaxPayload)),
		WriteDeadline: writeDeadline,
	}
	if opts.JobsDir != "" {
		so.JetStream, so.StoreDir, so.NoSystemAccount = true, opts.JobsDir, false
	}
	e := &EmbeddedServer{listens: opts.Listen != InProcessOnly, private: len(opts.Users) > 0, logger: opts.Logger}
	if err := listenOptions(so, opts.Listen); err != nil {
		return nil, err
	}
	var err error
	if e.own, err = authorise(so, opts.Users); err != nil {
		return nil, err
	}
	e.warnings = warnings(so, opts)
	if e.server, err = server.NewServer(so); err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	log := &natsLog{logger: opts.Logger}
	e.server.SetLoggerV2(log, false, false, false)
	e.server.Start()
	if !e.server.ReadyForConnections(log.readyWithin(10 * time.Second)) {
		e.server.Shutdown()
		e.server.WaitForShutdown()
		return nil, fmt.Errorf("embedded NATS: not ready: %s", log.lastFatal())
	}
	return e, nil
}

func listenOptions(so *server.Options, listen string) error {
	switch listen {
	case InProcessOnly:
		so.DontListen = true
		return nil
	case "":
		listen = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("embedded NATS: listen address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("embedded NATS: listen address %q: the port must be a number up to 65535", listen)
	}
	so.Host, so.Port = host, int(n)
	if n == 0 {
		so.Port = server.RANDOM_PORT
	}
	return nil
}

func warnings(so *server.Options, opts EmbeddedOptions) (all []string) {
	if so.DontListen {
		return nil
	}
	if len(opts.Users) == 0 {
		all = append(all, "the embedded NATS server has no users: whoever reaches its port may speak as any tenant")
	}
	if ip := net.ParseIP(so.Host); so.Host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		all = append(all, "the embedded NATS server listens beyond loopback without TLS: pages and passwords can be read on the network")
	}
	return all
}

// Warnings are sentences for the operator's log about what these options permit; none if all is well.
func (e *EmbeddedServer) Warnings() []string { return e.warnings }

// PrivateInboxes is the value for Config.PrivateInboxes of a server on this NATS.
func (e *EmbeddedServer) PrivateInboxes() bool { return e.private }

// ClientURL is where clients connect, without credentials; "" if no port is open.
func (e *EmbeddedServer) ClientURL() string {
	if !e.listens {
		return ""
	}
	return e.server.ClientURL()
}

// Operator is who may look after the jobs of this server over TCP: a user made for this process. Empty without jobs.
func (e *EmbeddedServer) Operator() (name, password string) {
	if !e.server.JetStreamEnabled() {
		return "", ""
	}
	return e.own.operator, e.own.operatorPassword
}

// InProcessConn makes a connection without a port for nats.InProcessServer(e); it has a client's permissions.
func (e *EmbeddedServer) InProcessConn() (net.Conn, error) { return e.server.InProcessConn() }

// Connect makes the sidecar's own connection, in process: it may take requests of every tenant and send replies, and
// nothing else. Its user exists in this process only and is refused over TCP. The caller closes it before Shutdown.
func (e *EmbeddedServer) Connect() (*nats.Conn, error) {
	nc, err := nats.Connect("", append(commonOptions(ConnectOptions{Name: "semproxy", Logger: e.logger}),
		nats.RetryOnFailedConnect(false), nats.InProcessServer(e), nats.UserInfo(e.own.name, e.own.password))...)
	if err != nil {
		return nil, fmt.Errorf("connect in process: %w", err)
	}
	return nc, nil
}

// Shutdown stops the server when the clients have been sent what is waiting for them, or when ctx has ended, and waits
// until it has stopped (a client that does not read can hold that up for five seconds more). Drain the [Server] first, so that the replies are waiting there.
func (e *EmbeddedServer) Shutdown(ctx context.Context) error {
	err := e.flush(ctx)
	e.server.Shutdown()
	e.server.WaitForShutdown()
	return err
}

// flush waits until no client has bytes waiting in the server. The server has no event for that.
func (e *EmbeddedServer) flush(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		pending, err := e.pending()
		if err != nil {
			return fmt.Errorf("embedded NATS: list connections: %w", err)
		}
		if pending == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("embedded NATS: %d bytes of replies were not sent: %w", pending, ctx.Err())
		}
	}
}

func (e *EmbeddedServer) pending() (bytes int, err error) {
	conns, err := e.server.Connz(&server.ConnzOptions{Limit: 1 << 20})
	if err != nil {
		return 0, err
	}
	for _, c := range conns.Conns {
		bytes += c.Pending
	}
	return bytes, nil
}
