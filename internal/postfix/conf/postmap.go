package conf

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// askFunc looks keys up in lookup tables, each key in one table after the other
// until one has it, as maps_find does, and returns what was found.
type askFunc func(ctx context.Context, tables, keys []string) (map[string]string, error)

// ask is the askFunc of postmap(1). A table that cannot be opened or that does not
// answer is an error that wraps ErrUnreadable, and says which.
func (s *Snapshot) ask(ctx context.Context, tables, keys []string) (map[string]string, error) {
	if len(tables) == 0 || len(keys) == 0 {
		return nil, nil
	}
	args := []string{"-c", s.ConfigDir, "-q", "-"}
	for _, t := range tables {
		args = append(args, direct(t))
	}
	out, said, err := execute(ctx, s.postmap, strings.Join(keys, "\n")+"\n", args...)
	// postmap exits with 1 also where it has found nothing: what failed it says
	// (postmap.c: postmap_queries).
	if complaint := fatal(said); complaint != "" {
		return nil, tableError(complaint)
	}
	if err != nil && !errors.Is(err, errExit) {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			found[key] = value
		}
	}
	return found, nil
}

// tableError is ErrUnreadable in Postfix's words about a table.
type tableError string

func (e tableError) Error() string { return string(e) }
func (e tableError) Unwrap() error { return ErrUnreadable }

// fatal is what a program of Postfix says that gives up, empty when it does not.
func fatal(said string) string {
	for line := range strings.Lines(said) {
		for _, word := range []string{": fatal: ", ": panic: ", ": error: "} {
			if _, what, ok := strings.Cut(line, word); ok {
				what = strings.TrimSpace(what)
				return what[:min(len(what), maxComplaint)]
			}
		}
	}
	return ""
}

// direct is a table without proxymap(8), which only Postfix's own user may ask.
func direct(table string) string {
	for {
		kind, rest, _ := strings.Cut(table, ":")
		if kind = strings.ToLower(kind); kind != "proxy" && kind != "debug" {
			return table
		}
		table = rest
	}
}

// patterns are the types that are asked for whole addresses only, lest a pattern
// match a part of one (DICT_FLAG_PATTERN). The tables of LDAP and SQL find nothing
// themselves for a domain where their query needs an address.
var patterns = []string{"regexp", "pcre", "cidr", "socketmap", "randmap", "fail"}

// fixed tells whether a table of the list is asked for domains as well
// (DICT_FLAG_FIXED); a pipemap or unionmap is if all tables in it are.
func fixed(text string) bool {
	return !slices.ContainsFunc(parseTable(text), func(t table) bool { return slices.Contains(patterns, t.kind) })
}

// indexes are what postmap(1) puts behind the name of a table, by type of file.
var indexes = []string{"", ".db", ".lmdb", ".cdb", ".dir", ".pag"}

// filesOf lists the files that a table may be in.
func filesOf(text string) []string {
	var files []string
	for _, t := range parseTable(text) {
		_, path, _ := strings.Cut(direct(t.text), ":")
		if !strings.HasPrefix(path, "/") {
			continue
		}
		for _, index := range indexes {
			files = append(files, path+index)
		}
	}
	return files
}
