//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/e2e/lab"
)

const milterAddress = "127.0.0.1:8465"

// TestMLT02_MLT09_Dialogues tells the daemon dialogues by miltertest, which is another implementation of the protocol.
func TestMLT02_MLT09_Dialogues(t *testing.T) {
	t.Parallel()
	s := worldOf(t, installations(t)[0], "testdata/worlds/milter.txtar")
	t.Run("dialogues", func(t *testing.T) {
		scripts, err := filepath.Glob("testdata/miltertest/*.lua")
		if err != nil || len(scripts) < 2 {
			t.Fatalf("no dialogues: %v", err)
		}
		for _, script := range scripts {
			name := strings.TrimSuffix(filepath.Base(script), ".lua")
			if name == "common" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				runDialogue(t, s.world, script)
			})
		}
	})
	if panics := strings.Count(s.postseal.LogText(), "panic"); panics > 0 {
		t.Errorf("%d panics", panics)
	}
}

// runDialogue runs one script by miltertest.
func runDialogue(t *testing.T, world *lab.World, script string) {
	t.Helper()
	if _, err := exec.LookPath("miltertest"); err != nil {
		skip(t, "miltertest is not installed, which tells the dialogues")
	}
	common, err := os.ReadFile("testdata/miltertest/common.lua")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	// By itself miltertest ends without a word about an error.
	text := fmt.Sprintf("%s\nlocal ok, why = pcall(function()\n%s\nend)\nif not ok then mt.echo(tostring(why)) error(why) end\n", common, steps)
	file := filepath.Join(t.TempDir(), "script.lua")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), stepDeadline)
	defer cancel()
	var out strings.Builder
	cmd := exec.CommandContext(ctx, "miltertest", "-s", file)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := world.Network.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

// packet frames what is sent in one go.
func packet(code byte, data string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)+1))) + string(code) + data
}

// greeting is what Postfix says before the first message.
var greeting = packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff") + packet('C', "client.test\x004\x00\x19192.0.2.7\x00") + packet('H', "client.test\x00")

// abuse is what no mail server sends.
var abuse = []struct{ name, bytes string }{
	{"nothing", ""},
	{"half a length", "\x00\x00"},
	{"half a packet", "\x00\x00\x00\x0dO\x00\x00"},
	{"length zero", "\x00\x00\x00\x00"},
	{"length 2^31-1", "\x7f\xff\xff\xffO"},
	{"length 2^32-1", "\xff\xff\xff\xffB"},
	{"HTTP", "GET / HTTP/1.1\r\nHost: lab.test\r\n\r\n"},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
	{"SMTP", "EHLO lab.test\r\n"},
	{"an offer too short", packet('O', "\x00\x00")},
	{"an offer twice", greeting + packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")},
	{"no offer", packet('C', "client.test\x004\x00\x19192.0.2.7\x00")},
	{"an unknown command", greeting + packet('Z', "what")},
	{"a reply", greeting + packet('y', "550 no\x00")},
	{"connect without an address", packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff") + packet('C', "client.test")},
	{"connect of no family", packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff") + packet('C', "client.test\x009\x00\x19?\x00")},
	{"an address that is none", packet('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff") + packet('C', "client.test\x004\x00\x19not.an.address\x00")},
	{"empty macros", greeting + packet('D', "")},
	{"odd macros", greeting + packet('D', "Mi\x00")},
	{"macros without an end", greeting + packet('D', "Mi\x00Q1")},
	{"mail without an address", greeting + packet('M', "")},
	{"mail without an end", greeting + packet('M', "<s@lab.test>")},
	{"recipient first", greeting + packet('R', "<u@dest.test>\x00")},
	{"header first", greeting + packet('L', "From\x00 s@lab.test\x00")},
	{"a header of one string", greeting + packet('M', "<s@lab.test>\x00") + packet('L', "From\x00")},
	{"a header of no string", greeting + packet('M', "<s@lab.test>\x00") + packet('L', "")},
	{"a header of three strings", greeting + packet('M', "<s@lab.test>\x00") + packet('L', "From\x00a\x00b\x00")},
	{"end of header first", greeting + packet('N', "")},
	{"body first", greeting + packet('B', "hello\r\n")},
	{"end first", greeting + packet('E', "")},
	{"end twice", greeting + packet('M', "<s@lab.test>\x00") + packet('N', "") + packet('E', "") + packet('E', "")},
	{"body after the end", greeting + packet('M', "<s@lab.test>\x00") + packet('N', "") + packet('E', "") + packet('B', "hello\r\n")},
	{"mail twice", greeting + packet('M', "<s@lab.test>\x00") + packet('M', "<t@lab.test>\x00")},
	{"header after the body", greeting + packet('M', "<s@lab.test>\x00") + packet('N', "") + packet('B', "x") + packet('L', "From\x00 a\x00") + packet('E', "")},
	{"abort first", packet('A', "")},
	{"quit first", packet('Q', "")},
	{"quit in a message", greeting + packet('M', "<s@lab.test>\x00") + packet('Q', "")},
	{"much at once", greeting + strings.Repeat(packet('A', ""), 10_000)},
}

// TestMLT10_Abuse: what breaks the protocol ends its own connection at most. Every case is sent twice, to be closed at
// once and to stay open while the others are served.
func TestMLT10_Abuse(t *testing.T) {
	t.Parallel()
	s := worldOf(t, installations(t)[0], "testdata/worlds/milter.txtar")
	for _, a := range abuse {
		for _, stays := range []bool{false, true} {
			conn, err := s.world.Network.Dial("tcp", milterAddress)
			if err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
			if err := conn.SetDeadline(time.Now().Add(stepDeadline)); err != nil {
				t.Fatal(err)
			}
			// The other side may have closed it meanwhile.
			_, _ = conn.Write([]byte(a.bytes))
			if stays {
				defer conn.Close()
				continue
			}
			if err := halfClose(conn); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
		}
	}
	runDialogue(t, s.world, "testdata/miltertest/abort.lua")
	if text := s.postseal.LogText(); strings.Contains(text, "panic") {
		t.Errorf("it panicked: %s", text)
	}
}

// halfClose says that nothing more will come, and waits for the end of the other side: it must not hang on.
func halfClose(conn net.Conn) error {
	defer conn.Close()
	// It may be closed already.
	_ = conn.(*net.TCPConn).CloseWrite()
	buffer := make([]byte, 4096)
	for {
		if _, err := conn.Read(buffer); err != nil {
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				return fmt.Errorf("the connection stays open: %w", err)
			}
			return nil
		}
	}
}
