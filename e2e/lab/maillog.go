//go:build linux

package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// Delivery is one attempt to deliver a message to one recipient, as Postfix logged it.
type Delivery struct {
	ID        string // the message's token
	Recipient string
	Relay     string // host name, or "none"
	Port      string
	Status    string // sent, deferred, bounced
	DSN       string
	Reason    string // the text in parentheses
	TLS       string // the tls= field of 3.11 and newer
	Trust     string // of the TLS connection to that relay: Anonymous, Untrusted, Trusted, Verified; empty: none was logged
	Line      string
}

var (
	cleanupLine    = regexp.MustCompile(`/cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=<([^@>]+)@`)
	connectionLine = regexp.MustCompile(`/smtp\[(\d+)\]: (Anonymous|Untrusted|Trusted|Verified) TLS connection (?:established|reused) to ([^ ]+\]:\d+):`)
	deliveryLine   = regexp.MustCompile(`/[a-z-]+\[(\d+)\]: ([0-9A-Za-z]+): to=<([^>]*)>,(?: orig_to=<[^>]*>,)? relay=([^,]+),(.*) dsn=([0-9.]+), status=(\w+) \((.*)\)$`)
	tlsField       = regexp.MustCompile(` tls=([^,]+),`)
	relayName      = regexp.MustCompile(`^([^\[]+)\[[^\]]*\]:(\d+)$`)
)

// Maillog reads the log of one Postfix.
type Maillog struct{ path string }

// Lines are all lines so far. A log that is not there yet is empty.
func (l Maillog) Lines() []string {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return nil
	}
	lines := strings.Split(string(text), "\n")
	return lines[:len(lines)-1] // the last one is empty or still being written
}

// Tokens are the tokens of the messages so far, by queue id.
func (l Maillog) Tokens() map[string]string {
	tokens := make(map[string]string)
	for _, line := range l.Lines() {
		if m := cleanupLine.FindStringSubmatch(line); m != nil {
			tokens[m[1]] = m[2]
		}
	}
	return tokens
}

// Deliveries reads all delivery attempts so far, in order.
func (l Maillog) Deliveries() []Delivery { return parseDeliveries(l.Lines()) }

func parseDeliveries(lines []string) []Delivery {
	tokens := make(map[string]string) // queue id → token
	trust := make(map[string]string)  // process and relay → trust of its TLS connection
	var found []Delivery
	for _, line := range lines {
		if m := cleanupLine.FindStringSubmatch(line); m != nil {
			tokens[m[1]] = m[2]
		} else if m := connectionLine.FindStringSubmatch(line); m != nil {
			trust[m[1]+" "+m[3]] = m[2]
		} else if m := deliveryLine.FindStringSubmatch(line); m != nil {
			d := Delivery{ID: tokens[m[2]], Recipient: m[3], Relay: m[4], DSN: m[6], Status: m[7], Reason: m[8], Line: line}
			d.Trust = trust[m[1]+" "+m[4]]
			delete(trust, m[1]+" "+m[4])
			if f := tlsField.FindStringSubmatch(m[5]); f != nil {
				d.TLS = f[1]
			}
			if f := relayName.FindStringSubmatch(m[4]); f != nil {
				d.Relay, d.Port = f[1], f[2]
			}
			found = append(found, d)
		}
	}
	return found
}

// Count counts the lines that match.
func (l Maillog) Count(pattern *regexp.Regexp) int {
	return len(slices.DeleteFunc(l.Lines(), func(line string) bool { return !pattern.MatchString(line) }))
}
