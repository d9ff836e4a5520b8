package dkim_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// peer is a process that verifies with libopendkim.
type peer struct {
	in  io.Writer
	out *bufio.Reader
}

// verdict is what libopendkim says of one signature.
type verdict struct {
	err    int // DKIM_SIGERROR of dkim.h
	passed bool
}

// peerDir is where buildPeer has put the program, to be removed at the end.
var peerDir string

// buildPeer compiles testdata/libopendkim.c once, for all tests.
var buildPeer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "libopendkim")
	if err != nil {
		return "", err
	}
	peerDir = dir
	path := filepath.Join(dir, "verify")
	out, err := exec.Command("cc", "-O2", "-Wall", "-o", path, "testdata/libopendkim.c", "-lopendkim").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cc: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if peerDir != "" {
		os.RemoveAll(peerDir)
	}
	os.Exit(code)
}

// libopendkim starts a peer, which ends with the test.
func libopendkim(t testing.TB) *peer {
	t.Helper()
	path, err := buildPeer()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("libopendkim-dev or a C compiler is missing in CI: %v", err)
		}
		t.Skipf("needs a C compiler and libopendkim-dev, which CI has: %v", err)
	}
	cmd := exec.Command(path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("libopendkim: %v", err)
		}
	})
	return &peer{in, bufio.NewReader(out)}
}

var (
	sigLine = regexp.MustCompile(` (\d+):(-?\d+):([01])`)
	cpuLine = regexp.MustCompile(` cpu=(\d+)\n`)
)

// verify verifies a message some times, and returns the verdicts and the CPU
// time for one.
func (p *peer) verify(t testing.TB, z zone, message string, times int) ([]verdict, time.Duration) {
	t.Helper()
	var names []string
	for name, records := range z {
		if len(records) == 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	fmt.Fprintf(p.in, "%d %d %d\n", times, len(names), len(message))
	for _, name := range names {
		text := z[name][0]
		if text == nobody {
			text = "?"
		}
		fmt.Fprintf(p.in, "%s %d\n%s", name, len(text), text)
	}
	io.WriteString(p.in, message)
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var all []verdict
	for _, m := range sigLine.FindAllStringSubmatch(line, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, verdict{n, m[3] == "1"})
	}
	m := cpuLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("answer %q", line)
	}
	ns, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return all, time.Duration(ns) / time.Duration(times)
}
