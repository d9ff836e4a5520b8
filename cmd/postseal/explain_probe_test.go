package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/policy"
)

// TestExplain_Probe: without a daemon, real hosts are probed at the key's port; the
// exit code tells whether each destination would get its mail.
func TestExplain_Probe(t *testing.T) {
	config, _ := worldWithoutDaemon(t)
	good, bare := newSink(t, "mx.ex.test"), newSink(t)
	key := func(s *sink) string { return fmt.Sprintf("[127.0.0.1]:%d", s.addr.Port()) }
	out, err := typed(t, "explain", "--probe", key(good), "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{"Probed for may: Postfix would deliver; encrypt would do\n", fmt.Sprintf("127.0.0.1[127.0.0.1]:%d: would do\n", good.addr.Port()),
		"TLS        TLSv1.3 with cipher TLS_", ", certificate untrusted\n", "certificate mx.ex.test; ends in 99 days\n"} {
		if !strings.Contains(out, say) {
			t.Errorf("%q is missing in\n%s", say, out)
		}
	}
	out, err = typed(t, "explain", "--probe", key(bare), key(bare), "--json", "--config", config)
	var all []policy.Explanation
	if e := json.Unmarshal([]byte(out), &all); e != nil || err != nil || len(all) != 2 {
		t.Fatalf("%v, %v: %s", e, err, out)
	}
	p := all[1].Probe
	if p == nil || p.Verdict != "positive" || p.Encrypt != "negative" || len(p.Hosts) != 1 || p.Hosts[0].Offered || !strings.Contains(strings.Join(p.Warnings, ""), "none of the 2 destinations offers TLS") {
		t.Errorf("%+v", p)
	}
	// Nobody listens there: it cannot be told.
	out, err = typed(t, "explain", "--probe", "[127.0.0.1]:1", "--config", config)
	if exitCode(err) != exitFindings || !strings.Contains(out, "it cannot be told whether Postfix would deliver") || !strings.Contains(out, "Connection refused") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := typed(t, "explain", key(good), "--config", config); err != nil || strings.Contains(out, "Probed") {
		t.Errorf("probed unasked: %v, %s", err, out)
	}
}

// TestProbePage: every finding has its words.
func TestProbePage(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at, days := now.Add(-3*time.Minute), -2
	x := policy.Explanation{
		Key: "partner.test", Level: "secure", Source: policy.SourceRule, At: now, DANE: policy.DANEExplanation{Error: "x"},
		Recipient: &policy.RecipientExplanation{Answer: "defer", Unreachable: "refuse", RefuseAfter: 3600, Watched: true, Standing: "negative", Seen: "TLS is required", FirstNegative: &at, LastNegative: &at},
		Probe: &policy.ProbeExplanation{Line: "secure match=x", Verdict: "negative", Encrypt: "positive", Warnings: []string{"beware"}, Hosts: []policy.HostProbe{
			{Host: "mx1.test", Port: 25, Address: "192.0.2.1", Verdict: "negative", Offered: true, Version: "TLSv1.2", Cipher: "C", Trust: "Trusted", Names: []string{"a.test"}, Days: &days, Expires: &at, At: &at,
				Text: "Server certificate not verified", Cause: "num=62:hostname mismatch"},
			{Host: "mx2.test", Port: 25, Address: "192.0.2.2", Verdict: "unknown", At: &at, Text: "connect to mx2.test", Stripped: "crossed out"},
		}},
	}
	var page strings.Builder
	if err := writeExplanation(&page, x); err != nil {
		t.Fatal(err)
	}
	for _, say := range []string{
		"  RCPT       defer: refused from the second probe on, when refuse_after (1h0m0s) has passed\n             TLS is required\n             without what the rule demands since 3m",
		"Probed for secure match=x: Postfix would not deliver: no mail host offers that; encrypt would do\n  ! beware\n",
		"  mx1.test[192.0.2.1]:25: would not do\n  said       Server certificate not verified\n             num=62:hostname mismatch\n  TLS        TLSv1.2 with cipher C, certificate trusted\n  certificate a.test; ended on 2026-03-01\n",
		"  mx2.test[192.0.2.2]:25: not known\n  said       connect to mx2.test\n  stripped   crossed out\n",
	} {
		if !strings.Contains(page.String(), say) {
			t.Errorf("%q is missing in\n%s", say, page.String())
		}
	}
	var e *exitError
	if err := probeFinding([]policy.Explanation{x}); !errors.As(err, &e) || e.code != exitFindings {
		t.Errorf("%v", err)
	}
}
