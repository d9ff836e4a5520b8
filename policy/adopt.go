package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/mtasts"
)

// obtain fetches the policy of a domain and adopts it; id is the record's, or
// the one held when a policy is refreshed. The error says why there is none; what
// follows from it is done already.
func (e *Engine) obtain(ctx context.Context, d *domain, f *flight, id string) error {
	if err := e.awaitSlot(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchGuard)
	fetched, err := e.fetch(ctx, d.key)
	cancel()
	e.fetches.Release(1)
	switch {
	case e.life.Err() != nil:
		return e.life.Err() // we are stopping: that is no failure of the policy host
	case untried(err):
		// Nothing was asked, so nothing failed: no pause, it is tried again soon.
		e.metrics.fetches.WithLabelValues("busy").Inc()
		return err
	case err != nil:
		blocked := e.outbound.failed(e, d.key, err)
		e.fetchFailed(d, f, id, err, blocked)
		return err
	}
	e.outbound.succeeded(e)
	e.metrics.fetches.WithLabelValues("ok").Inc()
	if !e.adopt(d, f, id, fetched) {
		return errForgotten
	}
	return nil
}

// awaitSlot waits until one more fetch may run; errNoSlot when that takes too long.
// It is no part of the fetch, nor of its time: nobody was asked yet.
func (e *Engine) awaitSlot(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	if e.fetches.Acquire(waiting, 1) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err // we are stopping
	}
	e.metrics.fetches.WithLabelValues("busy").Inc()
	return errNoSlot
}

// errNoSlot: maxFetches were under way all the while.
var errNoSlot = errors.New("too many fetches under way")

// untried: nobody was asked for the policy, so it can be tried again soon.
func untried(err error) bool { return errors.Is(err, errNoSlot) || errors.Is(err, mtasts.ErrBusy) }

// errForgotten: the operator flushed the domain while its policy was fetched.
var errForgotten = errors.New("the domain was forgotten meanwhile")

// fetchFailed keeps the failure; a policy that is held stays in force. While all
// fetches fail the alarm about that says it once for all.
func (e *Engine) fetchFailed(d *domain, f *flight, id string, err error, blocked bool) {
	kind := "other"
	var failure *mtasts.FetchError
	if errors.As(err, &failure) {
		kind = failure.Kind.String()
	}
	e.metrics.fetches.WithLabelValues(kind).Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.flight != f {
		return // forgotten meanwhile
	}
	if d.policy == nil {
		d.policy = &policyState{}
	}
	p, now := d.policy, time.Now().Round(0)
	if p.failedID != id {
		p.failures = 0
	}
	p.failedID, p.attempted, p.err = id, now, err.Error()
	p.failures++
	p.refreshAt = now.Add(p.pause())
	log := e.log.Info
	if blocked {
		log = e.log.Debug
	}
	if !p.valid(now) || p.policy.Mode == mtasts.ModeNone {
		log("policy cannot be fetched", "domain", d.key, "error", err)
		return
	}
	if p.kept {
		e.writer.dirty(d)
	}
	// RFC 8461 §3.3: alert, unless the mode is none.
	if !blocked {
		log = e.log.Warn
	}
	log("policy cannot be refreshed; the one held stays in force", "domain", d.key, "mode", p.policy.Mode,
		"days_left", fmt.Sprintf("%.1f", p.expires().Sub(now).Hours()/24), "failures", p.failures, "error", err)
}

