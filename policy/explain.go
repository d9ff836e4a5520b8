package policy

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// liveTimeout is how long a live explanation takes at most; `postseal explain`
// waits 100 s for it.
const liveTimeout = 80 * time.Second

// Explanation is everything behind an answer, in the shape of `explain --json`:
// a stable interface. Every key is always there, with a value of its type: an
// empty text or list, a zero or false for what there is not; null only for a rule,
// a sender, and for moments and in_policy, where zero would mean something. It
// never holds a rule's reason.
type Explanation struct {
	Key      string             `json:"key"`
	Level    string             `json:"level"` // of map name postseal, or "NOTFOUND"
	Source   Source             `json:"source"`
	Row      Row                `json:"row"`      // of docs/decision-table.md
	Replies  map[string]string  `json:"replies"`  // the exact reply by map name
	Withheld string             `json:"withheld"` // the reply that mode monitor holds back
	Rule     *RuleExplanation   `json:"rule"`
	Sender   *SenderExplanation `json:"sender"` // null unless an address was asked about
	STS      STSExplanation     `json:"sts"`
	DANE     DANEExplanation    `json:"dane"`
	// Recipient is null unless a rule has a say about recipients, Probe unless it was
	// asked for.
	Recipient *RecipientExplanation `json:"recipient"`
	Probe     *ProbeExplanation     `json:"probe"`
	Postfix   string                `json:"postfix_version"` // empty: unknown
	Warnings  []string              `json:"warnings"`
	At        time.Time             `json:"at"`
}

// RuleExplanation names the operator's rule that applies.
type RuleExplanation struct {
	Level  string     `json:"level"`
	Match  []string   `json:"match"`
	Sender []string   `json:"sender"`
	Source string     `json:"source"` // file and line
	Until  *time.Time `json:"until"`  // null: no end
}

