package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/postseal/postseal/policy"
)

// TestWriteExplanation_Empty: what is not known leaves no empty lines behind, and
// the record is named as it would be asked for, without port and brackets.
func TestWriteExplanation_Empty(t *testing.T) {
	for _, key := range []string{"ex.test", "ex.test:25", "[ex.test]:587"} {
		var page strings.Builder
		x := policy.Explanation{
			Key: key, Level: "NOTFOUND", Source: policy.SourceFloor, Replies: map[string]string{"postseal": "NOTFOUND "}, Warnings: []string{},
			STS:  policy.STSExplanation{State: "absent", MX: []string{}, Notes: []string{}},
			DANE: policy.DANEExplanation{Class: "D0", Hosts: []policy.HostExplanation{{Name: "mx.ex.test", Addresses: []string{}, TLSA: []string{}, Tried: []string{}, Status: "none"}}},
		}
		if err := writeExplanation(&page, x); err != nil {
			t.Fatal(err)
		}
		got := page.String()
		if !strings.Contains(got, "MTA-STS    no record at _mta-sts.ex.test\n") {
			t.Errorf("%s:\n%s", key, got)
		}
		for _, word := range []string{"last trouble", "note:", "fetched", "looked at", "withheld", "rule", "error", "asked"} {
			if strings.Contains(got, word) {
				t.Errorf("%s: %q without anything behind it:\n%s", key, word, got)
			}
		}
	}
}

// What Postfix asks for on its walk to the parents is explained, as what it is;
// so are addresses; what is no destination is a failure.
func TestExplain_ParentsAndAddresses(t *testing.T) {
	config, _ := worldWithoutDaemon(t)
	for _, key := range []string{".e0.test", ".test", ".xn--bcher-kva.test", "192.0.2.1", "[192.0.2.1]:25", "[IPv6:2001:db8::1]:587", "2001:db8::1"} {
		out, err := typed(t, "explain", key, "--json", "--config", config)
		var x policy.Explanation
		if e := json.Unmarshal([]byte(out), &x); e != nil || err != nil || x.Level != "NOTFOUND" || x.Replies["postseal"] != "NOTFOUND " || len(x.Replies) != len(policy.MapNames) {
			t.Errorf("%s: %v, %v, %s", key, e, err, out)
		}
		parent := strings.HasPrefix(key, ".")
		if text, err := typed(t, "explain", key, "--config", config); err != nil || strings.Contains(text, "parents of a domain") != parent {
			t.Errorf("%s: %v, %s", key, err, text)
		}
	}
	for _, key := range []string{".", "..", "..test", ".a..test"} {
		if _, err := typed(t, "explain", key, "--config", config); exitCode(err) != exitFailure || !errors.Is(err, policy.ErrNoDestination) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// An address is explained as the destination after its @, and as a sender.
func TestExplain_Sender(t *testing.T) {
	config, _ := worldWithoutDaemon(t)
	f, err := os.OpenFile(config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("\n[[rule]]\nsender = ['boss@e0.test']\nreason = 'secret'\n[[rule]]\nsender = ['@trial.test']\nmode = 'monitor'\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ key, domain, reply, say string }{
		{"Boss+x@e0.test", "e0.test", "OK enforced:", "as sender  Boss+x@e0.test: its mail goes by the transport enforced, where postseal-enforced is asked (rule for boss@e0.test, "},
		{"a@trial.test", "trial.test", "NOTFOUND ", "; mode monitor holds that back"},
		{"a@[192.0.2.1]", "[192.0.2.1]", "NOTFOUND ", "of no [[rule]] with sender; its mail goes by default_transport"},
	} {
		out, err := typed(t, "explain", tt.key, "--json", "--config", config)
		var x policy.Explanation
		if e := json.Unmarshal([]byte(out), &x); e != nil || err != nil || x.Key != tt.domain || x.Sender == nil || x.Sender.Reply != tt.reply {
			t.Errorf("%s: %v, %v, %s", tt.key, e, err, out)
		}
		if text, err := typed(t, "explain", tt.key, "--config", config); err != nil || !strings.Contains(text, tt.say) || strings.Contains(text, "secret") {
			t.Errorf("%s: %v, %s", tt.key, err, text)
		}
	}
}
