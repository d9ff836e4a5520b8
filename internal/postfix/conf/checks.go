package conf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// fullReply is Postfix's default bound of a socketmap reply, in bytes.
const fullReply = 100_000

// leastMXLimit: below it hosts skipped by policy can use up all that Postfix tries.
const leastMXLimit = 10

// checks in the order of urgency.
var checks = []check{
	{"T33", true, checkLevelWord},
	{"T25", true, checkCAFile},
	{"T20", true, checkChroot},
	{"T20", true, checkProxy},
	{"T21", true, checkTableType},
	{"T21", true, checkCoveredUp},
	{"T09", true, checkMapName},
	{"T40", true, checkReplySize},
	{"T11", true, checkProtocolList},
	{"T32", true, checkWrapper},
	{"T01", true, checkNoTLS},
	{"T22", true, checkFloor},
	{"T04", true, checkRoots},
	{"T26", true, checkCAFolder},
	{"T05", true, checkDANE},
	{"T38", false, checkRemoteEndpoint},
	{"T29", false, checkReusedSessions},
	{"T30", false, checkPatterns},
	{"T24", false, checkHalfDANE},
	{"T39", false, checkMXLimit},
	{"T22", false, checkStrongLevel},
	{"T31", false, checkFallback},
	{"T28", false, checkConnectionReuse},
	{"T36", false, checkServername},
	{"T09", false, checkTLSRPTName},
	{"T21", false, checkAskedLater},
	{"T12", false, checkLog},
}

func checkLevelWord(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if _, ok := sv.Level(); ok {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s is no level: smtp(8) does not start and nothing is delivered", sv.name("smtp_tls_security_level"),
		sv.Param("smtp_tls_security_level")), s.set(sv, setting{"smtp_tls_security_level", s.opportunistic(sv)}), true
}

// opportunistic is the level to recommend: dane where it means something.
func (s *Snapshot) opportunistic(sv *Service) string {
	if len(sv.daneObstacles()) == 0 {
		return tlspolicy.Dane.String()
	}
	return tlspolicy.May.String()
}

func checkCAFile(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	file := sv.Param("smtp_tls_CAfile")
	why := s.files[file]
	if file == "" || why == "" {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s %s: \"disabling TLS support\", secure defers, may goes in clear", sv.name("smtp_tls_CAfile"), file, why),
		s.set(sv, setting{"smtp_tls_CAfile", s.bundle}), true
}

// checkChroot: sockets are opened after chroot(2), relative to queue_directory.
func checkChroot(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	t := sv.ours()
	path, unix := strings.CutPrefix(t.endpoint, "unix:")
	if !unix || t.proxied || !sv.Chroot || !filepath.IsAbs(path) || slices.Contains(s.endpoints, "unix:"+filepath.Join(s.QueueDirectory, path)) {
		return "", "", false
	}
	return fmt.Sprintf("%s names %s, but the service runs in a chroot, where it is %s: \"lookup error\", all mail is deferred",
		sv.name("smtp_tls_policy_maps"), path, filepath.Join(s.QueueDirectory, path)), s.set(sv, sv.replaceOurs(s.entry(sv, "unix:"+path, t.mapName))), true
}

// checkProxy: proxymap(8) opens only what proxy_read_maps lists.
func checkProxy(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	t := sv.ours()
	list := s.Main["proxy_read_maps"]
	if !t.proxied || list == "" || slices.Contains(splitBraced(list), t.outer) {
		return "", "", false
	}
	return fmt.Sprintf("%s is not in proxy_read_maps: proxymap(8) refuses it, all mail is deferred", t.outer),
		"name it in smtp_tls_policy_maps of main.cf, which proxy_read_maps includes, or ask over inet: without proxy:", true
}

func checkTableType(s *Snapshot, _ *Service, _ Wanted) (string, string, bool) {
	if len(s.tableTypes) == 0 || slices.Contains(s.tableTypes, "socketmap") {
		return "", "", false
	}
	return "postconf -m does not list socketmap: \"unsupported dictionary type\", all mail is deferred",
		"install the package of this Postfix that has socketmap tables", true
}

// checkCoveredUp: maps_find takes the first table that has the exact key.
func checkCoveredUp(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	for _, t := range tables(sv.Param("smtp_tls_policy_maps")) {
		if t.text == sv.Map {
			break
		}
		if t.kind == "static" {
			return fmt.Sprintf("%s stands before %s and answers everything: postseal is never asked", t.text, sv.Map),
				s.set(sv, setting{"smtp_tls_policy_maps", sv.Map}), true
		}
	}
	return "", "", false
}

func checkMapName(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	if len(w.MapNames) == 0 || slices.Contains(w.MapNames, sv.MapName) {
		return "", "", false
	}
	cure := strings.TrimSuffix(sv.Map, ":"+sv.MapName) + ":" + w.MapNames[0]
	return fmt.Sprintf("%s asks for the map %q, which is always \"not found\": no answer has an effect", sv.name("smtp_tls_policy_maps"), sv.MapName),
		s.set(sv, sv.replaceOurs(cure)), true
}

func checkReplySize(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	size, err := strconv.Atoi(sv.Param("socketmap_max_reply_size"))
	if err != nil || size >= fullReply {
		return "", "", false // not there before 3.10
	}
	return fmt.Sprintf("socketmap_max_reply_size = %d: a longer answer is \"input exceeds size limit\", its mail is deferred and the connection lost", size),
		s.set(sv, setting{"socketmap_max_reply_size", strconv.Itoa(fullReply)}), true
}

