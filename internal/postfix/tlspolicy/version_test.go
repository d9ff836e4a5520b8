package tlspolicy_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// version parses one that the test knows to be right.
func version(t interface{ Fatal(...any) }, text string) tlspolicy.Version {
	if text == "unknown" {
		return tlspolicy.Version{}
	}
	v, err := tlspolicy.ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPFX23_Capabilities(t *testing.T) {
	for _, c := range []struct {
		version            string
		attributes, narrow bool
	}{
		{"unknown", false, false},
		{"3.4.10", false, false},
		{"3.7", false, false},
		{"3.7.11", false, false},
		{"3.9.9", false, false},
		{"3.10-20241231", false, false}, // a snapshot may lack what 3.10.0 brought
		{"3.10-RC1", false, false},
		{"3.10", true, false}, // two parts: the lowest patch level
		{"3.10.0", true, false},
		{"3.10.4", true, false},
		{"3.10.5", true, true},
		{"3.10.13", true, true},
		{"3.11-20251001", true, false},
		{"3.11-RC1", true, false},
		{"3.11", true, true},
		{"3.11.7", true, true},
		{"3.12-20260821", true, true},
		{"4.0.0", true, true},
	} {
		v := version(t, c.version)
		if got := v.STSAttributes(); got != c.attributes {
			t.Errorf("%s: STSAttributes %v", c.version, got)
		}
		if got := v.NarrowsMX(); got != c.narrow {
			t.Errorf("%s: NarrowsMX %v", c.version, got)
		}
	}
}

func TestVersionOrder(t *testing.T) {
	order := []string{"unknown", "2.11.3", "3.7", "3.7.11", "3.10-20241212", "3.10-20250101", "3.10-RC1", "3.10-RC2",
		"3.10.0", "3.10.4", "3.10.13", "3.11.0", "3.12-20260821", "3.12.0", "10.0.1"}
	for i, a := range order {
		for j, b := range order {
			v, w := version(t, a), version(t, b)
			if got := v.Compare(w); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s against %s: %d", a, b, got)
			}
			if v.Less(w) != (i < j) {
				t.Errorf("%s less than %s: %v", a, b, v.Less(w))
			}
			if !v.Less(newest) {
				t.Errorf("%s is not older than the newest", a)
			}
		}
	}
}

// newest stands for every Postfix that may come.
var newest = tlspolicy.Version{Major: 9999, Known: true}

func TestVersionText(t *testing.T) {
	for text, want := range map[string]string{"unknown": "unknown", "3.7": "3.7.0", "3.7.11": "3.7.11", " 3.10.13\n": "3.10.13",
		"3.10.13-1+deb13u1": "3.10.13", "3.12-20260821": "3.12-20260821", "3.11-RC1": "3.11-RC1"} {
		if v := version(t, text); v.String() != want {
			t.Errorf("%q: %v", text, v)
		}
	}
	if version(t, "3.10") != version(t, "3.10.0") {
		t.Error("two parts mean the lowest patch level")
	}
}

func TestParseVersionRefuses(t *testing.T) {
	for _, text := range []string{"", "3", "3.", ".7", "3.7.", "3.7.11.2", "v3.7", "Postfix 3.7.11", "auto", "3.x", "3.7 11",
		"-3.7", "3.-7", "3.99999", "3.10-", "3.10-RC 1", "3.10-é", "3.7\n3.8"} {
		if v, err := tlspolicy.ParseVersion(text); err == nil {
			t.Errorf("%q read as %v", text, v)
		} else if v.Known {
			t.Errorf("%q: a known version beside an error", text)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("3.10.13")
	f.Add("3.12-20260821")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := tlspolicy.ParseVersion(text)
		if err != nil {
			return
		}
		if w := version(t, v.String()); w.Compare(v) != 0 || w.String() != v.String() {
			t.Errorf("%q came back as %v", text, w)
		}
	})
}

// drawVersion draws one of the versions at which the grammar changes.
func drawVersion(t *rapid.T) tlspolicy.Version {
	return version(t, rapid.SampledFrom([]string{"unknown", "3.3.1", "3.5.6", "3.6", "3.7.11", "3.9.0", "3.10-RC1", "3.10", "3.10.13",
		"3.11.7", "3.12-20260821"}).Draw(t, "version"))
}
