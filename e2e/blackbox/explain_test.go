package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// shape holds a JSON object to its keys and their types: the interface that scripts depend on. A type is "string",
// "number", "bool", "list", "object", or one of these with "?" for null allowed.
type shape map[string]string

var (
	explainShape = shape{"key": "string", "level": "string", "source": "string", "replies": "object", "rule": "object?", "sts": "object", "dane": "object", "warnings": "list"}
	stsShape     = shape{"state": "string", "id": "string", "mode": "string", "mx": "list", "max_age": "number", "fetched_at": "string?", "expires_at": "string?", "error": "string"}
	daneShape    = shape{"class": "string", "secure_mx": "bool", "hosts": "list"}
	hostShape    = shape{"name": "string", "preference": "number", "addresses": "list", "authentic": "bool", "tlsa": "list", "status": "string", "error": "string"}
)

func (s shape) check(t *testing.T, what string, v any) {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok {
		t.Errorf("%s is no object: %v", what, v)
		return
	}
	for key, want := range s {
		value, there := object[key]
		if !there {
			t.Errorf("%s has no %q", what, key)
			continue
		}
		kind, optional := strings.CutSuffix(want, "?")
		got := map[string]string{"string": "string", "float64": "number", "bool": "bool", "[]interface {}": "list", "map[string]interface {}": "object"}[fmt.Sprintf("%T", value)]
		if got != kind && !(optional && value == nil) {
			t.Errorf("%s.%s is %v, want %s", what, key, value, want)
		}
	}
}

// explained are destinations and what explain shows of them.
var explained = []struct {
	name, key, zone, policy, want string
	level, source, state          string
}{
	{"floor", "plain.explain.test", "plain.explain.test MX 10 mx.plain.explain.test\nmx.plain.explain.test A 192.0.2.1", "", notFound, "NOTFOUND", "floor", "absent"},
	{"dane", "dane.explain.test", "dane.explain.test MX 10 mx.dane.explain.test\nmx.dane.explain.test A 192.0.2.1\n_25._tcp.mx.dane.explain.test TLSA 3 1 1 " + sum256, "", "OK dane", "dane", "dane", "absent"},
	{"sts", "sts.explain.test", "sts.explain.test MX 10 mx.sts.explain.test\nmx.sts.explain.test A 192.0.2.1", "enforce", "OK secure match=mx.sts.explain.test servername=hostname", "secure", "sts", "enforce"},
	{"both", "both.explain.test", "both.explain.test MX 10 mx.both.explain.test\nmx.both.explain.test A 192.0.2.1\n_25._tcp.mx.both.explain.test TLSA 3 1 1 " + sum256, "enforce", "OK dane-only", "dane-only", "dane+sts", "enforce"},
	{"rule", "rule.explain.test", "rule.explain.test A 192.0.2.1", "", "OK may", "may", "rule", "absent"},
	{"testing", "testing.explain.test", "testing.explain.test MX 10 mx.testing.explain.test\nmx.testing.explain.test A 192.0.2.1", "testing", notFound, "NOTFOUND", "floor", "testing"},
	{"none", "none.explain.test", "none.explain.test MX 10 mx.none.explain.test\nmx.none.explain.test A 192.0.2.1", "none", notFound, "NOTFOUND", "floor", "none"},
	{"mx_error", "broken.explain.test", "broken.explain.test MX !servfail", "", notFound, "NOTFOUND", "error", "absent"},
	{"smart_host", "[smart.explain.test]:587", "smart.explain.test A 192.0.2.1\n_587._tcp.smart.explain.test TLSA 3 1 1 " + sum256, "", "OK dane", "dane", "dane", "absent"},
	{"nothing", "nothing.explain.test", "", "", notFound, "NOTFOUND", "floor", "absent"},
	{"literal", "[192.0.2.1]", "", "", notFound, "NOTFOUND", "floor", "off"},
}

