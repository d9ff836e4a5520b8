package conf

import (
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Snapshot is the configuration of one Postfix instance at one moment. It is
// immutable.
type Snapshot struct {
	Version                                    tlspolicy.Version
	ConfigDir, QueueDirectory, DaemonDirectory string
	// Origin is the domain of addresses without one; empty where it is not known.
	Origin string
	// Main holds the expanded parameters of main.cf that matter here.
	Main map[string]string
	// Services are those of master.cf that run smtp(8) or lmtp(8), in its order.
	Services []*Service
	ReadAt   time.Time

	endpoints  []string          // ours
	postmap    string            // the program, beside postconf
	tableTypes []string          // postconf -m
	files      map[string]string // of CA files and folders that cannot be used: why
	bundle     string            // the system's CA bundle
}

// Service is one line of master.cf with what is in effect for it.
type Service struct {
	Name, Type string // "relay", "unix"
	Command    string // "smtp" or "lmtp"
	Chroot     bool
	// Params holds the effective values, expanded, under their own names
	// (lmtp_… for lmtp). A parameter that this Postfix does not have is absent.
	Params map[string]string
	// Overrides are the service's -o options, as written.
	Overrides map[string]string
	// UsesOurMap: its smtp_tls_policy_maps names one of our sockets. MapName is
	// the socketmap's name there, Map the whole entry.
	UsesOurMap   bool
	MapName, Map string
}

// ID is the service as postconf -P names it: "relay/unix".
func (sv *Service) ID() string { return sv.Name + "/" + sv.Type }

// name is the parameter's own name for this service: smtp_x or lmtp_x.
func (sv *Service) name(param string) string {
	if rest, ok := strings.CutPrefix(param, "smtp_"); ok {
		return sv.Command + "_" + rest
	}
	return param
}

// Param is the effective value of a parameter, given by its smtp_ name.
func (sv *Service) Param(param string) string { return sv.Params[sv.name(param)] }

// shows tells a parameter and its value to people.
func (sv *Service) shows(param string) string {
	if value := sv.Param(param); value != "" {
		return sv.name(param) + " = " + value
	}
	return sv.name(param) + " is empty"
}

// yes tells a boolean parameter; only "yes" counts, as in Postfix.
func (sv *Service) yes(param string) bool { return strings.EqualFold(sv.Param(param), "yes") }

// Level is the service's own TLS level (smtp_tls_policy.c:global_tls_level),
// false where Postfix has a word for it that it refuses: then smtp(8) does not start.
func (sv *Service) Level() (tlspolicy.Level, bool) {
	if text := sv.Param("smtp_tls_security_level"); text != "" {
		l, err := tlspolicy.ParseLevel(text)
		return l, err == nil
	}
	// The parameters of Postfix 2.2 count where the level is empty.
	switch {
	case sv.yes("smtp_enforce_tls") && sv.yes("smtp_tls_enforce_peername"):
		return tlspolicy.Verify, true
	case sv.yes("smtp_enforce_tls"):
		return tlspolicy.Encrypt, true
	case sv.yes("smtp_use_tls"):
		return tlspolicy.May, true
	}
	return tlspolicy.None, true
}

// hasRoots: trust anchors are configured. tls_append_default_CA adds to
// CAfile and CApath and does nothing without them (tls_certkey.c:
// tls_set_ca_certificate_info).
func (sv *Service) hasRoots() bool {
	return sv.Param("smtp_tls_CAfile") != "" || sv.Param("smtp_tls_CApath") != "" || sv.Param("smtp_tls_trust_anchor_file") != ""
}

// daneObstacles are the parameters that keep smtp(8) from DANE, each with the
// value that would not (DANE-053, smtp_tls_policy.c:dane_init).
func (sv *Service) daneObstacles() []setting {
	var found []setting
	if !strings.EqualFold(sv.Param("smtp_dns_support_level"), "dnssec") {
		found = append(found, setting{"smtp_dns_support_level", "dnssec"})
	}
	if !containsFold(listOf(sv.Param("smtp_host_lookup")), "dns") {
		found = append(found, setting{"smtp_host_lookup", "dns"})
	}
	if sv.Command == "smtp" && sv.yes("ignore_mx_lookup_error") {
		found = append(found, setting{"ignore_mx_lookup_error", "no"})
	}
	if options := listOf(sv.Param("smtp_dns_resolver_options")); containsFold(options, "res_defnames") || containsFold(options, "res_dnsrch") {
		var rest []string
		for _, o := range options {
			if !strings.EqualFold(o, "res_defnames") && !strings.EqualFold(o, "res_dnsrch") {
				rest = append(rest, o)
			}
		}
		found = append(found, setting{"smtp_dns_resolver_options", strings.Join(rest, " ")})
	}
	return found
}

// Ours are the services that ask us.
func (s *Snapshot) Ours() []*Service {
	var ours []*Service
	for _, sv := range s.Services {
		if sv.UsesOurMap {
			ours = append(ours, sv)
		}
	}
	return ours
}

// Level is the strongest level of the services that ask us, false where none
// does (CMB-15: up to Dane, exactly Encrypt, or stronger). Those that ask for
// EnforcedMap alone demand encrypt by themselves, and say nothing about the others.
func (s *Snapshot) Level() (tlspolicy.Level, bool) {
	strongest, known := tlspolicy.None, false
	for _, sv := range s.Ours() {
		// A service with an invalid level delivers nothing.
		if l, ok := sv.Level(); ok && !sv.enforced() {
			strongest, known = max(strongest, l), true
		}
	}
	return strongest, known
}

// demanded are the services whose abilities bound the answers: those of smtp(8)
// that ask us, without any those of lmtp(8). What an lmtp(8) beside them lacks
// must not weaken what smtp(8) is told.
func (s *Snapshot) demanded() []*Service {
	ours := s.Ours()
	smtp := slices.DeleteFunc(slices.Clone(ours), func(sv *Service) bool { return sv.Command != "smtp" })
	if len(smtp) > 0 {
		return smtp
	}
	return ours
}

// HasRoots: every service that asks us has trust anchors configured, so that it
// can obey `secure`. True where none asks.
func (s *Snapshot) HasRoots() bool {
	for _, sv := range s.demanded() {
		if !sv.hasRoots() {
			return false
		}
	}
	return true
}

// DANEAble: every service that asks us can do DANE, so that it can obey
// `dane-only`. True where none asks.
func (s *Snapshot) DANEAble() bool {
	for _, sv := range s.demanded() {
		if len(sv.daneObstacles()) > 0 {
			return false
		}
	}
	return true
}

// EnforcesSTSPatterns: no service that asks us has
// smtp_tls_enforce_sts_mx_patterns = no. Whether the version has it at all is
// for Version.NarrowsMX to say.
func (s *Snapshot) EnforcesSTSPatterns() bool {
	for _, sv := range s.demanded() {
		if strings.EqualFold(sv.Param("smtp_tls_enforce_sts_mx_patterns"), "no") {
			return false
		}
	}
	return true
}

// setting is a parameter, by its smtp_ name, and a value.
type setting struct{ param, value string }

// listOf splits at CHARS_COMMA_SP.
func listOf(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

func containsFold(list []string, word string) bool {
	for _, w := range list {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
