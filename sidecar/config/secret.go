package config

import (
	"bytes"
	"os"
)

// ReadSecret reads a file that holds a secret, without the space around it.
func ReadSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(bytes.TrimSpace(b)), err
}
