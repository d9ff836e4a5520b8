package milter

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter/align"
)

// pass sends a message by an inspector as a session does.
func pass(i *Inspector, e Envelope, message string, recipients ...string) *Report {
	x := i.Begin(e)
	if x == nil {
		return nil
	}
	for _, r := range recipients {
		address, mailer, _ := strings.Cut(r, " ")
		x.Recipient(address, mailer)
	}
	header, body, _ := strings.Cut(message, "\r\n\r\n")
	var fields []string
	for line := range strings.Lines(header + "\r\n") {
		if line[0] == ' ' || line[0] == '\t' {
			fields[len(fields)-1] += line
		} else {
			fields = append(fields, line)
		}
	}
	for _, f := range fields {
		x.Field([]byte(f))
	}
	x.EndOfHeader()
	x.Write([]byte(body))
	return x.End(context.Background())
}

func anna() Envelope {
	return Envelope{Client: sender.Client{Login: "anna"}, MailFrom: "anna@ex.test"}
}

func (r *Report) names() string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, f.Name+" "+f.Class+" "+f.Action.String())
	}
	return strings.Join(list, ", ")
}

func (r *Report) has(name string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Name == name })
}

// TestActions: the strongest action wins, a named one acts whatever the class.
func TestActions(t *testing.T) {
	unsigned := letter("anna@ex.test", "x")
	long := sign(t, "r", letter("anna@ex.test", strings.Repeat("y", 1200)))
	for name, c := range map[string]struct {
		settings Settings
		message  string
		want     Action
	}{
		"monitor":              {Settings{}, unsigned, Monitor},
		"for class fail":       {Settings{Action: Hold}, unsigned, Hold},
		"not for weak":         {Settings{Action: Reject}, long, Monitor},
		"named":                {Settings{Action: Reject, Actions: map[string]Action{align.Unsigned: Tempfail}}, unsigned, Tempfail},
		"named, to monitor":    {Settings{Action: Reject, Actions: map[string]Action{align.Unsigned: Monitor}}, unsigned, Monitor},
		"named, class weak":    {Settings{Actions: map[string]Action{align.FragileLongLine: Hold}}, long, Hold},
		"the strongest":        {Settings{Actions: map[string]Action{align.Unsigned: Hold, align.FragileLongLine: Tempfail}}, letter("anna@ex.test", strings.Repeat("y", 1200)), Tempfail},
		"all only monitored":   {Settings{Action: Reject, Monitor: true}, unsigned, Monitor},
		"trouble is never one": {Settings{Actions: map[string]Action{align.DNSTrouble: Reject}}, sign(t, "lost", unsigned), Monitor},
	} {
		z := goodZone()
		z.set("txt lost._domainkey.ex.test", "!")
		i := newInspector(t, Config{DNS: z, Settings: c.settings})
		if r := pass(i, anna(), c.message); r.Action != c.want {
			t.Errorf("%s: %v, want %v: %s", name, r.Action, c.want, r.names())
		}
	}
}

