package reach

import "strings"

// maskedBanner says that a greeting is what the "fixup protocol smtp" of Cisco's
// PIX leaves of it. It is Postfix's own test (smtp_proto.c): nothing but 2, 0,
// asterisks and white space. Postfix then says HELO instead of EHLO
// (smtp_pix_workarounds, disable_esmtp).
//
// A greeting without any text passes the test as well.
func maskedBanner(r reply) bool {
	return strings.Trim(itoa3(r.code)+strings.Join(r.lines, ""), "20 *") == ""
}

// strippedBy names the box that seems to have taken STARTTLS out of the reply to
// EHLO. Such boxes keep the length of what they overwrite: Cisco's ASA ("inspect
// esmtp") makes XXXXXXXA of STARTTLS, others write only X, or spoil a letter.
func strippedBy(banner reply, e extensions) string {
	if maskedBanner(banner) && strings.Contains(banner.text(), "*") {
		return `the greeting is masked, as by Cisco PIX or ASA ("fixup protocol smtp", "inspect esmtp")`
	}
	if e.startTLS {
		return ""
	}
	for _, line := range e.keywords {
		word, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case word == "XXXXXXXA":
			return `EHLO keyword XXXXXXXA stands where STARTTLS was, as by Cisco ASA ("inspect esmtp")`
		case crossedOut(word):
			return "EHLO keyword " + clip(word, 40) + " is crossed out by a box on the way"
		case spoiled(word):
			return "EHLO keyword " + clip(word, 40) + " is a spoiled STARTTLS"
		}
	}
	return ""
}

// crossedOut: four X at least and perhaps one other letter. XEXCH50, XCLIENT,
// X-EXPS and X-ANONYMOUSTLS are extensions of honest servers.
func crossedOut(word string) bool {
	rest := strings.TrimLeft(word, "X")
	return len(word)-len(rest) >= 4 && len(rest) <= 1
}

// spoiled: STARTTLS with an X or a hyphen added or put in place of letters.
func spoiled(word string) bool {
	const keyword = "STARTTLS"
	if strings.HasPrefix(word, "X") && strings.TrimLeft(strings.TrimPrefix(word, "X"), "-") == keyword {
		return true
	}
	if len(word) != len(keyword) {
		return false
	}
	differ := 0
	for i := range keyword {
		if word[i] != keyword[i] {
			if word[i] != 'X' && word[i] != '*' && word[i] != '-' {
				return false
			}
			differ++
		}
	}
	return differ < len(keyword)
}
