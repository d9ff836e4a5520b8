package align

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// fields turns lines into raw header fields.
func fields(lines ...string) [][]byte {
	var all [][]byte
	for _, l := range lines {
		all = append(all, []byte(l+"\r\n"))
	}
	return all
}

// header of a message in which nothing is wrong.
func goodHeader() []string {
	return []string{
		"DKIM-Signature: v=1", "From: Alice <alice@ex.test>", "To: bob@far.test", "Subject: hello",
		"Date: Mon, 01 Jun 2026 11:59:00 +0000", "Message-ID: <1.2@mail.ex.test>",
	}
}

// fine is a signature in which nothing is wrong.
func fine(domain string) Signature {
	return Signature{
		Domain: domain, Selector: "s", Algorithm: "rsa-sha256", KeyBits: 2048, Status: Pass, Ours: true,
		Headers: []string{"From", "From", "To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Id"},
	}
}

// message is one that nobody has a word against; change changes it.
func message(change func(m *Message)) *Message {
	m := &Message{
		Fields: fields(goodHeader()...), Now: now, MailFrom: "alice@ex.test", UTF8: UTF8No,
		Signatures:    []Signature{fine("ex.test")},
		DMARC:         DMARC{Found: true, At: "ex.test", Policy: "reject"},
		Organizations: map[string]Organization{},
	}
	for _, domain := range []string{"ex.test", "mail.ex.test", "a.ex.test", "b.ex.test", "a.b.ex.test", "news.ex.test"} {
		m.Organizations[domain] = Organization{PSL: "ex.test", Walk: "ex.test"}
	}
	for _, domain := range []string{"ex2.test", "esp.test"} {
		m.Organizations[domain] = Organization{PSL: domain, Walk: domain}
	}
	if change != nil {
		change(m)
	}
	m.Author = ParseAuthor(m.Fields)
	return m
}

// set replaces the fields of a name, or adds the line if there is none; "" removes.
func (m *Message) set(name string, lines ...string) {
	m.Fields = slices.DeleteFunc(m.Fields, func(f []byte) bool {
		return strings.HasPrefix(strings.ToLower(string(f)), strings.ToLower(name)+":")
	})
	m.Fields = append(m.Fields, fields(lines...)...)
}

// show writes findings as "name=class name=class".
func show(all []Finding) string {
	var s []string
	for _, f := range all {
		s = append(s, f.Name+"="+f.Class.String())
	}
	return strings.Join(s, " ")
}

// verdictCase is a row of the truth table.
type verdictCase struct {
	name   string
	change func(m *Message)
	want   string // findings by show
}

func checkAll(t *testing.T, cases []verdictCase) {
	t.Helper()
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			found := Check(message(test.change))
			if got := show(found); got != test.want {
				t.Errorf("found %q\nwant  %q", got, test.want)
				for _, f := range found {
					t.Log(f.Name, f.Detail)
				}
			}
			for _, f := range found {
				checkFinding(t, f)
			}
		})
	}
}

type failer interface {
	Helper()
	Errorf(string, ...any)
}

// checkFinding holds what is promised of every finding.
func checkFinding(t failer, f Finding) {
	t.Helper()
	if _, known := rank[f.Name]; !known {
		t.Errorf("unknown finding %q", f.Name)
	}
	if f.Detail == "" || strings.ContainsAny(f.Detail, "\r\n\x00\x7f") || len(f.Detail) > 2000 {
		t.Errorf("detail of %s: %q", f.Name, f.Detail)
	}
	if f.Class > Fail {
		t.Errorf("class of %s: %d", f.Name, f.Class)
	}
}