// checkProtocolList holds the lists to the grammar that a policy line has too.
func checkProtocolList(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	for _, param := range []string{"smtp_tls_mandatory_protocols", "smtp_tls_protocols"} {
		list := listOf(sv.Param(param))
		if len(list) == 0 {
			continue
		}
		line := tlspolicy.Line{Level: tlspolicy.Encrypt, Attrs: []tlspolicy.Attr{{Name: "protocols", Value: strings.Join(list, ":")}}}
		if err := line.Validate(s.Version); err != nil && !errors.Is(err, tlspolicy.ErrUnsafe) {
			return fmt.Sprintf("%s = %s is invalid: \"aborting TLS session\", such mail is deferred", sv.name(param), sv.Param(param)),
				s.set(sv, setting{param, ">=TLSv1"}), true
		}
	}
	return "", "", false
}

func checkWrapper(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	level, ok := sv.Level()
	if !sv.yes("smtp_tls_wrappermode") || !ok || level >= tlspolicy.Encrypt {
		return "", "", false
	}
	return fmt.Sprintf("smtp_tls_wrappermode requires \"%s = encrypt\" or stronger, it is %s: mail is deferred, 4.3.0", sv.name("smtp_tls_security_level"), level),
		s.set(sv, setting{"smtp_tls_security_level", tlspolicy.Encrypt.String()}), true
}

func checkNoTLS(s *Snapshot, sv *Service, _ Wanted) (string, string, bool) {
	if level, ok := sv.Level(); !ok || level != tlspolicy.None || sv.enforced() {
		return "", "", false
	}
	return fmt.Sprintf("%s is none: where postseal has no answer, mail goes in clear", sv.name("smtp_tls_security_level")),
		s.set(sv, setting{"smtp_tls_security_level", s.opportunistic(sv)}), true
}

// checkFloor: CMB-15, `dane` without TLSA records is may.
func checkFloor(_ *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	level, ok := sv.Level()
	if w.Floor != tlspolicy.Dane.String() || !ok || level <= tlspolicy.Dane || sv.enforced() {
		return "", "", false
	}
	return fmt.Sprintf("%s = %s, and floor = \"dane\" answers dane, which is weaker", sv.name("smtp_tls_security_level"), level),
		`set floor = "inherit" under [tls_policy] in postseal.toml`, true
}

func checkRoots(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	if !w.STS || sv.hasRoots() || !slices.Contains(s.demanded(), sv) {
		return "", "", false
	}
	text := fmt.Sprintf("%s and %s are empty: Postfix trusts no CA, every secure (MTA-STS) destination would be deferred as \"untrusted issuer\"",
		sv.name("smtp_tls_CAfile"), sv.name("smtp_tls_CApath"))
	if sv.yes("tls_append_default_CA") {
		text += "; tls_append_default_CA = yes does nothing without them"
	}
	return text, s.set(sv, setting{"smtp_tls_CAfile", s.bundle}), true
}

func checkCAFolder(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	dir := s.caFolder(sv)
	why := s.files[dir]
	if !w.STS || !slices.Contains(s.demanded(), sv) || dir == "" || why == "" || sv.Param("smtp_tls_CAfile") != "" || sv.Param("smtp_tls_trust_anchor_file") != "" {
		return "", "", false
	}
	return fmt.Sprintf("%s is %s for this service, which %s: every secure (MTA-STS) destination would be deferred as \"untrusted issuer\"",
		sv.name("smtp_tls_CApath"), dir, why), s.set(sv, setting{"smtp_tls_CAfile", s.bundle}), true
}

func checkDANE(s *Snapshot, sv *Service, w Wanted) (string, string, bool) {
	obstacles := sv.daneObstacles()
	if !w.DANE || len(obstacles) == 0 || !slices.Contains(s.demanded(), sv) {
		return "", "", false
	}
	var now []string
	for _, o := range obstacles {
		now = append(now, sv.shows(o.param))
	}
	return strings.Join(now, ", ") + ": Postfix cannot do DANE, dane is may and dane-only would be deferred", s.set(sv, obstacles...), true
}

// ours is the entry that leads to us.
func (sv *Service) ours() table {
	for _, t := range tables(sv.Param("smtp_tls_policy_maps")) {
		if t.text == sv.Map {
			return t
		}
	}
	return table{}
}

// entry is what to write for one of our sockets in smtp_tls_policy_maps.
func (s *Snapshot) entry(sv *Service, endpoint, mapName string) string {
	if path, unix := strings.CutPrefix(endpoint, "unix:"); unix {
		inside, err := filepath.Rel(s.QueueDirectory, path)
		switch {
		case err == nil && filepath.IsLocal(inside):
			endpoint = "unix:" + inside // in a chroot or not
		case sv.Chroot:
			return "proxy:socketmap:" + endpoint + ":" + mapName
		}
	} else if host, port, ok := splitHostPort(strings.TrimPrefix(endpoint, "inet:")); ok && isAny(host) {
		endpoint = "inet:127.0.0.1:" + port
	}
	return "socketmap:" + endpoint + ":" + mapName
}

// replaceOurs is the service's list of maps with another entry in the place of ours.
func (sv *Service) replaceOurs(entry string) setting {
	return setting{"smtp_tls_policy_maps", strings.Replace(sv.Param("smtp_tls_policy_maps"), sv.Map, entry, 1)}
}
