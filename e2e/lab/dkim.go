//go:build linux

package lab

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// dkimKeys holds one key for each name, for all worlds: an RSA key takes a moment to make.
var dkimKeys struct {
	mu   sync.Mutex
	keys map[string]crypto.Signer
}

// DKIMKey returns the private key of that name. The name begins with its kind, "ed25519" or "rsa" and the number of
// bits; anything may follow after a hyphen: rsa2048, rsa2048-next, ed25519. A name has the same key in all worlds.
//
// Kinds below 1024 bits need the setting rsa1024min=0 of GODEBUG.
func DKIMKey(name string) (crypto.Signer, error) {
	dkimKeys.mu.Lock()
	defer dkimKeys.mu.Unlock()
	if key := dkimKeys.keys[name]; key != nil {
		return key, nil
	}
	key, err := newDKIMKey(name)
	if err != nil {
		return nil, fmt.Errorf("DKIM key %s: %w", name, err)
	}
	if dkimKeys.keys == nil {
		dkimKeys.keys = make(map[string]crypto.Signer)
	}
	dkimKeys.keys[name] = key
	return key, nil
}

func newDKIMKey(name string) (crypto.Signer, error) {
	kind, _, _ := strings.Cut(name, "-")
	if kind == "ed25519" {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	size, isRSA := strings.CutPrefix(kind, "rsa")
	bits, err := strconv.Atoi(size)
	if !isRSA || err != nil {
		return nil, fmt.Errorf("kind %q is neither ed25519 nor rsa with a number of bits", kind)
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

// DKIMRecord is the key record, RFC 6376 §3.6.1, of the key of that name.
func DKIMRecord(name string) (string, error) {
	key, err := DKIMKey(name)
	if err != nil {
		return "", err
	}
	if public, ok := key.Public().(ed25519.PublicKey); ok {
		// RFC 8463 §4: the bare 32 octets.
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public), nil
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
}

// dkimName stands in a zone for the record of that key.
var dkimName = regexp.MustCompile(`dkim:([a-z0-9-]+)`)

// expandKeys writes key records out, in strings of 255 octets at most.
func expandKeys(text string) (string, error) {
	var failed error
	text = dkimName.ReplaceAllStringFunc(text, func(word string) string {
		record, err := DKIMRecord(strings.TrimPrefix(word, "dkim:"))
		if err != nil {
			failed = err
		}
		var quoted strings.Builder
		for len(record) > 255 {
			fmt.Fprintf(&quoted, "%q ", record[:255])
			record = record[255:]
		}
		fmt.Fprintf(&quoted, "%q", record)
		return quoted.String()
	})
	return text, failed
}

// keyFile stands in a signer's configuration for the file of that private key.
var keyFile = regexp.MustCompile(`LAB/keys/([a-z0-9-]+)`)

// writeKeys writes the private keys that a configuration names.
func (w *World) writeKeys(config string) error {
	dir := filepath.Join(w.Dir, "keys")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, m := range keyFile.FindAllStringSubmatch(config, -1) {
		key, err := DKIMKey(m[1])
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, m[1]), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
