package milter

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// zone is a DNS made of data: "txt name", "mx name", "a name", to records; what is
// not there does not exist. A value of "!" fails.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
	asked   map[string]int
	silent  chan struct{} // nil: answers at once; else until it is closed
}

func newZone(pairs ...string) *zone {
	z := &zone{records: map[string][]string{}, asked: map[string]int{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		z.set(pairs[i], pairs[i+1])
	}
	return z
}

func (z *zone) set(question string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[question] = records
}

func (z *zone) count(question string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[question]
}

func (z *zone) hold() (release func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.silent = make(chan struct{})
	return func() { close(z.silent) }
}

func (z *zone) find(ctx context.Context, question string) (Records[string], error) {
	z.mu.Lock()
	z.asked[question]++
	silent := z.silent
	z.mu.Unlock()
	if silent != nil {
		select {
		case <-silent:
		case <-ctx.Done():
			return Records[string]{}, ctx.Err()
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	found, exists := z.records[question]
	if exists && len(found) == 1 && found[0] == "!" {
		return Records[string]{}, fmt.Errorf("%s: SERVFAIL", question)
	}
	if !exists {
		_, name, _ := strings.Cut(question, " ")
		for q := range z.records {
			if _, other, _ := strings.Cut(q, " "); other == name {
				return Records[string]{TTL: time.Hour}, nil
			}
		}
		return Records[string]{NXDomain: true, TTL: time.Hour}, nil
	}
	return Records[string]{Values: found, TTL: time.Hour}, nil
}

func (z *zone) TXT(ctx context.Context, name string) (Records[string], error) {
	return z.find(ctx, "txt "+name)
}

func (z *zone) PTR(ctx context.Context, a netip.Addr) (Records[string], error) {
	return z.find(ctx, "ptr "+a.String())
}

func (z *zone) MX(ctx context.Context, name string) (Records[Exchanger], error) {
	r, err := z.find(ctx, "mx "+name)
	m := Records[Exchanger]{NXDomain: r.NXDomain, TTL: r.TTL}
	for _, host := range r.Values {
		m.Values = append(m.Values, Exchanger{10, host})
	}
	return m, err
}

func (z *zone) Addresses(ctx context.Context, name string) (Records[netip.Addr], error) {
	r, err := z.find(ctx, "a "+name)
	m := Records[netip.Addr]{NXDomain: r.NXDomain, TTL: r.TTL}
	for _, a := range r.Values {
		m.Values = append(m.Values, netip.MustParseAddr(a))
	}
	return m, err
}

var keys = sync.OnceValue(func() (k struct {
	rsa     *rsa.PrivateKey
	ed25519 ed25519.PrivateKey
	records map[string]string
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	_, k.ed25519, _ = ed25519.GenerateKey(rand.Reader)
	public, _ := x509.MarshalPKIXPublicKey(k.rsa.Public())
	k.records = map[string]string{
		"r": "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public),
		"e": "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(k.ed25519.Public().(ed25519.PublicKey)),
	}
	return k
})

// goodZone is the DNS of somebody who does everything right.
func goodZone() *zone {
	return newZone(
		"txt r._domainkey.ex.test", keys().records["r"],
		"txt e._domainkey.ex.test", keys().records["e"],
		"txt _dmarc.ex.test", "v=DMARC1; p=reject; rua=mailto:d@ex.test",
		"mx ex.test", "mx.ex.test",
	)
}

// letter is a message without a signature, lines ending in CRLF.
func letter(from, body string) string {
	return strings.Join([]string{
		"From: " + from, "To: b@dest.test", "Subject: Hello", "Date: " + time.Now().Format(time.RFC1123Z),
		"Message-ID: <1@ex.test>", "MIME-Version: 1.0", "Content-Type: text/plain; charset=us-ascii", "", body, "",
	}, "\r\n")
}

// sign signs with the RSA key "r" or the Ed25519 key "e" of ex.test, relaxed, From
// over-signed.
func sign(t testing.TB, selector, message string) string {
	t.Helper()
	var key crypto.Signer = keys().rsa
	if selector == "e" {
		key = keys().ed25519
	}
	var out bytes.Buffer
	if err := dkim.Sign(&out, strings.NewReader(message), &dkim.SignOptions{
		Domain: "ex.test", Selector: selector, Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Reply-To", "Cc"},
	}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// signedDomainsOf is a Seen in memory.
type seenDomains struct{ sync.Map }

func (s *seenDomains) Signed(domain string) bool { _, ok := s.Load(domain); return ok }
func (s *seenDomains) NoteSigned(domain string)  { s.Store(domain, true) }

// standing is what a test says about destinations.
type standing struct {
	mu     sync.Mutex
	warmed []string
	levels map[string]string
}

func (s *standing) Warm(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warmed = append(s.warmed, domain)
}

func (s *standing) Standing(domain string) string {
	if l := s.levels[domain]; l != "" {
		return l
	}
	return "unknown"
}
