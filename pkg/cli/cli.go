// Package cli is what the command lines of agent and installer have in common: flags with one dash or two, --version after
// every command, exit statuses, errors of one line for bad usage, and the log.
//
// It refuses to know what any command does.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// Exit statuses that every program has. Others come from errors with a method ExitCode() int.
const (
	StatusOK      = 0
	StatusFailure = 1
	StatusUsage   = 2
)

// Exit ends the program with a status and prints nothing: what is wrong is on the screen already.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode returns the status.
func (e Exit) ExitCode() int { return int(e) }

// Usage marks an error as one of the command line. It is for what a command finds out after the flags were parsed.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// failure is an error of the command itself. Everything else that cobra returns is about the command line.
type failure struct{ error }

func (e failure) Unwrap() error { return e.error }

// Execute runs the command that args name and returns the exit status. Errors go to stderr: one line for bad usage.
func Execute(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	Prepare(root)
	args, version := longFlags(root, args)
	if version {
		printVersion(root, stdout)
		return StatusOK
	}
	if args == nil {
		args = []string{} // nil would mean os.Args
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	return report(command, err, stderr)
}

func report(command *cobra.Command, err error, stderr io.Writer) int {
	if err == nil {
		return StatusOK
	}
	name := command.Root().Name()
	var failed failure
	if !errors.As(err, &failed) {
		_, _ = fmt.Fprintf(stderr, "%s: %v (see %s --help)\n", name, err, command.CommandPath())
		return StatusUsage
	}
	var exit Exit
	if !errors.As(err, &exit) {
		_, _ = fmt.Fprintf(stderr, "%s: %v\n", name, err)
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return StatusFailure
}

func printVersion(root *cobra.Command, stdout io.Writer) {
	_, _ = fmt.Fprintln(stdout, root.Name(), version.String())
}

// Prepare sets on a tree of commands what all of them have in common.
func Prepare(root *cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	if root.Args == nil {
		root.Args = unknownCommand
	}
	each(root, func(c *cobra.Command) {
		c.Flags().Bool("version", false, "print the version")
		if run := c.RunE; run != nil {
			c.RunE = func(c *cobra.Command, args []string) error { return classify(run(c, args)) }
		}
	})
}

// classify tells what a command returned from what cobra returns.
func classify(err error) error {
	var usage usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	return failure{err}
}

func each(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, child := range c.Commands() {
		each(child, do)
	}
}

// NoArgs is for a command that takes flags only.
func NoArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if err := strayValue(args[0]); err != nil {
		return err
	}
	return fmt.Errorf("%s takes no arguments, not %q", c.Name(), args)
}

// strayValue explains the value of a switch that stands apart from it.
func strayValue(arg string) error {
	if arg == "true" || arg == "false" {
		return fmt.Errorf("stray %q: a switch takes its value after \"=\", as in --switch=%s", arg, arg)
	}
	return nil
}

// OneArg is for a command that takes one argument of the given name.
func OneArg(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return fmt.Errorf("%s takes one %s, not %q", c.Name(), name, args)
	}
}

// unknownCommand is for the root, whose only arguments are the names of commands.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if err := strayValue(args[0]); err != nil {
		return err
	}
	var names []string
	for _, c := range root.Commands() {
		if c.RunE != nil { // cobra's own have none
			names = append(names, c.Name())
		}
	}
	if name := nearest(names, args[0]); name != "" {
		return fmt.Errorf("unknown command %q: did you mean %s?", args[0], name)
	}
	return fmt.Errorf("unknown command %q: want one of %s", args[0], strings.Join(names, ", "))
}

// flagError adds the nearest flag to the error for one that is not there.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	name := unknown.GetSpecifiedName()
	if known := nearest(names, name); known != "" {
		return fmt.Errorf("unknown flag --%s: did you mean --%s?", name, known)
	}
	return fmt.Errorf("unknown flag --%s", name)
}

// nearest returns the known name that is most like one that is not known, empty for none. Cobra has the comparison, for names
// of commands.
func nearest(known []string, name string) string {
	if name == "" {
		return "" // is the beginning of all
	}
	commands := &cobra.Command{}
	for _, k := range known {
		commands.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	for commands.SuggestionsMinimumDistance = 1; commands.SuggestionsMinimumDistance <= 2; commands.SuggestionsMinimumDistance++ {
		if found := commands.SuggestionsFor(name); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}
