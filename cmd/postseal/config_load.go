package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// maxIncluded bounds how many files one configuration may include.
const maxIncluded = 1000

// warning is something in a configuration that is allowed, but hardly meant.
type warning struct {
	Place string `json:"place"` // "postseal.toml:12"
	Text  string `json:"text"`
}

func (w warning) String() string { return w.Place + ": warning: " + w.Text }

// badConfig is everything that is wrong with a configuration: a line for each,
// which begins with the file and, where there is one, its line. Nothing is
// written before it, so that an editor can jump there.
type badConfig struct{ error }

func (e badConfig) Unwrap() error { return e.error }

// configSource is what a configuration is read from.
type configSource struct {
	path string
	// explicit: the user named the file, so it must exist.
	explicit bool
	// seen is the Postfix that postfix_version = "auto" stands for, where it is
	// known: rules are checked against its grammar. See tlspolicy.Parse for what
	// holds while it is not.
	seen tlspolicy.Version
	environment
}

// loadConfig reads the configuration file. Without one at the default path the
// built-in defaults hold. The error is a badConfig.
func loadConfig(path string, explicit bool) (*Config, []warning, error) {
	c, warnings, err := configSource{path: path, explicit: explicit, environment: environment{os.Getenv, os.Geteuid()}}.load()
	if err != nil {
		return nil, nil, badConfig{err}
	}
	return c, warnings, nil
}

func (s configSource) load() (*Config, []warning, error) {
	c := defaults(s.environment)
	d, err := readDocument(s.path)
	if errors.Is(err, fs.ErrNotExist) && !s.explicit {
		return c, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return s.fill(c, d)
}

// fill reads a document and what it refers to over the defaults.
func (s configSource) fill(c *Config, d *document) (*Config, []warning, error) {
	c.Path = s.path
	r := &reading{doc: d}
	tables := r.read(c)
	version := c.TLSPolicy.PostfixVersion
	if !version.Known {
		version = s.seen
	}
	rules := r.rules(tables, version, filepath.Base(s.path))
	r.distinctAddresses(c)
	if len(r.errs) == 0 {
		r.checkCAFile(c)
	}
	r.refuseUnknown()
	errs := []error{r.err()}

	included, err := c.included(r, version)
	rules, errs = append(rules, included...), append(errs, err)
	mapped, err := c.ruleMap(r, version)
	rules, errs = append(rules, mapped...), append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	if c.Rules, err = policy.NewRules(rules); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return c, c.warnings(time.Now()), nil
}

// rules reads the [[rule]] tables of one file. name is how people call the file.
func (r *reading) rules(tables []*table, v tlspolicy.Version, name string) []policy.Rule {
	var rules []policy.Rule
	for _, t := range tables {
		if rule, ok := t.rule(v, fmt.Sprintf("%s:%d", name, r.doc.line(t.way))); ok {
			rules = append(rules, rule)
		}
	}
	return rules
}

// distinctAddresses refuses one address for two services: only one would get it.
func (r *reading) distinctAddresses(c *Config) {
	owner := map[string]string{}
	for _, s := range c.listening() {
		for i, address := range s.listen {
			if strings.HasSuffix(address, ":0") {
				continue // the kernel chooses a port for each
			}
			if other, taken := owner[address]; taken {
				r.fail(fmt.Sprintf("%s.listen[%d]", s.name, i), "%q is taken by [%s] already", address, other)
				continue
			}
			owner[address] = s.name
		}
	}
}

// listening is a section with listen.
type listening struct {
	name   string
	listen []string
}

func (c *Config) listening() []listening {
	list := []listening{
		{"socketmap", c.Socketmap.Listen}, {"delegation", c.Delegation.Listen},
		{"milter", c.Milter.Listen}, {"http", c.HTTP.Listen},
	}
	if c.Control.Listen != "" {
		list = append(list, listening{"control", []string{c.Control.Listen}})
	}
	return list
}

func (r *reading) checkCAFile(c *Config) {
	path := c.CAFilePath()
	if path == "" {
		return
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		r.fail("mta_sts.ca_file", "%v", err)
	} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		r.fail("mta_sts.ca_file", "%s: no certificate in PEM form", path)
	}
}

