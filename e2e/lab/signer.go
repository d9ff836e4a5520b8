//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Signer is a real OpenDKIM, a milter that comes before ours.
type Signer struct {
	world   *World
	file    string // its configuration
	address string // HOST:PORT
	process *process
}

// signerConfig is the laboratory's opendkim.conf. Diagnostics has it add z=, whose "b=" has misled verifiers. By itself
// OpenDKIM leaves fields unsigned that a receiver acts upon.
const signerConfig = `Background no
Syslog no
RequireSafeKeys no
Mode s
Domain lab.test
Selector s1
KeyFile LAB/keys/rsa2048
Canonicalization relaxed/relaxed
Diagnostics yes
OversignHeaders From
SignHeaders *,+Message-ID,+MIME-Version,+Content-Type,+Content-Transfer-Encoding
InternalHosts 0.0.0.0/0,::/0
`

// signerSocket is the form of a Socket that a signer can have here.
var signerSocket = regexp.MustCompile(`(?m)^Socket inet:(\d+)@(127\.[0-9.]+)$`)

// NewSigner writes a configuration: the laboratory's, and over it the given lines, which name the Socket. "LAB" stands
// for the world's directory, LAB/keys/NAME for the file of the key of that name. It does not start it.
func (w *World) NewSigner(name, config string) (*Signer, error) {
	config = mergeLines(signerConfig, config)
	m := signerSocket.FindStringSubmatch(config)
	if m == nil {
		return nil, fmt.Errorf("signer %s: want a line \"Socket inet:PORT@127.…\"", name)
	}
	if err := w.writeKeys(config); err != nil {
		return nil, fmt.Errorf("signer %s: %w", name, err)
	}
	s := &Signer{world: w, file: filepath.Join(w.Dir, "signer-"+name+".conf"), address: m[2] + ":" + m[1]}
	w.onClose(s.Stop)
	return s, os.WriteFile(s.file, []byte(strings.ReplaceAll(config, "LAB", w.Dir)), 0o644)
}

// mergeLines replaces lines of base by those of over that begin with the same word.
func mergeLines(base, over string) string {
	lines := strings.Split(strings.TrimSpace(base), "\n")
	for line := range strings.Lines(over) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines = slices.DeleteFunc(lines, func(have string) bool { return strings.HasPrefix(have, word+" ") })
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n") + "\n"
}

// Start starts the signer and waits until it listens.
func (s *Signer) Start(ctx context.Context) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "opendkim", "-f", "-x", s.file)
	process, err := startProcess(s.world.Network, cmd, s.file+".log")
	if err != nil {
		return err
	}
	s.process = process
	return s.world.Network.awaitPort(ctx, s.address)
}

// Stop ends the signer as a crash would.
func (s *Signer) Stop() error { return s.process.end(syscall.SIGKILL, stopDeadline) }

// verdictLine is what "opendkim -t" says of a signature.
var verdictLine = regexp.MustCompile(`verification \(.*\) (succeeded|failed)|message (not signed)`)

// Receive verifies a message's bytes as a receiver with OpenDKIM does: "pass", "fail", or "none" for a message without
// signatures. OpenDKIM speaks of one signature only.
func (w *World) Receive(ctx context.Context, message []byte) (string, error) {
	file, err := os.CreateTemp(w.Dir, "received")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(message)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	// OpenDKIM's own resolver would begin at the root, which is not there.
	keys, config := file.Name()+".keys", file.Name()+".conf"
	defer os.Remove(keys)
	defer os.Remove(config)
	err = errors.Join(
		os.WriteFile(keys, []byte(w.Authority.keyRecords()), 0o644),
		os.WriteFile(config, []byte("Mode v\nSyslog no\nTestPublicKeys "+keys+"\n"), 0o644),
	)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	cmd := exec.CommandContext(ctx, "opendkim", "-x", config, "-t", file.Name())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := w.Network.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("opendkim -t: %w: %s", err, out.String())
	}
	m := verdictLine.FindStringSubmatch(out.String())
	switch {
	case m == nil:
		return "", fmt.Errorf("opendkim -t says nothing of a signature: %s", out.String())
	case m[2] != "":
		return "none", nil
	case m[1] == "succeeded":
		return "pass", nil
	}
	return "fail", nil
}
