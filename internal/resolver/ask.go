package resolver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/miekg/dns"
)

// verdict is an Answer without its records.
type verdict struct {
	name, canonical, server string
	authentic, proven, nx   bool
	ttl                     uint32
}

// lookup is one question of a caller, on its way.
type lookup struct {
	*Resolver
	ctx   context.Context
	until time.Time
	q     *question
	chain chain
	into  records
	// failures has one entry per server, in the order asked.
	failures []Failure
}

// resolve asks until the end of the CNAME chain is reached.
func (r *Resolver) resolve(ctx context.Context, name string, qtype uint16, into records) (verdict, error) {
	fail := func(err error) (verdict, error) {
		return verdict{}, &Error{Name: name, Type: dns.TypeToString[qtype], Cause: err}
	}
	q := r.questions.Get().(*question)
	defer r.questions.Put(q)
	if err := q.set(name, qtype); err != nil {
		return fail(err)
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(defaultTotal)
	}
	if err := r.enter(ctx, until); err != nil {
		r.metrics.failed(err)
		return fail(err)
	}
	defer r.leave()
	l := lookup{Resolver: r, ctx: ctx, until: until, q: q, into: into}
	l.chain.names[0] = q.name
	v := verdict{name: q.name, authentic: true, proven: true, ttl: math.MaxUint32}
	for {
		p, s, err := l.step()
		if err != nil {
			return verdict{}, l.failure(name, qtype, err)
		}
		// RFC 7672 §2.1.3: the answer is as authentic as the least of its parts.
		proven := s.is() == Proven
		v.proven = v.proven && proven
		v.authentic = v.authentic && proven && p.ad
		v.canonical, v.server, v.nx, v.ttl = p.canonical, s.text, p.nx, min(v.ttl, p.ttl)
		if !p.open {
			return v, nil
		}
		if err := q.set(p.canonical, qtype); err != nil {
			return fail(err)
		}
	}
}

// enter waits until one more question may be under way.
func (r *Resolver) enter(ctx context.Context, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return ended(err)
	}
	select {
	case r.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx.Err())
	case <-timer.C:
		return fmt.Errorf("%w: %d questions are under way already", ErrTimeout, maxInFlight)
	}
}

func (r *Resolver) leave() { <-r.slots }

// ended is the error of a look-up whose context ended.
func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

// step asks one server after the other about the end of the chain so far.
func (l *lookup) step() (part, *server, error) {
	l.failures = l.failures[:0]
	roster := l.roster.Load()
	turns := roster.order(time.Now().UnixNano())
	for start, end := 0, 0; start < turns.n; start = end {
		for end < turns.n && turns.tier[end] == turns.tier[start] {
			end++
		}
		var done [maxServers]bool
		for round := range rounds {
			timeout := roster.timeout >> (rounds - 1 - round)
			for i := start; i < end; i++ {
				s := turns.server[i]
				if done[i] {
					continue
				}
				p, err := l.ask(s, timeout)
				if err == nil {
					return p, s, nil
				}
				done[i] = !silent(err)
				if err := l.note(s, err); err != nil {
					return part{}, nil, err
				}
			}
		}
	}
	return part{}, nil, l.failures[0].Cause
}

// ask puts the question to one server.
func (l *lookup) ask(s *server, timeout time.Duration) (part, error) {
	l.metrics.asked(l.q.qtype)
	p, err := l.exchange(s, timeout)
	if err != nil {
		l.metrics.failed(err)
		return part{}, err
	}
	if s.sawAnswer(p.ad) {
		l.moved(s)
	}
	return p, nil
}

func (l *lookup) exchange(s *server, timeout time.Duration) (part, error) {
	msg, err := s.overUDP(l.ctx, l.q, earlier(time.Now().Add(timeout), l.until))
	if err != nil {
		return part{}, err
	}
	if truncated(msg) && !rejected(msg) {
		// RFC 7671 §10.1, RFC 8461 needs the same: forty TXT records are no reason to fail.
		if msg, err = s.overTCP(l.ctx, l.q, earlier(time.Now().Add(timeout), l.until)); err != nil {
			return part{}, err
		}
	}
	return l.q.read(msg, &l.chain, l.into)
}

// rejected says that the header alone tells that there is no answer.
func rejected(msg []byte) bool {
	rcode := msg[3] & maskRcode
	return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// note keeps what came of a server. It returns an error when that ends the look-up.
func (l *lookup) note(s *server, err error) error {
	now := time.Now()
	if errors.Is(l.ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	over := l.ctx.Err() != nil || !now.Before(l.until)
	switch {
	case !over:
		s.sawFailure(err, now)
	case errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded):
		// How long the server had is the caller's doing, so it is not held
		// against the server.
		err = ended(context.DeadlineExceeded)
	}
	found := false
	for i := range l.failures {
		if l.failures[i].Server == s.text {
			l.failures[i].Cause, found = err, true
		}
	}
	if !found {
		l.failures = append(l.failures, Failure{s.text, err})
	}
	if over {
		return err
	}
	return nil
}

// failure makes the error of a look-up. The server that was asked first is the
// best, so its failure is the one that counts.
func (l *lookup) failure(name string, qtype uint16, err error) error {
	e := &Error{Name: name, Type: dns.TypeToString[qtype], Cause: err}
	if len(l.failures) > 0 && !errors.Is(err, context.Canceled) {
		first := l.failures[0]
		e.Server, e.Cause, e.Others = first.Server, first.Cause, l.failures[1:]
	}
	return e
}
