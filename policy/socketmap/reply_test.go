package socketmap

import (
	"errors"
	"strings"
	"testing"
)

func TestPFX13_AppendTemp(t *testing.T) {
	for in, want := range map[string]string{
		"dns trouble":            "TEMP dns trouble",
		"":                       "TEMP no reason given",
		"two\nlines\x00\x7f":     "TEMP two?lines??",
		"bücher \xff":            "TEMP b?cher ?",
		strings.Repeat("x", 500): "TEMP " + strings.Repeat("x", MaxReason),
		strings.Repeat("ü", 500): "TEMP " + strings.Repeat("?", MaxReason),
	} {
		got := string(AppendTemp([]byte("kept"), in))
		if got != "kept"+want {
			t.Errorf("%.20q: got %q", in, got)
		}
		if err := checkReply([]byte(got[4:])); err != nil {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}

// badReplies are what Postfix misreads, or refuses after it has read.
var badReplies = []struct {
	why, reply string
	err        error
}{
	{"nothing", "", errEmpty},
	{"a space", " ", errStatus},
	{"no space: not found to old Postfix", "OK", errStatus},
	{"no space", "NOTFOUND", errStatus},
	{"no space", "TEMP", errStatus},
	{"no data: a configuration error to Postfix", "OK ", errNoData},
	{"only white space", "OK    ", errNoData},
	{"lower case", "ok secure", errStatus},
	{"unknown", "MAYBE secure", errStatus},
	{"unknown", "OKAY secure", errStatus},
	{"a line break", "OK may\nnone", errReplyByte},
	{"NUL", "OK may\x00", errReplyByte},
	{"a tab", "OK\tmay", errReplyByte},
	{"UTF-8", "OK secure match=bücher.example", errReplyByte},
	{"not even UTF-8", "OK secure match=b\xfc", errReplyByte},
	{"DEL", "OK may\x7f", errReplyByte},
	{"one byte too long", "OK " + strings.Repeat("x", MaxReply-2), errReplySize},
}

func TestPFX01_ParseReply(t *testing.T) {
	for in, want := range map[string]Reply{
		"OK secure match=a:b":                    {OK, "secure match=a:b"},
		"OK  may":                                {OK, " may"},
		"NOTFOUND ":                              {NotFound, ""},
		"TEMP a reason":                          {Temp, "a reason"},
		"TIMEOUT ":                               {Timeout, ""},
		"PERM no":                                {Perm, "no"},
		"OK " + strings.Repeat("x", MaxReply-3):  {OK, strings.Repeat("x", MaxReply-3)},
		string(AppendOK(nil, "may")):             {OK, "may"},
		string(AppendNotFound(nil)):              {NotFound, ""},
		string(AppendTemp(nil, "later, please")): {Temp, "later, please"},
	} {
		got, err := ParseReply([]byte(in))
		if got != want || err != nil {
			t.Errorf("%.20q: got %.20v, %v", in, got, err)
		}
		if got.String() != in {
			t.Errorf("%.20q: became %.20q", in, got.String())
		}
	}
	for _, tc := range badReplies {
		got, err := ParseReply([]byte(tc.reply))
		if got != (Reply{}) || !errors.Is(err, ErrProtocol) || !errors.Is(err, tc.err) {
			t.Errorf("%s: %.20q: got %v, %v", tc.why, tc.reply, got, err)
		}
	}
}

// TestPFX08_BadRepliesNeverLeave: a TEMP takes their place, for a NOTFOUND might
// send the mail in clear.
func TestPFX08_BadRepliesNeverLeave(t *testing.T) {
	for _, tc := range badReplies {
		c, out := answering(tc.reply)
		if !c.answer(t.Context(), []byte("postseal"), []byte("example.com")) {
			t.Errorf("%s: connection lost", tc.why)
		}
		payload, size, err := cutNetstring(out.last, MaxReply)
		if err != nil || size != len(out.last) {
			t.Fatalf("%s: %.40q: %v", tc.why, out.last, err)
		}
		reply, err := ParseReply(payload)
		if err != nil || reply.Status != Temp || !strings.Contains(reply.Text, tc.err.Error()) {
			t.Errorf("%s: got %q, %v", tc.why, payload, err)
		}
		if n := c.server.Stats().BadReplies; n != 1 {
			t.Errorf("%s: counted %d", tc.why, n)
		}
	}
}

func TestPFX08_LargestReplyLeaves(t *testing.T) {
	want := "OK " + strings.Repeat("x", MaxReply-3)
	c, out := answering(want)
	if !c.answer(t.Context(), nil, nil) || string(out.last) != string(AppendNetstring(nil, want)) {
		t.Errorf("got %.20q… of %d bytes", out.last, len(out.last))
	}
}

// FuzzPFX07_Replies: whatever a Handler says, Postfix gets a whole reply that
// it understands, and never a better one than was meant.
func FuzzPFX07_Replies(f *testing.F) {
	for _, tc := range badReplies {
		f.Add(tc.reply[:min(len(tc.reply), 100)])
	}
	f.Add("OK may")
	f.Add("NOTFOUND ")
	f.Fuzz(func(t *testing.T, said string) {
		c, out := answering(said)
		c.answer(t.Context(), nil, nil)
		payload, size, err := cutNetstring(out.last, MaxReply)
		if err != nil || size != len(out.last) {
			t.Fatalf("%q: %v", out.last, err)
		}
		reply, err := ParseReply(payload)
		if err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		if reply.Status != Temp && string(payload) != said {
			t.Fatalf("%q became %q", said, payload)
		}
	})
}
