package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport"
)

// operator is how "semproxy jobs" reaches the server of a running process: whoever may read its folder may.
type operator struct {
	URL      string `json:"url"`
	User     string `json:"user"`
	Password string `json:"password"`
}

func operatorFile(dir string) string { return filepath.Join(dir, "operator.json") }

func (s *Sidecar) writeOperator() error {
	o := operator{URL: s.nats.ClientURL()}
	o.User, o.Password = s.nats.Operator()
	if o.URL == "" || o.User == "" {
		return nil
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	path := operatorFile(s.cfg.Jobs.Dir)
	_ = os.Remove(path) // of a process that was killed; with it, its permissions
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("jobs.dir: %w", err)
	}
	s.onStop(func(context.Context) error { return os.Remove(path) })
	return nil
}

// ConnectOperator connects as who looks after jobs: to the NATS servers of the configuration, else to that of a running sidecar whose
// folder of jobs it names.
func ConnectOperator(cfg *config.Config) (*nats.Conn, error) {
	if c := &cfg.NATS; c.URL != "" {
		opts := ConnectOptions(c, nil)
		opts.Name, opts.Once = "semproxy jobs", true
		return transport.Connect(c.URL, opts)
	}
	if cfg.Jobs.Dir == "" {
		return nil, errors.New("say where the jobs are: --nats-url, or --jobs-dir of a sidecar that runs a NATS server of its own")
	}
	text, err := os.ReadFile(operatorFile(cfg.Jobs.Dir))
	if err != nil {
		return nil, fmt.Errorf("no sidecar with jobs runs on %s: %w", cfg.Jobs.Dir, err)
	}
	var o operator
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("%s: %w", operatorFile(cfg.Jobs.Dir), err)
	}
	nc, err := nats.Connect(o.URL, nats.Name("semproxy jobs"), nats.UserInfo(o.User, o.Password))
	if err != nil {
		return nil, fmt.Errorf("the sidecar of %s does not answer: %w", cfg.Jobs.Dir, err)
	}
	return nc, nil
}
