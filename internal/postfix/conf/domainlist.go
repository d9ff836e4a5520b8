package conf

import (
	"context"
	"io"
	"os"
	"strings"
)

// domainList is a parameter that lists domains, such as relay_domains: names, files
// of names, and tables (match_list(3)).
type domainList struct {
	elements []listElement
	// parents: a name stands for the domains below it as well
	// (parent_domain_matches_subdomains).
	parents bool
	// walks: names with a leading dot count, and tables are asked for parents;
	// relay_domains only, the others are compared as they are (string_list_match).
	walks bool
}

// listElement is a name, or a table. An exclusion ends the search without a match.
type listElement struct {
	name, table string
	excludes    bool
}

// domainList reads a parameter. A file that cannot be read counts as empty, as its
// error is returned beside the list.
func (s *Snapshot) domainList(param string) (domainList, error) {
	l := domainList{walks: param == "relay_domains"}
	l.parents = l.walks && s.matchesSubdomains(param)
	elements, err := listElements(s.Main[param], false, 0)
	l.elements = elements
	return l, err
}

// matchesSubdomains: parent_domain_matches_subdomains names the parameter.
func (s *Snapshot) matchesSubdomains(param string) bool {
	return containsFold(listOf(s.Main["parent_domain_matches_subdomains"]), param)
}

func listElements(value string, excludes bool, depth int) (all []listElement, failed error) {
	for _, text := range splitBraced(value) {
		e := listElement{excludes: excludes}
		for strings.HasPrefix(text, "!") {
			text, e.excludes = text[1:], !e.excludes
		}
		switch {
		case strings.HasPrefix(text, "/"):
			inside, err := readListFile(text, e.excludes, depth)
			if err != nil {
				failed = err
			}
			all = append(all, inside...)
			continue
		case strings.Contains(text, ":") && !strings.HasPrefix(text, "["):
			e.table = text
		default:
			e.name = strings.ToLower(text)
		}
		all = append(all, e)
	}
	return all, failed
}

func readListFile(path string, excludes bool, depth int) ([]listElement, error) {
	if depth >= maxListDepth {
		return nil, nil // Postfix would end up nowhere as well
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxListFile))
	if err != nil {
		return nil, err
	}
	var names strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			names.WriteString(line)
		}
	}
	return listElements(names.String(), excludes, depth+1)
}

// match tells of each domain whether the list has it.
func (l domainList) match(ctx context.Context, ask askFunc, domains []string) (map[string]bool, error) {
	answers := map[string]map[string]string{} // by table
	for _, e := range l.elements {
		if e.table == "" || answers[e.table] != nil {
			continue
		}
		keys := domains
		if l.walks && fixed(e.table) {
			keys = walkAll(domains, l.parents)
		}
		found, err := ask(ctx, []string{e.table}, keys)
		if err != nil {
			return nil, err
		}
		answers[e.table] = found
	}
	in := map[string]bool{}
	for _, domain := range domains {
		for _, e := range l.elements {
			if l.matches(e, domain, answers) {
				in[domain] = !e.excludes
				break
			}
		}
	}
	return in, nil
}

func (l domainList) matches(e listElement, domain string, answers map[string]map[string]string) bool {
	if e.table == "" {
		parent := e.name // match_ops.c: match_hostname
		if l.parents {
			parent = "." + e.name
		}
		return e.name == domain || l.walks && strings.HasPrefix(parent, ".") && strings.HasSuffix(domain, parent)
	}
	keys := []string{domain}
	if l.walks && fixed(e.table) {
		keys = walk(domain, l.parents)
	}
	for _, key := range keys {
		if _, ok := answers[e.table][key]; ok {
			return true
		}
	}
	return false
}

// walk are the keys that Postfix looks up for a domain: "a.b.c", ".b.c", ".c", or
// without the dots where a domain stands for those below it (transport.c:
// transport_lookup).
func walk(domain string, parents bool) []string {
	keys := []string{domain}
	for {
		_, parent, ok := strings.Cut(domain, ".")
		if !ok {
			return keys
		}
		domain = parent
		if parents {
			keys = append(keys, parent)
		} else {
			keys = append(keys, "."+parent)
		}
	}
}

// walkAll are the keys of many domains, each once.
func walkAll(domains []string, parents bool) []string {
	var keys []string
	seen := map[string]bool{}
	for _, domain := range domains {
		for _, key := range walk(domain, parents) {
			if !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys
}
