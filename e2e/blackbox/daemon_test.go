package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// config is a configuration by section: the lines of each. The section "" is the top; "rule" is appended as it is.
type config map[string]string

// with is a copy with some sections replaced.
func (c config) with(other config) config {
	all := maps.Clone(c)
	maps.Copy(all, other)
	return all
}

func (c config) text() string {
	var b strings.Builder
	fmt.Fprintln(&b, c[""])
	for _, section := range slices.Sorted(maps.Keys(c)) {
		if section != "" && section != "rule" {
			fmt.Fprintf(&b, "[%s]\n%s\n", section, c[section])
		}
	}
	fmt.Fprintln(&b, c["rule"])
	return b.String()
}

// daemon is one running program.
type daemon struct {
	t    testing.TB
	dir  string
	file string // its configuration
	ip   string
	conf config
	env  []string
	wrap []string // commands in front of it

	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{}
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var lastDaemon atomic.Int32

// newDaemon writes a configuration; sections that c does not have get what the laboratory needs.
func newDaemon(t testing.TB, c config) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "bb") // short: a unix socket's path ends at 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := lastDaemon.Add(1)
	d := &daemon{t: t, dir: dir, file: filepath.Join(dir, "p.toml"), ip: fmt.Sprintf("127.1.%d.%d", n/250, n%250+1)}
	d.configure(d.usual().with(c))
	return d
}

func (d *daemon) usual() config {
	return config{
		"socketmap":  fmt.Sprintf("listen = [%q]\ndrain = \"1s\"", "inet:"+d.ip+":8463"),
		"delegation": "listen = []",
		"milter":     "listen = []",
		"http":       fmt.Sprintf("listen = [%q]", "inet:"+d.ip+":8466"),
		"control":    fmt.Sprintf("listen = %q", "unix:"+d.dir+"/c.sock"),
		"resolver":   fmt.Sprintf("servers = [%q]", resolverAddress),
		"tls_policy": `postfix_version = "3.7"`,
		"mta_sts":    fmt.Sprintf("ca_file = %q\nallow_networks = [\"127.0.0.0/8\"]", roots),
		"cache":      fmt.Sprintf("path = %q", d.dir+"/p.db"),
		"ledger":     fmt.Sprintf("path = %q", d.dir+"/l.db"),
	}
}

func (d *daemon) configure(c config) {
	d.t.Helper()
	d.conf = c
	if err := os.WriteFile(d.file, []byte(c.text()), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// startDaemon runs a daemon until the end of the test and waits until it answers.
func startDaemon(t testing.TB, c config) *daemon {
	t.Helper()
	d := newDaemon(t, c)
	d.start()
	return d
}

// in is the same daemon for a subtest, which fails by itself.
func (d *daemon) in(t testing.TB) *daemon {
	other := *d
	other.t = t
	return &other
}

func (d *daemon) environment() []string {
	env := []string{"PATH=" + d.dir, "HOME=" + d.dir, "MAIL_CONFIG=" + d.dir + "/no-postfix"}
	return append(env, d.env...)
}

// launch runs the program without waiting for it.
func (d *daemon) launch(arguments ...string) {
	d.t.Helper()
	line := append(slices.Clone(d.wrap), program)
	line = append(line, append([]string{"serve", "--config", d.file, "--log-level", "debug"}, arguments...)...)
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Env = d.environment()
	d.log = &logBuffer{}
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(d.cmd, d.done)
	d.t.Cleanup(d.kill)
}

func (d *daemon) start(arguments ...string) {
	d.t.Helper()
	d.launch(arguments...)
	d.await("an answer", func() bool {
		select {
		case <-d.done:
			d.t.Fatalf("the daemon ended:\n%s", d.log)
		default:
		}
		_, err := d.try("postseal", ".probe.invalid")
		return err == nil
	})
}

// kill is kill -9.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
	if d.t.Failed() && testing.Verbose() {
		d.t.Logf("log of %s:\n%s", d.ip, d.log)
	}
}

// terminate is SIGTERM and the wait for the end.
func (d *daemon) terminate() int {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	return d.ended()
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) ended() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Fatalf("the daemon does not end:\n%s", d.log)
	}
	return d.cmd.ProcessState.ExitCode()
}

// await polls for a condition.
func (d *daemon) await(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("no %s within %v; the log:\n%s", what, patience, d.log)
		}
	}
}

func (d *daemon) socketmap() string { return d.ip + ":8463" }

// ask puts one question on a connection of its own.
func (d *daemon) ask(mapName, key string) string {
	d.t.Helper()
	reply, err := d.try(mapName, key)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", mapName, key, err, d.log)
	}
	return reply
}

func (d *daemon) try(mapName, key string) (string, error) {
	c, err := dial("tcp", d.socketmap())
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ask(mapName, key)
}

// wants asks the map QUERY and compares.
func (d *daemon) wants(key, reply string) {
	d.t.Helper()
	if got := d.ask("QUERY", key); got != reply {
		d.t.Errorf("Q %s: got %q, want %q", key, got, reply)
	}
}

// client is a connection to the socketmap.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dial(network, address string) (*client, error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{conn, bufio.NewReader(conn)}, nil
}

func (d *daemon) dial() *client {
	d.t.Helper()
	c, err := dial("tcp", d.socketmap())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

func netstring(text string) string { return fmt.Sprintf("%d:%s,", len(text), text) }

func (c *client) ask(mapName, key string) (string, error) {
	if _, err := io.WriteString(c, netstring(mapName+" "+key)); err != nil {
		return "", err
	}
	return c.read()
}

func (c *client) read() (string, error) {
	digits, err := c.in.ReadString(':')
	if err != nil {
		return "", err
	}
	length, err := strconv.Atoi(strings.TrimSuffix(digits, ":"))
	if err != nil || length < 0 || length > 100000 {
		return "", fmt.Errorf("length %q", digits)
	}
	text := make([]byte, length+1)
	if _, err := io.ReadFull(c.in, text); err != nil {
		return "", err
	}
	if text[length] != ',' {
		return "", errors.New("no comma")
	}
	return string(text[:length]), nil
}

// result is what a command printed and how it ended.
type result struct {
	out, err string
	code     int
}

// run is a command of the program with the daemon's configuration.
func (d *daemon) run(arguments ...string) result {
	d.t.Helper()
	return d.runIn("", arguments...)
}

func (d *daemon) runIn(stdin string, arguments ...string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	line := append(slices.Clone(d.wrap), program)
	line = append(line, append(arguments, "--config", d.file)...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = d.environment()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		d.t.Fatalf("%v does not end", arguments)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must is run that has to succeed.
func (d *daemon) must(arguments ...string) string {
	d.t.Helper()
	r := d.run(arguments...)
	if r.code != 0 {
		d.t.Fatalf("%v: exit %d: %s%s", arguments, r.code, r.out, r.err)
	}
	return r.out
}

// object is a command that prints a JSON object.
func (d *daemon) object(arguments ...string) map[string]any {
	d.t.Helper()
	var v map[string]any
	text := d.must(append(arguments, "--json")...)
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		d.t.Fatalf("%v: %v: %s", arguments, err, text)
	}
	return v
}

// get is an HTTP request to the daemon.
func (d *daemon) get(path string) (int, string) {
	d.t.Helper()
	c := http.Client{Timeout: patience}
	resp, err := c.Get("http://" + d.ip + ":8466" + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
