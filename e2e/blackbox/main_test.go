package blackbox

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVariable tells the test binary that it runs in the namespace; its value is the program under test.
const insideVariable = "POSTSEAL_BLACKBOX"

// program is the binary under test.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	if program = os.Getenv(insideVariable); program != "" {
		os.Exit(inside(m))
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "blackbox:", err)
		if code = 1; os.Getenv("CI") == "" && errors.Is(err, errUnable) {
			fmt.Fprintln(os.Stderr, "blackbox: skipped")
			code = 0
		}
	}
	os.Exit(code)
}

// errUnable means that this machine cannot run the tests, which is no fault of the program.
var errUnable = errors.New("not possible here")

// outside builds the program and runs the tests again in a new network namespace.
func outside() (int, error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("%w: a network namespace needs root", errUnable)
	}
	dir, err := os.MkdirTemp("", "blackbox")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	binary := filepath.Join(dir, "postseal")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/postseal")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("building the program: %w", err)
	}
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"="+binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: new namespaces are refused: %w", errUnable, err)
	}
	if err := cmd.Wait(); err != nil {
		return 1, nil // the child has said why
	}
	return 0, nil
}

// inside prepares the namespace and the peers that all tests share.
func inside(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "blackbox:", err)
		return 2
	}
	defer closePeers()
	return m.Run()
}

// private is an address inside the namespace that a policy host must not live at: a connection to it would succeed.
const private = "10.77.0.1"

func prepare() error {
	for _, command := range [][]string{{"ip", "link", "set", "lo", "up"}, {"ip", "address", "add", private + "/32", "dev", "lo"}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, out)
		}
	}
	return openPeers()
}
