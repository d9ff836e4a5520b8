package reach

import (
	"crypto/x509"
	"slices"
	"time"
)

// judgeDANE verifies as SSL_dane_enable(3) does with Postfix's settings: a match
// of DANE-EE(3) is all that is needed, a match of DANE-TA(2) makes a trust anchor
// and the names count. The public roots never do (RFC 7672 §3.1).
func judgeDANE(d demand, chain []*x509.Certificate, now time.Time) judgement {
	records := agile(d.records)
	var doubt string
	for _, r := range records {
		// RFC 7672 §3.1.1: neither names nor dates nor the chain count.
		if r.Usage == daneEE && r.matches(chain[0]) {
			return judgement{trust: verified, meets: true}
		}
		if r.MatchingType == full && !readable(r) {
			doubt = "a TLSA record holds what crypto/x509 cannot read"
		}
	}
	anchors := trustAnchors(records, chain, now)
	if len(anchors) == 0 {
		return judgement{trust: untrusted, doubt: doubt, cause: "num=65:no matching DANE TLSA records"}
	}
	roots := x509.NewCertPool()
	for _, a := range anchors {
		roots.AddCert(a)
	}
	if err := verifyChain(chain, roots, now); err != nil {
		cause, unsure := explain(err, chain, now)
		if unsure != "" {
			doubt = unsure
		}
		return judgement{trust: untrusted, doubt: doubt, cause: cause}
	}
	j := judgeNames(d, chain[0])
	if !j.meets {
		j.doubt = doubt
	}
	return j
}

// trustAnchors are the certificates that records of DANE-TA(2) make trusted.
func trustAnchors(records []TLSA, chain []*x509.Certificate, now time.Time) []*x509.Certificate {
	var all []*x509.Certificate
	for _, r := range records {
		if r.Usage != daneTA {
			continue
		}
		// RFC 7672 §3.1.2: the anchor is in the chain that the host sends. OpenSSL
		// looks for it above the host's own certificate only.
		for _, c := range chain[1:] {
			if r.matches(c) {
				all = append(all, undated(c, now))
			}
		}
		if r.MatchingType == full {
			all = append(all, unsent(r, chain)...) // RFC 7671 §5.2.2
		}
	}
	return all
}

// undated takes the dates off an anchor that another authority has issued:
// OpenSSL looks at those of a self-issued one only (internal_verify).
func undated(c *x509.Certificate, now time.Time) *x509.Certificate {
	if selfSigned(c) {
		return c
	}
	a := *c
	a.NotBefore, a.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
	return &a
}

// unsent are the anchors that a record brings along: the certificate, or, for a
// bare key, the certificates of the chain that the key has signed.
func unsent(r TLSA, chain []*x509.Certificate) []*x509.Certificate {
	if r.Selector == cert {
		if c, err := x509.ParseCertificate(r.Data); err == nil {
			return []*x509.Certificate{c}
		}
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil
	}
	signer := &x509.Certificate{PublicKey: key}
	var all []*x509.Certificate
	for _, algorithm := range []x509.PublicKeyAlgorithm{x509.RSA, x509.ECDSA, x509.Ed25519} {
		signer.PublicKeyAlgorithm = algorithm
		for _, c := range chain[:min(len(chain), maxChain)] {
			if !slices.Contains(all, c) && signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
				all = append(all, c)
			}
		}
	}
	return all
}

// readable says whether Go reads the full data of a record.
func readable(r TLSA) bool {
	if r.Selector == cert {
		_, err := x509.ParseCertificate(r.Data)
		return err == nil
	}
	_, err := x509.ParsePKIXPublicKey(r.Data)
	return err == nil
}
