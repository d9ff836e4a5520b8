package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/cache/sqlite"
)

// children are what this test binary does when it is started by a test: in a
// process of its own, to be killed, or with limits of its own.
var children = map[string]func(path string) error{"write": writeForEver, "full": fillUp}

const childVariable = "POSTSEAL_SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childVariable)]; child != nil {
		if err := child(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startChild(t *testing.T, name, path string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], path)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// writeForEver puts records from several goroutines, and prints each key after
// Put has returned.
func writeForEver(path string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	base := rand.IntN(1 << 30)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := base + g; ; i += 4 {
				if err := s.Put(context.Background(), record(i)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				// One write, one line: the kernel has it when this returns.
				fmt.Fprintf(os.Stdout, "%d\n", i)
			}
		})
	}
	wg.Wait()
	return errors.New("a Put failed")
}

func TestSTS095_KillMinusNine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	promised := map[int]bool{}
	for range 6 {
		cmd, out := startChild(t, "write", path)
		kill := time.AfterFunc(time.Duration(50+rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var i int
			if _, err := fmt.Sscan(lines.Text(), &i); err == nil {
				promised[i] = true
			}
		}
		kill.Stop()
		_ = cmd.Wait()

		s := open(t, path)
		for i := range promised {
			if r, err := s.Get(t.Context(), "policy", record(i).Key); err != nil || string(r.Value) != string(value(i)) {
				t.Fatalf("record %d was promised: %v", i, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(promised) == 0 {
		t.Fatal("no child got as far as one Put")
	}
	if aside, _ := filepath.Glob(path + ".damaged*"); len(aside) != 0 {
		t.Errorf("kill -9 was taken for damage: %q", aside)
	}
}

// The lock goes with the process, and its holder is named while it lives.
func TestCCH09_LockOfAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	cmd, out := startChild(t, "write", path)
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the child does not write")
	}
	_, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if !errors.Is(err, sqlite.ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", cmd.Process.Pid)) {
		t.Errorf("Open beside process %d = %v", cmd.Process.Pid, err)
	}
	reader, err := sqlite.OpenReadOnly(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if count(t, reader) == 0 {
		t.Error("nothing to read beside the other process")
	}
	reader.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s := open(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// fillUp runs with a limit on the size of files, which refuses writes as a full
// disk does, and takes it away again.
func fillUp(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Put(ctx, record(0)); err != nil {
		return err
	}
	var unlimited unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		return err
	}
	limited := unix.Rlimit{Cur: 1 << 20, Max: unlimited.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limited); err != nil {
		return err
	}
	kept := 0
	for i := 1; err == nil && i < 10_000; i++ {
		if err = s.Put(ctx, record(i)); err == nil {
			kept = i
		}
	}
	switch {
	case err == nil || !strings.Contains(err.Error(), path):
		return fmt.Errorf("%d records fit, then: %v", kept, err)
	case s.Err() == nil:
		return errors.New("no Err()")
	}
	for i := range kept + 1 {
		if _, err := s.Get(ctx, "policy", record(i).Key); err != nil {
			return fmt.Errorf("record %d of %d, on the full disk: %w", i, kept, err)
		}
	}
	if _, err := s.Get(ctx, "policy", record(kept+1).Key); !errors.Is(err, cache.ErrNotFound) {
		return fmt.Errorf("the refused record: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unlimited); err != nil {
		return err
	}
	if err := s.Put(ctx, record(kept+1)); err != nil {
		return fmt.Errorf("after room was made: %w", err)
	}
	return s.Err()
}

func TestDiskFullAndNotAnyMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postseal.db")
	cmd, out := startChild(t, "full", path)
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	s := open(t, path)
	defer s.Close()
	if n := count(t, s); n < 2 {
		t.Errorf("%d records", n)
	}
	if aside, _ := filepath.Glob(path + ".damaged*"); len(aside) != 0 {
		t.Errorf("a full disk was taken for damage: %q", aside)
	}
}
