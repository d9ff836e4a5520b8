package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postseal/postseal/systemd"
)

// retryBind is how often a socket that could not be bound is tried again.
const retryBind = 10 * time.Second

// service is something that listens, on any number of sockets.
type service struct {
	name     string // section of the configuration, FileDescriptorName of systemd
	required bool   // cannot bind at start: the daemon does not start
	serve    func(context.Context, net.Listener) error
}

// sockets keeps every service listening where the configuration says, also
// after a reload. What systemd passed replaces a service's listen.
type sockets struct {
	d      *daemon
	passed map[string][]net.Listener
	again  time.Duration // after which a socket that could not be bound is tried anew

	mu      sync.Mutex
	open    map[string]*socket // by service and address
	leaving map[string]*socket // no longer wanted, and still being served
	work    sync.WaitGroup
}

func newSockets(d *daemon, passed map[string][]net.Listener) *sockets {
	return &sockets{d: d, passed: passed, again: retryBind, open: map[string]*socket{}, leaving: map[string]*socket{}}
}

// socket is one place to listen at.
type socket struct {
	place
	service  string
	bound    bool
	err      error
	listener *handover // nil: not bound yet
	stop     context.CancelFunc
}

func (k *socket) key() string { return k.service + " " + k.address }

// place is where a service shall listen.
type place struct {
	address string
	mode    fs.FileMode
	group   string
}

func places(c ListenConfig) []place {
	var all []place
	for _, a := range c.Listen {
		all = append(all, place{a, c.UnixMode, c.UnixGroup})
	}
	return all
}

// apply opens and closes sockets until they are those of the configuration. An
// error names the socket of a required service that cannot be bound.
func (s *sockets) apply(ctx context.Context, svc service, want []place) error {
	if passed := s.passed[svc.name]; len(passed) > 0 {
		return s.adopt(ctx, svc, passed, want)
	}
	fresh, err := s.bindFresh(ctx, svc, want)
	if err != nil {
		return err
	}
	if err := s.dress(svc, want); err != nil {
		closeAll(fresh)
		return err
	}
	s.retire(svc, want)
	for _, b := range fresh {
		s.add(ctx, svc, b)
	}
	return nil
}

// dress gives the sockets that stay the mode and the group that are wanted now.
func (s *sockets) dress(svc service, want []place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range want {
		k := s.open[svc.name+" "+p.address]
		if k == nil || k.place == p {
			continue
		}
		if k.bound {
			err := dress(p)
			switch {
			case err != nil && svc.required:
				return fmt.Errorf("[%s] listen = %q: %w", svc.name, p.address, err)
			case err != nil:
				s.d.log.Error("a socket keeps its mode and group", "service", svc.name, "socket", p.address, "error", err)
				continue
			}
		}
		k.mode, k.group = p.mode, p.group
	}
	return nil
}

func dress(p place) error {
	a, err := systemd.ParseAddress(p.address)
	if err != nil {
		return err
	}
	return systemd.Dress(systemd.Spec{Address: a, Mode: p.mode, Group: p.group})
}

// retire ends the service at the sockets that are no longer wanted. They may
// answer on for as long as the drain takes.
func (s *sockets) retire(svc service, want []place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, k := range s.open {
		if k.service != svc.name || slices.ContainsFunc(want, func(p place) bool { return p.address == k.address }) {
			continue
		}
		delete(s.open, key)
		if k.bound {
			s.d.log.Info("draining: no longer wanted, answers until its connections are gone", "service", svc.name, "socket", k.address)
			s.leaving[key] = k
		}
		k.stop()
	}
}

// reclaim takes back the socket of a service that is still draining there, so
// that a listen that was taken out of the configuration and put back is not
// refused because of ourselves. Nil: there is none.
func (s *sockets) reclaim(svc service, p place) net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.leaving[svc.name+" "+p.address]
	if k == nil {
		return nil
	}
	l, err := k.listener.give()
	if err != nil {
		return nil // just closed
	}
	delete(s.leaving, k.key())
	if err := dress(p); err != nil {
		l.Close()
		return nil
	}
	return l
}

// attempt is what came of binding a socket.
type attempt struct {
	place
	listener net.Listener
	err      error
}

// bindFresh binds the sockets that are not open yet, before any other is closed:
// where a required service cannot have its new socket, it keeps the old ones.
func (s *sockets) bindFresh(ctx context.Context, svc service, want []place) ([]attempt, error) {
	s.mu.Lock()
	want = slices.DeleteFunc(slices.Clone(want), func(p place) bool { return s.open[svc.name+" "+p.address] != nil })
	s.mu.Unlock()
	var fresh []attempt
	for _, p := range want {
		if path, ok := strings.CutPrefix(p.address, "unix:"); ok && svc.name == "control" {
			// Started by hand nobody has made /run/postseal. What goes wrong here,
			// bind says.
			_ = os.Mkdir(filepath.Dir(path), 0o750)
		}
		l, err := s.bind(ctx, svc, p)
		if err != nil && svc.required {
			closeAll(fresh)
			return nil, fmt.Errorf("[%s] listen = %q: %w", svc.name, p.address, err)
		}
		fresh = append(fresh, attempt{p, l, err})
	}
	return fresh, nil
}

