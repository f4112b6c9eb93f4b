package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ConnectOptions describe the connection to a NATS server. Credentials are files, read again at every (re)connect, so
// that a rotated secret is taken up; at most one of CredsFile, NKeyFile, TokenFile and UserFile is set.
type ConnectOptions struct {
	Name string // what the NATS server shows for the connection

	CredsFile    string // a user's JWT and seed (nsc's .creds file)
	NKeyFile     string // an nkey seed
	TokenFile    string
	UserFile     string // the user's name, with PasswordFile
	PasswordFile string

	CAFile   string // certificates to trust in place of the system's
	CertFile string // the client's certificate, with KeyFile
	KeyFile  string

	Once        bool   // fail where no server answers, in place of trying for ever: for commands
	InboxPrefix string // for users with private inboxes, see [InboxPrefix]
	// OnStatus is told every change: up is true when the connection was made or came back. May be nil. It must not block.
	OnStatus func(up bool)
	// Refused is told why a connection cannot be made or used, and of what kind that is. May be nil. It must not block.
	Refused func(kind string, err error)
	Logger  *slog.Logger // default slog.Default
}

// Connect joins the NATS server(s) at rawURL (several with commas). Unless opts.Once, it returns at once, also when no server answers yet:
// the connection is tried for ever, with pauses that vary so that sidecars do not come back all at once. Whether it is up
// is told by (*nats.Conn).IsConnected and by OnStatus. Errors and logs never contain credentials. The caller closes it.
func Connect(rawURL string, opts ConnectOptions) (*nats.Conn, error) {
	if err := checkURLs(rawURL); err != nil {
		return nil, err
	}
	nkey := &nkeyFile{path: opts.NKeyFile}
	auth, err := authOptions(opts, nkey)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	common := append(commonOptions(opts), nats.ReconnectErrHandler(away(opts, addresses(rawURL))))
	nc, err := nats.Connect(rawURL, append(common, auth...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", withoutURL(err))
	}
	nkey.conn.Store(nc)
	return nc, nil
}

var errLameDuck = errors.New("the NATS server is in lame duck mode")

// sayAway is how often it is logged that the servers cannot be reached.
const sayAway = 30 * time.Second

// away logs the first failure to connect, and then from time to time one: the library itself says nothing of them.
func away(opts ConnectOptions, addresses string) nats.ConnErrHandler {
	logger := opts.Logger
	if logger == nil {
		logger = slog.Default()
	}
	var mu sync.Mutex
	var said time.Time
	var last string
	return func(_ *nats.Conn, err error) {
		if err == nil || errors.Is(err, nats.ErrNoServers) { // each server's own cause is told by itself
			return
		}
		err = withoutURL(err)
		kind := kindOf(err)
		if kind == refusedOther {
			kind = RefusedAway
		}
		if opts.Refused != nil {
			opts.Refused(kind, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if kind == last && time.Since(said) < sayAway {
			return
		}
		said, last = time.Now(), kind
		logger.Warn("nats_away", "servers", addresses, "kind", kind, "error", err)
	}
}

// addresses are those of a list of URLs, without what may be secret in them.
func addresses(rawURL string) string {
	all := strings.Split(rawURL, ",")
	for i, one := range all {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		all[i] = "?"
		if u, err := url.Parse(one); err == nil {
			all[i] = u.Host
		}
	}
	return strings.Join(all, ",")
}

// commonOptions are those of every connection, in process or not.
func commonOptions(opts ConnectOptions) []nats.Option {
	logger := opts.Logger
	if logger == nil {
		logger = slog.Default()
	}
	status := opts.OnStatus
	if status == nil {
		status = func(bool) {}
	}
	all := []nats.Option{
		nats.Name(opts.Name),
		nats.RetryOnFailedConnect(!opts.Once),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(16 << 20),
		nats.PingInterval(20 * time.Second),
		nats.ConnectHandler(func(*nats.Conn) { status(true) }),
		nats.ReconnectHandler(func(*nats.Conn) {
			logger.Info("nats connection is back")
			status(true)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			status(false)
			if err != nil {
				logger.Warn("nats connection lost", "error", withoutURL(err))
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) { status(false) }),
		nats.LameDuckModeHandler(func(*nats.Conn) {
			logger.Warn("nats_lame_duck", "effect", "the server is about to stop; the connection goes to another when it does")
			if opts.Refused != nil {
				opts.Refused(RefusedLameDuck, errLameDuck)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				logger.Warn("nats error", "subject", sub.Subject, "error", withoutURL(err))
				return
			}
			logger.Warn("nats error", "error", withoutURL(err))
		}),
	}
	if opts.InboxPrefix != "" {
		all = append(all, nats.CustomInboxPrefix(opts.InboxPrefix))
	}
	return all
}

func authOptions(opts ConnectOptions, nkey *nkeyFile) ([]nats.Option, error) {
	var all []nats.Option
	chosen := 0
	for _, file := range []string{opts.CredsFile, opts.NKeyFile, opts.TokenFile, opts.UserFile} {
		if file != "" {
			chosen++
		}
	}
	if chosen > 1 {
		return nil, errors.New("set only one of CredsFile, NKeyFile, TokenFile and UserFile")
	}
	if (opts.UserFile == "") != (opts.PasswordFile == "") {
		return nil, errors.New("UserFile and PasswordFile belong together")
	}
	if (opts.CertFile == "") != (opts.KeyFile == "") {
		return nil, errors.New("CertFile and KeyFile belong together")
	}
	for _, file := range []string{opts.CredsFile, opts.TokenFile, opts.UserFile, opts.PasswordFile, opts.CAFile, opts.CertFile, opts.KeyFile} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return nil, err
		}
	}
	switch {
	case opts.CredsFile != "":
		all = append(all, nats.UserCredentials(opts.CredsFile))
	case opts.NKeyFile != "":
		login, err := nkey.options()
		if err != nil {
			return nil, err
		}
		all = append(all, login...)
	case opts.TokenFile != "":
		all = append(all, nats.TokenHandler(func() string { return readSecret(opts.TokenFile) }))
	case opts.UserFile != "":
		all = append(all, nats.UserInfoHandler(func() (string, string) {
			return readSecret(opts.UserFile), readSecret(opts.PasswordFile)
		}))
	}
	if opts.CAFile != "" {
		all = append(all, nats.RootCAs(opts.CAFile))
	}
	if opts.CertFile != "" {
		all = append(all, nats.ClientCert(opts.CertFile, opts.KeyFile))
	}
	return all, nil
}

// readSecret returns the first line of a file, or "" where it cannot be read: the NATS server then refuses the login,
// and the next attempt reads again.
func readSecret(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// checkURLs refuses what nats.Connect would refuse with an error that quotes the address, password and all.
func checkURLs(rawURL string) error {
	for i, one := range strings.Split(rawURL, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			return fmt.Errorf("connect to NATS: address %d is empty", i+1)
		}
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" {
			return fmt.Errorf("connect to NATS: address %d is not of the form nats://host:port", i+1)
		}
	}
	return nil
}

// withoutURL keeps the cause of an error about an address and drops the address, which may hold a password.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
