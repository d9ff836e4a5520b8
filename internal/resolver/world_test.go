package resolver_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) count(part string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), part)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// ask makes a Resolver for servers that count as validating, without a probe.
func ask(t *testing.T, servers ...*resolvertest.Server) *resolver.Resolver {
	t.Helper()
	return start(t, resolver.Config{Servers: addresses(servers)}, false)
}

func addresses(servers []*resolvertest.Server) (list []string) {
	for _, s := range servers {
		list = append(list, s.Addr())
	}
	return list
}

// start makes a Resolver and, if asked to, runs it until the test ends.
func start(t *testing.T, cfg resolver.Config, run bool) *resolver.Resolver {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	r, err := resolver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if run {
		r.Hurry(20 * time.Millisecond)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		t.Cleanup(func() { cancel(); wg.Wait() })
	}
	return r
}

// zone starts a server with a table.
func zone(t *testing.T, table string) *resolvertest.Server {
	return (&resolvertest.Server{Handler: resolvertest.Zone(table)}).Start(t)
}

// eventually waits, far longer than it ever takes, for something to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not in ten seconds: %s", what)
}

func trust(t *testing.T, value any) resolver.TrustAD {
	t.Helper()
	v, err := resolver.ParseTrustAD(value)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