// adopt takes a fetched policy into force, once it is on disk: what was answered
// once must survive kill -9. It reports false for a domain that the operator
// made the engine forget meanwhile.
func (e *Engine) adopt(d *domain, f *flight, id string, got mtasts.Fetched) bool {
	defer e.writer.order.share()()
	// Without the monotonic reading: max_age is counted by the wall clock.
	now := time.Now().Round(0)
	next := &policyState{have: true, policy: got.Policy, body: got.Body, id: id, fetched: now, checked: now, attempted: now, notes: noteTexts(got.Notes)}
	next.refreshAt = now.Add(refreshAfter(got.Policy.MaxAge))
	d.mu.Lock()
	before, forgotten := d.policy, d.sts.flight != f
	d.mu.Unlock()
	if forgotten {
		return false
	}
	var unwritten error
	kept := e.held.add(d)
	if next.kept = kept; kept {
		// Until it is installed: whoever writes next must see it in memory.
		defer e.writer.turn(d.key)()
		unwritten = e.keep(next, d)
	}
	d.mu.Lock()
	if d.policy != nil {
		next.last, next.expedited = d.policy.last, d.policy.expedited
	}
	d.install(next)
	d.mu.Unlock()
	if unwritten != nil {
		e.writer.dirty(d)
	}
	if kept && got.Policy.Mode == mtasts.ModeEnforce {
		e.anchor(d)
	}
	e.tellAdoption(d.key, before, next)
	return true
}

// install makes p the policy of d and voids what was answered before it, for
// all keys that share the domain. The lock of d is held.
func (d *domain) install(p *policyState) {
	d.policy = p
	d.changes.Add(1)
}

// anchor sees to it that questions find the domain that holds a policy: in a
// flood a name can be evicted between its first question and its policy.
func (e *Engine) anchor(d *domain) {
	for {
		found, _ := e.domains.LoadOrStore(d.key, func() *domain { return d })
		if found == d {
			return
		}
		d.mu.Lock()
		policy := *d.policy
		d.mu.Unlock()
		found.mu.Lock()
		if !found.policy.valid(time.Now()) || found.policy.fetched.Before(policy.fetched) {
			found.install(&policy)
		}
		found.mu.Unlock()
		e.held.add(found)
		d = found // it cannot be evicted from now on, but it may have been just before
	}
}

func (e *Engine) tellAdoption(domain string, before, next *policyState) {
	if before != nil && before.have && before.policy.Mode == next.policy.Mode && before.id == next.id {
		e.log.Debug("policy refreshed", "domain", domain, "id", next.id)
		return
	}
	e.log.Info("policy taken into force", "domain", domain, "id", next.id, "mode", next.policy.Mode, "mx", few(next.policy.MX), "max_age", next.policy.MaxAge, "notes", next.notes)
	if next.policy.Mode == mtasts.ModeEnforce && next.policy.MaxAge < 24*time.Hour {
		e.log.Info("the policy's max_age is too short to protect for long", "domain", domain, "max_age", next.policy.MaxAge)
	}
}

// few keeps a line of the log short: a policy may name thousands of hosts.
func few(names []string) []string {
	const most = 10
	if len(names) <= most {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", len(names)-most))
}

// keep writes a policy and waits for the disk, within bounds. That it failed is
// told once for all policies, by the alarm about the store.
func (e *Engine) keep(p *policyState, d *domain) error {
	r, err := p.record(d.key, asked(d))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.life), storeTimeout)
		defer cancel()
		err = e.store.Put(ctx, r)
	}
	if e.writer.result(err); err != nil {
		e.log.Debug("policy is not on disk yet", "domain", d.key, "error", err)
	}
	return err
}

// asked is when a domain was asked for last.
func asked(d *domain) time.Time { return time.Unix(int64(d.asked.Load())*60, 0) }

// readThrough fetches one policy from the store while the whole is still being
// loaded, or could not be, so that no question is answered without it.
func (e *Engine) readThrough(ctx context.Context, d *domain) {
	defer e.writer.order.share()()
	if !e.unread.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r, err := e.store.Get(ctx, kindPolicy, d.key)
	if err == nil {
		e.restore(r)
		if r, err := e.store.Get(ctx, kindClass, d.key); err == nil {
			e.restoreClass(r)
		}
	} else if !errors.Is(err, cache.ErrNotFound) {
		e.log.Warn("policy in the store cannot be read; it is fetched again", "domain", d.key, "error", err)
	}
}
