package dkim_test

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/postseal/postseal/milter/dkim"
)

// The canonicalizations of RFC 6376 §3.4 once more, as the text has them and
// without regard to speed.

var (
	blanks     = regexp.MustCompile(`[ \t]+`)
	blankEnd   = regexp.MustCompile(`[ \t]+\r\n`)
	emptyLines = regexp.MustCompile(`(\r\n)*$`)
	anyBlanks  = regexp.MustCompile(`[ \t\r\n]+`)
)

func simpleBody(body string) string {
	return emptyLines.ReplaceAllLiteralString(body, "") + "\r\n"
}

func relaxedBody(body string) string {
	body = blankEnd.ReplaceAllLiteralString(body+"\r\n", "\r\n")
	body = emptyLines.ReplaceAllLiteralString(blanks.ReplaceAllLiteralString(body, " "), "")
	if body == "" {
		return ""
	}
	return body + "\r\n"
}

func relaxedField(field string) string {
	name, value, _ := strings.Cut(field, ":")
	return strings.ToLower(strings.Trim(name, " \t")) + ":" + strings.Trim(anyBlanks.ReplaceAllLiteralString(value, " "), " ") + "\r\n"
}

// ed25519Template signs fast.
func ed25519Template(tags ...string) template {
	t := basic().with(append([]string{"s=ed25519", "a=ed25519-sha256"}, tags...)...)
	t.key = "ed25519"
	return t
}

// FuzzBody: any body, in chunks of any size, has the hashes that the text of the
// RFC gives it; and a changed octet is a failure unless it does not count.
func FuzzBody(f *testing.F) {
	for _, body := range bodyShapes {
		if len(body) < 2000 {
			f.Add([]byte(body), uint8(3), uint(1), byte(' '))
		}
	}
	f.Add([]byte("a \r\r\n \n\r\n\t\r"), uint8(1), uint(4), byte('\n'))
	f.Fuzz(func(t *testing.T, body []byte, chunk uint8, at uint, c byte) {
		simple, relaxed := ed25519Template(), ed25519Template("c=simple/relaxed")
		simple.body, relaxed.body = simpleBody(string(body)), relaxedBody(string(body))
		half := ed25519Template("c=simple/relaxed", "l=7")
		half.body = relaxed.body[:min(7, len(relaxed.body))]
		head := simple.sign(t) + relaxed.sign(t) + half.sign(t) + testHeader + "\r\n"
		v := &dkim.Verifier{Lookup: world(t).lookup}
		size := int(chunk) + 1

		check := func(body []byte, passes ...bool) {
			t.Helper()
			for i, r := range verify(t, v, head+string(body), size) {
				if (r.Cause == "") != passes[i] {
					t.Errorf("signature %d of %q: %v %s (%s)", i, body, r.Status, r.Cause, r.Detail)
				}
				if r.BodyOctets != int64(len(body)) {
					t.Errorf("%d octets, want %d", r.BodyOctets, len(body))
				}
			}
		}
		check(body, true, true, len(relaxed.body) >= 7)
		if len(body) == 0 {
			return
		}
		changed := bytes.Clone(body)
		changed[at%uint(len(body))] = c
		now := relaxedBody(string(changed))
		check(changed, simpleBody(string(changed)) == simple.body, now == relaxed.body, len(now) >= 7 && now[:7] == half.body)
	})
}

