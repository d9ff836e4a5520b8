package ledger

import (
	"slices"
	"testing"
	"time"
)

// Each row is told after the rows before it. Empty want: no change of the evidence.
func TestDestination_With(t *testing.T) {
	at := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	end := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
	rule := NewRule(Rule{Match: []string{"a.test"}, Level: "encrypt", Unreachable: "queue", Reason: "one"})
	reasoned := NewRule(Rule{Match: []string{"a.test"}, Level: "encrypt", Unreachable: "refuse", Reason: "two", Source: "b.toml:3"})
	verified := NewRule(Rule{Match: []string{"a.test"}, Level: "verify"})
	host := func(change func(*Host)) []Host {
		h := Host{Host: "mx.test", Port: 25, Level: "encrypt", Verdict: Positive, Address: "192.0.2.1", At: at, Offered: true,
			Version: "TLSv1.3", Cipher: "AES", Names: []string{"mx.test"}, Expires: end, Text: "fine"}
		if change != nil {
			change(&h)
		}
		return []Host{h}
	}
	asked := func(r *Rule, level string) event { return event{rule: r, level: level, asked: at, first: at, at: at} }
	reached := func(hosts []Host) event { return event{rule: rule, probed: true, hosts: hosts, at: at} }
	inert, binds := "relayhost = [smart.test]", ""
	var d Destination
	for i, tt := range []struct {
		e    event
		want []string
	}{
		{asked(rule, "NOTFOUND"), []string{"first evidence"}},
		{asked(rule, "NOTFOUND"), nil},
		{asked(rule, "encrypt"), []string{"answered encrypt, before NOTFOUND"}},
		{asked(reasoned, "encrypt"), nil},
		{reached(host(func(h *Host) {
			*h = Host{Host: "mx.test", Port: 25, Level: "encrypt", Verdict: Unknown, Text: "mx.test was not probed yet"}
		})), nil},
		{reached(host(nil)), []string{"mx.test: positive, TLSv1.3 AES"}},
		{reached(host(func(h *Host) { h.Address, h.At = "192.0.2.2", at.Add(time.Hour) })), nil},
		{reached(host(func(h *Host) { h.At = at.Add(-time.Hour); h.Verdict = Negative })), nil}, // older than what is known
		{reached(host(func(h *Host) { h.At = at.Add(time.Hour); h.Version = "TLSv1.2" })), []string{"mx.test: TLSv1.2 AES, before TLSv1.3 AES"}},
		{reached(host(func(h *Host) { h.At = at.Add(time.Hour); h.Expires = end.Add(90 * 24 * time.Hour) })),
			[]string{"mx.test: TLSv1.3 AES, before TLSv1.2 AES", "mx.test: another certificate, until 2027-08-30"}},
		{reached(host(func(h *Host) {
			h.At, h.Verdict, h.Version, h.Cipher, h.Text = at.Add(time.Hour), Unknown, "", "", "Connection timed out"
			h.Offered, h.Names, h.Expires = false, nil, time.Time{}
		})), []string{"mx.test: unknown, Connection timed out; it was positive"}},
		{reached(host(func(h *Host) { h.Host = "mx2.test" })), []string{"mx2.test: positive, TLSv1.3 AES", "mx.test: no mail host any more"}},
		{event{inert: &inert, at: at}, []string{"the rule does not bind: relayhost = [smart.test]"}},
		{event{inert: &inert, at: at}, nil},
		{event{inert: &binds, at: at}, []string{"the rule binds again"}},
		{asked(verified, "verify"), []string{"the rule is another: verify, it was encrypt", "answered verify, before encrypt"}},
	} {
		next, c := d.with(tt.e)
		var got []string
		if c != nil {
			got = c.What
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("row %d: %q, want %q", i, got, tt.want)
		}
		d = next
	}
	if !d.Secured.IsZero() || d.Rule.ID != verified.ID || d.LastAsked != at {
		t.Errorf("%+v", d)
	}
}

// What is put over older events is what the last of them said of each thing.
func TestEvent_Over(t *testing.T) {
	a, b := NewRule(Rule{Level: "encrypt"}), NewRule(Rule{Level: "secure"})
	t1, t2 := time.Unix(1000, 0), time.Unix(2000, 0)
	why := "relayhost"
	old := event{rule: a, level: "encrypt", asked: t1, first: t1, at: t1, secured: t1}
	if e := (event{rule: b, level: "secure", asked: t2, first: t2, at: t2}).over(old); e.rule != b || e.level != "secure" || e.first != t1 || e.asked != t2 || e.at != t2 {
		t.Errorf("%+v", e)
	}
	probe := event{rule: a, probed: true, hosts: []Host{{Host: "mx.test"}}, at: t2}
	if e := probe.over(old); e.level != "encrypt" || e.asked != t1 || !e.probed || e.secured != t1 {
		t.Errorf("%+v", e)
	}
	if e := (event{inert: &why, at: t2}).over(probe); e.rule != a || !e.probed || len(e.hosts) != 1 || *e.inert != why {
		t.Errorf("%+v", e)
	}
}