// TestExempt: what is counted and never acted on, or not looked at.
func TestMLT12_MLT13_DM015_Exempt(t *testing.T) {
	lists, _ := sender.ParseForwarder("lists")
	domain, _ := sender.ParseDomain("ex.test")
	policy, err := sender.New(sender.Config{Domains: []sender.Domain{domain}, Forwarders: []sender.Forwarder{lists}})
	if err != nil {
		t.Fatal(err)
	}
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject, Senders: policy}})
	unsigned := letter("anna@ex.test", "x")

	bounce := anna()
	bounce.MailFrom = ""
	if r := pass(i, bounce, unsigned); r.Action != Monitor || r.Verdict != "fail" || !r.has(align.Unsigned) {
		t.Errorf("the null sender: %v %s", r.Action, r.names())
	}
	if r := pass(i, anna(), unsigned, "root@ex.test local", "anna@ex.test lmtp"); r.Action != Monitor || len(r.Findings) > 0 {
		t.Errorf("only local recipients: %v %s", r.Action, r.names())
	}
	if r := pass(i, anna(), unsigned, "root@ex.test local", "b@dest.test smtp"); r.Action != Reject {
		t.Errorf("one recipient elsewhere: %v %s", r.Action, r.names())
	}
	if r := pass(i, anna(), unsigned, "root@ex.test"); r.Action != Reject {
		t.Errorf("a recipient of whom nothing is known: %v %s", r.Action, r.names())
	}
	stranger := anna()
	stranger.Client = sender.Client{Addr: netip.MustParseAddr("192.0.2.1")}
	if r := pass(i, stranger, unsigned); r != nil {
		t.Errorf("a stranger's mail: %s", r.names())
	}
	foreign := sign(t, "r", letter("someone@foreign.test", "x"))
	if r := pass(i, anna(), foreign); !r.has(align.FromForeign) {
		t.Errorf("foreign From: %s", r.names())
	}
	list := anna()
	list.Client.Login = "lists"
	named := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Senders: policy, Actions: map[string]Action{align.Unaligned: Reject, align.FromForeign: Reject}}})
	if r := pass(named, list, foreign); r.Action != Monitor || !r.has(align.Unaligned) {
		t.Errorf("a forwarder, with actions by name: %v %s", r.Action, r.names())
	}
	if r := pass(i, list, foreign); r.has(align.FromForeign) || slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Name == align.Unaligned && f.Class == "fail" }) {
		t.Errorf("foreign From of a forwarder: %s", r.names())
	}
}

// TestUnsignedActsOnlyWhereASignatureWasSeen: a wrong order of milters must not
// refuse anything. The finding and its class stay.
func TestMLT01_UnsignedActsOnlyWhereASignatureWasSeen(t *testing.T) {
	seen := &seenDomains{}
	i := newInspector(t, Config{DNS: goodZone(), Seen: seen, Settings: Settings{Action: Reject}})
	unsigned := letter("anna@ex.test", "x")
	if r := pass(i, anna(), unsigned); r.Action != Monitor || r.Verdict != "fail" || !strings.Contains(r.Findings[0].Detail, "signer") {
		t.Errorf("before: %v %s %+v", r.Action, r.names(), r.Findings)
	}
	// A broken signature, or one of others, teaches nothing.
	pass(i, anna(), sign(t, "r", letter("anna@ex.test", "x"))+"changed\r\n")
	pass(i, anna(), sign(t, "r", letter("anna@other.test", "x")))
	if seen.Signed("ex.test") || seen.Signed("other.test") {
		t.Error("noted without a passing aligned signature")
	}
	pass(i, anna(), sign(t, "r", letter("anna@ex.test", "x")))
	if r := pass(i, anna(), unsigned); r.Action != Reject {
		t.Errorf("after: %v %s", r.Action, r.names())
	}
	if seen.Signed("foreign.test") {
		t.Error("noted for others")
	}
	file := anna()
	file.File = true
	i.seen = &seenDomains{}
	if r := pass(i, file, unsigned); r.Action != Reject {
		t.Errorf("a file shows the configured action, not %v", r.Action)
	}
}

// TestK031_K053_DNSTrouble: a DNS that fails, or is silent, refuses no mail.
func TestK031_K053_DNSTroubleRefusesNothing(t *testing.T) {
	signed := sign(t, "r", letter("anna@ex.test", "x"))
	everything := map[string]Action{}
	for _, name := range Actionable() {
		everything[name] = Reject
	}
	for _, actions := range []map[string]Action{nil, everything} {
		z := goodZone()
		z.set("txt ex.test", "v=spf1 -all")
		for q := range z.records {
			z.set(q, "!")
		}
		i := newInspector(t, Config{DNS: z, Settings: Settings{Action: Reject, Actions: actions, Egress: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}})
		r := pass(i, anna(), signed)
		if r.Action != Monitor || r.Verdict == "fail" || r.Signatures[0].Result != "temperror" {
			t.Errorf("%v %s %+v", r.Action, r.names(), r.Signatures)
		}
	}
	z := goodZone()
	release := z.hold()
	defer release()
	i := newInspector(t, Config{DNS: z, Settings: Settings{Action: Reject}})
	x := i.Begin(anna())
	x.Field([]byte("From: anna@ex.test\r\n"))
	x.EndOfHeader()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if r := x.End(ctx); r.Action == Reject && !r.has(align.Unsigned) {
		t.Errorf("%v %s", r.Action, r.names())
	}
}

