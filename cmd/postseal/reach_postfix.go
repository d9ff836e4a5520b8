package main

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Limits of what is read of Postfix's trust roots.
const (
	maxRootsFile  = 16 << 20 // octets; a bundle has about 220 kB
	maxRootsFiles = 2000     // of smtp_tls_CApath
)

// configure takes over how Postfix appears to mail hosts, and what [reach] says beside
// it. nil: no Postfix is known.
func (r *mailReach) configure(c ReachConfig, s *conf.Snapshot) {
	next := &client{ipv4: true, ipv6: true}
	helo, source, roots := "", []netip.Addr(nil), (*x509.CertPool)(nil)
	if sv := smtpService(s); sv != nil {
		helo = sv.Param("smtp_helo_name")
		for _, name := range []string{"smtp_bind_address", "smtp_bind_address6"} {
			if a, err := netip.ParseAddr(strings.Trim(sv.Param(name), "[]")); err == nil {
				source = append(source, a)
			}
		}
		roots, next.doubtRoots = postfixRoots(sv)
		next.versions, next.serverName = sv.Param("smtp_tls_mandatory_protocols"), sv.Param("smtp_tls_servername")
		next.match = certMatches(sv)
		// main.cf: inet_protocols = all, ipv4, ipv6, or both.
		if protocols := strings.ToLower(sv.Params["inet_protocols"]); protocols != "" && !strings.Contains(protocols, "all") {
			next.ipv4, next.ipv6 = strings.Contains(protocols, "ipv4"), strings.Contains(protocols, "ipv6")
		}
	}
	if c.HeloName != "" {
		helo = c.HeloName
	}
	if len(c.Source) > 0 {
		source = c.Source
	}
	next.prober = r.newProber(helo, source, roots)
	r.client.Store(next)
}

// certMatches are what certificates must show where the policy does not say
// (smtp_tls_policy.c): names are separated by
// colons too, digests have them inside.
func certMatches(sv *conf.Service) map[tlspolicy.Level][]string {
	all := map[tlspolicy.Level][]string{}
	for level, from := range map[tlspolicy.Level]struct{ param, separators string }{
		tlspolicy.Verify:      {"smtp_tls_verify_cert_match", ":, \t\r\n"},
		tlspolicy.Secure:      {"smtp_tls_secure_cert_match", ":, \t\r\n"},
		tlspolicy.Fingerprint: {"smtp_tls_fingerprint_cert_match", ", \t\r\n"},
	} {
		all[level] = strings.FieldsFunc(sv.Param(from.param), func(c rune) bool { return strings.ContainsRune(from.separators, c) })
	}
	return all
}

// smtpService is the service of smtp(8) that mail goes out by: one that asks us, else the
// first there is.
func smtpService(s *conf.Snapshot) *conf.Service {
	if s == nil {
		return nil
	}
	for _, list := range [][]*conf.Service{s.Ours(), s.Services} {
		for _, sv := range list {
			if sv.Command == "smtp" {
				return sv
			}
		}
	}
	return nil
}

// postfixRoots are the authorities that a service trusts; nil: the system's. Where
// they cannot be had nobody's certificate can be judged, and doubt says why.
func postfixRoots(sv *conf.Service) (roots *x509.CertPool, doubt string) {
	file, dir := sv.Param("smtp_tls_CAfile"), sv.Param("smtp_tls_CApath")
	if sv.Param("smtp_tls_trust_anchor_file") != "" {
		return nil, "certificates are trusted by smtp_tls_trust_anchor_file, which is not read here"
	}
	roots = x509.NewCertPool()
	if file == "" && dir == "" {
		return roots, "" // tls_append_default_CA adds to these alone
	}
	if strings.EqualFold(sv.Params["tls_append_default_CA"], "yes") {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Sprintf("the system's certificate authorities cannot be read: %v", err)
		}
		roots = system
	}
	if file != "" {
		if err := addRoots(roots, file); err != nil {
			return nil, fmt.Sprintf("smtp_tls_CAfile: %v", err)
		}
	}
	if dir != "" {
		if err := addRootsBelow(roots, dir); err != nil {
			return nil, fmt.Sprintf("smtp_tls_CApath: %v", err)
		}
	}
	return roots, ""
}

func addRoots(roots *x509.CertPool, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // opened to read only: nothing can be lost
	pem, err := io.ReadAll(io.LimitReader(f, maxRootsFile+1))
	switch {
	case err != nil:
		return err
	case len(pem) > maxRootsFile:
		return fmt.Errorf("%s has more than %d octets", path, maxRootsFile)
	case !roots.AppendCertsFromPEM(pem):
		return fmt.Errorf("no certificate in PEM form in %s", path)
	}
	return nil
}

// addRootsBelow reads a folder as OpenSSL does: the names that c_rehash(1) makes, the
// digest of a subject and a number.
func addRootsBelow(roots *x509.CertPool, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	read := 0
	for _, e := range entries {
		digest, number, ok := strings.Cut(e.Name(), ".")
		if _, err := hex.DecodeString(digest); err != nil || len(digest) != 8 || !ok || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if read++; read > maxRootsFiles {
			return fmt.Errorf("more than %d certificates in %s", maxRootsFiles, dir)
		}
		// One that cannot be read is none, to OpenSSL too.
		_ = addRoots(roots, filepath.Join(dir, e.Name()))
	}
	return nil
}