func checkExplanation(t *testing.T, x map[string]any) {
	t.Helper()
	explainShape.check(t, "explain", x)
	stsShape.check(t, "sts", x["sts"])
	daneShape.check(t, "dane", x["dane"])
	hosts, _ := x["dane"].(map[string]any)["hosts"].([]any)
	for _, h := range hosts {
		hostShape.check(t, "host", h)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"rule": "[[rule]]\nmatch = [\"rule.explain.test\"]\nlevel = \"may\"\nreason = \"a secret contract\""})
	for _, c := range explained {
		truth.publish(t, c.zone)
		if c.policy != "" {
			publishSTS(t, c.key, "id1", policyText(c.policy, "mx."+c.key))
		}
	}
	check := func(t *testing.T, d *daemon) {
		for _, c := range explained {
			x := d.object("explain", c.key)
			checkExplanation(t, x)
			if x["key"] != c.key || x["level"] != c.level || x["source"] != c.source {
				t.Errorf("%s: key %v, level %v, source %v; want %s, %s, %s", c.name, x["key"], x["level"], x["source"], c.key, c.level, c.source)
			}
			sts := x["sts"].(map[string]any)
			if sts["state"] != c.state {
				t.Errorf("%s: sts state %v, want %s", c.name, sts["state"], c.state)
			}
			if c.policy != "" && (sts["id"] != "id1" || sts["mode"] != c.policy || fmt.Sprint(sts["mx"]) != "[mx."+c.key+"]" || sts["max_age"] != float64(604800)) {
				t.Errorf("%s: sts %v", c.name, sts)
			}
			replies, _ := x["replies"].(map[string]any)
			for _, name := range mapNames {
				if got := replies[name]; got != c.want {
					t.Errorf("%s: reply of %s is %q, want %q", c.name, name, got, c.want)
				}
			}
			if text, err := json.Marshal(x); err != nil || strings.Contains(string(text), "secret") {
				t.Errorf("%s: the reason is told: %s", c.name, text)
			}
		}
	}
	t.Run("daemon", func(t *testing.T) { check(t, d.in(t)) })
	t.Run("same_as_the_answer", func(t *testing.T) {
		for _, c := range explained {
			d.in(t).wants(c.key, c.want)
		}
	})
	t.Run("text", func(t *testing.T) {
		text := d.must("explain", "both.explain.test", "plain.explain.test")
		for _, want := range []string{"both.explain.test", "dane-only", "mx.both.explain.test", "plain.explain.test", "3 1 1"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in:\n%s", want, text)
			}
		}
		if text := d.must("explain", "rule.explain.test"); strings.Contains(text, "secret") {
			t.Error("the reason is told")
		}
	})
	t.Run("several_as_json", func(t *testing.T) {
		var all []map[string]any
		if err := json.Unmarshal([]byte(d.must("explain", "--json", "both.explain.test", "plain.explain.test")), &all); err != nil || len(all) != 2 {
			t.Errorf("%v, %v", all, err)
		}
	})
	t.Run("live", func(t *testing.T) {
		before := truth.asked("dane.explain.test", "MX")
		x := d.object("explain", "--live", "dane.explain.test")
		if x["level"] != "dane" || truth.asked("dane.explain.test", "MX") == before {
			t.Errorf("%v; asked %d times before, %d after", x["level"], before, truth.asked("dane.explain.test", "MX"))
		}
		gets := sites.gets("sts.explain.test")
		if x := d.object("explain", "--live", "sts.explain.test"); x["level"] != "secure" || sites.gets("sts.explain.test") != gets+1 {
			t.Errorf("%v after %d requests, before %d", x["level"], sites.gets("sts.explain.test"), gets)
		}
	})
	t.Run("failing_host", func(t *testing.T) {
		truth.publish(t, "fail.explain.test MX 10 mx.fail.explain.test\nmx.fail.explain.test A 192.0.2.1\n_25._tcp.mx.fail.explain.test TLSA !servfail")
		x := d.object("explain", "fail.explain.test")
		hosts := x["dane"].(map[string]any)["hosts"].([]any)
		if len(hosts) != 1 || hosts[0].(map[string]any)["error"] == "" {
			t.Errorf("%v", x["dane"])
		}
	})
	t.Run("failed_policy", func(t *testing.T) {
		truth.publish(t, "nopol.explain.test A 192.0.2.1")
		publishSTS(t, "nopol.explain.test", "id9", "")
		sites.publish("nopol.explain.test", &site{status: 404})
		x := d.object("explain", "nopol.explain.test")
		sts := x["sts"].(map[string]any)
		if sts["state"] != "failed" || !strings.Contains(fmt.Sprint(sts["error"]), "404") {
			t.Errorf("%v", sts)
		}
	})
	t.Run("mismatch", func(t *testing.T) {
		publishPlain(t, "mm.explain.test")
		publishSTS(t, "mm.explain.test", "1", enforce("mx.other.test"))
		x := d.object("explain", "mm.explain.test")
		if warnings := x["warnings"].([]any); len(warnings) == 0 || !slices.ContainsFunc(warnings, func(w any) bool { return strings.Contains(fmt.Sprint(w), "none of the mail hosts") }) {
			t.Errorf("warnings %v", warnings)
		}
	})
	t.Run("bad_key", func(t *testing.T) {
		for _, key := range []string{"a..b", "a b", ""} {
			if r := d.run("explain", key); r.code != 2 || r.err == "" {
				t.Errorf("%q: %+v", key, r)
			}
		}
		if r := d.run("explain"); r.code != 2 {
			t.Errorf("without a key: %+v", r)
		}
	})
	d.terminate()
	t.Run("without_a_daemon", func(t *testing.T) { check(t, d.in(t)) })
}
