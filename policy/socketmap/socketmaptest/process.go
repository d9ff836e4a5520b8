package socketmaptest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Serve serves a listener until the process ends.
type Serve func(net.Listener) error

// serverEnv names the server that a test binary is to be.
const serverEnv = "SOCKETMAPTEST_SERVER"

// Main is to be called first in TestMain. In a process of Start it serves and
// does not return; in any other it does nothing.
func Main(servers map[string]Serve) {
	name := os.Getenv(serverEnv)
	if name == "" {
		return
	}
	if err := serve(servers[name]); err != nil {
		fmt.Fprintf(os.Stderr, "socketmaptest: server %q: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve tells its address on standard output, and its CPU time for each line on
// standard input, until that ends.
func serve(s Serve) error {
	if s == nil {
		return fmt.Errorf("no such server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- s(l) }()
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			return err
		}
		fmt.Println(used.Utime.Nano() + used.Stime.Nano())
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// Process is a server in a process of its own.
type Process struct {
	Address string // on loopback, TCP
	name    string
	in      io.Writer
	out     *bufio.Reader
}

// Start starts the server that Main knows by name. It ends with the test.
func Start(tb testing.TB, name string) *Process {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("server %q: %v", name, err)
		}
	})
	p := &Process{name: name, in: in, out: bufio.NewReader(out)}
	if _, err := fmt.Fscanln(p.out, &p.Address); err != nil {
		tb.Fatalf("server %q did not start: %v", name, err)
	}
	return p
}

// CPU returns the time that the process has used, in user and in system mode.
func (p *Process) CPU(tb testing.TB) time.Duration {
	tb.Helper()
	fmt.Fprintln(p.in, "cpu")
	var ns int64
	if _, err := fmt.Fscanln(p.out, &ns); err != nil {
		tb.Fatalf("server %q: %v", p.name, err)
	}
	return time.Duration(ns)
}
