//go:build linux

package lab

import (
	"crypto/tls"
	"fmt"
	"strings"
)

// Behaviour is how a sink treats its clients. The zero value refuses nothing and needs Names.
type Behaviour struct {
	Names       string // certificate names, separated by commas
	Certificate string // kind: good, expired, self-signed, unknown-ca

	Refuse            bool // nobody listens: connections are refused
	Stuck             bool // the accept queue is full: connections time out
	Greet421          bool // 421 instead of a greeting
	NoSTARTTLS        bool // STARTTLS is not offered
	Stripped          bool // a box on the way has crossed STARTTLS out, as a Cisco ASA does
	STARTTLS454       bool // 454 to STARTTLS, as while a certificate is being renewed
	DropAfterSTARTTLS bool // the connection is closed after "220 ready"
	GarbageHandshake  bool // bytes that are no TLS after "220 ready"
	DropAtMAIL        bool // inside TLS, the connection is closed at MAIL FROM; in clear all is well
	RejectRCPT        bool // 450 to every recipient
	TLS12             bool // TLS 1.2 at most
	No8BITMIME        bool // neither 8BITMIME nor SMTPUTF8 is offered
}

// ParseBehaviour reads "NAME[,NAME…] [word…]", the form of a line in a story:
//
//	cert=KIND       certificate: expired, self-signed, unknown-ca
//	refuse stuck greet-421 no-starttls stripped starttls-454 drop-after-starttls garbage-handshake
//	drop-at-mail reject-rcpt tls12 no-8bitmime
func ParseBehaviour(words []string) (Behaviour, error) {
	if len(words) == 0 {
		return Behaviour{}, fmt.Errorf("sink: want NAME[,NAME…] [behaviour…]")
	}
	b := Behaviour{Names: words[0], Certificate: Good}
	switches := map[string]*bool{
		"refuse": &b.Refuse, "stuck": &b.Stuck, "greet-421": &b.Greet421, "no-starttls": &b.NoSTARTTLS,
		"stripped": &b.Stripped, "starttls-454": &b.STARTTLS454,
		"drop-after-starttls": &b.DropAfterSTARTTLS, "garbage-handshake": &b.GarbageHandshake,
		"drop-at-mail": &b.DropAtMAIL, "reject-rcpt": &b.RejectRCPT, "tls12": &b.TLS12,
		"no-8bitmime": &b.No8BITMIME,
	}
	for _, word := range words[1:] {
		if kind, ok := strings.CutPrefix(word, "cert="); ok {
			b.Certificate = kind
		} else if on := switches[word]; on != nil {
			*on = true
		} else {
			return b, fmt.Errorf("sink %s: unknown behaviour %q", words[0], word)
		}
	}
	return b, nil
}

// tlsConfig is the server side of STARTTLS; seen receives the client's server name.
func (b Behaviour) tlsConfig(pki *PKI, seen *string) (*tls.Config, error) {
	certificate, err := pki.Certificate(b.Certificate, b.Names)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			*seen = hello.ServerName
			return certificate, nil
		},
	}
	if b.TLS12 {
		config.MaxVersion = tls.VersionTLS12
	}
	return config, nil
}