// TestBreaker: a flood of one finding is only monitored, for that domain.
func TestBreaker(t *testing.T) {
	var log logBuffer
	z := goodZone()
	z.set("txt gone._domainkey.ex.test")
	z.set("mx other.test", "mx.other.test")
	settings := Settings{Action: Reject, Breaker: Breaker{Window: 10, Share: 0.5}}
	i := newInspector(t, Config{DNS: z, Logger: log.logger(), Settings: settings})
	good, bad := sign(t, "r", letter("anna@ex.test", "x")), sign(t, "gone", letter("anna@ex.test", "x"))
	refused := 0
	for n := range 30 {
		message := bad
		if n%10 == 9 {
			message = good
		}
		if pass(i, anna(), message).Action == Reject {
			refused++
		}
	}
	if refused != 9 {
		t.Errorf("%d of 27 broken messages were refused, want those before the window was full", refused)
	}
	if !strings.Contains(log.String(), "milter breaker") || !strings.Contains(log.String(), "finding=key-missing from=ex.test refused=9 of=10") {
		t.Errorf("not told: %s", log.String())
	}
	// Another finding of the domain, and what never trips, act on.
	if r := pass(i, anna(), letter("anna@ex.test", "x")); r.Action != Reject {
		t.Errorf("unsigned: %v", r.Action)
	}
	for range 30 {
		if r := pass(i, anna(), letter("anna@ex.test", "x")); r.Action != Reject {
			t.Fatal("unsigned has tripped the breaker")
		}
	}
	i.Configure(settings)
	if r := pass(i, anna(), bad); r.Action != Reject {
		t.Errorf("after a reload: %v", r.Action)
	}
	if !strings.Contains(log.String(), "breaker reset") {
		t.Error("the reset was not told")
	}
}

// TestDM012_SPF: the first message is judged without it; a file waits.
func TestDM012_BLK025_SPF(t *testing.T) {
	z := goodZone()
	z.set("txt ex.test", "v=spf1 include:spf.host.test mx ptr -all")
	z.set("txt spf.host.test", "v=spf1 ip4:192.0.2.1 -all")
	z.set("a mx.ex.test", "192.0.2.2")
	z.set("ptr 192.0.2.3", "three.ex.test")
	z.set("a three.ex.test", "192.0.2.3")
	signed := sign(t, "r", letter("anna@ex.test", "x"))
	for address, wrong := range map[string]bool{"192.0.2.1": false, "192.0.2.2": false, "192.0.2.3": false, "192.0.2.4": true} {
		i := newInspector(t, Config{DNS: z, Settings: Settings{Egress: []netip.Addr{netip.MustParseAddr(address)}}})
		file := anna()
		file.File = true
		if r := pass(i, file, signed); r.has(align.SPFEgress) != wrong {
			t.Errorf("%s: %s", address, r.names())
		}
		if r := pass(i, anna(), signed); r.has(align.SPFEgress) != wrong {
			t.Errorf("%s, from memory: %s", address, r.names())
		}
	}
	z.set("txt ex.test", "v=spf1 +all")
	file := anna()
	file.File = true
	if r := pass(newInspector(t, Config{DNS: z, Settings: Settings{Egress: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}}), file, signed); !r.has(align.SPFEgress) {
		t.Errorf("BLK-025, +all: %s", r.names())
	}
	asked := z.count("txt ex.test")
	release := z.hold()
	i := newInspector(t, Config{DNS: z, Settings: Settings{Egress: []netip.Addr{netip.MustParseAddr("192.0.2.4")}}})
	x := i.Begin(anna())
	for line := range strings.Lines("From: anna@ex.test\r\n") {
		x.Field([]byte(line))
	}
	x.EndOfHeader()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := x.End(ctx); r.has(align.SPFEgress) {
		t.Error("SPF was waited for")
	}
	release()
	if n := z.count("txt ex.test"); n < asked {
		t.Error(n)
	}
}