// STSExplanation is the MTA-STS standing of the domain. State is "enforce",
// "testing" or "none" for a policy that is held; "absent" without a record;
// "unusable" for records of which none can be used; "failed" for a policy that
// cannot be fetched; "unanswered" when the DNS did not answer; "off" when not
// looked up.
type STSExplanation struct {
	State     string     `json:"state"`
	ID        string     `json:"id"`
	Mode      string     `json:"mode"`
	MX        []string   `json:"mx"`
	MaxAge    int64      `json:"max_age"` // seconds
	FetchedAt *time.Time `json:"fetched_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	CheckedAt *time.Time `json:"checked_at"`
	Error     string     `json:"error"`
	Notes     []string   `json:"notes"`
}

// DANEExplanation is the DANE standing of the destination.
type DANEExplanation struct {
	Class    string            `json:"class"` // D0 … DX
	SecureMX bool              `json:"secure_mx"`
	Error    string            `json:"error"`
	Hosts    []HostExplanation `json:"hosts"`
}

// HostExplanation is one mail host.
type HostExplanation struct {
	Name       string   `json:"name"`
	Preference uint16   `json:"preference"`
	Addresses  []string `json:"addresses"`
	Authentic  bool     `json:"authentic"`
	TLSA       []string `json:"tlsa"`
	Status     string   `json:"status"`
	Tried      []string `json:"tried"` // TLSA owner names that were asked for
	Error      string   `json:"error"`
	InPolicy   *bool    `json:"in_policy"` // does the MTA-STS policy name it; null: none in force
	// Postfix is what the asking Postfix does at this host.
	Postfix string `json:"postfix"`
}

// Explain tells what Postfix would be told for a key, and why, from the evidence
// and by the code that answers. With live everything is looked up afresh; what
// cannot be is told, and what was known of it counts until its time is up, here as
// in the answers to Postfix. The error is that of ParseKey.
func (e *Engine) Explain(ctx context.Context, key string, live bool) (Explanation, error) {
	k, err := ParseKey(key)
	if err != nil {
		return Explanation{}, err
	}
	e.lookAround(time.Now())
	d := e.destination(k)
	q := e.newQuery(k, d)
	q.everything = true
	wait := q.plan.Deadline
	if live {
		d.domain.retry()
		q.anew()
		wait = liveTimeout
	}
	q.wait(ctx, time.Now().Add(wait))
	if live {
		d.domain.void()
	}
	return q.explain(), nil
}

// retry ends the pause after failed fetches: the operator asks.
func (d *domain) retry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sts.flight == nil && d.policy != nil {
		d.policy.failures = 0
	}
}

// void has the answers that rest on d decided anew.
func (d *domain) void() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes.Add(1)
}

// outdateMX makes the MX set and what was answered stale, and returns the names
// of the hosts that were known. The lock of d is held.
func (d *domain) outdateMX() []string {
	var names []string
	for _, x := range d.mx.hosts {
		names = append(names, x.name)
	}
	d.mx.until = 0
	d.changes.Add(1)
	return names
}

func (q *query) explain() Explanation {
	x := Explanation{Key: q.key.String(), Replies: map[string]string{}, At: q.now.UTC(), Warnings: []string{}}
	for _, name := range MapNames {
		k, _ := kindOf([]byte(name))
		x.Replies[name] = q.decide(k, false).String()
	}
	d := q.decide(mapPostseal, false)
	x.Level, x.Source, x.Row = d.Level(), d.Source, d.Row
	if w := q.decide(mapPostseal, true); w.String() != d.String() {
		x.Withheld = w.String()
	}
	if q.plan.Version.Known {
		x.Postfix = q.plan.Version.String()
	}
	x.Rule = explainRule(q.finding.Rule)
	x.STS = q.explainSTS()
	x.DANE = q.explainDANE(d)
	x.Recipient = q.explainRecipient()
	x.Warnings = append(x.Warnings, q.warnings(d)...)
	return x
}

func explainRule(r *Rule) *RuleExplanation {
	if r == nil {
		return nil
	}
	x := &RuleExplanation{Level: r.Level(), Match: append([]string{}, r.Match...), Sender: append([]string{}, r.Sender...), Source: r.Source}
	if !r.Until.IsZero() {
		x.Until = &r.Until
	}
	return x
}

func (q *query) explainSTS() STSExplanation {
	x := STSExplanation{MX: []string{}, Notes: []string{}}
	if looked, _ := q.plan.stsFor(q.key, q.finding.Rule); !looked {
		x.State = "off"
		return x
	}
	d := q.d.domain
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.policy
	x.Error = d.troubles().sts
	switch q.sts {
	case stsNone:
		x.State = "absent"
	case stsUnusable:
		x.State = "unusable"
	case stsFound:
		x.State = "failed"
	default:
		x.State = "unanswered"
	}
	if p == nil {
		return x
	}
	x.Error, x.Notes, x.CheckedAt = cmp.Or(x.Error, p.err), append(x.Notes, p.notes...), moment(p.checked)
	if !p.have {
		x.ID = p.failedID
		return x
	}
	x.ID, x.Mode, x.MX, x.MaxAge = p.id, p.policy.Mode.String(), append(x.MX, p.policy.MX...), int64(p.policy.MaxAge/time.Second)
	x.FetchedAt, x.ExpiresAt = moment(p.fetched), moment(p.expires())
	if p.valid(q.now) {
		x.State = x.Mode
	}
	return x
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (q *query) explainDANE(d Decision) DANEExplanation {
	e := q.evidence
	x := DANEExplanation{Class: e.Class().String(), SecureMX: e.MX.Secure, Error: e.MX.Failure(), Hosts: []HostExplanation{}}
	if e.Suspended {
		x.Error = e.MX.Err // that nobody validates is what DX says; the hosts are known all the same
	}
	for i, mx := range e.MX.Hosts {
		h := HostExplanation{Name: mx.Name, Preference: mx.Preference, Status: e.Status(i).String(), Addresses: []string{}, TLSA: []string{}, Tried: []string{}}
		if q.policy != nil {
			in := q.policy.Match(mx.Name)
			h.InPolicy = &in
		}
		var found *dane.Host
		if i < len(e.Hosts) {
			found = e.Hosts[i]
		}
		if found != nil {
			h.fill(found)
		}
		h.Error = cmp.Or(q.again[mx.Name], h.Error)
		h.Postfix = consequence(d, e.MX.Secure, e.Status(i), h.InPolicy, q.plan.capability(mapPostseal))
		x.Hosts = append(x.Hosts, h)
	}
	return x
}

func (h *HostExplanation) fill(found *dane.Host) {
	h.Authentic, h.Error = found.Authentic, found.Err
	for _, a := range found.Addresses {
		h.Addresses = append(h.Addresses, a.String())
	}
	for _, r := range found.Records {
		text := fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data))
		if r.Unusable != "" {
			text += " (unusable: " + r.Unusable + ")"
		}
		h.TLSA = append(h.TLSA, text)
	}
	for _, c := range found.Tried {
		text := fmt.Sprintf("%s: %d records, authentic %t", c.Owner, c.Records, c.Authentic)
		if c.Err != "" {
			text = c.Owner + ": " + c.Err
		}
		h.Tried = append(h.Tried, text)
	}
}

// consequence tells what Postfix does at one host, in its own words.
func consequence(d Decision, secureMX bool, s dane.Status, inPolicy *bool, c Capability) string {
	if s == dane.Unreachable {
		return "no addresses: not tried"
	}
	skipped := inPolicy != nil && !*inPolicy && c == Narrowing
	switch {
	case d.NotFound:
		return "smtp_tls_security_level of main.cf decides"
	case d.Line.Level == tlspolicy.DaneOnly && !secureMX:
		return "deferred: non DNSSEC destination"
	case skipped && (d.Line.Level == tlspolicy.Secure || d.Line.Level == tlspolicy.DaneOnly):
		return "skipped: MX name does not match STS MX pattern"
	case d.Line.Level == tlspolicy.Secure:
		return "TLS with a certificate for a name of match=, or the next host"
	case d.Line.Level == tlspolicy.Dane || d.Line.Level == tlspolicy.DaneOnly:
		return daneConsequence(d.Line.Level, s)
	case d.Line.Level == tlspolicy.Encrypt:
		return "TLS with any certificate, or the next host"
	case d.Line.Level == tlspolicy.May:
		return "TLS where offered, else in clear"
	case d.Line.Level == tlspolicy.None:
		return "in clear"
	}
	return "TLS with a certificate that satisfies " + d.Line.Level.String() + ", or the next host"
}

func daneConsequence(l tlspolicy.Level, s dane.Status) string {
	only := l == tlspolicy.DaneOnly
	switch s {
	case dane.Usable:
		return "TLS with a certificate that matches the TLSA records, or the next host"
	case dane.Failed:
		return "skipped: TLSA lookup error"
	case dane.Unusable:
		if only {
			return "skipped: TLSA records unusable"
		}
		return "TLS with any certificate, or the next host"
	}
	if only {
		return "skipped: no TLSA records found"
	}
	return "TLS where offered, else in clear"
}

// warnings are what an administrator should know beside the verdict.
func (q *query) warnings(d Decision) []string {
	var w []string
	p := q.plan
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	if p.suspended && p.DANE != ModeOff {
		_, why := q.e.resolver.Suspended()
		add("DANE is out of action: %s", why)
	}
	if d.Mismatch() {
		add("the MTA-STS policy names none of the mail hosts: mail is deferred until the domain repairs one of them")
	}
	if p.relaxSTS && q.policy != nil {
		add("Postfix has no trust anchors, so MTA-STS is not enforced yet: postconf -e 'smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt' && postfix reload")
	}
	if p.relaxDANE && p.DANE == ModeEnforce {
		add("Postfix cannot do DANE, so DANE is not enforced yet: postconf -e 'smtp_dns_support_level = dnssec' && postfix reload")
	}
	if r := q.finding.Rule; r != nil && r.Exempt&ExemptDANE != 0 && (p.Floor == FloorDANE || d.Line.Level == tlspolicy.Dane) {
		add("exempt from dane has no effect where the floor is dane: a rule with level \"may\" has")
	}
	if q.finding.Monitored != nil {
		add("a rule with mode monitor would apply: %s", q.finding.Monitored.Source)
	}
	if p.Monitor {
		add("mode = \"monitor\": every answer is NOTFOUND")
	}
	for _, name := range slices.Sorted(maps.Keys(q.again)) {
		add("the look-up of %s failed just now; what was found before counts until its time is up: %s", cmp.Or(name, "the MX records"), q.again[name])
	}
	if n := len(q.missing); n > 0 {
		add("%d look-ups did not end in time; they count as failed", n)
	}
	if m := q.mx; m != nil && m.Truncated {
		add("more than %d mail hosts: the others count as failed look-ups", dane.MaxHosts)
	}
	if q.policy != nil && q.policy.Mode == mtasts.ModeEnforce && strings.HasPrefix(d.Line.String(), "dane-only") && p.capability(mapPostseal) != Narrowing {
		add("this Postfix cannot compare MX names at dane-only: a host outside the policy with matching TLSA records is used")
	}
	return w
}
