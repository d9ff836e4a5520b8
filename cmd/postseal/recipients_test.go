package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

// noPTR adds to resolvertest.DNS what policy delegation never asks.
type noPTR struct{ *resolvertest.DNS }

func (noPTR) PTR(context.Context, netip.Addr) (resolver.Answer[string], error) {
	panic("nobody asks for a PTR record at RCPT")
}

// desk is the handler in a world of its own.
type desk struct {
	*recipients
	dns      *resolvertest.DNS
	log      *told
	registry *prometheus.Registry
	ruled    policy.RecipientVerdict // for every destination
	mu       sync.Mutex
	warmed   []string // destinations that a verdict was asked for
	counted  []string
}

const exchangersTable = `
	null.test 300 MX 0 .
	nearly.test 300 MX 0 .
	nearly.test 300 MX 10 mx.nearly.test
	xn--bcher-kva.test 300 MX 0 .
	partner.test 300 MX 10 mx.partner.test
	ours.test 300 MX 0 .
	sub.ours.test 300 MX 0 .
	sending.test 300 MX 0 .
	reserved.test 300 MX 10 mx.reserved.test
	free.test 300 MX 10 mx.free.test
	other.test 300 MX 10 mx.other.test
	nodata nodata.test 300 MX
	nx nx.test 300 MX
	servfail broken.test MX
	hang silent.test MX
`

