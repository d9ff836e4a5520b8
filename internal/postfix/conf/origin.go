package conf

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// maxOrigin is how much of the file behind myorigin is read, in bytes: a name has 253.
const maxOrigin = 1 << 10

// readOrigin finds the domain that Postfix gives to addresses without one: myorigin, or
// with a "/" at its beginning, on Debian, the first line of that file. Empty: not known.
func readOrigin(myorigin string) string {
	if !strings.HasPrefix(myorigin, "/") {
		return myorigin
	}
	f, err := os.Open(myorigin)
	if err != nil {
		return ""
	}
	defer f.Close()
	line := bufio.NewScanner(io.LimitReader(f, maxOrigin))
	line.Scan() // nothing, also after an error, is not known
	return strings.TrimSpace(line.Text())
}

// Complete writes an address of an envelope that has no domain as Postfix will
// (src/trivial-rewrite/rewrite.c, with its default swap_bangpath and allow_percent_hack):
// site!user and user%site become user@site, any other gets myorigin. Postfix does so
// after smtpd(8) has asked its policy services.
func (s *Snapshot) Complete(address string) string {
	if address == "" || strings.Contains(address, "@") {
		return address
	}
	if site, user, ok := strings.Cut(address, "!"); ok {
		return user + "@" + site
	}
	if i := strings.LastIndexByte(address, '%'); i >= 0 {
		return address[:i] + "@" + address[i+1:]
	}
	if s == nil || s.Origin == "" {
		return address
	}
	return address + "@" + s.Origin
}