func closeAll(fresh []attempt) {
	for _, b := range fresh {
		if b.listener != nil {
			b.listener.Close()
		}
	}
}

// adopt serves on the sockets that systemd passed, once.
func (s *sockets) adopt(ctx context.Context, svc service, passed []net.Listener, want []place) error {
	for _, l := range passed {
		address := l.Addr().Network() + ":" + l.Addr().String()
		wanted, named := place{address: address}, false
		for _, p := range want {
			if a, err := systemd.ParseAddress(p.address); err == nil && a.Equal(l) {
				wanted, named = place{address, p.mode, p.group}, true
			}
		}
		if s.adopted(svc, wanted, named) {
			continue
		}
		if !named {
			s.d.log.Warn("systemd passed another socket than the configuration names; systemd's is used", "service", svc.name, "socket", address)
		}
		s.run(ctx, svc, wanted, l)
	}
	return nil
}

// adopted tells whether a socket of systemd's is being served already, and that
// what the configuration newly says about its file is for the unit to say.
func (s *sockets) adopted(svc service, p place, named bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.open[svc.name+" "+p.address]
	if k == nil {
		return false
	}
	if named && k.place != p {
		s.d.log.Warn("unix_mode and unix_group do not apply to a socket of systemd's: its unit has SocketMode= and SocketGroup=", "service", svc.name, "socket", p.address)
		k.mode, k.group = p.mode, p.group
	}
	return true
}

// add serves on a socket. One that could not be bound is tried again.
func (s *sockets) add(ctx context.Context, svc service, b attempt) {
	if b.err == nil {
		s.run(ctx, svc, b.place, b.listener)
		return
	}
	s.d.log.Error("cannot listen; trying on", "service", svc.name, "socket", b.address, "error", b.err)
	ctx, stop := context.WithCancel(ctx)
	k := &socket{service: svc.name, place: b.place, err: b.err, stop: stop}
	s.mu.Lock()
	s.open[k.key()] = k
	s.mu.Unlock()
	s.work.Go(func() { s.retry(ctx, svc, k) })
}

// retry binds a socket as soon as it can be, and serves on it until ctx ends.
func (s *sockets) retry(ctx context.Context, svc service, k *socket) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.again):
		}
		s.mu.Lock()
		p := k.place
		s.mu.Unlock()
		l, err := s.bind(ctx, svc, p)
		s.mu.Lock()
		if err == nil && ctx.Err() != nil {
			l.Close() // a reload took it out meanwhile
			err = ctx.Err()
		}
		if k.err = err; err == nil {
			k.bound, k.listener = true, newHandover(l)
		}
		s.mu.Unlock()
		if err == nil {
			s.serve(ctx, svc, k)
			return
		}
	}
}

func (s *sockets) bind(ctx context.Context, svc service, p place) (net.Listener, error) {
	if l := s.reclaim(svc, p); l != nil {
		return l, nil
	}
	a, err := systemd.ParseAddress(p.address)
	if err != nil {
		return nil, err
	}
	return systemd.Listen(ctx, systemd.Spec{Address: a, Mode: p.mode, Group: p.group})
}

// run serves on a listener until ctx ends or the socket is no longer wanted.
func (s *sockets) run(ctx context.Context, svc service, p place, l net.Listener) {
	ctx, stop := context.WithCancel(ctx)
	k := &socket{service: svc.name, place: p, bound: true, listener: newHandover(l), stop: stop}
	s.mu.Lock()
	s.open[k.key()] = k
	s.mu.Unlock()
	s.work.Go(func() { s.serve(ctx, svc, k) })
}

// serve serves on a socket. One that fails is bound anew, unless it is systemd's.
func (s *sockets) serve(ctx context.Context, svc service, k *socket) {
	s.d.log.Info("listening", "service", svc.name, "socket", k.address)
	err := svc.serve(ctx, k.listener)
	failed := err != nil && ctx.Err() == nil
	if failed {
		s.d.log.Error("a listener failed", "service", svc.name, "socket", k.address, "error", err)
	}
	s.mu.Lock()
	k.bound, k.err = false, cmp.Or(err, net.ErrClosed)
	if s.leaving[k.key()] == k {
		delete(s.leaving, k.key())
		s.d.log.Info("no longer listening", "service", svc.name, "socket", k.address)
	}
	s.mu.Unlock()
	if failed && len(s.passed[svc.name]) == 0 {
		s.retry(ctx, svc, k)
	}
	k.stop()
}

// close stops every service at every socket, and the attempts to bind others.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.open {
		k.stop()
	}
}

// trouble lists the sockets that are not open. Grave: one of them is of a service
// that is needed.
func (s *sockets) trouble(needed func(service string) bool) (all []string, grave bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.open {
		if !k.bound {
			all = append(all, fmt.Sprintf("%s %s: %v", k.service, k.address, k.err))
			grave = grave || needed(k.service)
		}
	}
	slices.Sort(all)
	return all, grave
}

// Limits of the HTTP servers; their peers are local, but may be slow or broken.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	httpShutdown  = 2 * time.Second
)

// serveHTTP serves h until ctx ends.
func serveHTTP(h http.Handler) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			<-ctx.Done()
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdown)
			defer cancel()
			if server.Shutdown(limit) != nil {
				server.Close()
			}
		}()
		err := server.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			<-stopped
			return nil
		}
		return err
	}
}
