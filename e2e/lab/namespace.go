//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// stageVariable tells a re-executed program which process it is: the first of the namespace ("init") or its only child
// ("inside").
const stageVariable = "POSTSEAL_LAB_STAGE"

// ErrUnable means that this machine cannot hold the laboratory: not Linux's root, or namespaces are refused. The text
// names the reason.
var ErrUnable = errors.New("no laboratory here")

// Inside tells whether the program runs in the laboratory.
func Inside() bool { return os.Getenv(stageVariable) == "inside" }

// Enter runs the program again, with the same arguments, inside new namespaces and returns its exit code. Inside, it
// returns at once with inside = true. Errors are [ErrUnable] and its cause.
//
// There are two processes: the first of the pid namespace prepares the mounts and then only buries orphans, as the
// daemons of Postfix detach themselves; the program proper is its child.
func Enter(environment ...string) (inside bool, code int, err error) {
	switch os.Getenv(stageVariable) {
	case "inside":
		return true, 0, nil
	case "init":
		os.Exit(initialize())
	}
	if os.Geteuid() != 0 {
		return false, 0, fmt.Errorf("%w: it needs root, for namespaces and for Postfix's master", ErrUnable)
	}
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := again("init", environment)
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return false, 0, fmt.Errorf("%w: new namespaces are refused: %w", ErrUnable, err)
	}
	return false, exitCode(cmd.Wait()), nil
}

// again is a command for this program with these arguments and the given stage.
func again(stage string, environment []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), environment...)
	cmd.Env = append(cmd.Env, stageVariable+"="+stage)
	return cmd
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 2
	}
}

// initialize is the life of the first process.
func initialize() int {
	if err := mountAll(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 2
	}
	cmd := again("inside", nil)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 2
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "lab: waiting for children:", err)
			return 2
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus()
		case pid == cmd.Process.Pid && status.Signaled():
			fmt.Fprintln(os.Stderr, "lab: ended by", status.Signal())
			return 2
		}
	}
}

// resolverFiles are what every process of the laboratory reads instead of the host's own. glibc strips AD without
// trust-ad.
var resolverFiles = map[string]string{
	"resolv.conf":   "nameserver 127.0.0.1\noptions trust-ad edns0\n",
	"hosts":         "127.0.0.1 localhost\n",
	"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
}

func mountAll() error {
	// Nothing that is mounted from here on is seen outside.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0); err != nil {
		return err
	}
	if err := unix.Mount("lab", Dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting a tmpfs on %s: %w", Dir, err)
	}
	if err := os.Mkdir(filepath.Join(Dir, "etc"), 0o755); err != nil {
		return err
	}
	for name, text := range resolverFiles {
		if err := os.WriteFile(filepath.Join(Dir, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := bindResolverFiles("/"); err != nil {
		return err
	}
	for _, root := range Roots() {
		if err := mountRoot(root); err != nil {
			return err
		}
	}
	return nil
}

// mountRoot makes another root file system fit for a chroot: the same worlds under the same path, /proc, /dev and the
// laboratory's resolver files.
func mountRoot(root string) error {
	if err := mount(Dir, filepath.Join(root, Dir), "", unix.MS_BIND); err != nil {
		return err
	}
	if err := mount("proc", filepath.Join(root, "proc"), "proc", 0); err != nil {
		return err
	}
	if err := mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC); err != nil {
		return err
	}
	return bindResolverFiles(root)
}

func bindResolverFiles(root string) error {
	for name := range resolverFiles {
		target := filepath.Join(root, "etc", name)
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			continue // glibc's defaults are the same: 127.0.0.1, and files before DNS
		}
		// A symbolic link (systemd-resolved) is followed by mount(2) to a file that may not exist here.
		if real, err := filepath.EvalSymlinks(target); err == nil {
			target = real
		}
		if err := mount(filepath.Join(Dir, "etc", name), target, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr) error {
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", strings.TrimSpace(source+" on "+target), err)
	}
	return nil
}
