package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postseal/postseal/"

// arrows lists which rooms of the house may import which. Third parties and the
// standard library are not named, but for miekg/dns, which one room hides.
var arrows = map[string][]string{
	"policy":                         {"policy/mtasts", "policy/dane", "cache", "internal/postfix/tlspolicy"},
	"policy/mtasts":                  {"internal/resolver"},
	"policy/dane":                    {"internal/resolver"},
	"policy/socketmap":               {"internal/server"},
	"policy/delegation":              {"internal/server"},
	"policy/socketmap/socketmaptest": {},
	"cache":                          {},
	"cache/sqlite":                   {"cache"},
	"cache/cachetest":                {"cache"},
	"systemd":                        {},
	"internal/resolver":              {},
	"internal/resolver/resolvertest": {"internal/resolver"},
	"internal/server":                {},
	"internal/sender":                {},
	"internal/reach":                 {},
	"internal/ledger":                {"cache"},
	"milter":                         {"milter/dkim", "milter/dmarc", "milter/align", "internal/sender", "internal/server"},
	"milter/dkim":                    {},
	"milter/dmarc":                   {},
	"milter/align":                   {},
	"internal/postfix/tlspolicy":     {},
	"internal/postfix/tlspolicy/tlspolicytest": {"internal/postfix/tlspolicy"},
	"internal/postfix/conf":                    {"internal/postfix/tlspolicy"},
}

// TestArrows: data flows one way; an import that is not named above fails.
func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		from := strings.TrimPrefix(f[0], module)
		seen[from] = true
		if strings.HasPrefix(from, "cmd/") || strings.HasPrefix(from, "e2e") {
			continue // the door opens to every room, and the laboratory plays the world
		}
		allowed, known := arrows[from]
		if !known {
			t.Errorf("package %s is not named in the list of arrows", from)
		}
		for _, to := range f[1:] {
			if to == "github.com/miekg/dns" && !strings.HasPrefix(from, "internal/resolver") {
				t.Errorf("%s imports miekg/dns, which only internal/resolver may", from)
			}
			to, ours := strings.CutPrefix(to, module)
			if ours && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: no such arrow", from, to)
			}
		}
	}
	for from := range arrows {
		if !seen[from] {
			t.Errorf("the list of arrows names %s, which does not exist", from)
		}
	}
}
