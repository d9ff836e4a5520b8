//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeTable shows all outcomes, and counts at the end.
func writeTable(out io.Writer, list []destination, outcomes []outcome) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "DESTINATION\tWHAT IS THERE\tSTOCK POSTFIX\tPOSTSEAL SAYS\tWITH POSTSEAL")
	var stock, sealed count
	for i, d := range list {
		o := outcomes[i]
		stock.add(d, o.stock)
		sealed.add(d, o.sealed)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n",
			d.domain, d.about, describe(d, o.stock), shorten(o.answer), describe(d, o.sealed))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	fmt.Fprintln(out, "Stock:         ", stock)
	_, err := fmt.Fprintln(out, "With postseal: ", sealed)
	return err
}

// count sums one column up.
type count struct{ genuine, impostor, impostors, clear, held int }

func (c *count) add(d destination, f fate) {
	switch {
	case !f.delivered:
		c.held++
	case d.impostor:
		c.impostor++
	default:
		c.genuine++
	}
	if f.cleartext {
		c.clear++
	}
	if d.impostor {
		c.impostors++
	}
}

func (c count) String() string {
	return fmt.Sprintf("%d reached the genuine server, %d of %d impostors got their message, %d went in clear, %d wait in the queue",
		c.genuine, c.impostor, c.impostors, c.clear, c.held)
}

// describe is one cell: the level, in clear or not, and whether an impostor has the message.
func describe(d destination, f fate) string {
	if !f.delivered {
		reason, _, _ := strings.Cut(f.reason, " by host ")
		reason, _, _ = strings.Cut(reason, " with ")
		return "held: " + reason
	}
	text := "sent, TLS " + strings.ToLower(f.trust)
	if f.cleartext {
		text = "sent IN CLEAR"
	}
	if d.impostor {
		text += ", to an IMPOSTOR"
	}
	return text
}

// shorten keeps the level of a reply; an empty answer leaves the matter to main.cf.
func shorten(reply string) string {
	words := strings.Fields(reply)
	if len(words) < 2 || words[0] != "OK" {
		return "-"
	}
	return words[1]
}
