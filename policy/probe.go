package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// probeTimeout is how long a probe that somebody waits for takes at most; what was not
// found out until then is unknown.
const probeTimeout = 4 * time.Minute

// ErrNoReach: the engine has nothing to probe with.
var ErrNoReach = errors.New("policy: mail hosts cannot be probed here")

// ProbeExplanation is what the mail hosts of a destination showed just now, in the
// shape of `explain --probe --json`: a stable interface, by the rules of Explanation.
type ProbeExplanation struct {
	// Line is what was demanded: what Postfix is told, or where that is NOTFOUND the
	// level of main.cf.
	Line string `json:"line"`
	// Verdict is "positive" when Postfix would deliver to one of the hosts, "negative"
	// when it would to none, each having said so itself, else "unknown".
	Verdict string `json:"verdict"`
	// Encrypt is the same for level encrypt: TLS with any certificate.
	Encrypt string      `json:"encrypt"`
	Error   string      `json:"error"` // why the mail hosts are not known
	Hosts   []HostProbe `json:"hosts"` // in the order of the MX records
	// OtherPositive is when TLS was last seen at a host that is none of these.
	OtherPositive *time.Time `json:"other_positive"` // null: never
	Warnings      []string   `json:"warnings"`
}

// HostProbe is one mail host of it.
type HostProbe struct {
	Host     string     `json:"host"`
	Port     uint16     `json:"port"`
	Address  string     `json:"address"` // of the attempt that decided; empty: none was made
	Verdict  string     `json:"verdict"`
	Encrypt  string     `json:"encrypt"`
	Offered  bool       `json:"offered"` // STARTTLS
	Version  string     `json:"version"` // empty without a handshake
	Cipher   string     `json:"cipher"`
	Trust    string     `json:"trust"`
	Names    []string   `json:"names"`           // of the certificate
	Expires  *time.Time `json:"expires"`         // null: no certificate
	Days     *int       `json:"expires_in_days"` // negative: it has ended; null: no certificate
	Text     string     `json:"text"`            // one sentence, in Postfix's words
	Cause    string     `json:"cause"`
	Stripped string     `json:"stripped"` // what seems to take STARTTLS out on the way
	At       *time.Time `json:"at"`       // null: not probed
}

