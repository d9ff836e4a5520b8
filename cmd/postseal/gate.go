package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/socketmap"
)

// settle is how long the first questions wait at most until it is known whether
// the resolver validates. It comes out of their own deadline, of which at least
// half is left for the look-ups.
const settle = 2 * time.Second

// gate stands before the engine until the resolver's standing is known, so that
// the first answers after a start are no weaker than the later ones. From then on
// it costs one atomic load.
type gate struct {
	next     socketmap.Handler
	deadline func() time.Duration // of an answer, from the question's arrival
	isOpen   atomic.Bool
	opened   chan struct{}
}

func newGate(next socketmap.Handler, deadline func() time.Duration) *gate {
	return &gate{next: next, deadline: deadline, opened: make(chan struct{})}
}

// open lets every question through; it is called once.
func (g *gate) open() {
	g.isOpen.Store(true)
	close(g.opened)
}

// ServeSocketmap is a socketmap.Handler.
func (g *gate) ServeSocketmap(ctx context.Context, dst, mapName, key []byte) []byte {
	// What is answered about senders rests on rules alone, and trivial-rewrite(8),
	// which asks, has all other mail waiting behind it.
	if g.isOpen.Load() || string(mapName) == policy.SenderMap {
		return g.next.ServeSocketmap(ctx, dst, mapName, key)
	}
	// CMB-17: the answer leaves before the deadline, however much was spent here.
	deadline := g.deadline()
	ctx, cancel := context.WithTimeout(ctx, deadline-min(answerReserve, deadline/10))
	defer cancel()
	wait := time.NewTimer(min(settle, deadline/2))
	defer wait.Stop()
	select {
	case <-g.opened:
	case <-wait.C:
	case <-ctx.Done():
	}
	return g.next.ServeSocketmap(ctx, dst, mapName, key)
}

// answerReserve of the deadline goes to writing the answer.
const answerReserve = 100 * time.Millisecond

// settle opens the gate once the resolver's standing is known, or after a while
// without it: what the first answers rest on is then decided anew.
func (d *daemon) settle(life context.Context, ready func(context.Context)) {
	limit, cancel := context.WithTimeout(life, settle)
	ready(limit)
	cancel()
	d.decideAnew()
	d.gate.open()
}
