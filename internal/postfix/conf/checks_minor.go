package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

func checkRemoteEndpoint(_ *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	where, inet := strings.CutPrefix(sv.ours().endpoint, "inet:")
	host, _, ok := splitHostPort(where)
	if !inet || !ok || isLoopback(host) {
		return "", "", false
	}
	return fmt.Sprintf("%s asks %s: policies without authentication, over the network", sv.name("smtp_tls_policy_maps"), where),
		"run postseal on this host and listen on inet:127.0.0.1:8463", true
}

// fixedIn tells whether the version has a repair: it came with that patch level
// of its branch, or the branch is younger than all listed.
func fixedIn(v tlspolicy.Version, fixes ...tlspolicy.Version) bool {
	if !v.Known {
		return true // nothing is assumed
	}
	last := fixes[len(fixes)-1]
	for _, f := range fixes {
		if v.Major == f.Major && v.Minor == f.Minor {
			return v.Patch >= f.Patch
		}
	}
	return last.Less(v)
}

func at(minor, patch int) tlspolicy.Version {
	return tlspolicy.Version{Major: 3, Minor: minor, Patch: patch, Known: true}
}

// checkReusedSessions: Postfix repaired the connection cache's key in these.
func checkReusedSessions(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if !sv.yes("smtp_connection_cache_on_demand") || fixedIn(s.Version, at(7, 17), at(8, 12), at(9, 6), at(10, 3)) {
		return "", "", false
	}
	return fmt.Sprintf("Postfix %s reuses an open session, for up to 300 s, without asking for the policy: mail can go in clear after an answer became stricter", s.Version),
		s.set(sv, setting{"smtp_connection_cache_on_demand", "no"}), true
}

func checkPatterns(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	if !w.STS || !strings.EqualFold(sv.Param("smtp_tls_enforce_sts_mx_patterns"), "no") {
		return "", "", false
	}
	return sv.name("smtp_tls_enforce_sts_mx_patterns") + " = no: Postfix does not compare MX names with the MTA-STS policy, postseal names them one by one instead",
		s.set(sv, setting{"smtp_tls_enforce_sts_mx_patterns", "yes"}), true
}

func checkHalfDANE(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	param := "smtp_tls_dane_insecure_mx_policy"
	if !w.DANE || sv.Param(param) == "" || sv.Param(param) == "dane" {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s: hosts with TLSA records behind an MX answer that DNSSEC does not protect are not verified", sv.name(param), sv.Param(param)),
		s.set(sv, setting{param, "dane"}), true
}

func checkMXLimit(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	limit, err := strconv.Atoi(sv.Param("smtp_mx_address_limit"))
	if err != nil || limit == 0 || limit >= leastMXLimit {
		return "", "", false
	}
	return fmt.Sprintf("%s = %d: hosts skipped by a policy count, a destination can be deferred for ever though a good host is left",
		sv.name("smtp_mx_address_limit"), limit), s.set(sv, setting{"smtp_mx_address_limit", "0"}), true
}

func checkStrongLevel(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	level, ok := sv.Level()
	if !ok || level < tlspolicy.Encrypt || w.Floor == tlspolicy.Dane.String() || sv.yes("smtp_tls_wrappermode") || sv.enforced() {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s for all destinations: mail to those without a matching offer of TLS stays in the queue", sv.name("smtp_tls_security_level"), level),
		"if that is not meant: " + s.set(sv, setting{"smtp_tls_security_level", s.opportunistic(sv)}), true
}

func checkFallback(_ *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	relay := sv.Param("smtp_fallback_relay")
	if relay == "" {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s: what a policy holds back is handed to it, under its own policy", sv.name("smtp_fallback_relay"), relay),
		"write a [[rule]] for it, or remove it", true
}

func checkConnectionReuse(_ *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if !sv.yes("smtp_tls_connection_reuse") {
		return "", "", false
	}
	return sv.name("smtp_tls_connection_reuse") + " = yes: an open TLS connection is used for up to 300 s without being verified against a changed policy",
		"write connection_reuse=no into the [[rule]] of destinations where it matters", true
}

func checkServername(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	name := sv.Param("smtp_tls_servername")
	if name == "" {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s is sent as SNI wherever the policy names none", sv.name("smtp_tls_servername"), name), s.set(sv, setting{"smtp_tls_servername", ""}), true
}

func checkTLSRPTName(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if sv.MapName != "QUERYwithTLSRPT" || !s.Version.Known || s.Version.STSAttributes() {
		return "", "", false
	}
	return fmt.Sprintf("the map QUERYwithTLSRPT has attributes that Postfix %s would refuse; they are left out", s.Version),
		s.set(sv, sv.replaceOurs(strings.TrimSuffix(sv.Map, sv.MapName)+"postseal")), true
}

func checkAskedLater(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	var before []string
	for _, t := range tables(sv.Param("smtp_tls_policy_maps")) {
		if t.text == sv.Map {
			break
		}
		if t.kind == "static" {
			return "", "", false // the severe one says it
		}
		before = append(before, t.text)
	}
	if len(before) == 0 {
		return "", "", false
	}
	return fmt.Sprintf("%s is asked before postseal: its keys override every answer", strings.Join(before, ", ")),
		s.set(sv, setting{"smtp_tls_policy_maps", strings.Join(append([]string{sv.Map}, before...), ", ")}), true
}

func checkLog(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if sv.Param("smtp_tls_loglevel") != "0" {
		return "", "", false
	}
	return sv.name("smtp_tls_loglevel") + " = 0: the log does not tell what was sent over TLS", s.set(sv, setting{"smtp_tls_loglevel", "1"}), true
}

// nameUs is the command that makes a service ask us first, over TCP if we listen there.
func (s *Snapshot) nameUs(sv *Service) string {
	if len(s.endpoints) == 0 {
		return "let postseal listen, under [socketmap] in postseal.toml"
	}
	list := s.entry(sv, s.preferred(), "postseal")
	if others := sv.Param("smtp_tls_policy_maps"); others != "" {
		list += ", " + others
	}
	return s.set(sv, setting{"smtp_tls_policy_maps", list})
}

// preferred is the endpoint that serves every service, in a chroot or not.
func (s *Snapshot) preferred() string {
	if i := slices.IndexFunc(s.endpoints, func(e string) bool { return strings.HasPrefix(e, "inet:") }); i >= 0 {
		return s.endpoints[i]
	}
	return s.endpoints[0]
}

const notAskingID = "T21"

// notAsking finds services that do not ask us although they could. lmtp(8)
// delivers to mailboxes and is not expected to.
func (s *Snapshot) notAsking(w Wanted) []Problem {
	var found []Problem
	asking := len(s.Ours()) > 0
	for _, sv := range s.Services {
		if sv.UsesOurMap || sv.Command != "smtp" || w.Senders && sv.ID() == enforcedService {
			continue
		}
		param := sv.name("smtp_tls_policy_maps")
		p := Problem{ID: notAskingID, Service: sv.ID(), Text: param + " does not name postseal: it is not asked", Fix: s.nameUs(sv)}
		if _, own := sv.Overrides[param]; own && asking {
			p.Text = "its own -o " + param + " does not name postseal: it is not asked"
			p.Fix = "postconf -PX " + quote(sv.ID()+"/"+param)
		}
		found = merge(found, p)
	}
	return found
}
