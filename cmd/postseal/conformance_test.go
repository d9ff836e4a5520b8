package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// conformanceRow is one line of docs/conformance.md.
type conformanceRow struct {
	line         int
	id           string
	rule, heldBy string
}

var (
	ruleID = regexp.MustCompile(`^[A-Z]+-[0-9]+$`)
	quoted = regexp.MustCompile("`([^`]*)`")
	// folder.TestName/case, the case being the beginning of a subtest's name
	testName = regexp.MustCompile(`^([a-z0-9/]+)\.((?:Test|Fuzz|Benchmark)\w+)(?:/(.+))?$`)
	// what looks as if it were meant as a reference
	likeReference = regexp.MustCompile(`(^|[./: ])(Test|Fuzz|Benchmark)[A-Z0-9]|txtar`)
	// STS042 within TestSTS042_OneFlight
	idInName = regexp.MustCompile(`^(STS|DANE|CMB|PFX|CCH|RPT|RTL|K|DM|BLK|MLT|POL|W)([0-9]+)$`)
)

func conformanceRows(t *testing.T) []conformanceRow {
	t.Helper()
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []conformanceRow
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| id |") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 {
			t.Errorf("docs/conformance.md:%d: %d cells, want id, rule and held by", number, len(cells))
			continue
		}
		row := conformanceRow{number, strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])}
		if !ruleID.MatchString(row.id) || row.rule == "" || row.heldBy == "" {
			t.Errorf("docs/conformance.md:%d: want an id, a rule, and a test or a reason: %q", number, cells)
		}
		all = append(all, row)
	}
	if len(all) < 200 {
		t.Fatalf("only %d rows read", len(all))
	}
	return all
}

// goTests are the tests of the tree: "policy/dane.TestClass"; strings are what
// the test files of a folder quote, where the names of subtests are.
type goTests struct {
	names   map[string]bool
	strings map[string][]string
}

func readTests(t *testing.T) goTests {
	t.Helper()
	all := goTests{map[string]bool{}, map[string][]string{}}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() != ".." && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir // .git, and the root file systems of .roots
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel("../..", filepath.Dir(path))
		if err != nil {
			return err
		}
		all.add(folder, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (g *goTests) add(folder string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && likeReference.MatchString(n.Name.Name) {
				g.names[folder+"."+n.Name.Name] = true
			}
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				g.strings[folder] = append(g.strings[folder], text)
			}
		}
		return true
	})
}

// TestConformancePage holds docs/conformance.md to the tree: every id once, every
// test and story that it names is there.
func TestConformancePage(t *testing.T) {
	tests := readTests(t)
	seen := map[string]int{}
	for _, row := range conformanceRows(t) {
		if first := seen[row.id]; first != 0 {
			t.Errorf("docs/conformance.md:%d: %s is in line %d already", row.line, row.id, first)
		}
		seen[row.id] = row.line
		for _, m := range quoted.FindAllStringSubmatch(row.heldBy, -1) {
			if problem := tests.check(m[1]); problem != "" {
				t.Errorf("docs/conformance.md:%d: %s: %s", row.line, row.id, problem)
			}
		}
	}
}

// check says what is wrong with a reference; other quoted words are no business
// of its.
func (g *goTests) check(reference string) string {
	if strings.HasSuffix(reference, ".txtar") {
		if _, err := os.Stat(filepath.Join("../../e2e/testdata", reference)); err != nil {
			return "no story " + reference + " in e2e/testdata"
		}
		return ""
	}
	m := testName.FindStringSubmatch(reference)
	switch {
	case m == nil && likeReference.MatchString(reference):
		return "write folder.TestName, not " + reference
	case m == nil:
		return ""
	case !g.names[m[1]+"."+m[2]]:
		return "no test " + m[1] + "." + m[2]
	case m[3] != "" && !slices.ContainsFunc(g.strings[m[1]], func(s string) bool { return strings.HasPrefix(s, m[3]) }):
		return "no case of " + m[1] + "." + m[2] + " begins with " + m[3]
	}
	return ""
}

// TestConformancePageNamesTheTests: a test that carries an id in its name stands
// in the id's row.
func TestConformancePageNamesTheTests(t *testing.T) {
	rows := map[string]conformanceRow{}
	for _, row := range conformanceRows(t) {
		rows[withoutZeros(strings.ReplaceAll(row.id, "-", ""))] = row
	}
	for name := range readTests(t).names {
		_, function, _ := strings.Cut(name, ".")
		for _, prefix := range []string{"Test", "Fuzz", "Benchmark"} {
			function = strings.TrimPrefix(function, prefix)
		}
		for part := range strings.SplitSeq(function, "_") {
			if !idInName.MatchString(part) {
				continue
			}
			row, ok := rows[withoutZeros(part)]
			switch {
			case !ok:
				t.Errorf("docs/conformance.md has no row for %s, which %s names", part, name)
			case !strings.Contains(row.heldBy, "`"+name+"`") && !strings.Contains(row.heldBy, "`"+name+"/"):
				t.Errorf("docs/conformance.md:%d: %s: add `%s`", row.line, row.id, name)
			}
		}
	}
}

// withoutZeros makes CCH009 and CCH09 the same id.
func withoutZeros(id string) string {
	m := idInName.FindStringSubmatch(id)
	if m == nil {
		return id
	}
	return m[1] + strings.TrimLeft(m[2], "0")
}
