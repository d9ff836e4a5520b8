package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/policy"
)

// Limits of what is found out about where mail goes.
const (
	routesAgain   = time.Hour // tables behind network services change without a sign
	routesAtOnce  = 5_000     // domains that are asked about in one go
	maxCausesTold = 20        // of rules that do not bind
	maxNamesTold  = 5         // of such rules in one line
)

// routing knows where the Postfix beside the daemon hands mail for recipients, and so
// which rules for recipients bind: smtp(8) asks for the next hop, and with a relayhost
// or an entry of transport_maps that is another than the recipient's domain.
type routing struct {
	d       *daemon
	changed chan struct{} // Postfix's configuration or ours is another one

	mu      sync.Mutex
	router  *conf.Router // nil: nothing is known
	senders []string     // settings by which the sender decides
	why     error        // the router is nil
	inert   int          // rules that do not bind
	details []string     // what /readyz tells

	told map[string]string // what the log has, by what it is about; of the goroutine of run
}

func newRouting(d *daemon) *routing {
	r := &routing{d: d, changed: make(chan struct{}, 1), why: errors.New("the configuration of Postfix has not been read"), told: map[string]string{}}
	if d.registry != nil {
		d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postseal_rules_inert",
			Help: "Rules for recipients that do not bind, because Postfix hands the mail to another host."}, func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return float64(r.inert)
		}))
	}
	return r
}

// take keeps what a snapshot of Postfix's configuration says; nil: there is no Postfix.
func (r *routing) take(s *conf.Snapshot) {
	r.mu.Lock()
	r.router, r.senders = nil, nil
	switch {
	case s == nil:
		r.why = noPostfix("there is no Postfix here")
	case len(s.Ours()) == 0:
		// It is another Postfix that asks, or none yet.
		r.why = noPostfix("no service of the Postfix here asks postseal")
	default:
		r.router, r.senders = conf.NewRouter(s), s.BySender()
	}
	r.mu.Unlock()
	if r.d.engine != nil {
		r.d.engine.Rerouted()
	}
	r.look()
}

// look has run look at the rules anew.
func (r *routing) look() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run tells which rules do not bind, at once and when that may have changed, until
// ctx ends.
func (r *routing) run(ctx context.Context) {
	tick := time.NewTicker(routesAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-tick.C:
		}
		r.tell(r.examine(ctx, r.d.config().Rules))
	}
}

// route tells where mail for a domain goes. The error says why nobody knows.
func (r *routing) route(ctx context.Context, domain string) (conf.Route, error) {
	r.mu.Lock()
	router, why := r.router, r.why
	r.mu.Unlock()
	if router == nil {
		return conf.Route{}, why
	}
	return router.Route(ctx, domain)
}

// Unbound says why rules for a destination do not bind: "relayhost = [smart.example]".
// Empty: they bind, also where there is no Postfix to be seen. In doubt, which says why,
// nobody is to be refused. It is a policy.Config.Route. A key with brackets or a port is
// what Postfix asks for itself.
func (r *routing) Unbound(ctx context.Context, destination string) (unbound, doubt string) {
	k, err := policy.ParseKey(destination)
	if err != nil || k.Brackets || k.HasPort || k.Literal {
		return "", ""
	}
	route, err := r.route(ctx, k.Name)
	switch {
	case errors.As(err, new(noPostfix)):
		return "", ""
	case err != nil:
		return "", "where Postfix hands the mail cannot be seen: " + err.Error()
	case route.Obstacle != "":
		return route.Obstacle, ""
	}
	if doubt = r.otherHosts(route); doubt != "" {
		doubt = "Postfix may deliver to other hosts: " + doubt
	}
	return "", doubt
}

// otherHosts names the setting by which mail on a route may go to other hosts than those
// that are probed, empty without one. What a sender's own relay takes is not known here.
func (r *routing) otherHosts(route conf.Route) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if route.Doubt == "" && len(r.senders) > 0 {
		return r.senders[0]
	}
	return route.Doubt
}

// noPostfix is the error where no Postfix that asks us can be seen.
type noPostfix string

func (e noPostfix) Error() string { return string(e) }

// unboundAll says the same for many domains; those of which nobody knows are left out.
func (r *routing) unboundAll(ctx context.Context, domains []string) map[string]string {
	r.mu.Lock()
	router := r.router
	r.mu.Unlock()
	why := map[string]string{}
	if router == nil {
		return why
	}
	for chunk := range slices.Chunk(domains, routesAtOnce) {
		routes, _ := router.Routes(ctx, chunk) // what could not be had is not there
		for domain, route := range routes {
			why[domain] = route.Obstacle
		}
	}
	return why
}

