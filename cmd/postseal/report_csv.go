package main

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// csvHeader is part of the interface: columns are added at the end only.
var csvHeader = []string{
	"destination", "state", "why", "rule_source", "rule_match", "rule_sender", "rule_level", "rule_mode", "unreachable", "reason", "level_answered",
	"mx_host", "mx_port", "mx_address", "mx_level", "mx_verdict", "mx_checked", "starttls", "tls_version", "cipher", "certificate_names",
	"certificate_expires", "certificate_days", "text", "cause", "stripped", "mx_last_secured",
	"refused", "deferred", "last_refused_or_deferred", "first_asked", "last_asked", "evidence_changed",
}

// writeCSV writes a row for each destination and mail host, RFC 4180. A destination
// without known mail hosts has one row.
func (r *enforcedReport) writeCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	c.UseCRLF = true // RFC 4180 §2
	rows := [][]string{csvHeader}
	for i := range r.Destinations {
		d := &r.Destinations[i]
		hosts := d.Hosts
		if len(hosts) == 0 {
			hosts = []enforcedHost{{}}
		}
		for j := range hosts {
			rows = append(rows, d.row(&hosts[j]))
		}
	}
	return c.WriteAll(rows)
}

func (d *enforcedDestination) row(h *enforcedHost) []string {
	port, startTLS, days := "", "", ""
	if h.Host != "" {
		port = strconv.Itoa(int(h.Port))
	}
	if h.At != nil {
		startTLS = strconv.FormatBool(h.StartTLS)
	}
	if h.Days != nil {
		days = strconv.Itoa(*h.Days)
	}
	row := []string{cell(d.Destination), cell(string(d.State)), cell(d.Why), cell(d.Rule.Source), cells(d.Rule.Match), cells(d.Rule.Sender),
		cell(d.Rule.Level), d.Rule.Mode, cell(d.Rule.Unreachable), cell(d.Rule.Reason), cell(d.Level)}
	row = append(row, cell(h.Host), port, cell(h.Address), cell(h.Level), cell(h.Verdict), csvTime(h.At), startTLS, cell(h.Version), cell(h.Cipher), cells(h.Names),
		csvTime(h.Expires), days, cell(h.Text), cell(h.Cause), cell(h.Stripped), csvTime(h.Secured))
	return append(row, strconv.Itoa(d.Refused), strconv.Itoa(d.Deferred), csvTime(d.LastTurned), csvTime(d.FirstAsked), csvTime(d.LastAsked), csvTime(d.Changed))
}

// cell makes a text harmless for spreadsheets, which take what begins with one of
// these for a formula: names in certificates are whatever their owner likes.
func cell(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) {
			return '?'
		}
		return r
	}, s)
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}

func cells(list []string) string { return cell(strings.Join(list, " ")) }

func csvTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
