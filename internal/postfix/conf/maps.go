package conf

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// table is one entry of a list of lookup tables: TYPE:NAME.
type table struct {
	text    string // as it stands in the list, or inside of a pipemap
	outer   string // as it stands in the list
	proxied bool   // asked through proxymap(8), which is not chrooted
	// endpoint is a socketmap's: "inet:host:port" or "unix:path"; mapName what
	// stands behind its last colon.
	endpoint, mapName string
	kind              string // the type without proxy: and debug:
}

// tables splits the value of smtp_tls_policy_maps as maps_create does: at
// commas and blanks outside of braces. pipemap: and unionmap: count as the tables in them.
func tables(value string) []table {
	var found []table
	for _, text := range splitBraced(value) {
		found = append(found, parseTable(text)...)
	}
	return found
}

func parseTable(text string) []table {
	t := table{text: text, outer: strings.TrimPrefix(text, "debug:")}
	rest := text
	for {
		kind, after, _ := strings.Cut(rest, ":")
		t.kind = strings.ToLower(kind)
		if t.kind != "proxy" && t.kind != "debug" {
			rest = after
			break
		}
		t.proxied = t.proxied || t.kind == "proxy"
		rest = after
	}
	switch t.kind {
	case "socketmap":
		if i := strings.LastIndexByte(rest, ':'); i > 0 {
			t.endpoint, t.mapName = rest[:i], rest[i+1:]
		}
	case "pipemap", "unionmap":
		if inner, ok := strings.CutPrefix(rest, "{"); ok {
			found := tables(strings.TrimSuffix(inner, "}"))
			for i := range found {
				found[i].outer, found[i].proxied = t.outer, found[i].proxied || t.proxied
			}
			return found
		}
	}
	return []table{t}
}

// splitBraced splits at CHARS_COMMA_SP outside of braces (mystrtokq).
func splitBraced(value string) []string {
	var parts []string
	depth, start := 0, -1
	for i := range len(value) {
		c := value[i]
		separates := strings.IndexByte(", \t\r\n", c) >= 0 && depth == 0
		switch {
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		}
		if separates && start >= 0 {
			parts, start = append(parts, value[start:i]), -1
		} else if !separates && start < 0 {
			start = i
		}
	}
	if start >= 0 {
		parts = append(parts, value[start:])
	}
	return parts
}

// findOurs looks for the first table that leads to one of our sockets.
func (sv *Service) findOurs(endpoints []string, queueDirectory string) {
	for _, t := range tables(sv.Param("smtp_tls_policy_maps")) {
		for _, ours := range endpoints {
			if t.kind == "socketmap" && sv.leadsTo(t, ours, queueDirectory) {
				sv.UsesOurMap, sv.MapName, sv.Map = true, t.mapName, t.text
				return
			}
		}
	}
}

// leadsTo tells whether what a table names is, or is meant to be, our socket.
func (sv *Service) leadsTo(t table, ours, queueDirectory string) bool {
	kind, where, _ := strings.Cut(t.endpoint, ":")
	ourKind, ourWhere, _ := strings.Cut(ours, ":")
	if kind != ourKind {
		return false
	}
	switch kind {
	case "inet":
		return samePort(where, ourWhere)
	case "unix":
		// Every Postfix daemon works in queue_directory. An absolute path in a
		// chroot leads below it: T20 says so, but it is ours that was meant.
		ourWhere = filepath.Clean(ourWhere)
		return absolute(where, queueDirectory) == ourWhere || sv.Chroot && filepath.Join(queueDirectory, where) == ourWhere
	}
	return false
}

func absolute(path, queueDirectory string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(queueDirectory, path)
}

// samePort compares HOST:PORT; all loopback hosts are one, and a socket that
// listens everywhere is reached by any.
func samePort(a, b string) bool {
	hostA, portA, okA := splitHostPort(a)
	hostB, portB, okB := splitHostPort(b)
	return okA && okB && portA == portB &&
		(strings.EqualFold(hostA, hostB) || isLoopback(hostA) && isLoopback(hostB) || isAny(hostB))
}

func splitHostPort(text string) (host, port string, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", "", false
	}
	host = strings.TrimSuffix(strings.TrimPrefix(text[:i], "["), "]")
	return host, text[i+1:], true
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func isAny(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || host == "*" || err == nil && ip.IsUnspecified()
}
