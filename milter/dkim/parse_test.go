package dkim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
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
