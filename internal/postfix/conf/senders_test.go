package conf

import (
	"slices"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

const (
	senderMap   = "socketmap:inet:127.0.0.1:8463:postseal-sender"
	enforcedMap = "socketmap:inet:127.0.0.1:8463:postseal-enforced"
)

// withClasses is a Postfix that is set up for rules with sender, but for what change does.
func withClasses(change func(main, enforced map[string]string)) *Snapshot {
	main := params("sender_dependent_default_transport_maps", senderMap, "default_transport", "smtp", "transport_maps", "",
		"mydestination", "a.example", "relay_domains", "a.example")
	own := params("smtp_tls_policy_maps", enforcedMap, "smtp_tls_security_level", "encrypt")
	change(main, own)
	s := snapshot("3.11.7", main, own)
	s.Services[0].Name, s.Services[1].Name = "smtp", "enforced"
	return s
}

func wants() Wanted {
	return Wanted{Floor: "dane", DANE: true, STS: true, MapNames: []string{"postseal", EnforcedMap}, Senders: true}
}

// Each thing that keeps rules with sender from holding is told, with the command.
func TestT41_Senders(t *testing.T) {
	const addEnforced = "postconf -M 'enforced/unix=enforced unix - - n - - smtp -o smtp_tls_security_level=encrypt -o smtp_tls_policy_maps=" + enforcedMap + "'"
	for _, c := range []struct {
		name      string
		change    func(main, enforced map[string]string)
		severe    bool
		text, fix string
	}{
		{"no map", func(m, _ map[string]string) { m[senderMaps] = "" }, true, "does not name postseal", "postconf -e 'sender_dependent_default_transport_maps = " + senderMap + "'"},
		{"other maps", func(m, _ map[string]string) { m[senderMaps] = "hash:/x, hash:/y" }, true, "does not name postseal", "postconf -e 'sender_dependent_default_transport_maps = " + senderMap + ", hash:/x, hash:/y'"},
		{"wrong map", func(m, _ map[string]string) { m[senderMaps] = "socketmap:inet:localhost:8463:postseal, hash:/x" }, true, `asks for the map "postseal"`,
			"postconf -e 'sender_dependent_default_transport_maps = socketmap:inet:localhost:8463:postseal-sender, hash:/x'"},
		{"asked later", func(m, _ map[string]string) { m[senderMaps] = "hash:/x " + senderMap }, false, "hash:/x is asked before", "postconf -e 'sender_dependent_default_transport_maps = " + senderMap + ", hash:/x'"},
		{"never asked", func(m, _ map[string]string) { m[senderMaps] = "static:x: " + senderMap }, true, "static:x: is asked before", ""},
		{"another map for the service", func(_, e map[string]string) { e["smtp_tls_policy_maps"] = "socketmap:inet:127.0.0.1:8463:postseal" }, true, "can go in clear",
			"postconf -P 'enforced/unix/smtp_tls_policy_maps = " + enforcedMap + "'"},
		{"no map for the service", func(_, e map[string]string) { e["smtp_tls_policy_maps"] = "" }, true, "can go in clear", "postconf -P 'enforced/unix/smtp_tls_policy_maps = " + enforcedMap + "'"},
		{"a weak level", func(_, e map[string]string) { e["smtp_tls_security_level"] = "may" }, false, "smtp_tls_security_level = may", "postconf -P 'enforced/unix/smtp_tls_security_level = encrypt'"},
		{"a strong level", func(_, e map[string]string) { e["smtp_tls_security_level"] = "secure" }, true, "stronger than the encrypt", "postconf -P 'enforced/unix/smtp_tls_security_level = encrypt'"},
		{"a next hop", func(m, _ map[string]string) { m["default_transport"] = "smtp:[smart.example]:587" }, true, "does not go there", "postconf -e 'default_transport = smtp' 'relayhost = [smart.example]:587'"},
		{"no smtp", func(m, _ map[string]string) { m["default_transport"] = "error:closed" }, true, "is no smtp(8)", "write no [[rule]] with sender"},
		{"transports", func(m, _ map[string]string) { m["transport_maps"], m["relay_domains"] = "hash:/x", "b.example" }, false, "destinations of transport_maps and relay_domains have", enforcedMap},
	} {
		s := withClasses(c.change)
		p := s.Problems(wants())
		if i := slices.IndexFunc(p, func(p Problem) bool { return p.ID == sendersID }); i < 0 || p[i].Severe != c.severe || !strings.Contains(p[i].Text, c.text) || !strings.Contains(p[i].Fix, c.fix) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if w := wants(); true {
			w.Senders = false
			if p := s.Problems(w); slices.ContainsFunc(p, func(p Problem) bool { return p.ID == sendersID }) {
				t.Errorf("%s, without such rules: %+v", c.name, p)
			}
		}
	}
	s := withClasses(func(_, _ map[string]string) {})
	if p := s.Problems(wants()); len(p) > 0 {
		t.Errorf("all is well: %+v", p)
	}
	s.Services = s.Services[:1]
	if p := s.Problems(wants()); len(p) != 1 || !p[0].Severe || p[0].Fix != addEnforced {
		t.Errorf("no service: %+v", p)
	}
	s.Services[0].Chroot, s.endpoints = true, []string{"unix:/run/postseal/socketmap"}
	if p := s.Problems(wants()); !strings.Contains(p[0].Fix+p[1].Fix, "enforced unix - - y - - smtp -o smtp_tls_security_level=encrypt -o smtp_tls_policy_maps=proxy:socketmap:unix:/run/postseal/socketmap:postseal-enforced") {
		t.Errorf("in a chroot: %+v", p)
	}
}

// CMB-15: what a service demands that asks for postseal-enforced says nothing about
// the floor of the others.
func TestCMB15_EnforcedServices(t *testing.T) {
	s := withClasses(func(_, _ map[string]string) {})
	if l, known := s.Level(); l != tlspolicy.Dane || !known {
		t.Errorf("level %s, %t", l, known)
	}
	s.Services = s.Services[1:]
	if _, known := s.Level(); known {
		t.Error("known without a service that inherits its level")
	}
	if s = withClasses(func(main, _ map[string]string) {
		main["smtp_tls_policy_maps"], main["smtp_tls_security_level"] = enforcedMap, "none"
	}); len(s.Problems(wants())) > 0 {
		t.Errorf("postseal-enforced for everything: %+v", s.Problems(wants()))
	}
}
