package conf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tablesOf is an askFunc: each table is named by its text and holds "KEY VALUE" pairs.
// It refuses tables that it does not know.
type tablesOf map[string]string

func (t tablesOf) ask(_ context.Context, tables, keys []string) (map[string]string, error) {
	found := map[string]string{}
	for _, key := range keys {
		for _, name := range tables {
			content, known := t[name]
			if !known {
				return nil, fmt.Errorf("%w: open %s: no such table", ErrUnreadable, name)
			}
			for line := range strings.Lines(content) {
				if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key && found[key] == "" {
					found[key] = v
				}
			}
		}
	}
	return found, nil
}

// site is a Postfix whose services smtp, relay and enforced ask us, slow does not.
func site(pairs ...string) *Snapshot {
	s := snapshot("3.11.7", params(), params(), params(), params("smtp_tls_policy_maps", "static:may"))
	for i, name := range []string{"smtp", "relay", "enforced", "slow"} {
		s.Services[i].Name = name
	}
	s.Main = map[string]string{"default_transport": "smtp", "relay_transport": "relay", "local_transport": "local:mx.site.example",
		"virtual_transport": "virtual", "mydestination": "mx.site.example, localhost", "parent_domain_matches_subdomains": "mynetworks,relay_domains"}
	for i := 0; i < len(pairs); i += 2 {
		s.Main[pairs[i]] = pairs[i+1]
	}
	return s
}

