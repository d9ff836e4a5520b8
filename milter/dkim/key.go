package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"slices"
)

// Key is what a key record says, RFC 6376 §3.6.1. Without a record that could be
// read it has only a Name.
type Key struct {
	Name     string // of the record in the DNS, without a dot at the end
	Type     string // k=, lower case: "rsa", "ed25519" or unknown
	Bits     int    // of the RSA modulus; 256 with Ed25519
	Testing  bool   // t=y
	Strict   bool   // t=s: i= must be d= itself
	Hashes   []string
	Services []string
	Notes    string // n= as it is in the record; foreign text
}

// key is a Key with what is needed to use it, or with why it is of no use.
type key struct {
	Key
	public crypto.PublicKey
	problem
	notes []Note
}

// problem is what is wrong; it makes a Result's status, cause and detail.
type problem struct {
	status Status
	cause  Cause
	detail string
}

// parseKey reads a key record. All that is wrong in itself is its problem; what
// depends on the signature is for fits to say.
func parseKey(name, record string) *key {
	r := keyReader{Result{Key: Key{Name: name}}}
	public := r.read([]byte(record))
	return &key{r.res.Key, public, problem{r.res.Status, r.res.Cause, r.res.Detail}, r.res.Notes}
}

// keyReader gathers what a record says in the members of a Result that are
// about the key.
type keyReader struct{ res Result }

func (r *keyReader) read(record []byte) crypto.PublicKey {
	if len(record) > maxKeyRecord {
		r.res.fail(PermError, TooLarge, "the key record has %d octets, more than %d", len(record), maxKeyRecord)
		return nil
	}
	tags, err := parseTags(record)
	if err != nil {
		r.res.fail(PermError, KeyMalformed, "the key record is not a list of tags: %v", err)
		return nil
	}
	if v, ok := tags.find("v"); ok && (tags[0].name != "v" || string(v.value) != "DKIM1") {
		// RFC 6376 §3.6.1: v= is the first tag, and other versions MUST be discarded.
		r.res.fail(PermError, KeyMalformed, "v=%s in the key record is not DKIM1, or not the first tag", quote(v.value))
	}
	p, ok := tags.find("p")
	switch {
	case !ok:
		r.res.fail(PermError, KeyMalformed, "the key record has no p=")
	case len(p.value) == 0: // RFC 6376 §3.6.1
		r.res.fail(PermError, KeyRevoked, "p= is empty: the key is revoked; sign with the selector in use, or publish the key again")
	}
	r.attributes(tags)
	if len(p.value) == 0 {
		return nil
	}
	return r.public(p.value)
}

func (r *keyReader) attributes(tags tagList) {
	k := &r.res.Key
	k.Type = "rsa" // RFC 6376 §3.6.1: the default
	if t, ok := tags.find("k"); ok {
		k.Type = r.word("k", t.value)
	}
	if t, ok := tags.find("h"); ok {
		k.Hashes = r.words("h", t.value)
		if !slices.Contains(k.Hashes, "sha256") {
			r.res.fail(PermError, KeyWrongHash, "h=%s of the key leaves out sha256", quote(t.value))
		}
	}
	if t, ok := tags.find("s"); ok {
		k.Services = r.words("s", t.value)
		if !slices.Contains(k.Services, "*") && !slices.Contains(k.Services, "email") {
			r.res.fail(PermError, KeyWrongUse, "s=%s of the key leaves out email", quote(t.value))
		}
	}
	if t, ok := tags.find("t"); ok {
		flags := r.words("t", t.value)
		k.Testing, k.Strict = slices.Contains(flags, "y"), slices.Contains(flags, "s")
	}
	if t, ok := tags.find("n"); ok {
		k.Notes = string(t.value)
	}
	if k.Testing {
		r.res.note(NoteKeyTesting, Weak, "the key has t=y: receivers may treat the message as if it were not signed")
	}
}

func (r *keyReader) word(name string, value []byte) string {
	text, blank := strip(value)
	if blank {
		r.res.note(NoteWhiteSpace, Weak, "there is white space within the value of %s= of the key", name)
	}
	lower := lowered(text)
	if lower != text {
		r.res.note(NoteLetterCase, Weak, "%s=%s of the key is not in lower case", name, quote(text))
	}
	return lower
}

func (r *keyReader) words(name string, value []byte) []string {
	var list []string
	for _, item := range items(value) {
		list = append(list, r.word(name, item))
	}
	return list
}

