package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

func TestRule_Recipients(t *testing.T) {
	for _, tt := range []struct {
		text  RuleText
		want  Rule
		notes int
	}{
		{RuleText{}, Rule{RefuseAfter: time.Hour}, 0},
		{RuleText{Unreachable: "queue"}, Rule{RefuseAfter: time.Hour}, 0},
		{RuleText{Unreachable: "defer", Text: " see https://example.com/tls "}, Rule{Unreachable: UnreachableDefer, RefuseAfter: time.Hour, Text: "see https://example.com/tls"}, 0},
		{RuleText{Unreachable: "refuse"}, Rule{Unreachable: UnreachableRefuse, RefuseAfter: time.Hour}, 0},
		{RuleText{Unreachable: "refuse", RefuseAfter: new(time.Duration)}, Rule{Unreachable: UnreachableRefuse}, 0},
		{RuleText{Unreachable: "refuse", RefuseAfter: of(168 * time.Hour)}, Rule{Unreachable: UnreachableRefuse, RefuseAfter: 168 * time.Hour}, 0},
		{RuleText{Unreachable: "defer", RefuseAfter: of(time.Minute)}, Rule{Unreachable: UnreachableDefer, RefuseAfter: time.Minute}, 1},
		{RuleText{RefuseAfter: of(time.Minute), Text: "why"}, Rule{RefuseAfter: time.Minute, Text: "why"}, 2},
	} {
		for _, level := range []string{"encrypt", "verify", "secure match=mx.example.com", "dane-only", "fingerprint match=AA:BB"} {
			tt.text.Match, tt.text.Level = []string{"example.com"}, level
			r, err := ParseRule(tt.text, tlspolicy.Version{})
			if err != nil || r.Unreachable != tt.want.Unreachable || r.RefuseAfter != tt.want.RefuseAfter || r.Text != tt.want.Text || len(r.notes) != tt.notes {
				t.Errorf("%+v: %+v, %v", tt.text, r, err)
			}
		}
	}
	r, err := ParseRule(RuleText{Sender: []string{"@example.com"}, Unreachable: "refuse"}, tlspolicy.Version{})
	if err != nil || r.Unreachable != UnreachableRefuse || !r.Demands() || r.Level() != "encrypt" {
		t.Errorf("%+v, %v", r, err)
	}
}

func of[T any](v T) *T { return &v }

func TestRule_RecipientsRefused(t *testing.T) {
	for _, tt := range []struct {
		text       RuleText
		field, say string
	}{
		{RuleText{Unreachable: "reject"}, "unreachable", `"refuse"`},
		{RuleText{Unreachable: "Refuse"}, "unreachable", `"refuse"`},
		{RuleText{Unreachable: "refuse", Level: "may"}, "unreachable", `level "may"`},
		{RuleText{Unreachable: "defer", Level: "dane"}, "unreachable", `level = "encrypt"`},
		{RuleText{Unreachable: "defer", Level: "none"}, "unreachable", "demand TLS"},
		{RuleText{Unreachable: "refuse", Level: "exempt"}, "unreachable", "demand TLS"},
		{RuleText{Unreachable: "refuse", RefuseAfter: of(-time.Second)}, "refuse_after", "from 0s to 168h"},
		{RuleText{Unreachable: "refuse", RefuseAfter: of(169 * time.Hour)}, "refuse_after", "from 0s to 168h"},
		{RuleText{Unreachable: "refuse", Text: "two\r\n550 lines"}, "text", "one line"},
		{RuleText{Unreachable: "refuse", Text: "a\x00b"}, "text", "printable"},
		{RuleText{Unreachable: "refuse", Text: "für Sie"}, "text", "ASCII"},
		{RuleText{Unreachable: "refuse", Text: "\xff"}, "text", "ASCII"},
		{RuleText{Unreachable: "refuse", Text: strings.Repeat("a", 151)}, "text", "at most 150"},
	} {
		tt.text.Match, tt.text.Reason = []string{"example.com"}, "because"
		if tt.text.Level == "" {
			tt.text.Level = "encrypt"
		}
		_, err := ParseRule(tt.text, tlspolicy.Version{})
		var e *RuleError
		if !errors.As(err, &e) || e.Field != tt.field || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%+v: %v", tt.text, err)
		}
	}
}
