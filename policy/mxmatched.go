package policy

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postseal/postseal/cache"
)

const (
	// matchedNoted is how often it is noted that a pattern still matches.
	matchedNoted = 24 * time.Hour
	// matchedLasts is after how long without a match a pattern is told to match nothing
	// any more, although no destination has gone over to other mail hosts: who is
	// written to once a month is none to tell about.
	matchedLasts = 40 * 24 * time.Hour
	// matchedKept is how long is remembered what a pattern once matched.
	matchedKept = 400 * 24 * time.Hour
)

// mxMatched is what is kept of an mx: pattern that has matched a destination.
type mxMatched struct {
	At   time.Time `json:"at"`   // when it last did
	Left bool      `json:"left"` // the last destination went over to other mail hosts
}

func (m mxMatched) record(pattern string) (cache.Record, error) {
	value, err := json.Marshal(m)
	return cache.Record{Kind: kindMXRule, Key: pattern, Value: value, Expires: m.At.Add(matchedKept)}, err
}

// readMatched reads what is kept, by pattern.
func (e *Engine) readMatched(ctx context.Context) map[string]mxMatched {
	all, now := map[string]mxMatched{}, time.Now().Round(0)
	for r, err := range e.store.All(ctx, kindMXRule) {
		if err != nil {
			e.log.Warn("what mx: rules have matched cannot be read from the store", "error", err)
			break
		}
		var m mxMatched
		if json.Unmarshal(r.Value, &m) != nil {
			continue // a file can be damaged, or from another version
		}
		m.At = clampPast(m.At, now)
		all[r.Key] = m
	}
	return all
}

// mxPatterns are the mx: patterns of the rules that hold, with the first rule of each.
type mxPatterns struct {
	all         []pattern
	rules       []*Rule
	name, below map[string]int // numbers of them by host name, and by the domain above it
}

func (rs *Rules) mxPatterns(now time.Time) *mxPatterns {
	ps := &mxPatterns{name: map[string]int{}, below: map[string]int{}}
	for i := range rs.All() {
		r := &rs.rules[i]
		if r.Expired(now) {
			continue
		}
		for _, text := range r.Match {
			p, err := parsePattern(text)
			if err != nil || p.kind != matchMX && p.kind != matchMXBelow {
				continue
			}
			index := ps.name
			if p.kind == matchMXBelow {
				index = ps.below
			}
			if _, is := index[p.name]; !is {
				index[p.name] = len(ps.all)
				ps.all, ps.rules = append(ps.all, p), append(ps.rules, r)
			}
		}
	}
	return ps
}

// mark notes the patterns that match a host.
func (ps *mxPatterns) mark(matches map[int]bool, host string) {
	if n, ok := ps.name[host]; ok {
		matches[n] = true
	}
	for parent := range parents(host) {
		if n, ok := ps.below[parent]; ok {
			matches[n] = true
		}
	}
}

// lookForMatches raises the alarm about mx: patterns that have matched a destination
// and match nothing any more: the last one went over to other mail hosts, or none was
// seen for long. left are mail hosts that a destination no longer has.
func (e *Engine) lookForMatches(w *ruleWatch, rules *Rules, left []string, now time.Time) {
	ps := rules.mxPatterns(now)
	matches, before := map[int]bool{}, map[int]bool{}
	if len(ps.all) > 0 {
		for _, known := range e.sets.all(now) {
			for _, host := range known.Hosts {
				ps.mark(matches, host)
			}
		}
		for _, host := range left {
			ps.mark(before, host)
		}
	}
	was := w.lost
	w.lost = map[string]bool{}
	for n, p := range ps.all {
		m, had := w.matched[p.text]
		switch {
		case matches[n]:
			if !had || m.Left || now.Sub(m.At).Abs() >= matchedNoted {
				e.noteMatched(w, p.text, mxMatched{At: now.UTC()})
			}
			continue
		case before[n]:
			had, m = true, mxMatched{At: now.UTC(), Left: true}
			e.noteMatched(w, p.text, m)
		}
		if had && (m.Left || now.Sub(m.At) >= matchedLasts) {
			w.lost[p.text] = true
			e.alarms.raise(AlarmUnmatched, p.text, "an mx: pattern matches no destination any more; have their mail hosts moved?",
				"rule", ps.rules[n].Source, "level", ps.rules[n].Level(), "last_matched", m.At.Format(time.RFC3339))
		}
	}
	for text := range was {
		if !w.lost[text] {
			e.alarms.clear(AlarmUnmatched, text)
		}
	}
}

func (e *Engine) noteMatched(w *ruleWatch, pattern string, m mxMatched) {
	w.matched[pattern] = m
	if r, err := m.record(pattern); err == nil {
		e.writer.add(r)
	}
}
