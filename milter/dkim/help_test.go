package dkim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/milter/dkim"
)

// The keys of the tests, made once: the RSA ones from a fixed stream, so that a
// failure can be repeated.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	all := map[string]crypto.Signer{
		"ed25519": ed25519.NewKeyFromSeed([]byte("a seed for tests, 32 octets long")),
		"other-e": ed25519.NewKeyFromSeed([]byte("another seed for tests, 32 octet")),
	}
	for name, text := range rsaKeys {
		block, _ := pem.Decode([]byte(text))
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			panic(err)
		}
		all[name] = key.(*rsa.PrivateKey)
	}
	return all
})

// record is the key record of a key.
func record(t testing.TB, name string) string {
	t.Helper()
	switch public := keys()[name].Public().(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	}
	t.Fatalf("no key %s", name)
	return ""
}

// zone is a DNS of TXT records; errNobody at a name means that it does not
// answer. Names that it does not have are not there.
type zone map[string][]string

const nobody = "(nobody answers)"

func (z zone) lookup(_ context.Context, name string) ([]string, error) {
	if records := z[name]; len(records) == 1 && records[0] == nobody {
		return nil, errors.New("SERVFAIL")
	}
	return z[name], nil
}

// world has the test keys at their own names as selectors below ex.test.
func world(t testing.TB) zone {
	z := zone{}
	for name := range keys() {
		z[name+"._domainkey.ex.test"] = []string{record(t, name)}
	}
	return z
}

const testHeader = "From: Ann <ann@ex.test>\r\nTo: bob@b.test\r\nSubject: A  folded\r\n\tsubject \r\n" +
	"Date: Fri, 27 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@ex.test>\r\n"

const testBody = "Hello  Bob,\r\n\r\n this is \t text. \r\n\r\n\r\n"

// split cuts a message into its fields and body.
func split(t testing.TB, message string) (fields [][]byte, body []byte) {
	t.Helper()
	head, rest, ok := strings.Cut("\r\n"+message, "\r\n\r\n")
	if !ok {
		t.Fatalf("no empty line in %q", message)
	}
	for line := range strings.SplitAfterSeq(strings.TrimPrefix(head, "\r\n")+"\r\n", "\r\n") {
		switch {
		case line == "" || line == "\r\n":
		case line[0] == ' ' || line[0] == '\t':
			fields[len(fields)-1] = append(fields[len(fields)-1], line...)
		default:
			fields = append(fields, []byte(line))
		}
	}
	return fields, []byte(rest)
}

// verify runs the whole verifier, with the body in chunks of the size.
func verify(t testing.TB, v *dkim.Verifier, message string, chunk int) []dkim.Result {
	t.Helper()
	fields, body := split(t, message)
	m := v.Begin(fields)
	for len(body) > 0 {
		n := min(chunk, len(body))
		if _, err := m.Write(body[:n:n]); err != nil {
			t.Fatal(err)
		}
		body = body[n:]
	}
	return m.Finish(t.Context())
}

// one verifies a message with one signature.
func one(t testing.TB, z zone, message string) dkim.Result {
	t.Helper()
	results := verify(t, &dkim.Verifier{Lookup: z.lookup}, message, 65535)
	if len(results) != 1 {
		t.Fatalf("%d results, want one: %+v", len(results), results)
	}
	return results[0]
}

// want checks status and cause; no cause means a pass.
func want(t testing.TB, r dkim.Result, cause dkim.Cause) {
	t.Helper()
	if r.Cause != cause || (cause == "") != (r.Status == dkim.Pass) || (cause == "") != (r.Detail == "") {
		t.Errorf("%v %q (%s), want %q", r.Status, r.Cause, r.Detail, cause)
	}
	if !fitsALog(r.Detail) {
		t.Errorf("detail %q", r.Detail)
	}
	for _, n := range r.Notes {
		if !fitsALog(n.Detail) {
			t.Errorf("detail %q", n.Detail)
		}
	}
}

// fitsALog tells whether a text is one line, and not too long.
func fitsALog(s string) bool { return len(s) < 1000 && !strings.ContainsAny(s, "\r\n\t\x00\x7f") }

// hasNote returns the note of the name.
func hasNote(r dkim.Result, name string) (dkim.Note, bool) {
	for _, n := range r.Notes {
		if n.Name == name {
			return n, true
		}
	}
	return dkim.Note{}, false
}

