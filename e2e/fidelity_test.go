//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/e2e/lab"
)

// shape is a form of header or body that something on the way may not leave as it is.
type shape struct {
	name    string
	subject string // the whole field, or several; empty: an ordinary one
	body    string // empty: an ordinary one
	noBody  bool
	seven   bool   // to a server without 8BITMIME
	bdat    bool   // so that it needs no final line end
	fragile string // the finding of what breaks after all milters; the receiver's verdict is fail
	client  string // of a client's signature: "" pass, "fail", "simple" (fails where the header is simple)
}

// shapes are those of the fidelity matrix. Where a client's signature fails, Postfix has rewritten the message before
// any milter sees it.
var shapes = []shape{
	{name: "ordinary"},
	{name: "no-space", subject: "Subject:no space\r\n"},
	{name: "tab", subject: "Subject:\ttab\r\n"},
	{name: "empty-value", subject: "Subject:\r\n"},
	{name: "blank-value", subject: "Subject: \r\n"},
	{name: "fold-first", subject: "Subject:\r\n folded\r\n"},
	{name: "two-spaces", subject: "Subject:  two\r\n"},
	{name: "trailing-blanks", subject: "Subject: trailing \t \r\n"},
	{name: "fold-tab", subject: "Subject: folded\r\n\twith a tab\r\n"},
	{name: "fold-blank", subject: "Subject: folded\r\n \t \r\n over a blank line\r\n"},
	{name: "inner-blanks", subject: "Subject: many   blanks \t inside\r\n"},
	{name: "duplicates", subject: "Comments: one\r\nSubject: duplicates\r\nComments: two\r\n"},
	{name: "name-case", subject: "sUBJECT: case\r\n"},
	{name: "latin1-header", subject: "Subject: Gr\xfc\xdfe\r\n"},
	{name: "utf8-header", subject: "Subject: Grüße\r\n"},
	{name: "nested-mime", subject: "Subject: nested\r\n" + nestedHeader, body: nestedBody},
	{name: "foreign-received", subject: "Received: from a.test by b.test; Fri, 27 Nov 2026 13:00:00 +0000\r\nSubject: received\r\n"},
	{name: "sixty-folds", subject: "Subject: folds" + strings.Repeat("\r\n and another line", 60) + "\r\n"},
	{name: "colons", subject: "Subject: a: b; c=d; b=e\r\n"},
	{name: "space-before-colon", subject: "Subject : x\r\n", client: "simple"},
	{name: "nul-in-header", subject: "Subject: a\x00b\r\n", client: "fail"},
	{name: "no-field", subject: "Subject: before\r\nthis is no field\r\nComments: after\r\n", client: "fail"},
	{name: "huge-header", subject: "Subject: huge" + strings.Repeat("\r\n "+strings.Repeat("x", 900), 125) + "\r\n", client: "fail"},
	{name: "long-header", subject: "Subject: " + strings.Repeat("x", 1000) + "\r\n", fragile: "fragile-longline"},
	{name: "empty-body", noBody: true},
	{name: "one-line-end", body: "\r\n"},
	{name: "trailing-line-ends", body: "hello\r\n\r\n\r\n\r\n\r\n"},
	{name: "blank-lines", body: " \r\n\t\r\n  \t \r\nhello \t\r\n \r\n"},
	{name: "blanks-inside", body: "a  b\t\tc \t d\r\n  e\r\n"},
	{name: "dots", body: ".\r\n..\r\n.hello\r\n...\r\n"},
	{name: "from-line", body: "hello\r\nFrom somebody\r\n>From somebody\r\n"},
	{name: "megabyte", body: strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 15_000)},
	{name: "bare-lf", body: "one\ntwo\n\nthree\r\n"},
	{name: "nul-in-body", body: "a\x00b\r\n"},
	{name: "bare-cr", body: "one\rtwo\r\n", client: "fail"},
	{name: "utf8-body", body: "Grüße\r\n"},
	{name: "eight-bit-body", body: "Gr\xfc\xdfe\r\n"},
	{name: "no-line-end", body: "hello\r\nthe end", bdat: true},
	{name: "limit", body: strings.Repeat("x", 998) + "\r\n"},
	{name: "long-line", body: strings.Repeat("x", 999) + "\r\n", fragile: "fragile-longline"},
	{name: "very-long-line", body: strings.Repeat("x", 3000) + "\r\n", fragile: "fragile-longline"},
	{name: "seven-bit-server", subject: "Subject: eight\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", body: "Grüße\r\n", seven: true, fragile: "fragile-8bit"},
}

const (
	nestedHeader = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"a\"\r\n"
	nestedBody   = "preamble\r\n--a\r\nContent-Type: message/rfc822\r\n\r\nFrom: <x@y.test>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>two</b>\r\n--b--\r\n\r\n--a--\r\nepilogue\r\n"
)

// message is the shape as a message, which has not been signed.
func (f *shape) message(token string) string {
	subject, body := f.subject, f.body
	if subject == "" {
		subject = "Subject: " + token + "\r\n"
	}
	if body == "" && !f.noBody {
		body = "hello\r\n"
	}
	return fmt.Sprintf("From: <s@lab.test>\r\nTo: <u@dest.test>\r\nMessage-ID: <%s@lab.test>\r\nDate: %s\r\n%s\r\n%s",
		token, time.Now().Format(time.RFC1123Z), subject, body)
}

