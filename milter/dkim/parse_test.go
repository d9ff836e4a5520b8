package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"
)

// FuzzTags: what was read, written again, is read the same; and the range of
// each value is where it stands.
func FuzzTags(f *testing.F) {
	for _, text := range []string{"a=b", " v = 1 ;\r\n\ta=x y;;", "b=;", "a=b;A=c;_=d", "k1=\xff=;", "p=", "a=b;a=b", "a"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseTags(text)
		if err != nil {
			if s := err.Error(); len(s) > 500 || strings.ContainsAny(s, "\r\n\x00") {
				t.Errorf("error %q", s)
			}
			return
		}
		var again []byte
		for _, tag := range list {
			if !bytes.Equal(trim(text[tag.start:tag.end]), tag.value) || text[tag.start-1] != '=' {
				t.Errorf("%s= is not at %d to %d of %q", tag.name, tag.start, tag.end, text)
			}
			again = append(again, tag.name...)
			again = append(append(append(again, '='), tag.value...), ';')
		}
		second, err := parseTags(again)
		if err != nil || len(second) != len(list) {
			t.Fatalf("%q of %q: %v", again, text, err)
		}
		for i, tag := range second {
			if tag.name != list[i].name || !bytes.Equal(tag.value, list[i].value) {
				t.Errorf("%q of %q", again, text)
			}
		}
	})
}

// FuzzKey: a record is either of no use, with a reason, or a key of a kind and
// strength that is allowed; a semicolon and an unknown tag at the end change
// nothing.
func FuzzKey(f *testing.F) {
	for _, record := range []string{
		"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
		"p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
		"v=DKIM1; h=sha1; s=tlsrpt; t=y:s; n=x; p=", "v=spf1 -all", "",
	} {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record string) {
		k := parseKey("name", record)
		if k.status == 0 {
			switch public := k.public.(type) {
			case *rsa.PublicKey:
				if k.Type != "rsa" || k.Bits < minRSABits || k.Bits > maxRSABits || k.Bits != public.N.BitLen() {
					t.Errorf("%q: %+v", record, k)
				}
				k.verifies(make([]byte, 32), make([]byte, public.Size()))
				k.made(bytes.Repeat([]byte{1}, public.Size()))
			case ed25519.PublicKey:
				if k.Type != "ed25519" || k.Bits != 256 || len(public) != ed25519.PublicKeySize {
					t.Errorf("%q: %+v", record, k)
				}
			default:
				t.Errorf("%q: no key and no reason", record)
			}
		} else if k.status != PermError || k.cause == "" || k.detail == "" || strings.ContainsAny(k.detail, "\r\n\x00") {
			t.Errorf("%q: %+v", record, k.problem)
		}
		if k.status != 0 || len(record) > 60000 || strings.Contains(record, "zz0zz") {
			return
		}
		record = strings.TrimSuffix(strings.TrimRight(record, " \t\r\n"), ";")
		if other := parseKey("name", record+"; zz0zz=1;"); other.status != 0 {
			t.Errorf("%q with one more tag: %v", record, other.problem)
		}
	})
}

// TestPadding: what crypto/rsa does for keys of usual size and made for larger
// ones is the same: one encoding of the hash is right, and no other.
func TestPadding(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	for _, bits := range []int{2048, 3072} {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		k := &key{public: &private.PublicKey}
		good := pad(sum[:], private.Size())
		change := func(at int, c byte) []byte {
			b := bytes.Clone(good)
			b[at] = c
			return b
		}
		size := len(good)
		noNull := append(append(bytes.Clone(good[:2]), 0xff, 0xff), bytes.Replace(good[2:], []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00},
			[]byte{0x30, 0x2f, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}, 1)...)
		short := append(append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 8)...), append(bytes.Clone(good[size-52:]), make([]byte, size-62)...)...)
		for name, encoded := range map[string][]byte{
			"good": good, "type 2": change(1, 2), "first octet": change(0, 1), "padding": change(9, 0xfe), "separator": change(size-52, 1),
			"digest info": change(size-40, 0), "last octet": change(size-1, good[size-1]^1), "without NULL": noNull, "garbage behind": short,
		} {
			signed := new(big.Int).Exp(new(big.Int).SetBytes(encoded), private.D, private.N).FillBytes(make([]byte, size))
			want := name == "good"
			if std := rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, sum[:], signed) == nil; std != want || k.verifies(sum[:], signed) != want {
				t.Errorf("%d bits, %s: crypto/rsa says %v, we %v", bits, name, std, k.verifies(sum[:], signed))
			}
			if k.verifies(sum[:], signed[1:]) || k.verifies(sum[:], append([]byte{0}, signed...)) || k.verifies(sum[:], nil) {
				t.Errorf("%d bits, %s: passes at another length", bits, name)
			}
			if more := new(big.Int).Add(new(big.Int).SetBytes(signed), private.N); more.BitLen() <= bits && k.verifies(sum[:], more.Bytes()) {
				t.Errorf("%d bits, %s: passes beyond the modulus", bits, name)
			}
		}
	}
}
