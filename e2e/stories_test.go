//go:build linux

// A key that is too short is part of the stories; the package crypto/rsa makes none by itself.
//go:debug rsa1024min=0

package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postseal/postseal/e2e/lab"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// storiesAtOnce is how many worlds live at a time: they wait far more than they compute.
const storiesAtOnce = "8"

// unable says why the stories cannot be told on this machine; empty: they can.
var unable string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if !lab.Inside() {
		cleanup, err := lab.Prepare()
		defer cleanup()
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 2
		}
	}
	inside, code, err := lab.Enter()
	if err != nil {
		unable = err.Error()
		return m.Run()
	}
	if !inside {
		return code
	}
	// The option's own default is the number of processors.
	if err := flag.Set("test.parallel", storiesAtOnce); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 2
	}
	return m.Run()
}

// missing says what keeps the stories from being told, or "".
func missing(installations []lab.Installation) string {
	if unable != "" {
		return unable
	}
	if _, err := exec.LookPath("unbound"); err != nil {
		return "unbound is not installed"
	}
	if len(installations) == 0 {
		return "no Postfix is installed, and " + os.Getenv(lab.RootsVariable) + " holds none (e2e/roots.sh makes them)"
	}
	return ""
}

// skip says why a test cannot be run; in CI that is a failure.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// postfixes are those that the tests run with.
func postfixes(t *testing.T) []lab.Installation {
	t.Helper()
	var installations []lab.Installation
	if unable == "" {
		var err error
		if installations, err = lab.Installations(); err != nil {
			t.Fatal(err)
		}
	}
	if reason := missing(installations); reason != "" {
		skip(t, reason)
	}
	return installations
}

func TestStories(t *testing.T) {
	installations := postfixes(t)
	for _, suite := range lab.MissingRoots() {
		t.Run("postfix-of-"+suite, func(t *testing.T) {
			skip(t, suite+"'s root file system is not there: e2e/roots.sh makes it")
		})
	}
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	if _, err := exec.LookPath("opendkim"); err != nil {
		files = slices.DeleteFunc(files, signed)
		t.Run("opendkim", func(t *testing.T) { skip(t, "opendkim is not installed, which signs the mail of some stories") })
	}
	for _, in := range installations {
		t.Run("postfix-"+in.Version.String(), func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files:               storiesFor(t, files, in.Version),
				Setup:               func(env *testscript.Env) error { return setUp(env, in) },
				Cmds:                commands(),
				Condition:           in.Version.Satisfies,
				RequireExplicitExec: true,
			})
		})
	}
}

// signed tells whether a story needs a signer.
func signed(file string) bool {
	text, err := os.ReadFile(file)
	return err == nil && bytes.Contains(text, []byte("\n-- signer/"))
}

// condition is the line of a story that names the versions it is about, such as "# postfix: >=3.10.5".
var condition = regexp.MustCompile(`(?m)^# postfix: (\S+)$`)

func storiesFor(t *testing.T, files []string, version lab.Version) []string {
	var chosen []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := condition.FindSubmatch(text)
		if m == nil {
			chosen = append(chosen, file)
			continue
		}
		ok, err := version.Satisfies(string(m[1]))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if ok {
			chosen = append(chosen, file)
		}
	}
	return chosen
}

// setUp builds the world of a story.
func setUp(env *testscript.Env, in lab.Installation) error {
	s, err := build(in, os.DirFS(env.WorkDir))
	if s == nil {
		return err
	}
	env.Defer(func() {
		if err := s.close(); err != nil {
			env.T().Log("closing the world: ", err)
		}
	})
	env.Values[storyKey{}] = s
	env.Setenv("LAB", s.world.Dir)
	env.Setenv("VERSION", in.Version.String())
	return err
}

// build makes a world and starts the senders in it. What there is of it is returned also with an error.
func build(in lab.Installation, files fs.FS) (*story, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
	defer cancel()
	spec, err := lab.ReadSpec(files)
	if err != nil {
		return nil, err
	}
	world, err := lab.NewWorld(ctx, spec)
	if err != nil {
		return nil, err
	}
	s := &story{
		world: world, seen: make(map[string]int), held: make(map[string]int),
		judged: make(map[string]int), clients: make(map[string]*client), crowds: make(map[string]chan error),
	}
	if s.postfix, err = world.NewPostfix(in, "pf", smtpdAddress, spec.MainCF); err != nil {
		return s, err
	}
	if err := s.postfix.Services(spec.MasterCF); err != nil {
		return s, err
	}
	if spec.Postseal != nil {
		if s.postseal, err = world.NewPostseal(s.postfix, *spec.Postseal); err != nil {
			return s, err
		}
		if err := s.postseal.Start(ctx); err != nil {
			return s, err
		}
	}
	return s, s.postfix.Start(ctx)
}

func (s *story) close() error {
	for _, c := range s.clients {
		c.conn.Close()
	}
	return s.world.Close()
}

// worldOf builds the world of a Go test, until its end.
func worldOf(t *testing.T, in lab.Installation, file string) *story {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := txtar.Write(archive, dir); err != nil {
		t.Fatal(err)
	}
	s, err := build(in, os.DirFS(dir))
	if s != nil {
		t.Cleanup(func() {
			if t.Failed() {
				s.world.DumpLogs(t.Output())
			}
			if err := s.close(); err != nil {
				t.Errorf("closing the world: %v", err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// splitOptions separates NAME=VALUE words from the others.
func splitOptions(words []string) (plain []string, options map[string]string) {
	options = make(map[string]string)
	for _, word := range words {
		if name, value, ok := strings.Cut(word, "="); ok {
			options[name] = value
		} else {
			plain = append(plain, word)
		}
	}
	return plain, options
}
