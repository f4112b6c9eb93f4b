package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/natsconf"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/transport"
)

func newNATSConfigCommand() *cobra.Command {
	var o natsconf.Options
	var servers []string
	cmd := &cobra.Command{
		Use:   "nats-config",
		Short: "Write a configuration of nats-server that keeps tenants apart, with keys",
		Long: `Write the configuration of a NATS system for semproxy: who may speak as which tenant.

Mode "accounts" gives each tenant an account. The server itself writes the account's name into the subject, so that a
program can only ever speak as its own tenant; this is the mode for production. Mode "users" is the simple one: one
account, where each tenant is a user with permissions and an inbox prefix of its own.

The folder gets a file for each server, and an nkey seed for the sidecars and each tenant. Seeds that are there already
stay: run the command again with more tenants, then reload the servers.`,
		Example: `  semproxy nats-config --tenants acme,globex --out nats
  semproxy nats-config --tenants acme,globex --out nats --servers nats-0,nats-1,nats-2 \
    --jetstream /data/jetstream --tls-cert /tls/tls.crt --tls-key /tls/tls.key --tls-ca /tls/ca.crt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range servers {
				n, err := natsconf.ParseNode(text)
				if err != nil {
					return err
				}
				o.Nodes = append(o.Nodes, n)
			}
			w, err := natsconf.Write(o)
			if err != nil {
				return err
			}
			describe(cmd, &o, w)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Tenants, "tenants", nil, "names of the tenants, separated by commas")
	f.StringVar(&o.Mode, "mode", natsconf.Accounts, "accounts (an account per tenant) or users (one account, permissions)")
	f.StringVar(&o.Dir, "out", "nats", "folder for the configuration and the seeds")
	f.StringSliceVar(&servers, "servers", []string{"localhost"}, "servers as host[:client-port[:route-port]]; more than one make a cluster")
	f.StringVar(&o.Bind, "bind", "0.0.0.0", "address that the servers listen on")
	f.IntVar(&o.MaxPayload, "max-payload", transport.DefaultMaxPayload, "bytes of the longest message")
	f.StringVar(&o.JetStreamDir, "jetstream", "", "folder of the servers for durable jobs; empty: none")
	f.StringVar(&o.TLSCert, "tls-cert", "", "certificate of the servers")
	f.StringVar(&o.TLSKey, "tls-key", "", "its key")
	f.StringVar(&o.TLSCA, "tls-ca", "", "roots for the certificates of the other servers")
	show.Complete(cmd, "mode", []string{natsconf.Accounts, natsconf.Users})
	return cmd
}

// describe says what to do with the files.
func describe(cmd *cobra.Command, o *natsconf.Options, w *natsconf.Written) {
	out := cmd.OutOrStdout()
	for _, c := range w.Configs {
		fmt.Fprintf(out, "nats-server -c %s\n", c)
	}
	scheme := "nats"
	if o.TLSCert != "" {
		scheme = "tls"
	}
	urls := make([]string, 0, len(o.Nodes))
	for _, n := range o.Nodes {
		urls = append(urls, fmt.Sprintf("%s://%s:%d", scheme, n.Host, n.Client))
	}
	serve := "semproxy serve --nats-url " + strings.Join(urls, ",") + " --nats-nkey-file " + w.Sidecar
	if o.Mode == natsconf.Users {
		serve += " --nats-private-inboxes"
	}
	if o.TLSCA != "" {
		serve += " --nats-tls-ca-file " + o.TLSCA
	}
	if o.JetStreamDir != "" {
		serve += " --jobs-enabled"
		if len(o.Nodes) >= 3 {
			serve += " --jobs-replicas 3"
		}
	}
	fmt.Fprintln(out, serve)
	for i, seed := range w.Tenants {
		fmt.Fprintf(out, "tenant %s logs in with the seed in %s\n", o.Tenants[i], seed)
	}
	if w.Kept > 0 {
		fmt.Fprintf(out, "%d of %d seeds were there and stay\n", w.Kept, len(w.Tenants)+1)
	}
}