// public reads p= as the key type wants it.
func (r *keyReader) public(p []byte) crypto.PublicKey {
	if bytes.ContainsAny(p, "\t\r\n") {
		r.res.note(NoteKeyForm, Weak, "p= has tabs or line ends in it, which some verifiers do not drop")
	}
	data, err := decode(p)
	if err != nil {
		r.res.fail(PermError, KeyMalformed, "p= of the key is not base64: %v", err)
		return nil
	}
	switch r.res.Key.Type {
	case "rsa":
		return r.rsa(data)
	case "ed25519":
		// RFC 8463 §4: the 32 octets as they are, not wrapped in ASN.1.
		if len(data) != ed25519.PublicKeySize {
			r.res.fail(PermError, KeyMalformed, "p= of the key has %d octets; Ed25519 wants the %d of the key, without ASN.1 around them", len(data), ed25519.PublicKeySize)
			return nil
		}
		r.res.Key.Bits = 256
		return ed25519.PublicKey(data)
	default:
		r.res.fail(PermError, KeyWrongType, "k=%s of the key is neither rsa nor ed25519", quote(r.res.Key.Type))
		return nil
	}
}

func (r *keyReader) rsa(der []byte) crypto.PublicKey {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		// RFC 6376 §3.6.1 says RSAPublicKey, its examples are
		// SubjectPublicKeyInfo (erratum 3017): both are in use.
		pkcs1, err1 := x509.ParsePKCS1PublicKey(der)
		if err1 != nil {
			r.res.fail(PermError, KeyMalformed, "p= of the key is no RSA key: %v", err)
			return nil
		}
		r.res.note(NoteKeyForm, Weak, "p= of the key is an RSAPublicKey; most verifiers want a SubjectPublicKeyInfo")
		public = pkcs1
	}
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		r.res.fail(PermError, KeyMalformed, "k=rsa, and p= of the key is a %T", public)
		return nil
	}
	r.strength(key)
	return key
}

// strength is RFC 8301 §3.2.
func (r *keyReader) strength(key *rsa.PublicKey) {
	n := key.N.BitLen()
	r.res.Key.Bits = n
	switch {
	case n < minRSABits: // MUST NOT consider the signature valid
		r.res.fail(PermError, KeyWeak, "the key has %d bits, fewer than %d: make one of %d", n, minRSABits, goodRSABits)
	case n > maxRSABits:
		r.res.fail(PermError, KeyOversized, "the key has %d bits, more than %d", n, maxRSABits)
	case key.N.Bit(0) == 0 || key.E&1 == 0 || key.E < 3:
		r.res.fail(PermError, KeyMalformed, "p= of the key is no RSA key: modulus or exponent are impossible")
	case n < goodRSABits: // signers SHOULD use 2048 at least
		r.res.note(NoteKeyShort, Weak, "the key has %d bits, fewer than %d", n, goodRSABits)
	case n > commonRSABits: // verifiers MUST manage 4096
		r.res.note(NoteKeyLong, Weak, "the key has %d bits; verifiers need not manage more than %d", n, commonRSABits)
	}
}

// fits sets what is wrong with the key for this signature, RFC 6376 §6.1.2.
func (k *key) fits(s *signature) {
	if k.status != 0 {
		s.res.fail(k.status, k.cause, "%s", k.detail)
	}
	if want := s.keyType(); k.Type != want {
		s.res.fail(PermError, KeyWrongType, "a=%s needs a key of type %s, k= is %s", s.res.Algorithm, want, k.Type)
	}
	if k.Strict && s.below() {
		// RFC 6376 §3.6.1, t=s.
		s.res.fail(PermError, KeyStrict, "the key has t=s, and the domain of i=%s is not d=%s itself", quote(s.res.Identity), s.res.Domain)
	}
}

// verifies tells whether the signature is the key's for the hash of the header.
func (k *key) verifies(sum, signed []byte) bool {
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		// RFC 6376 §3.3.2: RSASSA-PKCS1-v1_5.
		if public.Size() <= maxFastRSA {
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum, signed) == nil
		}
		// Beyond 2048 bits crypto/rsa takes twice the time and 60 kB a
		// signature to keep secret what is none here.
		signedSum, made, _ := k.made(signed)
		return made && bytes.Equal(signedSum, sum)
	case ed25519.PublicKey:
		return ed25519.Verify(public, sum, signed) // RFC 8463 §3: the hash is what is signed
	default:
		return false
	}
}

// maxFastRSA is the size of the modulus, in octets, up to which crypto/rsa
// computes without allocating.
const maxFastRSA = 256

// made tells whether an RSA signature was made with this key, for whatever
// header: then it decrypts to a padded SHA-256. known is false with Ed25519,
// which does not tell.
func (k *key) made(signed []byte) (sum []byte, made, known bool) {
	public, ok := k.public.(*rsa.PublicKey)
	if !ok {
		return nil, false, false
	}
	padded := decrypt(public, signed)
	if len(padded) < sha256.Size {
		return nil, false, true
	}
	sum = padded[len(padded)-sha256.Size:]
	return sum, bytes.Equal(padded, pad(sum, public.Size())), true
}
