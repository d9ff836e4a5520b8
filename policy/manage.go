package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/mtasts"
)

// HeldPolicy is one MTA-STS policy in the daemon's memory or its store, in the
// shape of `cache list --json` and of the JSON that `cache import` reads.
type HeldPolicy struct {
	Domain    string     `json:"domain"`
	Mode      string     `json:"mode"`
	ID        string     `json:"id"`
	MX        []string   `json:"mx"`
	MaxAge    int64      `json:"max_age"` // seconds
	FetchedAt time.Time  `json:"fetched_at"`
	ExpiresAt time.Time  `json:"expires_at"`
	CheckedAt *time.Time `json:"checked_at,omitempty"`
	AskedAt   *time.Time `json:"asked_at,omitempty"`
	Failures  int        `json:"failures,omitempty"`
	Error     string     `json:"error,omitempty"`
	// Class is the DANE class last seen, empty if never.
	Class string `json:"class,omitempty"`
	Body  string `json:"body"`
	// LastSeen is what Class rests on, nil when it is too old or was never seen.
	// Emergency needs it: where DANE was in force, a static map must not let a
	// certificate do instead (RFC 8461 §2).
	LastSeen *LastSeen `json:"last_seen,omitempty"`
}

func heldPolicy(domain string, p *policyState, asked time.Time) HeldPolicy {
	h := HeldPolicy{
		Domain: domain, Mode: p.policy.Mode.String(), ID: p.id, MX: append([]string{}, p.policy.MX...), MaxAge: int64(p.policy.MaxAge / time.Second),
		FetchedAt: p.fetched.UTC(), ExpiresAt: p.expires().UTC(), CheckedAt: moment(p.checked), AskedAt: moment(asked),
		Failures: p.failures, Error: p.err, Body: string(p.body),
	}
	if e := p.last.evidence(time.Now()); e != nil {
		h.Class, h.LastSeen = e.Class().String(), p.last
	}
	return h
}

// Held lists the policies that are kept, by domain.
func (e *Engine) Held() []HeldPolicy {
	var all []HeldPolicy
	for _, d := range e.held.all() {
		if h, ok := d.held(); ok {
			all = append(all, h)
		}
	}
	return sortHeld(all)
}

func sortHeld(all []HeldPolicy) []HeldPolicy {
	slices.SortFunc(all, func(a, b HeldPolicy) int { return cmp.Compare(a.Domain, b.Domain) })
	return all
}

func (d *domain) held() (HeldPolicy, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.policy.valid(time.Now()) {
		return HeldPolicy{}, false
	}
	var asked time.Time
	if m := d.asked.Load(); m != 0 {
		asked = time.Unix(int64(m)*60, 0)
	}
	return heldPolicy(d.key, d.policy, asked), true
}

// ErrNotHeld: there is no valid policy of that domain in memory.
var ErrNotHeld = errors.New("no policy held")

// Show returns the policy held of a domain, or ErrNotHeld.
func (e *Engine) Show(name string) (HeldPolicy, error) {
	d, err := e.known(name)
	if err != nil {
		return HeldPolicy{}, err
	}
	h, ok := d.held()
	if !ok {
		return HeldPolicy{}, fmt.Errorf("%w: %s", ErrNotHeld, name)
	}
	return h, nil
}

// namedKey is ParseKey with the name in the error, for callers that do not add it.
func namedKey(name string) (Key, error) {
	k, err := ParseKey(name)
	if err != nil {
		return Key{}, fmt.Errorf("%.100q: %w", name, err)
	}
	return k, nil
}

func (e *Engine) known(name string) (*domain, error) {
	k, err := namedKey(name)
	if err != nil {
		return nil, err
	}
	if d := e.find(k.Name); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotHeld, k.Name)
}

// find returns the domain of a name, nil without one. One whose policy is held can
// have been evicted, until the next scan brings it back.
func (e *Engine) find(name string) *domain {
	if d := e.domains.GetString(name); d != nil {
		return d
	}
	return e.held.get(name)
}

