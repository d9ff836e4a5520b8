package dane_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/policy/dane"
)

type (
	addrAnswer = resolver.Answer[netip.Addr]
	nameAnswer = resolver.Answer[string]
	tlsaAnswer = resolver.Answer[resolver.TLSA]
)

// certificate makes a self-signed certificate.
func certificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mx.ex.test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0), // DANE-033: expiry is none of Judge's business
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func publicKey(t testing.TB, der []byte) []byte {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c.RawSubjectPublicKeyInfo
}

// oddCertificate has a negative serial number and no version, which OpenSSL
// takes and crypto/x509 does not.
func oddCertificate(t testing.TB, der []byte) []byte {
	t.Helper()
	type tbs struct {
		Serial                                          int
		Signature, Issuer, Validity, Subject, PublicKey asn1.RawValue
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := asn1.RawValue{FullBytes: []byte{0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}}
	empty := asn1.RawValue{FullBytes: []byte{0x30, 0}}
	odd, err := asn1.Marshal(struct {
		TBS       tbs
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{
		tbs{-5, algorithm, empty, empty, empty, asn1.RawValue{FullBytes: c.RawSubjectPublicKeyInfo}},
		algorithm, asn1.BitString{Bytes: []byte{1}, BitLength: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificate(odd); err == nil {
		t.Fatal("crypto/x509 takes the odd certificate")
	}
	return odd
}

func TestDANE030_Judge(t *testing.T) {
	der := certificate(t)
	key := publicKey(t, der)
	d32, d64 := make([]byte, 32), make([]byte, 64)
	keyOf := func(parts ...byte) []byte { return append([]byte{0x30, byte(len(parts))}, parts...) }
	tests := []struct {
		name    string
		u, s, m uint8
		data    []byte
		want    string
	}{
		{"3 1 1 32", 3, 1, 1, d32, ""},
		{"3 1 1 31", 3, 1, 1, d32[:31], "matching type 1 wants 32 octets, not 31"},
		{"3 1 1 33", 3, 1, 1, d64[:33], "matching type 1 wants 32 octets, not 33"},
		{"3 1 2 64", 3, 1, 2, d64, ""},
		{"3 1 2 32", 3, 1, 2, d32, "matching type 2 wants 64 octets, not 32"},
		{"3 0 1", 3, 0, 1, d32, ""},
		{"3 0 0", 3, 0, 0, der, ""},
		{"3 1 0", 3, 1, 0, key, ""},
		{"2 0 0", 2, 0, 0, der, ""},
		{"2 0 1", 2, 0, 1, d32, ""},
		{"2 1 0, RFC 7671 §5.2.3", 2, 1, 0, key, ""},
		{"odd certificate", 3, 0, 0, oddCertificate(t, der), ""},
		{"0 0 1", 0, 0, 1, d32, "certificate usage 0 is not for SMTP"},
		{"1 1 1", 1, 1, 1, d32, "certificate usage 1 is not for SMTP"},
		{"4 0 1", 4, 0, 1, d32, "unknown certificate usage 4"},
		{"255 1 1", 255, 1, 1, d32, "unknown certificate usage 255"},
		{"3 2 1", 3, 2, 1, d32, "unknown selector 2"},
		{"3 255 1", 3, 255, 1, d32, "unknown selector 255"},
		{"3 1 3", 3, 1, 3, d32, "unknown matching type 3"},
		{"3 1 255, Postfix's own for fingerprints", 3, 1, 255, d32, "unknown matching type 255"},
		{"empty digest", 3, 1, 1, nil, "matching type 1 wants 32 octets, not 0"},
		{"empty certificate", 3, 0, 0, nil, "the data is no X.509 certificate"},
		{"empty key", 3, 1, 0, nil, "the data is no public key (SubjectPublicKeyInfo)"},
		{"garbage", 3, 0, 0, []byte("garbage"), "the data is no X.509 certificate"},
		{"certificate cut off", 3, 0, 0, der[:len(der)-1], "the data is no X.509 certificate"},
		{"certificate and more", 3, 0, 0, append(bytes.Clone(der), 0), "the data is no X.509 certificate"},
		{"key for a certificate", 3, 0, 0, key, "the data is no X.509 certificate"},
		{"certificate for a key", 3, 1, 0, der, "the data is no public key (SubjectPublicKeyInfo)"},
		{"digest in place of a certificate", 3, 0, 0, d32, "the data is no X.509 certificate"},
		{"digest in place of a key", 3, 1, 0, d32, "the data is no public key (SubjectPublicKeyInfo)"},
		{"key without algorithm", 3, 1, 0, keyOf(0x30, 0, 3, 2, 0, 1), "the data is no public key (SubjectPublicKeyInfo)"},
		{"key without bits", 3, 1, 0, keyOf(0x30, 3, 6, 1, 42, 3, 1, 0), "the data is no public key (SubjectPublicKeyInfo)"},
		{"parts cut off", 3, 1, 0, keyOf(0x30, 3, 6, 1, 42, 3, 9, 0), "the data is no public key (SubjectPublicKeyInfo)"},
		{"no sequence inside", 3, 0, 0, keyOf(2, 1, 0, 0x30, 0, 3, 1, 0), "the data is no X.509 certificate"},
		{"six wrong parts inside", 3, 0, 0,
			keyOf(0x30, 18, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 0x30, 0, 3, 1, 0), "the data is no X.509 certificate"},
		{"three sequences", 3, 0, 0, keyOf(0x30, 0, 0x30, 0, 3, 1, 0), "the data is no X.509 certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := resolver.TLSA{Usage: tt.u, Selector: tt.s, MatchingType: tt.m, Data: tt.data}
			if got := dane.Judge(r); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestDANE037_AgilityIsForVerification: which digests count is decided when a
// certificate is compared; every well-formed record is usable by itself.
func TestDANE037_AgilityIsForVerification(t *testing.T) {
	h := dane.LookupHost(t.Context(), newDNS("ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+digest+
		"\nad _25._tcp.n1.ex.test 300 TLSA 3 1 2 "+digest+digest), "n1.ex.test", 25)
	wantStatus(t, h, dane.Usable)
	if len(h.Records) != 2 || h.Records[0].Unusable != "" || h.Records[1].Unusable != "" || len(h.Records[1].Data) != 64 {
		t.Errorf("%+v", h.Records)
	}
}

// FuzzJudge: what crypto/x509 parses is usable, nothing is with an octet more
// or less, and a digest is judged by its length alone.
// endsAsItMay: RFC 5280 §4.1: after the key come unique identifiers and extensions, each
// with a tag of its own. Go passes over anything else there; OpenSSL, by which Postfix
// reads the record, refuses it.
func endsAsItMay(c *x509.Certificate) bool {
	_, rest, _ := bytes.Cut(c.RawTBSCertificate, c.RawSubjectPublicKeyInfo)
	for len(rest) > 0 {
		var part asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &part); err != nil || part.Class != asn1.ClassContextSpecific {
			return false
		}
	}
	return true
}

func FuzzJudge(f *testing.F) {
	der := certificate(f)
	f.Add(uint8(3), uint8(0), uint8(0), der)
	f.Add(uint8(2), uint8(1), uint8(0), publicKey(f, der))
	f.Add(uint8(2), uint8(0), uint8(0), oddCertificate(f, der))
	f.Add(uint8(3), uint8(1), uint8(1), der[:32])
	f.Add(uint8(3), uint8(1), uint8(2), der[:64])
	f.Fuzz(func(t *testing.T, u, s, m uint8, data []byte) {
		r := resolver.TLSA{Usage: u, Selector: s, MatchingType: m, Data: data}
		usable := dane.Judge(r) == ""
		numbers := (u == 2 || u == 3) && s <= 1 && m <= 2
		if usable && !numbers {
			t.Fatalf("%d %d %d is usable", u, s, m)
		}
		if !numbers {
			return
		}
		if m > 0 {
			if usable != (len(data) == 32*int(m)) {
				t.Fatalf("%d %d %d with %d octets: %v", u, s, m, len(data), usable)
			}
			return
		}
		if s == 0 {
			if c, err := x509.ParseCertificate(data); err == nil && c.PublicKey != nil && usable != endsAsItMay(c) {
				t.Fatalf("certificate %x: usable %v", data, usable)
			}
		} else if _, err := x509.ParsePKIXPublicKey(data); err == nil && !usable {
			t.Fatalf("unusable key %x", data)
		}
		if usable {
			for _, other := range [][]byte{data[:len(data)-1], append(bytes.Clone(data), 0)} {
				r.Data = other
				if dane.Judge(r) == "" {
					t.Fatalf("usable with another length: %x", other)
				}
			}
		}
	})
}
