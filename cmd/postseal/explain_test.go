package main

import (
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
