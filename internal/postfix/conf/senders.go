package conf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// The names by which main.cf and master.cf take part in rules for senders.
const (
	// SenderMap is our map for sender_dependent_default_transport_maps.
	SenderMap = "postseal-sender"
	// EnforcedTransport is what it answers, a service of master.cf.
	EnforcedTransport = "enforced"
	// EnforcedMap is our map for that service's smtp_tls_policy_maps. It never
	// answers below encrypt.
	EnforcedMap = "postseal-enforced"

	enforcedService = EnforcedTransport + "/unix"
)

const sendersID = "T41"

// enforced: what the service is told is never below encrypt.
func (sv *Service) enforced() bool { return sv.UsesOurMap && sv.MapName == EnforcedMap }

// senders finds what makes rules for senders void, or sends their mail another way
// than before. Source: trivial-rewrite/resolve.c.
func (s *Snapshot) senders(w Wanted) []Problem {
	if !w.Senders || len(s.endpoints) == 0 {
		return nil
	}
	var found []Problem
	add := func(service string, severe bool, fix, text string, args ...any) {
		found = append(found, Problem{ID: sendersID, Service: service, Text: fmt.Sprintf(text, args...), Fix: fix, Severe: severe})
	}
	s.checkSenderMap(add)
	i := slices.IndexFunc(s.Services, func(sv *Service) bool { return sv.ID() == enforcedService })
	if i < 0 {
		add("", true, s.addEnforced(), "master.cf has no smtp(8) service %s, which mail of rules with sender goes by: \"mail transport unavailable\", it is deferred", EnforcedTransport)
	} else {
		s.checkEnforced(s.Services[i], add)
	}
	s.checkOtherTransports(add)
	return found
}

type adder func(service string, severe bool, fix, text string, args ...any)

const senderMaps = "sender_dependent_default_transport_maps"

// checkSenderMap: the first table that knows a sender decides.
func (s *Snapshot) checkSenderMap(add adder) {
	value := s.Main[senderMaps]
	ours := s.entry(rewrite, s.preferred(), SenderMap)
	fix := func(list ...string) string {
		return s.postconf() + "-e " + quote(senderMaps+" = "+strings.Join(list, ", "))
	}
	var before, others []string
	for _, t := range tables(value) {
		if !s.rewriteAsksUs(t) {
			before, others = append(before, t.text), append(others, t.text)
			continue
		}
		switch {
		case t.mapName != SenderMap:
			add("", true, fix(strings.Replace(value, t.text, strings.TrimSuffix(t.text, t.mapName)+SenderMap, 1)),
				"%s asks for the map %q, which knows no senders: rules with sender have no effect", senderMaps, t.mapName)
		case len(before) > 0:
			static := slices.ContainsFunc(before, func(b string) bool { return strings.HasPrefix(b, "static:") })
			add("", static, fix(append([]string{t.text}, before...)...), "%s is asked before %s: what it answers about a sender counts, and no rule", strings.Join(before, ", "), t.text)
		}
		return
	}
	add("", true, fix(append([]string{ours}, others...)...), "%s does not name postseal: rules with sender have no effect", senderMaps)
}

// rewrite stands for trivial-rewrite(8), of whose own line nothing is known. It is in
// a chroot on Debian, and what is right there is right without.
var rewrite = &Service{Chroot: true}

// rewriteAsksUs tells whether a table that trivial-rewrite(8) reads is one of ours.
func (s *Snapshot) rewriteAsksUs(t table) bool {
	return t.kind == "socketmap" && slices.ContainsFunc(s.endpoints, func(ours string) bool { return rewrite.leadsTo(t, ours, s.QueueDirectory) })
}

// addEnforced is the command that adds the service, as much in a chroot as smtp is.
func (s *Snapshot) addEnforced() string {
	model := &Service{Chroot: true}
	if i := slices.IndexFunc(s.Services, func(sv *Service) bool { return sv.ID() == "smtp/unix" }); i >= 0 {
		model = s.Services[i]
	}
	chroot := "n"
	if model.Chroot {
		chroot = "y"
	}
	return s.postconf() + "-M " + quote(fmt.Sprintf("%s=%s unix - - %s - - smtp -o smtp_tls_security_level=%s -o smtp_tls_policy_maps=%s",
		enforcedService, EnforcedTransport, chroot, tlspolicy.Encrypt, s.entry(model, s.preferred(), EnforcedMap)))
}

func (s *Snapshot) checkEnforced(sv *Service, add adder) {
	own := func(param, value string) string {
		return s.postconf() + "-P " + quote(sv.ID()+"/"+sv.name(param)+" = "+value)
	}
	if !sv.enforced() {
		add(sv.ID(), true, own("smtp_tls_policy_maps", s.entry(sv, s.preferred(), EnforcedMap)),
			"%s of the transport for rules with sender does not name %s first: their mail can go in clear", sv.name("smtp_tls_policy_maps"), EnforcedMap)
	}
	level, ok := sv.Level()
	switch fix := own("smtp_tls_security_level", tlspolicy.Encrypt.String()); {
	case !ok || level == tlspolicy.Encrypt:
	case level < tlspolicy.Encrypt:
		add(sv.ID(), false, fix, "%s = %s: while mode = \"monitor\" holds answers back, mail of rules with sender can go in clear", sv.name("smtp_tls_security_level"), level)
	case sv.enforced():
		add(sv.ID(), true, fix, "%s = %s is stronger than the encrypt that %s answers where nothing else is known: it does not count", sv.name("smtp_tls_security_level"), level, EnforcedMap)
	}
}

// checkOtherTransports: sender_dependent_default_transport_maps stands in for
// default_transport and nothing else.
func (s *Snapshot) checkOtherTransports(add adder) {
	transport, hop, _ := strings.Cut(s.Main["default_transport"], ":")
	smtp := slices.ContainsFunc(s.Services, func(sv *Service) bool { return sv.Name == transport })
	switch {
	case smtp && hop != "":
		add("", true, s.postconf()+"-e "+quote("default_transport = "+transport)+" "+quote("relayhost = "+hop),
			"default_transport = %s:%s has its next hop in the transport: mail of rules with sender does not go there, but to relayhost or the recipient's mail exchangers", transport, hop)
	case !smtp && transport != "":
		add("", true, "write no [[rule]] with sender, or let default_transport be smtp",
			"default_transport = %s is no smtp(8): mail of rules with sender leaves by %s all the same", s.Main["default_transport"], EnforcedTransport)
	}
	var own []string
	if s.Main["transport_maps"] != "" {
		own = append(own, "transport_maps")
	}
	if domains := s.Main["relay_domains"]; domains != "" && domains != s.Main["mydestination"] {
		own = append(own, "relay_domains")
	}
	if len(own) > 0 {
		add("", false, fmt.Sprintf("where that is not meant, write a [[rule]] with match for them, or give their transports -o smtp_tls_policy_maps=%s",
			s.entry(rewrite, s.preferred(), EnforcedMap)),
			"destinations of %s have transports of their own, whoever the sender is: rules with sender do not bind there", strings.Join(own, " and "))
	}
}