// chain is a way to a signature: of OpenDKIM before us, or of the client.
type chain struct {
	name   string
	via    string
	client dkim.Canonicalization // empty: OpenDKIM signs
}

var chains = []chain{
	{"opendkim-simple", "127.0.0.1:2001", ""},
	{"opendkim-relaxed", "127.0.0.1:2002", ""},
	{"client-simple", "127.0.0.1:2003", dkim.CanonicalizationSimple},
	{"client-relaxed", "127.0.0.1:2003", dkim.CanonicalizationRelaxed},
}

func (c *chain) token(f *shape) string { return f.name + "-" + c.name }

// sign signs as a client does.
func (c *chain) sign(message string) (string, error) {
	key, err := lab.DKIMKey("rsa2048")
	if err != nil || c.client == "" {
		return message, err
	}
	var out bytes.Buffer
	err = dkim.Sign(&out, strings.NewReader(message), &dkim.SignOptions{
		Domain: "lab.test", Selector: "s1", Signer: key,
		HeaderCanonicalization: c.client, BodyCanonicalization: c.client,
		HeaderKeys: []string{"From", "From", "To", "Date", "Message-ID", "Subject", "Comments", "Comments", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"},
	})
	return out.String(), err
}

// want is the receiver's verdict.
func (c *chain) want(f *shape) string {
	switch {
	case f.fragile != "", c.client != "" && f.client == "fail", c.client == dkim.CanonicalizationSimple && f.client == "simple":
		return "fail"
	}
	return "pass"
}

// TestMLT03_MLT04_MLT05_Fidelity sends messages of every shape, signed in four ways, and compares the milter's verdict on
// the signature with that of a receiver on the bytes that it gets. They are the same, but for what smtp(8) does after
// all milters: there the milter has a finding instead.
func TestMLT03_MLT04_MLT05_Fidelity(t *testing.T) {
	for _, in := range installations(t) {
		t.Run("postfix-"+in.Version.String(), func(t *testing.T) {
			t.Parallel()
			s := worldOf(t, in, "testdata/worlds/fidelity.txtar")
			t.Run("chains", func(t *testing.T) {
				for _, c := range chains {
					t.Run(c.name, func(t *testing.T) {
						t.Parallel()
						ctx, cancel := context.WithTimeout(t.Context(), stepDeadline)
						defer cancel()
						if err := c.send(ctx, s); err != nil {
							t.Fatal(err)
						}
						c.compare(ctx, t, s)
					})
				}
			})
		})
	}
}

// send sends a message of each shape, all in one connection.
func (c *chain) send(ctx context.Context, s *story) error {
	conn, err := dialSMTP(ctx, s.world.Network, c.via)
	if err != nil {
		return err
	}
	if err := conn.hello("", ""); err != nil {
		return err
	}
	for _, f := range shapes {
		message, err := c.sign(f.message(c.token(&f)))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		recipient, send := "u@dest.test", conn.data
		if f.seven {
			recipient = "u@seven.test"
		}
		if f.bdat {
			send = conn.bdat
		}
		if err := errors.Join(conn.envelope("s@lab.test", "BODY=8BITMIME", []string{recipient}), send(message, "250")); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return conn.quit()
}

func (c *chain) compare(ctx context.Context, t *testing.T, s *story) {
	arrived := make(map[string]lab.Message)
	for _, f := range shapes {
		token := c.token(&f)
		err := until(ctx, func() error {
			copies := s.world.Received(token)
			if len(copies) == 0 {
				return fmt.Errorf("no sink has %s", token)
			}
			arrived[token] = copies[0]
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := s.judgements()
	for _, f := range shapes {
		token := c.token(&f)
		receiver, err := verify(s.world.Authority, arrived[token].Data)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if len(lines[token]) != 1 {
			t.Errorf("%s: the milter has %d lines", f.name, len(lines[token]))
			continue
		}
		line := lines[token][0]
		ours := line["signatures"][strings.LastIndexByte(line["signatures"], ' ')+1:]
		if receiver != c.want(&f) {
			t.Errorf("%s: the receiver says %s, want %s; the milter %v", f.name, receiver, c.want(&f), line)
		}
		if f.fragile == "" && ours != receiver {
			t.Errorf("%s: the receiver says %s, the milter %v", f.name, receiver, line)
		}
		if f.fragile != "" && (ours != "pass" || !slices.Contains(strings.Split(line["findings"], ","), f.fragile)) {
			t.Errorf("%s: want %s and a signature that passes here: %v", f.name, f.fragile, line)
		}
	}
}

// installations are those that the tests can run with, and an OpenDKIM.
func installations(t *testing.T) []lab.Installation {
	t.Helper()
	found := postfixes(t)
	if _, err := exec.LookPath("opendkim"); err != nil {
		skip(t, "opendkim is not installed, which signs")
	}
	return found
}
