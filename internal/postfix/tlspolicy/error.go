package tlspolicy

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of errors. Every error of Parse, ParseLevel and Line.Validate is an
// *Error of one of them.
var (
	// ErrRefused: smtp(8) would refuse the line and defer all mail to the
	// destination. The writer must change it.
	ErrRefused = errors.New("tlspolicy: Postfix refuses it")
	// ErrTooNew: this Postfix would refuse it, a newer one would not. The writer
	// must leave it out, or tell the true version.
	ErrTooNew = errors.New("tlspolicy: this Postfix is too old for it")
	// ErrUnsafe: smtp(8) may take the line, but would not do what it says, or a
	// value holds bytes that could bend the line. The writer must change it.
	ErrUnsafe = errors.New("tlspolicy: Postfix would not do what it says")
)

// Error says which part of a line is wrong and what to write instead.
type Error struct {
	Kind  error  // ErrRefused, ErrTooNew or ErrUnsafe
	Token string // the part of the line, at most 80 bytes of it
	What  string // what is wrong with it
	Fix   string // what to do; may be empty
}

// Error is one line: token, problem, cure.
func (e *Error) Error() string {
	text := strings.TrimSpace(e.Token + " " + e.What)
	if e.Fix != "" {
		text += "; " + e.Fix
	}
	return text
}

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

func refuse(token, what, fix string) error {
	return &Error{Kind: ErrRefused, Token: token, What: what, Fix: fix}
}

func unsafe(token, what, fix string) error {
	return &Error{Kind: ErrUnsafe, Token: token, What: what, Fix: fix}
}

func tooNew(token, since string, v Version, fix string) error {
	what := "needs Postfix " + since + ", this is " + v.String()
	if !v.Known {
		what = "needs Postfix " + since + ", and the version of this one is unknown"
	}
	return &Error{Kind: ErrTooNew, Token: token, What: what, Fix: fix}
}

// clip quotes what came from outside, so that a message stays one short line.
func clip(text string) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

// nearest is the name within two typing errors of word, the later one where two
// are as near ("TLSv13": TLSv1.3, not TLSv1), else empty.
func nearest(word string, names []string) string {
	const most = 2
	best, at := "", most
	for _, name := range names {
		if abs(len(name)-len(word)) > most {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d <= at && d < len(name)-1 {
			best, at = name, d
		}
	}
	return best
}

// distance counts the bytes to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, above+1, row[j]+1)
			diagonal = above
		}
	}
	return row[len(b)]
}

func abs(n int) int { return max(n, -n) }
