package conf

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Route is where Postfix hands mail for the recipients of a domain, as far as the
// domain decides it (trivial-rewrite(8), resolve.c: resolve_addr).
type Route struct {
	// Service and Nexthop are those of transport(5): "smtp", "[smart.example]:587".
	Service, Nexthop string
	// Obstacle says why smtp(8) does not ask us for the domain itself: "relayhost =
	// [smart.example]". Empty: it asks.
	Obstacle string
	// Doubt says why smtp(8) may deliver to other hosts than the domain's mail exchangers
	// although it asks for the domain. Empty: it does not.
	Doubt string
	// Asks: the service is smtp(8) or lmtp(8) and asks us, if not for the domain.
	Asks bool
}

// Keys are what smtp(8) looks up in smtp_tls_policy_maps on this route, in the order
// in which it tries them: the elements of the next hop (smtp_connect.c). Empty where
// it does not ask us.
func (r Route) Keys() []string {
	if !r.Asks {
		return nil
	}
	return listOf(r.Nexthop)
}

// class is an address class of ADDRESS_CLASS_README with the parameter that names
// its domains and the one that names its transport.
type class struct {
	list, transport string
	// relayed: relayhost counts.
	relayed bool
}

// addressClasses are looked for in this order; what none of them has is the last.
var addressClasses = []class{
	{list: "mydestination", transport: "local_transport"},
	{list: "virtual_alias_domains"},
	{list: "virtual_mailbox_domains", transport: "virtual_transport"},
	{list: "relay_domains", transport: "relay_transport", relayed: true},
	{transport: "default_transport", relayed: true},
}

// hop is a transport and next hop on the way through resolve_addr.
type hop struct {
	service, nexthop, setting string
	final                     bool // transport_maps are not asked
}

// first is where the class alone sends mail.
func (s *Snapshot) first(c class, domain string) hop {
	if c.transport == "" {
		return hop{service: "error", setting: c.list + " names it", final: true}
	}
	h := hop{nexthop: domain}
	var own string
	h.service, own, _ = strings.Cut(s.Main[c.transport], ":")
	h.setting = c.transport + " = " + s.Main[c.transport]
	if c.list != "" {
		h.setting = c.list + " names it, " + h.setting
	}
	switch relayhost := s.Main["relayhost"]; {
	case own != "":
		h.nexthop = own
	case c.relayed && relayhost != "":
		h.nexthop, h.setting = relayhost, "relayhost = "+relayhost
	}
	return h
}

// then is what an entry of transport_maps makes of it (transport.c: update_entry).
func (h hop) then(key, entry, domain string) hop {
	service, nexthop, _ := strings.Cut(entry, ":")
	if service == "" && nexthop == "" {
		return h // ":" leaves all as it was
	}
	h.setting = "transport_maps: " + key + " → " + entry
	if service != "" {
		h.service, h.nexthop = service, domain
	}
	if nexthop != "" {
		h.nexthop = nexthop
	}
	return h
}

// route judges where mail goes in the end.
func (s *Snapshot) route(h hop, domain string) Route {
	r := Route{Service: h.service, Nexthop: h.nexthop}
	i := slices.IndexFunc(s.Services, func(sv *Service) bool { return sv.Name == h.service && sv.Type != "inet" })
	switch {
	case i < 0:
		r.Obstacle = fmt.Sprintf("%s (%s of master.cf is not smtp(8))", h.setting, h.service)
	case !s.Services[i].UsesOurMap:
		r.Obstacle = fmt.Sprintf("%s (%s of master.cf does not ask postseal: its %s)", h.setting, h.service, s.Services[i].shows("smtp_tls_policy_maps"))
	default:
		if r.Asks = true; !strings.EqualFold(h.nexthop, domain) {
			r.Obstacle = h.setting
		} else {
			r.Doubt = s.otherHosts(s.Services[i])
		}
	}
	return r
}

// otherHosts names the setting by which a service delivers to other hosts than the mail
// exchangers of what it asks for (smtp_connect.c), empty without one.
func (s *Snapshot) otherHosts(sv *Service) string {
	lookup := listOf(sv.Param("smtp_host_lookup"))
	switch {
	case sv.Command != "smtp":
		return fmt.Sprintf("%s of master.cf is %s(8), which knows no mail exchangers", sv.Name, sv.Command)
	case strings.EqualFold(sv.Param("smtp_dns_support_level"), "disabled"):
		return sv.shows("smtp_dns_support_level")
	case sv.Param("smtp_dns_support_level") == "" && strings.EqualFold(s.Main["disable_dns_lookups"], "yes"):
		return "disable_dns_lookups = yes"
	case len(lookup) > 0 && !strings.EqualFold(lookup[0], "dns"): // /etc/hosts comes first
		return sv.shows("smtp_host_lookup")
	case sv.Param("smtp_fallback_relay") != "":
		return sv.shows("smtp_fallback_relay")
	}
	return ""
}