func wantNote(t testing.TB, r dkim.Result, name string, class dkim.Class) {
	t.Helper()
	if n, ok := hasNote(r, name); !ok || n.Class != class || n.Detail == "" {
		t.Errorf("no note %s of class %v: %v", name, class, r.Notes)
	}
}

// signed has go-msgauth sign a message.
func signed(t testing.TB, message string, options msgauth.SignOptions) string {
	t.Helper()
	if options.Domain == "" {
		options.Domain = "ex.test"
	}
	if options.Selector == "" {
		options.Selector = "rsa2048"
	}
	if options.Signer == nil {
		options.Signer = keys()[options.Selector]
	}
	var out bytes.Buffer
	if err := msgauth.Sign(&out, strings.NewReader(message), &options); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// template is a signature to be made by hand, tag by tag, which no signer would
// do. The order is kept; bh= and b= are filled where they are empty.
type template struct {
	tags   []string
	key    string
	header dkim.Canonicalization // for the hash, whatever c= says
	body   string                // canonicalized, for bh=
	fields []string              // canonical ones, in the order of the hash
}

// basic is a template that verifies with c=simple/simple on testHeader and an
// empty body.
func basic() template {
	return template{
		tags:   []string{"v=1", "a=rsa-sha256", "d=ex.test", "s=rsa2048", "h=From:Subject", "bh=", "b="},
		key:    "rsa2048",
		body:   "\r\n",
		fields: []string{"From: Ann <ann@ex.test>\r\n", "Subject: A  folded\r\n\tsubject \r\n"},
	}
}

// with replaces the tag of the same name, or adds one in front; "x" alone takes
// the tag x away.
func (t template) with(tags ...string) template {
	out := append([]string(nil), t.tags...)
	for _, tag := range tags {
		name, _, has := strings.Cut(tag, "=")
		found := false
		for i := range out {
			if n, _, _ := strings.Cut(out[i], "="); strings.TrimSpace(n) == strings.TrimSpace(name) {
				found = true
				if out[i] = tag; !has {
					out = append(out[:i], out[i+1:]...)
				}
				break
			}
		}
		if !found {
			out = append([]string{tag}, out...)
		}
	}
	t.tags = out
	return t
}

// sign returns the field.
func (t template) sign(tb testing.TB) string {
	tb.Helper()
	return t.signBetween(tb, "DKIM-Signature: ", "")
}

// signBetween has its own beginning of the field and its own end of the list.
func (t template) signBetween(tb testing.TB, start, end string) string {
	tb.Helper()
	tags := append([]string(nil), t.tags...)
	at := -1
	for i, tag := range tags {
		switch strings.TrimSpace(tag) {
		case "bh=":
			sum := sha256.Sum256([]byte(t.body))
			tags[i] = tag + base64.StdEncoding.EncodeToString(sum[:])
		case "b=":
			at = i
		}
	}
	h := sha256.New()
	for _, f := range t.fields {
		io.WriteString(h, f)
	}
	if at < 0 {
		return start + strings.Join(tags, "; ") + end + "\r\n"
	}
	// RFC 6376 §3.7: the field with an empty b=, without CRLF.
	const blank = " \t\r\n"
	empty, after := append([]string(nil), tags...), end
	empty[at] = strings.TrimRight(empty[at], blank)
	if at == len(tags)-1 {
		after = strings.TrimLeft(end, blank)
	}
	field := start + strings.Join(empty, "; ") + after
	if t.header == dkim.Relaxed {
		field = "dkim-signature:" + strings.Join(strings.Fields(strings.SplitN(field, ":", 2)[1]), " ")
	}
	io.WriteString(h, field)
	tags[at] += base64.StdEncoding.EncodeToString(signSum(tb, t.key, h.Sum(nil)))
	return start + strings.Join(tags, "; ") + end + "\r\n"
}

func signSum(tb testing.TB, name string, sum []byte) []byte {
	tb.Helper()
	var options crypto.SignerOpts = crypto.SHA256
	if _, ok := keys()[name].(ed25519.PrivateKey); ok {
		options = crypto.Hash(0) // RFC 8463 §3: the hash is the message
	}
	signature, err := keys()[name].Sign(nil, sum, options)
	if err != nil {
		tb.Fatal(err)
	}
	return signature
}

// message puts a signature before testHeader, with no body.
func message(signature string) string { return signature + testHeader + "\r\n" }