// inertRules says of rules why they do not bind; those that do, or of which nobody
// knows, are left out.
func (r *routing) inertRules(ctx context.Context, rules *policy.Rules) map[*policy.Rule]string {
	why := map[*policy.Rule]string{}
	for _, c := range r.examine(ctx, rules).causes {
		for _, rule := range c.rules {
			why[rule] = c.obstacle
		}
	}
	return why
}

// cause is something that keeps rules from binding.
type cause struct {
	obstacle string
	keys     []string       // what Postfix asks for instead
	instead  *policy.Rule   // which is for the first of them; nil: none
	rules    []*policy.Rule // that do not bind
}

func (c *cause) String() string {
	text := fmt.Sprintf("%s not bind: %s", count(len(c.rules), "recipient rule does", "recipient rules do"), c.obstacle)
	switch {
	case len(c.keys) == 0:
		return text
	case c.instead != nil:
		return fmt.Sprintf("%s; Postfix asks for %s, which the rule at %s is for", text, strings.Join(c.keys, ", "), c.instead.Source)
	}
	return fmt.Sprintf("%s; Postfix asks for %s: write a rule for that key", text, strings.Join(c.keys, ", "))
}

// places tells where the rules stand.
func (c *cause) places() string {
	var places []string
	for _, rule := range c.rules[:min(len(c.rules), maxNamesTold)] {
		places = append(places, rule.Source)
	}
	if more := len(c.rules) - len(places); more > 0 {
		places = append(places, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(places, ", ")
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// findings is what examine found.
type findings struct {
	causes   []*cause
	inert    int      // rules
	unknown  error    // why it is not known what binds
	doubts   []string // settings by which mail may go to other hosts than those that are probed
	senders  []string // settings by which some senders' mail goes elsewhere
	troubles []string // lists of our own domains that cannot be read
}

// domainOf is a domain whose route is that of the recipients a pattern is about, empty
// for a pattern that names the next hop itself.
func domainOf(pattern string) string {
	switch {
	case strings.HasPrefix(pattern, "mx:"):
		return conf.Elsewhere
	case strings.HasPrefix(pattern, "."):
		return "any" + pattern
	case strings.ContainsAny(pattern, "[:"):
		return ""
	}
	return pattern
}

// examine looks for rules that do not bind.
func (r *routing) examine(ctx context.Context, rules *policy.Rules) findings {
	r.mu.Lock()
	router, why, senders := r.router, r.why, r.senders
	r.mu.Unlock()
	now := time.Now()
	asked := domainsOf(rules, now)
	var f findings
	switch {
	case router == nil && slices.ContainsFunc(asked, func(a askedFor) bool { return mayRefuse(a.rule) }):
		f.unknown = why
		return f
	case router == nil || len(asked) == 0:
		return f
	}
	seen, by := map[*policy.Rule]bool{}, map[string]*cause{}
	for chunk := range slices.Chunk(asked, routesAtOnce) {
		var domains []string
		for _, a := range chunk {
			domains = append(domains, a.domain)
		}
		routes, err := router.Routes(ctx, domains)
		if err != nil && f.unknown == nil {
			f.unknown = err
		}
		for _, a := range chunk {
			route := routes[a.domain]
			if route.Obstacle == "" { // it binds, or is unknown
				doubt := r.otherHosts(route)
				if doubt != "" && mayRefuse(a.rule) && !slices.Contains(f.doubts, doubt) {
					f.doubts = append(f.doubts, doubt)
				}
				continue
			}
			instead, same := governs(rules, route.Keys(), a.rule, now)
			if same {
				continue
			}
			seen[a.rule] = true
			if by[route.Obstacle] == nil {
				by[route.Obstacle] = &cause{obstacle: route.Obstacle, keys: route.Keys(), instead: instead}
				f.causes = append(f.causes, by[route.Obstacle])
			}
			by[route.Obstacle].add(a.rule)
		}
	}
	f.inert, f.senders, f.troubles = len(seen), senders, router.Troubles()
	return f
}

// mayRefuse tells whether recipients may be refused or deferred because of a rule.
func mayRefuse(rule *policy.Rule) bool { return rule.Unreachable != policy.UnreachableQueue }

// add adds a rule, once for all its patterns.
func (c *cause) add(rule *policy.Rule) {
	if n := len(c.rules); n == 0 || c.rules[n-1] != rule {
		c.rules = append(c.rules, rule)
	}
}

// askedFor is a rule and a domain that stands for one of its patterns.
type askedFor struct {
	rule   *policy.Rule
	domain string
}

func domainsOf(rules *policy.Rules, now time.Time) []askedFor {
	var all []askedFor
	list := rules.All()
	for i := range list {
		if list[i].Expired(now) {
			continue
		}
		for _, pattern := range list[i].Match {
			if domain := domainOf(pattern); domain != "" {
				all = append(all, askedFor{&list[i], domain})
			}
		}
	}
	return all
}

// governs finds the rule for what Postfix asks for instead of a domain, and tells
// whether that is the same rule for each of the keys: then it binds.
func governs(rules *policy.Rules, keys []string, rule *policy.Rule, now time.Time) (first *policy.Rule, same bool) {
	same = len(keys) > 0
	for i, key := range keys {
		k, err := policy.ParseKey(key)
		if err != nil {
			same = false
			continue
		}
		found := rules.Find(policy.Subject{Key: k}, now).Rule
		same = same && found == rule
		if i == 0 {
			first = found
		}
	}
	return first, same
}

// tell logs what was not told before, and keeps it for /readyz and metrics.
func (r *routing) tell(f findings) {
	var details []string
	now := map[string]string{}
	say := func(log func(string, ...any), about, text string, attrs ...any) {
		now[about] = text
		details = append(details, text)
		if r.told[about] != text {
			log(text, attrs...)
		}
	}
	warn := r.d.log.Warn
	for i, c := range f.causes {
		if i == maxCausesTold {
			say(warn, "more", fmt.Sprintf("recipient rules do not bind for %s; postseal explain DOMAIN tells it", count(len(f.causes)-i, "reason more", "reasons more")))
			break
		}
		say(warn, c.obstacle, c.String(), "rules", c.places())
	}
	switch {
	case errors.As(f.unknown, new(noPostfix)):
		say(warn, "unknown", "whether recipient rules bind cannot be seen, they are taken to: "+f.unknown.Error())
	case f.unknown != nil:
		say(warn, "unknown", "whether recipient rules bind cannot be seen, so that nobody is refused or deferred because of them: "+f.unknown.Error())
	}
	for _, doubt := range f.doubts {
		say(warn, "doubt "+doubt, "Postfix may deliver to other hosts than those that are probed, so that nobody is refused or deferred because of recipient rules: "+doubt)
	}
	for _, setting := range f.senders {
		say(warn, setting, "recipient rules do not bind for senders that have a relay of their own: "+setting)
	}
	for _, trouble := range f.troubles {
		say(r.d.log.Info, trouble, trouble+"; rules for domains that are delivered here are taken to bind")
	}
	for about, text := range r.told {
		if now[about] == "" {
			r.d.log.Info("this is over", "was", text)
		}
	}
	r.told = now
	r.mu.Lock()
	r.inert, r.details = f.inert, details
	r.mu.Unlock()
}

// detail is what /readyz tells.
func (r *routing) detail() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.details)
}

// warnings are what explain tells about a key: that Postfix asks for another.
func (r *routing) warnings(ctx context.Context, x policy.Explanation) []string {
	k, err := policy.ParseKey(x.Key)
	if err != nil || k.Brackets || k.HasPort || k.Literal {
		return nil
	}
	route, err := r.route(ctx, k.Name)
	switch {
	case err != nil && (r.refuses(x.Rule) || errors.Is(err, conf.ErrUnreadable)):
		return []string{fmt.Sprintf("whether Postfix asks for %s cannot be seen: %v", k.Name, err)}
	case err != nil:
		return nil
	case route.Obstacle == "":
		if doubt := r.otherHosts(route); doubt != "" && r.refuses(x.Rule) {
			return []string{"no recipient is refused or deferred because of the rule: Postfix may deliver to other hosts than those that are probed: " + doubt}
		}
		return nil
	}
	rule := ""
	if x.Rule != nil {
		rule = "the rule does not bind: "
	}
	if keys := route.Keys(); len(keys) > 0 {
		return []string{fmt.Sprintf("%sPostfix does not ask for %s, but for %s (%s): postseal explain '%s'",
			rule, k.Name, strings.Join(keys, ", "), route.Obstacle, strings.Join(keys, "' '"))}
	}
	return []string{fmt.Sprintf("%sPostfix does not ask postseal about mail for %s: %s", rule, k.Name, route.Obstacle)}
}

// refuses tells whether a rule can refuse recipients.
func (r *routing) refuses(x *policy.RuleExplanation) bool {
	return x != nil && slices.ContainsFunc(r.d.config().Rules.All(), func(rule policy.Rule) bool {
		return rule.Source == x.Source && mayRefuse(&rule)
	})
}
