package conf

import (
	"cmp"
	"slices"
	"strings"
)

// Problem is something in Postfix's configuration that the operator should
// know, under its id in docs/postfix-checks.md.
type Problem struct {
	ID string
	// Service is the service concerned, "relay/unix", several separated by ", ";
	// empty: all of Postfix.
	Service string
	// Text says what is so and what comes of it, in one sentence.
	Text string
	// Fix is the command that cures it, or says in words what to do. After the
	// command Postfix needs a reload.
	Fix string
	// Severe: it stops mail or makes answers void.
	Severe bool
}

// Wanted is what the daemon is going to answer; problems depend on it.
type Wanted struct {
	Floor     string // "inherit", "dane" or "encrypt"
	DANE, STS bool   // the mechanism counts in answers
	// MapNames are the socketmap's map names that get answers; empty: not checked.
	MapNames []string
	// Senders: there are rules for the mail of some senders.
	Senders bool
}

// check looks for one problem at one service that asks us. The second result
// is false where all is well.
type check struct {
	id     string
	severe bool
	look   func(s *Snapshot, sv *Service, w Wanted) (text, fix string, found bool)
}

// Problems lists what would stop mail, make answers void or surprise, most
// urgent first: what is severe before what is not, then in the order of the
// checks. Only services that ask us count, except for T21, which is about the others.
func (s *Snapshot) Problems(w Wanted) []Problem {
	var found []Problem
	for _, c := range checks {
		for _, sv := range s.Ours() {
			if text, fix, ok := c.look(s, sv, w); ok {
				found = merge(found, Problem{ID: c.id, Service: sv.ID(), Text: text, Fix: fix, Severe: c.severe})
			}
		}
	}
	found = append(found, s.senders(w)...)
	found = append(found, s.notAsking(w)...)
	slices.SortStableFunc(found, func(a, b Problem) int {
		return cmp.Compare(urgency(a), urgency(b))
	})
	return found
}

func urgency(p Problem) int {
	if p.Severe {
		return 0
	}
	return 1
}

// merge adds a problem, or only its service to one that is the same.
func merge(found []Problem, p Problem) []Problem {
	for i := range found {
		if f := &found[i]; f.ID == p.ID && f.Text == p.Text && f.Fix == p.Fix {
			f.Service += ", " + p.Service
			return found
		}
	}
	return append(found, p)
}

// set is the postconf command that gives parameters these values for a service:
// in main.cf, or in master.cf where an -o of the service makes it differ.
func (s *Snapshot) set(sv *Service, settings ...setting) string {
	var main, own []string
	for _, st := range settings {
		name := sv.name(st.param)
		if _, there := sv.Overrides[name]; there || sv.Params[name] != s.Main[name] {
			own = append(own, quote(sv.ID()+"/"+name+" = "+st.value))
		} else {
			main = append(main, quote(name+" = "+st.value))
		}
	}
	command := s.postconf()
	var commands []string
	if len(main) > 0 {
		commands = append(commands, command+"-e "+strings.Join(main, " "))
	}
	if len(own) > 0 {
		commands = append(commands, command+"-P "+strings.Join(own, " "))
	}
	return strings.Join(commands, "; ")
}

// postconf is the beginning of a command for this instance.
func (s *Snapshot) postconf() string {
	if s.ConfigDir != "/etc/postfix" {
		return "postconf -c " + quote(s.ConfigDir) + " "
	}
	return "postconf "
}

// quote makes one word of the shell of it.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
