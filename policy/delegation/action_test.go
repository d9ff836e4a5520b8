package delegation

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestPOL04_Actions(t *testing.T) {
	for _, tc := range []struct {
		action Action
		want   string
	}{
		{Action{}, "DUNNO"},
		{Dunno(), "DUNNO"},
		{Reject(550, "5.7.27", "sender domain takes no mail"), "550 5.7.27 sender domain takes no mail"},
		{Reject(556, "5.1.10", "x"), "556 5.1.10 x"},
		{Reject(0, "5.7.10", "no TLS"), "REJECT 5.7.10 no TLS"},
		{Reject(550, "", "x"), "550 5.7.1 x"},
		{Reject(550, "5.7.1", ""), "550 5.7.1 Access denied"},
		{Reject(550, "5.7.1", " \r\n\t"), "550 5.7.1 Access denied"},
		{Defer(450, "4.7.10", "no TLS seen"), "450 4.7.10 no TLS seen"},
		{Defer(0, "", "x"), "DEFER 4.7.1 x"},
		{DeferIfPermit("4.7.10", "no TLS seen"), "DEFER_IF_PERMIT 4.7.10 no TLS seen"},
		{DeferIfPermit("", ""), "DEFER_IF_PERMIT 4.7.1 Access denied"},
		{Warn("look here"), "WARN look here"},
		{Warn(""), "WARN no reason given"},
		{Info("look here"), "INFO look here"},
		{Prepend("X-Postseal", "enforced"), "PREPEND X-Postseal: enforced"},
		{Prepend("X-Postseal", "a\r\nBcc: eve@evil.test"), "PREPEND X-Postseal: a  Bcc: eve@evil.test"},
		// Texts from outside.
		{Reject(550, "5.7.10", "a\naction=OK\n\naction=OK"), "550 5.7.10 a action=OK  action=OK"},
		{Reject(550, "5.7.10", "  trimmed\u0085 "), "550 5.7.10 trimmed"},
		{Reject(550, "5.7.10", "b\x00\x1b\x7f\xffücher \u2028 €"), "550 5.7.10 b?????cher   ?"},
		{Reject(550, "", "2.0.0 fine"), "550 5.7.1 2.0.0 fine"},
		{Warn("100% $sender %s"), "WARN 100% $sender %s"},
	} {
		b, err := tc.action.appendReply([]byte("before"), Rcpt)
		if want := "beforeaction=" + tc.want + "\n\n"; string(b) != want || err != nil {
			t.Errorf("%#v: %q, %v, want %q", tc.action, b, err, want)
		}
		if got := tc.action.String(); got != tc.want {
			t.Errorf("%#v: %s, want %s", tc.action, got, tc.want)
		}
	}
}

// TestPOL04_ActionsThatAreNotGiven: DUNNO goes out in their place.
func TestPOL04_ActionsThatAreNotGiven(t *testing.T) {
	for _, tc := range []struct {
		action Action
		at     State
		want   error
	}{
		{Reject(521, "5.7.1", "x"), Rcpt, errCode}, // disconnects
		{Defer(421, "4.7.1", "x"), Rcpt, errCode},
		{Reject(250, "5.7.1", "x"), Rcpt, errCode},
		{Reject(450, "5.7.1", "x"), Rcpt, errCode},
		{Reject(499, "5.7.1", "x"), Rcpt, errCode},
		{Reject(560, "5.7.1", "x"), Rcpt, errCode},
		{Reject(-550, "5.7.1", "x"), Rcpt, errCode},
		{Defer(550, "4.7.1", "x"), Rcpt, errCode},
		{Reject(550, "4.7.1", "x"), Rcpt, errStatus},
		{Reject(550, "2.0.0", "x"), Rcpt, errStatus},
		{Defer(450, "5.7.1", "x"), Rcpt, errStatus},
		{DeferIfPermit("5.7.1", "x"), Rcpt, errStatus},
		{Reject(550, "5.7", "x"), Rcpt, errStatus},
		{Reject(550, "5.7.", "x"), Rcpt, errStatus},
		{Reject(550, "5..1", "x"), Rcpt, errStatus},
		{Reject(550, "5.7.1.1", "x"), Rcpt, errStatus},
		{Reject(550, "5.7.1234", "x"), Rcpt, errStatus},
		{Reject(550, "5.7.1\n", "x"), Rcpt, errStatus},
		{Reject(550, "5.7.1 x", "x"), Rcpt, errStatus},
		{Prepend("", "x"), Rcpt, errField},
		{Prepend("A B", "x"), Rcpt, errField},
		{Prepend("A:", "x"), Rcpt, errField},
		{Prepend("A\n", "x"), Rcpt, errField},
		{Prepend("Ä", "x"), Rcpt, errField},
		{Prepend("A", ""), Rcpt, errField},
		{Prepend("A", "\n"), Rcpt, errField},
		{Prepend("A", strings.Repeat("x", 996)), Rcpt, errFieldLen},
		{Prepend("A", "x"), EndOfMessage, errStage},
		{Prepend("A", "x"), Connect, errStage},
		{Prepend("A", "x"), EHLO, errStage},
		{Prepend("A", "x"), "", errStage},
	} {
		b, err := tc.action.appendReply([]byte("before"), tc.at)
		if string(b) != "beforeaction=DUNNO\n\n" || !errors.Is(err, tc.want) {
			t.Errorf("%#v: %q, %v, want %v", tc.action, b, err, tc.want)
		}
	}
	if got := Reject(521, "", "").String(); got != "DUNNO ("+errCode.Error()+")" {
		t.Error(got)
	}
}

