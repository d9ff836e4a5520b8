//go:build linux

package lab

import (
	"strings"
	"testing"
)

func TestVersion_Satisfies(t *testing.T) {
	for _, c := range []struct {
		version, condition string
		want               bool
	}{
		{"3.7.11", "3.7", true},
		{"3.10.13", "3.1", false},
		{"3.10.13", ">=3.10.5", true},
		{"3.10.4", ">=3.10.5", false},
		{"3.9.9", "<3.10", true},
		{"3.11.7", "<3.10", false},
		{"3.12-20260821", "<3.12", true}, // a snapshot comes before the release
		{"3.12-20260821", ">=3.11.7", true},
	} {
		v, err := ParseVersion(c.version)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Satisfies(c.condition); err != nil || got != c.want {
			t.Errorf("%s %s: %v, %v; want %v", c.version, c.condition, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "3", "x.y", "3.7.11.2"} {
		if _, err := ParseVersion(bad); err == nil {
			t.Errorf("version %q was taken", bad)
		}
	}
	if _, err := (Version{}).Satisfies("~3.7"); err == nil {
		t.Error("operator ~ was taken")
	}
}

// smtp/smtp.h, PLAINTEXT_FALLBACK_OK_AFTER_TLS_SESSION_FAILURE: the TLS line belongs to the first attempt only.
func TestParseDeliveries_FallbackTrap(t *testing.T) {
	log := `Nov 21 09:00:00 sender pf/cleanup[9]: 8DAC4A08740: message-id=<m1@lab.test>
Nov 21 09:00:00 sender pf/smtp[184]: Untrusted TLS connection established to mx.x.test[127.0.0.1]:25: TLSv1.3 with cipher X (256/256 bits)
Nov 21 09:00:00 sender pf/smtp[184]: 8DAC4A08740: to=<u@x.test>, relay=mx.x.test[127.0.0.1]:25, delay=3.1, delays=3.1/0/0.05/0, dsn=4.4.2, status=deferred (lost connection with mx.x.test[127.0.0.1] while sending MAIL FROM)
Nov 21 09:00:03 sender pf/smtp[184]: 8DAC4A08740: to=<u@x.test>, relay=mx.x.test[127.0.0.1]:25, delay=3.1, delays=3.1/0/0.05/0, tls=may:none, dsn=2.0.0, status=sent (250 ok)`
	got := parseDeliveries(strings.Split(log, "\n"))
	if len(got) != 2 {
		t.Fatalf("%d deliveries, want 2", len(got))
	}
	for i, want := range []Delivery{
		{ID: "m1", Relay: "mx.x.test", Port: "25", Status: "deferred", DSN: "4.4.2", Trust: "Untrusted"},
		{ID: "m1", Relay: "mx.x.test", Port: "25", Status: "sent", DSN: "2.0.0", TLS: "may:none"},
	} {
		want.Recipient, want.Line, want.Reason = "u@x.test", got[i].Line, got[i].Reason
		if got[i] != want {
			t.Errorf("delivery %d: %+v, want %+v", i, got[i], want)
		}
	}
}

func TestMergeConfig(t *testing.T) {
	got := mergeConfig("a = 1\nb = 2\n", "# why\nb = x = y\nc =\n")
	if want := "a = 1\nb = x = y\nc = \n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
