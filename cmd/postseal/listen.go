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

	mu   sync.Mutex
	open map[string]*socket // by service and address
	work sync.WaitGroup
}

// socket is one place to listen at.
type socket struct {
	service string
	address string
	bound   bool
	err     error
	stop    context.CancelFunc
}

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
	s.mu.Lock()
	for _, k := range s.open {
		if k.service == svc.name && !slices.ContainsFunc(want, func(p place) bool { return p.address == k.address }) {
			s.d.log.Info("no longer listening", "service", svc.name, "socket", k.address)
			k.stop()
			delete(s.open, svc.name+" "+k.address)
		}
	}
	s.mu.Unlock()
	for _, b := range fresh {
		s.add(ctx, svc, b)
	}
	return nil
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
		l, err := s.bind(ctx, p)
		if err != nil && svc.required {
			for _, b := range fresh {
				b.listener.Close()
			}
			return nil, fmt.Errorf("[%s] listen = %q: %w", svc.name, p.address, err)
		}
		fresh = append(fresh, attempt{p, l, err})
	}
	return fresh, nil
}

// adopt serves on the sockets that systemd passed, once.
func (s *sockets) adopt(ctx context.Context, svc service, passed []net.Listener, want []place) error {
	for _, l := range passed {
		address := l.Addr().Network() + ":" + l.Addr().String()
		s.mu.Lock()
		known := s.open[svc.name+" "+address] != nil
		s.mu.Unlock()
		if known {
			continue
		}
		if !slices.ContainsFunc(want, func(p place) bool {
			a, err := systemd.ParseAddress(p.address)
			return err == nil && a.Equal(l)
		}) {
			s.d.log.Warn("systemd passed another socket than the configuration names; systemd's is used", "service", svc.name, "socket", address)
		}
		s.run(ctx, svc, address, l)
	}
	return nil
}

// add serves on a socket. One that could not be bound is tried again.
func (s *sockets) add(ctx context.Context, svc service, b attempt) {
	if b.err == nil {
		s.run(ctx, svc, b.address, b.listener)
		return
	}
	s.d.log.Error("cannot listen; trying on", "service", svc.name, "socket", b.address, "error", b.err)
	ctx, stop := context.WithCancel(ctx)
	k := &socket{service: svc.name, address: b.address, err: b.err, stop: stop}
	s.put(k)
	s.work.Go(func() { s.retry(ctx, svc, b.place, k) })
}

func (s *sockets) retry(ctx context.Context, svc service, p place, k *socket) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryBind):
		}
		l, err := s.bind(ctx, p)
		s.mu.Lock()
		k.err = err
		s.mu.Unlock()
		if err == nil {
			s.run(ctx, svc, p.address, l)
			return
		}
	}
}

func (s *sockets) bind(ctx context.Context, p place) (net.Listener, error) {
	a, err := systemd.ParseAddress(p.address)
	if err != nil {
		return nil, err
	}
	return systemd.Listen(ctx, systemd.Spec{Address: a, Mode: p.mode, Group: p.group})
}

func (s *sockets) put(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[k.service+" "+k.address] = k
}

// run serves on a listener until ctx ends or the socket is no longer wanted.
func (s *sockets) run(ctx context.Context, svc service, address string, l net.Listener) {
	ctx, stop := context.WithCancel(ctx)
	k := &socket{service: svc.name, address: address, bound: true, stop: stop}
	s.put(k)
	s.d.log.Info("listening", "service", svc.name, "socket", address)
	s.work.Go(func() {
		defer stop()
		err := svc.serve(ctx, l)
		if err != nil && ctx.Err() == nil {
			s.d.log.Error("a listener failed", "service", svc.name, "socket", address, "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		k.bound, k.err = false, cmp.Or(err, net.ErrClosed)
	})
}

// close stops every service at every socket, and the attempts to bind others.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.open {
		k.stop()
	}
}

// trouble lists the sockets that are not open.
func (s *sockets) trouble() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, k := range s.open {
		if !k.bound {
			all = append(all, fmt.Sprintf("%s %s: %v", k.service, k.address, k.err))
		}
	}
	slices.Sort(all)
	return all
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
