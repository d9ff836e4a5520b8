package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy"
)

// The first question after a start waits until it is known whether the resolver
// validates, out of its own deadline: the answer is there in time, also when
// nobody answers in the DNS.
func TestCMB17_FirstAnswerAfterAStart(t *testing.T) {
	const silent = "hang ex.test MX\nhang _mta-sts.ex.test TXT\nhang ex.test A\nhang ex.test AAAA"
	for _, deadline := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, 90 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			life, end := context.WithCancel(t.Context())
			never := func(ctx context.Context) { <-ctx.Done() }
			d := testDaemon(t, standing{resolvertest.New(silent), never})
			d.cfg.Store(&Config{TLSPolicy: TLSPolicyConfig{Deadline: deadline}})
			d.engine.Configure(engineSettings(d.config()), policy.Postfix{})
			d.postfix = newPostfixWatch(d)
			d.gate = newGate(d.engine, func() time.Duration { return d.config().TLSPolicy.Deadline })
			stopped := make(chan struct{})
			go func() { defer close(stopped); _ = d.engine.Run(life) }()
			start := time.Now()
			go d.settle(life, never)
			for _, when := range []string{"first", "second", "third"} {
				start := time.Now()
				if got := d.gate.ServeSocketmap(t.Context(), nil, []byte("postseal"), []byte("ex.test")); string(got) != "NOTFOUND " {
					t.Errorf("%s: %q", when, got)
				}
				if took := time.Since(start); took > deadline {
					t.Errorf("deadline %v, %s question: answered after %v", deadline, when, took)
				}
			}
			time.Sleep(time.Until(start.Add(settle)))
			synctest.Wait()
			if !d.gate.isOpen.Load() {
				t.Error("the gate is not open")
			}
			end()
			<-stopped
		})
	}
}

// A resolver whose standing is known holds nobody up.
func TestGate_Opens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDaemon(t, standing{DNS: &resolvertest.DNS{}})
		d.postfix = newPostfixWatch(d)
		d.gate = newGate(d.engine, func() time.Duration { return time.Second })
		start := time.Now()
		// What is answered about senders waits for no look-up, so not for the resolver either.
		if got := d.gate.ServeSocketmap(t.Context(), nil, []byte(policy.SenderMap), []byte("a@ex.test")); string(got) != "NOTFOUND " || time.Since(start) > 0 {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		go func() {
			time.Sleep(30 * time.Millisecond)
			d.settle(t.Context(), func(context.Context) {})
		}()
		for range 2 {
			d.gate.ServeSocketmap(t.Context(), nil, []byte("postseal"), []byte("[192.0.2.1]"))
			if took := time.Since(start); took != 30*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
		}
	})
}