// recipient stands for any recipient of a domain where a table is asked for a whole
// address.
const recipient = "recipient@"

// entries looks domains up in transport_maps, as transport.c: transport_lookup does,
// and gives the key and the entry of each that has one.
func (s *Snapshot) entries(ctx context.Context, ask askFunc, domains []string) (map[string][2]string, error) {
	tables := splitBraced(s.Main["transport_maps"])
	if len(tables) == 0 {
		return nil, nil
	}
	parents := s.matchesSubdomains("transport_maps")
	whole := []string{"*"}
	for _, domain := range domains {
		whole = append(whole, recipient+domain)
	}
	byAddress, err := ask(ctx, tables, whole)
	if err != nil {
		return nil, err
	}
	// A part of an address is looked up in tables with fixed keys only.
	byDomain, err := ask(ctx, slices.DeleteFunc(slices.Clone(tables), func(t string) bool { return !fixed(t) }), walkAll(domains, parents))
	if err != nil {
		return nil, err
	}
	entries := map[string][2]string{}
	for _, domain := range domains {
		if entry, ok := byAddress[recipient+domain]; ok {
			entries[domain] = [2]string{domain, entry}
			continue
		}
		for _, key := range walk(domain, parents) {
			if entry, ok := byDomain[key]; ok {
				entries[domain] = [2]string{key, entry}
				break
			}
		}
		if entry, ok := byAddress["*"]; ok && entries[domain][0] == "" {
			entries[domain] = [2]string{"*", entry}
		}
	}
	return entries, nil
}

// routes finds where mail for domains goes; they are canonical: lower case, no dot
// behind. The error wraps ErrUnreadable and names the parameter whose tables cannot
// be read. troubles are lists of domains that cannot be read; what they may name is
// then taken for a domain of others.
func (s *Snapshot) routes(ctx context.Context, ask askFunc, domains []string) (routes map[string]Route, troubles []string, err error) {
	hops := map[string]hop{}
	left := domains
	for _, c := range addressClasses {
		in, err := s.members(ctx, ask, c, left)
		if err != nil {
			troubles = append(troubles, fmt.Sprintf("%s cannot be read: %v", c.list, err))
		}
		var others []string
		for _, domain := range left {
			if c.list == "" || in[domain] {
				hops[domain] = s.first(c, domain)
			} else {
				others = append(others, domain)
			}
		}
		left = others
	}
	entries, err := s.entries(ctx, ask, domains)
	if err != nil {
		return nil, troubles, fmt.Errorf("transport_maps: %w", err)
	}
	routes = map[string]Route{}
	for domain, h := range hops {
		if e := entries[domain]; e[0] != "" && !h.final {
			h = h.then(e[0], e[1], domain)
		}
		routes[domain] = s.route(h, domain)
	}
	return routes, troubles, nil
}

// members tells which domains a class has; what could be read of the list counts
// beside an error too.
func (s *Snapshot) members(ctx context.Context, ask askFunc, c class, domains []string) (map[string]bool, error) {
	if c.list == "" || s.Main[c.list] == "" || len(domains) == 0 {
		return nil, nil
	}
	l, unread := s.domainList(c.list)
	in, err := l.match(ctx, ask, domains)
	if err == nil {
		err = unread
	}
	return in, err
}

// routingFiles are the files that decide where mail goes, beside main.cf and master.cf.
func (s *Snapshot) routingFiles() []string {
	var files []string
	for _, param := range []string{"transport_maps", "mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains"} {
		for _, text := range splitBraced(s.Main[param]) {
			if text = strings.TrimLeft(text, "!"); strings.HasPrefix(text, "/") {
				files = append(files, text)
			} else if strings.Contains(text, ":") {
				files = append(files, filesOf(text)...)
			}
		}
	}
	return files
}

// BySender names the settings by which some senders' mail goes elsewhere, whatever
// its recipient: "sender_dependent_relayhost_maps = hash:/etc/postfix/by_sender". Our
// own map of senders is none of them.
func (s *Snapshot) BySender() []string {
	var settings []string
	for _, param := range []string{"sender_dependent_relayhost_maps", senderMaps} {
		if slices.ContainsFunc(tables(s.Main[param]), func(t table) bool { return !s.ourSenders(t) }) {
			settings = append(settings, param+" = "+s.Main[param])
		}
	}
	return settings
}

func (s *Snapshot) ourSenders(t table) bool { return t.mapName == SenderMap && s.rewriteAsksUs(t) }
