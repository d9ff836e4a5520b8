package reach

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadReply(t *testing.T) {
	long := strings.Repeat("x", maxLine-len("220 \r\n"))
	for _, c := range []struct {
		in    string
		code  int
		lines []string
		rest  string
		err   error
	}{
		{"220 hi\r\nrest", 220, []string{"hi"}, "rest", nil},
		{"220\r\n", 220, []string{""}, "", nil},
		{"220 hi\n", 220, []string{"hi"}, "", nil},
		{"220 hi\r\r\n", 220, []string{"hi"}, "", nil},
		{"250-a\r\n250-b\r\n250 c\r\n250 d\r\n", 250, []string{"a", "b", "c"}, "250 d\r\n", nil},
		{"220-a\r\n554 b\r\n", 554, []string{"a", "b"}, "", nil},
		{"noise\r\n\r\n2\r\n22 x\r\n2200 x\r\n220x\r\n220 hi\r\n", 220, []string{"hi"}, "", nil},
		{"220 a\x00\x1b\xff\tb\r\n", 220, []string{"a??? b"}, "", nil},
		{"220 " + long + "\r\n", 220, []string{long}, "", nil},
		{"220 " + long + "x\r\n", 0, nil, "", errLine},
		{strings.Repeat("x", 5*maxLine), 0, nil, "", errLine},
		{strings.Repeat("250-x\r\n", maxLines) + "250 x\r\n", 0, nil, "", errReply},
		{strings.Repeat("\n", maxLines) + "250 x\r\n", 0, nil, "", errReply},
		{"", 0, nil, "", io.EOF},
		{"220 hi", 0, nil, "", io.ErrUnexpectedEOF},
		{"250-hi\r\n", 0, nil, "", io.ErrUnexpectedEOF},
	} {
		in := bufio.NewReaderSize(strings.NewReader(c.in), maxLine)
		got, err := readReply(in)
		if !errors.Is(err, c.err) || got.code != c.code || !slices.Equal(got.lines, c.lines) {
			t.Errorf("%.60q: %+v %v", c.in, got, err)
		}
		if rest, _ := io.ReadAll(in); err == nil && string(rest) != c.rest {
			t.Errorf("%.60q: %q left", c.in, rest)
		}
	}
}

func TestParseExtensions(t *testing.T) {
	for _, c := range []struct {
		lines    []string
		greeting string
		keywords []string
		startTLS bool
	}{
		{nil, "", nil, false},
		{[]string{"STARTTLS"}, "STARTTLS", nil, false},
		{[]string{"a hello", "STARTTLS"}, "a", []string{"STARTTLS"}, true},
		{[]string{"", "a", "starttls x"}, "a", []string{"starttls x"}, true},
		{[]string{"a", " =StartTLS=x"}, "a", []string{"StartTLS=x"}, true},
		{[]string{"a", "STARTTLSX", "-STARTTLS", "X STARTTLS"}, "a", []string{"STARTTLSX", "-STARTTLS", "X STARTTLS"}, false},
	} {
		e := parseExtensions(reply{250, c.lines})
		if e.greeting != c.greeting || !slices.Equal(e.keywords, c.keywords) || e.startTLS != c.startTLS {
			t.Errorf("%q: %+v", c.lines, e)
		}
	}
}

// FuzzReadReply: a reply read and written again is the same reply, all of it is
// printable and within the limits, how it arrives does not count, and nothing
// behind it is taken.
func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"220 hi\r\n", "250-a\r\n250-STARTTLS\r\n250 b\r\nrest", "noise\n220\n", "220-\x00\n220 =\n", "2 2\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		buffered := bufio.NewReaderSize(in, maxLine)
		got, err := readReply(buffered)
		slow, slowErr := readReply(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(data)), maxLine))
		if (err == nil) != (slowErr == nil) || slow.code != got.code || !slices.Equal(slow.lines, got.lines) {
			t.Fatalf("at once %+v %v, byte by byte %+v %v", got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		if consumed := len(data) - in.Len() - buffered.Buffered(); data[consumed-1] != '\n' {
			t.Fatalf("stopped within a line, at %d", consumed)
		}
		if len(got.lines) > maxLines || got.code > 999 || len(got.text()) > maxText {
			t.Fatalf("beyond the limits: %+v", got)
		}
		var again strings.Builder
		for i, l := range got.lines {
			if len(l) > maxLine || printable(l) != l || strings.ContainsAny(l, "\r\n") {
				t.Fatalf("%q", l)
			}
			separator := '-'
			if i == len(got.lines)-1 {
				separator = ' '
			}
			fmt.Fprintf(&again, "%03d%c%s\r\n", got.code, separator, l)
		}
		back, err := readReply(bufio.NewReaderSize(strings.NewReader(again.String()), maxLine+8))
		if err != nil || back.code != got.code || !slices.Equal(back.lines, got.lines) {
			t.Fatalf("%+v became %+v, %v", got, back, err)
		}
		for _, k := range parseExtensions(got).keywords {
			if k == "" || k[0] == ' ' {
				t.Fatalf("keyword %q", k)
			}
		}
	})
}

func TestStripped(t *testing.T) {
	for _, c := range []struct {
		banner, ehlo string
		want         string // contained; empty: nothing
	}{
		{"220 mx ESMTP", ehlo250, ""},
		{"220 mx ESMTP", ehlo250None, ""},
		{"220 ****************************************************0*2******0***********************2******200**0*00", ehlo250, "greeting is masked, as by Cisco PIX or ASA"},
		{"220", ehlo250None, ""},
		{"220 *** Welcome ***", ehlo250None, ""},
		{"220 mx", "250-mx\r\n250-XXXXXXXA\r\n250 SIZE\r\n", "XXXXXXXA stands where STARTTLS was, as by Cisco ASA"},
		{"220 mx", "250-mx\r\n250-XXXXXXXX\r\n250 SIZE\r\n", "XXXXXXXX is crossed out"},
		{"220 mx", "250-mx\r\n250 XXXXXXXXXXXXXXXXXXXXXXXB\r\n", "is crossed out"},
		{"220 mx", "250-mx\r\n250-XXXXXXXA\r\n250 STARTTLS\r\n", ""},
		{"220 mx", "250-mx\r\n250 XSTARTTLS\r\n", "XSTARTTLS is a spoiled STARTTLS"},
		{"220 mx", "250-mx\r\n250 X-STARTTLS\r\n", "X-STARTTLS is a spoiled STARTTLS"},
		{"220 mx", "250-mx\r\n250 STARTTXX\r\n", "STARTTXX is a spoiled STARTTLS"},
		{"220 mx", "250-mx\r\n250 XTARTTLS\r\n", "XTARTTLS is a spoiled STARTTLS"},
		// Exchange, Postfix and others
		{"220 mx", "250-mx\r\n250-X-ANONYMOUSTLS\r\n250-X-EXPS GSSAPI NTLM\r\n250-XEXCH50\r\n250-XRDST\r\n250-XSHADOWREQUEST\r\n250-XCLIENT NAME ADDR\r\n250-XXX\r\n250-8BITMIME\r\n250 XFORWARD\r\n", ""},
	} {
		read := func(s string) reply {
			r, err := readReply(bufio.NewReaderSize(strings.NewReader(s), maxLine))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		got := strippedBy(read(c.banner+"\r\n"), parseExtensions(read(c.ehlo)))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q %q: %q, want %q", c.banner, c.ehlo, got, c.want)
		}
	}
}
