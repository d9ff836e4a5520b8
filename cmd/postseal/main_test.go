package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

// typed is the error of a command line, and what it printed.
func typed(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// What was not understood is a failure, and never the help with exit code 0.
func TestCommands_Misspelt(t *testing.T) {
	for line, want := range map[string]string{
		"explian example.com": `unknown command "postseal explian"; did you mean "postseal explain"?; postseal --help lists them`,
		"nonsense":            `unknown command "postseal nonsense"; postseal --help lists them`,
		"cache lst":           `unknown command "postseal cache lst"; did you mean "postseal cache list"?; postseal cache --help lists them`,
		"config chek":         `unknown command "postseal config chek"; did you mean "postseal config check"?; postseal config --help lists them`,
		"explain":             "which destination? For example: postseal explain example.com",
	} {
		if _, err := typed(t, strings.Fields(line)...); err == nil || err.Error() != want {
			t.Errorf("postseal %s: %v\nwant %s", line, err, want)
		}
	}
	for _, line := range []string{"", "cache", "config"} {
		if out, err := typed(t, strings.Fields(line)...); err != nil || !strings.Contains(out, "Available Commands:") {
			t.Errorf("postseal %s: %v, %q", line, err, out)
		}
	}
}

// Without a daemon and its file a command says where it looked, and what to do.
func TestCommands_NoDaemon(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "postseal.toml")
	text := "[control]\nlisten = \"unix:" + dir + "/control.sock\"\n[cache]\npath = \"" + dir + "/postseal.db\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := "no daemon is running (nobody listens on " + dir + "/control.sock); start it with: postseal serve"
	for line, want := range map[string]string{
		"reload":      nobody + "; or, where [control] listen was changed just now, reload it with: systemctl kill -s HUP postseal",
		"healthcheck": nobody,
		"cache list": "no daemon is running, and there is no " + dir + "/postseal.db; " +
			"start one with: postseal serve, or run this as its user and with its --config",
	} {
		_, err := typed(t, append(strings.Fields(line), "--config", config)...)
		if err == nil || err.Error() != want {
			t.Errorf("postseal %s: %v\nwant %s", line, err, want)
		}
		var exit *exitError
		if errors.As(err, &exit) {
			t.Errorf("postseal %s: exit code %d", line, exit.code)
		}
	}
}

// Started by hand the daemon makes the folder of its control socket, and only that one.
func TestControlFolderIsMade(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	d.sockets = newSockets(d, nil)
	ctx, stop := context.WithCancel(t.Context())
	dir := t.TempDir()
	for path, made := range map[string]bool{dir + "/run/control.sock": true, dir + "/no/such/control.sock": false} {
		svc := service{name: "control", serve: serveHTTP((&control{d}).handler())}
		if err := d.sockets.apply(ctx, svc, []place{{address: "unix:" + path, mode: 0o600}}); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(filepath.Dir(path))
		if (err == nil) != made || made && info.Mode().Perm() != 0o750 {
			t.Errorf("%s: %v, %v", filepath.Dir(path), info, err)
		}
	}
	stop()
	d.sockets.work.Wait()
}

// What is wrong with a configuration is told line by line, each beginning with
// the place, so that an editor can jump there.
func TestComplaint_BeginsWithThePlace(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "postseal.toml")
	if err := os.WriteFile(config, []byte("mode = \"off\"\n\n[http]\nlistn = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := func(line string, c string) string {
		_, err := typed(t, append(strings.Fields(line), "--config", c)...)
		if err == nil {
			t.Fatalf("postseal %s: no error", line)
		}
		var b bytes.Buffer
		complain(&b, err)
		return b.String()
	}
	places := config + ":1: mode: \"off\" is not allowed; write \"enforce\" or \"monitor\"\n" +
		config + ":4: http.listn: unknown key; did you mean \"listen\"?\n"
	absent := dir + "/absent.toml"
	for _, tt := range []struct{ line, config, want string }{
		{"config check", config, places},
		{"config show", config, places},
		{"cache list", config, places},
		{"reload", config, places + "postseal: the old configuration stays\n"},
		{"config check", absent, absent + ": no such file or directory\n"},
		{"config check", dir, dir + ": is a directory\n"},
		{"serve --json", config, "postseal: serve prints no object; for the log in JSON: postseal serve --log-format json\n"},
	} {
		if got := told(tt.line, tt.config); got != tt.want {
			t.Errorf("postseal %s: got\n%swant\n%s", tt.line, got, tt.want)
		}
	}
	out, err := typed(t, "reload", "--json", "--config", config)
	var o outcome
	if e := json.Unmarshal([]byte(out), &o); e != nil || err == nil || o.OK || len(o.Errors) != 2 {
		t.Errorf("reload --json: %s%v, %v", out, e, err)
	}
}

// A group that this machine does not have keeps a unix socket from being opened:
// the check says so before the daemon does.
func TestConfigCheck_UnknownGroup(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "postseal.toml")
	for text, want := range map[string]string{
		"[socketmap]\nlisten = ['unix:" + dir + "/s']\nunix_group = 'no-such-group'":  config + ":3: socketmap.unix_group: unix_group \"no-such-group\": group: unknown group no-such-group",
		"[control]\nlisten = 'unix:" + dir + "/c'\nunix_group = 'no-such-group'":      config + ":3: control.unix_group: unix_group \"no-such-group\": group: unknown group no-such-group",
		"[socketmap]\nlisten = ['inet:127.0.0.1:8463']\nunix_group = 'no-such-group'": "",
		"[socketmap]\nlisten = ['unix:" + dir + "/s']\nunix_group = '4711'":           "",
	} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := typed(t, "config", "check", "--config", config)
		if want == "" && err != nil || want != "" && (exitCode(err) != exitFailure || err.Error() != want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// After [control] listen was changed the daemon is still at its old place, which
// may be the usual one: that is asked as well.
func TestReload_ControlSocketMoved(t *testing.T) {
	dir := t.TempDir()
	usual, absent := "unix:"+dir+"/usual.sock", "unix:"+dir+"/absent.sock"
	d := testDaemon(t, standing{DNS: &resolvertest.DNS{}})
	d.opts = &globalOptions{configPath: dir + "/no.toml", configSet: true}
	d.serving = t.Context()
	controlled(t, d, usual)
	for _, tt := range []struct {
		configured, usual, want, warned string
	}{
		{usual, usual, dir + "/no.toml: no such file or directory", ""},
		{absent, usual, dir + "/no.toml: no such file or directory", "asked the daemon at " + dir + "/usual.sock"},
		{"", usual, dir + "/no.toml: no such file or directory", "asked the daemon at " + dir + "/usual.sock"},
		{absent, absent, "no daemon is running (nobody listens on " + dir + "/absent.sock)", ""},
		{absent, "unix:" + dir + "/neither.sock", "no daemon is running (nobody listens on " + dir + "/absent.sock)", ""},
		{"", absent, "no daemon is running that could be asked ([control] listen is empty)", ""},
	} {
		var warned bytes.Buffer
		err := reloadAt(t.Context(), &warned, tt.configured, tt.usual)
		if err == nil || err.Error() != tt.want || !strings.Contains(warned.String(), tt.warned) || (tt.warned == "") != (warned.Len() == 0) {
			t.Errorf("%q, %q: %v, %q", tt.configured, tt.usual, err, warned.String())
		}
	}
}
