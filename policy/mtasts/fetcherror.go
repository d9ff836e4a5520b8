package mtasts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Failure is the kind of a failed fetch, as TLSRPT reports it: RFC 8460 §4.3.2.
type Failure uint8

// The kinds of failure.
const (
	// FetchFailed: no policy could be had: DNS, connection, time, size, status
	// or media type. It may be passing.
	FetchFailed Failure = iota
	// WebPKIInvalid: the policy host's certificate is not valid for it.
	WebPKIInvalid
	// PolicyInvalid: what was served is not a valid policy.
	PolicyInvalid
)

// String returns the result type of RFC 8460 §4.3.2.
func (f Failure) String() string {
	switch f {
	case FetchFailed:
		return "sts-policy-fetch-error"
	case WebPKIInvalid:
		return "sts-webpki-invalid"
	case PolicyInvalid:
		return "sts-policy-invalid"
	}
	return "unknown"
}

// FetchError says why there is no policy, in words for whoever runs the policy
// host as well as for whoever sends the mail.
type FetchError struct {
	Kind       Failure
	Host       string         // the policy host, empty if there can be none
	StatusCode int            // of the HTTP response, zero if there was none
	Address    netip.AddrPort // that gave the failure, if known
	Hint       string         // what to do about it, may be empty
	Err        error
}

// Error is one printable line of at most some 2 kB: the address of the policy,
// what happened, and the hint.
func (e *FetchError) Error() string {
	text := printable(e.Err.Error())
	if e.Host != "" {
		text = "https://" + e.Host + policyPath + ": " + text
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *FetchError) Unwrap() error { return e.Err }

const maxCause = 1000 // bytes of a cause's text, room for eight addresses

// printable makes a line of the text of an error: crypto/x509 writes a hundred
// names of a certificate into it as they are.
func printable(s string) string {
	cut := len(s) > maxCause
	if cut {
		s = s[:maxCause]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

// judge tells what kind of failure a connection or request ended with.
func (f *Fetcher) judge(err error, host, canonical string) (Failure, string) {
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) && !errors.Is(err, errProxy) {
		if noRoots(f.RootCAs) {
			return FetchFailed, "there are no CA roots here: install ca-certificates or set ca_file"
		}
		return WebPKIInvalid, certificateHint(bad, host, canonical)
	}
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrRefused):
		return FetchFailed, "if it is meant to be there, add its network to [mta_sts] allow_networks"
	case errors.As(err, &plain):
		return FetchFailed, "the port does not speak TLS"
	case strings.Contains(err.Error(), "protocol version"):
		// crypto/tls has no error value for the version on our side.
		return FetchFailed, "the host offers no TLS 1.2 or newer"
	}
	return FetchFailed, ""
}

// noRoots tells whether nothing at all can be verified, which is not the policy
// host's fault: a container without ca-certificates.
func noRoots(pool *x509.CertPool) bool {
	if pool == nil {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			return true
		}
	}
	return pool.Equal(x509.NewCertPool())
}

func certificateHint(bad *tls.CertificateVerificationError, host, canonical string) string {
	chain := bad.UnverifiedCertificates
	if len(chain) == 0 {
		return ""
	}
	leaf := chain[0]
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(bad.Err, new(x509.HostnameError)):
		return nameHint(leaf, host, canonical)
	case time.Now().After(leaf.NotAfter):
		return "it expired on " + leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
	case time.Now().Before(leaf.NotBefore):
		return "it is not valid before " + leaf.NotBefore.UTC().Format(time.DateTime) + " UTC; are the clocks right?"
	case !errors.As(bad.Err, &unknown):
		return ""
	case bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		return "it is self-signed"
	case len(chain) == 1:
		return "the host sends its own certificate alone: the intermediate certificates are probably missing, see its full chain; issuer " +
			quote(leaf.Issuer.String())
	}
	return "issuer " + quote(leaf.Issuer.String())
}

// nameHint adds to crypto/x509's words, which list the names.
func nameHint(leaf *x509.Certificate, host, canonical string) string {
	switch {
	case canonical != "" && canonical != host:
		return fmt.Sprintf("%s is an alias of %s, which must have a certificate for %s", host, canonical, host)
	case len(leaf.DNSNames) == 0:
		// RFC 8461 §3.3: only a DNS-ID counts.
		return fmt.Sprintf("it has to name %s as a subject alternative name; a common name does not count", host)
	}
	return "it has to name " + host
}

// statusHint says what usually stands behind a status.
func statusHint(resp *http.Response) string {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return fmt.Sprintf("a redirect to %s, which senders must not follow: the policy has to be served at this very address",
			quote(resp.Header.Get("Location")))
	case http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "a CDN or firewall in front of the policy host may be refusing automatic clients: exempt this path from bot protection"
	case http.StatusNotFound, http.StatusGone:
		return "the host is there, but has no policy at this path"
	}
	return ""
}

func mediaHint(media string) string {
	switch strings.ToLower(strings.Trim(media, wsp)) {
	case "":
		return "the policy has to be served with Content-Type: text/plain"
	case "text/html", "application/xhtml+xml":
		return "the host answers with a web page instead of a policy"
	}
	return ""
}

// bodyHint recognises the page of a web server that answers 200 to everything.
func bodyHint(body []byte) string {
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return "the host answers with a web page instead of a policy"
	}
	return ""
}
