// Package install puts the CNI plugin ip-masq on a node: the binary first, proved by running it, then its entry in the
// conflist that the container runtime really loads. It repairs both for as long as it is told to, and takes them out again.
//
// It refuses to make a network of its own, to change a byte of a conflist beside its entry, to write a file in place, to
// name a binary that does not answer, to take away one that is still named, and to undo its work because it is told to end.
package install

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// Program is one invocation: where it prints, and to whom.
type Program struct {
	Stdout io.Writer
	Stderr io.Writer
}

// command is one verb of the program.
type command struct {
	name    string
	summary string
	flags   func() *flags
	run     func(p Program, ctx context.Context, o Options) error
}

func commands() []command {
	return []command{
		{"install", "the plugin goes onto the node, and its entry into the conflist", func() *flags { return newFlags("install").dryRun() }, Program.install},
		{"watch", "install, then repair for ever", func() *flags { return newFlags("watch").metrics() }, Program.watch},
		{"uninstall", "the entry goes, and the plugin when nothing needs it any more", func() *flags { return newFlags("uninstall").dryRun() }, Program.uninstall},
	}
}

// Main runs the command that the arguments name and returns the exit status.
func (p Program) Main(args []string) int {
	if len(args) == 0 {
		return p.misused(errors.New("want one of install, watch, uninstall"))
	}
	switch args[0] {
	case "--version", "-version":
		return p.printVersion()
	case "--help", "-help", "-h", "help":
		p.usage(p.Stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return p.dispatch(c, args[1:])
		}
	}
	return p.misused(fmt.Errorf("unknown command %q: want one of install, watch, uninstall", args[0]))
}

func (p Program) dispatch(c command, args []string) int {
	f := c.flags()
	f.SetOutput(io.Discard)
	err := f.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.help(c, f)
		return exitOK
	case err != nil:
		return p.misused(err)
	case f.version:
		return p.printVersion()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = c.run(p, ctx, f.Options)
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-installer: %s\n", sentence(err))
	}
	return exitCode(err)
}

// misused prints one line.
func (p Program) misused(err error) int {
	_, _ = fmt.Fprintf(p.Stderr, "ip-masq-installer: %v (see ip-masq-installer --help)\n", err)
	return exitUsage
}

func (p Program) printVersion() int {
	_, _ = fmt.Fprintln(p.Stdout, "ip-masq-installer", version.String())
	return exitOK
}

func (p Program) usage(to io.Writer) {
	_, _ = fmt.Fprintln(to, "usage: ip-masq-installer COMMAND [FLAGS]")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(to, "  %-10s %s\n", c.name, c.summary)
	}
	_, _ = fmt.Fprintln(to, "`ip-masq-installer COMMAND --help` lists the flags; --version prints the version.")
	_, _ = fmt.Fprintln(to, "exit status: 0 done, or nothing to do; 1 failed or refused; 2 usage; 3 not possible now, try again later")
}

func (p Program) help(c command, f *flags) {
	_, _ = fmt.Fprintf(p.Stdout, "ip-masq-installer %s: %s\nflags:\n", c.name, c.summary)
	f.VisitAll(func(g *flag.Flag) {
		value, usage := flag.UnquoteUsage(g)
		if g.DefValue != "" && g.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", g.DefValue)
		}
		_, _ = fmt.Fprintf(p.Stdout, "  --%-28s %s\n", strings.TrimSpace(g.Name+" "+value), usage)
	})
}

func (p Program) install(ctx context.Context, o Options) error {
	i := newInstaller(o, p.say)
	if o.DryRun {
		return i.preview(ctx, p.Stdout)
	}
	changed, err := i.pass(ctx)
	if err == nil && !changed {
		p.say("nothing to do: " + i.state())
	}
	return err
}

func (p Program) uninstall(ctx context.Context, o Options) error {
	i := newInstaller(o, p.say)
	if o.DryRun {
		return i.previewRemoval(p.Stdout)
	}
	return i.remove(ctx)
}

func (p Program) say(line string) { _, _ = fmt.Fprintln(p.Stdout, line) }
