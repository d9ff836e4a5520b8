package dmarc

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDM020_PublicSuffixList(t *testing.T) {
	text, err := os.ReadFile("testdata/test_psl.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "//") {
			continue
		}
		cases++
		f := strings.Fields(line)
		want := strings.Replace(f[1], "null", "", 1)
		if got := List(f[0]); got.PSL != want || got.Walk != "" {
			t.Errorf("%s: %q, want %q", f[0], got.PSL, want)
		}
	}
	if cases < 70 {
		t.Errorf("only %d cases", cases)
	}
}

func TestDM011_Suffixes(t *testing.T) {
	for domain, want := range map[string]Suffix{
		"com": ICANN, "co.uk": ICANN, "github.io": Private, "test": ICANN, "ex.test": NoSuffix,
		"a.github.io": NoSuffix, "example.co.uk": NoSuffix, "CO.UK.": ICANN,
	} {
		if got := List(domain); got.Suffix != want || (got.PSL == "") != (want != NoSuffix) {
			t.Errorf("%s: %+v", domain, got)
		}
	}
}

// TestDM021_EightQueries is the example of RFC 9989 §4.10.
func TestDM021_EightQueries(t *testing.T) {
	w := zone()
	o := w.discoverer().Organization(context.Background(), "a.b.c.d.e.f.g.h.i.j.mail.example.com")
	w.wantAsked(t, "_dmarc.a.b.c.d.e.f.g.h.i.j.mail.example.com", "_dmarc.g.h.i.j.mail.example.com", "_dmarc.h.i.j.mail.example.com",
		"_dmarc.i.j.mail.example.com", "_dmarc.j.mail.example.com", "_dmarc.mail.example.com", "_dmarc.example.com", "_dmarc.com")
	if o.Queries != 8 || o.Walk != "a.b.c.d.e.f.g.h.i.j.mail.example.com" || o.PSL != "example.com" {
		t.Errorf("%+v", o)
	}
}

func TestDM021_Names(t *testing.T) {
	for start, want := range map[string]string{
		"example.com":             "example.com com",
		"com":                     "com",
		"1.2.3.4.5.6.7":           "1.2.3.4.5.6.7 2.3.4.5.6.7 3.4.5.6.7 4.5.6.7 5.6.7 6.7 7",
		"1.2.3.4.5.6.7.8":         "1.2.3.4.5.6.7.8 2.3.4.5.6.7.8 3.4.5.6.7.8 4.5.6.7.8 5.6.7.8 6.7.8 7.8 8",
		"1.2.3.4.5.6.7.8.9":       "1.2.3.4.5.6.7.8.9 3.4.5.6.7.8.9 4.5.6.7.8.9 5.6.7.8.9 6.7.8.9 7.8.9 8.9 9",
		"Bücher.Test.":            "xn--bcher-kva.test test",
		"a..b":                    "",
		"":                        "",
		"a b.test":                "",
		strings.Repeat("a.", 200): "",
	} {
		w := zone()
		w.discoverer().Organization(context.Background(), start)
		var names []string
		for f := range strings.FieldsSeq(want) {
			names = append(names, "_dmarc."+f)
		}
		w.wantAsked(t, names...)
		if got := Names(start); !slices.Equal(got, names) {
			t.Errorf("Names: %v, want %v", got, names)
		}
	}
}