// TestLimits: over a limit there is a finding, and the message goes on.
func TestK013_MLT05_Limits(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject}})
	x := i.Begin(anna())
	for line := range strings.Lines("From: anna@ex.test\r\nDKIM-Signature: v=1; a=rsa-sha256; d=ex.test; s=r; h=from; bh=x; b=x\r\n") {
		x.Field([]byte(line))
	}
	for range maxHeader / 6 {
		x.Field([]byte("X: y\r\n"))
	}
	x.EndOfHeader()
	r := x.End(context.Background())
	if !r.has(align.SizeLimit) || r.Action != Monitor {
		t.Errorf("%v %s", r.Action, r.names())
	}
}

// TestReadFile: what a file may look like.
func TestReadFile(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone()})
	signed := sign(t, "r", letter("anna@ex.test", "Hello\r\nworld"))
	for name, text := range map[string]string{
		"CRLF": signed, "LF": strings.ReplaceAll(signed, "\r\n", "\n"),
		"mbox":                    "From anna Thu Jan  1 00:00:00 1970\n" + strings.ReplaceAll(signed, "\r\n", "\n"),
		"no end of the last line": strings.TrimSuffix(signed, "\r\n"),
	} {
		r, err := i.ReadFile(context.Background(), Envelope{FromAuthor: true}, strings.NewReader(text))
		if err != nil || r.Verdict != "pass" || len(r.Signatures) != 1 || !r.Signatures[0].Aligned || r.From.Address != "anna@ex.test" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := i.ReadFile(context.Background(), Envelope{}, strings.NewReader("")); err == nil {
		t.Error("an empty file has a verdict")
	}
	for _, text := range []string{"no header", "From: a@ex.test", "From: a@ex.test\n", "\n\nbody", strings.Repeat("x", 3<<20), "From: a@ex.test\nnot a field\nbody\n", "From x\n"} {
		if r, err := i.ReadFile(context.Background(), Envelope{FromAuthor: true}, strings.NewReader(text)); err == nil && r.Verdict != "fail" {
			t.Errorf("%.30q: %s", text, r.Verdict)
		}
	}
}

// TestBreakerMemory: a flood of From domains neither closes an open circuit nor
// is more than a bounded number remembered.
func TestBreakerMemory(t *testing.T) {
	b := breaker{window: 2, share: 0.5}
	bit := findingBit(align.KeyMissing)
	b.judge("ex.test", bit)
	if may, tripped := b.judge("ex.test", bit); may != 0 || len(tripped) != 1 {
		t.Fatalf("%b %v", may, tripped)
	}
	for n := range maxBreakerDomains + 100 {
		b.judge(fmt.Sprint(n, ".test"), 0)
	}
	if may, _ := b.judge("ex.test", bit); may != 0 || b.openCircuits() != 1 || len(b.domains) > maxBreakerDomains {
		t.Errorf("%b, %d open of %d", may, b.openCircuits(), len(b.domains))
	}
}

