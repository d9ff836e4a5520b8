package socketmaptest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Result is what a load saw.
type Result struct {
	Requests int           // answered
	Elapsed  time.Duration // from the first request to the last answer
	Worst    time.Duration // the longest wait for an answer
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Framing says how many bytes the message takes that b begins with; zero when it has
// not come in full. It is how answers are told from each other.
type Framing func(b []byte) (size int, err error)

// Load asks the server at address for the time d, on conns connections at once. As
// Postfix does, each waits for an answer before it asks again. The requests, which
// are whole netstrings, are sent in turn; the connections begin with others, evenly
// spread over them. Any netstring is an answer.
func Load(ctx context.Context, network, address string, conns int, d time.Duration, requests ...[]byte) (Result, error) {
	return load(ctx, netstringSize, network, address, conns, d, requests)
}

func load(ctx context.Context, framing Framing, network, address string, conns int, d time.Duration, requests [][]byte) (Result, error) {
	clients := make([]net.Conn, conns)
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range clients {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return Result{}, fmt.Errorf("socketmaptest: %w", err)
		}
		clients[i] = c
	}
	results, errs := make([]Result, conns), make([]error, conns)
	start := time.Now()
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() {
			results[i], errs[i] = ask(ctx, framing, c, start.Add(d), requests, i*max(1, len(requests)/conns))
		})
	}
	running.Wait()
	sum := Result{Elapsed: time.Since(start)}
	for i, r := range results {
		if errs[i] != nil {
			return Result{}, fmt.Errorf("socketmaptest: connection %d: %w", i, errs[i])
		}
		sum.Requests += r.Requests
		sum.Worst = max(sum.Worst, r.Worst)
	}
	return sum, nil
}

func ask(ctx context.Context, framing Framing, c net.Conn, until time.Time, requests [][]byte, turn int) (Result, error) {
	var r Result
	// Ends a wait for a server that does not answer.
	c.SetDeadline(until.Add(10 * time.Second))
	buf := make([]byte, bufferSize)
	for before := time.Now(); before.Before(until) && ctx.Err() == nil; turn++ {
		if _, err := c.Write(requests[turn%len(requests)]); err != nil {
			return r, err
		}
		for filled, size := 0, 0; size == 0 || filled < size; {
			n, err := c.Read(buf[filled:])
			if err != nil {
				return r, err
			}
			filled += n
			if size, err = framing(buf[:filled]); err != nil {
				return r, err
			}
			if size > len(buf) || size == 0 && filled == len(buf) {
				return r, errTooLong
			}
		}
		after := time.Now()
		r.Requests++
		r.Worst = max(r.Worst, after.Sub(before))
		before = after
	}
	return r, nil
}
