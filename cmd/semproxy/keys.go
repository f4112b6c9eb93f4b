package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/proxy/identity"
)

func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make entries for the file of API keys",
		Long: `The proxy keeps API keys as hashes, in the file of proxy.identity.keysFile:

  keys:
    - { name: acme-web, tenant: acme, sha256: 5e88... }

These commands make such an entry. The file is read again when it changes: no restart.`,
	}
	cmd.AddCommand(newKeysNewCommand(), newKeysHashCommand())
	return cmd
}

func newKeysNewCommand() *cobra.Command {
	var tenant, name, file string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a random key, and its entry",
		Long: `Make a random key of 256 bits. The key is printed once and kept nowhere: hand it to the tenant. With --file the entry is
put into the file of keys, which is made where it is not there, and the key alone is printed; the file never holds it. Without,
both are printed, as a file of keys with the key in a comment: do not keep that.`,
		Example: `  semproxy keys new --tenant acme --name acme-web --file keys.yaml`,
		Args:    cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := identity.NewKey()
			entry, err := keyEntry(key, tenant, name)
			if err != nil {
				return err
			}
			if file != "" {
				if err := appendKey(cmd.Context(), file, entry); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "semproxy: %s has the key's hash; the key, for the tenant, is shown only now:\n", file)
				_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "# the key, for the tenant; it is shown only now\n# %s\nkeys:\n%s", key, entry)
			return err
		},
	}
	keyFlags(cmd, &tenant, &name)
	cmd.Flags().StringVar(&file, "file", "", "file of keys that the entry is put into")
	return cmd
}

// appendKey puts an entry at the end of a file of keys, which must be one already, or is made. What is written is one.
func appendKey(ctx context.Context, file, entry string) error {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = []byte("keys:\n")
	case err != nil:
		return err
	}
	text = append(bytes.TrimRight(text, "\n"), '\n')
	if bytes.Equal(bytes.TrimSpace(text), []byte("keys: []")) {
		text = []byte("keys:\n")
	}
	text = append(text, entry...)
	tmp := filepath.Join(filepath.Dir(file), ".semproxy-keys-"+rand.Text())
	defer func() { _ = os.Remove(tmp) }() // gone already when all was well
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	if _, err := identity.OpenKeys(tmp, slog.New(slog.DiscardHandler), nil); err != nil {
		return exit.RefusedError{Text: fmt.Sprintf("%s is no file of keys that an entry can be put behind: %s", file, strings.ReplaceAll(err.Error(), tmp, file))}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

func newKeysHashCommand() *cobra.Command {
	var tenant, name string
	cmd := &cobra.Command{
		Use:   "hash",
		Short: "Read a key from the standard input, and print its entry",
		Long: `Read a key from the standard input, so that it is in no shell's history, and print its entry. A key of fewer than
22 characters is refused: it could be guessed from its hash.`,
		Example: `  semproxy keys hash --tenant acme < key.txt`,
		Args:    cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64<<10)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the key: %w", err)
			}
			entry, err := keyEntry(strings.TrimSpace(line), tenant, name)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), entry)
			return err
		},
	}
	keyFlags(cmd, &tenant, &name)
	return cmd
}

func keyFlags(cmd *cobra.Command, tenant, name *string) {
	cmd.Flags().StringVar(tenant, "tenant", "", "tenant that the key belongs to (required)")
	cmd.Flags().StringVar(name, "name", "", "what a person calls the key")
	_ = cmd.MarkFlagRequired("tenant") // the flag exists
}

func keyEntry(key, tenant, name string) (string, error) {
	hash, err := identity.HashKey(key)
	if err != nil {
		return "", err
	}
	if !identity.ValidTenant(tenant) {
		return "", fmt.Errorf("the tenant must be 1 to 64 letters, digits, dashes or underscores, got %q", tenant)
	}
	if name != "" {
		name = fmt.Sprintf("name: %q, ", name)
	}
	return fmt.Sprintf("  - { %stenant: %s, sha256: %s }\n", name, tenant, hash), nil
}
