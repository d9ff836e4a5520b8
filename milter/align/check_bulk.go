package align

import (
	"net/url"
	"slices"
	"strings"
)

const (
	listUnsubscribe     = "list-unsubscribe"
	listUnsubscribePost = "list-unsubscribe-post"
)

// bulk: BLK-020, RFC 8058. Mail that says it is bulk mail is asked for one-click
// unsubscribe; mail of bulk senders is refused without.
func (c *checker) bulk() {
	if !c.Bulk && (c.NullSender || !c.bulkByHeader()) {
		return
	}
	class := Weak
	if c.Bulk {
		class = Fail
	}
	if why := c.oneClick(); why != "" {
		if !c.HeaderCut {
			c.add(OneClickMissing, class, "%s (RFC 8058 §3.1)", why)
		}
		return
	}
	// RFC 8058 §4: one valid signature covers both fields.
	rsa := slices.ContainsFunc(c.passing, isRSA)
	for _, s := range c.passing {
		if rsa && !isRSA(s) {
			continue // not everybody verifies it
		}
		if c.covers(s, listUnsubscribe) && c.covers(s, listUnsubscribePost) {
			return
		}
	}
	if c.maybe || c.temp {
		return // one that could not be verified may cover them
	}
	c.add(OneClickUnsigned, class, "no valid signature covers both List-Unsubscribe and List-Unsubscribe-Post: add them to the fields to sign (RFC 8058 §4)")
}

func (c *checker) covers(s *Signature, name string) bool {
	signed, there := c.signed(s, name)
	return signed == there
}

// bulkByHeader: what a message says about itself. It only asks for more.
func (c *checker) bulkByHeader() bool {
	if c.header.count(listUnsubscribe) > 0 || c.header.count(listUnsubscribePost) > 0 || c.header.count("list-id") > 0 {
		return true
	}
	precedence, _ := c.header.first("precedence")
	return strings.EqualFold(precedence, "bulk")
}

// oneClick says what one-click unsubscribe lacks, empty when nothing.
func (c *checker) oneClick() string {
	switch n := c.header.count(listUnsubscribe); {
	case n == 0:
		return "bulk mail without List-Unsubscribe: add it, with one HTTPS URI"
	case n > 1:
		return "there are several List-Unsubscribe fields: put all URIs into one"
	}
	value, _ := c.header.first(listUnsubscribe)
	https, http := listURIs(value)
	switch {
	case http > 0:
		return "List-Unsubscribe has an http: URI: use https"
	case https == 0:
		return "List-Unsubscribe has no HTTPS URI: add one"
	case https > 1:
		return "List-Unsubscribe has several HTTPS URIs: leave one"
	}
	switch n := c.header.count(listUnsubscribePost); {
	case n == 0:
		return "there is no List-Unsubscribe-Post: add \"List-Unsubscribe-Post: List-Unsubscribe=One-Click\""
	case n > 1:
		return "there are several List-Unsubscribe-Post fields: leave one"
	}
	if post, _ := c.header.first(listUnsubscribePost); !strings.EqualFold(post, "List-Unsubscribe=One-Click") {
		return "List-Unsubscribe-Post is not \"List-Unsubscribe=One-Click\""
	}
	return ""
}

// listURIs counts the URIs in angle brackets, RFC 2369 §2: comments may stand
// between them, and white space inside a URI is to be ignored.
func listURIs(value string) (https, http int) {
	for {
		_, rest, found := strings.Cut(value, "<")
		if !found {
			return https, http
		}
		var uri string
		if uri, value, found = strings.Cut(rest, ">"); !found {
			return https, http
		}
		u, err := url.Parse(strings.Join(strings.Fields(uri), ""))
		if err != nil || u.Host == "" {
			continue
		}
		switch u.Scheme { // url.Parse makes it lower case
		case "https":
			https++
		case "http":
			http++
		}
	}
}
