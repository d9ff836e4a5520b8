package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const good = "version: STSv1\nmode: enforce\nmx: mail.ex.test\nmax_age: 604800\n"

// with replaces one line of the good policy; an empty line removes it.
func with(field, line string) string {
	var b strings.Builder
	for l := range strings.Lines(good) {
		if !strings.HasPrefix(l, field+":") {
			b.WriteString(l)
		} else if line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func TestParsePolicy(t *testing.T) {
	enforce := Policy{Mode: ModeEnforce, MX: []string{"mail.ex.test"}, MaxAge: 604800 * time.Second}
	mx := func(patterns ...string) Policy {
		p := enforce
		p.MX = patterns
		return p
	}
	mode := func(m Mode) Policy { p := enforce; p.Mode = m; return p }
	age := func(s int) Policy { p := enforce; p.MaxAge = time.Duration(s) * time.Second; return p }

	for _, c := range []struct {
		name, body string
		want       Policy
		notes      int
	}{
		{"STS050/LF", good, enforce, 0},
		{"STS050/CRLF", strings.ReplaceAll(good, "\n", "\r\n"), enforce, 0},
		{"STS050/mixed", strings.Replace(good, "\n", "\r\n", 2), enforce, 0},
		{"STS050/no final newline", strings.TrimSuffix(good, "\n"), enforce, 0},

		{"STS051/no space", with("mode", "mode:enforce"), enforce, 0},
		{"STS051/tab", with("mode", "mode:\tenforce"), enforce, 0},
		{"STS051/trailing", with("mode", "mode: enforce \t"), enforce, 0},
		{"STS051/space before the colon", with("mode", "mode : enforce"), enforce, 1},
		{"STS051/leading space", with("mode", " mode: enforce"), enforce, 1},

		{"STS052/trailing blank lines", good + "\n\n", enforce, 0},
		{"STS052/blank line in the middle", with("mode", "\nmode: enforce"), enforce, 1},
		{"STS052/blank line in front", "\r\n" + good, enforce, 1},

		{"STS053/any order", "max_age: 86400\nmx: a.ex.test\nmode: enforce\nversion: STSv1", Policy{Mode: ModeEnforce, MX: []string{"a.ex.test"}, MaxAge: 24 * time.Hour}, 0},
		{"STS053/none without mx", "version: STSv1\nmode: none\nmax_age: 1", Policy{Mode: ModeNone, MaxAge: time.Second}, 0},
		{"STS053/none with bad mx", "version: STSv1\nmode: none\nmax_age: 1\nmx: *", Policy{Mode: ModeNone, MaxAge: time.Second}, 1},

		{"STS056/first mode", with("mode", "mode: testing\nmode: enforce"), mode(ModeTesting), 1},
		{"STS056/first max_age", with("max_age", "max_age: 1\nmax_age: 2"), age(1), 1},
		{"STS056/first version", with("version", "version: STSv1\nversion: STSv2"), enforce, 1},
		{"STS056/bad second mode", with("mode", "mode: enforce\nmode: bad"), enforce, 1},
		{"STS056/extension", good + "foo: bar baz\n", enforce, 0},
		{"STS056/empty extension", good + "foo:\n", enforce, 1},
		{"STS056/line without colon", good + "foo\n", enforce, 1},

		{"STS057/testing", with("mode", "mode: testing"), mode(ModeTesting), 0},

		{"STS058/0", with("max_age", "max_age: 0"), age(0), 0},
		{"STS058/largest", with("max_age", "max_age: 31557600"), age(31557600), 0},
		{"STS058/one more", with("max_age", "max_age: 31557601"), age(31557600), 1},
		{"STS058/ten nines", with("max_age", "max_age: 9999999999"), age(31557600), 1},
		{"STS058/leading zeros", with("max_age", "max_age: 0000604800"), enforce, 0},

		{"STS059/wildcard", with("mx", "mx: *.ex.test"), mx("*.ex.test"), 0},
		{"STS059/case", with("mx", "mx: MAIL.Ex.Test"), enforce, 0},
		{"STS059/A-label", with("mx", "mx: xn--bcher-kva.test"), mx("xn--bcher-kva.test"), 0},
		{"STS059/single label", with("mx", "mx: a"), mx("a"), 0},
		{"STS059/trailing dot", with("mx", "mx: mail.ex.test."), enforce, 1},
		{"STS059/underscore", with("mx", "mx: mail_1.ex.test"), mx("mail_1.ex.test"), 1},
		{"STS059/order and duplicates", with("mx", "mx: b.test\nmx: *.a.test\nmx: B.test\nmx: a.test"), mx("b.test", "*.a.test", "a.test"), 0},

		{"STS060/one bad among good", with("mx", "mx: 212.114.86.56\nmx: mail.ex.test"), enforce, 1},

		{"STS062/BOM", "\ufeff" + good, enforce, 1},

		{"STS063/UTF-8 extension", good + "grüße: x\ncomment: grüße\n", enforce, 1},
		{"STS063/control in an extension", good + "foo: a\x01b\n", enforce, 1},
		{"STS063/NUL in an extension", good + "foo: a\x00b\n", enforce, 1},
		{"STS063/DEL in an extension", good + "foo: a\x7fb\n", enforce, 1},
		{"STS063/invalid UTF-8", good + "foo: \xff\n", enforce, 1},
		{"STS063/tab inside an extension", good + "foo: a\tb\n", enforce, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, notes, err := ParsePolicy([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if len(notes) != c.notes {
				t.Errorf("notes %q, want %d of them", notes, c.notes)
			}
		})
	}
}

func same(a, b Policy) bool {
	return a.Mode == b.Mode && a.MaxAge == b.MaxAge && slices.Equal(a.MX, b.MX)
}

func TestParsePolicyInvalid(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"STS050/CR only", strings.ReplaceAll(good, "\n", "\r"), `no version field (line 1 is malformed (control character '\r'))`},
		{"STS053/no version", with("version", ""), "no version field"},
		{"STS053/no mode", with("mode", ""), "no mode field"},
		{"STS053/no max_age", with("max_age", ""), "no max_age field"},
		{"STS053/no mx", with("mx", ""), "no usable mx field in mode enforce"},
		{"STS053/testing without mx", "version: STSv1\nmode: testing\nmax_age: 1", "no usable mx field in mode testing"},
		{"W01/nmx", with("mx", "nmx: mail.ex.test"), `no usable mx field in mode enforce (line 3 has the unknown field "nmx")`},

		{"STS054/lower case", with("version", "version: stsv1"), `line 1: version "stsv1" is not STSv1`},
		{"STS054/2", with("version", "version: STSv2"), `line 1: version "STSv2" is not STSv1`},
		{"STS054/10", with("version", "version: STSv10"), `line 1: version "STSv10" is not STSv1`},
		{"STS054/more", with("version", "version: STSv1 x"), `line 1: version "STSv1 x" is not STSv1`},
		{"STS054/bad first of two", with("version", "version: STSv2\nversion: STSv1"), `line 1: version "STSv2" is not STSv1`},

		{"STS055/Version", with("version", "Version: STSv1"), `no version field (line 1 has the unknown field "Version")`},
		{"STS055/Mode", with("mode", "Mode: enforce"), `no mode field (line 2 has the unknown field "Mode")`},

		{"STS057/Enforce", with("mode", "mode: Enforce"), `line 2: mode "Enforce" is none of enforce, testing and none`},
		{"STS057/report", with("mode", "mode: report"), `line 2: mode "report" is none of enforce, testing and none`},
		{"STS057/empty", with("mode", "mode:"), `line 2: mode "" is none of enforce, testing and none`},

		{"STS058/negative", with("max_age", "max_age: -1"), `line 4: max_age "-1" is not a number of 1 to 10 digits`},
		{"STS058/fraction", with("max_age", "max_age: 1.5"), `line 4: max_age "1.5" is not a number of 1 to 10 digits`},
		{"STS058/unit", with("max_age", "max_age: 1w"), `line 4: max_age "1w" is not a number of 1 to 10 digits`},
		{"STS058/plus", with("max_age", "max_age: +5"), `line 4: max_age "+5" is not a number of 1 to 10 digits`},
		{"STS058/empty", with("max_age", "max_age:"), `line 4: max_age "" is not a number of 1 to 10 digits`},
		{"STS058/11 digits", with("max_age", "max_age: 00000604800"), `line 4: max_age "00000604800" is not a number of 1 to 10 digits`},
		{"STS058/Arabic digits", with("max_age", "max_age: ٣"), `line 4: max_age "٣" is not a number of 1 to 10 digits`},

		{"STS060/all bad", with("mx", "mx: *\nmx: 192.0.2.1"), `no usable mx field in mode enforce (line 3 has the bad mx "*", line 4 has the bad mx "192.0.2.1")`},

		{"STS062/UTF-16", "\xff\xfev\x00e\x00r\x00", "UTF-16 instead of plain ASCII text"},
		{"STS062/BOM in the middle", strings.Replace(good, "mode", "\ufeffmode", 1), `no mode field (line 2 has the unknown field "\ufeffmode")`},

		{"STS063/NUL in a required field", with("mode", "mode: enforce\x00"), `no mode field (line 2 is malformed (control character '\x00'))`},
		{"STS063/invalid UTF-8 in a required field", with("mode", "mode: enforce\xff"), `no mode field (line 2 is malformed (not UTF-8))`},

		{"empty", "", "no version field"},
		{"W11/web page", "<!DOCTYPE html>\n<html></html>\n", `no version field (line 1 is malformed (no colon in "<!DOCTYPE html>"), line 2 is malformed (no colon in "<html></html>"))`},
		{"STS038/too large", strings.Repeat("a", MaxPolicySize+1), "65537 bytes, more than 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := ParsePolicy([]byte(c.body))
			if !errors.Is(err, ErrInvalidPolicy) {
				t.Fatalf("%+v, %v", got, err)
			}
			if want := ErrInvalidPolicy.Error() + ": " + c.want; err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
			if !same(got, Policy{}) || got.Lines != nil {
				t.Errorf("%+v beside an error", got)
			}
		})
	}
}

