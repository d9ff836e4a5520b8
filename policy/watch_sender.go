package policy

import (
	"strings"
	"time"
)

// senderRule is the first rule that an envelope sender is under, nil without one.
func senderRule(rs *Rules, sender []byte, now time.Time) *Rule {
	_, domain, _ := strings.Cut(string(sender), "@")
	for i := range rs.All() {
		r := &rs.rules[i]
		for _, pattern := range r.Sender {
			if !r.Expired(now) && (strings.EqualFold(pattern, "@"+domain) || strings.EqualFold(pattern, string(sender))) {
				return r
			}
		}
	}
	return nil
}
