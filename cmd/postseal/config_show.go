package main

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/postseal/postseal/policy"
)

// TOML writes the effective configuration as a file that would give the same
// one: every key, the defaults included, and all rules in the order in which they
// are tried, those of included files and of rule_map too. The password of a proxy
// is replaced by "xxxxx".
func (c *Config) TOML() string {
	var w tomlWriter
	w.text("mode", c.Mode.String())
	// The rules of the files stand below.
	w.comment("include", c.Include)
	w.list("include", nil)

	w.section("socketmap")
	w.listen(c.Socketmap.ListenConfig)
	w.duration("drain", c.Socketmap.Drain)
	w.section("delegation")
	w.listen(c.Delegation.ListenConfig)
	w.duration("deadline", c.Delegation.Deadline)
	w.milter(&c.Milter)
	w.section("http")
	w.listen(c.HTTP)
	w.section("control")
	w.text("listen", c.Control.Listen)
	w.socket(c.Control.UnixMode, c.Control.UnixGroup)
	w.destinations(c)

	w.section("cache")
	w.text("path", c.Cache.Path)
	w.section("ledger")
	w.text("path", c.Ledger.Path)
	w.reach(&c.Reach)
	w.senders(&c.Senders)
	rules := c.Rules.All()
	for i := range rules {
		w.rule(&rules[i])
	}
	return w.String()
}

// tomlWriter writes keys one a line.
type tomlWriter struct{ strings.Builder }

func (w *tomlWriter) section(name string) { fmt.Fprintf(w, "\n[%s]\n", name) }

func (w *tomlWriter) text(key, value string) { fmt.Fprintf(w, "%s = %s\n", key, quote(value)) }

func (w *tomlWriter) duration(key string, d time.Duration) { w.text(key, inSeconds(d)) }

func (w *tomlWriter) list(key string, values []string) {
	fmt.Fprintf(w, "%s = %s\n", key, quoteList(values))
}

// comment shows a value that must not be read again.
func (w *tomlWriter) comment(key string, values []string) {
	if len(values) > 0 {
		fmt.Fprintf(w, "# %s = %s\n", key, quoteList(values))
	}
}

func (w *tomlWriter) listen(c ListenConfig) {
	w.list("listen", c.Listen)
	w.socket(c.UnixMode, c.UnixGroup)
}

func (w *tomlWriter) socket(mode fs.FileMode, group string) {
	w.text("unix_mode", fmt.Sprintf("%04o", mode))
	w.text("unix_group", group)
}

// destinations writes what decides about destinations.
func (w *tomlWriter) destinations(c *Config) {
	w.section("resolver")
	w.list("servers", texts(c.Resolver.Servers))
	switch trust := c.Resolver.TrustAD.String(); trust {
	case "loopback", "always", "never":
		w.text("trust_ad", trust)
	default:
		w.list("trust_ad", strings.Split(trust, ", "))
	}
	w.text("probe", c.Resolver.Probe)

	w.section("tls_policy")
	w.text("floor", c.TLSPolicy.Floor.String())
	version := "auto"
	if v := c.TLSPolicy.PostfixVersion; v.Known {
		version = v.String()
	}
	w.text("postfix_version", version)
	if c.TLSPolicy.RuleMap != "" {
		w.comment("rule_map", []string{c.RuleMapPath()})
	}
	w.text("rule_map", "")
	w.duration("deadline", c.TLSPolicy.Deadline)

	w.section("dane")
	w.text("mode", c.DANE.Mode.String())
	w.section("mta_sts")
	w.text("mode", c.MTASTS.Mode.String())
	w.text("ca_file", c.CAFilePath())
	w.list("allow_networks", texts(c.MTASTS.AllowNetworks))
	w.text("proxy", withoutPassword(c.MTASTS.Proxy))
	w.duration("fetch_timeout", c.MTASTS.FetchTimeout)
}

func (w *tomlWriter) rule(r *policy.Rule) {
	fmt.Fprintf(w, "\n# %s\n[[rule]]\n", strings.Map(printable, r.Source))
	if len(r.Sender) > 0 {
		w.list("sender", r.Sender)
	} else {
		w.list("match", r.Match)
	}
	w.text("level", r.Level())
	if r.Exempt != 0 {
		w.list("exempt", r.Exempt.Names())
	}
	if r.Reason != "" {
		w.text("reason", r.Reason)
	}
	if !r.Until.IsZero() {
		fmt.Fprintf(w, "until = %s\n", lastDay(r.Until))
	}
	if r.Monitor {
		w.text("mode", "monitor")
	}
	if r.Unreachable != policy.UnreachableQueue {
		w.text("unreachable", r.Unreachable.String())
	}
	if r.Unreachable == policy.UnreachableRefuse {
		w.duration("refuse_after", r.RefuseAfter)
	}
	if r.Text != "" {
		w.text("text", r.Text)
	}
}

func texts[T fmt.Stringer](list []T) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.String()
	}
	return s
}

// inSeconds writes "105s", as the documentation does, rather than "1m45s".
func inSeconds(d time.Duration) string {
	if d%time.Second != 0 {
		return d.String()
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func withoutPassword(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

func quoteList(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes a basic string of TOML. strconv.Quote writes escapes that TOML
// does not have.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range strings.ToValidUTF8(text, "\ufffd") {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// printable keeps a comment on its line.
func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return '?'
	}
	return c
}
