package mtasts

import "testing"

func matchPattern(pattern, host string) bool { return matchBare(bareName(pattern), bareName(host)) }

func TestSTS070_MatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"mx.ex.test", "mx.ex.test", true},
		{"mx.ex.test", "MX.EX.TEST", true},
		{"MX.EX.TEST", "mx.ex.test", true},
		{"mx.ex.test", "mx.ex.test.", true},
		{"*.ex.test", "a.ex.test", true},
		{"*.ex.test", "A.Ex.Test.", true},
		{"*.ex.test", "ex.test", false},
		{"*.ex.test", "a.b.ex.test", false},
		{"*.ex.test", ".ex.test", false},
		{"*.ex.test", "aex.test", false},
		{"*.ex.test", "*.ex.test", true},
		{"mx.ex.test", "ex.test", false},
		{"mx.ex.test", "a.mx.ex.test", false},
		{"*.test", "ex.test", true},
		{"ex.test", "", false},
		{"", "", false},
		{".", ".", false},
		{"*.", "a.", false},
		{"*.", "a", false},
		{"*", "a", false},
		{"k.test", "\u212a.test", false}, // KELVIN SIGN, whose lower case is "k"
	} {
		if got := matchPattern(c.pattern, c.host); got != c.want {
			t.Errorf("matchPattern(%q, %q) = %v", c.pattern, c.host, got)
		}
	}
}

func TestSTS070_Match(t *testing.T) {
	p := Policy{Mode: ModeEnforce, MX: []string{"mail.ex.test", "*.ex.net"}}
	for host, want := range map[string]bool{
		"mail.ex.test": true, "MAIL.ex.test.": true, "a.ex.net": true, "ex.net": false, "a.b.ex.net": false, "evil.other.test": false,
	} {
		if p.Match(host) != want {
			t.Errorf("Match(%q) = %v", host, !want)
		}
	}
	if (Policy{}).Match("mail.ex.test") {
		t.Error("a policy without patterns matches")
	}
}

func TestModeString(t *testing.T) {
	for m, want := range map[Mode]string{ModeNone: "none", ModeTesting: "testing", ModeEnforce: "enforce", 9: "unknown"} {
		if m.String() != want {
			t.Errorf("%d: %s", m, m)
		}
	}
}
