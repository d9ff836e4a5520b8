package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter"
)

// checkTimeout bounds the look-ups for one message, SPF included.
const checkTimeout = 20 * time.Second

func newCheckMessageCommand(opts *globalOptions) *cobra.Command {
	var from, login, client string
	c := &cobra.Command{
		Use:   "check-message FILE|-",
		Short: "The milter's verdict on a message in a file",
		Long: `The milter's verdict on a message in a file, or on standard input: signatures,
alignment, and everything else that receivers refuse. For templates, and for tests
of what sends mail. Lines may end in CRLF or LF.

Exit code 1: a finding of class fail.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which message? For example: postseal check-message message.eml, or - for standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := fileEnvelope(cmd, from, login, client)
			if err != nil {
				return err
			}
			report, err := checkMessage(cmd.Context(), opts, args[0], cmd.InOrStdin(), e)
			if err != nil {
				return err
			}
			if opts.json {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = writeReport(cmd.OutOrStdout(), report)
			}
			if err == nil && report.Verdict == "fail" {
				err = &exitError{exitFindings, errors.New("")}
			}
			return err
		},
	}
	c.Flags().StringVar(&from, "sender", "", "envelope sender (MAIL FROM); <> is the null sender; default: the author's address")
	c.Flags().StringVar(&login, "login", "", "SASL login that submits the message")
	c.Flags().StringVar(&client, "client", "", "address of the client that submits the message")
	return c
}

// fileEnvelope reads the flags.
func fileEnvelope(cmd *cobra.Command, from, login, client string) (milter.Envelope, error) {
	e := milter.Envelope{Client: sender.Client{Login: login}, FromAuthor: !cmd.Flags().Changed("sender")}
	e.MailFrom = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(from), "<"), ">")
	if e.MailFrom != "" && !strings.Contains(strings.Trim(e.MailFrom, "@"), "@") {
		return e, fmt.Errorf("--sender %q is no address; the null sender is <>", from)
	}
	if client != "" {
		a, err := netip.ParseAddr(strings.Trim(client, "[]"))
		if err != nil {
			return e, fmt.Errorf("--client %q is no IP address", client)
		}
		e.Client.Addr = a.Unmap()
	}
	return e, nil
}

func checkMessage(ctx context.Context, opts *globalOptions, path string, stdin io.Reader, e milter.Envelope) (*milter.Report, error) {
	cfg, _, err := loadConfig(opts.configPath, opts.configSet)
	if err != nil {
		return nil, err
	}
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	quiet := slog.New(slog.DiscardHandler)
	r, err := resolver.New((&daemon{log: quiet}).resolverConfig(cfg))
	if err != nil {
		return nil, err
	}
	i, err := milter.New(milter.Config{DNS: milterDNS{r}, Settings: milterSettings(cfg)})
	if err != nil {
		return nil, err
	}
	defer i.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	report, err := i.ReadFile(ctx, e, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return report, nil
}

// writeReport prints the verdict first, then what to mend, then what was seen.
func writeReport(out io.Writer, r *milter.Report) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%s", r.Verdict)
	if r.From.Address != "" {
		fmt.Fprintf(w, ": From %s", r.From.Address)
	}
	fmt.Fprintln(w)
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n  %-5s %s: %s\n", f.Class, f.Name, f.Detail)
		if f.Code != "" && f.Class != "info" {
			fmt.Fprintf(w, "        receivers answer %s\n", f.Code)
		}
		if f.Action != milter.Monitor {
			fmt.Fprintf(w, "        the milter: %s\n", f.Action)
		}
	}
	fmt.Fprintln(w)
	for _, s := range r.Signatures {
		aligned := "not aligned"
		if s.Aligned {
			aligned = "aligned"
		}
		key := "key not known"
		if s.Bits > 0 {
			key = fmt.Sprintf("%d bits", s.Bits)
		}
		fmt.Fprintf(w, "signature  d=%s s=%s %s, %s: %s, %s\n", s.Domain, s.Selector, s.Algorithm, key, s.Result, aligned)
		if s.Reason != "" {
			fmt.Fprintf(w, "           %s\n", s.Reason)
		}
	}
	if len(r.Signatures) == 0 {
		fmt.Fprintln(w, "signature  none")
	}
	record := "none"
	if r.DMARC.Record != "" {
		record = fmt.Sprintf("%s (in effect: p=%s)", printableText(r.DMARC.Record), r.DMARC.Policy)
	}
	fmt.Fprintf(w, "DMARC      %s\n", record)
	return w.Flush()
}

// printableText keeps control characters of foreign text off the terminal.
func printableText(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}
