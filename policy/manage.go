package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
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
	// last serves Emergency.
	last *lastClass
}

func heldPolicy(domain string, p *policyState, asked time.Time) HeldPolicy {
	h := HeldPolicy{
		Domain: domain, Mode: p.policy.Mode.String(), ID: p.id, MX: p.policy.MX, MaxAge: int64(p.policy.MaxAge / time.Second),
		FetchedAt: p.fetched.UTC(), ExpiresAt: p.expires().UTC(), CheckedAt: moment(p.checked), AskedAt: moment(asked),
		Failures: p.failures, Error: p.err, Body: string(p.body), last: p.last,
	}
	if e := p.last.evidence(time.Now()); e != nil {
		h.Class = e.Class().String()
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

func (e *Engine) known(name string) (*domain, error) {
	k, err := ParseKey(name)
	if err != nil {
		return nil, err
	}
	if d := e.domains.GetString(k.Name); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotHeld, k.Name)
}

// Refresh fetches a domain's policy now, held or not, and looks everything else
// up afresh at the next question.
func (e *Engine) Refresh(ctx context.Context, name string) (HeldPolicy, error) {
	k, err := ParseKey(name)
	if err != nil {
		return HeldPolicy{}, err
	}
	d := e.domain(k.Name)
	d.mu.Lock()
	f := d.sts.flight
	d.mu.Unlock()
	if f == nil {
		f = e.startRefresh(d)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return HeldPolicy{}, ctx.Err()
	}
	d.mu.Lock()
	why := ""
	if d.policy != nil {
		why = d.policy.err
	}
	d.mu.Unlock()
	h, ok := d.held()
	if !ok {
		return h, fmt.Errorf("%w: %s: %s", ErrNotHeld, k.Name, cmp.Or(why, "the domain has no policy"))
	}
	return h, nil
}

// Flush forgets what is known of a domain, its policy and its mail hosts, in
// memory and in the store; the operator's way out of a planted policy (STS-098).
func (e *Engine) Flush(ctx context.Context, name string) error {
	d, err := e.known(name)
	if err != nil {
		return err
	}
	if err := e.store.Delete(ctx, kindPolicy, d.key); err != nil {
		return fmt.Errorf("forget %s: %w", d.key, err)
	}
	if err := e.store.Delete(ctx, kindClass, d.key); err != nil {
		return fmt.Errorf("forget %s: %w", d.key, err)
	}
	d.mu.Lock()
	d.policy, d.sts.until, d.mx.until, d.sts.outcome = nil, 0, 0, stsUnknown
	var hosts []*host
	for _, x := range d.mx.hosts {
		hosts = append(hosts, x.host)
	}
	d.answer.Store(nil)
	d.mu.Unlock()
	e.held.remove(d)
	for _, h := range hosts {
		h.mu.Lock()
		h.until = 0
		h.mu.Unlock()
	}
	e.planMu.Lock()
	p := e.plan.Load()
	e.replan(p.Settings, p.Postfix) // the answers of its other keys are void too
	e.planMu.Unlock()
	e.log.Info("forgotten by the operator", "domain", d.key)
	return nil
}

// Import takes exported policies into memory and store, except where a newer one
// is held; it never lengthens a lifetime (CCH-10). It returns how many were taken.
func (e *Engine) Import(ctx context.Context, all []HeldPolicy) (int, error) {
	now := time.Now()
	var records []cache.Record
	for i, h := range all {
		r, err := h.record(now)
		if err != nil {
			return 0, fmt.Errorf("entry %d: %w", i+1, err)
		}
		records = append(records, r)
	}
	taken := 0
	for _, r := range records {
		d := e.domain(r.Key)
		p, _, err := readPolicyRecord(r, now)
		if err != nil || !p.valid(now) {
			continue
		}
		d.mu.Lock()
		newer := d.policy.valid(now) && !d.policy.fetched.Before(p.fetched)
		d.mu.Unlock()
		if newer {
			continue
		}
		if err := e.store.Put(ctx, r); err != nil {
			return taken, fmt.Errorf("import %s: %w", r.Key, err)
		}
		d.mu.Lock()
		if d.policy != nil && !d.policy.valid(now) || d.policy != nil && d.policy.fetched.Before(p.fetched) {
			d.policy = nil
		}
		d.mu.Unlock()
		e.restore(r)
		taken++
	}
	return taken, nil
}

// record turns an exported policy into one of the store, checking every part.
func (h HeldPolicy) record(now time.Time) (cache.Record, error) {
	k, err := ParseKey(h.Domain)
	if err != nil || k.Brackets || k.HasPort || k.Literal {
		return cache.Record{}, fmt.Errorf("domain %q: not a domain name", h.Domain)
	}
	policy, _, err := mtasts.ParsePolicy([]byte(h.Body))
	if err != nil {
		return cache.Record{}, fmt.Errorf("domain %s: body: %w", k.Name, err)
	}
	if h.FetchedAt.IsZero() {
		return cache.Record{}, fmt.Errorf("domain %s: fetched_at is missing", k.Name)
	}
	p := &policyState{have: true, policy: policy, body: []byte(h.Body), id: h.ID, fetched: clampPast(h.FetchedAt, now)}
	return p.record(k.Name, now)
}

// ReadHeld lists the unexpired policies of a store, for when no daemon runs.
func ReadHeld(ctx context.Context, s cache.Store) ([]HeldPolicy, error) {
	now := time.Now()
	hints := map[string]*lastClass{}
	for r, err := range s.All(ctx, kindClass) {
		if err != nil {
			return nil, err
		}
		var last lastClass
		if json.Unmarshal(r.Value, &last) == nil {
			hints[r.Key] = &last
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

// Emergency writes a static policy map in texthash form, for when the daemon
// cannot run: what row D4 of the decision table answers for every enforce
// policy, and the rules that a static map can express. The second result names
// what it cannot.
func Emergency(all []HeldPolicy, rules *Rules, o Options, now time.Time) (lines, left []string) {
	done := map[string]bool{}
	put := func(key string, d Decision) {
		if !done[key] && !d.NotFound {
			done[key] = true
			lines = append(lines, key+" "+d.Line.String())
		}
	}
	find := func(k Key) *Rule { return rules.Find(Subject{Key: k}, now).Rule }
	for _, h := range all {
		policy, _, err := mtasts.ParsePolicy([]byte(h.Body))
		k, keyErr := ParseKey(h.Domain)
		if err != nil || keyErr != nil || policy.Mode != mtasts.ModeEnforce {
			continue
		}
		e := Evidence{Key: k, Policy: &policy, LastKnown: h.last.evidence(now), DANE: dane.Evidence{MX: dane.MXSet{Err: "static map"}}}
		if e.Rule = find(k); e.Rule != nil && e.Rule.Exempt&ExemptSTS != 0 {
			continue
		}
		put(k.Name, Decide(e, o))
	}
	for _, r := range rules.All() {
		if r.Monitor || r.Expired(now) || r.Exempt != 0 {
			continue
		}
		for _, m := range r.Match {
			if len(m) > 3 && m[:3] == "mx:" {
				left = append(left, m+": a static map cannot see MX hosts ("+r.Source+")")
				continue
			}
			put(m, Decision{Line: r.Line})
		}
	}
	slices.Sort(lines)
	return lines, left
}
