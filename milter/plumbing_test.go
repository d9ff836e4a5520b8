package milter

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/milter/align"
)

// TestK026_BodyIsWatched: octets over 127 and the longest line are seen wherever
// the chunks are cut, and a line end counts for neither.
func TestK026_BodyIsWatched(t *testing.T) {
	for _, c := range []struct {
		body     string
		longest  int
		eightBit bool
	}{
		{"", 0, false},
		{"\r\n\r\n", 0, false},
		{"abc\r\nde", 3, false},
		{"ab\r\n" + strings.Repeat("x", 998) + "\r\n", 998, false},
		{strings.Repeat("x", 999) + "\r\ny\r\n", 999, false},
		{"a\r\nbcd", 3, false},
		{"seven bits only and then j\xc3\xb6rg\r\n", 30, true},
		{"a\rb\r\r\n", 4, false},
		{strings.Repeat("x", 40) + "\r\n\xff", 40, true},
	} {
		for chunk := 1; chunk <= len(c.body)+1; chunk += 1 + chunk/3 {
			var b body
			for rest := c.body; rest != ""; {
				n := min(chunk, len(rest))
				b.write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if b.longest != c.longest || b.eightBit != c.eightBit || b.size != int64(len(c.body)) {
				t.Errorf("%.20q in chunks of %d: %+v", c.body, chunk, b)
			}
		}
	}
	i := newInspector(t, Config{DNS: goodZone()})
	if r := pass(i, anna(), sign(t, "r", letter("anna@ex.test", "j\xc3\xb6rg"))); !r.has(align.Fragile8Bit) {
		t.Errorf("8-bit body: %s", r.names())
	}
}

// TestBodyWithStrayOctets: a NUL, or a CR or LF that stands alone, is seen wherever
// the chunks are cut.
func TestBodyWithStrayOctets(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "a\r\nb\r\n": false, "\r\n\r\n": false, "no end": false,
		"a\x00b\r\n": true, "a\rb\r\n": true, "a\nb\r\n": true, "\n": true, "\r": true, "\r\r\n": true, "a\r\n\n": true, "a\r\n\rb": true, "a\r": true,
	} {
		for chunk := 1; chunk <= len(text)+1; chunk++ {
			var b body
			for rest := text; rest != ""; {
				n := min(chunk, len(rest))
				b.write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if b.invalid() != want {
				t.Errorf("%q in chunks of %d: %v", text, chunk, !want)
			}
		}
	}
	i := newInspector(t, Config{DNS: goodZone()})
	if r := pass(i, anna(), sign(t, "r", letter("anna@ex.test", "a\x00b"))); !r.has(align.BodyInvalid) {
		t.Errorf("a NUL: %s", r.names())
	}
}

// TestK045_Lifetimes: what is absent is asked for again within a minute, so that a
// fresh selector works; a failure sooner; what is there lasts as its TTL says, an
// hour at most.
func TestK045_Lifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone("txt there.ex.test", "x", "txt broken.ex.test", "!")
		i, err := New(Config{DNS: z})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		asked := func(name string) int {
			_, _ = i.lookups.TXT(context.Background(), name)
			return z.count("txt " + name)
		}
		for _, c := range []struct {
			name  string
			lasts time.Duration
		}{
			{"there.ex.test", longestPositive}, {"absent.ex.test", longestNegative}, {"broken.ex.test", failureLasts},
		} {
			before := asked(c.name)
			if time.Sleep(c.lasts - time.Millisecond); asked(c.name) != before {
				t.Errorf("%s was asked for before %v were over", c.name, c.lasts)
			}
			if time.Sleep(2 * time.Millisecond); asked(c.name) != before+1 {
				t.Errorf("%s was not asked for again after %v", c.name, c.lasts)
			}
		}
	})
	if longestNegative > time.Minute || failureLasts > time.Minute {
		t.Error("absence and failure must be forgotten within a minute")
	}
	if got := (Records[string]{Values: []string{"x"}, TTL: time.Second}).lifetime(); got != time.Second {
		t.Errorf("a TTL of a second became %v", got)
	}
}

// TestK054_ResultHeader: Authentication-Results is added only where the operator
// asks for it.
func TestK054_ResultHeader(t *testing.T) {
	signed := sign(t, "r", letter("a@ex.test", "Hello"))
	for _, add := range []bool{false, true} {
		i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{AddHeader: add}})
		dial, _ := serve(t, &Server{Inspector: i})
		p := dial()
		p.connect("192.0.2.7")
		p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
		p.content(signed, 65535)
		_, _, modifications := p.end("Q")
		got := strings.Join(modifications, "\n")
		if !add && got != "" {
			t.Errorf("the message was changed unasked: %s", got)
		}
		if add && (len(modifications) != 1 || !strings.Contains(got, "Authentication-Results| mail.ex.test;") ||
			!strings.Contains(got, "dkim=pass") || !strings.Contains(got, "dmarc=pass")) {
			t.Errorf("%q", got)
		}
	}
}

// TestMLT15_Replies: a reply has its enhanced code, one line, and no text of the
// message that Postfix could misread; hold quarantines and lets the message go on.
func TestMLT15_Replies(t *testing.T) {
	r := refuse("550 5.7.20", "100 % of\r\n250 j\xc3\xb6rg\x00 "+strings.Repeat("%", 600))
	text, ended := strings.CutSuffix(string(r.Data), "\x00")
	if !strings.HasPrefix(text, "550 5.7.20 100 %% of??250 j?rg? ") || !ended || strings.ContainsAny(text, "\r\n\x00") || len(strings.ReplaceAll(text, "%%", "%")) > 512 {
		t.Errorf("%q", text)
	}
	if strings.Count(text, "%")%2 != 0 {
		t.Errorf("a lone %%: %q", text)
	}

	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Hold}})
	dial, _ := serve(t, &Server{Inspector: i})
	p := dial()
	p.connect("192.0.2.7")
	p.envelope("a@ex.test", "a@ex.test", "b@dest.test")
	p.content(letter("a@ex.test", "Hello"), 65535)
	code, reply, modifications := p.end("Q")
	if code != 'a' || len(modifications) != 1 || !strings.HasPrefix(modifications[0], "q postseal: unsigned: ") {
		t.Errorf("%c %q %q", code, reply, modifications)
	}
}