func TestPOL04_PrependWherePostfixTakesIt(t *testing.T) {
	longest := strings.Repeat("x", MaxField-len("A: "))
	for _, at := range []State{Mail, Rcpt, Data} {
		b, err := Prepend("A", longest).appendReply(nil, at)
		if string(b) != "action=PREPEND A: "+longest+"\n\n" || err != nil {
			t.Errorf("%s: %q, %v", at, b, err)
		}
	}
}

func TestPOL04_TextIsBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 1<<20), strings.Repeat("ü", 1<<20), strings.Repeat(" ", 1<<20) + strings.Repeat("x y ", 1<<10)} {
		b, err := Reject(550, "5.7.1", text).appendReply(nil, Rcpt)
		if n := len(b) - len("action=550 5.7.1 \n\n"); err != nil || n > MaxText || n < MaxText-1 {
			t.Errorf("%d bytes of text, %v", n, err)
		}
		if len(b) > len(actionPrefix)+len("PREPEND ")+MaxField+len(actionEnd) {
			t.Errorf("an answer of %d bytes", len(b))
		}
	}
	if b, _ := Prepend("A", strings.Repeat("x", MaxField-3)).appendReply(nil, Data); len(b) > len(actionPrefix)+len("PREPEND ")+MaxField+len(actionEnd) {
		t.Errorf("an answer of %d bytes", len(b))
	}
}

// sound is all that may ever go out. What access(5) would take for a list of restrictions,
// another action or another code is not in it.
var sound = regexp.MustCompile(`^action=(DUNNO` +
	`|(REJECT|5[0-5][0-9]) 5\.[0-9]{1,3}\.[0-9]{1,3} [!-~]([ -~]*[!-~])?` +
	`|(DEFER|DEFER_IF_PERMIT|4[0-5][0-9]) 4\.[0-9]{1,3}\.[0-9]{1,3} [!-~]([ -~]*[!-~])?` +
	`|(WARN|INFO) [!-~]([ -~]*[!-~])?` +
	`|PREPEND [!-9;-~]+: [!-~]([ -~]*[!-~])?)\n\n$`)

// FuzzAction: remote text never adds a line or an action, and what is asked for is what
// goes out, or DUNNO with an error.
func FuzzAction(f *testing.F) {
	f.Add(uint8(1), 550, "5.7.1", "a\n\naction=OK", uint8(0))
	f.Add(uint8(2), 421, "4.7.1", "x", uint8(1))
	f.Add(uint8(3), 0, "", "", uint8(2))
	f.Add(uint8(6), 0, "X-A", "b\r\n\tc", uint8(3))
	f.Add(uint8(4), 0, "", "\u2028\u0085\xff", uint8(0))
	f.Fuzz(func(t *testing.T, v uint8, code int, status, text string, at uint8) {
		a := [...]Action{Dunno(), Reject(code, status, text), Defer(code, status, text), DeferIfPermit(status, text),
			Warn(text), Info(text), Prepend(status, text)}[v%7]
		state := [...]State{Rcpt, Data, EndOfMessage, Mail, Connect}[at%5]
		b, err := a.appendReply(nil, state)
		if !sound.Match(b) || len(b) > len(actionPrefix)+len("PREPEND ")+MaxField+len(actionEnd) || bytes.Count(b, []byte("\n")) != 2 {
			t.Fatalf("%q", b)
		}
		if err != nil && string(b) != dunnoReply {
			t.Fatalf("%q with an error: %v", b, err)
		}
		want := [...]string{"DUNNO", "REJECT ", "DEFER ", "DEFER_IF_PERMIT ", "WARN ", "INFO ", "PREPEND "}[v%7]
		if code != 0 && (v%7 == 1 || v%7 == 2) {
			want = fmt.Sprintf("%d ", code)
		}
		if err == nil && !strings.HasPrefix(string(b), "action="+want) {
			t.Fatalf("%q, want %s", b, want)
		}
	})
}