func newDesk(t testing.TB, text string) *desk {
	t.Helper()
	c := mustLoad(t, text)
	k := &desk{dns: resolvertest.New(exchangersTable), log: &told{}}
	inspector, err := milter.New(milter.Config{DNS: milterDNS{noPTR{k.dns}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inspector.Close)
	k.registry = prometheus.NewRegistry()
	k.recipients = newRecipients(recipients{
		config: func() *Config { return c }, nullMX: inspector.NullMX,
		complete: (&conf.Snapshot{Origin: "ours.test"}).Complete,
		log:      slog.New(slog.NewTextHandler(k.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		verdict: func(_, domain []byte, _ time.Time) policy.RecipientVerdict {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.warmed = append(k.warmed, string(domain))
			return k.ruled
		},
		count: func(domain string, a policy.RecipientAction) {
			k.counted = append(k.counted, fmt.Sprint(domain, " ", a))
		},
	}, k.registry)
	return k
}

// policyRequest writes a request; a login or an address that is empty is not known.
func policyRequest(state delegation.State, login, address, from, to string) string {
	return fmt.Sprintf("request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\nclient_address=%s\nsasl_username=%s\nsender=%s\nrecipient=%s\ninstance=%x\n\n",
		state, address, login, from, to, from+to)
}

func (k *desk) ask(ctx context.Context, t testing.TB, text string) string {
	t.Helper()
	r, err := delegation.ParseRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k.ServePolicy(ctx, r).String()
}

const deskConfig = `
[senders]
domains = ["ours.test", ".ours.test", "sending.test"]
outgoing = ["authenticated", "198.51.100.0/24"]
forwarders = ["lists"]
[[senders.allow]]
login = ["news"]
from = ["news@ours.test", "reserved.test"]
`

const (
	nullRecipient = "556 5.1.10 postseal: the domain null.test takes no mail (null MX, RFC 7505)"
	nullSender    = "550 5.7.27 postseal: the sender's domain null.test takes no mail (null MX, RFC 7505)"
)

func TestPOL01_Recipients(t *testing.T) {
	for _, tt := range []struct {
		name, login, client, from, to, want, asked, warmed string
	}{
		{"nothing against it", "alice", "192.0.2.7", "a@free.test", "u@partner.test", "DUNNO", "free.test partner.test", "partner.test"},
		{"null MX of the recipient", "alice", "192.0.2.7", "a@free.test", "u@null.test", nullRecipient, "*", "null.test"},
		{"null MX of the sender", "alice", "192.0.2.7", "a@null.test", "u@partner.test", nullSender, "*", "partner.test"},
		{"null MX of our own sending domain", "alice", "", "a@sending.test", "u@partner.test",
			"550 5.7.27 postseal: the sender's domain sending.test takes no mail (null MX, RFC 7505)", "*", "partner.test"},
		{"null MX in capitals, with a dot", "alice", "", "", "u@NULL.Test.", nullRecipient, "null.test", "null.test"},
		{"null MX of an IDN", "alice", "", "", "u@bücher.test",
			"556 5.1.10 postseal: the domain xn--bcher-kva.test takes no mail (null MX, RFC 7505)", "xn--bcher-kva.test", "xn--bcher-kva.test"},
		{"an @ in the local part", "alice", "", "", `"u@partner.test"@null.test`, nullRecipient, "null.test", "null.test"},
		{"no null MX beside another", "alice", "", "", "u@nearly.test", "DUNNO", "nearly.test", "nearly.test"},
		{"no MX at all", "alice", "", "", "u@nodata.test", "DUNNO", "nodata.test", "nodata.test"},
		{"no such domain", "alice", "", "", "u@nx.test", "DUNNO", "nx.test", "nx.test"},
		{"the DNS fails", "alice", "", "", "u@broken.test", "DUNNO", "broken.test", "broken.test"},
		{"the DNS fails for the sender, not for the recipient", "alice", "", "a@broken.test", "u@null.test", nullRecipient, "*", "null.test"},
		{"our own recipient may be delivered here", "alice", "", "", "u@ours.test", "DUNNO", "", "ours.test"},
		{"the null sender", "alice", "", "", "u@partner.test", "DUNNO", "partner.test", "partner.test"},

		{"reserved, another login", "alice", "192.0.2.7", "news@ours.test", "u@partner.test",
			"550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender news@ours.test", "", "partner.test"},
		{"reserved, no login", "", "198.51.100.9", "News@OURS.test", "u@partner.test",
			"550 5.7.1 postseal: sender-not-allowed: client 198.51.100.9 may not use the sender News@OURS.test", "", "partner.test"},
		{"reserved before null MX", "alice", "", "news@ours.test", "u@null.test",
			"550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender news@ours.test", "", "null.test"},
		{"reserved, a forwarder", "lists", "", "news@ours.test", "u@partner.test",
			"550 5.7.1 postseal: sender-not-allowed: login lists may not use the sender news@ours.test", "", "partner.test"},
		{"reserved, without a domain", "alice", "", "news", "u@partner.test",
			"550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender news", "", "partner.test"},
		{"reserved, by a percent hack", "alice", "", "x%reserved.test", "u@partner.test",
			"550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender x%reserved.test", "", "partner.test"},
		{"free, without a domain", "alice", "", "root", "u@partner.test", "DUNNO", "partner.test", "partner.test"},
		{"reserved for this login", "NEWS", "", "x@reserved.test", "u@[192.0.2.1]", "DUNNO", "reserved.test", ""},
		{"foreign", "alice", "", "x@other.test", "u@partner.test", "DUNNO", "other.test partner.test", "partner.test"},
		{"foreign, a forwarder", "lists", "", "x@other.test", "u@partner.test", "DUNNO", "other.test partner.test", "partner.test"},

		{"address literals", "alice", "", "a@[192.0.2.9]", "u@[IPv6:2001:db8::1]", "DUNNO", "", ""},
		{"addresses without brackets", "alice", "", "a@192.0.2.9", "u@192.0.2.1", "DUNNO", "", ""},
		{"a host in brackets", "alice", "", "", "u@[null.test]", "DUNNO", "", ""},
		{"a port", "alice", "", "", "u@null.test:26", "DUNNO", "", ""},
		{"no domains", "alice", "", "root", "postmaster", "DUNNO", "", ""},
		{"a source route", "alice", "", "", "@relay.test,@other.test:u@null.test", nullRecipient, "null.test", "null.test"},
		{"a percent hack", "alice", "", "", "u%null.test", "DUNNO", "", ""},
		{"a percent hack through us", "alice", "", "", "u%null.test@ours.test", "DUNNO", "", "ours.test"},
		{"a UUCP path", "alice", "", "", "null.test!u", "DUNNO", "", ""},
		{"a quoted local part alone", "alice", "", "", `"u@null.test"`, "DUNNO", "", ""},
		{"empty domains", "alice", "", "a@", "u@.", "DUNNO", "", ""},
		{"no domain can be that", "alice", "", "a@" + strings.Repeat("a", 64) + ".test", "u@" + strings.Repeat("a.", 900) + "test", "DUNNO", "", ""},
		{"a blank in the domain", "alice", "", "", "u@null.test x", "DUNNO", "", ""},

		{"a stranger", "", "203.0.113.1", "news@ours.test", "u@null.test", "DUNNO", "", ""},
		{"an unknown address", "", "unknown", "a@null.test", "u@null.test", "DUNNO", "", ""},
		{"loopback is not sendmail(1)", "", "127.0.0.1", "a@null.test", "u@null.test", "DUNNO", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newDesk(t, deskConfig)
			got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, tt.login, tt.client, tt.from, tt.to))
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if warmed := strings.Join(k.warmed, " "); warmed != tt.warmed {
				t.Errorf("warmed %q, want %q", warmed, tt.warmed)
			}
			asked := k.dns.Asked()
			slices.Sort(asked)
			if text := strings.ReplaceAll(strings.Join(asked, " "), "MX ", ""); text != tt.asked && tt.asked != "*" {
				t.Errorf("asked %q, want %q", text, tt.asked)
			}
			if logged := strings.Contains(k.log.String(), `msg="recipient refused"`); logged != (tt.want != "DUNNO") {
				t.Errorf("log: %s", k.log)
			}
		})
	}
}

// Without domains every domain is ours, which says nothing about where its mail goes.
func TestPOL01_NullMXWithoutDomains(t *testing.T) {
	k := newDesk(t, "")
	if got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "", "u@null.test")); got != nullRecipient {
		t.Error(got)
	}
}