func TestSTS059_BadMX(t *testing.T) {
	for value, why := range map[string]string{
		"":                              "it is empty",
		"*":                             "a wildcard is allowed only as the whole first label",
		"*.":                            "it is empty",
		".":                             "it has an empty label",
		"*.*.ex.test":                   "a wildcard is allowed only as the whole first label",
		"**.ex.test":                    "a wildcard is allowed only as the whole first label",
		"mail.*.ex.test":                "a wildcard is allowed only as the whole first label",
		"m*.ex.test":                    "a wildcard is allowed only as the whole first label",
		".ex.test":                      "it has an empty label",
		"mail.ex.test..":                "it has an empty label",
		"møx.ex.test":                   "not ASCII: the A-label form (xn--…) is needed",
		"mail.\u212aex.test":            "not ASCII: the A-label form (xn--…) is needed", // its lower case is "k"
		"192.0.2.1":                     "an address, not a name",
		"[192.0.2.1]":                   "an address, not a name",
		"[IPv6:2001:db8::1]":            "an address, not a name",
		"2001:db8::1":                   "an address, not a name",
		"*.0.2.1":                       "its last label is a number",
		"mail.ex.1":                     "its last label is a number",
		"mail ex.test":                  "more than one name: each needs an mx line of its own",
		"mail.ex.test, mx2.ex.test":     "more than one name: each needs an mx line of its own",
		"http://mail.ex.test":           "a URL, not a name",
		"mail.ex.test:25":               "it has the character ':'",
		"-mail.ex.test":                 "it has a label that begins or ends with a hyphen",
		strings.Repeat("a", 64):         "it has a label longer than 63 octets",
		strings.Repeat("a.", 127) + "a": "it is longer than 253 octets",
	} {
		_, notes, err := ParsePolicy([]byte("version: STSv1\nmode: enforce\nmx: mail.ex.test\nmax_age: 1\nmx: " + value))
		want := Note(fmt.Sprintf("line 5: bad mx %s dropped: %s", quote(value), why))
		if err != nil || len(notes) != 1 || notes[0] != want {
			t.Errorf("%q: %v %q, want %q", value, err, notes, want)
		}
	}
}