// PFX-21: a rule for a recipient's domain binds only where smtp(8) asks for that domain.
func TestPFX21_Route(t *testing.T) {
	const transport = "hash:/t"
	maps := func(pairs ...string) []string { return append([]string{"transport_maps", transport}, pairs...) }
	for _, c := range []struct {
		name, table string
		main        []string
		domain      string
		want        string // SERVICE NEXTHOP | OBSTACLE
	}{
		{"nothing set", "", nil, "partner.example", "smtp partner.example |"},
		{"relayhost", "", []string{"relayhost", "[smart.example]:587"}, "partner.example", "smtp [smart.example]:587 | relayhost = [smart.example]:587"},
		{"relayhost, relay domain", "", []string{"relayhost", "[smart.example]", "relay_domains", "partner.example"}, "sub.partner.example",
			"relay [smart.example] | relayhost = [smart.example]"},
		{"relayhost is the domain", "", []string{"relayhost", "Partner.example"}, "partner.example", "smtp Partner.example |"},
		{"default_transport", "", []string{"default_transport", "smtp:[smart.example]", "relayhost", "[other.example]"}, "partner.example",
			"smtp [smart.example] | default_transport = smtp:[smart.example]"},
		{"default_transport, another service", "", []string{"default_transport", "relay:"}, "partner.example", "relay partner.example |"},
		{"default_transport is no smtp(8)", "", []string{"default_transport", "uucp"}, "partner.example", "uucp partner.example | default_transport = uucp (uucp of master.cf is not smtp(8))"},
		{"catch-all", "* smtp:[smart.example]", maps(), "partner.example", "smtp [smart.example] | transport_maps: * → smtp:[smart.example]"},
		{"catch-all without next hop ends relayhost", "* smtp:", maps("relayhost", "[smart.example]"), "partner.example", "smtp partner.example |"},
		{"domain", "partner.example smtp:[vpn.example]:587", maps(), "partner.example",
			"smtp [vpn.example]:587 | transport_maps: partner.example → smtp:[vpn.example]:587"},
		{"domain is not its subdomains", "partner.example smtp:[vpn.example]", maps(), "sub.partner.example", "smtp sub.partner.example |"},
		{"parent", ".example smtp:[vpn.example]", maps(), "sub.partner.example", "smtp [vpn.example] | transport_maps: .example → smtp:[vpn.example]"},
		{"nearest parent", ".example smtp:[a]\n.partner.example smtp:[b]", maps(), "sub.partner.example", "smtp [b] | transport_maps: .partner.example → smtp:[b]"},
		{"parent, without dots", "example smtp:[a]", maps("parent_domain_matches_subdomains", "transport_maps"), "sub.partner.example",
			"smtp [a] | transport_maps: example → smtp:[a]"},
		{"domain before catch-all", "* smtp:[a]\npartner.example smtp:", maps("relayhost", "[b]"), "partner.example", "smtp partner.example |"},
		{"nothing to change", "partner.example :\n* smtp:[a]", maps("relayhost", "[b]"), "partner.example", "smtp [b] | relayhost = [b]"},
		{"next hop only", "partner.example :[vpn]", maps("relay_domains", "partner.example"), "partner.example", "relay [vpn] | transport_maps: partner.example → :[vpn]"},
		{"service only", "partner.example enforced:", maps("relayhost", "[b]"), "partner.example", "enforced partner.example |"},
		{"service without a colon", "partner.example enforced", maps(), "partner.example", "enforced partner.example |"},
		{"service that does not ask", "partner.example slow:", maps(), "partner.example",
			"slow partner.example | transport_maps: partner.example → slow: (slow of master.cf does not ask postseal: its smtp_tls_policy_maps = static:may)"},
		{"port", "partner.example smtp:partner.example:587", maps(), "partner.example",
			"smtp partner.example:587 | transport_maps: partner.example → smtp:partner.example:587"},
		{"any address", "recipient@partner.example smtp:[a]\npartner.example smtp:[b]", maps(), "partner.example", "smtp [a] | transport_maps: partner.example → smtp:[a]"},
		{"here", "", nil, "mx.site.example", "local mx.site.example | mydestination names it, local_transport = local:mx.site.example (local of master.cf is not smtp(8))"},
		{"here, but elsewhere", "mx.site.example smtp:[inside]", maps(), "mx.site.example", "smtp [inside] | transport_maps: mx.site.example → smtp:[inside]"},
		{"alias domain", "a.example smtp:[x]", maps("virtual_alias_domains", "a.example"), "a.example", "error  | virtual_alias_domains names it (error of master.cf is not smtp(8))"},
		{"mailbox domain", "", []string{"virtual_mailbox_domains", "m.example", "relayhost", "[x]"}, "m.example",
			"virtual m.example | virtual_mailbox_domains names it, virtual_transport = virtual (virtual of master.cf is not smtp(8))"},
		{"mailbox domain, not its subdomains", "", []string{"virtual_mailbox_domains", "m.example"}, "sub.m.example", "smtp sub.m.example |"},
		{"relay domain", "", []string{"relay_domains", "!no.r.example, r.example", "relay_transport", "relay:[inside]:24"}, "a.r.example",
			"relay [inside]:24 | relay_domains names it, relay_transport = relay:[inside]:24"},
		{"no relay domain", "", []string{"relay_domains", "!no.r.example, r.example", "relay_transport", "relay:[inside]:24"}, "no.r.example", "smtp no.r.example |"},
		{"relay domain in a table", "r.example x", []string{"relay_domains", transport, "relay_transport", "relay:[inside]"}, "a.r.example",
			"relay [inside] | relay_domains names it, relay_transport = relay:[inside]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			routes, troubles, err := site(c.main...).routes(t.Context(), tablesOf{transport: c.table}.ask, []string{"other.example", c.domain})
			if err != nil || len(troubles) > 0 || len(routes) != 2 {
				t.Fatal(routes, troubles, err)
			}
			r := routes[c.domain]
			if got := strings.TrimSpace(fmt.Sprintf("%s %s | %s", r.Service, r.Nexthop, r.Obstacle)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Tables of patterns are asked for whole addresses and for "*", never for a domain.
func TestPFX21_RoutePatterns(t *testing.T) {
	for _, kind := range []string{"regexp:/p", "pcre:/p", "socketmap:inet:127.0.0.1:1:x", "pipemap:{texthash:/a,pcre:/b}"} {
		s := site("transport_maps", kind+" hash:/t")
		for content, want := range map[string]string{
			"partner.example smtp:[a]":           "[h]",
			"recipient@partner.example smtp:[a]": "[a]",
			"* smtp:[a]":                         "[h]",
		} {
			routes, _, err := s.routes(t.Context(), tablesOf{kind: content, "hash:/t": "partner.example smtp:[h]"}.ask, []string{"partner.example"})
			if err != nil || routes["partner.example"].Nexthop != want {
				t.Errorf("%s, %s: %+v, %v", kind, content, routes, err)
			}
		}
	}
	for text, want := range map[string]bool{"hash:/t": true, "proxy:mysql:/m.cf": true, "static:x": true, "inline:{a=b}": true,
		"proxy:pcre:/p": false, "unionmap:{hash:/a, lmdb:/b}": true, "fail:x": false} {
		if fixed(text) != want {
			t.Errorf("%s: %t", text, !want)
		}
	}
}

// What smtp(8) looks up is not always one name.
func TestPFX21_RouteKeys(t *testing.T) {
	for entry, want := range map[string][]string{
		"smtp:[a]:587":        {"[a]:587"},
		"smtp:a.test, [b]:25": {"a.test", "[b]:25"}, // Postfix 3.5
		"slow:[a]":            nil,
		"error:no mail":       nil,
	} {
		routes, _, err := site("transport_maps", "hash:/t").routes(t.Context(), tablesOf{"hash:/t": "* " + entry}.ask, []string{"partner.example"})
		if got := routes["partner.example"].Keys(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", entry, got, err)
		}
	}
}

// A table of routes that cannot be read leaves the route unknown; a list of domains
// that cannot be read is told, and names nobody.
func TestRouteUnreadable(t *testing.T) {
	s := site("transport_maps", "hash:/none")
	if routes, _, err := s.routes(t.Context(), tablesOf{}.ask, []string{"a.example"}); !errors.Is(err, ErrUnreadable) ||
		!strings.Contains(err.Error(), "transport_maps") || !strings.Contains(err.Error(), "hash:/none") || routes != nil {
		t.Error(routes, err)
	}
	s = site("virtual_mailbox_domains", "a.example proxy:mysql:/m.cf", "mydestination", "/nonexistent/list, b.example")
	routes, troubles, err := s.routes(t.Context(), tablesOf{}.ask, []string{"a.example", "b.example"})
	if err != nil || len(troubles) != 2 || !strings.Contains(troubles[0], "mydestination cannot be read") || !strings.Contains(troubles[1], "mysql:/m.cf") {
		t.Error(troubles, err)
	}
	if routes["a.example"].Obstacle != "" || routes["b.example"].Service != "local" {
		t.Errorf("%+v", routes)
	}
}

// A list can name a file of names.
func TestDomainListFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inner := write("inner", "c.example\n")
	loop := filepath.Join(dir, "loop")
	write("loop", loop)
	outer := write("outer", "# comment b.example\nA.example,\n !"+inner+"\n"+loop)
	s := site("mydestination", outer+" c.example d.example")
	l, err := s.domainList("mydestination")
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.match(t.Context(), tablesOf{}.ask, []string{"a.example", "b.example", "c.example", "d.example"})
	if err != nil || !in["a.example"] || in["b.example"] || in["c.example"] || !in["d.example"] {
		t.Error(in, err)
	}
	if files := s.routingFiles(); !slices.Contains(files, outer) {
		t.Errorf("%q are watched", files)
	}
}

func TestRoutingFiles(t *testing.T) {
	s := site("transport_maps", "proxy:hash:/etc/transport, pcre:/etc/p", "relay_domains", "!lmdb:/etc/relay r.example", "virtual_alias_domains", "mysql:/etc/m.cf")
	files := s.routingFiles()
	for _, want := range []string{"/etc/transport.db", "/etc/p", "/etc/relay.lmdb", "/etc/m.cf"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not watched: %q", want, files)
		}
	}
}

// Our own map of senders leaves the recipient's rules in force; others may not.
func TestPFX21_BySender(t *testing.T) {
	const dflt = "sender_dependent_default_transport_maps"
	for _, c := range []struct {
		param, value string
		told         bool
	}{
		{dflt, "", false},
		{dflt, "socketmap:inet:127.0.0.1:8463:postseal-sender", false},
		{dflt, "proxy:socketmap:unix:/var/spool/postfix/postseal/socketmap:postseal-sender", false},
		{dflt, "socketmap:unix:postseal/socketmap:postseal-sender", false},
		{dflt, "socketmap:inet:127.0.0.1:8463:postseal", true},
		{dflt, "socketmap:inet:127.0.0.1:8463:postseal-sender, hash:/etc/postfix/senders", true},
		{"sender_dependent_relayhost_maps", "hash:/etc/postfix/senders", true},
	} {
		got := site(c.param, c.value).BySender()
		if c.told && !slices.Equal(got, []string{c.param + " = " + c.value}) || !c.told && len(got) > 0 {
			t.Errorf("%s = %s: %q", c.param, c.value, got)
		}
	}
}

// What was found is kept for a while, a failure for less; one look-up runs at a time.
func TestRouterKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRouter(site("transport_maps", "hash:/t"))
		table, asked, running := tablesOf{"hash:/t": "a.example smtp:[x]"}, 0, 0
		r.ask = func(ctx context.Context, tables, keys []string) (map[string]string, error) {
			if running++; running > 1 {
				t.Error("two at a time")
			}
			time.Sleep(time.Second)
			running--
			asked++
			return table.ask(ctx, tables, keys)
		}
		nexthop := func(want string) {
			t.Helper()
			if route, err := r.Route(t.Context(), "a.example"); err != nil || route.Nexthop != want {
				t.Errorf("%+v, %v; want %s", route, err, want)
			}
		}
		for range 5 {
			go nexthop("[x]")
		}
		nexthop("[x]")
		synctest.Wait()
		if asked != 2 { // for addresses and for domains
			t.Errorf("asked %d times", asked)
		}
		table["hash:/t"] = "a.example smtp:[y]"
		time.Sleep(routeLasts - 3*time.Second)
		nexthop("[x]")
		time.Sleep(3 * time.Second)
		nexthop("[y]")
		delete(table, "hash:/t")
		time.Sleep(routeLasts)
		for range 3 {
			if _, err := r.Route(t.Context(), "a.example"); !errors.Is(err, ErrUnreadable) {
				t.Error(err)
			}
		}
		if asked != 5 {
			t.Errorf("asked %d times", asked)
		}
		table["hash:/t"] = ""
		time.Sleep(routeFailed)
		nexthop("a.example")

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.Route(ctx, "b.example"); err != nil {
			t.Errorf("the look-up had begun: %v", err)
		}
		if _, err := r.Route(ctx, "c.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Many domains cost a few look-ups, and a table that fails is not tried for each batch.
func TestRouterBatches(t *testing.T) {
	r := NewRouter(site("transport_maps", "hash:/t"))
	asked := 0
	table := tablesOf{"hash:/t": "d7.example smtp:[x]"}
	r.ask = func(ctx context.Context, tables, keys []string) (map[string]string, error) {
		asked++
		return table.ask(ctx, tables, keys)
	}
	var domains []string
	for i := range 5 * maxBatch {
		domains = append(domains, fmt.Sprintf("d%d.example", i))
	}
	routes, err := r.Routes(t.Context(), domains)
	if err != nil || len(routes) != len(domains) || asked != 10 || routes["d7.example"].Nexthop != "[x]" {
		t.Errorf("%d routes, asked %d times, %v", len(routes), asked, err)
	}
	r.kept, asked = map[string]keptRoute{}, 0
	delete(table, "hash:/t")
	if routes, err := r.Routes(t.Context(), domains); !errors.Is(err, ErrUnreadable) || len(routes) > 0 || asked != 1 {
		t.Errorf("%d routes, asked %d times, %v", len(routes), asked, err)
	}
}

// realPostmap is a snapshot whose tables the installed postmap reads.
func realPostmap(t *testing.T) (*Snapshot, string) {
	t.Helper()
	postmap, err := exec.LookPath("postmap")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no postmap here: install Postfix, this test must not be missing in CI")
		}
		t.Skip("no postmap here: install Postfix")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.cf":   "compatibility_level = 3.6\n",
		"transport": "partner.example smtp:[vpn.example]:587\n.sub.example relay:\n* :\n",
		"pattern":   "/@re\\.example$/ smtp:[re.example]\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		// Postfix waits until a file is two seconds old before it reads it.
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s := site()
	s.ConfigDir, s.postmap = dir, postmap
	return s, dir
}

// patient asks again while the machine is too busy to answer in time.
func patient(ask askFunc) askFunc {
	return func(ctx context.Context, tables, keys []string) (map[string]string, error) {
		for {
			found, err := ask(ctx, tables, keys)
			if !errors.Is(err, context.DeadlineExceeded) {
				return found, err
			}
		}
	}
}

// postmap -q finds what trivial-rewrite would, and tells a table that cannot be read
// from one that has nothing.
func TestPFX21_Postmap(t *testing.T) {
	s, dir := realPostmap(t)
	s.Main["transport_maps"] = "proxy:texthash:" + dir + "/transport, regexp:" + dir + "/pattern"
	routes, _, err := s.routes(t.Context(), patient(s.ask), []string{"partner.example", "a.sub.example", "re.example", "other.example"})
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{"partner.example": "smtp [vpn.example]:587", "a.sub.example": "relay a.sub.example",
		"re.example": "smtp [re.example]", "other.example": "smtp other.example"} {
		if got := routes[domain].Service + " " + routes[domain].Nexthop; got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
	ask := patient(s.ask)
	if found, err := ask(t.Context(), []string{"texthash:" + dir + "/transport"}, []string{"nobody.example"}); err != nil || len(found) > 0 {
		t.Errorf("nothing there: %v, %v", found, err)
	}
	for table, want := range map[string]string{
		"texthash:" + dir + "/missing":    "No such file",
		"nosuch:/x":                       "unsupported",
		"socketmap:inet:127.0.0.1:1:name": "query error",
		"regexp:" + dir + "/missing":      "No such file",
	} {
		if _, err := ask(t.Context(), []string{table}, []string{"nobody.example"}); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", table, err)
		}
	}
	s.postmap = filepath.Join(dir, "postmap")
	if _, err := ask(t.Context(), []string{"static:x"}, []string{"a"}); !errors.Is(err, ErrNoPostfix) {
		t.Errorf("no postmap: %v", err)
	}
}

// smtp(8) asks for the domain, and what it delivers to may be none of its mail exchangers.
func TestPFX21_RouteInDoubt(t *testing.T) {
	for _, c := range []struct{ param, value, want string }{
		{"smtp_host_lookup", "dns", ""},
		{"smtp_host_lookup", "dns, native", ""},
		{"smtp_host_lookup", "native", "smtp_host_lookup = native"},
		{"smtp_host_lookup", "native, dns", "smtp_host_lookup = native, dns"},
		{"smtp_dns_support_level", "dnssec", ""},
		{"smtp_dns_support_level", "disabled", "smtp_dns_support_level = disabled"},
		{"smtp_fallback_relay", "[fallback.example]", "smtp_fallback_relay = [fallback.example]"},
	} {
		s := site()
		s.Services[0].Params[c.param] = c.value
		r, _, err := s.routes(t.Context(), tablesOf{}.ask, []string{"partner.example"})
		if got := r["partner.example"]; err != nil || got.Doubt != c.want || got.Obstacle != "" {
			t.Errorf("%s = %s: %+v, %v", c.param, c.value, got, err)
		}
	}
	s := site("disable_dns_lookups", "yes")
	s.Services[0].Params["smtp_dns_support_level"] = ""
	if r, _, _ := s.routes(t.Context(), tablesOf{}.ask, []string{"partner.example"}); r["partner.example"].Doubt != "disable_dns_lookups = yes" {
		t.Errorf("no DNS: %+v", r)
	}
	s = site("default_transport", "lmtp")
	s.Services[0].Name, s.Services[0].Command = "lmtp", "lmtp"
	s.Services[0].Params["lmtp_tls_policy_maps"] = s.Services[0].Params["smtp_tls_policy_maps"]
	if r, _, _ := s.routes(t.Context(), tablesOf{}.ask, []string{"partner.example"}); !strings.HasPrefix(r["partner.example"].Doubt, "lmtp of master.cf is lmtp(8)") {
		t.Errorf("LMTP: %+v", r)
	}
}
