package policy

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
)

// hintLasts is how long the DANE standing last seen may decide row D4.
const hintLasts = 7 * 24 * time.Hour

// LastSeen is the DANE standing of a domain when all of it was last known: a
// hint for row D4.A, never an answer by itself. It is immutable.
type LastSeen struct {
	At     time.Time      `json:"at"`
	Secure bool           `json:"secure_mx"`
	Hosts  []LastSeenHost `json:"hosts"` // up to dane.MaxHosts
}

// LastSeenHost is one mail host of it.
type LastSeenHost struct {
	Preference uint16     `json:"preference"`
	Name       string     `json:"name"`
	Status     statusText `json:"status"`
}

// statusText is a dane.Status that is a word in JSON, so that what is stored
// means the same to every version.
type statusText dane.Status

// MarshalText gives the word of dane.Status.String.
func (s statusText) MarshalText() ([]byte, error) { return []byte(dane.Status(s).String()), nil }

// UnmarshalText reads it, and nothing else.
func (s *statusText) UnmarshalText(text []byte) error {
	for _, known := range []dane.Status{dane.Failed, dane.Unreachable, dane.None, dane.Unusable, dane.Usable} {
		if known.String() == string(text) {
			*s = statusText(known)
			return nil
		}
	}
	return fmt.Errorf("status %.20q of a mail host: unknown", text)
}

func lastSeen(ev *dane.Evidence, now time.Time) *LastSeen {
	l := &LastSeen{At: now.Round(0).UTC(), Secure: ev.MX.Secure, Hosts: make([]LastSeenHost, 0, len(ev.MX.Hosts))}
	for i, x := range ev.MX.Hosts {
		l.Hosts = append(l.Hosts, LastSeenHost{Preference: x.Preference, Name: x.Name, Status: statusText(ev.Status(i))})
	}
	return l
}

// evidence gives the hint the form of evidence, nil when it is too old.
func (l *LastSeen) evidence(now time.Time) *dane.Evidence {
	if l == nil || now.Sub(l.At) > hintLasts {
		return nil
	}
	e := &dane.Evidence{MX: dane.MXSet{Secure: l.Secure}}
	for _, h := range l.Hosts {
		e.MX.Hosts = append(e.MX.Hosts, dane.Exchanger{Preference: h.Preference, Name: h.Name})
		e.Hosts = append(e.Hosts, &dane.Host{Name: h.Name, Status: dane.Status(h.Status)})
	}
	return e
}

// checked is a copy of a hint that somebody else wrote, its names in canonical
// form and its moment not ahead of now, or what is wrong with it.
func (l *LastSeen) checked(now time.Time) (*LastSeen, error) {
	if len(l.Hosts) > dane.MaxHosts {
		return nil, fmt.Errorf("%d mail hosts, at most %d", len(l.Hosts), dane.MaxHosts)
	}
	// STS-097: a moment ahead of now would make the hint last longer.
	c := &LastSeen{At: clampPast(l.At.Round(0).UTC(), now), Secure: l.Secure, Hosts: make([]LastSeenHost, len(l.Hosts))}
	for i, h := range l.Hosts {
		name, err := canonicalName(h.Name)
		if err != nil {
			return nil, fmt.Errorf("mail host %.100q: %w", h.Name, err)
		}
		h.Name = name
		c.Hosts[i] = h
	}
	return c, nil
}

// record writes the hint for the store.
func (l *LastSeen) record(domain string) (cache.Record, error) {
	value, err := json.Marshal(l)
	return cache.Record{Kind: kindClass, Key: domain, Value: value, Expires: l.At.Add(hintLasts)}, err
}

// readLastSeen is the inverse of record, with the checks of checked: a file can
// be damaged, or from another version.
func readLastSeen(r cache.Record, now time.Time) (*LastSeen, error) {
	var l LastSeen
	if err := json.Unmarshal(r.Value, &l); err != nil {
		return nil, err
	}
	return l.checked(now)
}