func TestSTS061_ManyPatterns(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: enforce\nmax_age: 1\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "mx: mx%d.ex.test\n", i)
	}
	p, notes, err := ParsePolicy([]byte(b.String()))
	if err != nil || len(p.MX) != 2000 || len(p.Lines) != 2003 || notes != nil {
		t.Fatalf("%d patterns, %d lines, %v, %v", len(p.MX), len(p.Lines), notes, err)
	}
	if !p.Match("mx1999.ex.test") {
		t.Error("the last one was lost")
	}
}

func TestPFX09_Lines(t *testing.T) {
	p, _, err := ParsePolicy([]byte("\ufeffversion: STSv1\r\n  mode: enforce \t\r\n\r\nmx:\tmail.ex.test\n" +
		"mx: *.ex.test\nfoo: } { policy_failure=validation-failure\nbar: grüße\nbaz: \x00\nqux: a, b\nno colon\nmax_age: 604800"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"version: STSv1", "mode: enforce", "mx: *.ex.test", "qux: a, b", "no colon", "max_age: 604800"}
	if !slices.Equal(p.Lines, want) {
		t.Errorf("%q, want %q", p.Lines, want)
	}
}

func format(p Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\nmode: %s\nmax_age: %d\n", p.Mode, p.MaxAge/time.Second)
	for _, mx := range p.MX {
		fmt.Fprintf(&b, "mx: %s\n", mx)
	}
	return b.String()
}

func FuzzSTS064_ParsePolicy(f *testing.F) {
	for _, s := range []string{
		good, strings.ReplaceAll(good, "\n", "\r\n"), "\ufeff" + good, "\xff\xfev\x00", "", "\n\n", "\r",
		"max_age: 9999999999\nmx: *.ex.test.\nmode: testing\nversion: STSv1", "version: STSv1\nmode: none\nmax_age: 1\nmx: *",
		with("mode", "mode : enforce"), with("mx", "mx: 212.114.86.56\nmx: MAIL.ex.test\nmx: mail.ex.test."), with("mx", "nmx: a"),
		good + "foo: } { policy_failure=x\n", good + "foo: \x00\xff\n", with("mx", "mx: a_b.ex.test\nmx: [IPv6:::1]"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, notes, err := ParsePolicy(body)
		if len(notes) > maxNotes+1 {
			t.Errorf("%d notes", len(notes))
		}
		for _, n := range notes {
			if strings.ContainsAny(string(n), "\n\r\x00\x1b") {
				t.Errorf("note %q", n)
			}
		}
		if err != nil {
			if !errors.Is(err, ErrInvalidPolicy) || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("error %q", err)
			}
			return
		}
		if p.MaxAge < 0 || p.MaxAge > MaxAge || p.Mode != ModeNone && len(p.MX) == 0 {
			t.Errorf("%+v", p)
		}
		for _, mx := range p.MX {
			if badName(strings.TrimPrefix(mx, "*.")) != "" || !matchPattern(mx, strings.Replace(mx, "*", "a", 1)) {
				t.Errorf("mx %q", mx)
			}
		}
		for _, line := range p.Lines {
			if strings.Trim(line, wsp) != line || line == "" || !isPlain(line) {
				t.Errorf("line %q", line)
			}
		}
		again, notes, err := ParsePolicy([]byte(format(p)))
		if err != nil || !same(again, p) {
			t.Errorf("%+v becomes %+v, %v, %v", p, again, notes, err)
		}
	})
}
