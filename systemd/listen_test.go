package systemd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func unixSpec(path string) Spec { return Spec{Address: Address{"unix", path}} }

func listen(t *testing.T, spec Spec) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListenInet(t *testing.T) {
	l := listen(t, Spec{Address: Address{"tcp", "127.0.0.1:0"}})
	taken := Address{"tcp", l.Addr().String()}
	if !taken.Equal(l) {
		t.Errorf("%v is not where %v listens", taken, l.Addr())
	}
	_, err := Listen(t.Context(), Spec{Address: taken})
	if !errors.Is(err, ErrInUse) || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.String()) {
		t.Errorf("address in use: %v", err)
	}
	_, err = Listen(t.Context(), Spec{Address: Address{"tcp", "192.0.2.1:1"}})
	if !errors.Is(err, ErrListen) {
		t.Errorf("somebody else's address: %v", err)
	}
}

func TestListenUnix_ModeAndGroup(t *testing.T) {
	gid := os.Getgid()
	if groups, err := os.Getgroups(); err == nil {
		for _, g := range groups {
			gid = g
		}
	}
	if os.Getuid() == 0 {
		gid = 12345
	}
	for _, tc := range []struct {
		spec Spec
		mode os.FileMode
		gid  int
	}{
		{Spec{}, DefaultMode, os.Getgid()},
		{Spec{Mode: 0o666}, 0o666, os.Getgid()},
		{Spec{Mode: 0o600, Group: strconv.Itoa(gid)}, 0o600, gid},
	} {
		path := filepath.Join(t.TempDir(), "sock")
		tc.spec.Address = Address{"unix", path}
		l := listen(t, tc.spec)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != tc.mode {
			t.Errorf("%+v: mode %o, want %o", tc.spec, info.Mode().Perm(), tc.mode)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); got != tc.gid {
			t.Errorf("%+v: group %d, want %d", tc.spec, got, tc.gid)
		}
		if !tc.spec.Address.Equal(l) {
			t.Errorf("listens at %v", l.Addr())
		}
		l.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there after Close: %v", err)
		}
	}
}

// leaveStale leaves a socket as a killed process would.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestListenUnix_StaleIsReplacedLiveIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	leaveStale(t, path)
	l := listen(t, unixSpec(path))

	_, err := Listen(t.Context(), unixSpec(path))
	if !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: %v", err)
	}
	// The attempt has not taken the socket away.
	go func() {
		if c, err := l.Accept(); err == nil { // of the attempt
			c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestListenUnix_Errors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		why  string
		spec Spec
		want string
	}{
		{"no directory", unixSpec(filepath.Join(dir, "none", "sock")), "install -d"},
		{"a file as directory", unixSpec(filepath.Join(file, "sock")), "no directory"},
		{"a file in its place", unixSpec(file), "no socket"},
		{"a link in its place", unixSpec(link), "no socket"},
		{"no such group", Spec{Address: Address{"unix", filepath.Join(dir, "s")}, Group: "no-such-group"}, "no-such-group"},
	} {
		_, err := Listen(t.Context(), tc.spec)
		if !errors.Is(err, ErrListen) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.spec.Address.String()) {
			t.Errorf("%s: %v, want %q", tc.why, err, tc.want)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

// A second listener on a socket takes over what waits, and the file with it.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, spec := range []Spec{unixSpec(path), {Address: Address{"tcp", "127.0.0.1:0"}}} {
		first := listen(t, spec)
		waiting, err := net.Dial(first.Addr().Network(), first.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		second, err := Again(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if c, err := second.Accept(); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		if c, err := net.Dial(second.Addr().Network(), second.Addr().String()); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		if _, err := Again(second); !errors.Is(err, ErrListen) {
			t.Errorf("of a closed one: %v", err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file stays: %v", err)
	}
}

func TestDress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, unixSpec(path))
	for _, mode := range []os.FileMode{0o600, 0o666, 0} {
		if err := Dress(Spec{Address: Address{"unix", path}, Mode: mode}); err != nil {
			t.Error(err)
		}
		want := mode
		if mode == 0 {
			want = DefaultMode
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%v: %v, %v", mode, info.Mode(), err)
		}
	}
	if err := Dress(Spec{Address: Address{"unix", path + "x"}}); !errors.Is(err, ErrListen) {
		t.Errorf("no such file: %v", err)
	}
	if err := Dress(Spec{Address: Address{"tcp", "127.0.0.1:1"}, Group: "no-such-group"}); err != nil {
		t.Errorf("no file: %v", err)
	}
}
