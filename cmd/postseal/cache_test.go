package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/cache/sqlite"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy"
)

// worldWithoutDaemon is a configuration file with a name server where every
// question fails, and its folder.
func worldWithoutDaemon(t *testing.T) (config, dir string) {
	t.Helper()
	dir = t.TempDir()
	dns := (&resolvertest.Server{Handler: resolvertest.Zone("")}).Start(t)
	config = filepath.Join(dir, "postseal.toml")
	text := fmt.Sprintf("[control]\nlisten = \"unix:%s/control.sock\"\n[cache]\npath = \"%[1]s/postseal.db\"\n[resolver]\nservers = [%q]\n", dir, dns.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, dir
}

// exported is what `cache export --json` writes of these domains.
func exported(t *testing.T, dir string, fetched time.Time, domains ...string) (file string) {
	t.Helper()
	all := []policy.HeldPolicy{}
	for _, d := range domains {
		all = append(all, policy.HeldPolicy{Domain: d, ID: "1", FetchedAt: fetched, Body: "version: STSv1\nmode: enforce\nmx: mx." + d + "\nmax_age: 864000\n"})
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "exported.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &exit):
		return exit.code
	}
	return exitFailure
}

// Without a daemon its file is changed in its place, under its lock; whatever is
// written as Postfix may ask for it is understood.
func TestCommands_ChangeTheFile(t *testing.T) {
	config, dir := worldWithoutDaemon(t)
	run := func(args ...string) (string, int, error) {
		out, err := typed(t, append(args, "--config", config)...)
		return out, exitCode(err), err
	}
	if out, code, err := run("cache", "flush", "ex.test"); code != exitFindings {
		t.Errorf("flush from nothing: %d, %v, %s", code, err, out)
	}
	file := exported(t, dir, time.Now().Add(-time.Hour), "a.test", "b.test", "c.test", "xn--bcher-kva.test")
	if out, code, err := run("cache", "import", file); code != exitFine || !strings.HasPrefix(out, "4 of 4 policies imported") {
		t.Fatalf("import: %d, %v, %s", code, err, out)
	}
	for i, key := range []string{"A.test.", "[b.test]:25", "c.test:submission", "BÜCHER.test"} {
		if out, code, err := run("cache", "flush", key); code != exitFine {
			t.Errorf("flush %s: %d, %v, %s", key, code, err, out)
		}
		if _, code, err := run("cache", "flush", key); code != exitFindings || !strings.Contains(err.Error(), "no policy held: ") {
			t.Errorf("flush %s again: %d, %v", key, code, err)
		}
		out, _, _ := run("cache", "list", "--json")
		var left []policy.HeldPolicy
		if err := json.Unmarshal([]byte(out), &left); err != nil || len(left) != 3-i {
			t.Errorf("after flush %s: %v, %s", key, err, out)
		}
	}

	held, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "postseal.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, code, err := run("cache", "import", file); code != exitFailure || !strings.Contains(err.Error(), "nobody listens on the control socket, but another postseal") {
		t.Errorf("beside who holds the file: %d, %v", code, err)
	}
}

// What is no key is refused before anybody is asked.
func TestCommands_BadKeys(t *testing.T) {
	config, _ := worldWithoutDaemon(t)
	for _, key := range []string{"", ".", "..", "a..test", "[a.test", "a.test:no-such-service", "a b"} {
		for _, command := range []string{"flush", "refresh"} {
			_, err := typed(t, "cache", command, key, "--config", config)
			if exitCode(err) != exitFailure || !errors.Is(err, policy.ErrNoDestination) || !strings.HasPrefix(err.Error(), fmt.Sprintf("%q: ", key)) {
				t.Errorf("cache %s %q: %v", command, key, err)
			}
		}
	}
}

// A fetch that fails is a finding, and what is held is told to stay.
func TestCacheRefresh_Fails(t *testing.T) {
	config, dir := worldWithoutDaemon(t)
	fetched := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	if out, err := typed(t, "cache", "import", exported(t, dir, fetched, "a.test"), "--config", config); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	out, err := typed(t, "cache", "refresh", "a.test", "--config", config)
	until := fetched.Add(10 * 24 * time.Hour).Format(time.RFC3339)
	if exitCode(err) != exitFindings || out != "" || !strings.HasPrefix(err.Error(), "a.test: the policy could not be fetched: ") ||
		!strings.Contains(err.Error(), "mta-sts.a.test") || !strings.Contains(err.Error(), "stays until "+until) {
		t.Errorf("%d, %v, %s", exitCode(err), err, out)
	}
	out, err = typed(t, "cache", "refresh", "A.test", "--json", "--config", config)
	var h policy.HeldPolicy
	if e := json.Unmarshal([]byte(out), &h); e != nil || exitCode(err) != exitFindings || h.Domain != "a.test" || h.Failures == 0 {
		t.Errorf("--json: %v, %v, %s", e, err, out)
	}
	if _, err := typed(t, "cache", "refresh", "unknown.test", "--config", config); exitCode(err) != exitFindings {
		t.Errorf("not held: %v", err)
	}
}

// The running daemon understands the same keys.
func TestCommands_KeysOverTheControlSocket(t *testing.T) {
	config, dir := worldWithoutDaemon(t)
	d := testDaemon(t, standing{DNS: resolvertest.New("servfail _mta-sts.xn--bcher-kva.test TXT\nservfail _mta-sts.e0.test TXT")})
	d.postfix = newPostfixWatch(d)
	controlled(t, d, "unix:"+dir+"/control.sock")
	for _, keys := range [][3]string{
		{"xn--bcher-kva.test", "bücher.test", "BÜCHER.TEST"}, {"e0.test", "[e0.test]:25", "E0.test."},
	} {
		if out, err := typed(t, "cache", "import", exported(t, dir, time.Now().Add(-time.Hour), keys[0]), "--config", config); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
		if _, err := typed(t, "cache", "refresh", keys[1], "--config", config); exitCode(err) != exitFindings || !strings.HasPrefix(err.Error(), keys[0]+": the policy could not be fetched") {
			t.Errorf("refresh %s: %v", keys[1], err)
		}
		if out, err := typed(t, "cache", "flush", keys[2], "--config", config); err != nil {
			t.Errorf("flush %s: %v, %s", keys[2], err, out)
		}
		if _, err := typed(t, "cache", "show", keys[1], "--config", config); exitCode(err) != exitFindings {
			t.Errorf("show %s after flush: %v", keys[1], err)
		}
	}
}