// FuzzField: the same for a field of the header.
func FuzzField(f *testing.F) {
	for _, value := range []string{"", " x", "\tx\r\n\ty  z \t", " \r\n \r\n x", " a\xff\r\n\tb: c"} {
		f.Add(value, uint(2), byte(' '))
	}
	f.Fuzz(func(t *testing.T, value string, at uint, c byte) {
		field := "X-F : " + value + "\r\n"
		if !whole(field) {
			return // it would be more than one field
		}
		simple := ed25519Template("h=From:X-F")
		simple.fields = []string{"From: Ann <ann@ex.test>\r\n", field}
		relaxed := ed25519Template("h=From:X-F", "c=relaxed")
		relaxed.header, relaxed.fields = dkim.Relaxed, []string{"from:Ann <ann@ex.test>\r\n", relaxedField(field)}
		v := &dkim.Verifier{Lookup: world(t).lookup}
		signatures := simple.sign(t) + relaxed.sign(t)
		for i, r := range verify(t, v, signatures+field+testHeader+"\r\n", 100) {
			if want(t, r, ""); r.Index != i {
				t.Errorf("index %d", r.Index)
			}
		}
		if len(value) == 0 {
			return
		}
		changed := []byte(value)
		changed[at%uint(len(value))] = c
		other := "X-F : " + string(changed) + "\r\n"
		if !whole(other) {
			return
		}
		results := verify(t, v, signatures+other+testHeader+"\r\n", 100)
		if passes := results[0].Cause == ""; passes != (other == field) {
			t.Errorf("simple: %q for %q: passes: %v", other, field, passes)
		}
		if passes := results[1].Cause == ""; passes != (relaxedField(other) == relaxedField(field)) {
			t.Errorf("relaxed: %q for %q: passes: %v", other, field, passes)
		}
	})
}

// whole tells whether the text is one field: its line ends, but for the last,
// are folds, and no CR or LF stands alone.
func whole(field string) bool {
	body := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSuffix(field, "\r\n"), "\r\n ", ""), "\r\n\t", "")
	return !strings.ContainsAny(body, "\r\n")
}

// FuzzSignature: whatever stands in the field, the result is the same twice, and
// a good signature with one octet changed does not pass, unless the change
// counts for nothing.
func FuzzSignature(f *testing.F) {
	for _, c := range signatureCases {
		if s := basic().with(c.tags...); len(strings.Join(s.tags, "")) < 1000 {
			f.Add(strings.Join(s.tags, ";"), uint(20), byte('='))
		}
	}
	f.Fuzz(func(t *testing.T, list string, at uint, c byte) {
		v := &dkim.Verifier{Lookup: world(t).lookup}
		if field := "DKIM-Signature:" + list + "\r\n"; whole(field) {
			first := verify(t, v, message(field), 100)
			for i := range first {
				if r := first[i]; r.Status == 0 || (r.Status == dkim.Pass) != (r.Cause == "") || !fitsALog(r.Detail) {
					t.Errorf("%+v", r)
				}
			}
			if again := verify(t, v, message(field), 1); len(first) != 1 || !reflect.DeepEqual(withoutTimes(first), withoutTimes(again)) {
				t.Errorf("%+v and %+v", first, again)
			}
		}
		s := ed25519Template("c=relaxed", "foo=x  y")
		s.header, s.fields = dkim.Relaxed, []string{"from:Ann <ann@ex.test>\r\n", "subject:A folded subject\r\n"}
		good := s.sign(t)
		changed := []byte(good)
		changed[len("DKIM-Signature:")+int(at%uint(len(good)-len("DKIM-Signature:\r\n")))] = c
		if !whole(string(changed)) {
			return
		}
		same := signedPart(good) == signedPart(string(changed))
		if r := one(t, world(t), message(string(changed))); (r.Cause == "") != same {
			t.Errorf("%q for %q: %v (%s)", changed, good, r.Status, r.Detail)
		}
	})
}

// signedPart is a field of which b= is last: what is hashed, and the signature.
func signedPart(field string) string {
	at := strings.LastIndex(field, "b=")
	if at < 0 {
		return field
	}
	text, b := field[:at], anyBlanks.ReplaceAllLiteralString(field[at+2:], "")
	signature, err := base64.StdEncoding.DecodeString(b)
	if err != nil {
		return "malformed " + b
	}
	return relaxedField(text+"b=") + string(signature)
}

// withoutTimes drops what the clock makes differ.
func withoutTimes(results []dkim.Result) []dkim.Result {
	for i := range results {
		results[i].Detail = ""
		for n := range results[i].Notes {
			results[i].Notes[n].Detail = ""
		}
	}
	return results
}
