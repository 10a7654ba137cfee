// Package agent is the daemon and its commands: it turns the config file into a policy, hands that to package node, and does
// so again whenever there is a reason to.
//
// It refuses to hold rules or to run programs itself, and to stop healing for any error: a bad config leaves the last good
// policy in force, a failed sync is tried again.
package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/ip-masq/ip-masq-cni/pkg/flows"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// Program is one invocation: where it prints, and to whom.
type Program struct {
	Stdout io.Writer
	Stderr io.Writer
}

// command is one verb of the program.
type command struct {
	name    string
	args    string
	summary string
	flags   func() *flags
	run     func(p Program, o Options, args []string) int
}

func commands() []command {
	return []command{
		{"run", "", "keep the kernel equal to the config, for ever (the default)", func() *flags { return newFlags("run").kernel().syncing().daemon() }, Program.run},
		{"sync", "", "do so once, and exit with 0 when both are equal now", func() *flags { return newFlags("sync").kernel().syncing() }, Program.sync},
		{"render", "", "print what would be applied; the kernel is not touched", func() *flags { return newFlags("render").kernel().output() }, Program.render},
		{"status", "", "show policy, backend, drift, attachments, conflicts and counters", func() *flags { return newFlags("status").kernel().places().output() }, Program.status},
		{"explain", "", "name the verdict for --src P --dst D, and why", func() *flags { return newFlags("explain").kernel().output().packet() }, Program.explain},
		{"cleanup", "", "take everything of ours off the node", func() *flags { return newFlags("cleanup").kernel() }, Program.cleanup},
		{"lint", "FILE", "check a config file; exit with 1 on errors", func() *flags { return newFlags("lint").output() }, Program.lint},
	}
}

// Main runs the command that the arguments name and returns the exit status.
func (p Program) Main(args []string) int {
	name := "run"
	if len(args) > 0 && (args[0] == "" || args[0][0] != '-') {
		name, args = args[0], args[1:]
	}
	if slices.Contains(args, "--version") || slices.Contains(args, "-version") {
		_, _ = fmt.Fprintln(p.Stdout, "ip-masq-agent", version.String())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			return p.dispatch(c, args)
		}
	}
	if name == "help" {
		p.usage(p.Stdout)
		return exitOK
	}
	return p.misused(fmt.Errorf("unknown command %q: want one of %s", name, strings.Join(commandNames(), ", ")))
}

func commandNames() []string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return names
}

func (p Program) dispatch(c command, args []string) int {
	f := c.flags()
	f.SetOutput(io.Discard)
	positional, err := f.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		p.help(c, f)
		return exitOK
	}
	if err == nil && (len(positional) > 0) != (c.args != "") {
		err = fmt.Errorf("%s takes %s, not %q", c.name, expected(c), positional)
	}
	if err == nil && len(positional) > 1 {
		err = fmt.Errorf("%s takes one %s, not %q", c.name, c.args, positional)
	}
	if err != nil {
		return p.misused(err)
	}
	return c.run(p, f.Options, positional)
}

func expected(c command) string {
	if c.args == "" {
		return "no arguments"
	}
	return "one " + c.args
}

// misused prints one line.
func (p Program) misused(err error) int {
	_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: %v (see ip-masq-agent --help)\n", err)
	return exitUsage
}

// failed prints a failure on stderr.
func (p Program) failed(err error) int {
	_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: %v\n", err)
	return exitFailure
}

func (p Program) usage(to io.Writer) {
	_, _ = fmt.Fprintln(to, "usage: ip-masq-agent [COMMAND] [FLAGS]")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(to, "  %-12s %s\n", c.name+" "+c.args, c.summary)
	}
	_, _ = fmt.Fprintln(to, "`ip-masq-agent COMMAND --help` lists the flags; --version prints the version.")
}

func (p Program) help(c command, f *flags) {
	if c.name == "run" {
		p.usage(p.Stdout)
		_, _ = fmt.Fprintln(p.Stdout)
	}
	_, _ = fmt.Fprintf(p.Stdout, "ip-masq-agent %s %s: %s\nflags:\n", c.name, c.args, c.summary)
	f.VisitAll(func(g *flag.Flag) {
		value, usage := flag.UnquoteUsage(g)
		if usage == ignored {
			return
		}
		_, _ = fmt.Fprintf(p.Stdout, "  --%-28s %s%s\n", strings.TrimSpace(g.Name+" "+value), usage, byDefault(g))
	})
}

// byDefault mentions a default that says something.
func byDefault(g *flag.Flag) string {
	if g.DefValue == "" || g.DefValue == "false" || g.DefValue == "0" {
		return ""
	}
	return fmt.Sprintf(" (default %s)", g.DefValue)
}

// run is the daemon. It ends with 0 on SIGTERM or SIGINT and leaves the rules.
func (p Program) run(o Options, _ []string) int {
	log := p.logger(o)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	lock, err := hold(o.StateDir)
	if err != nil {
		return p.failed(err)
	}
	defer lock.Release()
	n := newNode(o, log)
	l := &loop{node: n, source: newSource(o, n, log), health: newHealth(), sentry: &sentry{options: o, log: log}, log: log}
	if o.MetricsAddress != "" {
		if err := l.health.serve(ctx, o.MetricsAddress); err != nil {
			return p.failed(err)
		}
	}
	log.Info("starting", "version", version.String(), "config", o.Config.Path, "backend", o.Backend, "sources", o.Settings.Sources)
	l.run(ctx, o.Config.Path)
	log.Info("stopping; the rules stay")
	return exitOK
}

// sync reconciles once. A bad config is reported after the last good policy was healed.
func (p Program) sync(o Options, _ []string) int {
	log := p.logger(o)
	n := newNode(o, log)
	ctx, cancel := context.WithTimeout(context.Background(), syncTime)
	defer cancel()
	source := newSource(o, n, slog.New(slog.DiscardHandler))
	policy, configErr := source.load()
	if configErr == nil {
		printFindings(p.Stderr, source.findings) // all of them warnings
	}
	result, err := n.Sync(ctx, policy)
	if err == nil && result.Former != nil {
		if _, err := n.EndFlows(ctx, *result.Former, policy); err != nil {
			log.Warn("could not end connections whose verdict changed; they keep their old address until they end", "error", err)
		}
	}
	if err := errors.Join(configErr, err); err != nil {
		return p.failed(err)
	}
	log.Debug("synced", "changed", result.Changed, "pods", result.Pods)
	return exitOK
}

func (p Program) logger(o Options) *slog.Logger {
	level := slog.LevelInfo
	if o.Verbosity >= 4 {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.Stderr, &slog.HandlerOptions{Level: level}))
}

func newNode(o Options, log *slog.Logger) *node.Node {
	return node.New(node.Options{
		StateDir: o.StateDir, DataDir: o.DataDir, Host: o.HostRoot, Choice: o.Backend, Owner: true, Defaults: o.Settings,
		Runtime: o.Cache, Flows: func() node.FlowChange { return flows.Begin(o.Flows) }, Log: log,
	})
}
