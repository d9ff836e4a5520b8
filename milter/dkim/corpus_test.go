package dkim_test

import (
	"fmt"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"
)

// sample is a message, and the DNS at its time.
type sample struct {
	name    string
	zone    zone
	message string
}

// corpus is what verifiers are compared with: the cases of the tables, and
// messages of many shapes, signed in all ways, as they are and changed.
func corpus(t testing.TB) []sample {
	var all []sample
	for _, c := range signatureCases {
		all = append(all, sample{c.name, world(t), c.message(t)})
	}
	for _, c := range keyCases(t) {
		all = append(all, sample{c.name, c.zone(), message(basic().sign(t))})
	}
	for header, h := range headerShapes {
		for body, b := range bodyShapes {
			for _, selector := range []string{"rsa1024", "ed25519"} {
				for _, c := range [][2]msgauth.Canonicalization{{"simple", "simple"}, {"relaxed", "relaxed"}, {"simple", "relaxed"}, {"relaxed", "simple"}} {
					text := signed(t, h+"\r\n"+b, msgauth.SignOptions{Selector: selector, HeaderCanonicalization: c[0], BodyCanonicalization: c[1]})
					name := fmt.Sprintf("%s, %s, %s, %s/%s", header, body, selector, c[0], c[1])
					all = append(all, sample{name, world(t), text})
				}
			}
		}
	}
	for name, change := range changes {
		for _, c := range []msgauth.Canonicalization{"simple", "relaxed"} {
			text := signed(t, testHeader+"\r\n"+testBody, msgauth.SignOptions{HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "Cc"}, HeaderCanonicalization: c, BodyCanonicalization: c})
			all = append(all, sample{name + ", " + string(c), world(t), change(text)})
		}
	}
	return all
}

var headerShapes = map[string]string{
	"plain":        testHeader,
	"no space":     "From:a@ex.test\r\nSubject:x\r\nTo:  \tb@b.test \t\r\n",
	"folded":       "From: a@ex.test\r\nSubject:\r\n\tx\r\n  y \r\n\t\tz\r\nReferences: " + strings.Repeat("<a@b>\r\n ", 60) + "<c@d>\r\n",
	"blank fold":   "From: a@ex.test\r\nX-A: a\r\n \t\r\n b\r\n",
	"empty":        "From: a@ex.test\r\nSubject:\r\nX-A: \r\n",
	"twice":        "X-A: 1\r\nFrom: a@ex.test\r\nX-A: 2\r\nx-a: 3\r\nSubject: s\r\n",
	"8 bits":       "From: J\xc3\xb6rg <a@ex.test>\r\nSubject: \xe4\xff\r\n",
	"two From":     "From: a@ex.test\r\nFrom: b@ex.test\r\nSubject: s\r\n",
	"blank colon":  "From : a@ex.test\r\nSubject\t: x\r\n",
	"long":         "From: a@ex.test\r\nSubject: " + strings.Repeat("long  word ", 300) + "\r\n",
	"odd names":    "FROM: a@ex.test\r\nX-!#$%: x\r\nsUBJECT: y\r\n",
	"colons in it": "From: a@ex.test\r\nSubject: Re: b=c; d=e\r\n",
}

var bodyShapes = map[string]string{
	"text":          testBody,
	"empty":         "",
	"line end":      "\r\n",
	"line ends":     "\r\n\r\n\r\n",
	"blanks":        " \r\n\t\r\n",
	"no line end":   "text",
	"blank at end":  "text \t",
	"dots":          ".\r\n..\r\n",
	"8 bits":        "\xc3\xa4 \xff\x00\r\n",
	"long line":     strings.Repeat("word  ", 1000) + "\r\n",
	"leading ends":  "\r\n\r\ntext\r\n",
	"blank lines":   "a\r\n \r\n\t\t\r\nb \r\n\r\n",
	"beyond chunks": strings.Repeat("A line of  text. \r\n", 8000),
}

var changes = map[string]func(string) string{
	"subject":     replace("folded", "bent"),
	"white space": replace("A  folded", "A folded"),
	"fold":        replace("folded\r\n\tsubject", "folded subject"),
	"name":        replace("\r\nSubject: A", "\r\nsubject: A"),
	"add From":    func(m string) string { return "From: x@y.test\r\n" + m },
	"add Cc":      replace("\r\nSubject: A", "\r\nCc: x@y.test\r\nSubject: A"),
	"add other":   func(m string) string { return "X-Other: x\r\n" + m },
	"remove To":   replace("To: bob@b.test\r\n", ""),
	"unsigned":    replace("<1@ex.test>", "<2@ex.test>"),
	"body":        replace("Bob", "bob"),
	"body blanks": replace("Hello  Bob", "Hello Bob"),
	"body end":    func(m string) string { return m + "\r\n\r\n" },
	"footer":      func(m string) string { return m + "footer\r\n" },
	"last blank":  replace("text. \r\n", "text.\r\n"),
	"cut":         func(m string) string { return m[:len(m)-12] },
	"b":           replace("b=", "b=A"),
	"bh":          replace("bh=", "bh=A"),
	"d":           replace("d=ex.test", "d=no.test"),
	"h":           replace("h=From:", "h=From:X-Y:"),
	"fold of sig": replace("DKIM-Signature:", "DKIM-Signature:\r\n\t"),
}
