package systemd

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPFX14_Listeners starts this program by systemd's own socket activation.
func TestPFX14_Listeners(t *testing.T) {
	activate := tool(t, "systemd-socket-activate")
	dir := t.TempDir()
	map1, map2, control := filepath.Join(dir, "map1"), filepath.Join(dir, "map2"), filepath.Join(dir, "control")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, activate, "-E", activated+"=1",
		"--fdname=socketmap:socketmap:control", "-l", map1, "-l", map2, "-l", control, os.Args[0])
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	for conn == nil {
		var err error
		if conn, err = net.Dial("unix", map1); err != nil {
			if ctx.Err() != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v\n%s", line, err, &log)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, &out, &log)
	}
	if want := "[control=1 socketmap=2] again 0 <nil> environment \n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	// The file is the service manager's.
	if _, err := os.Stat(control); err != nil {
		t.Errorf("the socket's file is gone: %v", err)
	}
}

func TestListenersRefuseWhatIsNoListener(t *testing.T) {
	activate := tool(t, "systemd-socket-activate")
	dir := t.TempDir()
	path := filepath.Join(dir, "datagrams")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, activate, "-d", "-E", activated+"=1", "--fdname=http", "-l", path, os.Args[0])
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unixgram", path)
		if err == nil {
			_, err = conn.Write([]byte("wake up"))
			conn.Close()
		}
		if err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a datagram socket was taken for a listener")
	}
	for _, part := range []string{ErrActivation.Error(), "FileDescriptorName=http"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q does not name %q", &out, part)
		}
	}
}

func TestListenersWithoutSystemd(t *testing.T) {
	for _, environment := range []map[string]string{
		{},
		{"LISTEN_FDS": "2"},
		{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, // our parent's
		{"LISTEN_PID": "x", "LISTEN_FDS": "y", "LISTEN_FDNAMES": ":::"},
	} {
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			t.Setenv(name, environment[name])
		}
		if got, err := Listeners(); len(got) != 0 || err != nil {
			t.Errorf("%v: got %v, %v", environment, got, err)
		}
	}
}
