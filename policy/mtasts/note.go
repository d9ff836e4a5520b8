package mtasts

import (
	"fmt"
	"strconv"
)

// Note is a sentence about something odd that was accepted or ignored, for the
// log and for explain. What it quotes from outside is escaped and shortened.
type Note string

const (
	maxNotes  = 20 // of one record or policy; the others are only counted
	maxQuoted = 80 // bytes of foreign text in one note or error
)

// notes collects them. A hostile policy has room for thousands of slips.
type notes struct {
	list []Note
	more int
}

func (n *notes) add(format string, args ...any) {
	if len(n.list) == maxNotes {
		n.more++
		return
	}
	n.list = append(n.list, Note(fmt.Sprintf(format, args...)))
}

func (n *notes) all() []Note {
	if n.more == 0 {
		return n.list
	}
	return append(n.list[:len(n.list):len(n.list)], Note(fmt.Sprintf("and %d more of the kind", n.more)))
}

// quote makes foreign text fit for a log line.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
