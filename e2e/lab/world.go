//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// World is one network with everything in it but the senders: zones, resolver, policy hosts, sinks.
type World struct {
	Dir        string // short, mode 0755 all the way, the same path in every root
	Network    *Network
	PKI        *PKI
	Authority  *Authority
	Resolver   *Resolver
	PolicyHost *PolicyHost
	Sinks      map[string]*Sink   // by ADDRESS:PORT
	Signers    map[string]*Signer // by name

	closers []func() error
	group   sync.WaitGroup
}

// Go runs a task that Close waits for, before it ends anything.
func (w *World) Go(task func()) { w.group.Go(task) }

var worlds atomic.Int64

// NewWorld builds the world of a Spec; Close ends it.
func NewWorld(ctx context.Context, spec Spec) (w *World, err error) {
	w = &World{
		Dir:     filepath.Join(Dir, fmt.Sprintf("w%d", worlds.Add(1))),
		Sinks:   make(map[string]*Sink),
		Signers: make(map[string]*Signer),
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("building the world: %w", err), w.Close())
		}
	}()
	if err := os.Mkdir(w.Dir, 0o755); err != nil {
		return w, err
	}
	if w.Network, err = NewNetwork(); err != nil {
		return w, err
	}
	w.onClose(func() error { w.Network.Close(); return nil })
	if w.PKI, err = NewPKI(); err != nil {
		return w, err
	}
	if err := os.WriteFile(w.CAFile(), w.PKI.PEM(), 0o644); err != nil {
		return w, err
	}
	if err := w.startDNS(ctx, spec.Zones); err != nil {
		return w, err
	}
	if err := w.startSigners(ctx, spec.Signers); err != nil {
		return w, err
	}
	return w, w.startPeers(spec)
}

// CAFile is the certificate of the authority that all good certificates come from.
func (w *World) CAFile() string { return filepath.Join(w.Dir, "ca.pem") }

func (w *World) startDNS(ctx context.Context, files []ZoneFile) error {
	var zones []*zone
	for _, file := range files {
		z, err := parseZone(file.Name, file.Text, file.Signed, w.PKI)
		if err != nil {
			return err
		}
		zones = append(zones, z)
	}
	var err error
	if w.Authority, err = NewAuthority(w.Network, zones); err != nil {
		return err
	}
	w.onClose(w.Authority.Close)
	w.Resolver = &Resolver{network: w.Network, dir: filepath.Join(w.Dir, "unbound"), zones: zones}
	if err := os.Mkdir(w.Resolver.dir, 0o755); err != nil {
		return err
	}
	w.onClose(w.Resolver.Stop)
	return w.Resolver.Start(ctx, true)
}

func (w *World) startSigners(ctx context.Context, configs map[string]string) error {
	for name, config := range configs {
		signer, err := w.NewSigner(name, config)
		if err != nil {
			return err
		}
		w.Signers[name] = signer
		if err := signer.Start(ctx); err != nil {
			return fmt.Errorf("signer %s: %w", name, err)
		}
	}
	return nil
}

func (w *World) startPeers(spec Spec) error {
	sites := make(map[string]Site)
	for domain, body := range spec.Policies {
		sites[domain] = Site{Body: body}
	}
	var err error
	if w.PolicyHost, err = NewPolicyHost(w.Network, w.PKI, sites); err != nil {
		return err
	}
	w.onClose(w.PolicyHost.Close)
	for address, behaviour := range spec.Sinks {
		if err := w.Sink(address, behaviour); err != nil {
			return err
		}
	}
	if spec.Table != nil {
		if err := spec.Table.Serve(w.Network); err != nil {
			return err
		}
		w.onClose(spec.Table.Close)
	}
	return w.writeFiles(spec.Files)
}

// writeFiles dates the files back, for the reason that settle gives.
func (w *World) writeFiles(files map[string]string) error {
	dir := filepath.Join(w.Dir, "files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		old := time.Now().Add(-time.Minute)
		if err := os.Chtimes(file, old, old); err != nil {
			return err
		}
	}
	return nil
}

// Sink starts a sink, or changes the behaviour of the one that is there.
func (w *World) Sink(address string, behaviour Behaviour) error {
	if sink := w.Sinks[address]; sink != nil {
		return sink.Behave(behaviour)
	}
	sink, err := NewSink(w.Network, w.PKI, address, behaviour)
	if err != nil {
		return fmt.Errorf("sink %s: %w", address, err)
	}
	w.Sinks[address] = sink
	w.onClose(sink.Close)
	return nil
}

// Received finds every copy of a message that any sink accepted.
func (w *World) Received(token string) []Message {
	var found []Message
	for _, sink := range w.Sinks {
		for _, m := range sink.Messages() {
			if m.Holds(token) {
				found = append(found, m)
			}
		}
	}
	return found
}

func (w *World) onClose(end func() error) { w.closers = append(w.closers, end) }

// Close ends everything, last come first, and removes the world's files.
func (w *World) Close() error {
	w.group.Wait()
	var errs []error
	for len(w.closers) > 0 {
		last := len(w.closers) - 1
		errs = append(errs, w.closers[last]())
		w.closers = w.closers[:last]
	}
	return errors.Join(append(errs, os.RemoveAll(w.Dir))...)
}

// DumpLogs writes every log of the world, for a failed test.
func (w *World) DumpLogs(out io.Writer) {
	for _, pattern := range []string{"*/maillog", "postseal/log", "unbound/unbound.err"} {
		files, _ := filepath.Glob(filepath.Join(w.Dir, pattern)) // the only error is a bad pattern
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(out, "== %s\n%s", file, text)
		}
	}
}
