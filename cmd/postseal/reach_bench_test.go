package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/reach"
	"github.com/postseal/postseal/policy"
)

// TestMailReachLimits: however many destinations are due at once, connections stay
// below 32, the pace below what a twentieth of a core can do, also over a reload.
func TestMailReachLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, opened := 0, 0, 0
		dial := func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			now, opened = now+1, opened+1
			most = max(most, now)
			mu.Unlock()
			time.Sleep(10 * time.Second) // a host that does not answer
			mu.Lock()
			defer mu.Unlock()
			now--
			return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
		}
		r := newMailReach(ReachConfig{Connections: defaultConnections}, slog.New(slog.DiscardHandler))
		r.dial = dial
		r.configure(ReachConfig{}, nil)
		begun := time.Now()
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				r.Probe(context.Background(), []policy.Demand{{Host: fmt.Sprintf("mx%d.test", i), Port: 25, Line: tlspolicy.Line{Level: tlspolicy.Encrypt},
					Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}}}, false)
			})
			if i == 500 {
				time.Sleep(time.Minute)
				r.configure(ReachConfig{HeloName: "other.test"}, nil)
			}
		}
		all.Wait()
		if opened != 1000 || most != defaultConnections || most >= 32 {
			t.Errorf("%d connections, at most %d at once", opened, most)
		}
		if least := (1000 - probeBurst) / probesPerSecond * time.Second; time.Since(begun) < least {
			t.Errorf("all in %s, less than %s", time.Since(begun), least)
		}
	})
}

// TestBenchSink is not a test: it is the mail host of BenchmarkProbe, in a process of
// its own so that what it costs does not count.
func TestBenchSink(t *testing.T) {
	if os.Getenv("POSTSEAL_BENCH_SINK") == "" {
		return
	}
	fmt.Println("listening", newSink(t, "mx.ex.test", "ex.test").addr)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the benchmark ends
}

// BenchmarkProbe: what a probe costs, with TLS and a certificate to judge, and which
// share of a core that is at the pace of probes; the bar is core-share ≤ 0.05.
func BenchmarkProbe(b *testing.B) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchSink$", "-test.v")
	cmd.Env = append(os.Environ(), "POSTSEAL_BENCH_SINK=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	buf := make([]byte, 4096)
	text := ""
	for !strings.Contains(text, "listening ") || !strings.HasSuffix(text, "\n") {
		n, err := out.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		text += string(buf[:n])
	}
	_, address, _ := strings.Cut(text, "listening ")
	at := netip.MustParseAddrPort(strings.Fields(address)[0])
	line, err := tlspolicy.Parse("secure", tlspolicy.Version{})
	if err != nil {
		b.Fatal(err)
	}
	r := testReach()
	r.pace = rate.NewLimiter(rate.Inf, 1)
	r.memory = &reach.Memory{Prober: r.paced()}
	demand := []policy.Demand{{Host: "mx.ex.test", Port: at.Port(), Addresses: []netip.Addr{at.Addr()}, Nexthop: "ex.test", Line: line}}
	var costs []float64
	for b.Loop() {
		before := processTime(b)
		const probes = 20
		for range probes {
			if s := r.Probe(b.Context(), demand, true); s.Verdict == policy.ReachUnknown {
				b.Fatalf("%+v", s)
			}
		}
		costs = append(costs, float64((processTime(b)-before).Microseconds())/probes)
	}
	slices.Sort(costs)
	cost := costs[len(costs)/2]
	b.ReportMetric(cost, "cpu-µs/probe")
	b.ReportMetric(cost*probesPerSecond/1e6, "core-share")
	b.ReportMetric(0, "ns/op")
}

func processTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
