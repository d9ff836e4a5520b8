package policy

import (
	"context"
	"fmt"
	"time"
)

// Paces and terms of the alarms about rules.
const (
	ruleLook      = 10 * time.Second   // whether there is something to look at
	ruleLookAgain = time.Hour          // at all of it at least, as the clock may be set
	expiresSoon   = 7 * 24 * time.Hour // AlarmRule
)

// ruleWatch is what the alarms about rules have come to. It belongs to watchRules.
type ruleWatch struct {
	rules    *Rules    // that were looked at
	due      time.Time // when the next of them comes near its end, or to it
	expiring map[string]bool
	again    time.Time // when all mx: patterns are looked at
	matched  map[string]mxMatched
	lost     map[string]bool // mx: patterns that match nothing any more
}

// watchRules tells of rules that end, and of mx: patterns that match nothing any
// more, until ctx ends. It waits until the store was read: the sets of mail hosts
// that are known come from it.
func (e *Engine) watchRules(ctx context.Context) {
	if e.untilLoaded(ctx) != nil {
		return
	}
	w := &ruleWatch{matched: e.readMatched(ctx)}
	tick := time.NewTicker(ruleLook)
	defer tick.Stop()
	for {
		e.lookAtRules(w, time.Now().Round(0))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (e *Engine) lookAtRules(w *ruleWatch, now time.Time) {
	p := e.plan.Load()
	changed := p.Rules != w.rules
	w.rules = p.Rules
	if changed || !now.Before(w.due) {
		e.lookForEnds(w, p, now)
	}
	if left := e.sets.takeLeft(); changed || len(left) > 0 || !now.Before(w.again) {
		w.again = now.Add(ruleLookAgain)
		e.lookForMatches(w, p.Rules, left, now)
	}
}

// lookForEnds raises the alarm about rules that end within a week, or have ended, and
// ends it for those that are gone or hold for longer. That a rule has ended is told
// when it happens too, with what holds from then on.
func (e *Engine) lookForEnds(w *ruleWatch, p *plan, now time.Time) {
	w.due = now.Add(ruleLookAgain)
	was := w.expiring // true: it had ended
	w.expiring = map[string]bool{}
	for i := range p.Rules.All() {
		r := &p.Rules.rules[i]
		if r.Until.IsZero() {
			continue
		}
		soon := r.Until.Add(-expiresSoon)
		for _, at := range []time.Time{soon, r.Until} {
			if at.After(now) && at.Before(w.due) {
				w.due = at
			}
		}
		if now.Before(soon) {
			continue
		}
		subject, ended := r.subject(), r.Expired(now)
		had, stands := was[subject]
		w.expiring[subject] = ended || w.expiring[subject]
		text := "a rule ends within a week"
		if ended {
			text = "a rule has ended and is ignored"
		}
		attrs := []any{"rule", r.Source, "level", r.Level(), "last_day", r.lastDay(), "then", p.without(r)}
		if stands && ended && !had {
			e.log.Warn(text, append([]any{"subject", subject}, attrs...)...)
		}
		e.alarms.raise(AlarmRule, subject, text, attrs...)
	}
	for subject := range was {
		if _, still := w.expiring[subject]; !still {
			e.alarms.clear(AlarmRule, subject)
		}
	}
}

// subject names a rule by what it is about, which outlasts an edit of the file.
func (r *Rule) subject() string {
	about := r.Match
	if len(about) == 0 {
		about = r.Sender
	}
	switch len(about) {
	case 0:
		return r.Source
	case 1:
		return about[0]
	}
	return fmt.Sprintf("%s and %d more", about[0], len(about)-1)
}

// lastDay is the day that until names. Until is the midnight after it, or an hour
// later where there was none.
func (r *Rule) lastDay() string { return r.Until.Add(-2 * time.Hour).Format(time.DateOnly) }

// without tells what holds for the first pattern of a rule when it has ended.
func (p *plan) without(r *Rule) string {
	if len(r.Match) == 0 {
		return "no rule for these senders"
	}
	if next := p.Rules.Find(example(r.Match[0]), r.Until).Rule; next != nil {
		return fmt.Sprintf("%s, by the rule at %s", next.Level(), next.place())
	}
	return fmt.Sprintf("no rule: DANE, MTA-STS and floor = %q", p.Floor)
}

// example is a destination that a pattern matches.
func example(text string) Subject {
	p, err := parsePattern(text)
	if err != nil {
		return Subject{} // it was parsed before
	}
	k := Key{Name: p.name, Port: 25}
	switch p.kind {
	case matchParent:
		k.Name = "any." + p.name
	case matchPort:
		k.Port, k.HasPort = p.port, true
	case matchHost:
		_, isLiteral := literal(p.name)
		k = Key{Name: p.name, Port: p.port, Brackets: true, Literal: isLiteral}
	case matchMX, matchMXBelow:
		host := p.name
		if p.kind == matchMXBelow {
			host = "any." + p.name
		}
		return Subject{Key: Key{Name: "elsewhere.invalid", Port: 25}, MX: []string{host}, MXKnown: true, MXSecure: true} // RFC 6761 §6.4: nobody's name
	}
	return Subject{Key: k}
}