// Refresh fetches a domain's policy now, held or not, and looks up afresh what
// else the answer rests on. What cannot be is as it was until its time is up.
func (e *Engine) Refresh(ctx context.Context, name string) (HeldPolicy, error) {
	k, err := namedKey(name)
	if err != nil {
		return HeldPolicy{}, err
	}
	if err := e.untilLoaded(ctx); err != nil {
		return HeldPolicy{}, err
	}
	e.lookAround(time.Now())
	d := e.domain(k.Name)
	f, err := e.startOwnRefresh(ctx, d)
	if err != nil {
		return HeldPolicy{}, err
	}
	e.newQuery(Key{Name: k.Name, Port: 25}, &d.destination).anew().wait(ctx, time.Now().Add(liveTimeout))
	d.void()
	if f != nil {
		select {
		case <-f.done:
		case <-ctx.Done():
			return HeldPolicy{}, ctx.Err()
		}
	}
	h, ok := d.held()
	if !ok {
		return h, d.notHeld()
	}
	return h, nil
}

// startOwnRefresh waits for a look-up that is under way, which may fetch nothing,
// and then fetches.
func (e *Engine) startOwnRefresh(ctx context.Context, d *domain) (*flight, error) {
	for {
		d.mu.Lock()
		under := d.sts.flight
		if under == nil {
			under = e.startRefresh(d)
			d.mu.Unlock()
			return under, nil
		}
		d.mu.Unlock()
		select {
		case <-under.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// notHeldError is ErrNotHeld in a sentence of its own.
type notHeldError string

func (e notHeldError) Error() string { return string(e) }
func (e notHeldError) Unwrap() error { return ErrNotHeld }

// notHeld says why no policy of d is held.
func (d *domain) notHeld() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.outcome == stsNone {
		return notHeldError(d.key + " has no MTA-STS policy: no record at _mta-sts." + d.key)
	}
	why := d.troubles().sts
	if p := d.policy; why == "" && p != nil {
		if why = p.err; why == "" && p.have {
			why = fmt.Sprintf("it has expired, max_age %d", int64(p.policy.MaxAge/time.Second))
		}
	}
	return notHeldError("no MTA-STS policy of " + d.key + " is held: " + cmp.Or(why, "it was not fetched"))
}

// Flush forgets what is known of a domain, its policy and its mail hosts, in
// memory and in the store; the operator's way out of a planted policy (STS-098).
// It waits until the store was loaded. A gathering under way is without effect.
func (e *Engine) Flush(ctx context.Context, name string) error {
	if err := e.untilLoaded(ctx); err != nil {
		return err
	}
	k, err := namedKey(name)
	if err != nil {
		return err
	}
	if e.find(k.Name) == nil && e.sets.get(k.Name, time.Now()) == nil && !e.unread.Load() {
		return fmt.Errorf("%w: %s", ErrNotHeld, k.Name)
	}
	release, err := e.writer.order.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for _, kind := range []cache.Kind{kindPolicy, kindClass, kindMX} {
		if err := e.store.Delete(ctx, kind, k.Name); err != nil {
			return fmt.Errorf("forget %s: %w", k.Name, err)
		}
	}
	e.forgetMX(k.Name)
	for _, d := range []*domain{e.domains.GetString(k.Name), e.held.get(k.Name)} { // two, if one was evicted
		if d != nil {
			e.drop(d)
		}
	}
	e.log.Info("forgotten by the operator", "domain", k.Name)
	return nil
}

// drop forgets a domain in memory.
func (e *Engine) drop(d *domain) {
	d.mu.Lock()
	d.policy, d.sts, d.trouble = nil, stsState{}, nil
	names := d.outdateMX()
	d.mx.hosts, d.mx.flags = nil, 0 // not even as the last known set
	d.mu.Unlock()
	e.held.remove(d)
	e.hosts.Range(func(_ string, h *host) bool { // at whatever port
		if slices.Contains(names, h.name) {
			h.mu.Lock()
			h.until = 0
			h.mu.Unlock()
		}
		return true
	})
}

// Import takes exported policies into memory and store, except where a newer one
// is held; it never lengthens a lifetime (CCH-10). It returns how many were
// taken: all or none unless the store fails midway.
func (e *Engine) Import(ctx context.Context, all []HeldPolicy) (int, error) {
	if err := e.untilLoaded(ctx); err != nil {
		return 0, err
	}
	now := time.Now().Round(0)
	var imports []imported
	for i, h := range all {
		r, err := h.imported(now)
		if err != nil {
			return 0, fmt.Errorf("entry %d: %w", i+1, err)
		}
		imports = append(imports, r)
	}
	taken := 0
	for batch := range slices.Chunk(imports, writeBatch) {
		n, err := e.importBatch(ctx, batch, now)
		if taken += n; err != nil {
			return taken, fmt.Errorf("import: %w", err)
		}
	}
	return taken, nil
}

// imported is one exported policy as the store holds it, and its hint, nil
// without one that is still of use.
type imported struct {
	policy cache.Record
	last   *LastSeen
}

func (e *Engine) importBatch(ctx context.Context, batch []imported, now time.Time) (int, error) {
	release, err := e.writer.order.alone(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	var policies, classes []cache.Record
	for _, i := range batch {
		p, _, err := readPolicyRecord(i.policy, now)
		if err != nil || !p.valid(now) || e.holdsNewer(i.policy.Key, p, now) {
			continue
		}
		policies = append(policies, i.policy)
		if i.last != nil && !e.sawLater(i.policy.Key, i.last.At) {
			r, err := i.last.record(i.policy.Key)
			if err != nil {
				return 0, err
			}
			classes = append(classes, r)
		}
	}
	if len(policies) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := e.store.Put(ctx, append(slices.Clone(policies), classes...)...); err != nil {
		return 0, err
	}
	for _, r := range policies {
		e.restore(r)
	}
	for _, r := range classes {
		e.restoreClass(r)
	}
	return len(policies), nil
}

// holdsNewer tells whether a policy at least as new as p is held.
func (e *Engine) holdsNewer(name string, p *policyState, now time.Time) bool {
	d := e.find(name)
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy.valid(now) && !d.policy.fetched.Before(p.fetched)
}

// sawLater tells whether the hint in memory is at least as new as one of that moment.
func (e *Engine) sawLater(name string, at time.Time) bool {
	d := e.find(name)
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy != nil && d.policy.last != nil && !d.policy.last.At.Before(at)
}

// imported turns an exported policy into what the store holds, checking every part.
func (h HeldPolicy) imported(now time.Time) (imported, error) {
	k, err := ParseKey(h.Domain)
	if err != nil || k.Brackets || k.HasPort || k.Literal {
		return imported{}, fmt.Errorf("domain %q: not a domain name", h.Domain)
	}
	policy, _, err := mtasts.ParsePolicy([]byte(h.Body))
	if err != nil {
		return imported{}, fmt.Errorf("domain %s: body: %w", k.Name, err)
	}
	if h.FetchedAt.IsZero() {
		return imported{}, fmt.Errorf("domain %s: fetched_at is missing", k.Name)
	}
	p := &policyState{have: true, policy: policy, body: []byte(h.Body), id: h.ID, fetched: clampPast(h.FetchedAt.Round(0), now)}
	r, err := p.record(k.Name, now)
	if err != nil || h.LastSeen == nil {
		return imported{policy: r}, err
	}
	last, err := h.LastSeen.checked(now)
	if err != nil {
		return imported{}, fmt.Errorf("domain %s: last_seen: %w", k.Name, err)
	}
	if last.evidence(now) == nil {
		return imported{policy: r}, nil
	}
	return imported{policy: r, last: last}, nil
}

// ReadHeld lists the unexpired policies of a store, for when no daemon runs.
func ReadHeld(ctx context.Context, s cache.Store) ([]HeldPolicy, error) {
	now := time.Now()
	hints := map[string]*LastSeen{}
	for r, err := range s.All(ctx, kindClass) {
		if err != nil {
			return nil, err
		}
		if last, err := readLastSeen(r, now); err == nil {
			hints[r.Key] = last
		}
	}
	var all []HeldPolicy
	for r, err := range s.All(ctx, kindPolicy) {
		if err != nil {
			return nil, err
		}
		p, asked, err := readPolicyRecord(r, now)
		if err != nil || !p.valid(now) {
			continue
		}
		p.last = hints[r.Key]
		all = append(all, heldPolicy(r.Key, p, asked))
	}
	return sortHeld(all), nil
}
