package dkim_test

import (
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/milter/dkim"
)

// differences are where another verifier may say otherwise: samples whose name
// begins with it, and why.
type differences map[string]string

func (d differences) find(name string) (string, bool) {
	for prefix := range d {
		if strings.HasPrefix(name, prefix) {
			return prefix, true
		}
	}
	return "", false
}

// goMsgauthDiffers: each of them is a sentence about go-msgauth v0.7.0.
var goMsgauthDiffers = differences{
	"K001/control character":        "takes any octet in a tag that it does not know",
	"K001/empty tag":                "skips empty tags, which RFC 6376 §3.2 does not have",
	"K001/name begins with a digit": "takes any name of a tag",
	"K001/name of two words":        "takes any name of a tag",
	"K001/no name":                  "takes any name of a tag",
	"K001/too many":                 "has no such limit",
	"K013/too large":                "has no such limit",
	"K004/bad quoted-printable":     "does not decode i=",
	"K004/letter case":              "compares i= and d= as they are written; noted",
	"K004/quoted-printable":         "cuts what looks like b= in i= (a=3Db=40x); noted",
	"K005/40 digits are infinite":   "takes what fits 64 bits; noted",
	"K007/empty":                    "takes an empty c= for the default",
	"K007/letter case":              "compares c= as it is written; noted",
	"K009/letter case":              "compares a= as it is written; noted",
	"K010/all of it":                "refuses l=; noted",
	"K011/letter case":              "asks the DNS for d= and s= as they are written; the DNS does not mind, the zone of this test does",
	"K011/U-label in i=":            "does not look what i= is made of",
	"K014/Diagnostics":              "cuts what looks like b= in z=; noted",
	"K014/b in a value":             "cuts what looks like b= in z=; noted",
	"K014/tag that ends in b":       "cuts the value of such a tag; noted",
	"K032/h white space and letter": "compares hashes as they are written; noted",
	"K032/letter case of k":         "compares k= as it is written; noted",
	"K032/v is not first":           "does not look where v= is",
	"K033/white space":              "drops only spaces from p=; noted",
}

// libopendkimDiffers: each of them is a sentence about libopendkim 2.11.
var libopendkimDiffers = differences{
	"K001/twice":                     "takes a list with a tag twice",
	"K001/the same twice":            "takes a list with a tag twice",
	"K001/name begins with a digit":  "takes any letters and digits for a name",
	"K001/8 bits in an unknown tag":  "refuses octets of 8 bits; noted",
	"K001/too many":                  "has no such limit",
	"K004/quoted-printable":          "looks for the domain of i= behind the first @",
	"K004/at sign in the local part": "looks for the domain of i= behind the first @",
	"K005/40 digits are infinite":    "takes what fits 64 bits; noted",
	"K008/others only":               "does not insist on a method that it knows",
	"K008/dns of RFC 4870":           "does not insist on a method that it knows",
	"K008/empty":                     "does not insist on a method that it knows",
	"K014/tag that ends in b":        "cuts the value of such a tag; noted",
	"K032/v is not first":            "does not look where v= is",
	"K032/twice":                     "takes a list with a tag twice",
	"K033/not base64":                "skips what is not base64",
	"K033/quotes":                    "skips what is not base64",
	"K033/RSAPublicKey":              "wants SubjectPublicKeyInfo; noted",
	"blank colon":                    "does not verify fields with white space before the colon, which Postfix removes",
}

// unfinished bodies do not end in CRLF, and so never came by SMTP. With relaxed
// libopendkim does not add one, which RFC 6376 §3.4.4 wants.
func unfinished(s sample) bool {
	return !strings.HasSuffix(s.message, "\r\n") && strings.Contains(s.message, "/relaxed;")
}

// TestAgainstGoMsgauth: both say pass, or neither does, but where the list says.
func TestAgainstGoMsgauth(t *testing.T) {
	against(t, goMsgauthDiffers, func(s sample) bool {
		results, err := msgauth.VerifyWithOptions(strings.NewReader(s.message), &msgauth.VerifyOptions{
			LookupTXT: func(name string) ([]string, error) { return s.zone.lookup(t.Context(), name) },
		})
		return err == nil && len(results) == 1 && results[0].Err == nil
	})
}

// TestAgainstLibopendkim is the same with the library of OpenDKIM.
func TestAgainstLibopendkim(t *testing.T) {
	p := libopendkim(t)
	against(t, libopendkimDiffers, func(s sample) bool {
		if unfinished(s) {
			s.message += "\r\n"
		}
		verdicts, _ := p.verify(t, s.zone, s.message, 1)
		return len(verdicts) == 1 && verdicts[0].passed && verdicts[0].err == 0
	})
}

func against(t *testing.T, permitted differences, passes func(sample) bool) {
	t.Helper()
	used := map[string]bool{}
	for _, s := range corpus(t) {
		r := one(t, s.zone, s.message)
		if ours, theirs := r.Cause == "", passes(s); ours != theirs {
			prefix, ok := permitted.find(s.name)
			if used[prefix] = true; !ok {
				t.Errorf("%s: we pass: %v, they: %v (%s)", s.name, ours, theirs, r.Detail)
			}
		}
	}
	for prefix := range permitted {
		if !used[prefix] {
			t.Errorf("%s: listed as a difference, and is none", prefix)
		}
	}
}

// TestManySignatures: of several signatures each gets the verdict that the others
// give it.
func TestManySignatures(t *testing.T) {
	z, p := world(t), libopendkim(t)
	text := testHeader + "\r\n" + testBody
	for i, selector := range []string{"rsa1024", "ed25519", "rsa4096", "missing", "rsa2048", "other"} {
		key := selector
		if selector == "missing" {
			key = "rsa2048"
		}
		c := []msgauth.Canonicalization{"simple", "relaxed"}
		text = signed(t, text, msgauth.SignOptions{
			Selector: selector, Signer: keys()[key], HeaderKeys: []string{"From", "Subject", "Date", "Cc"},
			HeaderCanonicalization: c[i%2], BodyCanonicalization: c[i/2%2],
		})
	}
	for name, text := range map[string]string{
		"whole": text, "body changed": text + "x\r\n", "blanks changed": strings.Replace(text, "Hello  Bob", "Hello Bob", 1),
		"fold changed": strings.Replace(text, "A  folded\r\n\tsubject", "A folded subject", 1),
	} {
		ours := verify(t, &dkim.Verifier{Lookup: z.lookup}, text, 50)
		verdicts, _ := p.verify(t, z, text, 1)
		golang, err := msgauth.VerifyWithOptions(strings.NewReader(text), &msgauth.VerifyOptions{
			LookupTXT: func(name string) ([]string, error) { return z[name], nil },
		})
		if err != nil || len(ours) != 6 || len(verdicts) != 6 || len(golang) != 6 {
			t.Fatalf("%d, %d and %d results: %v", len(ours), len(verdicts), len(golang), err)
		}
		for i, r := range ours {
			if passes := r.Status == dkim.Pass; passes != verdicts[i].passed || passes != (golang[i].Err == nil) {
				t.Errorf("%s: %s: we say %v (%s), libopendkim %v, go-msgauth %v", name, r.Selector, r.Status, r.Detail, verdicts[i], golang[i].Err)
			}
		}
	}
}
