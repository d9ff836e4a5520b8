package conf

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	routeLasts  = 10 * time.Minute // a table behind a network service tells nobody that it has changed
	routeFailed = time.Minute      // before a table that cannot be read is tried again
)

// Router tells where Postfix hands mail for recipients of a domain, from a snapshot
// and from the tables that it names, which postmap(1) reads. One postmap runs at a
// time. What was found is kept for ten minutes; Watch has a new snapshot as soon as
// a file of a table is another one.
//
// # Bugs
//
// Entries for single recipients, content filters and what FILTER or a milter makes of
// a message are not seen, nor are relocated_maps and rewriting of recipients. A domain
// is looked up by its A-labels.
type Router struct {
	s    *Snapshot
	ask  askFunc
	turn chan struct{}

	mu       sync.Mutex
	kept     map[string]keptRoute
	troubles []string
}

type keptRoute struct {
	route Route
	err   error
	until time.Time
}

// NewRouter makes the Router of a snapshot.
func NewRouter(s *Snapshot) *Router {
	return &Router{s: s, ask: s.ask, turn: make(chan struct{}, 1), kept: map[string]keptRoute{}}
}

// Elsewhere is a domain that nobody has (RFC 6761 §6.4): where Postfix hands mail for
// it, it hands that for all without an entry of their own.
const Elsewhere = "elsewhere.invalid"

// Route tells where mail for one domain goes; the domain is canonical. It takes at
// most some seconds, the less if the tables are files. The error wraps ErrUnreadable
// or is the context's.
func (r *Router) Route(ctx context.Context, domain string) (Route, error) {
	if k, ok := r.known(domain); ok {
		return k.route, k.err
	}
	r.find(ctx, []string{domain})
	if k, ok := r.known(domain); ok {
		return k.route, k.err
	}
	return Route{}, ctx.Err()
}

// Routes tells of many domains at once where their mail goes. The domains for which
// that cannot be told are left out, and the first reason is returned.
func (r *Router) Routes(ctx context.Context, domains []string) (map[string]Route, error) {
	r.find(ctx, domains)
	routes := map[string]Route{}
	failed := ctx.Err()
	for _, domain := range domains {
		switch k, ok := r.known(domain); {
		case ok && k.err == nil:
			routes[domain] = k.route
		case ok && failed == nil:
			failed = k.err
		}
	}
	return routes, failed
}

// Troubles are the lists of domains that could not be read, sorted: a domain that is
// delivered here may be taken for one of others.
func (r *Router) Troubles() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.troubles)
}

func (r *Router) known(domain string) (keptRoute, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.kept[domain]
	return k, ok && time.Now().Before(k.until)
}

// find looks up what is not known, until the context ends.
func (r *Router) find(ctx context.Context, domains []string) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return
	}
	var unknown []string
	for _, domain := range domains {
		if _, ok := r.known(domain); !ok {
			unknown = append(unknown, domain)
		}
	}
	for len(unknown) > 0 {
		batch := unknown[:min(len(unknown), maxBatch)]
		routes, troubles, err := r.s.routes(ctx, r.ask, batch)
		if err != nil && ctx.Err() != nil {
			return // the asker went, which says nothing about the table
		}
		if err != nil {
			batch = unknown // the others would fare no better, and each would wait
		}
		r.keep(batch, routes, troubles, err)
		unknown = unknown[len(batch):]
	}
}

func (r *Router) keep(domains []string, routes map[string]Route, troubles []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.kept)+len(domains) > maxRoutes {
		maps.DeleteFunc(r.kept, func(_ string, k keptRoute) bool { return !now.Before(k.until) })
		if len(r.kept)+len(domains) > maxRoutes {
			clear(r.kept)
		}
	}
	until := now.Add(routeLasts)
	if err != nil {
		until = now.Add(routeFailed)
	}
	for _, domain := range domains {
		r.kept[domain] = keptRoute{routes[domain], err, until}
	}
	r.troubles = troubles
}
