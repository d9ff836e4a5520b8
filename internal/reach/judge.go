package reach

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// judgement is what Postfix would think of a certificate.
type judgement struct {
	trust string // Anonymous, Untrusted, Trusted or Verified, as in the log
	meets bool   // the level is met
	doubt string // why this cannot be judged as surely as Postfix does
	cause string // why it is not met, the rest of a line of tls_verify.c
}

// The words of tls_misc.c for a session.
const (
	anonymous = "Anonymous"
	untrusted = "Untrusted"
	trusted   = "Trusted"
	verified  = "Verified"
)

// judge holds the chain that a host has sent, its own certificate first, against
// the demand. It is pure; roots nil means the system's.
func judge(d demand, chain []*x509.Certificate, roots *x509.CertPool, now time.Time) judgement {
	if len(chain) == 0 {
		return judgement{trust: anonymous, meets: !d.level.authenticates(), cause: "no certificate"}
	}
	if d.hopeless != "" {
		return judgement{trust: untrusted, cause: d.hopeless}
	}
	switch d.level {
	case Fingerprint:
		return judgeFingerprint(d, chain[0])
	case DANE, DANEOnly:
		return judgeDANE(d, chain, now)
	}
	j := judgePKIX(chain, roots, now)
	if !d.level.authenticates() {
		return judgement{trust: j.trust, meets: true}
	}
	if j.meets {
		return judgeNames(d, chain[0])
	}
	return j
}

// judgeNames ends the judgement of a certificate whose chain is trusted.
func judgeNames(d demand, leaf *x509.Certificate) judgement {
	if !matchNames(leaf, d.names) {
		return judgement{trust: trusted, cause: "num=62:hostname mismatch"}
	}
	return judgement{trust: verified, meets: true}
}

// judgeFingerprint: Postfix compares both digests, of the certificate and of its
// key, and nothing else; dates and names do not count (TLS_README).
func judgeFingerprint(d demand, leaf *x509.Certificate) judgement {
	for _, data := range [][]byte{leaf.Raw, leaf.RawSubjectPublicKeyInfo} {
		for _, p := range d.prints {
			if sum := digest(data, len(p)/2); sum != "" && sum == p {
				return judgement{trust: verified, meets: true}
			}
		}
	}
	return judgement{trust: untrusted, cause: "num=65:no matching DANE TLSA records"}
}

// digest returns the digest of so many octets, in hexadecimal. These are the
// algorithms that smtp_tls_fingerprint_digest can be given; MD5 was its default
// before Postfix 3.6.
func digest(data []byte, size int) string {
	var sum []byte
	switch size {
	case md5.Size:
		s := md5.Sum(data)
		sum = s[:]
	case sha1.Size:
		s := sha1.Sum(data)
		sum = s[:]
	case sha256.Size224:
		s := sha256.Sum224(data)
		sum = s[:]
	case sha256.Size:
		s := sha256.Sum256(data)
		sum = s[:]
	case sha512.Size384:
		s := sha512.Sum384(data)
		sum = s[:]
	case sha512.Size:
		s := sha512.Sum512(data)
		sum = s[:]
	}
	return hex.EncodeToString(sum)
}

// judgePKIX verifies the chain up to a root, without names.
func judgePKIX(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) judgement {
	if roots != nil && roots.Equal(x509.NewCertPool()) {
		return judgement{trust: untrusted, doubt: "no trust roots are configured"}
	}
	err := verifyChain(chain, roots, now)
	if err == nil {
		return judgement{trust: trusted, meets: true}
	}
	cause, doubt := explain(err, chain, now)
	return judgement{trust: untrusted, cause: cause, doubt: doubt}
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	found, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // see designated
	})
	if err == nil && !slices.ContainsFunc(found, designated) {
		err = x509.CertificateInvalidError{Cert: chain[0], Reason: x509.IncompatibleUsage}
	}
	return err
}

// designated: a certificate that has extended key usages must have one for
// servers, and so must those above it. Unlike Go, OpenSSL is not content with
// anyExtendedKeyUsage (v3_purp.c, check_purpose_ssl_server).
func designated(chain []*x509.Certificate) bool {
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageMicrosoftServerGatedCrypto, x509.ExtKeyUsageNetscapeServerGatedCrypto}
	for _, c := range chain {
		limited := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
		if limited && !slices.ContainsFunc(c.ExtKeyUsage, func(u x509.ExtKeyUsage) bool { return slices.Contains(server, u) }) {
			return false
		}
	}
	return true
}

// explain puts an error of crypto/x509 into the words of tls_log_verify_error().
// What Go refuses and OpenSSL might not is a doubt, never a cause.
func explain(err error, chain []*x509.Certificate, now time.Time) (cause, doubt string) {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return untrustedIssuer(chain), ""
	case !errors.As(err, &invalid):
		return "", printable(err.Error())
	}
	switch c := invalid.Cert; invalid.Reason {
	case x509.Expired:
		if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return now.Before(c.NotBefore) }) {
			return "certificate not yet valid", ""
		}
		return "certificate has expired", ""
	case x509.IncompatibleUsage:
		return "not designated for use as a server certificate", ""
	case x509.NotAuthorizedToSign:
		if !c.BasicConstraintsValid { // OpenSSL is content with other signs of a CA
			return "", printable(err.Error())
		}
		return "num=79:invalid CA certificate", ""
	case x509.TooManyIntermediates:
		return "num=25:path length constraint exceeded", ""
	case x509.CANotAuthorizedForThisName:
		return "num=47:permitted subtree violation", ""
	default:
		return "", printable(err.Error())
	}
}

// untrustedIssuer names the issuer at which the chain ends.
func untrustedIssuer(chain []*x509.Certificate) string {
	if leaf := chain[0]; selfSigned(leaf) {
		return "self-signed certificate"
	}
	top := chain[0]
	for range chain {
		above := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return c != top && issued(c, top) })
		if above < 0 || selfSigned(chain[above]) {
			break
		}
		top = chain[above]
	}
	return fmt.Sprintf("untrusted issuer %s", clip(printable(top.Issuer.String()), maxName))
}

func issued(parent, child *x509.Certificate) bool {
	return string(parent.RawSubject) == string(child.RawIssuer)
}

func selfSigned(c *x509.Certificate) bool { return issued(c, c) }
