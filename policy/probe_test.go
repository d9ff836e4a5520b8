package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// TestProbe: what is demanded is what Postfix is told, else main.cf's level; any
// destination is probed, also one without a rule.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableQueue, 0, "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		for _, c := range []struct {
			key                           string
			main                          tlspolicy.Level
			line, verdict, encrypt, error string
			asked                         []string
		}{
			{"good.test", tlspolicy.May, "may", "positive", "positive", "", []string{"mx.good.test"}},
			{"good.test", tlspolicy.Encrypt, "encrypt", "positive", "positive", "", []string{"mx.good.test"}},
			{"good.test", tlspolicy.None, "may", "positive", "positive", "", []string{"mx.good.test"}},
			{"[mx.good.test]:587", tlspolicy.May, "may", "positive", "positive", "", []string{"mx.good.test"}},
			{"bad.test", tlspolicy.May, "encrypt", "negative", "negative", "", []string{"mx.bad.test"}},
			{"two.test", tlspolicy.Verify, "verify", "unknown", "unknown", "", []string{"mx.bad.test", "mx2.two.test"}},
			{"null.test", tlspolicy.May, "may", "unknown", "unknown", "takes no mail", nil},
			{"lost.test", tlspolicy.May, "may", "unknown", "unknown", "SERVFAIL", nil},
		} {
			x, err := w.engine.Probe(context.Background(), c.key, c.main)
			if err != nil || x.Line != c.line || x.Verdict != c.verdict || x.Encrypt != c.encrypt || len(x.Hosts) != len(c.asked) ||
				!strings.Contains(x.Error, c.error) || (x.Error == "") != (c.error == "") {
				t.Errorf("%s at %s: %+v, %v", c.key, c.main, x, err)
			}
			if got := m.asked(); !slices.Equal(got, c.asked) {
				t.Errorf("%s: asked %v", c.key, got)
			}
		}
		if _, err := w.engine.Probe(context.Background(), "a..b", tlspolicy.May); !errors.Is(err, ErrNoDestination) {
			t.Errorf("no destination: %v", err)
		}
	})
}

// TestProbe_None: an engine without a Reach says so.
func TestProbe_None(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, watchZone, nil)
		defer w.stop()
		if _, err := w.engine.Probe(context.Background(), "good.test", tlspolicy.May); !errors.Is(err, ErrNoReach) {
			t.Error(err)
		}
	})
}

// TestProbe_Contract: every key is always there.
func TestProbe_Contract(t *testing.T) {
	const text, number, is, list, object, null = "string", "float64", "bool", "list", "object", "<nil>"
	probe := map[string]string{"": object, ".line": text, ".verdict": text, ".encrypt": text, ".error": text, ".hosts": list, ".other_positive": null + "|" + text, ".warnings": list}
	host := map[string]string{
		"": object, ".host": text, ".port": number, ".address": text, ".verdict": text, ".encrypt": text, ".offered": is, ".version": text, ".cipher": text, ".trust": text,
		".names": list, ".expires": null + "|" + text, ".expires_in_days": null + "|" + number, ".text": text, ".cause": text, ".stripped": text, ".at": null + "|" + text,
	}
	recipient := map[string]string{
		"": object, ".answer": text, ".withheld": text, ".unreachable": text, ".refuse_after": number, ".watched": is, ".standing": text, ".seen": text, ".doubt": text,
		".first_negative": null + "|" + text, ".last_negative": null + "|" + text, ".last_secured": null + "|" + text, ".other_positive": null + "|" + text,
	}
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableRefuse, time.Hour, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		m.expire = map[string]time.Time{"mx.good.test": time.Now().Add(time.Hour)}
		w.rcpt("bad.test")
		for _, key := range []string{"good.test", "bad.test", "two.test", "null.test"} {
			x, err := w.engine.Probe(context.Background(), key, tlspolicy.May)
			if err != nil {
				t.Fatal(err)
			}
			got := decoded(t, x)
			hasShape(t, got, probe, ".hosts[]", ".warnings[]")
			for _, h := range got.(map[string]any)["hosts"].([]any) {
				hasShape(t, h, host, ".names[]")
			}
		}
		time.Sleep(time.Minute)
		for _, key := range []string{"good.test", "bad.test"} {
			x, err := w.engine.Explain(context.Background(), key, false)
			if err != nil || x.Recipient == nil {
				t.Fatalf("%+v, %v", x, err)
			}
			hasShape(t, decoded(t, x.Recipient), recipient)
		}
		for key, says := range map[string]string{"good.test": "pass: no recipient", "bad.test": "defer: refused from the second probe on, when refuse_after (1h0m0s) has passed"} {
			if x, _ := w.engine.Explain(context.Background(), key, false); !strings.HasPrefix(x.Recipient.Summary(), says) {
				t.Errorf("%s: %s", key, x.Recipient.Summary())
			}
		}
		if x, _ := w.engine.Explain(context.Background(), "two.test", false); x.Recipient != nil {
			t.Errorf("without a rule: %+v", x.Recipient)
		}
	})
}

// TestProbe_CountsForTheRule: what an operator saw is what recipients are judged by.
func TestProbe_CountsForTheRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachPositive)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		m.show("mx.bad.test", ReachNegative) // known to be good for hours yet
		w.wantAction("bad.test", RecipientPass)
		if _, err := w.engine.Probe(context.Background(), "bad.test", tlspolicy.May); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
		w.wantAlarms(AlarmTLSLost, 1)
		x, err := w.engine.Explain(context.Background(), "bad.test", false)
		if r := x.Recipient; err != nil || r == nil || r.Answer != "defer" || r.Standing != "negative" || r.FirstNegative == nil || r.LastSecured == nil || r.Seen == "" {
			t.Errorf("%+v, %v", x.Recipient, err)
		}
	})
}
