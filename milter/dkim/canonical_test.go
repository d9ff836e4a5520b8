package dkim_test

import (
	"strings"
	"testing"

	"github.com/postseal/postseal/milter/dkim"
)

// TestK020_Header has the vectors of RFC 6376 §3.4.5, and more: the fields as
// they come and as they are hashed.
func TestK020_Header(t *testing.T) {
	for _, c := range []struct {
		name, field, relaxed string
	}{
		{"A", "A: X\r\n", "a:X\r\n"},
		{"B", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
		{"empty", "C:\r\n", "c:\r\n"},
		{"blank", "D:   \r\n", "d:\r\n"},
		{"no space", "E:x\r\n", "e:x\r\n"},
		{"fold at once", "F:\r\n\tx\r\n", "f:x\r\n"},
		{"blank fold", "G: x\r\n \r\n\ty\r\n", "g:x y\r\n"},
		{"8 bits", "H: J\xc3\xb6rg  \xe4\r\n", "h:J\xc3\xb6rg \xe4\r\n"},
		{"colons", "I: a:b :c\r\n", "i:a:b :c\r\n"},
		{"tab before the colon", "J\t: x\r\n", "j:x\r\n"},
		{"long", "K: " + strings.Repeat("word \t ", 3000) + "\r\n", "k:" + strings.TrimSpace(strings.Repeat("word ", 3000)) + "\r\n"},
		{"long word", "L: " + strings.Repeat("x", 9000) + " " + strings.Repeat("y", 9000) + "\r\n", "l:" + strings.Repeat("x", 9000) + " " + strings.Repeat("y", 9000) + "\r\n"},
		{"long word after others", "M: a " + strings.Repeat("x", 4090) + "  y\r\n", "m:a " + strings.Repeat("x", 4090) + " y\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, _, _ := strings.Cut(c.field, ":")
			simple := basic().with("h=From:" + strings.TrimSpace(name))
			simple.fields = []string{"From: Ann <ann@ex.test>\r\n", c.field}
			want(t, one(t, world(t), simple.sign(t)+c.field+testHeader+"\r\n"), "")
			relaxed := basic().with("c=relaxed", "h=From:"+strings.TrimSpace(name), "v=1", "foo=\r\n\t a \t b")
			relaxed.header, relaxed.fields = dkim.Relaxed, []string{"from:Ann <ann@ex.test>\r\n", c.relaxed}
			want(t, one(t, world(t), relaxed.sign(t)+c.field+testHeader+"\r\n"), "")
		})
	}
}

// TestK020_Body has the vectors of RFC 6376 §3.4.3 to §3.4.5, and bodies whose
// ends and white space are cut everywhere by the chunks.
func TestK020_Body(t *testing.T) {
	for _, c := range []struct {
		name, body, simple, relaxed string
	}{
		{"RFC 6376 §3.4.5", " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"empty", "", "\r\n", ""},
		{"line end", "\r\n", "\r\n", ""},
		{"line ends", "\r\n\r\n\r\n", "\r\n", ""},
		{"blank", " \t\r\n", " \t\r\n", ""},
		{"blank, no line end", " ", " \r\n", ""},
		{"blank lines", "\r\n \r\n\t\r\n", "\r\n \r\n\t\r\n", ""},
		{"no line end", "a", "a\r\n", "a\r\n"},
		{"space, no line end", "a ", "a \r\n", "a\r\n"},
		{"empty lines in front", "\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
		{"white space in front", " \t a", " \t a\r\n", " a\r\n"},
		{"empty lines within", "a\r\n\r\n \r\nb\r\n", "a\r\n\r\n \r\nb\r\n", "a\r\n\r\n\r\nb\r\n"},
		{"tab", "a\tb\r\n", "a\tb\r\n", "a b\r\n"},
		{"tab and space", "a\t b \tc\r\n", "a\t b \tc\r\n", "a b c\r\n"},
		{"blank end", "a\r\n \r\n", "a\r\n \r\n", "a\r\n"},
		{"CR at the end", "a\r", "a\r\r\n", "a\r\r\n"},
		{"CRs at the end", "a\r\r", "a\r\r\r\n", "a\r\r\r\n"},
		{"CR before CRLF", "a\r\r\n", "a\r\r\n", "a\r\r\n"},
		{"CR within", "a \rb\r\n", "a \rb\r\n", "a \rb\r\n"},
		{"LF within", "a \nb\r\n", "a \nb\r\n", "a \nb\r\n"},
		{"LF at the end", "a \n", "a \n\r\n", "a \n\r\n"},
		{"LF after blanks", "\r\n \n \r\n", "\r\n \n \r\n", "\r\n \n\r\n"},
		{"LF CR", "a\n\r\r\n\r\n", "a\n\r\r\n", "a\n\r\r\n"},
		{"NUL", "\x00 \x00\r\n", "\x00 \x00\r\n", "\x00 \x00\r\n"},
		{"bang after space", "a !b  !\r\n", "a !b  !\r\n", "a !b !\r\n"},
		{"long lines", strings.Repeat("word ", 2000) + "\r\n", strings.Repeat("word ", 2000) + "\r\n", strings.TrimSuffix(strings.Repeat("word ", 2000), " ") + "\r\n"},
		{"long white space", "a" + strings.Repeat(" ", 70000) + "b\r\n", "a" + strings.Repeat(" ", 70000) + "b\r\n", "a b\r\n"},
		{"many line ends", "a" + strings.Repeat("\r\n", 3000) + "b\r\n", "a" + strings.Repeat("\r\n", 3000) + "b\r\n", "a" + strings.Repeat("\r\n", 3000) + "b\r\n"},
		{"dots", ".\r\n..\r\nFrom x\r\n", ".\r\n..\r\nFrom x\r\n", ".\r\n..\r\nFrom x\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			simple, relaxed := basic(), basic().with("c=simple/relaxed")
			simple.body, relaxed.body = c.simple, c.relaxed
			text := simple.sign(t) + relaxed.sign(t) + testHeader + "\r\n" + c.body
			for _, chunk := range []int{1, 2, 7, 65535} {
				for _, r := range verify(t, &dkim.Verifier{Lookup: world(t).lookup}, text, chunk) {
					if want(t, r, ""); r.BodyOctets != int64(len(c.body)) {
						t.Errorf("%d octets, want %d", r.BodyOctets, len(c.body))
					}
				}
			}
		})
	}
}

// TestK020_EmptyBodies are the hashes of RFC 6376 §3.4.3 and §3.4.4.
func TestK020_EmptyBodies(t *testing.T) {
	want(t, one(t, world(t), message(basic().with("bh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=").sign(t))), "")
	want(t, one(t, world(t), message(basic().with("c=simple/relaxed", "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").sign(t))), "")
}

// TestK022_K023_LeadingSpace: what stands behind the colon counts with simple.
func TestK022_K023_LeadingSpace(t *testing.T) {
	for _, subject := range []string{"Subject:x\r\n", "Subject: x\r\n", "Subject:  x\r\n", "Subject:\tx\r\n", "Subject:\r\n\tx\r\n y\r\n"} {
		s := basic()
		s.fields[1] = subject
		header := strings.Replace(testHeader, "Subject: A  folded\r\n\tsubject \r\n", subject, 1)
		want(t, one(t, world(t), s.sign(t)+header+"\r\n"), "")
		if other := strings.Replace(header, subject, strings.Replace(subject, ":", ":   ", 1), 1); one(t, world(t), s.sign(t)+other+"\r\n").Cause != dkim.HeaderChanged {
			t.Errorf("%q: white space does not count", subject)
		}
	}
}
