package socketmap_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/policy/socketmap"
)

// postmap returns a function that asks as Postfix does, with Postfix's own code.
func postmap(t *testing.T, table string) func(key string) (stdout, stderr string, exit int) {
	t.Helper()
	path, err := exec.LookPath("postmap")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/postmap")
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("postmap is missing in CI: %v", err)
		}
		t.Skip("postmap is not installed here; CI has it")
	}
	conf := t.TempDir()
	if err := os.WriteFile(filepath.Join(conf, "main.cf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return func(key string) (string, string, int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "-q", key, table)
		cmd.Env = append(os.Environ(), "MAIL_CONFIG="+conf)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
	}
}

func TestPFX01_Postmap(t *testing.T) {
	long := "secure match=" + strings.Repeat("mx.example.com:", 6000) + "last"
	s := &socketmap.Server{Handler: socketmap.HandlerFunc(func(_ context.Context, dst, mapName, key []byte) []byte {
		switch string(key) {
		case "found.test":
			return socketmap.AppendOK(dst, "secure servername=hostname map="+string(mapName))
		case "Sub2.Multi.TEST": // PFX-03
			return socketmap.AppendOK(dst, "may")
		case "[relay.test]:25": // PFX-05
			return socketmap.AppendOK(dst, "encrypt")
		case "a b.test": // PFX-02
			return socketmap.AppendOK(dst, "fingerprint")
		case "long.test":
			return socketmap.AppendOK(dst, long)
		case "temp.test":
			return socketmap.AppendTemp(dst, "dns trouble")
		case "bad.test":
			return append(dst, "OK"...)
		case "panic.test":
			panic("asked to")
		}
		return socketmap.AppendNotFound(dst)
	})}
	ask := postmap(t, "socketmap:inet:"+start(t, s).String()+":postseal")
	for _, tc := range []struct {
		id, key, stdout, stderr string
		exit                    int
	}{
		{"PFX01", "found.test", "secure servername=hostname map=postseal\n", "", 0},
		{"PFX01", "none.test", "", "", 1},
		{"PFX02", "a b.test", "fingerprint\n", "", 0},
		{"PFX03", "Sub2.Multi.TEST", "may\n", "", 0},
		{"PFX05", "[relay.test]:25", "encrypt\n", "", 0},
		{"PFX08", "long.test", long + "\n", "", 0},
		{"PFX08", "bad.test", "", "temporary error: postseal: reply withheld: no known status before a space", 1},
		{"PFX13", "temp.test", "", "socketmap server temporary error: dns trouble", 1},
		{"PFX13", "panic.test", "", "temporary error: postseal: internal error, see its log", 1},
	} {
		stdout, stderr, exit := ask(tc.key)
		if stdout != tc.stdout || exit != tc.exit || !strings.Contains(stderr, tc.stderr) || (tc.stderr == "") != (stderr == "") {
			t.Errorf("%s: %s: exit %d, %q, %q", tc.id, tc.key, exit, stdout, stderr)
		}
	}
}
