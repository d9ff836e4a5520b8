package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/milter/align"
	"github.com/postseal/postseal/policy/delegation"
)

const findingsFolder = "../../docs/findings"

var (
	classWord = regexp.MustCompile(`\b(fail|weak|info)\b`)
	// what the truth tables of align expect: "unaligned=fail dmarc-missing=weak"
	wantedFindings = regexp.MustCompile(`^[a-z0-9-]+=(info|weak|fail)( [a-z0-9-]+=(info|weak|fail))*$`)
	indexRow       = regexp.MustCompile(`(?m)^\| \[([a-z0-9-]+)\]\(([a-z0-9-]+)\.md\) \| ([a-z, ]+) \| (.+) \|$`)
	link           = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
)

// findingPages are the pages by the name of their finding; README.md is the index.
func findingPages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(findingsFolder + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[strings.TrimSuffix(filepath.Base(path), ".md")] = string(text)
	}
	return pages
}

// classLine is what a page says of the classes of its finding, worst first.
func classLine(page string) string {
	_, line, _ := strings.Cut(page, "\n\nClass: ")
	line, _, _ = strings.Cut(line, "\n\n")
	var said []string
	for _, class := range []string{"fail", "weak", "info"} {
		if slices.Contains(classWord.FindAllString(line, -1), class) {
			said = append(said, class)
		}
	}
	return strings.Join(said, ", ")
}

// TestFindingPages: every finding has its page, with what receivers answer to it,
// the one thing to do first, and a configuration that silences it. No page is left
// over.
func TestFindingPages(t *testing.T) {
	pages := findingPages(t)
	names := append(align.Names(), "README")
	for name, page := range pages {
		if !slices.Contains(names, name) {
			t.Errorf("docs/findings/%s.md: there is no such finding", name)
		}
		for _, to := range link.FindAllStringSubmatch(page, -1) {
			if _, err := os.Stat(filepath.Join(findingsFolder, to[1])); err != nil && !strings.Contains(to[1], "://") {
				t.Errorf("docs/findings/%s.md: %v", name, err)
			}
		}
	}
	for _, name := range align.Names() {
		page, ok := pages[name]
		if !ok {
			t.Errorf("docs/findings/%s.md is missing", name)
			continue
		}
		for _, part := range []string{"# " + name + "\n\nClass: ", "\n\n**First:** ", "\n## What receivers do\n", "\n## The fix\n", "\n## To silence it\n"} {
			if !strings.Contains(page, part) {
				t.Errorf("docs/findings/%s.md lacks %q", name, part)
			}
		}
		for _, r := range align.Refusals(name) {
			if row := "| " + r.Receiver + " | " + r.Code + " | " + r.Text + " |"; !strings.Contains(page, row) {
				t.Errorf("docs/findings/%s.md lacks %s", name, row)
			}
		}
		if rows := strings.Count(page, "\n| "+"Gmail |") + strings.Count(page, "\n| RFC ") + strings.Count(page, "\n| Microsoft |") + strings.Count(page, "\n| Yahoo |"); rows != len(align.Refusals(name)) {
			t.Errorf("docs/findings/%s.md names %d answers of receivers, the milter knows %d", name, rows, len(align.Refusals(name)))
		}
		silence := "[milter.actions]\n" + name + ` = "monitor"`
		if strings.Contains(page, silence) != slices.Contains(milter.Actionable(), name) {
			t.Errorf("docs/findings/%s.md: does it tell how to silence the finding, if that can be configured?", name)
		}
	}
}

