// Command postseal seals mail before it leaves a Postfix server: a daemon beside
// Postfix that tells it, per destination, which TLS policy to enforce, and why; and
// that verifies each outgoing message as the receiving world will.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	exitFine     = 0
	exitFindings = 1 // findings, or a refusal
	exitFailure  = 2 // wrong usage, or it could not be done
)

// globalOptions are the flags that every command has.
type globalOptions struct {
	configPath string
	configSet  bool // --config was given, so that the file must exist
	json       bool
}

// exitError carries an exit code other than that of a failure.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	if slices.Contains(os.Args[1:], "serve") {
		// A reload that comes before there is anything to reload must not end the
		// daemon; serve reads its configuration after it listens to signals itself.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitFine
	}
	complain(os.Stderr, err)
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitFailure
}

// complain says what failed. A place in a file stands alone at the beginning of its line.
func complain(w io.Writer, err error) {
	text := err.Error()
	switch _, bad := errors.AsType[badConfig](err); {
	case text == "":
	case bad:
		fmt.Fprintln(w, text)
	default:
		fmt.Fprintln(w, "postseal:", text)
	}
}

func newRootCommand() *cobra.Command {
	opts := &globalOptions{}
	root := &cobra.Command{
		Use:   "postseal",
		Short: "TLS policy and outgoing mail of Postfix: enforced live, verified before it leaves, explained",
		Long: `postseal runs beside Postfix. It answers its smtp_tls_policy_maps from operator
rules, DANE and MTA-STS:

  smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal

and, as the last milter of outgoing mail, verifies signatures, alignment and From:

  smtpd_milters = SIGNER, { inet:127.0.0.1:8465, default_action=accept }

Policy delegation refuses recipients that have no chance while their sender is there:

  smtpd_recipient_restrictions = check_policy_service { inet:127.0.0.1:8464, timeout=3s, default_action=DUNNO }, ...

Exit codes: 0 fine, 1 findings or refusal, 2 usage or failure.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			opts.configSet = cmd.Flags().Changed("config")
		},
	}
	root.PersistentFlags().StringVarP(&opts.configPath, "config", "c", defaultConfigPath, "configuration file")
	root.PersistentFlags().BoolVar(&opts.json, "json", false, "print a JSON object")
	root.AddCommand(
		newServeCommand(opts), newExplainCommand(opts), newCacheCommand(opts), newCheckMessageCommand(opts), newReportCommand(opts), newConfigCommand(opts),
		newReloadCommand(opts), newHealthcheckCommand(opts), newVersionCommand(opts),
	)
	refuseUnknownCommands(root)
	return root
}

// refuseUnknownCommands makes a misspelt command a failure: a script must not
// take the help, and exit code 0, for what it asked for.
func refuseUnknownCommands(c *cobra.Command) {
	if !c.HasSubCommands() {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q", c.CommandPath()+" "+args[0])
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %q?", c.CommandPath()+" "+near[0])
		}
		return fmt.Errorf("%s; %s --help lists them", text, c.CommandPath())
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	for _, sub := range c.Commands() {
		refuseUnknownCommands(sub)
	}
}
