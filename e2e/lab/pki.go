//go:build linux

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// PKI is a certification authority, and a second one that nobody trusts. Each name has one key, whatever certificate
// is made for it, so that a TLSA record can be written before a server exists.
type PKI struct {
	trusted, unknown *authorityKey

	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey
}

type authorityKey struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// The kinds of certificate that a server can present.
const (
	Good       = "good"        // issued by the trusted authority for the name
	Expired    = "expired"     // as good, but ended yesterday
	SelfSigned = "self-signed" // issued by its own key
	UnknownCA  = "unknown-ca"  // issued by an authority that nobody trusts
)

// NewPKI makes the two authorities.
func NewPKI() (*PKI, error) {
	trusted, err := newAuthorityKey("lab CA")
	if err != nil {
		return nil, err
	}
	unknown, err := newAuthorityKey("unknown CA")
	if err != nil {
		return nil, err
	}
	return &PKI{trusted: trusted, unknown: unknown, keys: make(map[string]*ecdsa.PrivateKey)}, nil
}

func newAuthorityKey(name string) (*authorityKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authorityKey{key: key, cert: cert}, err
}

// PEM is the certificate of the trusted authority, for smtp_tls_CAfile and mta_sts.ca_file.
func (p *PKI) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.trusted.cert.Raw})
}

func (p *PKI) key(name string) (*ecdsa.PrivateKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := p.keys[name]; key != nil {
		return key, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		p.keys[name] = key
	}
	return key, err
}

// SPKI is the SHA-256 of the name's public key in hexadecimal: the data of a TLSA record 3 1 1 (RFC 6698 §2.1).
func (p *PKI) SPKI(name string) (string, error) {
	key, err := p.key(name)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Certificate makes a certificate of the given kind that carries the names, separated by commas; the first one's key
// is used. A leading "*." is a wildcard.
func (p *PKI) Certificate(kind, names string) (*tls.Certificate, error) {
	list := strings.Split(names, ",")
	key, err := p.key(list[0])
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{Organization: []string{"lab"}},
		DNSNames:     list,
		NotBefore:    time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := p.trusted.cert, p.trusted.key
	switch kind {
	case Good:
	case Expired:
		template.NotAfter = time.Now().Add(-24 * time.Hour)
	case SelfSigned:
		parent, signer = template, key
	case UnknownCA:
		parent, signer = p.unknown.cert, p.unknown.key
	default:
		return nil, fmt.Errorf("certificate kind %q: want good, expired, self-signed or unknown-ca", kind)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", names, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