// TestFindingPagesTellTheClass: a page has every class that the truth tables of
// package align prove for its finding, and the index says the same.
func TestFindingPagesTellTheClass(t *testing.T) {
	pages := findingPages(t)
	proven := map[string]map[string]bool{}
	for _, text := range readTests(t).strings["milter/align"] {
		if !wantedFindings.MatchString(text) {
			continue
		}
		for finding := range strings.FieldsSeq(text) {
			name, class, _ := strings.Cut(finding, "=")
			if proven[name] == nil {
				proven[name] = map[string]bool{}
			}
			proven[name][class] = true
		}
	}
	for _, name := range align.Names() {
		if len(proven[name]) == 0 {
			t.Errorf("no truth table of milter/align proves a class of %s", name)
		}
		for _, class := range slices.Sorted(maps.Keys(proven[name])) {
			if said := classLine(pages[name]); !strings.Contains(said, class) {
				t.Errorf("docs/findings/%s.md says %q, and the finding may be %s", name, said, class)
			}
		}
	}
	listed := map[string]string{}
	for _, row := range indexRow.FindAllStringSubmatch(pages["README"], -1) {
		if row[1] != row[2] || listed[row[1]] != "" {
			t.Errorf("docs/findings/README.md: %s", row[0])
		}
		listed[row[1]] = row[3]
	}
	for _, name := range align.Names() {
		if want := classLine(pages[name]); listed[name] != want {
			t.Errorf("docs/findings/README.md: %s: class %q, its page says %q", name, listed[name], want)
		}
	}
	if len(listed) != len(align.Names()) {
		t.Errorf("docs/findings/README.md lists %d findings of %d", len(listed), len(align.Names()))
	}
}

// TestDocumentedConfigurationLoads: every piece of configuration in the pages is
// one that the daemon takes.
func TestDocumentedConfigurationLoads(t *testing.T) {
	files, err := filepath.Glob(findingsFolder + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files, "../../README.md", "../../docs/operations.md") {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for rest := string(page); ; {
			_, block, found := strings.Cut(rest, "```toml\n")
			if !found {
				break
			}
			block, rest, found = strings.Cut(block, "```")
			if !found {
				t.Errorf("%s: a block of configuration does not end", path)
			}
			if _, _, err := load(t, block); err != nil {
				t.Errorf("%s:\n%s%v", path, block, err)
			}
		}
	}
}

// TestDelegationMetricsAreDocumented: docs/operations.md names the metrics of policy
// delegation, and no others.
func TestDelegationMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	newAnswers(registry)
	registerDelegation(registry, &delegation.Server{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
		if !strings.Contains(string(page), "`"+f.GetName()+"`") {
			t.Errorf("docs/operations.md does not name %s", f.GetName())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if line := regexp.MustCompile("(?m)^.*`" + f.GetName() + "`.*$").FindString(string(page)); !regexp.MustCompile(`[ (]` + l.GetValue() + `[,;) ]`).MatchString(line) {
					t.Errorf("docs/operations.md does not say that %s has %s=%s", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	for _, name := range regexp.MustCompile(`postseal_delegation_[a-z_]+`).FindAllString(string(page), -1) {
		if !slices.Contains(names, name) {
			t.Errorf("docs/operations.md: there is no metric %s", name)
		}
	}
}

// TestMilterMetricsAreDocumented: docs/operations.md names the metrics of the
// milter, with their labels, and no others.
func TestMilterMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	inspector, err := milter.New(milter.Config{DNS: milterDNS{}, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer inspector.Close()
	registerMilter(registry, &milter.Server{Inspector: inspector})
	report, err := inspector.ReadFile(t.Context(), milter.Envelope{MailFrom: "a@ex.test"}, strings.NewReader("Subject: no From\n\n"))
	if err != nil || report.Verdict != "fail" { // it counts a finding, and needs no DNS
		t.Fatal(report, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
		row := regexp.MustCompile("(?m)^\\|.*`" + f.GetName() + "`.*$").FindString(string(page))
		if row == "" {
			t.Errorf("docs/operations.md has no row for %s", f.GetName())
		}
		for _, label := range f.GetMetric()[0].GetLabel() {
			if !strings.Contains(row, "`"+label.GetName()+"`") {
				t.Errorf("docs/operations.md: %s: no label %s in %s", f.GetName(), label.GetName(), row)
			}
		}
	}
	for _, name := range regexp.MustCompile(`postseal_milter_[a-z_]+`).FindAllString(string(page), -1) {
		if !slices.Contains(names, name) {
			t.Errorf("docs/operations.md: there is no metric %s", name)
		}
	}
}
