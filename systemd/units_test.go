package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tool finds a program of systemd. Where there is none the test has nothing to
// ask; in CI there must be one.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing in CI: %v", name, err)
	}
	t.Skipf("%s is not installed here; CI has it", name)
	return ""
}

// installed copies the units to where systemd-analyze can read them, with a
// program that exists.
func installed(t *testing.T) (dir string, units []string) {
	t.Helper()
	dir = t.TempDir()
	for _, pattern := range []string{"*.service", "*.socket"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d units, %v", pattern, len(found), err)
		}
		for _, name := range found {
			unit := strings.ReplaceAll(read(t, name), "/usr/bin/postseal", "/bin/true")
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
				t.Fatal(err)
			}
			units = append(units, path)
		}
	}
	return dir, units
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

func TestUnitsVerify(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	_, units := installed(t)
	out, err := run(t, analyze, append([]string{"verify", "--man=no"}, units...)...)
	if err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestUnitsExposure(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir, _ := installed(t)
	// The threshold is in tenths.
	out, err := run(t, analyze, "security", "--offline=true", "--threshold=15", "--no-pager", filepath.Join(dir, "postseal.service"))
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	overall := regexp.MustCompile(`Overall exposure level for postseal\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if overall == nil {
		t.Fatalf("no overall level in:\n%s", out)
	}
	if level, err := strconv.ParseFloat(overall[1], 64); err != nil || level > 1.5 {
		t.Errorf("exposure level %s, want at most 1.5:\n%s", overall[1], out)
	}
}

// settings returns the values of a unit's keys.
func settings(t *testing.T, name string) map[string][]string {
	t.Helper()
	m := map[string][]string{}
	for line := range strings.Lines(read(t, name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			m[key] = append(m[key], value)
		}
	}
	return m
}

// TestPFX14_ServiceRestartsAndKeepsItsSockets holds the settings on which a
// restart without a deferred message rests, and which verify cannot judge.
func TestPFX14_ServiceRestartsAndKeepsItsSockets(t *testing.T) {
	service := settings(t, "postseal.service")
	for key, want := range map[string]string{
		"Type":                     "notify",
		"Restart":                  "always",
		"ExecReload":               "/usr/bin/postseal reload",
		"StartLimitIntervalSec":    "60",
		"StartLimitBurst":          "5",
		"StateDirectory":           "postseal",
		"RuntimeDirectory":         "postseal",
		"RuntimeDirectoryPreserve": "yes", // else stopping removes control.sock, which systemd holds
		"User":                     "postseal",
	} {
		if got := service[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if s := service["WatchdogSec"]; len(s) != 1 {
		t.Errorf("WatchdogSec=%q", s)
	}
	// The socketmap's drain of 105 s and its 10 s for answers under way.
	if stop, err := strconv.Atoi(service["TimeoutStopSec"][0]); err != nil || stop <= 105+10 {
		t.Errorf("TimeoutStopSec=%d, want above the drain", stop)
	}

	sockets, _ := filepath.Glob("*.socket")
	if got := strings.Fields(service["Sockets"][0]); len(got) != len(sockets) {
		t.Errorf("Sockets=%q, there are %q", got, sockets)
	}
	for _, name := range sockets {
		socket := settings(t, name)
		section := strings.TrimSuffix(strings.TrimPrefix(name, "postseal-"), ".socket")
		if got := socket["FileDescriptorName"]; len(got) != 1 || got[0] != section {
			t.Errorf("%s: FileDescriptorName=%q, want %q", name, got, section)
		}
		if got := socket["Service"]; len(got) != 1 || got[0] != "postseal.service" {
			t.Errorf("%s: Service=%q", name, got)
		}
		if got := socket["TriggerLimitIntervalSec"]; len(got) != 1 || got[0] != "0" {
			t.Errorf("%s: TriggerLimitIntervalSec=%q, want only the service's limit to count", name, got)
		}
		for _, list := range [][]string{service["Sockets"], service["Also"]} {
			if !strings.Contains(strings.Join(list, " "), name) {
				t.Errorf("%s is missing in %q", name, list)
			}
		}
		if backlog, err := strconv.Atoi(socket["Backlog"][0]); err != nil || backlog < 128 {
			t.Errorf("%s: Backlog=%d, want at least 128", name, backlog)
		}
	}
	if mode := settings(t, "postseal-control.socket")["SocketMode"]; len(mode) != 1 || mode[0] != "0600" {
		t.Errorf("control socket: mode %q, want 0600", mode)
	}
}

// TestUsersAndDirectories lets systemd itself read what it is given.
func TestUsersAndDirectories(t *testing.T) {
	absolute := func(name string) string {
		path, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if out, err := run(t, tool(t, "systemd-sysusers"), "--dry-run", absolute("postseal.sysusers")); err != nil {
		t.Errorf("systemd-sysusers: %v\n%s", err, out)
	}

	// An empty root has no users; ours stands in for the daemon's.
	root := t.TempDir()
	uid, gid := strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())
	for name, text := range map[string]string{
		"etc/passwd": "postseal:x:" + uid + ":" + gid + "::/:/bin/sh\n",
		"etc/group":  "postseal:x:" + gid + ":\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := run(t, tool(t, "systemd-tmpfiles"), "--create", "--root="+root, absolute("postseal.tmpfiles"))
	if err != nil {
		t.Errorf("systemd-tmpfiles: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(root, "run/postseal"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("/run/postseal: %v, %v", info, err)
	}
}
