package conf

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// The cases in testdata hold a configuration, what postconf of several versions
// answered about it, and what follows for us. To record another version:
//
//	go test ./internal/postfix/conf -run Recorded -record /path/of/postconf
//
// and to rewrite what follows, after looking at it twice: -update.
var (
	record = flag.String("record", "", "a `postconf` to record the cases with")
	update = flag.Bool("update", false, "rewrite what follows from the recorded cases")
)

var ourEndpoints = []string{"inet:127.0.0.1:8463", "unix:/var/spool/postfix/postseal/socketmap"}

const (
	answersPrefix = "answers "
	wantPrefix    = "want "
)

// PFX-30, CMB-15, DANE-053, STS-076 and the ids of docs/postfix-checks.md.
func TestPFX30_Recorded(t *testing.T) {
	for _, path := range cases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive := readCase(t, path)
			if *record != "" {
				recordCase(t, archive, *record)
			}
			answered := 0
			for _, f := range archive.Files {
				if version, ok := strings.CutPrefix(f.Name, answersPrefix); ok {
					answered++
					got := summary(readFrom(t, archive, "testdata/postconf", f.Data))
					if *update {
						put(archive, wantPrefix+version, []byte(got))
					} else if want := string(get(archive, wantPrefix+version)); got != want {
						t.Errorf("%s: got\n%s\nwant\n%s", version, got, want)
					}
				}
			}
			if answered == 0 {
				t.Error("no answers are recorded")
			}
			if *record != "" || *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// The installed postconf answers what was recorded of its version, and can be
// read whatever its version is.
func TestInstalledPostconf(t *testing.T) {
	postconf, err := exec.LookPath("postconf")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no postconf here: install Postfix, this test must not be missing in CI")
		}
		t.Log("no postconf here, nothing is tested")
		return
	}
	for _, path := range cases(t) {
		archive := readCase(t, path)
		got := readFrom(t, archive, postconf, nil)
		want := string(get(archive, wantPrefix+got.Version.String()))
		if want == "" {
			t.Logf("%s: nothing recorded of %v", path, got.Version)
		} else if s := summary(got); s != want {
			t.Errorf("%s, %v: got\n%s\nwant\n%s", path, got.Version, s, want)
		}
	}
}

func cases(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 4 {
		t.Fatal(paths, err)
	}
	return paths
}

func readCase(t *testing.T, path string) *txtar.Archive {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

func get(a *txtar.Archive, name string) []byte {
	for _, f := range a.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func put(a *txtar.Archive, name string, data []byte) {
	for i := range a.Files {
		if a.Files[i].Name == name {
			a.Files[i].Data = data
			return
		}
	}
	a.Files = append(a.Files, txtar.File{Name: name, Data: data})
}

// instance writes a configuration directory.
func instance(t *testing.T, a *txtar.Archive, answers []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"main.cf": get(a, "main.cf"), "master.cf": get(a, "master.cf"), "answers": answers} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		// postconf waits until a file is two seconds old before it reads it.
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readFrom reads a case through a postconf. What depends on this host's files is
// taken out.
func readFrom(t *testing.T, a *txtar.Archive, postconf string, answers []byte) *Snapshot {
	t.Helper()
	postconf, err := filepath.Abs(postconf)
	if err != nil {
		t.Fatal(err)
	}
	r := Reader{Postconf: postconf, ConfigDir: instance(t, a, answers), Endpoints: ourEndpoints}
	s, err := r.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.ConfigDir, s.bundle = "/etc/postfix", bundles[0]
	for file := range s.files {
		if file == bundles[0] {
			s.files[file] = ""
		}
	}
	return s
}

// summary is what follows from a snapshot, as text.
func summary(s *Snapshot) string {
	var b strings.Builder
	level, known := s.Level()
	fmt.Fprintf(&b, "version %v attributes=%v narrows=%v\n", s.Version, s.Version.STSAttributes(), s.Version.NarrowsMX())
	fmt.Fprintf(&b, "level %v known=%v roots=%v dane=%v patterns=%v\n", level, known, s.HasRoots(), s.DANEAble(), s.EnforcesSTSPatterns())
	for _, sv := range s.Services {
		own, ok := sv.Level()
		fmt.Fprintf(&b, "service %s %s chroot=%v level=%v %v maps=%q asks=%v %s\n", sv.ID(), sv.Command, sv.Chroot, own, ok,
			sv.Param("smtp_tls_policy_maps"), sv.UsesOurMap, sv.MapName)
	}
	for _, p := range s.Problems(Wanted{Floor: "inherit", DANE: true, STS: true, MapNames: []string{"postseal", "QUERY", "postfix", "QUERYwithTLSRPT"}}) {
		severe := ""
		if p.Severe {
			severe = " severe"
		}
		fmt.Fprintf(&b, "%s%s [%s] %s\n\t%s\n", p.ID, severe, p.Service, p.Text, p.Fix)
	}
	return b.String()
}

// recordCase asks a real postconf and puts its answers into the case.
func recordCase(t *testing.T, a *txtar.Archive, postconf string) {
	t.Helper()
	dir := instance(t, a, nil)
	tee := filepath.Join(t.TempDir(), "postconf")
	script := fmt.Sprintf("#!/bin/sh\nd=$2; shift 2; echo \"\\$ postconf $*\" >>%[1]s/answers; %[2]s -c $d \"$@\" 2>/dev/null | tee -a %[1]s/answers\n", dir, postconf)
	if err := os.WriteFile(tee, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := Reader{Postconf: tee, ConfigDir: dir, Endpoints: ourEndpoints}
	s, err := r.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	answers, err := os.ReadFile(filepath.Join(dir, "answers"))
	if err != nil {
		t.Fatal(err)
	}
	put(a, answersPrefix+s.Version.String(), answers)
	put(a, wantPrefix+s.Version.String(), nil)
	slices.SortStableFunc(a.Files, func(x, y txtar.File) int { return strings.Compare(order(x.Name), order(y.Name)) })
}

// order keeps the configuration first, then a version's answers and what follows.
func order(name string) string {
	kind, version, found := strings.Cut(name, " ")
	if !found {
		return "0"
	}
	return "1" + version + kind
}
