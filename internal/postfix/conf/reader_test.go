package conf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// program puts a program into a folder of its own. It is a link to one that is
// installed: a file just written may still be open in another test's child.
func program(t *testing.T, target string) string {
	t.Helper()
	target, err := filepath.Abs(target)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "postconf")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoPostfix(t *testing.T) {
	t.Run("no postconf", func(t *testing.T) {
		r := Reader{Postconf: filepath.Join(t.TempDir(), "postconf")}
		if _, err := r.Read(t.Context()); !errors.Is(err, ErrNoPostfix) {
			t.Error(err)
		}
	})
	t.Run("postconf without main.cf", func(t *testing.T) {
		r := Reader{Postconf: program(t, "testdata/postconf"), ConfigDir: t.TempDir()}
		if _, err := r.Read(t.Context()); !errors.Is(err, ErrNoPostfix) {
			t.Error(err)
		}
	})
	t.Run("MAIL_CONFIG without main.cf", func(t *testing.T) {
		t.Setenv("MAIL_CONFIG", t.TempDir())
		r := Reader{Postconf: program(t, "testdata/postconf")}
		if _, err := r.Read(t.Context()); !errors.Is(err, ErrNoPostfix) {
			t.Error(err)
		}
	})
	t.Run("relative folders of PATH are not searched", func(t *testing.T) {
		t.Chdir(filepath.Dir(program(t, "testdata/postconf")))
		t.Setenv("PATH", ".")
		for _, path := range (&Reader{}).candidates() {
			if !filepath.IsAbs(path) {
				t.Errorf("%q", path)
			}
		}
	})
}

func TestUnreadable(t *testing.T) {
	dir := instance(t, readCase(t, "testdata/bare.txtar"), []byte("$ postconf -F\n"))
	for name, c := range map[string]struct{ program, want string }{
		"fails":       {"testdata/postconf", "not recorded"},
		"says naught": {"/bin/true", "no mail_version"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Reader{Postconf: program(t, c.program), ConfigDir: dir}
			_, err := r.Read(t.Context())
			if !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2*maxComplaint {
				t.Error(err)
			}
		})
	}
	t.Run("too much", func(t *testing.T) {
		answers := "$ postconf -x " + strings.Join(parameters(), " ") + "\n" + strings.Repeat("x = "+strings.Repeat("y", 1000)+"\n", maxOutput/1000)
		dir := instance(t, readCase(t, "testdata/bare.txtar"), []byte(answers))
		r := Reader{Postconf: program(t, "testdata/postconf"), ConfigDir: dir}
		if _, err := r.Read(t.Context()); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), "more than") {
			t.Error(err)
		}
	})
	t.Run("never answers", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := place{postconf: "/bin/sleep"}.run(ctx, "60")
		if !errors.Is(err, ErrUnreadable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// postconf gets nothing of our environment but MAIL_CONFIG, and no shell.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	t.Setenv("MAIL_CONFIG", "/etc/postfix-out")
	out, err := place{postconf: "/usr/bin/env"}.run(t.Context())
	if err == nil && (strings.Contains(out, "SECRET") || !strings.Contains(out, "MAIL_CONFIG=/etc/postfix-out\n")) || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	out, err = place{postconf: "/bin/echo"}.run(t.Context(), "-o", "x=$(id);`id`", "y")
	if err != nil || out != "-o x=$(id);`id` y\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// told is what Watch told.
type told struct {
	s   *Snapshot
	err error
}

// watch runs Watch in a bubble; the function it gives waits for so long and
// returns what was told meanwhile.
func watch(t *testing.T, r *Reader) (wait func(time.Duration) []told, stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var all []told
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func(s *Snapshot, err error) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, told{s, err})
		})
	}()
	wait = func(d time.Duration) []told {
		time.Sleep(d)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		since := all
		all = nil
		return since
	}
	return wait, func() error { cancel(); return <-done }
}

// recorded gives the answers of one version.
func recorded(t *testing.T, path, version string) []byte {
	t.Helper()
	return get(readCase(t, path), answersPrefix+version)
}

func TestPFX23_WatchReadsAgainWhatChanged(t *testing.T) {
	dir := instance(t, readCase(t, "testdata/bare.txtar"), recorded(t, "testdata/bare.txtar", "3.11.7"))
	r := &Reader{Postconf: program(t, "testdata/postconf"), ConfigDir: dir, Endpoints: ourEndpoints}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		wait, stop := watch(t, r)
		if got := wait(time.Second); len(got) != 1 || got[0].err != nil || got[0].s.Version.String() != "3.11.7" {
			t.Fatalf("at start: %+v", got)
		}
		if got := wait(time.Hour); len(got) != 0 {
			t.Errorf("nothing changed: %+v", got)
		}
		// An upgrade: main.cf is touched, postconf is another one.
		write("answers", recorded(t, "testdata/bare.txtar", "3.7.11"))
		write("main.cf", []byte("# changed\n"))
		if got := wait(2 * pollInterval); len(got) != 1 || got[0].err != nil || got[0].s.Version.String() != "3.7.11" {
			t.Errorf("after a change: %+v", got)
		}
		// A half-written configuration is tried again until it can be read.
		write("answers", nil)
		write("master.cf", []byte("# half\n"))
		got := wait(2 * pollInterval)
		if len(got) == 0 || !errors.Is(got[0].err, ErrUnreadable) || got[0].s != nil {
			t.Errorf("unreadable: %+v", got)
		}
		if n := len(wait(time.Hour)); n < 10 || n > 30 {
			t.Errorf("%d tries in an hour", n)
		}
		write("answers", recorded(t, "testdata/bare.txtar", "3.10.13"))
		if got := wait(maxRetryInterval); len(got) != 1 || got[0].err != nil {
			t.Errorf("readable again: %+v", got)
		}
		// Removed, and installed again.
		if err := os.Rename(filepath.Join(dir, "main.cf"), filepath.Join(dir, "old")); err != nil {
			t.Fatal(err)
		}
		if got := wait(time.Hour); len(got) != 1 || !errors.Is(got[0].err, ErrNoPostfix) {
			t.Errorf("removed: %+v", got)
		}
		if err := os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "main.cf")); err != nil {
			t.Fatal(err)
		}
		if got := wait(2 * pollInterval); len(got) != 1 || got[0].err != nil {
			t.Errorf("installed again: %+v", got)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