// included reads the files of include. They may hold [[rule]] and nothing else,
// so that everything but rules stands in one place.
func (c *Config) included(r *reading, v tlspolicy.Version) ([]policy.Rule, error) {
	var rules []policy.Rule
	var errs []error
	read := map[string]bool{}
	for i, pattern := range c.Include {
		way := fmt.Sprintf("include[%d]", i)
		paths, err := c.glob(pattern)
		if err != nil {
			errs = append(errs, &configError{c.Path, r.doc.line(way), way, err.Error()})
			continue
		}
		for _, path := range paths {
			if read[path] {
				continue // two patterns match it
			}
			if read[path] = true; len(read) > maxIncluded {
				return nil, &configError{c.Path, r.doc.line(way), way, fmt.Sprintf("more than %d files", maxIncluded)}
			}
			more, err := c.includedFile(path, v)
			rules, errs = append(rules, more...), append(errs, err)
		}
	}
	return rules, errors.Join(errs...)
}

// glob lists the files that a pattern stands for, sorted by name. Like a shell,
// and because editors leave such files, it passes over names with a leading dot.
func (c *Config) glob(pattern string) ([]string, error) {
	if pattern == "" {
		return nil, errors.New("empty; write a file name or a pattern such as \"rules.d/*.toml\"")
	}
	full := c.relative(pattern)
	if !strings.ContainsAny(pattern, `*?[`) {
		if _, err := os.Stat(full); err != nil {
			return nil, err
		}
		return []string{full}, nil
	}
	paths, err := filepath.Glob(full)
	if err != nil {
		return nil, fmt.Errorf("%.100q: %w", pattern, err)
	}
	slices.Sort(paths)
	return slices.DeleteFunc(paths, func(p string) bool { return strings.HasPrefix(filepath.Base(p), ".") }), nil
}

func (c *Config) includedFile(path string, v tlspolicy.Version) ([]policy.Rule, error) {
	d, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	r := &reading{doc: d}
	tables := r.top().sections("rule")
	name, err := filepath.Rel(filepath.Dir(c.Path), path)
	if err != nil || strings.HasPrefix(name, "..") {
		name = path
	}
	rules := r.rules(tables, v, name)
	for key := range d.values {
		if key != "rule" {
			r.fail(key, "an included file may hold only [[rule]]; write it in %s", c.Path)
			r.tables[0].keys = append(r.tables[0].keys, key)
		}
	}
	r.refuseUnknown()
	return rules, r.err()
}

// ruleMap reads the existing policy file.
func (c *Config) ruleMap(r *reading, v tlspolicy.Version) ([]policy.Rule, error) {
	path := c.RuleMapPath()
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		const key = "tls_policy.rule_map"
		return nil, &configError{c.Path, r.doc.line(key), key, err.Error()}
	}
	defer f.Close() // opened to read only: nothing can be lost
	return policy.ParseRuleMap(path, f, v)
}

// warnings lists what deserves a look.
func (c *Config) warnings(now time.Time) []warning {
	var list []warning
	for _, r := range c.Rules.Expired(now) {
		list = append(list, warning{r.Source, fmt.Sprintf("the rule for %s ended on %s and is ignored", matchText(r), lastDay(r.Until))})
	}
	for _, w := range c.Rules.Warnings() {
		list = append(list, warning{w.Source, w.Text})
	}
	for _, s := range c.listening() {
		for _, address := range s.listen {
			if s.name != "http" && !loopback(address) {
				list = append(list, warning{filepath.Base(c.Path), fmt.Sprintf("%s.listen: %q can be reached from other hosts, and the protocol has no passwords", s.name, address)})
			}
		}
	}
	return append(list, c.mailWarnings()...)
}

// lastDay is the day that until names in a rule whose Until that is: the midnight after
// the day, or an hour later where there was none.
func lastDay(until time.Time) string { return until.Add(-2 * time.Hour).Format(time.DateOnly) }

// matchText names what a rule is for, in a few words.
func matchText(r *policy.Rule) string {
	list := r.Match
	if len(r.Sender) > 0 {
		list = r.Sender
	}
	if len(list) == 1 {
		return list[0]
	}
	return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
}