// TestPOL03_OnlyAtRCPT: no stage but RCPT asks anybody or refuses.
func TestPOL03_OnlyAtRCPT(t *testing.T) {
	for _, state := range []delegation.State{delegation.Connect, delegation.EHLO, delegation.HELO, delegation.Mail, delegation.Data,
		delegation.EndOfMessage, delegation.VRFY, delegation.ETRN, "XYZ"} {
		k := newDesk(t, deskConfig)
		got := k.ask(t.Context(), t, policyRequest(state, "alice", "", "news@ours.test", "u@null.test"))
		if asked := k.dns.Asked(); got != "DUNNO" || len(asked)+len(k.warmed) > 0 {
			t.Errorf("%s: %s, asked %q, warmed %q", state, got, asked, k.warmed)
		}
	}
}

// TestPOL03_Monitor: what would have been answered is told, and counted as such.
func TestPOL03_Monitor(t *testing.T) {
	k := newDesk(t, "mode = 'monitor'\n"+deskConfig)
	if got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "news@ours.test", "u@partner.test")); got != "DUNNO" {
		t.Error(got)
	}
	if n := counted(t, k.registry, "would-reject", "sender-not-allowed"); n != 1 {
		t.Errorf("counted %v", n)
	}
	if log := k.log.String(); !strings.Contains(log, `msg="recipient would be refused" reason=sender-not-allowed answer="550 5.7.1 postseal: `) {
		t.Errorf("log: %s", log)
	}
	if len(k.warmed) != 1 {
		t.Errorf("warmed %q", k.warmed)
	}
}

// TestPOL04_SilentDNS: the wait ends with the deadline, and a refusal that is known
// does not wait for a question that nobody answers.
func TestPOL04_SilentDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, deskConfig)
		for _, tt := range []struct {
			from, to, want string
			took           time.Duration
		}{
			{"", "u@silent.test", "DUNNO", 2 * time.Second},
			{"a@silent.test", "u@partner.test", "DUNNO", 2 * time.Second},
			{"a@silent.test", "u@null.test", nullRecipient, 0},
			{"a@null.test", "u@silent.test", nullSender, 0},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			began := time.Now()
			got := k.ask(ctx, t, policyRequest(delegation.Rcpt, "alice", "", tt.from, tt.to))
			if took := time.Since(began); got != tt.want || took != tt.took {
				t.Errorf("%s to %s: %s after %v", tt.from, tt.to, got, took)
			}
			cancel()
		}
	})
}

// TestPOL01_Remembered: a second recipient of the domain asks nobody, until the
// lifetime of the answer is over.
func TestPOL01_Remembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, deskConfig)
		for _, want := range []int{1, 0} {
			_ = k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "", fmt.Sprintf("u%d@null.test", want)))
			if asked := k.dns.Asked(); len(asked) != want {
				t.Errorf("asked %q", asked)
			}
		}
		time.Sleep(300 * time.Second)
		k.dns.Set("null.test 300 MX 10 mx.null.test")
		if got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "", "u@null.test")); got != "DUNNO" {
			t.Error(got)
		}
	})
}

// FuzzMailDomain: whatever the address, its domain can be asked for and is its own.
func FuzzMailDomain(f *testing.F) {
	for _, s := range []string{"u@ex.test", "u@[192.0.2.1]", "@", "u@bücher.test.", "a@b@c", "u@ex.test:25", "u@１.2.3.4"} {
		f.Add(s)
	}
	domains := newMailDomains()
	f.Fuzz(func(t *testing.T, address string) {
		d := domains.of([]byte(address), time.Now())
		if d == nil {
			return
		}
		k, err := policy.ParseKey(d.name)
		if err != nil || k.Name != d.name || k.Literal || k.HasPort || k.Brackets || string(d.bytes) != d.name {
			t.Errorf("%q: %q is %+v, %v", address, d.name, k, err)
		}
		if again := domains.of([]byte("u@"+d.name), time.Now()); again == nil || again.name != d.name {
			t.Errorf("%q: %q became %v", address, d.name, again)
		}
		if domains.of([]byte(address), time.Now()) != d {
			t.Errorf("%q is not remembered", address)
		}
	})
}