// TestPaddedHeader: whoever pads a header does not get past the rules about senders.
func TestMLT05_PaddedHeader(t *testing.T) {
	domain, _ := sender.ParseDomain("ex.test")
	policy, err := sender.New(sender.Config{Domains: []sender.Domain{domain}})
	if err != nil {
		t.Fatal(err)
	}
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Action: Reject, Senders: policy}})
	for name, padding := range map[string]string{"many fields": strings.Repeat("X: a\r\n", 3000), "over the limit": strings.Repeat("X: "+strings.Repeat("a", 900)+"\r\n", 1300)} {
		if r := pass(i, anna(), padding+letter("anna@foreign.test", "x")); r.Action != Reject || !r.has(align.FromForeign) || !r.has(align.Unsigned) {
			t.Errorf("%s: %v %s", name, r.Action, r.names())
		}
		two := padding + "From: (" + strings.Repeat("a", 40_000) + ") <anna@ex.test>\r\nFrom: (" + strings.Repeat("b", 40_000) + ") <z@evil.test>\r\n\r\nx"
		if r := pass(i, anna(), two); r.Action != Reject || !r.has(align.FromMultiple) {
			t.Errorf("%s, two long Froms: %v %s", name, r.Action, r.names())
		}
		huge := padding + "From: (" + strings.Repeat("a", 2<<20) + ") <anna@ex.test>\r\n\r\nx"
		if r := pass(i, anna(), huge); r.Action != Reject || !r.has(align.FromInvalid) {
			t.Errorf("%s, a huge From: %v %s", name, r.Action, r.names())
		}
	}
}

// TestManySignatures: the author's own is verified, however many stand above it.
func TestK013_ManySignatures(t *testing.T) {
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{}})
	foreign := "DKIM-Signature: v=1; a=rsa-sha256; d=esp%d.test; s=r; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
	var top strings.Builder
	for n := range 150 {
		fmt.Fprintf(&top, foreign, n)
	}
	r := pass(i, anna(), top.String()+sign(t, "r", letter("anna@ex.test", "x")))
	if r.Verdict == "fail" || len(r.Signatures) != 10 || !r.has(align.SignatureFragile) {
		t.Errorf("%s %s", r.Verdict, r.names())
	}
}

// TestOnlyTheQuestionsThatMatter: one domain with a record of its own needs no walk.
func TestDM023_OnlyTheQuestionsThatMatter(t *testing.T) {
	z := goodZone()
	i := newInspector(t, Config{DNS: z, Settings: Settings{}})
	pass(i, anna(), sign(t, "r", letter("anna@ex.test", "x")))
	if n := z.count("txt _dmarc.test"); n != 0 {
		t.Errorf("the top level domain was asked %d times", n)
	}
	pass(i, anna(), sign(t, "r", letter("anna@news.ex.test", "x")))
	if z.count("txt _dmarc.test") != 1 || z.count("txt _dmarc.ex.test") != 1 || z.count("txt r._domainkey.ex.test") != 1 {
		t.Errorf("asked %v", z.asked)
	}
}

// TestReservedHowever: a reserved address that some reader could take for the
// author is reserved, however it is written.
func TestDM004_DM007_ReservedHowever(t *testing.T) {
	boss, _ := sender.ParseLogin("boss")
	ceo, _ := sender.ParseFrom("ceo@ex.test")
	policy, err := sender.New(sender.Config{Allow: []sender.Allow{{Logins: []sender.Login{boss}, From: []sender.From{ceo}}}})
	if err != nil {
		t.Fatal(err)
	}
	i := newInspector(t, Config{DNS: goodZone(), Settings: Settings{Senders: policy}})
	for from, denied := range map[string]bool{
		"ceo@ex.test": true, "CEO <ceo@ex.test>": true, "ceo@ex.test <anna@ex.test>": true, "<anna@ex.test,ceo@ex.test>": true, "\x0bceo@ex.test": true,
		"\u200bceo@ex.test": true, "ceo@ex.test, foo <anna@ex.test> y": true, "anna@ex.test, ceo@ex.test": true,
		"anna@ex.test": false, "anna@ex.test <anna@ex.test>": false, `"ceo@ex.test" <anna@ex.test>`: false, "(ceo@ex.test) <anna@ex.test>": false, "Doe, Anna <anna@ex.test>": false,
	} {
		if r := pass(i, anna(), letter(from, "x")); r.has(align.SenderNotAllowed) != denied {
			t.Errorf("From: %q: %s", from, r.names())
		}
	}
}