func TestDM022_Selection(t *testing.T) {
	const none, yes, no = " v=DMARC1; p=none", " v=DMARC1; p=none; psd=y", " v=DMARC1; p=none; psd=n"
	for _, test := range []struct {
		name, start string
		zone        []string
		want        string
		queries     int
	}{
		{"fewest labels", "a.mail.example.com", []string{"_dmarc.mail.example.com" + none, "_dmarc.example.com" + none}, "example.com", 4},
		{"psd=n", "a.mail.example.com", []string{"_dmarc.mail.example.com" + no, "_dmarc.example.com" + none}, "mail.example.com", 2},
		{"psd=n at the start", "a.mail.example.com", []string{"_dmarc.a.mail.example.com" + no, "_dmarc.example.com" + none}, "a.mail.example.com", 1},
		{"psd=y above", "a.mail.example.com", []string{"_dmarc.com" + yes}, "example.com", 4},
		{"psd=y above records", "a.mail.example.com", []string{"_dmarc.mail.example.com" + none, "_dmarc.com" + yes}, "example.com", 4},
		{"psd=y at the start", "example.com", []string{"_dmarc.example.com" + yes, "_dmarc.com" + none}, "example.com", 1},
		{"psd=y, start is one below", "example.com", []string{"_dmarc.com" + yes}, "example.com", 2},
		{"none at all", "a.mail.example.com", nil, "a.mail.example.com", 4},
		{"only the start", "a.mail.example.com", []string{"_dmarc.a.mail.example.com" + none}, "a.mail.example.com", 4},
		{"two records are none", "a.example.com", []string{"_dmarc.a.example.com" + none, "_dmarc.example.com" + none, "_dmarc.example.com v=DMARC1; p=reject"}, "a.example.com", 3},
		{"one record twice is one", "a.example.com", []string{"_dmarc.example.com" + none, "_dmarc.example.com" + none}, "example.com", 3},
		{"another kind beside", "a.example.com", []string{"_dmarc.example.com" + none, "_dmarc.example.com v=spf1 -all"}, "example.com", 3},
		{"a record without policy counts", "a.example.com", []string{"_dmarc.example.com v=DMARC1; psd=n"}, "example.com", 2},
		{"cut names", "a.b.c.d.e.f.g.h.i.example.com", []string{"_dmarc.b.c.d.e.f.g.h.i.example.com" + no, "_dmarc.example.com" + none}, "example.com", 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := zone(test.zone...).discoverer().Organization(context.Background(), test.start)
			if o.Walk != test.want || o.Queries != test.queries || o.Err != nil {
				t.Errorf("%+v, want %s after %d", o, test.want, test.queries)
			}
		})
	}
}

func TestDM034_WalkWithoutAnswer(t *testing.T) {
	w := zone("_dmarc.a.example.com v=DMARC1; p=none", "_dmarc.example.com SERVFAIL")
	o := w.discoverer().Organization(context.Background(), "a.example.com")
	if !errors.Is(o.Err, errServfail) || o.Walk != "" || o.PSL != "example.com" {
		t.Errorf("%+v", o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if o := zone().discoverer().Organization(ctx, "example.com"); !errors.Is(o.Err, context.Canceled) || o.PSL != "example.com" {
		t.Errorf("%+v", o)
	}
}

func TestDM023_NeedsWalk(t *testing.T) {
	own := zone("_dmarc.mail.ex.test v=DMARC1; p=none").discoverer().Discover(context.Background(), "mail.ex.test")
	inherited := zone("_dmarc.ex.test v=DMARC1; p=none").discoverer().Discover(context.Background(), "mail.ex.test")
	nothing := zone().discoverer().Discover(context.Background(), "mail.ex.test")
	for _, test := range []struct {
		name   string
		d      Discovery
		domain string
		strict bool
		want   bool
	}{
		{"the same, published", own, "MAIL.ex.test.", false, false},
		{"another", own, "ex.test", false, true},
		{"strict", own, "ex.test", true, false},
		{"the same, inherited", inherited, "mail.ex.test", false, true},
		{"no record", nothing, "ex.test", false, false},
	} {
		if got := test.d.NeedsWalk(test.domain, test.strict); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// TestDM021_Bounds: whatever the tree, at most 8 questions, no name twice, each
// one above the start, and the result is the start or above it.
func TestDM021_Bounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labels := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,3}`), 1, 20).Draw(t, "labels")
		start := strings.Join(labels, ".")
		w := zone()
		for i := range labels {
			record := rapid.SampledFrom([]string{"", "", "v=DMARC1; p=none", "v=DMARC1", "v=DMARC1; psd=y", "v=DMARC1; psd=n", "v=spf1"}).Draw(t, "record")
			at := "_dmarc." + strings.Join(labels[i:], ".")
			w.records[at] = append(w.records[at], record)
		}
		o := w.discoverer().Organization(context.Background(), start)
		if len(w.asked) > 8 || o.Queries != len(w.asked) || o.Err != nil {
			t.Fatalf("%d questions, %+v", len(w.asked), o)
		}
		for i, name := range w.asked {
			name = strings.TrimPrefix(name, "_dmarc.")
			if slices.Contains(w.asked[:i], w.asked[i]) || name != start && !strings.HasSuffix(start, "."+name) {
				t.Fatalf("asked for %v", w.asked)
			}
		}
		if o.Walk != start && !strings.HasSuffix(start, "."+o.Walk) || o.Walk == "" {
			t.Fatalf("%q from %q", o.Walk, start)
		}
	})
}
