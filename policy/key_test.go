package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestSTS006_Keys(t *testing.T) {
	for in, want := range map[string]Key{
		"Ex.TEST":                    {Name: "ex.test", Port: 25},
		"ex.test.":                   {Name: "ex.test", Port: 25},
		"EX.test":                    {Name: "ex.test", Port: 25},
		"bücher.test":                {Name: "xn--bcher-kva.test", Port: 25},
		"BÜCHER.test":                {Name: "xn--bcher-kva.test", Port: 25},
		"xn--bcher-kva.test":         {Name: "xn--bcher-kva.test", Port: 25},
		"straße.test":                {Name: "xn--strae-oqa.test", Port: 25},
		"ex.test:587":                {Name: "ex.test", Port: 587, HasPort: true},
		"sub.ex.test:smtp":           {Name: "sub.ex.test", Port: 25, HasPort: true},
		"[Smart.ex.test]":            {Name: "smart.ex.test", Port: 25, Brackets: true},
		"[smart.ex.test]:587":        {Name: "smart.ex.test", Port: 587, HasPort: true, Brackets: true},
		"[smart.ex.test]:submission": {Name: "smart.ex.test", Port: 587, HasPort: true, Brackets: true},
		"[192.0.2.1]":                {Name: "192.0.2.1", Port: 25, Brackets: true, Literal: true},
		"[IPv6:2001:db8::1]:25":      {Name: "2001:db8::1", Port: 25, HasPort: true, Brackets: true, Literal: true},
		"192.0.2.1.":                 {Name: "192.0.2.1", Port: 25, Literal: true},
		"[2001:db8::1]":              {Name: "2001:db8::1", Port: 25, Brackets: true, Literal: true},
		"k.test。":                    {Name: "k.test", Port: 25}, // U+3002
		"K.test．:587":                {Name: "k.test", Port: 587, HasPort: true},
		"[k。test｡]":                  {Name: "k.test", Port: 25, Brackets: true},
		"１２７.test":                   {Name: "127.test", Port: 25},
		"_dmarc.ex.test":             {Name: "_dmarc.ex.test", Port: 25},
		"localhost":                  {Name: "localhost", Port: 25},
	} {
		got, err := ParseKey(in)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestSTS003_STS006_NoDestination(t *testing.T) {
	for _, in := range []string{"", ".", ".ex.test", ".test", "a..b", "-", "--.test", strings.Repeat("a", 300), strings.Repeat("a", 64) + ".test",
		"a b.test", "a/b", "/var/run/lmtp", "ex.test:", "ex.test:0", "ex.test:99999", "ex.test:no-such-service", "[ex.test", "[ex.test]x", "[ex.test]25",
		"ex.test\x00", "\xff\xfe.test", "ex\u200b.test\x01", "user@ex.test", "[]", "[]:25",
		"１２７.0.0.1", "１９２.0.2.1:25", "[１９２.0.2.1]", "192。0。2。1", "192.0.2.1。", "k.test。.", "k.test.。", "k.test。。", "。", "。k.test"} {
		if k, err := ParseKey(in); !errors.Is(err, ErrNoDestination) {
			t.Errorf("%q: got %+v, %v", in, k, err)
		}
	}
}

// TestParseKey_SaysWhatIsWrong, once and without the text, which the caller has.
func TestParseKey_SaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"a..b":                               "no destination: an empty label",
		".ex.test":                           "no destination: an empty label",
		"":                                   "no destination: an empty name",
		"[]:25":                              "no destination: an empty name",
		"user@ex.test":                       "no destination: character '@' in a name",
		"--.test":                            `no destination: a label of hyphens alone: "--"`,
		strings.Repeat("a", 64) + ".test":    "no destination: a label of 64 octets, at most 63",
		strings.Repeat("a.", 200) + "test":   "no destination: a name of 404 octets, at most 253",
		"\xff.test":                          "no destination: not UTF-8",
		"[ex.test":                           "no destination: a bracket without end",
		"[ex.test]x":                         "no destination: text after the bracket",
		"ex.test:no-such-service":            `no destination: port "no-such-service": neither a number nor a service of /etc/services`,
		"ex.test:" + strings.Repeat("9", 99): `no destination: port "` + strings.Repeat("9", 99) + `": neither a number nor a service of /etc/services`,
	} {
		if _, err := ParseKey(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

// FuzzParseKey: the canonical form is a fixed point, and a name is one that DNS can hold.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"ex.test", "[ex.test]:587", "[IPv6:::1]:25", "bücher.test:smtp", "a..b", "1.2.3.4:25", "xn--.test", "[::ffff:192.0.2.1]", "１２７.0.0.1", "k。test｡", "k.test.。"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			if !errors.Is(err, ErrNoDestination) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := ParseKey(k.String())
		if err != nil || again != k {
			t.Fatalf("%q: %+v writes itself %q, which reads %+v, %v", text, k, k.String(), again, err)
		}
		if len(k.Name) > maxName || strings.ContainsAny(k.Name, " {}=,\r\n\x00/") || strings.ToLower(k.Name) != k.Name || !isASCII(k.Name) {
			t.Fatalf("%q gives the name %q", text, k.Name)
		}
	})
}