// Probe connects to the mail hosts of a key, whatever is known of them, and tells what
// they showed. main is the level of main.cf, for keys about which Postfix is told
// nothing. It takes minutes where hosts do not answer. Errors are those of ParseKey,
// and ErrNoReach.
//
// What was seen counts for recipients under a rule as any other probe does.
func (e *Engine) Probe(ctx context.Context, key string, main tlspolicy.Level) (ProbeExplanation, error) {
	k, err := ParseKey(key)
	switch {
	case err != nil:
		return ProbeExplanation{}, err
	case e.reach == nil:
		return ProbeExplanation{}, ErrNoReach
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	q := e.newQuery(k, e.destination(k))
	q.wait(ctx, time.Now().Add(q.plan.Deadline))
	line := q.decide(mapPostseal, false).Line
	if q.decide(mapPostseal, false).NotFound {
		line = tlspolicy.Line{Level: main}
	}
	if line.Level == tlspolicy.None {
		line = tlspolicy.Line{Level: tlspolicy.May} // to see what is offered
	}
	h := e.gather(ctx, k, wantsTLSA(line.Level))
	demands := h.demands(line)
	x := ProbeExplanation{Line: line.String(), Hosts: []HostProbe{}, Warnings: []string{}, Error: h.trouble()}
	s := Standing{}
	if len(demands) > 0 {
		s = h.complete(e.reach.Probe(ctx, demands, true))
	}
	e.probeForRule(ctx, q.finding, h, line)
	x.fill(&s, h.mx.Truncated, time.Now())
	return x, nil
}

// trouble says why there is nobody to probe.
func (h *mailHosts) trouble() string {
	switch {
	case h.mx.Err != "":
		return h.mx.Err
	case h.mx.Null:
		return "the domain takes no mail (null MX, RFC 7505)"
	case h.mx.NXDomain:
		return "there is no such domain"
	case len(h.mx.Hosts) == 0:
		return "none of the MX records names a host"
	}
	return ""
}

// probeForRule probes for the rule as well, where Postfix is told more than it
// demands: it is by the rule alone that recipients are judged.
func (e *Engine) probeForRule(ctx context.Context, f Finding, h *mailHosts, told tlspolicy.Line) {
	for _, r := range []*Rule{f.Rule, f.Monitored} {
		if !r.watched() || h.key.Port != 25 || h.key.Brackets {
			continue
		}
		if demands := h.demands(r.Line); len(demands) > 0 && r.Line.String() != told.String() {
			e.reach.Probe(ctx, demands, true)
		}
	}
	e.watch.changes.Add(1)
	if w := e.watch.all.GetString(h.key.Name); w != nil {
		e.wake(w, time.Now())
	}
}

func (x *ProbeExplanation) fill(s *Standing, truncated bool, now time.Time) {
	x.Verdict, x.OtherPositive = s.Verdict.String(), moment(s.OtherPositive)
	encrypted, bare, stripped := 0, 0, 0
	for i := range s.Hosts {
		h := probed(&s.Hosts[i], now)
		switch h.Encrypt {
		case ReachPositive.String():
			encrypted++
		case ReachNegative.String():
			bare++
		}
		if h.Stripped != "" {
			stripped++
		}
		x.Hosts = append(x.Hosts, h)
	}
	switch n := len(x.Hosts); {
	case encrypted > 0:
		x.Encrypt = ReachPositive.String()
	case bare == n && n > 0 && !truncated:
		x.Encrypt = ReachNegative.String()
	default:
		x.Encrypt = ReachUnknown.String()
	}
	if stripped > 0 && stripped == len(x.Hosts) {
		x.Warnings = append(x.Warnings, "STARTTLS seems to be taken out by a box on the way, theirs or ours: another destination tells whose")
	}
	if x.Encrypt == ReachNegative.String() && (s.OtherPositive.IsZero() || now.Sub(s.OtherPositive) > positiveLasts) {
		x.Warnings = append(x.Warnings, "no mail host elsewhere has shown TLS within the hour, so that the fault may be on our own path; probe another destination beside it")
	}
}

// probed tells of a host for people, and what it would come to at level encrypt.
func probed(r *HostReach, now time.Time) HostProbe {
	h := HostProbe{
		Host: r.Host, Port: r.Port, Address: r.Address, Verdict: r.Verdict.String(), Offered: r.Offered, Version: r.Version, Cipher: r.Cipher,
		Trust: r.Trust, Names: append([]string{}, r.Names...), Text: r.Text, Cause: r.Cause, Stripped: r.Stripped, Expires: moment(r.Expires), At: moment(r.At),
	}
	if !r.Expires.IsZero() {
		days := int(r.Expires.Sub(now).Hours() / 24)
		if r.Expires.Before(now) {
			days-- // one that ended an hour ago has not 0 days left
		}
		h.Days = &days
	}
	encrypt := ReachUnknown
	switch {
	case r.Version != "":
		encrypt = ReachPositive
	case !r.Offered && r.Verdict != ReachUnknown && r.Cause == "":
		encrypt = ReachNegative // at level may mail would go in clear
	}
	h.Encrypt = encrypt.String()
	return h
}

// RecipientExplanation is what RCPT is answered at this moment because of a rule with
// unreachable = "defer" or "refuse", and what that rests on.
type RecipientExplanation struct {
	Answer        string     `json:"answer"`         // "pass", "defer" or "refuse"
	Withheld      string     `json:"withheld"`       // the answer that mode monitor holds back; empty: none
	Unreachable   string     `json:"unreachable"`    // "defer" or "refuse"
	RefuseAfter   int64      `json:"refuse_after"`   // seconds
	Watched       bool       `json:"watched"`        // there was a recipient in the last 24 hours, so the hosts are probed
	Standing      string     `json:"standing"`       // of all mail hosts: "positive", "negative" or "unknown"
	Seen          string     `json:"seen"`           // where it is negative
	Doubt         string     `json:"doubt"`          // why nothing is refused all the same
	FirstNegative *time.Time `json:"first_negative"` // null where standing is not negative
	LastNegative  *time.Time `json:"last_negative"`
	LastSecured   *time.Time `json:"last_secured"`   // null: never
	OtherPositive *time.Time `json:"other_positive"` // null: never
}

// explainRecipient tells of the rule that applies, or of the first that is only
// monitored; nil where neither has a say about recipients.
func (q *query) explainRecipient() *RecipientExplanation {
	e, r := q.e, q.finding.Rule
	if !r.watched() {
		r = q.finding.Monitored
	}
	if !r.watched() || e.reach == nil || q.key.Brackets || q.key.HasPort {
		return nil
	}
	x := &RecipientExplanation{Answer: RecipientPass.String(), Unreachable: r.Unreachable.String(), RefuseAfter: int64(r.RefuseAfter / time.Second), Standing: ReachUnknown.String()}
	w := e.watch.all.GetString(q.key.Name)
	if w == nil {
		return x
	}
	x.Watched = true
	s := w.current(e, q.plan, q.now)
	for i := range s.claims {
		c := &s.claims[i]
		if c.rule != r {
			continue
		}
		v := s.verdict(c, r, q.now)
		x.Answer, x.Seen, x.Doubt, x.Standing = v.Action.String(), v.Seen, v.Doubt, c.standing.Verdict.String()
		if v.Withheld != RecipientPass {
			x.Withheld = v.Withheld.String()
		}
		if q.plan.Monitor && v.Action != RecipientPass {
			x.Answer, x.Withheld = RecipientPass.String(), v.Action.String()
		}
		x.FirstNegative, x.LastNegative = moment(c.standing.FirstNegative), moment(c.standing.LastNegative)
		x.LastSecured, x.OtherPositive = moment(c.standing.LastSecured), moment(c.standing.OtherPositive)
	}
	return x
}

// Summary is the standing in a line, for people.
func (x *RecipientExplanation) Summary() string {
	switch {
	case !x.Watched:
		return "pass: no recipient in the last 24 hours, so the mail hosts are not probed"
	case x.Withheld != "":
		return fmt.Sprintf("pass: mode monitor holds back %s", x.Withheld)
	case x.Doubt != "":
		return "pass: " + x.Doubt
	case x.Standing == ReachPositive.String():
		return "pass: a mail host offers what the rule demands"
	case x.Standing == ReachUnknown.String():
		return "pass: it is not known what the mail hosts offer"
	case x.Answer == RecipientDefer.String() && x.Unreachable == UnreachableRefuse.String():
		return fmt.Sprintf("defer: refused from the second probe on, when refuse_after (%s) has passed", time.Duration(x.RefuseAfter)*time.Second)
	}
	return x.Answer
}
