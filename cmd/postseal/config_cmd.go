package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/postseal/postseal/systemd"
)

// newConfigCommand builds `postseal config`. An error it returns is exit 2.
func newConfigCommand(opts *globalOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Read the configuration and say what is wrong with it",
		Long: `Reads the configuration as the daemon would, with the files it includes.
Everything that is wrong is named with file, line and key; exit 2. What is allowed
but hardly meant is a warning; exit 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return checkConfig(opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "Write the effective configuration, defaults included",
		Long: `Writes every key with the value that is in force, and all rules in the order in
which they are tried, as a configuration file. Passwords are replaced.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showConfig(opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	})
	return cmd
}

// configReport is `config check --json`.
type configReport struct {
	OK       bool      `json:"ok"`
	Path     string    `json:"path"` // empty: no file, the defaults
	Rules    int       `json:"rules"`
	Warnings []warning `json:"warnings"`
	Errors   []string  `json:"errors"`
}

func checkConfig(opts *globalOptions, out, errOut io.Writer) error {
	c, warnings, err := loadConfig(opts.configPath, opts.configSet)
	if err == nil {
		err = c.checkGroups()
	}
	if opts.json {
		report := configReport{OK: err == nil, Warnings: append([]warning{}, warnings...), Errors: errorTexts(err)}
		if c != nil {
			report.Path, report.Rules = c.Path, len(c.Rules.All())
		}
		if e := printJSON(out, report); e != nil {
			return e
		}
		return err
	}
	if err != nil {
		return err
	}
	showWarnings(errOut, warnings)
	if c.Path == "" {
		_, err = fmt.Fprintf(out, "%s does not exist: the defaults are in force\n", opts.configPath)
		return err
	}
	_, err = fmt.Fprintf(out, "%s: fine, %d rules\n", c.Path, len(c.Rules.All()))
	return err
}

// checkGroups tells the unix sockets that could not be opened because their group
// is not known on this machine. It is no part of reading: a configuration may be
// shown and compared where it is not used.
func (c *Config) checkGroups() error {
	groups := map[string]string{"socketmap": c.Socketmap.UnixGroup, "delegation": c.Delegation.UnixGroup,
		"milter": c.Milter.UnixGroup, "control": c.Control.UnixGroup}
	var errs []error
	for _, l := range c.listening() {
		if !slices.ContainsFunc(l.listen, func(a string) bool { return strings.HasPrefix(a, "unix:") }) {
			continue // what has no file has no group
		}
		if _, err := systemd.GroupID(groups[l.name]); err != nil {
			way, line := l.name+".unix_group", 0
			if d, err := readDocument(c.Path); err == nil {
				line = d.line(way)
			}
			errs = append(errs, &configError{c.Path, line, way, err.Error()})
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return badConfig{errors.Join(errs...)}
}

func showConfig(opts *globalOptions, out, errOut io.Writer) error {
	c, warnings, err := loadConfig(opts.configPath, opts.configSet)
	if err != nil {
		return err
	}
	showWarnings(errOut, warnings)
	if !opts.json {
		_, err = io.WriteString(out, c.TOML())
		return err
	}
	var values map[string]any
	if err := toml.Unmarshal([]byte(c.TOML()), &values); err != nil {
		return fmt.Errorf("what is shown is no TOML: %w", err)
	}
	return printJSON(out, values)
}

func showWarnings(out io.Writer, warnings []warning) {
	for _, w := range warnings {
		fmt.Fprintln(out, w)
	}
}

// errorTexts takes joined errors apart.
func errorTexts(err error) []string {
	if err == nil {
		return []string{}
	}
	if bad, ok := errors.AsType[badConfig](err); ok {
		err = bad.error
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var texts []string
	for _, e := range joined.Unwrap() {
		texts = append(texts, errorTexts(e)...)
	}
	return texts
}
