package milter

import "testing"

// TestMLT15_Refuse: what Postfix would expand or a client may not see is written otherwise.
func TestMLT15_Refuse(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                  "plain",
		"100% of it":             "100%% of it",
		"(RFC 5322 §3.6)":        "(RFC 5322 section 3.6)",
		"a\r\n250 ok\x00\tü\x7f": "a??250 ok????",
	} {
		if got := string(refuse("550 5.6.0", text).Data); got != "550 5.6.0 "+want+"\x00" {
			t.Errorf("%q became %q", text, got)
		}
	}
}
