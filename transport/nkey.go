package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// nkeyFile logs in with the seed in a file, read again for each connection. The client library reads a user's public key
// once; a dialer is the one place where it lets that be changed: it is called with the connection locked, before the login.
type nkeyFile struct {
	path string
	net.Dialer
	conn atomic.Pointer[nats.Conn] // set once the connection was made
}

func (k *nkeyFile) pair() (nkeys.KeyPair, string, error) {
	seed, err := os.ReadFile(k.path)
	if err != nil {
		return nil, "", err
	}
	defer clear(seed)
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return nil, "", errors.New("it holds no seed of an nkey")
	}
	public, err := pair.PublicKey()
	return pair, public, err
}

func (k *nkeyFile) sign(nonce []byte) ([]byte, error) {
	pair, _, err := k.pair()
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// Dial implements nats.CustomDialer.
func (k *nkeyFile) Dial(network, address string) (net.Conn, error) {
	if nc := k.conn.Load(); nc != nil {
		if pair, public, err := k.pair(); err == nil {
			pair.Wipe()
			nc.Opts.Nkey = public
		}
	}
	return k.Dialer.Dial(network, address)
}

// options logs in with the file; the connection is given to k afterwards.
func (k *nkeyFile) options() ([]nats.Option, error) {
	pair, public, err := k.pair()
	if err != nil {
		return nil, fmt.Errorf("read nkey file %s: %w", k.path, err)
	}
	pair.Wipe()
	k.Timeout = nats.DefaultTimeout
	return []nats.Option{nats.Nkey(public, k.sign), nats.SetCustomDialer(k)}, nil
}
