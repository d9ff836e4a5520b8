package main

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/mtasts"
	"github.com/postseal/postseal/systemd"
)

// standing is resolvertest.DNS with the rest of what an engine asks of a resolver.
type standing struct {
	*resolvertest.DNS
	ready func(context.Context)
}

func (s standing) Suspended() (bool, string) { return false, "" }

func (s standing) Ready(ctx context.Context) {
	if s.ready != nil {
		s.ready(ctx)
	}
}

// testDaemon is a daemon with an engine on the built-in defaults, not running.
func testDaemon(t *testing.T, dns policy.Resolver) *daemon {
	t.Helper()
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.sockets = newSockets(d, nil)
	d.cfg.Store(&Config{})
	var err error
	d.engine, err = policy.New(policy.Config{
		Resolver: dns, Store: cache.NewVolatile(nil), Logger: d.log,
		Fetch: func(context.Context, string) (mtasts.Fetched, error) { return mtasts.Fetched{}, mtasts.ErrNoAddress },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// controlled runs the engine and the control socket of d until the test ends.
func controlled(t *testing.T, d *daemon, listen string) {
	t.Helper()
	a, err := systemd.ParseAddress(listen)
	if err != nil {
		t.Fatal(err)
	}
	l, err := systemd.Listen(t.Context(), systemd.Spec{Address: a, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = d.engine.Run(ctx) })
	work.Go(func() { _ = serveHTTP((&control{d}).handler())(ctx, l) })
	t.Cleanup(func() { end(); work.Wait() })
}
